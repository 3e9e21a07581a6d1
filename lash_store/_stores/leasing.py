"""The operations of the lease protocol, once for every lease: of sessions, processes, your own.

A lease on a table of your own takes a ``LeaseTable``, which names its columns, and a ``Fence``,
which type checkers tell from others'::

    class JobFence(Fence, frozen=True):
        leases = LeaseTable(jobs, key=jobs.c.id, …)

    JOBS = Leases(JobFence)

    with store.begin() as tx:
        jobs_lease = JOBS.bind(tx)
        term = jobs_lease.claim("job-7", owner_id=me, ttl_ms=30_000)   # a Lease, or a LeaseHeld
        tx.require(term.fence)                                         # or LeaseLostError
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from typing import Any, Generic, TypeVar, overload

from lash_store._kernel.backend import Cursor
from lash_store._kernel.checks import check_count, check_kind, check_name, shown
from lash_store._kernel.codecs import read_as
from lash_store._kernel.keeping import KEEPER
from lash_store._kernel.leases import (
    Fence,
    FenceT,
    Lease,
    LeaseHeld,
    LeaseTable,
    LeaseTerm,
    check_fence,
)
from lash_store._kernel.liveness import end_of_term, is_live, new_token
from lash_store._kernel.locks import WorkT, commits_with_first, locked_beside, locked_by
from lash_store._kernel.logs import takeovers_are_told
from lash_store._kernel.schema import Schema, declared, ours_of
from lash_store._stores.async_store import AsyncStore
from lash_store._stores.holding import Held, Holding
from lash_store._stores.lost import is_term, lost
from lash_store._stores.store import Store
from lash_store._stores.tx import Context, Tx
from lash_store.errors import CorruptRecordError, InvalidRecordError, LeaseLostError

LeaseT = TypeVar("LeaseT", bound=Lease[Any])


class Leases(Generic[FenceT, LeaseT]):
    """One kind of lease: the operations on the table that its fences stand for."""

    @overload
    def __init__(self: Leases[FenceT, Lease[FenceT]], fence: type[FenceT]) -> None: ...
    @overload
    def __init__(
        self, fence: type[FenceT], lease: Callable[[FenceT, int, int], LeaseT]
    ) -> None: ...
    def __init__(self, fence: type[FenceT], lease: Any = Lease) -> None:
        if not isinstance(getattr(fence, "leases", None), LeaseTable):
            why = "must be a class of Fence whose `leases` is a LeaseTable"
            raise InvalidRecordError("fence", shown(fence), why)
        self.fence = fence
        self.table: LeaseTable = fence.leases
        self._lease: Callable[[FenceT, int, int], LeaseT] = lease
        # What the statements run on: of a table of the consumer's own, nobody knows who waits.
        is_ours = ours_of(self.table.table) is not None
        self._cursor: Callable[[Tx[Any]], Cursor] = attrgetter(
            "own_cursor" if is_ours else "cursor"
        )
        # A consumer's cursor gives nothing of a transaction that has ended (K-TX-7).
        self._commits_with_first: Callable[[WorkT], WorkT] = (
            commits_with_first if is_ours else lambda work: work
        )

    def bind(self, tx: Tx[Any]) -> BoundLeases[FenceT, LeaseT]:
        """Return the operations of the protocol on an open transaction, of a store of any kind."""
        check_kind("tx", tx, Tx)
        return BoundLeases(self, tx)

    def hold(
        self,
        store: Store[Any] | AsyncStore[Any],
        key: str,
        *,
        owner_id: str,
        ttl_ms: int,
        timeout_ms: int = 0,
    ) -> Holding[Held[LeaseT]]:
        """Hold the lease on `key`, in a block: claimed, renewed in time, released (K-HOLD-1).

        On a store whose database has the table: ``with JOBS.hold(store, "job-7", …) as held:``, or
        ``async with``. Waits `timeout_ms` for a lease that somebody else holds; then LeaseHeldError.
        """
        return self.holding(
            store, key, owner_id=owner_id, ttl_ms=ttl_ms, timeout_ms=timeout_ms, claiming=None
        )

    def holding(
        self,
        store: Store[Any] | AsyncStore[Any],
        key: str,
        *,
        owner_id: str,
        ttl_ms: int,
        timeout_ms: int,
        claiming: Callable[[Context], Callable[[Tx[Any]], Any]] | None,
    ) -> Holding[Held[LeaseT]]:
        """Do that with a store's own way of claiming."""

        def claim(context: Context) -> Callable[[Tx[Any]], Any]:
            return self.claiming(context, key, owner_id=owner_id, ttl_ms=ttl_ms)

        return Holding(
            store,
            operations=("claim_lease", "renew_lease", "release_lease"),
            claiming=claiming or claim,
            renewing=lambda context, term, ms: self.renewing(context, term.fence, ttl_ms=ms),
            releasing=lambda context, term: self.releasing(context, term.fence),
            ends_ms=lambda tx: getattr(self.current(tx, key), "expires_at_ms", None),
            lost_error=lambda term, why: LeaseLostError(term.fence, None, why),
            ttl_ms=ttl_ms,
            timeout_ms=timeout_ms,
            name=f"{self.table.table.name} {key}",
            is_own=lambda fence: (
                isinstance(fence, self.fence) and (fence.key, fence.owner_id) == (key, owner_id)
            ),
        )

    def claim(self, tx: Tx[Any], key: str, *, owner_id: str, ttl_ms: int) -> LeaseT | LeaseHeld:
        """Take the lease on `key`, on an open transaction; see :meth:`claiming`."""
        check_kind("tx", tx, Tx)
        return self.claiming(tx.context, key, owner_id=owner_id, ttl_ms=ttl_ms)(tx)

    def renew(self, tx: Tx[Any], fence: FenceT, *, ttl_ms: int) -> LeaseT:
        """Move the end of the live term, on an open transaction; see :meth:`renewing`."""
        check_kind("tx", tx, Tx)
        return self.renewing(tx.context, fence, ttl_ms=ttl_ms)(tx)

    def release(self, tx: Tx[Any], fence: FenceT) -> bool:
        """End the term of `fence`, on an open transaction; see :meth:`releasing`."""
        check_kind("tx", tx, Tx)
        return self.releasing(tx.context, fence)(tx)

    def require(self, tx: Tx[Any], fence: FenceT) -> None:
        """Raise LeaseLostError unless `fence` is live in this transaction; see :meth:`requiring`."""
        check_kind("tx", tx, Tx)
        self.requiring(tx.context, fence)(tx)

    def claiming(
        self, _: Context, key: str, *, owner_id: str, ttl_ms: int
    ) -> Callable[[Tx[Any]], LeaseT | LeaseHeld]:
        """Take the lease on `key` for `ttl_ms` milliseconds (K-LEASE-1, K-LEASE-2).

        A free, released or expired lease gives a new term: a fresh token and the next fencing
        number. While another owner is live, the result is a LeaseHeld that names it. The owner
        that is live already gets a new term as well, and what it was before is fenced off; or,
        where the table is ``reentrant``, re-enters its term, which keeps token and number and
        ends `ttl_ms` from now. A `ttl_ms` of 0 gives a term that has expired already (K-LEASE-7).

        Raises InvalidRecordError for an empty key or owner or a bad `ttl_ms`.
        """
        check_name("key", key)
        check_name("owner_id", owner_id)
        check_count("ttl_ms", ttl_ms)

        def claim(tx: Tx[Any]) -> LeaseT | LeaseHeld:
            before = self.load_term(tx, key) if takeovers_are_told() else None
            token = new_token(tx.context.ids)
            row = self.table.claim_lease.one(
                self._cursor(tx),
                key=key,
                owner_id=owner_id,
                token=token,
                now_ms=tx.now_ms,
                expires_at_ms=end_of_term(tx.now_ms, ttl_ms),
            )
            if row is None:
                return self._held_by_another(self.load_term(tx, key))
            lease = self._read_lease(self._read_term(row))
            if lease.fence.token != token:
                KEEPER.claimed_again(lease.fence, lease.expires_at_ms)
            elif before is not None and before.token is not None:
                tx.note_takeover("the lease on", key, before.owner_id, owner_id)
            return lease

        return locked_by(claim, key)

    def renewing(self, _: Context, fence: FenceT, *, ttl_ms: int) -> Callable[[Tx[Any]], LeaseT]:
        """Move the end of the live term to `ttl_ms` milliseconds from now (K-LEASE-3).

        Token, fencing number and claimed-at stay. If the clock was set back to before the claim, the
        end is `ttl_ms` after the claim: a renewal never takes away what was claimed. LeaseLostError, and
        nothing changed, unless `fence` is the live term in all four values, taken over or not.
        """
        check_fence(fence, self.fence)
        check_count("ttl_ms", ttl_ms)

        def renew(tx: Tx[Any]) -> LeaseT:
            row = self.table.renew_lease.one(
                self._cursor(tx),
                key=fence.key,
                owner_id=fence.owner_id,
                token=fence.token,
                fencing_token=fence.fencing_token,
                now_ms=tx.now_ms,
                expires_at_ms=end_of_term(tx.now_ms, ttl_ms),
                ttl_ms=ttl_ms,
            )
            if row is None:
                raise lost(fence, self.load_term(tx, fence.key))
            term = self._read_term(row)
            return self._lease(fence, term.claimed_at_ms, term.expires_at_ms)

        return self._commits_with_first(locked_by(renew, fence.key))

    def releasing(self, _: Context, fence: FenceT) -> Callable[[Tx[Any]], bool]:
        """End the term of `fence` and keep its fencing number (K-LEASE-4).

        True if this call ended it, live or expired. False, with nothing changed, if it was
        released before or somebody else has taken over: a release may safely come twice or late.
        """
        check_fence(fence, self.fence)

        def release(tx: Tx[Any]) -> bool:
            released = self.table.release_lease.run(
                self._cursor(tx),
                key=fence.key,
                owner_id=fence.owner_id,
                token=fence.token,
                fencing_token=fence.fencing_token,
            )
            return released == 1

        return self._commits_with_first(locked_by(release, fence.key))

    def release_live(self, tx: Tx[Any], fence: FenceT) -> None:
        """Require that `fence` is live in this transaction, and end its term (K-LEASE-4, K-LEASE-6).

        In one statement, for who acts on a term for the last time. Raises LeaseLostError.
        """
        check_fence(fence, self.fence)
        ended = self.table.release_live_lease.run(
            self._cursor(tx),
            key=fence.key,
            owner_id=fence.owner_id,
            token=fence.token,
            fencing_token=fence.fencing_token,
            now_ms=tx.now_ms,
        )
        if ended != 1:
            raise lost(fence, self.load_term(tx, fence.key))

    def requiring(self, _: Context, fence: FenceT) -> Callable[[Tx[Any]], None]:
        """Raise LeaseLostError unless `fence` is live in this transaction (K-LEASE-6).

        In a write transaction the answer holds until its end: nobody else can write meanwhile; on PostgreSQL, for
        a table of your own, if you have locked the row (``select(…).with_for_update()``).
        """
        check_fence(fence, self.fence)
        return lambda tx: self._check_live(tx, fence, self.load_term(tx, fence.key))

    def requiring_any(self, context: Context, fence: Fence) -> Callable[[Tx[Any]], None]:
        """Raise LeaseLostError unless `fence` is live in this transaction (K-LEASE-6).

        A fence of this store's, or of a lease on a table of your own in the same database. How long the answer
        holds: see :meth:`requiring`. InvalidRecordError for a fence of another kind of store.
        """
        check_kind("fence", fence, Fence)
        if isinstance(fence, self.fence) or _is_ours(fence):
            return self.requiring(context, fence)  # type: ignore[arg-type] # reason: which refuses another kind's
        return leases_of(type(fence)).requiring(context, fence)

    def require_beside(self, tx: Tx[Any], fence: FenceT) -> None:
        """Raise LeaseLostError unless `fence` is live, in the transaction of another kind of store.

        Raises InvalidRecordError if that kind's leases are elsewhere: in a file of their own.
        """
        cursor, ours = self._cursor(tx), self._stands_in(fence)
        if ours is not None:
            schema, scope = ours
            if not tx.current.is_shared:
                why = f"the leases of the {schema.kind} store are in another file: one database has them all"
                raise InvalidRecordError("fence", type(fence).__name__, f"{why} (`sqlite:///…`)")
            cursor = tx.current.further_cursor(schema, scope, (fence.key,))
            cursor.scope = scope
        row = self.table.current_lease.one(cursor, key=fence.key)
        self._check_live(tx, fence, None if row is None else self._read_term(row))

    def locked_beside(self, work: WorkT, fence: FenceT) -> WorkT:
        """Say of `work`, which does :meth:`require_beside`, that the lease must not change meanwhile."""
        ours = self._stands_in(fence)
        return work if ours is None else locked_beside(work, *ours, fence.key)

    def _stands_in(self, fence: FenceT) -> tuple[Schema, str] | None:
        """The kind of store and the scope that a lease of ours belongs to; None of a consumer's own."""
        ours = ours_of(self.table.table)
        if ours is None:
            return None
        schema = next(each for each in declared if ours.table in each.tables)
        return schema, fence.key if ours.is_scoped else ""

    def _check_live(self, tx: Tx[Any], fence: FenceT, term: LeaseTerm | None) -> None:
        if term is None or not is_term(term, fence) or not is_live(term, now_ms=tx.now_ms):
            raise lost(fence, term)

    def require_not_superseded(self, tx: Tx[Any], fence: FenceT) -> None:
        """Raise LeaseLostError if somebody else was given a term after that of `fence`.

        What a fence must satisfy to see a result again that it may have brought about itself:
        the term of who did the work once, and released it with that, is over without any harm.
        """
        check_fence(fence, self.fence)
        found = lost(fence, self.load_term(tx, fence.key))
        if found.reason in ("superseded", "never_claimed"):
            raise found

    def current(self, tx: Tx[Any], key: str) -> LeaseT | None:
        """Return the term on `key` that is live now, or None if the lease is free."""
        term = self.load_term(tx, check_name("key", key))
        return None if term is None else self.live_lease(tx, term)

    def live_lease(self, tx: Tx[Any], term: LeaseTerm) -> LeaseT | None:
        """Return `term` as a lease if it is live now."""
        return self._read_lease(term) if is_live(term, now_ms=tx.now_ms) else None

    def load_term(self, tx: Tx[Any], key: str) -> LeaseTerm | None:
        """Read the row on `key`: the current term, or what is left of the last; None if there is none."""
        row = self.table.current_lease.one(self._cursor(tx), key=key)
        return None if row is None else self._read_term(row)

    def _read_term(self, row: tuple[object, ...]) -> LeaseTerm:
        return read_as(LeaseTerm, self.table.table.name, str(row[0]), row)

    def _read_lease(self, term: LeaseTerm) -> LeaseT:
        owner_id, token = self._owner_and_token(term)
        try:
            fence = self.fence(term.key, owner_id, token, term.fencing_token)
        except InvalidRecordError as error:
            raise CorruptRecordError(self.table.table.name, term.key, str(error)) from error
        return self._lease(fence, term.claimed_at_ms, term.expires_at_ms)

    def _held_by_another(self, term: LeaseTerm | None) -> LeaseHeld:
        if term is None:
            raise CorruptRecordError(
                self.table.table.name, "?", "a claim was refused, but there is no row"
            )
        owner_id, _ = self._owner_and_token(term)
        return LeaseHeld(
            term.key, owner_id, term.fencing_token, term.claimed_at_ms, term.expires_at_ms
        )

    def _owner_and_token(self, term: LeaseTerm) -> tuple[str, str]:
        if term.owner_id is None or term.token is None:
            raise CorruptRecordError(
                self.table.table.name, term.key, "a live term without owner or token"
            )
        return term.owner_id, term.token


