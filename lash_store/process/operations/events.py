"""The event logs of processes."""

import re
from contextlib import nullcontext
from functools import partial
from typing import Any, Final

import msgspec

from lash_store._kernel.checks import bound, check_message, check_name
from lash_store._kernel.codecs import encode_raw, free_json, on_any_stack, read_as, stable_hash
from lash_store._kernel.findings import answers
from lash_store._kernel.leases import check_fence
from lash_store._kernel.locks import locked_by
from lash_store._stores.tx import Context
from lash_store._wire.events import CANCEL_REQUESTED
from lash_store._wire.origins import Scope, written_scope
from lash_store._wire.payloads import Problem
from lash_store.errors import InvalidRecordError, LeaseLostError, NotFoundError
from lash_store.process import statements
from lash_store.process.context import Tx, Work
from lash_store.process.operations.leases import LEASES
from lash_store.process.operations.processes import state_of, write_record
from lash_store.process.records.events import (
    Appended,
    Completed,
    ProcessEvent,
    read_event,
)
from lash_store.process.records.leases import ProcessFence
from lash_store.process.records.outputs import AROUND_OUTPUT, AwaitOutput, end_state, written_output
from lash_store.process.records.plan import (
    KnownEvent,
    NewEvent,
    Replay,
    Standing,
    Write,
    plan_append,
)
from lash_store.process.records.processes import RUNNING, read_members, read_record
from lash_store.process.tables import process_events

_schemas_lately: Final[dict[tuple[str, str], str]] = {}
"""What schema an event type of a process had in its last append, most likely the next one's as well; and, for one
that is new, what that type had in any process, under no process's name."""

_TAKES_ITS_TIME: Final = re.compile(r'"(?:pattern|patternProperties|\$ref|\$dynamicRef)"')
"""What one process's schema may ask for, and no other process has to wait for."""

_MANY: Final = 1_024
_LARGE: Final = 1_024
"""From how many bytes of payload on nobody finds out on a caller's thread, which may be a loop's, what
it may never need: a thousand items of which none may be there twice take a second to compare."""

_decode_payload = on_any_stack(msgspec.json.Decoder().decode)


def append_event(
    _: Context,
    process_id: str,
    event_type: str,
    payload: Any = None,
    *,
    replay_key: str | None = None,
    wake_target: Scope | None = None,
    fence: ProcessFence | None = None,
) -> Work[Appended]:
    """Append an event to a process's log (P-EVENT-1 to P-EVENT-7).

    `payload` is JSON. With a `replay_key` the event is appended once, however often it is
    sent. What it does beside being recorded is as its type was declared: it may end the
    process, and it may wake `wake_target`, or else the record's; ``pending_wakes`` goes by the record's alone. With a `fence` it is
    appended under that live term only (P-EVENT-11).

    Raises NotFoundError for an unknown process; LeaseLostError for a `fence` that is not
    live, except that an event which is there already is returned unless somebody else was
    given a later term; IdempotencyConflictError if the replay key has another payload;
    InvalidRecordError for an undeclared type, a missing replay key, a payload that does
    not fit or lacks what the declaration takes from it; ProcessEndedError for an end of a
    process that has ended. Nothing is written then.
    """
    new = _new_event(event_type, payload, replay_key, wake_target)
    name = check_name("process_id", process_id)
    append = _appending(name, new, fence)
    return locked_by(lambda tx: append(tx)[0], name)


def complete_process(
    _: Context,
    process_id: str,
    await_output: AwaitOutput,
    *,
    fence: ProcessFence | None = None,
) -> Work[Completed]:
    """End a process with what it gave (P-EVENT-10, P-EVENT-11).

    Success completes it, Failure fails it, Cancelled cancels it. Sent again with the same
    output, the result comes back and nothing else happens. With a `fence`, it is ended under
    that live term only, and the lease is released in the same transaction.

    Raises what ``append_event`` raises: IdempotencyConflictError for another output of the
    same kind, ProcessEndedError for another kind.
    """
    name = check_name("process_id", process_id)
    end = ending(name, await_output, fence)

    def complete(tx: Tx) -> Completed:
        with tx.all_or_nothing():
            appended, state, record_json = end(tx)
            record = read_record(name, record_json, state)
        return Completed(record, appended.event, appended.wake, appended.is_replay)

    return locked_by(complete, name)


def ending(
    process_id: str, await_output: AwaitOutput, fence: ProcessFence | None
) -> Work[tuple[Appended, str, str]]:
    """Do what ``complete_process`` does, for whoever undoes it if it fails; return its state and record_json too."""
    written = written_output(await_output)
    event_type = f"process.{end_state(await_output)}"
    replay_key = f"process:{process_id}:terminal:{event_type}"
    payload = {"await_output": _decode_payload(encode_raw(written))}
    new = _new_event(event_type, payload, replay_key, None, around=AROUND_OUTPUT)
    append = _appending(process_id, new, fence, ends=True)

    def end(tx: Tx) -> tuple[Appended, str, str]:
        ended = append(tx)
        if ended[0].event.semantics.terminal is None:
            raise InvalidRecordError(
                "event_type", event_type, f"process {process_id!r} declares that it ends nothing"
            )
        return ended

    return end


