"""Attempts at a step: beginning, renewing, ending one."""

from typing import Any, Final, TypedDict

import msgspec

from lash_store._kernel.checks import (
    check_kind,
    check_name,
    check_time,
    check_words,
    shown,
)
from lash_store._kernel.codecs import decode_json, encode_json, free_json
from lash_store._kernel.leases import Fence
from lash_store._kernel.liveness import end_of_term, is_live, new_token
from lash_store._kernel.locks import commits_with_first, locked_by
from lash_store._kernel.logs import takeovers_are_told
from lash_store._stores.leasing import leases_of
from lash_store.effect import statements
from lash_store.effect.context import EffectContext, Tx, Work
from lash_store.effect.records import (
    TTL_MS,
    Begun,
    Busy,
    EffectClaim,
    EffectError,
    EffectTerm,
    Replayed,
    ReplayedFailure,
    check_claim,
    check_ttl,
    ended,
    hash_of,
    key_of,
    read_term,
    written_error,
)
from lash_store.effect.tables import runtime_effect_replay
from lash_store.errors import (
    CorruptRecordError,
    IdempotencyConflictError,
    InvalidRecordError,
    LeaseLostError,
    LeaseLostReason,
    NotFoundError,
)

_TABLE: Final = runtime_effect_replay.name


class _Claimed(TypedDict):
    """The arguments by which the statements know a claim."""

    scope_id: str
    replay_key: str
    envelope_hash: str
    owner_id: str
    token: str


def begin_effect(
    context: EffectContext,
    scope_id: str,
    replay_key: str,
    envelope: Any = None,
    *,
    envelope_hash: str | None = None,
    ttl_ms: int = TTL_MS,
    due_at_ms: int | None = None,
    owner_id: str | None = None,
    strict: bool = False,
) -> Work[Begun]:
    """Claim a step, or learn how it ended or who is at it (E-BEGIN-1 to E-BEGIN-3).

    `envelope` is JSON that describes the step; `envelope_hash` may stand in its place. A
    step that nobody has begun, or whose claim has run out, gives an EffectClaim that holds
    for `ttl_ms` (at least 1), with the first `due_at_ms`. One that ended gives Replayed or
    ReplayedFailure; one that somebody is at, Busy. `owner_id` is the store's unless given.

    Raises IdempotencyConflictError if the step was begun with another envelope, NotFoundError
    if it was never begun and `strict` is true, CorruptRecordError for a row that contradicts
    itself, InvalidRecordError for blank names, a bad envelope, time or ttl.
    """
    scope_id, replay_key = check_step(scope_id, replay_key)
    digest = hash_of(envelope, envelope_hash)
    owner = context.owner_id if owner_id is None else check_name("owner_id", owner_id)
    due = None if due_at_ms is None else check_time("due_at_ms", due_at_ms)
    check_ttl(ttl_ms)
    check_kind("strict", strict, bool)

    names = scope_id, replay_key, digest

    def begin_it(tx: Tx) -> Begun:
        return begin(tx, *names, owner_id=owner, ttl_ms=ttl_ms, due_at_ms=due, strict=strict)

    return locked_by(begin_it, scope_id, replay_key)


def look_up_effect(
    _: EffectContext,
    scope_id: str,
    replay_key: str,
    envelope: Any = None,
    *,
    envelope_hash: str | None = None,
    strict: bool = False,
) -> Work[Replayed | ReplayedFailure | Busy | None]:
    """Say what ``begin_effect`` would find, and claim nothing; None if it could be claimed.

    What waiting looks at, without the write lock (E-BEGIN-4). Raises what ``begin_effect``
    raises.
    """
    scope_id, replay_key = check_step(scope_id, replay_key)
    digest = hash_of(envelope, envelope_hash)
    check_kind("strict", strict, bool)

    return lambda tx: look_up(tx, scope_id, replay_key, digest, strict=strict)


def renew_effect(
    _: EffectContext, claim: EffectClaim, *, ttl_ms: int = TTL_MS
) -> Work[EffectClaim]:
    """Move the end of a live claim to `ttl_ms` from now, and return it so (E-RENEW-1).

    Raises LeaseLostError, and changes nothing, if it is not live any more.
    """
    check_claim(claim)
    check_ttl(ttl_ms)

    def renew(tx: Tx) -> EffectClaim:
        expires_at_ms = end_of_term(tx.now_ms, ttl_ms)
        moved = statements.renew_effect.run(
            tx.own_cursor,
            **_claimed(claim),
            now_ms=tx.now_ms,
            expires_at_ms=expires_at_ms,
        )
        if moved != 1:
            raise _lost(tx, claim)
        return msgspec.structs.replace(claim, expires_at_ms=expires_at_ms)

    return commits_with_first(locked_by(renew, claim.scope_id, claim.replay_key))


