"""The four schemas by kind, and what can be done with a file of any kind."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, get_args

import msgspec
from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from lash_store._backends import (
    RENDERERS,
    connect_error,
    create_tables as make_tables,
    engine_of,
    is_in_memory,
    is_server,
    look_into,
    open_handle,
    opened_apart,
    require_there,
    stamp_tables as make_stamp,
    url_of,
)
from lash_store._backends.sqlite.ddl import canonical_statements, render
from lash_store._kernel.checks import check_choice, shown
from lash_store._kernel.extras import Extra, OwnTables, Trigger
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Kind, Schema
from lash_store._kernel.sharing import across_sessions
from lash_store._stores.tx import Tx, explained_on
from lash_store.effect.tables import SCHEMA as EFFECT
from lash_store.errors import (
    CorruptRecordError,
    InvalidRecordError,
    StorageError,
    StoreEmptyError,
    StoreOpenError,
)
from lash_store.process.tables import SCHEMA as PROCESS
from lash_store.session.operations.graph import count_nodes
from lash_store.session.places import check_owner
from lash_store.session.store import SessionStore
from lash_store.session.tables import SCHEMA as SESSION, graph_nodes, session_head
from lash_store.session.tx import SessionTx
from lash_store.trigger.tables import SCHEMA as TRIGGER

__all__ = [
    "DIALECTS",
    "KINDS",
    "SCHEMAS",
    "FileReport",
    "Kind",
    "OwnTables",
    "Trigger",
    "adopt_database",
    "canonical_statements",
    "check_file",
    "create_tables",
    "init_file",
    "mend_file",
    "render",
    "render_all",
    "schema_of",
    "stamp_tables",
]

SCHEMAS: Final[dict[Kind, Schema]] = {
    schema.kind: schema for schema in (SESSION, PROCESS, TRIGGER, EFFECT)
}
"""Each kind's declared schema: its MetaData, tables and version."""

DIALECTS: Final = tuple(RENDERERS)
"""The databases that the DDL can be printed for."""

KINDS: Final[tuple[str, ...]] = get_args(Kind)


STALE_COUNT: Final = "the head's graph_node_count is"
"""How the one problem begins that :func:`mend_file` mends."""


class FileReport(msgspec.Struct, frozen=True):
    """What :func:`check_file` found; the file is sound if `problems` is empty."""

    path: str
    kind: Kind | Literal["shared"] | None
    """The kind of store, "shared" for a database of any of them, or None if the file is none."""

    version: int
    """``PRAGMA user_version``."""

    problems: tuple[str, ...]
    prefixes: tuple[str, ...] = ()
    """What the names of our tables begin with, in a shared database: one for each deployment."""

    extras: tuple[str, ...] = ()
    """Indexes and triggers on our tables that an application has added; no problem by themselves."""

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.problems


def render_all(schemas: Iterable[Schema], *, dialect: str, prefix: str = "lash_") -> str:
    """Return the DDL of some kinds: the canonical one, or of a shared database on PostgreSQL.

    `dialect` is one of DIALECTS; the tables of a shared one begin with `prefix`. Raises
    InvalidRecordError for another dialect, for a bad prefix, and for one of the canonical tables.
    """
    check_choice("dialect", dialect, DIALECTS)
    return RENDERERS[dialect](schemas, Settings(prefix=prefix).prefix)


def schema_of(kind: str) -> Schema:
    """Return the schema of one kind; InvalidRecordError names the kinds there are."""
    check_choice("kind", kind, KINDS)
    return next(schema for schema in SCHEMAS.values() if schema.kind == kind)


def init_file(kind: str, path: str | os.PathLike[str]) -> None:
    """Make an empty or absent file a store of one kind; a file that is one already stays as it is.

    Or, by a URL, a database that is shared. Raises what opening that store raises: StoreOpenError,
    SchemaVersionError, SchemaDriftError; StoreOpenError too for a database in memory, of which nothing stays.
    """
    if is_in_memory(path):
        raise StoreOpenError(str(path), "of a database in memory nothing would be left")
    with opened_apart():  # whatever else this process is doing with it
        open_handle(schema_of(kind), path, Settings()).close()


