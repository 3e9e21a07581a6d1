"""Waiting for what another process has locked: it keeps those who have no need of that from nothing."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, make_url, update

from lash_store import AsyncSessionStore, NewWork, SessionFence, SessionStore
from lash_store._backends.postgresql.groups import SERVERS
from lash_store._backends.postgresql.line import Line
from lash_store._backends.postgresql.locks import PATIENCE_MS, Lock
from lash_store._kernel.calls import Call, ThreadCall
from lash_store._kernel.observing import Event, observed_by
from lash_store.errors import LeaseLostError, NestedTransactionError, StoreBusyError
from lash_store.testing import as_another_process
from tests.support.leased import JOBS, jobs, metadata
from tests.support.turns import PATIENCE_S, eventually, join, started

FREE = [f"free-{number}" for number in range(5)]
LONG_MS = 60_000


class There:
    """A place with sessions of which another process has one locked, or several; one connection each."""

    def __init__(self, url: str, place: str, stack: ExitStack) -> None:
        self._url, self._place, self._stack = url, place, stack

    def open(self, session_id: str, **options: Any) -> SessionStore:
        given = {"pool_size": 1, "busy_timeout_ms": LONG_MS, **options}
        opened = SessionStore.open(self._url, session_id=session_id, schema=self._place, **given)
        return self._stack.enter_context(opened)

    def block(self, session_id: str) -> Callable[[], None]:
        """Lock a session as another process; return what lets go of it."""
        with as_another_process():
            other = self.open(session_id)
        block = ExitStack()
        block.enter_context(other.begin())
        self._stack.callback(block.close)
        return block.close

    def waiting(self, store: SessionStore) -> int:
        """How many calls stand in line at the database of `store`."""
        database: Any = store._handle.database  # type: ignore[attr-defined] # reason: what is open is no business of a store's
        return len(database.turns.waiting)


@pytest.fixture
def there(url: str, place: str) -> Iterator[There]:
    with ExitStack() as stack:
        yield There(url, place, stack)


def enqueue(store: SessionStore) -> Callable[[], object]:
    return lambda: store.enqueue_work(NewWork(["x"]))


def queued(store: SessionStore) -> int:
    return store.work_depth().batches


def test_k_lock_3_a_statement_timeout_does_not_end_the_wait(url: str, place: str) -> None:
    hasty = make_url(url).update_query_dict({"options": "-cstatement_timeout=50ms"})
    with ExitStack() as stack:
        there = There(hasty.render_as_string(hide_password=False), place, stack)
        blocked = there.open("blocked")
        brief = there.open("blocked", busy_timeout_ms=400)
        let_go = there.block("blocked")
        waiting = started(enqueue(blocked))
        with pytest.raises(StoreBusyError):
            brief.enqueue_work(NewWork(["x"]))
        let_go()
        join(*waiting)
        assert queued(blocked) == 1


def test_k_lock_3_who_waits_for_another_process_shares_its_connection(there: There) -> None:
    blocked = there.open("blocked")
    free = [there.open(name) for name in FREE]
    let_go = there.block("blocked")
    waiting = started(enqueue(blocked))
    for store in free:
        store.enqueue_work(NewWork(["x"]))
    assert waiting[0].is_alive()
    let_go()
    join(*waiting)
    assert [queued(store) for store in (blocked, *free)] == [1] * 6


def test_k_lock_3_who_stood_in_line_with_it_does_not_wait_for_its_lock(there: There) -> None:
    blocked = there.open("blocked")
    free = [there.open(name) for name in FREE]
    let_go = there.block("blocked")
    with blocked.read():  # the one connection
        waiting = started(enqueue(blocked))
        eventually(lambda: there.waiting(blocked) == 1)
        others = started(*map(enqueue, free))
        eventually(lambda: there.waiting(blocked) == 6)
    join(*others)
    assert waiting[0].is_alive()
    let_go()
    join(*waiting)
    assert [queued(store) for store in (blocked, *free)] == [1] * 6


def test_k_lock_3_a_block_waits_in_line_too(there: There) -> None:
    blocked = there.open("blocked")
    free = there.open("free")
    let_go = there.block("blocked")
    entered = threading.Event()

    def enter() -> None:
        with blocked.begin() as tx:
            entered.set()
            tx.enqueue_work(NewWork(["x"]))

    waiting = started(enter)
    for _ in range(3):
        with free.begin() as tx:
            tx.enqueue_work(NewWork(["x"]))
    assert not entered.is_set()
    let_go()
    join(*waiting)
    assert (queued(blocked), queued(free)) == (1, 3)


def test_k_hold_4_terms_outlive_what_is_locked_elsewhere(there: There) -> None:
    """However many calls wait for another process, renewals get a connection."""
    free = there.open("free")
    blocked = [there.open(f"blocked-{number}") for number in range(4)]
    let_go = [there.block(f"blocked-{number}") for number in range(4)]
    with free.hold(owner_id="ann", ttl_ms=3_000) as held:
        waiting = started(*map(enqueue, blocked))
        eventually(lambda: held.renewals >= 4)
        held.check()
        assert all(thread.is_alive() for thread in waiting)
        for each in let_go:
            each()
        join(*waiting)


class TakesTheLock:
    """Another process, which locks a session as soon as the first transaction on it has ended, for a while."""

    def __init__(self, other: SessionStore) -> None:
        self._other = other
        self.threads: list[threading.Thread] = []

    def before(self, _: Event) -> None:
        """Nothing."""

    def after(self, event: Event) -> None:
        if event.kind == "commit" and event.operation == "renew_lease" and not self.threads:
            entered = threading.Event()
            self.threads = started(lambda: self._hold(entered))
            assert entered.wait(60)

    def _hold(self, entered: threading.Event) -> None:
        with self._other.begin():
            entered.set()
            time.sleep(3 * PATIENCE_MS / 1000)


def test_k_lock_3_a_statement_timeout_does_not_end_the_wait_for_a_reason(
    url: str, place: str
) -> None:
    hasty = make_url(url).update_query_dict({"options": "-cstatement_timeout=50ms"})
    with ExitStack() as stack:
        there = There(hasty.render_as_string(hide_password=False), place, stack)
        lost = SessionFence("mine", "ann", "another token", 1)
        store = there.open("mine")
        with as_another_process():
            takes = TakesTheLock(There(url, place, stack).open("mine"))
        with observed_by(takes), pytest.raises((LeaseLostError, StoreBusyError)):
            store.renew_lease(lost, ttl_ms=LONG_MS)
        join(*takes.threads)
        assert store.work_depth().batches == 0  # and its connection is of use


def test_k_lock_3_the_reason_of_a_refusal_is_waited_for(there: There) -> None:
    """A renewal that finds nothing to renew looks behind its COMMIT, and others may be there by then."""
    store = there.open("mine")
    lost = SessionFence("mine", "ann", "another token", 1)
    with as_another_process():
        takes = TakesTheLock(there.open("mine"))
    with observed_by(takes), pytest.raises(LeaseLostError):
        store.renew_lease(lost, ttl_ms=LONG_MS)
    assert len(takes.threads) == 1
    join(*takes.threads)


def test_k_lock_3_a_budget_is_kept_to(there: There) -> None:
    hasty = there.open("blocked", busy_timeout_ms=600)
    there.block("blocked")
    with pytest.raises(StoreBusyError) as caught:
        hasty.enqueue_work(NewWork(["x"]))
    assert caught.value.waited_ms >= 600
    with pytest.raises(StoreBusyError) as caught, hasty.begin():
        pass
    assert caught.value.waited_ms >= 600
    assert hasty.work_depth().batches == 0


def test_k_lock_3_many_calls_on_what_is_locked_go_together_in_the_end(
    there: There, url: str, place: str
) -> None:
    there.open("blocked")
    let_go = there.block("blocked")

    async def main() -> list[int]:
        async with AsyncSessionStore.open(
            url, session_id="blocked", schema=place, pool_size=1, busy_timeout_ms=LONG_MS
        ) as store:
            calls = [asyncio.ensure_future(store.enqueue_work(NewWork([n]))) for n in range(64)]
            await asyncio.sleep(0.6)  # longer than one is patient
            assert not any(call.done() for call in calls)
            let_go()
            return [batch.enqueue_seq for batch in await asyncio.gather(*calls)]  # type: ignore[union-attr] # reason: without source keys none is there before

    numbers = asyncio.run(main())
    assert len(set(numbers)) == 64
    assert numbers == sorted(numbers)


def test_k_lock_3_the_last_in_line_stand_before_those_that_wait_for_them() -> None:
    def call(*locks: Lock) -> Call:
        made = ThreadCall(None, "x", lambda _: None, budget_s=1.0)
        made.locks = locks
        return made

    first, same, free, shares, alone = (
        call((1, False)),
        call((1, False)),
        call((2, False)),
        call((3, True), (4, False)),
        call((3, True), (5, False)),
    )
    line = Line()
    for each in (same, shares, alone, free):
        line.append(each)
    line.put_last([first])
    assert list(line) == [shares, alone, free, first, same]
    line.remove(shares)
    line.put_last([shares])
    assert list(line) == [alone, free, first, same, shares]
    assert line.wanted([(3, True), (1, False), (9, False)]) == {3: True, 1: False}


def test_k_hold_4_a_row_that_is_locked_keeps_one_renewal_waiting(
    own_url: str, engine: Engine
) -> None:
    """An application's own row, which it may lock for longer than the others' terms last."""
    ttl_ms = 3_000
    with ExitStack() as stack:
        store = stack.enter_context(SessionStore.open(own_url, session_id="s"))
        with store.begin() as tx:
            metadata.create_all(tx.connection)
        held: dict[str, Any] = {
            key: stack.enter_context(JOBS.hold(store, key, owner_id="ann", ttl_ms=ttl_ms))
            for key in ("locked", "free")
        }
        held["session"] = stack.enter_context(store.hold(owner_id="ann", ttl_ms=ttl_ms))
        with engine.begin() as connection:
            connection.execute(update(jobs).where(jobs.c.name == "locked").values(secret="x"))
            eventually(lambda: held["locked"].lost is not None)
            connection.rollback()
        for name in ("free", "session"):
            assert held[name].lost is None
            assert held[name].renewals >= 1
            held[name].check()


def test_k_hold_1_a_term_that_could_not_be_released_is_logged(
    own_url: str, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with SessionStore.open(own_url, session_id="s", busy_timeout_ms=100) as store:
        with store.begin() as tx:
            metadata.create_all(tx.connection)
        with ExitStack() as block, engine.begin() as connection:
            block.enter_context(JOBS.hold(store, "nightly", owner_id="ann", ttl_ms=60_000))
            connection.execute(update(jobs).where(jobs.c.name == "nightly").values(term=1))
            with caplog.at_level("WARNING", "lash_store.leases"):
                block.close()
        with store.read() as tx:
            assert JOBS.current(tx, "nightly") is not None
    assert "'ann' could not release its term on 'nightly'" in caplog.text


@contextmanager
def locked_tables(admin: psycopg.Connection[Any], place: str, mode: str) -> Iterator[None]:
    """As a migration of another process, or a VACUUM FULL, has them."""
    with psycopg.connect(admin.info.dsn) as other:
        other.execute(
            f"LOCK TABLE {place}.lash_queued_work_batches, {place}.lash_versions IN {mode} MODE"
        )
        yield
        other.rollback()


@pytest.mark.parametrize("what", ["writes", "reads"])
def test_k_lock_3_calls_that_wait_for_a_table_leave_a_connection_to_renewals(
    url: str, place: str, admin: psycopg.Connection[Any], what: str
) -> None:
    with ExitStack() as stack:
        there = There(url, place, stack)
        options: dict[str, Any] = {"pool_size": 4, "busy_timeout_ms": 4_000}
        busy = [there.open(f"s{number}", **options) for number in range(6)]
        mine = there.open("mine", **options)
        for each in busy:
            each.work_depth()
        with mine.hold(owner_id="ann", ttl_ms=900) as held:
            with locked_tables(admin, place, "ACCESS EXCLUSIVE"):
                threads = started(*(partial(_in_vain, each, what) for each in busy))
                eventually(lambda: held.renewals >= 4 or held.lost is not None)
                assert held.lost is None
            join(*threads)


def _in_vain(store: SessionStore, what: str) -> None:
    with suppress(StoreBusyError):
        if what == "reads":
            store.work_depth()
        else:
            store.enqueue_work(NewWork([1]))


def test_k_tx_3_a_read_and_an_opening_wait_for_a_table_within_their_budget(
    url: str, place: str, admin: psycopg.Connection[Any]
) -> None:
    with SessionStore.open(url, session_id="s", schema=place, busy_timeout_ms=100) as store:
        store.work_depth()
        with locked_tables(admin, place, "ACCESS EXCLUSIVE"):
            with pytest.raises(StoreBusyError):
                store.work_depth()
            with pytest.raises(StoreBusyError):
                SessionStore.open(
                    url, session_id="t", schema=place, busy_timeout_ms=100, pool_size=3
                )


def test_k_hold_4_threads_that_wait_for_one_server_are_not_all_there_are(
    url: str, place: str
) -> None:
    """Those of two deployments that stand still took every one."""
    go = threading.Event()
    for _ in range(SERVERS.most):
        SERVERS.submit(lambda: go.wait(PATIENCE_S))

    async def main() -> None:
        async with AsyncSessionStore.open(url, session_id="s", schema=place) as store:
            await asyncio.wait_for(store.enqueue_work(NewWork([1])), PATIENCE_S / 2)

    try:
        asyncio.run(main())
    finally:
        go.set()


@pytest.mark.parametrize("option", ["pool_size", "application_name", "connect_timeout"])
def test_k_hold_5_stores_of_one_place_with_other_options_are_no_strangers(
    url: str, place: str, option: str
) -> None:
    """The last of their blocks releases, and a transaction of this thread is found in any of them."""
    options: dict[str, Any] = {"schema": place, "session_id": "s", "busy_timeout_ms": 1_000}
    more: dict[str, Any] = {"pool_size": 4} if option == "pool_size" else {}
    if option == "application_name":
        more = {"application_name": "web"}
    other_url = url
    if option == "connect_timeout":
        other_url = make_url(url).update_query_dict({option: "5"}).render_as_string(False)
    with (
        SessionStore.open(url, **options) as one,
        SessionStore.open(other_url, **options, **more) as other,
    ):
        with other.hold(owner_id="ann", ttl_ms=LONG_MS) as held:
            with one.hold(owner_id="ann", ttl_ms=LONG_MS):
                pass
            found = one.current_lease()
            assert found is not None
            assert found.fence == held.fence
        with one.begin(), pytest.raises(NestedTransactionError), other.begin():
            pass
        with (
            as_another_process(),
            SessionStore.open(url, **{**options, "busy_timeout_ms": 50}) as apart,
            one.begin(),
            pytest.raises(StoreBusyError),
            apart.begin(),
        ):
            pass


def test_k_tx_12_two_databases_whose_urls_name_none_are_two(
    url: str, admin: psycopg.Connection[Any]
) -> None:
    """Each is its own role's: a URL says less than its connection."""
    names = [f"own_{os.getpid()}_{each}" for each in ("ann", "bob")]
    for name in names:
        admin.execute(f"CREATE ROLE {name} LOGIN SUPERUSER")
        admin.execute(f"CREATE DATABASE {name} OWNER {name}")
    try:
        urls = [
            make_url(url)._replace(username=name, database=None).render_as_string(False)
            for name in names
        ]
        with (
            SessionStore.open(urls[0], session_id="s") as one,
            SessionStore.open(urls[1], session_id="s") as other,
            one.begin() as tx,
        ):
            tx.enqueue_work(NewWork([1]))
            other.enqueue_work(NewWork([2]))
            assert other.work_depth().batches == 1
    finally:
        for name in names:
            admin.execute(f"DROP DATABASE {name} (FORCE)")
            admin.execute(f"DROP ROLE {name}")
