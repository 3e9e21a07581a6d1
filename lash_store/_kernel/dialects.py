"""Everything that differs between databases; no other file branches on a dialect's name.

The statements of the stores are ordinary Core constructs that compile for SQLite and for
PostgreSQL alike. What only SQLite has (pragmas, its catalogue, how its transactions begin)
stands here as constants, so that the files which use it read the same for any database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Dialect,
    FromClause,
    Select,
    Table,
    Text,
    literal,
    literal_column,
    or_,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

UpsertInsert = postgresql.Insert
upsert_insert = postgresql.insert
"""``INSERT … ON CONFLICT``: the clause is a syntax extension in SQLAlchemy 2.1, and
PostgreSQL's carries all that SQLite's compiler reads, so one construct compiles for both."""


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

Synchronous = Literal["NORMAL", "FULL"]
"""How far COMMIT goes: NORMAL may lose the last commits at power loss, FULL none."""

BEGIN_WRITE: Final = "BEGIN IMMEDIATE"
"""Takes the write lock up front: a read that later wants to write can't wait for it."""

BEGIN_READ: Final = "BEGIN DEFERRED"
COMMIT: Final = "COMMIT"
ROLLBACK: Final = "ROLLBACK"
SAVEPOINT: Final = "SAVEPOINT lash_store"
UNDO_TO_SAVEPOINT: Final = "ROLLBACK TO lash_store"
RELEASE_SAVEPOINT: Final = "RELEASE lash_store"
LEAVE_WAL: Final = "PRAGMA journal_mode = DELETE"
ENTER_WAL: Final = "PRAGMA journal_mode = WAL"
READ_ONLY_ON: Final = "PRAGMA query_only = ON"
READ_ONLY_OFF: Final = "PRAGMA query_only = OFF"

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


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether another connection held a lock: nothing was done, and waiting may help."""
    return primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def primary_code(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary result code, or None where the driver itself raised."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


SelectT = TypeVar("SelectT", bound=Select[*tuple[Any, ...]])


def indexed_by(statement: SelectT, table: Table[Any], index: str) -> SelectT:
    """Hold SQLite to one index of `table`, whatever its statistics make it think.

    The stores' own connections obey; on a consumer's engine the hint is dropped, and the
    statement means the same.
    """
    return statement.with_hint(table, f"INDEXED BY {index}", "sqlite")


def by_primary_key(statement: SelectT, table: Table[Any]) -> SelectT:
    """Hold SQLite to the primary key of `table`: for a range of it, whatever else is compared."""
    return statement.with_hint(table, "NOT INDEXED", "sqlite")


def nullable(argument: int | str | None) -> ColumnElement[Any]:
    """Return an argument as SQL, where it may be None: Python must not look at it.

    It may be a bindparam, whose value nobody knows yet; None itself SQL compares as NULL.
    """
    given: Any = argument
    return given if isinstance(given, ColumnElement) else literal(given)


def is_null_or(
    argument: int | str | None,
    condition: Callable[[ColumnElement[Any]], ColumnElement[bool]],
    *or_else: ColumnElement[bool],
) -> ColumnElement[bool]:
    """A condition on `argument` that holds if it is NULL: for filters that may be left out."""
    value = nullable(argument)
    return or_(value.is_(None), condition(value), *or_else)


class JsonText(FunctionElement[str]):
    """The text of a member of a JSON object that is stored in a TEXT column, or NULL."""

    inherit_cache = True
    type = Text()

    def __init__(self, column: ColumnElement[str], *path: str) -> None:
        # Names from this library's own source, never a consumer's: they stand in the text.
        steps = [literal_column(f"'{name}'", Text()) for name in path]
        super().__init__(column, *steps)


class IsNoJson(FunctionElement[bool]):
    """Whether a text is no JSON: a condition on its members lets such a row through, to be seen."""

    inherit_cache = True
    type = Boolean()


@compiles(IsNoJson)
def _is_no_json(element: IsNoJson, compiler: SQLCompiler, **kw: Any) -> str:
    return f"NOT pg_input_is_valid({compiler.process(element.clauses, **kw)}, 'json')"


@compiles(IsNoJson, "sqlite")
def _is_no_json_on_sqlite(element: IsNoJson, compiler: SQLCompiler, **kw: Any) -> str:
    return f"NOT json_valid({compiler.process(element.clauses, **kw)})"


@compiles(JsonText)
def _json_text(element: JsonText, compiler: SQLCompiler, **kw: Any) -> str:
    column, *path = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"json_extract_path_text(CAST({column} AS JSON), {', '.join(path)})"


@compiles(JsonText, "sqlite")
def _json_text_on_sqlite(element: JsonText, compiler: SQLCompiler, **kw: Any) -> str:
    # json_extract(), which is older than the arrow operators (SQLite 3.38).
    column, *path = (compiler.process(clause, **kw) for clause in element.clauses)
    member = ".".join(name.strip("'") for name in path)
    # Text that is no JSON has no member; whoever reads the row says that it is corrupt.
    return f"CASE WHEN json_valid({column}) THEN json_extract({column}, '$.{member}') END"
