"""The conversation graph: read, tombstone, vacuum; a turn's commit adds to it."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec

from lash_store._kernel.checks import check_count, check_name, check_names
from lash_store._kernel.codecs import decode_object, encode_json
from lash_store.errors import CorruptRecordError, NodeConflictError
from lash_store.session import statements
from lash_store.session.context import SessionContext, Tx, Work
from lash_store.session.operations.head import read_head, save_head
from lash_store.session.records import Graph, Node
from lash_store.session.records.graph import read_node
from lash_store.session.tables import graph_nodes

_TABLE: Final = graph_nodes.name

_FIRST_LOOK: Final = 32
_NEXT_LOOK: Final = 8
_LARGEST_LOOK: Final = 4096
"""How many nodes before a leaf are read at once, for its path: the first time, how many times as many
the next, and at most. Short paths are many, and beside a long one a statement more costs little."""


def load_graph(_: SessionContext) -> Work[Graph | None]:
    """Return every live node by seq, with the head's leaf; None without a head (S-GRAPH-2)."""

    def load(tx: Tx) -> Graph | None:
        head = read_head(tx)
        if head is None:
            return None
        rows = statements.load_graph.all(tx.own_cursor)
        return Graph(tuple(_node(node_id, text) for _, node_id, text in rows), head.leaf_node_id)

    return load


def load_path(
    _: SessionContext, leaf_node_id: str | None = None, *, limit: int | None = None
) -> Work[Graph | None]:
    """Return the path from the root to a leaf, the head's unless given (S-GRAPH-2).

    None without a head. A tombstoned or absent ancestor ends the path; a leaf that is
    absent itself gives an empty path under its id. A cycle is a CorruptRecordError. With a
    `limit`, the newest so many nodes of the path.
    """
    count = None if limit is None else check_count("limit", limit)
    chosen = None if leaf_node_id is None else check_name("leaf_node_id", leaf_node_id)

    def load(tx: Tx) -> Graph | None:
        head = read_head(tx)
        if head is None:
            return None
        leaf = head.leaf_node_id if chosen is None else chosen
        if leaf is None:
            return Graph((), None)
        return Graph(_path(tx, leaf, count), leaf)

    return load


def load_node(_: SessionContext, node_id: str) -> Work[Node | None]:
    """Return one live node, or None."""
    name = check_name("node_id", node_id)

    def load(tx: Tx) -> Node | None:
        row = statements.load_node.one(tx.own_cursor, node_id=name)
        return None if row is None else _node(row[1], row[2])

    return load


def tombstone_nodes(_: SessionContext, node_ids: Iterable[str]) -> Work[int]:
    """Hide nodes for good, the head's leaf included; return how many were live (S-GRAPH-3).

    Unknown and hidden ids are passed over. The head's count follows, its revision stays.
    """
    names = tuple(check_names("node_ids", node_ids))

    def tombstone(tx: Tx) -> int:
        head, cursor = read_head(tx), tx.own_cursor  # read first: it may be corrupt
        with tx.all_or_nothing():
            rows = [statements.tombstone_node.bind(cursor, node_id=name) for name in names]
            changed = statements.tombstone_node.many(cursor, rows) if rows else 0
            if head is not None and changed:
                count = max(0, head.graph_node_count - changed)
                save_head(tx, msgspec.structs.replace(head, graph_node_count=count))
            return changed

    return tombstone


def vacuum_graph(_: SessionContext) -> Work[int]:
    """Remove the hidden nodes for good; return how many (S-GRAPH-3).

    Counts what is left and mends the head's count if another program left it stale.
    """

    def vacuum(tx: Tx) -> int:
        head, cursor = read_head(tx), tx.own_cursor  # read first: it may be corrupt
        with tx.all_or_nothing():
            removed = statements.vacuum_nodes.run(cursor)
            count = count_nodes(tx)
            if head is not None and head.graph_node_count != count:
                save_head(tx, msgspec.structs.replace(head, graph_node_count=count))
            return removed

    return vacuum


def count_nodes(tx: Tx) -> int:
    """Count the live nodes, by looking at all of them."""
    return sum(count for (count,) in statements.count_nodes.all(tx.own_cursor))


