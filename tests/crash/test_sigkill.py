"""SIGKILL at any moment: what was reported stays, what was not is whole or absent."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from lash_store import (
    Cancelled,
    LeaseHeld,
    ProcessFence,
    ProcessRegistry,
    SessionFence,
    SessionLease,
    SessionStore,
    Success,
)
from lash_store.errors import LeaseLostError
from lash_store.schemas import check_file
from tests.support.databases import all_rows
from tests.support.processes import Says, workers
from tests.support.registries import register


def claim_for_ever(say: Says, path: Path) -> None:
    store = SessionStore.open(path, session_id="s")
    while True:
        lease = store.claim_lease(owner_id="victim", ttl_ms=0)
        assert isinstance(lease, SessionLease)
        say(lease.fencing_token)


@pytest.mark.parametrize("seed", range(10))
def test_no_reported_term_is_lost_to_sigkill(path: Path, seed: int) -> None:
    with workers(1, claim_for_ever, path) as (victim,):
        reported = victim.receive()
        time.sleep(random.Random(seed).uniform(0.0, 0.05))
        victim.kill()
        while victim.pipe.poll():
            try:
                reported = victim.receive()
            except EOFError:
                break
    assert check_file(path).is_sound
    with SessionStore.open(path, session_id="s") as store:
        lease = store.claim_lease(owner_id="next", ttl_ms=0)
    assert isinstance(lease, SessionLease)
    # The one claim that was cut off may have been committed without being reported.
    assert lease.fencing_token in (reported + 1, reported + 2)


def hold_inside_a_transaction(say: Says, path: Path) -> None:
    store = SessionStore.open(path, session_id="s")
    with store.begin() as tx:
        tx.claim_lease(owner_id="victim", ttl_ms=60_000)
        tx.connection.exec_driver_sql("INSERT INTO blobs VALUES ('h', x'00')")
        say("inside")
        time.sleep(60)


def test_a_transaction_that_was_killed_leaves_nothing_and_no_lock(path: Path) -> None:
    SessionStore.open(path, session_id="s").close()
    before = all_rows(path)
    with workers(1, hold_inside_a_transaction, path) as (victim,):
        assert victim.receive() == "inside"
        victim.kill()
    assert all_rows(path) == before
    with SessionStore.open(path, session_id="s", busy_timeout_ms=0) as store:
        assert isinstance(store.claim_lease(owner_id="next", ttl_ms=1), SessionLease)


def hold_the_lease(say: Says, path: Path, ttl_ms: int) -> None:
    store = SessionStore.open(path, session_id="s")
    lease = store.claim_lease(owner_id="victim", ttl_ms=ttl_ms)
    assert isinstance(lease, SessionLease)
    say(lease)
    time.sleep(60)


def test_a_dead_holder_is_taken_over_after_its_term_and_then_fenced_off(path: Path) -> None:
    with workers(1, hold_the_lease, path, 300) as (victim,):
        lost: SessionLease = victim.receive()
        victim.kill()
    fence: SessionFence = lost.fence
    with SessionStore.open(path, session_id="s") as store:
        held = store.claim_lease(owner_id="next", ttl_ms=60_000)
        while isinstance(held, LeaseHeld):
            assert held.fencing_token == 1
            time.sleep(0.01)
            held = store.claim_lease(owner_id="next", ttl_ms=60_000)
        assert held.claimed_at_ms >= lost.expires_at_ms
        assert held.fencing_token == 2
        with pytest.raises(LeaseLostError, match="superseded"):
            store.renew_lease(fence, ttl_ms=60_000)
        assert store.current_lease() == held


def test_a_stopped_holder_that_wakes_up_after_its_term_is_refused(path: Path) -> None:
    with workers(1, hold_renew_when_told, path) as (sleeper,):
        assert sleeper.receive() == "claimed"
        pid = sleeper.process.pid or 0
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.25)
        with SessionStore.open(path, session_id="s") as store:
            taken = store.claim_lease(owner_id="next", ttl_ms=60_000)
            assert isinstance(taken, SessionLease)
            os.kill(pid, signal.SIGCONT)
            sleeper.pipe.send("renew")
            assert sleeper.receive() == "superseded"
            assert store.current_lease() == taken


def hold_renew_when_told(say: Says, path: Path) -> None:
    store = SessionStore.open(path, session_id="s")
    lease = store.claim_lease(owner_id="sleeper", ttl_ms=100)
    assert isinstance(lease, SessionLease)
    say("claimed")
    say.wait()
    try:
        store.renew_lease(lease.fence, ttl_ms=60_000)
    except LeaseLostError as error:
        say(error.reason)


def run_for_ever(say: Says, path: Path, ttl_ms: int) -> None:
    with ProcessRegistry.open(path) as registry:
        claimed = registry.claim_next(owner_id="victim", ttl_ms=ttl_ms)
        assert claimed is not None
        say(claimed.lease.fence)
        say.wait()
        try:
            registry.complete_process("p", Success("late"), fence=claimed.lease.fence)
        except LeaseLostError as lost:
            say(lost.reason)


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_whose_worker_dies_or_stalls_is_completed_by_another(
    path: Path, signal_number: signal.Signals
) -> None:
    """The first worker's fenced completion is refused, should it come back (P-EVENT-11, P-LEASE-3)."""
    with ProcessRegistry.open(path) as registry, workers(1, run_for_ever, path, 300) as (victim,):
        register(registry)
        register(registry, "unrelated")
        registry.complete_process("unrelated", Cancelled("m"))
        fence: ProcessFence = victim.receive()
        assert victim.process.pid is not None
        os.kill(victim.process.pid, signal_number)
        claimed = None
        while claimed is None:
            claimed = registry.claim_next(owner_id="next", ttl_ms=60_000)
            time.sleep(0.01)
        assert claimed.record.id == fence.process_id == "p"
        assert claimed.lease.fencing_token == fence.fencing_token + 1
        if signal_number == signal.SIGSTOP:
            os.kill(victim.process.pid, signal.SIGCONT)
            victim.pipe.send("go on")
            assert victim.receive() == "superseded"
        registry.complete_process("p", Success("done"), fence=claimed.lease.fence)
        with pytest.raises(LeaseLostError):
            registry.complete_process("p", Success("done"), fence=fence)
        record = registry.load_process("p")
        assert record is not None
        assert record.await_output == Success("done")
        assert [event.event_type for event in registry.events_after("p")] == ["process.completed"]
