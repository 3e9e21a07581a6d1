"""Statements on the event logs of processes, and on the wakes among their events."""

from sqlalchemy import ColumnElement, Insert, Select, and_, exists, func, insert, or_, select

from lash_store._kernel.dialects import upsert_insert
from lash_store._kernel.prepared import prepare
from lash_store.process.tables import (
    is_wake,
    process_events,
    process_wake_acks,
    processes,
)

_events = process_events.c


@prepare
def select_events() -> Select[str, int, str, int, str]:
    """Every event: process id, sequence, event type, occurred-at, event_json; to filter and page."""
    return select(
        _events.process_id,
        _events.sequence,
        _events.event_type,
        _events.occurred_at_ms,
        _events.event_json,
    )


@prepare
def append_event(
    *,
    process_id: str,
    sequence: int,
    event_type: str,
    payload_hash: str,
    replay_key: str | None,
    occurred_at_ms: int,
    event_json: str,
) -> Insert:
    """Add an event at the end of a process's log, which ends at `sequence` - 1 (P-EVENT-1)."""
    return insert(process_events).values(
        process_id=process_id,
        sequence=sequence,
        event_type=event_type,
        payload_hash=payload_hash,
        idempotency_key=replay_key,
        occurred_at_ms=occurred_at_ms,
        event_json=event_json,
    )


@prepare
def find_replay(*, process_id: str, replay_key: str) -> Select[int, str, str]:
    """Read the event under a replay key: sequence, payload hash, event_json (P-EVENT-3)."""
    columns = (_events.sequence, _events.payload_hash, _events.event_json)
    return select(*columns).where(
        _events.process_id == process_id, _events.idempotency_key == replay_key
    )


@prepare
def find_event(*, process_id: str, sequence: int) -> Select[int]:
    """Look whether an event is there."""
    return select(_events.sequence).where(
        _events.process_id == process_id, _events.sequence == sequence
    )


@prepare
def events_after(*, process_id: str, after_sequence: int, limit: int) -> Select[int, str]:
    """Read a page of a process's events in order, those behind a sequence (P-EVENT-8)."""
    return _log(process_id, after_sequence).order_by(_events.sequence).limit(limit)


@prepare
def recent_events(*, process_id: str, limit: int) -> Select[int, str]:
    """Read the newest events of a process, the newest first (P-EVENT-8)."""
    return _log(process_id, 0).order_by(_events.sequence.desc()).limit(limit)


@prepare
def count_through(*, process_id: str, event_type: str, through_sequence: int) -> Select[int]:
    """Count a process's events of one type up to a sequence, that one included (P-EVENT-8)."""
    return (
        select(func.count().label("events"))
        .select_from(process_events)
        .where(
            _events.process_id == process_id,
            _events.sequence <= through_sequence,
            _events.event_type == event_type,
        )
    )


@prepare
def first_event_after(*, process_id: str, event_type: str, after_sequence: int) -> Select[int, str]:
    """Read the first event of one type behind a sequence; others are not decoded (P-EVENT-9)."""
    of_type = _log(process_id, after_sequence).where(_events.event_type == event_type)
    return of_type.order_by(_events.sequence).limit(1)


@prepare
def highest_sequence(*, process_id: str) -> Select[int | None]:
    """Read the sequence of a process's newest event; NULL if it has none."""
    return select(func.max(_events.sequence).label("sequence")).where(
        _events.process_id == process_id
    )


@prepare
def log_standing(*, process_id: str) -> Select[int, str, int | None]:
    """Read which log a process has, by when and as what it was registered, and its newest event's sequence."""
    newest = (
        select(func.max(_events.sequence))
        .where(_events.process_id == process_id)
        .scalar_subquery()
        .label("sequence")
    )
    columns = (processes.c.created_at_ms, processes.c.registration_hash, newest)
    return select(*columns).where(processes.c.process_id == process_id)


def is_pending_wake() -> ColumnElement[bool]:
    """A condition on ``process_events``: the event woke somebody, and nobody has acknowledged it."""
    acknowledged = exists().where(
        process_wake_acks.c.process_id == _events.process_id,
        process_wake_acks.c.sequence == _events.sequence,
    )
    return and_(is_wake(), ~acknowledged)


@prepare
def wake_events_after(*, process_id: str, after_sequence: int, limit: int) -> Select[int, str]:
    """Read a page of the wakes of a process that nobody has acknowledged, in order (P-EVENT-8)."""
    pending = _log(process_id, after_sequence).where(is_pending_wake())
    return pending.order_by(_events.sequence).limit(limit)


@prepare
def pending_wakes(
    *, after_process_id: str, after_sequence: int, limit: int
) -> Select[str, int, str, str]:
    """Read a page of the wakes of all processes that nobody has acknowledged (P-EVENT-12).

    Process id, sequence, event_json and the process's record_json, by process and sequence.
    """
    return (
        select(_events.process_id, _events.sequence, _events.event_json, processes.c.record_json)
        .join(processes, processes.c.process_id == _events.process_id)
        .where(
            # The first part alone is what the primary key can be entered by.
            _events.process_id >= after_process_id,
            or_(_events.process_id > after_process_id, _events.sequence > after_sequence),
            is_pending_wake(),
        )
        .order_by(_events.process_id, _events.sequence)
        .limit(limit)
    )


@prepare
def ack_wake(*, process_id: str, sequence: int) -> Insert:
    """Remember that a wake was delivered; no row changes if that is known already."""
    fresh = upsert_insert(process_wake_acks).values(process_id=process_id, sequence=sequence)
    return fresh.on_conflict_do_nothing(
        index_elements=[process_wake_acks.c.process_id, process_wake_acks.c.sequence]
    )


def _log(process_id: str, after_sequence: int) -> Select[int, str]:
    return select(_events.sequence, _events.event_json).where(
        _events.process_id == process_id, _events.sequence > after_sequence
    )
