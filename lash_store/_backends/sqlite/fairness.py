"""Fair writing: which process may try for SQLite's write lock next (K-TX-4).

SQLite's busy handler sleeps between its tries, so whoever just released the lock takes it
again while the others sleep: with four processes that hold it 5 ms each, one was served a
thousand times and the others once. A small queue on a sidecar file mends that.

It is advisory. Exclusion is SQLite's alone; a writer that gets nothing from the queue still tries
by itself, so losing the queue (a stopped process in it, a sidecar that can't be opened) costs
fairness and a moment, never progress, exclusion or the deadline.
"""

import errno
import os
import sqlite3
from contextlib import suppress
from math import inf
from typing import Final

from lash_store._backends.beside import open_beside
from lash_store._backends.sqlite.connection import StoreConnection
from lash_store._backends.sqlite.dialect import BEGIN_WRITE
from lash_store._backends.sqlite.driver import data_version, is_busy
from lash_store._backends.sqlite.files import QUEUE_SUFFIX, is_taken
from lash_store._kernel.posix import NO_LINK, fcntl, require_systems_own

_OPEN: Final = b"\0"
_CLOSED: Final = b"\1"

_SHORTEST_BURST_S: Final = 0.001
_LONGEST_BURST_S: Final = 0.005
"""How long the head of the queue lets the present holder begin again. Taking turns costs: whoever
begins after another process reads anew what that has changed, and until it looks the lock is free."""

_WAIT_FOR_BURSTS: Final = 6
"""A burst is the longer, the longer the wait to be the head was: of many that never rest, not of a few,
between whose calls the lock is mostly free. It is that wait, divided by this."""

_LOOK_AGAIN_S: Final = 0.001
"""A writer that begins again sooner than this keeps what it last saw of the gate."""

_PATIENCE_S: Final = 0.25
"""After this long in the queue a writer no longer trusts its head to be running."""

