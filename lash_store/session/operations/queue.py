"""The work queue: what is put into it, and what it looks like."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from lash_store._kernel.checks import check_count, check_kind, check_name
from lash_store._kernel.codecs import decode_json, read_as
from lash_store._kernel.liveness import new_token
from lash_store.clock import MAX_INT
from lash_store.errors import CorruptRecordError
from lash_store.session import statements
from lash_store.session.context import SessionContext, Tx, Work, chosen_session
from lash_store.session.records.queue import (
    AlreadyQueued,
    NewWork,
    WorkBatch,
    WorkDepth,
    WorkItem,
    WrittenWork,
    written_work,
)
from lash_store.session.tables import queued_work_batches, queued_work_items

_TABLE: Final = queued_work_batches.name

_SPARSE: Final = 4
"""A page of which at least one in so many places is a batch has its items read from the first to the last; of
any other they are asked for by name: those between may be many, and large."""

_BatchRow = tuple[int, str, str, str | None, str, str, str, int, int]


def enqueue_work(
    context: SessionContext, work: NewWork, *, session_id: str | None = None
) -> Work[WorkBatch | AlreadyQueued]:
    """Add a batch at the end of the session's queue (S-QUEUE-1, S-QUEUE-2).

    AlreadyQueued, with the batch as it stands, if its source_key is in the queue. Raises
    InvalidRecordError for anything that can't be stored, before anything is written.
    """
    written = written_work(work)
    key = chosen_session(context, session_id)

    def enqueue(tx: Tx) -> WorkBatch | AlreadyQueued:
        with tx.all_or_nothing():
            return _enqueue(tx, key, written)

    return enqueue


def enqueue_all_work(
    context: SessionContext, works: Iterable[NewWork], *, session_id: str | None = None
) -> Work[list[WorkBatch | AlreadyQueued]]:
    """Add several batches in order, all or none; the results are in the same order."""
    check_kind("works", works, Iterable)
    written = tuple([written_work(work) for work in list(works)])
    key = chosen_session(context, session_id)

    def enqueue_all(tx: Tx) -> list[WorkBatch | AlreadyQueued]:
        with tx.all_or_nothing():
            return [_enqueue(tx, key, work) for work in written]

    return enqueue_all


def cancel_work(_: SessionContext, batch_id: str) -> Work[WorkBatch | None]:
    """Remove a batch that nobody works on and return it; None otherwise (S-QUEUE-8)."""
    name = check_name("batch_id", batch_id)

    def cancel(tx: Tx) -> WorkBatch | None:
        batch = _batch(tx, name)
        if batch is None:
            return None
        removed = statements.cancel_work.run(tx.own_cursor, batch_id=name, now_ms=tx.now_ms)
        return batch if removed else None

    return cancel


def discard_work(_: SessionContext, batch_id: str) -> Work[bool]:
    """Remove a batch that nobody works on without reading it; tell whether there was one (S-QUEUE-8).

    For one that can't be read: ``cancel_work`` would be CorruptRecordError.
    """
    name = check_name("batch_id", batch_id)

    def discard(tx: Tx) -> bool:
        removed = statements.cancel_work.run(tx.own_cursor, batch_id=name, now_ms=tx.now_ms)
        return removed == 1

    return discard


def list_work(
    context: SessionContext,
    *,
    after_seq: int = 0,
    limit: int = MAX_INT,
    session_id: str | None = None,
) -> Work[list[WorkBatch]]:
    """Return a page of the session's batches, claimed or not, in order (S-QUEUE-9).

    The page starts behind `after_seq`: pass the last batch's ``enqueue_seq`` for the next.
    """
    key = chosen_session(context, session_id)
    check_count("after_seq", after_seq)
    check_count("limit", limit)

    def list_page(tx: Tx) -> list[WorkBatch]:
        rows = statements.list_work.all(
            tx.own_cursor, session_id=key, after_seq=after_seq, limit=limit
        )
        return _with_items(tx, rows)

    return list_page


def list_pending_work(
    context: SessionContext,
    *,
    after_seq: int = 0,
    limit: int = MAX_INT,
    session_id: str | None = None,
) -> Work[list[WorkBatch]]:
    """Return a page of the session's batches that are under no live claim."""
    key = chosen_session(context, session_id)
    check_count("after_seq", after_seq)
    check_count("limit", limit)

    def list_page(tx: Tx) -> list[WorkBatch]:
        rows = statements.list_pending_work.all(
            tx.own_cursor, session_id=key, now_ms=tx.now_ms, after_seq=after_seq, limit=limit
        )
        return _with_items(tx, rows)

    return list_page


