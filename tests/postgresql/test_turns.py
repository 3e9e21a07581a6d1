"""Who has the connections of a process: what may take its time leaves one to what is short."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from psycopg import sql
from sqlalchemy import func, select

from lash_store import AsyncDeployment, Deployment, SessionLease, SessionStore
from lash_store._backends.postgresql import turns as turns_module
from lash_store._backends.postgresql.line import Line
from lash_store._backends.postgresql.locks import Lock
from lash_store._backends.postgresql.turns import Turns
from lash_store._kernel.calls import Call, ThreadCall, ToldCall
from lash_store.errors import StoreBusyError, TransactionControlError
from lash_store.session.tables import blobs


@contextmanager
def block_in_thread(store: Any, how: str) -> Iterator[threading.Event]:
    """Be inside a block of a consumer's on a thread of its own; the event says once it is entered."""
    entered, leave = threading.Event(), threading.Event()

    def run() -> None:
        with getattr(store, how)():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield entered
    finally:
        leave.set()
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("how", ["begin", "read"])
def test_k_lock_2_open_blocks_leave_a_connection_to_operations(
    url: str, place: str, how: str
) -> None:
    with Deployment.open(url, schema=place, pool_size=3) as deployment:
        one, two, three, four = (
            deployment.sessions.create(name, model="m") for name in ("one", "two", "three", "four")
        )
        lease = four.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert isinstance(lease, SessionLease)
        with ExitStack() as last, ExitStack() as blocks:
            for store in (one, two):
                assert blocks.enter_context(block_in_thread(store, how)).wait(30)
            late = last.enter_context(block_in_thread(three, how))
            hasty = SessionStore.open(three, session_id="three", busy_timeout_ms=20)
            with pytest.raises(StoreBusyError, match=r"a connection.*\(pool_size=3\)") as busy:
                with getattr(hasty, how)():
                    pass  # the two that are open leave none for a third
            assert str(pickle.loads(pickle.dumps(busy.value))) == str(busy.value)
            if how == "begin":
                hasty = SessionStore.open(one, session_id="one", busy_timeout_ms=20)
                with pytest.raises(StoreBusyError, match="for its lock"):
                    hasty.put_blob(b"x")  # an operation, for which there is one
            assert not late.is_set()
            assert four.renew_lease(lease.fence, ttl_ms=60_000).fence == lease.fence
            assert four.load_head() is None
            blocks.close()
            assert late.wait(30)


def test_k_lock_2_of_one_connection_nothing_is_kept(url: str, place: str) -> None:
    with Deployment.open(url, schema=place, pool_size=1) as deployment:
        one = deployment.sessions.create("one", model="m")
        with one.begin() as tx:
            tx.put_blob(b"x")
        with one.read() as tx:
            assert tx.load_head() is None
        assert asyncio.run(count_blobs(url, place)) == 1


async def count_blobs(url: str, place: str) -> Any:
    async with AsyncDeployment.open(url, schema=place, pool_size=1) as deployment:
        store = await deployment.sessions.open("one")
        assert store is not None

        def count(tx: Any) -> Any:
            return tx.connection.scalar(select(func.count()).select_from(blobs))

        assert await store.transact(count) == await store.read(count)
        return await store.read(count)


def test_k_lock_2_slow_work_of_event_loops_keeps_no_renewal_waiting(url: str, place: str) -> None:
    """Whatever number of threads there is for it: renewals have others."""
    gate = threading.Event()

    async def main() -> None:
        async with AsyncDeployment.open(url, schema=place, pool_size=32) as deployment:
            stores = [
                await deployment.sessions.create(f"slow-{number}", model="m")
                for number in range(20)
            ]
            held = await deployment.sessions.create("held", model="m")
            lease = await held.claim_lease(owner_id="ann", ttl_ms=60_000)
            assert isinstance(lease, SessionLease)
            slow = [
                asyncio.ensure_future(each.transact(lambda _: gate.wait(60))) for each in stores
            ]
            try:
                await asyncio.sleep(0)
                renewing = held.renew_lease(lease.fence, ttl_ms=60_000)
                assert (await asyncio.wait_for(renewing, 20)).fence == lease.fence
                assert not any(each.done() for each in slow)
            finally:
                gate.set()
            assert await asyncio.gather(*slow) == [True] * 20

    asyncio.run(main())


