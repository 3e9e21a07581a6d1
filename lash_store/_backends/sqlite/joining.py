"""A consumer's own engine, prepared so that a Tx can join its transactions (K-TX-8).

``configure(engine)`` makes every transaction of the engine begin as the stores' own do, and
records on the connection how it began. ``Tx.on(connection)`` trusts that record and nothing
else: a transaction that took no write lock at its begin may fail in the middle, and one in
AUTOCOMMIT is none at all.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, event
from sqlalchemy.exc import MissingGreenlet

from lash_store._backends.beginning import (
    BEGUN,
    Mode,
    already_begun,
    beginning_again,
    forget_savepoint,
    is_autocommit,
    mode_of,
    no_transaction,
    note_savepoint,
    nothing_kept,
)
from lash_store._backends.orm_sessions import check_joined, forget_compiled
from lash_store._backends.scoping import use_sharing
from lash_store._backends.sqlite import dialect, guard
from lash_store._backends.sqlite.begun import (
    INFO_PATH,
    Begun,
    check_control,
    check_no_block_here,
    file_of,
    for_any_thread,
    in_its_thread,
    own_transaction,
    path_of,
    raw_of,
    undo,
)
from lash_store._backends.sqlite.drift import Catalogue, read_catalogue
from lash_store._backends.sqlite.driver import (
    StoreCursor,
    consumer_error,
    is_busy,
    open_cursor,
    store_error,
    unobserved,
)
from lash_store._backends.sqlite.extras import declared_with
from lash_store._backends.sqlite.files import open_error
from lash_store._backends.sqlite.joined import JoinedTransaction
from lash_store._backends.sqlite.joined_ends import (
    INFO_COMPARED,
    INFO_LEVEL,
    INFO_READING,
    commit_kept,
    committed,
    compare_again,
    end,
    give_back,
    stay_inside,
)
from lash_store._backends.sqlite.keys import are_set, check_kept, keep_keys
from lash_store._backends.sqlite.opening import prepare_joined
from lash_store._backends.tx_connection import explaining
from lash_store._kernel.extras import OwnTables
from lash_store._kernel.logs import LONG_WAIT_S, long_wait
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema
from lash_store._kernel.sharing import SCOPES, Sharing, shared
from lash_store.errors import ForeignDatabaseError, NotConfiguredError, StoreBusyError

_INFO_SETTINGS: Final = "lash_store_settings"
_INFO_LOOKED: Final = "lash_store_looked"
_INFO_PREFIX: Final = "lash_store_prefix"

_DRIVERS: Final = ("pysqlite", "aiosqlite")

_explain: Final = explaining(consumer_error)


def configure(engine: Any, settings: Settings, undeclared: Mode) -> None:
    """Prepare an engine on SQLite; see :func:`lash_store.configure`."""
    dialect.check_version(str(getattr(engine, "url", engine)))
    engine = getattr(engine, "sync_engine", engine)
    if engine.dialect.driver not in _DRIVERS:
        raise NotConfiguredError(
            f"{engine!r} can't be configured: it has to be an Engine on sqlite+pysqlite, or an "
            "AsyncEngine on sqlite+aiosqlite"
        )
    use_sharing(engine.dialect, dialect.HintingSharingCompiler)

    def connected(connection: Connection) -> None:
        _look_first(connection, settings)

    def begun(connection: Connection) -> None:
        _begin(connection, settings, undeclared)

    own: Any = engine.dialect
    if not isinstance(own.do_commit, partial):  # which all engines of one pool have in common
        own.do_commit = partial(commit_kept, own.do_commit)
        event.listen(engine.pool, "checkin", give_back)
    if own.driver == "aiosqlite":
        event.listen(engine, "do_connect", for_any_thread)
    event.listen(engine.pool, "connect", keep_keys, insert=True)
    event.listen(engine, "engine_connect", connected)
    event.listen(engine, "begin", beginning_again(begun))
    event.listen(engine, "before_cursor_execute", stay_inside)
    event.listen(engine, "commit", committed)
    event.listen(engine, "rollback", end)
    event.listen(engine, "savepoint", note_savepoint)
    event.listen(engine, "rollback_savepoint", forget_savepoint)
    event.listen(engine, "rollback_savepoint", compare_again)
    event.listen(engine, "handle_error", _explain)
    event.listen(engine, "invalidate", undo)


def join(session: Any, connection: Connection, schema: Schema, scope: str) -> JoinedTransaction:
    """Join the transaction that is open on `connection`; see ``_backends.joining``."""
    begun = _begun_transaction(connection)
    if schema.is_scoped and begun.sharing.prefix and hasattr(session, "identity_map"):
        check_joined(getattr(session, "sync_session", session), scope)
    cursor = _held(connection, begun, schema, scope)
    joined = JoinedTransaction(begun, connection, partial(_held, connection, begun), cursor)
    begun.joined.append(joined)
    return joined


def create_tables(connection: Connection, schemas: Sequence[Schema], settings: Settings) -> None:
    """Make our tables in the transaction of a consumer's own connection, whoever began it.

    Begins one if the driver has not: it does that for changes of rows alone.
    """
    with _writing(connection) as (cursor, path):
        wanted = [declared_with(shared(schema, settings.prefix), settings) for schema in schemas]
        # All are looked at first: a refusal leaves nothing of the others behind.
        for schema in wanted:
            guard.look(cursor, schema, path, adopt=True)
        for schema in wanted:
            guard.ensure_schema(cursor, schema, path, adopt=True)
    if connection.info.get(_INFO_PREFIX) == settings.prefix:  # they are where its engine looks
        _share(connection, _sharing_of(connection), settings.prefix)


def stamp_tables(connection: Connection, own: OwnTables, settings: Settings) -> None:
    """Note the version of an application's own tables, in a transaction of its own connection."""
    with _writing(connection) as (cursor, path):
        catalogue = read_catalogue(cursor)
        prefix = "" if guard.canonical_kind(catalogue) is not None else settings.prefix
        guard.stamp_own(cursor, own, path, prefix)


