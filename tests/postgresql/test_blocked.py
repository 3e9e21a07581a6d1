"""Calls that wait for what another process has locked: they can be cancelled, and closing waits for none."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, text

from lash_store import (
    AsyncSessionStore,
    EffectStore,
    NewWork,
    ProcessRegistry,
    SessionStore,
    TriggerStore,
)
from lash_store._backends.postgresql.locks import number_of
from lash_store.errors import (
    ConnectionLostError,
    LashStoreError,
    StoreBusyError,
    StoreClosedError,
    StoreOpenError,
)
from tests.support.registries import register
from tests.support.turns import eventually, join

Admin = psycopg.Connection[Any]


@contextmanager
def locked(server: str, place: str) -> Iterator[int]:
    """Have another process's lock on the session ``s``; its number."""
    number = number_of(f"{place}.lash_", "session", "s")
    with psycopg.connect(server) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [number])
        yield number
        other.rollback()


def is_waited_for(admin: Admin, number: int) -> bool:
    return bool(
        admin.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
            "AND (classid::bigint << 32 | objid::bigint) = %s",
            [number],
        ).fetchall()[0][0]
    )


@pytest.mark.parametrize("how", ["enqueue_work", "transact", "hold"])
def test_k_tx_11_cancelled_as_it_waits_for_another_process_it_does_not_happen(
    url: str, server: str, place: str, admin: Admin, how: str
) -> None:
    async def call(store: AsyncSessionStore) -> None:
        if how == "enqueue_work":
            await store.enqueue_work(NewWork(["x"]))
        elif how == "transact":
            await store.transact(lambda tx: tx.enqueue_work(NewWork(["x"])))
        else:
            async with store.hold(owner_id="ann", ttl_ms=60_000):
                raise AssertionError("nobody else holds it")

    async def main() -> None:
        async with AsyncSessionStore.open(url, session_id="s", schema=place) as store:
            await store.list_work()
            with locked(server, place) as number:
                waiting = asyncio.create_task(call(store))
                while not is_waited_for(admin, number):
                    await asyncio.sleep(0.01)
                waiting.cancel()
                # Long before its budget of 15 seconds, and before the lock is free.
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.wait_for(asyncio.shield(waiting), 5)
            await asyncio.sleep(0.3)
            assert await store.list_work() == []
            assert await store.current_lease() is None

    asyncio.run(main())


def enter(store: SessionStore) -> None:
    with store.begin():
        raise AssertionError("it is closed before")


@pytest.mark.parametrize(
    "call", [lambda store: store.enqueue_work(NewWork(["x"])), enter], ids=["operation", "block"]
)
def test_k_open_5_closing_waits_for_no_call_that_waits_for_another_process(
    url: str, server: str, place: str, admin: Admin, call: Callable[[SessionStore], Any]
) -> None:
    store = SessionStore.open(url, session_id="s", schema=place)
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            call(store)
        except StoreClosedError as error:
            ended.append(error)

    with locked(server, place) as number:
        threads = [threading.Thread(target=wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        eventually(lambda: is_waited_for(admin, number))
        store.close()  # or that would be StoreBusyError
        for thread in threads:
            join(thread)
    assert len(ended) == len(threads)
    with SessionStore.open(url, session_id="s", schema=place) as again:
        assert again.list_work() == []


def test_k_open_5_who_waits_to_make_tables_keeps_nobody_waiting(
    url: str, server: str, place: str, admin: Admin
) -> None:
    """Another process makes some, in a migration say; what is there already may be opened and closed."""
    opening = number_of(f"{place}.lash_", "opening")
    with ProcessRegistry.open(url, schema=place) as registry, psycopg.connect(server) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [opening])
        refused: list[type[Exception]] = []

        def wait() -> None:
            try:
                EffectStore.open(url, schema=place, busy_timeout_ms=60_000)
            except LashStoreError as error:
                refused.append(type(error))

        waiting = threading.Thread(target=wait)
        waiting.start()
        eventually(lambda: is_waited_for(admin, opening))
        ProcessRegistry.open(url, schema=place, busy_timeout_ms=1).close()
        with pytest.raises(StoreBusyError):
            TriggerStore.open(url, schema=place, busy_timeout_ms=50)
        assert registry.list_processes() == []
        assert waiting.is_alive()
        other.rollback()
        join(waiting)
        assert refused == []


def test_k_lock_3_a_role_s_own_limit_ends_no_wait_to_make_tables(
    url: str, server: str, place: str, admin: Admin
) -> None:
    opening = number_of(f"{place}.lash_", "opening")
    slow = make_url(url).update_query_dict({"options": "-cstatement_timeout=100"})
    with psycopg.connect(server) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [opening])
        freed = threading.Timer(0.5, other.rollback)
        freed.start()
        slow_url = slow.render_as_string(hide_password=False)
        with ProcessRegistry.open(slow_url, schema=place) as registry:
            assert registry.list_processes() == []
        freed.join()


def test_p_lease_3_what_waited_for_a_process_is_claimed_from_then_on(
    url: str, server: str, place: str, admin: Admin
) -> None:
    """A worker that stalls in an append has the lock on its process: who claims that next waits for it."""
    with ProcessRegistry.open(url, schema=place) as registry, psycopg.connect(server) as other:
        register(registry, "p")
        number = number_of(f"{place}.lash_", "process", "p")
        other.execute("SELECT pg_advisory_xact_lock(%s)", [number])
        found: list[Any] = []
        claiming = threading.Thread(
            target=lambda: found.append(registry.claim_next(owner_id="ann", ttl_ms=60_000))
        )
        began_ms = registry.read_clock()
        claiming.start()
        eventually(lambda: is_waited_for(admin, number))
        eventually(lambda: registry.read_clock() > began_ms + 300)
        freed_ms = registry.read_clock()
        other.rollback()
        join(claiming)
        assert found[0].lease.claimed_at_ms >= freed_ms - 50


def test_k_pg_2_lost_before_commit_was_sent_is_known(url: str, place: str, admin: Admin) -> None:
    with SessionStore.open(url, session_id="s", schema=place) as store:
        with pytest.raises(ConnectionLostError), store.begin() as tx:
            tx.enqueue_work(NewWork(["x"]))
            pid = tx.connection.scalar(text("SELECT pg_backend_pid()"))
            admin.execute("SELECT pg_terminate_backend(%s, 20000)", [pid])
        assert store.list_work() == []


def test_k_open_1_a_url_with_a_port_that_is_none_is_told(url: str) -> None:
    bad = make_url(url).update_query_dict({"port": "abc"}).render_as_string(hide_password=False)
    with pytest.raises(StoreOpenError, match="abc"):
        ProcessRegistry.open(bad)


def test_k_pg_2_a_process_with_thousands_of_descriptors_commits(url: str, place: str) -> None:
    """``select`` knows the first 1,024 of them alone, and a server of many has more."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(1_100)]
        assert held[-1].fileno() > 1_024
        with SessionStore.open(url, session_id="s", schema=place) as store:
            store.enqueue_work(NewWork(["x"]))
            with store.begin() as tx:
                tx.enqueue_work(NewWork(["y"]))
            assert len(store.list_work()) == 2
