"""Sleeps: steps that do nothing until they are due, whoever sleeps them to their end."""

from typing import Final

from lash_store._kernel.checks import check_count, check_kind
from lash_store._kernel.locks import locked_by
from lash_store.clock import MAX_INT
from lash_store.effect.context import EffectContext, Tx, Work
from lash_store.effect.operations.attempts import (
    abandon_effect,
    begin,
    check_step,
    existing,
    finish_effect,
    standing_of,
    term_of,
)
from lash_store.effect.records import (
    TTL_MS,
    EffectClaim,
    Replayed,
    ReplayedFailure,
    hash_of,
    key_of,
)
from lash_store.effect.tables import runtime_effect_replay
from lash_store.errors import CorruptRecordError, EffectFailedError

_TABLE: Final = runtime_effect_replay.name

_SLEPT: Final = {"type": "sleep"}
"""What is recorded of a sleep that is over, as the original records and needs it."""


def begin_sleep(
    context: EffectContext,
    scope_id: str,
    replay_key: str,
    duration_ms: int,
    *,
    envelope_hash: str | None = None,
    strict: bool = False,
) -> Work[int]:
    """Begin a durable sleep, or see how much of it is left, in milliseconds (E-SLEEP-1).

    It is due `duration_ms` after it was first begun, whoever sleeps it to its end; 0 if that
    is over, which is recorded, unless somebody else holds a claim on it just then. Between
    the calls nobody holds one, so nobody who dies in its middle keeps anybody waiting. Raises
    IdempotencyConflictError if the step was begun as anything else, NotFoundError if it was never
    begun and `strict` is true, EffectFailedError if it failed, CorruptRecordError if it was begun without a time at which it is due.
    """
    digest = hash_of_sleep(duration_ms, envelope_hash)
    scope_id, replay_key = check_step(scope_id, replay_key)
    check_kind("strict", strict, bool)

    def begin_or_end(tx: Tx) -> int:
        due_at_ms = min(tx.now_ms + duration_ms, MAX_INT)
        with tx.all_or_nothing():
            begun = begin(
                tx,
                scope_id,
                replay_key,
                digest,
                owner_id=context.owner_id,
                ttl_ms=TTL_MS,
                due_at_ms=due_at_ms,
                strict=strict,
            )
            if isinstance(begun, Replayed):
                return 0
            if isinstance(begun, ReplayedFailure):
                error = begun.error
                raise EffectFailedError(error.code, error.message, key_of(scope_id, replay_key))
            if begun.due_at_ms is None:
                key = key_of(scope_id, replay_key)
                raise CorruptRecordError(_TABLE, key, "a sleep without a time at which it is due")
            left_ms = max(0, begun.due_at_ms - tx.now_ms)
            if isinstance(begun, EffectClaim):
                put_down = (
                    abandon_effect(context, begun)
                    if left_ms
                    else finish_effect(context, begun, _SLEPT)
                )
                put_down(tx)
        return left_ms

    return locked_by(begin_or_end, scope_id, replay_key)


def look_up_sleep(
    _: EffectContext,
    scope_id: str,
    replay_key: str,
    duration_ms: int,
    *,
    envelope_hash: str | None = None,
    strict: bool = False,
) -> Work[int | None]:
    """Return how much of a sleep is left, in milliseconds, and change nothing.

    0 if its end is recorded; None if ``begin_sleep`` has something to do: it was never begun,
    or it is due. Raises IdempotencyConflictError if the step was begun as anything else, and
    NotFoundError if it was never begun and `strict` is true.
    """
    scope_id, replay_key = check_step(scope_id, replay_key)
    check_kind("strict", strict, bool)
    digest = hash_of_sleep(duration_ms, envelope_hash)

    def look_up(tx: Tx) -> int | None:
        if strict:
            existing(tx, scope_id, replay_key)
        found = standing_of(tx, scope_id, replay_key, digest)
        if isinstance(found, Replayed):
            return 0
        term = term_of(tx, scope_id, replay_key)
        if term is None or term.due_at_ms is None or isinstance(found, ReplayedFailure):
            return None
        return term.due_at_ms - tx.now_ms if term.due_at_ms > tx.now_ms else None

    return look_up


def hash_of_sleep(duration_ms: int, envelope_hash: str | None) -> str:
    """Return the hash of a sleep's envelope, or the consumer's own."""
    envelope = {"type": "sleep", "duration_ms": check_count("duration_ms", duration_ms)}
    return hash_of(envelope if envelope_hash is None else None, envelope_hash)
