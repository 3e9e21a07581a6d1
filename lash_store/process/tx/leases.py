"""The lease on a process, on an open transaction."""

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
from lash_store.errors import LeaseLostError
from lash_store.process import statements
from lash_store.process.records.leases import ClaimedProcess, ProcessFence, ProcessLease
from lash_store.process.records.processes import ProcessFilter, read_record
from lash_store.process.tables import PROCESS_LEASES
from lash_store.process.tx.processes import RecordOperations, filter_arguments

_claim_lease = prepare(statements.claim_lease)
_current_lease = prepare(statements.current_lease)
_next_claimable = prepare(statements.next_claimable)
_release_lease = prepare(statements.release_lease)
_renew_lease = prepare(statements.renew_lease)


class LeaseOperations(RecordOperations):
    """Operations on the lease of a process."""

    __slots__ = ()

    def claim_lease(
        self, process_id: str, *, owner_id: str, ttl_ms: int
    ) -> ProcessLease | LeaseHeld:
        """Take the lease on a process for `ttl_ms` milliseconds (K-LEASE-1, P-LEASE-1).

        A free, released or expired lease gives a new term: a fresh token and the next fencing
        number. So does the lease of a live owner that claims again: what it was before, an
        earlier executor under the same name, is fenced off. While another owner is live, the
        result is a LeaseHeld that names it (K-LEASE-2).

        Raises NotFoundError for an unknown process, and InvalidRecordError for an empty id or
        owner or a bad `ttl_ms`.
        """
        check_name("process_id", process_id)
        check_name("owner_id", owner_id)
        expires_at_ms = end_of_term(self.now_ms, ttl_ms)
        self.require_process(process_id)
        row = _claim_lease.one(
            self.cursor,
            process_id=process_id,
            owner_id=owner_id,
            token=new_token(self.context.ids),
            now_ms=self.now_ms,
            expires_at_ms=expires_at_ms,
        )
        if row is None:
            return held_by_another(PROCESS_LEASES, self._term(process_id))
        return _lease(read_term(PROCESS_LEASES, row))

    def claim_next(
        self, *, owner_id: str, ttl_ms: int, matching: ProcessFilter | None = None
    ) -> ClaimedProcess | None:
        """Claim the oldest running process without a live lease (P-LEASE-3).

        The recovery sweep of a worker: None if there is no such process, or none that
        `matching` lets through. Raises InvalidRecordError for an empty owner, a bad `ttl_ms` or
        a bad filter.
        """
        check_name("owner_id", owner_id)
        end_of_term(self.now_ms, ttl_ms)
        found = _next_claimable.one(self.cursor, now_ms=self.now_ms, **filter_arguments(matching))
        if found is None:
            return None
        process_id, record_json = found
        record = read_record(process_id, record_json)  # first: nobody can run what can't be read
        lease = self.claim_lease(process_id, owner_id=owner_id, ttl_ms=ttl_ms)
        assert isinstance(lease, ProcessLease)  # it was free, and this transaction writes alone
        return ClaimedProcess(lease, record)

    def renew_lease(self, fence: ProcessFence, *, ttl_ms: int) -> ProcessLease:
        """Move the end of the live term to `ttl_ms` milliseconds from now (K-LEASE-3, P-LEASE-2).

        Token, fencing number and claimed-at stay. Raises LeaseLostError, and changes nothing,
        unless `fence` is the live term in all four values: an expired term can't be renewed,
        even if nobody has taken over.
        """
        check_fence(fence, ProcessFence)
        row = _renew_lease.one(
            self.cursor,
            process_id=fence.key,
            owner_id=fence.owner_id,
            token=fence.token,
            fencing_token=fence.fencing_token,
            now_ms=self.now_ms,
            expires_at_ms=end_of_term(self.now_ms, ttl_ms),
        )
        if row is None:
            raise self._lost(fence)
        term = read_term(PROCESS_LEASES, row)
        return ProcessLease(fence, term.claimed_at_ms, term.expires_at_ms)

    def release_lease(self, fence: ProcessFence) -> bool:
        """End the term of `fence` and keep its fencing number (K-LEASE-4, P-LEASE-2).

        True if this call ended it, live or expired. False, with nothing changed, if it was
        released before or somebody else has taken over: a release may safely come twice or late.
        """
        check_fence(fence, ProcessFence)
        released = _release_lease.run(
            self.cursor,
            process_id=fence.key,
            owner_id=fence.owner_id,
            token=fence.token,
            fencing_token=fence.fencing_token,
        )
        return released == 1

    def current_lease(self, process_id: str) -> ProcessLease | None:
        """Return the term that is live now, or None if the process's lease is free.

        Raises NotFoundError for an unknown process.
        """
        term = self._term(check_name("process_id", process_id))
        if term is None:
            self.require_process(process_id)
        if term is None or term.token is None or term.expires_at_ms <= self.now_ms:
            return None
        return _lease(term)

    def require(self, fence: ProcessFence) -> None:
        """Raise LeaseLostError unless `fence` is live in this transaction (K-LEASE-6).

        In a write transaction the answer holds until its end: nobody else can write meanwhile.
        """
        check_fence(fence, ProcessFence)
        term = self._term(fence.key)
        if term is None or not is_live_term(term, fence, now_ms=self.now_ms):
            raise LeaseLostError(fence, term, lost_reason(fence, term))

    def require_not_superseded(self, fence: ProcessFence) -> None:
        """Raise LeaseLostError if somebody else was given a term after that of `fence`.

        What a fence must satisfy to see a result again that it may have brought about itself:
        the term of who did the work once, and released it with that, is over without any harm.
        """
        check_fence(fence, ProcessFence)
        term = self._term(fence.key)
        reason = lost_reason(fence, term)
        if reason in ("superseded", "never_claimed"):
            raise LeaseLostError(fence, term, reason)

    def _term(self, process_id: str) -> LeaseTerm | None:
        row = _current_lease.one(self.cursor, process_id=process_id)
        return None if row is None else read_term(PROCESS_LEASES, row)

    def _lost(self, fence: ProcessFence) -> LeaseLostError:
        term = self._term(fence.key)
        return LeaseLostError(fence, term, lost_reason(fence, term))


def _lease(term: LeaseTerm) -> ProcessLease:
    fence = fence_of(ProcessFence, term)
    return ProcessLease(fence, term.claimed_at_ms, term.expires_at_ms)
