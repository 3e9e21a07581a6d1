"""Tools to test leases, and what is built on them: the ones this library tests itself with.

``ManualClock``, ``SequentialIds``   time and ids that a test owns
``lease_machine``, ``check_leases``  a state machine that tries to break a lease, yours or ours
``strategies``                       Hypothesis strategies for ids, times and bad input

Needs the extra ``testing`` (Hypothesis).
"""

from lash_store.testing import strategies
from lash_store.testing.clock import ManualClock, SequentialIds
from lash_store.testing.leases import (
    LeaseImplementation,
    LeaseMachine,
    LeaseModel,
    Observed,
    Term,
    check_leases,
    lease_machine,
)

__all__ = [
    "LeaseImplementation",
    "LeaseMachine",
    "LeaseModel",
    "ManualClock",
    "Observed",
    "SequentialIds",
    "Term",
    "check_leases",
    "lease_machine",
    "strategies",
]
