"""A turn's commit: what goes in, the receipt that comes out, and the hash that tells retries."""

from collections.abc import Callable, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, TypeVar

import msgspec

from lash_store._kernel.checks import (
    check_count,
    check_items,
    check_kind,
    check_name,
    check_text,
    shown,
)
from lash_store._kernel.codecs import Json, free_json, on_any_stack, stable_hash
from lash_store._kernel.leases import check_fence
from lash_store.errors import InvalidRecordError
from lash_store.session.records.checkpoints import (
    Checkpoint,
    Manifest,
    WrittenCheckpoint,
    hashed_checkpoint,
    written_checkpoint,
)
from lash_store.session.records.graph import (
    GraphDelta,
    Node,
    ReplaceFull,
    Unchanged,
    written_node,
)
from lash_store.session.records.leases import SessionFence
from lash_store.session.records.queue import WorkClaim, check_claim

T = TypeVar("T")

_VOLATILE: Final = frozenset({"node_id", "parent_node_id", "leaf_node_id", "timestamp"})


class TurnStamp(msgspec.Struct, frozen=True):
    """The idempotency key of a turn: its id, and the hash of what it commits.

    ``turn_commit_hash(commit)`` makes the hash. `session_id` is the store's unless given.
    """

    turn_id: str
    commit_hash: str
    session_id: str | None = None


class UsageDelta(msgspec.Struct, frozen=True):
    """Tokens that one call used, none of them negative (S-USAGE-1)."""

    source: str
    model: str
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0