class BoundLeases(Generic[FenceT, LeaseT]):
    """One kind of lease on one open transaction: what ``Leases.bind`` gives."""

    __slots__ = ("_leases", "_tx")

    def __init__(self, leases: Leases[FenceT, LeaseT], tx: Tx[Any]) -> None:
        self._leases = leases
        self._tx = tx

    def claim(self, key: str, *, owner_id: str, ttl_ms: int) -> LeaseT | LeaseHeld:
        """Take the lease on `key`; see :meth:`Leases.claiming`."""
        return self._leases.claim(self._tx, key, owner_id=owner_id, ttl_ms=ttl_ms)

    def renew(self, fence: FenceT, *, ttl_ms: int) -> LeaseT:
        """Move the end of the live term; see :meth:`Leases.renewing`."""
        return self._leases.renew(self._tx, fence, ttl_ms=ttl_ms)

    def release(self, fence: FenceT) -> bool:
        """End the term of `fence`; see :meth:`Leases.releasing`."""
        return self._leases.release(self._tx, fence)

    def require(self, fence: FenceT) -> None:
        """Raise LeaseLostError unless `fence` is live; see :meth:`Leases.requiring`."""
        self._leases.require(self._tx, fence)

    def current(self, key: str) -> LeaseT | None:
        """Return the term on `key` that is live now, or None if the lease is free."""
        return self._leases.current(self._tx, key)


@lru_cache(maxsize=256)  # of so many: one is a class, which a program may make again and again
def leases_of(kind: type[FenceT]) -> Leases[FenceT, Lease[FenceT]]:
    """Return the operations on the leases that one kind of fence stands for."""
    return Leases(kind)


def _is_ours(fence: Fence) -> bool:
    leases: LeaseTable | None = getattr(fence, "leases", None)
    return leases is None or ours_of(leases.table) is not None
