"""K-CODEC-4: how deep a value may be, and that what is stored is read from however deep a stack."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from lash_store import (
    Append,
    Checkpoint,
    Deployment,
    EffectStore,
    NewWork,
    Node,
    ProcessRegistry,
    Scope,
    SessionStore,
    Success,
    TurnCommit,
    turn_commit_hash,
)
from lash_store._kernel.codecs import DEEPEST
from lash_store._wire.validating import compile_schema
from lash_store.errors import CorruptRecordError, InvalidRecordError
from lash_store.process.records import (
    Const,
    EngineCall,
    EventIdentity,
    EventType,
    Payload,
    PayloadSchema,
    Pointer,
    Semantics,
    TerminalRule,
    WakeRule,
)
from tests.support.databases import all_rows, run_script
from tests.support.registries import register
from tests.support.sessions import enqueue, lease_of
from tests.support.triggers import subscribe

R = TypeVar("R")


def nested(levels: int) -> Any:
    value: Any = 7
    for at in range(levels):
        value = [value] if at % 2 else {"a": value}
    return value


def near_the_end_of_the_stack(function: Callable[[], R], left: int) -> R:
    """Call it with so many frames left, about."""
    depth = 0
    frame = sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back  # type: ignore[assignment] # reason: the last has none

    def down(levels: int) -> R:
        return function() if levels <= 0 else down(levels - 1)

    return down(sys.getrecursionlimit() - depth - left)


def test_k_codec_4_the_limit_is_the_same_everywhere(store: SessionStore, path: Path) -> None:
    store.enqueue_work(NewWork([nested(DEEPEST)]))
    lease = lease_of(store)
    store.commit_turn(TurnCommit(fence=lease.fence, checkpoint=Checkpoint(nested(DEEPEST))))
    before = all_rows(path)
    for field, call in (
        ("payloads[1]", lambda: store.enqueue_work(NewWork([1, nested(DEEPEST + 1)]))),
        (
            "turn_state",
            lambda: store.commit_turn(
                TurnCommit(fence=lease.fence, checkpoint=Checkpoint(nested(DEEPEST + 1)))
            ),
        ),
        ("payloads[0]", lambda: store.enqueue_work(NewWork([nested(100_000)]))),
    ):
        with pytest.raises(InvalidRecordError, match="nested deeper than 100 levels") as caught:
            call()
        assert caught.value.field == field
    assert all_rows(path) == before


def test_k_codec_4_a_view_that_is_no_list_is_named(store: SessionStore, path: Path) -> None:
    released = memoryview(b"abcd")
    released.release()
    before = all_rows(path)
    for bad in (memoryview(b"abcd").cast("B", (2, 2)), released):
        with pytest.raises(InvalidRecordError) as caught:
            store.enqueue_work(NewWork([1, {"a": bad}]))
        assert caught.value.field == "payloads[1].a"
        with pytest.raises(InvalidRecordError, match="must be an iterable of str"):
            store.tombstone_nodes(bad)  # type: ignore[arg-type] # reason: what is refused
    assert all_rows(path) == before
    store.enqueue_work(NewWork([memoryview(b"ab")]))
    assert store.list_work()[0].items[0].payload == [97, 98]


def test_k_codec_4_a_deep_value_is_read_from_a_deep_stack(store: SessionStore) -> None:
    payload = nested(DEEPEST)
    enqueue(store, payload)
    (batch,) = near_the_end_of_the_stack(store.list_pending_work, 90)
    assert batch.items[0].payload == payload


def test_k_codec_4_a_checkpoint_is_read_from_a_deep_stack(store: SessionStore) -> None:
    """What can't be decoded for want of a stack is no artifact of another kind."""
    lease = lease_of(store)
    store.commit_turn(TurnCommit(fence=lease.fence, checkpoint=Checkpoint(nested(DEEPEST))))
    head = store.load_head()
    assert head is not None
    ref = head.checkpoint_ref
    assert ref is not None
    found = near_the_end_of_the_stack(lambda: store.load_checkpoint(ref), 90)
    assert found is not None
    assert found.turn_state == nested(DEEPEST)


def test_p_event_4_a_deep_constant_is_taken_from_a_deep_stack(registry: ProcessRegistry) -> None:
    constant = nested(DEEPEST - 5)
    wakes = Semantics(wake=WakeRule(Const(constant), EventIdentity()))
    register(
        registry, "p", event_types=[EventType("deep", semantics=wakes)], wake_target=Scope("s")
    )
    appended = near_the_end_of_the_stack(lambda: registry.append_event("p", "deep", 1), 150)
    assert appended.wake is not None
    assert msgspec.json.decode(appended.wake.input) == constant


def test_k_codec_4_a_deep_value_is_written_from_a_deep_stack(store: SessionStore) -> None:
    value = nested(DEEPEST)
    turn = TurnCommit(
        fence=lease_of(store).fence,
        graph=Append([Node("n", None, {"deep": nested(DEEPEST - 1)})], leaf="n"),
        checkpoint=Checkpoint(value),
    )
    digest = turn_commit_hash(turn)
    assert near_the_end_of_the_stack(lambda: turn_commit_hash(turn), 90) == digest
    near_the_end_of_the_stack(lambda: store.enqueue_work(NewWork([value])), 90)
    near_the_end_of_the_stack(lambda: store.commit_turn(turn), 90)
    (batch,) = store.list_pending_work()
    head = store.load_head()
    assert batch.items[0].payload == value
    assert head is not None
    assert head.checkpoint_ref is not None
    assert store.load_checkpoint(head.checkpoint_ref) == Checkpoint(value)


