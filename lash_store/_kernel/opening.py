"""Opening database files: paths, private files, pragmas, WAL, and errors that say why not."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from dataclasses import dataclass, field
from typing import Final, TypedDict
from urllib.parse import quote

from lash_store._kernel import dialects, guard
from lash_store._kernel.checks import check_count, shown
from lash_store._kernel.connection import IN_MEMORY, StoreConnection, execute
from lash_store._kernel.ddl import Schema
from lash_store._kernel.dialects import Synchronous
from lash_store.clock import Clock, IdSource, RandomIds, SystemClock
from lash_store.errors import InvalidRecordError, StoreBusyError, StoreEmptyError, StoreOpenError

_opening = threading.Lock()
"""Held while a file is pre-created. Closing a descriptor drops every lock that this process
has on the file (K-OPEN-7), so no other thread may have opened it with SQLite by then."""

_CACHED_STATEMENTS: Final = 256
"""More than one store has statements, so none of them is ever parsed twice."""

_WAL_NAP_S: Final = 0.005


class OpenOptions(TypedDict, total=False):
    """How to open a store; every key has a default.

    ``read_only``        never write, create nothing (K-OPEN-2); default False
    ``busy_timeout_ms``  how long to wait for a lock, in milliseconds; default 15 000
    ``synchronous``      "NORMAL" (default) may lose the last commits at power loss, "FULL" none
    ``clock``            where the time comes from; default ``SystemClock()``
    ``ids``              where tokens come from; default ``RandomIds()``
    """

    read_only: bool
    busy_timeout_ms: int
    synchronous: Synchronous
    clock: Clock
    ids: IdSource


@dataclass(frozen=True)
class Settings:
    """The options of one open store, checked and with their defaults."""

    read_only: bool = False
    busy_timeout_ms: int = 15_000
    synchronous: Synchronous = "NORMAL"
    clock: Clock = field(default_factory=SystemClock)
    ids: IdSource = field(default_factory=RandomIds)

    def __post_init__(self) -> None:
        if check_count("busy_timeout_ms", self.busy_timeout_ms) >= 2**31:
            raise InvalidRecordError(
                "busy_timeout_ms", shown(self.busy_timeout_ms), "SQLite takes less than 2**31"
            )
        if self.synchronous not in ("NORMAL", "FULL"):
            raise InvalidRecordError(
                "synchronous", shown(self.synchronous), "must be NORMAL or FULL"
            )


class Openings:
    """The connections that are being opened, which a fork waits for.

    One that is half open is on no list yet, and the child would carry it over unseen.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self._paused = False

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._paused)
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def pause(self, timeout_s: float) -> None:
        """Let none begin, and wait for those that have begun, for `timeout_s` seconds at most."""
        with self._changed:
            self._paused = True
            self._changed.wait_for(lambda: self._count == 0, timeout_s)

    def resume(self) -> None:
        """Let them begin again."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()


def resolve(path: str | os.PathLike[str] | None) -> str:
    """Return the real path of a database file, or ``:memory:`` for None.

    The real path, because the sidecars of one file must not depend on the link it was opened by.
    """
    if path is None:
        return IN_MEMORY
    try:
        name = os.fspath(path)
    except TypeError as error:
        raise StoreOpenError(shown(path), f"it is no path: {error}") from error
    if not isinstance(name, str) or not name or "\0" in name:
        raise StoreOpenError(str(name), "a path is a non-empty str without NUL")
    if name == IN_MEMORY:
        raise StoreOpenError(name, "an in-memory store is opened with path=None")
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise StoreOpenError(ascii(name), "a path that the file system can't spell") from error
    return os.path.realpath(name)


def open_connection(path: str, settings: Settings, *, read_only: bool) -> StoreConnection:
    """Open one connection on the resolved `path` and give it its settings."""
    if path == IN_MEMORY and read_only:
        raise StoreOpenError(path, "a new in-memory store that can only be read holds nothing")
    if sqlite3.sqlite_version_info < dialects.MINIMUM_SQLITE:
        minimum = ".".join(map(str, dialects.MINIMUM_SQLITE))
        raise StoreOpenError(
            path, f"SQLite {sqlite3.sqlite_version} has no RETURNING; {minimum} or newer is needed"
        )
    if path != IN_MEMORY and not read_only:
        _create_private_file(path)
    connection = _connect(path, settings, read_only=read_only)
    try:
        for setting in dialects.connection_settings(
            busy_timeout_ms=settings.busy_timeout_ms, synchronous=settings.synchronous
        ):
            execute(connection, setting)
    except sqlite3.Error as error:
        connection.really_close()
        raise open_error(path, error, waited_ms=settings.busy_timeout_ms) from error
    return connection


def prepare_file(connection: StoreConnection, schema: Schema, settings: Settings) -> None:
    """Check the file, enter WAL, and initialise the file if it is empty.

    What is refused is refused before anything is written, the journal mode included.
    """
    path = connection.path
    try:
        is_new = guard.needs_initialising(schema, guard.read_catalogue(connection), path)
        enter_wal(connection, path, settings.busy_timeout_ms)
        if is_new:
            _initialise(connection, schema)
    except sqlite3.Error as error:
        raise open_error(path, error, waited_ms=settings.busy_timeout_ms) from error


def check_file(connection: StoreConnection, schema: Schema) -> None:
    """Check the file of a read-only store."""
    try:
        is_new = guard.needs_initialising(schema, guard.read_catalogue(connection), connection.path)
    except sqlite3.Error as error:
        raise open_error(connection.path, error) from error
    if is_new:
        raise StoreEmptyError(
            connection.path,
            f"it is empty: open it once for writing, to make it a {schema.kind} store",
        )


def open_error(
    path: str, error: sqlite3.Error | OSError, *, waited_ms: int = 0
) -> StoreOpenError | StoreBusyError:
    """Say why `path` can't be opened, where SQLite says "unable to open database file"."""
    if isinstance(error, sqlite3.Error) and dialects.is_busy(error):
        return StoreBusyError(path, waited_ms)
    if isinstance(error, OSError):
        return StoreOpenError(path, _reason_from_path(path) or error.strerror or str(error))
    code = dialects.primary_code(error)
    if code == sqlite3.SQLITE_NOTADB:
        return StoreOpenError(path, "it is a file, but no SQLite database")
    if code == sqlite3.SQLITE_CANTOPEN:
        return StoreOpenError(
            path, _reason_from_path(path) or _reason_from_file(path) or str(error)
        )
    return StoreOpenError(path, str(error))


