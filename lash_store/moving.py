"""Moving a deployment between a folder of files and one database, either way.

::

    copy_deployment("folder", "sqlite:///app.db")      # or: lash-store copy folder sqlite:///app.db
    copy_deployment("sqlite:///app.db", "folder")

What is copied goes by units: each session, and the processes, triggers and effects. A unit is copied in
one transaction, out of one snapshot, and compared before it is committed: a digest for each table. So
a copy that was interrupted may be run again: a unit that is there and equal is passed over.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Table, insert, select, union

from lash_store._backends import database_path, is_url
from lash_store._kernel.checks import check_kind
from lash_store._kernel.options import OpenOptions
from lash_store._kernel.schema import Kind
from lash_store._kernel.sharing import across_sessions
from lash_store._stores.store import Store
from lash_store._stores.tx import Tx
from lash_store.deployment import EFFECTS, PROCESSES, SESSIONS, TRIGGERS
from lash_store.effect.store import EffectStore
from lash_store.errors import CopyError, CorruptRecordError, StoreEmptyError, StoreOpenError
from lash_store.process.store import ProcessRegistry
from lash_store.session.directory import SessionDirectory
from lash_store.session.places import file_name, make_folder
from lash_store.session.store import SessionStore
from lash_store.session.tables import SCHEMA as SESSION, session_execution_leases
from lash_store.trigger.store import TriggerStore

_PAGE: Final = 500
_OTHERS: Final[dict[Kind, tuple[Any, str]]] = {
    "process": (ProcessRegistry, PROCESSES),
    "trigger": (TriggerStore, TRIGGERS),
    "effect": (EffectStore, EFFECTS),
}


class Copied(msgspec.Struct, frozen=True):
    """One unit that was copied, or was there and equal: its kind, a session's id, how many rows."""

    kind: Kind
    session_id: str | None
    rows: int
    was_there: bool


Progress = Callable[[Copied], None]
"""What is called after each unit."""


def copy_deployment(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    prefix: str = "lash_",
    progress: Progress | None = None,
) -> list[Copied]:
    """Copy every row of a deployment, by its folder or URL, into another; return what was copied.

    The source is only read, unit by unit: a deployment that is in use meanwhile is copied as each unit
    stood when it was its turn. Raises CopyError for a unit of the target that holds other rows, and if
    a digest differs, with nothing of that unit copied; StoreOpenError if there is no source, and what
    opening raises.
    """
    for name, where in (("source", source), ("target", target)):
        check_kind(name, where, (str, os.PathLike))
    options: OpenOptions = {"prefix": prefix}
    copied = []
    for kind, session_id, open_source in _units(source, options):
        with ExitStack() as opened:
            store = opened.enter_context(open_source())
            there = opened.enter_context(_open_target(kind, session_id, target, options))
            unit = _copy(store, there, kind, session_id)
        copied.append(unit)
        if progress is not None:
            progress(unit)
    return copied


Unit = tuple[Kind, str | None, Callable[[], Store[Any]]]


def _units(source: str | os.PathLike[str], options: OpenOptions) -> Iterator[Unit]:
    reading: OpenOptions = {**options, "read_only": True}
    yield from _sessions(source, reading)
    for kind, (store, name) in _OTHERS.items():
        where = source if is_url(source) else Path(source) / name
        if is_url(source) or os.path.exists(where):
            try:
                store.open(where, **reading).close()
            except StoreEmptyError:
                continue  # nobody has opened one of this kind there yet
            yield kind, None, lambda store=store, where=where: store.open(where, **reading)  # type: ignore[misc] # reason: defaults


def _sessions(source: str | os.PathLike[str], reading: OpenOptions) -> Iterator[Unit]:
    if is_url(source):
        url = str(source)
        if not os.path.exists(database_path(url) or ""):
            raise StoreOpenError(url, "there is no database to copy")
        for name in _scopes(url, reading):
            yield (
                "session",
                name,
                lambda name=name: SessionStore.open(  # type: ignore[misc] # reason: defaults
                    url, session_id=name, **reading
                ),
            )
        return
    folder = Path(source)
    if not folder.is_dir():
        raise StoreOpenError(str(folder), "there is no folder to copy")
    after = ""
    directory = SessionDirectory(folder / SESSIONS)
    while page := directory.list(after=after, limit=_PAGE):
        for entry in page:
            path = folder / SESSIONS / entry.file_name
            name = _session_of(path, reading)
            yield (
                "session",
                name,
                lambda path=path, name=name: SessionStore.open(  # type: ignore[misc] # reason: defaults
                    path, session_id=name, **reading
                ),
            )
        after = page[-1].file_name


def _scopes(url: str, reading: OpenOptions) -> list[str]:
    """Return the sessions that have any row in a shared database."""
    everybody = [select(across_sessions(table).c.store) for table in SESSION.tables]
    try:
        with SessionStore.open(url, session_id="copy", **reading) as store, store.read() as tx:
            return sorted(tx.connection.execute(union(*everybody)).scalars())
    except StoreEmptyError:
        return []


def _session_of(path: Path, reading: OpenOptions) -> str:
    """Return whose a file is: by its meta, its head, or the one lease in it."""
    with SessionStore.open(path, session_id="copy", **reading) as store, store.read() as tx:
        meta, head = tx.load_meta(), tx.load_head()
        leases = (
            tx.connection.execute(select(session_execution_leases.c.session_id)).scalars().all()
        )
    named = [each.session_id for each in (meta, head) if each is not None]
    for name in (*named, *leases):
        if file_name(name) == path.name:
            return name
    if named:
        return named[0]
    raise CorruptRecordError("session_meta", path.name, "nothing in the file says whose it is")


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


def _copy(source: Store[Any], target: Store[Any], kind: Kind, session_id: str | None) -> Copied:
    what = kind if session_id is None else f"{kind} {session_id!r}"
    with source.read() as here, target.begin() as there:
        tables = here.schema.tables
        wanted = [_digest(here, table) for table in tables]
        rows = sum(count for count, _ in wanted)
        found = [_digest(there, table) for table in tables]
        if found == wanted:
            return Copied(kind, session_id, rows, was_there=True)
        if any(count for count, _ in found):
            raise CopyError(target.path, what, "it holds other rows already")
        for table in tables:
            result = here.connection.execute(select(table).order_by(*table.primary_key))
            for page in result.mappings().partitions(_PAGE):
                there.connection.execute(insert(table), [dict(row) for row in page])
        if [_digest(there, table) for table in tables] != wanted:
            raise CopyError(target.path, what, "what was written there is not what was read")
    return Copied(kind, session_id, rows, was_there=False)


def _digest(tx: Tx[Any], table: Table[Any]) -> tuple[int, str]:
    """Return how many rows a table has, and a digest of all of them, in order."""
    digest, count = hashlib.sha256(), 0
    columns = [table.c[column.name] for column in table.columns]
    result = tx.connection.execute(select(*columns).order_by(*table.primary_key))
    for page in result.partitions(_PAGE):
        for row in page:
            digest.update(msgspec.msgpack.encode(list(row)))
            count += 1
    return count, digest.hexdigest()