class TurnCommit(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one turn changes, all of it or nothing (S-COMMIT).

    `fence` is the live lease of the session. `stamp` makes sending it again harmless.
    `expected_head_revision` is checked if given; 0 means that there is no head yet. What is
    None stays as it is: `config` and `agent_frames` (JSON), `current_agent_frame_id` ("" clears
    it), `checkpoint`. `completed` are claims whose batches leave the queue, `attachment_ids`
    get their commit stamp, `release` ends the lease.
    """

    fence: SessionFence
    stamp: TurnStamp | None = None
    expected_head_revision: int | None = None
    config: Json = None
    agent_frames: Sequence[Json] | None = None
    current_agent_frame_id: str | None = None
    graph: GraphDelta = Unchanged()
    checkpoint: Checkpoint | None = None
    usage: Sequence[UsageDelta] = ()
    completed: Sequence[WorkClaim] = ()
    attachment_ids: Sequence[str] = ()
    release: bool = False

    def stamped(self, turn_id: str) -> "TurnCommit":
        """Return the same turn under an id, with the hash of what it commits: sent again, it has no second effect.

        Raises what ``turn_commit_hash`` raises.
        """
        return msgspec.structs.replace(self, stamp=TurnStamp(turn_id, turn_commit_hash(self)))


class TurnReceipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a commit did: the head's revision after it, and the checkpoint that it stored.

    The manifest is stored with the checkpoint alone: that of a turn that is sent again, or looked
    up, is None once the checkpoint was collected (S-COMMIT-9).
    """

    head_revision: int
    checkpoint_ref: str | None = None
    manifest: Manifest | None = None


class WrittenDelta(msgspec.Struct, frozen=True):
    """A graph delta that was checked, its nodes in written form."""

    replaces: bool
    keeps_leaf: bool
    leaf: str | None
    nodes: tuple[dict[str, Any], ...]


class WrittenCommit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit that was checked, in written form: it shares nothing with what the caller can change."""

    fence: SessionFence
    stamp: TurnStamp | None
    expected_head_revision: int | None
    config: Any
    agent_frames: list[Any] | None
    current_agent_frame_id: str | None
    graph: WrittenDelta
    checkpoint: WrittenCheckpoint | None
    usage: tuple[UsageDelta, ...]
    completed: tuple[WorkClaim, ...]
    attachment_ids: tuple[str, ...]
    release: bool


def turn_commit_hash(commit: TurnCommit) -> str:
    """Return the hash of what a turn commits, the same for every worker that retries it.

    It covers session, config, agent frames, current frame, graph delta, checkpoint, usage and
    attachment ids; not revision, lease, stamp and claims, which differ from try to try, and
    not the fields that are made anew each time: node, parent and leaf ids, timestamps, and
    the ids of messages and message parts (S-COMMIT-8). A component of the checkpoint that has any of
    those counts as another one if it is given by its ref: try again as it was tried first. Raises InvalidRecordError for values
    that can't be committed.
    """
    written = written_commit(commit)
    checkpoint = written.checkpoint
    parts = {
        "session_id": written.fence.session_id,
        "config": written.config,
        "agent_frames": written.agent_frames,
        "current_agent_frame_id": written.current_agent_frame_id,
        "graph": {"kind": type(commit.graph).__name__, "nodes": list(written.graph.nodes)},
        "checkpoint": None
        if checkpoint is None
        else hashed_checkpoint(checkpoint, on_any_stack(_lasting)),
        "usage": [_plain(delta) for delta in written.usage],
        "attachment_ids": list(written.attachment_ids),
    }
    return stable_hash(on_any_stack(_lasting)(parts))


def written_commit(commit: TurnCommit) -> WrittenCommit:
    """Check a commit; InvalidRecordError for anything in it that can't be stored."""
    check_kind("commit", commit, TurnCommit)
    check_fence(commit.fence, SessionFence)
    check_kind("release", commit.release, bool)
    if commit.stamp is not None:
        _check_stamp(commit.stamp)
    if commit.expected_head_revision is not None:
        check_count("expected_head_revision", commit.expected_head_revision)
    config = free_json("config", commit.config)
    agent_frames = None if commit.agent_frames is None else _written_frames(commit.agent_frames)
    frame = commit.current_agent_frame_id
    if frame is not None and frame != "":
        frame = check_name("current_agent_frame_id", frame)
    graph = _written_delta(commit.graph)
    checkpoint = None if commit.checkpoint is None else written_checkpoint(commit.checkpoint)
    return WrittenCommit(
        fence=commit.fence,
        stamp=commit.stamp,
        expected_head_revision=commit.expected_head_revision,
        config=config,
        agent_frames=agent_frames,
        current_agent_frame_id=frame,
        graph=graph,
        checkpoint=checkpoint,
        usage=_each("usage", commit.usage, UsageDelta, check_usage),
        completed=_each("completed", commit.completed, WorkClaim, check_claim),
        attachment_ids=_each("attachment_ids", commit.attachment_ids, str, _check_attachment_id),
        release=commit.release,
    )


def check_usage(delta: UsageDelta) -> UsageDelta:
    """Return a report that can be stored: with texts, and no negative count."""
    check_kind("usage", delta, UsageDelta)
    check_text("source", delta.source)
    check_text("model", delta.model)
    for name in ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens"):
        check_count(name, getattr(delta, name))
    return delta


def _each(field: str, values: Sequence[T], kind: type[T], check: Callable[[T], T]) -> tuple[T, ...]:
    if type(values) is tuple and not values:
        return ()  # as most are
    check_items(field, values, kind)
    return tuple(map(check, values))


def _check_attachment_id(attachment_id: str) -> str:
    return check_name("attachment_id", attachment_id)


def _check_stamp(stamp: TurnStamp) -> None:
    check_kind("stamp", stamp, TurnStamp)
    check_name("turn_id", stamp.turn_id)
    check_name("commit_hash", stamp.commit_hash)
    if stamp.session_id is not None:
        check_name("stamp.session_id", stamp.session_id)


def _written_frames(agent_frames: Sequence[Json]) -> list[Any]:
    check_items("agent_frames", agent_frames, object)
    written: list[Any] = free_json("agent_frames", agent_frames)
    return written


def _written_delta(delta: GraphDelta) -> WrittenDelta:
    if not isinstance(delta, GraphDelta):
        raise InvalidRecordError("graph", shown(delta), "must be Unchanged, Append or ReplaceFull")
    leaf = None if delta.leaf is None else check_name("leaf", delta.leaf)
    if isinstance(delta, Unchanged):
        return WrittenDelta(replaces=False, keeps_leaf=leaf is None, leaf=leaf, nodes=())
    nodes = _written_nodes(delta.nodes)
    replaces = isinstance(delta, ReplaceFull)
    if replaces and leaf is not None and all(node["node_id"] != leaf for node in nodes):
        raise InvalidRecordError("leaf", shown(leaf), "is none of the nodes")
    return WrittenDelta(replaces=replaces, keeps_leaf=False, leaf=leaf, nodes=nodes)


def _written_nodes(nodes: Sequence[Node]) -> tuple[dict[str, Any], ...]:
    check_items("nodes", nodes, Node)
    written: dict[str, dict[str, Any]] = {}
    for node in nodes:
        each = written_node(node)
        if each["node_id"] in written:
            raise InvalidRecordError("node_id", shown(node.node_id), "is there twice in one commit")
        written[each["node_id"]] = each
    _check_no_cycle(written)
    return tuple(written.values())


def _check_no_cycle(written: dict[str, dict[str, Any]]) -> None:
    """Raise InvalidRecordError for nodes that are their own ancestors: no path would end."""
    parents = {name: node.get("parent_node_id") for name, node in written.items()}
    seen: set[str | None] = set()
    for name, parent in parents.items():
        if parent in parents and parent not in seen:
            break
        seen.add(name)
    else:
        return  # each comes behind its parent, as nearly always
    try:
        TopologicalSorter({name: {parent} for name, parent in parents.items()}).prepare()
    except CycleError as error:
        raise InvalidRecordError(
            "parent_node_id", shown(error.args[1][0]), "is its own ancestor"
        ) from error


def _plain(record: msgspec.Struct | None) -> Any:
    if record is None:
        return None
    return free_json(type(record).__name__, msgspec.structs.asdict(record))


def _lasting(value: Any) -> Any:
    """Remove, at any depth, the fields that every try makes anew."""
    if isinstance(value, list):
        return [_lasting(item) for item in value]
    if not isinstance(value, dict):
        return value
    is_message = {"role", "parts"} <= value.keys()
    is_part = {"kind", "content", "prune_state"} <= value.keys()
    dropped = _VOLATILE | ({"id"} if is_message or is_part else set())
    return {key: _lasting(item) for key, item in value.items() if key not in dropped}
