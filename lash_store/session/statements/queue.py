"""Statements on the work queue."""

from typing import Any, TypeAlias

from sqlalchemy import (
    Delete,
    Insert,
    Select,
    and_,
    case,
    delete,
    func,
    select,
)
from sqlalchemy.sql.dml import ReturningInsert

from lash_store._kernel.dialects import by_primary_key, is_one_of, upsert_insert
from lash_store._kernel.prepared import prepare
from lash_store._kernel.sharing import across_sessions
from lash_store.session.statements.claims import has_live_claim
from lash_store.session.tables import BATCH_COLUMNS, queued_work_batches, queued_work_items

_batches = queued_work_batches.c
_items = queued_work_items.c

SelectedWork: TypeAlias = Select[
    int, str, str, str | None, str, str, str, int, int, str | None, str | None, int, int, int
]
"""What ``select_work`` gives."""


@prepare
def select_work(*, session_id: str) -> SelectedWork:
    """A session's batches, without their items; to filter, join, order and page.

    Columns: enqueue_seq, batch_id, session_id, source_key, delivery_policy, slot_policy,
    merge_key_json, available_at_ms, enqueued_at_ms; then what stands on them of a claim:
    claim_id, claim_owner_id, claim_fencing_token, claim_claimed_at_ms, claim_expires_at_ms.
    """
    return _select_work(_batches).where(_batches.session_id == session_id)


@prepare
def select_all_work() -> SelectedWork:
    """The batches of every session that the database holds; columns as in ``select_work``.

    In a shared database of all its sessions, whichever the Tx or the connection is about.
    """
    return _select_work(across_sessions(queued_work_batches).c)


@prepare
def select_items(*, session_id: str) -> Select[str, int, str, str]:
    """The items of a session's batches: batch_id, item_index, item_id, payload_json."""
    items = select(_items.batch_id, _items.item_index, _items.item_id, _items.payload_json)
    of_session = items.join(queued_work_batches, _batches.batch_id == _items.batch_id)
    return of_session.where(_batches.session_id == session_id)


def _select_work(batches: Any) -> SelectedWork:
    chosen: SelectedWork = select(
        *(batches[name] for name in BATCH_COLUMNS),
        batches.claim_id,
        batches.claim_owner_id,
        batches.claim_fencing_token,
        batches.claim_claimed_at_ms,
        batches.claim_expires_at_ms,
    )
    return chosen


def _select_batches() -> Select[int, str, str, str | None, str, str, str, int, int]:
    chosen: Select[int, str, str, str | None, str, str, str, int, int] = select(
        *(_batches[name] for name in BATCH_COLUMNS)
    )
    return chosen


@prepare
def list_work(
    *, session_id: str, after_seq: int, limit: int
) -> Select[int, str, str, str | None, str, str, str, int, int]:
    """Read a page of a session's batches in enqueue order, those behind `after_seq` (S-QUEUE-9)."""
    work = by_primary_key(_select_batches(), queued_work_batches)
    work = work.where(_batches.session_id == session_id, _batches.enqueue_seq > after_seq)
    return work.order_by(_batches.enqueue_seq).limit(limit)


@prepare
def list_pending_work(
    *, session_id: str, now_ms: int, after_seq: int, limit: int
) -> Select[int, str, str, str | None, str, str, str, int, int]:
    """Read a page of the batches that are under no live claim."""
    work = list_work(session_id=session_id, after_seq=after_seq, limit=limit)
    return work.where(~has_live_claim(now_ms=now_ms))


@prepare
def load_work(*, batch_id: str) -> Select[int, str, str, str | None, str, str, str, int, int]:
    """Read one batch, of any session."""
    return _select_batches().where(_batches.batch_id == batch_id)


@prepare
def find_source(*, session_id: str, source_key: str) -> Select[str]:
    """Find the batch that a source has in the queue."""
    return select(_batches.batch_id).where(
        _batches.session_id == session_id, _batches.source_key == source_key
    )


@prepare
def load_batch_items(*, batch_id: str) -> Select[str, str, str]:
    """Read the items of one batch, in order."""
    items = select(_items.batch_id, _items.item_id, _items.payload_json)
    return items.where(_items.batch_id == batch_id).order_by(_items.item_index)


@prepare
def load_items(*, session_id: str, first_seq: int, last_seq: int) -> Select[str, str, str]:
    """Read the items of every batch of a session between two places of the queue, in order."""
    items = select(_items.batch_id, _items.item_id, _items.payload_json).join(
        queued_work_batches, _batches.batch_id == _items.batch_id
    )
    return (
        by_primary_key(items, queued_work_batches)
        .where(
            _batches.session_id == session_id,
            _batches.enqueue_seq >= first_seq,
            _batches.enqueue_seq <= last_seq,
        )
        .order_by(_batches.enqueue_seq, _items.item_index)
    )


@prepare
def load_items_of(*, batch_ids: list[str]) -> Select[str, str, str]:
    """Read the items of a list of batches, in the order of each."""
    items = select(_items.batch_id, _items.item_id, _items.payload_json)
    return items.where(is_one_of(_items.batch_id, batch_ids)).order_by(
        _items.batch_id, _items.item_index
    )


@prepare
def work_depth(*, session_id: str, now_ms: int) -> Select[int, int, int, int | None]:
    """Count a session's batches: all, under a live claim, ready; and when the oldest came."""
    live = has_live_claim(now_ms=now_ms)
    ready = and_(~live, _batches.available_at_ms <= now_ms)
    return select(
        func.count().label("total"),
        func.coalesce(func.sum(case((live, 1), else_=0)), 0).label("claimed"),
        func.coalesce(func.sum(case((ready, 1), else_=0)), 0).label("ready"),
        func.min(_batches.enqueued_at_ms).label("oldest_enqueued_at_ms"),
    ).where(_batches.session_id == session_id)


@prepare
def enqueue_work(
    *,
    session_id: str,
    batch_id: str,
    source_key: str | None,
    delivery_policy: str,
    slot_policy: str,
    merge_key_json: str,
    available_at_ms: int,
    enqueued_at_ms: int,
) -> ReturningInsert[int]:
    """Add a batch; no row comes back if its source is in the queue already (S-QUEUE-2)."""
    fresh = upsert_insert(queued_work_batches).values(
        session_id=session_id,
        batch_id=batch_id,
        source_key=source_key,
        delivery_policy=delivery_policy,
        slot_policy=slot_policy,
        merge_key_json=merge_key_json,
        available_at_ms=available_at_ms,
        enqueued_at_ms=enqueued_at_ms,
    )
    once = fresh.on_conflict_do_nothing(index_elements=[_batches.session_id, _batches.source_key])
    return once.returning(_batches.enqueue_seq)


@prepare
def enqueue_item(*, batch_id: str, item_index: int, item_id: str, payload_json: str) -> Insert:
    """Add one item to a batch."""
    return upsert_insert(queued_work_items).values(
        batch_id=batch_id, item_index=item_index, item_id=item_id, payload_json=payload_json
    )


@prepare
def cancel_work(*, batch_id: str, now_ms: int) -> Delete:
    """Remove a batch that is under no live claim; its items go with it (S-QUEUE-8)."""
    return delete(queued_work_batches).where(
        _batches.batch_id == batch_id, ~has_live_claim(now_ms=now_ms)
    )
