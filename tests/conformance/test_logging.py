"""K-LOG: what is logged, when, and what never is."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from lash_store import (
    AsyncSessionStore,
    EffectStore,
    NewWork,
    ProcessRegistry,
    SessionStore,
    SessionTx,
    configure,
)
from lash_store.errors import LeaseLostError, StorageError
from lash_store.testing import ManualClock, run_as_group
from lash_store.tracing import log_statements
from tests.support.leased import JOBS, metadata
from tests.support.registries import register
from tests.support.sessions import lease_of

TTL = 60_000


@pytest.fixture(autouse=True)
def listens(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG, logger="lash_store"):
        yield


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    return [
        (each.name, each.levelname, each.getMessage())
        for each in caplog.records
        if each.name.startswith("lash_store")
    ]


def until_told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    """Wait for what is logged on another thread."""
    end_s = time.monotonic() + 20
    while not lines(caplog):
        assert time.monotonic() < end_s, "nothing was logged"
        time.sleep(0.002)
    return lines(caplog)


def taken_over(path: object, what: str, before: str, now: str) -> list[tuple[str, str, str]]:
    text = f"{path}: {what} was taken over from {before!r} by {now!r}"
    return [("lash_store.leases", "INFO", text)]


def test_k_log_1_a_program_that_does_not_listen_is_told_nothing(tmp_path: Path) -> None:
    """Not even on stderr, where logging puts what nobody has said a word about."""
    program = (
        "import sys\n"
        "from lash_store import SessionStore\n"
        "from lash_store.testing import ManualClock\n"
        "clock = ManualClock(10**12)\n"
        "with SessionStore.open(sys.argv[1], session_id='s', clock=clock) as store:\n"
        "    with store.hold(owner_id='ann', ttl_ms=1000) as held:\n"
        "        clock.advance(5000)\n"
        "        assert held.lost is not None\n"
        "    store.claim_lease(owner_id='bob', ttl_ms=1)\n"
        "    clock.advance(5000)\n"
        "    store.claim_lease(owner_id='cid', ttl_ms=1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "s.db")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == done.stderr == ""


def test_k_log_1_takeovers_of_each_kind(
    store: SessionStore, clock: ManualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = store.path
    lease = lease_of(store, "ann", TTL)
    store.enqueue_work(NewWork([1]))
    assert store.claim_work(lease.fence, owner_id="ann", ttl_ms=TTL) is not None
    clock.advance(TTL)
    assert lines(caplog) == []
    later = lease_of(store, "bob", TTL)
    assert lines(caplog) == taken_over(path, "the lease on 's'", "ann", "bob")
    caplog.clear()
    claim = store.claim_work(later.fence, owner_id="bob", ttl_ms=TTL)
    assert claim is not None
    batch = f"the batch {claim.batch_ids[0]!r}"
    assert lines(caplog) == taken_over(path, batch, "ann", "bob")
    caplog.clear()
    assert claim.token not in caplog.text

    with ProcessRegistry.open(tmp_path / "p.db", clock=clock) as registry:
        register(registry, "p")
        registry.claim_lease("p", owner_id="ann", ttl_ms=TTL)
        registry.claim_lease("p", owner_id="ann", ttl_ms=TTL)  # a new term: fenced off
        expected = taken_over(registry.path, "the lease on 'p'", "ann", "ann")
        assert lines(caplog) == expected
        caplog.clear()

    with EffectStore.open(tmp_path / "e.db", owner_id="ann", clock=clock) as effects:
        effects.begin_effect("s", "k", {}, ttl_ms=TTL)
        clock.advance(TTL)
        effects.begin_effect("s", "k", {}, ttl_ms=TTL, owner_id="bob")
        assert lines(caplog) == taken_over(effects.path, "the step 's:k'", "ann", "bob")


def test_k_log_1_what_is_no_takeover_is_not_logged(
    store: SessionStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    lease = lease_of(store, "ann", TTL)
    store.claim_lease(owner_id="ann", ttl_ms=TTL)  # enters its term again
    store.claim_lease(owner_id="bob", ttl_ms=TTL)  # is refused
    store.enqueue_work(NewWork([1]))
    claim = store.claim_work(lease.fence, owner_id="ann", ttl_ms=TTL)
    assert claim is not None
    store.abandon_claim(claim)
    store.claim_work(lease.fence, owner_id="bob", ttl_ms=TTL)  # was given back
    store.release_lease(lease.fence)
    store.claim_lease(owner_id="bob", ttl_ms=TTL)
    assert lines(caplog) == []


def test_k_log_1_a_takeover_is_told_once_it_is_committed(
    store: SessionStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    store.claim_lease(owner_id="ann", ttl_ms=TTL)
    clock.advance(TTL)
    with pytest.raises(ZeroDivisionError), store.begin() as tx:
        tx.claim_lease(owner_id="bob", ttl_ms=TTL)
        raise ZeroDivisionError
    with store.begin() as tx:
        assert lines(caplog) == []
    assert lines(caplog) == []
    with store.begin() as tx:
        tx.claim_lease(owner_id="bob", ttl_ms=TTL)
        assert lines(caplog) == []
    assert lines(caplog) == taken_over(store.path, "the lease on 's'", "ann", "bob")


def test_k_log_1_what_an_operation_undoes_is_not_told(
    store: SessionStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error was caught in the block, which commits the rest."""
    lease = lease_of(store, "ann", TTL)
    store.enqueue_work(NewWork([1]))
    assert store.claim_work(lease.fence, owner_id="ann", ttl_ms=TTL) is not None
    clock.advance(TTL)
    later = lease_of(store, "bob", TTL)
    caplog.clear()
    with store.begin() as tx:
        with pytest.raises(ZeroDivisionError), tx.all_or_nothing():
            assert tx.claim_work(later.fence, owner_id="bob", ttl_ms=TTL) is not None
            raise ZeroDivisionError
    assert lines(caplog) == []


