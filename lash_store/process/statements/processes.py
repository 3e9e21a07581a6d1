"""Statements on the records of processes."""

from sqlalchemy import (
    ColumnElement,
    Delete,
    Insert,
    Select,
    Update,
    and_,
    case,
    delete,
    exists,
    func,
    not_,
    select,
    update,
)

from lash_store._kernel.dialects import (
    IsNoJson,
    JsonText,
    OnOneRow,
    is_null_or,
    is_one_of,
    upsert_insert,
)
from lash_store._kernel.prepared import prepare
from lash_store._wire.filters import is_defined_by
from lash_store.process.statements.events import is_pending_wake
from lash_store.process.tables import PROCESS_LEASES, process_events, process_leases, processes

_processes = processes.c
_RUNNING = "running"


@prepare
def select_processes() -> Select[str, str, str, int, str]:
    """Every process: id, owner's scope id, status, created-at, record_json; to filter and page."""
    return select(
        _processes.process_id,
        _processes.owner_scope_id,
        _processes.status,
        _processes.created_at_ms,
        _processes.record_json,
    )


@prepare
def load_process(*, process_id: str) -> Select[str, str, str]:
    """Read one process: status, registration hash and record_json."""
    columns = (_processes.status, _processes.registration_hash, _processes.record_json)
    return select(*columns).where(_processes.process_id == process_id)


@prepare
def process_status(*, process_id: str) -> Select[str]:
    """Read whether a process runs or how it ended, and no more."""
    return select(_processes.status).where(_processes.process_id == process_id)


@prepare
def known_processes(*, process_ids: list[str]) -> Select[str]:
    """Read which of a list of ids are registered."""
    name = _processes.process_id
    return select(name).where(is_one_of(name, process_ids))


@prepare
def load_standing(*, process_id: str) -> Select[str, str, int]:
    """Read a process as an append finds it: status, record_json, its highest sequence or 0."""
    highest = (
        select(func.coalesce(func.max(process_events.c.sequence), 0))
        .where(process_events.c.process_id == process_id)
        .scalar_subquery()
    )
    columns = (_processes.status, _processes.record_json, highest.label("highest_sequence"))
    return select(*columns).where(_processes.process_id == process_id)


@prepare
def register_process(
    *,
    process_id: str,
    registration_hash: str,
    owner_scope_id: str,
    now_ms: int,
    status: str,
    record_json: str,
) -> Insert:
    """Store a process; no row changes if its id is there (P-REG-3)."""
    fresh = upsert_insert(processes).values(
        process_id=process_id,
        registration_hash=registration_hash,
        owner_scope_id=owner_scope_id,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        status=status,
        record_json=record_json,
    )
    return fresh.on_conflict_do_nothing(index_elements=[_processes.process_id])


@prepare
def update_process(*, process_id: str, status: str, updated_at_ms: int, record_json: str) -> Update:
    """Write a record and what is projected from it, in one statement (P-REC-3)."""
    changed = update(processes).where(_processes.process_id == process_id)
    return changed.values(status=status, updated_at_ms=updated_at_ms, record_json=record_json)


@prepare
def list_processes(
    *,
    status: str | None = None,
    waiting: int | None = None,
    definition: str | None = None,
    definition_json: str | None = None,
    owner_scope_id: str | None = None,
    created_before_ms: int | None = None,
    after_process_id: str,
    limit: int,
) -> Select[str, str, str]:
    """Read a page of the processes, by id: id, record_json and status (P-LIST-1).

    None filters by nothing. `waiting` is 0 or 1; `definition` is one that is a text,
    `definition_json` the compact JSON of an object or array.
    """
    page = _page(after_process_id=after_process_id, limit=limit)
    return page.where(
        is_null_or(status, lambda given: _processes.status == given),
        _matches(waiting, definition, definition_json, owner_scope_id, created_before_ms),
    )


@prepare
def list_status(
    *,
    status: str,
    waiting: int | None = None,
    definition: str | None = None,
    definition_json: str | None = None,
    owner_scope_id: str | None = None,
    created_before_ms: int | None = None,
    after_process_id: str,
    limit: int,
) -> Select[str, str, str]:
    """Read what ``list_processes`` reads of one status, by the index of the status.

    It reads, and sorts, all that have it, for each page; ``list_processes`` reads what lies between.
    """
    page = _page(after_process_id=after_process_id, limit=limit)
    return page.where(
        OnOneRow(_processes.status == status),
        _matches(waiting, definition, definition_json, owner_scope_id, created_before_ms),
    )


@prepare
def count_status(*, status: str, up_to: int) -> Select[int]:
    """Count the processes in a status, and no further than `up_to`."""
    first = select(_processes.status).where(_processes.status == status).limit(up_to)
    return select(func.count().label("processes")).select_from(first.subquery("found"))


@prepare
def old_processes(
    *, updated_before_ms: int, after_process_id: str, limit: int
) -> Select[str, str, str, int]:
    """Read a page of the processes that ended before a time, by id (P-RET-1).

    Id, record_json, status, and 1 if it has a wake that nobody has acknowledged.
    """
    wakes = exists().where(process_events.c.process_id == _processes.process_id, is_pending_wake())
    return (
        select(
            _processes.process_id,
            _processes.record_json,
            _processes.status,
            case((wakes, 1), else_=0).label("wakes"),
        )
        .where(
            _processes.process_id > after_process_id,
            _processes.status != _RUNNING,
            _processes.updated_at_ms < updated_before_ms,
        )
        .order_by(_processes.process_id)
        .limit(limit)
    )


