"""A consumer's own engine, prepared so that a Tx can join its transactions (K-TX-8).

``configure(engine)`` makes every transaction of the engine begin as the stores' own do, and
records on the connection how it began. ``Tx.on(connection)`` trusts that record and nothing
else: a transaction that took no write lock at its begin may fail in the middle, and one in
AUTOCOMMIT is none at all.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import get_ident
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.util import await_only

from lash_store._backends.beginning import (
    BEGUN,
    Mode,
    already_begun,
    is_autocommit,
    mode_of,
    nothing_kept,
)
from lash_store._backends.orm_sessions import check_joined
from lash_store._backends.scoping import SCOPES, use_sharing
from lash_store._backends.sqlite import dialect, guard
from lash_store._backends.sqlite.begun import Begun, raw_of
from lash_store._backends.sqlite.drift import Catalogue, read_catalogue
from lash_store._backends.sqlite.driver import (
    StoreCursor,
    consumer_error,
    is_busy,
    open_cursor,
    store_error,
)
from lash_store._backends.sqlite.extras import declared_with
from lash_store._backends.sqlite.files import open_error
from lash_store._backends.sqlite.opening import prepare_joined
from lash_store._backends.tx_connection import explaining
from lash_store._kernel.backend import Standing
from lash_store._kernel.checks import check_now
from lash_store._kernel.extras import OwnTables
from lash_store._kernel.logs import LONG_WAIT_S, long_wait, tell
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema
from lash_store._kernel.sharing import Sharing, shared
from lash_store._kernel.watching import Concern
from lash_store.clock import Clock
from lash_store.errors import ForeignDatabaseError, NotConfiguredError, StoreBusyError, ThreadError

_INFO_SETTINGS: Final = "lash_store_settings"
_INFO_COMPARED: Final = "lash_store_compared"
_INFO_LOOKED: Final = "lash_store_looked"

_DRIVERS: Final = ("pysqlite", "aiosqlite")

_explain: Final = explaining(consumer_error)

R = TypeVar("R")


class JoinedTransaction:
    """A consumer's transaction, as one Tx stands on it."""

    key_locks: None = None

    def __init__(self, begun: Begun, connection: Connection, cursor: StoreCursor) -> None:
        self.own_cursor = cursor
        self.standing: Standing | None = None
        self.is_shared = bool(begun.sharing.prefix)
        self.touched: set[Concern] = set()  # which nobody hears of: it is seen as another's commit
        self.notes = begun.notes
        self.savepoints = begun.savepoints
        self.path = _path_of(connection)
        self._begun = begun
        self._raw = begun.raw
        self._connection = connection
        self._thread = get_ident()

    @property
    def in_transaction(self) -> bool:
        """Whether it is still open."""
        try:
            return self._raw.in_transaction
        except (
            sqlite3.ProgrammingError
        ):  # its connection was closed, as SQLAlchemy's invalidate() does
            return False

    def further_cursor(self, schema: Schema, scope: str, key: object = None) -> StoreCursor:  # noqa: ARG002 # reason: there is one lock
        """Open one more cursor on this transaction, once the database holds `schema`."""
        return _held(self._connection, self._begun, schema, scope)

    def check_thread(self) -> None:
        """Raise ThreadError in any thread but the one that joined it."""
        if self._thread != get_ident():
            raise ThreadError(self._thread, get_ident())

    def admit(self, sql: str) -> None:
        """Raise TransactionControlError for a statement that would end it."""
        if not dialect.is_of_rows(sql):
            dialect.check_no_control(sql)

    def now_ms(self, clock: Clock) -> int:
        """Read the injected clock: SQLite has none of its own."""
        return check_now(clock.now_ms())

    def consumer_connection(self, scope: str) -> Connection:  # noqa: ARG002 # reason: it has its own
        """Return the consumer's own Connection."""
        return self._connection


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

    if not event.contains(engine, "rollback", _end):
        if engine.dialect.driver == "aiosqlite":
            event.listen(engine, "do_connect", _for_any_thread)
        event.listen(engine, "engine_connect", connected)
        event.listen(engine, "begin", begun)
        event.listen(engine, "commit", _committed)
        event.listen(engine, "rollback", _end)
        event.listen(engine, "rollback_savepoint", _compare_again)
        event.listen(engine, "handle_error", _undo_uncommitted)
        event.listen(engine, "handle_error", _explain)
        event.listen(engine, "invalidate", _undo)