def create_tables(
    connection: Connection,
    *kinds: Kind | type[Tx[Any]],
    prefix: str = "lash_",
    schema: str | None = None,
    extras: Sequence[Extra] = (),
    tables: Sequence[OwnTables] = (),
) -> None:
    """Make the tables of some kinds, or of all, in a database of an application's own (K-SHARE-3).

    In the transaction that is open on `connection`, or a new one on it; it commits nothing. A migration's
    connection will do: it need not be configured. Kinds that are there and as declared stay as they are.
    A kind is a name, or a Tx class: ``create_tables(op.get_bind(), SessionTx)``. With them are made
    the `extras` and the application's own `tables` that are missing (K-SHARE-8, K-SHARE-9). On PostgreSQL
    `schema` is the one that they are made in, if not that which a configured engine was given, or which the
    connection looks into first; SQLite has none, and passes over it. Raises NamesTakenError,
    SchemaVersionError, SchemaDriftError, and ForeignDatabaseError for a canonical file; then nothing of
    ours was made. Raises InvalidRecordError for an unknown kind or a bad prefix.
    """
    for each in kinds:
        if not isinstance(each, str) and not (
            isinstance(each, type) and issubclass(each, Tx) and hasattr(each, "schema")
        ):
            raise InvalidRecordError("kinds", shown(each), "must be a name, or a Tx class")
    names = [each if isinstance(each, str) else each.schema.kind for each in kinds]
    chosen = [schema_of(name) for name in names or KINDS]
    settings = Settings(prefix=prefix, schema=schema, extras=extras, tables=tables)
    make_tables(connection, chosen, settings)


def stamp_tables(connection: Connection, tables: OwnTables, *, prefix: str = "lash_") -> None:
    """Note that a migration has made an application's own tables as they are declared (K-SHARE-8).

    In the transaction that is open on `connection`; it commits nothing. `prefix` is that of our tables
    in the database. Raises SchemaDriftError, and notes nothing, if they are not as declared.
    """
    make_stamp(connection, tables, Settings(prefix=prefix))


def adopt_database(where: str | os.PathLike[str], *, prefix: str = "lash_") -> None:
    """Make the tables of all kinds in a database that is there, by path or URL, in one transaction.

    Nothing that is there is touched; kinds that are there already stay as they are. Raises
    StoreOpenError if there is no database, or none that may be written to by this name of its file (K-OPEN-10,
    K-OPEN-14), StoreBusyError if another has locked it for 15 seconds, and what :func:`create_tables` raises.
    """
    require_there(where, "adopt")
    engine = engine_of(where)
    try:
        with engine.begin() as connection:
            create_tables(connection, prefix=prefix)
    except DBAPIError as error:
        raise connect_error(where, error) from error
    finally:
        engine.dispose()


def check_file(path: str | os.PathLike[str]) -> FileReport:
    """Read a file's version, schema, pages, references and sessions' last checkpoints, and say what is wrong with them.

    Of a shared database all kinds and all sessions are looked at; `path` may be its URL. Opens it read-only, while others may write. Raises StoreOpenError if it can't be opened.
    """
    found = look_into(path, tuple(SCHEMAS.values()))
    if found.prefixes:
        url = url_of(path)
        # Of what is damaged nobody can say which of two numbers is the right one.
        is_sound = not (found.drift or found.damage)
        stale = [each for p in found.prefixes for each in _stale(url, p)] if is_sound else []
        return FileReport(
            found.path,
            "shared",
            found.version,
            (*found.drift, *found.damage, *stale),
            found.prefixes,
            found.extras,
        )
    if found.schema is None:
        problem = (
            "there are no tables of any store in this schema"
            if is_server(path)
            else f"no store of this release has version {found.version}"
        )
        return FileReport(found.path, None, found.version, (problem,))
    is_sound = not (found.drift or found.damage)
    stale = _stale_count(found.path) if is_sound and found.schema is SESSION else []
    problems = (*found.drift, *found.damage, *stale)
    return FileReport(found.path, found.schema.kind, found.version, problems, extras=found.extras)


