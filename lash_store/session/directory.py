"""One folder of sessions: which file is whose (S-DIR)."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, Unpack

import msgspec

from lash_store._kernel import dialects
from lash_store._kernel.checks import check_count, check_name
from lash_store._kernel.connection import store_error
from lash_store._kernel.fairness import SIDECAR_SUFFIX
from lash_store._kernel.opening import OpenOptions
from lash_store.errors import StoreBusyError
from lash_store.session.records.meta import Relation, SessionMeta
from lash_store.session.store import SessionStore
from lash_store.session.tx.meta import check_meta

_LONGEST_NAME: Final = 80
_SUFFIX: Final = ".db"


class SessionEntry(msgspec.Struct, frozen=True):
    """One session of a directory, as ``list()`` shows it; `meta` is None if none was saved."""

    file_name: str
    meta: SessionMeta | None


class SessionDirectory:
    """A folder with one database file per session."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def path_of(self, session_id: str) -> Path:
        """Return the path of a session's file; no id leads out of the folder (S-DIR-1)."""
        return self.root / file_name(session_id)

    def create(
        self,
        session_id: str,
        *,
        model: str,
        session_name: str | None = None,
        cwd: str | None = None,
        relation: Relation | None = None,
        **options: Unpack[OpenOptions],
    ) -> SessionStore:
        """Make the folder and the session's database where they are missing, and open it (S-DIR-2).

        Meta is written only if there is none: re-opening preserves it, and of two creators at
        once the first one's stands. The name defaults to the id, `cwd` to the process's.
        """
        path = self.path_of(session_id)
        meta = SessionMeta(
            session_id=session_id,
            session_name=session_id if session_name is None else session_name,
            created_at=f"unix:{int(time.time())}",
            model=check_name("model", model),
            cwd=str(Path.cwd()) if cwd is None else cwd,
            relation=relation or Relation(),
        )
        check_meta(meta)
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = SessionStore.open(path, session_id=session_id, **options)
        try:
            with store.begin() as tx:
                tx.create_meta(meta)
        except BaseException:
            store.close()
            raise
        return store

    def open(self, session_id: str, **options: Unpack[OpenOptions]) -> SessionStore | None:
        """Open a session's database; None, and nothing created, if there is none."""
        path = self.path_of(session_id)
        if not path.exists():
            return None
        return SessionStore.open(path, session_id=session_id, **options)

    def delete(self, session_id: str) -> bool:
        """Remove a session's database and everything beside it; tell whether there was one.

        Raises StoreBusyError, and removes nothing, while another connection, in this process
        or another, has the file in use.
        """
        path = self.path_of(session_id)
        existed = path.exists()
        if existed:
            _check_unused(path)
        for suffix in ("", "-wal", "-shm", SIDECAR_SUFFIX):
            with suppress(FileNotFoundError):
                os.unlink(f"{path}{suffix}")
        return existed

    def list(self, *, after: str = "", limit: int = 100) -> list[SessionEntry]:
        """Return a page of the sessions with their meta, by file name.

        The page starts behind `after`: pass the last entry's ``file_name`` for the next one.
        A file that can't be opened or read is an error, not an omission.
        """
        check_count("limit", limit)
        if not self.root.is_dir():
            return []
        names = sorted(entry.name for entry in self.root.iterdir() if entry.suffix == _SUFFIX)
        return [self._entry(name) for name in [name for name in names if name > after][:limit]]

    def _entry(self, name: str) -> SessionEntry:
        with SessionStore.open(self.root / name, session_id=name, read_only=True) as store:
            return SessionEntry(name, store.load_meta())


def file_name(session_id: str) -> str:
    """Return the name of a session's file: readable, and different for every id (S-DIR-1)."""
    check_name("session_id", session_id)
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", session_id).strip("_") or "session"
    digest = hashlib.sha256(session_id.encode()).hexdigest()[:16]
    return f"{readable[:_LONGEST_NAME]}-{digest}{_SUFFIX}"


def _check_unused(path: Path) -> None:
    """Leave WAL: SQLite lets only the one connection that there is do that."""
    try:
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
            connection.execute(dialects.LEAVE_WAL)
    except sqlite3.Error as error:
        if dialects.is_busy(error):
            raise StoreBusyError(str(path), 0) from error
        if dialects.primary_code(error) != sqlite3.SQLITE_NOTADB:
            raise store_error(error, connection) from error
