"""Event logs for the machine: the registry's own, a plain one, and broken ones that it must catch."""

from __future__ import annotations

from typing import Any

from lash_store import ProcessRegistry
from lash_store.testing import ManualClock
from tests.support.broken import Broken
from tests.support.on_file import SHARED, OnFile
from tests.support.registries import register

STREAMS = ("a", "A", "b")


class RegistryLog(OnFile):
    """The events of processes."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        for stream in STREAMS:
            register(self.store, stream)

    def open(self, where: str) -> ProcessRegistry:
        return ProcessRegistry.open(where, clock=self.clock)

    def append(self, stream: str, event: str, key: str | None) -> int:
        appended = self.store.append_event(stream, "tick", event, replay_key=key)
        return int(appended.event.sequence)

    def read(self, stream: str, after: int) -> list[tuple[int, Any]]:
        return [(each.sequence, each.payload) for each in self.store.events_after(stream, after)]


class SharedRegistryLog(RegistryLog):
    """The same in a database that all share."""

    url = SHARED


class PlainLog:
    """Sound, in plain Python."""

    def __init__(self, clock: ManualClock) -> None:
        self.events: dict[str, list[tuple[int, str]]] = {}
        self.keys: dict[tuple[str, str], tuple[int, str]] = {}

    def append(self, stream: str, event: str, key: str | None) -> int:
        known = None if key is None else self.keys.get((stream, key))
        if known is not None:
            if known[1] != event:
                raise ValueError("the key was used")
            return known[0]
        events = self.events.setdefault(stream, [])
        sequence = events[-1][0] + 1 if events else 1
        events.append((sequence, event))
        if key is not None:
            self.keys[stream, key] = (sequence, event)
        return sequence

    def read(self, stream: str, after: int) -> list[tuple[int, str]]:
        return [each for each in self.events.get(stream, []) if each[0] > after]

    def reopen(self) -> None: ...


broken = Broken()


@broken("appended-twice", "wrong-receipt")
class NoKeys(PlainLog):
    """An event that is sent again is another one."""

    def append(self, stream: str, event: str, key: str | None) -> int:
        known = None if key is None else self.keys.get((stream, key))
        if known is not None and known[1] == event:
            return super().append(stream, event, None)
        return super().append(stream, event, key)


@broken("key-reused")
class KeyForAllStreams(PlainLog):
    """A key that was used gives the event that it was used for, whatever it comes with."""

    def append(self, stream: str, event: str, key: str | None) -> int:
        known = None if key is None else self.keys.get((stream, key))
        return known[0] if known is not None else super().append(stream, event, key)


@broken("page")
class InclusivePage(PlainLog):
    """A page begins with the event that the last one ended with."""

    def read(self, stream: str, after: int) -> list[tuple[int, str]]:
        return [each for each in self.events.get(stream, []) if each[0] >= max(1, after)]


@broken("sequence", "read")
class SequenceOfCount(PlainLog):
    """The number of events is the next sequence, and what is sent again was counted."""

    def append(self, stream: str, event: str, key: str | None) -> int:
        sequence = super().append(stream, event, key)
        return sequence - (len(self.keys) > 1 and sequence > 1)


@broken("read", "refused", "wrong-receipt", "key-reused")
class OneLog(PlainLog):
    """Names that differ in case are one stream."""

    def append(self, stream: str, event: str, key: str | None) -> int:
        return super().append(stream.lower(), event, key)

    def read(self, stream: str, after: int) -> list[tuple[int, str]]:
        return super().read(stream.lower(), after)


@broken("read", "appended-twice", "refused", "wrong-receipt")
class KeysInMemory(PlainLog):
    """What was sent before is known until the process ends."""

    def reopen(self) -> None:
        self.keys.clear()


@broken("read")
class LosesTheLast(PlainLog):
    """A refusal takes the last event along."""

    def append(self, stream: str, event: str, key: str | None) -> int:
        try:
            return super().append(stream, event, key)
        except ValueError:
            if self.events.get(stream):
                self.events[stream].pop()
            raise
