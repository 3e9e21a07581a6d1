"""The operations of a trigger store, on an open transaction, by aggregate."""

from __future__ import annotations

from typing import ClassVar

from lash_store._kernel.ddl import Schema
from lash_store.trigger.tables import SCHEMA
from lash_store.trigger.tx.deliveries import DeliveryOperations


class TriggerTx(DeliveryOperations):
    """Every operation of a trigger store, on one open transaction."""

    __slots__ = ()

    schema: ClassVar[Schema] = SCHEMA
