"""Calls that wait for a transaction, and how whoever made one learns what became of it.

A call is made on a thread or in an event loop, and run by whoever leads the group that it joins:
perhaps on another thread, perhaps twice, so it holds nothing but values. *Taking* it is atomic:
either somebody runs it, or who made it withdraws it, and nobody does both.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import Context, copy_context
from itertools import pairwise
from threading import get_ident
from time import monotonic
from typing import Any, Final, TypeVar

from lash_store._kernel.signals import is_from_handler
from lash_store._kernel.threads import (
    Bell,
    report,
)

R = TypeVar("R")

LOOK_AGAIN_S: Final = 0.05
"""How long a thread waits before it sees for itself whether those before it are still there."""


_ITSELF: Final = object()
"""Stands for a call that has taken itself: in a circle, it and its store would only be freed by a collector."""


class Call(ABC):
    """One call: what is to be done in a transaction, for whom, by when, and how it ended."""

    __slots__ = (
        "alone",
        "budget_s",
        "caller",
        "context",
        "deadline_s",
        "error",
        "is_blocked",
        "locks",
        "operation",
        "reads",
        "result",
        "settled",
        "since_s",
        "taken",
        "work",
    )

    def __init__(  # noqa: PLR0917 # reason: passed on by position, once for each call
        self,
        caller: Any,
        operation: str | None,
        work: Callable[[Any], Any],
        budget_s: float,
        alone: bool = False,  # noqa: FBT001, FBT002 # reason: likewise
        reads: bool = False,  # noqa: FBT001, FBT002 # reason: likewise
    ) -> None:
        self.caller = caller
        """Whose it is: the handle of a store, which makes its Tx and knows its errors."""
        self.operation = operation
        self.work = work
        self.since_s = monotonic()
        self.budget_s = budget_s
        self.deadline_s = self.since_s + budget_s
        self.alone = alone
        self.reads = reads
        self.locks: tuple[Any, ...] = ()
        """What has to be locked for it, where a database locks less than all of itself."""
        self.is_blocked = False
        """Whether it has waited in vain for what is locked for it, where others need not wait for that."""
        self.context: Context = copy_context()
        self.settled = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.taken: dict[str, object] = {}
        """Who has taken it, under "by": one entry, or none."""

    @property
    def waits(self) -> bool:
        """Whether nobody has taken it yet."""
        return not self.taken

    @property
    def is_left(self) -> bool:
        """Whether its caller was cancelled as it waited: it is not to happen."""
        return False

    @abstractmethod
    def may_join(self, *, on_library: bool) -> bool:
        """Whether whoever leads may run it, on a thread of the library or of another caller."""

    def take(self, by: object) -> bool:
        """Take it, to run or to withdraw it; False if somebody else has."""
        by = _ITSELF if by is self else by
        # One call into C: whatever interrupts, it is taken by one, and who that is can be seen.
        return self.taken.setdefault("by", by) is by

    def give_back(self, by: object, *, alone: bool = True) -> bool:
        """Let it wait again, to be run once more, by itself if `alone`: what it did was undone."""
        if self.taken.get("by") is not (_ITSELF if by is self else by):
            return False
        self.alone = self.alone or alone
        self.result = self.error = None
        self.taken.clear()
        return True

    def run(self, transaction: Any, caught: type[BaseException] = Exception) -> None:
        """Do its work in `transaction` and note what that gives.

        Errors that are `caught` are its own. On a thread of the library those are all; on a
        caller's an interrupt is that thread's, whoever's call it strikes, and so is what another
        signal's handler raises.
        """
        tx = None
        try:
            if self.caller.closed:
                raise self.caller.closed_error()
            tx = self.caller.make_tx(transaction, self.operation)
            self.result = self.context.run(self.work, tx)
        except caught as error:
            if caught is not BaseException and is_from_handler(error):
                raise
            self.error = error
        finally:
            if tx is not None:
                tx.transaction = None

    def expire(self, now_s: float) -> bool:
        """Fail it if it has waited for as long as it may; tell whether that was so, by whoever saw it first."""
        if self.deadline_s > now_s or not self.take(self):
            return False
        self.error = self.caller.busy_error(self.since_s, self)
        return True

    def outcome(self) -> Any:
        """Return what it gave, or raise its error."""
        if self.error is not None:
            raise self.error
        return self.result


class ThreadCall(Call):
    """A call of a thread, which waits for its turn to lead, or to be told that it was led."""

    __slots__ = ("_bell", "by_itself", "is_withdrawn", "next_told", "thread")

    def __init__(
        self,
        caller: Any,
        operation: str | None,
        work: Callable[[Any], Any],
        *,
        budget_s: float | None = None,
        by_itself: bool = False,
    ) -> None:
        Call.__init__(
            self, caller, operation, work, caller.budget_s if budget_s is None else budget_s
        )
        self.by_itself = by_itself
        self._bell = Bell()
        self.thread = get_ident()
        self.next_told: ThreadCall | None = None
        """Whom its thread wakes once it is awake itself; see :func:`settle`."""
        self.is_withdrawn = False
        """Whether an interrupt has ended its thread's wait: whoever has taken it already gives it back to nobody."""

    def give_back(self, by: object, *, alone: bool = True) -> bool:
        """Let it wait again; not if its thread doesn't: in line it would keep all others waiting."""
        return not self.is_withdrawn and Call.give_back(self, by, alone=alone)

    def may_join(self, *, on_library: bool) -> bool:  # noqa: ARG002 # reason: a loop's call asks
        """Whether another thread may run it: not if it is a consumer's work."""
        return not (self.by_itself or self.alone)

    def wake(self) -> None:
        """Let its thread see for itself."""
        self._bell.ring()

    def wake_next(self) -> None:
        """Let the next one whose call has ended as well wake up."""
        if self.next_told is not None:
            self.next_told.wake()

    def wait(self, until_s: float) -> None:
        """Wait to be woken, until `until_s` on the monotonic clock at most, or for a moment."""
        left_s = min(until_s - monotonic(), LOOK_AGAIN_S)
        if left_s > 0:
            self._bell.wait(left_s)


