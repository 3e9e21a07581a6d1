"""Durable state for agent runtimes, workers and queues, on SQLite.

What a consumer needs first stands here; the rest by its module:

``lash_store.session``   the session store: ``statements`` to compose, ``tables``, ``records``
``lash_store.process``   the process registry: the same
``lash_store.trigger``   the trigger store: the same
``lash_store.effect``    the effect store: the same
``lash_store.routing``   what leads from one store to another
``lash_store.errors``    every error, as a tree
``lash_store.schemas``   the four schemas, and checking a file of any kind
``lash_store.testing``   clock, strategies and the lease machine (extra: ``testing``)
``lash_store.cli``       the ``lash-store`` command (extra: ``cli``)
"""

from lash_store._backends import configure
from lash_store._kernel.leases import Fence, Lease, LeaseHeld, LeaseTable
from lash_store._kernel.options import OpenOptions
from lash_store._kernel.prepared import prepare
from lash_store._stores.leasing import Leases
from lash_store.clock import Clock, IdSource, SystemClock, unique_owner_id
from lash_store.deployment import AsyncDeployment, Deployment
from lash_store.effect.async_store import AsyncEffectStore
from lash_store.effect.records import Busy, EffectClaim, Replayed, turn_scope
from lash_store.effect.store import EffectStore
from lash_store.effect.tx import EffectTx
from lash_store.process.records import (
    Cancelled,
    External,
    Failure,
    Host,
    ProcessFence,
    ProcessLease,
    ProcessRegistration,
    Provenance,
    Scope,
    Success,
)
from lash_store.process.store import AsyncProcessRegistry, ProcessRegistry
from lash_store.process.tx import ProcessTx
from lash_store.schemas import create_tables
from lash_store.session.directory import SessionDirectory
from lash_store.session.records import (
    AlreadyQueued,
    Append,
    Checkpoint,
    NewWork,
    Node,
    ReplaceFull,
    SessionFence,
    SessionHead,
    SessionLease,
    TurnCommit,
    TurnReceipt,
    TurnStamp,
    UsageDelta,
    WorkBatch,
    WorkClaim,
    turn_commit_hash,
)
from lash_store.session.store import AsyncSessionStore, SessionStore
from lash_store.session.tx import SessionTx
from lash_store.trigger.records import TriggerDraft
from lash_store.trigger.store import AsyncTriggerStore, TriggerStore
from lash_store.trigger.tx import TriggerTx

__version__ = "0.2.0"

__all__ = [
    "AlreadyQueued",
    "Append",
    "AsyncDeployment",
    "AsyncEffectStore",
    "AsyncProcessRegistry",
    "AsyncSessionStore",
    "AsyncTriggerStore",
    "Busy",
    "Cancelled",
    "Checkpoint",
    "Clock",
    "Deployment",
    "EffectClaim",
    "EffectStore",
    "EffectTx",
    "External",
    "Failure",
    "Fence",
    "Host",
    "IdSource",
    "Lease",
    "LeaseHeld",
    "LeaseTable",
    "Leases",
    "NewWork",
    "Node",
    "OpenOptions",
    "ProcessFence",
    "ProcessLease",
    "ProcessRegistration",
    "ProcessRegistry",
    "ProcessTx",
    "Provenance",
    "ReplaceFull",
    "Replayed",
    "Scope",
    "SessionDirectory",
    "SessionFence",
    "SessionHead",
    "SessionLease",
    "SessionStore",
    "SessionTx",
    "Success",
    "SystemClock",
    "TriggerDraft",
    "TriggerStore",
    "TriggerTx",
    "TurnCommit",
    "TurnReceipt",
    "TurnStamp",
    "UsageDelta",
    "WorkBatch",
    "WorkClaim",
    "__version__",
    "configure",
    "create_tables",
    "prepare",
    "turn_commit_hash",
    "turn_scope",
    "unique_owner_id",
]
