"""Claims of what waits in the work queue: taking it, holding on to it, giving it back."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec.structs import astuple
from sqlalchemy.sql import visitors

from lash_store._kernel.checks import check_choice, check_count, check_items, check_name
from lash_store._kernel.choosing import Choice, OrderBy, Where, chosen
from lash_store._kernel.codecs import read_as
from lash_store._kernel.dialects import by_primary_key
from lash_store._kernel.liveness import end_of_term, new_token
from lash_store._kernel.logs import takeovers_are_told
from lash_store.errors import ClaimLostError, CorruptRecordError
from lash_store.session import statements
from lash_store.session.context import SessionContext, Tx, Work
from lash_store.session.operations.leases import LEASES
from lash_store.session.operations.queue import assembled
from lash_store.session.records import SessionFence
from lash_store.session.records.queue import (
    BOUNDARIES,
    Boundary,
    Candidate,
    Prefix,
    WorkClaim,
    check_claim,
    claimable_prefix,
)
from lash_store.session.tables import queued_work_batches

_MORE: Final = 8
"""How many times as many rows are asked for where some were there several times."""

_TABLE: Final = queued_work_batches.name


def claim_work(
    context: SessionContext,
    fence: SessionFence,
    *,
    owner_id: str,
    ttl_ms: int,
    max_batches: int = 1,
    boundary: Boundary = "idle",
    where: Where | None = None,
    order_by: OrderBy | None = None,
) -> Work[WorkClaim | None]:
    """Take the batches at the head of the queue of the fence's session (S-QUEUE-3, 4, 10).

    None if nothing is to be had at this boundary; `max_batches` 0 gives None before any
    check. Raises LeaseLostError unless the session lease of `fence` is live.

    With `where` or `order_by`, the queue is for this call as if it held those batches only, in
    that order, and in enqueue order where it is silent (K-COMPOSE-1): conditions on the columns
    of ``queued_work_batches``, and on those of ``queued_work_items`` for each batch's first item.
    """
    if check_count("max_batches", max_batches) == 0:
        return _take_nothing
    owner = check_name("owner_id", owner_id)
    check_choice("boundary", boundary, BOUNDARIES)
    check_count("ttl_ms", ttl_ms)
    choice = chosen(where, order_by)
    require_lease = LEASES.requiring(context, fence)

    def claim(tx: Tx) -> WorkClaim | None:
        try:
            taken = _prefix(tx, fence.session_id, boundary, max_batches, choice)
        except CorruptRecordError:
            require_lease(tx)  # whoever has lost it is told that
            raise
        if not taken:
            require_lease(tx)
            return None
        return _claim(tx, fence, taken, owner, ttl_ms)

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
        return _claim(tx, fence, taken, owner, ttl_ms)

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
        # If the clock was set back since, not below what was claimed.
        expires_at_ms = end_of_term(max(tx.now_ms, held.claimed_at_ms), ttl_ms)
        statements.renew_claim.later(
            tx.own_cursor,
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
            tx.own_cursor, session_id=held.session_id, claim_id=held.claim_id, token=held.token
        )

    return abandon


def require_claim(_: SessionContext, claim: WorkClaim) -> Work[None]:
    """Raise ClaimLostError unless the claim stands on exactly its batches, each once."""
    held = check_claim(claim)

    def require(tx: Tx) -> None:
        require_standing(tx, held)

    return require


def require_standing(tx: Tx, claim: WorkClaim) -> None:
    """Require a claim that was checked, on an open transaction; see :func:`require_claim`."""
    carrying = statements.claimed_work.all(
        tx.own_cursor, session_id=claim.session_id, claim_id=claim.claim_id, token=claim.token
    )
    found = tuple(batch_id for (batch_id,) in carrying)
    if sorted(found) != sorted(claim.batch_ids):
        raise ClaimLostError(claim.claim_id, claim.batch_ids, found)


def complete_claim(tx: Tx, claim: WorkClaim) -> None:
    """Remove the batches of a claim that stands."""
    statements.complete_claim.later(
        tx.own_cursor, session_id=claim.session_id, claim_id=claim.claim_id, token=claim.token
    )


def complete_work(context: SessionContext, fence: SessionFence, claim: WorkClaim) -> Work[None]:
    """Remove the batches of a claim from the queue: they are done (S-QUEUE-11).

    What ``commit_turn`` does with the claims it names, for work that changes nothing else of the
    session. Raises LeaseLostError unless the session lease of `fence` is live, then ClaimLostError
    unless the claim, of the same session, stands on exactly its batches; nothing is removed then.
    """
    held = check_claim(claim)
    require_lease = LEASES.requiring(context, fence)

    def complete(tx: Tx) -> None:
        if held.session_id != fence.session_id:
            require_lease(tx)
            raise ClaimLostError(held.claim_id, held.batch_ids, (), "of another session")
        with tx.all_or_nothing():
            removed = _removed(tx, fence, held)
            if sorted(removed) != sorted(held.batch_ids):
                if not removed:
                    require_lease(tx)
                raise ClaimLostError(held.claim_id, held.batch_ids, removed)

    return complete


def complete_and_claim_work(
    context: SessionContext,
    fence: SessionFence,
    claim: WorkClaim,
    *,
    ttl_ms: int,
    max_batches: int = 1,
    boundary: Boundary = "idle",
    where: Where | None = None,
    order_by: OrderBy | None = None,
) -> Work[WorkClaim | None]:
    """Complete a claim and take what is next, for the same owner, in one transaction (S-QUEUE-11).

    As ``complete_work`` and then ``claim_work``: None if nothing more is to be had. Raises what
    they raise; nothing is removed or taken then.
    """
    complete = complete_work(context, fence, claim)
    take = claim_work(
        context,
        fence,
        owner_id=claim.owner_id,
        ttl_ms=ttl_ms,
        max_batches=max_batches,
        boundary=boundary,
        where=where,
        order_by=order_by,
    )

    def complete_and_claim(tx: Tx) -> WorkClaim | None:
        with tx.all_or_nothing():
            complete(tx)
            return take(tx)

    return complete_and_claim


def _removed(tx: Tx, fence: SessionFence, claim: WorkClaim) -> list[str]:
    rows = statements.complete_work.all(
        tx.own_cursor,
        session_id=claim.session_id,
        claim_id=claim.claim_id,
        token=claim.token,
        lease_owner_id=fence.owner_id,
        lease_token=fence.token,
        lease_fencing_token=fence.fencing_token,
        now_ms=tx.now_ms,
    )
    return [batch_id for (batch_id,) in rows]


def _take_nothing(_: Tx) -> None:
    """Claim no batches at all."""


def _prefix(
    tx: Tx, session_id: str, boundary: Boundary, max_batches: int, choice: Choice | None = None
) -> Prefix:
    rows: Iterable[tuple[object, ...]]
    if choice is None:
        rows = statements.claimable_work.all(
            tx.own_cursor, session_id=session_id, now_ms=tx.now_ms, max_batches=max_batches
        )
    else:
        rows = _chosen(tx, session_id, max_batches, choice)
    candidates = [read_as(Candidate, _TABLE, session_id, row) for row in rows]
    return claimable_prefix(candidates, boundary=boundary, max_batches=max_batches)


def _chosen(tx: Tx, session_id: str, max_batches: int, choice: Choice) -> list[tuple[object, ...]]:
    most = max_batches
    while True:
        choosable = statements.choosable_work(
            session_id=session_id, now_ms=tx.now_ms, max_batches=most
        )
        if not (choice.order_by or _names_a_batch(choice)):
            # By the numbers of the queue, which is their order, or all that are ready would be sorted.
            choosable = by_primary_key(choosable, queued_work_batches)
        by_choice = choice.applied(choosable, queued_work_batches.c.enqueue_seq)
        with tx.all_or_nothing():
            rows = choice.rows(tx, tx.context.scope, by_choice)
        # A condition that joins a table may multiply rows: each is chosen once, and others behind it.
        found = list(dict.fromkeys(map(tuple, rows)))
        if len(found) >= max_batches or len(rows) < most:
            return found[:max_batches]
        most *= _MORE


def _names_a_batch(choice: Choice) -> bool:
    """Whether a condition speaks of what batches are found by, one by one."""
    told = () if choice.where is None else visitors.iterate(choice.where)
    return any(getattr(each, "name", None) in ("batch_id", "source_key") for each in told)


def _note_takeover(tx: Tx, candidate: Candidate, owner_id: str) -> None:
    if not candidate.claim_fencing_token:
        return  # nobody ever had it
    before = statements.lapsed_claim.one(tx.own_cursor, enqueue_seq=candidate.enqueue_seq)
    if before is not None:
        tx.note_takeover("the batch", candidate.batch_id, before[0], owner_id)


def _claim(tx: Tx, fence: SessionFence, taken: Prefix, owner_id: str, ttl_ms: int) -> WorkClaim:
    with tx.all_or_nothing():
        return _take(tx, fence, taken, owner_id, end_of_term(tx.now_ms, ttl_ms))


def _take(
    tx: Tx, fence: SessionFence, taken: Prefix, owner_id: str, expires_at_ms: int
) -> WorkClaim:
    cursor, token = tx.own_cursor, new_token(tx.context.ids)
    fencing_token = taken[0].claim_fencing_token + 1
    claim_id = f"qwc:{taken[0].enqueue_seq}:{fencing_token}"
    if takeovers_are_told():
        for candidate in taken:
            _note_takeover(tx, candidate, owner_id)
    rows = [
        statements.claim_batch.bind(
            cursor,
            enqueue_seq=candidate.enqueue_seq,
            claim_id=claim_id,
            owner_id=owner_id,
            token=token,
            now_ms=tx.now_ms,
            expires_at_ms=expires_at_ms,
            session_id=fence.session_id,
            lease_owner_id=fence.owner_id,
            lease_token=fence.token,
            lease_fencing_token=fence.fencing_token,
        )
        for candidate in taken
    ]
    statements.claim_batch.later_many(cursor, rows)
    items = statements.load_claimed_items.all(
        cursor, session_id=fence.session_id, claim_id=claim_id, token=token
    )
    if len({batch_id for batch_id, *_ in items}) != len(taken):
        LEASES.require(tx, fence)
        raise CorruptRecordError(_TABLE, claim_id, "a row changed between two statements")
    return WorkClaim(
        session_id=fence.session_id,
        claim_id=claim_id,
        owner_id=owner_id,
        token=token,
        fencing_token=fencing_token,
        claimed_at_ms=tx.now_ms,
        expires_at_ms=expires_at_ms,
        batches=tuple(assembled([astuple(each)[:-1] for each in taken], items)),
    )
