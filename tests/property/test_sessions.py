"""A session store under any sequence of operations, against a model in plain Python.

Several workers commit, retry, work the queue, hide and collect, with live fences and stale
ones, while the clock moves and the store is opened again. After each step the whole of what
the store shows is compared with the model.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from lash_store import LeaseHeld, SessionFence, SessionLease, SessionStore
from lash_store.errors import (
    ClaimLostError,
    LeaseLostError,
    RevisionConflictError,
    TurnConflictError,
)
from lash_store.session.records import (
    AlreadyQueued,
    Append,
    Checkpoint,
    NewWork,
    Node,
    ReplaceFull,
    TurnCommit,
    TurnReceipt,
    TurnStamp,
    UsageDelta,
    WorkBatch,
    WorkClaim,
)
from lash_store.testing import ManualClock, SequentialIds
from tests.support.databases import all_rows

TTL = 20
MOSTLY_LIVE = st.sampled_from([False, False, False, False, True])
"""Whether a worker acts under the live lease, or under whatever fence it finds."""


@dataclass
class Batch:
    """A batch as the model has it; `claim` and its end, once somebody has claimed it."""

    record: WorkBatch
    token: str | None = None
    ends_ms: int = 0

    def is_claimed(self, now_ms: int) -> bool:
        return self.token is not None and self.ends_ms > now_ms


@dataclass
class Model:
    """What a session is, in as little as can be."""

    fence: SessionFence | None = None
    lease_ends_ms: int = 0
    revision: int = 0
    leaf: str | None = None
    live: list[str] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)
    checkpoint: int | None = None
    usage: Counter[str] = field(default_factory=Counter)
    queue: list[Batch] = field(default_factory=list)
    receipts: dict[str, tuple[TurnCommit, TurnReceipt]] = field(default_factory=dict)

    def holds(self, fence: SessionFence, now_ms: int) -> bool:
        return fence == self.fence and now_ms < self.lease_ends_ms


class SessionMachine(RuleBasedStateMachine):
    fences: Bundle[SessionFence] = Bundle("fences")
    claims: Bundle[WorkClaim] = Bundle("claims")
    commits: Bundle[TurnCommit] = Bundle("commits")

    @initialize(target=fences)
    def start(self) -> SessionFence:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "session.db"
        self.clock = ManualClock()
        self.ids = SequentialIds()
        self.model = Model()
        self.numbers = 0
        self.store = self._open()
        return SessionFence("s", "eve", "forged", 1)

    def _open(self) -> SessionStore:
        return SessionStore.open(self.path, session_id="s", clock=self.clock, ids=self.ids)

    def _number(self) -> int:
        self.numbers += 1
        return self.numbers

    @rule(target=fences, owner_id=st.sampled_from(["ann", "bob"]))
    def claim_lease(self, owner_id: str) -> Any:
        return self._claim_lease(owner_id)

    def _claim_lease(self, owner_id: str) -> Any:
        now_ms, model = self.clock.now_ms(), self.model
        live = model.fence if now_ms < model.lease_ends_ms else None
        lease = self.store.claim_lease(owner_id=owner_id, ttl_ms=TTL)
        if live is not None and live.owner_id != owner_id:
            assert isinstance(lease, LeaseHeld)
            return multiple()
        assert isinstance(lease, SessionLease)
        assert (lease.fence == live) == (live is not None)
        model.fence, model.lease_ends_ms = lease.fence, now_ms + TTL
        return lease.fence

    def _fence(self, fence: SessionFence, *, stale: bool) -> SessionFence:
        """The live lease's fence, claimed for that if it is free; or else `fence`, most often stale."""
        if stale:
            return fence
        if self.model.fence is None or self.clock.now_ms() >= self.model.lease_ends_ms:
            self._claim_lease("ann")
        assert self.model.fence is not None
        return self.model.fence

    @rule(by_ms=st.sampled_from([1, 1, TTL - 1, TTL, 3 * TTL]))
    def wait(self, by_ms: int) -> None:
        self.clock.advance(by_ms)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self._open()

    @rule(source=st.sampled_from([None, "x", "y"]), delay=st.sampled_from([0, 0, 30]))
    def enqueue_work(self, source: str | None, delay: int) -> None:
        work = NewWork(
            [self._number()],
            source_key=source,
            slot_policy="join",
            available_at_ms=self.clock.now_ms() + delay if delay else 0,
        )
        result = self.store.enqueue_work(work)
        there = [b.record for b in self.model.queue if source and b.record.source_key == source]
        if there:
            assert result == AlreadyQueued(there[0])
        else:
            assert isinstance(result, WorkBatch)
            self.model.queue.append(Batch(result))

    @rule(target=claims, fence=fences, stale=MOSTLY_LIVE, most=st.integers(1, 3))
    def claim_work(self, fence: SessionFence, most: int, *, stale: bool) -> Any:
        now_ms = self.clock.now_ms()
        fence = self._fence(fence, stale=stale)
        if not self.model.holds(fence, now_ms):
            self._refused(
                LeaseLostError, lambda: self.store.claim_work(fence, owner_id="w", ttl_ms=TTL)
            )
            return multiple()
        ready = [
            batch
            for batch in self.model.queue
            if batch.record.available_at_ms <= now_ms and not batch.is_claimed(now_ms)
        ]
        claim = self.store.claim_work(fence, owner_id="w", ttl_ms=TTL, max_batches=most)
        if not ready:
            assert claim is None
            return multiple()
        assert claim is not None
        assert claim.batches == tuple(batch.record for batch in ready[:most])
        assert claim.token not in {batch.token for batch in self.model.queue}
        for batch in ready[:most]:
            batch.token, batch.ends_ms = claim.token, now_ms + TTL
        return claim

    def _stands(self, claim: WorkClaim) -> bool:
        carrying = [b.record.batch_id for b in self.model.queue if b.token == claim.token]
        return sorted(carrying) == sorted(claim.batch_ids)

    @rule(claim=claims)
    def renew_claim(self, claim: WorkClaim) -> None:
        if not self._stands(claim):
            self._refused(ClaimLostError, lambda: self.store.renew_claim(claim, ttl_ms=TTL))
            return
        self.store.renew_claim(claim, ttl_ms=TTL)
        for batch in self.model.queue:
            if batch.token == claim.token:
                batch.ends_ms = self.clock.now_ms() + TTL

    @rule(fence=fences, claim=claims, stale=MOSTLY_LIVE)
    def complete_work(self, fence: SessionFence, claim: WorkClaim, *, stale: bool) -> None:
        fence = self._fence(fence, stale=stale)
        if not self.model.holds(fence, self.clock.now_ms()):
            self._refused(LeaseLostError, lambda: self.store.complete_work(fence, claim))
        elif not self._stands(claim):
            self._refused(ClaimLostError, lambda: self.store.complete_work(fence, claim))
        else:
            self.store.complete_work(fence, claim)
            self.model.queue = [b for b in self.model.queue if b.token != claim.token]

    @rule(target=claims, fence=fences, claim=claims, stale=MOSTLY_LIVE)
    def complete_and_claim_work(self, fence: SessionFence, claim: WorkClaim, *, stale: bool) -> Any:
        now_ms = self.clock.now_ms()
        fence = self._fence(fence, stale=stale)
        kind = LeaseLostError if not self.model.holds(fence, now_ms) else ClaimLostError
        if kind is LeaseLostError or not self._stands(claim):
            self._refused(
                kind, lambda: self.store.complete_and_claim_work(fence, claim, ttl_ms=TTL)
            )
            return multiple()
        self.model.queue = [b for b in self.model.queue if b.token != claim.token]
        ready = [
            batch
            for batch in self.model.queue
            if batch.record.available_at_ms <= now_ms and not batch.is_claimed(now_ms)
        ]
        following = self.store.complete_and_claim_work(fence, claim, ttl_ms=TTL)
        if following is None:
            assert not ready
            return multiple()
        assert following.batches == (ready[0].record,)
        ready[0].token, ready[0].ends_ms = following.token, now_ms + TTL
        return following

    @rule(claim=claims)
    def abandon_claim(self, claim: WorkClaim) -> None:
        carrying = [batch for batch in self.model.queue if batch.token == claim.token]
        assert self.store.abandon_claim(claim) == len(carrying)
        for batch in carrying:
            batch.token = None

    @rule(at=st.integers(0, 5))
    def cancel_work(self, at: int) -> None:
        if at >= len(self.model.queue):
            return
        batch = self.model.queue[at]
        removed = self.store.cancel_work(batch.record.batch_id)
        if batch.is_claimed(self.clock.now_ms()):
            assert removed is None
        else:
            assert removed == batch.record
            self.model.queue.remove(batch)

    @rule(
        target=commits,
        fence=fences,
        stale=MOSTLY_LIVE,
        claims=st.lists(claims, max_size=1) | st.lists(claims, max_size=2),
        count=st.integers(0, 3),
        replaces=st.booleans(),
        release=st.booleans(),
        expected=st.sampled_from([None, None, None, 0, 1]),
    )
    def commit_turn(
        self,
        *,
        fence: SessionFence,
        stale: bool,
        claims: list[WorkClaim],
        count: int,
        replaces: bool,
        release: bool,
        expected: int | None,
    ) -> Any:
        number, model = self._number(), self.model
        fence = self._fence(fence, stale=stale)
        ids = [f"n{number}-{at}" for at in range(count)]
        leaf = ids[-1] if ids else None
        nodes = [
            Node(name, model.leaf if at == 0 and not replaces else None)
            for at, name in enumerate(ids)
        ]
        commit = TurnCommit(
            fence=fence,
            stamp=TurnStamp(f"turn-{number}", f"hash-{number}"),
            expected_head_revision=None if expected is None else model.revision + expected,
            graph=(ReplaceFull if replaces else Append)(nodes, leaf),
            checkpoint=Checkpoint(turn_state=number, tool_state={"n": number // 3}),
            usage=[UsageDelta("u", "m", input_tokens=number)],
            completed=claims,
            release=release,
        )
        tokens = [claim.token for claim in claims]
        if not model.holds(fence, self.clock.now_ms()):
            error: type[Exception] | None = LeaseLostError
        elif expected:
            error = RevisionConflictError
        elif len(set(tokens)) < len(tokens) or not all(map(self._stands, claims)):
            error = ClaimLostError
        else:
            error = None
        if error is not None:
            self._refused(error, lambda: self.store.commit_turn(commit))
            return multiple()
        receipt = self.store.commit_turn(commit)
        model.revision += 1
        assert receipt.head_revision == model.revision
        if replaces:
            model.live, model.hidden = [], set()
        model.live += ids
        model.leaf, model.checkpoint = leaf, number
        model.usage["u"] += number
        model.queue = [batch for batch in model.queue if batch.token not in tokens]
        model.receipts[f"turn-{number}"] = (commit, receipt)
        if release:
            model.fence = None
        return commit

    @rule(commit=commits, fence=fences, changed=st.booleans(), release=st.booleans())
    def send_again(
        self, commit: TurnCommit, fence: SessionFence, changed: bool, release: bool
    ) -> None:
        """By any worker, with any fence, at any time after."""
        assert commit.stamp is not None
        stamp = TurnStamp(commit.stamp.turn_id, "other") if changed else commit.stamp
        again = msgspec.structs.replace(commit, fence=fence, stamp=stamp, release=release)
        if changed:
            self._refused(TurnConflictError, lambda: self.store.commit_turn(again))
            return
        before = self._rows()
        assert self.store.commit_turn(again) == self.model.receipts[commit.stamp.turn_id][1]
        after = self._rows()
        if release and fence == self.model.fence:
            self.model.fence = None
            after.pop("session_execution_leases")
            before.pop("session_execution_leases")
        assert after == before

    @rule(picks=st.lists(st.integers(0, 20), max_size=3))
    def tombstone_nodes(self, picks: list[int]) -> None:
        live = self.model.live
        ids = {live[pick % len(live)] for pick in picks} if live else set()
        assert self.store.tombstone_nodes([*ids, "unknown", *self.model.hidden]) == len(ids)
        self.model.live = [name for name in live if name not in ids]
        self.model.hidden |= ids

    @rule()
    def vacuum_graph(self) -> None:
        assert self.store.vacuum_graph() == len(self.model.hidden)
        self.model.hidden = set()

    @rule(dry_run=st.booleans())
    def collect_blobs(self, dry_run: bool) -> None:
        before = self._rows()
        report = self.store.collect_blobs(dry_run=dry_run)
        assert report.missing_roots == ()
        assert report.retained == (0 if self.model.checkpoint is None else 2)
        if dry_run:
            assert self._rows() == before
        else:
            assert len(self._rows()["blobs"]) == report.retained
            for turn_id, (commit, receipt) in self.model.receipts.items():
                if turn_id != f"turn-{self.model.checkpoint}":  # its checkpoint was collected
                    collected = msgspec.structs.replace(receipt, manifest=None)
                    self.model.receipts[turn_id] = (commit, collected)

    @invariant()
    def the_store_shows_what_happened(self) -> None:
        if not hasattr(self, "store"):
            return
        model, now_ms = self.model, self.clock.now_ms()
        with self.store.read() as tx:
            head, graph = tx.load_head(), tx.load_graph()
            assert (0 if head is None else head.head_revision) == model.revision
            assert (head is None) == (model.revision == 0)
            if head is not None and graph is not None:
                assert [node.node_id for node in graph.nodes] == model.live
                assert (graph.leaf_node_id, head.graph_node_count) == (model.leaf, len(model.live))
                checkpoint = tx.load_checkpoint(head.checkpoint_ref or "")
                assert checkpoint is not None
                assert checkpoint.turn_state == model.checkpoint
                assert checkpoint.tool_state == {"n": (model.checkpoint or 0) // 3}
            assert Counter({u.source: u.input_tokens for u in tx.load_usage()}) == model.usage
            # Every batch is in exactly one state, and none is lost or made up.
            assert tx.list_work() == [batch.record for batch in model.queue]
            pending = [batch.record for batch in model.queue if not batch.is_claimed(now_ms)]
            assert tx.list_pending_work() == pending
            depth = tx.work_depth()
            assert (depth.batches, depth.claimed) == (
                len(model.queue),
                len(model.queue) - len(pending),
            )
            for turn_id, (_, receipt) in model.receipts.items():
                assert tx.load_receipt(turn_id) == receipt
            lease = tx.current_lease()
            live = model.fence if now_ms < model.lease_ends_ms else None
            assert (None if lease is None else lease.fence) == live

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    def _rows(self) -> dict[str, Any]:
        return dict(all_rows(self.path))

    def _refused(self, error: type[Exception], call: Any) -> None:
        before = self._rows()
        with pytest.raises(error):
            call()
        assert self._rows() == before


TestSessions = SessionMachine.TestCase
TestSessions.settings = settings(settings(), stateful_step_count=60)
