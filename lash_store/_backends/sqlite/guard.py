"""The version guard: what stands in for migrations.

``PRAGMA user_version`` says which schema a file has. A file either carries our version and
our tables exactly as declared, or it is empty and is initialised here, or it is refused.
There is no migration chain, so nothing is ever altered.

The version alone is not trusted: trigger and effect stores are both version 1, and a table
can be altered without anyone moving the number. So the text of our tables and indexes is
compared as well, at every open (K-GUARD-4). Anybody's other tables and views are theirs; an
index or a trigger on one of *our* tables changes what our statements cost or do, and counts.
"""

import sqlite3
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from lash_store._backends.sqlite.ddl import canonical_statements, versions_statement
from lash_store._backends.sqlite.dialect import (
    SCHEMA_VERSION,
    create_own_versions,
    note_own_version,
    note_version,
    own_versions,
    read_versions,
    stamp_version,
)
from lash_store._backends.sqlite.drift import (
    Catalogue,
    declared_text,
    extra_text,
    find_drift,
    objects_of,
    read_catalogue,
)
from lash_store._backends.sqlite.extras import own_statements
from lash_store._kernel.extras import OwnTables
from lash_store._kernel.schema import Schema, declared
from lash_store._kernel.sharing import VERSIONS
from lash_store.errors import (
    ForeignDatabaseError,
    NamesTakenError,
    SchemaDriftError,
    SchemaVersionError,
    StoreEmptyError,
    StoreOpenError,
)


