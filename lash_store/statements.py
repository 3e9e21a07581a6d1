"""Statements of your own: prepared, on an alias of a table, or about the rows of all sessions."""

from typing import TypeVar

from sqlalchemy import ColumnElement, FromClause
from sqlalchemy.sql.util import ClauseAdapter

from lash_store._kernel.prepared import Prepared, PreparedRows, prepare
from lash_store._kernel.sharing import across_sessions

__all__ = ["Prepared", "PreparedRows", "across_sessions", "on_alias", "prepare"]

T = TypeVar("T")


def on_alias(condition: ColumnElement[T], alias: FromClause) -> ColumnElement[T]:
    """Return a condition on one of our tables as one on an alias of it.

    The library's conditions (``has_live_claim``, ``is_live``, …) are about the table itself::

        a = queued_work_batches.alias()
        select(a.c.batch_id).where(on_alias(~has_live_claim(now_ms=now), a))
    """
    adapted: ColumnElement[T] = ClauseAdapter(alias).traverse(condition)
    return adapted
