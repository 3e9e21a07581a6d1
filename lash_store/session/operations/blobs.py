"""Blobs and checkpoints."""

from typing import Any, Final

import msgspec

from lash_store._kernel.checks import check_choice, check_name, shown
from lash_store._kernel.codecs import content_hash, decode_msgpack, encode_msgpack, on_any_stack
from lash_store.errors import CorruptRecordError, InvalidRecordError
from lash_store.session import statements
from lash_store.session.context import SessionContext, Tx, Work
from lash_store.session.records.blobs import (
    KINDS,
    BlobKind,
    pack_blob,
    unpack_blob,
)
from lash_store.session.records.checkpoints import (
    Checkpoint,
    Manifest,
    WrittenCheckpoint,
    written_checkpoint,
)
from lash_store.session.tables import blobs

_TABLE: Final = blobs.name
_decode_manifest: Final = on_any_stack(msgspec.msgpack.Decoder(Manifest).decode)


def put_blob(
    context: SessionContext, content: bytes, *, kind: BlobKind = "GenericBlob"
) -> Work[str]:
    """Store `content` and return its key, the SHA-256 of it in hex; storing again is harmless.

    Nothing refers to a blob that was stored so: the next garbage collection removes it
    unless an artifact or the head's checkpoint leads to it (S-GC-1).
    """
    if not isinstance(content, bytes):
        raise InvalidRecordError("content", shown(content), "must be bytes")
    check_choice("kind", kind, KINDS)
    plain = bytes(content)
    key = content_hash(plain)
    packed = pack_blob(plain, kind, context.profile)

    def put(tx: Tx) -> str:
        statements.put_blob.later(tx.own_cursor, key=key, content=packed)
        return key

    return put


def load_blob(_: SessionContext, key: str) -> Work[bytes | None]:
    """Return a blob's content, or None if there is none of that key (S-BLOB-3).

    Raises CorruptRecordError if no form of what is stored has the key's hash.
    """
    name = check_name("key", key)

    def load(tx: Tx) -> bytes | None:
        return read_blob(tx, name)

    return load


def load_checkpoint(_: SessionContext, checkpoint_ref: str) -> Work[Checkpoint]:
    """Return a checkpoint with its components (S-CKPT-2).

    Raises CorruptRecordError for a manifest or component that is missing or can't be read.
    """
    ref = check_name("checkpoint_ref", checkpoint_ref)

    def load(tx: Tx) -> Checkpoint:
        manifest = read_manifest(tx, ref)
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

    return load


def load_manifest(_: SessionContext, checkpoint_ref: str) -> Work[Manifest]:
    """Return a checkpoint's manifest, without its components; CorruptRecordError if missing."""
    ref = check_name("checkpoint_ref", checkpoint_ref)

    def load(tx: Tx) -> Manifest:
        return read_manifest(tx, ref)

    return load


def put_checkpoint(context: SessionContext, checkpoint: Checkpoint) -> Work[tuple[str, Manifest]]:
    """Store a checkpoint's components and manifest; return the checkpoint_ref and manifest.

    Raises InvalidRecordError for a ref that is not among the blobs, before anything is
    written. A turn's commit does this; on its own, nothing refers to the result.
    """
    return store_checkpoint(context, written_checkpoint(checkpoint))


def store_checkpoint(
    context: SessionContext, checkpoint: WrittenCheckpoint
) -> Work[tuple[str, Manifest]]:
    """Store a checkpoint that was checked; see :func:`put_checkpoint`."""
    given_refs = checkpoint.given_refs
    bodies = checkpoint.bodies
    put_bodies = [
        put_blob(context, bodies[name], kind=kind)
        for name, kind in _COMPONENT_KINDS.items()
        if name in bodies
    ]
    encoded = encode_msgpack(checkpoint.manifest)
    put_manifest = put_blob(context, encoded, kind="CheckpointManifest")

    def put(tx: Tx) -> tuple[str, Manifest]:
        for field, ref in given_refs:
            if statements.find_blob.one(tx.own_cursor, key=ref) is None:
                raise InvalidRecordError(field, shown(ref), "no such blob is stored")
        for put_body in put_bodies:
            put_body(tx)
        # Read again: the caller gets a turn state that nobody else has.
        return put_manifest(tx), _decode_manifest(encoded)

    return put


def check_ref(table: str, row: object, ref: object) -> str:
    """Return what a row holds as the key of a blob; CorruptRecordError if that is no text."""
    if not isinstance(ref, str):
        key = row if isinstance(row, str) else shown(row)
        raise CorruptRecordError(table, key, f"a blob's key is text, not {shown(ref)}")
    return ref


def read_blob(tx: Tx, key: str) -> bytes | None:
    """Read a blob, on an open transaction; see :func:`load_blob`."""
    if "\0" in key:
        return None  # as a row of another program may name it; no blob has such a key
    row = statements.load_blob.one(tx.own_cursor, key=key)
    if row is None:
        return None
    content = unpack_blob(key, row[0])
    if content is None:
        raise CorruptRecordError(_TABLE, key, "the content does not have the key's hash")
    return content


def read_manifest(tx: Tx, checkpoint_ref: str) -> Manifest:
    """Read a checkpoint's manifest, on an open transaction; see :func:`load_manifest`."""
    manifest = find_manifest(tx, checkpoint_ref)
    if manifest is None:
        raise CorruptRecordError(_TABLE, checkpoint_ref, "the checkpoint's manifest is missing")
    return manifest


def find_manifest(tx: Tx, checkpoint_ref: str) -> Manifest | None:
    """Read a checkpoint's manifest if it is stored; CorruptRecordError for what is none."""
    content = read_blob(tx, checkpoint_ref)
    if content is None:
        return None
    written = decode_msgpack(_TABLE, checkpoint_ref, content)
    try:
        return msgspec.convert(written, Manifest)
    except msgspec.ValidationError as error:
        raise CorruptRecordError(_TABLE, checkpoint_ref, f"no manifest: {error}") from error


def _component(tx: Tx, ref: str | None) -> Any:
    if ref is None:
        return None
    content = read_blob(tx, ref)
    if content is None:
        raise CorruptRecordError(_TABLE, ref, "a checkpoint's component is missing")
    return decode_msgpack(_TABLE, ref, content)


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
