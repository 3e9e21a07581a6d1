"""P-RET-1: processes that ended long ago are forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lash_store import (
    Deployment,
    Host,
    ProcessRegistry,
    Provenance,
    Scope,
    Success,
    TriggerStore,
)
from lash_store.errors import InvalidRecordError, NotFoundError
from lash_store.process.records import Pruned
from lash_store.routing import prune_ended, prune_started, start_deliveries, unstarted_deliveries
from lash_store.testing import ManualClock
from tests.support.databases import all_rows, run_script
from tests.support.registries import WAKE, lease_on, register
from tests.support.triggers import occur, subscribe

ONE = Scope("one")


def occurrence(name: str) -> Provenance:
    return Provenance(Host(), {"type": "trigger_occurrence", "occurrence_id": name})


def test_p_ret_1_what_ended_before_a_time_is_removed_with_all_that_is_kept_of_it(
    registry: ProcessRegistry, path: Path, clock: ManualClock
) -> None:
    for name in "abcd":
        register(registry, name, event_types=[WAKE], wake_target=ONE)
        registry.grant_handle(ONE, name)
    registry.ack_wake("a", registry.append_event("a", "wake", "x").event.sequence)
    lease_on(registry, "a")
    fence = lease_on(registry, "b").fence
    registry.complete_process("a", Success(1))
    registry.complete_process("b", Success(1), fence=fence)
    clock.advance(10)
    bound_ms = clock.now_ms()
    registry.complete_process("c", Success(1))  # at the bound, which is exclusive
    before = all_rows(path)
    for nothing in (0, bound_ms - 10):
        assert registry.prune_processes(nothing) == Pruned(0, 0, None)
    for call in (registry.prune_processes, registry.list_causing_occurrences):
        with pytest.raises(
            InvalidRecordError, match="limit"
        ):  # a page of nothing has none behind it
            call(bound_ms, limit=0)
    assert all_rows(path) == before
    assert registry.prune_processes(bound_ms) == Pruned(2, 2, None)
    rows = all_rows(path)
    for table in ("processes", "process_events", "process_handle_grants"):
        at = 2 if table == "process_handle_grants" else 0
        assert not {row[at] for row in rows[table]} & {"a", "b"}
    assert (rows["process_leases"], rows["process_wake_acks"]) == ([], [])
    assert registry.known_processes([*"abcd"]) == {"c", "d"}
    assert registry.load_process("a") is None
    with pytest.raises(NotFoundError):
        registry.complete_process("b", Success(1), fence=fence)
    # Its id is free, and what is registered under it begins anew.
    register(registry, "a")
    assert registry.events_after("a") == []
    assert lease_on(registry, "a").fencing_token == 1


def test_p_ret_1_what_somebody_has_still_to_hear_of_stays(
    registry: ProcessRegistry, path: Path
) -> None:
    for name in "abc":
        register(registry, name, event_types=[WAKE], wake_target=ONE)
        wake = registry.append_event(name, "wake", "x").event
        if name == "b":
            registry.ack_wake(name, wake.sequence)
        registry.complete_process(name, Success(1))
    run_script(path, "UPDATE processes SET record_json = '{' WHERE process_id = 'c'")
    assert registry.prune_processes(2**60) == Pruned(1, 3, None)
    assert [row[0] for row in all_rows(path)["processes"]] == ["a", "c"]
    registry.ack_wake("a", 1)
    assert registry.prune_processes(2**60, after="a") == Pruned(0, 1, None)
    assert registry.prune_processes(2**60, limit=1) == Pruned(1, 1, "a")


def test_p_ret_1_in_batches_by_id(registry: ProcessRegistry) -> None:
    names = [f"p{at}" for at in range(7)]
    for name in names:
        register(registry, name)
        if name != "p3":
            registry.complete_process(name, Success(1))
    pages, after = [], ""
    while True:
        pruned = registry.prune_processes(2**60, after=after, limit=3)
        pages.append((pruned.removed, pruned.examined, pruned.after))
        if pruned.after is None:
            break
        after = pruned.after
    assert pages == [(3, 3, "p2"), (3, 3, "p6"), (0, 0, None)]
    assert registry.known_processes(names) == {"p3"}


def test_p_ret_1_what_an_occurrence_led_to_stays_until_that_is_forgotten(
    registry: ProcessRegistry,
) -> None:
    register(registry, "a", provenance=occurrence("trigger:1"))
    register(registry, "b", provenance=occurrence("trigger:2"))
    register(registry, "c", provenance=Provenance(Host(), {"type": "process", "process_id": "x"}))
    for name in "abc":
        registry.complete_process(name, Success(1))
    assert registry.list_causing_occurrences(2**60) == ["trigger:1", "trigger:2"]
    assert registry.list_causing_occurrences(2**60, after="a", limit=1) == ["trigger:2"]
    assert registry.prune_processes(2**60, forgotten=["trigger:2"]) == Pruned(2, 3, None)
    assert registry.known_processes([*"abc"]) == {"a"}


@pytest.mark.parametrize(
    "bad",
    [
        {"updated_before_ms": -1},
        {"forgotten": "p"},
        {"forgotten": [1]},
        {"after": 7},
        {"limit": -1},
    ],
    ids=ascii,
)
def test_p_ret_1_bad_arguments_are_refused(
    registry: ProcessRegistry, path: Path, bad: dict[str, Any]
) -> None:
    register(registry, "a")
    registry.complete_process("a", Success(1))
    before = all_rows(path)
    with pytest.raises(InvalidRecordError):
        registry.prune_processes(**{"updated_before_ms": 2**60, **bad})
    assert all_rows(path) == before


@pytest.mark.canonical("opens a folder of its own")
def test_p_ret_1_nothing_that_is_pruned_is_started_again(tmp_path: Path) -> None:
    with Deployment.open(tmp_path / "all") as deployment:
        triggers, registry = deployment.triggers, deployment.processes
        subscribe(triggers)
        subscribe(triggers)
        with triggers.begin() as tx:
            deliveries = tx.reserve_deliveries(occur(tx, 1).occurrence_id).deliveries
        start_deliveries(registry, deliveries[:1])
        registry.complete_process(deliveries[0].process_id, Success(1))
        # The other delivery was never started, so the occurrence stays, and the process with it.
        assert prune_started(triggers, registry, 2**60).removed == 0
        assert prune_ended(triggers, registry, 2**60) == Pruned(0, 1, None)
        missing = unstarted_deliveries(triggers, registry).deliveries
        assert [each.process_id for each in missing] == [deliveries[1].process_id]
        start_deliveries(registry, missing)
        registry.complete_process(deliveries[1].process_id, Success(1))
        assert prune_started(triggers, registry, 2**60).removed == 1
        assert prune_ended(triggers, registry, 2**60) == Pruned(2, 2, None)
        assert unstarted_deliveries(triggers, registry).deliveries == ()
        assert registry.list_processes(state=None) == []


@pytest.mark.parametrize(
    "record_json", ["'{'", "'[]'", "'{\"half\": 1}'", "replace(record_json, '\"p\"', '\"q\"')"]
)
def test_p_ret_1_what_cannot_be_read_stays(
    registry: ProcessRegistry, path: Path, clock: ManualClock, record_json: str
) -> None:
    register(registry, "p")
    registry.complete_process("p", Success(1))
    run_script(path, f"UPDATE processes SET record_json = {record_json}")
    clock.advance(1)
    before = all_rows(path)
    assert registry.prune_processes(clock.now_ms()) == Pruned(0, 1, None)
    assert registry.list_causing_occurrences(clock.now_ms()) == []
    assert all_rows(path) == before


def test_p_ret_1_a_wake_that_is_nobodys_keeps_nothing(
    registry: ProcessRegistry, clock: ManualClock
) -> None:
    for name, target in (("p", None), ("q", Scope("gone")), ("r", ONE)):
        register(registry, name, event_types=[WAKE], wake_target=target)
        registry.append_event(name, "wake", "x")
        registry.complete_process(name, Success(1))
    registry.delete_session("gone")
    clock.advance(1)
    assert registry.prune_processes(clock.now_ms()) == Pruned(2, 3, None)
    assert registry.known_processes(["p", "q", "r"]) == {"r"}


@pytest.mark.parametrize("occurrence_id", ['""', "5", "null", "{}"])
def test_p_ret_1_what_no_occurrence_can_have_led_to_stays(
    registry: ProcessRegistry, path: Path, clock: ManualClock, occurrence_id: str
) -> None:
    """Another program's record; the others go all the same."""
    for name in ("p", "q"):
        register(registry, name, provenance=occurrence(f"of {name}"))
        registry.complete_process(name, Success(1))
    run_script(
        path,
        "UPDATE processes SET record_json = "
        f"""replace(record_json, '"of p"', '{occurrence_id}')""",
    )
    assert registry.load_process("p") is not None
    clock.advance(1)
    with TriggerStore.open(path.with_name("triggers.db")) as triggers:
        assert prune_ended(triggers, registry, clock.now_ms()) == Pruned(1, 2, None)
    assert registry.known_processes(["p", "q"]) == {"p"}
