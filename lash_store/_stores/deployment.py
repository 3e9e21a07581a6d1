"""Stores that serve a whole deployment, not one session: opened by a path and nothing else."""

import os
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, Unpack

from lash_store._backends import absolute, join
from lash_store._kernel.checks import check_kind
from lash_store._kernel.options import OpenOptions
from lash_store._stores.async_store import AsyncStore
from lash_store._stores.cancelling import lane_of
from lash_store._stores.store import Store, open_at
from lash_store._stores.tx import Context, Tx, sources
from lash_store.clock import Clock, IdSource

if TYPE_CHECKING:
    from lash_store._kernel.backend import Joinable

T_co = TypeVar("T_co", bound=Tx[Any], covariant=True)


class DeploymentTx(Tx[Context]):
    """The operations of a store that serves a whole deployment, not one session."""

    __slots__ = ()

    @classmethod
    def on(
        cls,
        connection: "Joinable",
        *,
        clock: Clock | None = None,
        ids: IdSource | None = None,
    ) -> Self:
        """Join the transaction that is open on a consumer's own connection or Session (K-TX-8, K-TX-14).

        Its engine must have been prepared by ``lash_store.configure()``. In a write transaction
        a database without our tables gets the store's, in the shared layout, beside what is
        there; it is committed, or not, with the consumer's transaction. Raises NotConfiguredError for any other connection, SchemaVersionError and
        SchemaDriftError as opening a store does.
        """
        context = Context(*sources(clock, ids))
        return cls(context, join(connection, cls.schema, context.scope))

    @classmethod
    def beside(cls, tx: Tx[Any]) -> Self:
        """Stand on the transaction of another Tx; see :meth:`SessionTx.beside` (K-SHARE-6)."""
        check_kind("tx", tx, Tx)
        return cls._on_same(tx, Context(tx.context.clock, tx.context.ids))


class DeploymentStore(Store[T_co]):
    """A store that serves a whole deployment, not one session."""

    kind: ClassVar[type[DeploymentTx]]
    """What its transactions are."""

    @classmethod
    def open(
        cls, path: str | os.PathLike[str] | Store[Any] | None, **options: Unpack[OpenOptions]
    ) -> Self:
        """Open the database at `path`, or a private one in memory if it is None.

        All stores of a file share what is open of it; given a store, this one shares what that
        one has open, in memory too. A file that does not exist is created, readable and writable by its owner only. See
        ``OpenOptions`` for `options`. Raises StoreOpenError (the path, and why),
        SchemaVersionError, SchemaDriftError, StoreBusyError, and InvalidRecordError for a bad
        option.
        """
        kind: Any = cls.kind
        handle, settings = open_at(path, kind.schema, options)
        return cls(handle, kind, Context(settings.clock, settings.ids))


class AsyncDeploymentStore(AsyncStore[T_co]):
    """A :class:`DeploymentStore` for asyncio: the same operations, as coroutines."""

    sync: ClassVar[type[DeploymentStore[Any]]]
    """The store that it runs on its threads."""

    @classmethod
    def open(
        cls, path: str | os.PathLike[str] | Store[Any] | None, **options: Unpack[OpenOptions]
    ) -> Self:
        """Make a store that ``async with`` or ``await`` opens, as the sync store's ``open()`` does."""
        there = absolute(path)
        store = cls(lambda **more: cls.sync.open(there, **{**options, **more}))
        store._lane = lane_of(there, options)
        return store
