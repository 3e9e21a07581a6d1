"""What an append to a process does, decided before anything is written.

:func:`plan_append` is a pure function of what was read: the record, the event that is stored
under the replay key, the highest sequence. It returns what to write, or raises the refusal.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgspec

from lash_store._kernel.codecs import encode_json, encode_raw, on_any_stack
from lash_store._wire.events import CANCEL_REQUESTED, EventType, Semantics, read_shape
from lash_store._wire.origins import Scope
from lash_store._wire.payloads import Problem, problem_of, schema_text
from lash_store.clock import MAX_INT
from lash_store.errors import (
    CorruptRecordError,
    IdempotencyConflictError,
    InvalidRecordError,
    ProcessEndedError,
)
from lash_store.process.records.events import (
    Appended,
    EventSemantics,
    ProcessEvent,
    Terminal,
    delivery_of,
    invocation_of,
    occurred_at,
)
from lash_store.process.records.outputs import AROUND_OUTPUT, written_output
from lash_store.process.records.processes import RUNNING, Members, revised
from lash_store.process.records.selecting import materialise
from lash_store.process.tables import processes

_CAUSED_BY: Final = on_any_stack(msgspec.json.Decoder(Mapping[str, Any] | None).decode)
_SCOPE: Final = on_any_stack(msgspec.json.Decoder(Scope | None).decode)
_decode_payload = on_any_stack(msgspec.json.Decoder().decode)
_decode_event_types = on_any_stack(
    msgspec.json.Decoder(list[EventType], dec_hook=read_shape).decode
)


class NewEvent(msgspec.Struct, frozen=True):
    """An event to append: its payload as JSON text, and the hash of type and payload."""

    event_type: str
    payload_json: msgspec.Raw
    payload_hash: str
    replay_key: str | None
    wake_target: Scope | None

    def problem_in(self, schema_json: str) -> Problem | None:
        """Say why the payload does not fit a schema; None if it does."""
        return problem_of(schema_json, _decode_payload(self.payload_json))


class KnownEvent(msgspec.Struct, frozen=True):
    """The event that is stored under a replay key, and the hash of its payload."""

    payload_hash: str
    event: ProcessEvent


class Standing(msgspec.Struct, frozen=True):
    """A process as it stands before an append."""

    process_id: str
    members: Members
    state: str
    highest_sequence: int


class Write(msgspec.Struct, frozen=True):
    """A new event, and the record that it leaves: write both."""

    appended: Appended
    event_json: str
    record_json: str
    state: str


class Replay(msgspec.Struct, frozen=True):
    """The event is there already. `record_json` and `state` mend a record that missed its end."""

    appended: Appended
    record_json: str | None = None
    state: str | None = None


Plan: TypeAlias = Write | Replay

ProblemIn: TypeAlias = Callable[[str], Problem | None]
"""Says why one payload does not fit a schema, given as JSON; None if it does."""


def plan_append(
    standing: Standing,
    new: NewEvent,
    known: KnownEvent | None,
    problem_in: ProblemIn,
    *,
    now_ms: int,
) -> Plan:
    """Decide what an append does (P-EVENT-2 to P-EVENT-6); raise the refusal if it is refused.

    `problem_in` says why the payload does not fit the schema of its event type, if it does not.
    """
    if known is not None:
        if known.payload_hash != new.payload_hash:
            raise IdempotencyConflictError(
                "event with the replay key",
                new.replay_key or "",
                known.payload_hash,
                new.payload_hash,
            )
        return _replay(standing, known.event, new.wake_target)
    event = _new_event(standing, new, problem_in, now_ms)
    terminal = event.semantics.terminal
    if terminal is not None and standing.state != RUNNING:
        raise ProcessEndedError(standing.process_id, standing.state)
    state = standing.state if terminal is None else terminal.state
    end = _written_end(terminal)
    return Write(
        Appended(event, _wake(standing, event, new.wake_target), is_replay=False),
        _event_json(event, new.payload_json, end),
        _revised(standing, end, now_ms),
        state,
    )


def _new_event(
    standing: Standing, new: NewEvent, problem_in: ProblemIn, now_ms: int
) -> ProcessEvent:
    """Check a new event against its declaration and materialise what it does."""
    process_id, event_type = standing.process_id, new.event_type
    declared = _declared(standing, event_type)
    if declared is None:
        raise InvalidRecordError(
            "event_type", ascii(event_type), f"is not declared by process {process_id!r}"
        )
    semantics, schema_json = declared
    if new.replay_key is None and (
        semantics.terminal is not None or event_type == CANCEL_REQUESTED
    ):
        raise InvalidRecordError("replay_key", "None", f"{event_type} needs one")
    payload = _decode_payload(new.payload_json)  # for this event alone: it goes to the caller
    problem = None if schema_json is None else problem_in(schema_json)
    if problem is not None and problem.of_schema:
        raise _unreadable_types(process_id, problem.text)
    if problem is not None:
        raise InvalidRecordError(
            "payload", problem.text, f"does not fit the schema of {event_type}"
        )
    sequence = standing.highest_sequence + 1
    if sequence > MAX_INT:
        raise CorruptRecordError(processes.name, process_id, "no sequence is left")
    return ProcessEvent(
        process_id,
        sequence,
        event_type,
        payload,
        invocation_of(process_id, sequence, event_type, new.replay_key),
        materialise(semantics, payload, process_id=process_id, sequence=sequence),
        occurred_at(now_ms),
    )


def _replay(standing: Standing, event: ProcessEvent, target: Scope | None) -> Replay:
    appended = Appended(event, _wake(standing, event, target), is_replay=True)
    terminal = event.semantics.terminal
    if terminal is None or standing.state != RUNNING:
        return Replay(appended)
    # The end is in the log and not in the record, as another program may leave it.
    revised_json = _revised(standing, _written_end(terminal), event.occurred_at_ms)
    return Replay(appended, revised_json, terminal.state)


def _declared(standing: Standing, event_type: str) -> tuple[Semantics, str | None] | None:
    """Return what an event type means, and its schema if it needs one; None if it is not declared."""
    try:
        return _declarations(bytes(standing.members["event_types"])).get(event_type)
    except (KeyError, ValueError) as error:
        raise _unreadable_types(standing.process_id, error) from error


def _unreadable_types(process_id: str, error: object) -> CorruptRecordError:
    return CorruptRecordError(processes.name, process_id, f"event_types can't be read: {error}")


@lru_cache(maxsize=256)
def _declarations(event_types: bytes) -> Mapping[str, tuple[Semantics, str | None]]:
    """Read declarations once for all the events of all the processes that share them."""
    declared = _decode_event_types(event_types)
    return {
        each.name: (each.semantics, schema_text(each.payload_schema.schema)) for each in declared
    }


def wake_target(process_id: str, members: Members) -> Scope | None:
    """Return the record's wake target; CorruptRecordError if it can't be read."""
    scope: Scope | None = _member(process_id, members, "wake_target", _SCOPE)
    return scope


def caused_by(process_id: str, members: Members) -> Mapping[str, Any] | None:
    """Return what led to the process; CorruptRecordError if it can't be read."""
    provenance = _member(process_id, members, "provenance", _CAUSED_BY) or {}
    cause: Mapping[str, Any] | None = provenance.get("caused_by")
    return cause


