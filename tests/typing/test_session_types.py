"""The types of the session store's builders and operations, as both type checkers see them."""

from __future__ import annotations

from typing import assert_type

import pytest
from sqlalchemy import CTE, ColumnElement, Delete, Insert, Select, Update
from sqlalchemy.sql.dml import ReturningInsert

from lash_store import (
    AlreadyQueued,
    Append,
    Checkpoint,
    NewWork,
    Node,
    SessionDirectory,
    SessionFence,
    SessionHead,
    SessionLease,
    SessionStore,
    TurnCommit,
    TurnReceipt,
    UsageDelta,
    WorkBatch,
    WorkClaim,
    turn_commit_hash,
)
from lash_store.errors import LeaseHeldError
from lash_store.leases import Held, LeaseHeld
from lash_store.session import statements as s
from lash_store.session.records import (
    Attachment,
    CollectionReport,
    Graph,
    SessionMeta,
    SessionSummary,
    WorkDepth,
)


def test_builders_of_the_graph_and_the_head() -> None:
    assert_type(s.load_head(), Select[str, str, int])
    assert_type(s.save_head(session_id="s", head_json="{}", head_revision=1), Insert)
    assert_type(s.select_nodes(), Select[int, str, str])
    assert_type(s.load_graph(), Select[int, str, str])
    assert_type(s.load_node(node_id="n"), Select[int, str, str])
    assert_type(s.ancestry(leaf_node_id="n"), CTE)
    assert_type(s.load_path(leaf_node_id="n"), Select[str, str])
    assert_type(s.count_nodes(), Select[int])
    assert_type(s.newest_nodes(count=1), Select[str])
    assert_type(s.insert_node(node_id="n", node_json="{}"), Insert)
    assert_type(s.tombstone_node(node_id="n"), Update)
    assert_type(s.vacuum_nodes(), Delete)
    assert_type(s.delete_nodes(), Delete)


def test_builders_of_blobs_turns_and_attachments() -> None:
    assert_type(s.select_blobs(), Select[str, int])
    assert_type(s.load_blob(key="k"), Select[bytes])
    assert_type(s.find_blob(key="k"), Select[str])
    assert_type(s.put_blob(key="k", content=b""), Insert)
    assert_type(s.delete_blob(key="k"), Delete)
    assert_type(s.select_receipts(), Select[str, str, str, str, int])
    assert_type(s.select_usage(), Select[int, str, str, int, int, int, int])
    assert_type(s.load_usage(), Select[str, str, int, int, int, int])
    assert_type(s.select_attachments(), Select[str, str, str, int, int | None])
    assert_type(s.select_artifacts(), Select[str, str])
    assert_type(s.load_meta(), Select[str, str, str, str, str | None, str | None])
    assert_type(s.select_user_messages(), Select[int, str])


def test_builders_of_the_queue() -> None:
    assert_type(
        s.list_work(session_id="s", after_seq=0, limit=1),
        Select[int, str, str, str | None, str, str, str, int, int],
    )
    assert_type(s.select_items(session_id="s"), Select[str, int, str, str])
    for selected in (s.select_work(session_id="s"), s.select_all_work()):
        assert_type(
            selected,
            Select[
                int,
                str,
                str,
                str | None,
                str,
                str,
                str,
                int,
                int,
                str | None,
                str | None,
                int,
                int,
                int,
            ],
        )
    assert_type(
        s.claimable_work(session_id="s", now_ms=1, max_batches=1),
        Select[int, str, str, str | None, str, str, str, int, int, int],
    )
    assert_type(
        s.work_depth(session_id="s", now_ms=1),
        Select[int, int, int, int | None],
    )
    assert_type(
        s.load_items(session_id="s", first_seq=1, last_seq=2),
        Select[str, str, str],
    )
    assert_type(s.has_live_claim(now_ms=1), ColumnElement[bool])
    assert_type(
        s.enqueue_work(
            session_id="s",
            batch_id="b",
            source_key=None,
            delivery_policy="p",
            slot_policy="p",
            merge_key_json="1",
            available_at_ms=0,
            enqueued_at_ms=0,
        ),
        ReturningInsert[int],
    )
    assert_type(s.cancel_work(batch_id="b", now_ms=1), Delete)
    assert_type(s.abandon_claim(session_id="s", claim_id="c", token="t"), Update)


def test_operations() -> None:
    with SessionStore.open(None, session_id="s", profile="compact", collect_every=5) as store:
        lease = store.claim_lease(owner_id="a", ttl_ms=60_000)
        assert isinstance(lease, SessionLease)
        turn = TurnCommit(
            fence=lease.fence,
            graph=Append([Node("n", None)], "n"),
            checkpoint=Checkpoint(turn_state=1),
        )
        assert_type(turn_commit_hash(turn), str)
        assert_type(turn.stamped("t"), TurnCommit)
        receipt = store.commit_turn(turn)
        assert_type(receipt, TurnReceipt)
        assert_type(store.load_checkpoint(receipt.checkpoint_ref or ""), Checkpoint)
        assert_type(store.load_receipt("t"), TurnReceipt | None)
        assert_type(store.load_head(), SessionHead | None)
        assert_type(store.load_graph(), Graph | None)
        assert_type(store.load_path(), Graph | None)
        assert_type(store.load_node("n"), Node | None)
        assert_type(store.put_blob(b"", kind="ToolState"), str)
        assert_type(store.load_blob("k"), bytes | None)
        assert_type(store.collect_blobs(dry_run=True), CollectionReport)
        assert_type(store.load_usage(), list[UsageDelta])
        assert_type(store.enqueue_work(NewWork(["x"])), WorkBatch | AlreadyQueued)
        meta: dict[str, str] = {"a": "b"}
        tags: list[str] = ["x"]
        NewWork([meta, {"t": tags}, ("a", 1)])  # JSON of one kind of values is JSON
        Checkpoint(turn_state=meta)
        NewWork([object()])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
        claim = store.claim_work(lease.fence, owner_id="a", ttl_ms=1, max_batches=2)
        assert_type(claim, WorkClaim | None)
        assert_type(store.work_depth(), WorkDepth)
        with store.hold(owner_id="a", ttl_ms=1_000) as held:
            assert_type(held, Held[SessionLease])
            assert_type(held.fence, SessionFence)
            with pytest.raises(LeaseHeldError) as refusal, store.hold(owner_id="b", ttl_ms=1):
                pass
            assert_type(refusal.value.held, LeaseHeld)
            with store.hold_work(held.fence, owner_id="a", ttl_ms=1_000) as work:
                assert_type(work, Held[WorkClaim] | None)
                if work is not None:
                    assert_type(work.fence, WorkClaim)
        assert_type(store.list_work(limit=1), list[WorkBatch])
        assert_type(store.list_uncommitted_attachments(older_than_ms=1), list[Attachment])
        assert_type(store.load_meta(), SessionMeta | None)
        assert_type(store.load_summary(), SessionSummary | None)


def never(directory: SessionDirectory, store: SessionStore, fence: SessionFence) -> None:
    """Misuse that both checkers must refuse; it never runs."""
    assert_type(directory.open("s"), SessionStore | None)
    assert_type(directory.create("s", model="m"), SessionStore)
    store.commit_turn(fence)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    TurnCommit(graph=Append([], None))  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    store.claim_work(fence, owner_id="a", ttl_ms=1, boundary="now")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    store.put_blob(b"", kind="Other")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