def test_k_log_1_in_a_group_only_what_is_kept_is_told(
    store: SessionStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    store.claim_lease(owner_id="ann", ttl_ms=TTL)
    clock.advance(TTL)

    def undone(tx: SessionTx) -> None:
        tx.claim_lease(owner_id="bob", ttl_ms=TTL)
        raise ZeroDivisionError

    _, error, _ = run_as_group(
        partial(store.enqueue_work, NewWork([1])),
        partial(store.transact, undone, repeatable=True),
        partial(store.claim_lease, owner_id="cid", ttl_ms=TTL),
    )
    assert isinstance(error, ZeroDivisionError)
    assert lines(caplog) == taken_over(store.path, "the lease on 's'", "ann", "cid")


@pytest.mark.canonical("opens an engine on the file by itself")
def test_k_log_1_a_joined_transaction_tells_at_its_commit(
    path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with SessionStore.open(path, session_id="s", clock=clock) as store:
        store.claim_lease(owner_id="ann", ttl_ms=TTL)
    clock.advance(TTL)
    engine = configure(create_engine(f"sqlite:///{path}"))
    with engine.connect() as connection:
        connection.begin()
        SessionTx.on(connection, session_id="s", clock=clock).claim_lease(owner_id="x", ttl_ms=1)
        connection.rollback()
        assert lines(caplog) == []
        connection.begin()
        SessionTx.on(connection, session_id="s", clock=clock).claim_lease(owner_id="y", ttl_ms=1)
        assert lines(caplog) == []
        connection.commit()
    assert lines(caplog) == taken_over(path, "the lease on 's'", "ann", "y")
    engine.dispose()


def test_k_log_1_a_lease_on_a_table_of_your_own(
    store: SessionStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with store.begin() as tx:
        metadata.create_all(tx.connection)
        JOBS.claim(tx, "job-7", owner_id="ann", ttl_ms=TTL)
    clock.advance(TTL)
    with store.begin() as tx:
        JOBS.claim(tx, "job-7", owner_id="bob", ttl_ms=TTL)
    assert lines(caplog) == taken_over(store.path, "the lease on 'job-7'", "ann", "bob")


def test_k_log_1_a_term_that_is_lost(
    store: SessionStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with store.hold(owner_id="ann", ttl_ms=TTL) as held:
        clock.advance(TTL)
        assert isinstance(held.lost, LeaseLostError)
        assert held.lost is not None  # told once
        text = f"{store.path}: 'ann' has lost its term on 's' (expired)"
        assert lines(caplog) == [("lash_store.leases", "WARNING", text)]
        assert held.fence.token not in caplog.text
    caplog.clear()
    with store.hold(owner_id="bob", ttl_ms=TTL):
        caplog.clear()
    assert lines(caplog) == []  # given back is not lost


def test_k_log_1_what_its_holder_gives_back_is_not_lost(
    store: SessionStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with store.hold(owner_id="ann", ttl_ms=TTL) as held:
        store.release_lease(held.fence)
        clock.advance(TTL // 3)
        assert held.wait_lost(timeout_ms=20_000) is not None
    assert lines(caplog) == []


def test_k_log_1_the_next_process_that_was_held(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with ProcessRegistry.open(None, clock=clock) as registry:
        register(registry, "p")
        with registry.hold_next(owner_id="ann", ttl_ms=TTL) as held:
            assert held is not None
            clock.advance(TTL)
            assert isinstance(held.lost, LeaseLostError)
            text = f"{registry.path}: 'ann' has lost its term on 'p' (expired)"
            assert lines(caplog) == [("lash_store.leases", "WARNING", text)]


def test_k_log_1_a_handler_that_raises_takes_nothing(
    store: SessionStore,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError(record.getMessage())

    reported: list[str] = []
    monkeypatch.setattr(
        threading, "excepthook", lambda given: reported.append(str(given.exc_value))
    )
    logger, handler = logging.getLogger("lash_store.leases"), Raises()
    lease_of(store)
    clock.advance(TTL)
    logger.addHandler(handler)
    try:
        lease = lease_of(store, "bob")
    finally:
        logger.removeHandler(handler)
    assert store.current_lease() == lease
    assert reported == [f"{store.path}: the lease on 's' was taken over from 'ann' by 'bob'"]


def test_k_log_1_a_long_wait_for_the_lock(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lash_store._backends.sqlite.connections.LONG_WAIT_S", 0.02)
    with store.begin():
        waits = threading.Thread(target=lambda: store.enqueue_work(NewWork([1])))
        waits.start()
        time.sleep(0.05)
    waits.join()
    ((name, level, text),) = lines(caplog)
    assert (name, level) == ("lash_store.writes", "WARNING")
    assert text.startswith(f"{store.path}: enqueue_work waited 0.")
    assert text.endswith(" s for the write lock")


def test_k_log_1_what_an_event_loop_waits_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lash_store._backends.sqlite.connections.LONG_WAIT_S", 0.0)

    async def enqueue() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            await store.enqueue_work(NewWork([1]))

    asyncio.run(enqueue())
    assert any("enqueue_work waited 0.0 s" in text for _, _, text in until_told(caplog))


def test_k_log_1_who_listens_may_use_the_store(
    store: SessionStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is told while somebody has the turn: no handler can stand in anybody's way."""

    class Writes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            store.enqueue_work(NewWork([record.getMessage()]))

    handler = Writes()
    logging.getLogger("lash_store.leases").addHandler(handler)
    try:
        store.claim_lease(owner_id="ann", ttl_ms=TTL)
        clock.advance(TTL)
        store.claim_lease(owner_id="bob", ttl_ms=TTL)
    finally:
        logging.getLogger("lash_store.leases").removeHandler(handler)
    (batch,) = store.list_pending_work()
    assert "was taken over" in str(batch)


def test_k_log_1_calls_that_are_done_again(
    store: SessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks_a_key(tx: SessionTx) -> None:
        tx.connection.exec_driver_sql("CREATE TABLE a (x INTEGER PRIMARY KEY)")
        tx.connection.exec_driver_sql(
            "CREATE TABLE b (x INTEGER REFERENCES a DEFERRABLE INITIALLY DEFERRED)"
        )
        tx.connection.exec_driver_sql("INSERT INTO b VALUES (7)")

    batch, error = run_as_group(
        partial(store.enqueue_work, NewWork([1])),
        partial(store.transact, breaks_a_key, repeatable=True),
    )
    assert isinstance(error, StorageError)
    assert [each.batch_id for each in store.list_pending_work()] == [batch.batch_id]
    name, level, text = lines(caplog)[0]
    assert (name, level) == ("lash_store.writes", "INFO")
    again = "undone together, to be done again one by one"
    assert text == f"{store.path}: {again}: enqueue_work, a transaction"


@pytest.mark.posix("there is no queue")
@pytest.mark.canonical("opens a file by itself")
def test_k_log_1_a_queue_of_writers_that_cant_be_used(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkdir(f"{path}-queue")
    with SessionStore.open(path, session_id="s") as store:
        store.enqueue_work(NewWork([1]))
        assert len(store.list_pending_work()) == 1
    ((name, level, text),) = lines(caplog)
    assert (name, level) == ("lash_store.writes", "WARNING")
    assert text.startswith(f"{path}: its queue of writers can't be used (Is a directory)")


class Raising(logging.Handler):
    def __init__(self, at: str) -> None:
        super().__init__()
        self.at = at

    def emit(self, record: logging.LogRecord) -> None:
        if self.at in record.getMessage():
            raise OSError("log disk full")


@pytest.mark.parametrize("at", ["COMMIT", "INSERT", ""])
def test_k_log_1_a_handler_that_raises_fails_no_statement_that_is_logged(
    path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    log = logging.getLogger("lash_store.statements.of_a_test")
    log.setLevel(1)
    log.propagate = False
    log.addHandler(Raising(at))
    with SessionStore.open(path, session_id="s") as store:
        with log_statements(log):
            store.enqueue_work(NewWork(["pay"]))
        assert store.work_depth().batches == 1
    assert reported
    assert all(each.exc_type is OSError for each in reported)
