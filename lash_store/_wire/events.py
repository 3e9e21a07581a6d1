"""Event types that a process declares: their payloads, and what each event means (P-REC-6)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

import msgspec

from lash_store._kernel.checks import (
    check_choice,
    check_items,
    check_kind,
    check_name,
    check_text,
    shown,
)
from lash_store._kernel.codecs import free_json
from lash_store._wire.payloads import PayloadSchema, written_schema
from lash_store.errors import InvalidRecordError

EndState = Literal["completed", "failed", "cancelled"]
"""How a process can end."""

_DEEPEST: Final = 32
"""How deep templates may stand in each other."""

END_STATES: Final[tuple[str, ...]] = get_args(EndState)


class Selector:
    """What is taken from an event's payload; one of the five classes below."""

    __slots__ = ()


class Payload(msgspec.Struct, Selector, frozen=True):
    """The whole payload."""


class Pointer(msgspec.Struct, Selector, frozen=True):
    """The value at an RFC 6901 pointer; that nothing is there is an error."""

    pointer: str


class Const(msgspec.Struct, Selector, frozen=True):
    """The same JSON value whatever the payload is."""

    const: Any


class Template(msgspec.Struct, Selector, frozen=True):
    """A text in which ``{name}`` is replaced by the text that the field's selector takes."""

    template: str
    fields: Mapping[str, Selector] = {}


class Present(msgspec.Struct, Selector, frozen=True):
    """Whether there is a value at a pointer; null is one."""

    present: str


class DedupeKey:
    """Which wakes are the same wake; one of the three classes below."""

    __slots__ = ()


class EventIdentity(msgspec.Struct, DedupeKey, frozen=True):
    """Each event has a key of its own: ``{process_id}:{sequence}``."""


class DedupeBy(msgspec.Struct, DedupeKey, frozen=True):
    """Events share a key, and their deliveries a ``wake_id``, if this selector takes the same text from them."""

    selector: Selector


class DedupeConst(msgspec.Struct, DedupeKey, frozen=True):
    """All events share this key, and so their deliveries a ``wake_id``."""

    key: str


class TerminalRule(msgspec.Struct, frozen=True):
    """An event of this type ends the process in `state`.

    `await_output` selects what its end gave; without it, which only "completed" may be, the
    payload is the value.
    """

    state: EndState
    await_output: Selector | None = None


class WakeRule(msgspec.Struct, frozen=True):
    """An event of this type wakes the process's target with the text that `input` selects.

    Not if `when` selects null, false, or an empty text, array or object.
    """

    input: Selector
    dedupe_key: DedupeKey
    when: Selector | None = None


class Semantics(msgspec.Struct, frozen=True):
    """What an event of one type does beside being recorded."""

    terminal: TerminalRule | None = None
    wake: WakeRule | None = None


class EventType(msgspec.Struct, frozen=True):
    """One type of event that a process may append: its payloads, and what it means."""

    name: str
    payload_schema: PayloadSchema = PayloadSchema()
    semantics: Semantics = Semantics()


def _ends(name: str, state: EndState) -> EventType:
    return EventType(name, semantics=Semantics(TerminalRule(state, Pointer("/await_output"))))


CANCEL_REQUESTED: Final = "process.cancel_requested"

CORE_EVENT_TYPES: Final = (
    EventType(CANCEL_REQUESTED),
    EventType("process.waiting"),
    EventType("process.resumed"),
    _ends("process.completed", "completed"),
    _ends("process.failed", "failed"),
    _ends("process.cancelled", "cancelled"),
)
"""What every process declares, where its registration does not (P-REG-1)."""


def written_event_types(event_types: Sequence[EventType]) -> list[dict[str, Any]]:
    """Check event types and return their written form (P-REG-2).

    Raises InvalidRecordError for an empty or repeated name, a payload schema that is none, a pointer
    that leads nowhere in any payload, and an end other than "completed" that selects no await_output.
    """
    check_items("event_types", event_types, EventType)
    written: dict[str, dict[str, Any]] = {}
    for event_type in event_types:
        name = check_name("event_type.name", event_type.name)
        if name in written:
            raise InvalidRecordError("event_types", shown(name), "is declared twice")
        written[name] = {
            "name": name,
            "payload_schema": written_schema(f"{name}.payload_schema", event_type.payload_schema),
            "semantics": _written_semantics(name, event_type.semantics),
        }
    return list(written.values())


