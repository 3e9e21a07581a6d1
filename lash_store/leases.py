"""The lease protocol, for leases on tables of your own: fences, terms, statements, operations.

Its rules stand at the head of the module that defines :class:`Fence`; ``docs/rules.md`` has
them by number.
"""

from lash_store._kernel.leases import Fence, Lease, LeaseHeld, LeaseTable, LeaseTerm
from lash_store._stores.holding import Held
from lash_store._stores.leasing import BoundLeases, Leases

__all__ = [
    "BoundLeases",
    "Fence",
    "Held",
    "Lease",
    "LeaseHeld",
    "LeaseTable",
    "LeaseTerm",
    "Leases",
]
