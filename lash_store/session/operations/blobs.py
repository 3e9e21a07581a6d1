"""Blobs and checkpoints, on an open transaction."""

from typing import Any, Final

import msgspec

from lash_store._kernel.checks import check_choice, check_name, shown
from lash_store._kernel.codecs import content_hash, decode_msgpack, encode_msgpack
from lash_store.errors import CorruptRecordError, InvalidRecordError
from lash_store.session import statements
from lash_store.session.context import Tx
from lash_store.session.records.blobs import (
    KINDS,
    BlobKind,
    pack_blob,
    unpack_blob,
)
from lash_store.session.records.checkpoints import Checkpoint, Manifest, written_checkpoint
from lash_store.session.tables import blobs

_TABLE: Final = blobs.name


def put_blob(tx: Tx, content: bytes, *, kind: BlobKind = "GenericBlob") -> str:
    """Store `content` and return its key, the SHA-256 of it in hex; storing again is harmless.

    Nothing refers to a blob that was stored so: the next garbage collection removes it
    unless an artifact or the head's checkpoint leads to it (S-GC-1).
    """
    if not isinstance(content, bytes):
        raise InvalidRecordError("content", shown(content), "must be bytes")
    check_choice("kind", kind, KINDS)
    plain = bytes(content)
    key = content_hash(plain)
    statements.put_blob.run(tx.cursor, key=key, content=pack_blob(plain, kind, tx.context.profile))
    return key


def load_blob(tx: Tx, key: str) -> bytes | None:
    """Return a blob's content, or None if there is none of that key (S-BLOB-3).

    Raises CorruptRecordError if no form of what is stored has the key's hash.
    """
    row = statements.load_blob.one(tx.cursor, key=check_name("key", key))
    if row is None:
        return None
    stored = row[0]
    content = unpack_blob(key, stored) if isinstance(stored, bytes) else None
    if content is None:
        raise CorruptRecordError(_TABLE, key, "the content does not have the key's hash")
    return content


def load_checkpoint(tx: Tx, checkpoint_ref: str) -> Checkpoint:
    """Return a checkpoint with its components (S-CKPT-2).

    Raises CorruptRecordError for a manifest or component that is missing or can't be read.
    """
    manifest = load_manifest(tx, checkpoint_ref)
    state = _component(tx, manifest.execution_state_ref)
    execution_state = None if state is None else _bytes_of(manifest.execution_state_ref, state)
    return Checkpoint(
        turn_state=manifest.turn_state,
        tool_state=_component(tx, manifest.tool_state_ref),
        tool_state_ref=manifest.tool_state_ref,
        plugin_snapshot=_component(tx, manifest.plugin_snapshot_ref),
        plugin_snapshot_ref=manifest.plugin_snapshot_ref,
        plugin_snapshot_revision=manifest.plugin_snapshot_revision,
        execution_state=execution_state,
        execution_state_ref=manifest.execution_state_ref,
    )


def load_manifest(tx: Tx, checkpoint_ref: str) -> Manifest:
    """Return a checkpoint's manifest, without its components; CorruptRecordError if missing."""
    content = load_blob(tx, checkpoint_ref)
    if content is None:
        raise CorruptRecordError(_TABLE, checkpoint_ref, "the checkpoint's manifest is missing")
    written = decode_msgpack(_TABLE, checkpoint_ref, content)
    try:
        return msgspec.convert(written, Manifest)
    except msgspec.ValidationError as error:
        raise CorruptRecordError(_TABLE, checkpoint_ref, f"no manifest: {error}") from error


def put_checkpoint(tx: Tx, checkpoint: Checkpoint) -> tuple[str, Manifest]:
    """Store a checkpoint's components and manifest; return the checkpoint_ref and manifest.

    Raises InvalidRecordError for a ref that is not among the blobs, before anything is
    written. A turn's commit does this; on its own, nothing refers to the result.
    """
    parts = written_checkpoint(checkpoint)
    manifest = Manifest(
        turn_state=parts["turn_state"],
        tool_state_ref=_ref(tx, "tool_state", parts, checkpoint.tool_state_ref),
        plugin_snapshot_ref=_ref(tx, "plugin_snapshot", parts, checkpoint.plugin_snapshot_ref),
        plugin_snapshot_revision=checkpoint.plugin_snapshot_revision,
        execution_state_ref=_ref(tx, "execution_state", parts, checkpoint.execution_state_ref),
    )
    for name, kind in _COMPONENT_KINDS.items():
        if name in parts:
            put_blob(tx, encode_msgpack(parts[name]), kind=kind)
    return put_blob(tx, encode_msgpack(manifest), kind="CheckpointManifest"), manifest


def _component(tx: Tx, ref: str | None) -> Any:
    if ref is None:
        return None
    content = load_blob(tx, ref)
    if content is None:
        raise CorruptRecordError(_TABLE, ref, "a checkpoint's component is missing")
    return decode_msgpack(_TABLE, ref, content)


def _ref(tx: Tx, name: str, parts: dict[str, Any], given: str | None) -> str | None:
    """Mint the ref of a body, or check the one that was given."""
    if name in parts:
        return content_hash(encode_msgpack(parts[name]))
    if given is None:
        return None
    ref = check_name(f"{name}_ref", given)
    if statements.find_blob.one(tx.cursor, key=ref) is None:
        raise InvalidRecordError(f"{name}_ref", shown(given), "no such blob is stored")
    return ref


_COMPONENT_KINDS: Final[dict[str, BlobKind]] = {
    "tool_state": "ToolState",
    "plugin_snapshot": "PluginSessionSnapshot",
    "execution_state": "ExecutionStateSnapshot",
}


def _bytes_of(ref: str | None, state: object) -> bytes:
    """Return the bytes of an execution state, stored as bin or as an array of integers."""
    try:
        if isinstance(state, (bytes, list)):
            return bytes(state)
    except (TypeError, ValueError) as error:
        raise CorruptRecordError(_TABLE, str(ref), f"no bytes: {error}") from error
    raise CorruptRecordError(_TABLE, str(ref), f"no bytes, but {shown(state)}")