@contextmanager
def _writing(connection: Connection) -> Iterator[tuple[StoreCursor, str]]:
    """Give a cursor in the transaction that is open on a connection, whoever began it, or a new one."""
    raw = raw_of(connection)
    check_control(connection, raw, refused=(True,))
    if connection.get_transaction() is None:
        connection.begin()
    cursor, path, started_s = open_cursor(raw), path_of(connection), time.monotonic()
    began = not raw.in_transaction
    try:
        if began:
            check_no_block_here(connection, raw)
            in_its_thread(connection, lambda: cursor.execute(dialect.BEGIN_WRITE))
    except sqlite3.Error as error:
        waited_ms = round((time.monotonic() - started_s) * 1000)
        raise open_error(path, error, waited_ms=waited_ms) from error
    is_its_own = began and is_autocommit(connection)  # nobody else would end it
    try:
        yield cursor, path
        if is_its_own:
            raw.commit()
    except sqlite3.Error as error:
        raise store_error(error, raw, path) from error
    finally:
        if is_its_own:
            raw.rollback()


def _held(connection: Connection, begun: Begun, schema: Schema, scope: str) -> StoreCursor:
    """Return a cursor for a Tx, once the transaction holds its schema."""
    path = path_of(connection)
    compared = connection.info.setdefault(INFO_COMPARED, {})
    try:
        cursor = open_cursor(begun.raw)
    except sqlite3.ProgrammingError as error:
        raise NotConfiguredError(
            f"{connection!r} was connected before its engine was configured, for one thread alone"
        ) from error
    if begun.mode == "write":
        check_kept(connection, cursor)
    try:
        if not compared:
            _find_layout(connection, begun, read_catalogue(cursor))
        prefix = begun.sharing.prefix
        wanted = declared_with(
            shared(schema, prefix) if prefix else schema, connection.info[_INFO_SETTINGS]
        )
        guard.hold(
            cursor,
            wanted,
            path,
            compared,
            compared_in_it=begun.compared,
            writes=begun.mode == "write",
            adopt=True,
        )
    except sqlite3.Error as error:
        raise store_error(error, begun.raw, path) from error
    if schema.is_scoped:
        connection.info[SCOPES].add(scope)
    return open_cursor(begun.raw, prefix, path)


def _find_layout(connection: Connection, begun: Begun, catalogue: Catalogue) -> None:
    """Render our tables where this database has them: shared, unless it is a file of ours.

    Another prefix than the engine's is another deployment: neither is that one joined, nor is a
    second one made beside it unasked.
    """
    wanted: str = connection.info[_INFO_SETTINGS].prefix
    there = guard.prefixes(catalogue)
    if there and wanted not in there:
        raise ForeignDatabaseError(
            path_of(connection),
            f"lash_store's tables have the prefix {there[0]!r} there, not {wanted!r}: "
            f"configure(engine, prefix={there[0]!r}) joins them, and "
            f"create_tables(connection, prefix={wanted!r}) makes others beside them",
        )
    is_file = not there and guard.canonical_kind(catalogue) is not None
    _share(connection, begun.sharing, "" if is_file else wanted)


