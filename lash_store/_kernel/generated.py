"""The functions behind prepared statements: generated for one driver, with a source to read.

What runs per call is a function of the builder's own keyword arguments whose body is one
``execute`` with a tuple. Its text is registered with ``linecache``, so tracebacks and
``inspect.getsource`` show it.
"""

import linecache
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NoReturn, cast

from sqlalchemy import BindParameter, Float, LargeBinary, Numeric, Table, UniqueConstraint
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement

from lash_store._kernel.backend import Driver
from lash_store._kernel.checks import SECONDS, check_time, shown
from lash_store._kernel.sharing import SCOPE
from lash_store.errors import InvalidRecordError, ScopeError, UnpreparableStatementError

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

_HEAD: Final = """\
def {name}(cursor_, *, {names}):
    try:
        is_here_ = cursor_.driver is driver_
    except AttributeError:
        is_here_ = driver_of_(cursor_) is driver_
    if not is_here_:
        return elsewhere_(cursor_, {keywords})
{checks}"""
_CHECK: Final = """\
    if type({name}) is int and {name} in seconds_:
        check_time_("{name}", {name})
"""
_TIME: Final = "now_ms"
"""The argument that says until when what is claimed is live: as a construct it is looked at as it is given."""

_BODIES: Final = {
    "run": """\
    try:
        return cursor_.execute(SQL_, {values}).rowcount
    except Error_ as error_:
        raise explain_(error_, cursor_, statement_, {values}) from error_
""",
    "later": """\
    try:
        cursor_.later(SQL_, {values})
    except Error_ as error_:
        raise explain_(error_, cursor_, statement_, {values}) from error_
""",
    "ask": """\
    try:
        answer_ = cursor_.ask(SQL_, {values})
    except Error_ as error_:
        raise explain_(error_, cursor_, statement_, {values}) from error_
    return {answer}
""",
    "all": """\
    try:
        rows_ = cursor_.execute(SQL_, {values}).fetchall()
    except Error_ as error_:
        raise explain_(error_, cursor_, statement_, {values}) from error_
    return {rows}
""",
    # Every row is fetched although one is wanted: a cursor left half-read would block COMMIT.
    "one": """\
    try:
        rows_ = cursor_.execute(SQL_, {values}).fetchall()
    except Error_ as error_:
        raise explain_(error_, cursor_, statement_, {values}) from error_
    if len(rows_) > 1:
        raise TooManyRows_(f"one() got {{len(rows_)}} rows from: {{SQL_}}")
    return {row} if rows_ else None
""",
    "bind": """\
    return {values}
""",
}


def define(name: str, source: str, scope: dict[str, Any], *, filename: str, doc: str | None) -> Any:
    """Define the function `name` by its text, which tracebacks and ``inspect`` then show."""
    exec(compile(source, filename, "exec"), scope)  # noqa: S102 # reason: the text is built here, from names that Python has checked
    # Without a time of change, which is what keeps linecache from looking for a file.
    lines = source.splitlines(keepends=True)
    linecache.cache[filename] = (len(source), None, lines, filename)
    function = scope[name]
    function.__doc__ = doc
    return function


def driver_of(cursor: Any) -> Driver:
    """Return what statements are prepared for; InvalidRecordError for what is no cursor of a Tx's."""
    driver: Driver | None = getattr(cursor, "driver", None)
    if driver is None:
        raise InvalidRecordError("cursor", shown(cursor), "must be a Tx's: tx.cursor")
    return driver


