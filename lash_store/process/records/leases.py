"""The lease on a process, as its holder has it."""

from typing import ClassVar

import msgspec

from lash_store._kernel.leases import Fence, Lease, LeaseTable
from lash_store.process.records.processes import ProcessRecord
from lash_store.process.tables import PROCESS_LEASES


class ProcessFence(Fence, frozen=True):
    """Proof of one term of a process lease; `key` is the process id.

    Passed to ``append_event`` and ``complete_process``, which a stale worker is refused by it;
    ``fence.holds(now_ms=…)`` is the SQL predicate for a consumer's own statements (K-LEASE-6).
    """

    leases: ClassVar[LeaseTable] = PROCESS_LEASES

    @property
    def process_id(self) -> str:
        """The process that the term is for."""
        return self.key


class ProcessLease(Lease[ProcessFence], frozen=True):
    """A live term of a process lease, as its holder has it."""

    @property
    def process_id(self) -> str:
        """The process that may be run under this term."""
        return self.fence.key


class ClaimedProcess(msgspec.Struct, frozen=True):
    """What ``claim_next`` found: a process, and the term under which to run it (P-LEASE-3)."""

    lease: ProcessLease
    record: ProcessRecord

    @property
    def fence(self) -> ProcessFence:
        """What proves the term."""
        return self.lease.fence

    @property
    def expires_at_ms(self) -> int:
        """When the term is over, exclusive, milliseconds since the epoch."""
        return self.lease.expires_at_ms
