"""Occurrences and their deliveries, on an open transaction."""

from collections.abc import Iterable
from typing import Any

from lash_store._kernel.checks import (
    bound,
    check_count,
    check_kind,
    check_name,
    check_names,
    check_text,
)
from lash_store._stores.tx import Context, Tx
from lash_store.errors import IdempotencyConflictError, NotFoundError
from lash_store.trigger import statements
from lash_store.trigger.operations.subscriptions import check_texts, readable
from lash_store.trigger.records.deliveries import (
    Delivery,
    DeliveryFilter,
    DeliveryPage,
    Mismatch,
    Occurrence,
    Pruned,
    Reservations,
    new_occurrence,
    payload_problem,
    process_id_of,
    read_occurrence,
    written_occurrence,
)
from lash_store.trigger.records.subscriptions import Subscription, Undecodable


def record_occurrence(
    tx: Tx[Context],
    source_type: str,
    source_key: str,
    payload: Any = None,
    *,
    idempotency_key: str,
    source: Any = None,
) -> Occurrence:
    """Record that something occurred, once per idempotency key (T-OCC-1).

    `payload` and `source` are JSON. The same again returns what was recorded first. Reserve its
    deliveries in the same ``begin()``, or record it again after a crash: an occurrence that
    nobody has reserved for waits for nobody. Raises
    IdempotencyConflictError if the key was used for anything else, InvalidRecordError for a
    blank text or what is no JSON.
    """
    new = new_occurrence(source_type, source_key, payload, idempotency_key, source)
    record_json = written_occurrence(new, tx.now_ms)
    added = statements.record_occurrence.run(
        tx.cursor,
        occurrence_id=new.occurrence_id,
        idempotency_key=new.members["idempotency_key"],
        request_hash=new.request_hash,
        source_type=new.members["source_type"],
        source_key=new.members["source_key"],
        now_ms=tx.now_ms,
        record_json=record_json,
    )
    if added:
        return read_occurrence(new.occurrence_id, record_json)
    row = statements.find_occurrence.one(tx.cursor, idempotency_key=idempotency_key)
    if row is None:
        raise NotFoundError("occurrence", new.occurrence_id)
    occurrence_id, stored_hash, stored_json = row
    if stored_hash != new.request_hash:
        raise IdempotencyConflictError("occurrence", idempotency_key, stored_hash, new.request_hash)
    return read_occurrence(occurrence_id, stored_json)


def load_occurrence(tx: Tx[Context], occurrence_id: str) -> Occurrence | None:
    """Return an occurrence; None only if there is none of this id."""
    name = check_name("occurrence_id", occurrence_id)
    row = statements.load_occurrence.one(tx.cursor, occurrence_id=name)
    return None if row is None else read_occurrence(name, row[0])


def reserve_deliveries(tx: Tx[Context], occurrence_id: str) -> Reservations:
    """Reserve a process for every enabled subscription that the occurrence matches (T-DEL-1).

    Returns the newly reserved: of several reservers, each delivery comes to exactly one,
    and none again. The payload is checked against each subscription's schema first (T-DEL-3).
    Raises NotFoundError for an unknown occurrence.
    """
    return _reserve(tx, _occurrence(tx, occurrence_id))


def redeliver(tx: Tx[Context], occurrence_id: str) -> Reservations:
    """Like ``reserve_deliveries``, but return those that were reserved before as well (T-DEL-2).

    For a caller who does not know how far the last one came: starting a process twice is
    harmless.
    """
    occurrence = _occurrence(tx, occurrence_id)
    with tx.all_or_nothing():
        return _redeliver(tx, occurrence)


def _redeliver(tx: Tx[Context], occurrence: Occurrence) -> Reservations:
    reserved = _reserve(tx, occurrence)
    undecodable = {each.subscription_id: each for each in reserved.undecodable}
    deliveries = []
    rows = statements.deliveries_of.all(tx.cursor, occurrence_id=occurrence.occurrence_id)
    for subscription_id, handle, process_id, created_at_ms, record_json in rows:
        read = readable(subscription_id, handle, record_json)
        if isinstance(read, Undecodable):
            undecodable[subscription_id] = read
        else:
            deliveries.append(Delivery(occurrence, read, process_id, created_at_ms))
    return Reservations(tuple(deliveries), reserved.mismatches, tuple(undecodable.values()))


