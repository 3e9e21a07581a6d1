"""Statements on the process lease."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Select, Update, select
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from lash_store.process.tables import PROCESS_LEASES, process_leases


def select_leases() -> Select[str, str | None, str | None, int, int, int]:
    """Every process lease in the file, live or not.

    Columns: process id, owner id, token, fencing number, claimed-at, expires-at.
    """
    leases = process_leases.c
    return select(
        leases.process_id,
        leases.lease_owner_id,
        leases.lease_token,
        leases.lease_fencing_token,
        leases.lease_claimed_at_ms,
        leases.lease_expires_at_ms,
    )


def is_live(*, now_ms: int) -> ColumnElement[bool]:
    """A condition on ``process_leases``: somebody holds the lease at `now_ms`."""
    return PROCESS_LEASES.is_live(now_ms=now_ms)


def current_lease(*, process_id: str) -> Select[str, str | None, str | None, int, int, int]:
    """Read the row of one process's lease, live or not."""
    return select_leases().where(process_leases.c.process_id == process_id)


def claim_lease(
    *, process_id: str, owner_id: str, token: str, now_ms: int, expires_at_ms: int
) -> ReturningInsert[str, str | None, str | None, int, int, int]:
    """Take a process's lease if it is free (K-LEASE-1), or one's own anew (P-LEASE-1).

    Returns the row of the term; no row while another owner is live (K-LEASE-2).
    """
    return PROCESS_LEASES.claim_lease(
        key=process_id,
        owner_id=owner_id,
        token=token,
        now_ms=now_ms,
        expires_at_ms=expires_at_ms,
    )


def renew_lease(
    *,
    process_id: str,
    owner_id: str,
    token: str,
    fencing_token: int,
    now_ms: int,
    expires_at_ms: int,
) -> ReturningUpdate[str, str | None, str | None, int, int, int]:
    """Move the end of the exact live term (K-LEASE-3); no row comes back for any other."""
    return PROCESS_LEASES.renew_lease(
        key=process_id,
        owner_id=owner_id,
        token=token,
        fencing_token=fencing_token,
        now_ms=now_ms,
        expires_at_ms=expires_at_ms,
    )


def release_lease(*, process_id: str, owner_id: str, token: str, fencing_token: int) -> Update:
    """End the exact term and keep its fencing number (K-LEASE-4); changes no other row."""
    return PROCESS_LEASES.release_lease(
        key=process_id, owner_id=owner_id, token=token, fencing_token=fencing_token
    )
