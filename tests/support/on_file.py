"""A store of ours on a file of its own, as the machines of the kit want an implementation."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

from lash_store.testing import ManualClock
from tests.support import on_server as on_the_server
from tests.support.layouts import on_server


class OnFile:
    """Opened by what a subclass opens; reopened, as after a crash; closed and removed at the end."""

    url: ClassVar[str] = "{}"
    """What is opened, of a path: the path itself, or a URL of a database that all share."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.folder = tempfile.TemporaryDirectory()
        self.store: Any = self.open(self.where)

    @property
    def where(self) -> str:
        return self.url.format(Path(self.folder.name) / "store.db")

    def open(self, where: str) -> Any:
        raise NotImplementedError

    def reopen(self) -> None:
        self.store.close()
        self.store = self.open(self.where)

    def close(self) -> None:
        self.store.close()
        self.folder.cleanup()
        if on_server():
            on_the_server.clean()  # or the next run would need a schema of its own


SHARED = "sqlite:///{}"
