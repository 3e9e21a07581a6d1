"""S-COMMIT, rule by rule: the checks in their order, the receipt, and one effect per turn."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import create_engine, text

from lash_store import SessionLease, SessionStore, SessionTx, configure
from lash_store.errors import (
    ClaimLostError,
    CorruptRecordError,
    InvalidRecordError,
    LashStoreError,
    LeaseLostError,
    NodeConflictError,
    RevisionConflictError,
    SessionBindingError,
    TurnConflictError,
)
from lash_store.session.records import (
    Append,
    Checkpoint,
    NewWork,
    Node,
    TurnCommit,
    TurnReceipt,
    TurnStamp,
    UsageDelta,
    WorkBatch,
    turn_commit_hash,
)
from lash_store.session.records.checkpoints import written_checkpoint
from lash_store.session.statements import load_receipt
from lash_store.testing import ManualClock
from tests.support.databases import all_rows, run_script
from tests.support.sessions import (
    chain,
    claim_of,
    commit,
    enqueue,
    lease_of,
    node,
    stamped,
    whole_turn,
)

replace = msgspec.structs.replace


def test_everything_that_a_turn_changes_is_one_transaction(
    store: SessionStore, path: Path, clock: ManualClock
) -> None:
    enqueue(store, "work")
    store.record_attachment_intent("att-1", canonical_uri="u")
    turn = whole_turn(store, claim_of(store))
    receipt = store.commit_turn(turn)
    rows = all_rows(path)
    assert receipt.head_revision == 1
    assert len(rows["blobs"]) == 3
    assert rows["usage_deltas"] == [(1, "chat", "m", 10, 5, 1, 2)]
    assert rows["queued_work_batches"] == rows["queued_work_items"] == []
    assert rows["attachment_manifest"] == [("att-1", "s", "u", clock.now_ms(), clock.now_ms())]
    assert rows["session_execution_leases"] == [("s", None, None, 1, 0, 0)]
    ((session_id, turn_id, hash_, _, at_ms),) = rows["runtime_turn_commits"]
    assert (session_id, turn_id, hash_, at_ms) == ("s", "turn-1", "hash-1", clock.now_ms())
    head = store.load_head()
    assert head is not None
    assert (head.leaf_node_id, head.graph_node_count) == ("n1", 1)
    assert head.checkpoint_ref == receipt.checkpoint_ref


@pytest.mark.canonical("one file, in which one store sees what another wrote of its session")
@pytest.mark.parametrize(("bound", "attempted"), [("one", "two"), ("two", "one")])
def test_s_commit_1_a_database_of_another_session(path: Path, bound: str, attempted: str) -> None:
    with SessionStore.open(path, session_id=bound) as one:
        commit(one)
    with SessionStore.open(path, session_id=attempted) as two:
        fence = lease_of(two).fence
        before = all_rows(path)
        with pytest.raises(SessionBindingError) as refusal:
            two.commit_turn(TurnCommit(fence=fence))
        assert (refusal.value.bound, refusal.value.attempted) == (bound, attempted)
        assert all_rows(path) == before


def test_s_commit_2_the_same_turn_again_gives_the_receipt_and_changes_nothing(
    store: SessionStore, path: Path
) -> None:
    turn = stamped(store, graph=chain("a"), checkpoint=Checkpoint(turn_state={"x": 0.5}))
    receipt = store.commit_turn(turn)
    before = all_rows(path)
    for _ in range(3):
        assert store.commit_turn(turn) == receipt
    # By another worker, whose fence is not even live, against another revision:
    other = replace(turn, fence=replace(turn.fence, token="stale"), expected_head_revision=77)
    assert store.commit_turn(other) == receipt
    assert store.load_receipt("turn-1") == receipt
    assert store.load_receipt("turn-2") is None
    assert all_rows(path) == before


def test_s_commit_2_a_release_that_is_asked_for_is_done_again(
    store: SessionStore, path: Path
) -> None:
    turn = stamped(store)
    receipt = store.commit_turn(turn)
    before = all_rows(path)
    assert store.commit_turn(replace(turn, release=True)) == receipt
    after = all_rows(path)
    assert after.pop("session_execution_leases") == [("s", None, None, 1, 0, 0)]
    before.pop("session_execution_leases")
    assert after == before


def test_s_commit_2_a_lease_of_another_session_is_not_released(
    store: SessionStore, path: Path
) -> None:
    turn = stamped(store)
    receipt = store.commit_turn(turn)
    other = store.claim_lease(owner_id="ann", ttl_ms=1_000, session_id="other")
    assert isinstance(other, SessionLease)
    before = all_rows(path)
    assert store.commit_turn(replace(turn, fence=other.fence, release=True)) == receipt
    assert all_rows(path) == before


@pytest.mark.parametrize("other", ["hash-0", "hash-2"])
def test_s_commit_2_the_same_turn_with_another_hash_is_a_conflict(
    store: SessionStore, path: Path, other: str
) -> None:
    store.commit_turn(stamped(store, graph=chain("a")))
    turn = stamped(store, commit_hash=other, graph=chain("b"), release=True)
    before = all_rows(path)
    with pytest.raises(TurnConflictError) as refusal:
        store.commit_turn(turn)
    assert (refusal.value.session_id, refusal.value.turn_id) == ("s", "turn-1")
    assert all_rows(path) == before


def test_a_receipt_is_of_one_turn_of_one_session(store: SessionStore) -> None:
    """Of three turns, the one in the midst; none of a turn or a session before or behind."""
    for number in (1, 2, 3):
        turn = stamped(store, turn_id=f"turn-{number}", commit_hash=f"hash-{number}")
        assert store.commit_turn(turn).head_revision == number
    receipt = store.load_receipt("turn-2")
    assert receipt is not None
    assert receipt.head_revision == 2
    for unknown in ("turn-0", "turn-4"):
        assert store.load_receipt(unknown) is None
    with store.read() as tx:
        for session_id in ("other", "zz"):
            known = load_receipt.one(tx.cursor, session_id=session_id, turn_id="turn-2")
            assert known is None


@pytest.mark.parametrize("other", ["other", "zz"])
def test_s_commit_2_a_stamp_for_another_session_is_a_conflict(
    store: SessionStore, path: Path, other: str
) -> None:
    turn = TurnCommit(fence=lease_of(store).fence, stamp=TurnStamp("t", "h", other))
    before = all_rows(path)
    with pytest.raises(TurnConflictError) as refusal:
        store.commit_turn(turn)
    assert refusal.value.session_id == other
    assert all_rows(path) == before


def test_s_commit_3_a_live_lease_of_this_session_is_required(
    store: SessionStore, path: Path, clock: ManualClock
) -> None:
    fence = lease_of(store, ttl_ms=100).fence
    others = [
        store.claim_lease(owner_id="ann", ttl_ms=1_000, session_id=name) for name in ("other", "zz")
    ]
    clock.advance(100)
    before = all_rows(path)
    theirs = [each.fence for each in others if isinstance(each, SessionLease)]
    assert len(theirs) == 2
    for bad in (fence, replace(fence, token="x"), *theirs):
        with pytest.raises(LeaseLostError):
            store.commit_turn(TurnCommit(fence=bad, graph=chain("a")))
    assert all_rows(path) == before


@pytest.mark.parametrize("after_ms", [99, 100, 101])
def test_s_commit_3_the_lease_ends_exclusively(
    store: SessionStore, clock: ManualClock, after_ms: int
) -> None:
    fence = lease_of(store, ttl_ms=100).fence
    clock.advance(after_ms)
    if after_ms < 100:
        assert store.commit_turn(TurnCommit(fence=fence)).head_revision == 1
    else:
        with pytest.raises(LeaseLostError, match="expired"):
            store.commit_turn(TurnCommit(fence=fence))


def test_s_commit_4_the_expected_revision_is_compared(store: SessionStore, path: Path) -> None:
    commit(store, expected_head_revision=0)
    commit(store, expected_head_revision=1)
    before = all_rows(path)
    for expected in (0, 1, 3):
        with pytest.raises(RevisionConflictError) as refusal:
            commit(store, chain("a"), expected_head_revision=expected)
        assert (refusal.value.expected, refusal.value.actual) == (expected, 2)
    assert all_rows(path) == before
    commit(store)  # and it is not asked for


@pytest.mark.parametrize(
    "loss", ["taken", "abandoned", "missing", "extra", "twice", "two claims", "other", "zz"]
)
def test_s_commit_5_a_completed_claim_stands_on_exactly_its_batches(
    store: SessionStore, path: Path, clock: ManualClock, loss: str
) -> None:
    for _ in range(3):
        enqueue(store, slot_policy="join")
    claim = claim_of(store, max_batches=2)
    claims = [claim]
    if loss == "taken":
        clock.advance(1_000)
        assert claim_of(store, max_batches=2).batch_ids == claim.batch_ids
    elif loss == "abandoned":
        store.abandon_claim(claim)
    elif loss == "missing":
        run_script(path, f"DELETE FROM queued_work_batches WHERE batch_id = '{claim.batch_ids[0]}'")
    elif loss == "extra":
        claims = [replace(claim, batches=claim.batches[:1])]
    elif loss == "twice":
        claims = [replace(claim, batches=claim.batches * 2)]
    elif loss == "two claims":
        claims = [claim, claim]
    else:
        claims = [replace(claim, session_id=loss)]
    lease_of(store)
    before = all_rows(path)
    with pytest.raises(ClaimLostError) as refusal:
        commit(store, chain("a"), completed=claims)
    if loss == "two claims":  # which batches are named twice
        assert sorted(refusal.value.found) == sorted(claim.batch_ids)
        assert refusal.value.reason == "named twice"
        assert "named twice in this commit" in str(refusal.value)
    if loss in ("other", "zz"):
        assert (refusal.value.found, refusal.value.reason) == ((), "of another session")
    assert all_rows(path) == before


@pytest.mark.parametrize("session_id", ["other", "zz"])
def test_s_commit_5_a_claim_of_another_session_is_not_completed(
    store: SessionStore, path: Path, session_id: str
) -> None:
    """One that stands: only not here."""
    enqueued = store.enqueue_work(NewWork(["theirs"]), session_id=session_id)
    assert isinstance(enqueued, WorkBatch)
    theirs = store.claim_lease(owner_id="bob", ttl_ms=60_000, session_id=session_id)
    assert isinstance(theirs, SessionLease)
    claim = store.claim_work(theirs.fence, owner_id="bob", ttl_ms=60_000)
    assert claim is not None
    fence = lease_of(store).fence
    before = all_rows(path)
    with pytest.raises(ClaimLostError) as refusal:
        store.commit_turn(TurnCommit(fence=fence, completed=[claim]))
    assert refusal.value.expected == claim.batch_ids
    assert refusal.value.found == ()
    assert all_rows(path) == before


def test_a_hidden_leaf_stays_as_long_as_no_commit_moves_it(store: SessionStore) -> None:
    commit(store, chain("a"))
    store.tombstone_nodes(["a"])
    commit(store, config={"model": "m"})
    head = store.load_head()
    assert head is not None
    assert head.leaf_node_id == "a"


def test_s_head_1_a_commit_keeps_what_it_does_not_know_but_for_the_ledger(
    store: SessionStore, path: Path
) -> None:
    commit(store)
    run_script(
        path,
        "UPDATE session_head SET head_json = json_set(head_json, "
        "'$.alpha', 1, '$.token_ledger', 2, '$.zeta', 3)",
    )
    commit(store, config={"model": "m"})
    head = store.load_head()
    assert head is not None
    assert head.extra == {"alpha": 1, "zeta": 3}


@pytest.mark.sqlite("writes JSON by SQLite's own function")
def test_s_head_1_a_field_that_can_not_be_written_again_makes_it_no_head(
    store: SessionStore, path: Path
) -> None:
    """At the very depth that a field may have it is written again as well as read."""
    commit(store)
    for depth, is_one in ((100, True), (101, False)):
        deep = "[" * depth + "]" * depth
        run_script(
            path,
            f"UPDATE session_head SET head_json = json_set(head_json, '$.deep', json('{deep}'))",
        )
        if is_one:
            commit(store, config={"model": "m"})
        else:
            with pytest.raises(CorruptRecordError):
                commit(store, config={"model": "n"})


@pytest.mark.parametrize("left", [0, 1])
def test_the_last_revision_is_the_last(store: SessionStore, path: Path, left: int) -> None:
    commit(store)
    run_script(path, f"UPDATE session_head SET head_revision = {2**63 - 1 - left}")
    before = all_rows(path)
    if left:
        assert commit(store).head_revision == 2**63 - 1
        return
    fence = lease_of(store).fence
    before = all_rows(path)
    with pytest.raises(CorruptRecordError, match="no revision is left"):
        store.commit_turn(TurnCommit(fence=fence))
    assert all_rows(path) == before


def test_s_commit_5_expiry_alone_does_not_matter(store: SessionStore, clock: ManualClock) -> None:
    enqueue(store)
    claim = claim_of(store)
    clock.advance(5_000)
    commit(store, completed=[claim])
    assert store.work_depth().batches == 0


@pytest.mark.canonical("one file, in which one store sees what another wrote of its session")
def test_the_first_check_that_fails_decides(store: SessionStore, path: Path) -> None:
    """Mended one after the other, from the worst commit to one that passes."""
    with SessionStore.open(path, session_id="other") as other:
        commit(other, chain("a"))
        fence = lease_of(other).fence
        other.commit_turn(TurnCommit(fence=fence, stamp=TurnStamp("t", "h")))
        enqueue(store)
        claim = claim_of(store)
        worst = TurnCommit(
            fence=replace(fence, token="stale"),
            stamp=TurnStamp("t", "other hash"),
            expected_head_revision=9,
            completed=[claim],
            graph=Append([node("a")], "a"),
        )
        with pytest.raises(SessionBindingError):
            store.commit_turn(replace(worst, fence=replace(worst.fence, key="s")))
        steps: list[tuple[type[LashStoreError], dict[str, Any]]] = [
            (TurnConflictError, {"stamp": TurnStamp("t2", "h")}),
            (LeaseLostError, {"fence": fence}),
            (RevisionConflictError, {"expected_head_revision": 2}),
            (ClaimLostError, {"completed": []}),
            (NodeConflictError, {"graph": Append([node("b")], "b")}),
        ]
        before = all_rows(path)
        for error, mended in steps:
            with pytest.raises(error):
                other.commit_turn(worst)
            assert all_rows(path) == before
            worst = replace(worst, **mended)
        assert other.commit_turn(worst).head_revision == 3


class TestHash:
    COMMIT = TurnCommit(
        fence=None,  # type: ignore[arg-type] # reason: set by each test
        config={"model": "m"},
        agent_frames=[{"frame": 1}],
        graph=Append(
            [
                Node(
                    "n1",
                    "n0",
                    {
                        "kind": "event",
                        "event": {
                            "Conversation": {
                                "id": "m1",
                                "role": "User",
                                "parts": [
                                    {
                                        "id": "p1",
                                        "kind": "Text",
                                        "content": "hi",
                                        "prune_state": "Full",
                                    }
                                ],
                            }
                        },
                    },
                    timestamp="then",
                )
            ],
            "n1",
        ),
        checkpoint=Checkpoint(turn_state={"turn_index": 1}, execution_state=b"\0"),
        usage=[UsageDelta("a", "m", 1)],
        attachment_ids=["att"],
    )

    def variant(self, store: SessionStore, **changes: Any) -> str:
        return turn_commit_hash(replace(self.COMMIT, fence=lease_of(store).fence, **changes))

    def graph(self, **message: Any) -> Append:
        body = {
            "id": "m1",
            "role": "User",
            "parts": [{"id": "p1", "kind": "Text", "content": "hi", "prune_state": "Full"}],
        } | message
        fields = {"kind": "event", "event": {"Conversation": body}}
        return Append([Node("n1", "n0", fields, timestamp="then")], "n1")

    @pytest.mark.parametrize("name", ["turn_state", "tool_state", "plugin_snapshot"])
    def test_s_commit_8_what_each_try_makes_anew_counts_in_no_part_of_a_checkpoint(
        self, store: SessionStore, name: str
    ) -> None:
        def tried(at: int, role: str = "user") -> str:
            message = {"id": f"m{at}", "role": role, "parts": []}
            state: dict[str, Any] = {"turn_state": 1, name: {"last": [message], "timestamp": at}}
            return self.variant(store, checkpoint=Checkpoint(**state))

        assert tried(1) == tried(2)
        assert tried(1) != tried(1, role="assistant")

    def test_s_commit_8_a_component_counts_as_its_ref_does(self, store: SessionStore) -> None:
        by_body = Checkpoint(1, tool_state={"a": [1, 2.5]}, execution_state=b"\0")
        manifest = written_checkpoint(by_body).manifest
        by_ref = Checkpoint(
            1,
            tool_state_ref=manifest.tool_state_ref,
            execution_state_ref=manifest.execution_state_ref,
        )
        assert self.variant(store, checkpoint=by_body) == self.variant(store, checkpoint=by_ref)

    def test_s_commit_8_a_turn_that_is_stamped_has_its_own_hash(
        self, store: SessionStore, path: Path
    ) -> None:
        turn = replace(self.COMMIT, fence=lease_of(store).fence, attachment_ids=[])
        stamped = turn.stamped("t")
        assert stamped == replace(turn, stamp=TurnStamp("t", turn_commit_hash(turn)))
        receipt = store.commit_turn(stamped)
        before = all_rows(path)
        assert store.commit_turn(stamped.stamped("t")) == receipt
        assert all_rows(path) == before
        with pytest.raises(InvalidRecordError, match="turn_id"):
            store.commit_turn(turn.stamped(""))

    def test_s_commit_8_is_the_same_for_every_worker_that_retries(
        self, store: SessionStore, clock: ManualClock
    ) -> None:
        first = self.variant(store)
        enqueue(store)
        claim = claim_of(store)
        clock.advance(100_000)
        part = {"id": "p9", "kind": "Text", "content": "hi", "prune_state": "Full"}
        renamed = self.graph(id="m9", parts=[part])
        node_again = replace(renamed.nodes[0], node_id="n9", parent_node_id=None, timestamp="now")
        sames: tuple[dict[str, Any], ...] = (
            {"stamp": TurnStamp("t", "h")},
            {"expected_head_revision": 4, "release": True, "completed": [claim]},
            {"graph": Append([node_again], "n9")},
        )
        for same in sames:
            assert self.variant(store, **same) == first

    def test_s_commit_8_differs_where_the_turn_differs(self, store: SessionStore) -> None:
        differences: tuple[dict[str, Any], ...] = (
            {"config": {"model": "n"}},
            {"agent_frames": []},
            {"current_agent_frame_id": "f"},
            {"graph": self.graph(role="Assistant")},
            {"graph": self.graph(parts=[])},
            {"graph": Append([], None)},
            {"checkpoint": Checkpoint(turn_state={"turn_index": 2}, execution_state=b"\0")},
            {"checkpoint": None},
            {"usage": [UsageDelta("a", "m", 2)]},
            {"usage": []},
            {"attachment_ids": ["other"]},
        )
        hashes = [self.variant(store), *(self.variant(store, **each) for each in differences)]
        assert len(set(hashes)) == len(hashes)

    def test_s_commit_8_ids_that_mean_something_stay(self, store: SessionStore) -> None:
        one = Append([Node("n", None, {"tool": {"id": "call-1"}})], "n")
        two = Append([Node("n", None, {"tool": {"id": "call-2"}})], "n")
        assert self.variant(store, graph=one) != self.variant(store, graph=two)


def test_s_commit_9_a_consumers_own_transaction_commits_a_turn_too(path: Path) -> None:
    engine = configure(create_engine(f"sqlite:///{path}"))

    def send() -> TurnReceipt:
        with engine.begin() as connection:
            tx = SessionTx.on(connection, session_id="s")
            lease = tx.claim_lease(owner_id="ann", ttl_ms=60_000)
            turn = TurnCommit(fence=lease.fence, stamp=TurnStamp("t", "h"), graph=chain("a"))  # type: ignore[union-attr] # reason: it is free
            connection.execute(text("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY)"))
            connection.execute(text("INSERT INTO orders DEFAULT VALUES"))
            return tx.commit_turn(turn)

    assert send() == send()
    engine.dispose()
    rows = all_rows(path)
    assert (len(rows["orders"]), len(rows["graph_nodes"])) == (2, 1)


@pytest.mark.parametrize(
    "error",
    [
        SessionBindingError("a", "b"),
        TurnConflictError("s", "t"),
        RevisionConflictError(1, 2),
        ClaimLostError("qwc:1:1", ["a"], []),
        NodeConflictError("n"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_errors_pickle(error: LashStoreError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("text", ["", "[]", '{"head_revision":"one"}', "{}"])
def test_a_corrupt_receipt_is_a_typed_error(store: SessionStore, path: Path, text: str) -> None:
    turn = stamped(store)
    store.commit_turn(turn)
    run_script(path, f"UPDATE runtime_turn_commits SET result_json = '{text}'")
    before = all_rows(path)
    with pytest.raises(Exception, match="runtime_turn_commits"):
        store.commit_turn(turn)
    assert all_rows(path) == before
