"""The session execution lease."""

from typing import Final

from lash_store._kernel.leases import LeaseHeld
from lash_store._stores.leasing import Leases
from lash_store.session.context import SessionContext, Tx, Work, chosen_session
from lash_store.session.records.leases import SessionFence, SessionLease

LEASES: Final = Leases(SessionFence, SessionLease)
"""Renewing, releasing and requiring a term are the protocol's own."""


def claim_lease(
    context: SessionContext, *, owner_id: str, ttl_ms: int, session_id: str | None = None
) -> Work[SessionLease | LeaseHeld]:
    """Take the session's execution lease for `ttl_ms` milliseconds (K-LEASE-1, K-LEASE-2).

    A free, released or expired lease gives a new term: a fresh token and the next fencing
    number. The owner that is live already re-enters its term, which keeps token and number
    and ends `ttl_ms` from now (S-LEASE-1); so owner ids must be unique per executor, and
    ``unique_owner_id()`` makes one. While another owner is live, the result is a LeaseHeld
    that names it. A `ttl_ms` of 0 gives a term that has expired already (K-LEASE-7).

    Raises InvalidRecordError for an empty owner or session id or a bad `ttl_ms`.
    """
    key = chosen_session(context, session_id)
    return LEASES.claiming(context, key, owner_id=owner_id, ttl_ms=ttl_ms)


def current_lease(
    context: SessionContext, *, session_id: str | None = None
) -> Work[SessionLease | None]:
    """Return the term that is live now, or None if the session's lease is free."""
    key = chosen_session(context, session_id)

    def look(tx: Tx) -> SessionLease | None:
        return LEASES.current(tx, key)

    return look
