"""Transactions of a consumer's own that a Tx joins, whichever database they are in (K-TX-8, K-TX-14)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect, Engine
from sqlalchemy.exc import MissingGreenlet, UnboundExecutionError

from lash_store._backends.beginning import Mode
from lash_store._backends.orm_sessions import watch_sessions
from lash_store._backends.tx_connection import TransactionConnection
from lash_store._kernel.backend import OpenTransaction
from lash_store._kernel.checks import check_choice
from lash_store._kernel.extras import Extras, OwnTables
from lash_store._kernel.options import Settings, Synchronous
from lash_store._kernel.schema import Schema
from lash_store.errors import NotConfiguredError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine  # which is slow to import, and needs greenlet

_configured: Final[WeakKeyDictionary[Engine, tuple[object, ...]]] = WeakKeyDictionary()
"""How engines were configured. By themselves: SQLAlchemy's registry of listeners goes by ids, which what comes later may have again."""

_places: Final[WeakKeyDictionary[Dialect, Settings]] = WeakKeyDictionary()
"""With what a dialect's engines were configured: those of one dialect share all that it has compiled."""

EngineT = TypeVar("EngineT", bound="Engine | AsyncEngine")


def configure(
    engine: EngineT,
    *,
    busy_timeout_ms: int = 15_000,
    synchronous: Synchronous = "NORMAL",
    prefix: str = "lash_",
    schema: str | None = None,
    begin: Mode = "write",
    extras: Extras = (),
    tables: Sequence[OwnTables] = (),
) -> EngineT:
    """Prepare a consumer's engine, and return it, so that ``SessionTx.on(connection)`` works.

    Its connections get the stores' settings (WAL, foreign keys, `synchronous`, a busy handler
    of `busy_timeout_ms` milliseconds). Its transactions begin with BEGIN IMMEDIATE, or as a
    snapshot that refuses writes under ``execution_options(lash_store_read=True)``. With
    ``begin="read"`` they are snapshots, and those that write say so:
    ``execution_options(lash_store_write=True)``. Writers wait in SQLite's busy handler, outside the
    stores' fair queue; on PostgreSQL for the locks of whoever joins (K-LOCK-1), as transactions of
    READ COMMITTED, and our tables are in `schema`, or else where the role looks first. Configuring
    twice is harmless, and the first time holds; what ``execution_options()`` made of an engine has that one's
    `prefix` and `schema`. `prefix` is what the names of our tables begin with in
    a database that is shared: where those of SQLite have another one, joining is ForeignDatabaseError.
    `extras` and `tables` are as in :class:`OpenOptions`. An AsyncEngine is configured before it connects; a Tx on
    one of its connections is used in the thread of the event loop, which waits for no lock there. Raises
    NotConfiguredError for an engine on any other driver than ``sqlite+pysqlite``, ``sqlite+aiosqlite`` and ``postgresql+psycopg``, or one in AUTOCOMMIT,
    or of whose tables another view of the same engine was told that they are elsewhere;
    StoreOpenError where SQLite is too old; InvalidRecordError for a bad option.
    """
    check_choice("begin", begin, get_args(Mode))
    settings = Settings(
        busy_timeout_ms=busy_timeout_ms,
        synchronous=synchronous,
        prefix=prefix,
        schema=schema,
        extras=extras,
        tables=tables,
    )
    under = getattr(engine, "sync_engine", engine)
    if not isinstance(under, Engine):
        raise NotConfiguredError(f"{engine!r} can't be configured: it is no SQLAlchemy Engine")
    if "AUTOCOMMIT" in (
        under.get_execution_options().get("isolation_level"),
        under.dialect._on_connect_isolation_level,  # noqa: SLF001 # reason: what create_engine() was given
    ):
        raise NotConfiguredError(f"{engine!r} is in AUTOCOMMIT: it has no transactions to join")
    import_module("sqlalchemy.orm")  # or the first statement of a Session would not be looked at
    watch_sessions()
    if under not in _configured:  # or the first time holds
        joining = _joining_on(under)
        _check_place(under, settings)
        how = (begin, busy_timeout_ms, synchronous, tuple(tables), extras)
        if how not in _inherited(under):
            joining.configure(engine, settings, begin)
        _places[under.dialect] = settings
        _configured[under] = how
    return engine


def _inherited(engine: Engine) -> list[tuple[object, ...]]:
    """Return how the engines that this one is a view of were configured: it has their listeners."""
    found, at = [], getattr(engine, "_proxied", None)
    while at is not None:
        found += [_configured[at]] if at in _configured else []
        at = getattr(at, "_proxied", None)
    return found


