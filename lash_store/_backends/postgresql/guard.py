"""The version guard on PostgreSQL: what stands in for migrations.

A table of versions, under the prefix, says which kinds a schema of the database has, each in which
version. What is missing is made at the first open, under a lock; what is there has to be exactly as
declared, which the catalogue says: columns, keys, references and indexes. What an application has
added is its own: other tables, and indexes on ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import psycopg
from sqlalchemy.schema import CreateIndex, CreateTable

from lash_store._backends.postgresql import dialect
from lash_store._backends.postgresql.dialect import dialect_for
from lash_store._backends.postgresql.drift import find_drift
from lash_store._backends.postgresql.indexes import indexes_of
from lash_store._backends.postgresql.locks import OPENING, Lock, lock_if_need_be_waiting, number_of
from lash_store._kernel.checks import shown
from lash_store._kernel.extras import is_optional
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema
from lash_store._kernel.sharing import VERSIONS
from lash_store.errors import (
    InvalidRecordError,
    NamesTakenError,
    SchemaDriftError,
    SchemaVersionError,
    StoreEmptyError,
    StoreOpenError,
)

_NAMES: Final = """\
SELECT relname FROM pg_class
WHERE relnamespace = $1::text::regnamespace AND relname = ANY ($2)"""

_TAKEN: Final = """\
SELECT relname FROM pg_class
WHERE relnamespace = $1::text::regnamespace AND relname = ANY ($2)
UNION SELECT typname FROM pg_type
WHERE typnamespace = $1::text::regnamespace AND typname = ANY ($2)"""
"""Whatever has one of some names: a table has its name as a type as well."""

_SCHEMA: Final = """\
SELECT nspname, EXISTS (SELECT FROM pg_get_keywords() WHERE word = nspname AND catcode <> 'U')
FROM pg_namespace WHERE nspname = $1"""
_PLAIN: Final = re.compile("[a-z_][a-z0-9_]*")

_LONGEST_PREFIX: Final = 27
"""With the longest name of an index behind it that is 63 characters, of which the server takes no more."""

_NOT_HERE: Final = {
    "immutable": "is for a file",
    "linked": "is for a file",
    "tables": "are SQLite's: an application makes its own tables there, by migrations say",
}


def check_settings(settings: Settings) -> None:
    """Refuse what is SQLite's alone; indexes that a kind declares itself are there in any case."""
    for name, why in _NOT_HERE.items():
        given = getattr(settings, name)
        if given:
            raise InvalidRecordError(name, shown(given), why)
    if len(settings.prefix) > _LONGEST_PREFIX:
        why = f"has to leave room for the names of indexes: {_LONGEST_PREFIX} characters at most"
        raise InvalidRecordError("prefix", shown(settings.prefix), why)
    for extra in () if settings.extras == "any" else settings.extras:
        if not is_optional(extra):
            why = "is SQLite's: an application's own indexes and triggers are its own there"
            raise InvalidRecordError("extras", shown(extra), why)


def server_place(cursor: Any, path: str, schema: str | None) -> str:
    """Return the schema that our tables are in, as SQL names it; StoreOpenError if this is no server for them."""
    if not psycopg.Pipeline.is_supported():
        raise StoreOpenError(path, "libpq 14 or newer is needed: psycopg[binary] brings one")
    text, current, encoding = cursor.execute(dialect.WHAT_IT_IS).fetchall()[0]
    for name, word in (("CockroachDB", "CockroachDB"), ("YugabyteDB", "-YB-")):
        if word in text:
            raise StoreOpenError(
                path,
                f"it is {name}, whose advisory locks don't keep others out: PostgreSQL itself is needed",
            )
    version = cursor.connection.info.server_version // 10_000
    if version < dialect.MINIMUM_SERVER:
        raise StoreOpenError(
            path, f"PostgreSQL {version} is too old: {dialect.MINIMUM_SERVER} or newer is needed"
        )
    if encoding != "UTF8":
        raise StoreOpenError(
            path, f"its encoding is {encoding}, which can't spell every text: UTF8 is needed"
        )
    place = schema or current
    if place is None:
        raise StoreOpenError(path, "the role's search_path leads to no schema: name one by schema=")
    known = cursor.execute(_SCHEMA, (place,)).fetchall()
    if not known:
        raise StoreOpenError(path, f"there is no schema {place!r}: it has to be made first")
    name, is_keyword = known[0]
    # As the server itself writes it, but for quotes that a role may ask for everywhere: locks are named by it.
    return (
        name
        if _PLAIN.fullmatch(name) and not is_keyword
        else '"{}"'.format(name.replace('"', '""'))
    )


