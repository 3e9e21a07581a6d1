"""A deployment in one database: its stores, its sessions, and what leads from one to another."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lash_store import (
    AsyncDeployment,
    Deployment,
    LeaseHeld,
    NewWork,
    SessionDirectory,
    SessionLease,
    SessionStore,
)
from lash_store.errors import (
    ForeignDatabaseError,
    InvalidRecordError,
    NestedTransactionError,
    StoreBusyError,
    StoreClosedError,
    StoreLostError,
    StoreOpenError,
)
from lash_store.process.tx import ProcessTx
from lash_store.session.records import SessionMeta
from lash_store.testing import ManualClock
from tests.support.databases import all_rows, run_script


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


def rows(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as connection:
        names = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        return {
            name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names
        }


def test_k_share_1_a_deployment_in_one_database(path: Path, url: str) -> None:
    with Deployment.open(url) as deployment:
        assert deployment.root == path
        session = deployment.sessions.create("chat", model="m")
        session.enqueue_work(NewWork(["x"]))
        again = deployment.sessions.open("chat")
        assert again is not None
        assert len(again.list_work()) == 1
        assert [each.file_name for each in deployment.sessions.list()] == ["chat"]
        with session.begin() as tx:
            tx.enqueue_work(NewWork(["y"]))
            assert ProcessTx.beside(tx).load_process("p") is None
            with pytest.raises(NestedTransactionError, match="beside"):
                deployment.processes.begin().__enter__()
    assert session.closed
    assert [each.name for each in path.parent.iterdir() if each.suffix == ""] == []
    assert rows(path)["lash_versions"] == 4


def test_the_asyncio_deployment_shares_it(url: str) -> None:
    async def main() -> None:
        with Deployment.open(url) as deployment:
            async with AsyncDeployment.open(url) as there:
                session = await there.sessions.create("chat", model="m")
                await session.enqueue_work(NewWork(["x"]))
                found = deployment.sessions.open("chat")
                assert found is not None
                assert len(found.list_work()) == 1
                assert await there.sessions.open("none") is None
                assert [each.file_name for each in await there.sessions.list()] == ["chat"]
                assert await there.sessions.delete("chat")

    asyncio.run(main())


def test_a_directory_makes_nothing_by_looking(path: Path, url: str) -> None:
    directory = SessionDirectory(url)
    assert directory.list() == []
    assert directory.open("chat") is None
    assert directory.delete("chat") is False
    assert not path.exists()
    path.touch()
    assert directory.list() == []
    assert path.stat().st_size == 0
    with pytest.raises(InvalidRecordError, match="no file of its own"):
        directory.path_of("chat")
    with pytest.raises(StoreOpenError, match="path"):
        SessionDirectory("sqlite://")


def test_another_programs_database_is_adopted_by_a_deployment(path: Path, url: str) -> None:
    run_script(path, "CREATE TABLE blobs (id INTEGER)")
    before = all_rows(path)
    with pytest.raises(ForeignDatabaseError):
        Deployment.open(url)
    assert all_rows(path) == before
    Deployment.open(url, adopt=True).close()
    with Deployment.open(url) as deployment:
        deployment.sessions.create("chat", model="m")
    assert rows(path)["blobs"] == 0


def test_sessions_are_listed_by_pages_with_their_meta(url: str) -> None:
    clock = ManualClock()
    directory = SessionDirectory(url, clock=clock)
    names = [f"s{at:03}" for at in range(25)]
    for name in reversed(names):
        directory.create(name, model=f"model of {name}").close()
    with SessionStore.open(url, session_id="s0001", clock=clock) as store:  # without meta
        lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert not isinstance(lease, LeaseHeld)
    found: list[Any] = []
    while page := directory.list(after=found[-1].file_name if found else "", limit=10):
        found += page
    assert [each.file_name for each in found] == names
    assert [each.meta.model for each in found] == [f"model of {name}" for name in names]
    assert directory.open("s0001") is None  # a lease alone makes no session
    opened = directory.open("s003")
    assert opened is not None
    assert opened.load_meta() == SessionMeta(
        "s003", "s003", f"unix:{clock.now_ms() // 1000}", "model of s003", str(Path.cwd())
    )
    directory.close()


def test_deleting_a_session_removes_its_rows_and_no_others(path: Path, url: str) -> None:
    directory = SessionDirectory(url)
    for name in ("a", "b"):
        store = directory.create(name, model="m")
        store.enqueue_work(NewWork([name, name]))
        store.put_artifact("artifact", kind="note", content=b"x")
        store.claim_lease(owner_id="ann", ttl_ms=60_000)
    before = rows(path)
    with pytest.raises(StoreBusyError, match=r"busy: 'ann' has the lease on 'a' until \d+ ms"):
        directory.delete("a")
    assert rows(path) == before
    one = directory.open("a")
    assert one is not None
    held = one.current_lease()
    assert held is not None
    elsewhere = one.claim_lease(owner_id="bob", ttl_ms=60_000, session_id="other")
    assert isinstance(elsewhere, SessionLease)
    one.release_lease(held.fence)
    within = rows(path)
    with pytest.raises(StoreBusyError, match=r"busy: 'bob' has the lease on 'other' until \d+ ms"):
        directory.delete("a")
    assert rows(path) == within
    one.release_lease(elsewhere.fence)
    assert directory.delete("a") is True
    assert directory.delete("a") is False
    assert directory.open("a") is None
    assert rows(path) == {
        name: count if name == "lash_versions" else count // 2 for name, count in before.items()
    }
    directory.close()


@pytest.mark.parametrize("where", ["database", "folder"])
def test_k_open_9_sessions_are_lost_with_what_was_opened(tmp_path: Path, where: str) -> None:
    place = place_in(tmp_path, where)
    with Deployment.open(place) as deployment:
        deployment.sessions.create("chat", model="m").close()
        left = move(tmp_path)
        for refused in used(deployment.sessions):
            with pytest.raises(StoreLostError, match="opened"):
                refused()
    assert names(tmp_path) == left

    async def use() -> None:
        async with AsyncDeployment.open(place) as anew:
            await anew.sessions.create("chat", model="m")
            move(tmp_path)
            with pytest.raises(StoreLostError, match="opened"):
                await anew.sessions.list()
            with pytest.raises(StoreLostError, match="opened"):
                await anew.sessions.create("other", model="m")

    asyncio.run(use())


@pytest.mark.parametrize("where", ["database", "folder"])
def test_k_open_11_a_closed_deployment_opens_no_session(tmp_path: Path, where: str) -> None:
    place = place_in(tmp_path, where)
    with Deployment.open(place) as deployment:
        deployment.sessions.create("chat", model="m").close()
    left = names(tmp_path)
    for refused in used(deployment.sessions):
        with pytest.raises(StoreClosedError, match="opened"):
            refused()

    async def use() -> None:
        async with AsyncDeployment.open(place) as anew:
            sessions = anew.sessions
            assert [each.file_name for each in await sessions.list()] != []
        with pytest.raises(StoreClosedError, match="opened"):
            await sessions.create("other", model="m")

    asyncio.run(use())
    assert names(tmp_path) == left


def used(sessions: SessionDirectory) -> list[Callable[[], object]]:
    return [
        sessions.list,
        lambda: sessions.open("chat"),
        lambda: sessions.delete("chat"),
        lambda: sessions.create("chat", model="m"),
        lambda: sessions.create("other", model="m"),
    ]


def place_in(folder: Path, where: str) -> str:
    return f"sqlite:///{folder / 'opened'}" if where == "database" else str(folder / "opened")


def move(folder: Path) -> list[str]:
    for each in sorted(folder.glob("opened*")):
        each.rename(each.with_name(f"{len(names(folder))}-{each.name}"))
    return names(folder)


def names(folder: Path) -> list[str]:
    files = (str(each.relative_to(folder)) for each in folder.rglob("*"))
    return sorted(each for each in files if not each.endswith(("-shm", "-wal")))


@pytest.mark.parametrize("url", ["postgresql+psycopg://app:s3cret@db/agents", "sqlite:///x"])
def test_k_share_1_a_deployment_that_is_not_open_shows_no_password(url: str) -> None:
    deployment = AsyncDeployment.open(url)

    async def use() -> None:
        await deployment.aclose()
        await deployment

    for refused in (
        lambda: deployment.sessions,
        lambda: deployment.root,
        lambda: asyncio.run(use()),
    ):
        with pytest.raises(StoreClosedError) as error:
            refused()
        assert url.replace(":s3cret", "").rpartition("/")[2] in str(error.value)
        assert "s3cret" not in str(error.value)
