"""Every error that lash_store raises.

::

    LashStoreError
    ├── StoreOpenError            a path or file that can't be opened as a store
    │   ├── StoreEmptyError           a file without a store in it, opened for reading
    │   ├── ForeignDatabaseError      another program's database, which was not to be adopted
    │   └── NamesTakenError           tables of ours whose names something else has
    ├── StoreClosedError          use after close()
    ├── StoreLostError            the file was removed, replaced or moved while it was open
    ├── ReadOnlyStoreError        a write through a reader
    ├── StoreBusyError            the write lock was not free within the busy budget; try again
    │   └── DeadlockError             two transactions of a server that waited for each other; try again
    ├── SchemaVersionError        the file is of another kind, release or program
    ├── SchemaDriftError          the right version, but our tables are not as declared
    ├── CopyError                 something of a deployment that could not be copied
    ├── TransactionError          a transaction used against its rules
    │   ├── TransactionEndedError     a Tx used after its transaction has ended
    │   ├── TransactionControlError   an attempt to end a transaction that the store owns
    │   ├── ThreadError               a Tx, or its connection, used in a second thread
    │   ├── NestedTransactionError    a transaction inside another of the same store and thread
    │   ├── MissingTableError         a statement on a table of another kind of store
    │   ├── ScopeError                a statement that says not whose session it is about
    │   └── NotConfiguredError        Tx.on() with a connection that configure() did not prepare
    ├── LeaseHeldError            a term that was to be held, and is somebody else's
    ├── LeaseLostError            acting on a term of ownership that is over
    ├── SessionBindingError       a database that belongs to another session
    ├── TurnConflictError         a turn id that was committed with other content
    ├── RevisionConflictError     a head that has moved on
    ├── ClaimLostError            acting on claimed work that somebody else has taken
    ├── NodeConflictError         a node id that the graph has already
    ├── NotFoundError             a process, subscription or the like that is not there
    ├── IdempotencyConflictError  the same key again, with other content
    ├── ProcessEndedError         an end, or a `set_wait`, of a process that has ended
    ├── EffectFailedError         a step that failed for good, now or when it was recorded
    ├── InvalidRecordError        bad input, refused before anything is written (a ValueError)
    ├── CorruptRecordError        a stored row that can't be read as what it should be
    ├── StorageError              the database reported I/O trouble or corruption
    │   ├── DiskFullError             there is no room; nothing was kept
    │   ├── ConnectionLostError       the connection to a server was lost; nothing was kept
    │   └── OutcomeUnknownError       it was lost at COMMIT: committed, or not
    ├── CoroutineError            an asynchronous function, where a plain one belongs (a TypeError)
    └── UnpreparableStatementError    a construct that has no fixed SQL text (a TypeError)

A lost race is a value (``LeaseHeld``); acting after it is lost is an error. Every error
pickles, keeps what it knows as attributes, and chains the driver's exception as its cause.
Tokens are secrets: messages show their first characters only.
"""

from lash_store.errors.outcomes import (
    ClaimLostError as ClaimLostError,
    CollectionWarning as CollectionWarning,
    EffectFailedError as EffectFailedError,
    IdempotencyConflictError as IdempotencyConflictError,
    InvalidRecordError as InvalidRecordError,
    LeaseHeldError as LeaseHeldError,
    LeaseLostError as LeaseLostError,
    LeaseLostReason as LeaseLostReason,
    NodeConflictError as NodeConflictError,
    NotFoundError as NotFoundError,
    Owned as Owned,
    ProcessEndedError as ProcessEndedError,
    RevisionConflictError as RevisionConflictError,
    SessionBindingError as SessionBindingError,
    TurnConflictError as TurnConflictError,
)
from lash_store.errors.root import (
    LashStoreError as LashStoreError,
)
from lash_store.errors.stores import (
    ConnectionLostError as ConnectionLostError,
    CopyError as CopyError,
    CorruptRecordError as CorruptRecordError,
    DeadlockError as DeadlockError,
    DiskFullError as DiskFullError,
    ForeignDatabaseError as ForeignDatabaseError,
    NamesTakenError as NamesTakenError,
    OutcomeUnknownError as OutcomeUnknownError,
    ReadOnlyStoreError as ReadOnlyStoreError,
    SchemaDriftError as SchemaDriftError,
    SchemaVersionError as SchemaVersionError,
    StorageError as StorageError,
    StoreBusyError as StoreBusyError,
    StoreClosedError as StoreClosedError,
    StoreEmptyError as StoreEmptyError,
    StoreLostError as StoreLostError,
    StoreOpenError as StoreOpenError,
)
from lash_store.errors.transactions import (
    CoroutineError as CoroutineError,
    MissingTableError as MissingTableError,
    NestedTransactionError as NestedTransactionError,
    NotConfiguredError as NotConfiguredError,
    ScopeError as ScopeError,
    ThreadError as ThreadError,
    TransactionControlError as TransactionControlError,
    TransactionEndedError as TransactionEndedError,
    TransactionError as TransactionError,
    UnpreparableStatementError as UnpreparableStatementError,
)
