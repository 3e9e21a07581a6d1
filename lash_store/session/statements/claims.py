"""Statements on the claims of what waits in the work queue."""

from typing import Any, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Delete,
    Select,
    Update,
    and_,
    delete,
    select,
    union_all,
    update,
)
from sqlalchemy.sql.dml import ReturningDelete

from lash_store._kernel.dialects import by_primary_key, indexed_by
from lash_store._kernel.liveness import Liveness
from lash_store._kernel.prepared import prepare
from lash_store.session.tables import (
    BATCH_COLUMNS,
    EXECUTION_LEASES,
    queued_work_batches,
    queued_work_items,
)

_batches = queued_work_batches.c
_items = queued_work_items.c
_claim = Liveness(_batches.claim_token, _batches.claim_expires_at_ms)


def has_live_claim(*, now_ms: int) -> ColumnElement[bool]:
    """A condition on ``queued_work_batches``: somebody works on the batch at `now_ms`."""
    return _claim.is_live(now_ms=now_ms)


Candidates: TypeAlias = Select[int, str, str, str | None, str, str, str, int, int, int]
"""Batches that may be claimed: enqueue_seq, batch_id, session_id, source_key, delivery_policy,
slot_policy, merge_key_json, available_at_ms, enqueued_at_ms, claim_fencing_token."""


@prepare
def claimable_work(*, session_id: str, now_ms: int, max_batches: int) -> Candidates:
    """Read the first batches that are available and under no live claim (S-QUEUE-3, S-QUEUE-10).

    Columns as in ``Candidates``. Three ranges of the claim index; together they are exactly "no live
    claim", half-set rows of a foreign program included:

    - never claimed: both columns NULL. In that index such rows stand in enqueue order, so the
      scan ends at the first candidates, however long the queue is;
    - claimed, without a token or expired: reads every claimed row, of which there are few;
    - a token without a claim id, expired.

    The numbers alone come from them, and the rows are read by these.
    """
    never = and_(_batches.claim_id.is_(None), _batches.claim_token.is_(None))
    claimed = and_(_batches.claim_id.is_not(None), _claim.is_free(now_ms=now_ms))
    half_set = and_(
        _batches.claim_id.is_(None),
        _batches.claim_token.is_not(None),
        _claim.is_over(now_ms=now_ms),
    )

    def numbers(condition: ColumnElement[bool]) -> Select[int]:
        ready = select(_batches.enqueue_seq).where(
            _batches.session_id == session_id, condition, _batches.available_at_ms <= now_ms
        )
        # With statistics of a queue in which nothing is claimed, the planner would read
        # all of it in enqueue order; without, it would sort every ready row.
        return indexed_by(ready, queued_work_batches, "idx_queued_work_claim")

    first = numbers(never).order_by(_batches.enqueue_seq).limit(max_batches).subquery()
    ready = union_all(select(first.c.enqueue_seq), numbers(claimed), numbers(half_set)).subquery()
    # An outer join, though each number has its row: or a planner that has statistics of a short
    # queue would read all of it, and look for each of its numbers among these.
    found = by_primary_key(_candidates(_batches), queued_work_batches).select_from(ready)
    found = found.outerjoin(queued_work_batches, _batches.enqueue_seq == ready.c.enqueue_seq)
    return found.order_by(ready.c.enqueue_seq).limit(max_batches)


def choosable_work(*, session_id: str, now_ms: int, max_batches: int) -> Candidates:
    """What ``claimable_work`` reads, for a condition and an order of a consumer's own.

    Beside the columns of ``queued_work_batches`` those of ``queued_work_items`` may be used: they
    are those of each batch's first item.
    """
    first = and_(_items.batch_id == _batches.batch_id, _items.item_index == 0)
    return (
        _candidates(_batches)
        .outerjoin(queued_work_items, first)
        .where(
            _batches.session_id == session_id,
            _claim.is_free(now_ms=now_ms),
            _batches.available_at_ms <= now_ms,
        )
        .order_by(_batches.enqueue_seq)
        .limit(max_batches)
    )


def _candidates(batches: Any) -> Candidates:
    chosen: Candidates = select(
        *(batches[name] for name in BATCH_COLUMNS), batches.claim_fencing_token
    )
    return chosen


@prepare
def lapsed_claim(*, enqueue_seq: int) -> Select[str | None]:
    """Read whose claim stands on one batch, live or run out; no row once it was given back."""
    return select(_batches.claim_owner_id).where(
        _batches.enqueue_seq == enqueue_seq, _batches.claim_token.is_not(None)
    )


