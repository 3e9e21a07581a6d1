"""Statements on occurrences and their deliveries."""

from sqlalchemy import ColumnElement, Delete, Insert, Select, delete, exists, insert, or_, select

from lash_store._kernel.dialects import OnOneRow, is_null_or, upsert_insert
from lash_store._kernel.prepared import prepare
from lash_store.trigger.tables import (
    trigger_deliveries,
    trigger_occurrences,
    trigger_subscriptions,
)

_deliveries = trigger_deliveries.c
_occurrences = trigger_occurrences.c
_subscriptions = trigger_subscriptions.c


@prepare
def select_occurrences() -> Select[str, str, str, str, int, str]:
    """Every occurrence: id, idempotency key, source type, source key, occurred-at, record_json."""
    return select(
        _occurrences.occurrence_id,
        _occurrences.idempotency_key,
        _occurrences.source_type,
        _occurrences.source_key,
        _occurrences.occurred_at_ms,
        _occurrences.record_json,
    )


@prepare
def record_occurrence(
    *,
    occurrence_id: str,
    idempotency_key: str,
    request_hash: str,
    source_type: str,
    source_key: str,
    now_ms: int,
    record_json: str,
) -> Insert:
    """Store an occurrence; no row changes if its idempotency key is there (T-OCC-1)."""
    fresh = upsert_insert(trigger_occurrences).values(
        occurrence_id=occurrence_id,
        idempotency_key=idempotency_key,
        request_hash=request_hash,
        source_type=source_type,
        source_key=source_key,
        occurred_at_ms=now_ms,
        record_json=record_json,
    )
    return fresh.on_conflict_do_nothing(index_elements=[_occurrences.idempotency_key])


@prepare
def find_occurrence(*, idempotency_key: str) -> Select[str, str, str]:
    """Read what was recorded under a key: occurrence id, request hash, record_json."""
    columns = (_occurrences.occurrence_id, _occurrences.request_hash, _occurrences.record_json)
    return select(*columns).where(_occurrences.idempotency_key == idempotency_key)


@prepare
def load_occurrence(*, occurrence_id: str) -> Select[str]:
    """Read the record_json of one occurrence."""
    return select(_occurrences.record_json).where(_occurrences.occurrence_id == occurrence_id)


@prepare
def matching_subscriptions(
    *, occurrence_id: str, source_type: str, source_key: str
) -> Select[str, str, str]:
    """Read the enabled subscriptions of a source that the occurrence was not delivered to.

    Subscription id, handle and record_json, in list order (T-DEL-1).
    """
    delivered = exists().where(
        _deliveries.occurrence_id == occurrence_id,
        _deliveries.subscription_id == _subscriptions.subscription_id,
    )
    return (
        select(_subscriptions.subscription_id, _subscriptions.handle, _subscriptions.record_json)
        .where(
            _subscriptions.source_type == source_type,
            OnOneRow(_subscriptions.source_key == source_key),
            _subscriptions.enabled == 1,
            ~delivered,
        )
        .order_by(_subscriptions.registrant_scope_id, _subscriptions.handle)
    )


@prepare
def reserve_delivery(
    *, occurrence_id: str, subscription_id: str, process_id: str, now_ms: int
) -> Insert:
    """Reserve the process of one delivery."""
    return insert(trigger_deliveries).values(
        occurrence_id=occurrence_id,
        subscription_id=subscription_id,
        process_id=process_id,
        created_at_ms=now_ms,
    )


@prepare
def select_deliveries() -> Select[str, str, str, int]:
    """Every delivery: occurrence id, subscription id, process id, created-at."""
    return select(
        _deliveries.occurrence_id,
        _deliveries.subscription_id,
        _deliveries.process_id,
        _deliveries.created_at_ms,
    )


@prepare
def list_deliveries(
    *,
    occurrence_id: str | None,
    subscription_id: str | None,
    process_id: str | None,
    created_before_ms: int | None,
    after_occurrence_id: str,
    after_subscription_id: str,
    limit: int,
) -> Select[str, str, str, int, str, str, str]:
    """Read a page of deliveries with both their records, by (occurrence, subscription) (T-DEL-2).

    Occurrence id, subscription id, process id, created-at, the occurrence's record_json, the
    subscription's handle and record_json. None filters by nothing.
    """
    return _page(
        is_null_or(occurrence_id, lambda given: _deliveries.occurrence_id == given),
        is_null_or(subscription_id, lambda given: _deliveries.subscription_id == given),
        is_null_or(process_id, lambda given: _deliveries.process_id == given),
        is_null_or(created_before_ms, lambda given: _deliveries.created_at_ms < given),
        after_occurrence_id=after_occurrence_id,
        after_subscription_id=after_subscription_id,
        limit=limit,
    )


