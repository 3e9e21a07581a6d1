"""Who leads a group, whom it lets join and for how long, and what an interrupted leader leaves."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Select, event, literal, select, text

from lash_store import (
    AsyncProcessRegistry,
    AsyncSessionStore,
    NewWork,
    ProcessRegistry,
    SessionLease,
    SessionStore,
    Success,
    prepare,
)
from lash_store._backends.sqlite import dialect, leading, serving
from lash_store._backends.sqlite.connection import StoreConnection
from lash_store._backends.sqlite.fairness import WriteQueue
from lash_store._backends.sqlite.group import Group
from lash_store._backends.sqlite.turns import Hold
from lash_store._kernel.calls import LOOK_AGAIN_S, ThreadCall, ToldCall
from lash_store._kernel.observing import observed_by
from lash_store._kernel.threads import WORKS
from lash_store._wire import validating
from lash_store.errors import LeaseLostError, StorageError, StoreBusyError, StoreClosedError
from lash_store.process.records import EventType, PayloadSchema
from lash_store.session.records import SessionMeta
from lash_store.session.tx import SessionTx
from lash_store.testing import ManualClock, as_another_process, run_as_group
from tests.conformance.test_groups import NOBODYS, Recorder
from tests.support.databases import all_rows, database_of
from tests.support.registries import register, registration
from tests.support.timing import awaited_within
from tests.support.turns import PATIENCE_S, eventually, held, in_line, join, outcome, started

pytestmark = pytest.mark.sqlite("its writer, and who joins its transactions")


def locked_by_another(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def claim(store: SessionStore) -> Any:
    return store.claim_lease(owner_id="ann", ttl_ms=60_000)


def ends_of_two_claims(path: Path, bound_s: float | None) -> list[str]:
    """What is begun and ended if another thread claims while the first one's claim has the turn."""
    recorder, threads = Recorder(), list[threading.Thread]()

    class Meanwhile:
        def now_ms(self) -> int:
            if not threads:
                threads.extend(started(lambda: claim(second)))
                eventually(lambda: in_line(second) == 1)
            return 1

    with (
        SessionStore.open(path, session_id="s", clock=Meanwhile()) as first,
        SessionStore.open(path, session_id="t", clock=ManualClock()) as second,
    ):
        database_of(first).writer._bound_s = bound_s
        with observed_by(recorder):
            assert isinstance(claim(first), SessionLease)
            join(*threads)
        assert second.current_lease() is not None
    return [kind for kind in recorder.kinds if kind in {"begin", "commit", "rollback"}]


def test_k_group_1_who_comes_while_a_lone_call_runs_joins_its_transaction(path: Path) -> None:
    assert ends_of_two_claims(path, None) == ["begin", "commit"]


def test_k_group_4_nobody_joins_once_the_bound_is_reached(path: Path) -> None:
    assert ends_of_two_claims(path, 0.0) == ["begin", "commit"] * 2


def test_k_wait_3_a_try_for_the_lock_in_vain_leaves_the_version_to_be_read(path: Path) -> None:
    with SessionStore.open(path, session_id="s", busy_timeout_ms=20) as store:
        store.enqueue_work(NewWork([1]))
        writer = database_of(store).writer
        with closing(locked_by_another(path)):
            with pytest.raises(StoreBusyError):
                store.enqueue_work(NewWork([2]))
            assert writer.data_version() is not None
            assert not writer._began


@pytest.mark.parametrize("facade", ["thread", "loop"])
def test_k_tx_3_an_error_of_sqlite_at_begin_is_the_calls_own(
    path: Path, monkeypatch: pytest.MonkeyPatch, facade: str
) -> None:
    """Also of one that stands among the processes that wait, and whoever comes after it goes on."""
    with SessionStore.open(path, session_id="s") as store:
        claim(store)
        database = database_of(store)
        assert database.connections.queue is not None
        monkeypatch.setattr(WriteQueue, "may_try", lambda queue, now_s: False)

        def fail(queue: object, connection: object, now_s: float, budget_s: float) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        async def in_loop() -> None:
            async with AsyncSessionStore.open(path, session_id="s") as same:
                await same.enqueue_work(NewWork([1]))

        with monkeypatch.context() as patched:
            patched.setattr(WriteQueue, "try_begin", fail)
            refused = outcome(
                (lambda: asyncio.run(asyncio.wait_for(in_loop(), PATIENCE_S)))
                if facade == "loop"
                else (lambda: store.enqueue_work(NewWork([1])))
            )
        assert "disk I/O error" in str(refused)
        assert database.writer.turns.is_free
        monkeypatch.undo()
        store.enqueue_work(NewWork([2]))
        assert len(all_rows(path)["queued_work_batches"]) == 1


