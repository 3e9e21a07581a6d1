"""Durable state for agent runtimes, workers and queues, on SQLite.

What a consumer needs first stands here; the rest by its module:

``lash_store.session``     the session store: ``statements`` to compose, ``tables``, ``records``
``lash_store.process``     the process registry: the same
``lash_store.trigger``     the trigger store: the same
``lash_store.effect``      the effect store: the same
``lash_store.leases``      leases of your own
``lash_store.statements``  parts of statements of your own
``lash_store.routing``     what leads from one store to another
``lash_store.errors``      every error, as a tree
``lash_store.schemas``     the four schemas, and checking a file of any kind
``lash_store.moving``      copying a deployment elsewhere
``lash_store.tracing``     statements as they run, and their plans
``lash_store.alembic``     leaving our tables out of an application's migrations
``lash_store.testing``     clocks, machines, explorer and crash kit (extra: ``testing``)
``lash_store.cli``         the ``lash-store`` command (extra: ``cli``)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
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

_HOMES: Final = {
    "AlreadyQueued": "session.records",
    "Append": "session.records",
    "AsyncDeployment": "deployment",
    "AsyncEffectStore": "effect.async_store",
    "AsyncProcessRegistry": "process.store",
    "AsyncSessionStore": "session.store",
    "AsyncTriggerStore": "trigger.store",
    "Busy": "effect.records",
    "Cancelled": "process.records",
    "Checkpoint": "session.records",
    "Clock": "clock",
    "Deployment": "deployment",
    "EffectClaim": "effect.records",
    "EffectStore": "effect.store",
    "EffectTx": "effect.tx",
    "External": "process.records",
    "Failure": "process.records",
    "Fence": "_kernel.leases",
    "Host": "process.records",
    "IdSource": "clock",
    "Lease": "_kernel.leases",
    "LeaseHeld": "_kernel.leases",
    "LeaseTable": "_kernel.leases",
    "Leases": "_stores.leasing",
    "NewWork": "session.records",
    "Node": "session.records",
    "OpenOptions": "_kernel.options",
    "ProcessFence": "process.records",
    "ProcessLease": "process.records",
    "ProcessRegistration": "process.records",
    "ProcessRegistry": "process.store",
    "ProcessTx": "process.tx",
    "Provenance": "process.records",
    "ReplaceFull": "session.records",
    "Replayed": "effect.records",
    "Scope": "process.records",
    "SessionDirectory": "session.directory",
    "SessionFence": "session.records",
    "SessionHead": "session.records",
    "SessionLease": "session.records",
    "SessionStore": "session.store",
    "SessionTx": "session.tx",
    "Success": "process.records",
    "SystemClock": "clock",
    "TriggerDraft": "trigger.records",
    "TriggerStore": "trigger.store",
    "TriggerTx": "trigger.tx",
    "TurnCommit": "session.records",
    "TurnReceipt": "session.records",
    "TurnStamp": "session.records",
    "UsageDelta": "session.records",
    "WorkBatch": "session.records",
    "WorkClaim": "session.records",
    "configure": "_backends",
    "create_tables": "schemas",
    "prepare": "_kernel.prepared",
    "turn_commit_hash": "session.records",
    "turn_scope": "effect.records",
    "unique_owner_id": "clock",
}
"""Where each name is at home: a program that uses one store need not load the others."""

_MODULES: Final = frozenset(
    (
        "alembic",
        "clock",
        "deployment",
        "effect",
        "errors",
        "leases",
        "moving",
        "process",
        "routing",
        "schemas",
        "session",
        "statements",
        "testing",
        "tracing",
        "trigger",
    )
)


if not TYPE_CHECKING:  # who would take any name for one that is there

    def __getattr__(name: str) -> Any:
        """Load what is asked for, and keep it."""
        if name in _HOMES:
            found = getattr(import_module(f"lash_store.{_HOMES[name]}"), name)
        elif name in _MODULES:
            try:
                found = import_module(f"lash_store.{name}")
            except ImportError as error:  # its extra is not installed
                raise AttributeError(str(error)) from error
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    """List what can be asked for."""
    return sorted({*globals(), *__all__, *_MODULES})
