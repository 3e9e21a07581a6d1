"""Queues for the machine: the store's own, a plain one, and broken ones that it must catch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lash_store import NewWork, SessionStore
from lash_store.testing import ManualClock
from tests.support.broken import Broken
from tests.support.on_file import SHARED, OnFile

TTL = 1_000


class StoreQueue(OnFile):
    """The work queue of a session: claims under its lease."""

    def open(self, where: str) -> SessionStore:
        return SessionStore.open(where, session_id="s", clock=self.clock)

    def fence(self) -> Any:
        lease: Any = self.store.claim_lease(owner_id="executor", ttl_ms=10**9)
        return lease.fence

    def put(self, item: str) -> None:
        self.store.enqueue_work(NewWork([item]))

    def claim(self, worker: str) -> tuple[str, Any] | None:
        claim = self.store.claim_work(self.fence(), owner_id=worker, ttl_ms=TTL)
        return None if claim is None else (claim.batches[0].items[0].payload, claim)

    def complete(self, worker: str, handle: Any) -> None:
        self.store.complete_work(self.fence(), handle)

    def abandon(self, worker: str, handle: Any) -> None:
        self.store.abandon_claim(handle)

    def renew(self, worker: str, handle: Any) -> None:
        self.store.renew_claim(handle, ttl_ms=TTL)

    def lapse(self) -> None:
        self.clock.advance(TTL)


class SharedStoreQueue(StoreQueue):
    """The same in one database of many sessions."""

    url = SHARED


@dataclass
class Entry:
    item: str
    claim: int = 0
    is_live: bool = False


class PlainQueue:
    """Sound, in plain Python: a claim is a number, and stands until another has taken the item."""

    def __init__(self, clock: ManualClock) -> None:
        self.entries: list[Entry] = []
        self.numbers = 0

    def put(self, item: str) -> None:
        self.entries.append(Entry(item))

    def claim(self, worker: str) -> tuple[str, Any] | None:
        for entry in self.entries:
            if not entry.is_live:
                self.numbers += 1
                entry.claim, entry.is_live = self.numbers, True
                return entry.item, (entry.item, self.numbers)
        return None

    def find(self, handle: Any) -> Entry | None:
        item, number = handle
        return next(
            (each for each in self.entries if (each.item, each.claim) == (item, number)), None
        )

    def complete(self, worker: str, handle: Any) -> bool:
        entry = self.find(handle)
        if entry is None:
            return False
        self.entries.remove(entry)
        return True

    def abandon(self, worker: str, handle: Any) -> None:
        entry = self.find(handle)
        if entry is not None:
            entry.claim, entry.is_live = 0, False

    def lapse(self) -> None:
        for entry in self.entries:
            entry.is_live = False

    def reopen(self) -> None: ...


broken = Broken()


@broken("stale-completion")
class CompletesByItem(PlainQueue):
    """Whoever names the item ends it: a worker that has lost it, too."""

    def find(self, handle: Any) -> Entry | None:
        return next((each for each in self.entries if each.item == handle[0]), None)

    def abandon(self, worker: str, handle: Any) -> None:
        entry = super().find(handle)
        if entry is not None:
            entry.claim, entry.is_live = 0, False


@broken("stale-return")
class ReturnsByItem(PlainQueue):
    """Whoever names the item gives it back."""

    def abandon(self, worker: str, handle: Any) -> None:
        for entry in self.entries:
            if entry.item == handle[0]:
                entry.claim, entry.is_live = 0, False


@broken("stale-renewal")
class RenewsByItem(PlainQueue):
    """Whoever names the item is told that it may go on, and changes nothing."""

    def renew(self, worker: str, handle: Any) -> bool:
        return any(entry.item == handle[0] for entry in self.entries)


@broken("lost")
class PopsAtClaim(PlainQueue):
    """An item is gone once it is claimed: who dies with it takes it along."""

    def claim(self, worker: str) -> tuple[str, Any] | None:
        found = super().claim(worker)
        if found is not None:
            self.entries = [each for each in self.entries if each.item != found[0]]
        return found


@broken("resurrected")
class RetriesWhatIsDone(PlainQueue):
    """What lapsed was noted to be tried again, and is, though it was done since."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.late: list[str] = []

    def lapse(self) -> None:
        self.late += [each.item for each in self.entries if each.is_live]
        super().lapse()

    def claim(self, worker: str) -> tuple[str, Any] | None:
        for item in self.late:
            if not any(each.item == item for each in self.entries):
                self.put(item)
        self.late.clear()
        return super().claim(worker)


@broken("claimed-twice")
class TwoAtOnce(PlainQueue):
    """Looking and claiming are two steps, and each worker sees what it saw last."""

    def claim(self, worker: str) -> tuple[str, Any] | None:
        if len(self.entries) > 1 and self.entries[0].is_live:
            self.entries[0].is_live = False
        return super().claim(worker)


@broken("lost")
class ForgetsAtReopening(PlainQueue):
    """Nothing is durable."""

    def reopen(self) -> None:
        self.entries.clear()


@broken("order")
class NewestFirst(PlainQueue):
    """The last that was put is the first that is claimed."""

    def put(self, item: str) -> None:
        self.entries.insert(0, Entry(item))


@broken("completion-refused")
class RefusesItsWorker(PlainQueue):
    """A claim is forgotten once another was made."""

    def complete(self, worker: str, handle: Any) -> bool:
        return handle[1] == self.numbers and super().complete(worker, handle)