@prepare
def delete_process(*, process_id: str) -> Delete:
    """Remove a process and all that is kept of it, where foreign keys are enforced: ``configure()`` has them so."""
    return delete(processes).where(_processes.process_id == process_id)


@prepare
def next_claimable(
    *,
    now_ms: int,
    waiting: int | None = None,
    definition: str | None = None,
    definition_json: str | None = None,
    owner_scope_id: str | None = None,
    created_before_ms: int | None = None,
) -> Select[str, str]:
    """Read the oldest running process without a live lease: id and record_json (P-LEASE-3)."""
    return (
        select(_processes.process_id, _processes.record_json)
        .join(process_leases, isouter=True)
        .where(
            _processes.status == _RUNNING,
            # A process that was never claimed has no lease row at all: its token is NULL too.
            PROCESS_LEASES.is_free(now_ms=now_ms),
            _matches(waiting, definition, definition_json, owner_scope_id, created_before_ms),
        )
        .order_by(_processes.created_at_ms, _processes.process_id)
        .limit(1)
    )


@prepare
def claimable_process(
    *,
    process_id: str,
    now_ms: int,
    waiting: int | None = None,
    definition: str | None = None,
    definition_json: str | None = None,
    owner_scope_id: str | None = None,
    created_before_ms: int | None = None,
) -> Select[str, str]:
    """Read one process if it is such a one: for who has its lock, and saw it before it had that."""
    found = next_claimable(
        now_ms=now_ms,
        waiting=waiting,
        definition=definition,
        definition_json=definition_json,
        owner_scope_id=owner_scope_id,
        created_before_ms=created_before_ms,
    )
    return found.where(_processes.process_id == process_id)


@prepare
def lock_claimable(
    *,
    now_ms: int,
    waiting: int | None = None,
    definition: str | None = None,
    definition_json: str | None = None,
    owner_scope_id: str | None = None,
    created_before_ms: int | None = None,
) -> Select[str, str]:
    """Read the same, and lock its row where rows have locks: who comes meanwhile passes over it.

    But not against who refers to it: a lease that is being claimed by its id would wait for this
    one, and this one for that.
    """
    found = next_claimable(
        now_ms=now_ms,
        waiting=waiting,
        definition=definition,
        definition_json=definition_json,
        owner_scope_id=owner_scope_id,
        created_before_ms=created_before_ms,
    )
    return found.with_for_update(of=processes, skip_locked=True, key_share=True)


@prepare
def claimable_besides(
    *,
    passed: list[str],
    now_ms: int,
    waiting: int | None = None,
    definition: str | None = None,
    definition_json: str | None = None,
    owner_scope_id: str | None = None,
    created_before_ms: int | None = None,
) -> Select[str, str]:
    """Read the oldest such process that is not `passed` over, whoever is at its row."""
    found = next_claimable(
        now_ms=now_ms,
        waiting=waiting,
        definition=definition,
        definition_json=definition_json,
        owner_scope_id=owner_scope_id,
        created_before_ms=created_before_ms,
    )
    return found.where(not_(is_one_of(_processes.process_id, passed)))


def matches_filter(
    *,
    waiting: int | None = None,
    definition: str | None = None,
    definition_json: str | None = None,
    owner_scope_id: str | None = None,
    created_before_ms: int | None = None,
) -> ColumnElement[bool]:
    """A condition on ``processes``: each argument that is not NULL has to match."""
    return _matches(waiting, definition, definition_json, owner_scope_id, created_before_ms)


def _matches(
    waiting: int | None,
    definition: str | None,
    definition_json: str | None,
    owner_scope_id: str | None,
    created_before_ms: int | None,
) -> ColumnElement[bool]:
    wait = JsonText(_processes.record_json, "wait")
    # What can't be read may match: whoever reads it says so.
    broken = IsNoJson(_processes.record_json)
    return and_(
        is_null_or(waiting, lambda given: case((wait.is_(None), 0), else_=1) == given, broken),
        is_defined_by(definition, definition_json, _processes.record_json, "identity"),
        is_null_or(owner_scope_id, lambda given: _processes.owner_scope_id == given),
        is_null_or(created_before_ms, lambda given: _processes.created_at_ms < given),
    )


def targets_session(*, session_id: str) -> ColumnElement[bool]:
    """A condition on ``processes``: its wakes go to this session."""
    return JsonText(_processes.record_json, "wake_target", "session_id") == session_id


@prepare
def wake_targets(*, session_id: str) -> Select[str, str, str]:
    """Read the processes whose wakes go to a session: id, status, record_json (P-GRANT-2).

    SQLite looks into every record; only those that match are handed out.
    """
    columns = (_processes.process_id, _processes.status, _processes.record_json)
    return select(*columns).where(targets_session(session_id=session_id))


def _page(*, after_process_id: str, limit: int) -> Select[str, str, str]:
    return (
        select(_processes.process_id, _processes.record_json, _processes.status)
        .where(_processes.process_id > after_process_id)
        .order_by(_processes.process_id)
        .limit(limit)
    )
