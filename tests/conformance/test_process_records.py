"""P-REC, P-REG and P-LIST, rule by rule."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lash_store import (
    Cancelled,
    External,
    Failure,
    Host,
    ProcessRegistry,
    Provenance,
    Scope,
    Success,
)
from lash_store.errors import (
    CorruptRecordError,
    IdempotencyConflictError,
    InvalidRecordError,
    NotFoundError,
    ProcessEndedError,
)
from lash_store.process.records import (
    BySession,
    Const,
    DedupeBy,
    DedupeConst,
    EngineCall,
    EventIdentity,
    EventType,
    ExternalRef,
    Payload,
    PayloadSchema,
    Pointer,
    Present,
    ProcessFilter,
    ProcessIdentity,
    Semantics,
    SessionTurn,
    Template,
    TerminalRule,
    ToolCall,
    WakeRule,
    registration_hash,
    signal_event_type,
    signal_wait,
)
from lash_store.testing import ManualClock
from tests.support.databases import all_rows, run_script
from tests.support.registries import register, registration

ANY: dict[str, Any] = {"schema": {}}
CORE = [
    {"name": "process.cancel_requested", "payload_schema": ANY, "semantics": {}},
    {"name": "process.waiting", "payload_schema": ANY, "semantics": {}},
    {"name": "process.resumed", "payload_schema": ANY, "semantics": {}},
    *(
        {
            "name": f"process.{state}",
            "payload_schema": ANY,
            "semantics": {
                "terminal": {"state": state, "await_output": {"pointer": "/await_output"}}
            },
        }
        for state in ("completed", "failed", "cancelled")
    ),
]


def written(path: Path, process_id: str = "p") -> dict[str, Any]:
    rows = {row[0]: row for row in all_rows(path)["processes"]}
    record: dict[str, Any] = json.loads(rows[process_id][6])
    return record


def test_p_rec_1_a_record_on_the_wire(
    registry: ProcessRegistry, path: Path, clock: ManualClock
) -> None:
    given = registration(
        "p1",
        input=ToolCall({"tool_name": "grep", "args": {"b": 1, "a": 1e16}}),
        provenance=Provenance(
            BySession(Scope("s", "f")), {"type": "turn", "turn_id": "t", "session_id": "s"}
        ),
        identity=ProcessIdentity("tool", "search", {"z": 1, "a": 2}),
        event_types=[EventType("tick")],
        env_ref="env",
        wake_target=Scope("s"),
    )
    record = registry.register_process(given)
    (row,) = all_rows(path)["processes"]
    now = clock.now_ms()
    assert row[:6] == ("p1", record.registration_hash, "session:s/frame:f", now, now, "running")
    identity = '{"kind":"tool","label":"search","definition":{"a":2,"z":1}}'
    origin = '{"type":"session","scope":{"session_id":"s","agent_frame_id":"f"}}'
    types = json.dumps(
        [{"name": "tick", "payload_schema": ANY, "semantics": {}}, *CORE], separators=(",", ":")
    )
    assert row[6] == (
        f'{{"id":"p1","registration_hash":"{record.registration_hash}",'
        '"input":{"type":"tool_call","call":{"tool_name":"grep","args":{"b":1,"a":1e+16}}},'
        f'"identity":{identity},"event_types":{types},"provenance":{{"originator":{origin},'
        '"caused_by":{"type":"turn","session_id":"s","turn_id":"t"}},'
        '"env_ref":"env","wake_target":{"session_id":"s"},'
        f'"created_at_ms":{now},"updated_at_ms":{now},"status":{{"state":"running"}}}}'
    )
    assert registry.load_process("p1") == record
    assert record.input == given.input
    assert (record.event_types[0], record.originator) == (
        EventType("tick"),
        BySession(Scope("s", "f")),
    )
    assert record.await_output is None


@pytest.mark.parametrize(
    ("given", "wire"),
    [
        (EngineCall("k", {"b": 1, "a": 2}), '{"type":"engine","kind":"k","payload":{"a":2,"b":1}}'),
        (External({"b": 1, "a": 2}), '{"type":"external","metadata":{"a":2,"b":1}}'),
        (
            SessionTurn({"b": 1, "a": 2}, [1], None),
            '{"type":"session_turn","create_request":{"b":1,"a":2},"turn_input":[1],'
            '"output_contract":null}',
        ),
    ],
)
def test_p_rec_1_inputs(registry: ProcessRegistry, path: Path, given: Any, wire: str) -> None:
    env_ref = "env" if isinstance(given, EngineCall) else None
    record = register(registry, input=given, env_ref=env_ref)
    assert f'"input":{wire},' in all_rows(path)["processes"][0][6]
    assert record.input == given


@pytest.mark.parametrize("output", [None, Success(1), Failure("timeout", "c", "m"), Cancelled("m")])
def test_p_rec_3_the_columns_repeat_the_record(
    registry: ProcessRegistry, path: Path, clock: ManualClock, output: Any
) -> None:
    register(registry, provenance=Provenance(BySession(Scope("s"))))
    clock.advance(7)
    if output is not None:
        registry.complete_process("p", output)
    (row,) = all_rows(path)["processes"]
    record = json.loads(row[6])
    assert row[:6] == (
        record["id"], record["registration_hash"], "session:s", record["created_at_ms"],
        record["updated_at_ms"], record["status"]["state"],
    )  # fmt: skip
    assert ("await_output" in record["status"]) == (output is not None)


@pytest.mark.parametrize(
    ("originator", "scope_id"),
    [
        (Host(), "host"),
        (BySession(Scope("s")), "session:s"),
        (BySession(Scope("s", "")), "session:s"),
        (BySession(Scope("s", "f")), "session:s/frame:f"),
    ],
)
def test_p_rec_2_scope_ids(
    registry: ProcessRegistry, path: Path, originator: Any, scope_id: str
) -> None:
    register(registry, provenance=Provenance(originator))
    assert originator.scope_id == scope_id
    assert all_rows(path)["processes"][0][2] == scope_id


@pytest.mark.parametrize(
    ("output", "wire"),
    [
        (Success({"b": 1, "a": 2}), {"type": "success", "value": {"a": 2, "b": 1}}),
        (Success(None), {"type": "success", "value": None}),
        (
            Success(1, {"type": "finish", "x": 1}),
            {"type": "success", "value": 1, "control": {"type": "finish", "x": 1}},
        ),
        (
            Failure("timeout", "late", "too late", {"ms": 5}),
            {
                "type": "failure",
                "class": "timeout",
                "code": "late",
                "message": "too late",
                "raw": {"ms": 5},
            },
        ),
        (Cancelled("stop"), {"type": "cancelled", "message": "stop"}),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_p_rec_4_outputs(registry: ProcessRegistry, path: Path, output: Any, wire: Any) -> None:
    register(registry)
    completed = registry.complete_process("p", output)
    state = {"success": "completed", "failure": "failed"}.get(wire["type"], "cancelled")
    assert written(path)["status"] == {"state": state, "await_output": wire}
    assert list(written(path)["status"]["await_output"]) == list(wire)
    assert all_rows(path)["processes"][0][5] == state
    assert completed.record.await_output == output
    loaded = registry.load_process("p")
    assert loaded == completed.record


@pytest.mark.parametrize(
    "bad",
    [
        Failure("tired", "c", "m"),  # type: ignore[arg-type] # reason: that is the test
        Failure("timeout", 1, "m"),  # type: ignore[arg-type] # reason: the same
        Success(float("nan")),
        Success(1, {"type": "jump"}),
        Cancelled("\ud800"),
        {"type": "success", "value": 1},
    ],
    ids=ascii,
)
def test_p_rec_4_bad_outputs_are_refused(registry: ProcessRegistry, path: Path, bad: Any) -> None:
    register(registry)
    before = all_rows(path)
    with pytest.raises(InvalidRecordError):
        registry.complete_process("p", bad)
    assert all_rows(path) == before


@pytest.mark.parametrize(
    ("given", "identity"),
    [
        (ToolCall({"tool_name": "grep"}), ProcessIdentity("tool", "grep")),
        (ToolCall({"tool_name": 7}), ProcessIdentity("tool")),
        (EngineCall("lashlang", {}), ProcessIdentity("lashlang")),
        (
            SessionTurn({"subagent": {"capability": "c"}, "usage_source": "u"}, 1, 1),
            ProcessIdentity("session_turn", "c"),
        ),
        (
            SessionTurn({"usage_source": "u", "session_id": "s"}, 1, 1),
            ProcessIdentity("session_turn", "u"),
        ),
        (SessionTurn({"session_id": "s"}, 1, 1), ProcessIdentity("session_turn", "s")),
        (SessionTurn("x", 1, 1), ProcessIdentity("session_turn")),
        (External({"title": "t", "name": "n"}), ProcessIdentity("external", "n")),
        (External({"label": 7, "name": "n"}), ProcessIdentity("external")),
        (External([]), ProcessIdentity("external")),
        (External({"title": "a\0b"}), ProcessIdentity("external")),
        (ToolCall({"tool_name": "a\0b"}), ProcessIdentity("tool")),
    ],
    ids=ascii,
)
def test_p_rec_5_an_identity_is_made_from_the_input(
    registry: ProcessRegistry, given: Any, identity: ProcessIdentity
) -> None:
    env_ref = "env" if isinstance(given, (ToolCall, EngineCall)) else None
    assert register(registry, input=given, env_ref=env_ref).identity == identity


def test_p_rec_6_an_event_type_on_the_wire(registry: ProcessRegistry, path: Path) -> None:
    types = [
        EventType(
            "all",
            PayloadSchema({"type": "object"}),
            Semantics(
                TerminalRule("failed", Pointer("/x")),
                WakeRule(
                    Template("{b} {a}", {"b": Payload(), "a": Const({"z": 1, "b": 2})}),
                    DedupeBy(Present("/y")),
                    when=Pointer(""),
                ),
            ),
        ),
        EventType("id", semantics=Semantics(wake=WakeRule(Payload(), EventIdentity()))),
        EventType("const", semantics=Semantics(wake=WakeRule(Payload(), DedupeConst("k")))),
    ]
    record = register(registry, event_types=types)
    assert record.event_types[:3] == tuple(types)
    first, second, third = written(path)["event_types"][:3]
    assert first == {
        "name": "all",
        "payload_schema": {"schema": {"type": "object"}},
        "semantics": {
            "terminal": {"state": "failed", "await_output": {"pointer": "/x"}},
            "wake": {
                "when": {"pointer": ""},
                "input": {
                    "template": {
                        "template": "{b} {a}",
                        "fields": {"a": {"const": {"b": 2, "z": 1}}, "b": "payload"},
                    }
                },
                "dedupe_key": {"selector": {"present": "/y"}},
            },
        },
    }
    assert list(first["semantics"]["wake"]) == ["when", "input", "dedupe_key"]
    assert second["semantics"]["wake"]["dedupe_key"] == "event_identity"
    assert third["semantics"]["wake"]["dedupe_key"] == {"const": "k"}


def test_p_reg_1_core_event_types_are_added_where_they_are_missing(
    registry: ProcessRegistry, path: Path
) -> None:
    mine = EventType("process.resumed", PayloadSchema({"type": "null"}))
    register(registry, event_types=[mine])
    names = [each["name"] for each in written(path)["event_types"]]
    assert names == [
        "process.resumed",
        *(each["name"] for each in CORE if each["name"] != "process.resumed"),
    ]
    assert written(path)["event_types"][0]["payload_schema"] == {"schema": {"type": "null"}}
    assert written(path)["event_types"][1:] == [e for e in CORE if e["name"] != "process.resumed"]


def ends(selector: Any) -> EventType:
    return EventType("a", semantics=Semantics(TerminalRule("completed", selector)))


@pytest.mark.parametrize(
    "bad",
    [
        {"process_id": ""},
        {"process_id": " \t"},
        {"process_id": 7},
        {"process_id": "é" * 512 + "x"},
        {"event_types": [EventType("")]},
        {"event_types": [EventType("a"), EventType("a")]},
        {"event_types": [EventType("a", semantics=Semantics(TerminalRule("failed")))]},
        {"event_types": [EventType("a", semantics=Semantics(TerminalRule("cancelled")))]},
        {"event_types": [EventType("a", semantics=Semantics(TerminalRule("stopped")))]},  # type: ignore[arg-type] # reason: that is the test
        {"event_types": [EventType("a", PayloadSchema({"type": "no-such-type"}))]},
        {"event_types": [EventType("a", PayloadSchema([]))]},
        {"event_types": [ends(Pointer("text"))]},
        {"event_types": [ends(Template("{a}", {"a": Pointer("a/b")}))]},
        {"event_types": [EventType("a", PayloadSchema({"$schema": "http://no.such/draft"}))]},
        {"event_types": [EventType("a", PayloadSchema({"pattern": "("}))]},
        {"event_types": "tick"},
        {"input": ToolCall({})},
        {"input": EngineCall("k", {})},
        {"input": EngineCall("", {}), "env_ref": "env"},
        {"input": EngineCall("k", {}), "env_ref": ""},
        {"input": External({}), "env_ref": "env"},
        {"input": SessionTurn(1, 2, 3), "env_ref": "env"},
        {"input": External({1: 2})},
        {"input": {"type": "external", "metadata": 1}},
        {"identity": ProcessIdentity("")},
        {"identity": ProcessIdentity("k", None, "deploy\0x")},
        {"provenance": Host()},
        {"provenance": Provenance(BySession(Scope("")))},
        {"provenance": Provenance(BySession(Scope("a\0b")))},
        {"provenance": Provenance(Host(), {"type": "nothing"})},
        {"wake_target": "s"},
    ],
    ids=ascii,
)
def test_p_reg_2_what_is_refused_before_anything_is_written(
    registry: ProcessRegistry, path: Path, bad: dict[str, Any]
) -> None:
    before = all_rows(path)
    with pytest.raises(InvalidRecordError):
        register(registry, **bad)
    assert all_rows(path) == before


def test_p_reg_2_the_longest_id_can_be_claimed_and_ended(registry: ProcessRegistry) -> None:
    """Where it stands twice in an index, too; it is none that a database can make shorter."""
    longest = "".join(hashlib.sha256(bytes([at])).hexdigest() for at in range(16))
    register(registry, longest)
    held = registry.claim_next(owner_id="ann", ttl_ms=1_000)
    assert held is not None
    registry.request_cancel(longest, reason="r" * 100)
    ended = registry.complete_process(longest, Success(None), fence=held.lease.fence)
    assert (len(longest), ended.record.id, ended.record.status.state) == (
        1_024,
        longest,
        "completed",
    )


def test_p_reg_2_a_completed_end_needs_no_selector(registry: ProcessRegistry) -> None:
    done = EventType("done", semantics=Semantics(TerminalRule("completed")))
    register(registry, event_types=[done])
    registry.append_event("p", "done", {"n": 1}, replay_key="r")
    record = registry.load_process("p")
    assert record is not None
    assert record.await_output == Success({"n": 1})


def test_p_reg_3_the_hash_is_that_of_the_prepared_registration(
    registry: ProcessRegistry, path: Path, clock: ManualClock
) -> None:
    given = registration(event_types=[], wake_target=None)
    first = registry.register_process(given)
    prepared = {
        "id": "p",
        "input": {"type": "external", "metadata": {"title": "a job"}},
        "identity": {"kind": "external", "label": "a job"},
        "event_types": CORE,
        "provenance": {"originator": {"type": "host"}},
    }
    text = json.dumps(prepared, separators=(",", ":"), ensure_ascii=False)
    assert first.registration_hash == hashlib.sha256(text.encode()).hexdigest()
    assert registration_hash(given) == first.registration_hash
    before = all_rows(path)
    clock.advance(5)
    assert registry.register_process(given) == first
    assert all_rows(path) == before
    other = registration(event_types=[], wake_target=Scope("other"))
    with pytest.raises(IdempotencyConflictError) as refusal:
        registry.register_process(other)
    assert refusal.value.expected == first.registration_hash
    assert refusal.value.found == registration_hash(other)
    assert first.registration_hash in str(refusal.value)
    assert all_rows(path) == before


def test_p_reg_3_again_after_it_has_changed(registry: ProcessRegistry) -> None:
    register(registry)
    ended = registry.complete_process("p", Success(1)).record
    assert register(registry) == ended


def test_p_reg_4_external_ref_and_wait(
    registry: ProcessRegistry, path: Path, clock: ManualClock
) -> None:
    register(registry)
    clock.advance(3)
    ref = ExternalRef("temporal", "run-1", {"b": 1, "a": 2})
    assert registry.set_external_ref("p", ref).external_ref == ref
    clock.advance(3)
    wait = signal_wait("p", "go-1", ordinal=2, since_ms=clock.now_ms())
    record = registry.set_wait("p", wait)
    assert (record.wait, record.external_ref) == (wait, ref)
    wire = written(path)
    assert list(wire)[-5:] == ["created_at_ms", "updated_at_ms", "external_ref", "wait", "status"]
    assert list(wire["external_ref"]["metadata"]) == ["a", "b"]
    assert wire["wait"] == {
        "kind": {
            "kind": "signal",
            "name": "go-1",
            "event_type": "signal.go-1",
            "key": "process:p:signal.go-1:2",
            "ordinal": 2,
        },
        "since_ms": clock.now_ms(),
    }
    assert wire["updated_at_ms"] == all_rows(path)["processes"][0][4] == clock.now_ms()
    clock.advance(3)
    assert registry.clear_wait("p").wait is None
    assert "wait" not in written(path)
    assert all_rows(path)["processes"][0][4] == clock.now_ms()
    assert registry.clear_wait("p").updated_at_ms == clock.now_ms()


def test_p_reg_4_refusals(registry: ProcessRegistry, path: Path, clock: ManualClock) -> None:
    register(registry)
    registry.complete_process("p", Success(1))
    wait = signal_wait("p", "go", ordinal=1, since_ms=0)
    before = all_rows(path)
    clock.advance(1)
    with pytest.raises(ProcessEndedError):
        registry.set_wait("p", wait)
    unknown: list[Any] = [
        lambda: registry.set_wait("q", wait),
        lambda: registry.clear_wait("q"),
        lambda: registry.set_external_ref("q", ExternalRef("b", "i")),
    ]
    for call in unknown:
        with pytest.raises(NotFoundError, match="'q'"):
            call()
    bad_wait = msgspec.structs.replace(wait, since_ms=-1)
    bad: list[Any] = [
        lambda: registry.set_wait("p", bad_wait),
        lambda: registry.set_external_ref("p", ExternalRef("", "i")),
        lambda: registry.set_external_ref("p", "ref"),  # type: ignore[arg-type] # reason: that is the test
    ]
    for refused in bad:
        with pytest.raises(InvalidRecordError):
            refused()
    assert all_rows(path) == before


@pytest.mark.parametrize("name", ["", "a b", "ä", "a.b", "a\n"])
def test_p_event_9_names_of_signals(name: str) -> None:
    with pytest.raises(InvalidRecordError):
        signal_event_type(name)
    assert signal_event_type("Go_1-x") == "signal.Go_1-x"


def test_k_codec_3_unknown_fields_survive_every_update(
    registry: ProcessRegistry, path: Path, clock: ManualClock
) -> None:
    register(registry)
    run_script(
        path,
        """UPDATE processes SET record_json = json_set(record_json, '$.later', json('{"b":1e16,"a":[1]}'),
        '$.input.more', 1, '$.identity.note', 'n', '$.status.since', 5)""",
    )
    registry.set_external_ref("p", ExternalRef("b", "i"))
    registry.append_event("p", "tick")
    registry.set_wait("p", signal_wait("p", "go", ordinal=1, since_ms=1))
    registry.clear_wait("p")
    registry.delete_session("chat-42")
    record = written(path)
    assert record["later"] == {"b": 1e16, "a": [1]}
    assert list(record["later"]) == ["b", "a"]
    assert (record["input"]["more"], record["identity"]["note"]) == (1, "n")
    assert record["status"] == {"state": "running", "since": 5}
    registry.complete_process("p", Success(1))
    assert written(path)["later"] == {"b": 1e16, "a": [1]}


@pytest.mark.parametrize(
    "spoiled", ["nothing", "[]", '{"id":1}', '{"id":"p","status":{"state":"completed"}}']
)
def test_k_codec_2_a_corrupt_record_is_an_error(
    registry: ProcessRegistry, path: Path, spoiled: str
) -> None:
    register(registry, "o")
    register(registry)
    run_script(path, f"UPDATE processes SET record_json = '{spoiled}' WHERE process_id = 'p'")
    before = all_rows(path)
    for call in (
        lambda: registry.load_process("p"),
        registry.list_processes,
        lambda: registry.register_process(registration()),
        lambda: registry.set_external_ref("p", ExternalRef("b", "i")),
        lambda: registry.append_event("p", "tick"),
        lambda: registry.clear_wait("p"),
    ):
        with pytest.raises(CorruptRecordError, match="'p'"):
            call()
    assert all_rows(path) == before


@pytest.mark.parametrize("state", ["completed", None])
def test_k_codec_2_a_record_that_is_not_in_its_rows_state_is_not_listed(
    registry: ProcessRegistry, path: Path, state: Any
) -> None:
    register(registry)
    run_script(path, "UPDATE processes SET status = 'completed'")
    with pytest.raises(CorruptRecordError, match="'p'"):
        registry.list_processes(state=state)
    with pytest.raises(CorruptRecordError, match="'p'"):
        registry.load_process("p")


@pytest.mark.sqlite("writes the record by json_set()")
def test_k_codec_2_no_wake_target_may_be_written_as_null(
    registry: ProcessRegistry, path: Path
) -> None:
    for name in ("p", "q"):
        register(registry, name, wake_target=Scope("chat"))
        registry.append_event(name, "wake", {"text": "before"})
    run_script(
        path,
        """UPDATE processes SET record_json = json_set(record_json, '$.wake_target', json('null'))
        WHERE process_id = 'p'""",
    )
    record = registry.load_process("p")
    assert record is not None
    assert record.wake_target is None
    registry.append_event("p", "wake", {"text": "later"})
    targets = [(each.event.process_id, each.wake is None) for each in registry.pending_wakes()]
    assert targets == [("p", True), ("p", True), ("q", False)]


def test_p_list_1_what_a_nul_stands_beside_is_found_as_it_is_written(
    registry: ProcessRegistry,
) -> None:
    """A server holds none in a text, and gives each another one: of the record, and of what is asked for."""
    plain = r"a\u0000b\ud800"  # backslashes and letters
    definitions: dict[str, Any] = {
        "object": {"prompt": "a\0b"},
        "other": {"prompt": "a\ufffdb"},
        "escaped": ["\\\0", r"\u0000"],
        "text": plain,
    }
    for name, definition in definitions.items():
        identity = ProcessIdentity("k", definition=definition)
        register(registry, name, identity=identity, input=External({"n": "\0"}))
    for name, definition in definitions.items():
        matching = ProcessFilter(definition=definition)
        assert [each.id for each in registry.list_processes(matching=matching)] == [name]
        claimed = registry.claim_next(owner_id="ann", ttl_ms=1_000, matching=matching)
        assert claimed is not None
    register(registry, "wakes", input=External({"n": "\0"}), wake_target=Scope(plain))
    registry.delete_session(plain)
    woken = registry.load_process("wakes")
    assert woken is not None
    assert woken.wake_target is None


@pytest.mark.parametrize("wanted", ["5", "true", '{"n":1}', {"n": 1}, "[1]", [1]], ids=ascii)
def test_p_list_1_a_definition_is_not_one_that_reads_alike(
    registry: ProcessRegistry, wanted: Any
) -> None:
    for at, definition in enumerate([5, True, "5", "true", '{"n":1}', {"n": 1}, "[1]", [1], None]):
        register(registry, f"p{at}", identity=ProcessIdentity("k", definition=definition))
    matching = ProcessFilter(definition=wanted)
    (found,) = registry.list_processes(matching=matching)
    assert found.identity.definition == wanted
    claimed = registry.claim_next(owner_id="ann", ttl_ms=1_000, matching=matching)
    assert claimed is not None
    assert claimed.record.id == found.id
    assert registry.claim_next(owner_id="ann", ttl_ms=1_000, matching=matching) is None


def test_p_list_1_filters_and_pages(registry: ProcessRegistry, clock: ManualClock) -> None:
    started = clock.now_ms()
    for at, name in enumerate("ecadb"):
        clock.advance(10)
        register(
            registry,
            name,
            identity=ProcessIdentity(
                "k", definition={"n": 1} if name == "b" else "def" if at % 2 else None
            ),
            provenance=Provenance(BySession(Scope("s")) if name in "ab" else Host()),
        )
    registry.complete_process("c", Success(1))
    registry.complete_process("d", Failure("internal", "c", "m"))
    registry.set_wait("e", signal_wait("e", "go", ordinal=1, since_ms=1))

    def ids(**parts: Any) -> str:
        return "".join(record.id for record in registry.list_processes(**parts))

    assert ids() == "abe"
    assert ids(state=None) == "abcde"
    assert (ids(state="completed"), ids(state="failed"), ids(state="cancelled")) == ("c", "d", "")
    assert ids(state=None, limit=2) == "ab"
    assert ids(state=None, after="b", limit=2) == "cd"
    assert ids(limit=0) == ""
    assert ids(limit=2**70) == "abe"
    assert ids(matching=ProcessFilter(waiting=True)) == "e"
    assert ids(matching=ProcessFilter(waiting=False)) == "ab"
    assert ids(state=None, matching=ProcessFilter(definition="def")) == "cd"
    assert ids(matching=ProcessFilter(definition={"n": 1})) == "b"
    assert ids(matching=ProcessFilter(originator=BySession(Scope("s")))) == "ab"
    assert ids(matching=ProcessFilter(originator=Host())) == "e"
    assert ids(state=None, matching=ProcessFilter(created_before_ms=started + 20)) == "e"
    assert ids(state=None, matching=ProcessFilter(created_before_ms=started + 21)) == "ce"
    assert registry.load_process("nobody") is None


@pytest.mark.parametrize("many", [1, 2, 3, 4, 100])
def test_p_list_1_many_in_one_state_are_read_as_few_are(
    registry: ProcessRegistry, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr("lash_store.process.operations.processes._MANY", many)
    for name in "gfedcba":
        register(registry, name)
    for name in "bdfg":
        registry.complete_process(name, Success(1))

    def pages(state: Any) -> list[str]:
        found, after = [], ""
        while page := registry.list_processes(state=state, after=after, limit=2):
            found.append("".join(record.id for record in page))
            after = page[-1].id
        return found

    assert pages("running") == ["ac", "e"]
    assert pages("completed") == ["bd", "fg"]
    assert pages("failed") == []
    assert pages(None) == ["ab", "cd", "ef", "g"]


def test_p_list_1_what_is_filtered_out_is_not_decoded(
    registry: ProcessRegistry, path: Path
) -> None:
    register(registry, "a")
    register(registry, "b", provenance=Provenance(BySession(Scope("s"))))
    run_script(path, "UPDATE processes SET record_json = 'broken' WHERE process_id = 'a'")
    matching = ProcessFilter(originator=BySession(Scope("s")))
    assert [record.id for record in registry.list_processes(matching=matching)] == ["b"]


@pytest.mark.parametrize(
    "bad",
    [
        {"state": "asleep"},
        {"after": 7},
        {"limit": -1},
        {"matching": "x"},
        {"matching": ProcessFilter(waiting=1)},  # type: ignore[arg-type] # reason: that is the test
        {"matching": ProcessFilter(definition=7)},
        {"matching": ProcessFilter(originator=Scope("s"))},  # type: ignore[arg-type] # reason: the same
        {"matching": ProcessFilter(created_before_ms=-1)},
    ],
    ids=ascii,
)
def test_p_list_1_bad_filters_are_refused(registry: ProcessRegistry, bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecordError):
        registry.list_processes(**bad)
