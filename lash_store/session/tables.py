"""The tables of a session database, column for column as in ``schema/session.sql``.

``nullable=True`` on a single-column primary key only keeps SQLAlchemy from adding a NOT NULL
that the canonical DDL does not have; no row holds a NULL there. ``FetchedValue()`` says of the
columns that a database numbers by itself that it does: an ORM Session flushes several rows by that.
"""

from typing import Final

from sqlalchemy import (
    Column,
    FetchedValue,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    Named,
    Table,
    Text,
    TypedColumns,
    UniqueConstraint,
    text,
)

from lash_store._kernel.leases import LeaseTable
from lash_store._kernel.schema import UNSHARED, Int, Schema, UnnamedCheck, ordered_indexes

metadata = MetaData()


class BlobColumns(TypedColumns):
    """Content-addressed blobs: checkpoints, their components, artifacts."""

    hash = Column(Text, primary_key=True, nullable=True)
    content: Named[bytes] = Column(LargeBinary, nullable=False)


class SessionHeadColumns(TypedColumns):
    """The session's head, one row; ``head_revision`` is the truth about the revision."""

    singleton = Column(
        Int, UnnamedCheck("singleton = 1"), primary_key=True, nullable=True, autoincrement=False
    )
    session_id: Named[str] = Column(Text, nullable=False, server_default="root")
    head_json: Named[str] = Column(Text, nullable=False, server_default="{}")
    head_revision: Named[int] = Column(Int, nullable=False, server_default=text("0"))


class GraphNodeColumns(TypedColumns):
    """The conversation graph; ``seq`` orders it, a tombstoned node is never seen again."""

    seq = Column(Int, FetchedValue(), primary_key=True, nullable=True, autoincrement=True)
    node_id: Named[str] = Column(Text, nullable=False)
    node_json: Named[str] = Column(Text, nullable=False)
    tombstoned: Named[int] = Column(Int, nullable=False, server_default=text("0"))


class UsageDeltaColumns(TypedColumns):
    """Tokens used, one row per report, only ever appended."""

    seq = Column(Int, FetchedValue(), primary_key=True, nullable=True, autoincrement=True)
    source: Named[str] = Column(Text, nullable=False)
    model: Named[str] = Column(Text, nullable=False)
    input_tokens: Named[int] = Column(Int, nullable=False)
    output_tokens: Named[int] = Column(Int, nullable=False)
    cached_input_tokens: Named[int] = Column(Int, nullable=False)
    reasoning_tokens: Named[int] = Column(Int, nullable=False)


class SessionMetaColumns(TypedColumns):
    """What the session is called and where it came from, one row."""

    singleton = Column(
        Int, UnnamedCheck("singleton = 1"), primary_key=True, nullable=True, autoincrement=False
    )
    session_id: Named[str] = Column(Text, nullable=False)
    session_name: Named[str] = Column(Text, nullable=False)
    created_at: Named[str] = Column(Text, nullable=False)
    model: Named[str] = Column(Text, nullable=False)
    cwd: Named[str | None] = Column(Text)
    relation_json: Named[str | None] = Column(Text)


class RuntimeTurnCommitColumns(TypedColumns):
    """Receipts of committed turns: the idempotency record of ``commit_turn``."""

    session_id = Column(Text, primary_key=True)
    turn_id = Column(Text, primary_key=True)
    turn_commit_hash: Named[str] = Column(Text, nullable=False)
    result_json: Named[str] = Column(Text, nullable=False)
    committed_at_ms: Named[int] = Column(Int, nullable=False)


class SessionExecutionLeaseColumns(TypedColumns):
    """Who may execute a session now; the row outlives its terms, to keep the fencing number."""

    session_id = Column(Text, primary_key=True, nullable=True)
    lease_owner_id: Named[str | None] = Column(Text)
    lease_token: Named[str | None] = Column(Text)
    lease_fencing_token: Named[int] = Column(Int, nullable=False, server_default=text("0"))
    lease_claimed_at_ms: Named[int] = Column(Int, nullable=False, server_default=text("0"))
    lease_expires_at_ms: Named[int] = Column(Int, nullable=False, server_default=text("0"))


class QueuedWorkBatchColumns(TypedColumns):
    """Work waiting for a session, in ``enqueue_seq`` order, with the claim on it if there is one."""

    enqueue_seq = Column(Int, FetchedValue(), primary_key=True, nullable=True, autoincrement=True)
    batch_id: Named[str] = Column(Text, nullable=False)
    session_id: Named[str] = Column(Text, nullable=False)
    source_key: Named[str | None] = Column(Text)
    delivery_policy: Named[str] = Column(Text, nullable=False)
    slot_policy: Named[str] = Column(Text, nullable=False)
    merge_key_json: Named[str] = Column(Text, nullable=False)
    available_at_ms: Named[int] = Column(Int, nullable=False)
    enqueued_at_ms: Named[int] = Column(Int, nullable=False)
    claim_id: Named[str | None] = Column(Text)
    claim_owner_id: Named[str | None] = Column(Text)
    claim_token: Named[str | None] = Column(Text)
    claim_fencing_token: Named[int] = Column(Int, nullable=False, server_default=text("0"))
    claim_claimed_at_ms: Named[int] = Column(Int, nullable=False, server_default=text("0"))
    claim_expires_at_ms: Named[int] = Column(Int, nullable=False, server_default=text("0"))


