"""The conversation graph: read, tombstone, vacuum; a turn's commit adds to it."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from lash_store._kernel.checks import check_name, check_names
from lash_store._kernel.codecs import decode_object, encode_json
from lash_store.errors import CorruptRecordError, NodeConflictError
from lash_store.session import statements
from lash_store.session.context import Tx
from lash_store.session.operations.head import load_head, save_head
from lash_store.session.records import Graph, Node
from lash_store.session.records.graph import read_node, written_node
from lash_store.session.tables import graph_nodes

_TABLE: Final = graph_nodes.name


def load_graph(tx: Tx) -> Graph | None:
    """Return every live node by seq, with the head's leaf; None without a head (S-GRAPH-2)."""
    head = load_head(tx)
    if head is None:
        return None
    rows = statements.load_graph.all(tx.cursor)
    return Graph(tuple(_node(node_id, text) for _, node_id, text in rows), head.leaf_node_id)


def load_path(tx: Tx, leaf_node_id: str | None = None) -> Graph | None:
    """Return the path from the root to a leaf, the head's unless given (S-GRAPH-2).

    None without a head. A tombstoned or absent ancestor ends the path; a leaf that is
    absent itself gives an empty path under its id. A cycle is a CorruptRecordError.
    """
    head = load_head(tx)
    if head is None:
        return None
    leaf = head.leaf_node_id if leaf_node_id is None else check_name("leaf_node_id", leaf_node_id)
    if leaf is None:
        return Graph((), None)
    rows = statements.load_path.all(tx.cursor, leaf_node_id=leaf)
    return Graph(_in_order(leaf, {node_id: _node(node_id, text) for node_id, text in rows}), leaf)


def load_node(tx: Tx, node_id: str) -> Node | None:
    """Return one live node, or None."""
    row = statements.load_node.one(tx.cursor, node_id=check_name("node_id", node_id))
    return None if row is None else _node(row[1], row[2])


def tombstone_nodes(tx: Tx, node_ids: Iterable[str]) -> int:
    """Hide nodes for good, the head's leaf included; return how many were live (S-GRAPH-3).

    Unknown and hidden ids are passed over. The head's count follows, its revision stays.
    """
    names = check_names("node_id", node_ids)
    head, cursor = load_head(tx), tx.cursor  # read first: it may be corrupt
    changed = sum(statements.tombstone_node.run(cursor, node_id=name) for name in names)
    if head is not None and changed:
        count = max(0, head.graph_node_count - changed)
        save_head(tx, msgspec.structs.replace(head, graph_node_count=count))
    return changed


def vacuum_graph(tx: Tx) -> int:
    """Remove the hidden nodes for good; return how many (S-GRAPH-3).

    Counts what is left and mends the head's count if another program left it stale.
    """
    head, cursor = load_head(tx), tx.cursor  # read first: it may be corrupt
    removed = statements.vacuum_nodes.run(cursor)
    count = count_nodes(tx)
    if head is not None and head.graph_node_count != count:
        save_head(tx, msgspec.structs.replace(head, graph_node_count=count))
    return removed


def count_nodes(tx: Tx) -> int:
    """Count the live nodes, by looking at all of them."""
    return sum(count for (count,) in statements.count_nodes.all(tx.cursor))


def append_nodes(tx: Tx, nodes: Sequence[Node], timestamp: str) -> None:
    """Add nodes at the end, in order; NodeConflictError for an id that exists (S-COMMIT-6)."""
    cursor = tx.cursor
    written = [written_node(node, timestamp) for node in nodes]
    rows = [
        statements.insert_node.bind(cursor, node_id=node["node_id"], node_json=encode_json(node))
        for node in written
    ]
    added = statements.insert_node.many(cursor, rows) if rows else 0
    if added < len(rows):
        newest = {node_id for (node_id,) in statements.newest_nodes.all(cursor, count=added)}
        ids = [node["node_id"] for node in written]
        known = next(i for at, i in enumerate(ids) if i not in newest or i in ids[:at])
        raise NodeConflictError(known)


def delete_nodes(tx: Tx) -> None:
    """Remove every node, tombstoned ones too."""
    statements.delete_nodes.run(tx.cursor)


def is_live_node(tx: Tx, node_id: str) -> bool:
    """Whether a node is there and not hidden."""
    return statements.load_node.one(tx.cursor, node_id=node_id) is not None


def _node(node_id: str, text: str) -> Node:
    written = decode_object(_TABLE, node_id, text)
    try:
        return read_node(written)
    except msgspec.ValidationError as error:
        raise CorruptRecordError(_TABLE, node_id, str(error)) from error


def _in_order(leaf: str, nodes: dict[str, Node]) -> tuple[Node, ...]:
    """Follow the parents from the leaf; the rows came in no order, and may hold a cycle."""
    path: list[Node] = []
    at: str | None = leaf
    while at is not None and at in nodes:
        path.append(nodes.pop(at))
        at = path[-1].parent_node_id
    if at is not None and any(node.node_id == at for node in path):
        raise CorruptRecordError(_TABLE, at, "the node is its own ancestor")
    return tuple(reversed(path))
