"""An operation of the session store takes two steps: its arguments first, then its transaction.

What is refused for its arguments waits for nobody; what is accepted belongs to the operation, so
that its work gives the same result whenever, wherever and however often it runs.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pytest

from lash_store import SessionStore
from lash_store.errors import InvalidRecordError, StoreBusyError
from lash_store.session.context import SessionContext, Work
from lash_store.session.operations import attachments, blobs, claims, graph, meta, queue, turns
from lash_store.session.records import (
    Append,
    Checkpoint,
    NewWork,
    Node,
    Relation,
    SessionFence,
    SessionMeta,
    TurnCommit,
    TurnStamp,
    UsageDelta,
)
from lash_store.testing import ManualClock, SequentialIds
from tests.support.databases import all_rows
from tests.support.sessions import claim_of, commit, enqueue, lease_of, node

FENCE = SessionFence("s", "ann", "token", 1)
META = SessionMeta("s", "a name", "unix:1", "m")
BAD: Any = object()

replace = msgspec.structs.replace


@pytest.fixture
def context(store: SessionStore) -> SessionContext:
    context = store._context
    assert isinstance(context, SessionContext)
    return context


@pytest.fixture
def locked(path: Path) -> Iterator[SessionStore]:
    """A store whose file another connection is writing to."""
    with (
        SessionStore.open(path, session_id="s", busy_timeout_ms=10_000) as store,
        closing(sqlite3.connect(path)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        yield store


def turn(**parts: Any) -> TurnCommit:
    return TurnCommit(fence=FENCE, **parts)


REFUSED: dict[str, Callable[[SessionStore], object]] = {
    "claim_lease": lambda s: s.claim_lease(owner_id="", ttl_ms=1),
    "claim_lease of no session": lambda s: s.claim_lease(owner_id="o", ttl_ms=1, session_id=""),
    "renew_lease": lambda s: s.renew_lease(FENCE, ttl_ms=-1),
    "release_lease": lambda s: s.release_lease(BAD),
    "tombstone_nodes": lambda s: s.tombstone_nodes([""]),
    "put_blob": lambda s: s.put_blob("text"),  # type: ignore[arg-type] # reason: what is refused
    "put_blob of no kind": lambda s: s.put_blob(b"", kind=BAD),
    "enqueue_work": lambda s: s.enqueue_work(NewWork([BAD])),
    "enqueue_all_work": lambda s: s.enqueue_all_work([NewWork([1]), NewWork([])]),
    "claim_work": lambda s: s.claim_work(FENCE, owner_id="o", ttl_ms=-1),
    "claim_work for no lease": lambda s: s.claim_work(BAD, owner_id="o", ttl_ms=1),
    "claim_work_batches": lambda s: s.claim_work_batches(FENCE, "text", owner_id="o", ttl_ms=1),
    "renew_claim": lambda s: s.renew_claim(BAD, ttl_ms=1),
    "complete_work": lambda s: s.complete_work(FENCE, BAD),
    "complete_and_claim_work": lambda s: s.complete_and_claim_work(FENCE, BAD, ttl_ms=1),
    "abandon_claim": lambda s: s.abandon_claim(BAD),
    "cancel_work": lambda s: s.cancel_work(""),
    "commit_turn": lambda s: s.commit_turn(BAD),
    "a turn's config": lambda s: s.commit_turn(turn(config=float("nan"))),
    "a turn's node": lambda s: s.commit_turn(turn(graph=Append([node("n", x=BAD)], None))),
    "a turn's checkpoint": lambda s: s.commit_turn(turn(checkpoint=Checkpoint(BAD))),
    "a turn's usage": lambda s: s.commit_turn(turn(usage=[UsageDelta("\0", "m")])),
    "a turn's claim": lambda s: s.commit_turn(turn(completed=[BAD])),
    "record_usage": lambda s: s.record_usage(UsageDelta("a", "m", -1)),
    "save_meta": lambda s: s.save_meta(replace(META, model="\0")),
    "record_attachment_intent": lambda s: s.record_attachment_intent("a", canonical_uri=""),
    "commit_attachments": lambda s: s.commit_attachments(["a", ""]),
    "forget_attachment": lambda s: s.forget_attachment(""),
    "sweep_attachment": lambda s: s.sweep_attachment("a", older_than_ms=-1),
    "put_artifact": lambda s: s.put_artifact("a", kind="", content=b""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_argument_is_refused_without_waiting_for_a_lock(
    locked: SessionStore, name: str
) -> None:
    start = monotonic()
    with pytest.raises(InvalidRecordError):
        REFUSED[name](locked)
    assert monotonic() - start < 5


def test_a_good_argument_waits(path: Path) -> None:
    """Or the test above would show nothing."""
    with (
        SessionStore.open(path, session_id="s", busy_timeout_ms=50) as store,
        closing(sqlite3.connect(path)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError):
            store.forget_attachment("a")


class Mutable:
    """Arguments of every kind that can change, and the operations that are given them."""

    def __init__(self) -> None:
        self.inner: dict[str, Any] = {"list": [1]}
        self.items: list[Any] = [self.inner]
        self.names = ["a", "b"]
        self.cause: dict[str, Any] = {"type": "process", "process_id": "p"}
        self.nodes = [
            Node("a", None, {"payload": self.inner}, caused_by=self.cause),
            Node("b", "a", self.inner, timestamp="then"),
        ]
        self.usage = [UsageDelta("a", "m")]

    def change(self) -> None:
        self.inner["x"] = 2
        self.inner["list"].append(2)
        self.items.append({"more": 1})
        self.names.append("c")
        self.cause["process_id"] = "q"
        self.nodes.clear()
        self.usage.clear()


def commit_everything(context: SessionContext, m: Mutable) -> Work[Any]:
    turn = TurnCommit(
        fence=FENCE,
        stamp=TurnStamp("t", "h"),
        config=m.inner,
        agent_frames=m.items,
        graph=Append(m.nodes, "b"),
        checkpoint=Checkpoint(m.inner, tool_state=m.inner, plugin_snapshot=m.items),
        usage=m.usage,
        attachment_ids=m.names,
    )
    return turns.commit_turn(context, turn)


MUTABLE: dict[str, Callable[[SessionContext, Mutable], Work[Any]]] = {
    "enqueue_work": lambda c, m: queue.enqueue_work(c, NewWork(m.items)),
    "enqueue_all_work": lambda c, m: queue.enqueue_all_work(c, [NewWork(m.items)] * 2),
    "commit_turn": commit_everything,
    "put_checkpoint": lambda c, m: blobs.put_checkpoint(c, Checkpoint(m.inner, m.items)),
    "save_meta": lambda c, m: meta.save_meta(
        c, replace(META, relation=Relation(extra={"more": m.inner}))
    ),
    "create_meta": lambda c, m: meta.create_meta(
        c, replace(META, relation=Relation(extra=m.inner))
    ),
    "commit_attachments": lambda c, m: attachments.commit_attachments(c, m.names),
    "tombstone_nodes": lambda c, m: graph.tombstone_nodes(c, m.names),
}


def prepared(path: Path) -> SessionStore:
    """A store with something that the operations act on; always the same."""
    store = SessionStore.open(path, session_id="s", clock=ManualClock(), ids=SequentialIds())
    with store.begin() as tx:
        tx.claim_lease(owner_id="ann", ttl_ms=60_000)
        for name in ("a", "b", "c"):
            tx.record_attachment_intent(name, canonical_uri="u")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE session_execution_leases SET lease_token = 'token'")
        connection.commit()
    return store


@pytest.mark.parametrize("name", MUTABLE)
def test_what_the_caller_changes_later_is_not_what_is_written(tmp_path: Path, name: str) -> None:
    def written(file: str, *, change: bool) -> dict[str, Any]:
        with prepared(tmp_path / file) as store:
            arguments = Mutable()
            context: Any = store._context
            work = MUTABLE[name](context, arguments)
            if change:
                arguments.change()
            with store.begin() as tx:
                work(tx)
        return all_rows(tmp_path / file)

    assert written("changed", change=True) == written("kept", change=False)


@pytest.mark.parametrize("name", MUTABLE)
def test_work_runs_again_and_elsewhere_with_the_same_result(tmp_path: Path, name: str) -> None:
    """Rolled back and run again, as after a transaction that failed for another's sake."""
    stores = [prepared(tmp_path / file) for file in ("one", "two")]
    context: Any = stores[0]._context
    work = MUTABLE[name](context, Mutable())
    results: list[Any] = []

    def run(store: SessionStore) -> None:
        with store.begin() as tx:
            results.append(work(tx))

    for store in stores:
        with pytest.raises(ZeroDivisionError), store.begin() as tx:
            spoil(work(tx))
            raise ZeroDivisionError
        thread = threading.Thread(target=run, args=[store])
        thread.start()
        thread.join()
        store.close()
    assert results[0] == results[1]
    assert "spoilt" not in repr(results)
    assert all_rows(tmp_path / "one") == all_rows(tmp_path / "two")


