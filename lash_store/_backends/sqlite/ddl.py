"""The compile hook that renders canonical DDL, and a schema's statements for SQLite.

SQLAlchemy's own SQLite DDL describes the same tables as the canonical files, in other
words: a single-column primary key becomes a table constraint, names come in another order.
:class:`CreateCanonicalTable` renders the canonical text instead. The hook hangs on that
subclass alone, so ``CREATE TABLE`` of every other table, a consumer's among them, compiles
exactly as SQLAlchemy has it; ``metadata.create_all()`` over our own tables does too, and
gives a database with the same PRAGMA facts.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from sqlalchemy import Table, UniqueConstraint
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

from lash_store._backends.sqlite.dialect import SQLITE
from lash_store._kernel.schema import Schema
from lash_store._kernel.sharing import versions_table


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
    """Primary key, then unique, then foreign keys: the canonical order, each by its columns.

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
            key=lambda rule: [position[column.name] for column in rule.columns],
        )
        if kind is ForeignKeyConstraint or len(rule.columns) > 1
    ]


@cache
def canonical_statements(schema: Schema) -> tuple[str, ...]:
    """Return the canonical DDL that makes an empty file this schema, without final semicolons."""
    return _statements(schema, CreateCanonicalTable)


@cache
def stock_statements(schema: Schema) -> tuple[str, ...]:
    """Return what ``metadata.create_all()`` runs on SQLite for the same tables."""
    return _statements(schema, CreateTable)


def versions_statement(prefix: str) -> str:
    """Return the DDL of the table of versions in a database that is shared."""
    return str(CreateCanonicalTable(versions_table(prefix)).compile(dialect=SQLITE)).strip()


def render(schema: Schema) -> str:
    """Return the text of ``schema/<kind>.sql``."""
    head = f"-- {schema.kind} store, PRAGMA user_version = {schema.version}\n"
    note = "-- Rendered from lash_store's MetaData by `nox -s schema`; not edited by hand.\n\n"
    return head + note + "\n\n".join(f"{text};" for text in canonical_statements(schema)) + "\n"


def _statements(schema: Schema, create: Callable[[Table[Any]], CreateTable]) -> tuple[str, ...]:
    elements: list[ExecutableDDLElement] = []
    for table in schema.tables:
        elements += [create(table), *map(CreateIndex, schema.indexes_of(table))]
    return tuple(str(element.compile(dialect=SQLITE)).strip() for element in elements)
