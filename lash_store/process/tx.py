"""A process registry's transaction."""

from typing import ClassVar

from lash_store._kernel.schema import Schema
from lash_store._stores.deployment import DeploymentTx
from lash_store._stores.operations import reads
from lash_store.process.operations import ProcessOperations, events, leases, processes
from lash_store.process.tables import SCHEMA


class ProcessTx(ProcessOperations, DeploymentTx):
    """Every operation of a process registry, on one open transaction."""

    __slots__ = ()

    schema: ClassVar[Schema] = SCHEMA

    # What only makes sense as part of a transaction.
    require = reads(leases.LEASES.requiring_any)
    require_process = reads(processes.require_process)
    highest_sequence = reads(events.highest_sequence)
