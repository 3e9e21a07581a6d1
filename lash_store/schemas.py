"""The four schemas by kind, and what can be done with a file of any kind."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, get_args

from lash_store._kernel import dialects, guard
from lash_store._kernel.checks import shown
from lash_store._kernel.connection import StoreConnection, execute, store_error
from lash_store._kernel.ddl import Kind, Schema
from lash_store._kernel.engine import Database
from lash_store._kernel.opening import Settings, open_connection, open_error, resolve
from lash_store.effect.tables import SCHEMA as EFFECT
from lash_store.errors import CorruptRecordError, InvalidRecordError
from lash_store.process.tables import SCHEMA as PROCESS
from lash_store.session.store import SessionStore
from lash_store.session.tables import SCHEMA as SESSION
from lash_store.session.tx.graph import count_nodes
from lash_store.session.tx.head import load_head
from lash_store.trigger.tables import SCHEMA as TRIGGER

__all__ = [
    "KINDS",
    "SCHEMAS",
    "FileReport",
    "Kind",
    "check_file",
    "init_file",
    "mend_file",
    "schema_of",
]

SCHEMAS: Final[dict[Kind, Schema]] = {
    schema.kind: schema for schema in (SESSION, PROCESS, TRIGGER, EFFECT)
}
"""Each kind's declared schema: its MetaData, tables and version."""

KINDS: Final[tuple[str, ...]] = get_args(Kind)


STALE_COUNT: Final = "the head's graph_node_count is"
"""How the one problem begins that :func:`mend_file` mends."""


@dataclass(frozen=True)
class FileReport:
    """What :func:`check_file` found; the file is sound if `problems` is empty."""

    path: str
    kind: Kind | None
    """The kind of store, or None if the file is none."""

    version: int
    """``PRAGMA user_version``."""

    problems: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.problems


def schema_of(kind: str) -> Schema:
    """Return the schema of one kind; InvalidRecordError names the kinds there are."""
    for schema in SCHEMAS.values():
        if schema.kind == kind:
            return schema
    raise InvalidRecordError("kind", shown(kind), f"must be one of {', '.join(KINDS)}")


def init_file(kind: str, path: str | os.PathLike[str]) -> None:
    """Make an empty or absent file a store of one kind; a file that is one already stays as it is.

    Raises what opening that store raises: StoreOpenError, SchemaVersionError, SchemaDriftError.
    """
    Database(schema_of(kind), resolve(path), Settings()).close()


def check_file(path: str | os.PathLike[str]) -> FileReport:
    """Read a file's version, schema, pages and references, and say what is wrong with them.

    Opens it read-only, while others may write. Raises StoreOpenError if it can't be opened.
    """
    resolved = resolve(path)
    connection = open_connection(resolved, Settings(), read_only=True)
    try:
        connection.begin(dialects.BEGIN_READ)
        return _report(connection)
    except sqlite3.DatabaseError as error:
        if dialects.primary_code(error) == sqlite3.SQLITE_NOTADB:
            raise open_error(resolved, error) from error
        raise store_error(error, connection) from error
    finally:
        connection.really_close()


def mend_file(path: str | os.PathLike[str]) -> None:
    """Mend what another program may have left stale in a sound file: a session's node count.

    A vacuum of the graph: removes hidden nodes and counts the others (S-COMMIT-7).
    """
    report = check_file(path)
    if report.kind == "session":
        with SessionStore.open(path, session_id="mend") as store:
            store.vacuum_graph()


def _stale_count(connection: StoreConnection) -> list[str]:
    with suppress(CorruptRecordError):
        head = load_head(connection.hot)
        count = count_nodes(connection.hot)
        if head is None or head.graph_node_count == count:
            return []
        return [f"{STALE_COUNT} {head.graph_node_count}, and there are {count} live nodes"]
    return ["the session's head can't be read"]


def _report(connection: StoreConnection) -> FileReport:
    catalogue = guard.read_catalogue(connection)
    candidates = [each for each in SCHEMAS.values() if each.version == catalogue.version]
    if not candidates:
        problem = f"no store of this release has version {catalogue.version}"
        return FileReport(connection.path, None, catalogue.version, (problem,))
    # Trigger and effect share a version: the schema that fits better is what the file is.
    drift, schema = min(
        ((guard.find_drift(each, catalogue), each) for each in candidates),
        key=lambda found: len(found[0]),
    )
    integrity = [row[0] for row in execute(connection, dialects.INTEGRITY_CHECK) if row[0] != "ok"]
    references = [
        f"{table} row {row}: refers to a missing row of {parent}"
        for table, row, parent, _ in execute(connection, dialects.FOREIGN_KEY_CHECK)
    ]
    stale = [] if drift or schema is not SESSION else _stale_count(connection)
    problems = (*drift, *integrity, *references, *stale)
    return FileReport(connection.path, schema.kind, catalogue.version, problems)
