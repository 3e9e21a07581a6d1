"""Commits for the machine: the store's own turns, plain ones, and broken ones that it must catch."""

from __future__ import annotations

from typing import Any

from lash_store import SessionStore, TurnCommit
from lash_store.session.records import TurnStamp
from lash_store.testing import ManualClock
from tests.support.broken import Broken
from tests.support.on_file import SHARED, OnFile


class StoreTurns(OnFile):
    """Turns of a session, each with a stamp and the revision that it was made from."""

    def open(self, where: str) -> SessionStore:
        return SessionStore.open(where, session_id="s", clock=self.clock)

    def load(self) -> tuple[int, Any]:
        head = self.store.load_head()
        if head is None:
            return 0, ""
        config: Any = head.config
        return head.head_revision, config["state"]

    def commit(self, key: str, revision: int, state: str) -> int:
        lease: Any = self.store.claim_lease(owner_id="ann", ttl_ms=1_000)
        turn = TurnCommit(
            fence=lease.fence,
            stamp=TurnStamp(key, f"{revision}: {state}"),
            expected_head_revision=revision,
            config={"state": state},
        )
        return int(self.store.commit_turn(turn).head_revision)


class SharedStoreTurns(StoreTurns):
    """The same in one database of many sessions."""

    url = SHARED


class PlainDocument:
    """Sound, in plain Python."""

    def __init__(self, clock: ManualClock) -> None:
        self.revision, self.state = 0, ""
        self.receipts: dict[str, tuple[int, str, int]] = {}

    def load(self) -> tuple[int, Any]:
        return self.revision, self.state

    def commit(self, key: str, revision: int, state: str) -> int:
        known = self.receipts.get(key)
        if known is not None:
            if known[:2] != (revision, state):
                raise ValueError("the key was used")
            return known[2]
        if revision != self.revision:
            raise ValueError("it has moved on")
        return self.apply(key, revision, state)

    def apply(self, key: str, revision: int, state: str) -> int:
        self.revision, self.state = self.revision + 1, state
        self.receipts[key] = (revision, state, self.revision)
        return self.revision

    def reopen(self) -> None: ...


broken = Broken()


@broken("lost-update")
class LastOneWins(PlainDocument):
    """No compare-and-swap: what was made from an old revision replaces the new one."""

    def commit(self, key: str, revision: int, state: str) -> int:
        if key not in self.receipts:
            return self.apply(key, revision, state)
        return super().commit(key, revision, state)


@broken("committed-twice", "refused")
class NoReceipts(PlainDocument):
    """A commit that is sent again is another one."""

    def commit(self, key: str, revision: int, state: str) -> int:
        self.receipts.pop(key, None)
        return super().commit(key, revision, state)


@broken("key-reused")
class KeyIsEnough(PlainDocument):
    """A key that was used gives its receipt, whatever it comes with."""

    def commit(self, key: str, revision: int, state: str) -> int:
        known = self.receipts.get(key)
        return known[2] if known is not None else super().commit(key, revision, state)


@broken("not-there")
class ForgottenRollback(PlainDocument):
    """A refusal leaves behind what it had begun to write."""

    def commit(self, key: str, revision: int, state: str) -> int:
        before, self.state = self.state, state
        done = super().commit(key, revision, state)
        if key in self.receipts and self.receipts[key][2] != self.revision:
            self.state = before
        return done


@broken("wrong-receipt")
class PresentRevision(PlainDocument):
    """What is sent again gets the present revision, not the one that it made."""

    def commit(self, key: str, revision: int, state: str) -> int:
        known = key in self.receipts
        done = super().commit(key, revision, state)
        return self.revision if known else done


@broken("refused", "committed-twice")
class ForgetsReceipts(PlainDocument):
    """Receipts are kept in memory alone."""

    def reopen(self) -> None:
        self.receipts.clear()


@broken("not-there")
class StaleRead(PlainDocument):
    """What is read is one commit old."""

    def load(self) -> tuple[int, Any]:
        return (self.revision, self.state) if self.revision < 2 else (self.revision - 1, self.state)
