"""Calls that wait for what another process has locked: they can be cancelled, and closing waits for none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from lash_store import AsyncSessionStore, NewWork, SessionStore
from lash_store._backends.postgresql.locks import number_of
from lash_store.errors import StoreClosedError
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
