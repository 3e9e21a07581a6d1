"""Calls that overlap, in every order: park one where you like, or let an explorer try all orders.

A call stops at *points*: before each statement that this library sends, and wherever code of your own
says ``point("read")``. :class:`Parked` stops one call at a point while others run. :func:`explore` runs
two or three calls through all orders of their points, and plays an order that went wrong again::

    def claim(who):
        def call(it): ...
        return call

    report = explore(open_fresh, [claim("ann"), claim("bob")], at_most_one_holder)

It is made for what overlaps. On SQLite a transaction that writes keeps all others waiting, and the
explorer shows it: a call that waits is passed over, and counted as ``waits``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import permutations
from time import monotonic
from typing import Any, Final, Generic, NamedTuple, TypeVar

from lash_store._kernel.checks import check_count, check_items, shown
from lash_store.errors import InvalidRecordError
from lash_store.testing.parked import HANGS_S, Call
from lash_store.testing.points import statements_as_points

C = TypeVar("C")

_GOES_ROUND: Final = 100
"""After so many steps of one call alone another has its turn."""

_MOST_STEPS: Final = 10_000
"""How many steps an order may have."""


class Explored(NamedTuple):
    """What an exploration has tried: orders, and calls that were passed over because they waited.

    Not all orders there are, if `is_cut_off`: at most so many were to be tried.
    """

    orders: int
    waits: int
    is_cut_off: bool = False


class OrderError(AssertionError):
    """An order in which the calls break what was checked; `order` plays it again, see ``explore``."""

    def __init__(self, order: Sequence[int], steps: Sequence[str], error: BaseException) -> None:
        super().__init__(tuple(order), tuple(steps), error)
        self.order = tuple(order)
        self.steps = tuple(steps)
        self.error = error

    def __str__(self) -> str:
        lines = "".join(f"\n  {step}" for step in self.steps)
        return f"{self.error}, in this order:{lines}\nagain: only={list(self.order)}"


def explore(
    make: Callable[[], C],
    calls: Sequence[Callable[[C], Any]],
    check: Callable[[C, list[Any]], object],
    *,
    most: int = 2_000,
    close: Callable[[C], object] | None = None,
    only: Sequence[int] | None = None,
    patience_s: float = 0.05,
) -> Explored:
    """Run `calls` through all orders of their points; OrderError for the first that breaks `check`.

    Each order gets what `make` makes anew, and `close` ends that. `check` is given it, and what each
    call gave, an error as itself; it raises AssertionError, or gives False, for what is wrong. At most `most` orders are
    tried. A call that does not come to its next point in `patience_s` seconds is taken to wait for another, and
    counted: one that connects to a server first, say, needs more. What a call does before its first point is
    done before any goes on: let it say ``point("start")`` first, if that matters. `only` plays one order, from a message. A call that gives a coroutine has it run to its end,
    by an event loop of its own on its own thread: its points are those that say ``point("…")``, for the
    statements of an asyncio store are sent by the library's threads.

    Calls that all wait for each other for 20 s are an OrderError as well; they are left as they stand.

    Two calls on one file in one process share a writer: one waits for the other without a point of its
    own. Then each is begun first in turn, no more; ``as_another_process()`` has them meet at the lock.

    Raises InvalidRecordError for an `only` that is of other calls, and if nothing was explored: there are
    no calls, none of them came to a point, or an asynchronous one did not.
    """
    _check_options(make, calls, check, most, patience_s)
    begins = permutations(range(len(calls))) if only is None else [_begin_of(only, len(calls))]
    passed: list[set[str]] = [set() for _ in calls]
    orders = waits = 0
    with statements_as_points():
        for begin in begins:
            prefix: list[int] | None = [at for at in only or () if at >= 0]
            while prefix is not None and orders < most:
                play = _Play(make, calls, close, patience_s)
                try:
                    play.run(prefix, begin, is_given=only is not None)
                    orders, waits = orders + 1, waits + play.waits
                    play.note_points(passed)
                    play.judge(check)
                except AssertionError as error:
                    raise OrderError(play.order(begin), play.steps, error) from error
                except Exception as error:
                    error.add_note(f"in the order of only={play.order(begin)}")
                    raise
                prefix = None if only is not None else _next(play.choices)
            if play.all_came_to_a_point:
                break  # whoever is begun first, all of them stand there before any goes on
    if only is None:
        _check_explored(calls, passed, play)
    return Explored(orders, waits, only is None and prefix is not None)


def _check_options(
    make: object, calls: Sequence[object], check: object, most: int, patience_s: float
) -> None:
    if not check_count("most", most):
        raise InvalidRecordError("most", str(most), "must be at least 1")
    check_items("calls", calls, object)
    for option, value in (("make", make), ("check", check), *(("calls", call) for call in calls)):
        if not callable(value):
            raise InvalidRecordError(option, shown(value), "must be callable")
    if not calls:
        raise InvalidRecordError("calls", repr(calls), "must not be empty")
    if not isinstance(patience_s, int | float) or not 0 < patience_s <= HANGS_S:
        raise InvalidRecordError("patience_s", shown(patience_s), "must be a few seconds at most")


def _begin_of(only: Sequence[int], count: int) -> tuple[int, ...]:
    """Return in which order the calls are begun; a message shows another one than theirs below zero."""
    check_items("only", only, int)
    begin = tuple(~at for at in only if at < 0)
    if any(at >= count for at in only) or sorted(begin) not in ([], list(range(count))):
        raise InvalidRecordError("only", repr(list(only)), f"is no order of {count} calls")
    return begin or tuple(range(count))


def _check_explored(
    calls: Sequence[Callable[[C], Any]], passed: Sequence[set[str]], play: _Play[C]
) -> None:
    for call, points, is_async in zip(calls, passed, play.are_async, strict=True):
        if not points and (is_async or not any(passed)):
            why = (
                'came to no point: say point("…") between its steps'
                if not is_async
                else "came to no point: statements of an asyncio store are sent by the library's "
                'threads. Say point("…") between its steps, or explore the calls of a plain store'
            )
            raise InvalidRecordError("calls", repr(call), why)


class _Play(Generic[C]):
    """One order, played."""

    def __init__(
        self,
        make: Callable[[], C],
        calls: Sequence[Callable[[C], Any]],
        close: Callable[[C], object] | None,
        patience_s: float,
    ) -> None:
        self._it = make()
        self._close = close
        self._patience_s = patience_s
        self._calls = [Call(partial(each, self._it), lambda _: True) for each in calls]
        self.choices: list[tuple[int, list[int]]] = []
        """Which call went on at each step, and which could have."""

        self.steps: list[str] = []
        self.waits = 0
        self.all_came_to_a_point = False

    @property
    def are_async(self) -> list[bool]:
        """Which calls have given a coroutine."""
        return [each.is_async for each in self._calls]

    def note_points(self, passed: Sequence[set[str]]) -> None:
        """Add the points that each call came to."""
        for each, points in zip(self._calls, passed, strict=True):
            points.update(each.passed)

    def order(self, begin: Sequence[int]) -> list[int]:
        """Return what plays it again; see ``only``."""
        chosen = [at for at, _ in self.choices]
        return chosen if list(begin) == sorted(begin) else [*(~at for at in begin), *chosen]

    def run(self, prefix: Sequence[int], begin: Sequence[int], *, is_given: bool) -> None:
        """Let one call go on at a time: as `prefix` says, then always the first that can.

        Of one that `is_given` each step is waited for: InvalidRecordError if it never comes.
        """
        for at in begin:
            self._calls[at].start()
            self._waits_unless_settled(self._calls[at])
        self.all_came_to_a_point = all(each.at is not None for each in self._calls)
        deadline_s = monotonic() + HANGS_S
        while not all(each.is_over for each in self._calls):
            ready = [at for at, each in enumerate(self._calls) if each.at is not None]
            if not ready:
                if monotonic() > deadline_s:
                    raise AssertionError("all calls wait for each other")
                for each in self._calls:
                    each.settles(self._patience_s / 10)
                continue
            wanted = (
                prefix[len(self.choices)] if len(self.choices) < len(prefix) else self._next(ready)
            )
            if is_given and wanted not in ready:
                self._require_ready(wanted, prefix)
                ready = sorted({*ready, wanted})
            # What was ready there once may wait here: whether a thread is quick is not ours to say.
            chosen = wanted if wanted in ready else ready[0]
            self.choices.append((chosen, ready))
            call = self._calls[chosen]
            self.steps.append(f"{chosen}: {call.at}")
            call.go_on()
            self._waits_unless_settled(call)
            for each in self._calls:  # which may have waited for this
                if each.at is None and not each.is_over:
                    each.settles(self._patience_s / 10)

    def _next(self, ready: Sequence[int]) -> int:
        """Return the first that can go on; the one that has stood longest, if that goes round and round.

        It may wait for another by asking again and again. AssertionError if it comes to no end so either.
        """
        if len(self.choices) >= _MOST_STEPS:
            raise AssertionError(
                f"call {self.choices[-1][0]} comes to point after point, and to no end"
            )
        lately = [at for at, _ in self.choices[-_GOES_ROUND:]]
        if len(lately) == lately.count(ready[0]) == _GOES_ROUND:
            went_on = {at: step for step, (at, _) in enumerate(self.choices)}
            return min(ready, key=lambda at: went_on.get(at, -1))
        return ready[0]

    def _waits_unless_settled(self, call: Call) -> None:
        if not call.settles(self._patience_s):
            self.waits += 1

    def _require_ready(self, wanted: int, given: Sequence[int]) -> None:
        call = self._calls[wanted]
        call.settles(HANGS_S)
        if call.at is None:
            where = "is over" if call.is_over else f"does not come to a point behind {call.passed}"
            why = f"can't be played: at step {len(self.choices)} call {wanted} {where}"
            self._let_go()
            raise InvalidRecordError("only", repr(list(given)), why)

    def judge(self, check: Callable[[C, list[Any]], object]) -> None:
        """Check what came of it, and close."""
        for each in self._calls:
            each.join()
        with closed_behind(self._it, self._close):
            holds(check, self._it, [each.outcome for each in self._calls])

    def _let_go(self) -> None:
        """Let each call come to its end, as there is nothing more to play, and close."""
        for each in self._calls:
            each.let_go()
        for each in self._calls:
            each.join()
        if self._close is not None:
            self._close(self._it)


def holds(check: Callable[..., object], *arguments: object) -> None:
    """Check what came of something: by assertions, or by a False."""
    if check(*arguments) is False:
        raise AssertionError(f"{getattr(check, '__name__', 'check')}() gave False")


@contextmanager
def closed_behind(it: C, close: Callable[[C], object] | None) -> Iterator[None]:
    """Close what was made; what that raises does not stand in the place of what was found."""
    try:
        yield
    except BaseException as found:
        try:
            if close is not None:
                close(it)
        except Exception as error:  # noqa: BLE001 # reason: it is told of
            found.add_note(f"closing it has failed as well: {error!r}")
        raise
    if close is not None:
        close(it)


def _next(choices: list[tuple[int, list[int]]]) -> list[int] | None:
    """Return the beginning of the next order: the last choice that had another way, taken differently."""
    for at in range(len(choices) - 1, -1, -1):
        chosen, possible = choices[at]
        later = [each for each in possible if each > chosen]
        if later:
            return [each for each, _ in choices[:at]] + [later[0]]
    return None
