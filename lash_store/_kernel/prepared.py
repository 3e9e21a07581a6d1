"""A Core construct, compiled once, run on a bare DBAPI cursor.

Executing a construct through ``Connection.execute`` costs five to nine times a hand-written
``sqlite3`` call: every call looks up the compile cache, orders the parameters and builds a
result object. Here a *builder* (a function of keyword arguments that returns a construct) is
called once, with a ``bindparam`` in the place of each argument, and compiled once; what
remains per call is a generated function of the same keyword arguments, whose body is one
``execute`` with a tuple::

    claim_lease = prepare(statements.claim_lease)
    row = claim_lease.one(dbapi_cursor, session_id=…, owner_id=…, …)

A builder that is to be prepared must treat its arguments as opaque values: it may compare
and insert them, but not compute or branch with them in Python. One whose SQL text depends on
its arguments (an expanding ``IN``) or whose parameters are not all its arguments is refused.

The cursor is used again and again, which saves making one per statement; every row is
fetched at once, so no statement is left open on it. Everything is compiled on first use, so
importing a store compiles nothing.
"""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import (
    Any,
    Concatenate,
    Final,
    Generic,
    ParamSpec,
    TypeVar,
    TypeVarTuple,
    cast,
    get_origin,
    get_type_hints,
    overload,
)

from sqlalchemy import BindParameter, Dialect, bindparam
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.selectable import TypedReturnsRows

from lash_store._kernel.connection import store_error
from lash_store._kernel.dialects import SQLITE
from lash_store.errors import UnpreparableStatementError

P = ParamSpec("P")
Row = TypeVar("Row", bound=tuple[Any, ...])
Ts = TypeVarTuple("Ts")

UNDOCUMENTED_ATTRIBUTES: Final = (
    "binds",
    "insert_prefetch",
    "literal_execute_params",
    "positional",
    "positiontup",
    "post_compile_params",
    "update_prefetch",
    "_result_columns",
)
"""What this module reads of a ``SQLCompiler`` beyond its documented interface; tested by name."""

_SCALARS: Final = (int, str, bytes, int | None, str | None, bytes | None)
"""What an argument of a builder may be: one value that the driver takes as it is."""

_RUN = """\
def run(cursor_, *, {names}):
    try:
        return cursor_.execute(SQL_, {values}).rowcount
    except Error as error:
        raise store_error(error, cursor_.connection) from error
"""
_ALL = """\
def all(cursor_, *, {names}):
    try:
        rows = cursor_.execute(SQL_, {values}).fetchall()
    except Error as error:
        raise store_error(error, cursor_.connection) from error
    return {rows}
"""
# Every row is fetched although one is wanted: a cursor_ left half-read would block COMMIT.
_ONE = """\
def one(cursor_, *, {names}):
    try:
        rows = cursor_.execute(SQL_, {values}).fetchall()
    except Error as error:
        raise store_error(error, cursor_.connection) from error
    if len(rows) > 1:
        raise TooManyRows(f"one() got {{len(rows)}} rows from: {{SQL_}}")
    return {row} if rows else None
"""
_BIND = """\
def bind(*, {names}):
    return {values}
"""


