"""The tables of a process database, column for column as in ``schema/process.sql``."""

from sqlalchemy import (
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    MetaData,
    Named,
    Table,
    Text,
    TypedColumns,
    or_,
    text,
)

from lash_store._kernel.dialects import IsNoJson, JsonText
from lash_store._kernel.leases import LeaseTable
from lash_store._kernel.schema import REPLACES, SQLITE_ONLY, Int, Schema, ordered_indexes

metadata = MetaData()


class ProcessColumns(TypedColumns):
    """Background processes; status, owner and time repeat what ``record_json`` says, for queries."""

    process_id = Column(Text, primary_key=True, nullable=True)
    registration_hash: Named[str] = Column(Text, nullable=False)
    owner_scope_id: Named[str] = Column(Text, nullable=False)
    created_at_ms: Named[int] = Column(Int, nullable=False)
    updated_at_ms: Named[int] = Column(Int, nullable=False)
    status: Named[str] = Column(Text, nullable=False)
    record_json: Named[str] = Column(Text, nullable=False)


class ProcessEventColumns(TypedColumns):
    """Each process's event log, numbered from 1 without gaps."""

    process_id = Column(
        Text, ForeignKey("processes.process_id", ondelete="CASCADE"), primary_key=True
    )
    sequence = Column(Int, primary_key=True, autoincrement=False)
    event_type: Named[str] = Column(Text, nullable=False)
    payload_hash: Named[str] = Column(Text, nullable=False)
    idempotency_key: Named[str | None] = Column(Text)
    occurred_at_ms: Named[int] = Column(Int, nullable=False)
    event_json: Named[str] = Column(Text, nullable=False)


class ProcessWakeAckColumns(TypedColumns):
    """Wakes that were delivered and need not be shown again."""

    process_id = Column(
        Text, ForeignKey("processes.process_id", ondelete="CASCADE"), primary_key=True
    )
    sequence = Column(Int, primary_key=True, autoincrement=False)


class ProcessHandleGrantColumns(TypedColumns):
    """Which scope of which session may see and steer a process."""

    session_id: Named[str] = Column(Text, nullable=False)
    scope_id = Column(Text, primary_key=True)
    process_id = Column(
        Text, ForeignKey("processes.process_id", ondelete="CASCADE"), primary_key=True
    )
    descriptor_json: Named[str] = Column(Text, nullable=False)


class ProcessLeaseColumns(TypedColumns):
    """Which worker runs a process now."""

    process_id = Column(
        Text,
        ForeignKey("processes.process_id", ondelete="CASCADE"),
        primary_key=True,
        nullable=True,
    )
    lease_owner_id: Named[str | None] = Column(Text)
    lease_token: Named[str | None] = Column(Text)
    lease_fencing_token: Named[int] = Column(Int, nullable=False, server_default=text("0"))
    lease_claimed_at_ms: Named[int] = Column(Int, nullable=False, server_default=text("0"))
    lease_expires_at_ms: Named[int] = Column(Int, nullable=False, server_default=text("0"))


processes = ordered_indexes(Table("processes", metadata, ProcessColumns))
process_events = ordered_indexes(Table("process_events", metadata, ProcessEventColumns))
process_wake_acks = Table("process_wake_acks", metadata, ProcessWakeAckColumns)
process_handle_grants = ordered_indexes(
    Table("process_handle_grants", metadata, ProcessHandleGrantColumns)
)
process_leases = Table("process_leases", metadata, ProcessLeaseColumns)

Index("idx_processes_status", processes.c.status)
_keyed = process_events.c.idempotency_key.is_not(None)
Index(
    "idx_process_events_key",
    process_events.c.process_id,
    process_events.c.idempotency_key,
    unique=True,
    sqlite_where=_keyed,
)
Index("idx_process_handle_grants_session", process_handle_grants.c.session_id)
Index("idx_process_handle_grants_process", process_handle_grants.c.process_id)

CLAIM_ORDER = Index(
    "idx_processes_claim_order",
    processes.c.status,
    processes.c.created_at_ms,
    processes.c.process_id,
    info={REPLACES: "idx_processes_status"},
)
"""For ``extras`` of a file: by it ``claim_next`` finds the oldest process, however many wait.

Without it each call sorts all that run: the canonical schema has no index for that order. A shared
database has it by itself; a file that has it may be opened without naming it.
"""


def is_wake() -> ColumnElement[bool]:
    """A condition on ``process_events``: the event woke somebody, or can't be read."""
    wakes = JsonText(process_events.c.event_json, "semantics", "wake").is_not(None)
    # What can't be read may be a wake: whoever reads it says so.
    return or_(wakes, IsNoJson(process_events.c.event_json))


WAKE_EVENTS = Index(
    "idx_process_events_wakes",
    process_events.c.process_id,
    process_events.c.sequence,
    sqlite_where=is_wake(),
    info={SQLITE_ONLY: True},  # whether a text is JSON may change there with the server's version
)
"""For ``extras`` of a file: by it wakes are found in a log of any length that has few of them.

Each append looks into its event for that. A shared SQLite database has it by itself; a file that has
it may be opened without naming it.
"""

SCHEMA = Schema(
    kind="process",
    version=7,
    metadata=metadata,
    tables=(processes, process_events, process_wake_acks, process_handle_grants, process_leases),
    optional=(CLAIM_ORDER, WAKE_EVENTS),
)

PROCESS_LEASES = LeaseTable(
    process_leases,
    key=process_leases.c.process_id,
    owner_id=process_leases.c.lease_owner_id,
    token=process_leases.c.lease_token,
    fencing_token=process_leases.c.lease_fencing_token,
    claimed_at_ms=process_leases.c.lease_claimed_at_ms,
    expires_at_ms=process_leases.c.lease_expires_at_ms,
    # P-LEASE-1: a worker that comes back under its old name fences off what it was before.
    reentrant=False,
)
"""The process lease: who may run a process."""
