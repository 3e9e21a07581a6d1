"""Events of a process as they are stored, and what an append gives back."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from lash_store._kernel.codecs import Json, on_any_stack, stable_hash
from lash_store._wire.events import EndState
from lash_store._wire.origins import Scope
from lash_store.errors import CorruptRecordError
from lash_store.process.records.outputs import AwaitOutput
from lash_store.process.records.processes import ProcessRecord
from lash_store.process.tables import process_events

_MS: Final = 1_000
_NS: Final = 1_000_000


class OccurredAt(msgspec.Struct, frozen=True):
    """When an event occurred, in the words of the wire; ``ProcessEvent.occurred_at_ms`` is a number."""

    secs_since_epoch: int
    nanos_since_epoch: int


class Terminal(msgspec.Struct, frozen=True):
    """The event ended its process in `state`, and gave `await_output`."""

    state: EndState
    await_output: AwaitOutput


class Wake(msgspec.Struct, frozen=True):
    """The event woke the process's target with the text `input`.

    Each such event is delivered. Those with one `dedupe_key` have one ``wake_id``, by which whoever is
    woken can tell that they mean the same.
    """

    input: str
    dedupe_key: str


class EventSemantics(msgspec.Struct, frozen=True):
    """What an event did beside being recorded, as its type's declaration had it then."""

    terminal: Terminal | None = None
    wake: Wake | None = None


class ProcessEvent(msgspec.Struct, frozen=True):
    """One event of a process (P-EVENT-5). `sequence` counts from 1 without gaps.

    `payload` is the consumer's JSON. `invocation` is the event as an invocation of the original
    program: its scope, subject, cause, and the replay key if there is one.
    """

    process_id: str
    sequence: int
    event_type: str
    payload: Any
    invocation: Mapping[str, Any]
    semantics: EventSemantics
    occurred_at: OccurredAt

    @property
    def occurred_at_ms(self) -> int:
        """When it was appended, in milliseconds since the epoch."""
        at = self.occurred_at
        return at.secs_since_epoch * _MS + at.nanos_since_epoch // _NS

    @property
    def replay_key(self) -> str | None:
        """The key under which it was appended once; None without one."""
        replay: Mapping[str, str] = self.invocation.get("replay") or {}
        return replay.get("key")


class WakeDelivery(msgspec.Struct, frozen=True):
    """A wake on its way to a session (P-EVENT-7); ``work_of_wake`` makes a queue batch of it.

    `wake_id` is the same for wakes of one target with one `dedupe_key`. `created_at_ms` is the
    event's time, milliseconds since the epoch.
    """

    wake_id: str
    target_session_id: str
    target_scope_id: str
    process_id: str
    sequence: int
    event_type: str
    event_invocation: Mapping[str, Any]
    process_caused_by: Mapping[str, Any] | None
    dedupe_key: str
    input: str
    created_at_ms: int

    def written(self) -> dict[str, Json]:
        """Return the wake as JSON: a field that is None is left out."""
        members: dict[str, Json] = msgspec.structs.asdict(self)
        return {name: value for name, value in members.items() if value is not None}


class Appended(msgspec.Struct, frozen=True):
    """What an append did: the event, and the wake to deliver if it wakes somebody.

    `is_replay` if the event was there before and nothing was appended.
    """

    event: ProcessEvent
    wake: WakeDelivery | None
    is_replay: bool


class Completed(msgspec.Struct, frozen=True):
    """What ``complete_process`` did: the record as it stands now, and the event that ended it."""

    record: ProcessRecord
    event: ProcessEvent
    wake: WakeDelivery | None
    is_replay: bool


class PendingWake(msgspec.Struct, frozen=True):
    """A wake event that nobody has acknowledged (P-EVENT-12).

    `wake` is its delivery, to the process's wake target as it is now; None without a target.
    """

    event: ProcessEvent
    wake: WakeDelivery | None


_decode_event = on_any_stack(msgspec.json.Decoder(ProcessEvent).decode)


def read_event(process_id: str, sequence: int, event_json: str) -> ProcessEvent:
    """Build an event from its stored form; CorruptRecordError if it can't be read."""
    key = f"{process_id}:{sequence}"
    try:
        event = _decode_event(event_json)
    except (msgspec.DecodeError, TypeError) as error:
        raise CorruptRecordError(process_events.name, key, str(error)) from error
    if (event.process_id, event.sequence) != (process_id, sequence):
        said = f"{event.process_id}:{event.sequence}"
        raise CorruptRecordError(process_events.name, key, f"it says that it is event {said}")
    return event


def occurred_at(now_ms: int) -> OccurredAt:
    """Write a time in the words of the wire."""
    return OccurredAt(now_ms // _MS, now_ms % _MS * _NS)


def invocation_of(
    process_id: str, sequence: int, event_type: str, replay_key: str | None
) -> dict[str, Any]:
    """Describe an event as an invocation of the original program (P-EVENT-5)."""
    invocation: dict[str, Any] = {
        "scope": {"session_id": "runtime"},
        "subject": {
            "type": "process_event",
            "process_id": process_id,
            "sequence": sequence,
            "event_type": event_type,
        },
        "caused_by": {"type": "process", "process_id": process_id},
    }
    return invocation if replay_key is None else {**invocation, "replay": {"key": replay_key}}


def delivery_of(
    event: ProcessEvent, target: Scope | None, caused_by: Mapping[str, Any] | None
) -> WakeDelivery | None:
    """Return the delivery of an event's wake to `target`; None if it wakes nobody (P-EVENT-7)."""
    wake = event.semantics.wake
    if wake is None or target is None:
        return None
    return WakeDelivery(
        wake_id=f"wake:{stable_hash([target.id, wake.dedupe_key])}",
        target_session_id=target.session_id,
        target_scope_id=target.id,
        process_id=event.process_id,
        sequence=event.sequence,
        event_type=event.event_type,
        event_invocation=event.invocation,
        process_caused_by=caused_by,
        dedupe_key=wake.dedupe_key,
        input=wake.input,
        created_at_ms=event.occurred_at_ms,
    )