@prepare
def list_occurrence(
    *,
    occurrence_id: str,
    subscription_id: str | None,
    process_id: str | None,
    created_before_ms: int | None,
    after_occurrence_id: str,
    after_subscription_id: str,
    limit: int,
) -> Select[str, str, str, int, str, str, str]:
    """Read what ``list_deliveries`` reads of one occurrence, by the primary key."""
    return _page(
        OnOneRow(_deliveries.occurrence_id == occurrence_id),
        is_null_or(subscription_id, lambda given: _deliveries.subscription_id == given),
        is_null_or(process_id, lambda given: _deliveries.process_id == given),
        is_null_or(created_before_ms, lambda given: _deliveries.created_at_ms < given),
        after_occurrence_id=after_occurrence_id,
        after_subscription_id=after_subscription_id,
        limit=limit,
    )


@prepare
def list_process(
    *,
    occurrence_id: str | None,
    subscription_id: str | None,
    process_id: str,
    created_before_ms: int | None,
    after_occurrence_id: str,
    after_subscription_id: str,
    limit: int,
) -> Select[str, str, str, int, str, str, str]:
    """Read what ``list_deliveries`` reads of one process, by the index of the processes."""
    return _page(
        is_null_or(occurrence_id, lambda given: _deliveries.occurrence_id == given),
        is_null_or(subscription_id, lambda given: _deliveries.subscription_id == given),
        OnOneRow(_deliveries.process_id == process_id),
        is_null_or(created_before_ms, lambda given: _deliveries.created_at_ms < given),
        after_occurrence_id=after_occurrence_id,
        after_subscription_id=after_subscription_id,
        limit=limit,
    )


def _page(
    *conditions: ColumnElement[bool],
    after_occurrence_id: str,
    after_subscription_id: str,
    limit: int,
) -> Select[str, str, str, int, str, str, str]:
    return (
        select(
            _deliveries.occurrence_id,
            _deliveries.subscription_id,
            _deliveries.process_id,
            _deliveries.created_at_ms,
            _occurrences.record_json,
            _subscriptions.handle,
            _subscriptions.record_json.label("subscription_json"),
        )
        .join(trigger_occurrences, _occurrences.occurrence_id == _deliveries.occurrence_id)
        .join(trigger_subscriptions, _subscriptions.subscription_id == _deliveries.subscription_id)
        .where(
            # The first part alone is what the primary key can be entered by.
            _deliveries.occurrence_id >= after_occurrence_id,
            or_(
                _deliveries.occurrence_id > after_occurrence_id,
                _deliveries.subscription_id > after_subscription_id,
            ),
            *conditions,
        )
        .order_by(_deliveries.occurrence_id, _deliveries.subscription_id)
        .limit(limit)
    )


@prepare
def deliveries_of(*, occurrence_id: str) -> Select[str, str, str, int, str]:
    """Read the deliveries of one occurrence in list order (T-DEL-2).

    Subscription id, handle, process id, created-at, the subscription's record_json.
    """
    return (
        select(
            _deliveries.subscription_id,
            _subscriptions.handle,
            _deliveries.process_id,
            _deliveries.created_at_ms,
            _subscriptions.record_json,
        )
        .join(trigger_subscriptions, _subscriptions.subscription_id == _deliveries.subscription_id)
        .where(_deliveries.occurrence_id == occurrence_id)
        .order_by(_subscriptions.registrant_scope_id, _subscriptions.handle)
    )


@prepare
def old_occurrences(
    *, occurred_before_ms: int, after_occurrence_id: str, limit: int
) -> Select[str]:
    """Read a page of the ids of the occurrences before a time, by id (T-RET-1).

    By id, not by time: no index is in the order of time, and each page would sort them all.
    """
    name = _occurrences.occurrence_id
    old = select(name).where(
        name > after_occurrence_id, _occurrences.occurred_at_ms < occurred_before_ms
    )
    return old.order_by(name).limit(limit)


@prepare
def reserved_processes(
    *, occurred_before_ms: int, after_occurrence_id: str, last_occurrence_id: str
) -> Select[str, str]:
    """Read for which occurrences of such a page which processes were reserved: both ids."""
    name = _deliveries.occurrence_id
    return (
        select(name, _deliveries.process_id)
        .join(trigger_occurrences, _occurrences.occurrence_id == name)
        .where(
            name > after_occurrence_id,
            name <= last_occurrence_id,
            _occurrences.occurred_at_ms < occurred_before_ms,
        )
        .order_by(name, _deliveries.subscription_id)
    )


@prepare
def delete_occurrence(*, occurrence_id: str) -> Delete:
    """Remove an occurrence, and its deliveries with it, where foreign keys are enforced: ``configure()`` has them so."""
    return delete(trigger_occurrences).where(_occurrences.occurrence_id == occurrence_id)
