"""How threads of the library lead for event loops' calls, which wait in line as those of threads do.

Short work goes to one pool, a consumer's own to another, which may take its time. Behind as many as
that has threads, a consumer's call leaves the line until one is free: nothing else waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

from lash_store._backends.sqlite.group import Group
from lash_store._backends.sqlite.leading import Leader
from lash_store._backends.sqlite.turns import Hold
from lash_store._kernel.calls import LOOK_AGAIN_S, Call, LibraryCall, ThreadCall, settle
from lash_store._kernel.threads import TIMER, WORKS, WRITES, Pool

if TYPE_CHECKING:
    from lash_store._backends.sqlite.connections import Connections


_TRY_AGAIN_S: Final = 0.001


class Serving(Leader):
    """What leads for those who have no thread of their own; see the head of this module."""

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections)
        self._scheduled = False
        """Whether a thread of the library, or the timer, is about to lead."""

        self._handing_in: object = None
        """What a thread is about to hand that in by, which an interrupt may keep it from."""

        self._comes = False
        """Whether a thread is to come for those who wait beside the line: one for all, or they would have every one."""

        self._attends = False
        """Whether one is there, and about to lead for who is the first of them."""

        self._looked_after = False
        """Whether the timer looks after event loops' calls: their budgets, leaders that are gone."""

    # For event loops.

    def submit(self, call: LibraryCall) -> None:
        """Let an event loop's call stand in line."""
        self.turns.check_not_mine()
        self.submit_all((call,))

    def submit_all(self, calls: Sequence[LibraryCall]) -> None:
        """Let calls of event loops stand in line, from any thread."""
        turns = self.turns
        turns.waiting.extend(calls)
        if not self._scheduled and turns.is_free:
            self.wake_first()
        if not self._looked_after:
            self._look_after_soon()

    def refuse(self, caller: Any) -> None:
        """Fail what waits for a store that is being closed."""
        refused = Group()
        for call in self.turns.all_waiting():
            if call.caller is caller and call.take(refused):
                call.error = caller.closed_error()
                refused.calls.append(call)
        settle(refused.calls)
        self.wake_first()

    def wake_first(self) -> None:
        """Let whoever is first in line see that it is its turn."""
        if self._ended:
            self._settle_ended()
        while isinstance(first := self.turns.first(), LibraryCall):
            if self._scheduled or (self._attends and first.is_consumers):
                return
            if not self._stands_aside(first):
                self._schedule(first)
                return
        if isinstance(first, ThreadCall):
            first.wake()

    # How the library leads for event loops.

    def _schedule(self, first: Call) -> None:
        self._handing_in = object()
        self._scheduled = True
        self._pool_for(first).submit(self._serve)
        self._handing_in = None

    def _serve(self, served: Pool | None = None) -> None:
        """Lead for as long as an event loop's call is the first in line."""
        while isinstance(first := self.turns.first(), LibraryCall):
            pool = self._pool_for(first)
            if served not in (None, pool):
                if self._attends:
                    break
                if self._stands_aside(first):
                    continue
                pool.submit(self._serve)  # which is meant for it
                return
            served, hold = pool, Hold()
            if not self.turns.try_take_first(hold, first):
                break  # whoever has the turn wakes the next one
            if (nap_s := self._lead(hold, first, on_library=True)) is not None:
                TIMER.after(nap_s, self._try_again)
                return
        self._scheduled = False
        self._leave_queue_if_nobody_waits()  # who was to be led may have been cancelled
        if self.turns.is_free:  # again: until just now nobody else would have been scheduled
            self.wake_first()

    def _try_again(self) -> None:
        """See whether another process has let go of the lock, on the timer, which never waits."""
        self._expire_calls()
        first, hold = self.turns.first(), Hold()
        if isinstance(first, LibraryCall) and first.is_consumers:
            # Its own thread has to try: the lock must not be had before there is a thread to use it.
            self._scheduled = False
            self.wake_first()
            self._leave_queue_if_nobody_waits()  # it may stand aside now, for as long as that takes
            return
        if (
            not isinstance(first, LibraryCall)
            or self._connections.writer is None  # and opening it may wait
            or not self.turns.try_take_first(hold, first)
        ):
            self._scheduled = False
            self._leave_queue_if_nobody_waits()
            if self.turns.is_free:
                self.wake_first()
            return
        try:
            nap_s = self._try_begin(first.operation or "transact", first.budget_s)
        except Exception as error:  # noqa: BLE001 # reason: whatever it is, it is the call's answer
            self._fail(hold, first, error)
            nap_s = 0.0
        if nap_s is None:
            self._pool_for(first).submit(partial(self._serve_begun, hold, first))
        else:
            self.turns.give_back(hold)
            TIMER.after(nap_s, self._try_again)

    def _serve_begun(self, hold: Hold, first: LibraryCall) -> None:
        """Lead in the transaction that the timer has begun, and go on."""
        self.turns.move_here(hold)
        self._connection.move_here()
        self._lead(hold, first, on_library=True, has_begun=True)
        self._serve(self._pool_for(first))

    def _stands_aside(self, first: LibraryCall) -> bool:
        """Let a consumer's call that all threads are too busy for wait beside the line, whose others go on."""
        if not (first.is_consumers and WORKS.is_full):
            return False
        self.turns.stand_aside(first)
        if not self._comes:
            self._comes = True
            WORKS.submit(self._come_for_those_aside)
        return True

    def _come_for_those_aside(self) -> None:
        """Lead for those who have stood aside, on a thread that is free by now.

        It waits a moment for whoever has the turn, and no longer: others' work wants it too.
        """
        self._comes = False  # first: who comes to stand there from now on has another one come
        self._attends = True
        self.turns.come_back()
        hold, until_s = Hold(), monotonic() + LOOK_AGAIN_S
        while isinstance(first := self.turns.first(), LibraryCall) and first.is_consumers:
            if self.turns.try_take_first(hold, first):
                self._attends, self._scheduled = False, True
                if (nap_s := self._lead(hold, first, on_library=True)) is not None:
                    TIMER.after(nap_s, self._try_again)
                else:
                    self._serve(WORKS)
                return
            if monotonic() >= until_s:
                break
            sleep(_TRY_AGAIN_S)
        self._attends = False
        if self.turns.is_free:  # again: until just now it was left to this thread
            self.wake_first()

    def _come_again(self) -> None:
        """Let a thread come for those who wait beside the line, if any do."""
        if self.turns.first_aside() is not None:
            self._comes = True
            WORKS.submit(self._come_for_those_aside)

    def _pool_for(self, first: Call) -> Pool:
        return WORKS if isinstance(first, LibraryCall) and first.is_consumers else WRITES

    def _look_after(self, handing_in: object = None) -> None:
        self._looked_after = False
        if handing_in is not None and handing_in is self._handing_in:  # since the last look
            self._handing_in, self._scheduled = None, False
        if self._ended:
            self._settle_ended()
        self._expire_calls()
        self._pass_over_overdue()
        if self.turns.is_empty and not self._ended:
            return
        if WORKS.is_idle:  # an interrupt may have kept a thread from coming
            self._come_again()
        if not self._scheduled and self.turns.is_free:
            self.wake_first()
        self._look_after_soon()

    def _look_after_soon(self) -> None:
        self._looked_after = True
        TIMER.after(LOOK_AGAIN_S, partial(self._look_after, self._handing_in))

    def _expire_calls(self) -> None:
        now_s = monotonic()
        expired = [
            call
            for call in self.turns.all_waiting()
            if isinstance(call, LibraryCall) and call.expire(now_s)
        ]
        settle(expired)

    def _pass_over_overdue(self) -> None:
        """Pass over a thread that should have given up long ago: it may be gone."""
        first, now_s = self.turns.first(), monotonic()
        if isinstance(first, ThreadCall) and first.deadline_s < now_s - LOOK_AGAIN_S:
            first.expire(now_s)