def request_cancel(_: Context, process_id: str, *, reason: str | None = None) -> Work[Appended]:
    """Ask for a process to be cancelled; asking again for the same reason is the same request.

    Whoever runs the process sees the event ``process.cancel_requested`` and ends it; nothing
    else happens by itself. Raises what ``append_event`` raises (P-EVENT-10).
    """
    payload = {"reason": None if reason is None else check_message("reason", reason)}
    digest = stable_hash([CANCEL_REQUESTED, payload])
    name = check_name("process_id", process_id)
    replay_key = f"process:{name}:cancel_requested:{digest}"
    append = _appending(name, _new_event(CANCEL_REQUESTED, payload, replay_key, None), None)
    return locked_by(lambda tx: append(tx)[0], name)


def events_after(
    _: Context, process_id: str, after_sequence: int = 0, *, limit: int = 1_000
) -> Work[list[ProcessEvent]]:
    """Return a page of a process's events in order, those behind `after_sequence` (P-EVENT-8).

    Pass the last one's sequence for the next page. Raises NotFoundError for an unknown
    process; a bound above 2**63-1 bounds nothing.
    """
    name, after = check_name("process_id", process_id), bound("after_sequence", after_sequence)
    most = bound("limit", limit)

    def list_page(tx: Tx) -> list[ProcessEvent]:
        rows = statements.events_after.all(
            tx.own_cursor, process_id=name, after_sequence=after, limit=most
        )
        return events_of(tx, name, rows)

    return list_page


def recent_events(_: Context, process_id: str, *, limit: int = 100) -> Work[list[ProcessEvent]]:
    """Return the newest `limit` events of a process, the oldest of them first (P-EVENT-8).

    Raises NotFoundError for an unknown process.
    """
    name, most = check_name("process_id", process_id), bound("limit", limit)

    def list_newest(tx: Tx) -> list[ProcessEvent]:
        rows = statements.recent_events.all(tx.own_cursor, process_id=name, limit=most)
        return events_of(tx, name, rows[::-1])

    return list_newest


def count_through(_: Context, process_id: str, event_type: str, through_sequence: int) -> Work[int]:
    """Count a process's events of one type up to and with a sequence (P-EVENT-8).

    Raises NotFoundError for an unknown process.
    """
    name, kind = check_name("process_id", process_id), check_name("event_type", event_type)
    through = bound("through_sequence", through_sequence)

    def count(tx: Tx) -> int:
        row = statements.count_through.one(
            tx.own_cursor, process_id=name, event_type=kind, through_sequence=through
        )
        found = 0 if row is None else row[0]
        if not found:
            state_of(tx, name)
        return found

    return count


def first_event_after(
    _: Context, process_id: str, event_type: str, after_sequence: int
) -> Work[ProcessEvent | None]:
    """Return the first event of one type behind a sequence; None if there is none yet."""
    name, kind = check_name("process_id", process_id), check_name("event_type", event_type)
    after = bound("after_sequence", after_sequence)

    def find(tx: Tx) -> ProcessEvent | None:
        row = statements.first_event_after.one(
            tx.own_cursor, process_id=name, event_type=kind, after_sequence=after
        )
        if row is None:
            state_of(tx, name)
            return None
        return read_event(name, *row)

    return find


def highest_sequence(_: Context, process_id: str) -> Work[int]:
    """Return the sequence of a process's newest event, 0 if it has none.

    Raises NotFoundError for an unknown process.
    """
    name = check_name("process_id", process_id)

    def find(tx: Tx) -> int:
        row = statements.highest_sequence.one(tx.own_cursor, process_id=name)
        if row is None or row[0] is None:
            state_of(tx, name)
            return 0
        return _read_sequence(name, row[0])

    return find


def _read_sequence(process_id: str, stored: object) -> int:
    return read_as(int, process_events.name, process_id, stored)


