"""Statements of your own: prepared, on an alias of a table, or about the rows of all sessions."""

from typing import TypeVar

from sqlalchemy import ColumnElement, FromClause
from sqlalchemy.sql.util import ClauseAdapter

from lash_store._kernel.checks import check_kind
from lash_store._kernel.dialects import JsonText, is_one_of
from lash_store._kernel.prepared import Prepared, PreparedRows, prepare
from lash_store._kernel.sharing import across_sessions

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
    """
    check_kind("alias", alias, FromClause)  # of a mapped class, inspect(alias).selectable
    adapted: ColumnElement[T] = ClauseAdapter(alias).traverse(condition)
    return adapted


def json_text(column: ColumnElement[str], *path: str) -> ColumnElement[str]:
    """Return the text of a member of the JSON that `column` holds, or NULL: for WHERE and ORDER BY.

    `path` names the member, each name of letters, digits and ``_``; others are refused with
    InvalidRecordError. NULL too where the text is no JSON::

        urgent = json_text(queued_work_items.c.payload_json, "priority").cast(Integer) > 5

    A number or a truth value is no text on SQLite: cast it, to Integer or to Text, before it is compared.
    """
    return JsonText(column, *path)
