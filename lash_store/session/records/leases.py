"""The session execution lease, as its holder has it."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from lash_store._kernel.leases import Fence, LeaseTable
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


class SessionLease(msgspec.Struct, frozen=True):
    """A live term of a session execution lease, as its holder has it.

    `fence` proves it; it holds until `expires_at_ms` (exclusive, milliseconds since the epoch).
    """

    fence: SessionFence
    claimed_at_ms: int
    expires_at_ms: int

    @property
    def session_id(self) -> str:
        """The session that may be executed under this term."""
        return self.fence.key

    @property
    def owner_id(self) -> str:
        """The holder's name for itself."""
        return self.fence.owner_id

    @property
    def fencing_token(self) -> int:
        """The number of the term: 1 for the first, and every later term's is higher."""
        return self.fence.fencing_token
