"""Real processes on one registry: appending, claiming, starting, waking."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lash_store import ProcessRegistry, Success
from tests.support.processes import Says, workers
from tests.support.registries import register, registration

WRITERS = 8
EACH = 60


def append_often(say: Says, path: Path) -> None:
    me = str(os.getpid())
    with ProcessRegistry.open(path) as registry:
        say("ready")
        say.wait()
        registry.register_process(registration(me))
        appended = []
        for at in range(EACH):
            payload = [me, at]
            shared = registry.append_event("shared", "wake", payload).event
            own = registry.append_event(me, "tick", payload, replay_key=f"{at}").event
            # The same key from everybody: it is appended once.
            registry.append_event("shared", "tick", at, replay_key=f"once-{at}")
            appended.append((shared.sequence, own.sequence))
        say((me, appended))


def test_p_event_1_eight_processes_append_at_once_without_a_gap(path: Path) -> None:
    with ProcessRegistry.open(path) as registry:
        register(registry, "shared")
        with workers(WRITERS, append_often, path) as writers:
            for writer in writers:
                writer.receive()
                writer.pipe.send("go")
            reports = dict(writer.receive() for writer in writers)
        shared = registry.events_after("shared", limit=10_000)
        assert [event.sequence for event in shared] == list(range(1, WRITERS * EACH + EACH + 1))
        by_sequence = {event.sequence: event for event in shared}
        once = Counter(event.replay_key for event in shared if event.replay_key is not None)
        assert once == {f"once-{at}": 1 for at in range(EACH)}
        for me, appended in reports.items():
            own = registry.events_after(me)
            assert [event.sequence for event in own] == list(range(1, EACH + 1))
            assert [event.payload for event in own] == [[me, at] for at in range(EACH)]
            for at, (in_shared, in_own) in enumerate(appended):
                assert by_sequence[in_shared].payload == [me, at]
                assert in_own == at + 1
        pending = registry.wake_events_after("shared", limit=10_000)
        assert len(pending) == WRITERS * EACH


def work_off(say: Says, path: Path) -> None:
    with ProcessRegistry.open(path) as registry:
        say("ready")
        say.wait()
        taken = []
        while (
            claimed := registry.claim_next(owner_id=str(os.getpid()), ttl_ms=60_000)
        ) is not None:
            name = claimed.record.id
            registry.append_event(name, "tick", fence=claimed.lease.fence)
            registry.complete_process(name, Success(os.getpid()), fence=claimed.lease.fence)
            taken.append(name)
        say(taken)


def work_from_one_to_the_next(say: Says, path: Path) -> None:
    with ProcessRegistry.open(path) as registry:
        say("ready")
        say.wait()
        taken = []
        claimed = registry.claim_next(owner_id=str(os.getpid()), ttl_ms=60_000)
        while claimed is not None:
            registry.append_event(claimed.record.id, "tick", fence=claimed.fence)
            taken.append(claimed.record.id)
            _, claimed = registry.complete_and_claim_next(
                claimed.fence, Success(os.getpid()), ttl_ms=60_000
            )
        say(taken)


@pytest.mark.parametrize("work", [work_off, work_from_one_to_the_next])
def test_p_lease_3_every_process_is_claimed_and_run_once(
    path: Path, work: Callable[[Says, Path], None]
) -> None:
    names = [f"p{at:03}" for at in range(100)]
    with ProcessRegistry.open(path) as registry:
        for name in names:
            register(registry, name)
        with workers(WRITERS, work, path) as runners:
            for runner in runners:
                runner.receive()
            for runner in runners:
                runner.pipe.send("go")
            taken = [name for runner in runners for name in runner.receive()]
        assert sorted(taken) == names
        for name in names:
            events = [event.event_type for event in registry.events_after(name)]
            assert events == ["tick", "process.completed"]


def register_the_same(say: Says, path: Path) -> None:
    with ProcessRegistry.open(path) as registry:
        say("ready")
        say.wait()
        say([registry.register_process(registration(f"p{at}")).created_at_ms for at in range(50)])


def test_p_reg_3_registering_at_once_gives_everybody_the_same_record(path: Path) -> None:
    with workers(WRITERS, register_the_same, path) as registrars:
        for registrar in registrars:
            registrar.receive()
        for registrar in registrars:
            registrar.pipe.send("go")
        seen = {tuple(registrar.receive()) for registrar in registrars}
    assert len(seen) == 1
    with ProcessRegistry.open(path) as registry:
        assert len(registry.list_processes()) == 50
