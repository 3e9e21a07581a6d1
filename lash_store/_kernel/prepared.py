"""A Core construct, compiled once, run on a bare DBAPI cursor.

Executing a construct through ``Connection.execute`` costs five to nine times a hand-written
``sqlite3`` call: every call looks up the compile cache, orders the parameters and builds a
result object. Here a *builder* (a function of keyword arguments that returns a construct) is
called once, with a ``bindparam`` in the place of each argument, and compiled once; what
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
from types import NoneType
from typing import (
    Any,
    Concatenate,
    Final,
    Generic,
    ParamSpec,
    TypeVar,
    TypeVarTuple,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from sqlalchemy import (
    BigInteger,
    BindParameter,
    CompoundSelect,
    LargeBinary,
    Select,
    Text,
    bindparam,
)
from sqlalchemy.sql import operators
from sqlalchemy.sql.dml import ReturningDelete, ReturningInsert, ReturningUpdate, UpdateBase
from sqlalchemy.sql.elements import BinaryExpression, ClauseElement
from sqlalchemy.sql.selectable import TypedReturnsRows
from sqlalchemy.sql.visitors import iterate
from sqlalchemy.types import TypeEngine

from lash_store._kernel.backend import Cursor, Driver
from lash_store._kernel.checks import shown
from lash_store._kernel.dialects import Listed
from lash_store._kernel.generated import CompiledStatement, driver_of
from lash_store._kernel.signals import is_from_handler
from lash_store.errors import CorruptRecordError, LashStoreError, UnpreparableStatementError

P = ParamSpec("P")
C_co = TypeVar("C_co", bound=ClauseElement, covariant=True)
U = TypeVar("U", bound=UpdateBase)
Row = TypeVar("Row", bound=tuple[Any, ...])
Ts = TypeVarTuple("Ts")


class _Integer(BigInteger):
    _isnull = True


class _Text(Text):
    _isnull = True


class _Bytes(LargeBinary):
    _isnull = True


_TYPES: Final[dict[object, type[TypeEngine[Any]]]] = {
    int: _Integer,
    int | None: _Integer,
    str: _Text,
    str | None: _Text,
    bytes: _Bytes,
    bytes | None: _Bytes,
    list[str]: Listed,
    list[int]: Listed,
}
"""The type of an argument, by its annotation: one value that a driver takes as it is.

To SQLAlchemy each counts as unknown where the argument is compared with a column or stored in
one, so that it takes the column's type there, with whatever that converts. Only where nothing
else gives it a type is it what the annotation says: a database may have to be told.
"""


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
            construct = _built(builder, arguments)
            why = _why_not_prepared(construct, builder)
            if why is not None:
                raise UnpreparableStatementError(f"{name_of(builder)} can't be prepared: {why}")
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


def _built(builder: Callable[..., ClauseElement], arguments: dict[str, Any]) -> ClauseElement:
    """Call a builder with what stands in the place of its arguments."""
    try:
        return builder(**arguments)
    except (LashStoreError, RecursionError):
        raise  # the latter is the caller's, who has no frame left
    except Exception as error:
        if is_from_handler(error):
            raise  # it has nothing to do with the builder
        raise UnpreparableStatementError(
            f"{name_of(builder)} can't be prepared: it is called once, with bind parameters in the place of "
            f"its arguments, and raises {type(error).__name__}: {error}"
        ) from error


def bound_arguments(builder: Callable[..., object]) -> dict[str, BindParameter[Any]]:
    """Return what stands in the place of a builder's arguments: a bindparam ``p_<name>`` for each.

    Raises UnpreparableStatementError unless each is keyword-only and annotated as one value.
    """
    hints = get_type_hints(builder)
    binds = {}
    for name, parameter in inspect.signature(builder).parameters.items():
        type_ = _TYPES.get(hints.get(name))
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            why = f"its argument {name!r} is not keyword-only"
        elif type_ is None:
            why = (
                f"its argument {name!r} is no int, str or bytes (or None), nor a list of int or str"
            )
        else:
            binds[name] = bindparam(f"p_{name}", type_=type_())
            continue
        raise UnpreparableStatementError(f"{name_of(builder)} can't be prepared: {why}")
    return binds


def _why_not_prepared(construct: ClauseElement, builder: Callable[..., object]) -> str | None:
    """Say what of a statement would give other rows than the same builder gives when it is called."""
    described: Any = getattr(construct, "returning_column_descriptions", None)
    described = getattr(construct, "column_descriptions", ()) if described is None else described
    for each in described:
        if each.get("entity") is not None and each["expr"] is each["entity"]:
            return (
                f"it selects {each['name']} as a whole, and rows are plain tuples: name its columns"
            )
    hints = get_type_hints(builder)
    may_be_none = {f"p_{name}": name for name, hint in hints.items() if NoneType in get_args(hint)}
    compared: set[str] = set()
    for each in iterate(construct) if may_be_none else ():
        if isinstance(each, BinaryExpression):
            sides = (each.left, each.right)
            names = {side.key for side in sides if isinstance(side, BindParameter)} & {*may_be_none}
            if each.operator in (operators.eq, operators.ne):
                compared |= names
            elif each.operator in (operators.is_, operators.is_not):  # it is seen to
                for name in names:
                    del may_be_none[name]
    for name in compared & {*may_be_none}:
        return (
            f"its argument {may_be_none[name]!r} may be None, and what is equal to NULL is nothing: "
            "compare it by is_not_distinct_from() or is_distinct_from()"
        )
    return None


def name_of(builder: Any) -> str:
    """Name a builder in messages and tracebacks."""
    return f"{builder.__module__}.{builder.__qualname__}"


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
    for a construct whose text or parameters are not fixed.
    """
    if isinstance(builder, Prepared):
        return builder
    annotations: dict[str, Any] | None = getattr(builder, "__annotations__", None)
    if annotations is None:
        raise UnpreparableStatementError(f"{shown(builder)} can't be prepared: it is no function")
    returns = annotations.get("return")
    if isinstance(returns, str):
        returns = get_type_hints(builder)["return"]
    if returns is None:
        raise UnpreparableStatementError(
            f"{name_of(builder)} can't be prepared: it is not annotated with what it returns"
        )
    construct = get_origin(returns) or returns
    kind = PreparedRows if issubclass(construct, TypedReturnsRows) else Prepared
    return kind(builder)
