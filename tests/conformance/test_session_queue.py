"""S-QUEUE, rule by rule; the prefix rule and the claim's plan by properties."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st
from sqlalchemy import Column, MetaData, Table, Text, event, insert, literal, select

from lash_store import SessionStore
from lash_store._backends.sqlite.dialect import BEGIN_WRITE, COMMIT, SQLITE
from lash_store.errors import ClaimLostError, CorruptRecordError, InvalidRecordError, LeaseLostError
from lash_store.session import statements, tables
from lash_store.session.records import AlreadyQueued, NewWork, WorkBatch, claimable_prefix
from lash_store.session.records.queue import Candidate
from lash_store.statements import json_text
from lash_store.testing import ManualClock, SequentialIds
from tests.support.databases import all_rows, run_script
from tests.support.sessions import TTL, claim_of, enqueue, lease_of


def names(batches: Any) -> list[str]:
    return [batch.items[0].payload for batch in batches]


@pytest.mark.parametrize("asked", ["acme", "acme\ufffdx", r"acme\\u0000x"])
def test_json_text_reads_past_a_nul(store: SessionStore, asked: str) -> None:
    for tenant in ("acme\0x", r"acme\\u0000x", "\\\0", "acme"):
        enqueue(store, {"tenant": tenant})
    lease = lease_of(store)
    tenant_of = json_text(tables.queued_work_items.c.payload_json, "tenant")
    claimed = store.claim_work(
        lease.fence, owner_id="o", ttl_ms=TTL, where=tenant_of == asked, max_batches=9
    )
    assert claimed is not None
    expected = {"acme\ufffdx": "acme\0x"}.get(asked, asked)
    assert [batch.items[0].payload for batch in claimed.batches] == [{"tenant": expected}]


def test_s_queue_1_a_batch_on_the_wire(store: SessionStore, path: Path, clock: ManualClock) -> None:
    batch = enqueue(
        store,
        {"b": 1, "a": 1e16},
        "second",
        source_key="k",
        delivery_policy="earliest_safe_boundary",
        slot_policy="join",
        merge_key={"group": "g"},
        available_at_ms=5,
    )
    assert batch.batch_id == "qwb:token-1"
    assert [item.item_id for item in batch.items] == ["qwb:token-1:item:0", "qwb:token-1:item:1"]
    rows = all_rows(path)
    assert rows["queued_work_batches"] == [
        (1, "qwb:token-1", "s", "k", "earliest_safe_boundary", "join", '{"group":"g"}', 5,
         clock.now_ms(), None, None, None, 0, 0, 0)
    ]  # fmt: skip
    assert [row[3] for row in rows["queued_work_items"]] == ['{"a":1e+16,"b":1}', '"second"']
    plain = enqueue(store)
    assert (plain.merge_key, plain.available_at_ms, plain.source_key) == ("never", 0, None)


@pytest.mark.parametrize(
    "bad",
    [
        NewWork([]),
        NewWork("text"),
        NewWork([float("nan")]),
        NewWork(["x"], source_key=""),
        NewWork(["x"], available_at_ms=-1),
        NewWork(["x"], delivery_policy="later"),  # type: ignore[arg-type] # reason: that is the test
        NewWork(["x"], slot_policy="shared"),  # type: ignore[arg-type] # reason: the same
        NewWork(["x"], merge_key="sometimes"),
        NewWork(["x"], merge_key={"group": ""}),
        NewWork(["x"], merge_key={"group": "g", "more": 1}),
        {"payloads": []},
    ],
    ids=ascii,
)
def test_s_queue_1_bad_work_is_refused_before_anything_is_written(
    store: SessionStore, path: Path, bad: Any
) -> None:
    before = all_rows(path)
    with pytest.raises(InvalidRecordError):
        store.enqueue_work(bad)
    with pytest.raises(InvalidRecordError):
        store.enqueue_all_work([NewWork(["fine"]), bad])
    with store.begin() as tx, pytest.raises(InvalidRecordError):
        tx.enqueue_all_work([NewWork(["fine"]), bad])
    assert all_rows(path) == before


def test_s_queue_1_what_comes_back_is_plain(store: SessionStore) -> None:
    class Word(StrEnum):
        SLOT, POLICY = "join", "earliest_safe_boundary"

    given: Any = {"delivery_policy": Word.POLICY, "slot_policy": Word.SLOT, "source_key": Word.SLOT}
    payload: Any = {"list": [1]}
    batch = store.enqueue_work(NewWork([payload, Word.SLOT], **given))
    assert isinstance(batch, WorkBatch)
    assert [batch] == store.list_work()
    for value in (batch.delivery_policy, batch.slot_policy, batch.source_key):
        assert type(value) is str
    payload["list"].append(2)
    batch.items[0].payload["list"].append(3)
    assert store.list_work()[0].items[0].payload == {"list": [1]}


def test_s_queue_2_a_source_is_enqueued_once_while_its_batch_exists(
    store: SessionStore, path: Path
) -> None:
    first = enqueue(store, "one", source_key="k")
    before = all_rows(path)
    assert store.enqueue_work(NewWork(["two", "three"], source_key="k")) == AlreadyQueued(first)
    assert all_rows(path) == before
    elsewhere = store.enqueue_work(NewWork(["two"], source_key="k"), session_id="other")
    assert isinstance(elsewhere, WorkBatch)
    store.cancel_work(first.batch_id)
    again = enqueue(store, "two", source_key="k")
    assert again.batch_id != first.batch_id
    assert enqueue(store).batch_id != enqueue(store).batch_id


def test_s_queue_2_several_at_once_keep_their_order(store: SessionStore) -> None:
    work = [NewWork([n], source_key=key) for n, key in (("a", "x"), ("b", None), ("c", "x"))]
    first, second, third = store.enqueue_all_work(work)
    assert isinstance(first, WorkBatch)
    assert isinstance(second, WorkBatch)
    assert third == AlreadyQueued(first)
    assert names(store.list_work()) == ["a", "b"]


def test_k_tx_2_several_at_once_are_enqueued_whole_or_not_at_all(
    store: SessionStore, path: Path
) -> None:
    """Though the transaction in which it failed goes on."""
    enqueue(store, "there", source_key="k")
    run_script(path, "UPDATE queued_work_items SET payload_json = '{'")
    before = all_rows(path)
    with store.begin() as tx, pytest.raises(CorruptRecordError):
        tx.enqueue_all_work([NewWork(["new"]), NewWork(["again"], source_key="k")])
    assert all_rows(path) == before


def test_k_tx_2_a_token_that_no_claim_can_have(path: Path) -> None:
    class Ids:
        suffix = ""

        def new_token(self) -> str:
            return f"token{self.suffix}"

    ids = Ids()
    with SessionStore.open(path, session_id="s", ids=ids) as store:
        enqueue(store)
        fence = lease_of(store).fence
        ids.suffix = "é"
        before = all_rows(path)
        with store.begin() as tx, pytest.raises(InvalidRecordError, match="new_token"):
            tx.claim_work(fence, owner_id="ann", ttl_ms=5)
        for ids.suffix in ("\ud800", "é", "\0"):  # and no batch be named by
            with store.begin() as tx, pytest.raises(InvalidRecordError, match="new_token"):
                tx.enqueue_work(NewWork([1]))
        assert all_rows(path) == before


def test_s_queue_3_needs_the_live_session_lease(
    store: SessionStore, path: Path, clock: ManualClock
) -> None:
    batch = enqueue(store)
    fence = lease_of(store, ttl_ms=100).fence
    clock.advance(100)
    before = all_rows(path)
    with pytest.raises(LeaseLostError):
        store.claim_work(fence, owner_id="ann", ttl_ms=1)
    with pytest.raises(LeaseLostError):
        store.claim_work_batches(fence, [batch.batch_id], owner_id="ann", ttl_ms=1)
    assert store.claim_work(fence, owner_id="ann", ttl_ms=1, max_batches=0) is None
    assert store.claim_work_batches(fence, [], owner_id="ann", ttl_ms=1) is None
    assert all_rows(path) == before


@pytest.mark.parametrize(
    "bad",
    [{"owner_id": ""}, {"ttl_ms": -1}, {"max_batches": -1}, {"boundary": "now"}],
    ids=str,
)
def test_s_queue_3_bad_arguments_are_refused(
    store: SessionStore, path: Path, bad: dict[str, Any]
) -> None:
    enqueue(store)
    fence = lease_of(store).fence
    before = all_rows(path)
    arguments: dict[str, Any] = {"owner_id": "ann", "ttl_ms": 1, **bad}
    with pytest.raises(InvalidRecordError):
        store.claim_work(fence, **arguments)
    assert all_rows(path) == before


def test_s_queue_3_candidates_are_available_and_unclaimed_in_order(
    store: SessionStore, clock: ManualClock
) -> None:
    enqueue(store, "later", available_at_ms=clock.now_ms() + 10)
    enqueue(store, "first")
    enqueue(store, "second")
    assert names(claim_of(store).batches) == ["first"]
    assert names(claim_of(store).batches) == ["second"]
    assert store.claim_work(lease_of(store).fence, owner_id="ann", ttl_ms=1) is None
    clock.advance(9)
    assert store.claim_work(lease_of(store).fence, owner_id="ann", ttl_ms=1) is None
    clock.advance(1)
    assert names(claim_of(store).batches) == ["later"]


@pytest.mark.parametrize("after_ms", [999, 1_000, 1_001])
def test_s_queue_3_a_claim_ends_exclusively(
    store: SessionStore, clock: ManualClock, after_ms: int
) -> None:
    enqueue(store)
    claim_of(store)
    clock.advance(after_ms)
    again = store.claim_work(lease_of(store).fence, owner_id="bob", ttl_ms=1)
    assert (again is None) == (after_ms < 1_000)


def test_k_lease_7_a_claim_of_zero_ms_is_over_at_once(store: SessionStore) -> None:
    enqueue(store)
    fence = lease_of(store).fence
    for number in (1, 2, 3):
        claim = store.claim_work(fence, owner_id="ann", ttl_ms=0)
        assert claim is not None
        assert claim.claim_id == f"qwc:1:{number}"


def test_s_queue_3_the_head_decides_at_a_boundary_inside_a_turn(store: SessionStore) -> None:
    enqueue(store, "between turns")
    enqueue(store, "any time", delivery_policy="earliest_safe_boundary")
    fence = lease_of(store).fence
    inside = {"owner_id": "ann", "ttl_ms": 1_000, "boundary": "active_turn_checkpoint"}
    assert store.claim_work(fence, **inside) is None  # type: ignore[arg-type] # reason: as written
    claim_of(store)
    taken = store.claim_work(fence, **inside)  # type: ignore[arg-type] # reason: the same
    assert taken is not None
    assert names(taken.batches) == ["any time"]


def test_s_queue_4_the_rows_of_a_claim_share_it(
    store: SessionStore, path: Path, clock: ManualClock
) -> None:
    for n in "abc":
        enqueue(store, n, slot_policy="join")
    run_script(path, "UPDATE queued_work_batches SET claim_fencing_token = enqueue_seq * 10")
    claim = claim_of(store, max_batches=2)
    assert (claim.claim_id, claim.fencing_token) == ("qwc:1:11", 11)
    now = clock.now_ms()
    assert [row[9:] for row in all_rows(path)["queued_work_batches"]] == [
        ("qwc:1:11", "ann", claim.token, 11, now, now + 1_000),
        ("qwc:1:11", "ann", claim.token, 21, now, now + 1_000),
        (None, None, None, 30, 0, 0),
    ]
    assert claim.token not in repr(claim) + str(claim) + str(list(claim.__rich_repr__()))


def test_s_queue_4_a_drained_queue_repeats_ids_but_never_tokens(store: SessionStore) -> None:
    seen = set()
    for _ in range(3):
        enqueue(store)
        claim = claim_of(store)
        assert (claim.claim_id, claim.fencing_token) == ("qwc:1:1", 1)
        seen.add(claim.token)
        store.abandon_claim(claim)
        store.cancel_work(claim.batch_ids[0])
    assert len(seen) == 3


def test_s_queue_5_exactly_these_in_this_order_or_nothing(store: SessionStore, path: Path) -> None:
    a, b, c = (enqueue(store, n, slot_policy="join").batch_id for n in "abc")
    fence = lease_of(store).fence
    before = all_rows(path)
    for wrong in ([b], [b, a], [a, c], [a, b, c, "none"], [a, a], ["none"]):
        assert store.claim_work_batches(fence, wrong, owner_id="ann", ttl_ms=1) is None
        assert all_rows(path) == before
    claim = store.claim_work_batches(fence, [a, b], owner_id="ann", ttl_ms=1_000)
    assert claim is not None
    assert claim.batch_ids == (a, b)


def test_s_queue_6_a_claim_is_renewed_whole_or_not_at_all(
    store: SessionStore, path: Path, clock: ManualClock
) -> None:
    enqueue(store, "a", slot_policy="join")
    enqueue(store, "b", slot_policy="join")
    claim = claim_of(store, max_batches=2)
    clock.advance(5_000)  # lost by nobody taking it, not by time
    renewed = store.renew_claim(claim, ttl_ms=70)
    assert renewed.expires_at_ms == clock.now_ms() + 70
    assert {row[-1] for row in all_rows(path)["queued_work_batches"]} == {clock.now_ms() + 70}
    clock.advance(70)
    assert claim_of(store).batch_ids == claim.batch_ids[:1]
    before = all_rows(path)
    with store.begin() as tx, pytest.raises(ClaimLostError) as refusal:
        tx.renew_claim(claim, ttl_ms=70)
    assert refusal.value.found == claim.batch_ids[1:]
    assert all_rows(path) == before


def test_s_queue_7_abandoning_keeps_the_numbers_and_may_come_twice(
    store: SessionStore, path: Path
) -> None:
    enqueue(store)
    claim = claim_of(store)
    assert store.abandon_claim(claim) == 1
    before = all_rows(path)
    assert before["queued_work_batches"][0][9:] == (None, None, None, 1, 0, 0)
    assert store.abandon_claim(claim) == 0
    assert all_rows(path) == before
    assert claim_of(store).fencing_token == 2
    assert store.abandon_claim(claim) == 0


def test_s_queue_11_what_is_done_leaves_the_queue_without_a_turn(
    store: SessionStore, path: Path
) -> None:
    enqueue(store, "a", slot_policy="join")
    enqueue(store, "b", "c", slot_policy="join")
    rest = enqueue(store, "d")
    before = all_rows(path)
    claim, fence = claim_of(store, max_batches=3), lease_of(store).fence
    assert len(claim.batches) == 2
    assert store.complete_work(fence, claim) is None
    assert store.list_work() == [rest]
    after = all_rows(path)
    assert [row[0] for row in after["queued_work_items"]] == [rest.batch_id]
    queues = ("queued_work_batches", "queued_work_items", "session_execution_leases")
    for table in before.keys() - queues:
        assert after[table] == before[table]  # no head, no receipt


def test_s_queue_11_completing_is_refused_without_lease_or_claim(
    store: SessionStore, path: Path, clock: ManualClock
) -> None:
    for name in "ab":
        enqueue(store, name, slot_policy="join")
    claim, fence = claim_of(store, max_batches=2), lease_of(store).fence
    twice = msgspec.structs.replace(claim, batches=claim.batches * 2)
    part = msgspec.structs.replace(claim, batches=claim.batches[:1])
    forged = msgspec.structs.replace(claim, token="forged")
    elsewhere = msgspec.structs.replace(claim, session_id="other")
    stale = msgspec.structs.replace(fence, fencing_token=fence.fencing_token + 1)
    calls: tuple[Callable[[Any, Any, Any], Any], ...] = (
        lambda each, fence, claim: each.complete_work(fence, claim),
        lambda each, fence, claim: each.complete_and_claim_work(fence, claim, ttl_ms=1),
    )
    before = all_rows(path)
    for call in calls:
        for bad, found in ((twice, 2), (part, 2), (forged, 0), (elsewhere, 0)):
            for each in (store, None):
                with pytest.raises(ClaimLostError) as refused:
                    if each is not None:
                        call(store, fence, bad)
                    else:  # the transaction goes on, and has changed nothing
                        with store.begin() as tx:
                            call(tx, fence, bad)
                assert len(refused.value.found) == found
                assert all_rows(path) == before
        with store.begin() as tx, pytest.raises(ClaimLostError):
            call(tx, fence, part)
        for bad in (claim, forged):
            with pytest.raises(LeaseLostError, match="never_claimed"):
                call(store, stale, bad)
        with pytest.raises(InvalidRecordError, match="fence"):
            call(store, "fence", claim)
        with pytest.raises(InvalidRecordError, match="claim"):
            call(store, fence, "claim")
        assert all_rows(path) == before
    clock.advance(60_000)
    for call in calls:
        with pytest.raises(LeaseLostError, match="expired"):
            call(store, fence, claim)
    taken = lease_of(store, "bob")
    for call in calls:
        with pytest.raises(LeaseLostError, match="superseded"):
            call(store, fence, claim)
    assert names(store.list_work()) == ["a", "b"]
    # Its claim ran out, but nobody has taken it: who holds the lease may still end it.
    store.complete_work(taken.fence, claim)
    with pytest.raises(ClaimLostError, match=r"stands on \[\]"):
        store.complete_work(taken.fence, claim)


def test_s_queue_11_completing_and_claiming_the_next_is_one_transaction(
    store: SessionStore, path: Path, clock: ManualClock
) -> None:
    for name in "abc":
        enqueue(store, name)
    first, fence = claim_of(store), lease_of(store).fence
    second = store.complete_and_claim_work(fence, first, ttl_ms=5)
    assert second is not None
    assert names(second.batches) == ["b"]
    assert (second.owner_id, second.expires_at_ms) == (first.owner_id, clock.now_ms() + 5)
    assert second.token != first.token
    assert names(store.list_work()) == ["b", "c"]
    # What it takes is chosen as claim_work chooses.
    third = store.complete_and_claim_work(
        fence, second, ttl_ms=5, boundary="active_turn_checkpoint"
    )
    assert third is None
    assert names(store.list_work()) == ["c"]
    last = claim_of(store)
    assert store.complete_and_claim_work(fence, last, ttl_ms=5) is None
    assert store.list_work() == []
    # The next can't be read: what was done is not done either.
    enqueue(store, "d")
    held = claim_of(store)
    enqueue(store, "e")
    run_script(path, "UPDATE queued_work_items SET payload_json = '{' WHERE payload_json = '\"e\"'")
    before = all_rows(path)
    with pytest.raises(CorruptRecordError):
        store.complete_and_claim_work(fence, held, ttl_ms=5)
    with store.begin() as tx, pytest.raises(CorruptRecordError):
        tx.complete_and_claim_work(fence, held, ttl_ms=5)
    assert all_rows(path) == before


@pytest.mark.parametrize("change", ["slot_policy = X''", "merge_key_json = X''"])
def test_s_queue_3_who_has_lost_the_lease_is_told_that_before_what_cannot_be_read(
    store: SessionStore, path: Path, change: str
) -> None:
    enqueue(store)
    run_script(path, f"UPDATE queued_work_batches SET {change}")
    fence = lease_of(store).fence
    with pytest.raises(CorruptRecordError):
        store.claim_work(fence, owner_id="w", ttl_ms=1)
    store.release_lease(fence)
    before = all_rows(path)
    with pytest.raises(LeaseLostError):
        store.claim_work(fence, owner_id="w", ttl_ms=1)
    assert all_rows(path) == before


def test_s_queue_4_a_batch_without_items_can_be_claimed(store: SessionStore, path: Path) -> None:
    """Only a foreign program makes one, and it must not stand in the way for ever."""
    enqueue(store)
    run_script(path, "DELETE FROM queued_work_items")
    claim = claim_of(store)
    assert claim.batches[0].items == ()
    store.complete_work(lease_of(store).fence, claim)
    assert store.list_work() == []


def test_s_queue_8_only_what_nobody_works_on_is_cancelled(
    store: SessionStore, path: Path, clock: ManualClock
) -> None:
    free, claimed = enqueue(store, "free"), enqueue(store, "claimed")
    run_script(path, "UPDATE queued_work_batches SET available_at_ms = 9e15 WHERE enqueue_seq = 1")
    claim_of(store)
    before = all_rows(path)
    assert store.cancel_work(claimed.batch_id) is None
    assert store.cancel_work("none") is None
    assert all_rows(path) == before
    removed = store.cancel_work(free.batch_id)
    assert removed is not None
    assert names([removed]) == ["free"]
    clock.advance(1_000)
    assert store.cancel_work(claimed.batch_id) is not None
    rows = all_rows(path)
    assert rows["queued_work_batches"] == rows["queued_work_items"] == []


def test_s_queue_9_lists_depth_and_age(store: SessionStore, clock: ManualClock) -> None:
    assert store.work_depth().oldest_enqueued_at_ms is None
    started = clock.now_ms()
    for n in "abcd":
        enqueue(store, n, slot_policy="join")
        clock.advance(1)
    enqueue(store, "later", available_at_ms=clock.now_ms() + 9_000)
    store.enqueue_work(NewWork(["elsewhere"]), session_id="other")
    claim_of(store, max_batches=2)
    assert names(store.list_work()) == ["a", "b", "c", "d", "later"]
    assert names(store.list_pending_work()) == ["c", "d", "later"]
    assert names(store.list_pending_work(limit=1)) == ["c"]
    page = store.list_work(limit=2)
    assert names(store.list_work(after_seq=page[-1].enqueue_seq, limit=2)) == ["c", "d"]
    assert names(store.list_work(session_id="other")) == ["elsewhere"]
    depth = store.work_depth()
    assert msgspec.structs.astuple(depth) == (5, 2, 2, started)


def test_s_queue_9_items_come_by_one_query_more_however_many_batches(store: SessionStore) -> None:
    from tests.conformance.test_transactions import traced  # noqa: PLC0415 # reason: one helper

    store.list_work()  # opens the reading connection
    for count in (1, 50):
        for _ in range(count):
            enqueue(store, "x", "y", slot_policy="join")
        assert traced(store, store.list_work).count("SELECT") == 2
    fence = lease_of(store).fence
    statements_run = traced(
        store, lambda: store.claim_work(fence, owner_id="a", ttl_ms=1, max_batches=8)
    )
    assert statements_run.count("SELECT") == 2
    assert statements_run.count("UPDATE") == 8


@pytest.mark.sqlite("counts what SQLite runs")
def test_s_queue_11_a_job_takes_few_statements(store: SessionStore) -> None:
    from tests.conformance.test_transactions import traced  # noqa: PLC0415 # reason: one helper

    for _ in range(2):
        enqueue(store)
    fence = lease_of(store).fence
    taken: Any = []
    claim = traced(store, lambda: taken.append(store.claim_work(fence, owner_id="w", ttl_ms=TTL)))
    assert claim == ["BEGIN IMMEDIATE", "SELECT", "UPDATE", "SELECT", "COMMIT"]
    following = traced(
        store,
        lambda: taken.append(store.complete_and_claim_work(fence, taken[0], ttl_ms=TTL)),
    )
    delete = ["DELETE", "DELETE"]  # the second is SQLite's own: the items go with the batch
    assert following == ["BEGIN IMMEDIATE", *delete, "SELECT", "UPDATE", "SELECT", "COMMIT"]
    complete = traced(store, lambda: store.complete_work(fence, taken[1]))
    assert complete == ["BEGIN IMMEDIATE", *delete, "COMMIT"]


def test_a_consumer_composes_the_queue(store: SessionStore) -> None:
    batches = tables.queued_work_batches.c
    titles = Table("titles", MetaData(), Column("batch_id", Text), Column("title", Text))
    wanted = enqueue(store, "a")
    enqueue(store, "b")
    with store.begin() as tx:
        titles.create(tx.connection)
        tx.connection.execute(insert(titles).values(batch_id=wanted.batch_id, title="A"))
    with store.read() as tx:
        waiting = (
            statements.select_work(session_id="s")
            .where(
                batches.available_at_ms <= tx.now_ms, ~statements.has_live_claim(now_ms=tx.now_ms)
            )
            .join(titles, titles.c.batch_id == batches.batch_id)
            .with_only_columns(batches.batch_id, titles.c.title)
            .limit(20)
        )
        assert tx.connection.execute(waiting).all() == [(wanted.batch_id, "A")]


@pytest.mark.parametrize(
    "change", ["merge_key_json = '{'", "slot_policy = 'x'", "enqueued_at_ms = 'x'"]
)
def test_a_corrupt_batch_is_a_typed_error(store: SessionStore, path: Path, change: str) -> None:
    enqueue(store)
    run_script(path, f"UPDATE queued_work_batches SET {change}")
    with pytest.raises(CorruptRecordError, match="queued_work_batches"):
        store.list_work()
    run_script(path, "UPDATE queued_work_items SET payload_json = '{'")
    with pytest.raises(CorruptRecordError):
        store.list_work()


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        enqueue_seq=st.just(0),
        batch_id=st.just(""),
        session_id=st.just(""),
        source_key=st.none(),
        available_at_ms=st.just(0),
        enqueued_at_ms=st.just(0),
        delivery_policy=st.sampled_from(["earliest_safe_boundary", "after_current_turn_commit"]),
        slot_policy=st.sampled_from(["join", "join", "exclusive"]),
        merge_key_json=st.sampled_from(['"never"', '"never"', '{"group":"g"}']),
        claim_fencing_token=st.just(0),
    ),
    max_size=8,
)


@given(CANDIDATES, st.sampled_from(["idle", "active_turn_checkpoint"]), st.integers(0, 9))
def test_s_queue_3_the_prefix_rule(candidates: list[Candidate], boundary: Any, most: int) -> None:
    """Every promise of the rule by itself, and that no longer prefix would keep them."""
    taken = claimable_prefix(candidates, boundary=boundary, max_batches=most)
    assert list(taken) == candidates[: len(taken)]
    assert len(taken) <= most

    def allowed(prefix: list[Candidate]) -> bool:
        if len(prefix) > most:
            return False
        if (
            boundary == "active_turn_checkpoint"
            and prefix[0].delivery_policy != "earliest_safe_boundary"
        ):
            return False
        alike = {(c.slot_policy, c.delivery_policy, c.merge_key_json) for c in prefix}
        return len(prefix) == 1 or (len(alike) == 1 and prefix[0].slot_policy == "join")

    longest = max((n for n in range(1, len(candidates) + 1) if allowed(candidates[:n])), default=0)
    assert len(taken) == longest


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["s", "s", "s", "other"]),
        st.sampled_from([0, 500, 999, 1_000, 1_001, 5_000]),
        st.sampled_from([None, None, "qwc:1:1"]),
        st.sampled_from([None, None, "token"]),
        st.sampled_from([0, 999, 1_000, 1_001, 9_000]),
    ),
    max_size=25,
)


@given(ROWS, st.integers(1, 9))
def test_s_queue_10_the_merged_ranges_are_the_plain_query(
    rows: list[tuple[Any, ...]], most: int
) -> None:
    """Half-set rows of a foreign program included."""
    batches = tables.queued_work_batches.c
    with SessionStore.open(None, session_id="s") as store, store.begin() as tx:
        for at, (session_id, available, claim_id, token, expires) in enumerate(rows):
            tx.connection.execute(
                insert(tables.queued_work_batches).values(
                    batch_id=str(at),
                    session_id=session_id,
                    delivery_policy="p",
                    slot_policy="s",
                    merge_key_json="1",
                    available_at_ms=available,
                    enqueued_at_ms=0,
                    claim_id=claim_id,
                    claim_token=token,
                    claim_expires_at_ms=expires,
                )
            )
        plain = (
            select(batches.batch_id)
            .where(
                batches.session_id == "s",
                batches.available_at_ms <= 1_000,
                ~((batches.claim_token.is_not(None)) & (batches.claim_expires_at_ms > 1_000)),
            )
            .order_by(batches.enqueue_seq)
            .limit(most)
        )
        claimable = statements.claimable_work(session_id="s", now_ms=1_000, max_batches=most)
        found = [row.batch_id for row in tx.connection.execute(claimable)]
        assert found == list(tx.connection.scalars(plain))


@pytest.mark.canonical("compiles and explains the canonical statements")
def test_s_queue_9_one_batch_or_page_does_not_read_the_queue(store: SessionStore) -> None:
    """By primary key and by batch id, whatever other index fits the session."""
    for name, key in (
        ("list_work", "rowid>?"),
        ("list_pending_work", "rowid>?"),
        ("load_items", "rowid>?"),
    ):
        builder = getattr(statements, name)
        values = {
            "session_id": "s",
            "now_ms": 1,
            "after_seq": 1,
            "limit": 1,
            "first_seq": 1,
            "last_seq": 2,
        }
        wanted = {each: values[each] for each in inspect.signature(builder).parameters}
        compiled = builder(**wanted).compile(dialect=SQLITE, compile_kwargs={"literal_binds": True})
        with store.begin() as tx:
            plan = tx.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}").all()
        lines = [row[-1] for row in plan]
        assert any(
            f"queued_work_batches USING INTEGER PRIMARY KEY ({key}" in each for each in lines
        )
        assert not any(each[4:] == "TEMP B-TREE FOR ORDER BY" for each in lines), lines


def test_k_compose_1_a_condition_that_multiplies_rows_takes_as_many_batches(
    store: SessionStore,
) -> None:
    """Three rows of a table that it joins belong to each batch."""
    for n in range(6):
        enqueue(store, n, slot_policy="join")
    one = select(literal(1).label("n"))
    numbers = one.union_all(one, one).subquery()
    claim = store.claim_work(
        lease_of(store).fence,
        owner_id="w",
        ttl_ms=TTL,
        max_batches=4,
        where=numbers.c.n <= tables.queued_work_batches.c.enqueue_seq,
    )
    assert claim is not None
    assert [batch.items[0].payload for batch in claim.batches] == [0, 1, 2, 3]


@pytest.mark.sqlite("a plan of SQLite's")
def test_k_compose_1_a_condition_is_asked_in_the_order_of_the_queue(store: SessionStore) -> None:
    """Nothing is sorted, in either layout: it would be all that is ready, for each claim."""
    for n in range(20):
        enqueue(store, n)
    fence, asked = lease_of(store).fence, list[tuple[str, Any]]()

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        asked.append((statement, parameters))

    with store.begin() as tx:
        connection = tx.connection
        event.listen(connection.engine, "before_cursor_execute", note)
        claim = tx.claim_work(
            fence, owner_id="w", ttl_ms=TTL, where=tables.queued_work_batches.c.enqueue_seq > 3
        )
        event.remove(connection.engine, "before_cursor_execute", note)
        assert claim is not None
        statement, values = asked[0]
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
    assert claim.batches[0].enqueue_seq == 4
    assert not [row[-1] for row in plan if "TEMP B-TREE" in row[-1]]


@pytest.mark.sqlite("a plan of SQLite's")
@pytest.mark.parametrize("name", ["batch_id", "source_key"])
def test_k_compose_1_a_condition_that_names_a_batch_is_asked_by_that(
    store: SessionStore, name: str
) -> None:
    """Or the whole queue would be gone through, in its order, for one that is far behind."""
    for n in range(20):
        batch = enqueue(store, n, source_key=f"order-{n}")
    fence, asked = lease_of(store).fence, list[tuple[str, Any]]()

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        asked.append((statement, parameters))

    column = tables.queued_work_batches.c[name]
    with store.begin() as tx:
        connection = tx.connection
        event.listen(connection.engine, "before_cursor_execute", note)
        claim = tx.claim_work(fence, owner_id="w", ttl_ms=TTL, where=column == getattr(batch, name))
        event.remove(connection.engine, "before_cursor_execute", note)
        assert claim is not None
        statement, values = asked[0]
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
    assert claim.batches[0].batch_id == batch.batch_id
    (line,) = [row[-1] for row in plan if "queued_work_batches" in row[-1]]
    assert f"{name}=?" in line


def test_s_queue_2_enqueueing_reads_nothing_back(store: SessionStore) -> None:
    from tests.conformance.test_transactions import traced  # noqa: PLC0415 # reason: one helper

    run = traced(store, lambda: enqueue(store, "a", "b"))
    assert run == [BEGIN_WRITE, "INSERT", "INSERT", "INSERT", COMMIT]


def test_k_tx_2_a_claim_that_can_not_be_read_is_not_taken(store: SessionStore, path: Path) -> None:
    enqueue(store)
    fence = lease_of(store).fence
    run_script(path, "UPDATE queued_work_items SET payload_json = '{'")
    before = all_rows(path)
    with store.begin() as tx, pytest.raises(CorruptRecordError):
        tx.claim_work(fence, owner_id="ann", ttl_ms=1_000)
    assert all_rows(path) == before


@pytest.mark.canonical("compiles and explains the canonical statements")
@pytest.mark.parametrize("claimed", [0, 1, 40])
@pytest.mark.parametrize("analysed", [False, True])
def test_s_queue_10_the_plan_reads_the_claim_index_in_order(
    store: SessionStore, path: Path, claimed: int, analysed: bool
) -> None:
    """With statistics too, whatever they say about how many batches are claimed."""
    for n in range(50):
        enqueue(store, n)
    run_script(
        path,
        f"UPDATE queued_work_batches SET claim_id = 'c' || enqueue_seq,"
        f" claim_token = 't' || enqueue_seq WHERE enqueue_seq <= {claimed};"
        + ("ANALYZE;" if analysed else ""),
    )
    claimable = statements.claimable_work(session_id="s", now_ms=1, max_batches=8)
    compiled = claimable.compile(dialect=SQLITE, compile_kwargs={"literal_binds": True})
    with SessionStore.open(path, session_id="s") as fresh, fresh.read() as tx:
        rows = tx.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}").all()
    plan = [row[-1] for row in rows]
    index = (
        "SEARCH queued_work_batches USING INDEX idx_queued_work_claim (session_id=? AND claim_id"
    )
    *searches, by_number = [line for line in plan if "queued_work_batches" in line]
    assert "queued_work_batches USING INTEGER PRIMARY KEY (rowid=?)" in by_number
    assert [line[len(index) :] for line in searches] == [
        "=? AND claim_token=?)",
        ">?)",
        "=? AND claim_token>?)",
    ]
    # The first range stands in enqueue order already: nothing is sorted before its LIMIT.
    assert "TEMP B-TREE" not in plan[plan.index(searches[0]) + 1], plan


def test_s_queue_8_what_can_not_be_read_can_be_discarded(
    store: SessionStore, path: Path, clock: ManualClock
) -> None:
    broken, claimed = enqueue(store, "broken"), enqueue(store, "claimed")
    run_script(path, "UPDATE queued_work_batches SET available_at_ms = 9e15 WHERE enqueue_seq = 1")
    claim_of(store)
    run_script(path, "UPDATE queued_work_items SET payload_json = '{' WHERE item_id LIKE '%'")
    before = all_rows(path)
    with pytest.raises(CorruptRecordError):
        store.cancel_work(broken.batch_id)
    assert not store.discard_work(claimed.batch_id)  # somebody works on it
    assert not store.discard_work("none")
    assert all_rows(path) == before
    assert store.discard_work(broken.batch_id)
    assert [row[1] for row in all_rows(path)["queued_work_batches"]] == [claimed.batch_id]
    clock.advance(1_000)
    assert store.discard_work(claimed.batch_id)
    with pytest.raises(InvalidRecordError):
        store.discard_work("")


def test_s_queue_3_hundreds_of_batches_are_claimed_at_once(store: SessionStore) -> None:
    store.enqueue_all_work(
        [NewWork([n], slot_policy="join", merge_key={"group": "g"}) for n in range(300)]
    )
    claim: Any = store.claim_work(lease_of(store).fence, owner_id="w", ttl_ms=TTL, max_batches=300)
    assert len(claim.batches) == 300


def test_s_queue_11_a_claim_that_was_sent_and_read_again_is_the_same(store: SessionStore) -> None:
    fence = lease_of(store).fence
    enqueue(store, "x")
    claim: Any = store.claim_work(fence, owner_id="w", ttl_ms=TTL)
    store.complete_work(fence, msgspec.json.decode(msgspec.json.encode(claim), type=type(claim)))
    assert store.list_work() == []


@pytest.mark.parametrize(("mine", "theirs"), [("a", "b"), ("b", "a")])
def test_s_queue_11_a_claim_of_another_session_is_refused_whatever_its_lease(
    path: Path, mine: str, theirs: str
) -> None:
    """Also where both leases happen to have the same owner, token and number."""
    opened = [
        SessionStore.open(path, session_id=name, ids=SequentialIds("same"), clock=ManualClock(0))
        for name in (mine, theirs)
    ]
    own, other = opened
    fence, same = (lease_of(store).fence for store in opened)
    assert (fence.owner_id, fence.token, fence.fencing_token) == (
        same.owner_id, same.token, same.fencing_token
    )  # fmt: skip
    enqueue(other, "x")
    claim: Any = other.claim_work(same, owner_id="w", ttl_ms=TTL)
    before = all_rows(path)
    for complete in (own.complete_work, partial(own.complete_and_claim_work, ttl_ms=TTL)):
        with pytest.raises(ClaimLostError, match="another session") as lost:
            complete(fence, claim)
        assert lost.value.reason == "of another session"
    assert all_rows(path) == before
    for store in opened:
        store.close()


def test_s_queue_9_what_somebody_works_on_is_not_even_read_for_what_is_pending(
    store: SessionStore, path: Path
) -> None:
    for payload in ("first", "claimed", "last"):
        enqueue(store, payload, source_key=payload)
    run_script(
        path,
        "UPDATE queued_work_batches SET claim_id = 'c', claim_owner_id = 'w', claim_token = 't', "
        "claim_expires_at_ms = 9000000000000000000 WHERE source_key = 'claimed';"
        "UPDATE queued_work_items SET payload_json = '{' WHERE payload_json = '\"claimed\"'",
    )
    assert names(store.list_pending_work()) == ["first", "last"]