def work_depth(context: SessionContext, *, session_id: str | None = None) -> Work[WorkDepth]:
    """Count what waits for the session, by looking at all of it."""
    key = chosen_session(context, session_id)

    def count(tx: Tx) -> WorkDepth:
        row = statements.work_depth.one(tx.own_cursor, session_id=key, now_ms=tx.now_ms)
        assert row is not None  # an aggregate without GROUP BY has one row
        return WorkDepth(*row)

    return count


def _enqueue(tx: Tx, session_id: str, work: WrittenWork) -> WorkBatch | AlreadyQueued:
    cursor = tx.own_cursor
    batch_id = f"qwb:{new_token(tx.context.ids)}"
    row = statements.enqueue_work.one(
        cursor,
        session_id=session_id,
        batch_id=batch_id,
        source_key=work.source_key,
        delivery_policy=work.delivery_policy,
        slot_policy=work.slot_policy,
        merge_key_json=work.merge_key_json,
        available_at_ms=work.available_at_ms,
        enqueued_at_ms=tx.now_ms,
    )
    if row is None:
        return AlreadyQueued(_batch_of_source(tx, session_id, work.source_key or ""))
    items = [
        statements.enqueue_item.bind(
            cursor,
            batch_id=batch_id,
            item_index=index,
            item_id=f"{batch_id}:item:{index}",
            payload_json=payload,
        )
        for index, payload in enumerate(work.payloads)
    ]
    statements.enqueue_item.later_many(cursor, items)
    # Built from what was written, which was checked: none of it is the caller's own.
    return WorkBatch(
        row[0],
        batch_id,
        session_id,
        work.source_key,
        work.delivery_policy,
        work.slot_policy,
        decode_json(_TABLE, batch_id, work.merge_key_json),
        work.available_at_ms,
        tx.now_ms,
        tuple(
            [
                WorkItem(
                    f"{batch_id}:item:{index}",
                    decode_json(queued_work_items.name, batch_id, text),
                )
                for index, text in enumerate(work.payloads)
            ]
        ),
    )


def _batch(tx: Tx, batch_id: str) -> WorkBatch | None:
    row = statements.load_work.one(tx.own_cursor, batch_id=batch_id)
    if row is None:
        return None
    return assembled([row], statements.load_batch_items.all(tx.own_cursor, batch_id=batch_id))[0]


def _batch_of_source(tx: Tx, session_id: str, source_key: str) -> WorkBatch:
    row = statements.find_source.one(tx.own_cursor, session_id=session_id, source_key=source_key)
    batch = None if row is None else _batch(tx, row[0])
    if batch is None:
        raise CorruptRecordError(_TABLE, source_key, "neither enqueued nor there")
    return batch


def _with_items(tx: Tx, rows: list[_BatchRow]) -> list[WorkBatch]:
    """Add the items to batches of one session that were read in order, by one more query."""
    if not rows:
        return []
    names = [row[1] for row in rows]
    between = rows[-1][0] - rows[0][0] + 1
    if between > _SPARSE * len(rows) and not any("\0" in name for name in names):
        items = statements.load_items_of.all(tx.own_cursor, batch_ids=names)
    else:
        items = statements.load_items.all(
            tx.own_cursor, session_id=rows[0][2], first_seq=rows[0][0], last_seq=rows[-1][0]
        )
    return assembled(rows, items)


def assembled(
    rows: Sequence[tuple[Any, ...]], items: Iterable[tuple[str, str | None, str | None]]
) -> list[WorkBatch]:
    """Build batches from their rows and the rows of their items, which may be of more, or NULL."""
    by_batch: dict[str, list[WorkItem]] = {}
    wanted = {row[1] for row in rows}
    for batch_id, item_id, payload_json in items:
        if batch_id in wanted and item_id is not None and payload_json is not None:
            payload = decode_json(queued_work_items.name, item_id, payload_json)
            by_batch.setdefault(batch_id, []).append(WorkItem(item_id, payload))
    return [_record(row, by_batch.get(row[1], [])) for row in rows]


def _record(row: tuple[Any, ...], items: list[WorkItem]) -> WorkBatch:
    seq, batch_id, session_id, source_key, delivery, slot, merge_key_json, available, enqueued = row
    parts = {
        "enqueue_seq": seq,
        "batch_id": batch_id,
        "session_id": session_id,
        "source_key": source_key,
        "delivery_policy": delivery,
        "slot_policy": slot,
        "merge_key": decode_json(_TABLE, batch_id, merge_key_json),
        "available_at_ms": available,
        "enqueued_at_ms": enqueued,
        "items": items,
    }
    return read_as(WorkBatch, _TABLE, batch_id, parts)
