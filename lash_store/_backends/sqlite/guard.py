"""The version guard: what stands in for migrations.

``PRAGMA user_version`` says which schema a file has. A file either carries our version and
our tables exactly as declared, or it is empty and is initialised here, or it is refused.
There is no migration chain, so nothing is ever altered.

The version alone is not trusted: trigger and effect stores are both version 1, and a table
can be altered without anyone moving the number. So the text of our tables and indexes is
compared as well, at every open (K-GUARD-4). Anybody's other tables and views are theirs; an
index or a trigger on one of *our* tables changes what our statements cost or do, and counts.
"""

import re
import sqlite3
from collections.abc import Iterable
from functools import cache
from typing import Final, NamedTuple

from lash_store._backends.sqlite.ddl import canonical_statements, stock_statements
from lash_store._backends.sqlite.dialect import READ_CATALOGUE, stamp_version
from lash_store._kernel.schema import Schema
from lash_store.errors import SchemaDriftError, SchemaVersionError

_TOKEN: Final = re.compile(
    r"""\s+ | --[^\n]* | /\*.*?\*/            # no token at all
    | (?P<string>'(?:[^']|'')*')
    | "(?P<quoted>(?:[^"]|"")*)" | `(?P<ticked>[^`]*)` | \[(?P<bracketed>[^\]]*)\]
    | (?P<plain>\w+ | .)
    """,
    re.VERBOSE | re.DOTALL,
)


class Catalogue(NamedTuple):
    """One snapshot of a file's version and of the objects in it that are not SQLite's own."""

    version: int
    objects: tuple[tuple[str, str, str, str], ...]
    """Type, name, table and SQL text of each."""


def read_catalogue(cursor: sqlite3.Cursor) -> Catalogue:
    """Read version and objects in one statement, so that they belong together."""
    rows = cursor.execute(READ_CATALOGUE).fetchall()
    return Catalogue(rows[0][0], tuple(row[1:] for row in rows if row[1] is not None))


def needs_initialising(schema: Schema, catalogue: Catalogue, path: str) -> bool:
    """Decide what K-GUARD-1 makes of a file: True empty, False ours and as declared.

    Raises SchemaVersionError for any other file and SchemaDriftError for one of ours whose
    tables are not as declared. Reads only.
    """
    if catalogue.version == 0 and not catalogue.objects:
        return True
    if catalogue.version != schema.version:
        raise SchemaVersionError(schema.kind, schema.version, catalogue.version, path)
    differences = find_drift(schema, catalogue)
    if differences:
        raise SchemaDriftError(schema.kind, path, differences)
    return False


def is_empty(cursor: sqlite3.Cursor, schema: Schema, path: str) -> bool:
    """Read a file's catalogue and decide what it is; see :func:`needs_initialising`."""
    return needs_initialising(schema, read_catalogue(cursor), path)


def initialise(cursor: sqlite3.Cursor, schema: Schema) -> None:
    """Create every table and index and stamp the version, in the transaction that is open.

    The caller holds the write lock and has seen, under it, that the file is empty.
    """
    for statement in canonical_statements(schema):
        cursor.execute(statement)
    cursor.execute(stamp_version(schema.version))


def ensure_schema(cursor: sqlite3.Cursor, schema: Schema, path: str) -> None:
    """Check the file, or initialise it if it is empty, in the write transaction that is open.

    Begins, commits and rolls back nothing (K-GUARD-5).
    """
    if is_empty(cursor, schema, path):
        initialise(cursor, schema)


def find_drift(schema: Schema, catalogue: Catalogue) -> list[str]:
    """Return what differs from the declared schema, one readable line each; empty if nothing."""
    ours = frozenset(table.name for table in schema.tables)
    declared = _declared(schema)
    # Names compare without case in SQLite; one of our names on another's table is ours too.
    found = {
        (kind, name.lower()): text
        for kind, name, table, text in catalogue.objects
        if text is not None and (table.lower() in ours or (kind, name.lower()) in declared)
    }
    if found == _declared_text(schema):
        return []
    differences = []
    for key, accepted in declared.items():
        label = " ".join(key)
        if key not in found:
            differences.append(f"{label}: missing")
        elif _tokens(found[key]) not in accepted:
            differences += _explain(label, accepted[0], _tokens(found[key]))
    differences += [
        f"{' '.join(key)}: not ours: {found[key]}" for key in found if key not in declared
    ]
    return differences


@cache
def _declared(schema: Schema) -> dict[tuple[str, str], tuple[tuple[str, ...], ...]]:
    """Map each object to the texts that are accepted for it, as tokens.

    The canonical text, and the one that ``metadata.create_all()`` runs: it says the same.
    """
    stock = _objects(stock_statements(schema))
    return {
        key: (_tokens(text), _tokens(stock[key]))
        for key, text in _objects(canonical_statements(schema)).items()
    }


@cache
def _declared_text(schema: Schema) -> dict[tuple[str, str], str]:
    """Map each object to the text that our own initialiser leaves in the catalogue."""
    return _objects(canonical_statements(schema))


def _objects(statements: Iterable[str]) -> dict[tuple[str, str], str]:
    scratch = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statement in statements:
            scratch.execute(statement)
        return {
            (kind, name): text
            for kind, name, _, text in read_catalogue(scratch.cursor()).objects
            if text
        }
    finally:
        scratch.close()


def _tokens(text: str) -> tuple[str, ...]:
    """Split SQL into tokens; white space, comments, quotes around names and case do not count."""
    found = []
    for match in _TOKEN.finditer(text):
        if match.lastgroup == "string":
            found.append(match[0])
        elif match.lastgroup is not None:
            found.append(match[match.lastgroup].lower())
    return tuple(found)


def _explain(label: str, declared: tuple[str, ...], found: tuple[str, ...]) -> list[str]:
    """Name the definitions in a table's or index's text that stand on one side only."""
    here, there = _definitions(declared), _definitions(found)
    lines = [f"{label}: missing or changed: {part}" for part in here if part not in there]
    lines += [f"{label}: not as declared: {part}" for part in there if part not in here]
    return lines or [f"{label}: definitions in another order"]


def _definitions(tokens: tuple[str, ...]) -> list[str]:
    """Split a CREATE statement's tokens at the commas of its outermost parentheses."""
    parts: list[list[str]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        starts_or_ends = (token == "(" and depth == 1) or (token == ")" and depth == 0)
        if starts_or_ends or (token == "," and depth == 1):
            parts.append([])
        else:
            parts[-1].append(token)
    return [" ".join(part) for part in parts if part]
