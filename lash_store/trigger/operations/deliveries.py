"""Occurrences and their deliveries."""

from collections.abc import Iterable
from functools import partial
from typing import Any

from lash_store._kernel.checks import (
    check_kind,
    check_name,
    check_names,
    check_text,
    check_time,
    page_size,
)
from lash_store._kernel.findings import answers
from lash_store._kernel.locks import locked_by
from lash_store._stores.tx import Context
from lash_store._wire.payloads import Problem, problem_of, schema_text
from lash_store._wire.retention import Pruned
from lash_store.errors import CorruptRecordError, IdempotencyConflictError, NotFoundError
from lash_store.trigger import statements
from lash_store.trigger.context import Tx, Work
from lash_store.trigger.operations.subscriptions import check_texts, readable
from lash_store.trigger.records.deliveries import (
    Delivery,
    DeliveryFilter,
    DeliveryPage,
    Mismatch,
    NewOccurrence,
    Occurrence,
    Reservations,
    UndecodableOccurrence,
    new_occurrence,
    process_id_of,
    read_occurrence,
    written_occurrence,
)
from lash_store.trigger.records.subscriptions import Subscription, Undecodable


def record_occurrence(
    _: Context,
    source_type: str,
    source_key: str,
    payload: Any = None,
    *,
    idempotency_key: str,
    source: Any = None,
) -> Work[Occurrence]:
    """Record that something occurred, once per idempotency key (T-OCC-1).

    `payload` and `source` are JSON. The same again returns what was recorded first. Reserve its
    deliveries in the same ``begin()``, or record it again after a crash: an occurrence that
    nobody has reserved for waits for nobody. Raises
    IdempotencyConflictError if the key was used for anything else, InvalidRecordError for a
    blank text or what is no JSON.
    """
    new = new_occurrence(source_type, source_key, payload, idempotency_key, source)

    def record(tx: Tx) -> Occurrence:
        record_json = written_occurrence(new, tx.now_ms)
        added = statements.record_occurrence.run(
            tx.own_cursor,
            occurrence_id=new.occurrence_id,
            idempotency_key=new.members["idempotency_key"],
            request_hash=new.request_hash,
            source_type=new.members["source_type"],
            source_key=new.members["source_key"],
            now_ms=tx.now_ms,
            record_json=record_json,
        )
        return read_occurrence(new.occurrence_id, record_json) if added else _recorded(tx, new)

    return locked_by(record, "key", new.members["idempotency_key"])


def load_occurrence(_: Context, occurrence_id: str) -> Work[Occurrence | None]:
    """Return an occurrence; None only if there is none of this id."""
    name = check_name("occurrence_id", occurrence_id)

    def load(tx: Tx) -> Occurrence | None:
        row = statements.load_occurrence.one(tx.own_cursor, occurrence_id=name)
        return None if row is None else read_occurrence(name, row[0])

    return load


def reserve_deliveries(context: Context, occurrence_id: str) -> Work[Reservations]:
    """Reserve a process for every enabled subscription that the occurrence matches (T-DEL-1).

    Returns the newly reserved: of several reservers, each delivery comes to exactly one,
    and none again. The payload is checked against each subscription's schema first (T-DEL-3).
    Raises NotFoundError for an unknown occurrence.
    """
    occurrence_id = check_name("occurrence_id", occurrence_id)
    require, seen = _requiring(context, occurrence_id), _Seen()

    def reserve(tx: Tx) -> Reservations:
        return _reserve(tx, require(tx), seen)

    return locked_by(reserve, "occurrence", occurrence_id)


def redeliver(context: Context, occurrence_id: str) -> Work[Reservations]:
    """Like ``reserve_deliveries``, but return those that were reserved before as well (T-DEL-2).

    For a caller who does not know how far the last one came: starting a process twice is
    harmless.
    """
    occurrence_id = check_name("occurrence_id", occurrence_id)
    require, seen = _requiring(context, occurrence_id), _Seen()

    def reserve_and_list(tx: Tx) -> Reservations:
        occurrence = require(tx)
        with tx.all_or_nothing():
            return _redeliver(tx, occurrence, seen)

    return locked_by(reserve_and_list, "occurrence", occurrence_id)


