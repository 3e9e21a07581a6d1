"""An effect store's transaction."""

from typing import TYPE_CHECKING, Any, ClassVar, Self

from lash_store._backends import join
from lash_store._kernel.checks import check_kind
from lash_store._kernel.schema import Schema
from lash_store._stores.tx import Tx, sources
from lash_store.clock import Clock, IdSource
from lash_store.effect.context import EffectContext, effect_context
from lash_store.effect.operations import EffectOperations
from lash_store.effect.tables import SCHEMA

if TYPE_CHECKING:
    from lash_store._kernel.backend import Joinable


class EffectTx(EffectOperations, Tx[EffectContext]):
    """Every operation of an effect store, on one open transaction."""

    __slots__ = ()

    schema: ClassVar[Schema] = SCHEMA

    @classmethod
    def on(
        cls,
        connection: "Joinable",
        *,
        owner_id: str | None = None,
        clock: Clock | None = None,
        ids: IdSource | None = None,
    ) -> Self:
        """Join the transaction that is open on a consumer's own connection or Session (K-TX-8, K-TX-14).

        Its engine must have been prepared by ``lash_store.configure()``. In a write transaction
        a database without our tables gets the store's, in the shared layout, beside what is
        there; it is committed, or not, with the consumer's transaction. Raises NotConfiguredError for any other connection, SchemaVersionError and
        SchemaDriftError as opening a store does.
        """
        context = effect_context(owner_id, *sources(clock, ids))
        return cls(context, join(connection, SCHEMA, context.scope))

    @classmethod
    def beside(cls, tx: Tx[Any], *, owner_id: str | None = None) -> Self:
        """Stand on the transaction of another Tx; see :meth:`SessionTx.beside` (K-SHARE-6)."""
        check_kind("tx", tx, Tx)
        return cls._on_same(tx, effect_context(owner_id, tx.context.clock, tx.context.ids))