def read_shape(kind: Any, written: Any) -> Any:
    """Build a selector or a dedupe key from its stored form; msgspec calls it for these types."""
    if kind is Selector:
        return _read_selector(written)
    if kind is DedupeKey:
        return _read_dedupe_key(written)
    raise NotImplementedError(kind)


def _written_semantics(name: str, semantics: Semantics) -> dict[str, Any]:
    check_kind(f"{name}.semantics", semantics, Semantics)
    written = {}
    if semantics.terminal is not None:
        written["terminal"] = _written_terminal(f"{name}.terminal", semantics.terminal)
    if semantics.wake is not None:
        written["wake"] = _written_wake(f"{name}.wake", semantics.wake)
    return written


def _written_terminal(field: str, rule: TerminalRule) -> dict[str, Any]:
    check_kind(field, rule, TerminalRule)
    check_choice(f"{field}.state", rule.state, END_STATES)
    if rule.await_output is not None:
        selector = _written_selector(f"{field}.await_output", rule.await_output)
        return {"state": str.__str__(rule.state), "await_output": selector}
    if rule.state != "completed":
        raise InvalidRecordError(
            f"{field}.await_output", "None", f"an end that is {rule.state} has to select one"
        )
    return {"state": str.__str__(rule.state)}


def _written_wake(field: str, rule: WakeRule) -> dict[str, Any]:
    check_kind(field, rule, WakeRule)
    written = {} if rule.when is None else {"when": _written_selector(f"{field}.when", rule.when)}
    written["input"] = _written_selector(f"{field}.input", rule.input)
    written["dedupe_key"] = _written_dedupe_key(f"{field}.dedupe_key", rule.dedupe_key)
    return written


def _written_dedupe_key(field: str, key: DedupeKey) -> Any:
    if isinstance(key, EventIdentity):
        return "event_identity"
    if isinstance(key, DedupeBy):
        return {"selector": _written_selector(field, key.selector)}
    check_kind(field, key, DedupeConst)
    assert isinstance(key, DedupeConst)
    return {"const": check_text(field, key.key)}


def _written_selector(field: str, selector: Selector, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise InvalidRecordError(field, "a deeply nested template", "nested too deep")
    if isinstance(selector, Payload):
        return "payload"
    if isinstance(selector, Pointer):
        pointer = check_text(field, selector.pointer)
        if pointer and not pointer.startswith("/"):
            raise InvalidRecordError(field, shown(pointer), "a pointer to a part begins with /")
        return {"pointer": pointer}
    if isinstance(selector, Const):
        return {"const": free_json(field, selector.const)}
    if isinstance(selector, Present):
        return {"present": check_text(field, selector.present)}
    check_kind(field, selector, Template)
    assert isinstance(selector, Template)
    check_kind(f"{field}.fields", selector.fields, Mapping)
    try:
        fields = {
            check_text(f"{field}.fields", name): _written_selector(
                f"{field}.{name}", selector.fields[name], depth + 1
            )
            for name in sorted(selector.fields)
        }
    except TypeError as error:
        raise InvalidRecordError(
            f"{field}.fields", shown(selector.fields), "a name must be a str"
        ) from error
    return {"template": {"template": check_text(field, selector.template), "fields": fields}}


def _read_selector(written: Any) -> Selector:
    if written == "payload":
        return Payload()
    if isinstance(written, dict) and len(written) == 1:
        ((name, value),) = written.items()
        if name == "const":
            return Const(value)
        if name == "pointer" and isinstance(value, str):
            return Pointer(value)
        if name == "present" and isinstance(value, str):
            return Present(value)
        if name == "template":
            template = msgspec.convert(value, _WrittenTemplate)
            fields = {name: _read_selector(field) for name, field in template.fields.items()}
            return Template(template.template, fields)
    raise ValueError(f"{shown(written)} is no selector")


def _read_dedupe_key(written: Any) -> DedupeKey:
    if written == "event_identity":
        return EventIdentity()
    if isinstance(written, dict) and len(written) == 1:
        ((name, value),) = written.items()
        if name == "selector":
            return DedupeBy(_read_selector(value))
        if name == "const" and isinstance(value, str):
            return DedupeConst(value)
    raise ValueError(f"{shown(written)} is no dedupe key")


class _WrittenTemplate(msgspec.Struct, frozen=True):
    template: str
    fields: dict[str, Any]
