"""Short ways to build what process tests register and append."""

from __future__ import annotations

from typing import Any

from lash_store import (
    External,
    Host,
    ProcessLease,
    ProcessRegistration,
    ProcessRegistry,
    Provenance,
    Scope,
)
from lash_store.process.records import (
    EventIdentity,
    EventType,
    Payload,
    PayloadSchema,
    Pointer,
    ProcessRecord,
    Semantics,
    WakeRule,
)

TARGET = Scope("chat-42")

TICK = EventType("tick")
WAKE = EventType("wake", semantics=Semantics(wake=WakeRule(Payload(), EventIdentity())))
STRICT = EventType(
    "strict",
    PayloadSchema({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}),
    Semantics(wake=WakeRule(Pointer("/text"), EventIdentity(), when=Pointer("/n"))),
)


def registration(process_id: str = "p", **parts: Any) -> ProcessRegistration:
    given: dict[str, Any] = {
        "input": External({"title": "a job"}),
        "provenance": Provenance(Host()),
        "event_types": [TICK, WAKE, STRICT],
        "wake_target": TARGET,
        **parts,
    }
    return ProcessRegistration(process_id, **given)


def register(registry: ProcessRegistry, process_id: str = "p", **parts: Any) -> ProcessRecord:
    return registry.register_process(registration(process_id, **parts))


def lease_on(
    registry: ProcessRegistry, process_id: str = "p", owner_id: str = "ann", ttl_ms: int = 1_000
) -> ProcessLease:
    lease = registry.claim_lease(process_id, owner_id=owner_id, ttl_ms=ttl_ms)
    assert isinstance(lease, ProcessLease)
    return lease
