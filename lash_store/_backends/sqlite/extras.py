"""What an application has declared beside our tables, as SQLite's DDL."""

from functools import cache, lru_cache
from typing import Any

import msgspec
from sqlalchemy import Index, Table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql import visitors

from lash_store._backends.sqlite.dialect import SQLITE
from lash_store._kernel.checks import shown
from lash_store._kernel.extras import Extra, OwnTables, Trigger, declared_as
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema, declared, ours_of
from lash_store._kernel.sharing import STORE, VERSIONS
from lash_store.errors import InvalidRecordError


def declared_with(schema: Schema, settings: Settings) -> Schema:
    """Return a kind's schema in its layout, with what an application has declared beside it."""
    extras = settings.extras if settings.extras == "any" else tuple(settings.extras)
    return _declared_with(schema, extras, settings.tables) if extras or settings.tables else schema


@lru_cache(maxsize=64)
def _declared_with(
    schema: Schema, extras: tuple[Extra, ...] | str, own: tuple[OwnTables, ...]
) -> Schema:
    if isinstance(extras, str):
        return _with(schema, None, own)
    statements = [statement_of(each, schema) for each in extras if _place(each, schema) is not None]
    return _with(schema, tuple(statements), own) if statements or own else schema


@cache
def _with(schema: Schema, extras: tuple[str, ...] | None, own: tuple[OwnTables, ...]) -> Schema:
    """Return the same schema for the same text, however often an application writes that down."""
    for each in own:
        _check_references(each, is_shared=bool(schema.prefix))
        _check_names(each, schema.prefix)
    return msgspec.structs.replace(schema, extras=extras, own=own)


def statement_of(extra: Extra, schema: Schema) -> str:
    """Return the DDL of an index or a trigger on one of our tables, where the layout has that."""
    place = _place(extra, schema)
    assert place is not None
    if isinstance(extra, Trigger):
        return extra.statement(place.name)
    return _compiled(CreateIndex(_index_on(place, extra, is_scoped=schema.is_scoped)))


def optional_statements(schema: Schema) -> tuple[str, ...]:
    """Return the DDL of what a database may have without anybody declaring it."""
    if schema.prefix:
        return ()
    return tuple(statement_of(each, schema) for each in schema.optional)


def _place(extra: Extra, schema: Schema) -> Table[Any] | None:
    if extra in schema.optional and schema.prefix:
        return None  # what it is for, the shared layout's own index does
    assert extra.table is not None
    ours = declared_as(extra.table)
    assert ours is not None
    name = schema.prefix + ours.name
    return next((table for table in schema.tables if table.name == name), None)


def _index_on(place: Table[Any], index: Index, *, is_scoped: bool) -> Index:
    if place is index.table:
        return index
    columns = place.c

    def in_place(element: Any, **_: Any) -> Any:
        if getattr(element, "table", None) is index.table:
            return columns[element.name]
        return None

    def moved(expression: Any) -> Any:
        return visitors.replacement_traverse(expression, {}, in_place)

    first = [columns[STORE]] if is_scoped else []
    where = index.dialect_options["sqlite"]["where"]
    made = Index(
        index.name,
        *first,
        *(moved(each) for each in index.expressions),
        unique=index.unique,
        sqlite_where=None if where is None else moved(where),
    )
    place.indexes.discard(made)  # it is the application's; the table stays as it was declared
    return made


def _check_references(own: OwnTables, *, is_shared: bool) -> None:
    """Refuse references that can't be made: to what is unknown, or to ours where that is elsewhere."""
    for table in own.metadata.tables.values():
        for key in table.foreign_keys:
            try:
                target = key.column.table
            except SQLAlchemyError as error:
                raise InvalidRecordError("tables", shown(own.name), str(error)) from error
            if is_shared and ours_of(target):
                raise InvalidRecordError(
                    "tables",
                    shown(own.name),
                    f"{table.name} refers to {target.name}, which has another name and key in a "
                    "database that is shared",
                )


def _check_names(own: OwnTables, prefix: str) -> None:
    """Refuse a table that has the name of one of ours, there."""
    if prefix:
        names = [VERSIONS, *(table.name for each in declared for table in each.tables)]
        ours = {prefix + name for name in names}
        for table in own.metadata.tables.values():
            if table.name in ours:
                raise InvalidRecordError(
                    "tables",
                    shown(table.name),
                    f"has the name of one of ours, by prefix={prefix!r}",
                )


@cache
def own_statements(own: OwnTables) -> tuple[str, ...]:
    """Return the DDL that makes an application's own tables."""
    elements: list[str] = []
    for table in own.tables:
        elements.append(_compiled(CreateTable(table)))
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        elements += [_compiled(CreateIndex(index)) for index in indexes]
    return (*elements, *own.also)


def _compiled(element: CreateTable | CreateIndex) -> str:
    return str(element.compile(dialect=SQLITE)).strip()
