"""The lease protocol.

What a lease is
    A row that says who alone may act on something (a session, a process) and until when.
    The row belongs to the thing, not to the holder: it is made by the first claim and stays.

What identifies a term
    Four values, together the *fence*: the key, the owner id, a random token and the fencing
    number. Acting on a term takes all four. The owner id alone is not enough, because a
    worker that restarts under its old name is not the executor that held the term before;
    the number alone is not enough, because it can be guessed.

Who is authoritative
    The row, read inside the transaction that acts. Nobody may act on what they remember: a
    holder that was paused for a minute remembers a term that someone else has now.

When a term is live
    While its token is present and ``expires_at_ms > now_ms``. The end is exclusive: at
    ``expires_at_ms`` itself the term is over. ``now_ms`` is the clock of the transaction
    that asks, read after it got the write lock, so no wait for a lock can stretch a term.

What happens to the fencing number
    It grows by one with every new term and never otherwise. Release and expiry keep it, and
    so do re-opening the file and the death of every process. A higher number therefore
    always means a later term, for outside systems too: whoever passes the number along with
    each write lets the receiver refuse a smaller one.

How each call can end
    ``claim``    free, released or expired: a new term. Live with somebody else: a refusal
                 *value* that names the holder, because losing that race is normal. Live with
                 the same owner: the table decides (see ``LeaseTable.reentrant``).
    ``renew``    the exact live term: its end moves. Anything else is an error, even if
                 nobody took over yet: the holder has already acted without a lease.
    ``release``  the exact term, live or expired: owner, token and times are cleared. Anything
                 else is a no-op that says so, because the caller wanted to be rid of it.
    A write      is fenced by ``fence.holds(now_ms=…)`` in its own WHERE, or by
                 ``tx.require(fence)`` in its transaction.

What a crash does
    Nothing: the term runs out by itself, and the next claim gets a higher number. If the
    dead holder turns out to be alive after all, its fence no longer holds anywhere.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, Protocol, TypeVar, overload

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Select,
    Table,
    Update,
    and_,
    case,
    exists,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from lash_store._kernel.checks import check_count, check_name, shown
from lash_store._kernel.dialects import upsert_insert
from lash_store._kernel.extras import check_leased
from lash_store._kernel.liveness import Guarded, Liveness, check_token
from lash_store._kernel.prepared import prepare
from lash_store.clock import MAX_INT
from lash_store.errors import InvalidRecordError


class Timed(Protocol):
    """A Tx, as far as it says what time it is."""

    @property
    def now_ms(self) -> int:
        """The clock's one reading in its transaction, in milliseconds since the epoch."""


class Fence(Guarded, msgspec.Struct, frozen=True):
    """The four values that prove one term of ownership; see the head of this module.

    `key` is the id of what is leased, `owner_id` the holder's own name for itself, `token` a
    secret and `fencing_token` the number of the term, 1 for the first.
    """

    leases: ClassVar[LeaseTable]
    """The table that the term stands in."""

    shown: ClassVar = ("key", "owner_id", "token", "fencing_token")

    key: str
    owner_id: str
    token: str
    fencing_token: int

    def __post_init__(self) -> None:
        check_name("fence.key", self.key)
        check_name("fence.owner_id", self.owner_id)
        check_count("fence.fencing_token", self.fencing_token)
        check_token("fence.token", self.token)

    @overload
    def holds(self, tx: Timed) -> ColumnElement[bool]: ...
    @overload
    def holds(self, *, now_ms: int) -> ColumnElement[bool]: ...
    def holds(self, tx: Timed | None = None, *, now_ms: int | None = None) -> ColumnElement[bool]:
        """Return the SQL predicate "this term is live" (K-LEASE-6), at the time of `tx` or `now_ms`.

        An EXISTS over the lease table, for the WHERE of any statement in the same database:
        an UPDATE fenced by it changes no row once the term is lost. About the row it says nothing: name that too. Raises InvalidRecordError for
        a time in seconds, and unless one of the two is given.
        """
        if (tx is None) is (now_ms is None):
            raise InvalidRecordError("now_ms", shown(now_ms), "give either this or a Tx")
        at_ms: Any = now_ms if tx is None else getattr(tx, "now_ms", None)
        if at_ms is None:
            raise InvalidRecordError("tx", shown(tx), "must be a Tx, or what else has a now_ms")
        if not isinstance(getattr(self, "leases", None), LeaseTable):
            why = "must be of a class that names its table: `leases = LeaseTable(…)`"
            raise InvalidRecordError("fence", f"a {type(self).__name__}", why)
        return self.leases.holds(
            key=self.key,
            owner_id=self.owner_id,
            token=self.token,
            fencing_token=self.fencing_token,
            now_ms=at_ms,
        )


FenceT = TypeVar("FenceT", bound=Fence)


def check_fence(fence: object, kind: type[Fence]) -> None:
    """Raise InvalidRecordError unless `fence` is one of this kind: it may be for another table."""
    if not isinstance(fence, kind):
        # The type alone: a token in the place of its fence is still a secret.
        raise InvalidRecordError("fence", f"a {type(fence).__name__}", f"must be a {kind.__name__}")


