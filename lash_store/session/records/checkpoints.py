"""Checkpoints: what a runtime needs to go on, split so that what did not change is stored once."""

from __future__ import annotations

from typing import Any

import msgspec

from lash_store._kernel.codecs import Json


class Checkpoint(msgspec.Struct, frozen=True):
    """The state of a session after a turn (S-CKPT-1).

    `turn_state` is the consumer's JSON. The three components, `tool_state` and
    `plugin_snapshot` (JSON) and `execution_state` (bytes), come as a body, which is stored
    under the hash of its bytes, or as the ref of one that is stored already; a body wins.
    """

    turn_state: Json
    tool_state: Json = None
    tool_state_ref: str | None = None
    plugin_snapshot: Json = None
    plugin_snapshot_ref: str | None = None
    plugin_snapshot_revision: int | None = None
    execution_state: bytes | None = None
    execution_state_ref: str | None = None


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a checkpoint consists of: its turn state, and the refs of its components."""

    turn_state: Any
    tool_state_ref: str | None = None
    plugin_snapshot_ref: str | None = None
    plugin_snapshot_revision: int | None = None
    execution_state_ref: str | None = None

    @property
    def component_refs(self) -> tuple[str, ...]:
        """The refs of the components that there are."""
        refs = (self.tool_state_ref, self.plugin_snapshot_ref, self.execution_state_ref)
        return tuple(ref for ref in refs if ref is not None)
