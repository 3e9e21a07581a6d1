"""Moving a deployment between a folder of files, a SQLite database and PostgreSQL, any way.

::

    copy_deployment("folder", "sqlite:///app.db")      # or: lash-store copy folder sqlite:///app.db
    copy_deployment("sqlite:///app.db", "postgresql+psycopg://…")
    copy_deployment("postgresql+psycopg://…", "folder")

What is copied goes by units: each session, and the processes, triggers and effects. A unit is copied in
one transaction, out of one snapshot, and compared before it is committed: a digest for each table. So
a copy that was interrupted may be run again: a unit that is there and equal is passed over.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Column, Select, Table, insert, select, union

from lash_store._backends import (
    is_in_memory,
    is_server,
    is_url,
    look_into,
    open_handle,
    place_name,
    require_there,
    url_of,
)
from lash_store._kernel.options import OpenOptions, Settings
from lash_store._kernel.schema import Kind
from lash_store._kernel.sharing import across_sessions
from lash_store._stores.store import Store
from lash_store._stores.tx import Context, Tx, explained_on
from lash_store.deployment import EFFECTS, PROCESSES, SESSIONS, TRIGGERS
from lash_store.effect.store import EffectStore
from lash_store.errors import (
    ConnectionLostError,
    CopyError,
    CorruptRecordError,
    InvalidRecordError,
    OutcomeUnknownError,
    SchemaVersionError,
    StorageError,
    StoreEmptyError,
    StoreOpenError,
)
from lash_store.process.store import ProcessRegistry
from lash_store.schemas import SCHEMAS, schema_of
from lash_store.session.context import session_context
from lash_store.session.places import (
    check_owner,
    file_name,
    file_names,
    is_there,
    make_folder,
    place_at,
)
from lash_store.session.store import SessionStore
from lash_store.session.tables import session_head, session_meta
from lash_store.trigger.store import TriggerStore

_PAGE: Final = 500
_OTHERS: Final[dict[Kind, tuple[Any, str]]] = {
    "process": (ProcessRegistry, PROCESSES),
    "trigger": (TriggerStore, TRIGGERS),
    "effect": (EffectStore, EFFECTS),
}


class Copied(msgspec.Struct, frozen=True):
    """One unit that was copied, or was there and equal: its kind, a session's id, how many rows.

    Of none, `was_there` is false: nothing was.

    `extras` are the indexes and triggers that an application has added to it, and that are not copied.
    """

    kind: Kind
    session_id: str | None
    rows: int
    was_there: bool
    extras: tuple[str, ...] = ()


Progress = Callable[[Copied], None]
"""What is called after each unit."""


def copy_deployment(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    prefix: str = "lash_",
    source_prefix: str | None = None,
    adopt: bool = False,
    progress: Progress | None = None,
) -> list[Copied]:
    """Copy every row of a deployment, by its folder or URL, into another; return what was copied.

    `prefix` is that of the tables in a database, `source_prefix` that of the source's if it is another;
    both may be in one database. With `adopt` the target may be an application's. The source is only read, unit by unit: a deployment that is in use meanwhile is copied as each unit
    stood when it was its turn. Raises CopyError for a unit of the target that holds other rows, for a value
    that the target can't hold (a NUL in text, on PostgreSQL), and if a digest differs, with nothing of
    that unit copied; StorageError for a source that is damaged; StoreOpenError if there is no source, or nothing in it, and for a target in memory; and
    what opening raises.
    """
    source, target = place_at("source", source), place_at("target", target)
    if is_in_memory(target):
        raise StoreOpenError(str(target), "of a database in memory nothing would be left")
    reading: OpenOptions = {
        "prefix": source_prefix or prefix,
        "extras": "any",
        "read_only": True,
    }
    # Into the source's own database, under another prefix, it is asked for by that.
    is_beside = str(source) == str(target) and reading["prefix"] != prefix
    options: OpenOptions = {"prefix": prefix, "extras": "any"}
    if is_url(target):
        options["adopt"] = adopt or is_beside
    copied = []
    sound: set[str] = set()
    with ExitStack() as held:
        for kind, session_id, open_source in _units(source, reading):
            with ExitStack() as opened:
                with _of_unit(target, kind, session_id):
                    store = opened.enter_context(open_source())
                if not is_server(source) and store.path not in sound:
                    _check_sound(store.path)
                    sound.add(store.path)
                if session_id is not None and not _has_rows(store):
                    continue  # it was deleted meanwhile: an empty one would be a session without a name
                there = opened.enter_context(_open_target(kind, session_id, target, options))
                with _explained(there, kind, session_id):
                    unit = _copy(store, there, kind, session_id)
                held.close()  # not before: the connections of a server are kept for who comes next
                held.enter_context(opened.pop_all())
            copied.append(unit)
            if progress is not None:
                progress(unit)
    if not copied and not (is_url(source) and _has_tables(str(source), reading)):
        what = (
            f"tables of ours in it, under {reading['prefix']!r}"
            if is_url(source)
            else "store in it"
        )
        raise StoreOpenError(place_name(str(source)), f"there is no {what}: nothing was copied")
    return copied


def _check_sound(path: str) -> None:
    """Raise StorageError for a damaged file: an index that has lost rows would copy, and agree, without them."""
    schemas = [each for schema in SCHEMAS.values() for each in (schema, schema.before) if each]
    damage = look_into(path, schemas).damage
    if damage:
        raise StorageError(path, "damaged", "; ".join(damage[:_SHOWN_DAMAGE]))


_SHOWN_DAMAGE: Final = 3

Unit = tuple[Kind, str | None, Callable[[], Store[Any]]]


def _units(source: str | os.PathLike[str], reading: OpenOptions) -> Iterator[Unit]:
    yield from _sessions(source, reading)
    for kind, (store, name) in _OTHERS.items():
        where = source if is_url(source) else Path(source) / name
        if is_url(source) or os.path.lexists(where):  # a link that leads nowhere is an error
            opening = partial(_readable, partial(store.open, where, **reading), where, reading)
            try:
                opening().close()
            except StoreEmptyError:
                continue  # nobody has opened one of this kind there yet
            yield kind, None, opening


def _sessions(source: str | os.PathLike[str], reading: OpenOptions) -> Iterator[Unit]:
    if is_url(source):
        url = str(source)
        require_there(url, "copy")
        for name in _scopes(url, reading):
            yield "session", name, partial(_readable_session, url, name, reading)
        return
    folder = Path(source)
    if not is_there(folder):
        raise StoreOpenError(str(folder), "there is no folder to copy")
    if not folder.is_dir():
        why = f"it is no folder with stores in it; a database is copied by its URL, {url_of(folder)!r}"
        raise StoreOpenError(str(folder), why)
    for path in (folder / SESSIONS / name for name in file_names(folder / SESSIONS)):
        try:
            whose = _session_of(path, reading)
        except StoreEmptyError:
            continue  # nobody has made a session of it
        except StoreOpenError:
            if os.path.lexists(path):
                raise
            continue  # it was deleted meanwhile
        if whose is not None:
            yield "session", whose, partial(_readable_session, path, whose, reading)


def _readable_session(
    where: str | os.PathLike[str], session_id: str, reading: OpenOptions
) -> Store[Any]:
    opening = partial(SessionStore.open, where, session_id=session_id, **reading)
    return _readable(opening, where, reading, session_id)


def _readable(
    opening: Callable[[], Store[Any]],
    where: str | os.PathLike[str],
    reading: OpenOptions,
    session_id: str | None = None,
) -> Store[Any]:
    """Open what is to be copied; also what the release before this one has made (K-SHARE-10)."""
    try:
        return opening()
    except SchemaVersionError as error:
        before = schema_of(error.kind).before
        if before is None or error.found != before.version:
            raise
        settings = Settings(**reading)
        context = (
            Context(settings.clock, settings.ids)
            if session_id is None
            else session_context(session_id, "balanced", settings.clock, settings.ids)
        )
        earlier: type[Tx[Any]] = type("EarlierTx", (Tx,), {"schema": before, "__slots__": ()})
        return Store(open_handle(before, where, settings), earlier, context)


def _scopes(url: str, reading: OpenOptions) -> list[str]:
    """Return the sessions that have any row in a shared database."""
    try:
        with _readable_session(url, "copy", reading) as store, store.read() as tx:
            everybody = [select(across_sessions(table).c.store) for table in tx.schema.tables]
            with explained_on(tx):
                names = tx.connection.execute(union(*everybody)).scalars().all()
            return sorted(check_owner(name) for name in names)
    except StoreEmptyError:
        return []


def _has_tables(url: str, reading: OpenOptions) -> bool:
    """Whether a shared database has the tables of sessions, of which there may be none."""
    try:
        _readable_session(url, "copy", reading).close()
    except StoreEmptyError:
        return False
    return True


def _has_rows(store: Store[Any]) -> bool:
    with store.read() as tx, explained_on(tx):
        return any(
            tx.connection.execute(select(*table.primary_key).limit(1)).first() is not None
            for table in tx.schema.tables
        )


def _session_of(path: Path, reading: OpenOptions) -> str | None:
    """Return whose a file is: by its meta, its head, or a row that says so; None if it has no row."""
    with _readable_session(path, "copy", reading) as store:
        with store.read() as tx, explained_on(tx):
            meta = tx.connection.scalar(select(session_meta.c.session_id))
            head = tx.connection.scalar(select(session_head.c.session_id))
            named: list[str] = [each for each in (meta, head) if each is not None]
            for names in (named, _names_in_rows(tx)):
                for name in names:
                    if file_name(name) == path.name:
                        return str(name)
        if not _has_rows(store):
            return None
    if named:
        own = path.with_name(file_name(named[0]))
        if is_there(own):
            why = f"it holds session {named[0]!r}, as {own.name!r} does: leave one of them there"
            raise StoreOpenError(str(path), why)
        return named[0]
    raise CorruptRecordError("session_meta", path.name, "nothing in the file says whose it is")


def _names_in_rows(tx: Tx[Any]) -> Iterator[str]:
    """Give the sessions that the rows of a file name."""
    for table in tx.schema.tables:
        if "session_id" in table.c:
            names = tx.connection.execute(select(table.c.session_id).distinct()).scalars()
            yield from (name for name in names if isinstance(name, str) and name)


def _open_target(
    kind: Kind, session_id: str | None, target: str | os.PathLike[str], options: OpenOptions
) -> Store[Any]:
    if session_id is not None:
        if is_url(target):
            return SessionStore.open(str(target), session_id=session_id, **options)
        folder = Path(target) / SESSIONS
        make_folder(folder)
        return SessionStore.open(folder / file_name(session_id), session_id=session_id, **options)
    store, name = _OTHERS[kind]
    if not is_url(target):
        make_folder(Path(target))
    opened: Store[Any] = store.open(target if is_url(target) else Path(target) / name, **options)
    return opened


@contextmanager
def _of_unit(target: str | os.PathLike[str], kind: Kind, session_id: str | None) -> Iterator[None]:
    """Raise CopyError for a session whose id can't be one any more: older programs wrote what they liked."""
    try:
        yield
    except InvalidRecordError as error:
        if error.field != "session_id":
            raise
        what = _called(kind, session_id)
        raise CopyError(place_name(str(target)), what, error.problem) from error


