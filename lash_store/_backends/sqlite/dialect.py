"""The SQLite dialect that statements are compiled for, and the SQL that only SQLite has."""

import re
import sqlite3
from functools import cache
from typing import Final

from sqlalchemy import Dialect, FromClause
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler, SQLiteExecutionContext
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.sql.compiler import FROM_LINTING

from lash_store._backends.scoping import SharingContext
from lash_store._kernel.options import Synchronous
from lash_store._kernel.placing import SharingCompiler
from lash_store._kernel.sharing import VERSIONS, Place, Sharing
from lash_store.errors import StoreOpenError, TransactionControlError


class _HintingCompiler(SQLiteCompiler):
    """SQLAlchemy's own drops ``with_hint()`` for SQLite without a word."""

    def get_from_hint_text(self, table: FromClause, text: str | None) -> str | None:  # noqa: ARG002 # reason: SQLAlchemy's signature
        """Return the hint, which goes behind the table's name: INDEXED BY."""
        return text


class _StoreDialect(SQLiteDialect_pysqlite):
    statement_compiler = _HintingCompiler
    supports_statement_cache = True

    # What a dialect finds out when an engine first connects, which ours never does: reflection asks.
    server_version_info = sqlite3.sqlite_version_info
    default_schema_name = "main"
    default_isolation_level = "SERIALIZABLE"


class HintingSharingCompiler(SharingCompiler, _HintingCompiler):
    """The compiler of a shared database."""

    def hint_in_place(self, hint: str, place: Place) -> str:
        """Name the index that stands in the place of the one that a hint names."""
        if not hint:
            return ""
        if hint == "NOT INDEXED" and place.is_scoped:
            # The primary key is a rowid no more: its index is the table's first automatic one.
            return f" INDEXED BY sqlite_autoindex_{place.name}_1"
        return " " + hint.replace("INDEXED BY ", f"INDEXED BY {self.sharing.prefix}")


class _OwnSharingContext(SharingContext, SQLiteExecutionContext):
    pass


class _SharingDialect(_StoreDialect):
    statement_compiler = HintingSharingCompiler
    execution_ctx_cls = _OwnSharingContext
    supports_statement_cache = True

    sharing: Sharing


SQLITE: Final[Dialect] = _StoreDialect(dbapi=sqlite3, compiler_linting=FROM_LINTING)
"""The dialect that the stores compile their statements for."""


@cache
def dialect_for(prefix: str) -> Dialect:
    """Return the dialect for a shared database with that prefix, or the canonical one for none."""
    if not prefix:
        return SQLITE
    dialect = _SharingDialect(dbapi=sqlite3, compiler_linting=FROM_LINTING)
    dialect.sharing = Sharing(prefix, home="main")
    return dialect


MINIMUM_SQLITE: Final = (3, 35, 0)
"""The first SQLite with RETURNING (K-OPEN-8)."""

BEGIN_WRITE: Final = "BEGIN IMMEDIATE"
"""Takes the write lock up front: a read that later wants to write can't wait for it."""

BEGIN_READ: Final = "BEGIN DEFERRED"
COMMIT: Final = "COMMIT"
ROLLBACK: Final = "ROLLBACK"
BEGIN_ALONE: Final = "BEGIN EXCLUSIVE"
LEAVE_WAL: Final = "PRAGMA journal_mode = DELETE"
ENTER_WAL: Final = "PRAGMA journal_mode = WAL"
FILES: Final = "PRAGMA database_list"
COUNT_PAGES: Final = "PRAGMA page_count"
CHOOSE_PAGES: Final = "PRAGMA page_size = 2048"
"""Of a file that has no page yet. What a small call changes is some rows in six to ten pages, and it
pays for each page: SQLite's own 4,096 bytes take longer to be written than such a call's statements."""

READ_ONLY_ON: Final = "PRAGMA query_only = ON"
READ_ONLY_OFF: Final = "PRAGMA query_only = OFF"

CHECK_KEYS_AT_ONCE: Final = "PRAGMA defer_foreign_keys = OFF"
"""What a consumer may have turned on in a transaction, for everybody that is in it."""

DATA_VERSION: Final = "PRAGMA data_version"
"""A number that changes when another connection has committed; reads no data."""

BUSY_TIMEOUT: Final = "PRAGMA busy_timeout"
FOLD_WAL: Final = "PRAGMA wal_checkpoint(PASSIVE)"
"""Puts into the file what nobody's snapshot keeps in the WAL, and waits for nobody."""

FOLD_WHOLE_WAL: Final = "PRAGMA wal_checkpoint(FULL)"
"""Puts all into the file under the write lock, if that is free: whoever writes next begins the WAL anew."""

FOLD_BY_ITSELF: Final = "PRAGMA wal_autocheckpoint = 1000"
"""Lets SQLite do it behind a COMMIT, once the WAL has so many pages: as it comes."""

FOLD_WHEN_TOLD: Final = "PRAGMA wal_autocheckpoint = 0"

CUT_WAL: Final = "PRAGMA wal_checkpoint(TRUNCATE)"
"""Puts all into the file and empties the WAL, once nobody reads from it; within the busy timeout."""

READ_CATALOGUE: Final = """\
SELECT version.user_version, object.type, object.name, object.tbl_name, object.sql
FROM pragma_user_version AS version
LEFT JOIN sqlite_master AS object ON object.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
ORDER BY object.type, object.name"""
"""Version and schema text in one statement, so that both come from one snapshot."""

