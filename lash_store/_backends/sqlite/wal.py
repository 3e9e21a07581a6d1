"""Keeping the WAL short while others read (K-WAL-1).

SQLite puts what stands in the WAL into the file every 1,000 pages, but lets the WAL begin anew only if
nobody reads from it at that moment. Where snapshots overlap there is no such moment, and it grows for as long
as they do. So whoever has the turn looks at it now and then, and once it is long, waits a little for
those who read from it: who comes then reads from the file, and is not in the way.

Nor does the WAL begin anew if another process commits while SQLite puts it into the file, for which it
does not take the write lock; and then it does so behind every COMMIT, and syncs twice. Where several
processes never rest, that was nearly every time. So beside others a writer does it by itself, under the
write lock, when the WAL has those 1,000 pages.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final

from lash_store._backends.sqlite import dialect
from lash_store._backends.sqlite.driver import StoreCursor, unobserved
from lash_store._backends.sqlite.files import IN_MEMORY, WAL_SUFFIX
from lash_store._kernel.logs import Note, long_wal
from lash_store._kernel.posix import require_systems_own

if TYPE_CHECKING:
    from lash_store._backends.sqlite.connection import StoreConnection

LONG: Final = 16 << 20
"""How many bytes are too many: four times what SQLite lets stand where nobody reads."""

LOOK_S: Final = 0.1

_MANY_PAGES: Final = 1_000
"""When a writer beside others puts them into the file: as many as SQLite lets stand."""

_LOOK_BESIDE_OTHERS_S: Final = 0.005
_WAITS_S: Final = (0.1, 0.2, 0.4)
"""How long writers wait for those who read, and then, if it was in vain: nobody writes meanwhile."""

_TRY_MS: Final = 10
"""How long SQLite waits by itself: it goes on waiting for a place that others have taken since."""

_HEADER: Final = 32
_PAGE_HEADER: Final = 24
"""How many bytes stand before all pages, and before each: SQLite's format of a WAL."""

_PAUSE: Final = 10
"""How many times as long as it has waited in vain it goes on before it waits again."""


class Wal:
    """The WAL of one open database."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = os.fsencode(path + WAL_SUFFIX)
        self.due_s = inf if path == IN_MEMORY else 0.0
        """When to look next, on the monotonic clock."""

        self._measure_s = 0.0
        """When to see next how long its file is."""

        self._failed = 0
        self._told = 0
        """How long it was when somebody was told, since it was short."""

        self._stuck_at: int | None = None
        """How many of its pages were in the file when it was waited for in vain."""

    def take_over(self, writer: StoreConnection) -> None:
        """Put it into the file by :meth:`shorten` from now on: another process writes as well."""
        if writer.folds_by_itself:
            unobserved(writer.own_cursor, dialect.FOLD_WHEN_TOLD)
            writer.folds_by_itself = False
            self.due_s = 0.0

    def shorten(self, writer: StoreConnection, *, beside_others: bool) -> list[Note]:
        """Let it begin anew if it is long, between two transactions; return what is to be logged."""
        now_s = monotonic()
        if not writer.folds_by_itself:
            self._fold(writer, beside_others=beside_others)
        notes: list[Note] = []
        if now_s >= self._measure_s:
            self._measure_s = now_s + LOOK_S
            notes = self._measured(writer)
        self.due_s = self._measure_s if writer.folds_by_itself else now_s + _LOOK_BESIDE_OTHERS_S
        return notes

    def _measured(self, writer: StoreConnection) -> list[Note]:
        try:
            size = os.stat(self._file).st_size
        except OSError as error:
            require_systems_own(error)
            return []  # the next BEGIN says what has become of the file
        if size < LONG:
            self._failed, self._told, self._stuck_at = 0, 0, None
        elif not self._begin_anew(writer) and size >= 4 * self._told:
            self._told = size
            return [long_wal(self._path, size)]
        return []

    def _fold(self, writer: StoreConnection, *, beside_others: bool) -> None:
        """Put it into the file if it is long; leave that to SQLite again once nobody else writes."""
        with suppress(sqlite3.Error):  # not the caller's affair: all is committed, and in the WAL
            if not beside_others:
                unobserved(writer.own_cursor, dialect.FOLD_BY_ITSELF)
                writer.folds_by_itself = True
            elif self._has(_MANY_PAGES):
                # Most of it while others write, and under the lock what they have written meanwhile.
                unobserved(writer.own_cursor, dialect.FOLD_WAL)
                unobserved(writer.own_cursor, dialect.FOLD_WHOLE_WAL)

    def _has(self, pages: int) -> bool:
        """Tell whether so many stand in it: its file may be longer than what was written since it began.

        Of a page that is of this time the salt is the header's. No lock is on that file, to be dropped
        by closing it.
        """
        with suppress(OSError), open(self._file, "rb", buffering=0) as file:
            header = file.read(_HEADER)
            size = int.from_bytes(header[8:12], "big")
            file.seek(_HEADER + (pages - 1) * (_PAGE_HEADER + size))
            last = file.read(_PAGE_HEADER)
            return len(last) == _PAGE_HEADER and last[8:16] == header[16:24]
        return False

    def _begin_anew(self, writer: StoreConnection) -> bool:
        """Put all into the file and cut the WAL off; False if somebody reads from it all the time."""
        cursor, wait_s = writer.own_cursor, _WAITS_S[min(self._failed, len(_WAITS_S) - 1)]
        ((before_ms,),) = unobserved(cursor, dialect.BUSY_TIMEOUT)
        try:
            ((_, _, in_file),) = unobserved(cursor, dialect.FOLD_WAL)
            if in_file != self._stuck_at:  # or the same snapshot still is in the way
                unobserved(cursor, dialect.busy_timeout(_TRY_MS))
                is_busy, in_file = _cut(cursor, in_file, monotonic() + wait_s)
                if not is_busy:
                    self._failed, self._stuck_at = 0, None
                    return True
                self._stuck_at = in_file
                self._failed += 1
        except sqlite3.Error:
            self._failed += 1  # not the caller's affair: all is committed, and in the WAL
        finally:
            unobserved(cursor, dialect.busy_timeout(before_ms))
        self._measure_s = monotonic() + wait_s * _PAUSE
        return False


def _cut(cursor: StoreCursor, in_file: int, until_s: float) -> tuple[int, int]:
    """Try to cut the WAL off until then; return whether somebody was in the way, and how much is in the file."""
    is_busy = 1
    while is_busy and monotonic() < until_s:
        ((is_busy, _, in_file),) = unobserved(cursor, dialect.CUT_WAL)
    return is_busy, in_file
