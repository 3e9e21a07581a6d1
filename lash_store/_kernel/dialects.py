"""Constructs that databases spell differently; no other file branches on a dialect's name.

The statements of the stores are ordinary Core constructs that compile for SQLite and for
PostgreSQL alike; what does not comes from here.
"""

import json
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final, Self, TypeAlias, TypeVar

from sqlalchemy import (
    INTEGER,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Dialect,
    Select,
    SQLColumnExpression,
    Table,
    Text,
    literal,
    literal_column,
    or_,
    true,
    type_coerce,
)
from sqlalchemy.dialects.sqlite import dml
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine, UserDefinedType

from lash_store._kernel.checks import shown
from lash_store.errors import InvalidRecordError


class _DoNothing(dml.OnConflictDoNothing):
    inherit_cache = True
    constraint_target = None
    """What PostgreSQL's compiler asks for beside all that SQLite's does."""


class _DoUpdate(dml.OnConflictDoUpdate):
    inherit_cache = True
    constraint_target = None


class UpsertInsert(dml.Insert):
    """``INSERT … ON CONFLICT``, one construct for both: PostgreSQL's own would load all of its drivers."""

    inherit_cache = True

    def on_conflict_do_nothing(self, index_elements: Any = None, index_where: Any = None) -> Self:
        """Leave the row that is there as it is."""
        return self.ext(_DoNothing(index_elements, index_where))

    def on_conflict_do_update(
        self,
        index_elements: Any = None,
        index_where: Any = None,
        set_: Any = None,
        where: Any = None,
    ) -> Self:
        """Change the row that is there."""
        return self.ext(_DoUpdate(index_elements, index_where, set_, where))


upsert_insert = UpsertInsert


def offered(fresh: UpsertInsert, *columns: Column[Any]) -> dict[Column[Any], Any]:
    """Return what DO UPDATE sets so that `columns` take what the new row would have had."""
    return {column: fresh.excluded[column.name] for column in columns}


_MEMBER: Final = re.compile(r"(?!\d+$)\w+", re.ASCII)

SelectT = TypeVar("SelectT", bound=Select[*tuple[Any, ...]])


def indexed_by(statement: SelectT, table: Table[Any], index: str) -> SelectT:
    """Hold SQLite to one index of `table`, whatever its statistics make it think.

    The stores' own connections obey; on a consumer's engine the hint is dropped, and the
    statement means the same.
    """
    return statement.with_hint(table, f"INDEXED BY {index}", "sqlite")


def by_primary_key(statement: SelectT, table: Table[Any]) -> SelectT:
    """Hold SQLite to the primary key of `table`: for a range of it, whatever else is compared."""
    return statement.with_hint(table, "NOT INDEXED", "sqlite")


def nullable(argument: int | str | None) -> ColumnElement[Any]:
    """Return an argument as SQL, where it may be None: Python must not look at it.

    It may be a bindparam, whose value nobody knows yet; None itself SQL compares as NULL.
    """
    given: Any = argument
    return given if isinstance(given, ColumnElement) else literal(given)


def is_null_or(
    argument: int | str | None,
    condition: Callable[[ColumnElement[Any]], ColumnElement[bool]],
    *or_else: ColumnElement[bool],
) -> ColumnElement[bool]:
    """A condition on `argument` that holds if it is NULL: for filters that may be left out."""
    if argument is None:
        return true()  # not asked of the database: a server can't tell the type of a bare NULL
    value = nullable(argument)
    is_left_out: list[ColumnElement[bool]] = (
        [value.is_(None)] if isinstance(argument, ColumnElement) else []
    )
    return or_(*is_left_out, condition(value), *or_else)


class JsonText(FunctionElement[str]):
    """The text of a member of a JSON object that is stored in a TEXT column, or NULL."""

    inherit_cache = True
    type = Text()

    def __init__(
        self, column: SQLColumnExpression[str] | SQLColumnExpression[str | None], *path: str
    ) -> None:
        super().__init__(column, *_steps(path))


class WholeJsonText(JsonText):
    """The same of a text that may have a NUL in it, by U+FFFD for that: SQLite reads one up to it only."""

    inherit_cache = True


class IsJsonString(FunctionElement[bool]):
    """Whether a member of a JSON object that is stored in a TEXT column is a text, or NULL."""

    inherit_cache = True
    type = Boolean()

    def __init__(self, column: ColumnElement[str], *path: str) -> None:
        super().__init__(column, *_steps(path))


class HoldableJson(FunctionElement[str]):
    """A JSON text as :class:`JsonText` gives what is the same in a column, to be compared with that."""

    inherit_cache = True
    type = Text()


