"""How a consumer's own transaction ends, which a Tx has joined: kept, undone, interrupted, lost (K-TX-8)."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

import lash_store
from lash_store import Deployment, NewWork, SessionStore, SessionTx
from lash_store.effect.tx import EffectTx
from lash_store.errors import (
    ConnectionLostError,
    MissingTableError,
    NotConfiguredError,
    StoreBusyError,
    TransactionEndedError,
)
from tests.support.leased import JOBS, metadata

TTL = 60_000


def _terminate(engine: Engine, pid: int) -> None:
    with engine.connect() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})


def test_k_tx_8_what_an_error_has_ended_is_not_committed_in_silence(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (id int PRIMARY KEY)"))
        connection.execute(text("INSERT INTO numbers VALUES (1)"))
        SessionTx.on(connection, session_id="s").claim_lease(owner_id="ann", ttl_ms=1)

    def do(connection: Any) -> None:
        tx = SessionTx.on(connection, session_id="s")
        tx.claim_lease(owner_id="bob", ttl_ms=TTL)
        tx.enqueue_work(NewWork([1]))
        with pytest.raises(DBAPIError):
            connection.execute(text("INSERT INTO numbers VALUES (1)"))
        with pytest.raises(TransactionEndedError, match="'postgresql"):
            connection.execute(text("SELECT 1"))

    time.sleep(0.005)  # for the server's clock, on which ann's term ends
    with caplog.at_level(logging.INFO, logger="lash_store"):
        with pytest.raises(TransactionEndedError, match="nothing of it is kept"):
            with engine.begin() as connection:
                do(connection)
        with Session(engine) as orm:
            do(orm)
            with pytest.raises(TransactionEndedError, match="nothing of it is kept"):
                orm.commit()
    assert caplog.records == []  # a takeover that was rolled back did not happen
    with engine.begin() as connection:
        assert SessionTx.on(connection, session_id="s").work_depth().batches == 0
        connection.execute(text("INSERT INTO numbers VALUES (2)"))


def test_k_tx_10_a_configured_engine_hides_no_interrupt(engine: Engine, own_url: str) -> None:
    def interrupt(_: int, __: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt), engine.begin() as connection:
            connection.execute(text("SELECT pg_sleep(20)"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with engine.begin() as connection:
        tx = SessionTx.on(connection, session_id="s")
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        _terminate(engine, pid)
        with pytest.raises(DBAPIError, match="terminating connection"):
            connection.execute(text("SELECT 1"))
        with pytest.raises(TransactionEndedError):
            tx.load_head()
        connection.rollback()
    with engine.begin() as connection:
        assert SessionTx.on(connection, session_id="s").load_head() is None


def test_k_tx_10_a_task_that_is_cancelled_hears_of_that(own_url: str) -> None:
    async def main() -> None:
        engine = lash_store.configure(create_async_engine(own_url))

        async def sleep() -> None:
            async with engine.begin() as connection:
                await connection.execute(text("SELECT pg_sleep(20)"))

        task = asyncio.create_task(sleep())
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await engine.dispose()

    asyncio.run(main())


# One that strikes in a callback of a weak reference is lost, whoever's that is.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_k_tx_10_an_interrupt_in_an_operation_leaves_its_engine_usable(engine: Engine) -> None:
    """Wherever it strikes: else the engine could not even roll back, and said so in its place."""
    struck: list[str] = []

    def interrupt(_: int, __: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for at in range(250):
            try:
                # Not in begin and commit, too, which SQLAlchemy does not bear at each of their instructions.
                with engine.begin() as connection:
                    try:
                        signal.setitimer(signal.ITIMER_REAL, 0.0003 + at * 0.00003)
                        tx = SessionTx.on(connection, session_id="s")
                        tx.enqueue_all_work([NewWork([1]), NewWork([2])])
                        tx.claim_lease(owner_id="ann", ttl_ms=10)
                        connection.execute(text("SELECT 1"))
                        tx.load_head()
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                        time.sleep(0)  # one that has come already strikes here
            except KeyboardInterrupt:
                struck.append("interrupted")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert struck
    with engine.begin() as connection:
        assert SessionTx.on(connection, session_id="s").work_depth().batches % 2 == 0


@pytest.mark.parametrize("step", ["_enter_gen", "_exit_gen"])
@pytest.mark.parametrize("whose", ["a consumer's", "the store's", "a consumer's on the store's"])
def test_k_tx_10_an_interrupt_as_many_rows_are_sent_is_no_error(
    engine: Engine, own_url: str, monkeypatch: pytest.MonkeyPatch, whose: str, step: str
) -> None:
    """The driver leaves its pipeline then, and raises over the interrupt that it is busy; or does not leave it."""
    do = getattr(psycopg.Pipeline, step)

    def strike(pipeline: psycopg.Pipeline) -> Iterator[None]:
        if step == "_enter_gen":
            yield from do(pipeline)
        raise KeyboardInterrupt

    works = [NewWork([1]), NewWork([2])]
    with SessionStore.open(own_url, session_id="s", busy_timeout_ms=200) as store:
        store.load_head()
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(psycopg.Pipeline, step, strike)
            if whose == "a consumer's":
                with engine.begin() as connection:
                    SessionTx.on(connection, session_id="s").enqueue_all_work(works)
            elif whose == "the store's":
                store.enqueue_all_work(works)
            else:
                with store.begin() as tx:
                    tx.connection.execute(text("SELECT :a"), [{"a": 1}, {"a": 2}])
        with engine.begin() as connection:
            assert SessionTx.on(connection, session_id="s").work_depth().batches == 0
        store.enqueue_all_work(works)


def test_k_group_3_what_can_not_be_sent_in_a_pipeline_costs_no_connection(own_url: str) -> None:
    """Who has begun the pipeline leaves it: the others of a group go on on the same connection."""
    with SessionStore.open(own_url, session_id="s") as store, store.begin() as tx:
        cursor, connection = tx.own_cursor, tx.current
        many = partial(cursor.execute_many_now, "SELECT $1::text", [["a"], ["a\0b"]])  # type: ignore[attr-defined] # reason: PostgreSQL's own
        with pytest.raises(psycopg.DataError):
            connection.send(many)  # type: ignore[attr-defined] # reason: likewise
        assert connection.in_transaction
        tx.enqueue_work(NewWork([1]))


def test_k_lock_1_waiting_in_vain_keeps_what_was_done_before(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (id int)"))
        SessionTx.on(connection, session_id="s")  # so that the tables are there
    with engine.begin() as other:
        SessionTx.on(other, session_id="s")
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO numbers VALUES (2)"))
            with pytest.raises(StoreBusyError):
                SessionTx.on(connection, session_id="s")
            shown = connection.execute(text("SHOW lock_timeout")).scalar_one()
            SessionTx.on(connection, session_id="another").enqueue_work(NewWork([1]))
    with engine.begin() as connection:
        assert shown == "200ms"  # the budget of all that it waits for from now on
        assert connection.execute(text("SELECT id FROM numbers")).all() == [(2,)]


def test_k_tx_8_autocommit_by_the_driver_is_refused(own_url: str) -> None:
    engine = create_engine(own_url, connect_args={"autocommit": True})
    with lash_store.configure(engine).begin() as connection:
        with pytest.raises(NotConfiguredError, match="autocommit"):
            SessionTx.on(connection, session_id="s")
        assert connection.execute(text("SELECT to_regclass('lash_meta')")).scalar_one() is None
    engine.dispose()


def test_k_guard_5_a_table_that_is_gone_is_named_in_a_joined_transaction(engine: Engine) -> None:
    for _ in range(2):  # they are made, and they are compared: from then on they are known
        with engine.begin() as connection:
            EffectTx.on(connection).list_effects()
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE lash_runtime_effect_replay"))
    with pytest.raises(MissingTableError, match="lash_runtime_effect_replay"):
        with engine.begin() as connection:
            EffectTx.on(connection).list_effects()


def test_k_share_5_what_a_refused_commit_has_made_is_made_again(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE parents (id int PRIMARY KEY)"))
        connection.execute(
            text(
                "CREATE TABLE children (parent int REFERENCES parents DEFERRABLE INITIALLY DEFERRED)"
            )
        )
    with pytest.raises(IntegrityError, match="children"):
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO children VALUES (1)"))
            for _ in range(2):  # its tables are made, and they are compared
                assert EffectTx.on(connection).list_effects() == []
    with engine.begin() as connection:
        assert connection.execute(text("SELECT to_regclass('lash_meta')")).scalar_one() is None
        assert EffectTx.on(connection).list_effects() == []


def test_k_hold_1_a_lease_on_a_table_of_your_own_is_renewed(own_url: str) -> None:
    with Deployment.open(own_url) as deployment:
        store = deployment.sessions.create("c", model="m")
        with store.begin() as tx:
            metadata.create_all(tx.connection)
        with JOBS.hold(store, "nightly", owner_id="ann", ttl_ms=900) as held:
            end_s = time.monotonic() + 20
            while held.renewals < 2 and time.monotonic() < end_s:
                held.check()
                time.sleep(0.01)
            assert held.renewals >= 2
        with store.read() as tx:
            assert JOBS.current(tx, "nightly") is None


def test_k_open_11_dropped_stores_leave_no_connection(
    own_url: str, place: str, admin: psycopg.Connection[Any]
) -> None:
    gc.disable()  # it would find them, some time
    try:
        with Deployment.open(own_url, application_name=place) as deployment:
            for each in range(3):
                deployment.sessions.create(f"c{each}", model="m").load_head()
                store = deployment.sessions.open(f"c{each}")
                assert store is not None
                store.enqueue_work(NewWork([each]))
                del store
        for _ in range(100):
            row = admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [place]
            ).fetchone()
            if row == (0,):
                break
            time.sleep(0.02)  # a server sees the end of a connection a moment later
        assert row == (0,)
    finally:
        gc.enable()


@pytest.mark.parametrize("how", ["COMMIT", "ROLLBACK", "/* so */ end"])
def test_k_tx_8_a_tx_does_not_go_on_behind_a_statement_that_has_ended_it(
    engine: Engine, how: str
) -> None:
    with (
        pytest.raises(TransactionEndedError, match="nothing of it is kept"),
        engine.begin() as connection,
    ):
        tx = SessionTx.on(connection, session_id="s")
        tx.enqueue_work(NewWork([1]))
        connection.execute(text(how))
        connection.execute(text("SELECT 1"))  # the driver begins another one, without a lock
        with pytest.raises(TransactionEndedError):
            tx.enqueue_work(NewWork([2]))
    with engine.begin() as connection:
        kept = SessionTx.on(connection, session_id="s").work_depth().batches
    assert kept == (0 if how == "ROLLBACK" else 1)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
        "/* a /* nested */ ; commit */ SELECT 1",
        "SAVEPOINT own; ROLLBACK TO own",
        "SELECT 'COMMIT'",
    ],
)
def test_k_tx_8_what_only_looks_like_an_end_is_none(engine: Engine, sql: str) -> None:
    with engine.begin() as connection:
        tx = SessionTx.on(connection, session_id="s")
        tx.enqueue_work(NewWork([1]))
        connection.execute(text(sql))
        tx.enqueue_work(NewWork([2]))
    with engine.begin() as connection:
        assert SessionTx.on(connection, session_id="s").work_depth().batches == 2


def test_k_tx_8_an_async_engine_keeps_its_notices_and_notifications(own_url: str) -> None:
    heard: list[str] = []

    async def main() -> list[str]:
        engine = lash_store.configure(create_async_engine(own_url, pool_size=1))
        async with engine.begin() as connection:
            await connection.execute(text("SELECT 1"))
        async with engine.connect() as connection:
            at_once = await connection.execution_options(isolation_level="AUTOCOMMIT")
            raw: Any = (await at_once.get_raw_connection()).driver_connection
            raw.add_notice_handler(lambda said: heard.append(said.message_primary))
            for sql in (
                "LISTEN mine",
                "DO $$ BEGIN RAISE NOTICE 'hello'; END $$",
                "NOTIFY mine, 'as a statement runs'",
            ):
                await at_once.execute(text(sql))
            told = [each.payload async for each in raw.notifies(timeout=0.3)]
        await engine.dispose()
        return told

    assert asyncio.run(main()) == ["as a statement runs"]
    assert heard == ["hello"]


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the driver's cursor could not be closed, and says so
@pytest.mark.parametrize("how", ["begin", "read", "transact"])
def test_k_pg_2_a_connection_that_is_lost_as_a_result_is_streamed_is_no_error_of_the_drivers(
    url: str, place: str, admin: psycopg.Connection[Any], how: str
) -> None:
    kept: list[Any] = []

    def work(tx: Any) -> None:
        rows = tx.connection.execution_options(stream_results=True).execute(
            text("SELECT generate_series(1, 100000), pg_backend_pid()")
        )
        _, pid = next(rows)
        kept.append(rows)
        admin.execute("SELECT pg_terminate_backend(%s, 20000)", [pid])

    with SessionStore.open(url, session_id="s", schema=place) as store:
        if how == "read":
            with store.read() as tx:
                work(tx)
        elif how == "transact":
            with pytest.raises(ConnectionLostError):
                store.transact(work)
        else:
            with pytest.raises(ConnectionLostError), store.begin() as tx:
                work(tx)
        assert store.work_depth().batches == 0
    kept.clear()
    gc.collect()  # so that it says so here
