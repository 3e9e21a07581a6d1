"""Copying unit by unit, each in one transaction, out of one snapshot, and compared before it is committed."""

import hashlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Column, LargeBinary, Row, Select, Table, insert, select

from lash_store._backends import (
    database_path,
    is_in_memory,
    is_server,
    is_url,
    look_into,
    place_name,
)
from lash_store._kernel.options import OpenOptions
from lash_store._kernel.schema import Kind
from lash_store._stores.store import Store
from lash_store._stores.tx import Tx, explained_on
from lash_store.deployment import SESSIONS
from lash_store.errors import (
    ConnectionLostError,
    CopyError,
    CorruptRecordError,
    InvalidRecordError,
    OutcomeUnknownError,
    StorageError,
    StoreOpenError,
)
from lash_store.moving.units import OTHERS, has_rows, has_tables, names_in, units_of
from lash_store.schemas import SCHEMAS
from lash_store.session.folder_lock import FolderLock
from lash_store.session.places import (
    file_name,
    make_folder,
    place_at,
)
from lash_store.session.store import SessionStore

_PAGE: Final = 50
"""How many rows are held at a time, each of which may be a blob."""


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
    that unit copied; StorageError for a source that is damaged, and CorruptRecordError for a blob of it that holds
    something else; StoreOpenError if there is no source, or nothing in it, and for a target in memory; and
    what opening raises.
    """
    source, target = place_at("source", source), place_at("target", target)
    if is_in_memory(target):
        raise StoreOpenError(str(target), "of a database in memory nothing would be left")
    _check_apart(source, target)
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
    copied, told = [], progress or (lambda _: None)
    with closing(_copies(source, target, reading, options)) as copies:
        for unit in copies:
            copied.append(unit)
            told(unit)
    if not copied and not (is_url(source) and has_tables(str(source), reading)):
        what = (
            f"tables of ours in it, under {reading['prefix']!r}"
            if is_url(source)
            else "store in it"
        )
        raise StoreOpenError(place_name(str(source)), f"there is no {what}: nothing was copied")
    return copied


def _check_apart(source: str | Path, target: str | Path) -> None:
    """Refuse a place among the other's sessions: what is there would be taken for one, or is made to be."""
    for one, folder in ((target, source), (source, target)):
        if is_server(one) or is_url(folder):
            continue
        place = database_path(str(one)) if is_url(one) else one
        sessions = os.path.realpath(os.path.join(folder, SESSIONS))
        if place is not None and Path(os.path.realpath(place)).is_relative_to(sessions):
            raise StoreOpenError(
                place_name(str(one)), f"it is where the sessions of {str(folder)!r} are"
            )


def _copies(
    source: str | Path, target: str | Path, reading: OpenOptions, options: OpenOptions
) -> Generator[Copied, None, None]:
    """Copy one unit after another."""
    sound: set[str] = set()
    with ExitStack() as held:
        for kind, session_id, open_source in units_of(source, reading):
            with ExitStack() as opened:
                try:
                    with _of_unit(target, kind, session_id):
                        store = opened.enter_context(open_source())
                except StoreOpenError as error:
                    if session_id is None or is_url(source):
                        raise
                    # Nobody removes one, or makes one, now: what is there still is as it stands.
                    with FolderLock(Path(error.path).parent).kept_still():
                        if not os.path.lexists(error.path):
                            continue  # it was deleted meanwhile
                        store = opened.enter_context(open_source())
                if not is_server(source) and store.path not in sound:
                    _check_sound(store.path)
                    sound.add(store.path)
                extras = store.undeclared_extras()
                there = None
                if str(source) == str(target):
                    # Before the snapshot, which may be in the way of WAL.
                    there = opened.enter_context(_open_target(kind, session_id, target, options))
                with store.read() as here:
                    here.own_cursor.driver.require_all_rows(here.own_cursor)
                    # In this snapshot, and before anything is made of it there.
                    if session_id is not None and not _is_wanted(here, session_id, target):
                        continue
                    there = there or opened.enter_context(
                        _open_target(kind, session_id, target, options)
                    )
                    with _explained(there, kind, session_id):
                        rows, was_there = _copy(here, there, kind, session_id)
                held.close()  # not before: the connections of a server are kept for who comes next
                held.enter_context(opened.pop_all())
            yield Copied(kind, session_id, rows, was_there, extras)


