"""The shared layout: everything in one database, beside an application's own tables.

Each table of ours stands there under a prefix. Those of sessions hold many sessions, told apart by
one more column, ``store``; they are *scoped*. The statements know nothing of either: they are
written for the canonical tables, and the compiler of a shared database (``placing.SharingCompiler``)
renders each of these in the place that it has there.

A scoped table is read as ``(SELECT * FROM lash_x WHERE store = ?) AS x``. In FROM, not in WHERE:
an outer join, an alias, a correlated subquery and an ORM entity are then scoped like everything
else, and the database flattens it into the same plan. The scope is a parameter, :data:`SCOPE`.
"""

from functools import cache
from typing import Any, Final

import msgspec
from sqlalchemy import (
    BindParameter,
    Column,
    Connection,
    FetchedValue,
    ForeignKeyConstraint,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
)

from lash_store._kernel.checks import shown
from lash_store._kernel.schema import (
    OURS,
    Int,
    Ours,
    Schema,
    UnnamedCheck,
    declared,
    ordered_indexes,
    ours_of,
)
from lash_store.errors import InvalidRecordError, ScopeError

SCOPES: Final = "lash_store_scopes"
"""Where a consumer's connection says which sessions have joined its transaction."""

SCOPE_OPTION: Final = "lash_store_session"
"""The execution option that says whose rows a consumer's statement is about."""

SCOPE: Final[BindParameter[str]] = bindparam("lash_store_scope", type_=Text(), required=True)
"""Whose rows a statement on scoped tables is about; given by what executes it."""

STORE: Final = "store"
"""The column that tells whose a row is."""

VERSIONS: Final = "versions"
"""The table, under the prefix, that says which kinds the database holds, in which version."""


# The tables.


@cache
def shared(schema: Schema, prefix: str) -> Schema:
    """Return a kind's schema as a shared database has it; the table of versions is the first."""
    metadata = MetaData()
    versions = versions_table(prefix, metadata)
    tables = [_derived(table, schema, prefix, metadata) for table in schema.tables]
    parts = {
        **msgspec.structs.asdict(schema),
        "metadata": metadata,
        "tables": (versions, *tables),
        "prefix": prefix,
        "indexes": None,
    }
    return Schema(**parts)  # and not replace(): that of msgspec 0.19 does not look for the indexes


def versions_table(prefix: str, metadata: MetaData | None = None) -> Table[Any]:
    """Return the table that says which kinds a database holds, in which versions."""
    return Table(
        prefix + VERSIONS,
        MetaData() if metadata is None else metadata,
        Column("kind", Text, primary_key=True, nullable=False),
        Column("version", Int, nullable=False),
    )


def _derived(table: Table[Any], schema: Schema, prefix: str, metadata: MetaData) -> Table[Any]:
    """Return what a canonical table becomes: prefixed, and scoped if its kind is."""
    first = [STORE] if schema.is_scoped else []
    numbered = _numbered(table) if schema.is_scoped else None
    columns = _copied(table)
    for column in columns:
        if schema.is_scoped:
            # Keys are of several columns here, so none of them may be NULL by default.
            column.autoincrement, column.primary_key = False, False
            column.nullable = column.nullable and not table.columns[column.name].primary_key
    scope = [Column(STORE, Text, UnnamedCheck(f"{STORE} <> ''"), nullable=False)]
    is_autoincrement = table.dialect_options["sqlite"]["autoincrement"] and not schema.is_scoped
    made: Table[Any] = ordered_indexes(
        Table(
            prefix + table.name,
            metadata,
            *(scope if schema.is_scoped else []),
            *columns,
            *(
                [PrimaryKeyConstraint(*first, *_names(table.primary_key))]
                if schema.is_scoped
                else []
            ),
            *(
                UniqueConstraint(
                    *first,
                    *_names(rule),
                    sqlite_on_conflict=rule.dialect_options["sqlite"]["on_conflict"],
                )
                for rule in _rules(table)
                if isinstance(rule, UniqueConstraint)
            ),
            *(
                ForeignKeyConstraint(
                    [*first, *_names(rule)],
                    [f"{prefix}{each}" for each in _targets(rule, first)],
                    ondelete=rule.ondelete,
                )
                for rule in _rules(table)
                if isinstance(rule, ForeignKeyConstraint)
            ),
            sqlite_autoincrement=is_autoincrement,
            implicit_returning=False,
        )
    )
    for index in schema.shared_indexes_of(table):
        names = [*first, *(column.name for column in index.columns)]
        if numbered is not None and not index.unique and numbered not in names:
            names.append(numbered)  # what SQLite puts behind each index by itself: the rowid
        where = index.dialect_options["sqlite"]["where"]
        there = (made.c[name] for name in names)
        name = f"{prefix}{index.name}"
        Index(name, *there, unique=index.unique, info=index.info, sqlite_where=where)
    return made