def _check_place(engine: Engine, settings: Settings) -> None:
    """Raise NotConfiguredError if another engine of this dialect was configured for tables elsewhere.

    Engines that ``execution_options()`` makes of one share what compiles statements, and what it has
    compiled: one's would run in the other's place.
    """
    before = _places.get(engine.dialect)
    if before is None or (before.prefix, before.schema) == (settings.prefix, settings.schema):
        return
    had = f"prefix={before.prefix!r}, schema={before.schema!r}"
    raise NotConfiguredError(
        f"{engine!r} can't be configured with prefix={settings.prefix!r}, schema={settings.schema!r}: it is "
        f"one of several views of an engine that was configured with {had}; make it by a create_engine() of its own"
    )


def join(connection: Any, schema: Schema, scope: str) -> OpenTransaction:
    """Join the transaction that is open on `connection`, and make it hold `schema` (K-GUARD-5).

    What the database is decides the layout: a file of ours stays what it is; any other is shared,
    and gets our tables beside what is there. It is compared once for each connection, and again
    after each change of its schema. Raises NotConfiguredError unless a configured engine began it,
    SchemaVersionError, SchemaDriftError and NamesTakenError as opening a store does; a database
    without our tables that can only be read is refused.
    """
    session = _session_of(connection)
    connection = _sync_connection(session)
    if not isinstance(connection, Connection):
        raise NotConfiguredError(f"{connection!r} is no open SQLAlchemy Connection")
    if isinstance(connection, TransactionConnection):
        why = "is of a store's own transaction: SessionTx.beside(tx, …), of any Tx, stands on that"
        raise NotConfiguredError(f"{connection!r} {why}")
    if connection.closed or connection.invalidated:
        lost = "closed" if connection.closed else "invalidated: what it had begun is lost"
        raise NotConfiguredError(f"{connection!r} is {lost}")
    joined: OpenTransaction = _joining_on(connection).join(session, connection, schema, scope)
    return joined


def create_tables(connection: Connection, schemas: Sequence[Schema], settings: Settings) -> None:
    """Make our tables in the transaction of a consumer's own connection, whoever began it.

    Begins one if the driver has not: it does that for changes of rows alone.
    """
    _check_sync(connection)
    _joining_on(connection).create_tables(connection, schemas, settings)


def stamp_tables(connection: Connection, own: OwnTables, settings: Settings) -> None:
    """Note the version of an application's own tables, in a transaction of its own connection."""
    _check_sync(connection)
    _joining_on(connection).stamp_tables(connection, own, settings)


def _check_sync(connection: object) -> None:
    if not isinstance(connection, Connection):
        raise NotConfiguredError(
            f"{connection!r} is no synchronous SQLAlchemy Connection, which looks at what is there: `alembic … --sql`, "
            "offline, has none (for PostgreSQL `lash-store schema --dialect postgresql` prints what a new database gets; "
            "in SQLite's `lash-store adopt` makes it), and asyncio's has run_sync()"
        )


def _joining_on(bound: Engine | Connection) -> Any:
    """Return the module that joins transactions of a database; NotConfiguredError for one of no kind we know."""
    name = bound.dialect.name
    if name not in ("sqlite", "postgresql"):
        raise NotConfiguredError(
            f"{bound!r} can't be configured: lash_store's tables stand in SQLite or PostgreSQL"
        )
    return import_module(f"lash_store._backends.{name}.joining")


def _session_of(given: Any) -> Any:
    """Return the Session of this thread or task, where one for each was given."""
    for name, registry in (
        ("sqlalchemy.orm", "scoped_session"),
        ("sqlalchemy.ext.asyncio", "async_scoped_session"),
    ):
        module: Any = sys.modules.get(name)
        if module is not None and isinstance(given, getattr(module, registry)):
            return given()
    return given


def _sync_connection(connection: Any) -> Any:
    """Return the Connection on which a Session, an AsyncConnection or an AsyncSession stands."""
    given = connection
    connection = getattr(connection, "sync_session", connection)
    orm: Any = sys.modules.get("sqlalchemy.orm")
    if orm is not None and isinstance(connection, orm.Session):
        not_begun = NotConfiguredError(
            f"{given!r} has not begun: `await session.connection()` first"
        )
        if given is not connection and not connection.in_transaction():
            raise not_begun  # asking for its connection would cost the pool one, and say so at length
        try:
            return connection.connection()
        except MissingGreenlet as error:
            raise not_begun from error
        except UnboundExecutionError as error:
            why = f"{given!r} has several engines, or none: join on its connection(bind_arguments=...)"
            raise NotConfiguredError(why) from error
    return getattr(connection, "sync_connection", connection)
