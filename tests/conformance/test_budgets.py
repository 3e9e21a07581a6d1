"""Whoever waits waits for its own budget: not for another's, nor for a handler's thread, nor for a fork (K-TX-3)."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lash_store import SessionStore
from lash_store._backends.sqlite import forking
from lash_store._backends.sqlite.driver import unobserved
from lash_store.errors import NestedTransactionError, StoreBusyError
from tests.support.databases import apart, database_of
from tests.support.turns import eventually, everything_locked, in_line

pytestmark = pytest.mark.sqlite("the locks of a file")

LONG_MS = 20_000


def test_k_open_11_what_is_opened_again_is_waited_for_within_the_calls_own_budget(
    path: Path,
) -> None:
    """The first handle's would be waited for, by every other one, with the turn."""
    with (
        SessionStore.open(path, session_id="s", busy_timeout_ms=LONG_MS) as patient,
        SessionStore.open(path, session_id="s", busy_timeout_ms=50) as hasty,
    ):
        patient.put_blob(b"x")
        assert database_of(patient).close_if_idle()
        with everything_locked(path):
            for call in (hasty.work_depth, lambda: hasty.put_blob(b"y")):
                with pytest.raises(StoreBusyError) as busy:
                    call()
                assert busy.value.waited_ms < LONG_MS / 2
        patient.work_depth()
        connection: Any = database_of(patient).connections.readers()[0]
        assert connection.busy_timeout_ms == LONG_MS
        hasty.work_depth()
        assert connection.busy_timeout_ms == 50
        assert unobserved(connection.own_cursor, "PRAGMA busy_timeout") == [(50,)]


def test_k_hold_4_looking_for_commits_waits_for_no_lock(path: Path) -> None:
    """The timer looks, which keeps the terms of all databases."""
    with SessionStore.open(path, session_id="s", busy_timeout_ms=LONG_MS) as store:
        store.put_blob(b"x")
        database = database_of(store)
        assert database.close_if_idle()
        with everything_locked(path):
            begun_s = time.monotonic()
            assert database.connections.data_version() is None
            assert time.monotonic() - begun_s < LONG_MS / 2_000
        assert database.connections.data_version() is not None


@pytest.mark.posix("the queue of processes")
def test_k_tx_4_a_small_budget_is_not_spent_behind_a_head_that_is_stopped(path: Path) -> None:
    stopped: SessionStore = apart(SessionStore.open, path, session_id="s")
    with stopped, SessionStore.open(path, session_id="s", busy_timeout_ms=100) as store:
        queue: Any = database_of(stopped).connections.queue
        its: Any = database_of(stopped).connections.writer
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            now_s = time.monotonic()
            assert queue.try_begin(its, now_s) is not None
            assert queue.try_begin(its, now_s + 1) is not None  # it has closed the gate by now
            other.execute("ROLLBACK")
        for _ in range(3):
            store.put_blob(b"x")
        queue.leave()
        other.close()


@pytest.mark.posix("signals")
@pytest.mark.parametrize("how", ["operation", "block"])
def test_k_tx_4_a_handler_stands_before_the_call_of_its_thread_that_it_interrupts(
    path: Path, how: str
) -> None:
    """That one can't take its turn before the handler ends, and nobody would be served."""
    with SessionStore.open(path, session_id="s", busy_timeout_ms=LONG_MS) as store:
        handled, leave = list[float](), threading.Event()

        def handle(*_: object) -> None:
            leave.set()
            if how == "operation":
                store.put_blob(b"handler")
            else:
                with store.begin() as tx:
                    tx.put_blob(b"handler")
            handled.append(time.monotonic())

        def block() -> None:
            with store.begin():
                entered.set()
                leave.wait(30)

        def strike() -> None:
            eventually(lambda: in_line(store) > 0)
            signal.pthread_kill(main, signal.SIGALRM)

        main, entered = threading.get_ident(), threading.Event()
        before = signal.signal(signal.SIGALRM, handle)
        threads = [threading.Thread(target=each) for each in (block, strike)]
        try:
            threads[0].start()
            assert entered.wait(30)
            threads[1].start()
            begun_s = time.monotonic()
            store.put_blob(b"interrupted")
            assert time.monotonic() - begun_s < LONG_MS / 2_000
        finally:
            signal.signal(signal.SIGALRM, before)
            leave.set()
            for each in threads:
                each.join()
        assert len(handled) == 1


def test_k_open_5_a_handler_in_a_fork_opens_nothing(path: Path) -> None:
    """It would wait for the fork, which waits for it."""
    forking._prepare_fork()
    try:
        with pytest.raises(NestedTransactionError, match="forking"):
            SessionStore.open(path, session_id="s")
        assert not path.exists() or not path.stat().st_size
    finally:
        forking._after_fork_in_parent()
    SessionStore.open(path, session_id="s").close()
