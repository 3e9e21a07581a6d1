"""The locks of the server that writes take, before anything else (K-LOCK-1).

Advisory ones, of a transaction: whatever ends that, the loss of the connection too, frees them. A
lock is a number; what it is about is hashed into it, the schema and the prefix included, so that
deployments in one database are strangers. Two that have the same number by chance wait for each
other, and nothing worse.

The numbers of one kind of store stand before those of the next, so that whoever takes several in
their order, takes them kind by kind: as a consumer's block can, which asks for one kind after another.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, TypeAlias

from lash_store._backends.postgresql import dialect
from lash_store._kernel.schema import Schema
from lash_store.errors import StoreBusyError

Lock: TypeAlias = tuple[int, bool]
"""Its number, and whether it is shared."""

PATIENCE_MS: Final = 250
"""How long a call keeps its connection while it waits for a lock that another process has; then it
stands in line once more, so that others come to it."""

OPENING: Final = "opening"
"""What is locked while tables are made: inside of what a transaction has locked before."""

_IN_ORDER: Final = ("effect", "process", "session", "trigger", OPENING)
_BITS: Final = 60
_BACK: Final = re.compile("rollback", re.IGNORECASE)


class StillBlockedError(StoreBusyError):
    """What a call has to lock in the midst of its transaction was not to be had for as long as it may keep a connection.

    No caller sees it: the call stands in line once more.
    """


class Held(set[Lock]):
    """The locks that a transaction has, and those that it has lost to a savepoint.

    The server frees what was locked behind a savepoint when that is rolled back, and the transaction
    goes on: whoever is next to write has to lock it again (K-LOCK-1).
    """

    def __init__(self, first: Iterable[Lock] = ()) -> None:
        super().__init__(first)
        self._first = frozenset(self)
        self._lapsed: set[Lock] = set()

    @property
    def lapsed(self) -> list[Lock]:
        """What has to be locked again, in the order in which everybody takes locks."""
        return sorted(self._lapsed - self) if self._lapsed else []

    def note_rollback(self, sql: object) -> None:
        """Note what may be free again, after a statement that may have rolled back to a savepoint.

        Any in whose text the word stands: to lock once more what is locked still does no harm.
        """
        if _BACK.search(str(sql)):
            self._lapsed |= self - self._first
            self &= self._first


def locks_of(
    place: str, schema: Schema, scope: str, key: tuple[str, ...] | None
) -> tuple[Lock, ...]:
    """Return what a write transaction has to lock: of a session that, of another kind see ``locks``."""
    if schema.is_scoped:
        return ((number_of(place, schema.kind, scope), False),)
    kind = number_of(place, schema.kind)
    if key is None:
        return ((kind, False),)
    return ((kind, True), (number_of(place, schema.kind, *key), False)) if key else ((kind, True),)


def together(locks: Iterable[Lock]) -> tuple[Lock, ...]:
    """Return the locks of several, each once, in the order in which everybody takes them."""
    wanted: dict[int, bool] = {}
    for number, is_shared in locks:
        wanted[number] = wanted.get(number, True) and is_shared
    return tuple(sorted(wanted.items()))


_STATEMENT_TIMEOUT: Final = (
    "SELECT current_setting('statement_timeout'), set_config('statement_timeout', $1, true)"
)


def lock_if_need_be_waiting(cursor: Any, lock: Lock) -> bool:
    """Take a lock in a transaction that has begun; tell whether it was waited for.

    A role's own limit ends no such wait (K-LOCK-3), or its transaction would be over.
    """
    if cursor.execute(dialect.try_lock_statement(lock), prepare=False).fetchall()[0][0]:
        return False
    ((before, _),) = cursor.execute(_STATEMENT_TIMEOUT, ("0",)).fetchall()
    cursor.execute(dialect.lock_statement(lock), prepare=False)
    cursor.execute(_STATEMENT_TIMEOUT, (before,))
    return True


@lru_cache(maxsize=16_384)
def number_of(place: str, kind: str, *key: str) -> int:
    """Return the number of a lock, the same in every process, below 2**63 (K-LOCK-2)."""
    text = "\0".join(f"{len(word)}:{word}" for word in (place, kind, *key))
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return (_IN_ORDER.index(kind) << _BITS) + (int.from_bytes(digest, "big") >> (64 - _BITS))
