"""What stands in the place of a builder's arguments while it is prepared.

A builder is called once, with a parameter in the place of each value, and has to give what it gives
for any: what it asks of a value in Python would be answered for that parameter, once and for all.
"""

import dis
import inspect
from collections.abc import Callable, Collection, Iterator
from types import CodeType, NoneType
from typing import Any, Final, NoReturn, get_args, get_origin, get_type_hints

from sqlalchemy import BigInteger, BindParameter, Executable, LargeBinary, Text
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, ClauseElement
from sqlalchemy.sql.selectable import TypedReturnsRows
from sqlalchemy.sql.visitors import iterate
from sqlalchemy.types import TypeEngine

from lash_store._kernel.checks import shown
from lash_store._kernel.dialects import Listed
from lash_store._kernel.signals import is_from_handler
from lash_store.errors import LashStoreError, UnpreparableStatementError


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


_SAY_NOTHING: Final = frozenset({"NOP", "EXTENDED_ARG", "NOT_TAKEN"})


def _refuse(*_: object) -> NoReturn:
    raise TypeError("what an argument is, is not known where the statement is built")


class _Undecided(int):
    """A hash that equals nothing, and nothing else either: asking is what is refused."""

    __eq__ = __ne__ = _refuse
    __hash__ = int.__hash__


class Argument(BindParameter[Any]):
    """A parameter that is refused where its value is asked for in Python.

    SQLAlchemy answers ``==`` and ``in`` outside a statement by comparing hashes, so ``if state == "new"``
    would be false for all.
    """

    inherit_cache = True

    def __hash__(self) -> int:
        return _Undecided(id(self))

    __str__ = __format__ = _refuse

    def _with_binary_element_type(self, type_: Any) -> Any:
        # A key into JSON is given the class, which SQLAlchemy does not ask of a parameter that has a type.
        made = type_() if isinstance(type_, type) else type_
        return super()._with_binary_element_type(made)


def built(builder: Callable[..., ClauseElement], arguments: dict[str, Any]) -> ClauseElement:
    """Call a builder with what stands in the place of its arguments; UnpreparableStatementError if it can't be prepared."""
    asked = next(_asked(inspect.unwrap(builder), arguments), None)
    if asked is not None:
        why = f"it asks in Python what its argument {asked!r} is, and is built once for all values"
        raise _refusal(builder, why)
    try:
        construct = builder(**arguments)
    except (LashStoreError, RecursionError):
        raise  # the latter is the caller's, who has no frame left
    except Exception as error:
        if is_from_handler(error):
            raise  # it has nothing to do with the builder
        why = (
            "it is called once, with bind parameters in the place of its arguments, and raises "
            f"{type(error).__name__}: {error}"
        )
        raise _refusal(builder, why) from error
    if not isinstance(construct, Executable):
        raise _refusal(builder, f"it returns {shown(construct)}, which is no statement")
    refused = _why_not_prepared(construct, builder)
    if refused is not None:
        raise _refusal(builder, refused)
    return construct


def bound_arguments(builder: Callable[..., object]) -> dict[str, Argument]:
    """Return what stands in the place of a builder's arguments: a parameter ``p_<name>`` for each.

    Raises UnpreparableStatementError unless each is keyword-only and annotated as one value.
    """
    hints = _hints(builder)
    binds = {}
    for name, parameter in inspect.signature(builder).parameters.items():
        type_ = _TYPES.get(hints.get(name))
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise _refusal(builder, f"its argument {name!r} is not keyword-only")
        if type_ is None:
            why = "is no int, str or bytes (or None), nor a list of int or str"
            raise _refusal(builder, f"its argument {name!r} {why}")
        binds[name] = Argument(f"p_{name}", type_=type_())
    return binds


def construct_of(builder: Any) -> type[Any]:
    """Return the class of the construct that a builder is annotated to return; UnpreparableStatementError for none."""
    if not inspect.isroutine(builder):
        raise UnpreparableStatementError(f"{shown(builder)} can't be prepared: it is no function")
    # All of them are evaluated at the first use: there is a hundred of our own, and an import is quick.
    returns = _hints(builder, inspect.get_annotations).get("return")
    if isinstance(returns, str):
        returns = _hints(builder)["return"]
    if returns is None:
        raise _refusal(builder, "it is not annotated with what it returns")
    origin: Any = get_origin(returns)
    construct = returns if origin is None else origin
    if construct is Any:
        return TypedReturnsRows  # it may be
    if not isinstance(construct, type) or not issubclass(construct, ClauseElement):
        raise _refusal(
            builder, f"it is annotated to return {shown(returns)}, which is no statement"
        )
    return construct


def _why_not_prepared(construct: ClauseElement, builder: Callable[..., object]) -> str | None:
    """Say what of a statement would give other rows than the same builder gives when it is called."""
    described: Any = getattr(construct, "returning_column_descriptions", None)
    described = getattr(construct, "column_descriptions", ()) if described is None else described
    for each in described:
        if each.get("entity") is not None and each["expr"] is each["entity"]:
            return (
                f"it selects {each['name']} as a whole, and rows are plain tuples: name its columns"
            )
    hints = _hints(builder)
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


def _refusal(builder: object, why: str) -> UnpreparableStatementError:
    return UnpreparableStatementError(f"{name_of(builder)} can't be prepared: {why}")


def _hints(
    builder: Callable[..., object], read: Callable[[Any], dict[str, Any]] = get_type_hints
) -> dict[str, Any]:
    try:
        return read(builder)
    except Exception as error:
        if is_from_handler(error):
            raise
        why = (
            f"its annotations can't be read ({type(error).__name__}: {error}): what they name has to be "
            "there at run time, at the top of its module"
        )
        raise _refusal(builder, why) from error


def _asked(code: Any, names: Collection[str]) -> Iterator[str]:
    """Give each argument of which a builder's own code asks what nothing can refuse: ``is None``, ``in {…}``."""
    code = getattr(code, "__code__", code)
    if not isinstance(code, CodeType):
        return
    instructions = [each for each in dis.get_instructions(code) if each.opname not in _SAY_NOTHING]
    for one, *following in zip(instructions, instructions[1:], instructions[2:], strict=False):
        loads = (
            "LOAD_FAST" in one.opname or "LOAD_DEREF" in one.opname
        )  # the last of two, it may be
        if loads and _is_test(*following):
            last = one.argval[-1] if isinstance(one.argval, tuple) else one.argval
            if last in names:
                yield str(last)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _asked(inner, {*names} & {*inner.co_freevars})


def _is_test(first: dis.Instruction, second: dis.Instruction) -> bool:
    """Whether two instructions compare what was loaded before them with None or a set, for a jump or for a value."""
    if first.opname.startswith("POP_JUMP") and first.opname.endswith("_NONE"):
        return True
    if first.opname != "LOAD_CONST":
        return False
    is_none = first.argval is None and second.opname == "IS_OP"
    return is_none or (isinstance(first.argval, frozenset) and second.opname == "CONTAINS_OP")
