"""The records of processes."""

from collections.abc import Iterable
from typing import TypedDict

from lash_store._kernel.checks import (
    bound,
    check_choice,
    check_kind,
    check_name,
    check_names,
    check_text,
    check_time,
)
from lash_store._kernel.codecs import encode_raw, stable_hash
from lash_store._kernel.locks import locked_by
from lash_store._stores.tx import Context
from lash_store._wire.inputs import definition_arguments
from lash_store._wire.origins import Originator, written_originator
from lash_store.errors import (
    CorruptRecordError,
    IdempotencyConflictError,
    NotFoundError,
    ProcessEndedError,
)
from lash_store.process import statements
from lash_store.process.context import Tx, Work
from lash_store.process.records.processes import (
    RUNNING,
    STATES,
    ExternalRef,
    ProcessFilter,
    ProcessRecord,
    ProcessRegistration,
    ProcessWait,
    State,
    read_members,
    read_record,
    revised,
    written_external_ref,
    written_record,
    written_registration,
    written_wait,
)
from lash_store.process.tables import processes

_MANY = 10_000
"""Up to here a page sorts all that have its status; with more, it reads the ids in their order until
it is full: 10,000 too where one in a hundred of a million has it."""


def register_process(_: Context, registration: ProcessRegistration) -> Work[ProcessRecord]:
    """Register a process, or return the record as it stands if it is registered (P-REG).

    The same registration may be sent any number of times. Raises InvalidRecordError for
    what P-REG-2 refuses, before anything is written, and IdempotencyConflictError if the id
    is registered with other content.
    """
    prepared = written_registration(registration)
    process_id, prepared_hash = check_name("id", registration.id), stable_hash(prepared)
    owner_scope_id = registration.provenance.originator.scope_id

    def register(tx: Tx) -> ProcessRecord:
        record_json = written_record(prepared, prepared_hash, tx.now_ms)
        added = statements.register_process.run(
            tx.own_cursor,
            process_id=process_id,
            registration_hash=prepared_hash,
            owner_scope_id=owner_scope_id,
            now_ms=tx.now_ms,
            status=RUNNING,
            record_json=record_json,
        )
        if not added:
            status, stored_hash, record_json = _row_of(tx, process_id)
            if stored_hash != prepared_hash:
                raise IdempotencyConflictError("process", process_id, stored_hash, prepared_hash)
            return read_record(process_id, record_json, status)
        return read_record(process_id, record_json)

    return locked_by(register, process_id)


def load_process(_: Context, process_id: str) -> Work[ProcessRecord | None]:
    """Return a process; None only if it is not registered (P-LIST-1)."""
    name = check_name("process_id", process_id)

    def load(tx: Tx) -> ProcessRecord | None:
        row = statements.load_process.one(tx.own_cursor, process_id=name)
        return None if row is None else read_record(name, row[2], row[0])

    return load


def list_processes(
    _: Context,
    *,
    state: State | None = RUNNING,
    matching: ProcessFilter | None = None,
    after: str = "",
    limit: int = 100,
) -> Work[list[ProcessRecord]]:
    """Return a page of the processes in one state, or in any if it is None (P-LIST-1).

    By process id, from behind `after`: pass the last one's id for the next page. Filtered
    in SQL. Raises InvalidRecordError for a bad state, filter or bound.
    """
    if state is not None:
        check_choice("state", state, STATES)
    given = filter_arguments(matching)
    everything = all(each is None for each in given.values())
    after_process_id, up_to = check_text("after", after), bound("limit", limit)

    def list_page(tx: Tx) -> list[ProcessRecord]:
        cursor = tx.own_cursor
        # Of many with one status the page's rows are near in the order of ids; of few, or of those
        # that a filter leaves, they may be anywhere.
        if state is None or (everything and _are_many(tx, state)):
            rows = statements.list_processes.all(
                cursor, status=state, after_process_id=after_process_id, limit=up_to, **given
            )
        else:
            rows = statements.list_status.all(
                cursor, status=state, after_process_id=after_process_id, limit=up_to, **given
            )
        return [read_record(*row) for row in rows]

    return list_page


def set_external_ref(_: Context, process_id: str, ref: ExternalRef) -> Work[ProcessRecord]:
    """Note what a process is called outside, in place of what was noted before (P-REG-4).

    Raises NotFoundError for an unknown process, InvalidRecordError for a bad reference.
    """
    written = encode_raw(written_external_ref(ref))
    name = check_name("process_id", process_id)

    def note(tx: Tx) -> ProcessRecord:
        status, _, record_json = _row_of(tx, name)
        return _revise(tx, name, status, record_json, external_ref=written)

    return locked_by(note, name)


