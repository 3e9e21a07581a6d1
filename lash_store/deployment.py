"""One folder with all the stores of a deployment."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self, Unpack

from lash_store._kernel.checks import check_kind
from lash_store._kernel.options import OpenOptions
from lash_store.effect.store import EffectStore
from lash_store.errors import StoreOpenError
from lash_store.process.store import ProcessRegistry
from lash_store.session.directory import SessionDirectory
from lash_store.trigger.store import TriggerStore

SESSIONS: Final = "sessions"
PROCESSES: Final = "processes.db"
TRIGGERS: Final = "triggers.db"
EFFECTS: Final = "effects.db"


class Deployment:
    """The stores of a deployment in one folder, opened and closed together.

    Each is a database of its own; ``lash_store.routing`` leads from one to another.
    """

    sessions: SessionDirectory
    """The sessions, each in a file of its own in the folder ``sessions``."""

    processes: ProcessRegistry
    triggers: TriggerStore
    effects: EffectStore

    def __init__(
        self,
        root: Path,
        processes: ProcessRegistry,
        triggers: TriggerStore,
        effects: EffectStore,
    ) -> None:
        self.root = root
        self.sessions = SessionDirectory(root / SESSIONS)
        self.processes = processes
        self.triggers = triggers
        self.effects = effects

    @classmethod
    def open(cls, root: str | os.PathLike[str], **options: Unpack[OpenOptions]) -> Self:
        """Open the folder `root`; one that is not there is made, readable by its owner only.

        `options` go to each store; the sessions are opened one by one, with options of their
        own. Raises what opening a store raises, and leaves none open then.
        """
        check_kind("root", root, (str, os.PathLike))
        try:
            folder = Path(os.fsdecode(root))
        except (TypeError, ValueError) as error:
            raise StoreOpenError(ascii(root), f"it is no path: {error}") from error
        if not options.get("read_only"):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise StoreOpenError(str(folder), error.strerror or str(error)) from error
            except ValueError as error:
                raise StoreOpenError(ascii(root), str(error)) from error
        with ExitStack() as opened:
            stores = (
                opened.enter_context(ProcessRegistry.open(folder / PROCESSES, **options)),
                opened.enter_context(TriggerStore.open(folder / TRIGGERS, **options)),
                opened.enter_context(EffectStore.open(folder / EFFECTS, **options)),
            )
            opened.pop_all()
        return cls(folder, *stores)

    def close(self) -> None:
        """Close the stores; closing twice is harmless. Sessions are closed by who opened them."""
        with ExitStack() as closing:
            for store in (self.effects, self.triggers, self.processes):
                closing.callback(store.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Deployment {str(self.root)!r}>"
