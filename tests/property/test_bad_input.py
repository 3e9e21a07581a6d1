"""Whatever stands in a field: it is stored, or refused by an error of ours that changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from lash_store import (
    Append,
    Checkpoint,
    NewWork,
    Node,
    SessionStore,
    TurnCommit,
    TurnStamp,
    UsageDelta,
    turn_commit_hash,
)
from lash_store.session.records import Relation, SessionMeta
from tests.support.bad_input import WRONG, attempt, fields, replaced
from tests.support.sessions import claim_of, commit, enqueue, lease_of, node


@given(name=fields(TurnCommit), value=WRONG)
def test_a_turn_commit(store: SessionStore, path: Path, name: str, value: object) -> None:
    turn = replaced(TurnCommit(fence=lease_of(store).fence, graph=Append([], None)), name, value)
    attempt(path, lambda: store.commit_turn(turn))
    attempt(path, lambda: turn_commit_hash(turn))


@given(
    record=st.sampled_from([TurnStamp("t", "h"), Checkpoint(turn_state=1), UsageDelta("a", "m")]),
    data=st.data(),
    value=WRONG,
)
def test_what_a_turn_commit_holds(
    store: SessionStore, path: Path, record: Any, data: st.DataObject, value: object
) -> None:
    changed = replaced(record, data.draw(fields(type(record))), value)
    part: dict[str, Any] = {
        "TurnStamp": {"stamp": changed},
        "Checkpoint": {"checkpoint": changed},
        "UsageDelta": {"usage": [changed]},
    }[type(record).__name__]
    fence = lease_of(store).fence
    attempt(path, lambda: store.commit_turn(TurnCommit(fence=fence, **part)))


@given(name=fields(Node), value=WRONG)
def test_a_node(store: SessionStore, path: Path, name: str, value: object) -> None:
    store.vacuum_graph()
    bad = replaced(node("n"), name, value)
    fence = lease_of(store).fence
    attempt(path, lambda: store.commit_turn(TurnCommit(fence=fence, graph=Append([bad], None))))
    graph = store.load_graph()
    if graph is not None:
        store.tombstone_nodes([each.node_id for each in graph.nodes])


@given(name=fields(NewWork), value=WRONG)
@example(name="payloads", value="text")
def test_new_work(store: SessionStore, path: Path, name: str, value: object) -> None:
    work = replaced(NewWork(["payload"]), name, value)
    attempt(path, lambda: store.enqueue_work(work))
    assert isinstance(store.list_work(), list)  # and what was stored can be read


@given(value=WRONG, data=st.data())
def test_a_claim(store: SessionStore, path: Path, value: object, data: st.DataObject) -> None:
    if store.work_depth().ready == 0:
        enqueue(store)
    claim = claim_of(store)
    bad = replaced(claim, data.draw(fields(type(claim))), value)
    for call in (
        lambda: store.renew_claim(bad, ttl_ms=1),
        lambda: store.abandon_claim(bad),
        lambda: store.complete_work(lease_of(store).fence, bad),
        lambda: store.complete_and_claim_work(lease_of(store).fence, bad, ttl_ms=1),
        lambda: commit(store, completed=[bad]),
    ):
        attempt(path, call)
    store.abandon_claim(claim)


@given(value=WRONG, name=fields(SessionMeta) | fields(Relation))
def test_meta(store: SessionStore, path: Path, value: object, name: str) -> None:
    meta = SessionMeta("s", "n", "unix:1", "m")
    if name in SessionMeta.__struct_fields__:
        bad = replaced(meta, name, value)
    else:
        bad = replaced(meta, "relation", replaced(Relation(), name, value))
    attempt(path, lambda: store.save_meta(bad))
    store.load_meta()


@pytest.mark.parametrize(
    "name",
    [
        "tombstone_nodes",
        "load_node",
        "load_path",
        "load_blob",
        "load_checkpoint",
        "put_blob",
        "load_receipt",
        "record_usage",
        "cancel_work",
        "enqueue_all_work",
        "commit_attachments",
        "forget_attachment",
        "load_artifact",
        "commit_turn",
        "save_meta",
    ],
)
@given(value=WRONG)
def test_the_argument_of(store: SessionStore, path: Path, name: str, value: object) -> None:
    commit(store)
    attempt(path, lambda: getattr(store, name)(value))


@given(a=WRONG, b=WRONG, c=WRONG)
def test_the_arguments_of_operations_with_several(
    store: SessionStore, path: Path, a: Any, b: Any, c: Any
) -> None:
    commit(store)
    fence = lease_of(store).fence
    for call in (
        lambda: store.claim_work(fence, owner_id=a, ttl_ms=b, max_batches=c),
        lambda: store.claim_work(a, owner_id="o", ttl_ms=1, boundary=b),
        lambda: store.claim_work_batches(fence, a, owner_id=b, ttl_ms=c),
        lambda: store.list_work(after_seq=a, limit=b, session_id=c),
        lambda: store.list_pending_work(after_seq=a, limit=b),
        lambda: store.work_depth(session_id=a),
        lambda: store.record_attachment_intent(a, canonical_uri=b, intent_at_ms=c),
        lambda: store.list_uncommitted_attachments(older_than_ms=a),
        lambda: store.put_artifact(a, kind=b, content=c),
        lambda: store.claim_lease(owner_id=a, ttl_ms=b, session_id=c),
        lambda: store.renew_lease(a, ttl_ms=b),
        lambda: store.release_lease(a),
    ):
        attempt(path, call)