def test_k_codec_4_steps_and_processes_from_a_deep_stack(tmp_path: Path) -> None:
    with EffectStore.open(tmp_path / "e.db") as effects:
        effects.run("s", "k", {}, lambda: nested(DEEPEST))
        again = near_the_end_of_the_stack(lambda: effects.run("s", "k", {}, list), 90)
        assert again == nested(DEEPEST)
    with ProcessRegistry.open(tmp_path / "p.db") as registry:
        assert near_the_end_of_the_stack(registry.list_processes, 90) == []


@pytest.mark.canonical("writes to the tables by their canonical names")
def test_k_codec_4_what_is_too_deep_for_any_stack_is_corrupt(
    store: SessionStore, path: Path
) -> None:
    batch = enqueue(store, 1)
    deep = "[" * 200_000 + "]" * 200_000  # Python 3.13 reads what is 5,000 deep
    run_script(path, f"UPDATE queued_work_items SET payload_json = '{deep}'")
    with pytest.raises(CorruptRecordError) as caught:
        store.list_pending_work()
    assert batch.batch_id in caught.value.key


def test_p_event_2_a_deep_payload_is_checked_from_a_deep_stack(path: Path) -> None:
    """Whether it fits its schema is nothing that the caller's frames decide."""
    items = EventType(
        "deep", PayloadSchema({"items": {"$ref": "#"}, "additionalProperties": {"$ref": "#"}})
    )
    with ProcessRegistry.open(path) as registry:
        register(registry, event_types=[items])
        payload = nested(DEEPEST)
        appended = near_the_end_of_the_stack(
            lambda: registry.append_event("p", "deep", payload), 150
        )
        assert appended.event.payload == payload


def test_k_codec_4_a_stack_without_a_frame_left_makes_nothing_look_corrupt(path: Path) -> None:
    """Neither an error that says so, nor a place beside the list: it is a RecursionError."""
    with Deployment.open(path.parent / "all") as deployment:
        registry, triggers = deployment.processes, deployment.triggers
        register(registry)
        registry.complete_process("p", Success(nested(DEEPEST)))
        subscribe(triggers, target=EngineCall("k", nested(DEEPEST - 2)), input_template={})
        ended = 0
        for left in range(5, 100):
            with suppress(RecursionError):
                near_the_end_of_the_stack(lambda: registry.load_process("p"), left)
                near_the_end_of_the_stack(
                    lambda: registry.append_event("p", "process.waiting"), left
                )
                page = near_the_end_of_the_stack(triggers.list_subscriptions, left)
                assert (len(page.subscriptions), page.undecodable) == (1, ())
                ended += 1
        assert ended


def test_p_event_2_a_schema_is_compiled_on_a_deep_stack(registry: ProcessRegistry) -> None:
    """As the first append of another process has it to be: whether it is one depends on no frames."""
    schema: Any = {"type": "integer"}
    for _ in range(12):
        schema = {"type": "object", "properties": {"a": schema}}
    register(registry, "p", event_types=[EventType("deep", PayloadSchema(schema))])
    for left in (300, 200, 120):
        compile_schema.cache_clear()
        near_the_end_of_the_stack(lambda: registry.append_event("p", "deep", {}), left)
    assert len(registry.events_after("p")) == 3


def test_k_codec_4_an_end_that_wakes_with_its_payload_has_as_many_levels(
    registry: ProcessRegistry,
) -> None:
    wakes = EventType(
        "process.completed",
        semantics=Semantics(
            TerminalRule("completed", Pointer("/await_output")),
            WakeRule(Payload(), EventIdentity()),
        ),
    )
    register(registry, "p", event_types=[wakes], wake_target=Scope("s"))
    assert registry.complete_process("p", Success(nested(DEEPEST))).wake is not None


def test_k_codec_4_an_end_that_selects_nothing_holds_its_payload_whole(
    registry: ProcessRegistry,
) -> None:
    own = EventType("process.completed", semantics=Semantics(TerminalRule("completed")))
    register(registry, "p", event_types=[own])
    ended = registry.complete_process("p", Success(nested(DEEPEST)))
    assert registry.load_process("p") == ended.record
    assert ended.record.status.state == "completed"


def test_k_codec_4_what_ends_a_process_has_a_hundred_levels_of_its_own(
    registry: ProcessRegistry, path: Path
) -> None:
    register(registry, "p")
    before = all_rows(path)
    with pytest.raises(InvalidRecordError, match="nested deeper than 100 levels") as caught:
        registry.complete_process("p", Success(nested(DEEPEST + 1)))
    assert caught.value.field == "await_output.value"
    assert all_rows(path) == before
    registry.complete_process("p", Success(nested(DEEPEST)))
    assert registry.await_process("p") == Success(nested(DEEPEST))