LASTING = [
    "SET TIME ZONE 'Asia/Tokyo'",
    "/* once */ set statement_timeout = 77",
    "SELECT 1; SET SESSION statement_timeout = 77",
    "SELECT set_config('statement_timeout', '77', false)",
    "CREATE TEMPORARY TABLE left_behind (a int)",
    "SELECT pg_advisory_lock(7)",
    "LISTEN somebody",
]
PASSING = [
    "SET LOCAL statement_timeout = 7777",
    "SELECT 'one; SET TIME ZONE x'",
    "UPDATE lash_blobs SET hash = 'set' WHERE false",
]


def test_k_pg_2_sessions_are_opened_made_listed_and_deleted_beside_blocks(
    url: str, place: str
) -> None:
    """They are operations, to which blocks leave a connection."""
    with Deployment.open(url, schema=place, pool_size=2, busy_timeout_ms=500) as deployment:
        deployment.sessions.create("one", model="m").close()
        with block_in_thread(deployment.processes, "begin") as begun:
            assert begun.wait(30)
            store = deployment.sessions.open("one")
            assert store is not None
            store.close()
            deployment.sessions.create("two", model="m").close()
            assert [each.file_name for each in deployment.sessions.list()] == ["one", "two"]
            assert deployment.sessions.delete("two") is True


@pytest.mark.parametrize("text", [*LASTING, *PASSING])
@pytest.mark.parametrize("by", ["connection", "cursor"])
def test_k_tx_7_what_outlasts_a_transaction_is_left_to_nobody(
    url: str, place: str, text: str, by: str
) -> None:
    """Its connection to the server is not used again; of any other statement it is."""
    with Deployment.open(url, schema=place, pool_size=1) as deployment:
        one = deployment.sessions.create("one", model="m")

        def ask(tx: Any, what: str) -> Any:
            return tx.connection.exec_driver_sql(what).scalar()

        with one.begin() as tx:
            before = {name: ask(tx, f"SHOW {name}") for name in ("timezone", "statement_timeout")}
            process = ask(tx, "SELECT pg_backend_pid()")
            # A prepared statement is one; what else runs may be several.
            for each in text.split("; ") if by == "cursor" and text in LASTING else [text]:
                given = each.replace("lash_blobs", f"{place}.lash_blobs")
                (tx.cursor.execute if by == "cursor" else tx.connection.exec_driver_sql)(given)
            tx.put_blob(b"kept")
        with one.begin() as tx:
            assert (ask(tx, "SELECT pg_backend_pid()") == process) is (text in PASSING)
            assert {name: ask(tx, f"SHOW {name}") for name in before} == before
            assert ask(tx, "SELECT count(*) FROM pg_locks WHERE objid = 7") == 0
            assert tx.connection.scalar(select(func.count()).select_from(blobs)) == 1


def test_k_tx_7_what_psycopg_composes_is_looked_through_too(url: str, place: str) -> None:
    with Deployment.open(url, schema=place) as deployment:
        one = deployment.sessions.create("one", model="m")
        with one.begin() as tx:
            raw: Any = tx.connection.connection.dbapi_connection
            tx.put_blob(b"kept")
            for ending in (sql.SQL("COMMIT"), sql.SQL("{}; ROLLBACK").format(sql.SQL("SELECT 1"))):
                with pytest.raises(TransactionControlError):
                    raw.cursor().execute(ending)
            quoted = sql.SQL("SELECT {}").format("; COMMIT")
            assert raw.cursor().execute(quoted).fetchone() == ("; COMMIT",)
            long = "x" * 20_000
            assert tx.connection.exec_driver_sql(f"SELECT length('; COMMIT; {long}')").scalar()
            with pytest.raises(TransactionControlError):
                tx.connection.exec_driver_sql(f"SELECT '{long}'; COMMIT")
        with one.read() as tx:
            assert tx.connection.scalar(select(func.count()).select_from(blobs)) == 1


# The line, without a server.


class Nobody:
    """Whose calls they are that nobody does."""

    closed = False
    is_full = False


def waiting_call(*locks: Lock, operation: str | None = "append") -> ThreadCall:
    call = ThreadCall(Nobody(), operation, lambda _: None, budget_s=60)
    call.locks = locks
    return call


