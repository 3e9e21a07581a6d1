"""One folder of sessions: which file is whose (S-DIR)."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self, Unpack
from weakref import WeakSet

import msgspec

from lash_store._backends import opened_apart, remove_database
from lash_store._kernel.calls import on_library_thread
from lash_store._kernel.checks import check_count, check_kind, check_name
from lash_store._kernel.options import OpenOptions, Settings
from lash_store._stores.cancelling import finish_first
from lash_store.errors import StoreEmptyError, StoreOpenError
from lash_store.session.operations.meta import check_meta
from lash_store.session.records.meta import Relation, SessionMeta
from lash_store.session.store import AsyncSessionStore, SessionStore

try:
    import fcntl
except ImportError:  # Windows: SQLite alone keeps a file in use from being removed
    fcntl = None  # type: ignore[assignment] # reason: a module that may be absent has no other spelling

_LONGEST_NAME: Final = 80
_SUFFIX: Final = ".db"
_LOCK: Final = ".lock"


class SessionEntry(msgspec.Struct, frozen=True):
    """One session of a directory, as ``list()`` shows it; `meta` is None if none was saved."""

    file_name: str
    meta: SessionMeta | None


class SessionDirectory:
    """A folder with one database file per session; closing it closes the stores that it opened.

    `options` are those of every store, unless a call says otherwise.

    Its ``create``, ``open`` and ``delete`` exclude each other, across processes, through a lock
    on a file ``.lock`` in the folder; so no file is deleted under somebody who is opening it.
    Opening a session's file past the directory is not covered by that.
    """

    def __init__(self, root: str | os.PathLike[str], **options: Unpack[OpenOptions]) -> None:
        check_kind("root", root, (str, os.PathLike))
        Settings(**options)  # a bad one is refused here, where it is given
        self.root = Path(root)
        self._options = options
        self._opened: WeakSet[SessionStore] = WeakSet()

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
        Raises StoreOpenError if folder or file can't be made, InvalidRecordError for bad meta.
        """
        path = self.path_of(session_id)
        meta = SessionMeta(
            session_id=session_id,
            session_name=session_id if session_name is None else session_name,
            created_at="unix:0",
            model=model,
            cwd=str(Path.cwd()) if cwd is None else cwd,
            relation=Relation() if relation is None else relation,
        )
        check_meta(meta)
        with _explained(self.root):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked(exclusive=False):
            store = self._open(path, session_id, options)
        try:
            with store.begin() as tx:
                created_at = f"unix:{tx.now_ms // 1000}"
                tx.create_meta(msgspec.structs.replace(meta, created_at=created_at))
        except BaseException:
            store.close()
            raise
        return store

    def open(self, session_id: str, **options: Unpack[OpenOptions]) -> SessionStore | None:
        """Open a session's database; None, and nothing created, if there is none."""
        path = self.path_of(session_id)
        if not path.exists():
            return None
        with self._locked(exclusive=False):
            # Again under the lock: it may have been deleted in the meantime.
            if not path.exists():
                return None
            return self._open(path, session_id, options)

    def delete(self, session_id: str) -> bool:
        """Remove a session's database and everything beside it; tell whether there was one.

        Raises StoreBusyError, and removes nothing, while another connection, in this process
        or another, has the file in use; StoreOpenError if the file can't be removed.
        """
        path = self.path_of(session_id)
        if not self.root.exists():
            return False
        with self._locked(exclusive=True), _explained(path):
            return remove_database(str(path))

    def list(self, *, after: str = "", limit: int = 100) -> list[SessionEntry]:
        """Return a page of the sessions with their meta, by file name.

        The page starts behind `after`: pass the last entry's ``file_name`` for the next one.
        A file that can't be opened or read is an error, not an omission; one that is being
        created, or was deleted since, is not there.
        """
        check_count("limit", limit)
        check_kind("after", after, str)
        if not self.root.exists():
            return []
        with _explained(self.root):
            found = [entry.name for entry in self.root.iterdir() if entry.suffix == _SUFFIX]
        page: list[SessionEntry] = []
        for name in sorted(each for each in found if each > after):
            if len(page) == limit:
                break
            entry = self._entry(name)
            page += [] if entry is None else [entry]
        return page

    def _entry(self, name: str) -> SessionEntry | None:
        path = self.root / name
        try:
            with (
                opened_apart(),  # this thread may be inside a transaction on this very file
                SessionStore.open(path, session_id=name, read_only=True) as store,
            ):
                return SessionEntry(name, store.load_meta())
        except StoreOpenError as error:
            if isinstance(error, StoreEmptyError) or not path.exists():
                return None
            raise

    def close(self) -> None:
        """Close the stores that were opened here and are open still; more may be opened after."""
        with ExitStack() as closing:
            for store in list(self._opened):
                closing.callback(store.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, path: Path, session_id: str, options: OpenOptions) -> SessionStore:
        chosen: OpenOptions = {**self._options, **options}
        store = SessionStore.open(path, session_id=session_id, **chosen)
        self._opened.add(store)
        return store

    @contextmanager
    def _locked(self, *, exclusive: bool) -> Iterator[None]:
        """Hold the folder's lock; without ``flock``, or in a folder that can't be written, none."""
        if fcntl is None or not os.access(self.root, os.W_OK):
            yield
            return
        with _explained(self.root):
            descriptor = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)