def finish_effect(_: EffectContext, claim: EffectClaim, outcome: Any = None) -> Work[Any]:
    """Record what a step gave, JSON, and return it as it will be replayed (E-FIN-1).

    Raises LeaseLostError, and records nothing, if the claim is not live any more;
    InvalidRecordError for an outcome that is no JSON.
    """
    outcome_json = encode_json(free_json("outcome", outcome))
    check_claim(claim)

    def finish(tx: Tx) -> Any:
        _end(tx, claim, "completed", outcome_json, None)
        return decode_json(_TABLE, claim.key, outcome_json)

    return commits_with_first(locked_by(finish, claim.scope_id, claim.replay_key))


def fail_effect(_: EffectContext, claim: EffectClaim, error: EffectError) -> Work[None]:
    """Record that a step failed for good (E-FIN-1).

    Raises LeaseLostError, and records nothing, if the claim is not live any more.
    """
    error_json = written_error(error)
    check_claim(claim)

    def fail(tx: Tx) -> None:
        _end(tx, claim, "failed", None, error_json)

    return commits_with_first(locked_by(fail, claim.scope_id, claim.replay_key))


def record_effect(
    _: EffectContext,
    fence: Fence,
    scope_id: str,
    replay_key: str,
    envelope: Any = None,
    outcome: Any = None,
    *,
    envelope_hash: str | None = None,
    error: EffectError | None = None,
) -> Work[Replayed | ReplayedFailure | Busy]:
    """Record how a step ended, under a lease that the caller holds, in one write (E-RUN-5).

    For steps that nobody runs but under that lease: they need no claim of their own. `fence` is that of
    a process or of a session in a shared database, or of a table of your own in the same one. With
    `error` the step failed for good, else it gave `outcome`, JSON. Returns how it stands: what was
    recorded now or, if it had ended before, then; Busy, with nothing recorded, while somebody is at it
    who has begun it.

    Raises LeaseLostError, and records nothing, unless the lease is live; IdempotencyConflictError if
    the step was begun with another envelope; InvalidRecordError for bad arguments, an outcome beside an
    error, and for a fence whose leases are in another file.
    """
    check_kind("fence", fence, Fence)
    scope_id, replay_key = check_step(scope_id, replay_key)
    digest = hash_of(envelope, envelope_hash)
    failed = None if error is None else written_error(error)
    if error is not None and outcome is not None:
        raise InvalidRecordError("outcome", shown(outcome), "can't be given beside an error")
    given = encode_json(free_json("outcome", outcome)) if error is None else None
    leases, key = leases_of(type(fence)), key_of(scope_id, replay_key)

    def record(tx: Tx) -> Replayed | ReplayedFailure | Busy:
        leases.require_beside(tx, fence)
        tx.touch(key)
        row = statements.record_effect.one(
            tx.own_cursor,
            scope_id=scope_id,
            replay_key=replay_key,
            envelope_hash=digest,
            now_ms=tx.now_ms,
            status="completed" if failed is None else "failed",
            outcome_json=given,
            error_json=failed,
        )
        if row is None:
            return claimed_or_ended(tx, scope_id, replay_key, digest)
        if error is not None:
            return ReplayedFailure(error)
        return Replayed(decode_json(_TABLE, key, given or ""))

    return leases.locked_beside(locked_by(record, scope_id, replay_key), fence)


def abandon_effect(_: EffectContext, claim: EffectClaim) -> Work[bool]:
    """Give a step back for the next attempt, which may begin at once (E-FIN-2).

    True if this call freed it. False, with nothing changed, if it has ended or somebody else
    has taken over: it may safely come twice or late.
    """
    check_claim(claim)

    def abandon(tx: Tx) -> bool:
        tx.touch(claim.key)
        freed = statements.abandon_effect.run(tx.own_cursor, **_claimed(claim), now_ms=tx.now_ms)
        return freed == 1

    return commits_with_first(locked_by(abandon, claim.scope_id, claim.replay_key))


def look_up(
    tx: Tx, scope_id: str, replay_key: str, digest: str, *, strict: bool
) -> Replayed | ReplayedFailure | Busy | None:
    """Do what ``look_up_effect`` does in its snapshot, of arguments that were checked."""
    if strict:
        existing(tx, scope_id, replay_key)
    return standing_of(tx, scope_id, replay_key, digest)


