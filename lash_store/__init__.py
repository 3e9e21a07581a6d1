"""Durable state for agent runtimes, workers and queues, on SQLite.

What a consumer needs first stands here; the rest by its module:

``lash_store.session``   the session store: ``statements`` to compose, ``tables``, records
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
    CorruptRecordError,
    InvalidRecordError,
    LashStoreError,
    LeaseLostError,
    NestedTransactionError,
    NotConfiguredError,
    ReadOnlyStoreError,
    SchemaDriftError,
    SchemaVersionError,
    StorageError,
    StoreBusyError,
    StoreClosedError,
    StoreOpenError,
    TransactionControlError,
    TransactionEndedError,
    TransactionError,
    UnpreparableStatementError,
)
from lash_store.session.records import SessionFence, SessionLease
from lash_store.session.store import AsyncSessionStore, SessionStore
from lash_store.session.tx import SessionTx

__version__ = "0.1.0"

__all__ = [
    "AsyncSessionStore",
    "Clock",
    "CorruptRecordError",
    "Fence",
    "IdSource",
    "InvalidRecordError",
    "LashStoreError",
    "LeaseHeld",
    "LeaseLostError",
    "LeaseTable",
    "LeaseTerm",
    "NestedTransactionError",
    "NotConfiguredError",
    "OpenOptions",
    "Prepared",
    "PreparedRows",
    "RandomIds",
    "ReadOnlyStoreError",
    "SchemaDriftError",
    "SchemaVersionError",
    "SessionFence",
    "SessionLease",
    "SessionStore",
    "SessionTx",
    "StorageError",
    "StoreBusyError",
    "StoreClosedError",
    "StoreOpenError",
    "SystemClock",
    "TransactionControlError",
    "TransactionEndedError",
    "TransactionError",
    "UnpreparableStatementError",
    "__version__",
    "configure",
    "prepare",
    "unique_owner_id",
]
