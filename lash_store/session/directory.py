"""All the sessions of a folder, or of a shared database: which is whose (S-DIR)."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self, Unpack
from weakref import WeakSet

import msgspec

from lash_store._backends import is_server
from lash_store._kernel.checks import check_count, check_text, shown
from lash_store._kernel.jobs import Lane, on_library_thread
from lash_store._kernel.options import OpenOptions, Settings
from lash_store._stores.cancelling import finish_first, lane_of, opened
from lash_store._stores.uncopied import Uncopied
from lash_store.errors import InvalidRecordError, ReadOnlyStoreError, StoreClosedError
from lash_store.session.operations.meta import check_meta
from lash_store.session.places import Folder, Place, SessionEntry, SharedDatabase, place_at
from lash_store.session.records.meta import Relation, SessionMeta
from lash_store.session.store import AsyncSessionStore, SessionStore
from lash_store.session.tx import SessionTx


def _create(meta: SessionMeta, tx: SessionTx) -> None:
    created_at = f"unix:{tx.now_ms // 1000}"
    tx.create_meta(msgspec.structs.replace(meta, created_at=created_at))


class SessionDirectory(Uncopied):
    """The sessions of a folder, a file for each, or of one database, by its URL.

    `options` are those of every store, unless a call says otherwise. Closing it closes the stores
    that it opened. In a folder, its ``delete`` and its ``create``, ``open`` and ``list`` exclude each other, across processes, through
    a lock on a file ``.lock`` in the folder; so no file is deleted under somebody who is opening it.
    Opening a session's file past the directory is not covered by that.
    """

    def __init__(self, root: str | os.PathLike[str], **options: Unpack[OpenOptions]) -> None:
        place = place_at("root", root)
        settings = Settings(**options)  # a bad one is refused here, where it is given
        self._options = options
        self._place: Place
        self._root: Path | None
        if isinstance(place, str):
            shared = SharedDatabase(place, options)
            self._place = shared
            self._root = None if is_server(place) else Path(shared.path)
        else:
            self._root = place
            self._place = Folder(place, options, settings.busy_timeout_ms)
        self._opened: WeakSet[SessionStore] = WeakSet()

    def _find(self, session_id: str, options: OpenOptions) -> SessionStore | None:
        return self._place.find(session_id, lambda at: self._open(at, session_id, options))

    def _find_apart(self, session_id: str, options: OpenOptions) -> SessionStore | None:
        """Do so for who closes it by itself, whatever is closed here meanwhile."""
        return self._place.find(session_id, lambda at: self._open_apart(at, session_id, options))

    def _check_there(self) -> None:
        """Do nothing: whatever is there now is what is meant."""

    @property
    def root(self) -> Path:
        """The folder, or the file of the database; InvalidRecordError of one on a server, which has none."""
        if self._root is None:
            raise InvalidRecordError("root", shown(str(self)), "is on a server, and has no path")
        return self._root

    def __str__(self) -> str:
        return self._place.name

    def path_of(self, session_id: str) -> Path:
        """Return the path of a session's file; no id leads out of the folder (S-DIR-1).

        Raises InvalidRecordError in a shared database, where none has a file of its own.
        """
        return self._place.path_of(session_id)

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
        """Make what is missing of the session's place, and open it (S-DIR-2).

        Meta is written only if there is none: re-opening preserves it, and of two creators at
        once the first one's stands. The name defaults to the id, `cwd` to the process's.
        Raises StoreOpenError if folder or file can't be made, InvalidRecordError for bad meta.
        """
        meta = SessionMeta(
            session_id=session_id,
            session_name=session_id if session_name is None else session_name,
            created_at="unix:0",
            model=model,
            cwd=_own_folder() if cwd is None else cwd,
            relation=Relation() if relation is None else relation,
        )
        check_meta(meta)
        if {**self._options, **options}.get("read_only"):
            raise ReadOnlyStoreError(str(self))
        self._check_there()
        making: OpenOptions = {**options, "create": True}
        store = self._place.make(session_id, lambda at: self._open(at, session_id, making))
        try:
            store._handle.write("create_meta", partial(_create, meta))  # noqa: SLF001 # reason: its own store
        except BaseException:
            store.close()
            raise
        return store

    def open(self, session_id: str, **options: Unpack[OpenOptions]) -> SessionStore | None:
        """Open a session's store; None, and nothing created, if there is none.

        In a shared database a session is there once it has a meta or a head.
        """
        self._check_there()
        return self._find(session_id, options)

    def delete(self, session_id: str) -> bool:
        """Remove all of a session; tell whether there was anything.

        Raises StoreBusyError, and removes nothing, while another connection, in this process or
        another, has its file in use, or, in a shared database, while its lease is live: who has it open there writes
        on, and what it enqueues is the next session's of that name, so a router opens a session for each delivery;
        StoreOpenError if the file can't be removed, ReadOnlyStoreError if this only reads.
        """
        if self._options.get("read_only"):
            raise ReadOnlyStoreError(str(self))
        self._check_there()
        return self._place.delete(session_id)

    def list(self, *, after: str = "", limit: int = 100) -> list[SessionEntry]:
        """Return a page of the sessions with their meta, by file name, or by id.

        The page starts behind `after`: pass the last entry's ``file_name`` for the next one.
        A file that can't be opened or read is an error, not an omission; one that is being
        created, or was deleted since, is not there.
        """
        check_count("limit", limit)
        check_text("after", after)
        self._check_there()
        return self._place.list(after, limit)

    def close(self) -> None:
        """Close the stores that were opened here and are open still; more may be opened after."""
        with ExitStack() as closing:
            for store in self._all_opened():
                closing.callback(store.close)

    def _all_opened(self) -> Sequence[SessionStore]:
        while True:
            try:
                return [*self._opened]
            except RuntimeError:  # another thread has opened one meanwhile
                continue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, at: str | Path, session_id: str, options: OpenOptions) -> SessionStore:
        store = self._open_apart(at, session_id, options)
        self._opened.add(store)
        return store

    def _open_apart(self, at: str | Path, session_id: str, options: OpenOptions) -> SessionStore:
        chosen: OpenOptions = {**self._options, **options}
        return SessionStore.open(at, session_id=session_id, **chosen)


def _own_folder() -> str:
    try:
        return str(Path.cwd())
    except OSError as error:
        why = f"has to be given: this process's own folder can't be told ({error.strerror})"
        raise InvalidRecordError("cwd", "None", why) from error


class AsyncSessionDirectory(Uncopied):
    """:class:`SessionDirectory` for asyncio: the same, as coroutines, with asyncio stores."""

    def __init__(self, root: str | os.PathLike[str], **options: Unpack[OpenOptions]) -> None:
        self._directory = SessionDirectory(root, **options)

    @classmethod
    def over(cls, directory: SessionDirectory) -> Self:
        """Make one of a directory that is there."""
        made = cls.__new__(cls)
        made._directory = directory  # noqa: SLF001 # reason: its own
        return made

    @property
    def root(self) -> Path:
        """The folder, or the file of the database; see :class:`SessionDirectory`."""
        return self._directory.root

    def __str__(self) -> str:
        return str(self._directory)

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
        store = await opened(
            lambda: self._directory.create(
                session_id,
                model=model,
                session_name=session_name,
                cwd=cwd,
                relation=relation,
                **options,
            ),
            self._lane_of(session_id, options),
        )
        return self._over(store, options)

    async def open(
        self, session_id: str, **options: Unpack[OpenOptions]
    ) -> AsyncSessionStore | None:
        """Open a session's database; None, and nothing created, if there is none."""
        store = await opened(
            lambda: self._directory.open(session_id, **options),
            self._lane_of(session_id, options),
        )
        return None if store is None else self._over(store, options)

    def _lane_of(self, session_id: str, options: OpenOptions) -> Lane | None:
        """Return where a session may have to be waited for: its own file, or the database of all."""
        directory = self._directory
        there = directory._place.database_of(session_id)  # noqa: SLF001 # reason: its own
        return lane_of(there, {**directory._options, **options})  # noqa: SLF001 # reason: likewise

    def _over(self, store: SessionStore, options: OpenOptions) -> AsyncSessionStore:
        def open_anew(**_: Any) -> SessionStore:
            # Of a deployment that was closed as well: what is held is given back after it.
            found = self._directory._find_apart(store.session_id, options)  # noqa: SLF001 # reason: its own
            if found is None:
                raise StoreClosedError(store.path)  # it was deleted since
            return found

        return AsyncSessionStore.over(store, open_anew)

    async def delete(self, session_id: str) -> bool:
        """Remove a session's database; see :meth:`SessionDirectory.delete`."""
        return await on_library_thread(
            lambda: self._directory.delete(session_id), lane=self._lane_of(session_id, {})
        )

    async def list(self, *, after: str = "", limit: int = 100) -> list[SessionEntry]:
        """Return a page of the sessions; see :meth:`SessionDirectory.list`."""
        return await on_library_thread(lambda: self._directory.list(after=after, limit=limit))

    async def aclose(self) -> None:
        """Close the stores that were opened here and are open still."""
        await finish_first(on_library_thread(self._directory.close))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object = None, *_: object) -> None:
        # A task that is thrown away can't await anything, and its sessions close as they go.
        if kind is not GeneratorExit:
            await self.aclose()
