"""Checks of what a caller passes in: they run before any statement does.

Every refusal is an :class:`~lash_store.errors.InvalidRecordError` that names field and value.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from lash_store.clock import MAX_INT
from lash_store.errors import InvalidRecordError

_LONGEST_SHOWN: Final = 80
_PAIR: Final = 2
NO_SECONDS: Final = 10_000_000_000
"""From here on nothing is taken for seconds."""

SECONDS: Final = range(1_000_000_000, NO_SECONDS)
"""The seconds since the epoch of the years 2001 to 2286."""


def check_count(field: str, value: int) -> int:
    """Return `value` if it is a time, duration or counter: an int with 0 ≤ n < 2**63."""
    # type(), not isinstance(): True is an int to Python, and never a time to a caller.
    if type(value) is not int or not 0 <= value <= MAX_INT:
        raise InvalidRecordError(field, shown(value), "must be an int, 0 <= n < 2**63")
    return value


def check_time(field: str, value: int) -> int:
    """Return `value` if it is a time in milliseconds; a present time in seconds is refused.

    As milliseconds, what is refused here were days of January to April 1970.
    """
    if check_count(field, value) in SECONDS:
        raise InvalidRecordError(
            field, shown(value), "looks like seconds, and must be milliseconds since the epoch"
        )
    return value


def check_name(field: str, value: str) -> str:
    """Return `value` if it can name something: a non-empty str that any database can hold."""
    if type(value) is str and value and value.isascii() and "\0" not in value:
        return value  # as most are
    if not isinstance(value, str) or not value:
        raise InvalidRecordError(field, shown(value), "must be a non-empty str")
    return check_text(field, value)


def check_words(field: str, value: str) -> str:
    """Return `value` if it is a name with something in it besides white space."""
    name = check_name(field, value)
    if not name.strip():
        raise InvalidRecordError(field, shown(value), "must not be blank")
    return name


def check_text(field: str, value: str) -> str:
    """Return `value` if it is a str, empty or not, that any database can hold: UTF-8 without NUL."""
    if not isinstance(value, str):
        raise InvalidRecordError(field, shown(value), "must be a str")
    if "\0" in value:
        raise InvalidRecordError(field, shown(value), "holds a NUL, which PostgreSQL can't")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidRecordError(field, shown(value), "holds a lone surrogate") from error
    # A member of a StrEnum, say: the codecs take a str and nothing that is one by descent.
    return value if type(value) is str else str.__str__(value)


def check_message(field: str, value: str) -> str:
    """Return `value` if it is a str that JSON can hold: of UTF-8, and a NUL is one as any other."""
    if isinstance(value, str) and "\0" in value:
        check_text(field, value.replace("\0", ""))
        return str.__str__(value)
    return check_text(field, value)


def check_names(field: str, values: Iterable[str]) -> list[str]:
    """Return `values` as a list if each of them can name something; one str is no list of ids."""
    if isinstance(values, (str, bytes, memoryview)) or not isinstance(values, Iterable):
        raise InvalidRecordError(field, shown(values), "must be an iterable of str")
    return [check_name(field, value) for value in values]


def check_kind(field: str, value: object, kind: type | tuple[type, ...]) -> None:
    """Raise InvalidRecordError unless `value` is a `kind`, or one of several."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join(each.__name__ for each in kinds)
        raise InvalidRecordError(field, shown(value), f"must be a {names}")


def check_no_bool(field: str, value: object, why: str) -> None:
    """Raise InvalidRecordError for a truth value, which is an int to Python."""
    if isinstance(value, bool):
        raise InvalidRecordError(field, shown(value), why)


def check_has(field: str, value: object, method: str) -> None:
    """Raise InvalidRecordError unless `value` has a method, by which it is used."""
    if isinstance(value, type) or not callable(getattr(value, method, None)):
        raise InvalidRecordError(field, shown(value), f"must be an object with {method}()")


def check_items(field: str, values: Sequence[object], kind: type) -> None:
    """Raise InvalidRecordError unless `values` is a list or tuple of `kind`.

    A str is a sequence of str to Python, and never a list of ids to a caller.
    """
    if not isinstance(values, (list, tuple)):
        raise InvalidRecordError(
            field, shown(values), f"must be a list or tuple of {kind.__name__}"
        )
    for at, value in enumerate(values):
        check_kind(f"{field}[{at}]", value, kind)


def check_choice(field: str, value: object, choices: Sequence[str]) -> None:
    """Raise InvalidRecordError, naming the choices, unless `value` is one of them."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidRecordError(field, shown(value), f"must be one of {', '.join(choices)}")


def check_pair(field: str, pair: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return `pair` if it is a tuple of two, whatever they are: a key to page from."""
    if not isinstance(pair, tuple) or len(pair) != _PAIR:
        raise InvalidRecordError(field, shown(pair), "must be a tuple of two")
    return pair


def bound(field: str, value: int) -> int:
    """Return `value` as a bound for a column of 64 bits; a larger one bounds nothing (P-EVENT-8)."""
    if type(value) is not int or value < 0:
        raise InvalidRecordError(field, shown(value), "must be an int, at least 0")
    return min(value, MAX_INT)


def page_size(field: str, value: int) -> int:
    """Return `value` as the size of a page that says where the next one begins: of nothing there is none."""
    if not bound(field, value):
        raise InvalidRecordError(field, shown(value), "must be at least 1")
    return bound(field, value)


def shown(value: Any) -> str:
    """Return a short repr for an error message."""
    try:
        text = ascii(value)
    except Exception:  # noqa: BLE001 # reason: a repr that raises must not hide the refusal
        text = f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def check_now(now_ms: int) -> int:
    """Return what a clock has given; InvalidRecordError if it is no time."""
    return check_time("clock.now_ms()", now_ms)