def _sharing_of(connection: Connection) -> Sharing:
    return use_sharing(connection.dialect, dialect.HintingSharingCompiler)


def _share(connection: Connection, sharing: Sharing, prefix: str) -> None:
    """Render our tables in their places from now on, on every connection of the engine."""
    if sharing.prefix != prefix:
        sharing.prefix = prefix
        forget_compiled()
        connection.engine.clear_compiled_cache()


def _begun_transaction(connection: Connection) -> Begun:
    raw = raw_of(connection)
    begun = BEGUN.get(connection)
    if isinstance(begun, Begun) and begun.was_undone:
        raise nothing_kept(path_of(connection))
    if not isinstance(begun, Begun) or begun.raw is not raw or not raw.in_transaction:
        raise no_transaction(connection)
    if not connection.in_transaction():  # ours had begun it, and another listener has refused it
        raise no_transaction(connection)
    return begun


def _look_first(connection: Connection, settings: Settings) -> None:
    """Find out where our tables are before a statement is compiled, which is before it begins."""
    sharing = _sharing_of(connection)
    connection.info[_INFO_PREFIX] = settings.prefix
    if sharing.prefix:
        return
    # Not the Connection itself: aiosqlite's thread keeps what it has done last, and that would never be given back.
    raw, info = raw_of(connection), connection.info
    before, path = info.get(_INFO_LOOKED), path_of(connection)

    def look() -> Catalogue | None:
        cursor = open_cursor(raw)
        # Anybody may have made them since, in this process or another.
        version = info[_INFO_LOOKED] = unobserved(cursor, dialect.SCHEMA_VERSION)
        return None if version == before else read_catalogue(cursor)

    try:
        catalogue = in_its_thread(connection, look)
    except MissingGreenlet:
        return  # it can't begin here either, and says so in time to be given back
    except BaseException as error:
        # SQLAlchemy has not handed it out yet, and gives back none of which this is raised.
        connection.invalidate()
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise open_error(path, error) from error
        raise
    if catalogue is not None and settings.prefix in guard.prefixes(catalogue):
        _share(connection, sharing, settings.prefix)


def _begin(connection: Connection, settings: Settings, undeclared: Mode) -> None:
    raw = raw_of(connection)
    begun = BEGUN.pop(connection, None)
    if isinstance(begun, Begun) and begun.raw is raw and raw.in_transaction:
        BEGUN[connection] = begun  # an engine with options of its own was configured too
        return
    mode = mode_of(connection, undeclared)
    if mode is None:
        return
    check_control(connection, raw)
    if raw.in_transaction:
        raise already_begun(connection)
    if mode == "write":
        check_no_block_here(connection, raw)
    started_s = time.monotonic()
    sharing = _sharing_of(connection)
    try:
        in_its_thread(connection, partial(_send_begin, connection, raw, mode, settings))
    except sqlite3.Error as error:
        if is_busy(error):
            waited_ms = round((time.monotonic() - started_s) * 1000)
            path = path_of(connection)
            raise StoreBusyError(path, waited_ms, *own_transaction(path)) from error
        raise store_error(error, raw, path_of(connection)) from error
    connection.info[_INFO_SETTINGS] = settings
    BEGUN[connection] = begun = Begun(raw, mode, sharing, connection.info[INFO_PATH])
    waited_s = time.monotonic() - started_s
    if mode == "write" and waited_s >= LONG_WAIT_S:
        begun.notes.append(long_wait(path_of(connection), None, waited_s))
    connection.info[SCOPES] = set()


def _send_begin(
    connection: Connection, raw: sqlite3.Connection, mode: Mode, settings: Settings
) -> None:
    """Prepare a connection that is new, and begin; it may wait for a lock."""
    cursor, is_new = open_cursor(raw), _INFO_SETTINGS not in connection.info
    if is_new:
        # One that was busy before has it noted already.
        connection.info.setdefault(INFO_LEVEL, raw.isolation_level)
        connection.info[INFO_PATH] = file_of(raw)
        prepare_joined(
            raw, cursor, settings, path_of(connection), keeps_keys=not are_set(connection)
        )
    else:
        raw.isolation_level = None
    if mode == "read":
        connection.info[INFO_READING] = True
        cursor.execute(dialect.READ_ONLY_ON)
    cursor.execute(dialect.BEGIN_READ if mode == "read" else dialect.BEGIN_WRITE)
