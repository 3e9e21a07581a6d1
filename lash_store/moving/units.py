"""What there is to copy: the units of a deployment, each of which is opened to be read."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select, union

from lash_store._backends import (
    is_url,
    open_handle,
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
    CorruptRecordError,
    InvalidRecordError,
    SchemaVersionError,
    StoreEmptyError,
    StoreOpenError,
)
from lash_store.process.store import ProcessRegistry
from lash_store.schemas import schema_of
from lash_store.session.context import session_context
from lash_store.session.folder_lock import is_there
from lash_store.session.places import check_owner, file_name, file_names
from lash_store.session.store import SessionStore
from lash_store.session.tables import session_head, session_meta
from lash_store.trigger.store import TriggerStore

OTHERS: Final[dict[Kind, tuple[Any, str]]] = {
    "process": (ProcessRegistry, PROCESSES),
    "trigger": (TriggerStore, TRIGGERS),
    "effect": (EffectStore, EFFECTS),
}


Unit = tuple[Kind, str | None, Callable[[], Store[Any]]]


def units_of(source: str | os.PathLike[str], reading: OpenOptions) -> Iterator[Unit]:
    """Give each session of a deployment, and its processes, triggers and effects."""
    yield from _sessions(source, reading)
    for kind, (store, name) in OTHERS.items():
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
        why = (
            f"it is no folder with stores in it; a database is copied by its URL, {url_of(folder)!r}, and "
            "the file of one session with its folder, in which it stands where SessionDirectory.path_of() says"
        )
        raise StoreOpenError(str(folder), why)
    for path in (folder / SESSIONS / name for name in file_names(folder / SESSIONS)):
        whose = _owner_of(path, reading)
        if whose is not None:
            yield "session", whose, partial(_readable_session, path, whose, reading)


def _owner_of(path: Path, reading: OpenOptions) -> str | None:
    """Return whose a file of a folder is; None if it is nobody's, or was deleted meanwhile."""
    try:
        return _session_of(path, reading)
    except StoreEmptyError:
        return None  # nobody has made a session of it
    except StoreOpenError:
        if os.path.lexists(path):
            raise
        return None
    except InvalidRecordError as error:
        if error.field != "session_id":
            raise
        raise CorruptRecordError(session_meta.name, path.name, str(error)) from error


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
            tx.own_cursor.driver.require_all_rows(tx.own_cursor)
            everybody = [select(across_sessions(table).c.store) for table in tx.schema.tables]
            with explained_on(tx):
                names = tx.connection.execute(union(*everybody)).scalars().all()
            return sorted(check_owner(name) for name in names)
    except StoreEmptyError:
        return []


def has_tables(url: str, reading: OpenOptions) -> bool:
    """Whether a shared database has the tables of sessions, of which there may be none."""
    try:
        _readable_session(url, "copy", reading).close()
    except StoreEmptyError:
        return False
    return True


def has_rows(tx: Tx[Any]) -> bool:
    """Whether any table of a store has a row."""
    with explained_on(tx):
        return any(
            tx.connection.execute(select(*table.primary_key).limit(1)).first() is not None
            for table in tx.schema.tables
        )


def _session_of(path: Path, reading: OpenOptions) -> str | None:
    """Return whose a file is: by its meta, its head, or a row that says so; None if it has no row."""
    with (
        _readable_session(path, "copy", reading) as store,
        store.read() as tx,
        explained_on(tx),
    ):
        name = next((name for name in names_in(tx) if file_name(name) == path.name), None)
        if name is not None:
            return name
        if not has_rows(tx):
            return None
        bound = next(_bound_to(tx), None)
    if bound is not None:
        own = path.with_name(file_name(bound))
        if is_there(own):
            why = f"it holds session {bound!r}, as {own.name!r} does: leave one of them there"
            raise StoreOpenError(str(path), why)
        return bound
    raise CorruptRecordError(session_meta.name, path.name, "nothing in the file says whose it is")


def names_in(tx: Tx[Any]) -> Iterator[str]:
    """Give the sessions that a session's rows name, first by its meta and its head."""
    with explained_on(tx):
        yield from _bound_to(tx)
        for table in _of_sessions(tx):
            names = tx.connection.execute(select(table.c.session_id).distinct()).scalars()
            yield from (name for name in names if isinstance(name, str) and name)


def _of_sessions(tx: Tx[Any]) -> list[Any]:
    return [table for table in tx.schema.tables if "session_id" in table.c]


def _bound_to(tx: Tx[Any]) -> Iterator[str]:
    for table in (session_meta, session_head):
        name = tx.connection.scalar(select(table.c.session_id))
        if name is not None:
            yield name
