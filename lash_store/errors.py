"""Every error that lash_store raises.

::

    LashStoreError
    ├── StoreOpenError            a path or file that can't be opened as a store
    │   └── StoreEmptyError           a file without a store in it, opened for reading
    ├── StoreClosedError          use after close()
    ├── ReadOnlyStoreError        a write through a reader
    ├── StoreBusyError            the write lock was not free within the busy budget; try again
    ├── SchemaVersionError        the file is of another kind, release or program
    ├── SchemaDriftError          the right version, but our tables are not as declared
    ├── TransactionError          a transaction used against its rules
    │   ├── TransactionEndedError     a Tx used after its transaction has ended
    │   ├── TransactionControlError   an attempt to end a transaction that the store owns
    │   ├── NestedTransactionError    a transaction inside another of the same store and thread
    │   └── NotConfiguredError        Tx.on() with a connection that configure() did not prepare
    ├── LeaseLostError            acting on a term of ownership that is over
    ├── SessionBindingError       a database that belongs to another session
    ├── TurnConflictError         a turn id that was committed with other content
    ├── RevisionConflictError     a head that has moved on
    ├── ClaimLostError            acting on claimed work that somebody else has taken
    ├── NodeConflictError         a node id that the graph has already
    ├── NotFoundError             a process, subscription or the like that is not there
    ├── IdempotencyConflictError  the same key again, with other content
    ├── ProcessEndedError         an end, or a wait, for a process that has ended
    ├── EffectFailedError         a step that failed for good, now or when it was recorded
    ├── InvalidRecordError        bad input, refused before anything is written (a ValueError)
    ├── CorruptRecordError        a stored row that can't be read as what it should be
    ├── StorageError              SQLite reported I/O trouble, a full disk or corruption
    └── UnpreparableStatementError    a construct that has no fixed SQL text (a TypeError)

A lost race is a value (``LeaseHeld``); acting after it is lost is an error. Every error
pickles, keeps what it knows as attributes, and chains the driver's exception as its cause.
Tokens are secrets: messages show their first characters only.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

LeaseLostReason = Literal["expired", "superseded", "released", "never_claimed"]
"""Why a term of ownership no longer holds (K-LEASE-5)."""


class LashStoreError(Exception):
    """The root of every error that this library raises."""


class StoreOpenError(LashStoreError):
    """A store could not be opened; the message names the path and the cause (K-OPEN-4)."""

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path = path
        self.cause = cause

    def __str__(self) -> str:
        return f"cannot open {self.path!r}: {self.cause}"


class StoreEmptyError(StoreOpenError):
    """A reader was to be opened on a file that nobody has made a store of yet (K-OPEN-2)."""


class StoreClosedError(LashStoreError):
    """The store was used after ``close()`` (K-OPEN-5)."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"the store {self.path!r} is closed"


class ReadOnlyStoreError(LashStoreError):
    """A write through a read-only store or inside ``read()`` (K-OPEN-2)."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path!r} can only be read here: write inside begin(), on a store opened for writing"


class StoreBusyError(LashStoreError):
    """The lock was not free within the busy budget; nothing happened, so try again (K-TX-3)."""

    def __init__(self, path: str, waited_ms: int) -> None:
        super().__init__(path, waited_ms)
        self.path = path
        self.waited_ms = waited_ms

    def __str__(self) -> str:
        return (
            f"{self.path!r} is busy: waited {self.waited_ms} ms for its lock; trying again is safe"
        )


class SchemaVersionError(LashStoreError):
    """The file does not carry the schema version of this kind of store (K-GUARD-1)."""

    def __init__(self, kind: str, expected: int, found: int, path: str) -> None:
        super().__init__(kind, expected, found, path)
        self.kind = kind
        self.expected = expected
        self.found = found
        self.path = path

    def __str__(self) -> str:
        found = f"version {self.found}" if self.found else "tables without a version"
        return (
            f"{self.path!r} is no {self.kind} store of this release: expected version "
            f"{self.expected}, found {found}. There is no migration chain: "
            "open it with the release or program that made it"
        )


class SchemaDriftError(LashStoreError):
    """The version is right, but tables or indexes of ours are not as declared (K-GUARD-4)."""

    def __init__(self, kind: str, path: str, differences: Sequence[str]) -> None:
        super().__init__(kind, path, tuple(differences))
        self.kind = kind
        self.path = path
        self.differences = tuple(differences)

    def __str__(self) -> str:
        listed = "".join(f"\n  {difference}" for difference in self.differences)
        return f"{self.path!r} has drifted from the {self.kind} schema:{listed}"


class TransactionError(LashStoreError):
    """A transaction was used against its rules; the message says which."""


class TransactionEndedError(TransactionError):
    """A Tx was used after its transaction had ended, or in a forked child (K-TX-8)."""


class TransactionControlError(TransactionError):
    """Only the store ends its own transaction; the attempt changed nothing (K-TX-7)."""


class NestedTransactionError(TransactionError):
    """A transaction was opened inside another one of the same store on the same thread."""


class NotConfiguredError(TransactionError):
    """The engine or connection is not one that ``configure()`` has prepared (K-TX-8)."""


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
        else:
            found = "and the row could not be read in time"
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


class ClaimLostError(LashStoreError):
    """A claim does not stand on exactly its batches any more; nothing was changed (S-QUEUE-6)."""

    def __init__(self, claim_id: str, expected: Sequence[str], found: Sequence[str]) -> None:
        super().__init__(claim_id, tuple(expected), tuple(found))
        self.claim_id = claim_id
        self.expected = tuple(expected)
        self.found = tuple(found)

    def __str__(self) -> str:
        return (
            f"the claim {self.claim_id!r} is lost: it should stand on {list(self.expected)}, "
            f"and stands on {list(self.found)}"
        )


class NodeConflictError(LashStoreError):
    """A node's id is in the graph already, tombstoned or not; nothing was written (S-COMMIT-6)."""

    def __init__(self, node_id: str) -> None:
        super().__init__(node_id)
        self.node_id = node_id

    def __str__(self) -> str:
        return f"the graph has a node {self.node_id!r} already, and an id is never used again"


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


class CorruptRecordError(LashStoreError):
    """A stored row can't be read as what it should be: names table, key and cause (K-CODEC-2)."""

    def __init__(self, table: str, key: str, cause: str) -> None:
        super().__init__(table, key, cause)
        self.table = table
        self.key = key
        self.cause = cause

    def __str__(self) -> str:
        return f"corrupt row in {self.table}, key {self.key!r}: {self.cause}"


class StorageError(LashStoreError):
    """SQLite reported I/O trouble, a full disk, corruption or another failure of the file."""

    def __init__(self, path: str, code: str, cause: str) -> None:
        super().__init__(path, code, cause)
        self.path = path
        self.code = code
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.path!r}: {self.cause} ({self.code})"


class UnpreparableStatementError(LashStoreError, TypeError):
    """A construct whose SQL text or parameters are not fixed, so it can't be compiled once."""
