"""The readers of one open file: connections that only read, and the reads of event loops.

A thread reads on a connection of its own. The one-call reads of event loops go together: a
*runner*, on a thread of the library, begins a snapshot and does those that were asked for before
that, one after another. While one takes long, another runner does the rest, in a snapshot of its
own; so nobody waits for somebody else's long read.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from lash_store._backends.sqlite import dialect
from lash_store._backends.sqlite.driver import store_error
from lash_store._kernel.calls import Call, LoopCall, settle
from lash_store._kernel.threads import READS, TIMER

if TYPE_CHECKING:
    from lash_store._backends.sqlite.connection import StoreConnection
    from lash_store._backends.sqlite.connections import Connections

_MOST_IDLE: Final = 8
_MOST_RUNNERS: Final = READS.most

_TICK_S: Final = 0.005
"""How long a read may take before others are let past it."""


class _Runner:
    """Who does reads of event loops now: at which call it is, and whom it has yet to answer."""

    __slots__ = ("_write", "at", "ended")

    def __init__(self, write: Callable[[Sequence[LoopCall]], None]) -> None:
        self._write = write
        self.at: Call | None = None
        self.ended: deque[LoopCall] = deque()

    def answer(self) -> None:
        """Tell those whose reads are done; from this thread, or from the timer's."""
        ended: list[LoopCall] = []
        unfinished: list[LoopCall] = []
        while self.ended:
            with suppress(IndexError):  # the other one was quicker
                call = self.ended.popleft()
                (unfinished if call.becomes_write() else ended).append(call)
        settle(ended)
        if unfinished:
            self._write(unfinished)


class Readers:
    """The connections of one file that only read; see the head of this module."""

    def __init__(
        self, connections: Connections, write: Callable[[Sequence[LoopCall]], None]
    ) -> None:
        self._connections = connections
        self._write = write
        self._idle: list[StoreConnection] = []
        self._out: dict[StoreConnection, int] = {}
        """Those in use, each with the thread that uses it."""

        self._is_paused = False
        self._waiting: deque[tuple[int, LoopCall]] = deque()
        self._numbers = count(1)
        self._last = 0
        self._runners: set[_Runner] = set()
        self._seen: dict[_Runner, Call | None] = {}
        self._ticks = False
        self._lock = threading.RLock()

    @property
    def in_use(self) -> bool:
        """Whether somebody reads, or waits to."""
        return bool(self._out or self._runners or self._waiting)

    def begin(self, operation: str) -> StoreConnection:
        """Begin a snapshot; end it with :meth:`end`."""
        self._connections.check_file()
        connection = self._take()
        try:
            connection.operation = operation
            self._connections.read_s = monotonic()
            connection.begin(dialect.BEGIN_READ)
        except BaseException as error:
            self.end(connection)
            if isinstance(error, sqlite3.Error):
                raise store_error(error, connection) from error
            raise
        return connection

    def end(self, connection: StoreConnection) -> None:
        """End a snapshot."""
        try:
            connection.end(dialect.ROLLBACK)
        finally:
            self._give_back(connection)

    def add(self, connection: StoreConnection) -> None:
        """Take over a connection that was opened to look at the file."""
        self._idle.append(connection)

    @contextmanager
    def looking(self) -> Iterator[StoreConnection]:
        """Lend a connection that only reads, without a snapshot."""
        connection = self._take()
        try:
            yield connection
        finally:
            self._give_back(connection)

    def submit(self, call: LoopCall) -> None:
        """Let an event loop's read be done in the next snapshot."""
        with self._lock:
            self._last = next(self._numbers)
            self._waiting.append((self._last, call))
            is_first = not self._runners
            if is_first:
                runner = _Runner(self._write)
                self._runners.add(runner)
            else:
                self._look_after()  # the one that runs may be at a long read
        if is_first:
            READS.submit(lambda: self._run(runner))

    def refuse(self, caller: Any) -> None:
        """Fail what waits for a store that is being closed."""
        refused = []
        for _, call in list(self._waiting):
            if call.caller is caller and call.take(call):
                call.error = caller.closed_error()
                refused.append(call)
        settle(refused)

    def close_idle(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._connections.discard(self._idle.pop())

    def drain(self, until_s: float) -> None:
        """Close each connection as its snapshot ends, until `until_s` on the monotonic clock.

        For a fork: no snapshot begins meanwhile, as no connection may be opened. What this very
        thread reads goes on: it can't end before the fork.
        """
        self._is_paused = True
        me = get_ident()
        while True:
            self.close_idle()
            # Those that are open, not those in use: one may be on its way from the one to the other.
            left = [each for each in self._connections.readers() if self._out.get(each) != me]
            if not left or monotonic() > until_s:
                return
            threading.Event().wait(0.0005)

    def resume(self) -> None:
        """Let snapshots begin again."""
        self._is_paused = False

    def _take(self) -> StoreConnection:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connections.open_reader()
        self._out[connection] = get_ident()
        return connection

    def _give_back(self, connection: StoreConnection) -> None:
        if self._out.pop(connection, None) is None:
            return  # it was left to the parent process by a fork
        is_of_use = not (self._is_paused or self._connections.closed or connection.in_transaction)
        if not is_of_use or len(self._idle) >= _MOST_IDLE:
            self._connections.discard(connection)
        else:
            self._idle.append(connection)

    def _run(self, runner: _Runner) -> None:
        """Do what waits, snapshot after snapshot."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._runners.discard(runner)
                    return
                through = self._last
                if len(self._waiting) > 1:
                    self._look_after()
            try:
                self._read_through(through, runner)
            finally:
                runner.answer()

    def _read_through(self, through: int, runner: _Runner) -> None:
        """Do in one snapshot what was asked for before it began."""
        try:
            connection = self.begin("read")
        except Exception as error:  # noqa: BLE001 # reason: whatever it is, it is the first call's answer
            call = self._next(through)
            if call is not None:
                call.error = error
                runner.ended.append(call)
            return
        try:
            while (call := self._next(through)) is not None:
                runner.at = call
                connection.operation = call.operation or "read"
                call.run(connection, BaseException)
                runner.ended.append(call)
        finally:
            runner.at = None
            with suppress(
                Exception
            ):  # everybody has an answer, and others may wait for this thread
                self.end(connection)

    def _next(self, through: int) -> LoopCall | None:
        with self._lock:
            while self._waiting and self._waiting[0][0] <= through:
                call = self._waiting.popleft()[1]
                if call.take(self):
                    return call
        return None

    def _look_after(self) -> None:
        """Let the timer look, while somebody waits, whether a read takes long."""
        if not self._ticks:
            self._ticks = True
            TIMER.after(_TICK_S, self._tick)

    def _tick(self) -> None:
        """Let others past a read that takes long."""
        with self._lock:
            runners = list(self._runners)
            self._ticks = bool(self._waiting) or any(each.ended for each in runners)
            stuck = [each for each in self._runners if each.at and self._seen.get(each) is each.at]
            self._seen = {each: each.at for each in self._runners}
            helps = len(stuck) == len(self._runners) < _MOST_RUNNERS and self._waiting
            if helps:
                runner = _Runner(self._write)
                self._runners.add(runner)
        for each in stuck:
            each.answer()
        if self._ticks:
            TIMER.after(_TICK_S, self._tick)
        if helps:
            READS.submit(lambda: self._run(runner))
