"""A process registry under any sequence of operations, against a model in plain Python.

Several workers register, append, replay, complete and cancel, under live fences and stale
ones, while handles move, sessions are deleted, the clock moves, transactions are cut off in
the middle and the registry is opened again. After each step everything that it shows is
compared with the model.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

from lash_store import (
    Cancelled,
    Failure,
    LeaseHeld,
    ProcessFence,
    ProcessLease,
    ProcessRegistry,
    Scope,
    Success,
)
from lash_store.errors import (
    IdempotencyConflictError,
    LeaseLostError,
    NotFoundError,
    ProcessEndedError,
)
from lash_store.process.records import ClaimedProcess, HandleDescriptor
from lash_store.testing import ManualClock, SequentialIds
from tests.support.databases import all_rows
from tests.support.registries import registration

TTL = 20
IDS = st.sampled_from(["a", "a", "a", "b", "b", "c"])
MOSTLY_NONE = st.sampled_from([False, False, False, True])
"""Whether an operation gets a fence, which is stale most often."""

SCOPES = [Scope("one"), Scope("one", "f"), Scope("two")]
OUTPUTS = [Success(1), Success(2), Failure("timeout", "c", "m"), Cancelled("m")]
ENDS: dict[Any, str] = {Success: "completed", Failure: "failed", Cancelled: "cancelled"}


@dataclass
class Process:
    """What a process is: its log, whom it wakes, who runs it."""

    target: Scope | None
    created_at_ms: int
    log: list[tuple[str, Any, str | None]] = field(default_factory=list)
    acked: set[int] = field(default_factory=set)
    fence: ProcessFence | None = None
    number: int = 0
    ends_ms: int = 0

    def state(self) -> str:
        """The fold of the log, and of nothing else."""
        ends = [kind.removeprefix("process.") for kind, _, _ in self.log if kind in END_TYPES]
        return ends[0] if ends else "running"

    def holds(self, fence: ProcessFence, now_ms: int) -> bool:
        return fence == self.fence and now_ms < self.ends_ms

    def keyed(self, key: str) -> tuple[str, Any] | None:
        found = [(kind, payload) for kind, payload, its_key in self.log if its_key == key]
        return found[0] if found else None

    def pending(self) -> list[int]:
        wakes = [at for at, (kind, _, _) in enumerate(self.log, 1) if kind == "wake"]
        return [at for at in wakes if at not in self.acked]

    def is_awaited(self) -> bool:
        """Whether somebody is to be woken by it still."""
        return self.target is not None and bool(self.pending())


END_TYPES = {f"process.{state}" for state in ENDS.values()}


class RegistryMachine(RuleBasedStateMachine):
    fences: Bundle[ProcessFence] = Bundle("fences")

    @initialize(target=fences)
    def start(self) -> ProcessFence:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "registry.db"
        self.clock = ManualClock()
        self.ids = SequentialIds()
        self.model: dict[str, Process] = {}
        self.grants: dict[tuple[str, str], Scope] = {}
        self.registry = self._open()
        for name in "ab":
            self.register_process(name, changed=False)
            for _ in range(2):
                self._append(
                    name,
                    ("wake", 0, None),
                    None,
                    lambda name=name: self.registry.append_event(name, "wake", 0),
                )
        return ProcessFence("a", "eve", "forged", 1)

    def _open(self) -> ProcessRegistry:
        return ProcessRegistry.open(self.path, clock=self.clock, ids=self.ids)

    @rule(name=IDS, changed=st.sampled_from([False, False, False, True]))
    def register_process(self, name: str, changed: bool) -> None:
        target = SCOPES[2] if changed else SCOPES[0]
        given = registration(name, wake_target=target)
        known = self.model.get(name)
        if known is None:
            self.model[name] = Process(target, self.clock.now_ms())
            self.registered[name] = target
            assert self.registry.register_process(given).status.state == "running"
        elif self.registered[name] == target:
            assert self.registry.register_process(given).status.state == known.state()
        else:
            self._refused(IdempotencyConflictError, lambda: self.registry.register_process(given))

    registered: dict[str, Scope]

    def __init__(self) -> None:
        super().__init__()
        self.registered = {}

    @rule(
        name=IDS,
        kind=st.sampled_from(["tick", "wake", "wake"]),
        payload=st.integers(0, 2),
        key=st.sampled_from([None, None, "k", "l"]),
        given=fences,
        fenced=MOSTLY_NONE,
    )
    def append_event(
        self,
        *,
        name: str,
        kind: str,
        payload: int,
        key: str | None,
        given: ProcessFence,
        fenced: bool,
    ) -> None:
        fence = given if fenced else None
        self._append(
            name,
            (kind, payload, key),
            fence,
            lambda: self.registry.append_event(name, kind, payload, replay_key=key, fence=fence),
        )

    @rule(name=IDS, output=st.sampled_from(OUTPUTS), given=fences, fenced=MOSTLY_NONE)
    def complete_process(self, name: str, output: Any, given: ProcessFence, fenced: bool) -> None:
        self._complete(name, output, given if fenced else None)

    @rule(given=fences)
    def complete_again_under_an_old_fence(self, given: ProcessFence) -> None:
        """A worker that was away sends what has been done meanwhile."""
        process = self.model.get(given.process_id)
        ends = [] if process is None else [e for e in process.log if e[0] in END_TYPES]
        if ends:
            self._complete(given.process_id, ends[0][1], given)

    @rule(name=IDS, output=st.sampled_from(OUTPUTS))
    def complete_under_the_live_lease(self, name: str, output: Any) -> None:
        if name in self.model and self.model[name].fence is not None:
            self._complete(name, output, self.model[name].fence)

    def _complete(self, name: str, output: Any, fence: ProcessFence | None) -> None:
        kind = f"process.{ENDS[type(output)]}"
        done = self._append(
            name,
            (kind, output, f"process:{name}:terminal:{kind}"),
            fence,
            lambda: self.registry.complete_process(name, output, fence=fence),
        )
        if done and fence is not None and fence == self.model[name].fence:
            self.model[name].fence = None

    def _append(self, name: str, entry: Any, fence: ProcessFence | None, call: Any) -> bool:
        process, now_ms = self.model.get(name), self.clock.now_ms()
        kind, payload, key = entry
        if process is None:
            self._refused(NotFoundError, call)
            return False
        known = None if key is None else process.keyed(key)
        is_replay = known == (kind, payload)
        if fence is not None:
            later = fence.process_id != name or fence.fencing_token < process.number
            # After a release nothing is left of a term but its number.
            never = fence.fencing_token > process.number or (
                process.fence is not None and fence != process.fence
            )
            if (is_replay and (later or never)) or (
                not is_replay and not process.holds(fence, now_ms)
            ):
                self._refused(LeaseLostError, call)
                return False
        if is_replay:
            before = all_rows(self.path)
            assert call().is_replay
            if kind not in END_TYPES:
                assert all_rows(self.path) == before
            return True
        if known is not None:
            self._refused(IdempotencyConflictError, call)
            return False
        if kind in END_TYPES and process.state() != "running":
            self._refused(ProcessEndedError, call)
            return False
        appended = call()
        process.log.append(entry)
        assert appended.event.sequence == len(process.log)
        assert not appended.is_replay
        wakes = kind == "wake" and process.target is not None
        assert (appended.wake is not None) == wakes
        return True

    @rule(limit=st.sampled_from([1, 100]))
    def prune_processes(self, limit: int) -> None:
        """What has ended, and has nobody to wake still."""
        ended = [n for n in sorted(self.model) if self.model[n].state() != "running"]
        over = [n for n in ended[:limit] if not self.model[n].is_awaited()]
        pruned = self.registry.prune_processes(self.clock.now_ms() + 1, limit=limit)
        assert (pruned.removed, pruned.examined) == (len(over), len(ended[:limit]))
        assert pruned.after == (ended[limit - 1] if len(ended) >= limit else None)
        for name in over:
            del self.model[name]
            for grant in [each for each in self.grants if each[1] == name]:
                del self.grants[grant]

    @rule(name=IDS, reason=st.sampled_from([None, "r"]))
    def request_cancel(self, name: str, reason: str | None) -> None:
        process = self.model.get(name)
        if process is None:
            self._refused(NotFoundError, lambda: self.registry.request_cancel(name, reason=reason))
            return
        kind = "process.cancel_requested"
        known = any(entry[:2] == (kind, reason) for entry in process.log)
        assert self.registry.request_cancel(name, reason=reason).is_replay == known
        if not known:
            process.log.append((kind, reason, None))

    @rule(name=IDS, at=st.integers(0, 6))
    def ack_wake(self, name: str, at: int) -> None:
        process = self.model.get(name)
        if process is None or not 1 <= at <= len(process.log):
            self._refused(NotFoundError, lambda: self.registry.ack_wake(name, at))
            return
        assert self.registry.ack_wake(name, at) == (at not in process.acked)
        process.acked.add(at)

    @rule(name=IDS, pick=st.integers(0, 3))
    def ack_a_pending_wake(self, name: str, pick: int) -> None:
        pending = self.model[name].pending() if name in self.model else []
        if pending:
            self.ack_wake(name, pending[pick % len(pending)])

    @rule(target=fences, name=IDS, owner_id=st.sampled_from(["ann", "bob"]))
    def claim_lease(self, name: str, owner_id: str) -> Any:
        process, now_ms = self.model.get(name), self.clock.now_ms()
        if process is None:
            self._refused(
                NotFoundError,
                lambda: self.registry.claim_lease(name, owner_id=owner_id, ttl_ms=TTL),
            )
            return multiple()
        lease = self.registry.claim_lease(name, owner_id=owner_id, ttl_ms=TTL)
        live = process.fence if now_ms < process.ends_ms else None
        if live is not None and live.owner_id != owner_id:
            assert isinstance(lease, LeaseHeld)
            return multiple()
        assert isinstance(lease, ProcessLease)
        return self._claimed(lease)

    def _claimed(self, lease: ProcessLease) -> ProcessFence:
        process = self.model[lease.process_id]
        process.number += 1
        assert lease.fencing_token == process.number
        process.fence, process.ends_ms = lease.fence, self.clock.now_ms() + TTL
        return lease.fence

    @rule(target=fences, owner_id=st.sampled_from(["ann", "bob"]))
    def claim_next(self, owner_id: str) -> Any:
        free = self._free(self.clock.now_ms())
        return self._next(free, self.registry.claim_next(owner_id=owner_id, ttl_ms=TTL))

    @rule(target=fences, name=IDS, output=st.sampled_from(OUTPUTS))
    def complete_and_claim_next(self, name: str, output: Any) -> Any:
        """What a worker does that goes from one to the next."""
        process, now_ms = self.model.get(name), self.clock.now_ms()
        if process is None or process.fence is None or process.state() != "running":
            return multiple()
        fence = process.fence
        if not process.holds(fence, now_ms):
            self._refused(
                LeaseLostError,
                lambda: self.registry.complete_and_claim_next(fence, output, ttl_ms=TTL),
            )
            return multiple()
        _, claimed = self.registry.complete_and_claim_next(fence, output, ttl_ms=TTL)
        kind = f"process.{ENDS[type(output)]}"
        process.log.append((kind, output, f"process:{name}:terminal:{kind}"))
        process.fence = None
        return self._next(self._free(now_ms), claimed)

    def _free(self, now_ms: int) -> list[tuple[int, str]]:
        return [
            (process.created_at_ms, name)
            for name, process in self.model.items()
            if process.state() == "running" and (process.fence is None or now_ms >= process.ends_ms)
        ]

    def _next(self, free: list[tuple[int, str]], claimed: ClaimedProcess | None) -> Any:
        if not free:
            assert claimed is None
            return multiple()
        assert claimed is not None
        assert claimed.record.id == min(free)[1]
        return self._claimed(claimed.lease)

    @rule(fence=fences)
    def renew_lease(self, fence: ProcessFence) -> None:
        process = self.model.get(fence.process_id)
        if process is None or not process.holds(fence, self.clock.now_ms()):
            self._refused(LeaseLostError, lambda: self.registry.renew_lease(fence, ttl_ms=TTL))
            return
        self.registry.renew_lease(fence, ttl_ms=TTL)
        process.ends_ms = self.clock.now_ms() + TTL

    @rule(fence=fences)
    def release_lease(self, fence: ProcessFence) -> None:
        process = self.model.get(fence.process_id)
        is_current = process is not None and process.fence == fence
        assert self.registry.release_lease(fence) == is_current
        if is_current and process is not None:
            process.fence = None

    @rule(name=IDS, scope=st.sampled_from(SCOPES))
    def grant_handle(self, name: str, scope: Scope) -> None:
        if name not in self.model:
            self._refused(NotFoundError, lambda: self.registry.grant_handle(scope, name))
            return
        self.registry.grant_handle(scope, name, HandleDescriptor(label="l"))
        self.grants[scope.id, name] = scope

    @rule(name=IDS, scope=st.sampled_from(SCOPES))
    def revoke_handle(self, name: str, scope: Scope) -> None:
        had = self.grants.pop((scope.id, name), None) is not None
        assert self.registry.revoke_handle(scope, name) == had

    @rule(
        names=st.lists(IDS, max_size=3),
        source=st.sampled_from(SCOPES),
        onto=st.sampled_from(SCOPES),
    )
    def transfer_handles(self, names: list[str], source: Scope, onto: Scope) -> None:
        if any((source.id, name) not in self.grants for name in names):
            self._refused(
                NotFoundError, lambda: self.registry.transfer_handles(source, onto, names)
            )
            return
        assert self.registry.transfer_handles(source, onto, names) == len(set(names))
        for name in names:
            self.grants.pop((source.id, name), None)
        for name in names:
            self.grants[onto.id, name] = onto

    @rule(session_id=st.sampled_from(["one", "two"]))
    def delete_session(self, session_id: str) -> None:
        gone = {key for key, scope in self.grants.items() if scope.session_id == session_id}
        report = self.registry.delete_session(session_id)
        for key in gone:
            del self.grants[key]
        running = {name for _, name in gone if self.model[name].state() == "running"}
        kept = {name for _, name in self.grants}
        assert report.revoked_handle_count == len(gone)
        assert report.orphaned_process_ids == tuple(sorted(running - kept))
        assert report.preserved_process_ids == tuple(sorted(running & kept))
        for process in self.model.values():
            if process.target is not None and process.target.session_id == session_id:
                process.target = None

    @rule(by_ms=st.sampled_from([1, 1, TTL - 1, TTL, 3 * TTL]))
    def wait(self, by_ms: int) -> None:
        self.clock.advance(by_ms)

    @rule()
    def reopen(self) -> None:
        self.registry.close()
        self.registry = self._open()

    @rule(name=IDS)
    def crash(self, name: str) -> None:
        """Much is done in one transaction, and then it is cut off: nothing has happened."""
        if name not in self.model:
            return
        before = all_rows(self.path)

        class CutOffError(Exception):
            pass

        with pytest.raises(CutOffError), self.registry.begin() as tx:
            tx.append_event(name, "wake", "lost")
            tx.claim_next(owner_id="lost", ttl_ms=TTL)
            tx.delete_session("one")
            if self.model[name].state() == "running":
                tx.complete_process(name, Success("lost"))
            raise CutOffError
        assert all_rows(self.path) == before

    @invariant()
    def the_registry_shows_what_happened(self) -> None:
        if not hasattr(self, "registry"):
            return
        now_ms = self.clock.now_ms()
        with self.registry.read() as tx:
            assert [r.id for r in tx.list_processes(state=None)] == sorted(self.model)
            running = [name for name in sorted(self.model) if self.model[name].state() == "running"]
            assert [record.id for record in tx.list_processes()] == running
            shown = [(e.event.process_id, e.event.sequence) for e in tx.pending_wakes()]
            pending = [(n, at) for n in sorted(self.model) for at in self.model[n].pending()]
            assert shown == pending
            for name, process in self.model.items():
                events = tx.events_after(name)
                assert [e.sequence for e in events] == list(range(1, len(process.log) + 1))
                assert [e.event_type for e in events] == [kind for kind, _, _ in process.log]
                assert sum(kind in END_TYPES for kind, _, _ in process.log) <= 1
                record = tx.load_process(name)
                assert record is not None
                assert (record.status.state, record.wake_target) == (
                    process.state(),
                    process.target,
                )
                ends = [payload for kind, payload, _ in process.log if kind in END_TYPES]
                assert record.await_output == (ends[0] if ends else None)
                assert [e.sequence for e in tx.wake_events_after(name)] == process.pending()
                lease = tx.current_lease(name)
                live = process.fence if now_ms < process.ends_ms else None
                assert (None if lease is None else lease.fence) == live
            for scope in SCOPES:
                held = sorted(name for scope_id, name in self.grants if scope_id == scope.id)
                assert [grant.process_id for grant in tx.list_handles(scope)] == held

    def teardown(self) -> None:
        if hasattr(self, "registry"):
            self.registry.close()
            self.folder.cleanup()

    def _refused(self, error: type[Exception], call: Any) -> None:
        before = all_rows(self.path)
        with pytest.raises(error):
            call()
        assert all_rows(self.path) == before


TestRegistry = RegistryMachine.TestCase
TestRegistry.settings = settings(settings(), stateful_step_count=60)
