"""The statements of an effect store: arguments in, SQLAlchemy construct out, nothing run.

A ``Select`` can be filtered, joined and paged, and a write can run in a transaction of the
consumer's own. Every time is an argument, milliseconds since the epoch.
"""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Delete,
    Select,
    Update,
    and_,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert

from lash_store._kernel.dialects import is_null_or, offered, upsert_insert
from lash_store._kernel.liveness import Liveness
from lash_store._kernel.prepared import prepare
from lash_store.effect.tables import runtime_effect_replay

_effects = runtime_effect_replay.c
_other = runtime_effect_replay.alias("other").c
_IN_PROGRESS = "in_progress"
_claim = Liveness(_effects.lease_token, _effects.lease_expires_at_ms)
_NOBODY: dict[Any, Any] = {
    _effects.lease_owner_id: None,
    _effects.lease_token: None,
    _effects.lease_expires_at_ms: 0,
}


@prepare
def select_effects() -> Select[
    str, str, str, str, str | None, str | None, str | None, int, int | None, int, int
]:
    """Every step, to filter, join, order and page.

    Scope id, replay key, envelope hash, status, outcome_json, error_json, owner id, expires-at,
    due-at, created-at, updated-at.
    """
    return select(
        _effects.scope_id,
        _effects.replay_key,
        _effects.envelope_hash,
        _effects.status,
        _effects.outcome_json,
        _effects.error_json,
        _effects.lease_owner_id,
        _effects.lease_expires_at_ms,
        _effects.due_at_ms,
        _effects.created_at_ms,
        _effects.updated_at_ms,
    )


@prepare
def load_effect(
    *, scope_id: str, replay_key: str
) -> Select[str, str, str | None, str | None, str | None, str | None, int, int | None]:
    """Read one step as far as it decides who may act on it; ``EffectTerm`` has the columns."""
    return select(
        _effects.envelope_hash,
        _effects.status,
        _effects.outcome_json,
        _effects.error_json,
        _effects.lease_owner_id,
        _effects.lease_token,
        _effects.lease_expires_at_ms,
        _effects.due_at_ms,
    ).where(_effects.scope_id == scope_id, _effects.replay_key == replay_key)


@prepare
def begin_effect(
    *,
    scope_id: str,
    replay_key: str,
    envelope_hash: str,
    owner_id: str,
    token: str,
    now_ms: int,
    expires_at_ms: int,
    due_at_ms: int | None,
) -> ReturningInsert[int | None]:
    """Claim a step that nobody has begun, or whose claim has run out (E-BEGIN-1).

    Returns its due-at, the first that was given; no row while it is claimed, once it has ended, and if it
    was begun with another envelope.
    """
    fresh = upsert_insert(runtime_effect_replay).values(
        scope_id=scope_id,
        replay_key=replay_key,
        envelope_hash=envelope_hash,
        status=_IN_PROGRESS,
        lease_owner_id=owner_id,
        lease_token=token,
        lease_expires_at_ms=expires_at_ms,
        due_at_ms=due_at_ms,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
    )
    return fresh.on_conflict_do_update(
        index_elements=[_effects.scope_id, _effects.replay_key],
        # Not created_at_ms: it is the first beginning's.
        set_={
            **offered(
                fresh,
                _effects.lease_owner_id,
                _effects.lease_token,
                _effects.lease_expires_at_ms,
                _effects.updated_at_ms,
            ),
            _effects.due_at_ms: func.coalesce(_effects.due_at_ms, fresh.excluded["due_at_ms"]),
        },
        where=_is_free(envelope_hash, now_ms),
    ).returning(_effects.due_at_ms)


def _is_free(envelope_hash: str, now_ms: int) -> ColumnElement[bool]:
    """The row is of this very step, which has not ended, and nobody is at it."""
    return and_(
        _effects.envelope_hash == envelope_hash,
        _effects.status == _IN_PROGRESS,
        _claim.is_free(now_ms=now_ms),
    )