def join(session: Any, connection: Connection, schema: Schema, scope: str) -> JoinedTransaction:
    """Join the transaction that is open on `connection`; see ``_backends.joining``."""
    begun = _begun_transaction(connection)
    if schema.is_scoped and begun.sharing.prefix and hasattr(session, "identity_map"):
        check_joined(getattr(session, "sync_session", session), scope)
    cursor = _held(connection, begun, schema, scope)
    joined = JoinedTransaction(begun, connection, cursor)
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
    if connection.get_transaction() is None:
        connection.begin()
    cursor, path, started_s = open_cursor(raw), _path_of(connection), time.monotonic()
    began = not raw.in_transaction
    try:
        if began:
            cursor.execute(dialect.BEGIN_WRITE)
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
    path = _path_of(connection)
    compared = connection.info.setdefault(_INFO_COMPARED, {})
    try:
        cursor = open_cursor(begun.raw)
    except sqlite3.ProgrammingError as error:
        raise NotConfiguredError(
            f"{connection!r} was connected before its engine was configured, for one thread alone"
        ) from error
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
    return open_cursor(begun.raw, prefix)


def _find_layout(connection: Connection, begun: Begun, catalogue: Catalogue) -> None:
    """Render our tables where this database has them: shared, unless it is a file of ours.

    Another prefix than the engine's is another deployment: neither is that one joined, nor is a
    second one made beside it unasked.
    """
    wanted: str = connection.info[_INFO_SETTINGS].prefix
    there = guard.prefixes(catalogue)
    if there and wanted not in there:
        raise ForeignDatabaseError(
            _path_of(connection),
            f"lash_store's tables have the prefix {there[0]!r} there, not {wanted!r}: "
            f"configure(engine, prefix={there[0]!r}) joins them, and "
            f"create_tables(connection, prefix={wanted!r}) makes others beside them",
        )
    is_file = not there and guard.canonical_kind(catalogue) is not None
    _share(connection, begun.sharing, "" if is_file else wanted)


def _share(connection: Connection, sharing: Sharing, prefix: str) -> None:
    """Render our tables in their places from now on, on every connection of the engine."""
    if sharing.prefix != prefix:
        sharing.prefix = prefix
        connection.engine.clear_compiled_cache()


def _begun_transaction(connection: Connection) -> Begun:
    raw = raw_of(connection)
    begun = BEGUN.get(connection)
    if not isinstance(begun, Begun) or begun.raw is not raw or not raw.in_transaction:
        raise NotConfiguredError(
            f"{connection!r} has no transaction that a configured engine began: call "
            "lash_store.configure(engine) once, then use `with engine.begin() as connection:`"
        )
    return begun


def _path_of(connection: Connection) -> str:
    return connection.engine.url.database or "the database"


def _in_its_thread(connection: Connection, function: Callable[[], R]) -> R:
    """Call what may wait for a lock: in aiosqlite's thread, while the event loop goes on."""
    dbapi: Any = connection.connection.dbapi_connection
    driver = getattr(dbapi, "driver_connection", None)
    if driver is None:
        return function()
    found: R = await_only(driver._execute(function))  # noqa: SLF001 # reason: tested by name
    return found


def _for_any_thread(_: Any, __: Any, ___: Any, parameters: dict[str, Any]) -> None:
    """Let a new connection be used in the thread of the event loop, where a Tx on it is."""
    parameters["check_same_thread"] = False


