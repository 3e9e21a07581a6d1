"""The session execution lease, as its holder has it."""

from typing import ClassVar

from lash_store._kernel.leases import Fence, Lease, LeaseTable
from lash_store.session.tables import EXECUTION_LEASES


class SessionFence(Fence, frozen=True):
    """Proof of one term of a session execution lease; `key` is the session id.

    Passed to every operation that acts for the session; ``fence.holds(now_ms=…)`` is the SQL
    predicate for a consumer's own statements (K-LEASE-6).
    """

    leases: ClassVar[LeaseTable] = EXECUTION_LEASES

    @property
    def session_id(self) -> str:
        """The session that the term is for."""
        return self.key


class SessionLease(Lease[SessionFence], frozen=True):
    """A live term of a session execution lease, as its holder has it."""

    @property
    def session_id(self) -> str:
        """The session that may be executed under this term."""
        return self.fence.key
