"""The operations of an effect store, on an open transaction."""

from __future__ import annotations

from typing import ClassVar, Self

from sqlalchemy import Connection

from lash_store._kernel.checks import check_name
from lash_store._kernel.configured import begun_transaction
from lash_store._kernel.ddl import Schema
from lash_store.clock import Clock, IdSource, RandomIds, SystemClock, unique_owner_id
from lash_store.effect.tables import SCHEMA
from lash_store.effect.tx.attempts import EffectContext
from lash_store.effect.tx.upkeep import UpkeepOperations


class EffectTx(UpkeepOperations):
    """Every operation of an effect store, on one open transaction."""

    __slots__ = ()

    schema: ClassVar[Schema] = SCHEMA

    @classmethod
    def on(
        cls,
        connection: Connection,
        *,
        owner_id: str | None = None,
        clock: Clock | None = None,
        ids: IdSource | None = None,
    ) -> Self:
        """Join the transaction that is open on a consumer's own connection (K-TX-8).

        Its engine must have been prepared by ``lash_store.configure()``. In a write transaction
        an empty database gets the store's schema; it is committed, or not, with the consumer's
        transaction. Raises NotConfiguredError for any other connection, SchemaVersionError and
        SchemaDriftError as opening a store does.
        """
        begun = begun_transaction(connection)
        owner = unique_owner_id() if owner_id is None else check_name("owner_id", owner_id)
        context = EffectContext("", clock or SystemClock(), ids or RandomIds(), owner)
        tx = cls(context, begun.raw, begun.raw.cursor())
        tx.join(begun, connection)
        return tx