def _look_first(connection: Connection, settings: Settings) -> None:
    """Find out where our tables are before a statement is compiled, which is before it begins."""
    sharing = use_sharing(connection.dialect, dialect.HintingSharingCompiler)
    if sharing.prefix or connection.info.setdefault(_INFO_LOOKED, False):
        return
    raw = raw_of(connection)
    try:
        catalogue = _in_its_thread(connection, lambda: read_catalogue(open_cursor(raw)))
    except sqlite3.Error as error:
        raise open_error(_path_of(connection), error) from error
    connection.info[_INFO_LOOKED] = True
    if settings.prefix in guard.prefixes(catalogue):
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
    if raw.in_transaction:
        raise already_begun(connection)
    started_s = time.monotonic()
    sharing = use_sharing(connection.dialect, dialect.HintingSharingCompiler)
    is_new = _INFO_SETTINGS not in connection.info

    def begin() -> None:
        cursor = open_cursor(raw)
        if raw.isolation_level is not None or is_new:
            prepare_joined(raw, cursor, settings, _path_of(connection))
        # Either way: a snapshot whose connection was dropped may have left the other setting.
        cursor.execute(dialect.READ_ONLY_ON if mode == "read" else dialect.READ_ONLY_OFF)
        cursor.execute(dialect.BEGIN_READ if mode == "read" else dialect.BEGIN_WRITE)

    try:
        _in_its_thread(connection, begin)
    except sqlite3.Error as error:
        if is_busy(error):
            waited_ms = round((time.monotonic() - started_s) * 1000)
            raise StoreBusyError(_path_of(connection), waited_ms) from error
        raise store_error(error, raw, _path_of(connection)) from error
    connection.info[_INFO_SETTINGS] = settings
    BEGUN[connection] = begun = Begun(raw, mode, sharing)
    waited_s = time.monotonic() - started_s
    if mode == "write" and waited_s >= LONG_WAIT_S:
        begun.notes.append(long_wait(_path_of(connection), None, waited_s))
    connection.info[SCOPES] = set()


def _undo(dbapi: Any, _: Any, __: BaseException | None) -> None:
    """Undo what an interrupt leaves on a connection, before SQLAlchemy closes that.

    A cursor that the interrupt's traceback holds would keep it, and the lock, until that is forgotten.
    """
    if isinstance(dbapi, sqlite3.Connection):
        with suppress(sqlite3.Error):
            dbapi.rollback()


def _committed(connection: Connection) -> None:
    begun = BEGUN.get(connection)
    _end(connection)
    if begun is not None and begun.joined and not begun.raw.in_transaction:
        raise nothing_kept(_path_of(connection))
    if begun is not None:
        connection.info.setdefault(_INFO_COMPARED, {}).update(begun.compared)
        tell(begun.notes)


def _compare_again(connection: Connection, *_: Any) -> None:
    """Forget what was compared in a savepoint that is undone, with what was made there."""
    begun = BEGUN.get(connection)
    if begun is not None:
        begun.compared.clear()


def _undo_uncommitted(context: ExceptionContext) -> None:
    """Undo what a COMMIT has refused, for a deferred key say: SQLite leaves it open, with its lock.

    SQLAlchemy takes it to have ended.
    """
    connection = context.connection
    if context.statement is None and connection is not None and connection not in BEGUN:
        connection.info.pop(_INFO_COMPARED, None)  # noted as it was about to be committed
        with suppress(sqlite3.Error):
            raw_of(connection).rollback()


def _end(connection: Connection) -> None:
    begun = BEGUN.pop(connection, None)
    if not connection.invalidated:
        connection.info.pop(SCOPES, None)  # or what runs in AUTOCOMMIT next would be about them
    if begun is None:
        return
    for joined in begun.joined:
        if joined.standing is not None:
            joined.standing.abandon()
    if begun.mode == "read" and not connection.invalidated:
        begun.raw.execute(dialect.READ_ONLY_OFF)
