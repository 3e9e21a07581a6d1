"""The work queue."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from lash_store._kernel.checks import check_choice, check_count, check_items, check_kind, check_name
from lash_store._kernel.codecs import decode_json, read_as
from lash_store._kernel.liveness import end_of_term, new_token
from lash_store.clock import MAX_INT
from lash_store.errors import ClaimLostError, CorruptRecordError
from lash_store.session import statements
from lash_store.session.context import SessionContext, Tx, Work, chosen_session
from lash_store.session.operations.leases import LEASES
from lash_store.session.records import SessionFence
from lash_store.session.records.queue import (
    BOUNDARIES,
    AlreadyQueued,
    Boundary,
    Candidate,
    NewWork,
    Prefix,
    WorkBatch,
    WorkClaim,
    WorkDepth,
    WorkItem,
    WrittenWork,
    check_claim,
    claimable_prefix,
    written_work,
)
from lash_store.session.tables import queued_work_batches, queued_work_items

_TABLE: Final = queued_work_batches.name

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


def claim_work(
    context: SessionContext,
    fence: SessionFence,
    *,
    owner_id: str,
    ttl_ms: int,
    max_batches: int = 1,
    boundary: Boundary = "idle",
) -> Work[WorkClaim | None]:
    """Take the batches at the head of the queue of the fence's session (S-QUEUE-3, 4, 10).

    None if nothing is to be had at this boundary; `max_batches` 0 gives None before any
    check. Raises LeaseLostError unless the session lease of `fence` is live.
    """
    if check_count("max_batches", max_batches) == 0:
        return _take_nothing
    owner = check_name("owner_id", owner_id)
    check_choice("boundary", boundary, BOUNDARIES)
    check_count("ttl_ms", ttl_ms)
    require_lease = LEASES.requiring(context, fence)

    def claim(tx: Tx) -> WorkClaim | None:
        require_lease(tx)
        taken = _prefix(tx, fence.session_id, boundary, max_batches)
        if not taken:
            return None
        return _claim(tx, fence.session_id, taken, owner, ttl_ms)

    return claim


def claim_work_batches(
    context: SessionContext,
    fence: SessionFence,
    batch_ids: Sequence[str],
    *,
    owner_id: str,
    ttl_ms: int,
    boundary: Boundary = "idle",
) -> Work[WorkClaim | None]:
    """Take exactly these batches, in this order, or None and nothing (S-QUEUE-5).

    They are taken only if ``claim_work`` for as many batches would take the same ones. An
    empty list gives None before any check.
    """
    check_items("batch_ids", batch_ids, str)
    if not batch_ids:
        return _take_nothing
    wanted = list(batch_ids)
    owner = check_name("owner_id", owner_id)
    check_choice("boundary", boundary, BOUNDARIES)
    check_count("ttl_ms", ttl_ms)
    require_lease = LEASES.requiring(context, fence)

    def claim(tx: Tx) -> WorkClaim | None:
        require_lease(tx)
        taken = _prefix(tx, fence.session_id, boundary, len(wanted))
        if [candidate.batch_id for candidate in taken] != wanted:
            return None
        return _claim(tx, fence.session_id, taken, owner, ttl_ms)

    return claim


def renew_claim(_: SessionContext, claim: WorkClaim, *, ttl_ms: int) -> Work[WorkClaim]:
    """Move the end of a claim to `ttl_ms` milliseconds from now (S-QUEUE-6).

    Raises ClaimLostError, and extends nothing, unless every batch still carries it. A
    claim is lost when somebody else took a batch, not by time alone.
    """
    check_count("ttl_ms", ttl_ms)
    held = check_claim(claim)

    def renew(tx: Tx) -> WorkClaim:
        require_standing(tx, held)
        expires_at_ms = end_of_term(tx.now_ms, ttl_ms)
        statements.renew_claim.run(
            tx.cursor,
            session_id=held.session_id,
            claim_id=held.claim_id,
            token=held.token,
            expires_at_ms=expires_at_ms,
        )
        return msgspec.structs.replace(held, expires_at_ms=expires_at_ms)

    return renew


def abandon_claim(_: SessionContext, claim: WorkClaim) -> Work[int]:
    """Give the batches of a claim back; return how many still carried it (S-QUEUE-7)."""
    held = check_claim(claim)

    def abandon(tx: Tx) -> int:
        return statements.abandon_claim.run(
            tx.cursor, session_id=held.session_id, claim_id=held.claim_id, token=held.token
        )

    return abandon


def require_claim(_: SessionContext, claim: WorkClaim) -> Work[None]:
    """Raise ClaimLostError unless the claim stands on exactly its batches, each once."""
    held = check_claim(claim)

    def require(tx: Tx) -> None:
        require_standing(tx, held)

    return require


def cancel_work(_: SessionContext, batch_id: str) -> Work[WorkBatch | None]:
    """Remove a batch that nobody works on and return it; None otherwise (S-QUEUE-8)."""
    name = check_name("batch_id", batch_id)

    def cancel(tx: Tx) -> WorkBatch | None:
        batch = _batch(tx, name)
        if batch is None:
            return None
        removed = statements.cancel_work.run(tx.cursor, batch_id=name, now_ms=tx.now_ms)
        return batch if removed else None

    return cancel


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
        rows = statements.list_work.all(tx.cursor, session_id=key, after_seq=after_seq, limit=limit)
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
            tx.cursor, session_id=key, now_ms=tx.now_ms, after_seq=after_seq, limit=limit
        )
        return _with_items(tx, rows)

    return list_page


def work_depth(context: SessionContext, *, session_id: str | None = None) -> Work[WorkDepth]:
    """Count what waits for the session, by looking at all of it."""
    key = chosen_session(context, session_id)

    def count(tx: Tx) -> WorkDepth:
        row = statements.work_depth.one(tx.cursor, session_id=key, now_ms=tx.now_ms)
        assert row is not None  # an aggregate without GROUP BY has one row
        return WorkDepth(*row)

    return count


def require_standing(tx: Tx, claim: WorkClaim) -> None:
    """Require a claim that was checked, on an open transaction; see :func:`require_claim`."""
    carrying = statements.claimed_work.all(
        tx.cursor, session_id=claim.session_id, claim_id=claim.claim_id, token=claim.token
    )
    found = tuple(batch_id for (batch_id,) in carrying)
    if sorted(found) != sorted(claim.batch_ids):
        raise ClaimLostError(claim.claim_id, claim.batch_ids, found)


def complete_claim(tx: Tx, claim: WorkClaim) -> None:
    """Remove the batches of a claim that stands."""
    statements.complete_claim.run(
        tx.cursor, session_id=claim.session_id, claim_id=claim.claim_id, token=claim.token
    )


def _enqueue(tx: Tx, session_id: str, work: WrittenWork) -> WorkBatch | AlreadyQueued:
    cursor = tx.cursor
    batch_id = f"qwb:{tx.context.ids.new_token()}"
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
    statements.enqueue_item.many(cursor, items)
    written: _BatchRow = (
        row[0],
        batch_id,
        session_id,
        work.source_key,
        work.delivery_policy,
        work.slot_policy,
        work.merge_key_json,
        work.available_at_ms,
        tx.now_ms,
    )
    return _assembled(
        [written],
        [(batch_id, f"{batch_id}:item:{index}", text) for index, text in enumerate(work.payloads)],
    )[0]


def _take_nothing(_: Tx) -> None:
    """Claim no batches at all."""


def _prefix(tx: Tx, session_id: str, boundary: Boundary, max_batches: int) -> Prefix:
    rows = statements.claimable_work.all(
        tx.cursor, session_id=session_id, now_ms=tx.now_ms, max_batches=max_batches
    )
    candidates = [read_as(Candidate, _TABLE, session_id, row) for row in rows]
    return claimable_prefix(candidates, boundary=boundary, max_batches=max_batches)


def _claim(tx: Tx, session_id: str, taken: Prefix, owner_id: str, ttl_ms: int) -> WorkClaim:
    with tx.all_or_nothing():
        return _take(tx, session_id, taken, owner_id, end_of_term(tx.now_ms, ttl_ms))


def _take(tx: Tx, session_id: str, taken: Prefix, owner_id: str, expires_at_ms: int) -> WorkClaim:
    cursor, token = tx.cursor, new_token(tx.context.ids)
    fencing_token = taken[0].claim_fencing_token + 1
    claim_id = f"qwc:{taken[0].enqueue_seq}:{fencing_token}"
    rows = [
        statements.claim_batch.bind(
            cursor,
            enqueue_seq=candidate.enqueue_seq,
            claim_id=claim_id,
            owner_id=owner_id,
            token=token,
            now_ms=tx.now_ms,
            expires_at_ms=expires_at_ms,
        )
        for candidate in taken
    ]
    if statements.claim_batch.many(cursor, rows) != len(taken):
        raise CorruptRecordError(_TABLE, claim_id, "a row changed between two statements")
    batches = statements.load_claimed_work.all(
        cursor, session_id=session_id, claim_id=claim_id, token=token
    )
    items = statements.load_claimed_items.all(
        cursor, session_id=session_id, claim_id=claim_id, token=token
    )
    return WorkClaim(
        session_id=session_id,
        claim_id=claim_id,
        owner_id=owner_id,
        token=token,
        fencing_token=fencing_token,
        claimed_at_ms=tx.now_ms,
        expires_at_ms=expires_at_ms,
        batches=tuple(_assembled(batches, items)),
    )


def _batch(tx: Tx, batch_id: str) -> WorkBatch | None:
    row = statements.load_work.one(tx.cursor, batch_id=batch_id)
    if row is None:
        return None
    return _assembled([row], statements.load_batch_items.all(tx.cursor, batch_id=batch_id))[0]


def _batch_of_source(tx: Tx, session_id: str, source_key: str) -> WorkBatch:
    row = statements.find_source.one(tx.cursor, session_id=session_id, source_key=source_key)
    batch = None if row is None else _batch(tx, row[0])
    if batch is None:
        raise CorruptRecordError(_TABLE, source_key, "neither enqueued nor there")
    return batch


def _with_items(tx: Tx, rows: list[_BatchRow]) -> list[WorkBatch]:
    """Add the items to batches of one session that were read in order, by one more query."""
    if not rows:
        return []
    items = statements.load_items.all(
        tx.cursor, session_id=rows[0][2], first_seq=rows[0][0], last_seq=rows[-1][0]
    )
    return _assembled(rows, items)


def _assembled(rows: list[_BatchRow], items: list[tuple[str, str, str]]) -> list[WorkBatch]:
    by_batch: dict[str, list[WorkItem]] = {}
    wanted = {row[1] for row in rows}
    for batch_id, item_id, payload_json in items:
        if batch_id in wanted:
            payload = decode_json(queued_work_items.name, item_id, payload_json)
            by_batch.setdefault(batch_id, []).append(WorkItem(item_id, payload))
    return [_record(row, by_batch.get(row[1], [])) for row in rows]


def _record(row: _BatchRow, items: list[WorkItem]) -> WorkBatch:
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
