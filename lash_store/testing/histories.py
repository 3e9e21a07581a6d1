"""What the workers of a real run saw, and whether it can have happened one call after another.

A history is a list of operations, each with the time at which it was asked for and the time at which
its answer was there. It is *linearizable* if each operation can be given a moment between the two, so
that all of them, one after another, did what they say that they did. What one after another may do is
a model: a function of a state and an operation that returns the states that may follow, or none::

    history = History()
    # in any thread:
    history.call("ann", "acquire", lock.acquire, 500)
    check_history(history.operations, lock_model, FREE)

Workers that are processes record to a file of their own, and what was killed in the middle of a
call has a beginning and no end: it may have happened, or not.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import reprlib
import threading
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic_ns
from typing import Any, Final, NamedTuple, TypeVar

from lash_store._kernel.checks import check_choice, check_kind, shown
from lash_store.errors import InvalidRecordError

S = TypeVar("S", bound=Hashable)


class Operation(NamedTuple):
    """One call: whose, what, its arguments, what it gave, and between which moments.

    Times are nanoseconds on the monotonic clock, which the processes of a machine share. `end_ns` is
    None, and `result` means nothing, if no answer came.
    """

    who: str
    what: str
    arguments: tuple[Any, ...]
    result: Any
    begin_ns: int
    end_ns: int | None


class Raised(str):
    """The result of a call that has raised: the name of its error."""

    __slots__ = ()


class HistoryError(AssertionError):
    """No order of the operations explains what they gave; `overlapping` are those around the first."""

    def __init__(
        self, operation: Operation, overlapping: Sequence[Operation], checked: int
    ) -> None:
        super().__init__(operation, tuple(overlapping), checked)
        self.operation = operation
        self.overlapping = tuple(overlapping)
        self.checked = checked

    def __str__(self) -> str:
        start_ns = min(each.begin_ns for each in (self.operation, *self.overlapping))
        lines = "".join(
            f"\n{_line(each, start_ns)}{'   <- this one' if each is self.operation else ''}"
            for each in sorted((self.operation, *self.overlapping), key=lambda each: each.begin_ns)
        )
        return (
            f"after {self.checked} operations that can be explained, one can't be; "
            f"it, those that overlap it, and what came last before it:\n"
            f"  begin us    end us  who  call{lines}"
        )


class History:
    """Records calls, from any thread; to a new file as well, where that is to outlive the process.

    A FileExistsError says that the file is another's: numbers begin anew with each history.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._done: list[Operation] = []
        self._begun: dict[int, Operation] = {}
        self._lock = threading.Lock()
        self._numbers = 0
        # Line by line, each by one write: what a killed process has begun is there.
        self._file = None if path is None else open(path, "xb", buffering=0)  # noqa: SIM115 # reason: closed with the history

    def call(self, who: str, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call `function`, record what it gave, and return it; of an error its name, as :class:`Raised`.

        InvalidRecordError for a coroutine function: see :meth:`call_async`.
        """
        number = self.begin(who, what, *arguments)
        try:
            result = function(*arguments)
            if inspect.iscoroutine(result):
                result.close()
                why = "gives a coroutine: call_async() awaits it"
                raise InvalidRecordError("function", repr(function), why)  # noqa: TRY301 # reason: recorded like any other error
        except Exception as error:
            self.end(number, Raised(type(error).__name__))
            raise
        self.end(number, result)
        return result

    async def call_async(
        self, who: str, what: str, function: Callable[..., Awaitable[Any]], *arguments: Any
    ) -> Any:
        """Do the same with a coroutine function; one that is cancelled has no answer."""
        number = self.begin(who, what, *arguments)
        try:
            result = await function(*arguments)
        except Exception as error:
            self.end(number, Raised(type(error).__name__))
            raise
        self.end(number, result)
        return result

    def begin(self, who: str, what: str, *arguments: Any) -> int:
        """Record that something is asked for now; return its number, for :meth:`end`."""
        with self._lock:
            self._numbers += 1
            number = self._numbers
            begun = Operation(who, what, arguments, None, monotonic_ns(), None)
            self._begun[number] = begun
        given = [_as_literal(argument) for argument in arguments]
        self._write("begin", number, who, what, given, begun.begin_ns)
        return number

    def end(self, number: int, result: Any) -> None:
        """Record that the answer is there now; InvalidRecordError for a number that waits for none."""
        end_ns = monotonic_ns()
        with self._lock:
            if number not in self._begun:
                raise InvalidRecordError(
                    "number", shown(number), "is of no call that has no answer"
                )
            begun = self._begun.pop(number)
            self._done.append(begun._replace(result=result, end_ns=end_ns))
        kind = "raised" if isinstance(result, Raised) else "end"
        self._write(kind, number, _as_literal(str(result) if kind == "raised" else result), end_ns)

    @property
    def operations(self) -> list[Operation]:
        """What was recorded so far, those without an answer among them."""
        with self._lock:
            return [*self._done, *self._begun.values()]

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()

    def _write(self, *line: Any) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line).encode() + b"\n")


def _plain(value: Any) -> Any:
    """Return what is written as a literal and equals `value`: of a NamedTuple the tuple, of an enum's int that."""
    if isinstance(value, str):
        return str.__str__(value)  # whatever its class makes of it
    plain: tuple[type[Any], ...] = (bool, int, float, bytes)
    for kind in plain:
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, dict):
        return {_plain(key): _plain(each) for key, each in value.items()}
    for sequence in (tuple, list, set):
        if isinstance(value, sequence):
            return sequence(map(_plain, value))
    return value