def needs_making(cursor: Any, schema: Schema, path: str, place: str) -> bool:
    """Decide what the guard makes of a database: True if the kind's tables are to be made.

    Raises SchemaVersionError for another version, SchemaDriftError for tables that are not as
    declared, NamesTakenError for others that have their names. Reads only.
    """
    known = versions(cursor, schema.prefix, place)
    if schema.kind not in known:
        taken = sorted(name for (name,) in cursor.execute(_TAKEN, (place, _wanted(schema))))
        if not taken:
            return True
        known = versions(
            cursor, schema.prefix, place
        )  # another may have made them since that was read
        if schema.kind not in known:
            raise NamesTakenError(path, taken)
    if known[schema.kind] != schema.version:
        raise SchemaVersionError(schema.kind, schema.version, known[schema.kind], path)
    differences = find_drift(cursor, schema, place)
    if differences:
        raise SchemaDriftError(schema.kind, path, differences)
    return False


def _wanted(schema: Schema) -> list[str]:
    """Return the names that a kind's tables take up: their own, and those of what is made with them."""
    names = []
    for table in schema.tables:
        if table.name != schema.prefix + VERSIONS:
            names += [table.name, *(str(index.name) for index in indexes_of(table))]
            if table.autoincrement_column is not None:
                names.append(f"{table.name}_{table.autoincrement_column.name}_seq")
    return names


def ensure_schema(
    cursor: Any,
    schema: Schema,
    path: str,
    place: str,
    take: Callable[[Any, Lock], object] = lock_if_need_be_waiting,
) -> None:
    """Make a kind's tables if they are not there, in the transaction that is open, under a lock.

    Begins, commits and rolls back nothing (K-GUARD-5). `take` is how that takes the lock.
    """
    take(cursor, (number_of(f"{place}.{schema.prefix}", OPENING), False))
    if not needs_making(cursor, schema, path, place):
        return
    ((before,),) = cursor.execute("SELECT current_setting('search_path')").fetchall()
    cursor.execute(f"SET LOCAL search_path = {place}", prepare=False)
    has_versions = bool(versions(cursor, schema.prefix, place)) or _has_table(
        cursor, schema.prefix + VERSIONS, place
    )
    for statement in _statements(schema, with_versions=not has_versions):
        cursor.execute(statement, prepare=False)
    cursor.execute(
        f"INSERT INTO {schema.prefix}{VERSIONS} (kind, version) VALUES ($1, $2)",  # noqa: S608 # reason: the prefix was checked
        (schema.kind, schema.version),
    )
    cursor.execute("SELECT set_config('search_path', $1, true)", (before,))


def hold(
    cursor: Any,
    schema: Schema,
    path: str,
    place: str,
    *,
    writes: bool,
    take: Callable[[Any, Lock], object] = lock_if_need_be_waiting,
) -> bool:
    """Let the transaction that is open hold a kind's tables; tell whether they were there before it.

    Raises SchemaVersionError in one that only reads, in which they can't be made.
    """
    if not needs_making(cursor, schema, path, place):
        return True
    if not writes:
        raise SchemaVersionError(schema.kind, schema.version, 0, path, is_missing=True)
    ensure_schema(cursor, schema, path, place, take)
    return False


def require_there(cursor: Any, schema: Schema, path: str, place: str) -> None:
    """Raise StoreEmptyError unless the kind's tables are there, as declared: for who can't make any."""
    if needs_making(cursor, schema, path, place):
        raise StoreEmptyError.of(path, schema.kind)


def _statements(schema: Schema, *, with_versions: bool) -> list[str]:
    elements: list[CreateTable | CreateIndex] = []
    for table in schema.tables[0 if with_versions else 1 :]:  # the first is the table of versions
        elements += [CreateTable(table), *map(CreateIndex, indexes_of(table))]
    return [str(each.compile(dialect=dialect_for(schema.prefix))).strip() for each in elements]


def _has_table(cursor: Any, name: str, place: str) -> bool:
    return bool(cursor.execute(_NAMES, (place, [name])).fetchall())


def versions(cursor: Any, prefix: str, place: str) -> dict[str, int]:
    """Return which kinds there are under a prefix, each in which version."""
    name = prefix + VERSIONS
    if not _has_table(cursor, name, place):
        return {}
    rows = cursor.execute(f"SELECT kind, version FROM {place}.{name}").fetchall()  # noqa: S608 # reason: names of ours
    return dict(rows)
