"""What an event's declaration takes from its payload (P-EVENT-4). Everything here is pure.

A payload is JSON as it was read: dicts, lists, str, int, float, bool and None.
"""

import re
from copy import deepcopy
from typing import Any, Final

from lash_store._kernel.codecs import encode_json, kept_json, on_any_stack
from lash_store._wire.events import (
    Const,
    DedupeBy,
    DedupeConst,
    DedupeKey,
    Payload,
    Pointer,
    Present,
    Selector,
    Semantics,
    Template,
    TerminalRule,
    WakeRule,
)
from lash_store.errors import InvalidRecordError
from lash_store.process.records.events import EventSemantics, Terminal, Wake
from lash_store.process.records.outputs import (
    AROUND_OUTPUT,
    Cancelled,
    Failure,
    Success,
    read_output,
)

_copied = on_any_stack(deepcopy)
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
_NOTHING: Final = object()


def materialise(
    semantics: Semantics, payload: Any, *, process_id: str, sequence: int
) -> EventSemantics:
    """Return what an event with this payload does; InvalidRecordError if a selector matches nothing."""
    terminal, wake = semantics.terminal, semantics.wake
    return EventSemantics(
        None if terminal is None else _terminal(terminal, payload),
        None if wake is None else _wake(wake, payload, f"{process_id}:{sequence}"),
    )


def select_value(selector: Selector, payload: Any) -> Any:
    """Take from the payload what the selector names."""
    if isinstance(selector, Payload):
        return payload
    if isinstance(selector, Const):
        # A copy: what is declared is kept, and what is taken goes to the consumer.
        return _copied(selector.const)
    if isinstance(selector, Present):
        return _at(payload, selector.present) is not _NOTHING
    if isinstance(selector, Template):
        text = selector.template
        for name in sorted(selector.fields):
            text = text.replace(
                f"{{{name}}}", text_of(select_value(selector.fields[name], payload))
            )
        return text
    assert isinstance(selector, Pointer)
    value = _at(payload, selector.pointer)
    if value is _NOTHING:
        raise InvalidRecordError("payload", ascii(selector.pointer), "nothing is at this pointer")
    return value


def text_of(value: Any) -> str:
    """Return a text as it is, and anything else as its compact JSON."""
    if isinstance(value, str):
        return value
    return encode_json(kept_json("payload", value, around=AROUND_OUTPUT))


def _terminal(rule: TerminalRule, payload: Any) -> Terminal:
    if rule.await_output is None:
        return Terminal(rule.state, Success(payload))
    value = select_value(rule.await_output, payload)
    output = read_output(value)
    if output is not None:
        return Terminal(rule.state, output)
    if rule.state == "completed":
        return Terminal(rule.state, Success(value))
    if rule.state == "failed":
        return Terminal(rule.state, Failure("execution", "process_failed", text_of(value), value))
    return Terminal(rule.state, Cancelled(text_of(value), value))


def _wake(rule: WakeRule, payload: Any, event_identity: str) -> Wake | None:
    if rule.when is not None and not _is_truthy(select_value(rule.when, payload)):
        return None
    text = text_of(select_value(rule.input, payload))
    return Wake(text, _dedupe_key(rule.dedupe_key, payload, event_identity))


def _dedupe_key(key: DedupeKey, payload: Any, event_identity: str) -> str:
    if isinstance(key, DedupeBy):
        return text_of(select_value(key.selector, payload))
    return key.key if isinstance(key, DedupeConst) else event_identity


def _is_truthy(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return bool(value)
    return True  # every number, 0 too


def _at(payload: Any, pointer: str) -> Any:
    """Return the value at an RFC 6901 pointer, or _NOTHING; null is a value."""
    if not pointer:
        return payload
    if not pointer.startswith("/"):
        return _NOTHING
    value = payload
    for step in pointer[1:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and _INDEX.fullmatch(name) and int(name) < len(value):
            value = value[int(name)]
        else:
            return _NOTHING
    return value
