"""A consumer's transaction on SQLite, as the connection remembers it until it ends."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from threading import current_thread
from typing import Any, Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.util import await_only

from lash_store._backends.beginning import BEGUN, Mode
from lash_store._backends.sqlite import dialect, guard, opened
from lash_store._kernel.logs import Note
from lash_store._kernel.sharing import Sharing
from lash_store.errors import NestedTransactionError, NotConfiguredError

R = TypeVar("R")

INFO_PATH: Final = "lash_store_path"
"""Where a connection has its file's path."""

_LEGACY_CONTROL: Final = -1
"""What `autocommit` is where the driver begins nothing that it was not told to: sqlite3.LEGACY_TRANSACTION_CONTROL."""


class Begun:
    """The record of one transaction of a consumer: how it began, and who has joined it."""

    def __init__(
        self, raw: sqlite3.Connection, mode: Mode, sharing: Sharing, path: str | None
    ) -> None:
        self.raw = raw
        self.path = path
        """The file that it is on, as the stores call it."""

        self.mode = mode
        self.sharing = sharing
        self.joined: list[Any] = []
        self.notes: list[Note] = []
        self.noted: dict[str, int] = {}
        """How many of these there were as each savepoint of the application's began."""

        self.savepoints: list[str] = []
        self.compared: guard.Compared = {}
        """What was compared in it, and is known of the database once it is committed."""

        self.thread = current_thread().name
        """Which thread has begun it, as long as another may wait for its end."""

        self.is_left = False
        """Whether its owner has sent what ends it: COMMIT, by its own hand."""

        self.was_undone = False
        """Whether another one stands in its place: SQLite has rolled it back."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended before its end: SQLite has rolled it back, or its connection was closed."""
        try:
            return self.was_undone or not self.raw.in_transaction
        except sqlite3.ProgrammingError:  # closed, as SQLAlchemy's invalidate() does
            return True

    def begin_anew(self) -> None:
        """Begin another in its place, as the driver would have, which no Tx joins."""
        if not self.raw.in_transaction:
            self.was_undone = True
            self.raw.execute(dialect.BEGIN_READ)


def own_transaction(path: str) -> list[str]:
    """Say, for a StoreBusyError, which transaction of the application's own, in this process, writes to the file at `path` now, if any does."""
    for begun in _all_begun():
        is_here = isinstance(begun, Begun) and begun.path == path
        if is_here and begun.mode == "write" and not begun.is_over:
            what = "its lock, which a transaction of this process's own engine has, begun in the thread "
            return [f"{what}{begun.thread!r}: what is to be done within that joins it, by on()"]
    return []


def _all_begun() -> list[Any]:
    while True:
        try:
            return list(BEGUN.values())
        except RuntimeError:  # another thread has begun one meanwhile
            continue


def check_no_block_here(connection: Connection, raw: sqlite3.Connection) -> None:
    """Raise NestedTransactionError inside a store's transaction of this thread on the file of `connection`.

    Which has SQLite's lock: whoever waits for it here would wait for itself. Of asyncio's tasks another
    one may be in it.
    """
    if connection.dialect.is_async:
        return
    path = connection.info[INFO_PATH] if INFO_PATH in connection.info else file_of(raw)
    for prefix in ("", *opened.prefixes) if path is not None else ():
        store = opened.databases.get(opened.registered_as(str(path), prefix))
        if store is not None and store.is_written_here:
            raise NestedTransactionError(
                f"this thread is inside a transaction of a store's on {path!r} already, which would have to end "
                "first: use its `tx.connection`, which is in that transaction"
            )


def check_control(
    connection: Connection, raw: sqlite3.Connection, refused: tuple[bool, ...] = (True, False)
) -> None:
    """Refuse a connection whose driver was told to control transactions in its newer way (Python 3.12).

    With True its `commit()` and `rollback()` do nothing, with False it is always in a transaction.
    """
    try:
        control = getattr(raw, "autocommit", _LEGACY_CONTROL)
    except sqlite3.ProgrammingError:  # it is for one thread alone, and no Tx joins it
        return
    if control in refused:
        raise NotConfiguredError(
            f"{connection!r} was made with autocommit={control!r}, in which SQLAlchemy's transactions "
            "are none: leave it out of `connect_args`, or make it sqlite3.LEGACY_TRANSACTION_CONTROL"
        )


def file_of(raw: sqlite3.Connection) -> str | None:
    """Return what file a connection is on, as the stores call it; None for one in memory."""
    files = [file for _, name, file in raw.execute(dialect.FILES) if name == "main"]
    return os.path.realpath(files[0]) if files and files[0] else None


def path_of(connection: Connection) -> str:
    """Return what a consumer's database is called."""
    known: str | None = connection.info.get(INFO_PATH)
    return known or connection.engine.url.database or "the database"


def raw_of(connection: Connection) -> sqlite3.Connection:
    """Return the driver's connection, which aiosqlite keeps in a thread of its own."""
    dbapi: Any = connection.connection.dbapi_connection
    raw = getattr(getattr(dbapi, "driver_connection", None), "_conn", dbapi)
    if not isinstance(raw, sqlite3.Connection):
        raise NotConfiguredError(f"{raw!r} is no sqlite3 connection")
    return raw


def in_its_thread(connection: Connection, function: Callable[[], R]) -> R:
    """Call what may wait for a lock: in aiosqlite's thread, while the event loop goes on."""
    dbapi: Any = connection.connection.dbapi_connection
    driver = getattr(dbapi, "driver_connection", None)
    if driver is None:
        return function()
    found: R = await_only(driver._execute(function))  # noqa: SLF001 # reason: tested by name
    return found


def for_any_thread(_: Any, __: Any, ___: Any, parameters: dict[str, Any]) -> None:
    """Let a new connection be used in the thread of the event loop, where a Tx on it is."""
    parameters["check_same_thread"] = False


def undo(dbapi: Any, _: Any, __: BaseException | None) -> None:
    """Undo what an interrupt leaves on a connection, before SQLAlchemy closes that.

    A cursor that the interrupt's traceback holds would keep it, and the lock, until that is forgotten.
    """
    if isinstance(dbapi, sqlite3.Connection):
        with suppress(sqlite3.Error):
            dbapi.rollback()