def list_deliveries(
    _: Context,
    matching: DeliveryFilter | None = None,
    *,
    after: tuple[str, str] = ("", ""),
    limit: int = 100,
) -> Work[DeliveryPage]:
    """Return a page of deliveries by (occurrence id, subscription id) (T-DEL-2).

    Pass the page's `after` for the next one. A subscription or an occurrence that can't be
    decoded is reported beside the list. Raises InvalidRecordError for a bad filter or bound.
    """
    after_occurrence_id, after_subscription_id = check_texts("after", after)
    most = page_size("limit", limit)
    given = _filter_arguments(DeliveryFilter() if matching is None else matching)

    statement: Any = statements.list_deliveries
    if given["process_id"] is not None:
        statement = statements.list_process
    elif given["occurrence_id"] is not None:
        statement = statements.list_occurrence

    def list_page(tx: Tx) -> DeliveryPage:
        rows = statement.all_leniently(
            tx.own_cursor,
            **given,
            after_occurrence_id=after_occurrence_id,
            after_subscription_id=after_subscription_id,
            limit=most,
        )
        deliveries: list[Delivery] = []
        undecodable: list[Undecodable] = []
        occurrences: dict[str, Occurrence | UndecodableOccurrence] = {}
        for occurrence_id, subscription_id, process_id, created, occurred, handle, text in rows:
            if occurrence_id not in occurrences:
                occurrences[occurrence_id] = _readable_occurrence(occurrence_id, occurred)
            occurrence = occurrences[occurrence_id]
            read = readable(subscription_id, handle, text)
            if isinstance(read, Undecodable):
                undecodable.append(read)
            elif isinstance(occurrence, Occurrence):
                deliveries.append(Delivery(occurrence, read, process_id, created))
        last = (rows[-1][0], rows[-1][1]) if rows else (after_occurrence_id, after_subscription_id)
        unread = [each for each in occurrences.values() if isinstance(each, UndecodableOccurrence)]
        behind = last if len(rows) == most else None
        return DeliveryPage(tuple(deliveries), tuple(undecodable), behind, tuple(unread))

    return list_page


def list_reserved_processes(
    _: Context, occurred_before_ms: int, *, after: str = "", limit: int = 1_000
) -> Work[list[str]]:
    """Return the ids of the processes reserved for the batch that such a pruning looks at.

    The arguments are those of ``prune_occurrences``, to which the caller then says which of
    these processes are started.
    """
    find_old = _finding_old(occurred_before_ms, after, limit)
    return lambda tx: [process_id for reserved in find_old(tx).values() for process_id in reserved]


def prune_occurrences(
    _: Context,
    occurred_before_ms: int,
    *,
    started: Iterable[str] = (),
    after: str = "",
    limit: int = 1_000,
) -> Work[Pruned]:
    """Remove old occurrences whose deliveries are all started, one batch (T-RET-1).

    `occurred_before_ms` is exclusive, milliseconds since the epoch. `started` are the ids of
    the processes that the caller knows to be started; an occurrence without deliveries needs
    none. At most `limit` occurrences are looked at, by id, from behind `after`. What is
    removed is forgotten: the same idempotency key would record it anew, under the same id, and
    reserve processes that were started long ago. So keep what may still be sent again.
    """
    known = frozenset(check_names("started", started))
    find_old = _finding_old(occurred_before_ms, after, limit)

    def prune(tx: Tx) -> Pruned:
        found, cursor = find_old(tx), tx.own_cursor
        over = [
            statements.delete_occurrence.bind(cursor, occurrence_id=occurrence_id)
            for occurrence_id, reserved in found.items()
            if known.issuperset(reserved)
        ]
        with tx.all_or_nothing():
            removed = statements.delete_occurrence.many(cursor, over) if over else 0
        last = next(reversed(found), after)
        return Pruned(removed, len(found), last if len(found) == limit else None)

    return prune


def _readable_occurrence(occurrence_id: str, text: str) -> Occurrence | UndecodableOccurrence:
    try:
        return read_occurrence(occurrence_id, text)
    except CorruptRecordError as error:
        return UndecodableOccurrence(occurrence_id, error.cause)


def _recorded(tx: Tx, new: NewOccurrence) -> Occurrence:
    """Read what was recorded under a key before; IdempotencyConflictError if it is another."""
    idempotency_key = new.members["idempotency_key"]
    row = statements.find_occurrence.one(tx.own_cursor, idempotency_key=idempotency_key)
    if row is None:
        raise NotFoundError("occurrence", new.occurrence_id)
    occurrence_id, stored_hash, stored_json = row
    if stored_hash != new.request_hash:
        raise IdempotencyConflictError("occurrence", idempotency_key, stored_hash, new.request_hash)
    return read_occurrence(occurrence_id, stored_json)


def _requiring(context: Context, occurrence_id: str) -> Work[Occurrence]:
    load = load_occurrence(context, occurrence_id)

    def require(tx: Tx) -> Occurrence:
        occurrence = load(tx)
        if occurrence is None:
            raise NotFoundError("occurrence", occurrence_id)
        return occurrence

    return require


