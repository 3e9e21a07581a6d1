"""A session store's transaction."""

from typing import TYPE_CHECKING, Any, ClassVar, Self

from lash_store._backends import join
from lash_store._kernel.checks import check_kind
from lash_store._kernel.schema import Schema
from lash_store._stores.operations import reads, writes
from lash_store._stores.tx import Tx, sources
from lash_store.clock import Clock, IdSource
from lash_store.session.context import SessionContext, session_context
from lash_store.session.operations import SessionOperations, blobs, claims, leases, meta, turns
from lash_store.session.records import Profile
from lash_store.session.tables import SCHEMA

if TYPE_CHECKING:
    from lash_store._kernel.backend import Joinable


class SessionTx(SessionOperations, Tx[SessionContext]):
    """Every operation of a session store, on one open transaction."""

    __slots__ = ()

    schema: ClassVar[Schema] = SCHEMA

    commit_turn = writes(turns.commit_turn)

    # What only makes sense as part of a transaction.
    require = reads(leases.LEASES.requiring_any)
    require_claim = reads(claims.require_claim)
    create_meta = writes(meta.create_meta)
    put_checkpoint = writes(blobs.put_checkpoint)
    load_manifest = reads(blobs.load_manifest)

    @classmethod
    def on(
        cls,
        connection: "Joinable",
        *,
        session_id: str,
        clock: Clock | None = None,
        ids: IdSource | None = None,
        profile: Profile = "balanced",
    ) -> Self:
        """Join the transaction that is open on a consumer's own connection or Session (K-TX-8, K-TX-14).

        Its engine must have been prepared by ``lash_store.configure()``. In a write
        transaction a database without our tables gets those of sessions, in the shared layout,
        beside what is there; it is committed, or not, with the consumer's transaction. Raises NotConfiguredError for any other connection,
        SchemaVersionError and SchemaDriftError as opening a store does.
        """
        context = session_context(session_id, profile, *sources(clock, ids))
        return cls(context, join(connection, SCHEMA, context.scope))

    @classmethod
    def beside(cls, tx: Tx[Any], *, session_id: str, profile: Profile = "balanced") -> Self:
        """Stand on the transaction of another Tx, of any kind and any session (K-SHARE-6).

        With its time, its clock and ids, and until its end. In a shared database; in a file there
        is but its own kind: SchemaVersionError.
        """
        check_kind("tx", tx, Tx)
        context = session_context(session_id, profile, tx.context.clock, tx.context.ids)
        return cls._on_same(tx, context)