def list_deliveries(
    tx: Tx[Context],
    matching: DeliveryFilter | None = None,
    *,
    after: tuple[str, str] = ("", ""),
    limit: int = 100,
) -> DeliveryPage:
    """Return a page of deliveries by (occurrence id, subscription id) (T-DEL-2).

    Pass the page's `after` for the next one. One whose subscription can't be decoded is
    reported beside the list. Raises InvalidRecordError for a bad filter or bound.
    """
    after_occurrence_id, after_subscription_id = check_texts("after", after)
    most = bound("limit", limit)
    rows = statements.list_deliveries.all(
        tx.cursor,
        **_filter_arguments(DeliveryFilter() if matching is None else matching),
        after_occurrence_id=after_occurrence_id,
        after_subscription_id=after_subscription_id,
        limit=most,
    )
    deliveries, undecodable = [], []
    for occurrence_id, subscription_id, process_id, created, occurred, handle, text in rows:
        read = readable(subscription_id, handle, text)
        if isinstance(read, Undecodable):
            undecodable.append(read)
        else:
            occurrence = read_occurrence(occurrence_id, occurred)
            deliveries.append(Delivery(occurrence, read, process_id, created))
    last = (rows[-1][0], rows[-1][1]) if rows and len(rows) == most else None
    return DeliveryPage(tuple(deliveries), tuple(undecodable), last)


def list_reserved_processes(
    tx: Tx[Context], occurred_before_ms: int, *, after: str = "", limit: int = 1_000
) -> list[str]:
    """Return the ids of the processes reserved for the batch that such a pruning looks at.

    The arguments are those of ``prune_occurrences``, to which the caller then says which of
    these processes are started.
    """
    return [
        process_id
        for (occurrence_id,) in _old(tx, occurred_before_ms, after, limit)
        for (process_id,) in statements.reserved_processes.all(
            tx.cursor, occurrence_id=occurrence_id
        )
    ]


def prune_occurrences(
    tx: Tx[Context],
    occurred_before_ms: int,
    *,
    started: Iterable[str] = (),
    after: str = "",
    limit: int = 1_000,
) -> Pruned:
    """Remove old occurrences whose deliveries are all started, one batch (T-RET-1).

    `occurred_before_ms` is exclusive, milliseconds since the epoch. `started` are the ids of
    the processes that the caller knows to be started; an occurrence without deliveries needs
    none. At most `limit` occurrences are looked at, by id, from behind `after`. What is
    removed is forgotten: the same idempotency key would record it anew, under the same id, and
    reserve processes that were started long ago. So keep what may still be sent again.
    """
    known = set(check_names("started", started))
    rows = _old(tx, occurred_before_ms, after, limit)
    removed = 0
    with tx.all_or_nothing():
        for (occurrence_id,) in rows:
            reserved = statements.reserved_processes.all(tx.cursor, occurrence_id=occurrence_id)
            if all(process_id in known for (process_id,) in reserved):
                removed += statements.delete_occurrence.run(tx.cursor, occurrence_id=occurrence_id)
    last = rows[-1][0] if rows and len(rows) == limit else None
    return Pruned(removed, len(rows), last)


def _old(tx: Tx[Context], occurred_before_ms: int, after: str, limit: int) -> list[tuple[str]]:
    return statements.old_occurrences.all(
        tx.cursor,
        occurred_before_ms=check_count("occurred_before_ms", occurred_before_ms),
        after_occurrence_id=check_text("after", after),
        limit=bound("limit", limit),
    )


def _occurrence(tx: Tx[Context], occurrence_id: str) -> Occurrence:
    occurrence = load_occurrence(tx, occurrence_id)
    if occurrence is None:
        raise NotFoundError("occurrence", occurrence_id)
    return occurrence


def _reserve(tx: Tx[Context], occurrence: Occurrence) -> Reservations:
    now_ms, occurrence_id = tx.now_ms, occurrence.occurrence_id
    deliveries: list[Delivery] = []
    mismatches: list[Mismatch] = []
    undecodable: list[Undecodable] = []
    rows = statements.matching_subscriptions.all(
        tx.cursor,
        occurrence_id=occurrence_id,
        source_type=occurrence.source_type,
        source_key=occurrence.source_key,
    )
    for subscription_id, handle, record_json in rows:
        read = readable(subscription_id, handle, record_json)
        if not isinstance(read, Subscription):
            undecodable.append(read)
            continue
        problem = payload_problem(read, occurrence)
        if problem is None:
            process_id = process_id_of(occurrence_id, subscription_id)
            deliveries.append(Delivery(occurrence, read, process_id, now_ms))
        else:
            mismatches.append(Mismatch(read, problem))
    cursor = tx.cursor
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
        statements.reserve_delivery.many(tx.cursor, reserved)
    return Reservations(tuple(deliveries), tuple(mismatches), tuple(undecodable))


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
        "created_before_ms": None if before is None else check_count("created_before_ms", before),
    }