def append_nodes(nodes: Sequence[dict[str, Any]], *, replaces: bool) -> Work[None]:
    """Add nodes in written form at the end, in order, dated by the transaction where they are not.

    Where they are to take the place of a whole graph they are numbered from 1, as they would be anyway.
    Raises NodeConflictError for an id that exists (S-COMMIT-6).
    """
    ids = [node["node_id"] for node in nodes]
    encoded = [_encoded(node) for node in nodes]

    def append(tx: Tx) -> None:
        cursor, timestamp = tx.own_cursor, encode_json(rfc_3339(tx.now_ms))
        written = [timestamp.join(parts) for parts in encoded]
        if replaces:
            bind = statements.insert_node_at.bind
            rows = [
                bind(cursor, seq=seq, node_id=node_id, node_json=node_json)
                for seq, (node_id, node_json) in enumerate(zip(ids, written, strict=True), 1)
            ]
            added = statements.insert_node_at.many(cursor, rows)
        else:
            rows = [
                statements.insert_node.bind(cursor, node_id=node_id, node_json=node_json)
                for node_id, node_json in zip(ids, written, strict=True)
            ]
            added = statements.insert_node.many(cursor, rows)
        if added < len(ids):
            raise NodeConflictError(_known(tx, ids, added))

    return append


def rfc_3339(now_ms: int) -> str:
    """Write a time as text, UTC, to the millisecond; a time past year 9999 as its number."""
    second = _second(now_ms // 1000)
    return f"{now_ms}ms" if second is None else f"{second}.{now_ms % 1000:03d}Z"


@lru_cache(maxsize=1)  # what is written at once is written in the same second
def _second(now_s: int) -> str | None:
    try:
        return f"{datetime.fromtimestamp(now_s, UTC):%Y-%m-%dT%H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return None


def delete_nodes(tx: Tx) -> None:
    """Remove every node, tombstoned ones too."""
    statements.delete_nodes.later(tx.own_cursor)


def is_live_node(tx: Tx, node_id: str) -> bool:
    """Whether a node is there and not hidden."""
    return statements.load_node.one(tx.own_cursor, node_id=node_id) is not None


def _encoded(node: dict[str, Any]) -> tuple[str, ...]:
    """Encode a node, in two parts where its timestamp, between them, is still to be given."""
    if node["timestamp"] is not None:
        return (encode_json(node),)
    names = list(node)
    own = names.index("timestamp") + 1  # the consumer's own fields stand behind it
    head = {name: node[name] for name in names[: own - 1]}
    fields = {name: node[name] for name in names[own:]}
    rest = f",{encode_json(fields)[1:]}" if fields else "}"
    return f'{encode_json(head)[:-1]},"timestamp":', rest


def _known(tx: Tx, ids: Sequence[str], added: int) -> str:
    """Return the first of `ids` that was there before the `added` ones of them were."""
    newest = {node_id for (node_id,) in statements.newest_nodes.all(tx.own_cursor, count=added)}
    return next(i for at, i in enumerate(ids) if i not in newest or i in ids[:at])


def _node(node_id: str, text: str) -> Node:
    written = decode_object(_TABLE, node_id, text)
    try:
        return read_node(written)
    except msgspec.ValidationError as error:
        raise CorruptRecordError(_TABLE, node_id, str(error)) from error


def _path(tx: Tx, leaf: str, limit: int | None) -> tuple[Node, ...]:
    """Follow the parents from the leaf, the newest `limit` nodes of them; return them root first.

    A conversation's path mostly lies in one piece before its leaf, so the nodes there are read
    without asking SQL for parents, ever more at once; once fewer than half of them are on the path,
    the statement that follows the parents reads the rest.
    """
    path: dict[str, Node] = {}
    found: dict[str, str] = {}
    at: str | None = leaf
    count, asked, begun = _FIRST_LOOK, 0, 0
    while at is not None and at not in path and len(path) != limit:
        if at not in found:
            if "\0" in at:  # as a row of another program may name it; no node has such an id
                break
            used, begun = len(path) - begun, len(path)
            left = None if limit is None else limit - len(path)
            if used * 2 >= asked:
                asked = count if left is None else min(count, left)
                found, count = _nearby(tx, at, asked, left), min(count * _NEXT_LOOK, _LARGEST_LOOK)
            else:
                found = _ancestors(tx, at, left)
            if at not in found:  # absent or hidden
                break
        path[at] = node = _node(at, found[at])
        at = node.parent_node_id
    if at is not None and at in path:
        raise CorruptRecordError(_TABLE, at, "the node is its own ancestor")
    return tuple(reversed(path.values()))


def _nearby(tx: Tx, leaf: str, count: int, limit: int | None) -> dict[str, str]:
    try:
        return dict(statements.nodes_up_to.all(tx.own_cursor, node_id=leaf, count=count))
    except CorruptRecordError:  # perhaps a node that is not on the path
        return _ancestors(tx, leaf, limit)


def _ancestors(tx: Tx, leaf: str, limit: int | None) -> dict[str, str]:
    if limit is None:
        return dict(statements.load_path.all(tx.own_cursor, leaf_node_id=leaf))
    # Not all at once: on a cycle, which is found out here, it goes on to its limit.
    most = min(limit, _LARGEST_LOOK)
    return dict(statements.load_path_end.all(tx.own_cursor, leaf_node_id=leaf, limit=most))