def _reason_from_path(path: str) -> str | None:
    if os.path.isdir(path):
        return "it is a folder"
    parent = os.path.dirname(path)
    return None if os.path.isdir(parent) else f"its folder {parent!r} does not exist"


def _reason_from_file(path: str) -> str | None:
    if not os.path.exists(path):
        return "there is no such file"
    return None if os.access(path, os.R_OK | os.W_OK) else "no permission to read and write it"


def _create_private_file(path: str) -> None:
    """Make the file, owner-only, unless it is there; SQLite's sidecars take over its mode."""
    with _opening:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            pass  # and it was not opened: O_EXCL fails first
        except OSError as error:
            raise open_error(path, error) from error


def _connect(path: str, settings: Settings, *, read_only: bool) -> StoreConnection:
    # mode=rw: the file is there, and if it has just been deleted it must not come back unseen.
    mode = "memory" if path == IN_MEMORY else "ro" if read_only else "rw"
    uri = IN_MEMORY if path == IN_MEMORY else f"file:{quote(os.fsencode(path))}?mode={mode}"
    try:
        connection = sqlite3.connect(
            uri,
            uri=True,
            factory=StoreConnection,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_CACHED_STATEMENTS,
            timeout=settings.busy_timeout_ms / 1000,
        )
    except sqlite3.Error as error:
        raise open_error(path, error) from error
    connection.adopt(path, busy_timeout_ms=settings.busy_timeout_ms)
    return connection


def enter_wal(connection: sqlite3.Connection, path: str, busy_timeout_ms: int) -> None:
    """Switch to WAL; SQLite does not wait for that, so the waiting is done here.

    A database in memory keeps its own journal mode.
    """
    started_s = time.monotonic()
    while True:
        try:
            mode = execute(connection, dialects.ENTER_WAL).fetchone()[0]
        except sqlite3.Error as error:
            if not dialects.is_busy(error):
                raise
            waited_s = time.monotonic() - started_s
            if waited_s * 1000 >= busy_timeout_ms:
                raise StoreBusyError(path, round(waited_s * 1000)) from error
            time.sleep(_WAL_NAP_S)
        else:
            if mode not in ("wal", "memory"):
                raise StoreOpenError(path, f"WAL is not possible here, only {mode!r}")
            return


def _initialise(connection: StoreConnection, schema: Schema) -> None:
    connection.begin(dialects.BEGIN_WRITE)
    try:
        # Again under the write lock: another process may have been first.
        guard.ensure_schema(connection, schema, connection.path)
    except BaseException:
        connection.end(dialects.ROLLBACK)
        raise
    connection.end(dialects.COMMIT)


def _renew_lock() -> None:
    global _opening  # noqa: PLW0603 # reason: the thread that held it does not exist in the child
    _opening = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
