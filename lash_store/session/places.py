"""Where the sessions of a directory are: each in a file of a folder, or all in one database."""

import hashlib
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from sqlalchemy import delete, select, union

from lash_store._backends import (
    absolute,
    database_path,
    is_server,
    is_url,
    opened_apart,
    remove_database,
    server_name,
)
from lash_store._kernel.checks import check_kind, check_name, shown
from lash_store._kernel.options import OpenOptions
from lash_store._kernel.sharing import across_sessions
from lash_store._stores.tx import explained_on
from lash_store.errors import (
    CorruptRecordError,
    InvalidRecordError,
    StoreBusyError,
    StoreEmptyError,
    StoreOpenError,
)
from lash_store.session.folder_lock import FolderLock, explained, is_there
from lash_store.session.operations.meta import read_meta_row
from lash_store.session.records.meta import SessionMeta
from lash_store.session.statements import is_live
from lash_store.session.store import SessionStore
from lash_store.session.tables import SCHEMA, session_execution_leases, session_head, session_meta
from lash_store.session.tx import SessionTx

_LONGEST_NAME: Final = 80
_SUFFIX: Final = ".db"

Open = Callable[[str | Path], SessionStore]
"""Opens the store of the session that is asked for, at a path or by a URL."""


class SessionEntry(msgspec.Struct, frozen=True):
    """One session of a directory, as ``list()`` shows it; `meta` is None if none was saved.

    `file_name` is what the next page starts behind: the name of the session's file, or, in a
    shared database, its id.
    """

    file_name: str
    meta: SessionMeta | None


class Place(Protocol):
    """Where the sessions are."""

    @property
    def name(self) -> str:
        """What it is called."""

    def path_of(self, session_id: str) -> Path:
        """Return the path of a session's file; InvalidRecordError if it has none of its own."""

    def database_of(self, session_id: str) -> str:
        """Return what who opens a session has to wait for."""

    def make(self, session_id: str, open_store: Open) -> SessionStore:
        """Open a session's store, and make what is missing for it."""

    def find(self, session_id: str, open_store: Open) -> SessionStore | None:
        """Open a session's store; None, and nothing made, if there is none."""

    def delete(self, session_id: str) -> bool:
        """Remove all of a session; tell whether there was anything."""

    def list(self, after: str, limit: int) -> list[SessionEntry]:
        """Return the first `limit` sessions behind `after`, in order."""
        ...


class Folder:
    """A folder with a file for each session, and a lock for who makes or removes one."""

    def __init__(self, root: Path, options: OpenOptions, busy_timeout_ms: int) -> None:
        self._root = root
        self._lock = FolderLock(root, busy_timeout_ms)
        self._reading: OpenOptions = {**options, "read_only": True, "extras": "any"}
        self.name = str(root)

    def path_of(self, session_id: str) -> Path:
        """Return the path of a session's file; no id leads out of the folder (S-DIR-1)."""
        return self._root / file_name(session_id)

    def database_of(self, session_id: str) -> str:
        """Return its file."""
        return str(self.path_of(session_id))

    def make(self, session_id: str, open_store: Open) -> SessionStore:
        """Make the folder and the file, if they are missing, and open it."""
        path = self.path_of(session_id)
        make_folder(self._root)
        with self._lock.held(exclusive=False):
            return open_store(path)

    def find(self, session_id: str, open_store: Open) -> SessionStore | None:
        """Open a file that is there."""
        path = self.path_of(session_id)
        if not is_there(path):
            return None
        with self._lock.held(exclusive=False):
            # Again under the lock: it may have been deleted in the meantime.
            return open_store(path) if is_there(path) else None

    def delete(self, session_id: str) -> bool:
        """Remove a session's file and everything beside it."""
        path = self.path_of(session_id)
        if not is_there(self._root):
            return False
        with self._lock.held(exclusive=True), explained(path):
            return remove_database(str(path))

    def list(self, after: str, limit: int) -> list[SessionEntry]:
        """Look into one file after another."""
        page: list[SessionEntry] = []
        for name in (each for each in file_names(self._root) if each > after):
            if len(page) == limit:
                break
            entry = self._entry(name)
            page += [] if entry is None else [entry]
        return page

    def _entry(self, name: str) -> SessionEntry | None:
        path = self._root / name
        with self._lock.held(exclusive=False):  # or it might be another one by now, half made
            if not is_there(path):
                return None
            try:
                with (
                    opened_apart(),  # this thread may be inside a transaction on this very file
                    SessionStore.open(path, session_id="directory", **self._reading) as store,
                ):
                    return SessionEntry(name, store.load_meta())
            except StoreOpenError as error:
                if isinstance(error, StoreEmptyError) or not is_there(path):
                    return None
                raise


# What is done in a shared database is an operation each, as a store's are: they wait for no consumer's block.


def _has(name: str, tx: SessionTx) -> bool:
    mine = SessionTx.beside(tx, session_id=name)
    return mine.load_meta() is not None or mine.load_head() is not None


def _remove(path: str, tx: SessionTx) -> int:
    leases = session_execution_leases.c
    live = select(leases.lease_owner_id, leases.session_id, leases.lease_expires_at_ms)
    with explained_on(tx):
        # Of whatever session: one may have leases of others, by ``session_id=``.
        lease = tx.connection.execute(live.where(is_live(now_ms=tx.now_ms))).first()
    if lease is not None:
        owner_id, session_id, expires_at_ms = lease
        held = f"{owner_id!r} has the lease on {session_id!r} until {expires_at_ms} ms"
        raise StoreBusyError(path, 0, held)
    with explained_on(tx):  # those that refer to others first
        return sum(tx.connection.execute(delete(each)).rowcount for each in reversed(SCHEMA.tables))