def _as_literal(value: Any) -> str:
    """Return what Python reads as the same value; of what it can't, the text that shows it.

    The answer is there, whatever becomes of it here.
    """
    try:
        text = repr(_plain(value))
    except Exception:  # noqa: BLE001 # reason: whatever a value's own repr() raises
        return repr(reprlib.repr(value))
    with suppress(Exception):  # what it is not, and whatever comparing raises
        if ast.literal_eval(text) == value:
            return text
    return repr(text)


def read_history(*paths: str | os.PathLike[str]) -> list[Operation]:
    """Read what histories have recorded to files, those of killed processes too.

    InvalidRecordError for a file that is none of a history.
    """
    found: list[Operation] = []
    for path in paths:
        begun: dict[int, Operation] = {}
        for line in Path(path).read_bytes().split(b"\n")[:-1]:  # the last one may be torn
            try:
                found += _read_line(line, begun)
            except (ValueError, TypeError, LookupError, SyntaxError) as error:
                why = f"is no line of a history, in {os.fspath(path)!r}"
                raise InvalidRecordError("paths", shown(line), why) from error
        found += begun.values()
    return found


def _read_line(line: bytes, begun: dict[int, Operation]) -> list[Operation]:
    """Add what a line has begun to `begun`; return what it has ended."""
    kind, number, *rest = json.loads(line)
    if kind == "begin":
        who, what, arguments, begin_ns = rest
        given = tuple(ast.literal_eval(argument) for argument in arguments)
        begun[number] = Operation(who, what, given, None, begin_ns, None)
        return []
    result, end_ns = rest
    result = ast.literal_eval(result)
    result = Raised(result) if kind == "raised" else result
    return [begun.pop(number)._replace(result=result, end_ns=end_ns)]


def check_history(
    operations: Iterable[Operation],
    model: Callable[[S, Operation], Iterable[S]],
    initial: S,
) -> int:
    """Return how many operations were checked; HistoryError if no order of them explains what they gave.

    `model` returns the states that may follow if the operation happens in a state, none if it can't
    have given what it gave; of one without an answer, every state that it may have left. States have
    to be hashable.
    """
    events = _events(operations)
    possible: set[tuple[S, frozenset[int]]] = {(initial, frozenset())}
    waiting: dict[int, Operation] = {}
    checked, lately = 0, list[Operation]()
    for _, ends, number, operation in events:
        if not ends:
            waiting[number] = operation
            continue
        possible = _after(possible, waiting, number, model)
        if not possible:
            others = [each for at, each in waiting.items() if at != number]
            raise HistoryError(operation, [*lately[-4:], *others], checked)
        del waiting[number]
        checked += 1
        lately.append(operation)
    return checked


def _events(operations: Iterable[Operation]) -> list[tuple[int, bool, int, Operation]]:
    events = []
    for number, operation in enumerate(operations):
        events.append((operation.begin_ns, False, number, operation))
        if operation.end_ns is not None:
            events.append((operation.end_ns, True, number, operation))
    return sorted(events, key=lambda each: each[:3])


def _after(
    possible: set[tuple[S, frozenset[int]]],
    waiting: dict[int, Operation],
    number: int,
    model: Callable[[S, Operation], Iterable[S]],
) -> set[tuple[S, frozenset[int]]]:
    """Let operation `number` have happened by now, and before it whatever of the others may have."""
    found: set[tuple[S, frozenset[int]]] = set()
    seen, left = set(possible), list(possible)
    while left:
        state, happened = left.pop()
        if number in happened:
            found.add((state, happened - {number}))
            continue
        for other, operation in waiting.items():
            if other in happened:
                continue
            for following in model(state, operation):
                if following == state and operation.end_ns is None:
                    continue  # as if it had not happened, and it still may
                then = (following, happened | {other})
                if then not in seen:
                    seen.add(then)
                    left.append(then)
    unanswered = frozenset(at for at, each in waiting.items() if each.end_ns is None)
    return _fewest(found, unanswered) if unanswered else found