class Prepared(Generic[P]):
    """A statement that returns no rows, typed by its builder's own parameters."""

    def __init__(self, builder: Callable[..., ClauseElement], dialect: Dialect) -> None:
        self.builder = builder
        self.dialect = dialect

    @cached_property
    def construct(self) -> ClauseElement:
        """The builder's construct, with a bindparam ``p_<name>`` for each argument.

        They are untyped, so that each takes the type of what it is compared with or stored in.
        """
        return self.builder(**{name: bindparam(f"p_{name}") for name in self._arguments})

    @cached_property
    def compiled(self) -> SQLCompiler:
        """The construct, compiled for the dialect; UnpreparableStatementError if its text is not fixed."""
        # No parameters, as when it is executed without any: an INSERT names only what it is given.
        text: Any = self.construct.compile(dialect=self.dialect, column_keys=[])
        compiled = cast("SQLCompiler", text)
        if not compiled.positional:
            self._refuse(f"the {self.dialect.name} driver takes its parameters by name")
        if compiled.post_compile_params or compiled.literal_execute_params:
            self._refuse("its text depends on its parameters (an expanding IN, say)")
        if compiled.insert_prefetch or compiled.update_prefetch:
            self._refuse("a column default in Python would have to run first")
        return compiled

    @property
    def sql(self) -> str:
        """The text that the driver gets."""
        return str(self.compiled)

    @cached_property
    def run(self) -> Callable[Concatenate[sqlite3.Cursor, P], int]:
        """Execute once; return how many rows were changed."""
        function: Callable[Concatenate[sqlite3.Cursor, P], int] = self._generate("run", _RUN)
        return function

    @cached_property
    def bind(self) -> Callable[P, tuple[Any, ...]]:
        """Put the arguments of one execution in order, for :meth:`many`."""
        function: Callable[P, tuple[Any, ...]] = self._generate("bind", _BIND)
        return function

    def many(self, cursor: sqlite3.Cursor, rows: Iterable[tuple[Any, ...]]) -> int:
        """Execute once for each row that :attr:`bind` has ordered; return how many rows were changed."""
        try:
            return cursor.executemany(self.sql, rows).rowcount
        except sqlite3.Error as error:
            raise store_error(error, cursor.connection) from error

    def _generate(self, name: str, template: str) -> Any:
        """Compile the function `name` from `template`, over this statement's SQL and parameters."""
        if name == "run" and self.compiled._result_columns:  # noqa: SLF001 # reason: see UNDOCUMENTED_ATTRIBUTES
            self._refuse(
                "run() counts no rows of a statement that returns them: use one() or all()"
            )
        scope: dict[str, Any] = {
            "SQL_": self.sql,
            "Error": sqlite3.Error,
            "TooManyRows": UnpreparableStatementError,
            "store_error": store_error,
        }
        row = self._row_expression(scope)
        source = template.format(
            names=", ".join(self._arguments),
            values=self._values_expression(scope),
            row=row.format("rows[0]"),
            rows="rows" if row == "{0}" else f"[{row.format('row')} for row in rows]",
        )
        if not self._arguments:
            source = source.replace(", *, )", ")").replace("(*, )", "()")
        exec(compile(source, f"<prepared {self.builder.__qualname__}>", "exec"), scope)  # noqa: S102 # reason: the text is built here, from names that Python and SQLAlchemy have checked
        function = scope[name]
        function.__doc__ = self.builder.__doc__
        return function

    @cached_property
    def _arguments(self) -> tuple[str, ...]:
        hints = get_type_hints(self.builder)
        for name, parameter in inspect.signature(self.builder).parameters.items():
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                self._refuse(f"its argument {name!r} is not keyword-only")
            if hints.get(name) not in _SCALARS:
                self._refuse(f"its argument {name!r} is no int, str or bytes (or None)")
        return tuple(inspect.signature(self.builder).parameters)

    def _values_expression(self, scope: dict[str, Any]) -> str:
        """Write the tuple of parameters: arguments by name, constants by a name in `scope`."""
        order = self.compiled.positiontup or []
        unused = [name for name in self._arguments if f"p_{name}" not in order]
        if unused:
            self._refuse(f"its SQL does not use {', '.join(unused)}")
        arguments = {f"p_{name}": name for name in self._arguments}
        words = []
        for at, key in enumerate(order):
            word = arguments.get(key) or self._constant(key, at, scope)
            processor = (
                self.compiled.binds[key]
                .type.dialect_impl(self.dialect)
                .bind_processor(self.dialect)
            )
            if processor is not None:
                scope[f"bind_{at}"] = processor
                word = f"bind_{at}({word})"
            words.append(word)
        return f"({', '.join(words)}{',' if words else ''})"

    def _constant(self, key: str, at: int, scope: dict[str, Any]) -> str:
        parameter: BindParameter[Any] = self.compiled.binds[key]
        if parameter.required or parameter.callable is not None:
            self._refuse(f"its parameter {key!r} is neither an argument nor a constant")
        scope[f"constant_{at}"] = parameter.value
        return f"constant_{at}"

    def _row_expression(self, scope: dict[str, Any]) -> str:
        """Write how a driver's row becomes the construct's, with ``{0}`` for the row."""
        columns = self.compiled._result_columns or []  # noqa: SLF001 # reason: see UNDOCUMENTED_ATTRIBUTES
        words = []
        for at, column in enumerate(columns):
            processor = column.type.dialect_impl(self.dialect).result_processor(self.dialect, None)
            if processor is not None:
                scope[f"result_{at}"] = processor
            words.append(f"{{0}}[{at}]" if processor is None else f"result_{at}({{0}}[{at}])")
        if not any(word.startswith("result_") for word in words):
            return "{0}"
        return f"({', '.join(words)},)"

    def _refuse(self, why: str) -> None:
        raise UnpreparableStatementError(f"{self.builder.__qualname__} can't be prepared: {why}")


class PreparedRows(Prepared[P], Generic[P, Row]):
    """A statement that returns rows, typed by its builder's parameters and construct."""

    @cached_property
    def one(self) -> Callable[Concatenate[sqlite3.Cursor, P], Row | None]:
        """Execute once; return the row as a plain tuple, or None; more than one is an error."""
        function: Callable[Concatenate[sqlite3.Cursor, P], Row | None] = self._generate("one", _ONE)
        return function

    @cached_property
    def all(self) -> Callable[Concatenate[sqlite3.Cursor, P], list[Row]]:
        """Execute once; return every row as a plain tuple."""
        function: Callable[Concatenate[sqlite3.Cursor, P], list[Row]] = self._generate("all", _ALL)
        return function


@overload
def prepare(
    builder: Callable[P, TypedReturnsRows[*Ts]], dialect: Dialect = ...
) -> PreparedRows[P, tuple[*Ts]]: ...
@overload
def prepare(builder: Callable[P, UpdateBase], dialect: Dialect = ...) -> Prepared[P]: ...
def prepare(builder: Callable[..., Any], dialect: Dialect = SQLITE) -> Any:
    """Prepare the construct that `builder` returns; it is built and compiled on first use.

    The result takes the builder's own keyword arguments, after a DBAPI cursor, and is
    typed by the construct: ``one``, ``all`` and ``run`` once, ``many`` for a list of rows.
    """
    returns = get_type_hints(builder)["return"]
    construct = get_origin(returns) or returns
    return (PreparedRows if issubclass(construct, TypedReturnsRows) else Prepared)(builder, dialect)