def _member(process_id: str, members: Members, name: str, decode: Callable[[Any], Any]) -> Any:
    if name not in members:
        return None
    try:
        return decode(members[name])
    except msgspec.DecodeError as error:
        raise CorruptRecordError(processes.name, process_id, f"{name}: {error}") from error


def _wake(standing: Standing, event: ProcessEvent, given: Scope | None) -> Any:
    if event.semantics.wake is None:
        return None
    process_id, members = standing.process_id, standing.members
    target = wake_target(process_id, members) if given is None else given
    return delivery_of(event, target, caused_by(process_id, members))


def _written_end(terminal: Terminal | None) -> dict[str, Any] | None:
    """Return how a process ends, in its event and in its record; what it gives is written once."""
    if terminal is None:
        return None
    # It was checked as a payload, or comes from a schema's own constant.
    output = encode_raw(written_output(terminal.await_output, around=AROUND_OUTPUT))
    return {"state": terminal.state, "await_output": output}


def _revised(standing: Standing, end: dict[str, Any] | None, updated_at_ms: int) -> str:
    if end is None:
        return revised(standing.members, updated_at_ms=updated_at_ms)
    return revised(standing.members, updated_at_ms=updated_at_ms, status=end, wait=None)


def _event_json(event: ProcessEvent, payload_json: msgspec.Raw, end: dict[str, Any] | None) -> str:
    return encode_json(
        {
            "process_id": event.process_id,
            "sequence": event.sequence,
            "event_type": event.event_type,
            "payload": payload_json,
            "invocation": event.invocation,
            "semantics": _written_semantics(event.semantics, end),
            "occurred_at": event.occurred_at,
        }
    )


def _written_semantics(semantics: EventSemantics, end: dict[str, Any] | None) -> dict[str, Any]:
    written: dict[str, Any] = {} if end is None else {"terminal": end}
    if semantics.wake is not None:
        written["wake"] = semantics.wake
    return written
