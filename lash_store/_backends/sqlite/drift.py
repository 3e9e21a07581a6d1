"""What a database has, and how it differs from what was declared: by the text of its objects."""

import re
import sqlite3
from collections.abc import Mapping
from functools import cache
from typing import Final, NamedTuple

from lash_store._backends.sqlite.ddl import canonical_statements, stock_statements
from lash_store._backends.sqlite.dialect import (
    BEGIN_READ,
    READ_CATALOGUE,
    READ_COLUMNS,
    ROLLBACK,
    read_own_versions,
    read_versions,
)
from lash_store._backends.sqlite.extras import optional_statements, own_statements
from lash_store._kernel.checks import shown
from lash_store._kernel.extras import OwnTables
from lash_store._kernel.schema import Schema
from lash_store._kernel.sharing import VERSIONS
from lash_store.errors import InvalidRecordError

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

    versions: Mapping[str, int] | None = None
    """What the table of versions of a shared database says of each kind; None if there is none."""

    own: Mapping[str, int] | None = None
    """The same of an application's own tables, by their name."""


def read_catalogue(
    cursor: sqlite3.Cursor, prefix: str = "", own_table: str | None = None
) -> Catalogue:
    """Read versions and objects in one snapshot, so that they belong together."""
    if (not prefix and own_table is None) or cursor.connection.in_transaction:
        return _read_catalogue(cursor, prefix, own_table)
    cursor.execute(BEGIN_READ)
    try:
        return _read_catalogue(cursor, prefix, own_table)
    finally:
        cursor.execute(ROLLBACK)


def _read_catalogue(cursor: sqlite3.Cursor, prefix: str, own_table: str | None) -> Catalogue:
    rows = cursor.execute(READ_CATALOGUE).fetchall()
    objects = tuple(row[1:] for row in rows if row[1] is not None)
    versions = None
    if prefix and is_table_of_versions(cursor, prefix + VERSIONS):
        versions = dict(cursor.execute(read_versions(prefix)).fetchall())
    own = None
    if own_table is not None and any(row[:2] == ("table", own_table) for row in objects):
        own = dict(cursor.execute(read_own_versions(prefix)).fetchall())
    return Catalogue(rows[0][0], objects, versions, own)


def is_table_of_versions(cursor: sqlite3.Cursor, name: str) -> bool:
    """Whether a table has the columns that one of versions has."""
    columns = cursor.execute(READ_COLUMNS, (name,)).fetchall()
    return {("kind",), ("version",)} <= set(columns)


Objects = dict[tuple[str, str], str]
"""The text of each object, by its type and name."""


def find_drift(schema: Schema | OwnTables, catalogue: Catalogue) -> list[str]:
    """Return what differs from what was declared, one readable line each; empty if nothing.

    What is declared on our tables, and is not there yet, is to be made: it is no difference.
    """
    found = _found(schema, catalogue)
    if found == declared_text(schema):
        return []
    required = declared_text(schema).keys() - extra_text(schema).keys()
    differences = []
    for key, accepted in _declared(schema).items():
        label = " ".join(key)
        if key not in found:
            if key in required:
                differences.append(f"{label}: missing")
        elif not _is_as_declared(schema, _tokens(found[key]), accepted):
            differences += _explain(label, accepted[0], _tokens(found[key]))
    if isinstance(schema, OwnTables) or schema.extras is not None:
        differences += undeclared(schema, catalogue)
    return differences


def _is_as_declared(
    schema: Schema | OwnTables, found: tuple[str, ...], accepted: tuple[tuple[str, ...], ...]
) -> bool:
    """Whether a text says what was declared: of an application's own tables in any order, as migrations append."""
    if found in accepted:
        return True
    is_own = isinstance(schema, OwnTables)
    return is_own and any(
        sorted(_definitions(found)) == sorted(_definitions(each)) for each in accepted
    )


def undeclared(schema: Schema | OwnTables, catalogue: Catalogue) -> list[str]:
    """Return the indexes and triggers on the tables that nobody has declared, one line each."""
    known = _declared(schema)
    how = "in their metadata" if isinstance(schema, OwnTables) else "by extras=[...] at open"
    return [
        f"{kind} {name}: {'a table should be there' if kind == 'view' else f'not declared ({how})'}: {text}"
        for (kind, name), text in _found(schema, catalogue).items()
        if (kind, name) not in known
    ]


def _found(schema: Schema | OwnTables, catalogue: Catalogue) -> Objects:
    """Return what there is of the declared tables, and on them."""
    tables = frozenset(table.name.lower() for table in schema.tables)
    known = _declared(schema)
    # Names compare without case in SQLite; one of our names on another's table is ours too.
    return {
        (kind, name.lower()): text
        for kind, name, table, text in catalogue.objects
        if text is not None and (table.lower() in tables or (kind, name.lower()) in known)
    }


@cache
def _declared(schema: Schema | OwnTables) -> dict[tuple[str, str], tuple[tuple[str, ...], ...]]:
    """Map each object to the texts that are accepted for it, as tokens.

    The canonical text, and the one that ``metadata.create_all()`` runs: it says the same. What a
    database may have without anybody declaring it is among them.
    """
    if isinstance(schema, OwnTables):
        return {key: (_tokens(text),) for key, text in declared_text(schema).items()}
    extras = dict.fromkeys((*(schema.extras or ()), *optional_statements(schema)))
    texts = objects_of((*canonical_statements(schema), *extras))
    stock = objects_of((*stock_statements(schema), *extras))
    return {key: (_tokens(text), _tokens(stock[key])) for key, text in texts.items()}


@cache
def declared_text(schema: Schema | OwnTables) -> Objects:
    """Map each object to the text that making it leaves in the catalogue."""
    if isinstance(schema, OwnTables):
        return objects_of(own_statements(schema))
    return objects_of((*canonical_statements(schema), *(schema.extras or ())))


@cache
def extra_text(schema: Schema | OwnTables) -> Objects:
    """Return those of them that an application has declared on our tables."""
    if isinstance(schema, OwnTables) or not schema.extras:
        return {}
    ours = objects_of(canonical_statements(schema))
    return {key: text for key, text in declared_text(schema).items() if key not in ours}


@cache
def objects_of(statements: tuple[str, ...]) -> Objects:
    """Return what statements make in an empty database; InvalidRecordError if they can't be run."""
    scratch = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statement in statements:
            try:
                scratch.execute(statement)
            except sqlite3.Error as error:
                raise InvalidRecordError(
                    "extras or tables", shown(statement), str(error)
                ) from error
        return _texts(read_catalogue(scratch.cursor()))
    finally:
        scratch.close()


def _texts(catalogue: Catalogue) -> dict[tuple[str, str], str]:
    return {(kind, name.lower()): text for kind, name, _, text in catalogue.objects if text}


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
