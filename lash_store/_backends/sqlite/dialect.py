"""The SQLite dialect that statements are compiled for, and the SQL that only SQLite has."""

import re
import sqlite3
from typing import Final

from sqlalchemy import Dialect, FromClause
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from lash_store._kernel.options import Synchronous
from lash_store.errors import TransactionControlError


class _HintingCompiler(SQLiteCompiler):
    """SQLAlchemy's own drops ``with_hint()`` for SQLite without a word."""

    def get_from_hint_text(self, table: FromClause, text: str | None) -> str | None:  # noqa: ARG002 # reason: SQLAlchemy's signature
        """Return the hint, which goes behind the table's name: INDEXED BY."""
        return text


class _StoreDialect(SQLiteDialect_pysqlite):
    statement_compiler = _HintingCompiler
    supports_statement_cache = True


SQLITE: Final[Dialect] = _StoreDialect(dbapi=sqlite3)
"""The dialect that the stores compile their statements for."""

MINIMUM_SQLITE: Final = (3, 35, 0)
"""The first SQLite with RETURNING (K-OPEN-8)."""

BEGIN_WRITE: Final = "BEGIN IMMEDIATE"
"""Takes the write lock up front: a read that later wants to write can't wait for it."""

BEGIN_READ: Final = "BEGIN DEFERRED"
COMMIT: Final = "COMMIT"
ROLLBACK: Final = "ROLLBACK"
LEAVE_WAL: Final = "PRAGMA journal_mode = DELETE"
ENTER_WAL: Final = "PRAGMA journal_mode = WAL"
READ_ONLY_ON: Final = "PRAGMA query_only = ON"
READ_ONLY_OFF: Final = "PRAGMA query_only = OFF"

CHECK_KEYS_AT_ONCE: Final = "PRAGMA defer_foreign_keys = OFF"
"""What a consumer may have turned on in a transaction, for everybody that is in it."""

DATA_VERSION: Final = "PRAGMA data_version"
"""A number that changes when another connection has committed; reads no data."""

READ_CATALOGUE: Final = """\
SELECT version.user_version, object.type, object.name, object.tbl_name, object.sql
FROM pragma_user_version AS version
LEFT JOIN sqlite_master AS object ON object.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
ORDER BY object.type, object.name"""
"""Version and schema text in one statement, so that both come from one snapshot."""

INTEGRITY_CHECK: Final = "PRAGMA integrity_check"
FOREIGN_KEY_CHECK: Final = "PRAGMA foreign_key_check"


_CONTROL: Final = re.compile(
    r"""(?: [\s;\ufeff] | --[^\n]*\n | /\*.*?\*/ )*          # what SQLite passes over
    (?: BEGIN | COMMIT | END
      | ROLLBACK (?! (?: \s | --[^\n]*\n | /\*.*?\*/ )* (?:TRANSACTION\b)?
                     (?: \s | --[^\n]*\n | /\*.*?\*/ )* TO\b ) )\b""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


def check_no_control(sql: object) -> None:
    """Raise TransactionControlError for a consumer's statement that begins or ends a transaction.

    By its text, which begins with one of a few words. An authorizer would see the same, but it is
    a callback: an interrupt that strikes in there is lost, and refuses whatever is being prepared.
    """
    if isinstance(sql, str) and _CONTROL.match(sql):
        raise TransactionControlError(
            f"{sql!r} would begin or end a transaction, and this one is the store's; "
            "nothing was changed"
        )


def connection_settings(*, busy_timeout_ms: int, synchronous: Synchronous) -> tuple[str, ...]:
    """Return the pragmas of every connection (K-OPEN-1); none of them touches the file.

    ``temp_store = MEMORY`` keeps ``UPDATE … RETURNING`` over a subquery from paying for a
    temporary file, which costs up to ten times the statement itself.
    """
    return (
        busy_timeout(busy_timeout_ms),
        f"PRAGMA synchronous = {synchronous}",
        "PRAGMA foreign_keys = ON",
        "PRAGMA cache_size = -2000",
        "PRAGMA temp_store = MEMORY",
    )


def busy_timeout(milliseconds: int) -> str:
    """Return the statement that sets how long SQLite itself waits for a lock."""
    return f"PRAGMA busy_timeout = {milliseconds:d}"


def stamp_version(version: int) -> str:
    """Return the statement that stamps a schema version; it obeys the transaction it runs in."""
    return f"PRAGMA user_version = {version:d}"
