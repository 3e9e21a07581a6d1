"""The PostgreSQL dialects that statements and schemas are compiled for, and the SQL that only it has."""

import re
from functools import cache, lru_cache
from typing import Any, Final

from sqlalchemy import Dialect, Text
from sqlalchemy.dialects.postgresql.base import PGDDLCompiler
from sqlalchemy.dialects.postgresql.psycopg import (
    PGCompiler_psycopg,
    PGDialect_psycopg,
    PGExecutionContext_psycopg,
)
from sqlalchemy.sql.compiler import FROM_LINTING

from lash_store._backends.scoping import SharingContext
from lash_store._kernel.placing import SharingCompiler
from lash_store._kernel.schema import OURS
from lash_store._kernel.sharing import Place, Sharing
from lash_store.errors import TransactionControlError


class PostgresqlSharingCompiler(SharingCompiler, PGCompiler_psycopg):
    """SQLAlchemy's own, with our tables in their places."""

    def hint_in_place(self, hint: str, place: Place) -> str:
        """Pass over ONLY, for no table inherits from ours; refuse any other, as SQLAlchemy does."""
        if hint:
            self.format_from_hint_text("", place, hint, False)  # type: ignore[no-untyped-call] # noqa: FBT003 # reason: SQLAlchemy's
        return ""


class _DDLCompiler(PGDDLCompiler):
    def get_column_specification(self, column: Any, **kw: Any) -> str:
        """Order text by its code points, as SQLite does, whatever the database's collation is.

        Ranges of keys, pages and what comes first depend on it.
        """
        text: str = super().get_column_specification(column, **kw)  # type: ignore[no-untyped-call] # reason: likewise
        if isinstance(column.type, Text) and not column.type.collation:
            return text.replace(" TEXT", ' TEXT COLLATE "C"', 1)
        return text


class _ConsumerDDLCompiler(_DDLCompiler):
    def get_column_specification(self, column: Any, **kw: Any) -> str:
        """Leave an application's own tables as it has declared them."""
        if OURS in column.table.info:
            return super().get_column_specification(column, **kw)
        text: str = PGDDLCompiler.get_column_specification(self, column, **kw)  # type: ignore[no-untyped-call] # reason: likewise
        return text


class _Dialect(PGDialect_psycopg):
    statement_compiler = PostgresqlSharingCompiler
    ddl_compiler = _DDLCompiler
    supports_statement_cache = True

    sharing: Sharing


class _ConsumerContext(SharingContext, PGExecutionContext_psycopg):
    pass


class _ConsumerDialect(_Dialect):
    ddl_compiler = _ConsumerDDLCompiler
    execution_ctx_cls = _ConsumerContext
    supports_statement_cache = True


@cache
def dialect_for(prefix: str, schema: str | None = None) -> Dialect:
    """Return the dialect of a database whose tables of ours have that prefix, in that schema.

    Its parameters are numbered, ``$1``, as the server takes them: a RawCursor passes the text on.
    """
    dialect = _Dialect(paramstyle="numeric_dollar", compiler_linting=FROM_LINTING)  # type: ignore[no-untyped-call] # reason: likewise
    dialect.sharing = Sharing(prefix, schema)
    return dialect


@cache
def consumer_dialect_for(prefix: str, schema: str | None) -> Dialect:
    """Return the same for a consumer's own statements, whose parameters are psycopg's: ``%(name)s``."""
    import psycopg  # noqa: PLC0415 # reason: it is installed with an extra, and this is asked for with a connection

    dialect = _ConsumerDialect(dbapi=psycopg, compiler_linting=FROM_LINTING)  # type: ignore[no-untyped-call] # reason: likewise
    dialect.sharing = Sharing(prefix, schema)
    # What a dialect finds out when an engine first connects, which ours never does.
    dialect.server_version_info = (16,)
    dialect.default_schema_name = schema or "public"
    dialect.default_isolation_level = "READ COMMITTED"
    dialect._has_native_hstore = False  # noqa: SLF001 # reason: an engine registers it with the driver
    return dialect


MINIMUM_SERVER: Final = 16
"""The first PostgreSQL with ``pg_input_is_valid``, by which a broken record is passed over."""

BEGIN_WRITE: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
"""Each statement sees what was committed before it began: what follows the lock sees what that waited for."""

BEGIN_READ: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
COMMIT: Final = "COMMIT"
ROLLBACK: Final = "ROLLBACK"

NOW: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
"""The server's clock, which all its clients go by: milliseconds since the epoch."""

VERSION: Final = (
    "SELECT pg_current_snapshot()::text || coalesce(pg_last_wal_replay_lsn()::text, '')"
)
"""What changes when a transaction that writes begins or ends, whosever it is.

Of a replica the snapshot alone does not: it lists none that are under way.
"""

WHAT_IT_IS: Final = "SELECT version(), current_schema(), current_setting('server_encoding')"
LOOKS_FIRST: Final = "SELECT current_schema()"