@contextmanager
def _explained(target: Store[Any], kind: Kind, session_id: str | None) -> Iterator[None]:
    """Raise CopyError for what a target can't hold; what befell a connection, or the source, is no such thing."""
    try:
        yield
    except (ConnectionLostError, OutcomeUnknownError):
        raise
    except StorageError as error:
        if error.path != target.path:
            raise
        raise CopyError(target.path, _called(kind, session_id), error.cause) from error
    except InvalidRecordError as error:
        raise CopyError(target.path, _called(kind, session_id), error.problem) from error


def _copy(source: Store[Any], target: Store[Any], kind: Kind, session_id: str | None) -> Copied:
    what = _called(kind, session_id)
    extras = source.undeclared_extras()
    with source.read() as here, target.begin() as there:
        tables = [
            (table, new)
            for table in here.schema.tables
            for new in there.schema.tables
            if new.name == table.name
        ]
        wanted = [_digest(here, table, new) for table, new in tables]
        rows = sum(count for count, _ in wanted)
        found = [_digest(there, new, table) for table, new in tables]
        if found == wanted:
            return Copied(kind, session_id, rows, was_there=rows > 0, extras=extras)
        if any(count for count, _ in found):
            raise CopyError(target.path, what, "it holds other rows already")
        for table, new in tables:
            for page in _pages(here, select(*_common(table, new)).order_by(*table.primary_key)):
                with explained_on(there):
                    there.connection.execute(insert(new), [row._asdict() for row in page])
            there.own_cursor.driver.continue_numbers(there.own_cursor, new)
        if [_digest(there, new, table) for table, new in tables] != wanted:
            raise CopyError(target.path, what, "what was written there is not what was read")
    return Copied(kind, session_id, rows, was_there=False, extras=extras)


def _pages(tx: Tx[Any], rows: Select[Any]) -> Iterator[Sequence[Any]]:
    """Give what is selected, page by page, from a server too; an error is of whom it is read from."""
    with explained_on(tx):
        result = tx.connection.execute(rows, execution_options={"yield_per": _PAGE})
        yield from result.partitions()


def _called(kind: Kind, session_id: str | None) -> str:
    return kind if session_id is None else f"{kind} {session_id!r}"


def _common(table: Table[Any], other: Table[Any]) -> list[Column[Any]]:
    """Return the columns of a table that another release's has too: those are copied."""
    return [column for column in table.columns if column.name in other.columns]


def _digest(tx: Tx[Any], table: Table[Any], other: Table[Any]) -> tuple[int, str]:
    """Return how many rows a table has, and a digest of all of them, in whatever order.

    Two databases may disagree on that: one in UTF-16 sorts texts by other bytes.
    """
    digest, count = 0, 0
    columns = sorted(_common(table, other), key=lambda column: column.name)
    for page in _pages(tx, select(*columns)):
        for row in page:
            digest += int.from_bytes(hashlib.sha256(msgspec.msgpack.encode(list(row))).digest())
            count += 1
    return count, f"{digest:x}"
