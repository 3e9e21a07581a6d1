"""The lock of a folder of sessions: who makes or removes one excludes who looks at it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from lash_store._backends import url_of
from lash_store._backends.beside import open_beside
from lash_store._kernel.options import BUSY_TIMEOUT_MS
from lash_store._kernel.posix import fcntl, in_forked_child, require_systems_own
from lash_store.errors import StoreBusyError, StoreOpenError

_LOCK: Final = ".lock"
_TAKEN: Final = (errno.EAGAIN, errno.EACCES)
_TRY_AGAIN_S: Final = 0.002


_descriptors: Final[set[int]] = set()
"""By which this process holds locks now, or waits for them."""


@in_forked_child
def _leave_to_parent() -> None:
    """Close those of the parent's: it may be killed, and its lock would be held as long as this process lives."""
    while _descriptors:
        os.close(_descriptors.pop())


class FolderLock:
    """The lock of one folder."""

    def __init__(self, root: Path, busy_timeout_ms: int = BUSY_TIMEOUT_MS) -> None:
        self._root, self._busy_timeout_ms = root, busy_timeout_ms

    @contextmanager
    def kept_still(self) -> Iterator[None]:
        """Have nobody make or remove a session, in a folder that has the lock: one that is not of sessions has none."""
        with self.held(exclusive=True) if (self._root / _LOCK).exists() else nullcontext():
            yield

    @contextmanager
    def held(self, *, exclusive: bool) -> Iterator[None]:
        """Hold it; without ``flock``, or in a folder that can't be written, none.

        Then SQLite alone keeps a file in use from being removed.
        """
        if fcntl is None or not os.access(self._root, os.W_OK):
            yield
            return
        with explained(self._root / _LOCK):
            descriptor = open_beside(str(self._root), str(self._root / _LOCK))
        _descriptors.add(descriptor)
        try:
            with explained(self._root):
                self._wait_for(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            if descriptor in _descriptors:  # else it was its parent's
                _descriptors.remove(descriptor)
                # Closing it would not do: a child that was forked meanwhile may have it open still.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                os.close(descriptor)

    def _wait_for(self, descriptor: int, kind: int) -> None:
        """Wait for the lock, as long as for any (K-TX-3): another process may have been stopped inside of it."""
        since_s = monotonic()
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except OSError as error:
                require_systems_own(error)
                waited_ms = round((monotonic() - since_s) * 1000)
                if error.errno not in _TAKEN:
                    raise
                if waited_ms >= self._busy_timeout_ms:
                    raise StoreBusyError(str(self._root), waited_ms, "the folder's lock") from error
                sleep(_TRY_AGAIN_S)
            else:
                return


def is_there(path: Path) -> bool:
    """Whether there is anything; StoreOpenError if that can't be seen."""
    with explained(path):
        return path.exists()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise StoreOpenError, with the path, for what the system refuses."""
    try:
        yield
    except FileExistsError as error:
        why = "it is there, and no folder"
        if path.is_file():
            why += f"; a database that all stores share is opened by its URL, {url_of(path)!r}"
        raise StoreOpenError(str(path), why) from error
    except OSError as error:
        raise StoreOpenError(str(path), error.strerror or str(error)) from error
