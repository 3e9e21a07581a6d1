"""The lease on a process."""

from typing import Final

from lash_store._kernel.checks import check_name
from lash_store._kernel.leases import LeaseHeld
from lash_store._kernel.locks import locked_by
from lash_store._stores.leasing import Leases
from lash_store._stores.tx import Context
from lash_store.process.context import Tx, Work
from lash_store.process.operations.processes import state_of
from lash_store.process.records.leases import ProcessFence, ProcessLease

LEASES: Final = Leases(ProcessFence, ProcessLease)
"""Renewing, releasing and requiring a term are the protocol's own."""


def claim_lease(
    context: Context, process_id: str, *, owner_id: str, ttl_ms: int
) -> Work[ProcessLease | LeaseHeld]:
    """Take the lease on a process for `ttl_ms` milliseconds (K-LEASE-1, P-LEASE-1).

    A free, released or expired lease gives a new term: a fresh token and the next fencing
    number. So does the lease of a live owner that claims again: what it was before, an
    earlier executor under the same name, is fenced off. While another owner is live, the
    result is a LeaseHeld that names it (K-LEASE-2). A process that has ended gives its lease as any other.

    Raises NotFoundError for an unknown process, and InvalidRecordError for an empty id or
    owner or a bad `ttl_ms`.
    """
    name = check_name("process_id", process_id)
    take = LEASES.claiming(context, name, owner_id=owner_id, ttl_ms=ttl_ms)

    def claim(tx: Tx) -> ProcessLease | LeaseHeld:
        state_of(tx, name)
        return take(tx)

    return locked_by(claim, name)


def current_lease(_: Context, process_id: str) -> Work[ProcessLease | None]:
    """Return the term that is live now, or None if the process's lease is free.

    Raises NotFoundError for an unknown process.
    """
    name = check_name("process_id", process_id)

    def find(tx: Tx) -> ProcessLease | None:
        term = LEASES.load_term(tx, name)
        if term is None:
            state_of(tx, name)
            return None
        return LEASES.live_lease(tx, term)

    return find