SET_POINT: Final = "SAVEPOINT before_rows"
BACK_TO_POINT: Final = "ROLLBACK TO SAVEPOINT before_rows"


def lock_statement(lock: tuple[int, bool]) -> str:
    """Return the statement that takes a lock until the transaction's end: its number, and whether it is shared."""
    number, is_shared = lock
    suffix = "_shared" if is_shared else ""
    return f"SELECT pg_advisory_xact_lock{suffix}({number:d})"


def try_lock_statement(lock: tuple[int, bool]) -> str:
    """Return the statement that takes a lock if it is free, and tells whether it did."""
    number, is_shared = lock
    suffix = "_shared" if is_shared else ""
    return f"SELECT pg_try_advisory_xact_lock{suffix}({number:d})"


def lock_timeout(milliseconds: int) -> str:
    """Return the statement that bounds each wait for a lock, until the transaction's end; 0 would be none."""
    return f"SET LOCAL lock_timeout = {max(1, milliseconds):d}"


FULL: Final = (
    "SELECT set_config('synchronous_commit', 'on', true) "
    "WHERE current_setting('synchronous_commit') <> 'remote_apply'"
)
"""Whatever the role or the database says, COMMIT waits for the disk; for more, where they say so."""

IDLES_FOR_EVER: Final = "SELECT current_setting('idle_in_transaction_session_timeout') = '0'"
BOUND_IDLE: Final = "SET LOCAL idle_in_transaction_session_timeout = '30s'"
"""A machine that is gone, or frozen, in the midst of a transaction keeps its locks for so long at most.

Of a lost machine the server would hear by itself once TCP has asked in vain, by default two hours later.
"""

_CONTROL: Final = re.compile(
    r"""(?: ^ | ; ) \s*
    (?: BEGIN | START | COMMIT | END | ABORT | PREPARE (?= \s+ TRANSACTION )
      | ROLLBACK (?! \s+ (?: (?:WORK|TRANSACTION) \s+ )? TO\b ) )\b""",
    re.VERBOSE | re.IGNORECASE,
)
_ENDS: Final = re.compile(
    r"""(?: \s | --[^\n\r]*[\n\r] | /\*.*?\*/ )*
    (?: COMMIT | END | ABORT | PREPARE (?= \s+ TRANSACTION )
      | ROLLBACK (?! \s+ (?: (?:WORK|TRANSACTION) \s+ )? TO\b ) )\b""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_NO_WORDS: Final = re.compile(
    r"""--[^\n\r]* | /\*.*?\*/ | \bE'(?:[^'\\]|\\.)*' | '[^']*' | "[^"]*" | \$(\w*)\$.*?\$\1\$
    | \bBEGIN\s+ATOMIC\b.*?\bEND\b""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
"""Comments, what is quoted, a function's body: no statements. A doubled quote is two that follow each other."""


_FOR_GOOD: Final = re.compile(
    r"""(?: ^ | ; ) \s* (?: SET \s+ (?! (?: LOCAL | TRANSACTION | CONSTRAINTS ) \b ) | RESET \b | LISTEN \b
      | LOAD \b | PREPARE \b | CREATE \s+ (?: (?:GLOBAL|LOCAL) \s+ )? TEMP | DO \b | CALL \b )
    | \b INTO \s+ TEMP | \b WITH \s+ HOLD \b | \b (?: CREATE | INTO ) \b [^;]* \b pg_temp \s* \.
    | \b (?: set_config | pg_(?:try_)?advisory_lock(?:_shared)? ) \s* \(""",
    re.VERBOSE | re.IGNORECASE,
)


_LONG: Final = 10_000
"""From so many characters on a text is looked through each time: remembered, it would take room."""


def check_no_control(sql: object) -> None:
    """Raise TransactionControlError for a consumer's statement that begins or ends a transaction."""
    is_control, _ = _looked_through(sql)
    if is_control:
        raise TransactionControlError(
            f"{sql!r} would begin or end a transaction, and this one is the store's; "
            "nothing was changed"
        )


def outlasts_transaction(sql: object) -> bool:
    """Whether a consumer's statement may change the session, for who uses its connection next."""
    _, is_for_good = _looked_through(sql)
    return is_for_good


def _looked_through(sql: object) -> tuple[bool, bool]:
    """Return whether a text, which may hold several statements, is control, and whether it outlasts."""
    composed = getattr(sql, "as_string", None)  # of psycopg's ``sql``
    if composed is not None:
        text = str(composed(None))
    else:
        text = sql.decode(errors="replace") if isinstance(sql, bytes) else str(sql)
    return _look_through(text) if len(text) < _LONG else _look_through.__wrapped__(text)


def ends_transaction(text: str) -> bool:
    """Tell whether a statement has ended the transaction that it was in; a text of several goes by its first."""
    return _ENDS.match(text) is not None


@lru_cache(maxsize=512)  # it takes longer than to hand over a statement
def _look_through(text: str) -> tuple[bool, bool]:
    words = _NO_WORDS.sub(" ", text)
    return _CONTROL.search(words) is not None, _FOR_GOOD.search(words) is not None