class AsyncSessionDirectory:
    """:class:`SessionDirectory` for asyncio: the same, as coroutines, with asyncio stores."""

    def __init__(self, root: str | os.PathLike[str], **options: Unpack[OpenOptions]) -> None:
        self._directory = SessionDirectory(root, **options)
        self.root = self._directory.root

    def path_of(self, session_id: str) -> Path:
        """Return the path of a session's file; no id leads out of the folder (S-DIR-1)."""
        return self._directory.path_of(session_id)

    async def create(
        self,
        session_id: str,
        *,
        model: str,
        session_name: str | None = None,
        cwd: str | None = None,
        relation: Relation | None = None,
        **options: Unpack[OpenOptions],
    ) -> AsyncSessionStore:
        """Make what is missing of a session, and open it; see :meth:`SessionDirectory.create`."""
        store = await on_library_thread(
            lambda: self._directory.create(
                session_id,
                model=model,
                session_name=session_name,
                cwd=cwd,
                relation=relation,
                **options,
            )
        )
        return AsyncSessionStore.over(store)

    async def open(
        self, session_id: str, **options: Unpack[OpenOptions]
    ) -> AsyncSessionStore | None:
        """Open a session's database; None, and nothing created, if there is none."""
        store = await on_library_thread(lambda: self._directory.open(session_id, **options))
        return None if store is None else AsyncSessionStore.over(store)

    async def delete(self, session_id: str) -> bool:
        """Remove a session's database; see :meth:`SessionDirectory.delete`."""
        return await on_library_thread(lambda: self._directory.delete(session_id))

    async def list(self, *, after: str = "", limit: int = 100) -> list[SessionEntry]:
        """Return a page of the sessions; see :meth:`SessionDirectory.list`."""
        return await on_library_thread(lambda: self._directory.list(after=after, limit=limit))

    async def aclose(self) -> None:
        """Close the stores that were opened here and are open still."""
        await finish_first(on_library_thread(self._directory.close))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def file_name(session_id: str) -> str:
    """Return the name of a session's file: readable, and different for every id (S-DIR-1)."""
    check_name("session_id", session_id)
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", session_id).strip("_") or "session"
    digest = hashlib.sha256(session_id.encode()).hexdigest()[:16]
    return f"{readable[:_LONGEST_NAME]}-{digest}{_SUFFIX}"


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreOpenError(str(path), error.strerror or str(error)) from error