def test_k_lock_2_however_many_wait_for_one_session_others_go_on() -> None:
    """Thousands behind a session that somebody keeps: what stands behind them has another's lock."""
    started: list[Call] = []
    turns = Turns(4, started.append)
    keeps, runs = waiting_call((1, False)), waiting_call((2, False))
    assert turns.enter(keeps)
    assert turns.enter(runs)
    crowd = [waiting_call((1, False)) for _ in range(5_000)]
    for call in crowd:
        assert not turns.enter(call)
    behind = waiting_call((2, False))
    assert not turns.enter(behind)
    turns.leave([runs])
    assert started == [behind]
    assert turns.enter(waiting_call((3, False)))
    for call in crowd[2:]:
        turns.withdraw(call)
    turns.leave([keeps])
    assert started == [behind, crowd[0]]
    assert list(turns.waiting) == [crowd[1]]


def test_k_lock_2_nobody_overtakes_who_waits_for_the_same_lock() -> None:
    started: list[Call] = []
    turns = Turns(8, started.append)
    shares, alone = waiting_call((1, True)), waiting_call((1, False))
    assert turns.enter(shares)
    assert not turns.enter(alone)
    late = [waiting_call((1, True)) for _ in range(3)]
    assert [turns.enter(call) for call in late] == [
        False
    ] * 3  # they could share it, and came later
    turns.leave([shares])
    assert started == [alone]
    turns.withdraw(late[0])
    again = waiting_call((1, False))
    turns.put_back([again])
    turns.leave([alone])
    assert started == [alone, again]
    turns.leave([again])
    assert started == [alone, again, *late[1:]]


def test_k_lock_2_who_gives_up_lets_those_behind_begin() -> None:
    """That of several locks one is held keeps nobody from the others, once it is not asked for."""
    started: list[Call] = []
    turns = Turns(8, started.append)
    keeps, both, other = (
        waiting_call((1, False)),
        waiting_call((1, False), (2, False)),
        waiting_call((2, False)),
    )
    assert turns.enter(keeps)
    assert not turns.enter(both)
    assert not turns.enter(other)
    turns.withdraw(both)
    assert started == [other]


def test_k_lock_2_a_snapshot_that_waits_for_a_connection_keeps_no_operation_waiting() -> None:
    started: list[Call] = []
    turns = Turns(2, started.append)
    block, operation = waiting_call(operation=None), waiting_call(operation="load_head")
    assert turns.enter(block)
    assert not turns.enter(waiting_call(operation=None))
    assert turns.enter(operation)
    waits = waiting_call(operation="load_head")
    assert not turns.enter(waits)
    turns.leave([operation])
    assert started == [waits]


def test_k_lock_2_of_many_blocks_that_wait_one_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each that ends would look at all the others, for connections that are not for them."""
    started: list[Call] = []
    turns, looked = Turns(4, started.append), list[object]()
    blocks = [waiting_call((number, False), operation=None) for number in range(500)]
    assert [turns.enter(each) for each in blocks[:2]] == [True, True]
    assert {turns.enter(each) for each in blocks[2:]} == {False}
    with monkeypatch.context() as patch:
        patch.setattr(turns_module, "_note", lambda *_: looked.append(_))
        turns.leave([blocks[0]])
    assert started == [blocks[2]]
    assert looked == []
    renewal = ToldCall(Nobody(), "renew_lease", lambda _: None, budget_s=60, told=lambda _: None)
    assert turns.enter(waiting_call((1_000, False)))
    assert turns.enter(renewal)  # the last connection
    operation = waiting_call((1_001, False))
    assert not turns.enter(operation)
    turns.leave([renewal])
    assert started == [blocks[2]]
    turns.leave([blocks[1]])
    assert started == [blocks[2], operation]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_k_lock_2_the_line_says_what_is_asked_for(data: st.DataObject) -> None:
    """Against looking at all who wait."""
    line, plain = Line(), list[ThreadCall]()
    locks = st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=2, unique=True)
    for _ in range(data.draw(st.integers(1, 30))):
        step = data.draw(st.sampled_from(["append", "first", "remove"]))
        if step == "remove" and plain:
            gone = plain.pop(data.draw(st.integers(0, len(plain) - 1)))
            line.remove(gone)
            assert gone not in line
        elif step == "append":
            plain.append(waiting_call(*data.draw(locks)))
            line.append(plain[-1])
        elif step == "first":
            fresh = [waiting_call(*data.draw(locks)) for _ in range(2)]
            plain[:0] = fresh
            line.put_first(fresh)
        assert list(line) == plain
        asked = [lock for call in plain for lock in call.locks]
        expected = {
            number: all(is_shared for each, is_shared in asked if each == number)
            for number in {number for number, _ in asked}
        }
        assert line.wanted([(number, False) for number in range(1, 5)]) == expected
