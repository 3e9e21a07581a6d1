"""The session's head: where the conversation stands."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


class SessionHead(msgspec.Struct, frozen=True):
    """Where a session stands after its last commit (S-HEAD-1).

    `head_revision` grows by one with each commit. `config` and `agent_frames` are the
    consumer's own JSON. `checkpoint_ref` is a blob's hash. `graph_node_count` counts the live
    nodes. `extra` are fields of the stored head that this library does not know; they survive.
    """

    session_id: str
    head_revision: int
    config: Any = None
    agent_frames: Sequence[Any] = ()
    current_agent_frame_id: str | None = None
    checkpoint_ref: str | None = None
    leaf_node_id: str | None = None
    graph_node_count: int = 0
    extra: Mapping[str, Any] = {}
