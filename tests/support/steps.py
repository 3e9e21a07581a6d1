"""Steps for the machine: the store's own, a plain memo, and broken ones that it must catch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lash_store import AsyncEffectStore, EffectStore
from lash_store.testing import ManualClock
from tests.support.broken import Broken
from tests.support.on_file import SHARED, OnFile


class StoreEffects(OnFile):
    """EffectStore on a file."""

    def open(self, where: str) -> EffectStore:
        return EffectStore.open(where, owner_id="ann", clock=self.clock)

    def run(self, key: str, request: str, function: Callable[[], Any]) -> Any:
        return self.store.run("scope", key, request, function)


class SharedStoreEffects(StoreEffects):
    """The same in a database that all share."""

    url = SHARED


class AsyncStoreEffects:
    """AsyncEffectStore on a file."""

    def __init__(self, clock: ManualClock) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = AsyncEffectStore.open(Path(self.folder.name) / "e.db", clock=clock)

    async def run(self, key: str, request: str, function: Callable[[], Any]) -> Any:
        return await self.store.run("scope", key, request, function)

    async def aclose(self) -> None:
        await self.store.aclose()
        self.folder.cleanup()


class PlainMemo:
    """Sound, in plain Python."""

    def __init__(self, clock: ManualClock) -> None:
        self.known: dict[str, tuple[str, Any]] = {}

    def run(self, key: str, request: str, function: Callable[[], Any]) -> Any:
        if key in self.known:
            before, outcome = self.known[key]
            if before != request:
                raise ValueError("another request")
            return outcome
        outcome = function()
        self.known[key] = (request, outcome)
        return outcome

    def reopen(self) -> None: ...


broken = Broken()


@broken("wrong-request")
class KeyAlone(PlainMemo):
    """Another request under the key gets the old outcome."""

    def run(self, key: str, request: str, function: Callable[[], Any]) -> Any:
        if key in self.known:
            return self.known[key][1]
        return super().run(key, request, function)


@broken("ran-twice", "wrong-outcome", "forgotten")
class NoneIsNothing(PlainMemo):
    """An outcome of None counts as none."""

    def run(self, key: str, request: str, function: Callable[[], Any]) -> Any:
        if key in self.known and self.known[key][1] is None:
            del self.known[key]
        return super().run(key, request, function)


@broken("forgotten")
class InMemory(PlainMemo):
    """Nothing is durable."""

    def reopen(self) -> None:
        self.known.clear()


@broken("not-run", "refused", "wrong-outcome")
class RecordsBeforeItRuns(PlainMemo):
    """The step is noted as done before its function has run: who dies in the middle has done it."""

    def run(self, key: str, request: str, function: Callable[[], Any]) -> Any:
        if key not in self.known:
            self.known[key] = (request, None)
            self.known[key] = (request, function())
        return super().run(key, request, function)


@broken("failure", "not-run")
class RemembersFailures(PlainMemo):
    """A failure is recorded as an outcome, and never tried again."""

    def run(self, key: str, request: str, function: Callable[[], Any]) -> Any:
        def caught() -> Any:
            try:
                return function()
            except Exception as error:  # noqa: BLE001 # reason: whatever the function raises
                return error

        outcome = super().run(key, request, caught)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@broken("ran-twice")
class RunsAndThenLooks(PlainMemo):
    """Check and act the other way round: the effect is there before the record is read."""

    def run(self, key: str, request: str, function: Callable[[], Any]) -> Any:
        if key in self.known and self.known[key][0] == request:
            function()
        return super().run(key, request, function)


@broken("wrong-outcome", "wrong-request")
class KeysFold(PlainMemo):
    """Keys that differ in case are one."""

    def run(self, key: str, request: str, function: Callable[[], Any]) -> Any:
        return super().run(key.lower(), "any", function)
