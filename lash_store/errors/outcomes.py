"""Refusals: what the state of a store, or an argument, does not allow."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, Protocol

from lash_store.errors.root import LashStoreError

if TYPE_CHECKING:
    from lash_store._kernel.leases import LeaseHeld

LeaseLostReason = Literal["expired", "superseded", "released", "never_claimed"]
"""Why a term of ownership no longer holds (K-LEASE-5)."""


class Owned(Protocol):
    """What somebody claimed, and by what token: a ``Fence``, or the ``EffectClaim`` of a step."""

    @property
    def key(self) -> str:
        """What was claimed."""

    @property
    def owner_id(self) -> str:
        """By whom."""

    @property
    def token(self) -> str:
        """The secret that proves it."""


class LeaseLostError(LashStoreError):
    """The caller acted on a term of ownership that is over; nothing was changed (K-LEASE-5).

    `expected` is what the caller held, a ``Fence`` or an ``EffectClaim``; `actual` the row as it
    stands, a ``LeaseTerm`` or an ``EffectTerm``, or None if there is none.
    """

    def __init__(self, expected: Owned, actual: object | None, reason: LeaseLostReason) -> None:
        super().__init__(expected, actual, reason)
        self.expected = expected
        self.actual = actual
        self.reason = reason

    def __str__(self) -> str:
        if self.actual is not None:
            found = f"found {self.actual}"
        elif self.reason == "never_claimed":
            found = "no term was ever claimed"
        elif self.reason == "released":
            found = "whose block was left"
        else:
            found = "by the clocks of this process, which has not read its row again"
        return f"the lease on {self.expected.key!r} is lost ({self.reason}): expected {self.expected}, {found}"


class CollectionWarning(UserWarning):
    """A turn was committed, and the garbage collection that ``collect_every`` asks for failed."""


class SessionBindingError(LashStoreError):
    """The database belongs to another session; nothing was changed (S-COMMIT-1)."""

    def __init__(self, bound: str, attempted: str) -> None:
        super().__init__(bound, attempted)
        self.bound = bound
        self.attempted = attempted

    def __str__(self) -> str:
        return f"the database belongs to session {self.bound!r}, not to {self.attempted!r}"


class TurnConflictError(LashStoreError):
    """The turn was committed with other content, or is another session's (S-COMMIT-2)."""

    def __init__(self, session_id: str, turn_id: str) -> None:
        super().__init__(session_id, turn_id)
        self.session_id = session_id
        self.turn_id = turn_id

    def __str__(self) -> str:
        return (
            f"turn {self.turn_id!r} of session {self.session_id!r} was committed with another "
            "hash, or does not belong here; nothing was changed"
        )


class RevisionConflictError(LashStoreError):
    """The head is not at the revision that the caller expected (S-COMMIT-4)."""

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(expected, actual)
        self.expected = expected
        self.actual = actual

    def __str__(self) -> str:
        return f"the head is at revision {self.actual}, not at {self.expected}"


class LeaseHeldError(LashStoreError):
    """A term that was to be held is somebody else's, and was for as long as could be waited (K-HOLD-1).

    `held` is a ``LeaseHeld``: who has it, and until when at least. Nothing was changed.
    """

    def __init__(self, held: "LeaseHeld") -> None:
        super().__init__(held)
        self.held = held

    def __str__(self) -> str:
        return (
            f"{self.held.key!r} is held by {self.held.owner_id!r} until {self.held.expires_at_ms}, "
            f"as term {self.held.fencing_token}"
        )


_CLAIM_REASONS: Final = {
    None: "",
    "completed": "; they are completed",
    "named twice": "; it is named twice in this commit",
    "of another session": "; it is another session's",
}


class ClaimLostError(LashStoreError):
    """A claim does not stand on exactly its batches any more; nothing was changed (S-QUEUE-6).

    The `reason` of a held claim is "completed" if none of its batches is in the queue any more; of one that a
    turn completes it may be that it, or a batch of it, is named twice there, or that it is another session's.
    """

    def __init__(
        self,
        claim_id: str,
        expected: Sequence[str],
        found: Sequence[str],
        reason: Literal["completed", "named twice", "of another session"] | None = None,
    ) -> None:
        super().__init__(claim_id, tuple(expected), tuple(found), reason)
        self.claim_id = claim_id
        self.expected = tuple(expected)
        self.found = tuple(found)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"the claim {self.claim_id!r} is lost: it should stand on {list(self.expected)}, "
            f"and stands on {list(self.found)}{_CLAIM_REASONS[self.reason]}"
        )


class NodeConflictError(LashStoreError):
    """A node's id is in the graph already, tombstoned or not; nothing was written (S-COMMIT-6)."""

    def __init__(self, node_id: str) -> None:
        super().__init__(node_id)
        self.node_id = node_id

    def __str__(self) -> str:
        return f"the graph has a node {self.node_id!r} already, one that is hidden, it may be"


class NotFoundError(LashStoreError):
    """What the operation is about is not in the store; nothing was changed."""

    def __init__(self, what: str, key: str) -> None:
        super().__init__(what, key)
        self.what = what
        self.key = key

    def __str__(self) -> str:
        return f"there is no {self.what} {self.key!r}"


class IdempotencyConflictError(LashStoreError):
    """The key was used before, with other content; nothing was changed.

    `expected` is the stored hash, `found` the hash of what was passed in.
    """

    def __init__(self, what: str, key: str, expected: str, found: str) -> None:
        super().__init__(what, key, expected, found)
        self.what = what
        self.key = key
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return (
            f"the {self.what} {self.key!r} is there with other content: its hash is "
            f"{self.expected}, and that of the new one {self.found}"
        )


class ProcessEndedError(LashStoreError):
    """The process has ended already, in another way than it was to end; nothing was changed."""

    def __init__(self, process_id: str, state: str) -> None:
        super().__init__(process_id, state)
        self.process_id = process_id
        self.state = state

    def __str__(self) -> str:
        return f"the process {self.process_id!r} has ended already: it is {self.state}"


class EffectFailedError(LashStoreError):
    """A step failed for good: raised when it is recorded, and by every replay (E-FIN-2).

    A function that is run as a step raises it to say so: with `code` and `message` alone. `key`
    names the step once it is recorded.
    """

    def __init__(self, code: str, message: str, key: str = "") -> None:
        super().__init__(code, message, key)
        self.code = code
        self.message = message
        self.key = key

    def __str__(self) -> str:
        step = f"the effect {self.key!r}" if self.key else "an effect"
        return f"{step} failed for good: {self.message} ({self.code})"


class InvalidRecordError(LashStoreError, ValueError):
    """Bad input, refused before anything was written: names the field and the value."""

    def __init__(self, field: str, value: str, problem: str) -> None:
        super().__init__(field, value, problem)
        self.field = field
        self.value = value
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field} = {self.value}: {self.problem}"