def _fewest(
    possible: set[tuple[S, frozenset[int]]], unanswered: frozenset[int]
) -> set[tuple[S, frozenset[int]]]:
    """Leave out what needs more of the unanswered to have happened than another way to the same state.

    What has not happened still may, so nothing is lost; and what is never answered piles up.
    """
    kept: dict[tuple[S, frozenset[int]], list[frozenset[int]]] = {}
    for state, happened in sorted(possible, key=lambda each: len(each[1])):
        ways = kept.setdefault((state, happened - unanswered), [])
        if not any(way <= happened for way in ways):
            ways.append(happened)
    return {(state, way) for (state, _), ways in kept.items() for way in ways}


class LeaseState(NamedTuple):
    """The state of :func:`lease_model`: who holds the lease, and when it ends.

    Between `from_ns` and `to_ns`: when it began is not known better than its call was.
    """

    who: str | None = None
    from_ns: int = 0
    to_ns: int = 0
    number: int = 0


def lease_model(state: LeaseState, operation: Operation) -> Iterable[LeaseState]:
    """Model a lease: ``acquire(ttl_ms)``, ``renew(ttl_ms)``, ``release()``, ``write(value)``.

    `acquire` gives the number of the term, or None or False; 0 or True where terms have no numbers. A
    holder may acquire again, if that gives a later number. The others give whether they were allowed. Whole milliseconds
    are counted, so a term may end one early. Begin with ``LeaseState()``.

    Of a call that has raised, LeaseLostError says that it was not allowed; any other error nothing: it may
    have happened or not.
    """
    check_choice("operation.what", operation.what, ("acquire", "renew", "release", "write"))
    if not isinstance(operation.result, Raised):
        yield from _lease_after(state, operation, unknown=operation.end_ns is None)
    elif operation.result == "LeaseLostError" and operation.what != "acquire":
        yield from _lease_after(state, operation._replace(result=False), unknown=False)
    else:
        yield state
        yield from _lease_after(state, operation, unknown=True)


def _lease_after(state: LeaseState, operation: Operation, *, unknown: bool) -> Iterable[LeaseState]:
    end_ns = operation.end_ns
    may_be_over = state.who is None or end_ns is None or state.from_ns <= end_ns
    may_be_live = state.who is not None and state.to_ns > operation.begin_ns
    # What has run out, and nobody has taken over, may be given back.
    is_own = state.who == operation.who and (may_be_live or operation.what == "release")
    result = operation.result
    if operation.what == "acquire":
        if isinstance(result, bool):  # as many a lock says it
            result = 0 if result else None
        if result is not None and not unknown:
            check_kind("acquire()", result, int)
        is_again = state.who == operation.who and result != 0
        if (result is not None or unknown) and (may_be_over or is_again):
            number = state.number + 1 if unknown or result == 0 else result
            if number > state.number:
                yield _held(operation, number)
        if (result is None or unknown) and may_be_live:
            yield state
        return
    if (result or unknown) and is_own:
        if operation.what == "renew":
            yield _held(operation, state.number)
        else:
            yield state if operation.what == "write" else LeaseState(number=state.number)
    if (not result or unknown) and (state.who != operation.who or may_be_over):
        yield state


def _held(operation: Operation, number: int) -> LeaseState:
    ttl_ns = operation.arguments[0] * 1_000_000
    latest_ns = operation.begin_ns if operation.end_ns is None else operation.end_ns
    # Without an answer it may begin at any time: so it may last for ever.
    to_ns = 2**63 if operation.end_ns is None else latest_ns + ttl_ns
    return LeaseState(operation.who, operation.begin_ns + ttl_ns - _TICK_NS, to_ns, number)


_TICK_NS: Final = 1_000_000


def _line(operation: Operation, start_ns: int) -> str:
    begin_us = (operation.begin_ns - start_ns) // 1_000
    end = "-" if operation.end_ns is None else str((operation.end_ns - start_ns) // 1_000)
    arguments = ", ".join(map(repr, operation.arguments))
    result = "?" if operation.end_ns is None else repr(operation.result)
    return f"{begin_us:10}{end:>10}  {operation.who}  {operation.what}({arguments}) -> {result}"
