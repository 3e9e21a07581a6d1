"""Attachments and artifacts."""

from collections.abc import Iterable
from typing import Final

from lash_store._kernel.checks import check_name, check_names, check_time
from lash_store._kernel.codecs import read_as
from lash_store.errors import CorruptRecordError
from lash_store.session import statements
from lash_store.session.context import SessionContext, Tx, Work, chosen_session
from lash_store.session.operations.blobs import check_ref, put_blob, read_blob
from lash_store.session.records.attachments import ARTIFACT_KINDS, Attachment
from lash_store.session.tables import artifact_refs, attachment_manifest

_MANIFEST: Final = attachment_manifest.name


def record_attachment_intent(
    context: SessionContext,
    attachment_id: str,
    *,
    canonical_uri: str,
    intent_at_ms: int | None = None,
    session_id: str | None = None,
) -> Work[bool]:
    """Announce an attachment before its bytes are written (S-ATT-1); now unless given.

    Again with the same id: an uncommitted one gets the new time, its session and URI stay.
    False, and nothing changed, if it is committed.
    """
    owner = chosen_session(context, session_id)
    name = check_name("attachment_id", attachment_id)
    uri = check_name("canonical_uri", canonical_uri)
    at_ms = None if intent_at_ms is None else check_time("intent_at_ms", intent_at_ms)

    def record(tx: Tx) -> bool:
        changed = statements.record_attachment_intent.run(
            tx.own_cursor,
            attachment_id=name,
            session_id=owner,
            canonical_uri=uri,
            intent_at_ms=tx.now_ms if at_ms is None else at_ms,
        )
        return changed == 1

    return record


def commit_attachments(
    context: SessionContext, attachment_ids: Iterable[str], *, session_id: str | None = None
) -> Work[int]:
    """Stamp attachments of this session committed, once; return how many were stamped."""
    owner = chosen_session(context, session_id)
    names = tuple(check_names("attachment_ids", attachment_ids))

    def commit(tx: Tx) -> int:
        with tx.all_or_nothing():
            return stamp_attachments(tx, owner, names)

    return commit


def stamp_attachments(tx: Tx, session_id: str, attachment_ids: Iterable[str]) -> int:
    """Stamp attachments of a session committed, on an open transaction."""
    cursor, now_ms = tx.own_cursor, tx.now_ms
    rows = [
        statements.commit_attachment.bind(
            cursor, session_id=session_id, attachment_id=attachment_id, now_ms=now_ms
        )
        for attachment_id in attachment_ids
    ]
    return statements.commit_attachment.many(cursor, rows) if rows else 0


def list_uncommitted_attachments(
    _: SessionContext, *, older_than_ms: int
) -> Work[list[Attachment]]:
    """Return what was announced up to `older_than_ms` and never committed, oldest first."""
    check_time("older_than_ms", older_than_ms)

    def list_uncommitted(tx: Tx) -> list[Attachment]:
        rows = statements.list_uncommitted_attachments.all(
            tx.own_cursor, older_than_ms=older_than_ms
        )
        names = Attachment.__struct_fields__
        return [
            read_as(Attachment, _MANIFEST, row[0], dict(zip(names, row, strict=True)))
            for row in rows
        ]

    return list_uncommitted


def forget_attachment(_: SessionContext, attachment_id: str) -> Work[bool]:
    """Remove an attachment's row, committed or not; tell whether there was one."""
    name = check_name("attachment_id", attachment_id)

    def forget(tx: Tx) -> bool:
        return statements.forget_attachment.run(tx.own_cursor, attachment_id=name) == 1

    return forget


def sweep_attachment(_: SessionContext, attachment_id: str, *, older_than_ms: int) -> Work[bool]:
    """Remove what ``list_uncommitted_attachments`` has given, if it still does (S-ATT-1).

    True if this call removed it: now its bytes can be deleted. False, and nothing changed, if a turn has
    committed it since, it was announced anew, or is no more: its bytes are somebody's, or nobody's to delete.
    """
    name = check_name("attachment_id", attachment_id)
    check_time("older_than_ms", older_than_ms)

    def sweep(tx: Tx) -> bool:
        swept = statements.sweep_attachment.run(
            tx.own_cursor, attachment_id=name, older_than_ms=older_than_ms
        )
        return swept == 1

    return sweep


def put_artifact(
    context: SessionContext, artifact_ref: str, *, kind: str, content: bytes
) -> Work[str]:
    """Store `content` and point `artifact_ref` at it; return the blob's key (S-ATT-2)."""
    name = check_name("artifact_ref", artifact_ref)
    blob_kind = ARTIFACT_KINDS.get(check_name("kind", kind), "GenericBlob")
    store_blob = put_blob(context, content, kind=blob_kind)

    def put(tx: Tx) -> str:
        with tx.all_or_nothing():
            blob_ref = store_blob(tx)
            statements.put_artifact.later(tx.own_cursor, artifact_ref=name, blob_ref=blob_ref)
            return blob_ref

    return put


def load_artifact(_: SessionContext, artifact_ref: str) -> Work[bytes | None]:
    """Return an artifact's bytes, or None if there is none of that name.

    Raises CorruptRecordError if the name leads to no blob.
    """
    name = check_name("artifact_ref", artifact_ref)

    def load(tx: Tx) -> bytes | None:
        row = statements.load_artifact.one(tx.own_cursor, artifact_ref=name)
        if row is None:
            return None
        content = read_blob(tx, check_ref(artifact_refs.name, name, row[1]))
        if content is None:
            raise CorruptRecordError(artifact_refs.name, name, f"its blob {row[1]!r} is missing")
        return content

    return load
