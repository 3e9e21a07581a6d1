"""The same work in plain sqlite3, as one would write it by hand for speed."""

from __future__ import annotations

import secrets
import sqlite3
import time
from pathlib import Path

_SETTINGS = (
    "PRAGMA page_size = 2048",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -2000",
    "PRAGMA temp_store = MEMORY",
)

_CLAIM = """
INSERT INTO session_execution_leases VALUES (?, ?, ?, 1, ?, ?)
ON CONFLICT (session_id) DO UPDATE SET
  lease_owner_id = excluded.lease_owner_id,
  lease_token = CASE WHEN lease_token IS NULL OR lease_expires_at_ms <= ?
    THEN excluded.lease_token ELSE lease_token END,
  lease_fencing_token = CASE WHEN lease_token IS NULL OR lease_expires_at_ms <= ?
    THEN lease_fencing_token + 1 ELSE lease_fencing_token END,
  lease_claimed_at_ms = CASE WHEN lease_token IS NULL OR lease_expires_at_ms <= ?
    THEN excluded.lease_claimed_at_ms ELSE lease_claimed_at_ms END,
  lease_expires_at_ms = excluded.lease_expires_at_ms
WHERE lease_token IS NULL OR lease_expires_at_ms <= ? OR lease_owner_id = ?
RETURNING *"""

_TERM = """session_id = ? AND lease_owner_id = ? AND lease_token = ? AND lease_fencing_token = ?"""

_RENEW = f"""
UPDATE session_execution_leases SET lease_expires_at_ms = ?
WHERE {_TERM} AND lease_expires_at_ms > ? RETURNING *"""

_RELEASE = f"""
UPDATE session_execution_leases
SET lease_owner_id = NULL, lease_token = NULL, lease_claimed_at_ms = 0, lease_expires_at_ms = 0
WHERE {_TERM}"""

Term = tuple[str, str, str, int, int, int]


def connect(path: Path, *, timeout_s: float = 15.0) -> sqlite3.Connection:
    """Open a connection with the settings that the stores use."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=timeout_s)
    for setting in _SETTINGS:
        connection.execute(setting)
    return connection


def claim(
    connection: sqlite3.Connection,
    session_id: str,
    owner_id: str,
    ttl_ms: int,
    *,
    hold_s: float = 0.0,
) -> Term:
    """Claim or re-enter a lease in one transaction, and hold the write lock for a while."""
    token = secrets.token_hex(16)
    connection.execute("BEGIN IMMEDIATE")
    try:
        now = time.time_ns() // 1_000_000
        values = (session_id, owner_id, token, now, now + ttl_ms, now, now, now, now, owner_id)
        row: Term = connection.execute(_CLAIM, values).fetchall()[0]
        if hold_s:
            time.sleep(hold_s)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return row


def renew(connection: sqlite3.Connection, term: Term, ttl_ms: int) -> Term:
    """Renew a lease in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        now = time.time_ns() // 1_000_000
        row: Term = connection.execute(_RENEW, (now + ttl_ms, *term[:4], now)).fetchall()[0]
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return row


def release(connection: sqlite3.Connection, term: Term) -> int:
    """Release a lease in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        changed = connection.execute(_RELEASE, term[:4]).rowcount
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return changed
