"""A fault at every statement of what is more than one operation: opening, a turn and its retry, a run."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lash_store import EffectStore, SessionStore, TurnCommit
from lash_store.errors import LashStoreError
from lash_store.schemas import init_file
from lash_store.session.records import TurnStamp, UsageDelta, turn_commit_hash
from lash_store.testing import ManualClock, SequentialIds, fail_at_each_statement
from tests.support import on_server as on_the_server
from tests.support.databases import Rows, all_rows
from tests.support.layouts import on_server
from tests.support.sessions import chain, enqueue, lease_of

EMPTY: Rows = {"user_version": [(0,)], "schema": []}


def fresh(path: Path) -> Path:
    if on_server():
        on_the_server.empty(path)
    for left in path.parent.glob(f"{path.name}*"):
        left.unlink()
    return path


@pytest.mark.parametrize("kind", ["session", "process", "trigger", "effect"])
def test_a_fault_at_every_statement_of_initialising(path: Path, kind: str) -> None:
    """One that fails anywhere leaves an empty file, or a whole one; and the next open makes it whole."""
    init_file(kind, path)
    whole = all_rows(path)

    def check(path: Path, error: BaseException | None) -> None:
        assert error is None or isinstance(error, LashStoreError), repr(error)
        assert all_rows(path) in ((whole,) if error is None else (whole, EMPTY))
        init_file(kind, path)
        assert all_rows(path) == whole

    failed = fail_at_each_statement(lambda: fresh(path), lambda path: init_file(kind, path), check)
    assert failed > 60  # the settings, the catalogue, WAL, BEGIN and so on to COMMIT, six times


class Turn:
    """A worker that takes the only batch and commits a turn for it."""

    def __init__(self, path: Path, clock: ManualClock, owner_id: str) -> None:
        ids = SequentialIds(owner_id)
        self.store = SessionStore.open(path, session_id="s", clock=clock, ids=ids)
        self.owner_id = owner_id

    def prepare(self) -> TurnCommit:
        lease = lease_of(self.store, self.owner_id, ttl_ms=50)
        claim = self.store.claim_work(lease.fence, owner_id=self.owner_id, ttl_ms=50)
        turn = TurnCommit(
            fence=lease.fence,
            graph=chain(f"answer-by-{self.owner_id}"),
            usage=[UsageDelta("chat", "m", 10)],
            completed=[claim] if claim else [],
        )
        stamp = TurnStamp("turn-of-message", turn_commit_hash(turn))
        stamped: TurnCommit = msgspec.structs.replace(turn, stamp=stamp)
        return stamped


def test_two_workers_one_turn_a_crash_between_any_two_statements(path: Path) -> None:
    """The first worker dies inside the commit; the second retries the turn: one effect, one receipt."""
    clock = ManualClock()

    def make() -> tuple[Turn, TurnCommit]:
        worker = Turn(fresh(path), clock, "ann")
        enqueue(worker.store, "only", source_key="message")
        return worker, worker.prepare()

    def check(made: tuple[Turn, TurnCommit], _error: object) -> None:
        made[0].store.close()
        clock.advance(60_000)  # both terms of the dead worker run out
        second = Turn(path, clock, "bob")
        with second.store:
            for _ in range(3):
                retry = second.prepare()
                assert retry.stamp == made[1].stamp  # the same hash, whoever builds it
                assert second.store.commit_turn(retry).head_revision == 1
        rows = all_rows(path)
        assert len(rows["runtime_turn_commits"]) == len(rows["graph_nodes"]) == 1
        assert [row[3] for row in rows["usage_deltas"]] == [10]
        assert rows["session_head"][0][3] == 1
        assert rows["queued_work_batches"] == []

    failed = fail_at_each_statement(
        make,
        lambda made: made[0].store.commit_turn(made[1]),
        check,
        close=lambda made: made[0].store.close(),
    )
    assert failed >= 60


def test_a_fault_at_every_statement_of_a_run(path: Path) -> None:
    """Whatever fails: the next run gets the one outcome, whoever brought it about."""
    clock = ManualClock()

    def check(store: EffectStore, error: BaseException | None) -> None:
        assert error is None or isinstance(error, LashStoreError), repr(error)
        clock.advance(60_000)
        outcome = store.run("s", "k", {"x": 1}, lambda: "second")
        assert outcome in (("first",) if error is None else ("first", "second"))
        assert store.run("s", "k", {"x": 1}, lambda: "third") == outcome

    failed = fail_at_each_statement(
        lambda: EffectStore.open(fresh(path), clock=clock),
        lambda store: store.run("s", "k", {"x": 1}, lambda: "first"),
        check,
        close=lambda store: store.close(),
    )
    assert failed >= 36
