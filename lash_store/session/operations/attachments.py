"""Attachments and artifacts, on an open transaction."""

from collections.abc import Iterable

from lash_store._kernel.checks import check_count, check_name, check_names
from lash_store.errors import CorruptRecordError
from lash_store.session import statements
from lash_store.session.context import Tx, chosen_session
from lash_store.session.operations.blobs import load_blob, put_blob
from lash_store.session.records.attachments import ARTIFACT_KINDS, Attachment
from lash_store.session.tables import artifact_refs


def record_attachment_intent(
    tx: Tx,
    attachment_id: str,
    *,
    canonical_uri: str,
    intent_at_ms: int | None = None,
    session_id: str | None = None,
) -> bool:
    """Announce an attachment before its bytes are written (S-ATT-1); now unless given.

    Again with the same id: an uncommitted one gets the new time, its session and URI stay.
    False, and nothing changed, if it is committed.
    """
    owner = chosen_session(tx, session_id)
    at_ms = tx.now_ms if intent_at_ms is None else intent_at_ms
    changed = statements.record_attachment_intent.run(
        tx.cursor,
        attachment_id=check_name("attachment_id", attachment_id),
        session_id=owner,
        canonical_uri=check_name("canonical_uri", canonical_uri),
        intent_at_ms=check_count("intent_at_ms", at_ms),
    )
    return changed == 1


def commit_attachments(
    tx: Tx, attachment_ids: Iterable[str], *, session_id: str | None = None
) -> int:
    """Stamp attachments of this session committed, once; return how many were stamped."""
    owner = chosen_session(tx, session_id)
    names = check_names("attachment_id", attachment_ids)
    cursor, now_ms = tx.cursor, tx.now_ms
    return sum(
        statements.commit_attachment.run(
            cursor, session_id=owner, attachment_id=name, now_ms=now_ms
        )
        for name in names
    )


def list_uncommitted_attachments(tx: Tx, *, older_than_ms: int) -> list[Attachment]:
    """Return what was announced up to `older_than_ms` and never committed, oldest first."""
    check_count("older_than_ms", older_than_ms)
    rows = statements.list_uncommitted_attachments.all(tx.cursor, older_than_ms=older_than_ms)
    return [Attachment(*row) for row in rows]


def forget_attachment(tx: Tx, attachment_id: str) -> bool:
    """Remove an attachment's row; tell whether there was one."""
    name = check_name("attachment_id", attachment_id)
    return statements.forget_attachment.run(tx.cursor, attachment_id=name) == 1


def put_artifact(tx: Tx, artifact_ref: str, *, kind: str, content: bytes) -> str:
    """Store `content` and point `artifact_ref` at it; return the blob's key (S-ATT-2)."""
    name = check_name("artifact_ref", artifact_ref)
    blob_kind = ARTIFACT_KINDS.get(check_name("kind", kind), "GenericBlob")
    blob_ref = put_blob(tx, content, kind=blob_kind)
    statements.put_artifact.run(tx.cursor, artifact_ref=name, blob_ref=blob_ref)
    return blob_ref


def load_artifact(tx: Tx, artifact_ref: str) -> bytes | None:
    """Return an artifact's bytes, or None if there is none of that name.

    Raises CorruptRecordError if the name leads to no blob.
    """
    name = check_name("artifact_ref", artifact_ref)
    row = statements.load_artifact.one(tx.cursor, artifact_ref=name)
    if row is None:
        return None
    content = load_blob(tx, row[1])
    if content is None:
        raise CorruptRecordError(artifact_refs.name, name, f"its blob {row[1]!r} is missing")
    return content
