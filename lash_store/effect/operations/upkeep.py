"""What is recorded of steps, and removing it."""

from typing import Any

from lash_store._kernel.checks import (
    bound,
    check_choice,
    check_pair,
    check_text,
    check_time,
    check_words,
    shown,
)
from lash_store.effect import statements
from lash_store.effect.context import EffectContext, Tx, Work
from lash_store.effect.records import (
    STATUSES,
    Effect,
    EffectStatus,
    Replayed,
    ReplayedFailure,
    ended,
    key_of,
    read_term,
    scopes_of_session,
)
from lash_store.effect.tables import runtime_effect_replay
from lash_store.errors import CorruptRecordError


def list_effects(
    _: EffectContext,
    *,
    scope_id: str | None = None,
    status: EffectStatus | None = None,
    after: tuple[str, str] = ("", ""),
    limit: int = 100,
) -> Work[list[Effect]]:
    """Return a page of steps by (scope id, replay key), from behind `after` (E-LIST-1).

    Raises InvalidRecordError for a bad filter or bound.
    """
    behind_scope, behind_key = check_pair("after", after)
    after_scope_id = check_text("after", behind_scope)
    after_replay_key = check_text("after", behind_key)
    known, most = _check_status(status), bound("limit", limit)
    scope = _check_scope(scope_id)

    def list_page(tx: Tx) -> list[Effect]:
        if scope is None:
            rows = statements.list_effects.all(
                tx.own_cursor,
                status=known,
                after_scope_id=after_scope_id,
                after_replay_key=after_replay_key,
                limit=most,
            )
        elif scope < after_scope_id:
            rows = []
        else:
            rows = statements.list_scope.all(
                tx.own_cursor,
                scope_id=scope,
                status=known,
                after_replay_key=after_replay_key if scope == after_scope_id else "",
                limit=most,
            )
        return [_effect(row) for row in rows]

    return list_page


def count_effects(
    _: EffectContext, *, scope_id: str | None = None, status: EffectStatus | None = None
) -> Work[int]:
    """Count steps, of one scope or of all, in one status or in any (E-LIST-1)."""
    known, scope = _check_status(status), _check_scope(scope_id)

    def count(tx: Tx) -> int:
        row = (
            statements.count_effects.one(tx.own_cursor, status=known)
            if scope is None
            else statements.count_scope.one(tx.own_cursor, scope_id=scope, status=known)
        )
        return 0 if row is None else row[0]

    return count


def oldest_in_progress_ms(_: EffectContext, *, scope_id: str | None = None) -> Work[int | None]:
    """Return for how many milliseconds the oldest step in progress has been so (E-LIST-1).

    Since its first beginning; None if no step is in progress.
    """
    scope = _check_scope(scope_id)

    def measure(tx: Tx) -> int | None:
        row = statements.oldest_in_progress.one(tx.own_cursor, scope_id=scope)
        if row is None or row[0] is None:
            return None
        return max(0, tx.now_ms - _time(scope or "?", row[0]))

    return measure


def forget_scope(_: EffectContext, scope_id: str) -> Work[int]:
    """Remove the steps of a scope that have ended or were given back; return how many (E-LIST-1).

    Those in progress stay, sleeps too. A step that is forgotten is done again if it is begun again.
    """
    scope = check_words("scope_id", scope_id)

    def forget(tx: Tx) -> int:
        return statements.forget_scope.run(tx.own_cursor, scope_id=scope)

    return forget


def delete_session(_: EffectContext, session_id: str) -> Work[int]:
    """Remove the steps of all turns of a session, by the scopes of :func:`turn_scope`; return how many (E-LIST-1).

    Those in progress too: whoever is at one records nothing, by LeaseLostError. A session of the same id has
    nothing of this one's then. Raises InvalidRecordError for an id with a / in it, as ``turn_scope`` does.
    """
    scopes_from, scopes_to = scopes_of_session(session_id)

    def remove(tx: Tx) -> int:
        return statements.delete_session.run(
            tx.own_cursor, scopes_from=scopes_from, scopes_to=scopes_to
        )

    return remove


def prune_effects(_: EffectContext, updated_before_ms: int, *, limit: int = 1_000) -> Work[int]:
    """Remove a batch of the steps that were completed before a time; return how many.

    At most `limit`; call again until it returns less. `updated_before_ms` is exclusive,
    milliseconds since the epoch (E-LIST-1). A scope in which a step is in progress, a sleep too, keeps all
    of its steps; so does one in which a step was given back, until it has ended, or :func:`forget_scope`. Of others, what is removed is done again by whoever goes on there: let it be a time
    before which no work that may still go on has done anything.
    """
    before = check_time("updated_before_ms", updated_before_ms)
    most = bound("limit", limit)

    def prune(tx: Tx) -> int:
        cursor = tx.own_cursor
        rows = statements.prunable_effects.all(cursor, updated_before_ms=before, limit=most)
        pruned = [
            statements.prune_effect.bind(cursor, scope_id=scope, replay_key=key)
            for scope, key in rows
        ]
        with tx.all_or_nothing():
            return statements.prune_effect.many(tx.own_cursor, pruned) if pruned else 0

    return prune


def _check_scope(scope_id: str | None) -> str | None:
    return None if scope_id is None else check_text("scope_id", scope_id)


def _check_status(status: str | None) -> str | None:
    if status is not None:
        check_choice("status", status, STATUSES)
    return status


def _effect(
    row: tuple[str, str, str, str, str | None, str | None, str | None, int, int | None, int, int],
) -> Effect:
    scope_id, replay_key, digest, status, outcome_json, error_json, owner_id, *times = row
    expires_at_ms, due_at_ms, created_at_ms, updated_at_ms = times
    columns = (digest, status, outcome_json, error_json, owner_id, None, expires_at_ms, due_at_ms)
    term = read_term(scope_id, replay_key, columns)
    end = ended(scope_id, replay_key, term)
    known: Any = status
    term_key = key_of(scope_id, replay_key)
    return Effect(
        scope_id=scope_id,
        replay_key=replay_key,
        envelope_hash=digest,
        status=known,
        outcome=end.outcome if isinstance(end, Replayed) else None,
        error=end.error if isinstance(end, ReplayedFailure) else None,
        owner_id=owner_id,
        expires_at_ms=term.expires_at_ms,
        due_at_ms=term.due_at_ms,
        created_at_ms=_time(term_key, created_at_ms),
        updated_at_ms=_time(term_key, updated_at_ms),
    )


def _time(key: str, value: object) -> int:
    if type(value) is not int:
        raise CorruptRecordError(runtime_effect_replay.name, key, f"{shown(value)} is no time")
    return value
