"""A fault at every step of what a registry does: before or after, never between."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lash_store import Cancelled, ProcessFence, ProcessRegistry, Scope, Success
from lash_store.errors import LashStoreError, LeaseLostError
from lash_store.process.records import ExternalRef, signal_wait
from lash_store.testing import ManualClock, SequentialIds
from tests.support.databases import all_rows
from tests.support.faults import faulty
from tests.support.processes import Says, workers
from tests.support.registries import lease_on, register, registration

FENCE = ProcessFence("p", "ann", "token-1", 1)
ONE, TWO = Scope("one"), Scope("two")

OPERATIONS: dict[str, Callable[[ProcessRegistry], Any]] = {
    "register_process": lambda r: r.register_process(registration("new")),
    "set_wait": lambda r: r.set_wait("p", signal_wait("p", "go", ordinal=1, since_ms=1)),
    "set_external_ref": lambda r: r.set_external_ref("p", ExternalRef("b", "i")),
    "append_event": lambda r: r.append_event("p", "wake", "x", replay_key="new", fence=FENCE),
    "append_event, again": lambda r: r.append_event("p", "wake", "x", replay_key="k"),
    "complete_process": lambda r: r.complete_process("p", Success(1), fence=FENCE),
    "request_cancel": lambda r: r.request_cancel("p", reason="r"),
    "ack_wake": lambda r: r.ack_wake("p", 1),
    "grant_handle": lambda r: r.grant_handle(TWO, "p"),
    "transfer_handles": lambda r: r.transfer_handles(ONE, TWO, ["p", "q"]),
    "delete_session": lambda r: r.delete_session("one"),
    "claim_next": lambda r: r.claim_next(owner_id="bob", ttl_ms=50),
    "renew_lease": lambda r: r.renew_lease(FENCE, ttl_ms=99),
    "release_lease": lambda r: r.release_lease(FENCE),
}


def prepare(path: Path) -> ProcessRegistry:
    for leftover in path.parent.glob(f"{path.name}*"):
        leftover.unlink()
    registry = ProcessRegistry.open(path, clock=ManualClock(), ids=SequentialIds())
    for name in "pq":
        register(registry, name, wake_target=ONE)
        registry.grant_handle(ONE, name)
    registry.append_event("p", "wake", "x", replay_key="k")
    lease_on(registry)
    return registry


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_fault_at_every_statement(path: Path, name: str, when: str) -> None:
    operation = OPERATIONS[name]
    clean = path.parent / "clean.db"
    with prepare(clean) as registry:
        expected = operation(registry)
    after = all_rows(clean)
    faults = 0
    for at in range(1, 40):
        with prepare(path) as registry:
            before = all_rows(path)
            with faulty(registry, at, when) as cursor, suppress(LashStoreError):
                operation(registry)
            if not cursor.fired:
                break
            faults += 1
            found = all_rows(path)
            assert found in (before, after)
            if found == before and name != "claim_next":  # which draws another token then
                assert operation(registry) == expected
                assert all_rows(path) == after
    assert faults >= 3  # begin, at least one statement, commit


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "claim_next"])
def test_a_fault_that_a_consumer_catches_inside_a_transaction(
    path: Path, name: str, when: str
) -> None:
    """What the operation wrote before the fault is undone, though the transaction goes on."""
    operation = OPERATIONS[name]
    for at in range(2, 40):
        with prepare(path) as registry:
            before = all_rows(path)
            with faulty(registry, at, when) as cursor, suppress(LashStoreError):
                with registry.begin() as tx, suppress(LashStoreError):
                    operation(tx)  # type: ignore[arg-type] # reason: it has the same operations
                    if cursor.fired:
                        break
                if not cursor.fired:
                    break
            if when == "before":
                assert all_rows(path) == before


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