def _steps(path: Sequence[str]) -> list[ColumnElement[str]]:
    for name in path:  # they stand in the text
        if not isinstance(name, str) or not _MEMBER.fullmatch(name):
            raise InvalidRecordError(
                "path",
                shown(name),
                "must be names of letters, digits, _, not of digits alone, which an array has too",
            )
    return [literal_column(f"'{name}'", Text()) for name in path]


class Listed(UserDefinedType[list[Any]]):
    """A list of int or str as one parameter, for :class:`IsOneOf`."""

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        """Check the list, and write it as the database takes it."""

        def process(values: Any) -> Any:
            kinds = {type(each) for each in values} if isinstance(values, (list, tuple)) else {None}
            if kinds not in (set(), {int}, {str}):
                raise InvalidRecordError("values", shown(values), "must be a list of int or of str")
            if kinds == {str} and any("\0" in each for each in values):
                raise InvalidRecordError("values", shown(values), "must hold no NUL")
            return json.dumps(values) if dialect.name == "sqlite" else list(values)

        return process

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:
        """Write the list where a statement is to hold its values, for ``literal_binds``."""
        bind = self.bind_processor(dialect)

        def process(values: Any) -> str:
            given = bind(values)
            if isinstance(given, str):
                return quoted(given)
            if not given:
                return quoted("{}")  # of what type it is to be, the column says
            kind = "bigint" if isinstance(given[0], int) else "text"
            items = (str(each) if isinstance(each, int) else quoted(each) for each in given)
            return f"ARRAY[{', '.join(items)}]::{kind}[]"

        def quoted(value: str) -> str:
            written: str = as_text(value)
            return written

        as_text: Any = Text().dialect_impl(dialect).literal_processor(dialect)
        return process


class IsOneOf(FunctionElement[bool]):
    """Whether a column is one of the values of a list that is a parameter."""

    inherit_cache = True
    type = Boolean()

    def self_group(self, against: Any = None) -> Any:  # noqa: ARG002 # reason: SQLAlchemy's signature
        """Stand as it is, in the parentheses that it has: compared with 1, SQLite looks it up by no index."""
        return self


OneOf: TypeAlias = (
    SQLColumnExpression[str]
    | SQLColumnExpression[int]
    | SQLColumnExpression[str | None]
    | SQLColumnExpression[int | None]
)
"""A column or an expression, of a mapped class too."""


def holds_big_numbers(kind: TypeEngine[Any]) -> bool:
    """Whether a column of a type of integers holds 64 bits on a server too; in SQLite each does.

    Of INTEGER, as it is reflected, only its database could say.
    """
    if isinstance(kind, (BigInteger, INTEGER)):
        return True
    on_server = import_module("sqlalchemy.dialects.postgresql").dialect()
    return isinstance(kind.dialect_impl(on_server), BigInteger)


def is_one_of(column: OneOf, values: Sequence[str] | Sequence[int]) -> ColumnElement[bool]:
    """Return the condition that `column` is one of `values`, a list of str or of int.

    One parameter, whatever the length of the list, so that the statement can be prepared.
    InvalidRecordError, when it is executed, for a list of anything else.
    """
    given: Any = values  # or what SQLAlchemy has in the place of a value, in its lambdas say
    return IsOneOf(column, type_coerce(given, Listed()))


@compiles(IsOneOf)
def _is_one_of(element: IsOneOf, compiler: SQLCompiler, **kw: Any) -> str:
    column, values = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({column} = ANY ({values}))"


@compiles(IsOneOf, "sqlite")
def _is_one_of_on_sqlite(element: IsOneOf, compiler: SQLCompiler, **kw: Any) -> str:
    column, values = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({column} IN (SELECT value FROM json_each({values})))"  # noqa: S608 # reason: compiled parts


class OnOneRow(FunctionElement[bool]):
    """A condition, one of those of a WHERE, that SQLite is told to expect of one row in a million.

    With statistics it goes by what is usual: it takes a step of a recursion to have a million rows,
    and reads the whole of a table into a Bloom filter to save look-ups that are never made; where
    most rows have one value, it reads all for the few that have another. So it is told which
    condition to go by. For other databases this is the condition itself.
    """

    inherit_cache = True
    type = Boolean()

    def __init__(self, condition: ColumnElement[bool]) -> None:
        super().__init__(condition.self_group(against=operators.and_))

    def self_group(self, against: Any = None) -> Any:  # noqa: ARG002 # reason: SQLAlchemy's signature
        """Stand as it is: compared with 1, as booleans are for SQLite, it would tell nothing."""
        return self


