"""Who has the connections of a process: what may take its time leaves one to what is short."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from psycopg import sql
from sqlalchemy import func, select

from lash_store import AsyncDeployment, Deployment, SessionLease, SessionStore
from lash_store.errors import StoreBusyError, TransactionControlError
from lash_store.session.tables import blobs


@contextmanager
def block_in_thread(store: SessionStore, how: str) -> Iterator[threading.Event]:
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
            with pytest.raises(StoreBusyError), getattr(hasty, how)():
                pass  # the two that are open leave none for a third
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
