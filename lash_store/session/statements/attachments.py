"""Statements on attachments: announced, committed, forgotten."""

from __future__ import annotations

from sqlalchemy import Update, update

from lash_store.session.tables import attachment_manifest

_manifest = attachment_manifest.c


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