def _is_claim(
    scope_id: str, replay_key: str, envelope_hash: str, owner_id: str, token: str
) -> ColumnElement[bool]:
    """The row carries this very claim, live or expired."""
    return and_(
        _effects.scope_id == scope_id,
        _effects.replay_key == replay_key,
        # All of them: a claim stands for one envelope, one owner and one attempt of it.
        _effects.envelope_hash == envelope_hash,
        _effects.lease_owner_id == owner_id,
        _effects.lease_token == token,
        _effects.status == _IN_PROGRESS,
    )


def is_live_claim(
    *,
    scope_id: str,
    replay_key: str,
    envelope_hash: str,
    owner_id: str,
    token: str,
    now_ms: int,
) -> ColumnElement[bool]:
    """A condition on ``runtime_effect_replay``: this very claim holds at `now_ms` (E-RENEW-1)."""
    own = _is_claim(scope_id, replay_key, envelope_hash, owner_id, token)
    return and_(own, ~_claim.is_over(now_ms=now_ms))


@prepare
def renew_effect(
    *,
    scope_id: str,
    replay_key: str,
    envelope_hash: str,
    owner_id: str,
    token: str,
    now_ms: int,
    expires_at_ms: int,
) -> Update:
    """Move the end of a live claim; changes no row for any other (E-RENEW-1)."""
    own = _is_claim(scope_id, replay_key, envelope_hash, owner_id, token)
    live = and_(own, ~_claim.is_over(now_ms=now_ms))
    moved = {_effects.lease_expires_at_ms: expires_at_ms, _effects.updated_at_ms: now_ms}
    return update(runtime_effect_replay).where(live).values(moved)


@prepare
def finish_effect(
    *,
    scope_id: str,
    replay_key: str,
    envelope_hash: str,
    owner_id: str,
    token: str,
    now_ms: int,
    status: str,
    outcome_json: str | None,
    error_json: str | None,
) -> Update:
    """Record how a step ended, under its live claim; changes no row for any other (E-FIN-1)."""
    own = _is_claim(scope_id, replay_key, envelope_hash, owner_id, token)
    live = and_(own, ~_claim.is_over(now_ms=now_ms))
    ended: dict[Any, Any] = {
        _effects.status: status,
        _effects.outcome_json: outcome_json,
        _effects.error_json: error_json,
        **_NOBODY,
        _effects.updated_at_ms: now_ms,
    }
    return update(runtime_effect_replay).where(live).values(ended)


@prepare
def record_effect(
    *,
    scope_id: str,
    replay_key: str,
    envelope_hash: str,
    now_ms: int,
    status: str,
    outcome_json: str | None,
    error_json: str | None,
) -> ReturningInsert[str]:
    """Record how a step ended that nobody has begun, or whose claim has run out (E-RUN-5).

    Returns its key; no row while it is claimed, once it has ended, and if it was begun with another
    envelope. Who may do so is for another statement to say.
    """
    fresh = upsert_insert(runtime_effect_replay).values(
        scope_id=scope_id,
        replay_key=replay_key,
        envelope_hash=envelope_hash,
        status=status,
        outcome_json=outcome_json,
        error_json=error_json,
        lease_expires_at_ms=0,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
    )
    return fresh.on_conflict_do_update(
        index_elements=[_effects.scope_id, _effects.replay_key],
        set_={
            **offered(
                fresh,
                _effects.status,
                _effects.outcome_json,
                _effects.error_json,
                _effects.updated_at_ms,
            ),
            **_NOBODY,
        },
        where=_is_free(envelope_hash, now_ms),
    ).returning(_effects.replay_key)


@prepare
def abandon_effect(
    *,
    scope_id: str,
    replay_key: str,
    envelope_hash: str,
    owner_id: str,
    token: str,
    now_ms: int,
) -> Update:
    """Free a step for the next attempt, under this very claim, live or expired (E-FIN-2)."""
    own = _is_claim(scope_id, replay_key, envelope_hash, owner_id, token)
    freed = {
        **_NOBODY,
        _effects.updated_at_ms: now_ms,
    }
    return update(runtime_effect_replay).where(own).values(freed)


