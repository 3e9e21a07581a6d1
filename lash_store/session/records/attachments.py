"""Attachments, artifacts, and what a garbage collection reports."""

from typing import Final

import msgspec

from lash_store.session.records.blobs import BlobKind

ARTIFACT_KINDS: Final[dict[str, BlobKind]] = {
    "process_execution_env": "ProcessExecutionEnv",
    "lashlang_module": "LashlangModule",
}
"""Kind texts of artifacts with a blob kind of their own; any other text is a GenericBlob."""


class Attachment(msgspec.Struct, frozen=True):
    """An attachment that was announced; times are milliseconds since the epoch (S-ATT-1)."""

    attachment_id: str
    session_id: str
    canonical_uri: str
    intent_at_ms: int
    committed_at_ms: int | None


class CollectionReport(msgspec.Struct, frozen=True):
    """What a garbage collection of blobs found and did, or would do (S-GC-1).

    `roots` are the refs that keep blobs, `missing_roots` those whose blob is not there;
    `deleted` are the keys that were removed, or would be if `dry_run`; `deleted_bytes` is what
    they take as stored.
    """

    roots: tuple[str, ...]
    missing_roots: tuple[str, ...]
    retained: int
    deleted: tuple[str, ...]
    deleted_bytes: int
    dry_run: bool
