"""Looking into a database on a server: which of our tables are there, and whether they are as declared.

Pages are the server's to check, and references as well: it lets none be broken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import psycopg
from sqlalchemy import URL

from lash_store._backends.findings import Findings, prefixes_among, unnamed
from lash_store._backends.postgresql import guard
from lash_store._backends.postgresql.database import Key, OpenDatabase
from lash_store._backends.postgresql.drift import compare, is_as_declared, is_table_of_versions
from lash_store._backends.postgresql.driver import store_error
from lash_store._kernel.options import PREFIX, Settings
from lash_store._kernel.schema import Schema
from lash_store._kernel.sharing import VERSIONS, shared, versions_table

_TABLES: Final = """\
SELECT relname FROM pg_class WHERE relnamespace = $1::text::regnamespace AND relkind = 'r'"""


def look_into(url: URL, schemas: Sequence[Schema]) -> Findings:
    """Read one snapshot of the catalogue, while others may write.

    Raises StoreOpenError if the server can't be reached, StorageError if it can't be read.
    """
    database = OpenDatabase(url, Key.of(url, Settings()))
    connection = database.connect()
    cursor = connection.own_cursor
    try:
        connection.operation = "check"
        place = guard.server_place(cursor, database.path, None)
        connection.begin_read(budget_ms=Settings().busy_timeout_ms)
        there = [name for (name,) in cursor.execute(_TABLES, (place,)).fetchall()]
        prefixes = tuple(sorted(_all_prefixes(cursor, schemas, there, place)))
        drift: list[str] = []
        extras: set[str] = set()
        for prefix in prefixes:
            for differences, added in _compared(cursor, prefix, place, schemas, there):
                drift += differences
                extras |= set(added)
    except psycopg.Error as error:
        raise store_error(error, connection) from error
    finally:
        connection.discard()
    return Findings(database.path, None, 0, tuple(drift), (), prefixes, tuple(sorted(extras)))


def _all_prefixes(cursor: Any, schemas: Sequence[Schema], there: list[str], place: str) -> set[str]:
    """Return those of which there are tables, also where they are no longer as declared."""
    drifted = [
        prefix
        for prefix in prefixes_among(schemas, there)
        if is_table_of_versions(cursor, prefix + VERSIONS, place)
    ]
    return {*_prefixes(cursor, there, place), *drifted}


def _prefixes(cursor: Any, there: Sequence[str], place: str) -> Iterator[str]:
    """Give what our tables' names begin with, by the tables of versions."""
    for name in there:
        prefix = name.removesuffix(VERSIONS)
        is_one = name != prefix and PREFIX.fullmatch(prefix)
        if is_one and is_as_declared(cursor, versions_table(prefix), place):
            yield prefix


def _compared(
    cursor: Any, prefix: str, place: str, schemas: Sequence[Schema], there: Sequence[str]
) -> Iterator[tuple[list[str], list[str]]]:
    """Yield what is wrong with the tables of each kind that is there, and what stands beside them."""
    versions = guard.versions(cursor, prefix, place)
    for schema in schemas:
        found = versions.get(schema.kind)
        if found is None:
            if missed := unnamed(shared(schema, prefix), there):
                yield missed, []
        elif found != schema.version:
            yield [f"{prefix}: {schema.kind} has version {found}, expected {schema.version}"], []
        else:
            yield compare(cursor, shared(schema, prefix), place)