@compiles(OnOneRow)
def _on_one_row(element: OnOneRow, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


@compiles(OnOneRow, "sqlite")
def _on_one_row_on_sqlite(element: OnOneRow, compiler: SQLCompiler, **kw: Any) -> str:
    # unlikely() is one in sixteen: too little for a table of fewer than 65,536 rows.
    return f"likelihood({compiler.process(element.clauses, **kw)}, 0.000001)"


class IsNoJson(FunctionElement[bool]):
    """Whether a text is no JSON: a condition on its members lets such a row through, to be seen."""

    inherit_cache = True
    type = Boolean()


@compiles(IsNoJson)
def _is_no_json(element: IsNoJson, compiler: SQLCompiler, **kw: Any) -> str:
    return f"NOT pg_input_is_valid({compiler.process(element.clauses, **kw)}, 'json')"


@compiles(IsNoJson, "sqlite")
def _is_no_json_on_sqlite(element: IsNoJson, compiler: SQLCompiler, **kw: Any) -> str:
    return f"NOT json_valid({compiler.process(element.clauses, **kw)})"


@compiles(JsonText)
def _json_text(element: JsonText, compiler: SQLCompiler, **kw: Any) -> str:
    return _of_member(element, compiler, "json_extract_path_text({}, {})", **kw)


@compiles(HoldableJson)
def _holdable_json(element: HoldableJson, compiler: SQLCompiler, **kw: Any) -> str:
    return _holdable(compiler.process(element.clauses, **kw))


@compiles(HoldableJson, "sqlite")
def _holdable_json_on_sqlite(element: HoldableJson, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


@compiles(IsJsonString)
def _is_json_string(element: IsJsonString, compiler: SQLCompiler, **kw: Any) -> str:
    return _of_member(element, compiler, "json_typeof(json_extract_path({}, {})) = 'string'", **kw)


def _of_member(
    element: JsonText | IsJsonString, compiler: SQLCompiler, expression: str, **kw: Any
) -> str:
    column, *path = (compiler.process(clause, **kw) for clause in element.clauses)
    names = ", ".join(path)
    # Text that is no JSON has no member, and a cast of it would end the transaction. So would what no
    # text can hold, in whatever member, and JSONB can't: a NUL, half a surrogate pair. The member is
    # taken from JSON, not JSONB, by which an object is told as it is written.
    plain = _holdable(column)
    return (
        f"CASE WHEN pg_input_is_valid({column}, 'jsonb') "
        f"THEN {expression.format(f'CAST({column} AS JSON)', names)} "
        f"WHEN pg_input_is_valid({column}, 'json') "
        f"THEN {expression.format(f'CAST({plain} AS JSON)', names)} END"
    )


def _holdable(json: str) -> str:
    r"""Return JSON with U+FFFD for what no text can hold; ``\\u0000`` is a backslash and more, and stays."""
    return rf"regexp_replace({json}, '{_UNHOLDABLE}', '\1\\ufffd', 'g')"


_UNHOLDABLE: Final = r"(?<!\\)((?:\\\\)*)\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F][0-9a-fA-F])"


@compiles(JsonText, "sqlite")
def _json_text_on_sqlite(element: JsonText, compiler: SQLCompiler, **kw: Any) -> str:
    # json_extract(), which is older than the arrow operators (SQLite 3.38).
    return _of_member_on_sqlite(element, compiler, "json_extract({column}, '$.{member}')", **kw)


@compiles(WholeJsonText, "sqlite")
def _whole_json_text_on_sqlite(element: WholeJsonText, compiler: SQLCompiler, **kw: Any) -> str:
    return _of_member_on_sqlite(element, compiler, "json_extract({whole}, '$.{member}')", **kw)


@compiles(IsJsonString, "sqlite")
def _is_json_string_on_sqlite(element: IsJsonString, compiler: SQLCompiler, **kw: Any) -> str:
    return _of_member_on_sqlite(
        element, compiler, "json_type({column}, '$.{member}') = 'text'", **kw
    )


def _of_member_on_sqlite(
    element: JsonText | IsJsonString, compiler: SQLCompiler, expression: str, **kw: Any
) -> str:
    column, *path = (compiler.process(clause, **kw) for clause in element.clauses)
    member = ".".join(name.strip("'") for name in path)
    # Text that is no JSON has no member; whoever reads the row says that it is corrupt.
    # A backslash that is one by itself is set aside, by what stands in no JSON: what follows it is text.
    plain = f"replace(replace(replace({column}, '\\\\', char(1)), '\\u0000', '\\ufffd'), char(1), '\\\\')"
    whole = f"CASE WHEN instr({column}, '\\u0000') THEN {plain} ELSE {column} END"
    found = expression.format(column=column, member=member, whole=whole)
    return f"CASE WHEN json_valid({column}) THEN {found} END"
