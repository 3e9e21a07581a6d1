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
from functools import partial
from itertools import count
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from lash_store._backends.sqlite import dialect
from lash_store._backends.sqlite.driver import store_error
from lash_store._backends.sqlite.turns import Hold, Holding
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
        self._open: list[StoreConnection] = []
        self._held: dict[StoreConnection, ref[Holding]] = {}
        """Those in use, each with what holds it; only for as long as that lives, as with a turn (``turns``)."""

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
        self._let_go_of_the_lost()
        return bool(self._held or self._runners or self._waiting)

    def begin(self, hold: Holding, operation: str, busy_timeout_ms: int) -> StoreConnection:
        """Begin a snapshot, held by `hold`; end it with :meth:`end`."""
        self._connections.check_file()
        connection = self._take(hold, busy_timeout_ms)
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
        self._open.append(connection)

    @contextmanager
    def looking(self, busy_timeout_ms: int) -> Iterator[StoreConnection]:
        """Lend a connection that only reads, without a snapshot."""
        hold = Hold()
        connection = self._take(hold, busy_timeout_ms)
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

    def close_idle(self, *, is_all_held: bool = False) -> None:
        """Close the connections that nobody uses.

        If the turn and the version reader `is_all_held`, nobody is opening one that is not to read: those go
        too that an interrupt kept from being noted here.
        """
        self._let_go_of_the_lost()
        hold = Hold()
        for connection in self._connections.readers() if is_all_held else list(self._open):
            if self._get(connection, hold):
                self._discard(connection)

    def drain(self, until_s: float, *, is_all_held: bool) -> None:
        """Close each connection as its snapshot ends, until `until_s` on the monotonic clock; see :meth:`close_idle`.

        For a fork: no snapshot begins meanwhile, as no connection may be opened. What this very
        thread reads goes on: it can't end before the fork.
        """
        self._is_paused = True
        me = get_ident()
        while True:
            self.close_idle(is_all_held=is_all_held)
            # Those that are open, not those in use: one may be on its way from the one to the other.
            left = [each for each in self._connections.readers() if self._thread_at(each) != me]
            if not left or monotonic() > until_s:
                return
            threading.Event().wait(0.0005)

    def resume(self) -> None:
        """Let snapshots begin again."""
        self._is_paused = False

    def _take(self, hold: Holding, busy_timeout_ms: int) -> StoreConnection:
        if self._held:
            self._let_go_of_the_lost()
        while True:
            for connection in self._open:
                if connection not in self._held and self._get(connection, hold):
                    if connection.busy_timeout_ms != busy_timeout_ms:
                        connection.wait_for(busy_timeout_ms)
                    return connection
            connection = self._connections.open_reader(busy_timeout_ms)
            if self._get(connection, hold):  # or who closes what is idle was quicker
                self._open.append(connection)
                return connection

    def _get(self, connection: StoreConnection, hold: Holding) -> bool:
        """Let `hold` have a connection, if nobody has it and it is open still.

        By one call into C, which no interrupt divides: whoever has it can be seen from it.
        """
        hold.thread = get_ident()
        mine = ref(hold)
        if self._held.setdefault(connection, mine) is not mine:
            return False
        if connection in self._connections.all:
            return True
        del self._held[connection]
        return False

    def _give_back(self, connection: StoreConnection) -> None:
        if connection not in self._held:
            return  # it was left to the parent process by a fork
        is_of_use = not (self._is_paused or self._connections.closed or connection.in_transaction)
        if is_of_use and len(self._open) - len(self._held) < _MOST_IDLE:
            del self._held[connection]
        else:
            self._discard(connection)

    def _discard(self, connection: StoreConnection) -> None:
        """Close one that is held here, for good."""
        try:
            with suppress(ValueError):  # it is on no list yet, or no more
                self._open.remove(connection)
            with suppress(ValueError):
                self._connections.discard(connection)
        finally:
            self._held.pop(connection, None)

    def _let_go_of_the_lost(self) -> None:
        """Close those whose holder is no more: an interrupt unwound it, or a block was dropped and never left."""
        hold = Hold()
        for connection, held in list(self._held.items()):
            if held() is None:
                with self._lock:
                    if self._held.get(connection) is not held:
                        continue  # another thread was quicker
                    self._held[connection] = ref(hold)
                if connection.standing is not None:
                    connection.standing.abandon()
                self._discard(connection)

    def _thread_at(self, connection: StoreConnection) -> int | None:
        """Return the thread that has a connection, if one has."""
        held = self._held.get(connection)
        holder = None if held is None else held()
        return None if holder is None else holder.thread

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
        hold = Hold()
        try:
            connection = self.begin(hold, "read", self._budget_ms())
        except Exception as error:  # noqa: BLE001 # reason: whatever it is, it is the first call's answer
            call = self._next(through)
            if call is not None:
                call.error = error
                runner.ended.append(call)
            return
        try:
            for call in iter(partial(self._next, through), None):
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

    def _budget_ms(self) -> int:
        """Return how long the first in line may wait for what is locked."""
        return round(next((call.budget_s for _, call in list(self._waiting)), 0.0) * 1000)

    def _next(self, through: int) -> LoopCall | None:
        with self._lock:
            return self._take_first(through)

    def _take_first(self, through: int) -> LoopCall | None:
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

    def _stuck(self) -> list[_Runner]:
        return [each for each in self._runners if each.at and self._seen.get(each) is each.at]

    def _tick(self) -> None:
        """Let others past a read that takes long."""
        with self._lock:
            runners = list(self._runners)
            self._ticks = bool(self._waiting) or any(each.ended for each in runners)
            stuck = self._stuck()
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