_SHORTEST_NAP_S: Final = 0.0002
_LONGEST_NAP_S: Final = 0.002
_SOONER_PER_S: Final = 25
"""How much more often somebody looks who is not the head, for each second of the wait."""

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
    the head, tries often, and closes the gate if it waits for more than a burst, which sends
    the holder to the back of the queue. A head that has waited long lets a process that commits again
    and again go on for longer, and tries as soon as nobody does. Nothing here ever blocks, so whoever
    waits may do so however it likes: a thread sleeps between two tries, for an event loop the timer
    looks again.
    """

    __slots__ = ("_burst_s", "_contended_s", "_descriptor", "_gate_is_ours", "_head_s",
                 "_looked_s", "_may_try", "_queued_s", "_version", "problem")  # fmt: skip

    def __init__(self, path: str) -> None:
        self.problem: str | None = None
        """Why the sidecar can't be used, where there could be one."""

        self._descriptor: int | None = None
        if fcntl is not None:  # else every writer tries by itself
            try:
                self._descriptor = _open_sidecar(path)
            except OSError as error:
                require_systems_own(error)
                self.problem = error.strerror or str(error)
        self._looked_s = self._contended_s = 0.0
        self._may_try = True
        self._queued_s: float | None = None
        self._burst_s = _SHORTEST_BURST_S
        self._head_s: float | None = None
        """Since when it has been the head."""

        self._version: int | None = None
        self._gate_is_ours = False

    @property
    def is_fair(self) -> bool:
        """Whether the sidecar could be opened; otherwise every writer tries by itself."""
        return self._descriptor is not None

    @property
    def is_waiting(self) -> bool:
        """Whether this process stands in it."""
        return self._queued_s is not None

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

    def try_begin(
        self, connection: StoreConnection, now_s: float, budget_s: float = inf
    ) -> float | None:
        """Begin a write transaction; if another holds the lock, return when to try again, in seconds.

        Of a `budget_s` half is spent in the queue at most.
        """
        if self._queued_s is None:
            self._queued_s = now_s
            _waiting.add(id(self))
        self._contended_s = now_s
        waited_s = now_s - self._queued_s
        if self._head_s is None and (self._descriptor is None or _try_lock(self._descriptor)):
            self._lead_from(now_s, waited_s)
        # A head that is stopped, or a dead one whose child keeps its descriptor, must not keep
        # the others from SQLite's lock: after a while each acts as the head, at the end of a burst.
        if self._head_s is not None:
            led_s = now_s - self._head_s
        else:
            patience_s = min(_PATIENCE_S, budget_s / 2)
            led_s = self._burst_s if waited_s >= patience_s else -1.0
        if led_s >= self._burst_s:
            self._close_gate()
        try:
            has_begun = led_s >= 0 and not self._leaves_a_burst(connection, led_s)
            has_begun = has_begun and _try_begin(connection)
        except BaseException:
            self.leave()
            raise
        if has_begun:
            self.leave()
            return None
        return max(self._nap_s(waited_s, led_s), _NAP_OF_MANY_S * (len(_waiting) - 1))

    def _lead_from(self, now_s: float, waited_s: float) -> None:
        """Be the head from now on."""
        self._head_s = now_s
        burst_s = min(max(waited_s / _WAIT_FOR_BURSTS, _SHORTEST_BURST_S), _LONGEST_BURST_S)
        # A gate that is closed was closed by one that is no more: nobody has a burst.
        is_stale = self._descriptor is not None and _read_gate(self._descriptor) == _CLOSED
        self._burst_s = 0.0 if is_stale else burst_s

    def _leaves_a_burst(self, connection: StoreConnection, led_s: float) -> bool:
        """Whether another process has committed since the last look, and may go on for a while.

        Between two of its transactions the lock is free, and a try would end the burst by chance.
        """
        if led_s >= self._burst_s or self._burst_s <= _SHORTEST_BURST_S or not self.is_fair:
            return False
        before = self._version
        try:
            self._version = data_version(connection.own_cursor)
        except sqlite3.Error as error:
            if is_busy(error):  # the WAL is being mended after a crash: a try would be in vain too
                return True
            raise
        return before != self._version

    def _nap_s(self, waited_s: float, led_s: float) -> float:
        if led_s >= 0 and self.is_fair:
            is_beside_a_burst = led_s < self._burst_s > _SHORTEST_BURST_S
            return min(_SHORTEST_NAP_S + led_s * is_beside_a_burst, _LONGEST_NAP_S)
        # The longer the wait has been, the less: the oldest, who is next, looks most often. Each look
        # costs the one that writes, and the next head is not wanted before a burst ends.
        return max(_SHORTEST_NAP_S, _LONGEST_NAP_S / (1 + waited_s * _SOONER_PER_S))

    def leave(self) -> None:
        """Leave the queue, having begun or given up."""
        descriptor, self._queued_s, self._may_try = self._descriptor, None, True
        _waiting.discard(id(self))
        if descriptor is not None:
            if self._gate_is_ours:  # though another may have closed it before, which is stopped
                _write_gate(descriptor, _OPEN)
            with suppress(
                OSError
            ):  # whether or not it is known to be the head: an interrupt may strike
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        self._head_s, self._version, self._gate_is_ours = None, None, False

    def close(self) -> None:
        """Leave the queue, and close the sidecar's descriptor."""
        self.leave()
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        """Close the descriptor of a file that nobody has closed: not the lock, which may be a parent's."""
        with suppress(AttributeError, OSError):
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                os.close(descriptor)

    def _close_gate(self) -> None:
        if self._descriptor is not None:
            self._gate_is_ours = True
            if _read_gate(self._descriptor) != _CLOSED:  # or one that was late has opened it
                _write_gate(self._descriptor, _CLOSED)


def _open_sidecar(path: str) -> int:
    """Open the sidecar of the database at `path`, with its mode and owner."""
    sidecar = path + QUEUE_SUFFIX
    if is_taken(sidecar):  # never opened: closing it would drop another database's locks
        raise OSError(errno.EEXIST, f"{sidecar!r} is a file of somebody's")
    return open_beside(path, sidecar, NO_LINK)


def _read_gate(descriptor: int) -> bytes:
    try:
        return os.pread(descriptor, 1, 0)
    except OSError as error:
        require_systems_own(error)
        return _OPEN  # the queue is advisory: without it a writer tries by itself


def _write_gate(descriptor: int, state: bytes) -> None:
    try:
        os.pwrite(descriptor, state, 0)
    except OSError as error:  # a full disk, say: the same
        require_systems_own(error)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        require_systems_own(error)
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