def mend_file(path: str | os.PathLike[str]) -> None:
    """Mend what another program may have left stale in a sound file: a session's node count.

    A vacuum of the graph: removes hidden nodes and counts the others (S-COMMIT-7). In a shared
    database, of every session's. Raises StorageError, and mends nothing, if anything else is wrong.
    """
    report = check_file(path)
    others = [each for each in report.problems if STALE_COUNT not in each]
    if others:  # what is there can't be trusted to say how much there should be
        raise StorageError(report.path, "not sound", "; ".join(others))
    if report.kind == "session":
        with SessionStore.open(path, session_id="mend", extras="any") as store:
            store.vacuum_graph()
    for prefix in report.prefixes:
        with SessionStore.open(
            url_of(path), session_id="mend", prefix=prefix, extras="any"
        ) as database:
            with database.read() as tx:
                names = _sessions_in(tx)
            for name in names:
                with SessionStore.open(database, session_id=name, extras="any") as store:
                    store.vacuum_graph()


def _stale_count(path: str | os.PathLike[str]) -> list[str]:
    with (
        suppress(CorruptRecordError),
        opened_apart(),  # this thread may be inside a transaction of its own
        SessionStore.open(path, session_id="check", read_only=True, extras="any") as store,
        store.read() as tx,
    ):
        return _stale_in(tx)
    return ["the session's head can't be read"]


def _stale(url: str, prefix: str) -> list[str]:
    """Say the same of every session of a shared database that has a head, in one snapshot."""
    problems: list[str] = []
    with opened_apart(), suppress(StoreEmptyError):  # this thread may be inside a transaction
        store = SessionStore.open(
            url, session_id="check", read_only=True, prefix=prefix, extras="any"
        )
        with store, store.read() as tx:
            for name in _sessions_in(tx):
                try:
                    found = _stale_in(SessionTx.beside(tx, session_id=name))
                except CorruptRecordError:
                    found = ["the session's head can't be read"]
                problems += [f"{name}: {each}" for each in found]
    return problems


def _sessions_in(tx: SessionTx) -> list[str]:
    """Return the sessions of a shared database that have a head."""
    heads = across_sessions(session_head)
    with explained_on(tx):
        return [check_owner(name) for name in tx.connection.scalars(select(heads.c.store))]


def _stale_in(tx: SessionTx) -> list[str]:
    head, count, problems = tx.load_head(), count_nodes(tx), _rings_in(tx)
    if head is not None and head.graph_node_count != count:
        problems.append(f"{STALE_COUNT} {head.graph_node_count}, and there are {count} live nodes")
    if head is not None and head.checkpoint_ref is not None:
        try:
            tx.load_checkpoint(head.checkpoint_ref)
        except CorruptRecordError as error:  # who takes the session up again would begin with it
            problems.append(f"the head's checkpoint can't be read: {error}")
    return problems


class _Child(msgspec.Struct, frozen=True):
    parent_node_id: str | None = None


_decode_child: Final = msgspec.json.Decoder(_Child).decode


def _rings_in(tx: SessionTx) -> list[str]:
    """Say which nodes are their own ancestors, by two commits that each were sound: no path leads over them."""
    nodes = graph_nodes.c
    live = select(nodes.node_id, nodes.node_json).where(nodes.tombstoned == 0)
    parents: dict[str, str | None] = {}
    with explained_on(tx):
        for name, text in tx.connection.execute(live):
            try:
                parents[name] = _decode_child(text).parent_node_id
            except (msgspec.DecodeError, TypeError):
                return [f"the node {shown(name)} can't be read"]
    problems, done = list[str](), set[str]()
    for start in parents:
        path, at = dict[str, None](), start
        while at in parents and at not in done and at not in path:
            path[at] = None
            at = parents[at] or ""
        if at in path:
            problems.append(f"the node {shown(at)} is its own ancestor")
        done.update(path)
    return problems
