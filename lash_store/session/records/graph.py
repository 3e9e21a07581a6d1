"""The conversation graph: nodes, what a turn does to it, and what a read gives."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from lash_store._kernel.checks import check_name, check_text, shown
from lash_store._kernel.codecs import free_object
from lash_store._wire.causes import written_cause
from lash_store.errors import InvalidRecordError

_NAMED = ("node_id", "parent_node_id", "caused_by", "agent_frame_id", "timestamp")


class Node(msgspec.Struct, frozen=True):
    """One node of a conversation (S-GRAPH-1).

    `fields` are the consumer's own, JSON, beside the named ones; a file that the original
    program shall open has ``kind`` and what belongs to it there. `timestamp` is text; a
    commit writes the transaction's time (RFC 3339, UTC) where it is None. `caused_by` is an
    object tagged by ``type``.
    """

    node_id: str
    parent_node_id: str | None
    fields: Mapping[str, Any] = {}
    caused_by: Mapping[str, Any] | None = None
    agent_frame_id: str | None = None
    timestamp: str | None = None


class Unchanged(msgspec.Struct, frozen=True):
    """The turn adds no node; `leaf` moves the head's leaf, None leaves it where it is."""

    leaf: str | None = None


class Append(msgspec.Struct, frozen=True):
    """The turn adds `nodes`, in order, and ends at `leaf`, a live node."""

    nodes: Sequence[Node]
    leaf: str | None


class ReplaceFull(msgspec.Struct, frozen=True):
    """The turn replaces every node, tombstoned ones too, by `nodes`, and ends at `leaf`."""

    nodes: Sequence[Node]
    leaf: str | None


GraphDelta: TypeAlias = Unchanged | Append | ReplaceFull


class Graph(msgspec.Struct, frozen=True):
    """Nodes that were read: all live ones by seq, or the path from the root to the leaf.

    `leaf_node_id` is the head's leaf, or the one that was asked for.
    """

    nodes: tuple[Node, ...]
    leaf_node_id: str | None


def written_node(node: Node) -> dict[str, Any]:
    """Return the node's written form: the named fields in order, then its own, sorted.

    A timestamp that is None is still to be given. Raises InvalidRecordError for a value that can't be stored and for a field whose name is
    taken.
    """
    if not isinstance(node, Node):
        raise InvalidRecordError("node", ascii(node), "must be a Node")
    fields = free_object(f"node {shown(node.node_id)}", node.fields)
    for name in _NAMED:
        if name in fields:
            raise InvalidRecordError(
                f"node {shown(node.node_id)}", name, "is a field of Node itself"
            )
    written: dict[str, Any] = {"node_id": check_name("node_id", node.node_id)}
    if node.parent_node_id is not None:
        written["parent_node_id"] = check_name("parent_node_id", node.parent_node_id)
    if node.caused_by is not None:
        written["caused_by"] = written_cause(node.caused_by)
    if node.agent_frame_id is not None:
        written["agent_frame_id"] = check_text("agent_frame_id", node.agent_frame_id)
    moment = None if node.timestamp is None else check_text("timestamp", node.timestamp)
    return {**written, "timestamp": moment, **fields}


def read_node(written: dict[str, Any]) -> Node:
    """Build a node from its stored form; every field that is not named is among `fields`."""
    take = written.pop
    node_id, parent_node_id = take("node_id", None), take("parent_node_id", None)
    caused_by, frame = take("caused_by", None), take("agent_frame_id", None)
    node = Node(node_id, parent_node_id, written, caused_by, frame, take("timestamp", None))
    if (
        type(node_id) is not str
        or not (parent_node_id is None or type(parent_node_id) is str)
        or not (caused_by is None or type(caused_by) is dict)
        or not (frame is None or type(frame) is str)
        or not (node.timestamp is None or type(node.timestamp) is str)
    ):
        msgspec.convert(msgspec.structs.asdict(node), Node)  # which names what is no node
    return node
