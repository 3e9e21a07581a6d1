"""Durable state for agent runtimes, workers and queues, on SQLite.

What a consumer needs first stands here; the rest by its module:

``lash_store.session``   the session store: ``statements`` to compose, ``tables``, ``records``
``lash_store.process``   the process registry's tables
``lash_store.trigger``   the trigger store's tables
``lash_store.effect``    the effect store's table
``lash_store.errors``    every error, as a tree
``lash_store.testing``   clock, strategies and the lease machine (extra: ``testing``)
``lash_store.cli``       the ``lash-store`` command (extra: ``cli``)
"""

from lash_store._kernel.configured import configure
from lash_store._kernel.leases import Fence, LeaseHeld, LeaseTable, LeaseTerm
from lash_store._kernel.opening import OpenOptions
from lash_store._kernel.prepared import Prepared, PreparedRows, prepare
from lash_store.clock import Clock, IdSource, RandomIds, SystemClock, unique_owner_id
from lash_store.errors import (
    ClaimLostError,
    CollectionWarning,
    CorruptRecordError,
    InvalidRecordError,
    LashStoreError,
    LeaseLostError,
    NestedTransactionError,
    NodeConflictError,
    NotConfiguredError,
    ReadOnlyStoreError,
    RevisionConflictError,
    SchemaDriftError,
    SchemaVersionError,
    SessionBindingError,
    StorageError,
    StoreBusyError,
    StoreClosedError,
    StoreEmptyError,
    StoreOpenError,
    TransactionControlError,
    TransactionEndedError,
    TransactionError,
    TurnConflictError,
    UnpreparableStatementError,
)
from lash_store.session.directory import SessionDirectory, SessionEntry
from lash_store.session.records import (
    AlreadyQueued,
    Append,
    Attachment,
    Checkpoint,
    CollectionReport,
    Graph,
    Manifest,
    NewWork,
    Node,
    Relation,
    ReplaceFull,
    SessionFence,
    SessionHead,
    SessionLease,
    SessionMeta,
    SessionSummary,
    TurnCommit,
    TurnReceipt,
    TurnStamp,
    Unchanged,
    UsageDelta,
    WorkBatch,
    WorkClaim,
    WorkDepth,
    WorkItem,
    turn_commit_hash,
)
from lash_store.session.store import AsyncSessionStore, SessionStore
from lash_store.session.tx import SessionTx

__version__ = "0.1.0"

__all__ = [
    "AlreadyQueued",
    "Append",
    "AsyncSessionStore",
    "Attachment",
    "Checkpoint",
    "ClaimLostError",
    "Clock",
    "CollectionReport",
    "CollectionWarning",
    "CorruptRecordError",
    "Fence",
    "Graph",
    "IdSource",
    "InvalidRecordError",
    "LashStoreError",
    "LeaseHeld",
    "LeaseLostError",
    "LeaseTable",
    "LeaseTerm",
    "Manifest",
    "NestedTransactionError",
    "NewWork",
    "Node",
    "NodeConflictError",
    "NotConfiguredError",
    "OpenOptions",
    "Prepared",
    "PreparedRows",
    "RandomIds",
    "ReadOnlyStoreError",
    "Relation",
    "ReplaceFull",
    "RevisionConflictError",
    "SchemaDriftError",
    "SchemaVersionError",
    "SessionBindingError",
    "SessionDirectory",
    "SessionEntry",
    "SessionFence",
    "SessionHead",
    "SessionLease",
    "SessionMeta",
    "SessionStore",
    "SessionSummary",
    "SessionTx",
    "StorageError",
    "StoreBusyError",
    "StoreClosedError",
    "StoreEmptyError",
    "StoreOpenError",
    "SystemClock",
    "TransactionControlError",
    "TransactionEndedError",
    "TransactionError",
    "TurnCommit",
    "TurnConflictError",
    "TurnReceipt",
    "TurnStamp",
    "Unchanged",
    "UnpreparableStatementError",
    "UsageDelta",
    "WorkBatch",
    "WorkClaim",
    "WorkDepth",
    "WorkItem",
    "__version__",
    "configure",
    "prepare",
    "turn_commit_hash",
    "unique_owner_id",
]
