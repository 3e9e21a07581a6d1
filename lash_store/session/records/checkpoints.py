"""Checkpoints: what a runtime needs to go on, split so that what did not change is stored once."""

from typing import Any, Final

import msgspec

from lash_store._kernel.checks import check_count, check_kind, check_name
from lash_store._kernel.codecs import Json, content_hash, encode_msgpack, free_json, free_msgpack


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


COMPONENTS: Final = ("tool_state", "plugin_snapshot", "execution_state")
"""The parts of a checkpoint that are stored as blobs of their own."""


def written_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """Check everything that a checkpoint carries; return its turn state and bodies in written form."""
    check_kind("checkpoint", checkpoint, Checkpoint)
    parts = {"turn_state": free_msgpack("turn_state", checkpoint.turn_state)}
    for name in ("tool_state", "plugin_snapshot"):
        body = getattr(checkpoint, name)
        if body is not None:
            parts[name] = free_msgpack(name, body)
    if checkpoint.execution_state is not None:
        check_kind("execution_state", checkpoint.execution_state, bytes)
        parts["execution_state"] = bytes(checkpoint.execution_state)
    for name in COMPONENTS:
        ref = getattr(checkpoint, f"{name}_ref")
        if ref is not None:
            check_name(f"{name}_ref", ref)
    if checkpoint.plugin_snapshot_revision is not None:
        check_count("plugin_snapshot_revision", checkpoint.plugin_snapshot_revision)
    return parts


def hashed_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what of a checkpoint goes into a turn's hash: each component as the ref it will have."""
    parts = written_checkpoint(checkpoint)
    hashed: dict[str, Any] = {"turn_state": free_json("turn_state", checkpoint.turn_state)}
    for name in COMPONENTS:
        minted = content_hash(encode_msgpack(parts[name])) if name in parts else None
        hashed[f"{name}_ref"] = minted or getattr(checkpoint, f"{name}_ref")
    return {**hashed, "plugin_snapshot_revision": checkpoint.plugin_snapshot_revision}


def manifest_of(content: bytes) -> Manifest | None:
    """Read a manifest, or None if `content` is none."""
    try:
        return msgspec.convert(msgspec.msgpack.decode(content), Manifest)
    except (msgspec.DecodeError, TypeError, ValueError, RecursionError):
        return None  # an artifact of any other kind
