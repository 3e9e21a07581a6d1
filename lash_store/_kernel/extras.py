"""What an application adds to a database of ours, declared so that the guard knows it.

Its own tables get what ours have: they are made when the database is first opened, have an exact
version, and are compared. Indexes and triggers that it adds to *our* tables are part of what is
compared there.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec.structs import force_setattr
from sqlalchemy import (
    Column,
    Enum,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UnaryExpression,
    UniqueConstraint,
    Uuid,
)

from lash_store._kernel.checks import check_count, check_kind, shown
from lash_store._kernel.dialects import holds_big_numbers
from lash_store._kernel.schema import declared, ours_of
from lash_store.errors import InvalidRecordError

_NAME: Final = re.compile(r"\w+", re.ASCII)


class Trigger(msgspec.Struct, frozen=True):
    """A trigger on one of our tables; those on an application's own are among its ``OwnTables.also``.

    ``Trigger("notes_of_nodes", graph_nodes, "AFTER INSERT", "INSERT INTO … VALUES (new.node_id)")``:
    `when` is what stands between the name and the table, `does` what stands between BEGIN and END.
    """

    name: str
    table: Table[Any]
    when: str
    does: str

    def __post_init__(self) -> None:
        check_kind("trigger.table", self.table, Table)
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InvalidRecordError("trigger.name", shown(self.name), "must be letters, digits, _")
        for field in ("when", "does"):
            check_kind(f"trigger.{field}", getattr(self, field), str)

    def statement(self, table_name: str) -> str:
        """Return the DDL that makes it on a table, as it is called there."""
        body = self.does.strip().rstrip(";")
        return f"CREATE TRIGGER {self.name} {self.when} ON {table_name}\nBEGIN\n{body};\nEND"


Extra: TypeAlias = Index | Trigger
"""An index or a trigger on one of our tables."""

Extras: TypeAlias = Sequence[Extra] | Literal["any"]
"""Those of a database; "any" for a program that takes whatever is there as it is."""


class OwnTables(msgspec.Struct, frozen=True, eq=False):
    """Tables of an application's own, which the guard keeps beside ours: a name and a version.

    `metadata` has the tables and their indexes. `also` is what it can't say, as DDL: views, virtual
    tables, triggers on those tables. They are made in one transaction when the database is first
    opened with them, and have to be exactly so at every open with them after that: a new version is
    made by a migration of the application's own, which also sets it (``lash_store.schemas.stamp_tables``).
    """

    name: str
    version: int
    metadata: MetaData
    also: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InvalidRecordError("tables.name", shown(self.name), "must be letters, digits, _")
        check_count("tables.version", self.version)
        check_kind("tables.metadata", self.metadata, MetaData)
        force_setattr(self, "also", tuple(self.also))
        for table in self.metadata.tables.values():
            if ours_of(table):
                raise InvalidRecordError("tables", shown(table.name), "must not be one of ours")

    @property
    def tables(self) -> tuple[Table[Any], ...]:
        """The tables, each behind those that it refers to."""
        return tuple(self.metadata.sorted_tables)


def check_extras(extras: Extras) -> Extras:
    """Return what may be declared on our tables, as a tuple; InvalidRecordError for anything else."""
    if not extras or extras == "any":
        return extras if extras == "any" else ()
    if isinstance(extras, str) or not isinstance(extras, Iterable):
        raise InvalidRecordError("extras", shown(extras), 'must be a list, or "any"')
    for each in extras:
        table = each.table if isinstance(each, (Index, Trigger)) else None
        if not isinstance(table, Table) or declared_as(table) is None:
            raise InvalidRecordError(
                "extras", shown(each), "must be an Index or a Trigger on one of lash_store's tables"
            )
        if isinstance(each, Index):
            # Building one has added it to the table, which is ours, and is to be made as it is.
            table.indexes.discard(each)
    return tuple(extras)


_NARROW: Final = (
    "has to be a BigInteger: a server's Integer is too small for a time, or for terms without end "
    '(a file that has an INTEGER there keeps it as `BigInteger().with_variant(Integer, "sqlite")`)'
)


def check_leased(
    table: Table[Any],
    key: Column[Any],
    words: Sequence[Column[Any]],
    numbers: Sequence[Column[Any]],
) -> None:
    """Raise InvalidRecordError unless leases can stand in a table's rows.

    `key` names the row, `words` say whose it is, `numbers` count its terms and tell their times.
    """
    if not isinstance(table, Table):
        why = "must be a Table, which of a mapped class is its `__table__`"
        raise InvalidRecordError("table", shown(table), why)
    given = (key, *words, *numbers)
    for column in given:
        if not isinstance(column, Column) or column.table is not table:
            why = f"must be a column of the table itself: one of {table.name!r}'s `.c`"
            raise InvalidRecordError("table", shown(column), why)
    for column in table.columns:
        refusal = _why_not_leased(table, column, key, words, numbers)
        if refusal is not None:
            raise InvalidRecordError("table", str(column), refusal)
    if len(set(given)) < len(given):
        raise InvalidRecordError(
            "table", shown(table.name), "each part of a lease is a column of its own"
        )


def _why_not_leased(
    table: Table[Any],
    column: Column[Any],
    key: Column[Any],
    words: Sequence[Column[Any]],
    numbers: Sequence[Column[Any]],
) -> str | None:
    is_key, is_word, is_number = column is key, column in words, column in numbers
    is_filled = column.nullable or column.server_default is not None
    is_filled = is_filled or is_key or is_word or is_number or column is table.autoincrement_column
    kind = _python_type(column)
    refusals = (
        (
            not is_filled,
            "must be nullable or have a server_default: a claim makes the row without it",
        ),
        (
            column.default is not None or column.onupdate is not None,
            "has a default in Python, which no prepared statement runs: give it a server_default",
        ),
        (
            is_key and not _is_unique(table, column),
            "has to be unique by itself: a lease has a key of one column",
        ),
        (
            (is_key or is_word)
            and (kind not in (str, None) or isinstance(column.type, (Enum, Uuid))),
            "has to be a text, as what it is given is: any that names something",
        ),
        (is_word and not column.nullable, "must be nullable: a lease that nobody holds has none"),
        (is_number and kind not in (int, None), "has to be a number: times are milliseconds"),
        (
            is_number and _is_narrow(table, column),
            _NARROW,
        ),
        (
            is_number and column.nullable,
            "must not be nullable: a row that is there before its first claim has a 0, by a server_default",
        ),
    )
    return next((why for is_so, why in refusals if is_so), None)


def _is_unique(table: Table[Any], column: Column[Any]) -> bool:
    # One that is looked at as the transaction ends is no target of a claim's upsert, on a server.
    keys = (
        each
        for each in table.constraints
        if isinstance(each, (PrimaryKeyConstraint, UniqueConstraint))
        and not (each.deferrable or each.initially)
    )
    sets: list[list[Any]] = [list(each.columns) for each in keys]
    # One that is about some rows alone is no target of a claim's upsert, whatever the database.
    whole = (
        each
        for each in table.indexes
        if not any(
            name.endswith("_where") and given is not None
            for name, given in each.dialect_kwargs.items()
        )
    )
    sets += [list(each.expressions) for each in whole if each.unique]
    return any(len(each) == 1 and _plain(each[0]) is column for each in sets)


def _plain(expression: Any) -> Any:
    """Return what an index orders, in whatever direction."""
    is_ordered = isinstance(expression, UnaryExpression) and expression.modifier is not None
    return expression.element if is_ordered else expression


def _is_narrow(table: Table[Any], column: Column[Any]) -> bool:
    # Ours are what the canonical tables say, and BIGINT on a server.
    is_number = isinstance(column.type, Integer)
    return is_number and ours_of(table) is None and not holds_big_numbers(column.type)


def _python_type(column: Column[Any]) -> type[Any] | None:
    try:
        found: type[Any] = column.type.python_type
    except NotImplementedError:  # a type of the application's own: its values tell
        return None
    return None if found is object else found  # which SQLAlchemy says of a TypeDecorator


def check_own_tables(tables: Sequence[OwnTables]) -> tuple[OwnTables, ...]:
    """Return declared tables as a tuple; InvalidRecordError for anything else."""
    if not isinstance(tables, (list, tuple)) or not all(isinstance(e, OwnTables) for e in tables):
        raise InvalidRecordError("tables", shown(tables), "must be a list of OwnTables")
    names = [each.name for each in tables]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRecordError("tables", shown(name), "is declared twice")
    return tuple(tables)


def is_optional(extra: Extra) -> bool:
    """Whether it is an index that a kind declares itself, and every shared database has."""
    return any(extra is each for schema in declared for each in schema.optional)


def declared_as(table: Table[Any]) -> Table[Any] | None:
    """Return the table of ours that `table` is; None for any other."""
    ours = ours_of(table)
    known = ours is not None and any(ours.table in schema.tables for schema in declared)
    return ours.table if ours is not None and known and ours.table is table else None
