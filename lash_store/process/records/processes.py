"""Registrations and records of processes."""

import re
from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

import msgspec

from lash_store._kernel.checks import (
    check_count,
    check_kind,
    check_name,
    check_time,
    check_words,
    shown,
)
from lash_store._kernel.codecs import encode_json, encode_raw, free_json, on_any_stack, stable_hash
from lash_store._wire.events import (
    CORE_EVENT_TYPES,
    EventType,
    read_shape,
    written_event_types,
)
from lash_store._wire.inputs import (
    ProcessIdentity,
    ProcessInput,
    check_env_ref,
    identity_of,
    written_identity,
    written_input,
)
from lash_store._wire.origins import (
    Originator,
    Provenance,
    Scope,
    written_provenance,
    written_scope,
)
from lash_store.errors import CorruptRecordError, InvalidRecordError
from lash_store.process.records.outputs import AwaitOutput
from lash_store.process.tables import processes

State = Literal["running", "completed", "failed", "cancelled"]
"""Whether a process runs, or how it ended."""

STATES: Final[tuple[str, ...]] = get_args(State)
RUNNING: Final = "running"

_SIGNAL_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")


class ProcessRegistration(msgspec.Struct, frozen=True):
    """A process to register (P-REG-1 to P-REG-3).

    `env_ref`, which a tool call or an engine needs and others must not have, names the
    environment that it runs in. `event_types` are declared beside the core ones. Without
    `identity`, one is made from the input. `wake_target` is who its wakes go to.
    """

    id: str
    input: ProcessInput
    provenance: Provenance
    env_ref: str | None = None
    identity: ProcessIdentity | None = None
    event_types: Sequence[EventType] = ()
    wake_target: Scope | None = None


class ExternalRef(msgspec.Struct, frozen=True):
    """What a process is called outside: by `backend`, as `id`, with `metadata` (JSON, or None)."""

    backend: str
    id: str
    metadata: Any = None


class SignalWait(msgspec.Struct, frozen=True, tag_field="kind", tag="signal"):
    """A wait for the `ordinal`-th event of one type; :func:`signal_wait` makes one."""

    name: str
    event_type: str
    key: str
    ordinal: int


class ProcessWait(msgspec.Struct, frozen=True):
    """What a process waits for, and since when (milliseconds since the epoch)."""

    kind: SignalWait
    since_ms: int


class ProcessStatus(msgspec.Struct, frozen=True):
    """``running``; or ``completed``, ``failed`` or ``cancelled`` with what that gave."""

    state: State
    await_output: AwaitOutput | None = None


class ProcessRecord(msgspec.Struct, frozen=True):
    """A process as it stands (P-REC-3). Times are milliseconds since the epoch."""

    id: str
    registration_hash: str
    input: ProcessInput
    identity: ProcessIdentity
    event_types: tuple[EventType, ...]
    provenance: Provenance
    created_at_ms: int
    updated_at_ms: int
    status: ProcessStatus
    env_ref: str | None = None
    wake_target: Scope | None = None
    external_ref: ExternalRef | None = None
    wait: ProcessWait | None = None

    @property
    def originator(self) -> Originator:
        """Who started it."""
        return self.provenance.originator

    @property
    def await_output(self) -> AwaitOutput | None:
        """What its end gave; None while it runs."""
        return self.status.await_output


class ProcessFilter(msgspec.Struct, frozen=True):
    """Which processes to list or to claim; None never filters (P-LIST-1).

    `waiting` is whether a wait is set, `definition` the identity's, `originator` who started
    it, `created_before_ms` an exclusive time in milliseconds since the epoch.
    """

    waiting: bool | None = None
    definition: Any = None
    originator: Originator | None = None
    created_before_ms: int | None = None


class _StatusAlone(msgspec.Struct, frozen=True):
    state: str


Members = dict[str, msgspec.Raw]
"""A record taken apart at its outermost level only: what is not touched stays as it is."""

_LONGEST_ID: Final = 1_024
"""In bytes. Events have it twice in one index, and a server's index takes 2,700 of an entry."""

_ORDER: Final = (
    "id",
    "registration_hash",
    "input",
    "identity",
    "event_types",
    "provenance",
    "env_ref",
    "wake_target",
    "created_at_ms",
    "updated_at_ms",
    "external_ref",
    "wait",
    "status",
)

_decode_record = on_any_stack(msgspec.json.Decoder(ProcessRecord, dec_hook=read_shape).decode)
_decode_members = on_any_stack(msgspec.json.Decoder(Members).decode)
_decode_id = on_any_stack(msgspec.json.Decoder(str).decode)
_decode_status = on_any_stack(msgspec.json.Decoder(_StatusAlone).decode)


def written_registration(registration: ProcessRegistration) -> Members:
    """Check a registration and return its prepared form: identity and core event types filled in.

    Raises InvalidRecordError as P-REG-2 says.
    """
    check_kind("registration", registration, ProcessRegistration)
    process_id = check_words("id", registration.id)
    if len(process_id.encode()) > _LONGEST_ID:
        why = f"must be at most {_LONGEST_ID:,} bytes of UTF-8"
        raise InvalidRecordError("id", shown(process_id), why)
    given = written_input("input", registration.input)
    declared = written_event_types(registration.event_types)
    names = {event_type["name"] for event_type in declared}
    core = [event_type for event_type in CORE_EVENT_TYPES if event_type.name not in names]
    identity = registration.identity
    written: dict[str, Any] = {
        "id": process_id,
        "input": given,
        "identity": written_identity("identity", identity)
        if identity is not None
        else written_identity("input", identity_of(registration.input)),
        "event_types": [*declared, *written_event_types(core)],
        "provenance": written_provenance(registration.provenance),
    }
    env_ref = check_env_ref(registration.input, registration.env_ref)
    if env_ref is not None:
        written["env_ref"] = env_ref
    if registration.wake_target is not None:
        written["wake_target"] = written_scope("wake_target", registration.wake_target)
    return {name: encode_raw(value) for name, value in written.items()}


