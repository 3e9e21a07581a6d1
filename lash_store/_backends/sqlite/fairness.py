"""Fair writing: which process may try for SQLite's write lock next (K-TX-4).

SQLite's busy handler sleeps between its tries, so whoever just released the lock takes it
again while the others sleep: with four processes that hold it 5 ms each, one was served a
thousand times and the others once. A small queue on a sidecar file mends that.

It is advisory. Exclusion is SQLite's alone; a writer that gets nothing from the queue still tries
by itself, so losing the queue (a stopped process in it, a sidecar that can't be opened) costs
fairness and a moment, never progress, exclusion or the deadline.
"""

import os
import sqlite3
from contextlib import suppress
from typing import Final

from lash_store._backends.sqlite.connection import StoreConnection
from lash_store._backends.sqlite.dialect import BEGIN_WRITE
from lash_store._backends.sqlite.driver import data_version, is_busy
from lash_store._backends.sqlite.files import QUEUE_SUFFIX
from lash_store._kernel.posix import CLOSE_ON_EXEC, NO_LINK, fcntl

_OPEN: Final = b"\0"
_CLOSED: Final = b"\1"

_BURST_S: Final = 0.01
"""How long the head of the queue lets the present holder begin again. Taking turns costs: whoever
begins after another process reads anew what that has changed, and until it looks the lock is free."""

_LOOK_AGAIN_S: Final = 0.001
"""A writer that begins again sooner than this keeps what it last saw of the gate."""

_PATIENCE_S: Final = 0.25
"""After this long in the queue a writer no longer trusts its head to be running."""

_SHORTEST_NAP_S: Final = 0.0002
_LONGEST_NAP_OF_HEAD_S: Final = 0.002

_NAP_OF_MANY_S: Final = 0.0005
"""Of many files that are waited for, each waits so much longer for every other: tries cost time."""

_CONTENDED_S: Final = 0.1
"""How long another process counts as present after it was last in the way."""


_waiting: Final[set[int]] = set()
"""The queues in which this process waits now, by id: one for each file."""


