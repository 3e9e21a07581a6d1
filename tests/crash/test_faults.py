"""A fault at every step of every operation: the file is as before or as after, never between."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lash_store import LeaseHeld, SessionFence, SessionLease, SessionStore
from lash_store._kernel.observing import observed_by
from lash_store.errors import LashStoreError, LeaseLostError
from lash_store.schemas import init_file
from lash_store.session.records import (
    NewWork,
    TurnCommit,
    TurnStamp,
    UsageDelta,
    WorkBatch,
    turn_commit_hash,
)
from lash_store.testing import ManualClock, SequentialIds
from tests.support.databases import Rows, all_rows
from tests.support.faults import Failing, Fault, faulty
from tests.support.sessions import chain, whole_turn

FENCE = SessionFence("s", "ann", "token-1", 1)

OPERATIONS: dict[str, Callable[[SessionStore], object]] = {
    "claim_lease": lambda store: store.claim_lease(owner_id="ann", ttl_ms=99),
    "claim_lease, refused": lambda store: store.claim_lease(owner_id="bob", ttl_ms=99),
    "renew_lease": lambda store: store.renew_lease(FENCE, ttl_ms=99),
    "release_lease": lambda store: store.release_lease(FENCE),
}


def prepare(path: Path, clock: ManualClock) -> SessionStore:
    store = SessionStore.open(path, session_id="s", clock=clock, ids=SequentialIds())
    assert isinstance(store.claim_lease(owner_id="ann", ttl_ms=50), SessionLease)
    return store


def expected_after(path: Path, operation: Callable[[SessionStore], object]) -> Rows:
    clean = path.parent / "clean.db"
    with prepare(clean, ManualClock()) as store:
        operation(store)
    return all_rows(clean)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_fault_at_every_statement_at_begin_and_at_commit(
    path: Path, clock: ManualClock, name: str, when: str
) -> None:
    operation = OPERATIONS[name]
    after = expected_after(path, operation)
    with prepare(path, clock) as store:
        before = all_rows(path)
        for at in range(1, 20):
            cause: object = None
            with faulty(store, at, when) as cursor:
                try:
                    operation(store)
                except LashStoreError as refusal:
                    cause = refusal.__cause__
            if not cursor.fired:
                break
            assert isinstance(cause, Fault)
            # A COMMIT that ran and then failed to report is the one step that is "after".
            assert all_rows(path) in (before, after)
            assert _usable(path)
            store.close()
            path.unlink()
            store = prepare(path, ManualClock())  # noqa: PLW2901 # reason: each fault meets a fresh file
        assert at > 2, "begin, at least one statement, commit"
        operation(store)
        assert all_rows(path) == after
        store.close()


def _usable(path: Path) -> bool:
    """No lock was left behind."""
    with SessionStore.open(path, session_id="other", busy_timeout_ms=0) as other:
        return isinstance(other.claim_lease(owner_id="x", ttl_ms=0), SessionLease | LeaseHeld)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["session", "process", "trigger", "effect"])
def test_a_fault_at_every_statement_of_initialising(path: Path, kind: str, when: str) -> None:
    """An initialisation that fails anywhere leaves an empty file, which the next open makes whole."""
    empty: Rows = {"user_version": [(0,)], "schema": []}
    statements = 0
    for at in range(1, 100):
        failing = Failing(os.path.realpath(path), at, when, opening=True)
        cause: object = None
        with observed_by(failing):
            try:
                init_file(kind, path)
            except LashStoreError as refusal:
                cause = refusal.__cause__
        if not failing.fired:
            break
        assert isinstance(cause, Fault)
        found = all_rows(path)
        if found != empty:  # its COMMIT ran, and failed to report
            init_file(kind, path)
            assert all_rows(path) == found
            for sidecar in path.parent.glob(f"{path.name}*"):
                sidecar.unlink()
        statements = at
    assert statements > 9  # the settings, the catalogue, WAL, BEGIN and so on to COMMIT
    init_file(kind, path)  # it is whole now
    assert all_rows(path) != empty


def _turn(store: SessionStore, work: bool = True) -> TurnCommit:
    fence = SessionFence("s", "ann", "token-1", 1)
    claim = store.claim_work(fence, owner_id="ann", ttl_ms=40) if work else None
    assert claim is not None
    turn: TurnCommit = msgspec.structs.replace(whole_turn(store, claim), fence=fence)
    return turn


SESSION_OPERATIONS: dict[
    str, tuple[Callable[[SessionStore], Any], Callable[[SessionStore, Any], object]]
] = {
    "commit_turn": (_turn, lambda store, turn: store.commit_turn(turn)),
    "enqueue_work": (
        lambda _: NewWork(["a", "b"], source_key="new"),
        lambda store, work: store.enqueue_work(work),
    ),
    "enqueue_all_work": (
        lambda _: [NewWork(["a"]), NewWork(["b"])],
        lambda store, work: store.enqueue_all_work(work),
    ),
    "claim_work": (
        lambda _: SessionFence("s", "ann", "token-1", 1),
        lambda store, fence: store.claim_work(fence, owner_id="ann", ttl_ms=9, max_batches=3),
    ),
    "collect_blobs": (
        lambda store: store.put_blob(b"alone"),
        lambda store, _: store.collect_blobs(),
    ),
    "tombstone_nodes": (
        lambda store: store.commit_turn(
            TurnCommit(fence=SessionFence("s", "ann", "token-1", 1), graph=chain("x", "y"))
        ),
        lambda store, _: store.tombstone_nodes(["x", "y"]),
    ),
}


def prepare_session(path: Path) -> SessionStore:
    store = prepare(path, ManualClock())
    for payload in "abc":
        store.enqueue_work(NewWork([payload], slot_policy="join"))
    store.record_attachment_intent("att-1", canonical_uri="u")
    return store


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", SESSION_OPERATIONS)
def test_a_fault_at_every_statement_of_a_session_operation(
    path: Path, name: str, when: str
) -> None:
    """Before or after, never between; and the retry succeeds, with the same result."""
    arrange, act = SESSION_OPERATIONS[name]
    clean = path.parent / "clean.db"
    with prepare_session(clean) as store:
        act(store, arrange(store))
    after = _without_tokens(all_rows(clean))
    faults = 0
    for at in range(1, 60):
        for sidecar in path.parent.glob(f"{path.name}*"):
            sidecar.unlink()
        with prepare_session(path) as store:
            argument = arrange(store)
            before = all_rows(path)
            with faulty(store, at, when) as cursor, suppress(LashStoreError):
                act(store, argument)
            if not cursor.fired:
                break
            faults += 1
            found = all_rows(path)
            assert found == before or _without_tokens(found) == after
            if name != "claim_work" or found == before:
                with suppress(LeaseLostError) if name == "claim_work" else nullcontext():
                    act(store, argument)
            if name in ("commit_turn", "collect_blobs", "tombstone_nodes"):
                assert _without_tokens(all_rows(path)) == after
    assert faults >= 3


def _without_tokens(rows: Rows) -> Rows:
    """Tokens and batch ids differ by how many were drawn before; their places do not."""
    text = repr(rows)
    order: dict[str, str] = {}
    for token in re.findall(r"token-\d+", text):
        order.setdefault(token, f"TOKEN{len(order)}")
    return eval(re.sub(r"token-\d+", lambda match: order[match[0]], text))  # type: ignore[no-any-return] # reason: what repr() gave


@pytest.mark.parametrize("when", ["before", "after"])
def test_two_workers_one_turn_a_crash_between_any_two_statements(path: Path, when: str) -> None:
    """The first worker dies inside the commit; the second retries the turn: one effect, one receipt."""
    faults = 0
    for at in range(1, 60):
        for sidecar in path.parent.glob(f"{path.name}*"):
            sidecar.unlink()
        clock = ManualClock()
        with SessionStore.open(path, session_id="s", clock=clock, ids=SequentialIds()) as store:
            batch = store.enqueue_work(NewWork(["only"], source_key="message"))
            assert isinstance(batch, WorkBatch)
            turn = _turn_of(store, "ann")
            with faulty(store, at, when) as cursor, suppress(LashStoreError):
                store.commit_turn(turn)
            if not cursor.fired:
                break
            faults += 1
        clock.advance(60_000)  # both terms of the dead worker run out
        ids = SequentialIds("second")
        with SessionStore.open(path, session_id="s", clock=clock, ids=ids) as second:
            for _ in range(3):
                retry = _turn_of(second, "bob")
                assert retry.stamp == turn.stamp  # the same hash, whoever builds it
                receipt = second.commit_turn(retry)
                assert receipt.head_revision == 1
        rows = all_rows(path)
        assert len(rows["runtime_turn_commits"]) == len(rows["graph_nodes"]) == 1
        assert [row[3] for row in rows["usage_deltas"]] == [10]
        assert rows["session_head"][0][3] == 1
        assert rows["queued_work_batches"] == []
    assert faults >= 10


def _turn_of(store: SessionStore, owner_id: str) -> TurnCommit:
    lease = store.claim_lease(owner_id=owner_id, ttl_ms=50)
    assert isinstance(lease, SessionLease)
    claim = store.claim_work(lease.fence, owner_id=owner_id, ttl_ms=50)
    turn = TurnCommit(
        fence=lease.fence,
        graph=chain(f"answer-by-{owner_id}"),
        usage=[UsageDelta("chat", "m", 10)],
        completed=[claim] if claim else [],
    )
    stamp = TurnStamp("turn-of-message", turn_commit_hash(turn))
    stamped: TurnCommit = msgspec.structs.replace(turn, stamp=stamp)
    return stamped