def test_k_group_3_what_is_put_back_leaves_nothing_begun(store: SessionStore) -> None:
    claim(store)
    database, hold, group = database_of(store), Hold(), Group()
    writer, connection = database.writer, database.connections.writer
    assert connection is not None
    call = ThreadCall(store._handle, "claim_lease", lambda _: None, budget_s=PATIENCE_S)
    assert writer.turns.try_take(hold)
    writer._began, writer._group = True, group
    connection.begin(dialect.BEGIN_WRITE)
    assert call.take(group)
    group.calls.append(call)
    writer._put_back(connection, group.calls, group)
    assert not connection.in_transaction
    assert vars(writer)["_group"] is None
    assert not vars(writer)["_began"]
    assert call.waits
    assert call.alone
    assert writer.turns.first() is call
    assert call.take(call)
    assert writer.turns.first() is None
    assert writer.turns.give_back(hold)
    assert writer.data_version() is not None


@pytest.mark.parametrize("behind_s", [0.0, LOOK_AGAIN_S / 2])
def test_k_tx_10_a_thread_within_its_budget_is_not_passed_over(
    store: SessionStore, behind_s: float
) -> None:
    writer = database_of(store).writer
    call = ThreadCall(store._handle, None, lambda _: None, budget_s=-behind_s)
    writer.turns.waiting.append(call)
    writer._pass_over_overdue()
    assert call.waits
    call.take(call)


def test_k_tx_10_a_thread_that_should_have_given_up_long_ago_is_passed_over(
    store: SessionStore,
) -> None:
    """An interrupt may have struck before it withdrew its call: others wait behind it."""
    writer = database_of(store).writer
    gone = ThreadCall(store._handle, None, lambda _: None, budget_s=-2 * LOOK_AGAIN_S)
    writer.turns.waiting.append(gone)
    begun_s = time.monotonic()
    assert isinstance(claim(store), SessionLease)
    assert time.monotonic() - begun_s < PATIENCE_S
    assert not gone.waits


