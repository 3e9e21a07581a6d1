"""Short ways to build what session tests commit and enqueue."""

from __future__ import annotations

from typing import Any

from lash_store import SessionLease, SessionStore
from lash_store.session.records import (
    Append,
    Checkpoint,
    GraphDelta,
    NewWork,
    Node,
    TurnCommit,
    TurnReceipt,
    TurnStamp,
    Unchanged,
    UsageDelta,
    WorkBatch,
    WorkClaim,
)

TTL = 60_000


def lease_of(store: SessionStore, owner_id: str = "ann", ttl_ms: int = TTL) -> SessionLease:
    lease = store.claim_lease(owner_id=owner_id, ttl_ms=ttl_ms)
    assert isinstance(lease, SessionLease)
    return lease


def node(node_id: str, parent: str | None = None, **fields: Any) -> Node:
    return Node(node_id, parent, {"kind": "note", **fields})


def chain(*node_ids: str) -> Append:
    """Nodes that follow each other, and the last one as the leaf."""
    parents = [None, *node_ids]
    return Append([node(n, p) for n, p in zip(node_ids, parents, strict=False)], node_ids[-1])


def commit(store: SessionStore, graph: GraphDelta | None = None, **parts: Any) -> TurnReceipt:
    """Claim the lease, or re-enter it, and commit a turn."""
    fence = lease_of(store).fence
    return store.commit_turn(TurnCommit(fence=fence, graph=graph or Unchanged(), **parts))


def stamped(
    store: SessionStore, turn_id: str = "turn-1", commit_hash: str = "hash-1", **parts: Any
) -> TurnCommit:
    return TurnCommit(fence=lease_of(store).fence, stamp=TurnStamp(turn_id, commit_hash), **parts)


def whole_turn(store: SessionStore, claim: WorkClaim, number: int = 1) -> TurnCommit:
    """A turn that changes everything that a turn can."""
    return TurnCommit(
        fence=lease_of(store).fence,
        stamp=TurnStamp(f"turn-{number}", f"hash-{number}"),
        config={"model": "m"},
        agent_frames=[{"frame": number}],
        current_agent_frame_id="frame-1",
        graph=Append([node(f"n{number}")], f"n{number}"),
        checkpoint=Checkpoint(
            turn_state={"turn_index": number}, tool_state={"t": number}, execution_state=b"\0\1"
        ),
        usage=[UsageDelta("chat", "m", 10, 5, 1, 2)],
        completed=[claim],
        attachment_ids=["att-1"],
        release=True,
    )


def enqueue(store: SessionStore, *payloads: Any, **parts: Any) -> WorkBatch:
    batch = store.enqueue_work(NewWork(payloads or ("hello",), **parts))
    assert isinstance(batch, WorkBatch)
    return batch


def claim_of(store: SessionStore, max_batches: int = 1, **parts: Any) -> WorkClaim:
    claim = store.claim_work(
        lease_of(store).fence, owner_id="ann", ttl_ms=1_000, max_batches=max_batches, **parts
    )
    assert claim is not None
    return claim