class Lease(msgspec.Struct, Generic[FenceT], frozen=True):
    """A live term, as its holder has it.

    `fence` proves it; it holds until `expires_at_ms` (exclusive, milliseconds since the epoch).
    """

    fence: FenceT
    claimed_at_ms: int
    expires_at_ms: int

    @property
    def key(self) -> str:
        """The id of what is leased."""
        return self.fence.key

    @property
    def owner_id(self) -> str:
        """The holder's name for itself."""
        return self.fence.owner_id

    @property
    def fencing_token(self) -> int:
        """The number of the term: 1 for the first, and every later term's is higher."""
        return self.fence.fencing_token


class LeaseTerm(Guarded, msgspec.Struct, frozen=True, array_like=True):
    """A lease row as it stands: the current term, or what is left of the last one.

    Times are milliseconds since the epoch. Owner and token are None and the times 0 after a
    release; the fencing number is that of the last term.
    """

    shown: ClassVar = (
        "key",
        "owner_id",
        "token",
        "fencing_token",
        "claimed_at_ms",
        "expires_at_ms",
    )

    key: str
    owner_id: str | None
    token: str | None
    fencing_token: int
    claimed_at_ms: int
    expires_at_ms: int


class LeaseHeld(msgspec.Struct, frozen=True):
    """Somebody else holds the lease: the refusal *value* of a claim (K-LEASE-2).

    `owner_id` holds `key` until `expires_at_ms` (milliseconds since the epoch), as term number
    `fencing_token`; it may renew, so the time is the earliest at which a claim can succeed.
    """

    key: str
    owner_id: str
    fencing_token: int
    claimed_at_ms: int
    expires_at_ms: int


