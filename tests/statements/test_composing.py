"""Builders, composed on aliases and with one another."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from lash_store import Append, LeaseHeld, NewWork, Node, SessionStore, TurnCommit
from lash_store.session import statements
from lash_store.session.tables import graph_nodes, queued_work_batches
from lash_store.statements import on_alias


@pytest.fixture(params=["file", "shared"])
def where(request: pytest.FixtureRequest, path: Path) -> str:
    return str(path) if request.param == "file" else f"sqlite:///{path}"


def test_a_condition_on_an_alias(where: str) -> None:
    with SessionStore.open(where, session_id="s") as store:
        lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert not isinstance(lease, LeaseHeld)
        store.enqueue_all_work([NewWork([1]), NewWork([2])])
        claim = store.claim_work(lease.fence, owner_id="ann", ttl_ms=60_000)
        assert claim is not None
        alias = queued_work_batches.alias("work")
        with store.read() as tx:
            live = statements.has_live_claim(now_ms=tx.now_ms)
            claimed = select(alias.c.batch_id).where(on_alias(live, alias))
            free = select(alias.c.batch_id).where(on_alias(~live, alias))
            assert tx.connection.execute(claimed).scalars().all() == list(claim.batch_ids)
            assert len(tx.connection.execute(free).all()) == 1
        assert "queued_work_batches." not in str(claimed).replace("queued_work_batches AS", "")


def test_a_common_ancestor(where: str) -> None:
    """Two paths in one statement."""
    with SessionStore.open(where, session_id="s") as store:
        lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert not isinstance(lease, LeaseHeld)
        parents = {"a": None, "b": "a", "c": "b", "left": "c", "right": "b", "far": "right"}
        nodes = [Node(name, parent) for name, parent in parents.items()]
        store.commit_turn(TurnCommit(fence=lease.fence, graph=Append(nodes, leaf="left")))
        left = statements.ancestry(leaf_node_id="left")
        right = statements.ancestry(leaf_node_id="far")
        common = (
            select(graph_nodes.c.node_id)
            .join(left, left.c.node_id == graph_nodes.c.node_id)
            .join(right, right.c.node_id == graph_nodes.c.node_id)
            .order_by(graph_nodes.c.seq.desc())
        )
        with store.read() as tx:
            assert tx.connection.execute(common).scalars().all() == ["b", "a"]
