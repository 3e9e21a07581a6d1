"""From trigger to process: what is started, once, wherever a crash falls between two databases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lash_store import (
    Deployment,
    External,
    Host,
    ProcessRegistry,
    Provenance,
    Scope,
    Success,
    TriggerStore,
    TurnCommit,
    WorkBatch,
)
from lash_store._kernel.codecs import DEEPEST
from lash_store.errors import InvalidRecordError, StoreOpenError
from lash_store.process.records import (
    BySession,
    EngineCall,
    EventType,
    HandleDescriptor,
    ProcessIdentity,
    ToolCall,
)
from lash_store.routing import (
    Started,
    enqueue_in_transaction,
    enqueue_wake,
    process_of_delivery,
    prune_ended,
    prune_started,
    start_deliveries,
    start_in_transaction,
    start_unstarted,
    unstarted_deliveries,
    work_of_wake,
)
from lash_store.session.records import AlreadyQueued
from lash_store.testing import ManualClock, SequentialIds
from lash_store.trigger.records import Delivery, Fixed, FromEvent
from tests.conformance.test_transactions import traced
from tests.support.databases import all_rows, run_script
from tests.support.registries import WAKE, register
from tests.support.sessions import lease_of
from tests.support.triggers import ONE, occur, subscribe


@pytest.fixture
def deployment(tmp_path: Path, clock: ManualClock) -> Any:
    with Deployment.open(tmp_path / "root", clock=clock, ids=SequentialIds()) as deployment:
        yield deployment


def reserve(triggers: TriggerStore, payload: Any = 1, key: str = "once") -> tuple[Delivery, ...]:
    return triggers.reserve_deliveries(occur(triggers, payload, key).occurrence_id).deliveries


def test_a_delivery_becomes_the_process_that_was_reserved(deployment: Deployment) -> None:
    subscribe(
        deployment.triggers,
        registrant=BySession(Scope("s", "f")),
        input_template={"event": FromEvent(), "mode": Fixed({"deep": True})},
        event_types=[EventType("tick")],
        wake_target=Scope("s"),
        target_identity=ProcessIdentity("engine", "nightly", "def"),
        target_label="nightly",
    )
    (delivery,) = reserve(deployment.triggers, {"at": 5})
    started = start_deliveries(deployment.processes, [delivery])
    (record,) = started.records
    assert started.refused == ()
    assert record.id == delivery.process_id
    assert record.input == EngineCall(
        "engine", {"code": "x", "args": {"event": {"at": 5}, "mode": {"deep": True}}}
    )
    assert record.identity == ProcessIdentity("engine", "nightly", "def")
    assert record.originator == BySession(Scope("s", "f"))
    assert record.provenance.caused_by == {
        "type": "trigger_occurrence",
        "occurrence_id": delivery.occurrence.occurrence_id,
    }
    assert (record.env_ref, record.wake_target) == ("env", Scope("s"))
    assert record.event_types[0] == EventType("tick")
    (grant,) = deployment.processes.list_handles(Scope("s"))
    assert (grant.process_id, grant.descriptor) == (
        record.id,
        HandleDescriptor("engine", "nightly"),
    )


def test_starting_again_changes_nothing(deployment: Deployment) -> None:
    subscribe(deployment.triggers, wake_target=Scope("s"))
    (delivery,) = reserve(deployment.triggers)
    start_deliveries(deployment.processes, [delivery])
    deployment.processes.complete_process(delivery.process_id, Success(1))
    deployment.processes.revoke_handle(Scope("s"), delivery.process_id)
    before = all_rows(deployment.root / "processes.db")
    again = start_deliveries(deployment.processes, [delivery, delivery])
    assert [record.await_output for record in again.records] == [Success(1), Success(1)]
    assert all_rows(deployment.root / "processes.db") == before


@pytest.mark.parametrize(
    ("target", "template"),
    [
        (External({"x": 1}), {"event": FromEvent()}),
        (ToolCall({"tool_name": "t"}), {"event": FromEvent()}),
        (EngineCall("engine", [1]), {"event": FromEvent()}),
    ],
    ids=ascii,
)
def test_a_template_on_a_target_that_takes_none_is_reported(
    deployment: Deployment, target: Any, template: Any
) -> None:
    """As another program may leave it: no such draft is taken (T-SUB-1)."""
    before = all_rows(deployment.root / "triggers.db")
    with pytest.raises(InvalidRecordError, match="only an engine whose payload is an object"):
        subscribe(deployment.triggers, target=target, input_template=template)
    assert all_rows(deployment.root / "triggers.db") == before
    subscribe(deployment.triggers)
    subscribe(deployment.triggers, target=External({"x": 1}), input_template={})
    subscribe(deployment.triggers)
    first, *others = reserve(deployment.triggers)
    other = msgspec.structs.replace(first.subscription, target=target, input_template=template)
    deliveries = [msgspec.structs.replace(first, subscription=other), *others]
    with pytest.raises(InvalidRecordError, match="subscription:1"):
        process_of_delivery(deliveries[0])
    started = start_deliveries(deployment.processes, deliveries)
    assert [refused.delivery for refused in started.refused] == [deliveries[0]]
    assert "only an engine" in started.refused[0].problem
    inputs = [record.input for record in started.records]
    assert inputs == [External({"x": 1}), EngineCall("engine", {"code": "x", "args": {"event": 1}})]
    assert started.records[0].env_ref is None


def nested(levels: int) -> Any:
    value: Any = 7
    for _ in range(levels):
        value = [value]
    return value


def test_k_codec_4_what_an_occurrence_may_hold_a_process_may(deployment: Deployment) -> None:
    template = {"event": FromEvent(), "mode": Fixed(nested(DEEPEST))}
    subscribe(deployment.triggers, input_template=template)
    started = start_deliveries(deployment.processes, reserve(deployment.triggers, nested(DEEPEST)))
    assert started.refused == ()
    (record,) = started.records
    assert isinstance(record.input, EngineCall)
    assert record.input.payload["args"] == {"event": nested(DEEPEST), "mode": nested(DEEPEST)}


def test_k_codec_4_what_led_to_a_process_may_be_said_by_its_wakes(
    deployment: Deployment, path: Path
) -> None:
    def started_by(levels: int) -> None:
        cause = {"type": "process", "process_id": "x", "more": nested(levels)}
        register(
            deployment.processes,
            event_types=[WAKE],
            provenance=Provenance(Host(), cause),
            wake_target=Scope("s"),
        )

    before = all_rows(deployment.root / "processes.db")
    with pytest.raises(InvalidRecordError, match="nested deeper than 98 levels"):
        started_by(DEEPEST - 2)
    assert all_rows(deployment.root / "processes.db") == before
    started_by(DEEPEST - 3)
    (wake,) = [deployment.processes.append_event("p", "wake", "x").wake]
    assert wake is not None
    with deployment.sessions.create("s", model="m") as session:
        assert isinstance(session.enqueue_work(work_of_wake(wake)), WorkBatch)


@pytest.mark.sqlite("by the texts of its transactions")
def test_what_is_started_is_asked_for_in_few_statements(deployment: Deployment) -> None:
    subscribe(deployment.triggers)
    subscribe(deployment.triggers)
    for at in range(10):
        reserve(deployment.triggers, key=f"{at}")
    page = unstarted_deliveries(deployment.triggers, deployment.processes)
    assert len(page.deliveries) == 20
    names = [each.process_id for each in page.deliveries]
    assert (
        len(traced(deployment.processes, lambda: deployment.processes.known_processes(names))) == 3
    )
    late_ms = 2**60
    listed = traced(
        deployment.triggers, lambda: deployment.triggers.list_reserved_processes(late_ms)
    )
    assert listed == ["BEGIN DEFERRED", "SELECT", "SELECT", "ROLLBACK"]
    assert deployment.triggers.list_reserved_processes(late_ms) == names


def test_bad_arguments_are_refused(deployment: Deployment) -> None:
    wrong: list[Any] = [
        lambda: start_deliveries(deployment.processes, "p"),  # type: ignore[arg-type] # reason: that is the test
        lambda: start_deliveries(deployment.processes, ["p"]),  # type: ignore[list-item] # reason: the same
        lambda: process_of_delivery("p"),  # type: ignore[arg-type] # reason: the same
        lambda: unstarted_deliveries(deployment.triggers, deployment.processes, limit=-1),
        lambda: prune_started(deployment.triggers, deployment.processes, -1),
        lambda: deployment.processes.known_processes("p"),
    ]
    for call in wrong:
        with pytest.raises(InvalidRecordError):
            call()


def test_what_was_never_started_is_found_in_pages(deployment: Deployment) -> None:
    for _ in range(5):
        subscribe(deployment.triggers)
    deliveries = reserve(deployment.triggers)
    start_deliveries(deployment.processes, deliveries[:2])
    found: list[Delivery] = []
    after, pages = ("", ""), 0
    while True:
        page = unstarted_deliveries(deployment.triggers, deployment.processes, after=after, limit=2)
        found += page.deliveries
        pages += 1
        if page.after is None:
            break
        after = page.after
    key = lambda delivery: delivery.process_id  # noqa: E731 # reason: for both
    assert sorted(found, key=key) == sorted(deliveries[2:], key=key)
    assert pages == 3
    start_deliveries(deployment.processes, found)
    assert unstarted_deliveries(deployment.triggers, deployment.processes).deliveries == ()


def test_many_are_started_in_several_transactions(deployment: Deployment) -> None:
    for _ in range(450):
        subscribe(deployment.triggers)
    deliveries = reserve(deployment.triggers)
    started = start_deliveries(deployment.processes, deliveries)
    assert [record.id for record in started.records] == [each.process_id for each in deliveries]


class CrashError(Exception):
    """The program dies here."""


STEPS = 4


@pytest.mark.parametrize("dies_after", range(STEPS + 1))
def test_every_delivery_starts_exactly_one_process_wherever_the_program_dies(
    tmp_path: Path, clock: ManualClock, dies_after: int
) -> None:
    """It dies between any two steps; who comes after does all of it again, and sweeps."""
    triggers_path, processes_path = tmp_path / "triggers.db", tmp_path / "processes.db"
    with TriggerStore.open(triggers_path, clock=clock) as triggers:
        for registrant in (ONE, Host(), BySession(Scope("two"))):
            subscribe(triggers, registrant=registrant)

    def work(step: Callable[[int], None]) -> None:
        with (
            TriggerStore.open(triggers_path, clock=clock) as triggers,
            ProcessRegistry.open(processes_path, clock=clock) as processes,
        ):
            occurrence = occur(triggers)
            step(1)
            deliveries = triggers.reserve_deliveries(occurrence.occurrence_id).deliveries
            step(2)
            start_deliveries(processes, deliveries[:1])
            step(3)
            start_deliveries(processes, deliveries[1:])
            step(4)

    def die(after: int) -> None:
        if after == dies_after:
            raise CrashError

    try:
        work(die)
    except CrashError:
        work(lambda _: None)  # somebody else records and reserves it again, and gets what is new
    with (
        TriggerStore.open(triggers_path, clock=clock) as triggers,
        ProcessRegistry.open(processes_path, clock=clock) as processes,
    ):
        start_deliveries(processes, unstarted_deliveries(triggers, processes).deliveries)
        reserved = {each.process_id for each in triggers.list_deliveries().deliveries}
        assert len(reserved) == 3
        assert {record.id for record in processes.list_processes()} == reserved
        assert unstarted_deliveries(triggers, processes).deliveries == ()


def test_a_crash_inside_the_registering_transaction(deployment: Deployment) -> None:
    for _ in range(3):
        subscribe(deployment.triggers, wake_target=Scope("s"))
    deliveries = reserve(deployment.triggers)
    before = all_rows(deployment.root / "processes.db")
    with pytest.raises(CrashError), deployment.processes.begin() as tx:
        start_in_transaction(tx, deliveries)
        raise CrashError
    assert all_rows(deployment.root / "processes.db") == before
    page = unstarted_deliveries(deployment.triggers, deployment.processes)
    assert len(page.deliveries) == 3


def test_what_can_not_be_started_is_refused_by_name(deployment: Deployment) -> None:
    start: Any = start_in_transaction
    before = all_rows(deployment.root / "processes.db")
    with deployment.processes.begin() as tx, deployment.triggers.begin() as other:
        given: list[Any] = [(tx, None), (other, []), (tx, ["x"])]
        for bad in given:
            with pytest.raises(InvalidRecordError):
                start(*bad)
    assert all_rows(deployment.root / "processes.db") == before


def test_t_ret_1_what_is_started_is_pruned_and_nothing_else(
    deployment: Deployment, clock: ManualClock
) -> None:
    subscribe(deployment.triggers)
    for at in range(4):
        deliveries = reserve(deployment.triggers, at, f"k{at}")
        if at != 2:
            start_deliveries(deployment.processes, deliveries)
    clock.advance(10)
    pruned = prune_started(deployment.triggers, deployment.processes, clock.now_ms(), limit=3)
    assert (pruned.examined, pruned.after is None) == (3, False)
    rest = prune_started(
        deployment.triggers, deployment.processes, clock.now_ms(), after=pruned.after or ""
    )
    assert (pruned.removed + rest.removed, rest.after) == (3, None)
    (left,) = deployment.triggers.list_deliveries().deliveries
    assert left.occurrence.payload == 2


@pytest.mark.canonical("the files of a folder")
def test_a_deployment_is_one_folder(tmp_path: Path, clock: ManualClock) -> None:
    root = tmp_path / "deep" / "root"
    with Deployment.open(root, clock=clock) as deployment:
        assert {path.name for path in root.glob("*.db")} == {
            "processes.db",
            "triggers.db",
            "effects.db",
        }
        assert (root.stat().st_mode & 0o777) == 0o700
        with deployment.sessions.create("chat", model="m") as session:
            assert session.path.startswith(str(root.resolve() / "sessions"))
        assert deployment.effects.run("s", "k", None, lambda: 1) == 1
    deployment.close()
    assert deployment.processes.closed
    assert deployment.triggers.closed
    assert deployment.effects.closed
    run_script(root / "effects.db", "PRAGMA user_version = 99")
    with pytest.raises(Exception, match="no effect store"):
        Deployment.open(root)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreOpenError):
        Deployment.open(tmp_path / "file" / "root")
    with pytest.raises(InvalidRecordError):
        Deployment.open(7)  # type: ignore[arg-type] # reason: that is the test
    with Deployment.open(tmp_path / "deep" / "other") as other:
        assert "other" in repr(other)


def test_a_process_of_other_content_is_reported_and_keeps_none_back(deployment: Deployment) -> None:
    subscribe(deployment.triggers)
    subscribe(deployment.triggers)
    first, second = reserve(deployment.triggers)
    other = process_of_delivery(first)
    deployment.processes.register_process(msgspec.structs.replace(other, env_ref="another"))
    started = start_deliveries(deployment.processes, [first, second])
    assert [refused.delivery for refused in started.refused] == [first]
    assert [record.id for record in started.records] == [second.process_id]


@pytest.mark.parametrize("root", ["a\0b", "\ud800"])
def test_a_deployment_at_no_path(root: str) -> None:
    with pytest.raises(StoreOpenError):
        Deployment.open(root)


def test_p_event_7_a_wake_that_was_answered_is_not_queued_again(deployment: Deployment) -> None:
    register(deployment.processes, "p", event_types=[WAKE], wake_target=Scope("s"))
    wake = deployment.processes.append_event("p", "wake", "x").wake
    assert wake is not None
    with deployment.sessions.create("s", model="m") as session:
        first = enqueue_wake(session, wake, turn_id="t")
        assert isinstance(first, WorkBatch)
        again = enqueue_wake(session, wake, turn_id="t")
        assert isinstance(again, AlreadyQueued)
        lease = lease_of(session)
        claim = session.claim_work(lease.fence, owner_id="w", ttl_ms=60_000)
        assert claim is not None
        turn = TurnCommit(fence=lease.fence, completed=[claim])
        session.commit_turn(turn.stamped("t"))
        assert enqueue_wake(session, wake, turn_id="t") is None
        assert session.list_work() == []
        not_one: Any = None
        with deployment.sessions.create("o", model="m") as other:
            before = [all_rows(Path(each.path)) for each in (session, other)]
            for where, what, why in (
                (other, wake, "is 's', and this is session 'o'"),
                (not_one, wake, "session = "),
                (session, not_one, "wake = "),
            ):
                with pytest.raises(InvalidRecordError, match=why):
                    enqueue_wake(where, what, turn_id="u")
            with pytest.raises(InvalidRecordError, match="tx = "):
                enqueue_in_transaction(not_one, wake, turn_id="u")
            with session.begin() as tx, pytest.raises(InvalidRecordError, match="turn_id"):
                enqueue_in_transaction(tx, wake, turn_id="")
            assert [all_rows(Path(each.path)) for each in (session, other)] == before


def test_t_del_2_what_ended_and_was_forgotten_meanwhile_is_not_started_again(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker's retention comes between the look at the deliveries and that at their processes."""
    triggers, processes = deployment.triggers, deployment.processes
    subscribe(triggers)
    (record,) = start_deliveries(processes, reserve(triggers)).records
    processes.complete_process(record.id, Success("once"))
    late_ms, known_processes = processes.read_clock() + 1_000, ProcessRegistry.known_processes

    def meanwhile(registry: ProcessRegistry, names: Any) -> Any:
        looked_for = list(names)
        monkeypatch.undo()
        assert prune_started(triggers, processes, late_ms).removed == 1
        assert prune_ended(triggers, processes, late_ms).removed == 1
        return known_processes(registry, looked_for)

    monkeypatch.setattr(ProcessRegistry, "known_processes", meanwhile)
    assert start_unstarted(triggers, processes) == Started((), ())
    assert processes.load_process(record.id) is None


def test_t_del_2_all_that_was_never_started_is_started(deployment: Deployment) -> None:
    for _ in range(5):
        subscribe(deployment.triggers)
    deliveries = reserve(deployment.triggers)
    start_deliveries(deployment.processes, deliveries[:2])
    started = start_unstarted(deployment.triggers, deployment.processes, limit=2)
    assert {record.id for record in started.records} == {each.process_id for each in deliveries[2:]}
    assert start_unstarted(deployment.triggers, deployment.processes).records == ()
    before = all_rows(deployment.root / "processes.db")
    wrong: list[Any] = [0, -1, "2", None, True]
    for limit in wrong:
        with pytest.raises(InvalidRecordError, match="limit"):
            start_unstarted(deployment.triggers, deployment.processes, limit=limit)
    assert all_rows(deployment.root / "processes.db") == before
