"""Looking into a file that may be anything: its version, schema, pages and references."""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from lash_store._backends.findings import Findings, prefixes_among, unnamed
from lash_store._backends.sqlite import dialect, guard
from lash_store._backends.sqlite.connection import StoreConnection
from lash_store._backends.sqlite.drift import (
    Catalogue,
    find_drift,
    is_table_of_versions,
    read_catalogue,
    undeclared,
)
from lash_store._backends.sqlite.driver import primary_code, store_error
from lash_store._backends.sqlite.extras import declared_with
from lash_store._backends.sqlite.files import open_error, resolve
from lash_store._backends.sqlite.opening import open_connection
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema
from lash_store._kernel.sharing import VERSIONS, shared

_ANY: Final = Settings(extras="any")


def look_into(path: str | os.PathLike[str], schemas: Sequence[Schema]) -> Findings:
    """Read one snapshot of a file, read-only, while others may write.

    Raises StoreOpenError if it can't be opened, StorageError if it can't be read.
    """
    resolved = resolve(path)
    connection = open_connection(resolved, Settings(), read_only=True)
    try:
        connection.operation = "check"
        connection.begin(dialect.BEGIN_READ)
        return _findings(connection, schemas)
    except sqlite3.DatabaseError as error:
        if primary_code(error) == sqlite3.SQLITE_NOTADB:
            raise open_error(resolved, error) from error
        raise store_error(error, connection) from error
    except UnicodeDecodeError as error:
        raise open_error(resolved, error) from error
    finally:
        connection.dispose()


def _findings(connection: StoreConnection, schemas: Sequence[Schema]) -> Findings:
    cursor, path = connection.own_cursor, connection.path
    catalogue = read_catalogue(cursor)
    version = catalogue.version
    there = [name for kind, name, *_ in catalogue.objects if kind == "table"]
    drifted = [
        prefix
        for prefix in prefixes_among(schemas, there)
        if is_table_of_versions(cursor, prefix + VERSIONS)
    ]
    prefixes = sorted({*guard.prefixes(catalogue), *drifted})
    if prefixes:
        problems = [each for prefix in prefixes for each in _shared_drift(cursor, prefix, schemas)]
        added = {  # a set: each kind has the table of versions, and so what stands on that
            each
            for prefix in prefixes
            for schema in schemas
            for each in undeclared(shared(schema, prefix), catalogue)
        }
        ours = [shared(schema, prefix) for prefix in prefixes for schema in schemas]
        return Findings(
            path,
            None,
            version,
            tuple(problems),
            _damage(cursor, catalogue, ours),
            tuple(prefixes),
            tuple(sorted(added)),
        )
    candidates = [schema for schema in schemas if schema.version == version]
    if not candidates:
        return Findings(path, None, version, (), ())
    # Two kinds may share a version: the schema that fits better is what the file is.
    drift, schema = min(
        ((find_drift(declared_with(each, _ANY), catalogue), each) for each in candidates),
        key=lambda found: len(found[0]),
    )
    damage = _damage(cursor, catalogue, [schema])
    extras = tuple(undeclared(schema, catalogue))
    return Findings(path, schema, version, tuple(drift), damage, extras=extras)


def _shared_drift(cursor: sqlite3.Cursor, prefix: str, schemas: Iterable[Schema]) -> Iterator[str]:
    """Say what is wrong with the tables that have a prefix, of each kind that is there."""
    catalogue = read_catalogue(cursor, prefix)
    for schema in schemas:
        found = (catalogue.versions or {}).get(schema.kind)
        if found is None:
            there = (name for kind, name, *_ in catalogue.objects if kind == "table")
            yield from unnamed(shared(schema, prefix), there)
        elif found != schema.version:
            yield f"{prefix}: {schema.kind} has version {found}, expected {schema.version}"
        else:
            yield from find_drift(declared_with(shared(schema, prefix), _ANY), catalogue)


def _damage(
    cursor: sqlite3.Cursor, catalogue: Catalogue, ours: Iterable[Schema]
) -> tuple[str, ...]:
    """Say what is wrong with a file's pages, and with the references of our own tables.

    What an application's tables refer to is its own affair, as SQLite has it by default.
    """
    integrity = [row[0] for row in cursor.execute(dialect.INTEGRITY_CHECK).fetchall()]
    there = {name.lower() for kind, name, *_ in catalogue.objects if kind == "table"}
    names = sorted({table.name for schema in ours for table in schema.tables} & there)
    references = [
        f"{table} row {row}: refers to a missing row of {parent}"
        for name in names
        for table, row, parent, _ in cursor.execute(dialect.foreign_key_check(name)).fetchall()
    ]
    return (*(each for each in integrity if each != "ok"), *references)
