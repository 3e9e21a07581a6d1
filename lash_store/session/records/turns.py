"""A turn's commit: what goes in, the receipt that comes out, and the hash that tells retries."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from lash_store._kernel.checks import check_count, check_items, check_kind, check_name, shown
from lash_store._kernel.codecs import Json, free_json, stable_hash
from lash_store._kernel.leases import check_fence
from lash_store.errors import InvalidRecordError
from lash_store.session.records.checkpoints import (
    Checkpoint,
    Manifest,
    hashed_checkpoint,
    written_checkpoint,
)
from lash_store.session.records.graph import (
    GraphDelta,
    Node,
    ReplaceFull,
    Unchanged,
    check_node_id,
    written_node,
)
from lash_store.session.records.leases import SessionFence
from lash_store.session.records.queue import WorkClaim, check_claim

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


class TurnReceipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a commit did: the head's revision after it, and the checkpoint that it stored."""

    head_revision: int
    checkpoint_ref: str | None = None
    manifest: Manifest | None = None


def turn_commit_hash(commit: TurnCommit) -> str:
    """Return the hash of what a turn commits, the same for every worker that retries it.

    It covers session, config, agent frames, current frame, graph delta, checkpoint, usage and
    attachment ids; not revision, lease, stamp and claims, which differ from try to try, and
    not the fields that are made anew each time: node, parent and leaf ids, timestamps, and
    the ids of messages and message parts (S-COMMIT-8). Raises InvalidRecordError for values
    that can't be committed.
    """
    check_commit(commit)
    nodes = [] if isinstance(commit.graph, Unchanged) else commit.graph.nodes
    parts = {
        "session_id": commit.fence.session_id,
        "config": free_json("config", commit.config),
        "agent_frames": free_json("agent_frames", commit.agent_frames),
        "current_agent_frame_id": commit.current_agent_frame_id,
        "graph": {
            "kind": type(commit.graph).__name__,
            "nodes": [written_node(node, "") for node in nodes],
        },
        "checkpoint": None if commit.checkpoint is None else hashed_checkpoint(commit.checkpoint),
        "usage": [_plain(delta) for delta in commit.usage],
        "attachment_ids": list(commit.attachment_ids),
    }
    return stable_hash(_lasting(parts))


def check_commit(commit: TurnCommit) -> None:
    """Raise InvalidRecordError for anything in a commit that can't be stored."""
    check_kind("commit", commit, TurnCommit)
    check_fence(commit.fence, SessionFence)
    check_kind("release", commit.release, bool)
    if commit.stamp is not None:
        _check_stamp(commit.stamp)
    if commit.expected_head_revision is not None:
        check_count("expected_head_revision", commit.expected_head_revision)
    free_json("config", commit.config)
    if commit.agent_frames is not None:
        check_items("agent_frames", commit.agent_frames, object)
        free_json("agent_frames", commit.agent_frames)
    if commit.current_agent_frame_id not in (None, ""):
        check_name("current_agent_frame_id", commit.current_agent_frame_id or "")
    _check_delta(commit.graph)
    if commit.checkpoint is not None:
        written_checkpoint(commit.checkpoint)
    check_items("usage", commit.usage, UsageDelta)
    check_items("completed", commit.completed, WorkClaim)
    check_items("attachment_ids", commit.attachment_ids, str)
    for delta in commit.usage:
        check_usage(delta)
    for claim in commit.completed:
        check_claim(claim)
    for attachment_id in commit.attachment_ids:
        check_name("attachment_id", attachment_id)


def check_usage(delta: UsageDelta) -> None:
    """Raise InvalidRecordError for a report without source or model, or with a negative count."""
    check_kind("usage", delta, UsageDelta)
    check_name("source", delta.source)
    check_name("model", delta.model)
    for name in ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens"):
        check_count(name, getattr(delta, name))


def _check_stamp(stamp: TurnStamp) -> None:
    check_kind("stamp", stamp, TurnStamp)
    check_name("turn_id", stamp.turn_id)
    check_name("commit_hash", stamp.commit_hash)
    if stamp.session_id is not None:
        check_name("stamp.session_id", stamp.session_id)


def _check_delta(delta: GraphDelta) -> None:
    if not isinstance(delta, GraphDelta):
        raise InvalidRecordError("graph", shown(delta), "must be Unchanged, Append or ReplaceFull")
    if delta.leaf is not None:
        check_node_id("leaf", delta.leaf)
    if isinstance(delta, Unchanged):
        return
    check_items("nodes", delta.nodes, Node)
    seen: set[str] = set()
    for node in delta.nodes:
        written_node(node, "")
        if node.node_id in seen:
            raise InvalidRecordError("node_id", shown(node.node_id), "is there twice in one commit")
        seen.add(node.node_id)
    if isinstance(delta, ReplaceFull) and delta.leaf not in (None, *seen):
        raise InvalidRecordError("leaf", shown(delta.leaf), "is none of the nodes")


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