def set_wait(_: Context, process_id: str, wait: ProcessWait) -> Work[ProcessRecord]:
    """Note what a process waits for; ``signal_wait`` makes one (P-REG-4).

    Raises NotFoundError for an unknown process, ProcessEndedError for one that has ended,
    InvalidRecordError for a bad wait.
    """
    written = encode_raw(written_wait(wait))
    name = check_name("process_id", process_id)

    def note(tx: Tx) -> ProcessRecord:
        status, _, record_json = _row_of(tx, name)
        if status != RUNNING:
            raise ProcessEndedError(name, status)
        return _revise(tx, name, status, record_json, wait=written)

    return locked_by(note, name)


def clear_wait(_: Context, process_id: str) -> Work[ProcessRecord]:
    """Note that a process waits no more; harmless if it did not (P-REG-4).

    Raises NotFoundError for an unknown process.
    """
    name = check_name("process_id", process_id)

    def clear(tx: Tx) -> ProcessRecord:
        status, _, record_json = _row_of(tx, name)
        return _revise(tx, name, status, record_json, wait=None)

    return locked_by(clear, name)


def known_processes(_: Context, process_ids: Iterable[str]) -> Work[set[str]]:
    """Return those of the ids that are registered, whatever became of them."""
    names = check_names("process_ids", process_ids)

    listed = [name for name in names if "\0" not in name]  # a list of texts has none with one
    others = [name for name in names if "\0" in name]

    def find(tx: Tx) -> set[str]:
        cursor = tx.own_cursor
        known = {row[0] for row in statements.known_processes.all(cursor, process_ids=listed)}
        found = (statements.process_status.one(cursor, process_id=name) for name in others)
        return known.union(name for name, row in zip(others, found, strict=True) if row is not None)

    return find


def require_process(_: Context, process_id: str) -> Work[str]:
    """Return whether a process runs or how it ended; NotFoundError if it is not registered."""
    name = check_name("process_id", process_id)
    return lambda tx: state_of(tx, name)


def state_of(tx: Tx, process_id: str) -> str:
    """Read whether a process runs or how it ended; NotFoundError if it is not registered."""
    row = statements.process_status.one(tx.own_cursor, process_id=process_id)
    if row is None:
        raise NotFoundError("process", process_id)
    return row[0]


def write_record(
    tx: Tx, process_id: str, status: str, record_json: str, *, updated_at_ms: int
) -> None:
    """Write a record and what is projected from it."""
    tx.touch(process_id)
    written = statements.update_process.run(
        tx.own_cursor,
        process_id=process_id,
        status=status,
        updated_at_ms=updated_at_ms,
        record_json=record_json,
    )
    if written != 1:
        raise CorruptRecordError(processes.name, process_id, f"{written} rows were updated")


def _are_many(tx: Tx, status: str) -> bool:
    counted = statements.count_status.one(tx.own_cursor, status=status, up_to=_MANY)
    return counted == (_MANY,)


def _row_of(tx: Tx, process_id: str) -> tuple[str, str, str]:
    row = statements.load_process.one(tx.own_cursor, process_id=process_id)
    if row is None:
        raise NotFoundError("process", process_id)
    return row


def _revise(
    tx: Tx, process_id: str, status: str, record_json: str, **changes: object
) -> ProcessRecord:
    members = read_members(process_id, record_json)
    changed = revised(members, updated_at_ms=tx.now_ms, **changes)
    record = read_record(process_id, changed, status)  # before it is written: it may be corrupt
    write_record(tx, process_id, status, changed, updated_at_ms=tx.now_ms)
    return record


class FilterArguments(TypedDict):
    """A filter, as the statements take it."""

    waiting: int | None
    definition: str | None
    definition_json: str | None
    owner_scope_id: str | None
    created_before_ms: int | None


def filter_arguments(matching: ProcessFilter | None) -> FilterArguments:
    """Check a filter and return what the statements take."""
    given = ProcessFilter() if matching is None else matching
    check_kind("matching", given, ProcessFilter)
    if given.waiting is not None:
        check_kind("matching.waiting", given.waiting, bool)
    before = given.created_before_ms
    return {
        "waiting": None if given.waiting is None else int(given.waiting),
        **definition_arguments("matching.definition", given.definition),
        "owner_scope_id": _scope_id(given.originator),
        "created_before_ms": None if before is None else check_time("created_before_ms", before),
    }


def _scope_id(originator: Originator | None) -> str | None:
    if originator is None:
        return None
    written_originator("matching.originator", originator)
    return originator.scope_id