class LibraryCall(Call):
    """A call that no thread of a caller's waits for: a thread of the library leads for it."""

    __slots__ = ("is_consumers",)

    is_consumers: bool
    """Whether its work is a consumer's own, which may take its time."""

    def may_join(self, *, on_library: bool) -> bool:
        """Whether whoever leads may run it: a consumer's work runs on no other caller's thread."""
        return not self.alone and (on_library or not self.is_consumers)


class ToldCall(LibraryCall):
    """A call of the library's own, which is told of its end on whatever thread that comes about."""

    __slots__ = ("told",)

    def __init__(
        self,
        caller: Any,
        operation: str,
        work: Callable[[Any], Any],
        *,
        budget_s: float,
        told: Callable[[Call], None],
    ) -> None:
        Call.__init__(self, caller, operation, work, budget_s)
        self.is_consumers = False
        self.told = told
        """Called once it has ended; it must be quick, and not raise."""


class LoopCall(LibraryCall):
    """A call of an event loop: a future is settled there."""

    __slots__ = ("_loop", "_outcome", "_waited", "is_kept", "write_instead")

    def __init__(
        self,
        caller: Any,
        operation: str | None,
        work: Callable[[Any], Any],
        *,
        budget_s: float,
        alone: bool = False,
        reads: bool = False,
        is_consumers: bool = False,
        is_kept: bool = False,
        write_instead: tuple[str, Callable[[Any], Any]] | None = None,
    ) -> None:
        Call.__init__(self, caller, operation, work, budget_s, alone, reads)
        self.is_kept = is_kept
        """Whether it is done even if its caller is cancelled before."""
        self.write_instead = write_instead
        """What is to be written, an operation and its work, if this read finds nothing."""
        self._loop = asyncio.get_running_loop()
        self._waited: asyncio.Future[Any] | None = self._loop.create_future()
        """What its caller waits for; none once that was told of an error."""
        self.is_consumers = is_consumers
        self._outcome: asyncio.Future[None] | None = None

    @property
    def is_left(self) -> bool:
        """Whether its caller was cancelled as it waited, and it is not kept all the same."""
        waited = self._waited
        return waited is not None and waited.cancelled() and not self.is_kept

    def becomes_write(self) -> bool:
        """Become the write that is due if this read found nothing; tell whether it did."""
        if self.write_instead is None or self.result is not None or self.error is not None:
            return False
        if self._waited is None or self._waited.done():
            return False  # it was cancelled
        (self.operation, self.work), self.write_instead = self.write_instead, None
        self.taken.clear()
        return True

    async def answer(self) -> Any:
        """Wait for the outcome; cancelled after it was taken, only once the outcome is known.

        The CancelledError that is raised then is caused by the error that it ended with, if any.
        """
        try:
            assert self._waited is not None
            return await self._waited
        except asyncio.CancelledError as cancelled:
            if not self.is_kept and self.take(self):
                raise  # nobody runs it, now or later
            await self._known()
            raise cancelled from self.error
        except GeneratorExit:  # its coroutine is thrown away, and nobody would undo what it does
            if not self.is_kept:
                self.take(self)
            raise
        except BaseException:
            # Its traceback leads to this call: if that led back, the two would keep a store that is dropped.
            self.error = self._waited = None
            raise

    async def _known(self) -> None:
        # It may have been settled between the cancelling and now: then nobody will tell again.
        while not self.settled:
            self._outcome = self._loop.create_future()
            with suppress(asyncio.CancelledError):
                await self._outcome

    def tell(self) -> None:
        """Settle the future, in its loop."""
        self.settled = True
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(None)
        waited = self._waited
        if waited is None or waited.done():
            return  # it was cancelled, or is told once more
        error = self.error
        if isinstance(error, StopIteration):
            # No future can carry it: whoever awaits it would wait for ever.
            error = RuntimeError("the work raised StopIteration")
            error.__cause__ = self.error
        if error is not None:
            waited.set_exception(error)
        else:
            waited.set_result(self.result)


def settle(calls: Iterable[Call]) -> None:
    """Tell everybody whose call has ended: threads one by one, each event loop once.

    One thread is woken and wakes the next: all at once, they would wake only to wait for the
    interpreter's lock, and switch twice as often. If one does not come to it, because of an
    interrupt, the others see for themselves within LOOK_AGAIN_S.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[LoopCall]] = {}
    in_threads: list[ThreadCall] = []
    for call in calls:
        if isinstance(call, LoopCall):
            by_loop.setdefault(call._loop, []).append(call)  # noqa: SLF001 # reason: of the same module
        elif isinstance(call, ThreadCall):
            in_threads.append(call)
        elif isinstance(call, ToldCall):
            call.settled = True
            try:
                call.told(call)
            except Exception as error:  # noqa: BLE001 # reason: all the others are to be told as well
                report(error)
    for call, after in pairwise(in_threads):
        call.next_told = after
    for call in reversed(in_threads):  # who sees that it has ended wakes one that has ended as well
        call.settled = True
    if in_threads:
        in_threads[0].wake()
    for loop, ended in by_loop.items():
        with suppress(RuntimeError):  # the loop has been closed in the meantime
            loop.call_soon_threadsafe(_tell, ended)


def _tell(calls: list[LoopCall]) -> None:
    for call in calls:
        call.tell()
