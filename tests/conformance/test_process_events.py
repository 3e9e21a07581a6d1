"""P-EVENT, rule by rule; waiting has a file of its own."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from lash_store import (
    Cancelled,
    Failure,
    Host,
    NewWork,
    ProcessFence,
    ProcessLease,
    ProcessRegistry,
    Provenance,
    Scope,
    SessionFence,
    SessionStore,
    Success,
    WorkBatch,
)
from lash_store._kernel.observing import Event, observed_by
from lash_store.errors import (
    CorruptRecordError,
    IdempotencyConflictError,
    InvalidRecordError,
    LeaseLostError,
    NotFoundError,
    ProcessEndedError,
)
from lash_store.process.records import (
    Const,
    DedupeBy,
    DedupeConst,
    EventIdentity,
    EventType,
    Payload,
    PayloadSchema,
    Pointer,
    Present,
    Selector,
    Semantics,
    Template,
    TerminalRule,
    WakeRule,
    signal_wait,
)
from lash_store.process.records.selecting import materialise, select_value, text_of
from lash_store.routing import work_of_wake
from lash_store.session.records import AlreadyQueued
from lash_store.testing import ManualClock, run_as_group
from tests.support.databases import all_rows, run_script
from tests.support.registries import TARGET, lease_on, register


def sequences(events: Any) -> list[int]:
    return [event.sequence for event in events]


def refused(path: Path, error: type[Exception], call: Any, match: str | None = None) -> Any:
    before = all_rows(path)
    with pytest.raises(error, match=match) as refusal:
        call()
    assert all_rows(path) == before
    return refusal.value


def test_p_event_1_sequences_count_from_one_for_each_process(registry: ProcessRegistry) -> None:
    register(registry, "p")
    register(registry, "q")
    found = [
        registry.append_event(name, "tick", at).event.sequence for at, name in enumerate("ppqpq")
    ]
    assert found == [1, 2, 1, 3, 2]
    assert [event.payload for event in registry.events_after("p")] == [0, 1, 3]


def test_p_event_2_the_checks_come_in_their_order(registry: ProcessRegistry, path: Path) -> None:
    end = EventType(
        "end", PayloadSchema({"type": "object"}), Semantics(TerminalRule("failed", Pointer("/why")))
    )
    register(registry, event_types=[end, EventType("tick")])
    refused(path, NotFoundError, lambda: registry.append_event("q", "tick"), "'q'")
    refused(path, InvalidRecordError, lambda: registry.append_event("p", "tock"), "not declared")
    refused(path, InvalidRecordError, lambda: registry.append_event("p", "end", 5), "replay_key")
    refused(
        path,
        InvalidRecordError,
        lambda: registry.append_event("p", "process.cancel_requested", 1),
        "replay_key",
    )
    refused(
        path,
        InvalidRecordError,
        lambda: registry.append_event("p", "end", 5, replay_key="k"),
        "schema of end",
    )
    refused(
        path,
        InvalidRecordError,
        lambda: registry.append_event("p", "end", {}, replay_key="k"),
        "/why",
    )
    registry.complete_process("p", Success(1))
    refused(
        path,
        InvalidRecordError,
        lambda: registry.append_event("p", "end", {}, replay_key="k"),
        "/why",
    )
    ended = refused(
        path,
        ProcessEndedError,
        lambda: registry.append_event("p", "end", {"why": 1}, replay_key="k"),
    )
    assert (ended.process_id, ended.state) == ("p", "completed")
    # Anything that does not end it is still taken down.
    assert registry.append_event("p", "tick").event.sequence == 2


@pytest.mark.parametrize(
    ("schema", "fits", "does_not"),
    [
        ({"type": "object", "required": ["n"]}, {"n": 1, "more": 2}, {}),
        (
            {"properties": {"n": {"type": "integer"}}, "additionalProperties": False},
            {"n": 1},
            {"m": 1},
        ),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, 1, "x"),
        ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, 2.5, 3),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#", "const": {"a": [1]}},
            {"a": [1]},
            {"a": 1},
        ),
        (True, None, None),
        (False, None, 1),
    ],
    ids=ascii,
)
def test_p_event_2_payloads_are_checked_by_standard_json_schema(
    registry: ProcessRegistry, path: Path, schema: Any, fits: Any, does_not: Any
) -> None:
    register(registry, event_types=[EventType("e", PayloadSchema(schema))])
    if schema is not False:
        assert registry.append_event("p", "e", fits).event.payload == fits
    if schema is not True:
        refused(
            path,
            InvalidRecordError,
            lambda: registry.append_event("p", "e", does_not),
            "schema of e",
        )


def test_p_event_2_a_schema_is_never_fetched(registry: ProcessRegistry, path: Path) -> None:
    far = EventType("e", PayloadSchema({"$ref": "http://127.0.0.1:9/schema"}))
    register(registry, event_types=[far])
    refused(path, InvalidRecordError, lambda: registry.append_event("p", "e", 1), "refers to")


def test_p_event_2_a_schema_of_another_program_that_is_none(
    registry: ProcessRegistry, path: Path
) -> None:
    register(registry, event_types=[EventType("e", PayloadSchema({"type": "object"}))])
    run_script(
        path, """UPDATE processes SET record_json = replace(record_json, '"object"', '"thing"')"""
    )
    refused(path, CorruptRecordError, lambda: registry.append_event("p", "e", {}), "no JSON Schema")
    assert registry.complete_process("p", Success(1)).record.status.state == "completed"


@pytest.mark.parametrize(
    "bad",
    [
        {"payload": float("nan")},
        {"payload": {1: 2}},
        {"payload": 2**64},
        {"payload": "\ud800"},
        {"event_type": ""},
        {"event_type": 7},
        {"replay_key": ""},
        {"replay_key": 7},
        {"wake_target": "s"},
        {"wake_target": Scope("")},
        {"process_id": ""},
        {"process_id": None},
        {"fence": "token"},
    ],
    ids=ascii,
)
def test_p_event_2_bad_arguments_are_refused(
    registry: ProcessRegistry, path: Path, bad: dict[str, Any]
) -> None:
    register(registry)
    arguments = {"process_id": "p", "event_type": "tick", **bad}
    refused(path, InvalidRecordError, lambda: registry.append_event(**arguments))


def test_p_event_3_a_replay_returns_the_event_and_appends_nothing(
    registry: ProcessRegistry, path: Path, clock: ManualClock
) -> None:
    register(registry)
    first = registry.append_event("p", "wake", {"b": 1, "a": 2}, replay_key="k")
    registry.append_event("p", "tick")
    clock.advance(50)
    before = all_rows(path)
    again = registry.append_event("p", "wake", {"a": 2, "b": 1}, replay_key="k")
    assert (again.event, again.wake, again.is_replay) == (first.event, first.wake, True)
    elsewhere = registry.append_event(
        "p", "wake", {"a": 2, "b": 1}, replay_key="k", wake_target=Scope("x")
    )
    assert elsewhere.wake is not None
    assert elsewhere.wake.target_session_id == "x"
    assert elsewhere.wake.created_at_ms == first.event.occurred_at_ms
    assert all_rows(path) == before
    conflict = refused(
        path,
        IdempotencyConflictError,
        lambda: registry.append_event("p", "wake", 3, replay_key="k"),
        "'k'",
    )
    assert conflict.expected == before["process_events"][0][3]
    # Another type under the same key is other content; another process has keys of its own.
    refused(
        path,
        IdempotencyConflictError,
        lambda: registry.append_event("p", "tick", {"a": 2, "b": 1}, replay_key="k"),
    )
    register(registry, "q")
    assert registry.append_event("q", "wake", 3, replay_key="k").event.sequence == 1


def test_p_event_3_the_wake_is_rebuilt_for_the_present_target(registry: ProcessRegistry) -> None:
    register(registry)
    assert registry.append_event("p", "wake", 1, replay_key="k").wake is not None
    registry.delete_session("chat-42")
    assert registry.append_event("p", "wake", 1, replay_key="k").wake is None


def test_p_event_3_a_replay_on_an_ended_process_and_before_the_other_checks(
    registry: ProcessRegistry,
) -> None:
    register(registry)
    registry.append_event("p", "tick", 1, replay_key="k")
    ended = registry.complete_process("p", Success(1))
    assert registry.append_event("p", "tick", 1, replay_key="k").is_replay
    assert registry.complete_process("p", Success(1)) == ended_again(ended)


def ended_again(ended: Any) -> Any:
    return type(ended)(ended.record, ended.event, ended.wake, True)


def test_p_event_3_a_record_that_missed_its_end_is_mended(
    registry: ProcessRegistry, path: Path, clock: ManualClock
) -> None:
    register(registry)
    running = all_rows(path)["processes"][0]
    ended = registry.complete_process("p", Failure("timeout", "c", "m"))
    mended = all_rows(path)
    record_json = running[6].replace('"status"', '"wait":{"x":1},"status"')
    run_script(path, f"UPDATE processes SET status = 'running', record_json = '{record_json}'")
    clock.advance(77)
    again = registry.complete_process("p", Failure("timeout", "c", "m"))
    assert again.record == ended.record
    assert all_rows(path) == mended
    assert again.record.updated_at_ms == ended.event.occurred_at_ms


def test_p_event_5_an_event_on_the_wire(
    registry: ProcessRegistry, path: Path, clock: ManualClock
) -> None:
    register(registry)
    clock.advance_to(1_700_000_000_123)
    appended = registry.append_event(
        "p", "strict", {"text": "hé", "n": 3, "x": 1e16}, replay_key="k"
    )
    (row,) = all_rows(path)["process_events"]
    assert row[:3] == ("p", 1, "strict")
    assert row[4:6] == ("k", 1_700_000_000_123)
    payload = '{"n":3,"text":"hé","x":1e+16}'
    assert row[6] == (
        f'{{"process_id":"p","sequence":1,"event_type":"strict","payload":{payload},'
        '"invocation":{"scope":{"session_id":"runtime"},"subject":{"type":"process_event",'
        '"process_id":"p","sequence":1,"event_type":"strict"},"caused_by":{"type":"process",'
        '"process_id":"p"},"replay":{"key":"k"}},"semantics":{"wake":{"input":"hé",'
        '"dedupe_key":"p:1"}},"occurred_at":{"secs_since_epoch":1700000000,'
        '"nanos_since_epoch":123000000}}'
    )
    assert row[3] == hashlib.sha256(f'["strict",{payload}]'.encode()).hexdigest()
    event = appended.event
    assert registry.events_after("p") == [event]
    assert (event.occurred_at_ms, event.replay_key) == (1_700_000_000_123, "k")
    plain = registry.append_event("p", "tick").event
    assert "replay" not in plain.invocation
    assert plain.replay_key is None
    assert json.loads(all_rows(path)["process_events"][1][6])["semantics"] == {}


SELECTED: dict[str, Any] = {
    "": {"a": [10, {"b": None}], "": "empty", "~": "tilde", "/": "slash", "01": "key"},
    "/a/0": 10,
    "/a/1/b": None,
    "/": "empty",
    "/~0": "tilde",
    "/~1": "slash",
    "/01": "key",
}


@pytest.mark.parametrize("pointer", SELECTED)
def test_p_event_4_pointers(pointer: str) -> None:
    assert select_value(Pointer(pointer), SELECTED[""]) == SELECTED[pointer]
    assert select_value(Present(pointer), SELECTED[""]) is True


@pytest.mark.parametrize(
    "pointer",
    [
        "a",
        "/b",
        "/a/2",
        "/a/-1",
        "/a/+0",
        "/a/00",
        "/a/01",
        "/a/-",
        "/a/",
        "/a/0/x",
        "/a/1/b/c",
        "/a/٣",
        "~",
        "/a/0 ",
    ],
)
def test_p_event_4_pointers_to_nothing(pointer: str) -> None:
    with pytest.raises(InvalidRecordError, match="nothing is at"):
        select_value(Pointer(pointer), SELECTED[""])
    assert select_value(Present(pointer), SELECTED[""]) is False


@pytest.mark.parametrize(
    ("selector", "value"),
    [
        (Payload(), {"a": "x", "n": 1}),
        (Const([1]), [1]),
        (Template("{a}-{n}-{zz}", {"n": Pointer("/n"), "a": Pointer("/a")}), "x-1-{zz}"),
        # In name order, each on the text so far: what {a} gave is replaced again, what {b} gave is not.
        (Template("{a}{b}", {"b": Const("{a}"), "a": Const("{b}")}), "{a}{a}"),
        (Template("{p}", {"p": Payload()}), '{"a":"x","n":1}'),
        (Template("{p}", {"p": Present("/a")}), "true"),
        (Template("{f}", {"f": Const(1e16)}), "1e+16"),
        (Template("plain", {}), "plain"),
    ],
    ids=ascii,
)
def test_p_event_4_selectors(selector: Selector, value: Any) -> None:
    assert select_value(selector, {"a": "x", "n": 1}) == value


@pytest.mark.parametrize(
    ("when", "wakes"),
    [
        (None, False), (False, False), ("", False), ([], False), ({}, False),
        (0, True), (0.0, True), (1, True), (True, True), ("0", True), ([0], True), ({"a": None}, True),
    ],
    ids=ascii,
)  # fmt: skip
def test_p_event_4_a_wake_needs_something_truthy(when: Any, wakes: bool) -> None:
    semantics = Semantics(
        wake=WakeRule(Const({"b": 1, "a": "ä"}), EventIdentity(), when=Pointer("/w"))
    )
    wake = materialise(semantics, {"w": when}, process_id="p", sequence=7).wake
    assert (wake is not None) == wakes
    if wake is not None:
        assert (wake.input, wake.dedupe_key) == ('{"b":1,"a":"ä"}', "p:7")


@pytest.mark.parametrize(
    ("key", "text"),
    [(DedupeConst("k"), "k"), (DedupeBy(Pointer("/n")), "1"), (DedupeBy(Pointer("/s")), "x")],
    ids=ascii,
)
def test_p_event_4_dedupe_keys(key: Any, text: str) -> None:
    wake = materialise(
        Semantics(wake=WakeRule(Payload(), key)), {"n": 1, "s": "x"}, process_id="p", sequence=1
    ).wake
    assert wake is not None
    assert wake.dedupe_key == text


@pytest.mark.parametrize(
    ("state", "selected", "output"),
    [
        ("completed", {"x": 1}, Success({"x": 1})),
        ("completed", None, Success(None)),
        ("failed", "why", Failure("execution", "process_failed", "why", "why")),
        ("failed", {"x": 1}, Failure("execution", "process_failed", '{"x":1}', {"x": 1})),
        ("cancelled", 7, Cancelled("7", 7)),
        # A valid await_output is taken as it is, though its type contradicts the state.
        ("failed", {"type": "success", "value": 3}, Success(3)),
        ("completed", {"type": "cancelled", "message": "m"}, Cancelled("m")),
        ("completed", {"type": "success"}, Success({"type": "success"})),
        (
            "completed",
            {"type": "success", "value": 1, "control": {"type": "jump"}},
            Success({"type": "success", "value": 1, "control": {"type": "jump"}}),
        ),
    ],
    ids=ascii,
)
def test_p_event_4_ends(
    registry: ProcessRegistry, path: Path, state: Any, selected: Any, output: Any
) -> None:
    end = EventType("end", semantics=Semantics(TerminalRule(state, Pointer("/o"))))
    register(registry, event_types=[end])
    appended = registry.append_event("p", "end", {"o": selected}, replay_key="k")
    terminal = appended.event.semantics.terminal
    assert terminal is not None
    assert (terminal.state, terminal.await_output) == (state, output)
    record = registry.load_process("p")
    assert record is not None
    assert (record.status.state, record.await_output) == (state, output)
    assert all_rows(path)["processes"][0][5] == state
    assert registry.events_after("p") == [appended.event]


@given(value=st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(st.characters(codec="utf-8"), max_size=4), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), inner, max_size=3), max_leaves=8))  # fmt: skip
def test_p_event_4_every_value_is_found_by_its_pointer(value: Any) -> None:
    def walk(at: Any, pointer: str) -> None:
        assert select_value(Pointer(pointer), value) == at
        steps = (
            at.items() if isinstance(at, dict) else enumerate(at) if isinstance(at, list) else ()
        )
        for name, inner in steps:
            walk(inner, f"{pointer}/{str(name).replace('~', '~0').replace('/', '~1')}")

    walk(value, "")
    text = text_of(value)
    assert text == value if isinstance(value, str) else json.loads(text) == value


def test_p_event_4_what_was_declared_then_is_stored_with_the_event(
    registry: ProcessRegistry, path: Path
) -> None:
    register(registry)
    event = registry.append_event("p", "wake", "hello").event
    run_script(
        path,
        "UPDATE processes SET record_json = replace(record_json, '\"payload\"', '{\"const\":1}')",
    )
    assert registry.events_after("p") == [event]
    later = registry.append_event("p", "wake", "hello").event
    assert later.semantics.wake is not None
    assert later.semantics.wake.input == "1"


def test_p_event_6_any_event_moves_updated_at_and_an_end_clears_the_wait(
    registry: ProcessRegistry, path: Path, clock: ManualClock
) -> None:
    register(registry)
    registry.set_wait("p", signal_wait("p", "go", ordinal=1, since_ms=1))
    clock.advance(5)
    registry.append_event("p", "tick")
    record = registry.load_process("p")
    assert record is not None
    assert record.updated_at_ms == clock.now_ms() == all_rows(path)["processes"][0][4]
    assert record.wait is not None
    assert record.status.state == "running"
    clock.advance(5)
    ended = registry.complete_process("p", Cancelled("m")).record
    assert (ended.wait, ended.updated_at_ms, ended.status.state) == (
        None,
        clock.now_ms(),
        "cancelled",
    )


def test_p_event_7_a_wake_on_its_way(registry: ProcessRegistry, clock: ManualClock) -> None:
    cause = {"type": "turn", "session_id": "s", "turn_id": "t"}
    register(registry, provenance=Provenance(Host(), cause))
    appended = registry.append_event("p", "wake", "hello")
    wake = appended.wake
    assert wake is not None
    digest = hashlib.sha256(b'["session:chat-42","p:1"]').hexdigest()
    assert wake.written() == {
        "wake_id": f"wake:{digest}",
        "target_session_id": "chat-42",
        "target_scope_id": "session:chat-42",
        "process_id": "p",
        "sequence": 1,
        "event_type": "wake",
        "event_invocation": appended.event.invocation,
        "process_caused_by": cause,
        "dedupe_key": "p:1",
        "input": "hello",
        "created_at_ms": clock.now_ms(),
    }
    given = registry.append_event("p", "wake", "x", wake_target=Scope("other", "f")).wake
    assert given is not None
    assert (given.target_session_id, given.target_scope_id) == ("other", "session:other/frame:f")
    assert registry.append_event("p", "tick").wake is None
    register(registry, "q", wake_target=None)
    silent = registry.append_event("q", "wake", "x")
    assert silent.wake is None
    assert silent.event.semantics.wake is not None


def test_p_event_7_a_wake_becomes_a_batch_of_the_target(
    registry: ProcessRegistry, tmp_path: Path
) -> None:
    register(registry)
    wake = registry.append_event("p", "wake", "hello").wake
    assert wake is not None
    work = work_of_wake(wake)
    assert work == NewWork(
        [{"type": "process_wake", "wake": wake.written()}],
        source_key="process:p:event:1:wake",
        delivery_policy="earliest_safe_boundary",
        slot_policy="exclusive",
    )
    with SessionStore.open(tmp_path / "s.db", session_id="chat-42") as session:
        batch = session.enqueue_work(work)
        assert isinstance(batch, WorkBatch)
        assert session.enqueue_work(work) == AlreadyQueued(batch)
        assert batch.items[0].payload["wake"]["input"] == "hello"
    with pytest.raises(InvalidRecordError):
        work_of_wake("wake")  # type: ignore[arg-type] # reason: that is the test


def test_p_event_8_reads(registry: ProcessRegistry) -> None:
    register(registry)
    for at in range(10):
        registry.append_event("p", "wake" if at % 2 else "tick", at)
    assert sequences(registry.events_after("p")) == list(range(1, 11))
    assert sequences(registry.events_after("p", 7)) == [8, 9, 10]
    assert sequences(registry.events_after("p", 2, limit=3)) == [3, 4, 5]
    assert sequences(registry.recent_events("p", limit=3)) == [8, 9, 10]
    assert sequences(registry.recent_events("p", limit=2**70)) == list(range(1, 11))
    assert registry.events_after("p", 2**63) == registry.events_after("p", 2**70) == []
    assert registry.count_through("p", "tick", 5) == 3
    assert registry.count_through("p", "tick", 2**64) == 5
    assert registry.count_through("p", "tock", 10) == 0
    assert sequences(registry.wake_events_after("p")) == [2, 4, 6, 8, 10]
    assert sequences(registry.wake_events_after("p", 4, limit=2)) == [6, 8]
    assert (registry.ack_wake("p", 6), registry.ack_wake("p", 6)) == (True, False)
    assert sequences(registry.wake_events_after("p", 4, limit=2)) == [8, 10]
    assert registry.first_event_after("p", "wake", 2) == registry.events_after("p", 3)[0]
    assert registry.first_event_after("p", "wake", 10) is None


def test_p_event_8_an_unknown_process_is_an_error(registry: ProcessRegistry, path: Path) -> None:
    register(registry)
    for call in (
        lambda: registry.events_after("q"),
        lambda: registry.recent_events("q"),
        lambda: registry.count_through("q", "tick", 5),
        lambda: registry.wake_events_after("q"),
        lambda: registry.first_event_after("q", "tick", 0),
        lambda: registry.ack_wake("q", 1),
        lambda: registry.ack_wake("p", 1),
        lambda: registry.ack_wake("p", 10**5000),
        lambda: registry.complete_process("q", Success(1)),
        lambda: registry.request_cancel("q"),
    ):
        refused(path, NotFoundError, call)


@pytest.mark.parametrize(
    "call",
    [
        lambda registry: registry.events_after("p", -1),
        lambda registry: registry.events_after("p", 1.0),
        lambda registry: registry.events_after("p", limit=-1),
        lambda registry: registry.recent_events("p", limit=None),
        lambda registry: registry.count_through("p", "", 1),
        lambda registry: registry.count_through("p", "tick", True),
        lambda registry: registry.ack_wake("p", "1"),
        lambda registry: registry.pending_wakes(after="p"),
        lambda registry: registry.pending_wakes(after=(1, 2)),
        lambda registry: registry.pending_wakes(after=("p",)),
        lambda registry: registry.request_cancel("p", reason=7),
    ],
)
def test_p_event_8_bad_bounds_are_refused(registry: ProcessRegistry, path: Path, call: Any) -> None:
    register(registry)
    refused(path, InvalidRecordError, lambda: call(registry))


@pytest.mark.canonical("SQLite takes anything as a sequence of a canonical table")
def test_k_codec_2_a_sequence_that_is_no_number_is_an_error(
    registry: ProcessRegistry, path: Path
) -> None:
    register(registry)
    registry.append_event("p", "tick", 1)
    run_script(path, "UPDATE process_events SET sequence = ''")
    before = all_rows(path)
    with pytest.raises(CorruptRecordError, match=r"process_events.*'p'"):
        registry.append_event("p", "tick", 2)
    with registry.read() as tx, pytest.raises(CorruptRecordError, match=r"process_events.*'p'"):
        tx.highest_sequence("p")
    assert all_rows(path) == before


def test_k_codec_2_a_corrupt_event_is_an_error(registry: ProcessRegistry, path: Path) -> None:
    register(registry)
    for _ in range(3):
        registry.append_event("p", "wake", 1)
    run_script(
        path,
        "UPDATE process_events SET event_json = replace(event_json, '\"sequence\":2', '\"sequence\":3') WHERE sequence = 2",
    )
    for call in (
        lambda: registry.events_after("p"),
        lambda: registry.wake_events_after("p"),
        registry.pending_wakes,
    ):
        refused(path, CorruptRecordError, call, "p:2")
    assert sequences(registry.events_after("p", 2)) == [3]


def test_p_event_10_complete(registry: ProcessRegistry, path: Path, clock: ManualClock) -> None:
    register(registry)
    completed = registry.complete_process("p", Success({"b": 1, "a": 2}))
    event = completed.event
    assert (event.event_type, event.replay_key) == (
        "process.completed",
        "process:p:terminal:process.completed",
    )
    assert event.payload == {"await_output": {"type": "success", "value": {"a": 2, "b": 1}}}
    assert completed.record.status.state == "completed"
    before = all_rows(path)
    clock.advance(9)
    again = registry.complete_process("p", Success({"a": 2, "b": 1}))
    assert (again.record, again.is_replay) == (completed.record, True)
    assert all_rows(path) == before
    refused(path, IdempotencyConflictError, lambda: registry.complete_process("p", Success(2)))
    refused(path, ProcessEndedError, lambda: registry.complete_process("p", Cancelled("m")))


def test_p_event_10_a_completion_may_wake(registry: ProcessRegistry) -> None:
    done = EventType(
        "process.completed",
        semantics=Semantics(
            TerminalRule("completed", Pointer("/await_output")),
            WakeRule(Const("done"), EventIdentity()),
        ),
    )
    register(registry, event_types=[done])
    completed = registry.complete_process("p", Success(1))
    assert completed.wake is not None
    assert completed.wake.input == "done"
    assert completed.record.await_output == Success(1)


def test_p_event_10_request_cancel(registry: ProcessRegistry, path: Path) -> None:
    register(registry)
    first = registry.request_cancel("p", reason="bored")
    digest = hashlib.sha256(b'["process.cancel_requested",{"reason":"bored"}]').hexdigest()
    assert first.event.replay_key == f"process:p:cancel_requested:{digest}"
    assert first.event.payload == {"reason": "bored"}
    assert registry.request_cancel("p", reason="bored").is_replay
    second = registry.request_cancel("p")
    assert (second.event.payload, second.event.sequence) == ({"reason": None}, 2)
    assert all_rows(path)["processes"][0][5] == "running"
    registry.complete_process("p", Cancelled("as asked"))
    assert registry.request_cancel("p").is_replay


@pytest.mark.parametrize("late_ms", [-1, 0, 1])
def test_p_event_11_a_fence_holds_until_the_end_of_its_term(
    registry: ProcessRegistry, path: Path, clock: ManualClock, late_ms: int
) -> None:
    register(registry)
    fence = lease_on(registry, ttl_ms=100).fence
    clock.advance(100 + late_ms)
    if late_ms < 0:
        assert registry.append_event("p", "tick", fence=fence).event.sequence == 1
        assert registry.complete_process(
            "p", Success(1), fence=fence
        ).record.await_output == Success(1)
        return
    lost = refused(path, LeaseLostError, lambda: registry.append_event("p", "tick", fence=fence))
    assert lost.reason == "expired"
    refused(path, LeaseLostError, lambda: registry.complete_process("p", Success(1), fence=fence))


def test_p_event_11_a_stale_worker_cannot_end_what_somebody_else_runs(
    registry: ProcessRegistry, path: Path, clock: ManualClock
) -> None:
    register(registry)
    stale = lease_on(registry, ttl_ms=10).fence
    clock.advance(10)
    fence = lease_on(registry, owner_id="bob").fence
    lost = refused(
        path, LeaseLostError, lambda: registry.complete_process("p", Success(1), fence=stale)
    )
    assert lost.reason == "superseded"
    registry.complete_process("p", Success(1), fence=fence)
    assert registry.current_lease("p") is None
    # Neither with the same output nor with another, now that it has ended.
    for output in (Success(1), Success(2), Cancelled("m")):
        refused(
            path,
            LeaseLostError,
            lambda output=output: registry.complete_process("p", output, fence=stale),
        )


def test_p_event_11_completing_again_after_the_release_gives_the_result(
    registry: ProcessRegistry, path: Path, clock: ManualClock
) -> None:
    register(registry)
    fence = lease_on(registry).fence
    first = registry.complete_process("p", Success(1), fence=fence)
    before = all_rows(path)
    clock.advance(5_000)
    again = registry.complete_process("p", Success(1), fence=fence)
    assert (again.record, again.is_replay) == (first.record, True)
    assert all_rows(path) == before
    lost = refused(
        path, LeaseLostError, lambda: registry.complete_process("p", Success(2), fence=fence)
    )
    assert lost.reason == "released"


def test_p_event_11_a_fence_of_another_process_or_table_is_refused(
    registry: ProcessRegistry, path: Path
) -> None:
    register(registry)
    register(registry, "q")
    other = lease_on(registry, "q").fence
    fence = lease_on(registry).fence
    refused(path, LeaseLostError, lambda: registry.append_event("p", "tick", fence=other))
    forged = ProcessFence("p", "ann", "forged", fence.fencing_token)
    refused(path, LeaseLostError, lambda: registry.append_event("p", "tick", fence=forged))
    wrong: Any = SessionFence("p", "ann", fence.token, 1)
    refused(path, InvalidRecordError, lambda: registry.append_event("p", "tick", fence=wrong))


def test_p_event_12_pending_wakes_across_processes(registry: ProcessRegistry) -> None:
    for name in "bca":
        register(registry, name, wake_target=None if name == "c" else TARGET)
        for at in range(3):
            registry.append_event(name, "tick" if at == 1 else "wake", at)
    registry.ack_wake("b", 1)

    def keys(**page: Any) -> list[tuple[str, int]]:
        pending = registry.pending_wakes(**page)
        assert all((each.wake is None) == (each.event.process_id == "c") for each in pending)
        return [(each.event.process_id, each.event.sequence) for each in pending]

    assert keys() == [("a", 1), ("a", 3), ("b", 3), ("c", 1), ("c", 3)]
    assert keys(after=("a", 1), limit=2) == [("a", 3), ("b", 3)]
    assert keys(after=("a", 3), limit=9) == [("b", 3), ("c", 1), ("c", 3)]
    assert keys(after=("c", 2**70)) == []
    first = registry.pending_wakes()[0]
    assert first.wake is not None
    assert first.wake.input == "0"


def test_p_event_12_a_wake_is_redriven_after_a_crash(
    registry: ProcessRegistry, tmp_path: Path
) -> None:
    """A crash after the append, after the enqueue, and after both: it stands in the queue once."""
    register(registry)
    registry.append_event("p", "wake", "hello")  # and its caller dies
    with SessionStore.open(tmp_path / "s.db", session_id="chat-42") as session:
        for dies_before_the_ack in (True, True, False):
            for pending in registry.pending_wakes():
                assert pending.wake is not None
                session.enqueue_work(work_of_wake(pending.wake))
                if not dies_before_the_ack:
                    registry.ack_wake("p", pending.event.sequence)
        assert session.work_depth().batches == 1
    assert registry.pending_wakes() == []


def test_an_error_inside_a_consumers_transaction_leaves_nothing_behind(
    registry: ProcessRegistry, path: Path
) -> None:
    register(registry)
    before = all_rows(path)
    with registry.begin() as tx:
        for error, call in (
            (InvalidRecordError, lambda: tx.append_event("p", "strict", {"n": 1})),
            (NotFoundError, lambda: tx.ack_wake("p", 1)),
        ):
            with pytest.raises(error):
                call()
    assert all_rows(path) == before


class TestSizes:
    """What a read costs does not depend on what it leaves out."""

    @pytest.mark.parametrize("count", [10, 2_000])
    def test_rows_read(self, registry: ProcessRegistry, path: Path, count: int) -> None:
        register(registry)
        with registry.begin() as tx:
            for at in range(count):
                tx.append_event("p", "tick", at)
            tx.append_event("p", "wake", "last")
        with registry.read() as tx:
            steps = 0

            def tick() -> None:
                nonlocal steps
                steps += 1

            tx.cursor.connection.set_progress_handler(tick, 1)
            tx.wake_events_after("p", count)
            tx.events_after("p", count)
            tx.recent_events("p", limit=2)
            tx.first_event_after("p", "wake", count)
            tx.highest_sequence("p")
            tx.cursor.connection.set_progress_handler(None, 0)
        assert steps < 600


@pytest.mark.sqlite("what one of a group has written is undone with it there")
def test_p_event_10_a_completion_that_is_refused_writes_nothing_before(
    registry: ProcessRegistry,
) -> None:
    """Or the calls that share its transaction would have to be done once more."""
    for name in ("p", "q", "r"):
        register(registry, name)
    held = {name: lease_on(registry, name).fence for name in ("p", "r")}
    registry.complete_process("p", Success(1))
    registry.complete_process("r", Failure("external", "x", "no"))
    begins: list[str] = []

    class Begins:
        def before(self, event: Event) -> None:
            if event.kind == "begin":
                begins.append(event.sql)

        def after(self, event: Event) -> None: ...

    with observed_by(Begins()):
        claimed, conflict, ended = run_as_group(
            partial(registry.claim_lease, "q", owner_id="ann", ttl_ms=9),
            partial(registry.complete_process, "p", Success(2), fence=held["p"]),
            partial(registry.complete_process, "r", Success(2), fence=held["r"]),
        )
    assert isinstance(claimed, ProcessLease)
    assert isinstance(conflict, IdempotencyConflictError)
    assert isinstance(ended, ProcessEndedError)
    assert len(begins) == 1