def spoil(result: Any) -> None:
    """Change all that can be changed of a result: whoever has it may."""
    if isinstance(result, dict):
        for value in result.values():
            spoil(value)
        result["spoilt"] = True
    elif isinstance(result, (list, tuple)):
        for value in result:
            spoil(value)
        if isinstance(result, list):
            result.append("spoilt")
    elif isinstance(result, msgspec.Struct):
        for name in result.__struct_fields__:
            spoil(getattr(result, name))


def test_iterables_are_exhausted_before_the_transaction(
    store: SessionStore, context: SessionContext
) -> None:
    commit(store, Append([node("a"), node("b", "a")], "b"))
    store.record_attachment_intent("a", canonical_uri="u")
    drawn: list[str] = []

    def each(*values: Any) -> Iterator[Any]:
        for value in values:
            drawn.append(str(value))
            yield value

    works: list[Work[Any]] = [
        queue.enqueue_all_work(context, each(NewWork(["x"]), NewWork(["y"]))),
        attachments.commit_attachments(context, each("a", "b")),
        graph.tombstone_nodes(context, each("a", "b")),
    ]
    assert len(drawn) == 6
    found = []
    for work in works:
        with store.begin() as tx:
            found.append(work(tx))
    assert [len(found[0]), *found[1:]] == [2, 1, 2]
    assert len(drawn) == 6
    with store.begin() as tx:  # and nothing is left over for a second run to miss
        assert len(works[0](tx)) == 2
        assert works[2](tx) == 0
    assert store.work_depth().batches == 4


