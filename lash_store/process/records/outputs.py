"""What the end of a process gives to those who await it (P-REC-4)."""

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from lash_store._kernel.checks import check_choice, check_kind, check_message, check_text
from lash_store._kernel.codecs import free_json, free_object
from lash_store._wire.events import EndState

FailureClass = Literal[
    "invalid_request",
    "unavailable",
    "permission_denied",
    "timeout",
    "execution",
    "external",
    "resource_limit",
    "internal",
]
"""Whose fault a failure is, roughly."""

FAILURE_CLASSES: Final[tuple[str, ...]] = get_args(FailureClass)
CONTROLS: Final = ("switch_agent_frame", "finish", "fail")
"""The types that a `control` may have."""


class Success(msgspec.Struct, frozen=True, tag_field="type", tag="success"):
    """It gave `value`, JSON. `control` is an object tagged by ``type``, or None."""

    value: Any
    control: Mapping[str, Any] | None = None


class Failure(msgspec.Struct, frozen=True, tag_field="type", tag="failure"):
    """It failed. `raw` is JSON about the failure, None for none; `control` as in Success."""

    failure_class: FailureClass = msgspec.field(name="class")
    code: str
    message: str
    raw: Any = None
    control: Mapping[str, Any] | None = None


class Cancelled(msgspec.Struct, frozen=True, tag_field="type", tag="cancelled"):
    """It was cancelled. `raw` and `control` as in Failure."""

    message: str
    raw: Any = None
    control: Mapping[str, Any] | None = None


AwaitOutput: TypeAlias = Success | Failure | Cancelled
"""What the end of a process gives."""


def end_state(output: AwaitOutput) -> EndState:
    """Return the state in which a process with this output ends."""
    if isinstance(output, Success):
        return "completed"
    return "failed" if isinstance(output, Failure) else "cancelled"


AROUND_OUTPUT: Final = 2
"""How many levels of the payload that ends a process are around what the process gave."""


def written_output(output: AwaitOutput, *, around: int = 0) -> dict[str, Any]:
    """Check an await_output and return its written form, fields in the order of the wire.

    `around` is how many levels of what it holds are the library's own.
    """
    field = "await_output"
    check_kind(field, output, (Success, Failure, Cancelled))
    written: dict[str, Any]
    if isinstance(output, Success):
        written = {
            "type": "success",
            "value": free_json(f"{field}.value", output.value, around=around),
        }
    elif isinstance(output, Failure):
        check_choice(f"{field}.failure_class", output.failure_class, FAILURE_CLASSES)
        written = {
            "type": "failure",
            "class": str.__str__(output.failure_class),
            "code": check_text(f"{field}.code", output.code),
            "message": check_message(f"{field}.message", output.message),
        }
    else:
        message = check_message(f"{field}.message", output.message)
        written = {"type": "cancelled", "message": message}
    if not isinstance(output, Success) and output.raw is not None:
        written["raw"] = free_json(f"{field}.raw", output.raw, around=around)
    if output.control is not None:
        control = free_object(f"{field}.control", output.control)
        check_choice(f"{field}.control.type", control.get("type"), CONTROLS)
        written["control"] = control
    return written


def read_output(value: Any) -> AwaitOutput | None:
    """Build an await_output from JSON; None if the value is no valid one (P-EVENT-4)."""
    try:
        output: AwaitOutput = msgspec.convert(value, AwaitOutput)
    except msgspec.ValidationError:
        return None
    control = output.control
    return None if control is not None and control.get("type") not in CONTROLS else output
