"""Foreign keys on a connection of an application's own, which may turn them off: before it, and aloud."""

import re
import sqlite3
from typing import Any, Final

from sqlalchemy import Connection

from lash_store._backends.sqlite import dialect
from lash_store._backends.sqlite.driver import unobserved
from lash_store.errors import NotConfiguredError, TransactionControlError

_INFO_SET: Final = "lash_store_keys"

_GAP: Final = r"(?:\s|;|--[^\n]*(?:\n|$)|/\*.*?\*/)*"
_OFF: Final = re.compile(
    rf"""{_GAP}PRAGMA{_GAP}(?:[\w"'`\[\]]+{_GAP}\.{_GAP})?["'`\[]?foreign_keys["'`\]]?{_GAP}"""
    rf"""[=(](?!{_GAP}["'`\[]?(?:\+?0*[1-9]|ON\b|YES\b|TRUE\b))""",
    re.IGNORECASE | re.DOTALL,
)
"""By every value that is not a true one: SQLite takes whatever else it is for OFF."""


def keep_keys(dbapi: Any, record: Any) -> None:
    """Have them kept on a new connection; what the application sets as it connects comes behind that."""
    cursor = dbapi.cursor()
    try:
        cursor.execute(dialect.KEEP_KEYS)
    finally:
        cursor.close()
    record.info[_INFO_SET] = True


def are_set(connection: Connection) -> bool:
    """Whether they were set as it was connected; one that is older than its engine's configuring has that to come."""
    return _INFO_SET in connection.info


def check_kept(connection: Connection, cursor: sqlite3.Cursor) -> None:
    """Refuse a connection on which what we write would leave rows that belong to none (K-TX-8)."""
    if unobserved(cursor, dialect.ARE_KEYS_KEPT) != [(1,)]:
        raise NotConfiguredError(
            f"foreign keys are off on {connection!r}: the stores' rows count on them, so turn them on, outside of "
            f"any transaction, by `{dialect.KEEP_KEYS}`"
        )


def check_not_turned_off(statement: str) -> None:
    """Refuse to turn them off in a transaction, where SQLite passes over that without a word.

    What follows counts on it: a table that is made anew takes the rows that refer to it along as it is dropped.
    """
    if _OFF.match(statement):
        raise TransactionControlError(
            f"{statement!r} has no effect in a transaction, and a configured engine begins one with the first statement: "
            "send it under AUTOCOMMIT before, or have what it is for done on an engine that is not configured"
        )
