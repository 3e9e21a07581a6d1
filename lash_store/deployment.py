"""One folder with all the stores of a deployment, sync and asyncio."""

import os
import threading
from collections.abc import Generator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, Self, Unpack

from lash_store._backends import is_server, is_url, place_name
from lash_store._kernel.checks import shown
from lash_store._kernel.jobs import on_library_thread
from lash_store._kernel.options import OpenOptions
from lash_store._stores.cancelling import close_thrown_away, finish_first, renewed_in_child
from lash_store._stores.uncopied import Uncopied
from lash_store.effect.async_store import AsyncEffectStore
from lash_store.effect.store import EffectStore
from lash_store.errors import InvalidRecordError, LashStoreError, StoreClosedError
from lash_store.process.store import AsyncProcessRegistry, ProcessRegistry
from lash_store.session.directory import AsyncSessionDirectory, SessionDirectory
from lash_store.session.places import make_folder, place_at
from lash_store.session.store import SessionStore
from lash_store.trigger.store import AsyncTriggerStore, TriggerStore

SESSIONS: Final = "sessions"
PROCESSES: Final = "processes.db"
TRIGGERS: Final = "triggers.db"
EFFECTS: Final = "effects.db"


class _Sessions(SessionDirectory):
    """The sessions of what is open: closed and lost with it, whatever stands in its place (K-OPEN-9)."""

    def __init__(
        self, beside: ProcessRegistry, root: str | Path, **options: Unpack[OpenOptions]
    ) -> None:
        super().__init__(root, **options)
        self._beside = beside

    def _check_there(self) -> None:
        if self._beside.closed:
            raise StoreClosedError(str(self))
        self._beside._handle.check_there()  # noqa: SLF001 # reason: no method of a consumer's


class Deployment(Uncopied):
    """The stores of a deployment in one folder, or in one database, opened and closed together.

    In a folder each is a database of its own; ``lash_store.routing`` leads from one to another. However many
    sessions are open, the process keeps a bounded number of connections and threads: what is
    idle is closed, and opened again by its next use.
    """

    sessions: SessionDirectory
    """The sessions, each in a file of its own in the folder ``sessions``, or all in the database."""

    processes: ProcessRegistry
    triggers: TriggerStore
    effects: EffectStore

    def __init__(
        self,
        root: Path | None,
        processes: ProcessRegistry,
        triggers: TriggerStore,
        effects: EffectStore,
        sessions: SessionDirectory,
    ) -> None:
        self._root = root
        self.sessions = sessions
        self.processes = processes
        self.triggers = triggers
        self.effects = effects

    @classmethod
    def open(cls, root: str | os.PathLike[str], **options: Unpack[OpenOptions]) -> Self:
        """Open the folder `root`, or, by its URL, a database that all of them share (K-SHARE-1).

        A folder or a database that is not there is made, readable by its owner only.

        `options` go to each store, sessions included, which are opened one by one. Raises what
        opening a store raises, and leaves none open then.
        """
        folder = place_at("root", root)
        if isinstance(folder, str):
            return cls._in_one_database(folder, options)
        if options.get("tables"):
            raise InvalidRecordError(
                "tables", shown(options["tables"]), "are for one database, opened by its URL"
            )
        if not options.get("read_only") and options.get("create", True):
            make_folder(folder)
        with ExitStack() as opened:
            stores = (
                opened.enter_context(ProcessRegistry.open(folder / PROCESSES, **options)),
                opened.enter_context(TriggerStore.open(folder / TRIGGERS, **options)),
                opened.enter_context(EffectStore.open(folder / EFFECTS, **options)),
            )
            opened.pop_all()
        return cls(folder, *stores, _Sessions(stores[0], folder / SESSIONS, **options))

    @classmethod
    def _in_one_database(cls, url: str, options: OpenOptions) -> Self:
        with ExitStack() as opened:
            stores = (
                opened.enter_context(ProcessRegistry.open(url, **options)),
                opened.enter_context(TriggerStore.open(url, **options)),
                opened.enter_context(EffectStore.open(url, **options)),
            )
            if not options.get("read_only") and options.get(
                "create", True
            ):  # its tables too, so that a Tx may stand beside others
                SessionStore.open(url, session_id="deployment", **options).close()
            sessions = _Sessions(stores[0], url, **options)
            opened.pop_all()
        return cls(None if is_server(url) else sessions.root, *stores, sessions)

    @property
    def root(self) -> Path:
        """The folder, or the file of the database; InvalidRecordError of one on a server, which has none."""
        return self.sessions.root if self._root is None else self._root

    def close(self) -> None:
        """Close the stores, and the sessions that are open still; closing twice is harmless."""
        with ExitStack() as closing:
            for store in (self.effects, self.triggers, self.processes, self.sessions):
                closing.callback(store.close)

    def __enter__(self) -> Self:
        if self.processes.closed:
            raise StoreClosedError(str(self.sessions if self._root is None else self._root))
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Deployment {str(self.sessions if self._root is None else self._root)!r}>"


