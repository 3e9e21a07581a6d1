"""Which files this process has open, and how many connections that may take.

One entry for each real path, so that all stores of a file share one writer. It holds nothing:
what no store stands on any more goes by itself.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import Final, Protocol

from lash_store._kernel.posix import in_forked_child
from lash_store.errors import NestedTransactionError

MOST_CONNECTIONS: Final = 44
"""How many connections this process keeps, those in use aside: each takes two descriptors or three."""


class Opened(Protocol):
    """An open database, as far as it matters here."""

    @property
    def used_s(self) -> float:
        """When it was last written to, or read from, on the monotonic clock."""

    @property
    def is_written_here(self) -> bool:
        """Whether this thread is inside a write transaction on it."""

    @property
    def all_connections(self) -> Sequence[object]:
        """The connections that are open on it."""

    def close_if_idle(self) -> bool:
        """Close what is open if nobody uses it."""
        ...


databases: Final[weakref.WeakValueDictionary[str, Opened]] = weakref.WeakValueDictionary()
"""The databases that stores of this process share, as :func:`registered_as` names them."""

prefixes: Final[set[str]] = set()
"""Under which prefixes this process has opened any."""

apart: Final[weakref.WeakSet[Opened]] = weakref.WeakSet()
"""Those that are shared with nobody: they count as another process's."""

lock = threading.RLock()
"""Held while an entry is looked up, made or dropped; never while anything waits."""


def registered_as(path: str, prefix: str) -> str:
    """Name an entry: under two prefixes, one file is two databases that know nothing of each other."""
    return f"{path}\0{prefix}" if prefix else path


def check_not_beside(path: str, prefix: str) -> None:
    """Raise NestedTransactionError inside a transaction of this thread under another prefix of the file.

    Which has SQLite's lock: whoever waits for it here would wait for itself.
    """
    for other in prefixes - {prefix}:
        beside = databases.get(registered_as(path, other))
        if beside is not None and beside.is_written_here:
            raise NestedTransactionError(
                f"this thread is inside a transaction on {path!r} already, under the prefix "
                f"{other!r}: SQLite lets one write at a time, so that would have to end first"
            )


def make_room(beside: Sequence[object]) -> None:
    """Close what was idle longest, if one more connection would be too many; but none of these."""
    with lock:
        everything = [*databases.values(), *apart]
    if sum(len(each.all_connections) for each in everything) < MOST_CONNECTIONS:
        return
    for each in sorted(everything, key=lambda each: each.used_s):
        connections = each.all_connections
        if connections and connections is not beside and each.close_if_idle():
            return


@in_forked_child
def _renew_lock() -> None:
    global lock  # noqa: PLW0603 # reason: the thread that held it does not exist in the child
    lock = threading.RLock()