def test_a_claim_of_a_list_of_batches_is_copied(
    store: SessionStore, context: SessionContext
) -> None:
    enqueue(store)
    claim = claim_of(store)
    batches: Any = list(claim.batches)
    held = replace(claim, batches=batches)
    works = (
        claims.require_claim(context, held),
        claims.renew_claim(context, held, ttl_ms=1),
        turns.commit_turn(context, TurnCommit(fence=lease_of(store).fence, completed=[held])),
    )
    ids: Any = list(claim.batch_ids)
    taking = claims.claim_work_batches(
        context, lease_of(store).fence, ids, owner_id="bob", ttl_ms=1_000
    )
    batches.clear()
    ids.clear()
    for work in works[:2]:
        with store.begin() as tx:
            work(tx)
    store.abandon_claim(claim)
    with store.begin() as tx:
        taken = taking(tx)
    assert taken is not None
    assert taken.batch_ids == claim.batch_ids


def test_the_time_and_the_tokens_are_the_transactions(
    store: SessionStore, context: SessionContext, clock: ManualClock
) -> None:
    enqueuing = queue.enqueue_work(context, NewWork(["x"]))
    announcing = attachments.record_attachment_intent(context, "a", canonical_uri="u")
    fence = lease_of(store).fence
    committing = turns.commit_turn(context, TurnCommit(fence=fence, graph=Append([node("n")], "n")))
    clock.advance(5_000)
    with store.begin() as tx:
        first, second = enqueuing(tx), enqueuing(tx)
        announcing(tx)
        committing(tx)
    assert first.enqueued_at_ms == clock.now_ms()  # type: ignore[union-attr] # reason: it is new
    assert first.batch_id != second.batch_id  # type: ignore[union-attr] # reason: so is this
    (announced,) = store.list_uncommitted_attachments(older_than_ms=clock.now_ms())
    assert announced.intent_at_ms == clock.now_ms()
    stored = store.load_node("n")
    assert stored is not None
    assert stored.timestamp == graph.rfc_3339(clock.now_ms())
