"""Every builder of the project, with example arguments: what goldens and equivalence tests walk.

A test fails when a public builder is missing here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy.sql.elements import ClauseElement

from lash_store.session import statements as session

Builder = Callable[..., ClauseElement]

TERM: Final[dict[str, Any]] = {
    "session_id": "chat-42",
    "owner_id": "worker-a",
    "token": "c0ffee",
    "fencing_token": 7,
}

EXAMPLES: Final[dict[str, tuple[Builder, dict[str, Any]]]] = {
    "session.select_leases": (session.select_leases, {}),
    "session.is_live": (session.is_live, {"now_ms": 1000}),
    "session.current_lease": (session.current_lease, {"session_id": "chat-42"}),
    "session.claim_lease": (
        session.claim_lease,
        {
            "session_id": "chat-42",
            "owner_id": "worker-a",
            "token": "c0ffee",
            "now_ms": 1000,
            "expires_at_ms": 31000,
        },
    ),
    "session.renew_lease": (session.renew_lease, {**TERM, "now_ms": 1000, "expires_at_ms": 31000}),
    "session.release_lease": (session.release_lease, TERM),
}
"""Builder and example by ``store.name``."""

CONDITIONS: Final = {"session.is_live"}
"""Builders of a condition for a consumer's WHERE, which is no statement by itself."""
