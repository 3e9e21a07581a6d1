"""A Core construct, compiled once, run on a bare DBAPI cursor.

Executing a construct through ``Connection.execute`` costs five to nine times a hand-written
``sqlite3`` call: every call looks up the compile cache, orders the parameters and builds a
result object. Here a *builder* (a function of keyword arguments that returns a construct) is
called once, with a parameter in the place of each argument (``arguments``), and compiled once; what
remains per call is a generated function of the same keyword arguments::

    @prepare
    def find_thing(*, thing_id: int) -> Select[str]:
        return select(things.c.name).where(things.c.id == thing_id)

    find_thing(thing_id=7)                  # the construct, to compose
    find_thing.one(tx.cursor, thing_id=7)   # its row, or None

An argument may be a list of str or int, for ``is_one_of(column, values)``: one parameter, whatever
its length. A builder that is to be prepared must treat its arguments as opaque values: it may compare
and insert them, but not compute or branch with them in Python. One whose SQL text depends on
its arguments (an expanding ``IN``) or whose parameters are not all its arguments is refused.

The cursor says which driver's it is, so one prepared statement serves every database. It is
used again and again, which saves making one per statement; every row is fetched at once, so
no statement is left open on it. Everything is compiled on first use, so importing a store
compiles nothing.
"""

import inspect
from collections.abc import Callable, Iterable
from functools import cached_property, update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, TypeVarTuple, overload

from sqlalchemy import CompoundSelect, Select
from sqlalchemy.sql.dml import ReturningDelete, ReturningInsert, ReturningUpdate, UpdateBase
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.selectable import TypedReturnsRows

from lash_store._kernel.arguments import bound_arguments, built, construct_of, name_of
from lash_store._kernel.backend import Cursor, Driver
from lash_store._kernel.generated import CompiledStatement, driver_of
from lash_store.errors import CorruptRecordError

P = ParamSpec("P")
C_co = TypeVar("C_co", bound=ClauseElement, covariant=True)
U = TypeVar("U", bound=UpdateBase)
Row = TypeVar("Row", bound=tuple[Any, ...])
Ts = TypeVarTuple("Ts")


class Prepared(Generic[P, C_co]):
    """A builder of statements that return no rows: callable as it is, and prepared to be run."""

    def __init__(self, builder: Callable[P, C_co]) -> None:
        update_wrapper(self, builder)
        self.builder = builder
        self._compiled: dict[Driver, CompiledStatement] = {}
        self._functions: dict[tuple[Driver, str], Callable[..., Any]] = {}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C_co:
        """Build the construct, to compose or to execute on a SQLAlchemy Connection."""
        return self.builder(*args, **kwargs)

    @cached_property
    def run(self) -> Callable[Concatenate[Cursor, P], int]:
        """Execute once; return how many rows were changed."""
        function: Callable[Concatenate[Cursor, P], int] = self._on_first_use("run")
        return function

    @cached_property
    def later(self) -> Callable[Concatenate[Cursor, P], None]:
        """Execute once, before the next statement of the transaction, without waiting for an answer.

        For what nobody counts. Behind a wire an error of it comes with that next statement, which may
        be COMMIT: it ends the transaction all the same.
        """
        function: Callable[Concatenate[Cursor, P], None] = self._on_first_use("later")
        return function

    @cached_property
    def bind(self) -> Callable[Concatenate[Cursor, P], tuple[Any, ...]]:
        """Put the arguments of one execution in order, for :meth:`many` on the same cursor."""
        function: Callable[Concatenate[Cursor, P], tuple[Any, ...]] = self._on_first_use("bind")
        return function

    def many(self, cursor: Cursor, rows: Iterable[tuple[Any, ...]]) -> int:
        """Execute once for each row that :attr:`bind` has ordered; return how many rows were changed."""
        driver = driver_of(cursor)
        try:
            cursor.executemany(self.compiled_for(driver).sql, rows)
        except driver.error as error:
            raise driver.explain(error, cursor) from error
        return cursor.rowcount

    def later_many(self, cursor: Cursor, rows: Iterable[tuple[Any, ...]]) -> None:
        """Execute once for each row that :attr:`bind` has ordered, as :attr:`later` does."""
        driver = driver_of(cursor)
        try:
            cursor.later_many(self.compiled_for(driver).sql, rows)
        except driver.error as error:
            raise driver.explain(error, cursor) from error

    def compiled_for(self, driver: Driver) -> CompiledStatement:
        """Compile for a driver, once; UnpreparableStatementError if that can't be done."""
        compiled = self._compiled.get(driver)
        if compiled is None:
            builder: Callable[..., ClauseElement] = self.builder
            arguments = bound_arguments(builder)
            defaults = {
                name: parameter.default
                for name, parameter in inspect.signature(builder).parameters.items()
                if parameter.default is not parameter.empty
            }
            construct = built(builder, arguments)
            compiled = CompiledStatement(name_of(builder), construct, arguments, defaults, driver)
            self._compiled[driver] = compiled
        return compiled

    def _on_first_use(self, name: str) -> Any:
        """Return what generates the function `name` for the first driver that asks, and then steps aside."""

        def first(cursor: Cursor, /, **arguments: Any) -> Any:
            function = self.__dict__[name] = self._function(driver_of(cursor), name)
            return function(cursor, **arguments)

        return first

    def _function(self, driver: Driver, name: str) -> Callable[..., Any]:
        key = (driver, name)
        if key not in self._functions:
            self._functions[key] = self.compiled_for(driver).function(
                name,
                lambda cursor, **given: self._function(cursor.driver, name)(cursor, **given),
                self.__doc__,
            )
        return self._functions[key]