class CompiledStatement:
    """A construct with a bindparam ``p_<name>`` for each argument, compiled for one driver."""

    def __init__(
        self,
        name: str,
        construct: ClauseElement,
        arguments: Iterable[str],
        defaults: Mapping[str, Any],
        driver: Driver,
    ) -> None:
        self.name = name
        self.driver = driver
        self._construct = construct
        self._defaults = defaults
        self._arguments = {f"p_{argument}": argument for argument in arguments}

    @cached_property
    def compiled(self) -> SQLCompiler:
        """SQLAlchemy's own result; UnpreparableStatementError if its text is not fixed."""
        # No parameters, as when it is executed without any: an INSERT names only what it is given.
        try:
            text: Any = self._construct.compile(dialect=self.driver.dialect, column_keys=[])
        except (
            TypeError,
            AttributeError,
        ) as error:  # of a type that does not know what to make of it
            self._refuse(f"compiling it raises {type(error).__name__}: {error}")
        compiled = cast("SQLCompiler", text)
        if not compiled.positional:
            self._refuse(f"the {self.driver.dialect.name} driver takes its parameters by name")
        if compiled.post_compile_params or compiled.literal_execute_params:
            self._refuse("its text depends on its parameters (an expanding IN, say)")
        if compiled.insert_prefetch or compiled.update_prefetch:
            self._refuse("a column default in Python would have to run first")
        return compiled

    @cached_property
    def sql(self) -> str:
        """The text that the driver gets."""
        return str(self.compiled)

    def function(self, name: str, elsewhere: Callable[..., Any], doc: str | None) -> Any:
        """Generate ``run``, ``later``, ``one``, ``all``, ``ask`` or ``bind``; `elsewhere` serves another driver's cursor."""
        if name in ("run", "later") and self._result_columns:
            self._refuse(
                f"{name}() counts no rows of a statement that returns them: use one() or all()"
            )
        scope: dict[str, Any] = {
            "SQL_": self.sql,
            "Error_": self.driver.error,
            "TooManyRows_": UnpreparableStatementError,
            "driver_": self.driver,
            "elsewhere_": elsewhere,
            "explain_": self.driver.explain,
            "statement_": self,
            "check_time_": check_time,
            "driver_of_": driver_of,
            "seconds_": SECONDS,
            **{f"default_{name}_": value for name, value in self._defaults.items()},
        }
        names = list(self._arguments.values())
        row = self._row_expression(scope)
        source = (_HEAD + _BODIES[name]).format(
            name=name,
            names=", ".join(
                f"{each}=default_{each}_" if each in self._defaults else each for each in names
            ),
            keywords=", ".join(f"{each}={each}" for each in names),
            checks=_CHECK.format(name=_TIME) if _TIME in names else "",
            values=self._values_expression(scope),
            row=row.format("rows_[0]"),
            answer="answer_"
            if row == "{0}"
            else f"lambda: [{row.format('row_')} for row_ in answer_()]",
            rows="rows_" if row == "{0}" else f"[{row.format('row_')} for row_ in rows_]",
        )
        own = {
            *scope,
            "cursor_",
            "error_",
            "row_",
            "rows_",
            "answer_",
            "len",
            "type",
            "int",
            "is_here_",
        }
        if clash := own.intersection(names):
            self._refuse(
                f"its argument {min(clash)} is called as what runs it calls something itself"
            )
        if not names:
            source = source.replace(", *, )", ")")
        filename = f"<prepared {self.name}.{name} for {self.driver.dialect.name}>"
        return define(name, source, scope, filename=filename, doc=doc)

    def _values_expression(self, scope: dict[str, Any]) -> str:
        """Write the tuple of parameters: arguments by name, constants by a name in `scope`."""
        order = self.compiled.positiontup or []
        unused = [name for key, name in self._arguments.items() if key not in order]
        if unused:
            self._refuse(f"its SQL does not use {', '.join(unused)}")
        words = []
        dialect = self.driver.dialect
        for at, key in enumerate(order):
            word = self._arguments.get(key) or self._constant(key, at, scope)
            type_ = self.compiled.binds[key].type.dialect_impl(dialect)
            processor = type_.bind_processor(dialect)
            if processor is not None:
                scope[f"bind_{at}_"] = processor
                word = f"bind_{at}_({word})"
            words.append(word)
        return f"({', '.join(words)}{',' if words else ''})"

    def _constant(self, key: str, at: int, scope: dict[str, Any]) -> str:
        if key == SCOPE.key:
            scope["unscoped_"] = _unscoped
            return "(cursor_.scope or unscoped_())"
        parameter: BindParameter[Any] = self.compiled.binds[key]
        if parameter.required or parameter.callable is not None:
            self._refuse(f"its parameter {key!r} is neither an argument nor a constant")
        scope[f"constant_{at}_"] = parameter.value
        return f"constant_{at}_"

    @property
    def _result_columns(self) -> Sequence[Any]:
        return self.compiled._result_columns or []  # noqa: SLF001 # reason: see UNDOCUMENTED_ATTRIBUTES

    def _result_processor(self, column_type: Any) -> Callable[[Any], Any] | None:
        """Return what makes a value of what a driver gives; by its type, where that is told by the server alone."""
        dialect, of_types = self.driver.dialect, self.driver.number_types
        type_ = column_type.dialect_impl(dialect)
        processor_of: Callable[[Any, int | None], Any] = type_.result_processor
        if not (of_types and isinstance(type_, (Numeric, Float))):
            found: Callable[[Any], Any] | None = processor_of(dialect, None)
            return found
        by_type = {each: processor_of(dialect, code) for each, code in of_types.items()}

        def processed(value: Any) -> Any:
            processor = by_type.get(type(value))
            return value if processor is None else processor(value)

        return processed

    def _row_expression(self, scope: dict[str, Any]) -> str:
        """Write how a driver's row becomes the construct's, with ``{0}`` for the row."""
        words = []
        for at, column in enumerate(self._result_columns):
            processor = self._result_processor(column.type)
            if processor is not None:
                scope[f"result_{at}_"] = processor
            words.append(f"{{0}}[{at}]" if processor is None else f"result_{at}_({{0}}[{at}])")
        if not any(word.startswith("result_") for word in words):
            return "{0}"
        return f"({', '.join(words)},)"

    # What an error of it is explained by.

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        compiled = self.compiled
        return compiled.isinsert or compiled.isupdate or compiled.isdelete

    def column(self, which: int | str) -> tuple[str, str]:
        """Return the table and the name of a column of its rows, by place or by name."""
        for at, each in enumerate(self._result_columns):
            if which in (at, each.keyname):
                column = _declared(each)
                return ("?", str(which)) if column is None else (column.table.name, column.name)
        return "?", str(which)

    def is_text(self, at: int) -> bool:
        """Whether a column of its rows is text."""
        return not isinstance(self._result_columns[at].type, LargeBinary)

    def key_of(self, row: Sequence[Any] | None, values: Sequence[Any]) -> str:
        """Return the key of what it reads, of one of its rows or by its arguments; "?" if unknown."""
        known = {
            self._arguments.get(key): value
            for key, value in zip(self.compiled.positiontup or (), values, strict=False)
        }
        columns = [_declared(each) for each in self._result_columns]
        tables = dict.fromkeys(column.table for column in columns if column is not None)
        if row is not None:
            named = zip(columns, row, strict=True)
            known.update({column.name: value for column, value in named if column is not None})
        candidates = [names for table in tables for names in _keys_of(table)]
        # The first that is known in full; else of the first what is known.
        known_best = sorted(candidates, key=lambda names: not known.keys() >= set(names))
        best = [_shown(known[name]) for name in (known_best or [[]])[0] if name in known]
        return ":".join(best) or "?"

    def _refuse(self, why: str) -> NoReturn:
        raise UnpreparableStatementError(f"{self.name} can't be prepared: {why}")


def _unscoped() -> NoReturn:
    """Refuse: nobody has said whose rows it is about."""
    raise ScopeError("this transaction")


def _keys_of(table: Table[Any]) -> list[list[str]]:
    """Return what identifies a row: what is said to be unique first, which says more than a number."""
    unique = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
    return [[column.name for column in key.columns] for key in (*unique, table.primary_key)]


def _shown(value: object) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _declared(result: Any) -> Any:
    """Return the column of a table that a column of a statement's rows is; None if it is none."""
    for each in result.objects:
        for column in getattr(each, "base_columns", ()):
            if isinstance(getattr(column, "table", None), Table):
                return column
    return None
