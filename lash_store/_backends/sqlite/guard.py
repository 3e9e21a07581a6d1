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
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final, NamedTuple

from lash_store._backends.sqlite.ddl import (
    canonical_statements,
    stock_statements,
    versions_statement,
)
from lash_store._backends.sqlite.dialect import (
    BEGIN_READ,
    READ_CATALOGUE,
    READ_COLUMNS,
    ROLLBACK,
    SCHEMA_VERSION,
    note_version,
    read_versions,
    stamp_version,
)
from lash_store._kernel.schema import Schema, declared
from lash_store._kernel.sharing import VERSIONS
from lash_store.errors import (
    ForeignDatabaseError,
    NamesTakenError,
    SchemaDriftError,
    SchemaVersionError,
    StoreOpenError,
)

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


def read_catalogue(cursor: sqlite3.Cursor, prefix: str = "") -> Catalogue:
    """Read version and objects in one snapshot, so that they belong together."""
    if not prefix or cursor.connection.in_transaction:
        return _read_catalogue(cursor, prefix)
    cursor.execute(BEGIN_READ)
    try:
        return _read_catalogue(cursor, prefix)
    finally:
        cursor.execute(ROLLBACK)


def _read_catalogue(cursor: sqlite3.Cursor, prefix: str) -> Catalogue:
    rows = cursor.execute(READ_CATALOGUE).fetchall()
    objects = tuple(row[1:] for row in rows if row[1] is not None)
    versions = None
    if prefix and _is_table_of_versions(cursor, prefix + VERSIONS):
        versions = dict(cursor.execute(read_versions(prefix)).fetchall())
    return Catalogue(rows[0][0], objects, versions)


def _is_table_of_versions(cursor: sqlite3.Cursor, name: str) -> bool:
    columns = cursor.execute(READ_COLUMNS, (name,)).fetchall()
    return {("kind",), ("version",)} <= set(columns)


def needs_initialising(
    schema: Schema, catalogue: Catalogue, path: str, *, adopt: bool = False
) -> bool:
    """Decide what K-GUARD-1 makes of a file: True empty, False ours and as declared.

    Raises SchemaVersionError for any other file and SchemaDriftError for one of ours whose
    tables are not as declared. In a shared database a kind may be missing beside others, and
    everything of ours beside another program's, if it is said to `adopt` that: then too our
    tables are to be made. Reads only.
    """
    if schema.prefix:
        return _is_missing(schema, catalogue, path, adopt=adopt)
    if catalogue.version == 0 and not catalogue.objects:
        return True
    if catalogue.version != schema.version:
        if prefixes(catalogue):
            raise StoreOpenError(
                path, f"it is a shared database: open it by its URL, sqlite:///{path}"
            )
        raise _version_error(schema, catalogue, path)
    differences = find_drift(schema, catalogue)
    if differences:
        raise SchemaDriftError(schema.kind, path, differences)
    return False


def _version_error(schema: Schema, catalogue: Catalogue, path: str) -> SchemaVersionError:
    """Say what a file is instead, and what mends it if a version is all that it lacks."""
    ours, mended_by = canonical_kind(catalogue), None
    if catalogue.version == 0:
        ours = next((each for each in declared if not find_drift(each, catalogue)), None)
        mended_by = None if ours is None else f"`PRAGMA user_version = {ours.version}`"
    return SchemaVersionError(
        schema.kind,
        schema.version,
        catalogue.version,
        path,
        is_kind=None if ours is None else ours.kind,
        mended_by=mended_by,
    )


def _is_missing(schema: Schema, catalogue: Catalogue, path: str, *, adopt: bool) -> bool:
    """Decide the same of a shared database."""
    versions = catalogue.versions
    others = [name for kind, name, *_ in catalogue.objects if kind == "table"]
    if versions is None and others:
        ours = canonical_kind(catalogue)
        if ours is not None:
            raise ForeignDatabaseError(
                path, f"it is the file of a {ours.kind} store: open it by its path, not by a URL"
            )
        if not adopt:
            found_prefixes = prefixes(catalogue)
            raise ForeignDatabaseError(
                path,
                f"lash_store's tables have the prefix {found_prefixes[0]!r} there, not "
                f"{schema.prefix!r}; open it with adopt=True to have others made beside them"
                if found_prefixes
                else others,
            )
    found = None if versions is None else versions.get(schema.kind)
    if found is None:
        taken = _taken_names(schema, catalogue)
        if taken:
            raise NamesTakenError(path, taken)
        return True
    if found != schema.version:
        raise SchemaVersionError(schema.kind, schema.version, found, path)
    differences = find_drift(schema, catalogue)
    if differences:
        raise SchemaDriftError(schema.kind, path, differences)
    return False


def canonical_kind(catalogue: Catalogue) -> Schema | None:
    """Return which kind of file of ours a database is; one that has drifted is still one."""
    tables = {name for kind, name, *_ in catalogue.objects if kind == "table"}
    for schema in declared:
        there = sum(table.name in tables for table in schema.tables)
        if catalogue.version == schema.version and 2 * there >= len(schema.tables):
            return schema
    return None


