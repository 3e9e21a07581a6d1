"""How a consumer's transaction on a configured engine ends, and what its connection is left as."""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from sqlalchemy import Connection

from lash_store._backends.beginning import BEGUN, nothing_kept
from lash_store._backends.sqlite import dialect
from lash_store._backends.sqlite.begun import Begun, path_of
from lash_store._backends.sqlite.keys import check_not_turned_off
from lash_store._kernel.logs import tell
from lash_store._kernel.sharing import SCOPES

INFO_COMPARED: Final = "lash_store_compared"
INFO_LEVEL: Final = "lash_store_isolation_level"
INFO_READING: Final = "lash_store_reading"
_INFO_COMMITTING: Final = "lash_store_committing"


def committed(connection: Connection) -> None:
    """Refuse a COMMIT that would keep nothing, before it is sent; else have it followed by what was to be noted."""
    begun = BEGUN.get(connection)
    is_kept = begun is None or not (begun.joined and begun.is_over)
    end(connection)
    if not is_kept:
        raise nothing_kept(path_of(connection))
    if begun is not None:
        connection.info[_INFO_COMMITTING] = begun


def commit_kept(commit: Callable[[Any], None], dbapi: Any) -> None:
    """Commit as the dialect does, and note then what was to be noted of the transaction.

    What a COMMIT refuses, for a deferred key say, SQLite leaves open, with its lock: it is undone,
    as SQLAlchemy takes it to have ended.
    """
    begun: Begun | None = dbapi.info.pop(_INFO_COMMITTING, None)
    try:
        commit(dbapi)
    except sqlite3.Error:
        if begun is not None:
            with suppress(sqlite3.Error):
                dbapi.rollback()
        raise
    if begun is not None:
        dbapi.info.setdefault(INFO_COMPARED, {}).update(begun.compared)
        tell(begun.notes)


def stay_inside(connection: Connection, _: Any, statement: str, *__: Any) -> None:
    """Keep a statement from being executed outside of its transaction, which SQLite has rolled back.

    It does that on some errors, of a full disk, a statement that is interrupted, INSERT OR ROLLBACK; what came
    then would commit by itself, statement by statement.
    """
    begun = BEGUN.get(connection)
    if not isinstance(begun, Begun):
        return
    if not begun.is_over:
        # Its owner's own COMMIT: what follows is meant to be outside.
        begun.is_left = dialect.is_control(statement)
        check_not_turned_off(statement)
    elif not begun.is_left:
        if begun.joined:
            raise nothing_kept(path_of(connection))
        begun.begin_anew()


def give_back(dbapi: Any, record: Any) -> None:
    """Leave a connection as it was to whoever has it of the pool next: not all of its engines need be configured."""
    raw = getattr(getattr(dbapi, "driver_connection", None), "_conn", dbapi)
    if isinstance(raw, sqlite3.Connection) and INFO_LEVEL in record.info:
        with suppress(sqlite3.Error):  # it is closed, or another thread's
            if record.info.pop(INFO_READING, False):  # its snapshot was dropped
                raw.execute(dialect.READ_ONLY_OFF)
            raw.isolation_level = record.info[INFO_LEVEL]


def compare_again(connection: Connection, *_: Any) -> None:
    """Forget what was compared in a savepoint that is undone, with what was made there."""
    begun = BEGUN.get(connection)
    if begun is not None:
        begun.compared.clear()


def end(connection: Connection) -> None:
    """Let every Tx in it know that it is over, and the connection be as it was."""
    begun = BEGUN.pop(connection, None)
    if not connection.invalidated:
        connection.info.pop(SCOPES, None)  # or what runs in AUTOCOMMIT next would be about them
    if begun is None:
        return
    for joined in begun.joined:
        if joined.standing is not None:
            joined.standing.abandon()
    if begun.mode == "read" and not connection.invalidated:
        connection.info.pop(INFO_READING, None)
        begun.raw.execute(dialect.READ_ONLY_OFF)
