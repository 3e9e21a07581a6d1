"""The PostgreSQL dialect that statements and schemas are compiled for."""

from functools import cache
from typing import Any

from sqlalchemy import Dialect, Text
from sqlalchemy.dialects.postgresql.base import PGDDLCompiler
from sqlalchemy.dialects.postgresql.psycopg import PGCompiler_psycopg, PGDialect_psycopg
from sqlalchemy.sql.compiler import FROM_LINTING

from lash_store._kernel.sharing import Sharing, SharingCompiler


class _Compiler(SharingCompiler, PGCompiler_psycopg):
    """SQLAlchemy's own, with our tables in their places."""


class _DDLCompiler(PGDDLCompiler):
    def get_column_specification(self, column: Any, **kw: Any) -> str:
        """Order text by its code points, as SQLite does, whatever the database's collation is.

        Ranges of keys, pages and what comes first depend on it.
        """
        text: str = super().get_column_specification(column, **kw)  # type: ignore[no-untyped-call] # reason: likewise
        if isinstance(column.type, Text):
            return text.replace(" TEXT", ' TEXT COLLATE "C"', 1)
        return text


class _Dialect(PGDialect_psycopg):
    statement_compiler = _Compiler
    ddl_compiler = _DDLCompiler
    supports_statement_cache = True

    sharing: Sharing


@cache
def dialect_for(prefix: str) -> Dialect:
    """Return the dialect of a database whose tables of ours have that prefix.

    Its parameters are numbered, ``$1``, as the server takes them: a RawCursor passes the text on.
    """
    dialect = _Dialect(paramstyle="numeric_dollar", compiler_linting=FROM_LINTING)  # type: ignore[no-untyped-call] # reason: likewise
    dialect.sharing = Sharing(prefix)
    return dialect