READ_COLUMNS: Final = "SELECT name FROM pragma_table_info(?, 'main')"
"""Of the application's own database, as the catalogue is: one that it has attached may have tables of the same names."""

SCHEMA_VERSION: Final = "PRAGMA schema_version"
"""A number that changes with every change of the schema, whoever makes it."""

INTEGRITY_CHECK: Final = "PRAGMA integrity_check"


@cache  # two milliseconds to compile, which no import has to wait for
def _control() -> re.Pattern[str]:
    return re.compile(
        r"""(?: [\s;\ufeff] | --[^\n]*\n | /\*.*?\*/ )*          # what SQLite passes over
        (?: BEGIN | COMMIT | END
          | ROLLBACK (?! (?: \s | --[^\n]*\n | /\*.*?\*/ )* (?:TRANSACTION\b)?
                         (?: \s | --[^\n]*\n | /\*.*?\*/ )* TO\b ) )\b""",
        re.VERBOSE | re.IGNORECASE | re.DOTALL,
    )


_OF_ROWS: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})


def is_of_rows(sql: object) -> bool:
    """Whether a statement reads or changes rows, as is seen at a glance: so do most, and each is one."""
    return isinstance(sql, str) and sql[:6] in _OF_ROWS


def foreign_key_check(table: str) -> str:
    """Return what lists the rows of a table of ours that refer to none."""
    return f"PRAGMA main.foreign_key_check({table})"


def is_control(sql: object) -> bool:
    """Tell whether a statement begins or ends a transaction, by its text."""
    return isinstance(sql, str) and not is_of_rows(sql) and bool(_control().match(sql))


def check_no_control(sql: object) -> None:
    """Raise TransactionControlError for a consumer's statement that begins or ends a transaction.

    By its text, which begins with one of a few words. An authorizer would see the same, but it is
    a callback: an interrupt that strikes in there is lost, and refuses whatever is being prepared.
    """
    if is_control(sql):
        raise TransactionControlError(
            f"{sql!r} would begin or end a transaction, and this one is the store's; "
            "nothing was changed"
        )


def check_version(where: str) -> None:
    """Raise StoreOpenError where SQLite is older than our statements (K-OPEN-8)."""
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
        minimum = ".".join(map(str, MINIMUM_SQLITE))
        raise StoreOpenError(
            where, f"SQLite {sqlite3.sqlite_version} has no RETURNING; {minimum} or newer is needed"
        )


KEEP_KEYS: Final = "PRAGMA foreign_keys = ON"
ARE_KEYS_KEPT: Final = "PRAGMA foreign_keys"


def connection_settings(
    *, busy_timeout_ms: int, synchronous: Synchronous, keeps_keys: bool = True
) -> tuple[str, ...]:
    """Return the pragmas of every connection (K-OPEN-1); none of them touches the file.

    ``temp_store = MEMORY`` keeps ``UPDATE … RETURNING`` over a subquery from paying for a
    temporary file, which costs up to ten times the statement itself. With FULL, macOS has to be
    told to wait for the disk as well; elsewhere ``fullfsync`` means nothing.
    """
    to_the_disk = ("PRAGMA fullfsync = ON", "PRAGMA checkpoint_fullfsync = ON")
    return (
        busy_timeout(busy_timeout_ms),
        f"PRAGMA synchronous = {synchronous}",
        *((KEEP_KEYS,) if keeps_keys else ()),
        "PRAGMA cache_size = -2000",
        "PRAGMA temp_store = MEMORY",
        *(to_the_disk if synchronous == "FULL" else ()),
    )


def busy_timeout(milliseconds: int) -> str:
    """Return the statement that sets how long SQLite itself waits for a lock."""
    return f"PRAGMA busy_timeout = {milliseconds:d}"


def stamp_version(version: int) -> str:
    """Return the statement that stamps a schema version; it obeys the transaction it runs in."""
    return f"PRAGMA user_version = {version:d}"


def read_versions(prefix: str) -> str:
    """Return the statement that reads which kinds a shared database holds, in which versions."""
    return f"SELECT kind, version FROM main.{prefix}{VERSIONS}"  # noqa: S608 # reason: the prefix was checked


def own_versions(prefix: str) -> str:
    """Return the name of the table that says which tables of its own an application has declared."""
    return f"{prefix or 'lash_'}own_tables"


def create_own_versions(prefix: str) -> str:
    """Return the statement that makes it."""
    columns = "name TEXT PRIMARY KEY NOT NULL, version INTEGER NOT NULL"
    return f"CREATE TABLE {own_versions(prefix)} ({columns})"


def read_own_versions(prefix: str) -> str:
    """Return the statement that reads their versions."""
    return f"SELECT name, version FROM main.{own_versions(prefix)}"  # noqa: S608 # reason: the prefix was checked


def note_own_version(prefix: str) -> str:
    """Return the statement that notes a version of them."""
    table = own_versions(prefix)
    return f"INSERT OR REPLACE INTO main.{table} (name, version) VALUES (?, ?)"  # noqa: S608 # reason: likewise


def note_version(prefix: str) -> str:
    """Return the statement that notes a kind and its version in a shared database."""
    return f"INSERT INTO main.{prefix}{VERSIONS} (kind, version) VALUES (?, ?)"  # noqa: S608 # reason: the prefix was checked
