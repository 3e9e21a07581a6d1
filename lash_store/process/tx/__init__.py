"""The operations of a process registry, on an open transaction, by aggregate."""

from __future__ import annotations

from typing import ClassVar

from lash_store._kernel.ddl import Schema
from lash_store.process.tables import SCHEMA
from lash_store.process.tx.events import EventOperations
from lash_store.process.tx.handles import HandleOperations


class ProcessTx(EventOperations, HandleOperations):
    """Every operation of a process registry, on one open transaction."""

    __slots__ = ()

    schema: ClassVar[Schema] = SCHEMA
