"""What the stores have in common that serve a whole deployment, not one session."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar, Self, TypeVar, Unpack

from sqlalchemy import Connection

from lash_store._kernel.configured import begun_transaction
from lash_store._kernel.connection import StoreConnection
from lash_store._kernel.engine import Database
from lash_store._kernel.opening import OpenOptions, Settings, resolve
from lash_store._kernel.store import AsyncStore, Store
from lash_store._kernel.tx import Context, Tx
from lash_store.clock import Clock, IdSource, RandomIds, SystemClock

T_co = TypeVar("T_co", bound=Tx, covariant=True)


class DeploymentTx(Tx):
    """The operations of a store that serves a whole deployment, not one session."""

    __slots__ = ()

    @classmethod
    def on(
        cls, connection: Connection, *, clock: Clock | None = None, ids: IdSource | None = None
    ) -> Self:
        """Join the transaction that is open on a consumer's own connection (K-TX-8).

        Its engine must have been prepared by ``lash_store.configure()``. In a write transaction
        an empty database gets the store's schema; it is committed, or not, with the consumer's
        transaction. Raises NotConfiguredError for any other connection, SchemaVersionError and
        SchemaDriftError as opening a store does.
        """
        begun = begun_transaction(connection)
        context = Context("", clock or SystemClock(), ids or RandomIds())
        tx = cls(context, begun.raw, begun.raw.cursor())
        tx.join(begun, connection)
        return tx


class DeploymentStore(Store[T_co]):
    """A store that serves a whole deployment, not one session."""

    operations: ClassVar[type[DeploymentTx]]
    """What its transactions offer."""

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None, **options: Unpack[OpenOptions]) -> Self:
        """Open the database at `path`, or a private one in memory if it is None.

        A file that does not exist is created, readable and writable by its owner only. See
        ``OpenOptions`` for `options`. Raises StoreOpenError (the path, and why),
        SchemaVersionError, SchemaDriftError, StoreBusyError, and InvalidRecordError for a bad
        option.
        """
        settings = Settings(**options)
        context = Context("", settings.clock, settings.ids)
        make: Callable[[StoreConnection], Any] = lambda raw: cls.operations(context, raw, raw.hot)  # noqa: E731 # reason: its type is the subclass's
        return cls(Database(cls.operations.schema, resolve(path), settings), make)


class AsyncDeploymentStore(AsyncStore[T_co]):
    """A :class:`DeploymentStore` for asyncio: the same operations, as coroutines."""

    sync: ClassVar[type[DeploymentStore[Any]]]
    """The store that it runs on its threads."""

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None, **options: Unpack[OpenOptions]) -> Self:
        """Make a store that ``async with`` or ``await`` opens, as the sync store's ``open()`` does."""
        return cls(lambda: cls.sync.open(path, **options))
