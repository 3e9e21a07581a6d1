"""What can't be done with something that is open, or was: it is said at once, and where it is done."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, create_mock_engine

from lash_store import (
    AsyncDeployment,
    AsyncEffectStore,
    AsyncProcessRegistry,
    AsyncSessionStore,
    AsyncTriggerStore,
    Deployment,
    EffectStore,
    ProcessRegistry,
    SessionDirectory,
    SessionStore,
    TriggerStore,
    configure,
)
from lash_store.effect.tx import EffectTx
from lash_store.errors import (
    InvalidRecordError,
    NotConfiguredError,
    SchemaVersionError,
    StoreClosedError,
)
from lash_store.process.tx import ProcessTx
from lash_store.schemas import create_tables
from lash_store.session.directory import AsyncSessionDirectory
from lash_store.session.tx import SessionTx
from tests.support.databases import all_rows

SYNC: dict[str, Callable[[Path], Any]] = {
    "session": lambda path: SessionStore.open(path, session_id="s"),
    "process": ProcessRegistry.open,
    "trigger": TriggerStore.open,
    "effect": EffectStore.open,
}
ASYNC: dict[str, Callable[[Path], Any]] = {
    "session": lambda path: AsyncSessionStore.open(path, session_id="s"),
    "process": AsyncProcessRegistry.open,
    "trigger": AsyncTriggerStore.open,
    "effect": AsyncEffectStore.open,
}


@pytest.mark.parametrize("kind", SYNC)
def test_k_open_5_what_was_closed_is_not_entered_again(path: Path, kind: str) -> None:
    store = SYNC[kind](path)
    with store:
        pass
    with pytest.raises(StoreClosedError), store:
        pytest.fail("it was entered")


@pytest.mark.parametrize("kind", ASYNC)
def test_k_open_5_what_was_closed_is_not_entered_again_by_asyncio(path: Path, kind: str) -> None:
    async def main() -> None:
        store = ASYNC[kind](path)
        async with store:
            pass
        with pytest.raises(StoreClosedError):
            async with store:
                pytest.fail("it was entered")

    asyncio.run(main())


@pytest.mark.canonical("a folder of files")
def test_k_dep_1_a_deployment_that_was_closed_is_not_entered_again(tmp_path: Path) -> None:
    deployment = Deployment.open(tmp_path)
    with deployment:
        pass
    with pytest.raises(StoreClosedError, match=str(tmp_path)), deployment:
        pytest.fail("it was entered")


@pytest.mark.canonical("a folder of files")
def test_what_is_open_is_not_pickled_or_copied(tmp_path: Path) -> None:
    deployment = Deployment.open(tmp_path)
    every = [
        *(make(tmp_path / f"{kind}.db") for kind, make in SYNC.items()),
        *(make(tmp_path / f"{kind}.db") for kind, make in ASYNC.items()),
        deployment,
        AsyncDeployment.open(tmp_path),
        SessionDirectory(tmp_path / "sessions"),
        AsyncSessionDirectory(tmp_path / "sessions"),
    ]
    for each in every:
        for way in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(InvalidRecordError, match="open it where it is used"):
                way(each)
    for store in every[:4]:
        store.close()
    deployment.close()


@pytest.mark.sqlite("an engine on a path")
def test_k_tx_8_autocommit_is_told_as_that(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        store.put_blob(b"x")
    rows = all_rows(path)
    engine = configure(create_engine(f"sqlite:///{path}"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        with pytest.raises(NotConfiguredError, match="is in AUTOCOMMIT: each statement"):
            SessionTx.on(connection, session_id="s")
    engine.dispose()
    assert all_rows(path) == rows


@pytest.mark.parametrize("kind", [SessionTx, ProcessTx, EffectTx])
def test_k_share_6_beside_what_is_no_tx_is_refused_by_name(path: Path, kind: Any) -> None:
    more = {"session_id": "s"} if kind is SessionTx else {}
    with SessionStore.open(path, session_id="s") as store, store.begin() as tx:
        for given in (tx.connection, store, None, "tx"):
            with pytest.raises(InvalidRecordError, match="tx = "):
                kind.beside(given, **more)


def test_k_share_3_a_migration_that_looks_at_nothing_is_told() -> None:
    """As Alembic's are, offline: there is no database to look into."""
    mock = create_mock_engine("sqlite://", lambda *_, **__: None)
    with pytest.raises(NotConfiguredError, match=r"offline.*for PostgreSQL.*`lash-store adopt`"):
        create_tables(mock)  # type: ignore[arg-type] # reason: refused


@pytest.mark.canonical("a file for each kind")
def test_k_guard_2_a_file_of_another_kind_says_how_several_are_in_one(path: Path) -> None:
    SessionStore.open(path, session_id="s").close()
    with pytest.raises(SchemaVersionError, match="opened by its URL"):
        ProcessRegistry.open(path)
