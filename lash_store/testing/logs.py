"""A state machine that tries to break an event log: appended once, in order, read without a gap.

::

    class Log:
        def __init__(self, clock): ...
        def append(self, stream, event, key): ...     # its sequence
        def read(self, stream, after): ...            # [(sequence, event), ...] behind it

    TestLog = log_machine(Log).TestCase
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from hypothesis import settings as hypothesis_settings, strategies as st
from hypothesis.stateful import rule

from lash_store._kernel.checks import check_kind, check_no_bool, shown
from lash_store.errors import InvalidRecordError
from lash_store.testing.clock import ManualClock
from lash_store.testing.machine import Machine, check_texts


class Log(Protocol):
    """The logs of several streams; made with a ManualClock as its only argument.

    It may have ``reopen()`` and ``close()``.
    """

    def append(self, stream: str, event: str, key: str | None) -> int:
        """Append an event, once for each key that is not None; return its sequence."""
        ...

    def read(self, stream: str, after: int) -> Sequence[tuple[int, str]]:
        """Return the events behind a sequence, in order; 0 is before the first."""
        ...


def log_machine(
    make: Callable[[ManualClock], Any],
    *,
    streams: Iterable[str] = ("a", "A", "b"),
    refusals: tuple[type[BaseException], ...] = (Exception,),
    tolerate: Iterable[str] = (),
    settings: hypothesis_settings | None = None,
) -> type[LogMachine]:
    """Make a machine that tries to break the logs that `make` makes; see ``lock_machine``."""
    return LogMachine.of(
        make,
        tolerate=tolerate,
        refusals=refusals,
        settings=settings,
        streams=check_texts("streams", streams),
    )


class LogMachine(Machine):
    """What was appended is read, once, in the order of its sequences, by whoever reads on."""

    violations: ClassVar[Mapping[str, str]] = {
        "appended-twice": "what was sent again was appended again",
        "key-reused": "another event was appended under a key that was used",
        "refused": "an event was refused",
        "wrong-receipt": "what was sent again got another event's sequence",
        "sequence": "one is not higher than all before",
        "read": "something else is read than was appended",
        "page": "behind a sequence is something else than what follows it",
    }

    needs = ("append", "read")
    streams: ClassVar[tuple[str, ...]] = ("a", "A", "b")

    def __init__(self) -> None:
        super().__init__()
        self.events: dict[str, list[tuple[int, str]]] = {each: [] for each in self.streams}
        self.keys: dict[tuple[str, str], tuple[int, str]] = {}

    # What Hypothesis chooses.

    @rule(
        data=st.data(),
        key=st.sampled_from((None, "k", "K", "l")),
        event=st.sampled_from(("x", "y")),
    )
    def append(self, data: st.DataObject, key: str | None, event: str) -> None:
        """Append, under a key perhaps that was used before."""
        self.do("append", data.draw(st.sampled_from(self.streams)), event, key)

    @rule(data=st.data(), key=st.sampled_from(("k", "K", "l")))
    def append_again(self, data: st.DataObject, key: str) -> None:
        """Append the same twice, and then something else under its key."""
        stream = data.draw(st.sampled_from(self.streams))
        _, event = self.keys.get((stream, key), (0, "x"))
        self.do("append", stream, event, key)
        self.do("append", stream, event, key)
        self.do("append", stream, f"not {event}", key)

    @rule(data=st.data())
    def read_on(self, data: st.DataObject) -> None:
        """Read on behind some event."""
        stream = data.draw(st.sampled_from(self.streams))
        self.do("read", stream, data.draw(st.integers(0, len(self.events[stream]))))

    # What the steps are.

    def do_append(self, stream: str, event: str, key: str | None) -> None:
        """Append: a new event, the one that is there, or a refusal."""
        known = None if key is None else self.keys.get((stream, key))
        got = self.call(stream, "append", self.it.append, stream, event, key)
        if known is not None and known[1] != event:
            if not got.refused:
                self.violates("key-reused", f"{key!r} was used for {known[1]!r}")
                self.events[stream] = self._read(stream)  # tolerated, it is there
        elif got.refused:
            self.violates("refused", f"{event!r} was refused")
        elif known is not None:
            if got.value != known[0]:
                self.violates("wrong-receipt", f"{key!r} is event {known[0]}, and now {got.value}")
                self.events[stream] = self._read(stream)  # likewise
            self.note("an event sent again")
        else:
            check_kind("append()", got.value, int)
            check_no_bool("append()", got.value, "must be the number of the event")
            highest = self.events[stream][-1][0] if self.events[stream] else 0
            if got.value <= highest:
                after = "0, behind which all are read" if not self.events[stream] else highest
                self.violates("sequence", f"event {got.value} comes after {after}")
            self.events[stream].append((got.value, event))
            if key is not None:
                self.keys[stream, key] = (got.value, event)
            self.note("an event")

    def do_read(self, stream: str, behind: int) -> None:
        """Read on behind the so-manieth event."""
        events = self.events[stream]
        after = events[behind - 1][0] if 0 < behind <= len(events) else 0
        got = self.call(stream, "read", self.it.read, stream, after)
        found = None if got.error is not None else _events_of(got.value)
        expected = [each for each in events if each[0] > after]
        if found != expected:
            self.violates("page", f"behind {after} stands {found}, and {expected} was appended")

    def look(self) -> None:
        """Compare each stream with what was appended to it."""
        for stream in self.streams:
            found = self._read(stream)
            expected = self.events[stream]
            if found != expected:
                known = {event for _, event in expected}
                more = [event for sequence, event in found if (sequence, event) not in expected]
                is_more = len(found) > len(expected) and known.issuperset(more)
                name = "appended-twice" if is_more else "read"
                self.violates(name, f"{stream!r} holds {found}, and {expected} was appended")
                self.events[stream] = found  # tolerated, it is so

    def _read(self, stream: str) -> list[tuple[int, str]]:
        return _events_of(self.resolve(self.it.read(stream, 0)))


def _events_of(found: Any) -> list[tuple[int, str]]:
    try:
        return [(sequence, event) for sequence, event in found]
    except (TypeError, ValueError):
        raise InvalidRecordError("read()", shown(found), "must be a list of pairs") from None