def _finding_old(occurred_before_ms: int, after: str, limit: int) -> Work[dict[str, list[str]]]:
    """Read a batch of old occurrences by id, each with the processes that were reserved for it."""
    before = check_time("occurred_before_ms", occurred_before_ms)
    behind, most = check_text("after", after), page_size("limit", limit)

    def find(tx: Tx) -> dict[str, list[str]]:
        batch: Any = {"occurred_before_ms": before, "after_occurrence_id": behind}
        rows = statements.old_occurrences.all(tx.own_cursor, **batch, limit=most)
        found: dict[str, list[str]] = {name: [] for (name,) in rows}
        if rows:
            for name, process_id in statements.reserved_processes.all(
                tx.own_cursor, **batch, last_occurrence_id=rows[-1][0]
            ):
                found[name].append(process_id)
        return found

    return find


class _Seen:
    """What a reservation has read and found out, if it is to be run again (K-TX-15)."""

    def __init__(self) -> None:
        self.problems: dict[str, Problem | None] = {}
        """What the schemas say of the occurrence's payload."""

        self._rows: list[tuple[str, str, str]] = []
        self._read: list[tuple[Subscription | Undecodable, str | None]] = []

    def read(
        self, rows: list[tuple[str, str, str]]
    ) -> list[tuple[Subscription | Undecodable, str | None]]:
        """Read subscriptions, once; each with its schema if that needs a look."""
        if rows != self._rows:
            self._rows, self._read = rows, [_with_schema(readable(*row)) for row in rows]
        return self._read


def _with_schema(
    read: Subscription | Undecodable,
) -> tuple[Subscription | Undecodable, str | None]:
    if isinstance(read, Undecodable):
        return read, None
    return read, schema_text(read.payload_schema.schema)


def _reserve(tx: Tx, occurrence: Occurrence, seen: _Seen) -> Reservations:
    now_ms, occurrence_id = tx.now_ms, occurrence.occurrence_id
    deliveries: list[Delivery] = []
    mismatches: list[Mismatch] = []
    undecodable: list[Undecodable] = []
    rows = statements.matching_subscriptions.all_leniently(
        tx.own_cursor,
        occurrence_id=occurrence_id,
        source_type=occurrence.source_type,
        source_key=occurrence.source_key,
    )
    found = seen.read(rows)
    schemas = {schema for _, schema in found if schema is not None}
    find = partial(problem_of, payload=occurrence.payload)
    problems = answers(tx, seen.problems, find, schemas)
    for read, schema in found:
        problem = None if schema is None else problems[schema]
        if isinstance(read, Undecodable):
            undecodable.append(read)
        elif problem is None:
            process_id = process_id_of(occurrence_id, read.subscription_id)
            deliveries.append(Delivery(occurrence, read, process_id, now_ms))
        else:
            unusable = "its payload_schema can't be used: " if problem.of_schema else ""
            mismatches.append(Mismatch(read, unusable + problem.text))
    cursor = tx.own_cursor
    reserved = [
        statements.reserve_delivery.bind(
            cursor,
            occurrence_id=occurrence_id,
            subscription_id=delivery.subscription.subscription_id,
            process_id=delivery.process_id,
            now_ms=now_ms,
        )
        for delivery in deliveries
    ]
    with tx.all_or_nothing():
        statements.reserve_delivery.many(tx.own_cursor, reserved)
    return Reservations(tuple(deliveries), tuple(mismatches), tuple(undecodable))


def _redeliver(tx: Tx, occurrence: Occurrence, seen: _Seen) -> Reservations:
    reserved = _reserve(tx, occurrence, seen)
    undecodable = {each.subscription_id: each for each in reserved.undecodable}
    deliveries = []
    rows = statements.deliveries_of.all_leniently(
        tx.own_cursor, occurrence_id=occurrence.occurrence_id
    )
    for subscription_id, handle, process_id, created_at_ms, record_json in rows:
        read = readable(subscription_id, handle, record_json)
        if isinstance(read, Undecodable):
            undecodable[subscription_id] = read
        else:
            deliveries.append(Delivery(occurrence, read, process_id, created_at_ms))
    return Reservations(tuple(deliveries), reserved.mismatches, tuple(undecodable.values()))


def _filter_arguments(matching: DeliveryFilter) -> Any:
    check_kind("matching", matching, DeliveryFilter)
    texts = {
        name: None if text is None else check_text(f"matching.{name}", text)
        for name, text in (
            ("occurrence_id", matching.occurrence_id),
            ("subscription_id", matching.subscription_id),
            ("process_id", matching.process_id),
        )
    }
    before = matching.created_before_ms
    return {
        **texts,
        "created_before_ms": None if before is None else check_time("created_before_ms", before),
    }
