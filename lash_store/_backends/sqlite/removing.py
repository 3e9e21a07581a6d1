"""Removing a database, and all that stands beside it."""

import os
import sqlite3
from contextlib import closing, suppress
from time import monotonic, sleep
from typing import Final

from lash_store._backends.sqlite import dialect, forking
from lash_store._backends.sqlite.driver import is_busy, primary_code
from lash_store._backends.sqlite.files import (
    QUEUE_SUFFIX,
    SIDECARS,
    is_taken,
    is_there,
    open_error,
)
from lash_store.errors import StoreBusyError

_CLOSING_S: Final = 0.1
"""How long a thread of the library may take to close what was dropped just now."""

_LOOK_AGAIN_S: Final = 0.002


def remove_database(path: str) -> bool:
    """Remove a database and everything beside it; tell whether there was one.

    Raises StoreBusyError, and removes nothing, while another connection, in this process or
    another, has the file in use.
    """
    if not is_there(path):
        return False  # what stands beside it may be in use by who has opened it before it was moved
    _check_unused(path, monotonic())
    # The database last: what stands beside a file that is there is never a stranger's. And where it is, not
    # where a link to it is, which goes as well.
    file = os.path.realpath(path)
    queues = {f"{base}{QUEUE_SUFFIX}" for base in (path, file)}
    sidecars = [f"{base}{suffix}" for base in (path, file) for suffix in SIDECARS]
    for each in (*sidecars, file, path):
        if each in queues and is_taken(each):
            continue  # a database of somebody's that is called so
        with suppress(FileNotFoundError):
            os.unlink(each)
    return True


def _check_unused(path: str, since_s: float) -> None:
    """Leave WAL: SQLite lets only the one connection that there is do that, and waits for no other."""
    try:
        with (
            forking.Opening(),
            closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection,
        ):
            try:
                connection.execute(dialect.LEAVE_WAL)
            except sqlite3.DatabaseError as error:
                if primary_code(error) != sqlite3.SQLITE_CORRUPT:
                    raise
                connection.execute(dialect.BEGIN_ALONE)  # of what is malformed that can be asked
    except sqlite3.Error as error:
        if is_busy(error):
            waited_s = monotonic() - since_s
            if waited_s >= _CLOSING_S:
                what_for = "whoever has it open, in this process or another, to close it"
                raise StoreBusyError(path, round(waited_s * 1000), what_for) from error
            sleep(_LOOK_AGAIN_S)
            _check_unused(path, since_s)
            return
        if primary_code(error) not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise open_error(path, error) from error