class QueuedWorkItemColumns(TypedColumns):
    """The payloads of a batch, in order; they go when their batch goes."""

    batch_id = Column(
        Text, ForeignKey("queued_work_batches.batch_id", ondelete="CASCADE"), primary_key=True
    )
    item_index = Column(Int, primary_key=True, autoincrement=False)
    item_id: Named[str] = Column(Text, nullable=False)
    payload_json: Named[str] = Column(Text, nullable=False)


class AttachmentManifestColumns(TypedColumns):
    """Attachments announced before their bytes are written, stamped once a turn commits them."""

    attachment_id = Column(Text, primary_key=True, nullable=True)
    session_id: Named[str] = Column(Text, nullable=False)
    canonical_uri: Named[str] = Column(Text, nullable=False)
    intent_at_ms: Named[int] = Column(Int, nullable=False)
    committed_at_ms: Named[int | None] = Column(Int)


class ArtifactRefColumns(TypedColumns):
    """Names for blobs."""

    artifact_ref = Column(Text, primary_key=True, nullable=True)
    blob_ref: Named[str] = Column(Text, nullable=False)


blobs = Table("blobs", metadata, BlobColumns)
session_head = Table("session_head", metadata, SessionHeadColumns)
graph_nodes = Table("graph_nodes", metadata, GraphNodeColumns, UniqueConstraint("node_id"))
usage_deltas = Table("usage_deltas", metadata, UsageDeltaColumns)
session_meta = Table("session_meta", metadata, SessionMetaColumns)
runtime_turn_commits = Table("runtime_turn_commits", metadata, RuntimeTurnCommitColumns)
session_execution_leases = Table("session_execution_leases", metadata, SessionExecutionLeaseColumns)
queued_work_batches = ordered_indexes(
    Table(
        "queued_work_batches",
        metadata,
        QueuedWorkBatchColumns,
        # First, so that create_all() numbers the automatic indexes as the canonical DDL does.
        UniqueConstraint("batch_id"),
        # A second enqueue of the same source is swallowed, not an error.
        UniqueConstraint("session_id", "source_key", sqlite_on_conflict="IGNORE"),
    )
)
queued_work_items = Table("queued_work_items", metadata, QueuedWorkItemColumns)
attachment_manifest = ordered_indexes(
    Table("attachment_manifest", metadata, AttachmentManifestColumns)
)
artifact_refs = Table("artifact_refs", metadata, ArtifactRefColumns)

Index(
    "idx_queued_work_ready",
    queued_work_batches.c.session_id,
    queued_work_batches.c.available_at_ms,
    queued_work_batches.c.enqueue_seq,
    info={UNSHARED: True},  # what would read it reads the key, which is in the order of the queue
)
Index(
    "idx_queued_work_claim",
    queued_work_batches.c.session_id,
    queued_work_batches.c.claim_id,
    queued_work_batches.c.claim_token,
)
Index(
    "idx_attachment_manifest_session",
    attachment_manifest.c.session_id,
    attachment_manifest.c.committed_at_ms,
)
_uncommitted = attachment_manifest.c.committed_at_ms.is_(None)
Index(
    "idx_attachment_manifest_uncommitted",
    attachment_manifest.c.committed_at_ms,
    sqlite_where=_uncommitted,
)

SCHEMA = Schema(
    kind="session",
    version=4,
    metadata=metadata,
    tables=(
        blobs,
        session_head,
        graph_nodes,
        usage_deltas,
        session_meta,
        runtime_turn_commits,
        session_execution_leases,
        queued_work_batches,
        queued_work_items,
        attachment_manifest,
        artifact_refs,
    ),
    is_scoped=True,
)

EXECUTION_LEASES = LeaseTable(
    session_execution_leases,
    key=session_execution_leases.c.session_id,
    owner_id=session_execution_leases.c.lease_owner_id,
    token=session_execution_leases.c.lease_token,
    fencing_token=session_execution_leases.c.lease_fencing_token,
    claimed_at_ms=session_execution_leases.c.lease_claimed_at_ms,
    expires_at_ms=session_execution_leases.c.lease_expires_at_ms,
    reentrant=True,  # S-LEASE-1
)
"""The session execution lease: who may run turns of a session."""

BATCH_COLUMNS: Final = (
    "enqueue_seq",
    "batch_id",
    "session_id",
    "source_key",
    "delivery_policy",
    "slot_policy",
    "merge_key_json",
    "available_at_ms",
    "enqueued_at_ms",
)
"""What a batch itself is, in the order in which every read of batches has it; the rest is its claim's."""