@prepare
def claim_batch(
    *,
    enqueue_seq: int,
    claim_id: str,
    owner_id: str,
    token: str,
    now_ms: int,
    expires_at_ms: int,
    session_id: str,
    lease_owner_id: str,
    lease_token: str,
    lease_fencing_token: int,
) -> Update:
    """Put a claim on one batch, under the live lease on its session.

    No row changes once that is lost, or if somebody else has a live claim on the batch.
    """
    leased = _is_leased(session_id, lease_owner_id, lease_token, lease_fencing_token, now_ms)
    return (
        update(queued_work_batches)
        .where(_batches.enqueue_seq == enqueue_seq, ~has_live_claim(now_ms=now_ms), leased)
        .values(
            {
                _batches.claim_id: claim_id,
                _batches.claim_owner_id: owner_id,
                _batches.claim_token: token,
                _batches.claim_fencing_token: _batches.claim_fencing_token + 1,
                _batches.claim_claimed_at_ms: now_ms,
                _batches.claim_expires_at_ms: expires_at_ms,
            }
        )
    )


def _is_leased(
    session_id: str, owner_id: str, token: str, fencing_token: int, now_ms: int
) -> ColumnElement[bool]:
    """The session's lease is this very term, and live."""
    return EXECUTION_LEASES.holds(
        key=session_id,
        owner_id=owner_id,
        token=token,
        fencing_token=fencing_token,
        now_ms=now_ms,
    )


def carries_claim(*, session_id: str, claim_id: str, token: str) -> ColumnElement[bool]:
    """A condition on ``queued_work_batches``: the row carries this very claim, live or expired."""
    return and_(
        _batches.session_id == session_id,
        _batches.claim_id == claim_id,
        # The token: a drained queue gives the same claim id and number again.
        _batches.claim_token == token,
    )


@prepare
def claimed_work(*, session_id: str, claim_id: str, token: str) -> Select[str]:
    """Read the ids of the batches that carry a claim."""
    carries = carries_claim(session_id=session_id, claim_id=claim_id, token=token)
    return select(_batches.batch_id).where(carries)


@prepare
def load_claimed_items(
    *, session_id: str, claim_id: str, token: str
) -> Select[str, str | None, str | None]:
    """Read the batches that carry a claim and their items, in order: batch_id, item_id, payload_json.

    A batch without items, which only a foreign program makes, has one row of NULLs.
    """
    carries = carries_claim(session_id=session_id, claim_id=claim_id, token=token)
    items = select(_batches.batch_id, _items.item_id, _items.payload_json).join_from(
        queued_work_batches, queued_work_items, _items.batch_id == _batches.batch_id, isouter=True
    )
    # Else, among many sessions in one database, it would read all items of this one.
    by_claim = indexed_by(items, queued_work_batches, "idx_queued_work_claim")
    return by_claim.where(carries).order_by(_batches.enqueue_seq, _items.item_index)


@prepare
def renew_claim(*, session_id: str, claim_id: str, token: str, expires_at_ms: int) -> Update:
    """Move the end of a claim on every batch that carries it."""
    carries = carries_claim(session_id=session_id, claim_id=claim_id, token=token)
    moved = {_batches.claim_expires_at_ms: expires_at_ms}
    return update(queued_work_batches).where(carries).values(moved)


@prepare
def abandon_claim(*, session_id: str, claim_id: str, token: str) -> Update:
    """Take a claim off every batch that carries it, and keep the fencing numbers (S-QUEUE-7)."""
    carries = carries_claim(session_id=session_id, claim_id=claim_id, token=token)
    return (
        update(queued_work_batches)
        .where(carries)
        .values(
            {
                _batches.claim_id: None,
                _batches.claim_owner_id: None,
                _batches.claim_token: None,
                _batches.claim_claimed_at_ms: 0,
                _batches.claim_expires_at_ms: 0,
            }
        )
    )


@prepare
def complete_work(
    *,
    session_id: str,
    claim_id: str,
    token: str,
    lease_owner_id: str,
    lease_token: str,
    lease_fencing_token: int,
    now_ms: int,
) -> ReturningDelete[str]:
    """Remove every batch that carries a claim, with its items, under the live lease on its session.

    Returns their ids (S-QUEUE-11); none once that lease is lost.
    """
    carries = carries_claim(session_id=session_id, claim_id=claim_id, token=token)
    leased = _is_leased(session_id, lease_owner_id, lease_token, lease_fencing_token, now_ms)
    return delete(queued_work_batches).where(carries, leased).returning(_batches.batch_id)


@prepare
def complete_claim(*, session_id: str, claim_id: str, token: str) -> Delete:
    """Remove every batch that carries a claim; its items go with it."""
    carries = carries_claim(session_id=session_id, claim_id=claim_id, token=token)
    return delete(queued_work_batches).where(carries)
