"""Holding a process; see ``lash_store._stores.holding``."""

from functools import partial
from typing import Any

import msgspec

from lash_store._kernel.choosing import OrderBy, Where
from lash_store._kernel.locks import locked_as
from lash_store._stores.holding import Held, Holding
from lash_store._stores.tx import Context
from lash_store.errors import LeaseLostError
from lash_store.process.context import Work
from lash_store.process.operations import claims, leases
from lash_store.process.records import ClaimedProcess, ProcessLease
from lash_store.process.records.processes import ProcessFilter


class ProcessHolding:
    """What a process registry and its asyncio facade have in common of it."""

    def hold(
        self, process_id: str, *, owner_id: str, ttl_ms: int, timeout_ms: int = 0
    ) -> Holding[Held[ProcessLease]]:
        """Hold the lease on a process in a block, ``with`` or ``async with`` (K-HOLD-1 to K-HOLD-4).

        Claimed when the block is entered, renewed every third of `ttl_ms`, released when it is left.
        While somebody else holds it, waits for `timeout_ms`, and then raises LeaseHeldError. A process that
        has ended can be held too: who has waited for another worker looks whether there is anything left to do.
        """
        store: Any = self
        return leases.LEASES.holding(
            store,
            process_id,
            owner_id=owner_id,
            ttl_ms=ttl_ms,
            timeout_ms=timeout_ms,
            claiming=partial(
                leases.claim_lease, process_id=process_id, owner_id=owner_id, ttl_ms=ttl_ms
            ),
        )

    def hold_next(
        self,
        *,
        owner_id: str,
        ttl_ms: int,
        matching: ProcessFilter | None = None,
        where: Where | None = None,
        order_by: OrderBy | None = None,
    ) -> Holding[Held[ClaimedProcess] | None]:
        """Hold the process that ``claim_next`` takes, in a block, which gets None if there is none.

        ``held.term.record`` is the process, ``held.fence`` what proves the term.
        """

        def renew(context: Context, claimed: ClaimedProcess, ttl_ms: int) -> Work[ClaimedProcess]:
            renewed = leases.LEASES.renewing(context, claimed.lease.fence, ttl_ms=ttl_ms)
            return locked_as(
                lambda tx: msgspec.structs.replace(claimed, lease=renewed(tx)), renewed
            )

        return Holding(
            self,  # type: ignore[arg-type] # reason: a registry, or its asyncio facade
            operations=("claim_next", "renew_lease", "release_lease"),
            claiming=partial(
                claims.claim_next,
                owner_id=owner_id,
                ttl_ms=ttl_ms,
                matching=matching,
                where=where,
                order_by=order_by,
            ),
            renewing=renew,
            releasing=lambda context, claimed: leases.LEASES.releasing(
                context, claimed.lease.fence
            ),
            ends_ms=lambda _: None,
            lost_error=lambda claimed, why: LeaseLostError(claimed.lease.fence, None, why),
            ttl_ms=ttl_ms,
        )
