"""The wakes among the events of processes: those that nobody has acknowledged."""

from lash_store._kernel.checks import bound, check_name, check_pair, check_text
from lash_store._kernel.locks import locked_by
from lash_store._stores.tx import Context
from lash_store.errors import NotFoundError
from lash_store.process import statements
from lash_store.process.context import Tx, Work
from lash_store.process.operations.events import events_of
from lash_store.process.operations.processes import state_of
from lash_store.process.records.events import PendingWake, ProcessEvent, delivery_of, read_event
from lash_store.process.records.plan import caused_by, wake_target
from lash_store.process.records.processes import read_members


def wake_events_after(
    _: Context, process_id: str, after_sequence: int = 0, *, limit: int = 1_000
) -> Work[list[ProcessEvent]]:
    """Return a page of the wakes of a process that nobody has acknowledged (P-EVENT-8).

    In order, from behind `after_sequence`. Raises NotFoundError for an unknown process.
    """
    name, after = check_name("process_id", process_id), bound("after_sequence", after_sequence)
    most = bound("limit", limit)

    def list_page(tx: Tx) -> list[ProcessEvent]:
        rows = statements.wake_events_after.all(
            tx.own_cursor, process_id=name, after_sequence=after, limit=most
        )
        return events_of(tx, name, rows)

    return list_page


def ack_wake(_: Context, process_id: str, sequence: int) -> Work[bool]:
    """Remember that a wake was delivered, so that it is not shown again (P-EVENT-8).

    True if this call acknowledged it, False if that was done before. Raises NotFoundError
    for an unknown process and for an event that is not there: the wake of an event still to
    come would never be shown.
    """
    number = bound("sequence", sequence)
    name = check_name("process_id", process_id)

    def acknowledge(tx: Tx) -> bool:
        state_of(tx, name)
        if statements.find_event.one(tx.own_cursor, process_id=name, sequence=number) is None:
            raise NotFoundError("event", f"{name}:{number}")
        return statements.ack_wake.run(tx.own_cursor, process_id=name, sequence=number) == 1

    return locked_by(acknowledge, name)


def pending_wakes(
    _: Context, *, after: tuple[str, int] = ("", 0), limit: int = 100
) -> Work[list[PendingWake]]:
    """Return a page of the wakes of all processes that nobody has acknowledged (P-EVENT-12).

    By process id and sequence, from behind `after`: pass those of the last one for the next
    page. Their deliveries go to the processes' wake targets as they are now. What a crash
    kept from being enqueued is among them: enqueue it, then ``ack_wake``.
    """
    process_id, sequence = check_pair("after", after)
    name, number = check_text("after", process_id), bound("after", sequence)
    most = bound("limit", limit)

    def list_page(tx: Tx) -> list[PendingWake]:
        rows = statements.pending_wakes.all(
            tx.own_cursor, after_process_id=name, after_sequence=number, limit=most
        )
        return [_pending_wake(*row) for row in rows]

    return list_page


def _pending_wake(process_id: str, sequence: int, event_json: str, record_json: str) -> PendingWake:
    event, members = (
        read_event(process_id, sequence, event_json),
        read_members(process_id, record_json),
    )
    target = wake_target(process_id, members)
    return PendingWake(event, delivery_of(event, target, caused_by(process_id, members)))