class WriteQueue:
    """The queue of processes for one database file, and BEGIN IMMEDIATE through it.

    The sidecar's first byte is the gate. While it is open, a writer tries at once. A writer
    that finds the lock taken queues for an ``flock`` on the sidecar; the one that holds it is
    the head. It lets a process that commits again and again go on for a burst, then closes the
    gate, which sends that one to the back of the queue, and tries often; it tries as well as
    soon as nobody commits. Nothing here ever blocks, so whoever waits may do so however it
    likes: a thread sleeps between two tries, for an event loop the timer looks again.
    """

    __slots__ = ("_contended_s", "_descriptor", "_gate_is_ours", "_head_s", "_is_often_here",
                 "_looked_s", "_may_try", "_queued_s", "_version", "problem")  # fmt: skip

    def __init__(self, path: str) -> None:
        self.problem: str | None = None
        """Why the sidecar can't be used, where there could be one."""

        self._descriptor: int | None = None
        if fcntl is not None:  # else every writer tries by itself
            try:
                self._descriptor = _open_sidecar(path)
            except OSError as error:
                self.problem = error.strerror or str(error)
        self._looked_s = self._contended_s = 0.0
        self._may_try = True
        self._queued_s: float | None = None
        self._head_s: float | None = None
        """Since when it has been the head."""

        self._version: int | None = None
        self._is_often_here = self._gate_is_ours = False

    @property
    def is_fair(self) -> bool:
        """Whether the sidecar could be opened; otherwise every writer tries by itself."""
        return self._descriptor is not None

    def is_contended(self, now_s: float) -> bool:
        """Whether another process was in the way just now, on the monotonic clock."""
        return now_s - self._contended_s < _CONTENDED_S

    def may_try(self, now_s: float) -> bool:
        """Whether a writer that does not wait yet may try at once: the gate is open."""
        if self._queued_s is not None:
            return False
        if now_s - self._looked_s > _LOOK_AGAIN_S and self._descriptor is not None:
            # An empty sidecar is a new one: nobody has closed its gate yet.
            self._may_try = _read_gate(self._descriptor) != _CLOSED
            self._looked_s = now_s
        return self._may_try

    def try_begin(self, connection: StoreConnection, now_s: float) -> float | None:
        """Begin a write transaction; if another holds the lock, return when to try again, in seconds."""
        if self._queued_s is None:
            self._queued_s, self._is_often_here = now_s, self.is_contended(now_s)
            _waiting.add(id(self))
        self._contended_s = now_s
        waited_s = now_s - self._queued_s
        if self._head_s is None and (self._descriptor is None or _try_lock(self._descriptor)):
            self._head_s = now_s
        # A head that is stopped, or a dead one whose child keeps its descriptor, must not keep
        # the others from SQLite's lock: after a while each acts as the head, at the end of a burst.
        since_s = self._queued_s + _PATIENCE_S - _BURST_S if self._head_s is None else self._head_s
        led_s = now_s - since_s
        if led_s >= _BURST_S:
            self._close_gate()
        if led_s >= 0 and not self._leaves_a_burst(connection, led_s) and _try_begin(connection):
            self.leave()
            return None
        return max(self._nap_s(waited_s, led_s), _NAP_OF_MANY_S * (len(_waiting) - 1))

    def _leaves_a_burst(self, connection: StoreConnection, led_s: float) -> bool:
        """Whether another process has committed since the last look, and may go on for a while.

        Between two of its transactions the lock is free, and a try would end the burst by chance.
        """
        if led_s >= _BURST_S or self._descriptor is None:
            return False
        before, self._version = self._version, data_version(connection.own_cursor)
        return before != self._version

    def _nap_s(self, waited_s: float, led_s: float) -> float:
        """Look often at first, since most write once; beside bursts each look costs the others time."""
        if self._gate_is_ours:
            return _SHORTEST_NAP_S
        if led_s >= 0:
            return min(_SHORTEST_NAP_S + led_s, _LONGEST_NAP_OF_HEAD_S)
        # The oldest, who is next, looks most often: not who is here again just after its own burst.
        seldom_s = 2 * _BURST_S / (1 + waited_s / _BURST_S)
        return seldom_s if self._is_often_here else min(2 * _SHORTEST_NAP_S + waited_s, seldom_s)

    def leave(self) -> None:
        """Leave the queue, having begun or given up."""
        descriptor, self._queued_s, self._may_try = self._descriptor, None, True
        _waiting.discard(id(self))
        if self._gate_is_ours and descriptor is not None:
            _write_gate(descriptor, _OPEN)
        if (
            descriptor is not None
        ):  # whether or not it is known to be the head: an interrupt may strike
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        self._head_s, self._version, self._gate_is_ours = None, None, False

    def close(self) -> None:
        """Close the sidecar's descriptor, and with it leave the queue."""
        _waiting.discard(id(self))
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _close_gate(self) -> None:
        if not self._gate_is_ours and self._descriptor is not None:
            self._gate_is_ours = True
            _write_gate(self._descriptor, _CLOSED)


def _open_sidecar(path: str) -> int:
    """Open the sidecar of the database at `path`, with its mode and owner."""
    flags = os.O_RDWR | CLOSE_ON_EXEC | NO_LINK
    model = os.stat(path)
    try:
        return os.open(path + QUEUE_SUFFIX, flags)
    except FileNotFoundError:
        descriptor = os.open(path + QUEUE_SUFFIX, flags | os.O_CREAT, 0o600)
    try:
        os.fchmod(descriptor, model.st_mode & 0o777)
        with suppress(PermissionError):
            os.fchown(descriptor, model.st_uid, model.st_gid)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _read_gate(descriptor: int) -> bytes:
    try:
        return os.pread(descriptor, 1, 0)
    except OSError:
        return _OPEN  # the queue is advisory: without it a writer tries by itself


def _write_gate(descriptor: int, state: bytes) -> None:
    with suppress(OSError):  # a full disk, say: the same
        os.pwrite(descriptor, state, 0)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _try_begin(connection: StoreConnection) -> bool:
    try:
        connection.begin(BEGIN_WRITE)
    except sqlite3.Error as error:
        if is_busy(error):
            return False
        raise
    return True
