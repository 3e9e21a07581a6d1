"""Which of the rows that an operation may take a consumer wants, and which of them first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, SQLColumnExpression
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import Grouping

from lash_store._kernel.backend import Cursor
from lash_store._kernel.checks import shown
from lash_store._kernel.sharing import SCOPE, SCOPE_OPTION, only_scope
from lash_store.errors import InvalidRecordError, LashStoreError

Where: TypeAlias = SQLColumnExpression[bool]
"""A condition; of a mapped class too."""

OrderBy: TypeAlias = SQLColumnExpression[Any] | Sequence[SQLColumnExpression[Any]]
"""A column or an expression, ``desc()`` or not, or several in turn."""

SelectT = TypeVar("SelectT", bound=Select[*tuple[Any, ...]])


class Choice(NamedTuple):
    """A condition and an order of a consumer's own."""

    where: ColumnElement[bool] | None
    order_by: tuple[ColumnElement[Any], ...]

    def applied(self, statement: SelectT, *columns: ColumnElement[Any]) -> SelectT:
        """Return `statement` with the condition, ordered so, and then by `columns`."""
        if self.where is not None:
            # In parentheses, which SQLAlchemy gives no text: an OR in it would pass over the rules of claiming.
            statement = statement.where(Grouping(self.where))
        return statement.order_by(None).order_by(*map(_with_nulls, self.order_by), *columns)

    def misleads(self) -> InvalidRecordError:
        """Return the error of a condition that has given what is not to be claimed."""
        return InvalidRecordError("where", shown(self.where), "gives what is not to be claimed")

    def rows(self, tx: Chooser, scope: str, statement: Select[*tuple[Any, ...]]) -> list[Any]:
        """Run what it was applied to, on rows of `scope`; InvalidRecordError if the database can't, because of it."""
        cursor, connection = tx.own_cursor, tx.connection
        # Of several that have joined one connection this one; of a kind without scopes whichever that says.
        options = {SCOPE_OPTION: scope} if scope else {}
        errors = (SQLAlchemyError, cursor.driver.error, OverflowError, UnicodeError)
        try:
            if connection.dialect.is_async:  # and the Tx is not in the coroutine that awaits
                return _rows_of(cursor, connection, statement, scope)
            return list(connection.execute(statement, execution_options=options).all())
        except errors as error:
            raise self._explained(error, cursor) from error

    def _explained(self, error: Exception, cursor: Cursor) -> LashStoreError:
        cause, driver = getattr(error, "orig", None) or error, cursor.driver
        if isinstance(cause, driver.error) and not driver.refuses(cause):
            return driver.explain(cause, cursor)
        which = "order_by" if self.where is None else "where"
        given = self.order_by if self.where is None else self.where
        why, *_ = str(cause).splitlines() or [type(cause).__name__]
        return InvalidRecordError(which, shown(given), f"can't be run: {why}")


def _with_nulls(expression: ColumnElement[Any]) -> ColumnElement[Any]:
    """Say of an expression where NULL comes: before all else, as for SQLite, where a server has it behind."""
    modifier = getattr(expression, "modifier", None)
    is_directed = modifier in (operators.asc_op, operators.desc_op)
    ordered: Any = getattr(expression, "element", expression) if is_directed else expression
    is_said = modifier in (operators.nulls_first_op, operators.nulls_last_op)
    # What is never NULL stays as it is, as an index has it; of a text nobody knows.
    if is_said or not getattr(ordered, "nullable", True) or getattr(ordered, "is_literal", False):
        return expression
    return expression.nulls_last() if modifier is operators.desc_op else expression.nulls_first()


def _rows_of(
    cursor: Cursor, connection: Connection, statement: Select[*tuple[Any, ...]], scope: str
) -> list[Any]:
    """Run a statement past SQLAlchemy's Connection."""
    compiled: Any = statement.compile(dialect=cursor.driver.dialect)
    if SCOPE.key in compiled.binds and not scope:
        scope = connection.get_execution_options().get(SCOPE_OPTION) or only_scope(connection)
    state = compiled.construct_expanded_state({SCOPE.key: scope})
    processors = state.processors
    values = [
        processors[name](value) if name in processors else value
        for name, value in zip(state.positiontup, state.positional_parameters, strict=True)
    ]
    rows: list[Any] = cursor.execute(state.statement, values).fetchall()
    return rows


class Chooser(Protocol):
    """A Tx, as far as a choice runs on it."""

    @property
    def own_cursor(self) -> Cursor:
        """Its cursor."""

    @property
    def connection(self) -> Connection:
        """Its SQLAlchemy Connection."""


def chosen(where: Where | None, order_by: OrderBy | None) -> Choice | None:
    """Return a consumer's choice, checked; None if it is left to the rules.

    Raises InvalidRecordError for what is no SQL expression.
    """
    if where is None and order_by is None:
        return None
    condition = _plain(where)
    if condition is not None and not isinstance(condition, ColumnElement):
        raise InvalidRecordError("where", shown(where), "must be a SQL condition")
    given: Any = () if order_by is None else _plain(order_by)
    if isinstance(given, ColumnElement):
        given = (given,)
    order = tuple(map(_plain, given)) if isinstance(given, (list, tuple)) else (None,)
    if not all(isinstance(each, ColumnElement) for each in order):
        raise InvalidRecordError("order_by", shown(order_by), "must be SQL expressions")
    return Choice(condition, order)


def _plain(given: Any) -> Any:
    """Return the column that an attribute of a mapped class stands for; all else as it is."""
    element = getattr(given, "__clause_element__", None)
    return element() if callable(element) and not isinstance(given, type) else given