class PreparedRows(Prepared[P, C_co], Generic[P, C_co, Row]):
    """A builder of statements that return rows, typed by its parameters and construct."""

    @cached_property
    def one(self) -> Callable[Concatenate[Cursor, P], Row | None]:
        """Execute once; return the row as a plain tuple, or None; more than one is an error."""
        function: Callable[Concatenate[Cursor, P], Row | None] = self._on_first_use("one")
        return function

    @cached_property
    def all(self) -> Callable[Concatenate[Cursor, P], list[Row]]:
        """Execute once; return every row as a plain tuple."""
        function: Callable[Concatenate[Cursor, P], list[Row]] = self._on_first_use("all")
        return function

    def all_leniently(self, cursor: Cursor, /, *args: P.args, **kwargs: P.kwargs) -> list[Row]:
        """Execute; return every row, those too with text that is no UTF-8, which reading them tells."""
        try:
            return self.all(cursor, *args, **kwargs)
        except CorruptRecordError:
            with driver_of(cursor).leniently(cursor):
                return self.all(cursor, *args, **kwargs)

    @cached_property
    def ask(self) -> Callable[Concatenate[Cursor, P], Callable[[], list[Row]]]:
        """Execute once, by the next statement of the transaction; return what gives every row."""
        function: Callable[Concatenate[Cursor, P], Callable[[], list[Row]]] = self._on_first_use(
            "ask"
        )
        return function


@overload
def prepare(
    builder: Callable[P, Select[*Ts]],
) -> PreparedRows[P, Select[*Ts], tuple[*Ts]]: ...
@overload
def prepare(
    builder: Callable[P, CompoundSelect[*Ts]],
) -> PreparedRows[P, CompoundSelect[*Ts], tuple[*Ts]]: ...
@overload
def prepare(
    builder: Callable[P, ReturningInsert[*Ts]],
) -> PreparedRows[P, ReturningInsert[*Ts], tuple[*Ts]]: ...
@overload
def prepare(
    builder: Callable[P, ReturningUpdate[*Ts]],
) -> PreparedRows[P, ReturningUpdate[*Ts], tuple[*Ts]]: ...
@overload
def prepare(
    builder: Callable[P, ReturningDelete[*Ts]],
) -> PreparedRows[P, ReturningDelete[*Ts], tuple[*Ts]]: ...
@overload
def prepare(builder: Callable[P, U]) -> Prepared[P, U]: ...
def prepare(builder: Callable[..., Any]) -> Any:
    """Prepare what `builder` returns, as a decorator or a function; compiled on first use.

    The result is callable as the builder is. Its ``one``, ``all`` and ``run`` take the builder's
    own keyword arguments, after a Tx's ``cursor``, and are typed by the construct; ``many`` takes
    a list of rows that ``bind`` has ordered. Raises UnpreparableStatementError, at the first use,
    for a construct whose text or parameters are not fixed, and for a builder that asks what an
    argument is; at once for one that is not annotated with the construct that it returns.
    """
    if isinstance(builder, Prepared):
        return builder
    kind = PreparedRows if issubclass(construct_of(builder), TypedReturnsRows) else Prepared
    return kind(builder)
