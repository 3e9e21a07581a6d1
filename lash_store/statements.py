"""Statements of your own: prepared, on an alias of a table, or about the rows of all sessions."""

from collections.abc import Iterator
from typing import Any, TypeVar

from sqlalchemy import Column, ColumnElement, FromClause, SelectBase, SQLColumnExpression, Table
from sqlalchemy.sql.util import ClauseAdapter
from sqlalchemy.sql.visitors import iterate

from lash_store._kernel.checks import check_kind, shown
from lash_store._kernel.dialects import WholeJsonText, is_one_of
from lash_store._kernel.prepared import Prepared, PreparedRows, prepare
from lash_store._kernel.sharing import across_sessions
from lash_store.errors import InvalidRecordError

__all__ = [
    "Prepared",
    "PreparedRows",
    "across_sessions",
    "is_one_of",
    "json_text",
    "on_alias",
    "prepare",
]

T = TypeVar("T")


def on_alias(condition: ColumnElement[T], alias: FromClause) -> ColumnElement[T]:
    """Return a condition on one of our tables as one on an alias of it.

    The library's conditions (``has_live_claim``, ``is_live``, …) are about the table itself::

        a = queued_work_batches.alias()
        select(a.c.batch_id).where(on_alias(~has_live_claim(now_ms=now), a))

    Raises InvalidRecordError for an alias that lacks a column which the condition is about.
    """
    check_kind("alias", alias, FromClause)  # of a mapped class, inspect(alias).selectable
    of = {each for each in iterate(alias) if isinstance(each, Table)}
    about = {each.table for each in iterate(condition) if isinstance(each, Column)}
    if about and of.isdisjoint(about):
        raise InvalidRecordError(
            "alias", shown(alias), "is of no table that the condition is about"
        )
    adapted: ColumnElement[T] = ClauseAdapter(alias).traverse(condition)
    for column in _columns_of(adapted):
        if column.table in of:
            why = f"lacks {column.name!r}, which the condition is about"
            raise InvalidRecordError("alias", shown(alias), why)
    return adapted


def _columns_of(element: Any) -> Iterator[Column[Any]]:
    """Go through the columns of a condition, those of what it selects from aside."""
    if isinstance(element, Column):
        yield element
    elif not isinstance(element, SelectBase):
        for each in element.get_children():
            yield from _columns_of(each)


def json_text(
    column: SQLColumnExpression[str] | SQLColumnExpression[str | None], *path: str
) -> ColumnElement[str]:
    """Return the text of a member of the JSON that `column` holds, or NULL: for WHERE and ORDER BY.

    `path` names the member, each name of letters, digits and ``_``, not of digits alone; others are refused with
    InvalidRecordError. NULL too where the text is no JSON::

        urgent = json_text(queued_work_items.c.payload_json, "priority").cast(Integer) > 5

    A number is no text on SQLite: cast it, to Integer or to Text, before it is compared. A truth value is
    ``1`` or ``0`` there, and ``true`` or ``false`` as a text on a server, which makes no Integer of that; of a
    name that an object has twice SQLite gives the first, a server the last. A NUL, which no column can hold, is U+FFFD.
    """
    return WholeJsonText(column, *path)
