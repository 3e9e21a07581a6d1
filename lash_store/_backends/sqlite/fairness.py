"""Fair writing: who may try for SQLite's write lock next (K-TX-4).

SQLite's busy handler sleeps between its tries, so whoever just released the lock takes it
again while the others sleep: with four processes that hold it 5 ms each, one was served a
thousand times and the others once. Two small queues mend that, one for the threads of a
process (:class:`FairLock`) and one for processes (:class:`WriteQueue`, on a sidecar file).

Both are advisory. Exclusion is SQLite's alone; a writer that gets nothing from the queue
still tries by itself, so losing the queue (a stopped process in it, a sidecar that can't be
opened) costs fairness and a moment, never progress, exclusion or the deadline.
"""

import os
import sqlite3
import threading
import time
from collections import deque
from contextlib import suppress
from threading import get_ident
from typing import Final

from lash_store._backends.sqlite.connection import StoreConnection
from lash_store._backends.sqlite.dialect import BEGIN_WRITE
from lash_store._backends.sqlite.driver import is_busy
from lash_store._backends.sqlite.files import QUEUE_SUFFIX
from lash_store.errors import NestedTransactionError, StoreBusyError

try:
    import fcntl
except ImportError:  # Windows: SQLite's busy handler serves
    fcntl = None  # type: ignore[assignment] # reason: a module that may be absent has no other spelling

_OPEN: Final = b"\0"
_CLOSED: Final = b"\1"

_BURST_S: Final = 0.005
"""How long the head of the queue lets the present holder begin again: bursts are cheap."""

_LOOK_AGAIN_S: Final = 0.001
"""A writer that begins again sooner than this keeps what it last saw of the gate."""

_PATIENCE_S: Final = 0.25
"""After this long in the queue a writer no longer trusts its head to be running."""

_LONGEST_NAP_S: Final = 0.002
_SHORTEST_NAP_S: Final = 0.0002


class FairLock:
    """A lock that threads get in the order in which they asked, with a timeout.

    ``release`` hands the lock to the thread that waits longest; a thread that releases and
    asks again stands behind the others. Asking again while holding it is an error at once.
    """

    __slots__ = ("_holder", "_lock", "_waiters")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None
        self._waiters: deque[tuple[threading.Lock, int]] = deque()

    @property
    def is_mine(self) -> bool:
        """Whether this thread holds the lock."""
        return self._holder == get_ident()

    def acquire(self, timeout_s: float) -> bool:
        """Take the lock within `timeout_s` seconds; tell whether it was taken."""
        me = get_ident()
        if self._lock.acquire(blocking=False):
            self._holder = me
            return True
        if self._holder == me:
            raise NestedTransactionError(
                "this thread is inside a transaction of this store already: use that one's Tx"
            )
        return self._wait(me, timeout_s)

    def release(self) -> None:
        """Hand the lock to the thread that waits longest, or free it."""
        if self._waiters and self._hand_over():
            return
        self._holder = None
        self._lock.release()
        # A thread that began to wait just before the lock was free has to be served: by itself,
        # by whoever took the lock in between, or here.
        # In a loop: another may begin to wait while a hand-over finds that one has given up.
        while self._waiters and self._lock.acquire(blocking=False):
            if self._hand_over():
                return
            self._lock.release()

    def _wait(self, me: int, timeout_s: float) -> bool:
        turn = threading.Lock()
        turn.acquire()
        waiter = (turn, me)
        self._waiters.append(waiter)
        try:
            # Once more, now that a releaser can see us: it may have looked just before.
            if self._lock.acquire(blocking=False) and not self._hand_over():
                self._lock.release()
            if turn.acquire(timeout=min(timeout_s, threading.TIMEOUT_MAX)):
                return True
        except BaseException:
            if not self._withdraw(waiter):
                self.release()  # it was handed over while the exception was on its way
            raise
        return not self._withdraw(waiter)

    def _hand_over(self) -> bool:
        """Give the lock, which is held, to the first waiter; False if nobody waits any more."""
        try:
            turn, self._holder = self._waiters.popleft()
        except IndexError:
            return False
        turn.release()
        return True

    def _withdraw(self, waiter: tuple[threading.Lock, int]) -> bool:
        """Stop waiting; False if the lock was handed over in the meantime."""
        try:
            self._waiters.remove(waiter)
        except ValueError:
            return False
        return True


