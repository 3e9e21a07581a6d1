"""The same for the process registry: stored, or refused by an error of ours that changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

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
from lash_store.process.records import (
    BySession,
    Const,
    DedupeBy,
    DedupeConst,
    EngineCall,
    EventIdentity,
    EventType,
    ExternalRef,
    HandleDescriptor,
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
    signal_wait,
)
from tests.support.bad_input import WRONG, attempt, fields, replaced
from tests.support.registries import lease_on, register, registration

WAIT = signal_wait("p", "go", ordinal=1, since_ms=1)
RULE = WakeRule(Payload(), EventIdentity())


def declared(**semantics: Any) -> dict[str, Any]:
    return {"event_types": [EventType("new", semantics=Semantics(**semantics))]}


def spoilt_registration(record: Any) -> dict[str, Any]:
    """A registration with this record in its place."""
    places: dict[type, Any] = {
        ToolCall: lambda: {"input": record, "env_ref": "e"},
        EngineCall: lambda: {"input": record, "env_ref": "e"},
        SessionTurn: lambda: {"input": record},
        External: lambda: {"input": record},
        ProcessIdentity: lambda: {"identity": record},
        Provenance: lambda: {"provenance": record},
        BySession: lambda: {"provenance": Provenance(record)},
        Scope: lambda: {"wake_target": record},
        EventType: lambda: {"event_types": [record]},
        PayloadSchema: lambda: {"event_types": [EventType("new", record)]},
        Semantics: lambda: {"event_types": [EventType("new", semantics=record)]},
        TerminalRule: lambda: declared(terminal=record),
        WakeRule: lambda: declared(wake=record),
        DedupeBy: lambda: declared(wake=WakeRule(Payload(), record)),
        DedupeConst: lambda: declared(wake=WakeRule(Payload(), record)),
    }
    if type(record) in places:
        parts: dict[str, Any] = places[type(record)]()
        return parts
    return declared(terminal=TerminalRule("failed", record))  # a selector


RECORDS = [
    ToolCall({}), EngineCall("k", 1), SessionTurn(1, 2, 3), External(1), ProcessIdentity("k", "l", "d"),
    Provenance(Host()), BySession(Scope("s")), Scope("s", "f"), EventType("new"), PayloadSchema({}),
    Semantics(), TerminalRule("failed", Payload()), RULE, DedupeBy(Payload()), DedupeConst("k"),
    Pointer("/a"), Const(1), Present("/a"), Template("{a}", {"a": Payload()}),
]  # fmt: skip


@given(record=st.sampled_from(RECORDS), data=st.data(), value=WRONG)
def test_a_registration_and_all_that_it_holds(
    registry: ProcessRegistry, path: Path, record: Any, data: st.DataObject, value: object
) -> None:
    spoilt = replaced(record, data.draw(fields(type(record))), value)
    name = f"p{len(registry.list_processes(limit=10_000))}"
    given_ = registration(name, **spoilt_registration(spoilt))
    attempt(path, lambda: registry.register_process(given_))
    stored = registry.load_process(name)  # and what was stored can be read
    if stored is not None:
        attempt(path, lambda: registry.append_event(name, "new", {"a": 1}, replay_key="k"))


@given(name=fields(type(registration())), value=WRONG)
def test_a_registration(registry: ProcessRegistry, path: Path, name: str, value: object) -> None:
    spoilt = replaced(registration("fresh"), name, value)
    attempt(path, lambda: registry.register_process(spoilt))
    assert isinstance(registry.list_processes(limit=10_000), list)


@given(
    record=st.sampled_from([Success(1), Failure("timeout", "c", "m"), Cancelled("m")]),
    data=st.data(),
    value=WRONG,
)
def test_an_output(
    registry: ProcessRegistry, path: Path, record: Any, data: st.DataObject, value: object
) -> None:
    name = f"p{len(registry.list_processes(state=None, limit=10_000))}"
    register(registry, name)
    spoilt = replaced(record, data.draw(fields(type(record))), value)
    attempt(path, lambda: registry.complete_process(name, spoilt))
    assert registry.load_process(name) is not None


@given(
    record=st.sampled_from(
        [ExternalRef("b", "i", 1), WAIT, WAIT.kind, HandleDescriptor("k", "l"), ProcessFilter()]
    ),
    data=st.data(),
    value=WRONG,
)
def test_other_records(
    registry: ProcessRegistry, path: Path, record: Any, data: st.DataObject, value: object
) -> None:
    register(registry)
    spoilt = replaced(record, data.draw(fields(type(record))), value)
    for call in (
        lambda: registry.set_external_ref("p", spoilt),
        lambda: registry.set_wait("p", spoilt),
        lambda: registry.set_wait("p", msgspec.structs.replace(WAIT, kind=spoilt)),
        lambda: registry.grant_handle(Scope("s"), "p", spoilt),
        lambda: registry.list_processes(matching=spoilt),
        lambda: registry.claim_next(owner_id="o", ttl_ms=0, matching=spoilt),
    ):
        attempt(path, call)
    assert registry.load_process("p") is not None


@pytest.mark.parametrize(
    "name",
    [
        "register_process", "load_process", "clear_wait", "events_after", "recent_events",
        "wake_events_after", "request_cancel", "list_handles", "list_live_handles",
        "list_handles_on", "delete_session", "release_lease", "current_lease",
    ],
)  # fmt: skip
@given(value=WRONG)
def test_the_argument_of(registry: ProcessRegistry, path: Path, name: str, value: object) -> None:
    register(registry)
    attempt(path, lambda: getattr(registry, name)(value))


@given(a=WRONG, b=WRONG, c=WRONG)
def test_the_arguments_of_operations_with_several(
    registry: ProcessRegistry, path: Path, a: Any, b: Any, c: Any
) -> None:
    register(registry)
    fence = lease_on(registry).fence
    scope = Scope("s")
    for call in (
        lambda: registry.append_event("p", "tick", a, replay_key=b, wake_target=c),
        lambda: registry.append_event(a, b, c),
        lambda: registry.append_event("p", "tick", fence=a),
        lambda: registry.complete_process(a, b, fence=c),
        lambda: registry.request_cancel("p", reason=a),
        lambda: registry.list_processes(state=a, after=b, limit=c),
        lambda: registry.events_after("p", a, limit=b),
        lambda: registry.count_through("p", a, b),
        lambda: registry.first_event_after("p", a, b),
        lambda: registry.ack_wake("p", a),
        lambda: registry.ack_wake(a, b),
        lambda: registry.pending_wakes(after=a, limit=b),
        lambda: registry.pending_wakes(after=(a, b)),
        lambda: registry.grant_handle(a, b, c),
        lambda: registry.revoke_handle(a, b),
        lambda: registry.has_handle(a, b),
        lambda: registry.transfer_handles(scope, a, b),
        lambda: registry.transfer_handles(scope, scope, a),
        lambda: registry.list_handles(scope, after=a, limit=b),
        lambda: registry.claim_lease("p", owner_id=a, ttl_ms=b),
        lambda: registry.claim_lease(a, owner_id="o", ttl_ms=1),
        lambda: registry.claim_next(owner_id=a, ttl_ms=b, matching=c),
        lambda: registry.complete_and_claim_next(a, b, ttl_ms=1),
        lambda: registry.complete_and_claim_next(fence, b, ttl_ms=a, matching=c),
        lambda: registry.renew_lease(a, ttl_ms=b),
        lambda: registry.prune_processes(a, forgotten=b, after=c),
        lambda: registry.list_causing_occurrences(a, after=b, limit=c),
        lambda: registry.renew_lease(fence, ttl_ms=a),
        lambda: registry.wait_event_after(a, b, c, timeout_ms=0),
        lambda: registry.await_process("p", timeout_ms=a if a is not None else 0),
    ):
        attempt(path, call)