def _appending(
    process_id: str, new: NewEvent, fence: ProcessFence | None, *, ends: bool = False
) -> Work[tuple[Appended, str, str]]:
    """Append; return what that gave, and the process's state and record_json after it.

    What `ends` a process gives the lease of `fence` back as well.
    """
    if fence is not None:
        check_fence(fence, ProcessFence)
    expected = _schemas_lately.get((new.event_type, process_id)) or _schemas_lately.get(
        (new.event_type, "")
    )
    known_problems = {} if expected is None else _problems_in(expected, new)

    def append(tx: Tx) -> tuple[Appended, str, str]:
        row = statements.load_standing.one(tx.own_cursor, process_id=process_id)
        if row is None:
            raise NotFoundError("process", process_id)
        status, record_json, highest = row
        standing = Standing(
            process_id,
            read_members(process_id, record_json, status),
            status,
            _read_sequence(process_id, highest),
        )
        known = None if new.replay_key is None else _known(tx, process_id, new.replay_key)
        if fence is not None:
            # One that is refused writes nothing: the lease is given back by an end that is new, and can be.
            gives_back = ends and known is None and status == RUNNING
            _require_fence(tx, process_id, fence, new, known, ends=ends, gives_back=gives_back)
        plan = plan_append(
            standing,
            new,
            known,
            partial(_problem_in, tx, process_id, new, known_problems),
            now_ms=tx.now_ms,
        )
        if isinstance(plan, Replay):
            if plan.record_json is None or plan.state is None:
                return plan.appended, status, record_json
            at_ms = plan.appended.event.occurred_at_ms
            write_record(tx, process_id, plan.state, plan.record_json, updated_at_ms=at_ms)
            return plan.appended, plan.state, plan.record_json
        with nullcontext() if ends else tx.all_or_nothing():
            _write(tx, process_id, new, plan)
        return plan.appended, plan.state, plan.record_json

    return append


def _problems_in(expected: str, new: NewEvent) -> dict[str, Problem | None]:
    """Say what the schema that its type had last says of a payload: most likely it has it still.

    Which saves ending a transaction for it. Of a large payload nothing.
    """
    return {} if len(new.payload_json) > _LARGE else {expected: new.problem_in(expected)}


def _problem_in(
    tx: Tx, process_id: str, new: NewEvent, known: dict[str, Problem | None], schema_json: str
) -> Problem | None:
    """Say, in a transaction, why a payload does not fit a schema (K-TX-15)."""
    if len(_schemas_lately) > _MANY:
        _schemas_lately.clear()
    anybodys, is_slow = (new.event_type, ""), _TAKES_ITS_TIME.search(schema_json) is not None
    is_its_own = is_slow or _schemas_lately.get(anybodys, schema_json) != schema_json
    if is_its_own and len(schema_json) <= _LARGE:
        _schemas_lately[new.event_type, process_id] = schema_json
    if not is_slow:
        _schemas_lately[anybodys] = schema_json
    return answers(tx, known, new.problem_in, (schema_json,))[schema_json]


def _write(tx: Tx, process_id: str, new: NewEvent, plan: Write) -> None:
    now_ms = tx.now_ms
    statements.append_event.later(
        tx.own_cursor,
        process_id=process_id,
        sequence=plan.appended.event.sequence,
        event_type=new.event_type,
        payload_hash=new.payload_hash,
        replay_key=new.replay_key,
        occurred_at_ms=now_ms,
        event_json=plan.event_json,
    )
    write_record(tx, process_id, plan.state, plan.record_json, updated_at_ms=now_ms)


def _require_fence(
    tx: Tx,
    process_id: str,
    fence: ProcessFence,
    new: NewEvent,
    known: KnownEvent | None,
    *,
    ends: bool,
    gives_back: bool,
) -> None:
    if fence.process_id != process_id:
        raise LeaseLostError(fence, None, "never_claimed")
    if known is not None and known.payload_hash == new.payload_hash:
        LEASES.require_not_superseded(tx, fence)
        if ends:  # what the first try held on to is over as well
            LEASES.release(tx, fence)
    elif gives_back:
        LEASES.release_live(tx, fence)
    else:
        LEASES.require(tx, fence)


def _known(tx: Tx, process_id: str, replay_key: str) -> KnownEvent | None:
    row = statements.find_replay.one(tx.own_cursor, process_id=process_id, replay_key=replay_key)
    if row is None:
        return None
    sequence, payload_hash, event_json = row
    return KnownEvent(payload_hash, read_event(process_id, sequence, event_json))


def events_of(tx: Tx, process_id: str, rows: list[tuple[int, str]]) -> list[ProcessEvent]:
    """Build the events of a page; NotFoundError if it is empty since there is no such process."""
    if not rows:
        state_of(tx, process_id)
    return [read_event(process_id, sequence, text) for sequence, text in rows]


def _new_event(
    event_type: str,
    payload: Any,
    replay_key: str | None,
    target: Scope | None,
    *,
    around: int = 0,
) -> NewEvent:
    """Check what is to be appended, before anything is read."""
    event_type = check_name("event_type", event_type)
    payload_json = encode_raw(free_json("payload", payload, around=around))
    if target is not None:
        written_scope("wake_target", target)
    return NewEvent(
        event_type,
        payload_json,
        stable_hash([event_type, payload_json]),
        None if replay_key is None else check_name("replay_key", replay_key),
        target,
    )