class Lacking(NamedTuple):
    """What a database lacks of what was declared; false if it lacks nothing."""

    is_empty: bool
    """Whether our tables of the kind are not there."""

    own: tuple[str, ...]
    """The names of an application's own that are not there."""

    statements: tuple[tuple[str, tuple[Any, ...]], ...]
    """What makes it, and stamps the versions: SQL and parameters."""

    def __bool__(self) -> bool:
        return bool(self.statements)

    def require_readable(self, schema: Schema, path: str) -> None:
        """Raise StoreEmptyError if tables are missing, for who can't make any; an index may well be."""
        if self.is_empty:
            raise StoreEmptyError.of(path, schema.kind)
        if self.own:
            raise StoreEmptyError.of_own(path, self.own)


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
                path,
                f"it is the file of one {ours.kind} store, and holds nothing else: open it by its "
                "path, not by a URL",
            )
        if not adopt:
            found_prefixes = prefixes(catalogue)
            raise ForeignDatabaseError(
                path,
                f"lash_store's tables have the prefix {found_prefixes[0]!r} there, not "
                f"{schema.prefix!r}: that one is to be given, or adopt=True, to have others made beside them"
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
    (text,) = objects_of((versions_statement(name.removesuffix(VERSIONS)),)).values()
    return text


def _taken_names(schema: Schema, catalogue: Catalogue) -> list[str]:
    """Return the names that our tables and indexes would have, and something has."""
    extras = extra_text(schema)
    wanted = {name for key in declared_text(schema) for name in key[1:] if key not in extras}
    if catalogue.versions is not None:
        wanted.discard(schema.prefix + VERSIONS)
    return [name for _, name, *_ in catalogue.objects if name.lower() in wanted]


def look(cursor: sqlite3.Cursor, schema: Schema, path: str, *, adopt: bool = False) -> Lacking:
    """Read a database's catalogue, and decide what has to be made in it; see :func:`needs_initialising`."""
    own_table = own_versions(schema.prefix) if schema.own else None
    catalogue = read_catalogue(cursor, schema.prefix, own_table)
    is_empty = needs_initialising(schema, catalogue, path, adopt=adopt)
    statements = list(_made_at_first(schema, catalogue)) if is_empty else []
    extras = extra_text(schema)
    if extras:
        holders = {name.lower(): table.lower() for _, name, table, _ in catalogue.objects}
        ours = {table.name for table in schema.tables}
        taken = [name for _, name in extras if name in holders and holders[name] not in ours]
        if taken:
            raise NamesTakenError(path, taken, of="the extras")
        statements += [(text, ()) for (_, name), text in extras.items() if name not in holders]
    own: list[str] = []
    for each in schema.own:
        made = _lacking_own(each, catalogue, path)
        if made is not None:
            if not own and catalogue.own is None:
                statements.append((create_own_versions(schema.prefix), ()))
            own.append(each.name)
            statements += [(text, ()) for text in made]
            statements.append((note_own_version(schema.prefix), (each.name, each.version)))
    return Lacking(is_empty, tuple(own), tuple(statements))


def _made_at_first(schema: Schema, catalogue: Catalogue) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Return what makes our tables, and notes their version."""
    made = canonical_statements(schema)
    # The table of versions may be there, with another kind.
    for statement in made[1:] if catalogue.versions is not None else made:
        yield statement, ()
    if schema.prefix:
        # An application's user_version is its own.
        yield note_version(schema.prefix), (schema.kind, schema.version)
    else:
        yield stamp_version(schema.version), ()


def _lacking_own(own: OwnTables, catalogue: Catalogue, path: str) -> tuple[str, ...] | None:
    """Return what makes an application's own tables; None if they are there, as declared."""
    found = (catalogue.own or {}).get(own.name)
    differences = find_drift(own, catalogue)
    if found is None:
        there = {(kind, name.lower()) for kind, name, *_ in catalogue.objects}
        taken = sorted(name for kind, name in declared_text(own) if (kind, name) in there)
        if taken and differences:
            raise NamesTakenError(path, taken, of=f"the tables {own.name!r}")
        return () if taken else own_statements(own)
    if found != own.version:
        raise SchemaVersionError(own.name, own.version, found, path, is_own=True)
    if differences:
        raise SchemaDriftError(own.name, path, differences)
    return None


def stamp_own(cursor: sqlite3.Cursor, own: OwnTables, path: str, prefix: str) -> None:
    """Note the version of an application's own tables, which have to be as declared."""
    catalogue = read_catalogue(cursor, prefix, own_versions(prefix))
    differences = find_drift(own, catalogue)
    if differences:
        raise SchemaDriftError(own.name, path, differences)
    if catalogue.own is None:
        cursor.execute(create_own_versions(prefix))
    cursor.execute(note_own_version(prefix), (own.name, own.version))


def is_empty(cursor: sqlite3.Cursor, schema: Schema, path: str, *, adopt: bool = False) -> bool:
    """Read a file's catalogue and decide what it is; see :func:`needs_initialising`."""
    return look(cursor, schema, path, adopt=adopt).is_empty


def make(cursor: sqlite3.Cursor, lacking: Lacking) -> None:
    """Make what is lacking, in the write transaction that is open, in which it was looked for."""
    for statement, parameters in lacking.statements:
        cursor.execute(statement, parameters)


def ensure_schema(
    cursor: sqlite3.Cursor, schema: Schema, path: str, *, adopt: bool = False
) -> None:
    """Check the file, and make what it lacks, in the write transaction that is open.

    Begins, commits and rolls back nothing (K-GUARD-5).
    """
    make(cursor, look(cursor, schema, path, adopt=adopt))


Compared = dict[Schema, int]
"""At which version of its catalogue a database was last compared, on one connection."""


def look_again(
    cursor: sqlite3.Cursor, schema: Schema, path: str, compared: Compared, *, adopt: bool
) -> Lacking:
    """Do what :func:`look` does; but compare a shared database only if its catalogue has changed.

    There may be thousands of stores on it. What lacks something is not kept as compared: what is
    made for that may be rolled back.
    """
    if not schema.prefix:
        return look(cursor, schema, path, adopt=adopt)
    now: int = cursor.execute(SCHEMA_VERSION).fetchall()[0][0]
    if compared.get(schema) == now:
        versions = dict(cursor.execute(read_versions(schema.prefix)).fetchall())
        if versions.get(schema.kind) == schema.version:
            return _NOTHING
    lacking = look(cursor, schema, path, adopt=adopt)
    if not lacking:
        compared[schema] = now
    return lacking


_NOTHING = Lacking(is_empty=False, own=(), statements=())


def hold(
    cursor: sqlite3.Cursor,
    schema: Schema,
    path: str,
    compared: Compared,
    *,
    compared_in_it: Compared,
    writes: bool,
    adopt: bool = False,
) -> None:
    """Make the transaction that is open hold `schema`; compare again only if the catalogue changed.

    What is compared in one that writes is noted apart: its tables may have been made in it, and be undone.
    """
    now: int = cursor.execute(SCHEMA_VERSION).fetchall()[0][0]
    if now in (compared.get(schema), compared_in_it.get(schema)):
        return
    lacking = look(cursor, schema, path, adopt=adopt)
    if not lacking:
        (compared_in_it if writes else compared)[schema] = now
    elif writes:
        make(cursor, lacking)
    elif lacking.is_empty:
        raise SchemaVersionError(schema.kind, schema.version, 0, path, is_missing=True)
    else:
        lacking.require_readable(schema, path)
