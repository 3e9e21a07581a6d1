"""Statements on the conversation graph; a tombstoned node is seen by none of the reads."""

from sqlalchemy import (
    CTE,
    BigInteger,
    Delete,
    Insert,
    Select,
    Update,
    delete,
    func,
    literal,
    select,
    update,
)

from lash_store._kernel.dialects import JsonText, OnOneRow, upsert_insert
from lash_store._kernel.prepared import prepare
from lash_store.session.tables import graph_nodes

_live = graph_nodes.c.tombstoned == 0
_parent = JsonText(graph_nodes.c.node_json, "parent_node_id").label("parent_node_id")


@prepare
def select_nodes() -> Select[int, str, str]:
    """Every live node: seq, node id, node_json; to filter, join, order and page by seq.

    After a vacuum the seq of a removed newest node is used again, so a cursor over seq that a
    consumer keeps has to start anew.
    """
    return select(graph_nodes.c.seq, graph_nodes.c.node_id, graph_nodes.c.node_json).where(_live)


@prepare
def load_graph() -> Select[int, str, str]:
    """Read every live node in seq order."""
    return select_nodes().order_by(graph_nodes.c.seq)


@prepare
def load_node(*, node_id: str) -> Select[int, str, str]:
    """Read one live node."""
    return select_nodes().where(graph_nodes.c.node_id == node_id)


def ancestry(*, leaf_node_id: str) -> CTE:
    """The path from a leaf to its root as a recursive CTE: node_id and parent_node_id.

    Two of them may stand in one statement, for a common ancestor say. Join it to
    ``graph_nodes`` or to tables of your own. A tombstoned or absent ancestor ends the path. It
    ends on a cycle too: UNION, not UNION ALL, so no row is followed twice.
    """
    path = (
        select(graph_nodes.c.node_id, _parent)
        .where(graph_nodes.c.node_id == leaf_node_id, _live)
        .cte(recursive=True)
    )
    return path.union(
        select(graph_nodes.c.node_id, _parent)
        .join(path, graph_nodes.c.node_id == path.c.parent_node_id)
        # A root has no parent to join on anyway: said only to guide SQLite.
        .where(OnOneRow(path.c.parent_node_id.is_not(None)), _live)
    )


def newest_ancestry(*, leaf_node_id: str, limit: int) -> CTE:
    """The `limit` nodes at the leaf's end of its path: node_id, parent_node_id and depth.

    The depth is 0 at the leaf. On a cycle it goes on to the limit.
    """
    path = (
        select(graph_nodes.c.node_id, _parent, literal(0, BigInteger()).label("depth"))
        .where(graph_nodes.c.node_id == leaf_node_id, _live, literal(0, BigInteger()) < limit)
        .cte(recursive=True)
    )
    return path.union_all(
        select(graph_nodes.c.node_id, _parent, path.c.depth + 1)
        .join(path, graph_nodes.c.node_id == path.c.parent_node_id)
        .where(OnOneRow(path.c.parent_node_id.is_not(None)), path.c.depth + 1 < limit, _live)
    )


@prepare
def load_path(*, leaf_node_id: str) -> Select[str, str]:
    """Read the nodes between a leaf and its root, node id and node_json, in no order.

    Their own parent_node_id orders them; SQL gives no order to the rows of a recursive CTE.
    """
    path = ancestry(leaf_node_id=leaf_node_id)
    nodes = select(graph_nodes.c.node_id, graph_nodes.c.node_json)
    return nodes.join(path, path.c.node_id == graph_nodes.c.node_id)


@prepare
def load_path_end(*, leaf_node_id: str, limit: int) -> Select[str, str]:
    """Read the `limit` nodes at the leaf's end of its path, node id and node_json, in no order."""
    path = newest_ancestry(leaf_node_id=leaf_node_id, limit=limit)
    nodes = select(graph_nodes.c.node_id, graph_nodes.c.node_json)
    return nodes.join(path, path.c.node_id == graph_nodes.c.node_id)


@prepare
def nodes_up_to(*, node_id: str, count: int) -> Select[str, str]:
    """Read what is live of the `count` nodes up to a live one by seq, the newest first.

    Node id and node_json. A conversation's path mostly stands there in one piece, so it is read
    without a look at each node's parent. Hidden nodes count: a row that is passed over is one too.
    """
    last = graph_nodes.alias()
    seq = select(last.c.seq).where(last.c.node_id == node_id, last.c.tombstoned == 0)
    rows = (
        select(
            graph_nodes.c.seq,
            graph_nodes.c.node_id,
            graph_nodes.c.node_json,
            graph_nodes.c.tombstoned,
        )
        .where(graph_nodes.c.seq <= seq.scalar_subquery())
        .order_by(graph_nodes.c.seq.desc())
        .limit(count)
        .subquery()
    )
    live = select(rows.c.node_id, rows.c.node_json).where(rows.c.tombstoned == 0)
    return live.order_by(rows.c.seq.desc())


@prepare
def count_nodes() -> Select[int]:
    """Count the live nodes, by looking at all of them."""
    return select(func.count().label("nodes")).select_from(graph_nodes).where(_live)


@prepare
def insert_node(*, node_id: str, node_json: str) -> Insert:
    """Add a node at the end; no row changes if the id exists, tombstoned or not (S-COMMIT-6)."""
    fresh = upsert_insert(graph_nodes).values(node_id=node_id, node_json=node_json)
    fresh = fresh.on_conflict_do_nothing(index_elements=[graph_nodes.c.node_id])
    return fresh.inline()  # nobody asks for its number


@prepare
def insert_node_at(*, seq: int, node_id: str, node_json: str) -> Insert:
    """Add a node at a place of the graph, behind all that are there; likewise (S-COMMIT-6).

    Of many that take the place of a whole graph each would look for its place past all that were deleted.
    """
    fresh = upsert_insert(graph_nodes).values(seq=seq, node_id=node_id, node_json=node_json)
    return fresh.on_conflict_do_nothing(index_elements=[graph_nodes.c.node_id]).inline()


@prepare
def newest_nodes(*, count: int) -> Select[str]:
    """The ids of the `count` nodes that were added last, tombstoned ones too."""
    return select(graph_nodes.c.node_id).order_by(graph_nodes.c.seq.desc()).limit(count)


@prepare
def tombstone_node(*, node_id: str) -> Update:
    """Hide a live node for good; no row changes if it is hidden or absent."""
    return update(graph_nodes).where(graph_nodes.c.node_id == node_id, _live).values(tombstoned=1)


@prepare
def vacuum_nodes() -> Delete:
    """Remove the tombstoned nodes."""
    return delete(graph_nodes).where(graph_nodes.c.tombstoned != 0)


@prepare
def delete_nodes() -> Delete:
    """Remove every node, tombstoned ones too."""
    return delete(graph_nodes)
