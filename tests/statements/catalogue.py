"""Every builder of the project, with example arguments: what goldens and equivalence tests walk.

A test fails when a public builder is missing here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from sqlalchemy.sql.elements import ClauseElement

from lash_store.effect import statements as effect
from lash_store.process import statements as process
from lash_store.session import statements as session
from lash_store.statements import Prepared
from lash_store.trigger import statements as trigger

Builder = Callable[..., ClauseElement]

_VALUES: Final[dict[str, Any]] = {
    "session_id": "chat-42",
    "owner_id": "worker-a",
    "token": "c0ffee",
    "fencing_token": 7,
    "now_ms": 1000,
    "expires_at_ms": 31000,
    "batch_id": "qwb:2",
    "batch_ids": ["qwb:1", "qwb:2"],
    "passed": ["p1", "p2"],
    "claim_id": "qwc:1:1",
    "source_key": "source-1",
    "node_id": "n2",
    "leaf_node_id": "n3",
    "key": "blob-1",
    "content": b"\x00\x01",
    "turn_id": "turn-1",
    "attachment_id": "att-1",
    "artifact_ref": "env",
    "head_revision": 5,
    "after_seq": 1,
    "first_seq": 1,
    "last_seq": 3,
    "enqueue_seq": 2,
    "limit": 10,
    "up_to": 10,
    "count": 2,
    "max_batches": 8,
    "older_than_ms": 1000,
    "item_index": 1,
    "process_id": "p1",
    "process_ids": ["p1", "p2"],
    "last_occurrence_id": "trigger:f",
    "before_scope_id": "session:x",
    "replay_key": "again",
    "sequence": 4,
    "after_sequence": 0,
    "updated_before_ms": 2**60,
    "through_sequence": 3,
    "after_process_id": "",
    "scope_id": "session:chat-42",
    "status": "running",
    "event_type": "tick",
    "subscription_id": "subscription:1",
    "handle": "trigger:1",
    "source_type": "cron",
    "name": None,
    "enabled": None,
    "frames_from": "host/frame:",
    "frames_to": "host/frame;",
    "registrant_scope_id": "host",
    "after_scope_id": "",
    "after_handle": "",
    "after_occurrence_id": "",
    "after_subscription_id": "",
    "occurrence_id": "trigger:o",
    "idempotency_key": "once",
    "after_ms": 0,
    "envelope_hash": "hash",
    "due_at_ms": None,
    "outcome_json": "1",
    "error_json": None,
    "after_replay_key": "",
    "waiting": None,
    "definition": None,
    "definition_json": None,
    "owner_scope_id": "host",
    "created_before_ms": None,
    "cwd": None,
    "relation_json": None,
}
"""Values by argument name; text that is not here is an example of itself, times are 1000."""


_OF_STORE: Final[dict[str, dict[str, Any]]] = {
    "trigger": {
        "scope_id": "host",
        "source_key": "k",
        "enabled": 1,
        "process_id": None,
        "session_id": "",
    },
    "effect": {
        "scope_id": "s/t",
        "replay_key": "k",
        "status": "completed",
        "scopes_from": "s/",
        "scopes_to": "s0",
    },
}
"""Values where one store's arguments mean something else."""


_LEASED: Final = {"session": "chat-42", "process": "p1"}
"""What the leases of a store are on: the key of its lease statements."""


def example(store: str, name: str, builder: Builder) -> dict[str, Any]:
    """Arguments for one builder."""
    values = {**_VALUES, **_OF_STORE.get(store, {})}
    if name.endswith("_lease"):
        values["key"] = _LEASED[store]
    return {
        name: values.get(name, 1000 if "int" in str(parameter.annotation) else f"a {name}")
        for name, parameter in inspect.signature(builder).parameters.items()
    }


def builders(store: str, module: ModuleType) -> dict[str, Builder]:
    """Every builder that a store's package of statements hands out, by name."""
    return {
        name: value
        for name, value in sorted(vars(module).items())
        if isinstance(value, Prepared)
        or inspect.ismethod(value)  # a LeaseTable's
        or (inspect.isfunction(value) and value.__module__.startswith(f"lash_store.{store}."))
        if not name.startswith("_")
    }


STORES: Final = {"session": session, "process": process, "trigger": trigger, "effect": effect}

EXAMPLES: Final[dict[str, tuple[Builder, dict[str, Any]]]] = {
    f"{store}.{name}": (builder, example(store, name, builder))
    for store, module in STORES.items()
    for name, builder in builders(store, module).items()
}
"""Builder and example by ``store.name``."""

CONDITIONS: Final = {
    "effect.is_live_claim",
    "process.is_live",
    "process.is_pending_wake",
    "process.is_wake",
    "process.matches_filter",
    "process.targets_session",
    "trigger.is_registered_by",
    "session.ancestry",
    "session.carries_claim",
    "session.has_live_claim",
    "session.is_live",
    "session.newest_ancestry",
}
"""Builders of a condition or CTE for a consumer's statement, which are none by themselves."""
