"""Statements on attachments: announced, committed, forgotten."""

from sqlalchemy import ColumnElement, Delete, Insert, Select, Update, and_, delete, select, update

from lash_store._kernel.dialects import offered, upsert_insert
from lash_store._kernel.prepared import prepare
from lash_store.session.tables import artifact_refs, attachment_manifest

_manifest = attachment_manifest.c


@prepare
def commit_attachment(*, session_id: str, attachment_id: str, now_ms: int) -> Update:
    """Stamp an attachment of this session committed; the first stamp stays."""
    return (
        update(attachment_manifest)
        .where(
            _manifest.attachment_id == attachment_id,
            _manifest.session_id == session_id,
            _manifest.committed_at_ms.is_(None),
        )
        .values(committed_at_ms=now_ms)
    )


@prepare
def select_attachments() -> Select[str, str, str, int, int | None]:
    """Every attachment: id, session id, canonical URI, intent time, commit time."""
    return select(
        _manifest.attachment_id,
        _manifest.session_id,
        _manifest.canonical_uri,
        _manifest.intent_at_ms,
        _manifest.committed_at_ms,
    )


@prepare
def list_uncommitted_attachments(*, older_than_ms: int) -> Select[str, str, str, int, int | None]:
    """Read the attachments announced up to a time and never committed, the oldest first."""
    order = (_manifest.intent_at_ms, _manifest.attachment_id)
    return select_attachments().where(_is_uncommitted(older_than_ms)).order_by(*order)


@prepare
def record_attachment_intent(
    *, attachment_id: str, session_id: str, canonical_uri: str, intent_at_ms: int
) -> Insert:
    """Announce an attachment; an uncommitted one gets the new time and stays as it is."""
    fresh = upsert_insert(attachment_manifest).values(
        attachment_id=attachment_id,
        session_id=session_id,
        canonical_uri=canonical_uri,
        intent_at_ms=intent_at_ms,
    )
    return fresh.on_conflict_do_update(
        index_elements=[_manifest.attachment_id],
        set_=offered(fresh, _manifest.intent_at_ms),
        where=_manifest.committed_at_ms.is_(None),
    )


@prepare
def forget_attachment(*, attachment_id: str) -> Delete:
    """Remove an attachment's row."""
    return delete(attachment_manifest).where(_manifest.attachment_id == attachment_id)


@prepare
def sweep_attachment(*, attachment_id: str, older_than_ms: int) -> Delete:
    """Remove an attachment's row, if it was announced up to a time and never committed."""
    of_it = _manifest.attachment_id == attachment_id
    # Not by the id alone: since it was listed a turn may have committed it, or its writer begun anew.
    return delete(attachment_manifest).where(of_it, _is_uncommitted(older_than_ms))


def _is_uncommitted(older_than_ms: int) -> ColumnElement[bool]:
    return and_(_manifest.committed_at_ms.is_(None), _manifest.intent_at_ms <= older_than_ms)


@prepare
def select_artifacts() -> Select[str, str]:
    """Every artifact: its name, and the key of its blob."""
    return select(artifact_refs.c.artifact_ref, artifact_refs.c.blob_ref)


@prepare
def load_artifact(*, artifact_ref: str) -> Select[str, str]:
    """Read where one artifact's bytes are."""
    return select_artifacts().where(artifact_refs.c.artifact_ref == artifact_ref)


@prepare
def put_artifact(*, artifact_ref: str, blob_ref: str) -> Insert:
    """Point an artifact's name at a blob, wherever it pointed before."""
    fresh = upsert_insert(artifact_refs).values(artifact_ref=artifact_ref, blob_ref=blob_ref)
    return fresh.on_conflict_do_update(
        index_elements=[artifact_refs.c.artifact_ref],
        set_=offered(fresh, artifact_refs.c.blob_ref),
    )
