"""JSON, MessagePack and stable hashes, as the wire has them.

Free-form JSON that a consumer passes in goes through :func:`free_json` once, before anything
is written: it refuses what can't be stored faithfully, and gives the value its one written
form (object keys sorted, floats in shortest form with a signed exponent), so that equal
values have equal hashes in any program.
"""

import hashlib
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from decimal import Decimal
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from typing_extensions import TypeAliasType

from lash_store._kernel.checks import shown
from lash_store.errors import CorruptRecordError, InvalidRecordError

T = TypeVar("T")

Json = TypeAliasType(
    "Json", "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
)
"""A consumer's own JSON value: sequences of any type are arrays, bytes arrays of integers, mappings
objects, and subclasses of int, float and str what they are."""

_SMALLEST_INT: Final = -(2**63)
_LARGEST_INT: Final = 2**64 - 1
_PLAIN_FROM: Final = 1e-5
_PLAIN_BELOW: Final = 1e16

DEEPEST: Final = 100
"""How many levels of arrays and objects a consumer's value may have: the original reads 127, of
which a record takes some."""


class TooDeepError(msgspec.DecodeError):
    """A value itself is nested too deep to be read, on whatever stack."""


def on_any_stack(function: Callable[[Any], T]) -> Callable[[Any], T]:
    """Make of an encoder or a decoder one that may be called however deep its caller stands.

    The interpreter counts its caller's frames as well, and what stands in a store must not look
    corrupt because of them. So what does not fit there is done once more, on a stack of its own: what
    does not fit there either is a TooDeepError. A RecursionError is the caller's, who has no frame left.
    """

    def anywhere(given: Any) -> T:
        try:
            return function(given)
        except RecursionError:
            return _on_a_new_stack(function, given)

    return anywhere


def _on_a_new_stack(function: Callable[[Any], T], given: Any) -> T:
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(function(given))
        except RecursionError as error:
            result.set_exception(TooDeepError(str(error)))
        except BaseException as error:  # noqa: BLE001 # reason: the caller raises it
            result.set_exception(error)

    thread = threading.Thread(target=run, name="lash-store-stack")
    thread.start()
    return result.result()


_encode_json = on_any_stack(msgspec.json.Encoder().encode)
_decode_json = on_any_stack(msgspec.json.Decoder().decode)
_encode_msgpack = on_any_stack(msgspec.msgpack.Encoder().encode)
_decode_msgpack = on_any_stack(msgspec.msgpack.Decoder().decode)


def free_json(field: str, value: Any, *, around: int = 0) -> Any:
    """Check a consumer's JSON value and return its written form, for :func:`encode_json`.

    `around` is how many levels of it are the library's own, around the consumer's; below 0 how
    many will be, where it is handed on as a part of another consumer's value.

    Raises InvalidRecordError that names the place inside `field` for NaN and infinities,
    integers outside -2⁶³ … 2⁶⁴-1, lone surrogates, keys that are no str, other types, and
    more than DEEPEST levels (K-CODEC-4).
    """
    return _checked(field, value, _JSON, DEEPEST + around)


def kept_json(field: str, value: Any, *, around: int = 0) -> Any:
    """Like :func:`free_json`, for a structure whose keys keep the order that they have."""
    return _checked(field, value, _KEPT_JSON, DEEPEST + around)


def free_msgpack(field: str, value: Any) -> Any:
    """Like :func:`free_json`, for :func:`encode_msgpack`, which has floats of its own."""
    return _checked(field, value, _MSGPACK)


def free_object(field: str, value: Any, *, around: int = 0) -> dict[str, Any]:
    """Like :func:`free_json`, for a value that has to be an object."""
    if not isinstance(value, Mapping):
        raise InvalidRecordError(field, shown(value), "must be an object")
    written: dict[str, Any] = free_json(field, dict(value), around=around)
    return written


def encode_json(value: Any) -> str:
    """Write compact JSON: keys in the order that the value has them, UTF-8 unescaped."""
    return _encode_json(value).decode()


def encode_raw(value: Any) -> msgspec.Raw:
    """Write compact JSON once, to be put into larger JSON or hashed as it is."""
    return msgspec.Raw(_encode_json(value))


def decode_json(table: str, key: str, text: str) -> Any:
    """Read stored JSON; CorruptRecordError names table and key if it is none (K-CODEC-2)."""
    try:
        return _decode_json(text)
    except (msgspec.DecodeError, TypeError) as error:
        raise CorruptRecordError(table, key, f"no JSON: {error}") from error


def decode_object(table: str, key: str, text: str) -> dict[str, Any]:
    """Read a stored JSON object; CorruptRecordError if it is anything else."""
    value = decode_json(table, key, text)
    if not isinstance(value, dict):
        raise CorruptRecordError(table, key, f"a JSON object is expected, not {shown(value)}")
    return value


