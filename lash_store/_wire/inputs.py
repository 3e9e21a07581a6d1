"""What a process is to do, and by what name it goes."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias, TypedDict, TypeGuard

import msgspec

from lash_store._kernel.checks import check_kind, check_name, check_text, shown
from lash_store._kernel.codecs import encode_json, free_json, kept_json
from lash_store.errors import InvalidRecordError

_AROUND_ARGUMENT: Final = 2
"""How many levels of an engine's payload are around what an occurrence held: ``{"args": {name: …}}``."""


class ToolCall(msgspec.Struct, frozen=True, tag_field="type", tag="tool_call"):
    """Call a tool; `call` is the consumer's JSON, whose key order is kept."""

    call: Any


class EngineCall(msgspec.Struct, frozen=True, tag_field="type", tag="engine"):
    """Run the engine `kind` on `payload`, the consumer's JSON."""

    kind: str
    payload: Any


class SessionTurn(msgspec.Struct, frozen=True, tag_field="type", tag="session_turn"):
    """Run a turn of a session; all three are the consumer's JSON, whose key order is kept."""

    create_request: Any
    turn_input: Any
    output_contract: Any


class External(msgspec.Struct, frozen=True, tag_field="type", tag="external"):
    """Something outside does the work; `metadata`, the consumer's JSON, describes it."""

    metadata: Any


ProcessInput: TypeAlias = ToolCall | EngineCall | SessionTurn | External
"""What a process is to do."""


class ProcessIdentity(msgspec.Struct, frozen=True):
    """By what name a process goes: its kind, a label to show, and what defines it (JSON)."""

    kind: str
    label: str | None = None
    definition: Any = None


def written_input(field: str, given: ProcessInput) -> dict[str, Any]:
    """Check a process input and return its written form."""
    check_kind(field, given, (ToolCall, EngineCall, SessionTurn, External))
    if isinstance(given, ToolCall):
        return {"type": "tool_call", "call": kept_json(f"{field}.call", given.call)}
    if isinstance(given, EngineCall):
        kind = check_name(f"{field}.kind", given.kind)
        return {
            "type": "engine",
            "kind": kind,
            "payload": free_json(f"{field}.payload", given.payload, around=_AROUND_ARGUMENT),
        }
    if isinstance(given, External):
        return {"type": "external", "metadata": free_json(f"{field}.metadata", given.metadata)}
    return {
        "type": "session_turn",
        "create_request": kept_json(f"{field}.create_request", given.create_request),
        "turn_input": kept_json(f"{field}.turn_input", given.turn_input),
        "output_contract": kept_json(f"{field}.output_contract", given.output_contract),
    }


def written_identity(field: str, identity: ProcessIdentity) -> dict[str, Any]:
    """Check an identity and return its written form."""
    check_kind(field, identity, ProcessIdentity)
    written: dict[str, Any] = {"kind": check_name(f"{field}.kind", identity.kind)}
    if identity.label is not None:
        written["label"] = check_text(f"{field}.label", identity.label)
    if identity.definition is not None:
        written["definition"] = free_json(f"{field}.definition", identity.definition)
        if isinstance(identity.definition, str):
            check_text(f"{field}.definition", identity.definition)  # SQL filters by it
    return written


def takes_arguments(given: ProcessInput) -> TypeGuard[EngineCall]:
    """Whether the input of a process has a place for arguments: an engine's, whose payload is an object."""
    return isinstance(given, EngineCall) and isinstance(given.payload, Mapping)


def identity_of(given: ProcessInput) -> ProcessIdentity:
    """Make the identity of a process that was given none from its input (P-REC-5)."""
    if isinstance(given, ToolCall):
        return ProcessIdentity("tool", _text_at(given.call, "tool_name"))
    if isinstance(given, EngineCall):
        return ProcessIdentity(given.kind)
    if isinstance(given, External):
        named = [name for name in ("label", "name", "title") if name in _members(given.metadata)]
        return ProcessIdentity("external", _text_at(given.metadata, named[0]) if named else None)
    request = given.create_request
    labels = (
        _text_at(_members(request).get("subagent"), "capability"),
        _text_at(request, "usage_source"),
        _text_at(request, "session_id"),
    )
    return ProcessIdentity(
        "session_turn", next((label for label in labels if label is not None), None)
    )


class DefinitionArguments(TypedDict):
    """How the statements take a definition: one that is a text, or the compact JSON of any other."""

    definition: str | None
    definition_json: str | None


def definition_arguments(field: str, definition: Any) -> DefinitionArguments:
    """Check a definition to filter by, and return what the statements take."""
    if definition is None:
        return {"definition": None, "definition_json": None}
    # SQL compares numbers and booleans in JSON by other rules than text.
    check_kind(field, definition, (str, dict, list, tuple))
    written = free_json(field, definition)
    if not isinstance(written, str):
        return {"definition": None, "definition_json": encode_json(written)}
    if "\0" in written:
        # SQL reads a text in JSON up to a NUL only.
        raise InvalidRecordError(field, ascii(written), "holds a NUL")
    return {"definition": written, "definition_json": None}


def check_env_ref(given: ProcessInput, env_ref: str | None) -> str | None:
    """Return `env_ref` if it fits the input: tool calls and engines need one, others have none (P-REG-2)."""
    needs = isinstance(given, ToolCall | EngineCall)
    if env_ref is None:
        if needs:
            raise InvalidRecordError("env_ref", "None", "a tool call or an engine needs one")
        return None
    if not needs:
        raise InvalidRecordError("env_ref", shown(env_ref), "only a tool call or an engine has one")
    return check_name("env_ref", env_ref)


def _members(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text_at(value: Any, name: str) -> str | None:
    found = _members(value).get(name)
    # One with a NUL, which SQL reads up to that only, is no label.
    return found if isinstance(found, str) and "\0" not in found else None
