"""K-HOLD against real processes: busy writers, a blocked loop, a stop, many holds, a locked file.

How long, and how many, says the environment: ``LASH_STORE_HOLD_S=60 LASH_STORE_HOLDS=1000``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from lash_store import AsyncSessionStore, Deployment, LeaseHeld, NewWork, SessionStore, TurnCommit
from lash_store._kernel.observing import Event, observed_by
from lash_store.errors import LashStoreError, LeaseLostError
from tests.support.processes import Says, workers

HOLD_S = float(os.environ.get("LASH_STORE_HOLD_S", "6"))
HOLDS = int(os.environ.get("LASH_STORE_HOLDS", "150"))


def write_without_end(say: Says, path: Path, number: int = 0) -> None:
    with SessionStore.open(path, session_id="s") as store:
        say("writes")
        while not say._pipe.poll():
            with store.begin() as tx:
                tx.enqueue_work(NewWork([number] * 20))
            with store.begin() as tx:
                for batch in tx.list_pending_work(limit=3):
                    tx.cancel_work(batch.batch_id)
        say(None)


def test_k_hold_4_no_term_is_lost_under_a_blocked_loop_and_eight_writers(path: Path) -> None:
    """The loop is blocked for longer than the ttl, again and again."""

    async def main() -> int:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            async with store.hold(owner_id="ann", ttl_ms=2_000) as held:
                end_s = time.monotonic() + HOLD_S
                while time.monotonic() < end_s:
                    time.sleep(2.5)  # reason: that is the test
                    held.check()
                    await asyncio.sleep(0.01)
                await store.commit_turn(TurnCommit(fence=held.fence))
                return held.renewals

    SessionStore.open(path, session_id="s").close()
    with workers(8, write_without_end, path) as writers:
        for each in writers:
            each.receive()
        renewals = asyncio.run(main())
        for each in writers:
            each.pipe.send("stop")
        for each in writers:
            each.receive()
    assert renewals >= HOLD_S / 2


def hold_until_lost(say: Says, path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        with store.hold(owner_id="ann", ttl_ms=600) as held:
            held.check()
            say(held.fence.fencing_token)
            say.wait()  # stopped here, for longer than the term
            said: list[str] = []
            try:
                held.check()
            except LeaseLostError as error:
                said.append(f"check: {error.reason}")
            try:
                store.commit_turn(TurnCommit(fence=held.fence))
            except LeaseLostError as error:
                said.append(f"commit: {error.reason}")
            say(said)


@pytest.mark.posix("stops a process by SIGSTOP")
def test_k_hold_3_a_stop_beyond_the_term(path: Path) -> None:
    """``check`` raises the moment the process goes on, and its fence is refused."""
    with (
        workers(1, hold_until_lost, path) as (holder,),
        SessionStore.open(path, session_id="s") as store,
    ):
        assert holder.receive() == 1
        assert isinstance(store.claim_lease(owner_id="bob", ttl_ms=60_000), LeaseHeld)
        assert holder.process.pid is not None
        os.kill(holder.process.pid, signal.SIGSTOP)
        end_s = time.monotonic() + 20
        while isinstance(lease := store.claim_lease(owner_id="bob", ttl_ms=60_000), LeaseHeld):
            assert time.monotonic() < end_s
            time.sleep(0.01)
        holder.pipe.send("go on")
        os.kill(holder.process.pid, signal.SIGCONT)
        said = holder.receive()
        assert said in (
            ["check: expired", "commit: superseded"],
            ["check: superseded", "commit: superseded"],
        )
        assert store.current_lease() == lease


class Renewals:
    """How many transactions renewed something."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def before(self, event: Event) -> None:
        pass

    def after(self, event: Event) -> None:
        if event.kind == "commit" and event.operation == "renew_lease":
            with self._lock:
                self.count += 1


def test_k_hold_4_many_holds_in_one_database(path: Path) -> None:
    with Deployment.open(f"sqlite:///{path}") as deployment, ExitStack() as holding:
        held = [
            holding.enter_context(
                deployment.sessions.create(f"s{at}", model="m").hold(owner_id="ann", ttl_ms=3_000)
            )
            for at in range(HOLDS)
        ]
        threads, counted = threading.active_count(), Renewals()
        with observed_by(counted):
            started_s = time.monotonic()
            time.sleep(5)
            took_s = time.monotonic() - started_s
        for each in held:
            each.check()
        assert all(each.renewals >= 4 for each in held)
        assert counted.count <= 20 * took_s + 3
        assert threading.active_count() <= threads + 5


def lock_for_a_while(say: Says, path: Path, seconds: float) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        say("locked")
        time.sleep(seconds)
        connection.execute("ROLLBACK")
        say("let go")


def test_k_hold_4_many_files_and_one_of_them_locked(tmp_path: Path) -> None:
    """Each file's renewals come in time; the locked one's holder is told, and nobody else's."""
    locked_s, ttl_ms = max(3.0, HOLD_S / 4), 9_000 if HOLDS > 300 else 2_500
    with Deployment.open(tmp_path) as deployment, ExitStack() as holding:
        held: list[Any] = []
        for at in range(HOLDS):
            hold = deployment.sessions.create(f"s{at}", model="m").hold(
                owner_id="ann", ttl_ms=ttl_ms
            )
            held.append(holding.enter_context(hold))
        (locked, *others) = held
        path = Path(locked._kept.handle.path)
        with workers(1, lock_for_a_while, path, locked_s) as (other,):
            assert other.receive() == "locked"
            end_s = time.monotonic() + max(locked_s, ttl_ms / 1000) + 2
            while time.monotonic() < end_s:
                for each in others:
                    each.check()
                time.sleep(0.05)
            assert other.receive() == "let go"
        for each in others:
            each.check()
            assert each.renewals >= 2
        if locked_s * 1000 > ttl_ms:
            assert isinstance(locked.lost, LashStoreError)