@prepare
def list_scope(
    *, scope_id: str, status: str | None, after_replay_key: str, limit: int
) -> Select[str, str, str, str, str | None, str | None, str | None, int, int | None, int, int]:
    """Read a page of one scope's steps by replay key (E-LIST-1); no status filters by nothing."""
    return (
        select_effects()
        .where(
            _effects.scope_id == scope_id,
            _effects.replay_key > after_replay_key,
            is_null_or(status, lambda given: _effects.status == given),
        )
        .order_by(_effects.replay_key)
        .limit(limit)
    )


@prepare
def list_effects(
    *,
    status: str | None,
    after_scope_id: str,
    after_replay_key: str,
    limit: int,
) -> Select[str, str, str, str, str | None, str | None, str | None, int, int | None, int, int]:
    """Read a page of all steps by (scope id, replay key) (E-LIST-1); no status filters by nothing."""
    return (
        select_effects()
        .where(
            # The first part alone is what the primary key can be entered by.
            _effects.scope_id >= after_scope_id,
            or_(_effects.scope_id > after_scope_id, _effects.replay_key > after_replay_key),
            is_null_or(status, lambda given: _effects.status == given),
        )
        .order_by(_effects.scope_id, _effects.replay_key)
        .limit(limit)
    )


@prepare
def count_scope(*, scope_id: str, status: str | None) -> Select[int]:
    """Count one scope's steps (E-LIST-1); no status filters by nothing."""
    return count_effects(status=status).where(_effects.scope_id == scope_id)


@prepare
def count_effects(*, status: str | None) -> Select[int]:
    """Count all steps (E-LIST-1); no status filters by nothing."""
    counted = select(func.count().label("steps")).select_from(runtime_effect_replay)
    return counted.where(is_null_or(status, lambda given: _effects.status == given))


@prepare
def oldest_in_progress(*, scope_id: str | None) -> Select[int | None]:
    """Read when the oldest step in progress was first begun; NULL if none is (E-LIST-1)."""
    return select(func.min(_effects.created_at_ms).label("created_at_ms")).where(
        _effects.status == _IN_PROGRESS,
        is_null_or(scope_id, lambda given: _effects.scope_id == given),
    )


@prepare
def forget_scope(*, scope_id: str) -> Delete:
    """Remove the steps of a scope that have ended or were given back; those in progress stay (E-LIST-1)."""
    # Whoever gave it back may never come again. At a sleep nobody is between two looks.
    is_given_back = and_(_effects.lease_token.is_(None), _effects.due_at_ms.is_(None))
    return delete(runtime_effect_replay).where(
        _effects.scope_id == scope_id, or_(_effects.status != _IN_PROGRESS, is_given_back)
    )


@prepare
def delete_session(*, scopes_from: str, scopes_to: str) -> Delete:
    """Remove the steps of all scopes in a range of texts, in progress or not (E-LIST-1)."""
    return delete(runtime_effect_replay).where(
        _effects.scope_id >= scopes_from, _effects.scope_id < scopes_to
    )


@prepare
def prunable_effects(*, updated_before_ms: int, limit: int) -> Select[str, str]:
    """Read a batch of the steps that were completed before a time: scope id and replay key."""
    return (
        select(_effects.scope_id, _effects.replay_key)
        .where(
            _effects.status == "completed",
            _effects.updated_at_ms < updated_before_ms,
            # Work that is under way there goes by what it has done.
            _effects.scope_id.not_in(select(_other.scope_id).where(_other.status == _IN_PROGRESS)),
        )
        .limit(limit)
    )


@prepare
def prune_effect(*, scope_id: str, replay_key: str) -> Delete:
    """Remove a step that is completed; changes no other row."""
    return delete(runtime_effect_replay).where(
        _effects.scope_id == scope_id,
        _effects.replay_key == replay_key,
        _effects.status == "completed",
    )