def prefixes(catalogue: Catalogue) -> list[str]:
    """Return what our tables' names begin with in a database that is shared; empty if it is not."""
    return [
        name.removesuffix(VERSIONS)
        for kind, name, _, text in catalogue.objects
        if kind == "table" and name.endswith(VERSIONS) and text == _text_of_versions(name)
    ]


@cache
def _text_of_versions(name: str) -> str:
    (text,) = _objects([versions_statement(name.removesuffix(VERSIONS))]).values()
    return text


def _taken_names(schema: Schema, catalogue: Catalogue) -> list[str]:
    """Return the names that our tables and indexes would have, and something has."""
    wanted = {name for _, name in _declared_text(schema)}
    if catalogue.versions is not None:
        wanted.discard(schema.prefix + VERSIONS)
    return [name for _, name, *_ in catalogue.objects if name.lower() in wanted]


def is_empty(cursor: sqlite3.Cursor, schema: Schema, path: str, *, adopt: bool = False) -> bool:
    """Read a file's catalogue and decide what it is; see :func:`needs_initialising`."""
    return needs_initialising(schema, read_catalogue(cursor, schema.prefix), path, adopt=adopt)


def initialise(cursor: sqlite3.Cursor, schema: Schema) -> None:
    """Create every table and index and stamp the version, in the transaction that is open.

    The caller holds the write lock and has seen, under it, that the file is empty.
    """
    statements = canonical_statements(schema)
    if schema.prefix and read_catalogue(cursor, schema.prefix).versions is not None:
        statements = statements[1:]  # the table of versions is there, with another kind
    for statement in statements:
        cursor.execute(statement)
    if schema.prefix:
        # An application's user_version is its own.
        cursor.execute(note_version(schema.prefix), (schema.kind, schema.version))
    else:
        cursor.execute(stamp_version(schema.version))


def ensure_schema(
    cursor: sqlite3.Cursor, schema: Schema, path: str, *, adopt: bool = False
) -> None:
    """Check the file, or initialise it if it is empty, in the write transaction that is open.

    Begins, commits and rolls back nothing (K-GUARD-5).
    """
    if is_empty(cursor, schema, path, adopt=adopt):
        initialise(cursor, schema)


def lacks(
    cursor: sqlite3.Cursor, schema: Schema, path: str, compared: dict[str, int], *, adopt: bool
) -> bool:
    """Do what :func:`is_empty` does, for one more store of a process that has the file open.

    In a shared database, of which there may be thousands, the text of the tables is compared again
    only if the catalogue changed; see :func:`hold`.
    """
    if not schema.prefix:
        return is_empty(cursor, schema, path, adopt=adopt)
    now: int = cursor.execute(SCHEMA_VERSION).fetchall()[0][0]
    if compared.get(schema.kind) == now:
        versions = dict(cursor.execute(read_versions(schema.prefix)).fetchall())
        if versions.get(schema.kind) == schema.version:
            return False
    missing = is_empty(cursor, schema, path, adopt=adopt)
    if not missing:
        compared[schema.kind] = now
    return missing


def hold(
    cursor: sqlite3.Cursor,
    schema: Schema,
    path: str,
    compared: dict[str, int],
    *,
    writes: bool,
    adopt: bool = False,
) -> None:
    """Make the transaction that is open hold `schema`; compare again only if the catalogue changed.

    `compared` keeps at which of its versions each kind was compared, on this connection. One whose
    tables were made just now is not kept: that may be rolled back.
    """
    now: int = cursor.execute(SCHEMA_VERSION).fetchall()[0][0]
    if compared.get(schema.kind) == now:
        return
    if not is_empty(cursor, schema, path, adopt=adopt):
        compared[schema.kind] = now
    elif not writes:
        raise SchemaVersionError(schema.kind, schema.version, 0, path)
    else:
        initialise(cursor, schema)


def find_drift(schema: Schema, catalogue: Catalogue) -> list[str]:
    """Return what differs from the declared schema, one readable line each; empty if nothing."""
    ours = frozenset(table.name for table in schema.tables)
    accepted_texts = _declared(schema)
    # Names compare without case in SQLite; one of our names on another's table is ours too.
    found = {
        (kind, name.lower()): text
        for kind, name, table, text in catalogue.objects
        if text is not None and (table.lower() in ours or (kind, name.lower()) in accepted_texts)
    }
    if found == _declared_text(schema):
        return []
    differences = []
    for key, accepted in accepted_texts.items():
        label = " ".join(key)
        if key not in found:
            differences.append(f"{label}: missing")
        elif _tokens(found[key]) not in accepted:
            differences += _explain(label, accepted[0], _tokens(found[key]))
    differences += [
        f"{' '.join(key)}: not ours: {found[key]}" for key in found if key not in accepted_texts
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
