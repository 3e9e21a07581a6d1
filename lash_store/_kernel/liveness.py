"""When a claim on something is live: the one rule behind every lease, queue claim and effect claim.

A claim is live while its token is present and its end lies in the future. The end is exclusive:
at ``expires_at_ms`` itself the claim is over. The rule is written down twice, once for SQL and
once for a row that was read, and nowhere else.
"""

from typing import Any, ClassVar, Protocol

import msgspec
from sqlalchemy import Column, ColumnElement, and_, or_

from lash_store._kernel.checks import check_time
from lash_store.clock import MAX_INT, IdSource
from lash_store.errors import InvalidRecordError


class Liveness(msgspec.Struct, frozen=True, eq=False):
    """The two columns of a table that say whether somebody's claim on a row is live."""

    token: Column[str | None]
    expires_at_ms: Column[int]

    def is_over(self, *, now_ms: int) -> ColumnElement[bool]:
        """The end has come: the one comparison that makes it exclusive."""
        return self.expires_at_ms <= (
            now_ms if isinstance(now_ms, ColumnElement) else check_time("now_ms", now_ms)
        )

    def is_live(self, *, now_ms: int) -> ColumnElement[bool]:
        """Somebody holds the row at `now_ms`."""
        return and_(self.token.is_not(None), ~self.is_over(now_ms=now_ms))

    def is_free(self, *, now_ms: int) -> ColumnElement[bool]:
        """Nobody holds the row at `now_ms`: never claimed, given back, or run out.

        The opposite of ``is_live``, and true for the missing row of an outer join as well.
        """
        return or_(self.token.is_(None), self.is_over(now_ms=now_ms))


class Claimed(Protocol):
    """A row that was read, as far as it says whether its claim is live."""

    @property
    def token(self) -> str | None:
        """What proves the claim; None if there is none."""

    @property
    def expires_at_ms(self) -> int:
        """When it is over, exclusive, milliseconds since the epoch."""


def is_live(row: Claimed, *, now_ms: int) -> bool:
    """Tell what :meth:`Liveness.is_live` tells, of a row that was read."""
    return row.token is not None and not is_over(row.expires_at_ms, now_ms=now_ms)


def is_over(expires_at_ms: int, *, now_ms: int) -> bool:
    """Tell what :meth:`Liveness.is_over` tells, of an end that is known."""
    return expires_at_ms <= now_ms


def end_of_term(now_ms: int, ttl_ms: int) -> int:
    """Return `now_ms + ttl_ms`, which was checked (K-LEASE-7); a sum too large saturates."""
    end_ms = now_ms + ttl_ms
    return min(end_ms, MAX_INT)


def new_token(ids: IdSource) -> str:
    """Draw a token; InvalidRecordError, before anything is written, for one that no fence can have."""
    token = ids.new_token()
    check_token("ids.new_token()", token)
    return token


def check_token(field: str, token: object) -> None:
    """Raise InvalidRecordError unless `token` can prove a claim: non-empty ASCII text without NUL."""
    if not isinstance(token, str) or not token or not token.isascii() or "\0" in token:
        # The type alone: a token that is no token may still be a secret.
        why = "must be non-empty ASCII text without NUL"
        raise InvalidRecordError(field, type(token).__name__, why)


class Guarded:
    """A record that holds a token: it is shown by its first characters only, wherever it is shown."""

    __slots__ = ()

    shown: ClassVar[tuple[str, ...]]
    """The attributes that are shown, in order."""

    def __repr__(self) -> str:
        listed = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({listed})"

    __str__ = __repr__

    def __rich_repr__(self) -> Any:
        """Show the same to rich."""
        for name in self.shown:
            value = getattr(self, name)
            yield name, f"{str(value)[:4]}..." if name == "token" and value is not None else value