def _copied(table: Table[Any]) -> list[Column[Any]]:
    """Return copies of a table's columns, for one whose rows are numbered by what inserts them."""
    columns = [column._copy() for column in table.columns]  # noqa: SLF001 # reason: what to_metadata() calls
    for column in columns:
        column.foreign_keys.clear()
        if type(column.server_default) is FetchedValue:
            column.server_default, column.autoincrement = None, "auto"
    return columns


def _rules(table: Table[Any]) -> list[Any]:
    """Return the constraints of a table as they were declared: they stand in a set."""
    return sorted(table.constraints, key=lambda rule: rule._creation_order)  # noqa: SLF001 # reason: what CREATE TABLE goes by


def _names(rule: Any) -> list[str]:
    return [column.name for column in rule.columns]


def _targets(rule: ForeignKeyConstraint, first: list[str]) -> list[str]:
    parent = rule.elements[0].target_fullname.rpartition(".")[0]
    return [
        *(f"{parent}.{name}" for name in first),
        *(each.target_fullname for each in rule.elements),
    ]


def _numbered(table: Table[Any]) -> str | None:
    """Return the column that a database of its own numbers by itself."""
    column = table._autoincrement_column  # noqa: SLF001 # reason: tested by name
    return None if column is None else column.name


@cache
def across_sessions(table: Table[Any]) -> Table[Any]:
    """Return a table of sessions with the rows of all of them, for a shared database.

    It has one more column, ``store``: whose a row is. Statements on it are not scoped, so what is
    changed through it is anybody's. In a canonical file, which is one session's, there is no such
    column. Raises InvalidRecordError for any table that is none of lash_store's session tables.
    """
    ours = ours_of(table)
    if ours is None or not ours.is_scoped or ours.table is not table:
        raise InvalidRecordError("table", shown(table), "must be one of lash_store.session.tables")
    columns = _copied(table)
    scope = Column(STORE, Text, nullable=False, primary_key=True)
    info = {OURS: Ours(table, is_scoped=True, is_across=True)}
    return Table(table.name, MetaData(), scope, *columns, info=info, implicit_returning=False)


# The statements.


class Place(msgspec.Struct, frozen=True):
    """Where a table of ours is in a shared database."""

    name: str
    """What it is called there."""

    is_scoped: bool
    numbered: str | None
    """The column that counts the rows of each scope, from 1."""


@cache
def _scoped_names(prefix: str) -> frozenset[str]:
    """Return the names that our scoped tables have in a shared database."""
    tables = [table for schema in declared if schema.is_scoped for table in schema.tables]
    return frozenset(prefix + table.name for table in tables)


class Sharing:
    """Where the tables of ours are, under one prefix: what the compiler goes by."""

    def __init__(self, prefix: str, schema: str | None = None, *, home: str | None = None) -> None:
        self.prefix = prefix
        self.home = home
        """How the database itself is called beside those that are attached to it, where it is called anything."""
        self.schema = schema
        """The database's schema that they are in, where it is not the one that is looked in first."""

    def place_of(self, table: Any) -> Place | None:
        """Return where a table is, or None if it is none of ours.

        Ours are known by themselves, not by name: an application may have ``blobs`` of its own.
        One that was reflected from the database has its name there.
        """
        if not self.prefix or not isinstance(table, Table):
            return None
        if self.home is not None and table.schema not in {None, self.home}:
            return None  # of an attached database: an archive, say
        ours = ours_of(table)
        if ours is not None and ours.is_across:
            return Place(self.prefix + ours.table.name, is_scoped=False, numbered=None)
        if ours is not None:
            number = _numbered(ours.table) if ours.is_scoped else None
            return Place(self.prefix + ours.table.name, ours.is_scoped, number)
        if table.name in _scoped_names(self.prefix):
            return Place(table.name, is_scoped=True, numbered=None)
        return None


def only_scope(connection: Connection) -> str:
    """Return the one session that has joined the transaction of a consumer's own."""
    scopes = connection.info.get(SCOPES, ())
    if not scopes:
        raise ScopeError("this connection")
    if len(scopes) > 1:
        raise ScopeError(f"this connection, which several have joined ({', '.join(scopes)}),")
    (scope,) = scopes
    return str(scope)
