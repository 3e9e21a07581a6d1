"""The session execution lease, on an open transaction."""

from __future__ import annotations

from lash_store._kernel.checks import check_name, end_of_term
from lash_store._kernel.leases import LeaseHeld, LeaseTerm
from lash_store._kernel.prepared import prepare
from lash_store._kernel.terms import (
    check_fence,
    fence_of,
    held_by_another,
    is_live_term,
    lost_reason,
    new_token,
    read_term,
)
from lash_store._kernel.tx import Tx
from lash_store.errors import LeaseLostError
from lash_store.session import statements
from lash_store.session.records import SessionFence, SessionLease
from lash_store.session.tables import EXECUTION_LEASES

_claim_lease = prepare(statements.claim_lease)
_current_lease = prepare(statements.current_lease)
_release_lease = prepare(statements.release_lease)
_renew_lease = prepare(statements.renew_lease)


class LeaseOperations(Tx):
    """Operations on the session execution lease."""

    __slots__ = ()

    def claim_lease(
        self, *, owner_id: str, ttl_ms: int, session_id: str | None = None
    ) -> SessionLease | LeaseHeld:
        """Take the session's execution lease for `ttl_ms` milliseconds (K-LEASE-1, K-LEASE-2).

        A free, released or expired lease gives a new term: a fresh token and the next fencing
        number. The owner that is live already re-enters its term, which keeps token and number
        and ends `ttl_ms` from now (S-LEASE-1); so owner ids must be unique per executor, and
        ``unique_owner_id()`` makes one. While another owner is live, the result is a LeaseHeld
        that names it. A `ttl_ms` of 0 gives a term that has expired already (K-LEASE-7).

        Raises InvalidRecordError for an empty owner or session id or a bad `ttl_ms`.
        """
        key = self._session(session_id)
        row = _claim_lease.one(
            self.cursor,
            session_id=key,
            owner_id=check_name("owner_id", owner_id),
            token=new_token(self.context.ids),
            now_ms=self.now_ms,
            expires_at_ms=end_of_term(self.now_ms, ttl_ms),
        )
        if row is None:
            return held_by_another(EXECUTION_LEASES, self._term(key))
        return _lease(read_term(EXECUTION_LEASES, row))

    def renew_lease(self, fence: SessionFence, *, ttl_ms: int) -> SessionLease:
        """Move the end of the live term to `ttl_ms` milliseconds from now (K-LEASE-3).

        Token, fencing number and claimed-at stay. Raises LeaseLostError, and changes nothing,
        unless `fence` is the live term in all four values: an expired term can't be renewed,
        even if nobody has taken over.
        """
        check_fence(fence, SessionFence)
        row = _renew_lease.one(
            self.cursor,
            session_id=fence.key,
            owner_id=fence.owner_id,
            token=fence.token,
            fencing_token=fence.fencing_token,
            now_ms=self.now_ms,
            expires_at_ms=end_of_term(self.now_ms, ttl_ms),
        )
        if row is None:
            raise self._lost(fence)
        term = read_term(EXECUTION_LEASES, row)
        return SessionLease(fence, term.claimed_at_ms, term.expires_at_ms)

    def release_lease(self, fence: SessionFence) -> bool:
        """End the term of `fence` and keep its fencing number (K-LEASE-4).

        True if this call ended it, live or expired. False, with nothing changed, if it was
        released before or somebody else has taken over: a release may safely come twice or late.
        """
        check_fence(fence, SessionFence)
        released = _release_lease.run(
            self.cursor,
            session_id=fence.key,
            owner_id=fence.owner_id,
            token=fence.token,
            fencing_token=fence.fencing_token,
        )
        return released == 1

    def current_lease(self, *, session_id: str | None = None) -> SessionLease | None:
        """Return the term that is live now, or None if the session's lease is free."""
        term = self._term(self._session(session_id))
        if term is None or term.token is None or term.expires_at_ms <= self.now_ms:
            return None
        return _lease(term)

    def require(self, fence: SessionFence) -> None:
        """Raise LeaseLostError unless `fence` is live in this transaction (K-LEASE-6).

        In a write transaction the answer holds until its end: nobody else can write meanwhile.
        """
        check_fence(fence, SessionFence)
        term = self._term(fence.key)
        if term is None or not is_live_term(term, fence, now_ms=self.now_ms):
            raise LeaseLostError(fence, term, lost_reason(fence, term))

    def _session(self, session_id: str | None) -> str:
        return (
            self.context.session_id if session_id is None else check_name("session_id", session_id)
        )

    def _term(self, session_id: str) -> LeaseTerm | None:
        row = _current_lease.one(self.cursor, session_id=session_id)
        return None if row is None else read_term(EXECUTION_LEASES, row)

    def _lost(self, fence: SessionFence) -> LeaseLostError:
        term = self._term(fence.key)
        return LeaseLostError(fence, term, lost_reason(fence, term))


def _lease(term: LeaseTerm) -> SessionLease:
    fence = fence_of(SessionFence, term)
    return SessionLease(fence, term.claimed_at_ms, term.expires_at_ms)
