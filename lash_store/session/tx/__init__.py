"""The operations of a session store, on an open transaction, by aggregate."""

from __future__ import annotations

from typing import ClassVar, Self

from sqlalchemy import Connection

from lash_store._kernel.checks import check_name
from lash_store._kernel.configured import begun_transaction
from lash_store._kernel.ddl import Schema
from lash_store.clock import Clock, IdSource, RandomIds, SystemClock
from lash_store.session.records import Profile
from lash_store.session.tables import SCHEMA
from lash_store.session.tx.blobs import SessionContext, check_profile
from lash_store.session.tx.collection import CollectionOperations
from lash_store.session.tx.meta import MetaOperations
from lash_store.session.tx.turns import TurnOperations


class SessionTx(TurnOperations, CollectionOperations, MetaOperations):
    """Every operation of a session store, on one open transaction."""

    __slots__ = ()

    schema: ClassVar[Schema] = SCHEMA

    @classmethod
    def on(
        cls,
        connection: Connection,
        *,
        session_id: str,
        clock: Clock | None = None,
        ids: IdSource | None = None,
        profile: Profile = "balanced",
    ) -> Self:
        """Join the transaction that is open on a consumer's own connection (K-TX-8).

        Its engine must have been prepared by ``lash_store.configure()``. In a write
        transaction an empty database gets the session schema; it is committed, or not, with
        the consumer's transaction. Raises NotConfiguredError for any other connection,
        SchemaVersionError and SchemaDriftError as opening a store does.
        """
        begun = begun_transaction(connection)
        name = check_name("session_id", session_id)
        context = SessionContext(
            name, clock or SystemClock(), ids or RandomIds(), check_profile(profile)
        )
        tx = cls(context, begun.raw, begun.raw.cursor())
        tx.join(begun, connection)
        return tx
