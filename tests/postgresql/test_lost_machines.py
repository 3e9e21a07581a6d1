"""K-PG-8: what a machine that is gone, or frozen, in the midst of a transaction keeps from others."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from lash_store import NewWork, SessionStore, SessionTx
from lash_store.testing import run_as_group

ROOT = Path(__file__).resolve().parents[2]

SHOW = "SELECT current_setting('idle_in_transaction_session_timeout')"

FREEZES = """
import os, signal, sys
from lash_store import NewWork, SessionStore
from lash_store._backends.postgresql import dialect
from lash_store._kernel.observing import observed_by
from lash_store.errors import LashStoreError

assert dialect.BOUND_IDLE.endswith("'30s'")
dialect.BOUND_IDLE = dialect.BOUND_IDLE.replace("30s", "300ms")

class Freeze:
    def before(self, event):
        pass

    def after(self, event):
        if event.sql.startswith("INSERT"):
            print("frozen", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)

with SessionStore.open(sys.argv[1], session_id="s", schema=sys.argv[2]) as store:
    store.work_depth()
    try:
        with observed_by(Freeze()):
            store.enqueue_work(NewWork(["lost"]))
    except LashStoreError as error:
        print(type(error).__name__, flush=True)
    store.enqueue_work(NewWork(["after"]))
    print("went on", flush=True)
"""
"""A program that stops in the midst of an operation, with the lock on its session."""


def setting(tx: Any) -> str:
    """Return how long the transaction may be idle, as the server shows it."""
    ((shown,),) = tx.own_cursor.execute(SHOW, prepare=False).fetchall()
    return str(shown)


def by_the_consumer(tx: SessionTx) -> str:
    return str(tx.connection.exec_driver_sql(SHOW).scalar_one())


def test_k_pg_8_a_machine_that_is_frozen_in_an_operation_keeps_no_lock(
    url: str, place: str
) -> None:
    with (
        SessionStore.open(url, session_id="s", schema=place) as store,
        subprocess.Popen(
            [sys.executable, "-c", FREEZES, url, place],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        ) as other,
    ):
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == "frozen\n"
            store.enqueue_work(NewWork(["mine"]))
            assert [item.payload for each in store.list_work() for item in each.items] == ["mine"]
            other.send_signal(signal.SIGCONT)
            assert other.stdout.read().split("\n") == ["ConnectionLostError", "went on", ""]
        finally:
            other.kill()
        assert store.work_depth().batches == 2


def test_k_pg_8_nothing_bounds_what_a_consumer_does_in_a_transaction(url: str, place: str) -> None:
    with SessionStore.open(url, session_id="s", schema=place) as store:
        handle = store._handle
        assert handle.write("probe", setting) == "30s"
        assert handle.read("probe", setting) == "30s"
        with store.begin() as tx:
            assert by_the_consumer(tx) == "0"
        with store.read() as tx:
            assert by_the_consumer(tx) == "0"
        assert store.transact(by_the_consumer) == "0"
        assert store.transact(by_the_consumer, repeatable=True) == "0"
        together = run_as_group(
            partial(store.put_blob, b"x"), partial(store.transact, by_the_consumer, repeatable=True)
        )
        assert together[1] == "0"


def test_k_pg_8_whoever_runs_the_server_may_say_it(url: str, place: str) -> None:
    there = f"{url}{'&' if '?' in url else '?'}options=-cidle_in_transaction_session_timeout%3D7s"
    with SessionStore.open(there, session_id="s", schema=place) as store:
        assert store._handle.write("probe", setting) == "7s"
        assert store._handle.read("probe", setting) == "7s"
