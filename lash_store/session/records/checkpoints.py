"""Checkpoints: what a runtime needs to go on, split so that what did not change is stored once."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from lash_store._kernel.checks import check_count, check_kind, check_name
from lash_store._kernel.codecs import (
    Json,
    content_hash,
    encode_msgpack,
    free_json,
    free_msgpack,
    on_any_stack,
)


class Checkpoint(msgspec.Struct, frozen=True):
    """The state of a session after a turn (S-CKPT-1).

    `turn_state` is the consumer's JSON. The three components, `tool_state` and
    `plugin_snapshot` (JSON) and `execution_state` (bytes), come as a body, which is stored
    under the hash of what it is encoded to (MessagePack), or as the ref that an earlier checkpoint's
    :class:`Manifest` has of it; a body wins. Other blobs are no components: loading such a one is
    CorruptRecordError.
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


_decode = on_any_stack(msgspec.msgpack.Decoder().decode)
_decode_manifest = on_any_stack(msgspec.msgpack.Decoder(Manifest).decode)


COMPONENTS: Final = ("tool_state", "plugin_snapshot", "execution_state")
"""The parts of a checkpoint that are stored as blobs of their own."""


class WrittenCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint that was checked: it shares nothing with what the caller can change.

    `bodies` are the components that come as one, encoded, by name. The manifest refers to each
    of them by the hash of it, and to the others by the ref that was given.
    """

    manifest: Manifest
    bodies: dict[str, bytes]

    @property
    def given_refs(self) -> list[tuple[str, str]]:
        """The components that come as a ref: field and ref, of blobs that should be stored."""
        refs = [(name, getattr(self.manifest, f"{name}_ref")) for name in COMPONENTS]
        return [
            (f"{name}_ref", ref)
            for name, ref in refs
            if ref is not None and name not in self.bodies
        ]


def written_checkpoint(checkpoint: Checkpoint) -> WrittenCheckpoint:
    """Check everything that a checkpoint carries, and encode its bodies."""
    check_kind("checkpoint", checkpoint, Checkpoint)
    turn_state = free_msgpack("turn_state", checkpoint.turn_state)
    bodies: dict[str, bytes] = {}
    for name in ("tool_state", "plugin_snapshot"):
        body = getattr(checkpoint, name)
        if body is not None:
            bodies[name] = encode_msgpack(free_msgpack(name, body))
    if checkpoint.execution_state is not None:
        check_kind("execution_state", checkpoint.execution_state, bytes)
        bodies["execution_state"] = encode_msgpack(bytes(checkpoint.execution_state))
    refs: dict[str, str | None] = {}
    for name in COMPONENTS:
        ref = getattr(checkpoint, f"{name}_ref")
        given = None if ref is None else check_name(f"{name}_ref", ref)
        refs[name] = content_hash(bodies[name]) if name in bodies else given
    if checkpoint.plugin_snapshot_revision is not None:
        check_count("plugin_snapshot_revision", checkpoint.plugin_snapshot_revision)
    manifest = Manifest(
        turn_state=turn_state,
        tool_state_ref=refs["tool_state"],
        plugin_snapshot_ref=refs["plugin_snapshot"],
        plugin_snapshot_revision=checkpoint.plugin_snapshot_revision,
        execution_state_ref=refs["execution_state"],
    )
    return WrittenCheckpoint(manifest, bodies)


def hashed_checkpoint(
    checkpoint: WrittenCheckpoint, lasting: Callable[[Any], Any]
) -> dict[str, Any]:
    """Return what of a checkpoint goes into a turn's hash.

    Each component is there as its ref; one that comes as a body as the ref of what is `lasting` of
    it, which is the same one where nothing of it is made anew by each try.
    """
    manifest = checkpoint.manifest
    hashed: dict[str, Any] = {"turn_state": free_json("turn_state", manifest.turn_state)}
    for name in COMPONENTS:
        hashed[f"{name}_ref"] = getattr(manifest, f"{name}_ref")
    for name, body in checkpoint.bodies.items():
        hashed[f"{name}_ref"] = content_hash(encode_msgpack(lasting(_decode(body))))
    return {**hashed, "plugin_snapshot_revision": manifest.plugin_snapshot_revision}


def manifest_of(content: bytes) -> Manifest | None:
    """Read a manifest, or None if `content` is none; of what is something else nothing is kept."""
    try:
        return _decode_manifest(content)
    except (msgspec.DecodeError, TypeError, ValueError):
        return None  # an artifact of any other kind
