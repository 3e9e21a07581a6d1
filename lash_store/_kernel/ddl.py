"""The compile hook that renders canonical DDL, and what a store's schema is.

SQLAlchemy's own SQLite DDL describes the same tables as the canonical files, in other
words: a single-column primary key becomes a table constraint, names come in another order.
:class:`CreateCanonicalTable` renders the canonical text instead. The hook hangs on that
subclass alone, so ``CREATE TABLE`` of every other table, a consumer's among them, compiles
exactly as SQLAlchemy has it; ``metadata.create_all()`` over our own tables does too, and
gives a database with the same PRAGMA facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

from sqlalchemy import BigInteger, Integer, MetaData, Table, TypedColumns, UniqueConstraint
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import (
    Column,
    Constraint,
    CreateIndex,
    CreateTable,
    ExecutableDDLElement,
    ForeignKeyConstraint,
    PrimaryKeyConstraint,
)
from sqlalchemy.sql.compiler import DDLCompiler
from sqlalchemy.util import OrderedSet

from lash_store._kernel.dialects import SQLITE

Kind = Literal["session", "process", "trigger", "effect"]
"""The four kinds of store; each has its own database file, schema and version."""

Int = Integer().with_variant(BigInteger(), "postgresql")
"""Every integer column: SQLite's INTEGER already holds 64 bits, PostgreSQL's holds 32."""


class CreateCanonicalTable(CreateTable):
    """``CREATE TABLE`` in the canonical words on SQLite, stock on every other dialect."""

    inherit_cache = False


@compiles(CreateCanonicalTable, "sqlite")
def _render_table(element: CreateCanonicalTable, compiler: DDLCompiler, **_: object) -> str:
    table = element.element
    parts = [_render_column(column, compiler) for column in table.columns]
    parts += [compiler.process(rule) for rule in _rules_about_several_columns(table)]
    name = compiler.preparer.format_table(table)
    return f"CREATE TABLE {name} (\n    " + ",\n    ".join(parts) + "\n)"


def _render_column(column: Column[Any], compiler: DDLCompiler) -> str:
    table = column.table
    words = [compiler.preparer.format_column(column), compiler.type_compiler.process(column.type)]
    if column.primary_key and len(table.primary_key) == 1:
        words.append("PRIMARY KEY")
        if table.dialect_options["sqlite"]["autoincrement"]:
            words.append("AUTOINCREMENT")
    if not column.nullable:
        words.append("NOT NULL")
    default = compiler.get_column_default_string(column)
    if default is not None:
        words.append(f"DEFAULT {default}")
    if any(
        isinstance(rule, UniqueConstraint) and list(rule.columns) == [column]
        for rule in table.constraints
    ):
        words.append("UNIQUE")
    words += [compiler.process(rule) for rule in column.constraints]
    return " ".join(words)


def _rules_about_several_columns(table: Table[Any]) -> list[Constraint]:
    """Primary key, then unique, then foreign keys: the canonical order, each by its first column.

    ``table.constraints`` is a set, so the order has to come from the constraints themselves.
    A foreign key stands here even where it has one column: the canonical text has it so.
    """
    position = {name: at for at, name in enumerate(table.columns.keys())}
    kinds = (PrimaryKeyConstraint, UniqueConstraint, ForeignKeyConstraint)
    return [
        rule
        for kind in kinds
        for rule in sorted(
            (rule for rule in table.constraints if isinstance(rule, kind)),
            key=lambda rule: position[rule.columns[0].name],
        )
        if kind is ForeignKeyConstraint or len(rule.columns) > 1
    ]


@dataclass(frozen=True)
class Schema:
    """One store's declared schema: what the guard creates, stamps and compares."""

    kind: Kind
    version: int
    metadata: MetaData
    tables: tuple[Table, ...]
    """In the canonical order, which ``metadata.sorted_tables`` does not keep."""

    def elements(self) -> Iterator[ExecutableDDLElement]:
        """Yield the DDL elements that make an empty database this schema."""
        for table in self.tables:
            yield CreateCanonicalTable(table)
            for index in table.indexes:
                yield CreateIndex(index)

    @cached_property
    def statements(self) -> tuple[str, ...]:
        """The canonical DDL for SQLite, one statement each, without a final semicolon."""
        return tuple(str(element.compile(dialect=SQLITE)).strip() for element in self.elements())

    @cached_property
    def stock_statements(self) -> tuple[str, ...]:
        """What ``metadata.create_all()`` runs on SQLite for the same tables."""
        stock: list[ExecutableDDLElement] = []
        for table in self.tables:
            stock += [CreateTable(table), *map(CreateIndex, table.indexes)]
        return tuple(str(element.compile(dialect=SQLITE)).strip() for element in stock)

    def render(self) -> str:
        """Return the text of ``schema/<kind>.sql``."""
        head = f"-- {self.kind} store, PRAGMA user_version = {self.version}\n"
        note = "-- Rendered from lash_store's MetaData by `nox -s schema`; not edited by hand.\n\n"
        return head + note + "\n\n".join(f"{text};" for text in self.statements) + "\n"


_Columns = TypeVar("_Columns", bound=TypedColumns)


def ordered_indexes(table: Table[_Columns]) -> Table[_Columns]:
    """Make `table`, which has no index yet, keep the order in which indexes are declared.

    SQLAlchemy collects them in a set, so ``PRAGMA index_list`` would change from run to run.
    """
    table.indexes = OrderedSet()
    return table