class LeaseTable:
    """The columns that the protocol needs, and the statements that it consists of.

    Every table that carries a lease has one of these; the order of its columns is its own. With
    `reentrant`, the live owner that claims again re-enters its term; without, it gets a new one. The first
    claim of a key makes its row: every other column is nullable or has a ``server_default``, which is
    ``FetchedValue()`` where a trigger fills it. The key is a text, unique by itself; owner and token are nullable
    texts, the numbers BigIntegers, NOT NULL. InvalidRecordError names a column that is not so.

    ``select_leases``, ``current_lease``, ``claim_lease``, ``renew_lease``, ``release_lease`` and
    ``release_live_lease`` are prepared statements: called, each gives its SQLAlchemy construct, to
    compose.
    """

    def __init__(
        self,
        table: Table[Any],
        *,
        key: Column[str],
        owner_id: Column[str | None],
        token: Column[str | None],
        fencing_token: Column[int],
        claimed_at_ms: Column[int],
        expires_at_ms: Column[int],
        reentrant: bool = False,
    ) -> None:
        check_leased(table, key, (owner_id, token), (fencing_token, claimed_at_ms, expires_at_ms))
        self.table, self.key, self.reentrant = table, key, reentrant
        self.owner_id, self.token, self.fencing_token = owner_id, token, fencing_token
        self.claimed_at_ms, self.expires_at_ms = claimed_at_ms, expires_at_ms
        self.liveness = Liveness(token, expires_at_ms)
        self.select_leases = prepare(self._select_leases)
        self.claim_lease = prepare(self._claim_lease)
        self.renew_lease = prepare(self._renew_lease)
        self.release_lease = prepare(self._release_lease)
        self.release_live_lease = prepare(self._release_live_lease)
        self.current_lease = prepare(self._current_lease)

    def is_live(self, *, now_ms: int) -> ColumnElement[bool]:
        """A condition on the table: somebody holds the lease at `now_ms`; the end is exclusive."""
        return self.liveness.is_live(now_ms=now_ms)

    def is_free(self, *, now_ms: int) -> ColumnElement[bool]:
        """A condition on the table: nobody holds it, never claimed, released or expired."""
        return self.liveness.is_free(now_ms=now_ms)

    def is_term(
        self, *, key: str, owner_id: str, token: str, fencing_token: int
    ) -> ColumnElement[bool]:
        """The row still carries this very term, live or expired."""
        return and_(
            self.key == key,
            # All four: the owner may have come back under its name, the number can be guessed,
            # and a token alone would let a restored backup revive a superseded term.
            self.owner_id == owner_id,
            self.token == token,
            self.fencing_token == fencing_token,
        )

    def is_live_term(
        self, *, key: str, owner_id: str, token: str, fencing_token: int, now_ms: int
    ) -> ColumnElement[bool]:
        """The row carries this very term, and it has not run out."""
        term = self.is_term(key=key, owner_id=owner_id, token=token, fencing_token=fencing_token)
        return and_(term, ~self.liveness.is_over(now_ms=now_ms))

    def holds(
        self, *, key: str, owner_id: str, token: str, fencing_token: int, now_ms: int
    ) -> ColumnElement[bool]:
        """Return an EXISTS that is true while the term is live, for any WHERE (K-LEASE-6)."""
        live = self.is_live_term(
            key=key, owner_id=owner_id, token=token, fencing_token=fencing_token, now_ms=now_ms
        )
        return exists().where(live)

    def _select_leases(self) -> Select[str, str | None, str | None, int, int, int]:
        """Every lease, live or not: key, owner id, token, fencing number, claimed-at, expires-at."""
        return select(*self._term())

    def _current_lease(self, *, key: str) -> Select[str, str | None, str | None, int, int, int]:
        """Read the row of one lease, live or not."""
        return self._select_leases().where(self.key == key)

    def _claim_lease(
        self, *, key: str, owner_id: str, token: str, now_ms: int, expires_at_ms: int
    ) -> ReturningInsert[str, str | None, str | None, int, int, int]:
        """Take the lease if it is free (K-LEASE-1), or as its live owner (see ``reentrant``).

        Returns the row of the term; no row while another owner is live (K-LEASE-2). One
        statement, so that no second claimant can stand between looking and taking.
        """
        fresh = upsert_insert(self.table).values(
            {
                self.key: key,
                self.owner_id: owner_id,
                self.token: token,
                self.fencing_token: 1,
                self.claimed_at_ms: now_ms,
                self.expires_at_ms: expires_at_ms,
            }
        )
        own = self.owner_id == owner_id
        return fresh.on_conflict_do_update(
            index_elements=[self.key],
            set_=self._reentered_term(fresh.excluded, now_ms=now_ms)
            if self.reentrant
            else self._new_term(fresh.excluded),
            # While somebody else is live no row changes, and none is returned.
            where=or_(self.is_free(now_ms=now_ms), own),
        ).returning(*self._term())

    def _renew_lease(
        self,
        *,
        key: str,
        owner_id: str,
        token: str,
        fencing_token: int,
        now_ms: int,
        expires_at_ms: int,
        ttl_ms: int,
    ) -> ReturningUpdate[str, str | None, str | None, int, int, int]:
        """Move the end of the exact live term (K-LEASE-3); no row comes back for any other.

        To `expires_at_ms`; or, if the clock was set back since the claim, so that `now_ms` is before
        it, to `ttl_ms` after the claim.
        """
        live = self.is_live_term(
            key=key, owner_id=owner_id, token=token, fencing_token=fencing_token, now_ms=now_ms
        )
        most = literal_column(str(MAX_INT), BigInteger())
        since_claim = case(  # a sum too large saturates, as in Python
            (self.claimed_at_ms > most - ttl_ms, most), else_=self.claimed_at_ms + ttl_ms
        )
        end = case((self.claimed_at_ms > now_ms, since_claim), else_=expires_at_ms)
        moved = update(self.table).where(live).values({self.expires_at_ms: end})
        return moved.returning(*self._term())

    def _release_lease(self, *, key: str, owner_id: str, token: str, fencing_token: int) -> Update:
        """End the exact term, live or expired, and keep its fencing number (K-LEASE-4)."""
        term = self.is_term(key=key, owner_id=owner_id, token=token, fencing_token=fencing_token)
        return update(self.table).where(term).values(self._cleared())

    def _release_live_lease(
        self, *, key: str, owner_id: str, token: str, fencing_token: int, now_ms: int
    ) -> Update:
        """End the exact live term; no row changes for any other: to require and release at once."""
        live = self.is_live_term(
            key=key, owner_id=owner_id, token=token, fencing_token=fencing_token, now_ms=now_ms
        )
        return update(self.table).where(live).values(self._cleared())

    def _cleared(self) -> dict[Any, Any]:
        return {self.owner_id: None, self.token: None, self.claimed_at_ms: 0, self.expires_at_ms: 0}

    def _term(
        self,
    ) -> tuple[
        Column[str], Column[str | None], Column[str | None], Column[int], Column[int], Column[int]
    ]:
        return (
            self.key,
            self.owner_id,
            self.token,
            self.fencing_token,
            self.claimed_at_ms,
            self.expires_at_ms,
        )

    def _new_term(self, offered: Any) -> dict[Any, Any]:
        return {
            self.owner_id: offered[self.owner_id.key],
            self.token: offered[self.token.key],
            self.fencing_token: self.fencing_token + 1,
            self.claimed_at_ms: offered[self.claimed_at_ms.key],
            self.expires_at_ms: offered[self.expires_at_ms.key],
        }

    def _reentered_term(self, offered: Any, *, now_ms: int) -> dict[Any, Any]:
        # The WHERE lets only a free lease or its own owner through, so "not free" means that
        # the owner re-enters: its term keeps token, number and start, and only the end moves.
        free = self.is_free(now_ms=now_ms)
        kept = {
            column: case((free, taken), else_=column)
            for column, taken in self._new_term(offered).items()
            if column is not self.owner_id
        }
        return {
            **kept,
            self.owner_id: offered[self.owner_id.key],
            self.expires_at_ms: offered[self.expires_at_ms.key],
        }