class WriteQueue:
    """The queue of processes for one database file, and BEGIN IMMEDIATE through it.

    The sidecar's first byte is the gate. While it is open, a writer tries at once. A writer
    that finds the lock taken queues for an ``flock`` on the sidecar; the one that holds it is
    the head, tries often, and closes the gate if it waits for more than a burst, which sends
    the holder to the back of the queue. Nothing here ever blocks in the kernel.
    """

    __slots__ = ("_busy_timeout_s", "_descriptor", "_looked_s", "_may_try", "_path")

    def __init__(self, path: str, *, busy_timeout_ms: int) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_ms / 1000
        self._descriptor = _open_sidecar(path)
        self._looked_s = 0.0
        self._may_try = True

    @property
    def is_fair(self) -> bool:
        """Whether the sidecar could be opened; otherwise the busy handler serves."""
        return self._descriptor is not None

    def begin(self, connection: StoreConnection, started_s: float) -> None:
        """Begin a write transaction; StoreBusyError once the budget since `started_s` is spent."""
        descriptor = self._descriptor
        if descriptor is not None and started_s - self._looked_s > _LOOK_AGAIN_S:
            # An empty sidecar is a new one: nobody has closed its gate yet.
            self._may_try = _read_gate(descriptor) != _CLOSED
            self._looked_s = started_s
        if self._may_try:
            try:
                connection.begin(BEGIN_WRITE)
            except sqlite3.Error as error:
                if not is_busy(error):
                    raise
            else:
                return
        if descriptor is None:
            raise self._busy(started_s)
        self._wait(descriptor, connection, started_s)
        self._may_try = True

    def close(self) -> None:
        """Close the sidecar's descriptor, and with it leave the queue."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _wait(self, descriptor: int, connection: StoreConnection, started_s: float) -> None:
        queued_s = time.monotonic()
        is_head = closed_gate = False
        try:
            while True:
                waited_s = time.monotonic() - queued_s
                is_head = is_head or _try_lock(descriptor)
                # A head that is stopped, or a dead one whose child keeps its descriptor, must
                # not keep the others from SQLite's lock: after a while each acts as the head.
                acts = is_head or waited_s > _PATIENCE_S
                if acts and not closed_gate and waited_s > _BURST_S:
                    _write_gate(descriptor, _CLOSED)
                    closed_gate = True
                if acts and _try_begin(connection):
                    _write_gate(descriptor, _OPEN)
                    return
                if time.monotonic() - started_s >= self._busy_timeout_s:
                    if closed_gate:
                        _write_gate(descriptor, _OPEN)
                    raise self._busy(started_s)
                time.sleep(_SHORTEST_NAP_S if acts else _nap_s(waited_s))
        finally:
            if is_head:
                fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _busy(self, started_s: float) -> StoreBusyError:
        return StoreBusyError(self._path, round((time.monotonic() - started_s) * 1000))


def _open_sidecar(path: str) -> int | None:
    """Open the sidecar of the database at `path`, with its mode and owner; None if that fails."""
    if fcntl is None:
        return None
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        model = os.stat(path)
        try:
            return os.open(path + QUEUE_SUFFIX, flags)
        except FileNotFoundError:
            descriptor = os.open(path + QUEUE_SUFFIX, flags | os.O_CREAT, 0o600)
        os.fchmod(descriptor, model.st_mode & 0o777)
        with suppress(PermissionError):
            os.fchown(descriptor, model.st_uid, model.st_gid)
    except OSError:
        return None
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


def _nap_s(waited_s: float) -> float:
    """Sleep less the longer the wait has been, so that the oldest waiter looks most often."""
    return max(_SHORTEST_NAP_S, _LONGEST_NAP_S / (1 + waited_s * 100))