def read_as(kind: type[T], table: str, key: str, value: Any) -> T:
    """Build a record from what was read; CorruptRecordError names table and key if it is none."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise CorruptRecordError(table, key, str(error)) from error


def encode_msgpack(value: Any) -> bytes:
    """Write MessagePack with named fields."""
    return _encode_msgpack(value)


def decode_msgpack(table: str, key: str, content: bytes) -> Any:
    """Read stored MessagePack; CorruptRecordError names table and key if it is none."""
    try:
        return _decode_msgpack(content)
    except (msgspec.DecodeError, TypeError, ValueError) as error:
        raise CorruptRecordError(table, key, f"no MessagePack: {error}") from error


def stable_hash(value: Any) -> str:
    """Return the SHA-256 of the compact JSON of a written form, lower-case hex (K-CODEC-1)."""
    return hashlib.sha256(_encode_json(value)).hexdigest()


def content_hash(content: bytes) -> str:
    """Return the SHA-256 of bytes, lower-case hex: the key of a blob."""
    return hashlib.sha256(content).hexdigest()


_KeysInOrder: TypeAlias = Callable[[dict[str, Any]], Iterable[str]]
_WriteFloat: TypeAlias = Callable[["_Place", float], Any]
_Form: TypeAlias = tuple[_KeysInOrder, _WriteFloat]

_Place: TypeAlias = "tuple[_Place, str | int] | tuple[None, str]"
"""Where a value stands: in what, and by which key there; or the name of the whole."""


def _checked(field: str, value: Any, form: _Form, levels: int = DEEPEST) -> Any:
    try:
        return _free((None, field), value, form, levels)
    except RecursionError:
        return _on_a_new_stack(lambda given: _free((None, field), given, form, levels), value)


def _free(place: _Place, value: Any, form: _Form, levels: int) -> Any:  # noqa: C901 # reason: one look at each type
    kind = type(value)
    written = value
    if kind is dict:
        in_order, _ = form
        if not levels:
            raise _too_deep(place)
        written = {
            key: item
            if type(item := value[key]) is str and item.isascii()  # as most are
            else _free((place, key), item, form, levels - 1)
            for key in in_order(_with_text_keys(place, value))
        }
    elif kind is list or kind is tuple:
        if not levels:
            raise _too_deep(place)
        written = [_free((place, at), item, form, levels - 1) for at, item in enumerate(value)]
    elif isinstance(value, str):
        written = _text(place, str.__str__(value))
    elif kind is int:
        if not _SMALLEST_INT <= value <= _LARGEST_INT:
            raise _refused(place, value, "an integer outside -2**63 to 2**64 - 1")
    elif kind is float:
        _, write_float = form
        written = write_float(place, value)
    elif kind is bytes:
        written = list(value)
    elif value is not None and kind is not bool:
        written = _free(place, _plain(place, value), form, levels)
    return written


def _plain(place: _Place, value: Any) -> Any:
    """Return what a value of a type of its own counts as."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        try:
            return list(value)
        except (NotImplementedError, ValueError) as error:  # a memoryview of several dimensions
            raise _refused(place, value, str(error)) from error
    if isinstance(value, int):
        return int.__pos__(value)  # whatever its type makes of int()
    if isinstance(value, float):
        return float.__pos__(value)
    raise _refused(place, value, f"{type(value).__name__} is no JSON type")


def _too_deep(place: _Place) -> InvalidRecordError:
    whole: Any = place
    levels = 0
    while whole[0] is not None:
        whole, levels = whole[0], levels + 1
    problem = f"nested deeper than {levels} levels"
    return InvalidRecordError(whole[1], "a deeply nested value", problem)


def _refused(place: _Place, value: Any, problem: str) -> InvalidRecordError:
    names: list[str] = []
    at: Any = place
    while at[0] is not None:
        at, key = at
        names.append(f"[{key}]" if isinstance(key, int) else f".{key}")
    return InvalidRecordError("".join([at[1], *reversed(names)]), shown(value), problem)


def _with_text_keys(place: _Place, value: dict[Any, Any]) -> dict[str, Any]:
    for key in value:
        if type(key) is not str:
            if not isinstance(key, str):
                raise _refused(place, key, "a key must be a str")
            return _with_text_keys(place, {_key(each): value[each] for each in value})
        if not key.isascii():
            _text(place, key)
    return value


def _key(key: Any) -> Any:
    return str.__str__(key) if isinstance(key, str) else key


def _text(place: _Place, value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _refused(place, value, "holds a lone surrogate") from error
    return value


def _finite(place: _Place, value: float) -> float:
    if not math.isfinite(value):
        raise _refused(place, value, "JSON has no NaN and no infinity")
    return value


def _written_float(place: _Place, value: float) -> msgspec.Raw:
    """Write a float: plain from 1e-5 to below 1e16, else with a signed exponent, no padding."""
    text = repr(_finite(place, value))
    if "e" not in text:
        written = text
    elif _PLAIN_FROM <= abs(value) < _PLAIN_BELOW:
        written = format(Decimal(text), "f")
    else:
        digits, exponent = text.split("e")
        written = f"{digits}e{exponent[0]}{exponent[1:].lstrip('0')}"
    return msgspec.Raw(written.encode())


_JSON: Final[_Form] = (sorted, _written_float)
_KEPT_JSON: Final[_Form] = (iter, _written_float)
_MSGPACK: Final[_Form] = (sorted, _finite)