def registration_hash(registration: ProcessRegistration) -> str:
    """Return the stable hash of the prepared registration (P-REG-3)."""
    return stable_hash(written_registration(registration))


def written_record(prepared: Members, prepared_hash: str, now_ms: int) -> str:
    """Return the record_json of a process that is being registered."""
    record: dict[str, Any] = {
        **prepared,
        "registration_hash": prepared_hash,
        "created_at_ms": now_ms,
        "updated_at_ms": now_ms,
        "status": {"state": RUNNING},
    }
    return encode_json({name: record[name] for name in _ORDER if name in record})


def read_record(process_id: str, record_json: str, state: str | None = None) -> ProcessRecord:
    """Build the record; CorruptRecordError if it can't be read.

    Or if it is another process's, or not in the `state` that its column says, where that is given.
    """
    try:
        record = _decode_record(record_json)
        _check_end(record.status)
    except (msgspec.DecodeError, TypeError, ValueError) as error:
        raise CorruptRecordError(processes.name, process_id, str(error)) from error
    _check_agrees(process_id, state, record.id, record.status.state)
    return record


def read_members(process_id: str, record_json: str, state: str | None = None) -> Members:
    """Take a stored record apart; CorruptRecordError if it is no object.

    Or if it is another process's, or not in the `state` that its column says, where that is given.
    """
    try:
        members = _decode_members(record_json)
        if state is not None:
            told = _decode_id(members["id"]), _decode_status(members["status"]).state
            _check_agrees(process_id, state, *told)
    except KeyError as error:
        raise CorruptRecordError(processes.name, process_id, f"it has no {error}") from error
    except (msgspec.DecodeError, TypeError) as error:
        raise CorruptRecordError(processes.name, process_id, str(error)) from error
    return members


def _check_agrees(process_id: str, state: str | None, told_id: str, told_state: str) -> None:
    if told_id != process_id or state not in (None, told_state):
        said = f"it says that it is {told_id!r}, {told_state}"
        raise CorruptRecordError(processes.name, process_id, said)


def revised(members: Members, **changes: Any) -> str:
    """Return the record_json with some members changed; None removes one (K-CODEC-3)."""
    merged: dict[str, Any] = {**members, **changes}
    if len(merged) > len(members) or None in changes.values():
        # A member comes or goes: the known ones in their order, then the unknown ones.
        names = [*(name for name in _ORDER if name in merged), *merged]
        merged = {name: merged[name] for name in names if merged[name] is not None}
    return encode_json(merged)


def written_external_ref(ref: ExternalRef) -> dict[str, Any]:
    """Check a reference to what is outside and return its written form."""
    check_kind("external_ref", ref, ExternalRef)
    written: dict[str, Any] = {
        "backend": check_name("external_ref.backend", ref.backend),
        "id": check_name("external_ref.id", ref.id),
    }
    if ref.metadata is not None:
        written["metadata"] = free_json("external_ref.metadata", ref.metadata)
    return written


def written_wait(wait: ProcessWait) -> dict[str, Any]:
    """Check a wait and return its written form."""
    check_kind("wait", wait, ProcessWait)
    kind = wait.kind
    check_kind("wait.kind", kind, SignalWait)
    return {
        "kind": {
            "kind": "signal",
            "name": check_signal(kind.name),
            "event_type": check_name("wait.event_type", kind.event_type),
            "key": check_name("wait.key", kind.key),
            "ordinal": check_count("wait.ordinal", kind.ordinal),
        },
        "since_ms": check_time("wait.since_ms", wait.since_ms),
    }


def check_signal(name: str) -> str:
    """Return `name` if a signal may have it: ASCII letters, digits, ``_`` and ``-`` (P-EVENT-9)."""
    checked = check_name("signal", name)
    if not _SIGNAL_NAME.fullmatch(checked):
        raise InvalidRecordError(
            "signal", ascii(name), "is made of ASCII letters, digits, _ and - only"
        )
    return checked


def signal_event_type(name: str) -> str:
    """Return the event type by which the signal `name` comes (P-EVENT-9)."""
    return f"signal.{check_signal(name)}"


def signal_wait(process_id: str, name: str, *, ordinal: int, since_ms: int) -> ProcessWait:
    """Make the wait of a process for the `ordinal`-th signal of one name (P-EVENT-9)."""
    event_type = signal_event_type(name)
    number = check_count("ordinal", ordinal)
    key = f"process:{check_name('process_id', process_id)}:{event_type}:{number}"
    return ProcessWait(
        SignalWait(check_signal(name), event_type, key, number),
        check_time("since_ms", since_ms),
    )


def _check_end(status: ProcessStatus) -> None:
    if (status.state == RUNNING) != (status.await_output is None):
        raise ValueError(f"a status that is {status.state} {status.await_output!r}")