class AsyncDeployment(Uncopied):
    """:class:`Deployment` for asyncio: the same stores, as asyncio stores.

    Opened by ``async with`` or ``await``; they share what a sync deployment of the folder has open.
    """

    sessions: AsyncSessionDirectory
    """The sessions, as those of :class:`Deployment`."""

    processes: AsyncProcessRegistry
    triggers: AsyncTriggerStore
    effects: AsyncEffectStore

    def __init__(self, root: str | os.PathLike[str], options: OpenOptions) -> None:
        self._root = root
        self._name = place_name(str(root))
        self._options = options
        self._deployment: Deployment | None = None
        self._is_entered = False
        self._is_closed = False
        self._renew_opening()
        renewed_in_child(self)

    def _renew_opening(self) -> None:
        """Let nobody be opening it: in a forked child those were the parent's."""
        self._opening = threading.Lock()
        self._handing_over = threading.Lock()
        """Held for a moment: who opens it sees who waits for it, or they see it open."""

        self._entering = 0
        """How many wait for it to be open."""

    @classmethod
    def open(cls, root: str | os.PathLike[str], **options: Unpack[OpenOptions]) -> Self:
        """Make a deployment that ``async with`` or ``await`` opens, as :meth:`Deployment.open` does."""
        return cls(place_at("root", root), options)

    async def aclose(self) -> None:
        """Close the stores, and the sessions that are open still; closing twice is harmless.

        What could not be closed, by a StoreBusyError say, is closed by the next.
        """
        with self._handing_over:
            self._is_closed = True  # first: what is being opened now is closed by who opens it
        await finish_first(self._close_whole())

    async def _close_whole(self) -> None:
        await on_library_thread(self._until_opened)
        if self._deployment is not None:
            await self._close_all(self._deployment)
            self._deployment = None

    def _until_opened(self) -> None:
        """Wait for who opens it now, and closes it then: nothing of it is open when this returns."""
        with self._opening:
            pass

    async def _close_again(self) -> None:
        deployment, self._deployment = self._deployment, None
        if deployment is not None:
            await finish_first(self._close_all(deployment))

    async def _close_all(self, deployment: Deployment) -> None:
        try:
            await self.sessions.aclose()
        finally:
            await on_library_thread(deployment.close)

    @property
    def root(self) -> Path:
        """The folder, or the file of the database, once it is open; see :class:`Deployment`."""
        if self._deployment is None:
            raise StoreClosedError(self._name, not self._is_closed)
        return self._deployment.root

    def __getattr__(self, name: str) -> Any:
        if name in AsyncDeployment.__annotations__:
            raise StoreClosedError(self._name, not self._is_closed)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    async def _open(self) -> Self:
        """Open it unless it is open; of several who come at once, one does.

        Who is cancelled does not wait: it is open for whoever has come besides, or closed then.
        """
        if self._deployment is not None and not self._is_closed:
            self._is_entered = True
            return self
        with self._handing_over:
            self._entering += 1
        try:
            await on_library_thread(self._open_once, may_be_left=True)
            self._is_entered = True
        finally:
            with self._handing_over:
                self._entering -= 1
                is_left = not (self._entering or self._is_entered)
            if is_left:
                with suppress(LashStoreError):  # what the caller hears of is on its way
                    await self._close_again()
        return self

    def _open_once(self) -> None:
        with self._opening:
            if self._is_closed:
                raise StoreClosedError(self._name)
            if self._deployment is not None:
                return
            made = Deployment.open(self._root, **self._options)

            def there(name: str) -> str | os.PathLike[str]:
                return self._root if is_url(self._root) else made.root / name

            self.sessions = AsyncSessionDirectory.over(made.sessions)
            self.processes = AsyncProcessRegistry.over(
                made.processes,
                lambda **more: ProcessRegistry.open(there(PROCESSES), **{**self._options, **more}),
            )
            self.triggers = AsyncTriggerStore.over(
                made.triggers,
                lambda **more: TriggerStore.open(there(TRIGGERS), **{**self._options, **more}),
            )
            owner = made.effects.owner_id
            self.effects = AsyncEffectStore.over(
                made.effects,
                lambda **more: EffectStore.open(
                    there(EFFECTS), owner_id=owner, **{**self._options, **more}
                ),
            )
            with self._handing_over:
                if self._entering and not self._is_closed:
                    self._deployment = made
            if self._deployment is not made:  # everybody has left while it was opened, or closed it
                made.close()
                raise StoreClosedError(self._name)

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(self, kind: object = None, *_: object) -> None:
        deployment = self._deployment
        if kind is not GeneratorExit:
            await self.aclose()
        elif deployment is not None:
            self._is_closed, self._deployment = True, None
            close_thrown_away(deployment.close)

    def __await__(self) -> Generator[Any, None, Self]:
        return self._open().__await__()