def begin(
    tx: Tx,
    scope_id: str,
    replay_key: str,
    digest: str,
    *,
    owner_id: str,
    ttl_ms: int,
    due_at_ms: int | None = None,
    strict: bool = False,
) -> Begun:
    """Do what ``begin_effect`` does in its transaction, of arguments that were checked."""
    if strict:
        existing(tx, scope_id, replay_key)
    token, expires_at_ms = new_token(tx.context.ids), end_of_term(tx.now_ms, ttl_ms)
    before = term_of(tx, scope_id, replay_key) if takeovers_are_told() else None
    row = statements.begin_effect.one(
        tx.own_cursor,
        scope_id=scope_id,
        replay_key=replay_key,
        envelope_hash=digest,
        owner_id=owner_id,
        token=token,
        now_ms=tx.now_ms,
        expires_at_ms=expires_at_ms,
        due_at_ms=due_at_ms,
    )
    if row is not None:
        if row[0] is not None and type(row[0]) is not int:
            raise CorruptRecordError(_TABLE, key_of(scope_id, replay_key), "due_at_ms is no time")
        if before is not None and before.token is not None:
            key = key_of(scope_id, replay_key)
            tx.note_takeover("the step", key, before.owner_id, owner_id)
        return EffectClaim(scope_id, replay_key, digest, owner_id, token, expires_at_ms, row[0])
    return claimed_or_ended(tx, scope_id, replay_key, digest)


def claimed_or_ended(
    tx: Tx, scope_id: str, replay_key: str, digest: str
) -> Replayed | ReplayedFailure | Busy:
    """Say why a step is not to be had; IdempotencyConflictError for another one."""
    found = standing_of(tx, scope_id, replay_key, digest)
    if found is None:
        raise CorruptRecordError(_TABLE, key_of(scope_id, replay_key), "it could not be claimed")
    return found


def _end(
    tx: Tx,
    claim: EffectClaim,
    status: str,
    outcome_json: str | None,
    error_json: str | None,
) -> None:
    tx.touch(claim.key)
    recorded = statements.finish_effect.run(
        tx.own_cursor,
        **_claimed(claim),
        now_ms=tx.now_ms,
        status=status,
        outcome_json=outcome_json,
        error_json=error_json,
    )
    if recorded != 1:
        raise _lost(tx, claim)


def standing_of(
    tx: Tx, scope_id: str, replay_key: str, digest: str
) -> Replayed | ReplayedFailure | Busy | None:
    """Say how a step stands; None if it could be claimed. IdempotencyConflictError for another one."""
    term = term_of(tx, scope_id, replay_key)
    if term is None:
        return None
    if term.envelope_hash != digest:  # before how it ended, which may be damaged
        key = key_of(scope_id, replay_key)
        raise IdempotencyConflictError("effect", key, term.envelope_hash, digest)
    end = ended(scope_id, replay_key, term)
    if end is not None:
        return end
    if not is_live(term, now_ms=tx.now_ms):
        return None
    if term.owner_id is None:
        key = key_of(scope_id, replay_key)
        raise CorruptRecordError(_TABLE, key, "a live claim without an owner")
    return Busy(term.owner_id, term.expires_at_ms, term.due_at_ms)


def _claimed(claim: EffectClaim) -> _Claimed:
    return {
        "scope_id": claim.scope_id,
        "replay_key": claim.replay_key,
        "envelope_hash": claim.envelope_hash,
        "owner_id": claim.owner_id,
        "token": claim.token,
    }


def existing(tx: Tx, scope_id: str, replay_key: str) -> EffectTerm:
    """Read a step's row; NotFoundError if there is none."""
    term = term_of(tx, scope_id, replay_key)
    if term is None:
        raise NotFoundError("effect", key_of(scope_id, replay_key))
    return term


def term_of(tx: Tx, scope_id: str, replay_key: str) -> EffectTerm | None:
    """Read a step's row; None if there is none."""
    row = statements.load_effect.one(tx.own_cursor, scope_id=scope_id, replay_key=replay_key)
    return None if row is None else read_term(scope_id, replay_key, row)


def _lost(tx: Tx, claim: EffectClaim) -> LeaseLostError:
    term = term_of(tx, claim.scope_id, claim.replay_key)
    return LeaseLostError(claim, term, _lost_reason(claim, term))


def check_step(scope_id: str, replay_key: str) -> tuple[str, str]:
    """Return the two, as plain texts, if they can name a step: neither is blank (E-REC-1)."""
    return check_words("scope_id", scope_id), check_words("replay_key", replay_key)


def _lost_reason(claim: EffectClaim, term: EffectTerm | None) -> LeaseLostReason:
    """Say why a claim that was just refused does not hold (K-LEASE-5)."""
    if term is None or term.envelope_hash != claim.envelope_hash:
        return "never_claimed"
    if term.token is None:
        return "released"
    is_own = term.token == claim.token and term.owner_id == claim.owner_id
    return "expired" if is_own else "superseded"