def _check_sound(path: str) -> None:
    """Raise StorageError for a damaged file: an index that has lost rows would copy, and agree, without them."""
    schemas = [each for schema in SCHEMAS.values() for each in (schema, schema.before) if each]
    damage = look_into(path, schemas).damage
    if damage:
        raise StorageError(path, "damaged", "; ".join(damage[:_SHOWN_DAMAGE]))


_SHOWN_DAMAGE: Final = 3


def _is_wanted(tx: Tx[Any], session_id: str, target: str | os.PathLike[str]) -> bool:
    """Whether a session is still there; CopyError for one that could not be told from its file.

    An empty one would be a session without a name.
    """
    if not has_rows(tx):
        return False
    if not is_url(target) and session_id not in names_in(tx):
        why = (
            "no row of it says whose it is, and the file that it would be could not: save its meta"
        )
        raise CopyError(str(target), _called("session", session_id), why)
    return True


def _open_target(
    kind: Kind, session_id: str | None, target: str | os.PathLike[str], options: OpenOptions
) -> Store[Any]:
    if session_id is not None:
        if is_url(target):
            return SessionStore.open(str(target), session_id=session_id, **options)
        folder = Path(target) / SESSIONS
        make_folder(folder)
        return SessionStore.open(folder / file_name(session_id), session_id=session_id, **options)
    store, name = OTHERS[kind]
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


def _copy(
    here: Tx[Any], target: Store[Any], kind: Kind, session_id: str | None
) -> tuple[int, bool]:
    """Copy a unit; return how many rows it has, and whether they were there already."""
    what = _called(kind, session_id)
    with target.read() as there:  # before it is locked: others write to it meanwhile
        there.own_cursor.driver.require_all_rows(there.own_cursor)
        tables = _tables_of_both(here, there)
        wanted = [_digest(here, table, new) for table, new in tables]
        found = [_digest(there, new, table) for table, new in tables]
    rows = sum(count for count, _ in wanted)
    if found == wanted:
        return rows, rows > 0
    with target.begin() as there:
        there.own_cursor.driver.require_all_rows(there.own_cursor)
        if has_rows(there):
            if [_digest(there, new, table) for table, new in tables] == wanted:
                return rows, True  # another copy was first
            raise CopyError(target.path, what, "it holds other rows already")
        for table, new in tables:
            for page in _pages(here, select(*_common(table, new)).order_by(*table.primary_key)):
                with explained_on(there):
                    there.connection.execute(insert(new), [_read(table, row) for row in page])
            there.own_cursor.driver.continue_numbers(there.own_cursor, new)
        if [_digest(there, new, table) for table, new in tables] != wanted:
            raise CopyError(target.path, what, "what was written there is not what was read")
    return rows, False


def _tables_of_both(here: Tx[Any], there: Tx[Any]) -> list[tuple[Any, Any]]:
    return [
        (table, new)
        for table in here.schema.tables
        for new in there.schema.tables
        if new.name == table.name
    ]


def _pages(tx: Tx[Any], rows: Select[Any]) -> Iterator[Sequence[Any]]:
    """Give what is selected, page by page, from a server too; an error is of whom it is read from."""
    with (
        explained_on(tx),
        tx.connection.execute(rows, execution_options={"yield_per": _PAGE}) as result,
    ):
        yield from result.partitions()


def _read(table: Table[Any], row: Row[Any]) -> dict[str, Any]:
    """Return what is to be written; CorruptRecordError for what is no BLOB where one should be, which no driver takes."""
    values = row._asdict()
    for column in table.columns:
        value = values.get(column.name, b"")
        if isinstance(column.type, LargeBinary) and not isinstance(value, bytes):
            key = ", ".join(str(values[each.name]) for each in table.primary_key)
            why = f"its {column.name} is a {type(value).__name__}, and no BLOB"
            raise CorruptRecordError(table.name, key, why)
    return values


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
