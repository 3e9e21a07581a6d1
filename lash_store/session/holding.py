"""Holding a session, and what was claimed of its queue; see ``lash_store._stores.holding``."""

from functools import partial
from typing import Any

from lash_store._kernel.checks import check_name
from lash_store._kernel.choosing import OrderBy, Where
from lash_store._stores.holding import Held, Holding
from lash_store.errors import ClaimLostError
from lash_store.session.context import Work
from lash_store.session.operations import claims, leases
from lash_store.session.records import SessionFence, SessionLease, WorkClaim
from lash_store.session.records.queue import Boundary
from lash_store.session.statements import load_work


def _renew(context: Any, claim: WorkClaim, ttl_ms: int) -> Work[WorkClaim]:
    renew = claims.renew_claim(context, claim, ttl_ms=ttl_ms)

    def renew_or_tell(tx: Any) -> WorkClaim:
        try:
            return renew(tx)
        except ClaimLostError as lost:
            if any(load_work.one(tx.own_cursor, batch_id=each) for each in claim.batch_ids):
                raise
            # A turn has completed it, most likely its holder's: that is no loss to warn of.
            raise ClaimLostError(claim.claim_id, claim.batch_ids, lost.found, "completed") from lost

    return renew_or_tell


def _abandon(context: Any, claim: WorkClaim) -> Work[int]:
    return claims.abandon_claim(context, claim)


class SessionHolding:
    """What a session store and its asyncio facade have in common of it."""

    def hold(
        self, *, owner_id: str, ttl_ms: int, session_id: str | None = None, timeout_ms: int = 0
    ) -> Holding[Held[SessionLease]]:
        """Hold the session's lease in a block, ``with`` or ``async with`` (K-HOLD-1 to K-HOLD-4).

        Claimed when the block is entered, renewed every third of `ttl_ms`, released when it is left.
        While somebody else holds it, waits for `timeout_ms`, and then raises LeaseHeldError.
        """
        store: Any = self
        key = store.session_id if session_id is None else check_name("session_id", session_id)
        return leases.LEASES.hold(
            store, key, owner_id=owner_id, ttl_ms=ttl_ms, timeout_ms=timeout_ms
        )

    def hold_work(
        self,
        fence: SessionFence,
        *,
        owner_id: str,
        ttl_ms: int,
        max_batches: int = 1,
        boundary: Boundary = "idle",
        where: Where | None = None,
        order_by: OrderBy | None = None,
    ) -> Holding[Held[WorkClaim] | None]:
        """Hold what ``claim_work`` takes, in a block, which gets None if it takes nothing.

        The claim is renewed in time, and given back when the block is left, unless a turn's commit has
        completed it. ``held.term`` is the claim.
        """
        return Holding(
            self,  # type: ignore[arg-type] # reason: a session store, or its asyncio facade
            operations=("claim_work", "renew_claim", "abandon_claim"),
            claiming=partial(
                claims.claim_work,
                fence=fence,
                owner_id=owner_id,
                ttl_ms=ttl_ms,
                max_batches=max_batches,
                boundary=boundary,
                where=where,
                order_by=order_by,
            ),
            renewing=_renew,
            releasing=_abandon,
            ends_ms=lambda _: None,
            lost_error=lambda claim, _: ClaimLostError(claim.claim_id, claim.batch_ids, ()),
            ttl_ms=ttl_ms,
        )
