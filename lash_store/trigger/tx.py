"""A trigger store's transaction."""

from typing import ClassVar

from lash_store._kernel.schema import Schema
from lash_store._stores.deployment import DeploymentTx
from lash_store.trigger.operations import TriggerOperations
from lash_store.trigger.tables import SCHEMA


class TriggerTx(TriggerOperations, DeploymentTx):
    """Every operation of a trigger store, on one open transaction."""

    __slots__ = ()

    schema: ClassVar[Schema] = SCHEMA
