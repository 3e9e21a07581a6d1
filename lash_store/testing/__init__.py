"""Tools to test leases, and what is built on them: the ones this library tests itself with.

``ManualClock``, ``SequentialIds``   time and ids that a test owns
``run_as_group``                     calls that run in one transaction, composed by hand
``as_another_process``               a store that shares no writer with the others of its file
``lease_machine``, ``check_leases``  a state machine that tries to break a lease, yours or ours
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
    ManualClock as ManualClock,
    SequentialIds as SequentialIds,
)
from lash_store.testing.groups import (
    run_as_group as run_as_group,
)
from lash_store.testing.leases import (
    LeaseImplementation as LeaseImplementation,
    LeaseMachine as LeaseMachine,
    LeaseModel as LeaseModel,
    Observed as Observed,
    Term as Term,
    check_leases as check_leases,
    lease_machine as lease_machine,
)
from lash_store.testing.processes import (
    as_another_process as as_another_process,
)
