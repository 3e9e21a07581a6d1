"""What every store of a deployment keeps of the kernel's promises: opening, reading, joining."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, MetaData, Table, Text, create_engine, insert, select

import lash_store
from lash_store import (
    AsyncEffectStore,
    AsyncProcessRegistry,
    AsyncTriggerStore,
    EffectStore,
    EffectTx,
    ProcessRegistry,
    ProcessTx,
    TriggerStore,
    TriggerTx,
)
from lash_store.errors import (
    InvalidRecordError,
    NestedTransactionError,
    NotConfiguredError,
    ReadOnlyStoreError,
    SchemaDriftError,
    SchemaVersionError,
    StoreClosedError,
    StoreEmptyError,
    StoreOpenError,
    TransactionEndedError,
)
from lash_store.testing import ManualClock, SequentialIds
from tests.support.databases import all_rows
from tests.support.registries import registration
from tests.support.triggers import draft

WRITES: dict[Any, Callable[[Any], Any]] = {
    ProcessRegistry: lambda on: on.register_process(registration()),
    TriggerStore: lambda on: on.register_subscription(draft()),
    EffectStore: lambda on: on.begin_effect("s", "k", 1),
}
READS: dict[Any, Callable[[Any], Any]] = {
    ProcessRegistry: lambda on: len(on.list_processes()),
    TriggerStore: lambda on: len(on.list_subscriptions().subscriptions),
    EffectStore: lambda on: on.count_effects(),
}
TXS: dict[Any, Any] = {ProcessRegistry: ProcessTx, TriggerStore: TriggerTx, EffectStore: EffectTx}
ASYNC: dict[Any, Any] = {
    ProcessRegistry: AsyncProcessRegistry,
    TriggerStore: AsyncTriggerStore,
    EffectStore: AsyncEffectStore,
}
mine = MetaData()
notes = Table("notes", mine, Column("text", Text))

every_store = pytest.mark.parametrize("kind", WRITES, ids=lambda kind: kind.__name__)


@every_store
@pytest.mark.parametrize("in_memory", [False, True])
def test_open_write_read_close(kind: Any, path: Path, in_memory: bool) -> None:
    store = kind.open(None if in_memory else path)
    WRITES[kind](store)
    with store.read() as tx:
        assert READS[kind](tx) == 1
        with pytest.raises(ReadOnlyStoreError):
            WRITES[kind](tx)
    store.check_schema()
    store.close()
    store.close()
    with pytest.raises(StoreClosedError):
        READS[kind](store)
    with pytest.raises(TransactionEndedError):
        READS[kind](tx)


@every_store
def test_read_only(kind: Any, path: Path) -> None:
    with pytest.raises(StoreEmptyError):
        path.touch()
        kind.open(path, read_only=True)
    with kind.open(path) as store:
        WRITES[kind](store)
    with kind.open(path, read_only=True) as reader:
        assert READS[kind](reader) == 1
        with pytest.raises(ReadOnlyStoreError):
            WRITES[kind](reader)


@pytest.mark.canonical("the version of a file")
@every_store
@pytest.mark.parametrize("other", WRITES, ids=lambda kind: kind.__name__)
def test_a_file_of_another_kind_is_refused(kind: Any, other: Any, path: Path) -> None:
    with other.open(path):
        pass
    before = all_rows(path)
    if kind is other:
        kind.open(path).close()
    else:
        with pytest.raises((SchemaVersionError, SchemaDriftError)):
            kind.open(path)
    assert all_rows(path) == before


@every_store
@pytest.mark.parametrize(
    "bad", [{"busy_timeout_ms": -1}, {"synchronous": "OFF"}, {"path": 7}], ids=str
)
def test_bad_options_are_refused(kind: Any, path: Path, bad: dict[str, Any]) -> None:
    with pytest.raises((InvalidRecordError, StoreOpenError)):
        kind.open(**{"path": path, **bad})
    if kind is EffectStore:
        with pytest.raises(InvalidRecordError):
            EffectStore.open(path, owner_id="")


@every_store
def test_a_transaction_is_all_or_nothing_with_a_consumers_table(kind: Any, path: Path) -> None:
    with kind.open(path) as store:
        with store.begin() as tx:
            mine.create_all(tx.connection)
        before = all_rows(path)
        with pytest.raises(ZeroDivisionError), store.begin() as tx:
            WRITES[kind](tx)
            tx.connection.execute(insert(notes).values(text="lost"))
            _ = 1 / 0
        assert all_rows(path) == before
        with store.begin() as tx:
            WRITES[kind](tx)
            tx.connection.execute(insert(notes).values(text="kept"))
            with pytest.raises(NestedTransactionError):
                WRITES[kind](store)
        with store.read() as tx:
            assert tx.connection.execute(select(notes.c.text)).scalars().all() == ["kept"]
            assert READS[kind](tx) == 1


@every_store
def test_k_tx_8_in_a_consumers_own_transaction(kind: Any, path: Path) -> None:
    engine = lash_store.configure(create_engine(f"sqlite:///{path}"))
    clock = ManualClock()
    with pytest.raises(ZeroDivisionError), engine.begin() as connection:
        WRITES[kind](TXS[kind].on(connection, clock=clock, ids=SequentialIds()))
        _ = 1 / 0
    with engine.begin() as connection:
        tx = TXS[kind].on(connection, clock=clock)
        assert READS[kind](tx) == 0
        WRITES[kind](tx)
        mine.create_all(connection)
    with pytest.raises(TransactionEndedError):
        READS[kind](tx)
    engine.dispose()
    with kind.open(f"sqlite:///{path}") as store:
        assert READS[kind](store) == 1
    plain = create_engine("sqlite://")
    with plain.begin() as connection, pytest.raises(NotConfiguredError):
        TXS[kind].on(connection)
    plain.dispose()


class Ambiguous:
    """Something of which nobody can say whether it is true: an array, say."""

    def __bool__(self) -> bool:
        raise ValueError("it is ambiguous")


NOTHING: tuple[Any, ...] = (None, False, 0, [], set())
"""What a look gives that has found nothing yet."""


@every_store
def test_asyncio(kind: Any, path: Path) -> None:
    async def main() -> None:
        async with ASYNC[kind].open(path) as store:
            await WRITES[kind](store)
            await store.check_schema()
            assert await store.read(READS[kind]) == 1
            assert await store.wait_until(READS[kind], timeout_ms=50) == 1
            for nothing in NOTHING:
                assert await store.wait_until(lambda _, n=nothing: n, timeout_ms=1) is None
        with pytest.raises(StoreClosedError):
            await WRITES[kind](store)

    asyncio.run(main())


@every_store
def test_wait_until_a_condition_of_ones_own(kind: Any, path: Path) -> None:
    with kind.open(path) as store:
        assert store.wait_until(READS[kind], timeout_ms=20) is None
        for nothing in NOTHING:
            assert store.wait_until(lambda _, n=nothing: n, timeout_ms=1) is None
        WRITES[kind](store)
        assert store.wait_until(READS[kind]) == 1
        ambiguous = Ambiguous()
        assert store.wait_until(lambda _: ambiguous) is ambiguous
        with pytest.raises(InvalidRecordError):
            store.wait_until(lambda _: 1, timeout_ms=-1)
        with pytest.raises(ZeroDivisionError):
            store.wait_until(lambda _: 1 / 0)
        assert not store.watch.waiters


@pytest.mark.parametrize("kind", WRITES, ids=lambda kind: kind.__name__)
def test_k_compose_3_the_clock_of_the_store(kind: Any, path: Path) -> None:
    at = ManualClock(1_000)
    with kind.open(path, clock=at) as store:
        assert store.read_clock() == 1_000
        at.advance(5)
        with store.read() as tx:
            assert store.read_clock() == tx.now_ms == 1_005

    async def main() -> None:
        async with ASYNC[kind].open(path, clock=at) as store:
            assert await store.read_clock() == 1_005

    asyncio.run(main())
    seconds = ManualClock(1_795_000_000)
    with kind.open(path, clock=seconds) as store:
        for read in (store.read_clock, lambda: WRITES[kind](store)):
            with pytest.raises(InvalidRecordError, match="looks like seconds"):
                read()