def _listed(after: str, limit: int, tx: SessionTx) -> Any:
    with explained_on(tx):
        return tx.connection.execute(_entries(after, limit)).all()


class SharedDatabase:
    """One database in which each session has rows of its own."""

    def __init__(self, url: str, options: OpenOptions) -> None:
        self._url, self._options = url, options
        self._is_server = is_server(url)
        path = server_name(url) if self._is_server else database_path(url)
        if path is None:
            raise StoreOpenError(url, "a directory of sessions needs a database with a path")
        self.path = self.name = path

    def path_of(self, session_id: str) -> Path:
        """Refuse: no session has a file of its own."""
        check_name("session_id", session_id)
        raise InvalidRecordError("session_id", ascii(session_id), "has no file of its own here")

    def database_of(self, session_id: str) -> str:  # noqa: ARG002 # reason: all are in one
        """Return the database's URL."""
        return self._url

    def make(self, session_id: str, open_store: Open) -> SessionStore:  # noqa: ARG002 # reason: the store knows it
        """Open the database."""
        return open_store(self._url)

    def find(self, session_id: str, open_store: Open) -> SessionStore | None:
        """Open the database if there is anything of the session: its meta, or a head."""
        name = check_name("session_id", session_id)
        store = self._any(lambda: open_store(self._url))
        if store is None:
            return None
        try:
            is_known = store._handle.read("open_session", partial(_has, name))  # noqa: SLF001 # reason: its own store
        except BaseException:
            store.close()
            raise
        if is_known:
            return store
        store.close()
        return None

    def delete(self, session_id: str) -> bool:
        """Remove every row of a session, in one transaction; StoreBusyError under a live lease."""
        name = check_name("session_id", session_id)
        store = self._any(lambda: SessionStore.open(self._url, session_id=name, **self._options))
        if store is None:
            return False
        with store:
            removed: int = store._handle.write("delete_session", partial(_remove, store.path))  # noqa: SLF001 # reason: its own store
        return removed > 0

    def list(self, after: str, limit: int) -> list[SessionEntry]:
        """Read meta and heads of all sessions, in one statement."""
        options: OpenOptions = {**self._options, "read_only": True}
        store = self._any(lambda: SessionStore.open(self._url, session_id="directory", **options))
        if store is None:
            return []
        with store:
            rows: Any = store._handle.read("list_sessions", partial(_listed, after, limit))  # noqa: SLF001 # reason: its own store
        return [
            SessionEntry(check_owner(name), None if row[0] is None else read_meta_row(tuple(row)))
            for name, *row in rows
        ]

    def _any(self, open_store: Callable[[], SessionStore]) -> SessionStore | None:
        """Open the database; None, and nothing made, if it is not there, or holds no sessions."""
        if not self._is_server and not is_there(Path(self.path)):
            return None
        try:
            return open_store()
        except StoreEmptyError:
            return None


def check_owner(name: object) -> str:
    """Return whose a row is; CorruptRecordError if that is no text."""
    if not isinstance(name, str):
        raise CorruptRecordError("session_meta", shown(name), "what says whose it is is no text")
    return name


def _entries(after: str, limit: int) -> Any:
    metas, heads = across_sessions(session_meta), across_sessions(session_head)
    # Each by itself first: together, SQLite would read and sort all of them for each page.
    pages = [
        select(each.c.store)
        .where(each.c.store > after)
        .order_by(each.c.store)
        .limit(limit)
        .subquery()
        for each in (metas, heads)
    ]
    names = union(*[select(page.c.store) for page in pages]).subquery()
    columns = [metas.c[column.name] for column in session_meta.c if column.name != "singleton"]
    return (
        select(names.c.store, *columns)
        .outerjoin(metas, metas.c.store == names.c.store)
        .order_by(names.c.store)
        .limit(limit)
    )


def file_names(root: Path) -> list[str]:
    """Return the names of the files in a folder that may be sessions, in order."""
    if not is_there(root):
        return []
    with explained(root):
        return sorted(entry.name for entry in root.iterdir() if entry.suffix == _SUFFIX)


def file_name(session_id: str) -> str:
    """Return the name of a session's file: readable, and different for every id (S-DIR-1)."""
    check_name("session_id", session_id)
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", session_id).strip("_") or "session"
    digest = hashlib.sha256(session_id.encode()).hexdigest()[:16]
    return f"{readable[:_LONGEST_NAME]}-{digest}{_SUFFIX}"


def place_at(what: str, where: str | os.PathLike[str]) -> str | Path:
    """Return the URL of a database, or the folder that a path leads to now, wherever the process goes later.

    InvalidRecordError, by the name `what`, for another type; StoreOpenError for what is no path.
    """
    if is_url(where):
        url: str = absolute(where)
        return url
    check_kind(what, where, (str, os.PathLike))
    try:
        name = os.fspath(where)
        if not isinstance(name, str) or not name or "\0" in name:
            raise StoreOpenError(str(name), "a path is a non-empty str without NUL")
        if name == ":memory:":
            why = "there is no folder in memory: a test has one of its own, in tempfile.TemporaryDirectory()"
            raise StoreOpenError(name, why)
        os.fsencode(name)
    except (TypeError, UnicodeEncodeError) as error:
        raise StoreOpenError(str(where), f"it is no path: {error}") from error
    return Path(absolute(name))


def make_folder(folder: Path) -> None:
    """Make a folder, readable by its owner only, if it is not there; StoreOpenError if it can't be."""
    with explained(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
