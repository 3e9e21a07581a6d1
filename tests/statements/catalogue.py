"""Every builder of the project, with example arguments: what goldens and equivalence tests walk.

A test fails when a public builder is missing here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy.sql.elements import ClauseElement

from lash_store.process import statements as process
from lash_store.session import statements as session

Builder = Callable[..., ClauseElement]

_VALUES: Final[dict[str, Any]] = {
    "session_id": "chat-42",
    "owner_id": "worker-a",
    "token": "c0ffee",
    "fencing_token": 7,
    "now_ms": 1000,
    "expires_at_ms": 31000,
    "batch_id": "qwb:2",
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
    "count": 2,
    "max_batches": 8,
    "older_than_ms": 1000,
    "item_index": 1,
    "process_id": "p1",
    "replay_key": "again",
    "sequence": 4,
    "after_sequence": 1,
    "through_sequence": 3,
    "after_process_id": "",
    "scope_id": "session:chat-42",
    "status": "running",
    "event_type": "tick",
    "waiting": None,
    "definition": None,
    "owner_scope_id": "host",
    "created_before_ms": None,
    "cwd": None,
    "relation_json": None,
}
"""Values by argument name; text that is not here is an example of itself, times are 1000."""


def example(builder: Builder) -> dict[str, Any]:
    """Arguments for one builder."""
    return {
        name: _VALUES.get(name, 1000 if "int" in str(parameter.annotation) else f"a {name}")
        for name, parameter in inspect.signature(builder).parameters.items()
    }


EXAMPLES: Final[dict[str, tuple[Builder, dict[str, Any]]]] = {
    f"{store}.{name}": (getattr(module, name), example(getattr(module, name)))
    for store, module in (("session", session), ("process", process))
    for name in module.__all__
}
"""Builder and example by ``store.name``."""

CONDITIONS: Final = {
    "process.is_live",
    "process.is_pending_wake",
    "process.matches_filter",
    "process.targets_session",
    "session.ancestry",
    "session.carries_claim",
    "session.has_live_claim",
    "session.is_live",
}
"""Builders of a condition or CTE for a consumer's statement, which are none by themselves."""
