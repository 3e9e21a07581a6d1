"""Tools to test leases, and what is built on them: the ones this library tests itself with.

``ManualClock``, ``SequentialIds``   time and ids that a test owns
``JumpingClock``, ``SkewedClock``    a clock that is set, and another machine's
``run_as_group``                     calls that run in one transaction, composed by hand
``as_another_process``               a store that shares no writer with the others of its file
``lock_machine``, ``queue_machine``, ``effect_machine``, ``commit_machine``, ``log_machine``
                                     state machines that try to break yours, or ours
``Parked``, ``explore``, ``point``   calls that overlap: one stopped at a point, or all orders tried
``kill_at_each_statement``, ``fail_at_each_statement``
                                     what a crash, or a disk, leaves behind, at each place in turn
``History``, ``check_history``       what workers of a real run saw, and whether it can have happened
``strategies``                       Hypothesis strategies for ids, times and bad input

Needs the extra ``testing`` (Hypothesis).
"""

from importlib.util import find_spec

if find_spec("hypothesis") is None:
    raise ImportError("lash_store.testing needs Hypothesis: pip install 'lash-store[testing]'")

from lash_store.testing import (
    strategies as strategies,
)
from lash_store.testing.clock import (
    JumpingClock as JumpingClock,
    ManualClock as ManualClock,
    SequentialIds as SequentialIds,
    SkewedClock as SkewedClock,
)
from lash_store.testing.commits import (
    CommitMachine as CommitMachine,
    Commits as Commits,
    commit_machine as commit_machine,
)
from lash_store.testing.crashing import (
    FaultKind as FaultKind,
    fail_at_each_statement as fail_at_each_statement,
    kill_at_each_statement as kill_at_each_statement,
)
from lash_store.testing.effects import (
    EffectMachine as EffectMachine,
    Effects as Effects,
    effect_machine as effect_machine,
)
from lash_store.testing.groups import (
    run_as_group as run_as_group,
)
from lash_store.testing.histories import (
    History as History,
    HistoryError as HistoryError,
    LeaseState as LeaseState,
    Operation as Operation,
    Raised as Raised,
    check_history as check_history,
    lease_model as lease_model,
    read_history as read_history,
)
from lash_store.testing.interleaving import (
    Explored as Explored,
    OrderError as OrderError,
    explore as explore,
)
from lash_store.testing.lock_machine import (
    FORGERIES as FORGERIES,
    LockMachine as LockMachine,
)
from lash_store.testing.locks import (
    LockClient as LockClient,
    Locks as Locks,
    lock_machine as lock_machine,
)
from lash_store.testing.logs import (
    Log as Log,
    LogMachine as LogMachine,
    log_machine as log_machine,
)
from lash_store.testing.machine import (
    Machine as Machine,
)
from lash_store.testing.parked import Parked as Parked
from lash_store.testing.points import (
    point as point,
)
from lash_store.testing.processes import (
    as_another_process as as_another_process,
)
from lash_store.testing.queues import (
    Queue as Queue,
    QueueMachine as QueueMachine,
    queue_machine as queue_machine,
)
from lash_store.testing.violations import (
    Line as Line,
    Outcome as Outcome,
    Script as Script,
    Violation as Violation,
)