@pytest.mark.parametrize("how", ["call", "block", "close"])
def test_k_tx_3_who_sleeps_past_its_budget_is_told_so_though_others_have_passed_over_it(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A busy machine may keep a thread from running for longer than its budget."""
    writer, wait, told = database_of(store).writer, ThreadCall.wait, list[Any]()

    def sleep_past_its_budget(call: ThreadCall, until_s: float) -> None:
        if call.waits:
            call.deadline_s = time.monotonic() - 1
            writer._pass_over_overdue()
        wait(call, until_s)

    def enter() -> None:
        with store.begin():
            raise AssertionError

    calls = {"call": lambda: store.enqueue_work(NewWork([1])), "block": enter, "close": store.close}
    with held(store):
        monkeypatch.setattr(ThreadCall, "wait", sleep_past_its_budget)
        join(*started(lambda: told.append(outcome(calls[how]))))
    monkeypatch.undo()
    assert [type(each) for each in told] == [StoreBusyError]
    assert store.enqueue_work(NewWork([2])) is not None


class Struck(Exception):  # noqa: N818 # reason: what an application's own handler raises
    """What a signal handler raises."""


def _strike(*_: object) -> None:
    raise Struck


class Striking:
    """A handler that is no function."""

    def strike(self, *_: object) -> None:
        raise Struck

    __call__ = strike


@contextmanager
def struck() -> Iterator[None]:
    """A block that a handler's exception has to leave as it is."""
    before = signal.signal(signal.SIGUSR1, _strike)
    try:
        with pytest.raises(Struck):
            yield
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.posix
@pytest.mark.parametrize(
    ("what", "striking"),
    [
        ("best_match", lambda _: signal.raise_signal(signal.SIGUSR1)),
        ("partial", lambda *_, **__: lambda _: signal.raise_signal(signal.SIGUSR1)),
    ],
    ids=["a payload is checked", "a schema is"],
)
def test_k_tx_10_what_a_handler_raises_as_a_payload_is_checked_is_not_of_the_schema(
    path: Path, monkeypatch: pytest.MonkeyPatch, what: str, striking: Any
) -> None:
    schema = {"title": what}
    with ProcessRegistry.open(f"{path}-registry") as registry:
        register(registry, event_types=[EventType("e", PayloadSchema(schema))])
        validating.compile_schema.cache_clear()
        monkeypatch.setattr(validating, what, striking)
        with struck():
            registry.append_event("p", "e", [1, 2], replay_key="k")
        monkeypatch.undo()
        assert registry.recent_events("p") == []
        assert registry.append_event("p", "e", [1, 2], replay_key="k").event.sequence == 1


@pytest.mark.posix
def test_k_tx_10_what_a_handler_raises_as_a_statement_is_prepared_is_not_of_the_builder(
    store: SessionStore,
) -> None:
    calls = iter(range(9))

    @prepare
    def struck_once() -> Select[int]:
        if next(calls) == 0:
            signal.raise_signal(signal.SIGUSR1)
        return select(literal(1))

    with struck(), store.read() as tx:
        struck_once.one(tx.cursor)
    with store.read() as tx:
        assert struck_once.one(tx.cursor) == (1,)


@pytest.mark.posix
@pytest.mark.parametrize(
    "handler",
    [_strike, Striking(), Striking().strike, partial(_strike, 1)],
    ids=["function", "object", "method", "partial"],
)
def test_k_tx_10_what_a_signal_handler_raises_is_its_threads_and_no_call_s(
    store: SessionStore, handler: Any
) -> None:
    """It may strike as that thread does another one's call: that is done again, and its caller hears nothing."""

    class StruckClock:
        def now_ms(self) -> int:
            if threading.current_thread() is threading.main_thread():
                signal.raise_signal(signal.SIGUSR1)
            return 1_700_000_000_000

    told = list[Any]()
    with SessionStore.open(store, session_id="other", clock=StruckClock()) as other:
        threads = list[threading.Thread]()

        def work(_: object) -> None:
            if not threads:
                threads.extend(started(lambda: told.append(outcome(lambda: claim(other)))))
                eventually(lambda: in_line(store) == 1)

        before = signal.signal(signal.SIGUSR1, handler)
        try:
            for _ in range(2):
                with pytest.raises(Struck):
                    store.transact(work, repeatable=True)
                join(*threads)
                threads.clear()
        finally:
            signal.signal(signal.SIGUSR1, before)
    assert [type(each) for each in told] == [SessionLease, SessionLease]
    assert isinstance(claim(store), SessionLease)


def test_k_tx_11_whatever_goes_wrong_as_it_is_undone_a_call_of_a_loop_is_answered(
    path: Path,
) -> None:
    """Or nobody in a loop would ever be answered again: the thread that leads for all of them is gone."""
    undone = list[object]()

    def fail(connection: object) -> None:
        undone.append(connection)
        raise ZeroDivisionError

    def work(tx: SessionTx) -> None:
        tx.connection.execute(text("SELECT 1"))
        SessionTx.beside(tx, session_id="other").connection.execute(text("SELECT 1"))
        raise KeyError

    async def main() -> None:
        async with AsyncSessionStore.open(f"sqlite:///{path}", session_id="s") as store:
            event.listen(Engine, "rollback", fail)
            try:
                with pytest.raises(ZeroDivisionError):
                    await asyncio.wait_for(store.transact(work), PATIENCE_S)
            finally:
                event.remove(Engine, "rollback", fail)
            assert len(undone) == 2  # each is told, whatever the one before has raised
            assert await store.enqueue_work(NewWork([1])) is not None

    asyncio.run(main())


def test_k_group_1_a_group_for_tests_has_a_bound_of_its_own(
    store: SessionStore, path: Path
) -> None:
    writer = database_of(store).writer
    seen: list[float | None] = []

    def work(_: object) -> None:
        seen.append(writer._bound_s)

    writer.write_together([(store._handle, "renew_lease", work)] * 2)
    assert seen == [inf, inf]
    assert writer._bound_s is None


def test_k_group_2_a_snapshot_in_memory_waits_for_its_own_turn(clock: ManualClock) -> None:
    """Nobody else runs it: it holds the turn until its end."""
    got: list[Any] = []
    threads = list[threading.Thread]()

    class Meanwhile:
        def now_ms(self) -> int:
            if not threads:
                threads.extend(started(lambda: got.append(outcome(store.current_lease))))
                eventually(lambda: in_line(store) == 1)
            return 1

    with SessionStore.open(None, session_id="s", clock=Meanwhile()) as store:
        lease = claim(store)
        join(*threads)
        assert got == [lease]


def test_k_tx_10_a_snapshot_in_memory_that_was_dropped_is_ended_by_the_next(
    clock: ManualClock,
) -> None:
    with SessionStore.open(None, session_id="s", clock=clock) as store:
        claim(store)
        database, hold = database_of(store), Hold()
        connection = database.writer.begin_read(store._handle, hold, "read", budget_s=1)
        assert connection.in_transaction
        del hold
        assert store.enqueue_work(NewWork([1])) is not None


def test_k_tx_3_a_block_that_stood_in_line_waits_for_another_process_too(
    path: Path, store: SessionStore
) -> None:
    claim(store)
    writer, hold, is_begun, may_end = database_of(store).writer, Hold(), [], threading.Event()

    def block() -> None:
        with store.begin():
            is_begun.append(1)
            assert may_end.wait(PATIENCE_S)

    assert writer.turns.try_take(hold)
    threads = started(block)
    eventually(lambda: in_line(store) == 1)
    with closing(locked_by_another(path)) as other:
        writer.give_back(hold)
        eventually(lambda: writer.turns.is_free and in_line(store) == 1)
        time.sleep(2 * LOOK_AGAIN_S)
        assert is_begun == []
        other.rollback()
        eventually(lambda: is_begun)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    may_end.set()
    join(*threads)


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), MemoryError("none")])
def test_k_tx_3_an_error_of_a_later_try_is_the_calls_own(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The timer tries for an event loop's call, and goes on with others'."""
    tries: list[float] = []

    def fail(queue: object, connection: object, now_s: float, budget_s: float) -> float:
        tries.append(now_s)
        if len(tries) < 3:
            return 0.001
        raise error

    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            await store.enqueue_work(NewWork([1]))
            with monkeypatch.context() as patched:
                patched.setattr(WriteQueue, "may_try", lambda queue, now_s: False)
                patched.setattr(WriteQueue, "try_begin", fail)
                with pytest.raises(Exception, match=str(error)):
                    await asyncio.wait_for(store.enqueue_work(NewWork([2])), PATIENCE_S)
            await asyncio.wait_for(store.enqueue_work(NewWork([3])), PATIENCE_S)

    asyncio.run(main())
    assert len(tries) == 3
    assert len(all_rows(path)["queued_work_batches"]) == 2


def test_k_tx_10_a_loops_call_goes_on_though_its_leader_is_gone(
    path: Path, store: SessionStore
) -> None:
    """Whoever had the turn was interrupted and woke nobody: the timer sees that."""

    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as looped:
            await looped.enqueue_work(NewWork([1]))
            writer, hold = database_of(store).writer, Hold()
            await asyncio.to_thread(eventually, lambda: not writer._looked_after)
            assert await asyncio.to_thread(writer.turns.try_take, hold)
            task = asyncio.ensure_future(looped.enqueue_work(NewWork([2])))
            await asyncio.to_thread(eventually, lambda: len(writer.turns.waiting) == 1)
            assert not writer._scheduled
            del hold
            await asyncio.wait_for(task, PATIENCE_S / 6)
            await asyncio.to_thread(eventually, lambda: not writer._looked_after)

    asyncio.run(main())
    assert len(all_rows(path)["queued_work_batches"]) == 2


def test_k_group_5_work_that_takes_long_holds_up_other_work_alone(tmp_path: Path) -> None:
    """Neither operations nor opening, nor those who wait for another process; nor what it asks for itself."""
    go = threading.Event()

    async def main() -> None:
        stores = [
            await AsyncSessionStore.open(tmp_path / f"{at}.db", session_id="s")
            for at in range(WORKS.most + 1)
        ]
        last = stores.pop()
        others = iter(stores)

        def long(tx: SessionTx) -> SessionMeta | None:
            go.wait(PATIENCE_S)
            return asyncio.run(next(others).read(lambda tx: tx.load_meta()))

        waits = [asyncio.ensure_future(each.read(long)) for each in stores]
        await asyncio.to_thread(eventually, lambda: WORKS._unserved == WORKS.most)
        async with AsyncSessionStore.open(tmp_path / "new.db", session_id="s") as made:
            await made.enqueue_work(NewWork([1]))
        async with AsyncProcessRegistry.open(tmp_path / "p.db") as registry:
            await registry.register_process(registration("p"))
            ended = asyncio.ensure_future(registry.await_process("p", timeout_ms=60_000))
            await asyncio.sleep(0.05)
            with as_another_process(), ProcessRegistry.open(tmp_path / "p.db") as elsewhere:
                elsewhere.complete_process("p", Success(1))
            assert await asyncio.wait_for(ended, PATIENCE_S) is not None
        await last.enqueue_work(NewWork([1]))
        assert WORKS._unserved == WORKS.most
        go.set()
        assert await asyncio.wait_for(asyncio.gather(*waits), PATIENCE_S) == [None] * WORKS.most
        for each in (*stores, last):
            await each.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("where", ["file", "memory"])
def test_k_group_5_nobody_waits_behind_work_for_which_no_thread_is_free(
    tmp_path: Path, where: str
) -> None:
    """Whatever the others on its file do meanwhile; and it comes to its turn, in order, or ends."""
    go, done = threading.Event(), list[str]()

    async def main() -> None:
        slow = await AsyncSessionStore.open(tmp_path / "slow.db", session_id="s")
        path = None if where == "memory" else tmp_path / "a.db"
        kept = SessionStore.open(path, session_id="s")
        store = AsyncSessionStore.open(kept, session_id="t")
        await store.enqueue_work(NewWork([0]))
        long = [
            asyncio.ensure_future(slow.read(lambda _: go.wait(PATIENCE_S)))
            for _ in range(WORKS.most)
        ]
        await asyncio.to_thread(eventually, lambda: WORKS._unserved == WORKS.most)

        def work(name: str) -> asyncio.Task[Any]:
            return asyncio.ensure_future(store.transact(lambda _: done.append(name)))

        works = [work("first"), work("second"), work("cancelled")]
        hurried = await AsyncSessionStore.open(kept, session_id="t", busy_timeout_ms=50)
        with pytest.raises(StoreBusyError):
            await hurried.transact(lambda _: done.append("hurried"))
        await asyncio.wait_for(store.enqueue_work(NewWork([1])), PATIENCE_S / 4)
        await asyncio.wait_for(asyncio.to_thread(kept.enqueue_work, NewWork([2])), PATIENCE_S / 4)
        closed = await AsyncSessionStore.open(kept, session_id="t")
        of_closed = asyncio.ensure_future(closed.transact(lambda _: done.append("closed")))
        await asyncio.sleep(0.01)
        works.pop().cancel()
        await asyncio.wait_for(closed.aclose(), PATIENCE_S / 4)
        with pytest.raises(StoreClosedError):
            await of_closed
        assert done == []
        go.set()
        await asyncio.wait_for(asyncio.gather(*works, *long), PATIENCE_S)
        assert done == ["first", "second"]
        await store.enqueue_work(NewWork([3]))
        for each in (slow, store, hurried):
            await each.aclose()
        kept.close()

    asyncio.run(main())


def test_k_group_5_those_who_wait_for_one_busy_file_leave_threads_to_others(tmp_path: Path) -> None:
    """One thread comes for all of them: each by itself, they would take every one, and wait for one turn."""

    async def main() -> None:
        busy = await AsyncSessionStore.open(tmp_path / "busy.db", session_id="s")
        quick = await AsyncSessionStore.open(tmp_path / "quick.db", session_id="s")
        slow = [
            await AsyncSessionStore.open(tmp_path / f"{at}.db", session_id="s")
            for at in range(WORKS.most)
        ]
        go, done = threading.Event(), list[int]()
        long = [asyncio.ensure_future(each.read(lambda _: go.wait(PATIENCE_S))) for each in slow]
        await asyncio.to_thread(eventually, lambda: WORKS._unserved == WORKS.most)
        assert busy._store is not None
        with held(busy._store):
            works = [
                asyncio.ensure_future(busy.transact(partial(_note, done, number)))
                for number in range(20)
            ]
            await asyncio.sleep(0.02)
            go.set()
            await asyncio.gather(*long)
            assert await asyncio.wait_for(quick.transact(lambda _: "quick"), PATIENCE_S / 4)
            assert WORKS._unserved <= 2
        await asyncio.wait_for(asyncio.gather(*works), PATIENCE_S)
        assert done == list(range(20))
        for each in (busy, quick, *slow):
            await each.aclose()

    asyncio.run(main())


def _note(done: list[int], number: int, _: Any) -> None:
    done.append(number)


def test_k_tx_10_a_budget_ends_although_no_thread_is_free(tmp_path: Path) -> None:
    """Consumers' work on other files has every thread of the library: the timer looks at budgets."""
    go = threading.Event()

    async def main() -> None:
        stores = [
            await AsyncSessionStore.open(tmp_path / f"{at}.db", session_id="s", busy_timeout_ms=100)
            for at in range(WORKS.most + 1)
        ]
        last = stores.pop()
        waits = [
            asyncio.ensure_future(each.transact(lambda _: go.wait(PATIENCE_S))) for each in stores
        ]
        await asyncio.to_thread(eventually, lambda: WORKS._unserved == WORKS.most)

        async def refused() -> None:
            with pytest.raises(StoreBusyError):
                await last.transact(lambda _: None)

        assert await awaited_within(0.3, refused)
        go.set()
        await asyncio.gather(*waits)
        await asyncio.gather(*(each.aclose() for each in [*stores, last]))

    try:
        asyncio.run(main())
    finally:
        go.set()


def test_k_group_3_a_refusal_is_told_from_what_has_written(store: SessionStore) -> None:
    """By SQLite's count of changes, however large that is by now."""

    class Counted:
        total_changes = int("100000")

    connection: Any = Counted()
    refusal, own = LeaseLostError(NOBODYS, None, "expired"), ValueError("a consumer's own")
    caused = StorageError("p", "SQLITE_FULL", "full")
    caused.__cause__ = sqlite3.OperationalError("full")
    assert leading._is_refusal(refusal, connection, int("100000"))
    assert not leading._is_refusal(refusal, connection, int("99999"))
    assert not leading._is_refusal(own, connection, int("100000"))
    assert not leading._is_refusal(caused, connection, int("100000"))


@pytest.mark.parametrize("where", ["file", "memory"])
def test_k_tx_3_an_error_at_begin_is_not_taken_for_a_busy_database(
    path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    with SessionStore.open(path if where == "file" else None, session_id="s") as store:
        claim(store)
        begin, failed = StoreConnection.begin, list[str]()

        def fail_once(connection: StoreConnection, statement: str) -> None:
            if not failed:
                failed.append(statement)
                raise sqlite3.OperationalError("disk I/O error")
            begin(connection, statement)

        monkeypatch.setattr(StoreConnection, "begin", fail_once)
        with pytest.raises(StorageError, match="disk I/O error"):
            store.enqueue_work(NewWork([1]))
        assert store.list_work() == []
        store.enqueue_work(NewWork([2]))


def test_k_group_1_after_a_group_nothing_has_begun_any_more(store: SessionStore) -> None:
    writer = database_of(store).writer
    run_as_group(*(partial(store.enqueue_work, NewWork([n])) for n in range(2)))
    assert not writer._began
    assert writer.turns.first() is None
    assert writer.data_version() is not None


@pytest.mark.parametrize("facade", ["thread", "loop"])
def test_each_statement_is_observed_under_the_name_of_its_operation(
    path: Path, monkeypatch: pytest.MonkeyPatch, facade: str
) -> None:
    """The BEGIN too, even where it was tried again, and a consumer's own in a group."""
    recorder, tries = Recorder(), list[float]()
    try_begin = WriteQueue.try_begin

    def busy_twice(
        queue: WriteQueue, connection: Any, now_s: float, budget_s: float
    ) -> float | None:
        tries.append(now_s)
        return 0.001 if len(tries) < 3 else try_begin(queue, connection, now_s)

    def patched() -> None:
        monkeypatch.setattr(WriteQueue, "may_try", lambda queue, now_s: False)
        monkeypatch.setattr(WriteQueue, "try_begin", busy_twice)

    async def in_loop() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as looped:
            await looped.enqueue_work(NewWork([0]))
            patched()
            with observed_by(recorder):
                await looped.enqueue_work(NewWork([1]))

    with SessionStore.open(path, session_id="s") as store:
        if facade == "loop":
            asyncio.run(in_loop())
        else:
            store.enqueue_work(NewWork([0]))
            patched()
            with observed_by(recorder):
                store.enqueue_work(NewWork([1]))
        assert len(tries) == 3
        assert {event.operation for event in recorder.events} == {"enqueue_work"}
        monkeypatch.undo()
        recorder.events.clear()

        def look(tx: SessionTx) -> None:
            tx.cursor.execute("SELECT 1")

        with observed_by(recorder):
            database_of(store).writer.write_together([(store._handle, None, look)] * 2)
        seen = {event.operation for event in recorder.events if event.kind == "statement"}
        assert seen == {"transact"}


def test_k_tx_10_a_thread_that_waits_tells_what_an_interrupt_kept_back(store: SessionStore) -> None:
    writer, group = database_of(store).writer, Group()
    call = ThreadCall(store._handle, "claim_lease", lambda _: None, budget_s=PATIENCE_S)
    assert call.take(group)
    group.calls.append(call)
    writer._ended.append(group)
    writer._wait_or_fail(call, time.monotonic())
    assert call.settled
    assert not writer._ended


def test_who_gives_up_leaves_the_queue_of_processes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once nobody of this process waits any more; else the others would wait for it."""
    with (
        SessionStore.open(path, session_id="s", busy_timeout_ms=30) as hasty,
        SessionStore.open(path, session_id="s") as patient,
    ):
        queue = database_of(hasty).connections.queue
        assert queue is not None
        claim(hasty)
        with closing(locked_by_another(path)) as other:
            with pytest.raises(StoreBusyError):
                hasty.enqueue_work(NewWork([1]))
            assert queue._queued_s is None
            threads = started(lambda: patient.enqueue_work(NewWork([2])))
            eventually(lambda: queue._queued_s is not None)
            with pytest.raises(StoreBusyError):
                hasty.enqueue_work(NewWork([3]))
            assert queue._queued_s is not None
            other.rollback()
        join(*threads)
        assert len(all_rows(path)["queued_work_batches"]) == 1


class Submitted:
    """A pool, or the timer, that only notes what it is given."""

    is_full = False
    is_idle = False

    def __init__(self) -> None:
        self.works: list[Any] = []

    def submit(self, work: Any) -> None:
        self.works.append(work)

    def after(self, delay_s: float, work: Any) -> None:
        self.works.append((delay_s, work))


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Submitted]:
    made = {name: Submitted() for name in ("WORKS", "WRITES", "TIMER")}
    for name, each in made.items():
        monkeypatch.setattr(serving, name, each)
    return made


def library_call(store: SessionStore, *, is_consumers: bool) -> ToldCall:
    told = ToldCall(
        store._handle, "transact", lambda _: None, budget_s=PATIENCE_S, told=lambda _: None
    )
    told.is_consumers = is_consumers
    return told


def test_short_operations_have_threads_of_their_own(
    store: SessionStore, submitted: dict[str, Submitted]
) -> None:
    writer: Any = database_of(store).writer
    thread = ThreadCall(store._handle, None, lambda _: None, budget_s=1)
    assert writer._pool_for(thread) is submitted["WRITES"]
    assert writer._pool_for(library_call(store, is_consumers=False)) is submitted["WRITES"]
    assert writer._pool_for(library_call(store, is_consumers=True)) is submitted["WORKS"]


def test_the_timer_takes_no_lock_for_a_consumers_work(
    store: SessionStore, submitted: dict[str, Submitted]
) -> None:
    """There may be no thread to use it for long."""
    claim(store)
    writer: Any = database_of(store).writer
    call = library_call(store, is_consumers=True)
    writer.turns.waiting.append(call)
    writer._try_again()
    assert submitted["WORKS"].works == [writer._serve]
    assert not writer._began
    assert writer.turns.is_free
    call.take(call)


def test_who_stands_aside_leaves_the_queue_of_processes(
    path: Path, store: SessionStore, submitted: dict[str, Submitted]
) -> None:
    """There may be no thread for long: else the other processes would wait for one that does not try."""
    claim(store)
    writer: Any = database_of(store).writer
    queue = writer._connections.queue
    call = library_call(store, is_consumers=True)
    writer.turns.waiting.append(call)
    writer._scheduled = True
    with closing(locked_by_another(path)) as other:
        writer._serve()
        assert queue.is_waiting
        submitted["WORKS"].is_full = True
        writer._try_again()
        assert not queue.is_waiting
        other.rollback()
    assert submitted["WORKS"].works == [writer._come_for_those_aside]
    submitted["WORKS"].works[0]()
    assert call.settled


@pytest.mark.parametrize("busy", [True, False])
def test_the_timer_tries_for_an_operation_and_a_thread_leads_it(
    path: Path, store: SessionStore, submitted: dict[str, Submitted], *, busy: bool
) -> None:
    claim(store)
    writer: Any = database_of(store).writer
    call = library_call(store, is_consumers=False)
    writer.turns.waiting.append(call)
    writer._scheduled = True
    with closing(locked_by_another(path)) as other:
        if not busy:
            other.rollback()
        writer._try_again()
        if busy:
            ((_, again),) = submitted["TIMER"].works
            assert again == writer._try_again
            assert submitted["WRITES"].works == []
            assert writer.turns.is_free
            call.take(call)
        else:
            (begun,) = submitted["WRITES"].works
            assert submitted["TIMER"].works == []
            assert not writer.turns.is_free
            begun()
            assert call.settled
    writer._scheduled = False


def test_the_timer_leaves_it_to_whoever_is_first(
    store: SessionStore, submitted: dict[str, Submitted]
) -> None:
    claim(store)
    writer: Any = database_of(store).writer
    writer._scheduled = True
    writer._try_again()
    assert not writer._scheduled
    call, hold = library_call(store, is_consumers=False), Hold()
    assert writer.turns.try_take(hold)
    writer.turns.waiting.append(call)
    writer._scheduled = True
    writer._try_again()  # somebody has the turn, who wakes the first in line at its end
    assert not writer._scheduled
    assert submitted["WRITES"].works == submitted["TIMER"].works == []
    writer.give_back(hold)
    assert submitted["WRITES"].works == [writer._serve]
    writer._scheduled = False
    call.take(call)


def test_k_tx_10_a_snapshot_in_memory_that_can_not_begin_holds_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SessionStore.open(None, session_id="s", busy_timeout_ms=2_000) as store:
        claim(store)

        def fail(connection: StoreConnection, statement: str) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as patched:
            patched.setattr(StoreConnection, "begin", fail)
            refused = outcome(store.list_work)
        assert "disk I/O error" in str(refused)
        store.enqueue_work(NewWork([1]))  # while the error keeps its frames alive
        assert refused.__traceback__ is not None


class Interrupted:
    """A group whose leader was interrupted: its own call, and another's that had joined it."""

    def __init__(self, store: SessionStore) -> None:
        claim(store)
        database = database_of(store)
        assert database.connections.writer is not None
        self.writer: Any = database.writer
        self.connection = database.connections.writer
        self.own, self.other = (
            ThreadCall(store._handle, "claim_lease", lambda _: None, budget_s=PATIENCE_S)
            for _ in range(2)
        )
        self.group, self.hold = Group(self.own), Hold()
        for call in (self.own, self.other):
            assert call.take(self.group)
            self.group.calls.append(call)
        assert self.writer.turns.try_take(self.hold)
        self.connection.begin(dialect.BEGIN_WRITE)
        self.writer._began, self.writer._group = True, self.group

    def put_right(self) -> None:
        self.writer._put_right()
        assert not self.connection.in_transaction
        assert self.writer._group is None
        assert not self.writer._began

    def end(self) -> None:
        for call in (self.own, self.other):
            call.take(call)
        self.writer._ended.clear()
        assert self.writer.turns.first() is None
        assert self.writer.turns.give_back(self.hold)

    @property
    def is_put_back(self) -> bool:
        """Whether the other's call is done again, and never the interrupted one's own."""
        assert not self.own.waits
        assert self.other.waits == (self.writer.turns.first() is self.other)
        assert self.other.waits == (self.group not in self.writer._ended)
        return self.other.waits


@pytest.mark.parametrize("interrupted", ["committed", "rolled back", "before it", "in the midst"])
def test_k_group_3_what_an_interrupted_leader_leaves_is_put_right(
    store: SessionStore, interrupted: str
) -> None:
    """A group that was committed is answered; any other is undone, and the others' calls done again."""
    left = Interrupted(store)
    if interrupted != "before it":
        left.group.is_committing = True
    if interrupted != "in the midst":
        left.connection.end(dialect.ROLLBACK if interrupted == "rolled back" else dialect.COMMIT)
    else:
        left.connection.ending = dialect.COMMIT  # as the transaction before it has ended
    left.put_right()
    assert left.is_put_back == (interrupted != "committed")
    left.end()


def test_k_group_3_a_group_that_failed_at_commit_is_not_taken_for_committed(
    store: SessionStore,
) -> None:
    left = Interrupted(store)
    left.connection.end(dialect.COMMIT)
    left.group.is_committing, left.group.error = True, StorageError("p", "SQLITE_FULL", "full")
    left.put_right()
    assert left.is_put_back
    left.end()


@pytest.mark.parametrize("reads", [False, True])
def test_k_tx_10_an_interrupt_is_the_threads_own_and_on_the_librarys_the_calls(
    store: SessionStore, *, reads: bool
) -> None:
    left = Interrupted(store)

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    call = ThreadCall(store._handle, "claim_lease", interrupt, budget_s=1)
    call.reads = reads
    with pytest.raises(KeyboardInterrupt):
        left.writer._run(left.connection, call, on_library=False)
    assert call.error is None
    left.writer._run(left.connection, call, on_library=True)
    assert isinstance(call.error, KeyboardInterrupt)
    left.connection.own_cursor.execute(dialect.READ_ONLY_OFF)
    left.put_right()
    left.end()


def test_k_tx_10_a_block_that_can_not_begin_holds_nothing(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(store)

    def fail(connection: StoreConnection, statement: str) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(StoreConnection, "begin", fail)
        refused = outcome(lambda: store.begin().__enter__())
    assert "disk I/O error" in str(refused)
    store.enqueue_work(NewWork([1]))  # while the error keeps its frames alive
    assert refused.__traceback__ is not None


@pytest.mark.parametrize("leads", ["at once", "in line"])
def test_k_group_2_a_consumers_work_runs_on_no_other_callers_thread(
    store: SessionStore, leads: str
) -> None:
    """Though it waits behind a consumer's work that leads on its own."""
    writer, hold, threads, on = database_of(store).writer, Hold(), list[Any](), dict[str, int]()
    behind = ToldCall(
        store._handle,
        "transact",
        lambda _: on.setdefault("library", threading.get_ident()),
        budget_s=PATIENCE_S,
        told=lambda _: None,
    )
    behind.operation, behind.is_consumers = None, True

    def work(_: object) -> None:
        on["own"] = threading.get_ident()
        if leads == "at once":
            writer.submit_all([behind])

    def transact() -> None:
        store.transact(work, repeatable=True)

    if leads == "in line":
        assert writer.turns.try_take(hold)
        threads = started(transact)
        eventually(lambda: in_line(store) == 1)
        writer.turns.waiting.append(behind)
        writer.give_back(hold)
        join(*threads)
    else:
        transact()
    eventually(lambda: behind.settled)
    assert on["library"] != on["own"]


def test_k_tx_10_whatever_a_work_raises_where_the_timer_has_begun_is_its_answer(
    store: SessionStore, submitted: dict[str, Submitted]
) -> None:
    claim(store)

    def leave(_: object) -> None:
        raise SystemExit(3)

    writer: Any = database_of(store).writer
    call = library_call(store, is_consumers=False)
    call.work = leave
    writer.turns.waiting.append(call)
    writer._scheduled = True
    writer._try_again()
    (begun,) = submitted["WRITES"].works
    begun()
    assert call.settled
    assert isinstance(call.error, SystemExit)
    assert writer.turns.is_free
