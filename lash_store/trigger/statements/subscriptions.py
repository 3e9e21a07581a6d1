"""Statements on subscriptions."""

from sqlalchemy import (
    ColumnElement,
    Delete,
    Insert,
    Select,
    Update,
    and_,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert

from lash_store._kernel.dialects import (
    IsJsonString,
    IsNoJson,
    JsonText,
    OnOneRow,
    is_null_or,
    nullable,
)
from lash_store._kernel.prepared import prepare
from lash_store._wire.filters import is_defined_by
from lash_store.trigger.tables import trigger_subscription_seq, trigger_subscriptions

_subscriptions = trigger_subscriptions.c


@prepare
def select_subscriptions() -> Select[str, str, str, int, str]:
    """Every subscription: id, registrant's scope id, handle, whether enabled, record_json."""
    return select(
        _subscriptions.subscription_id,
        _subscriptions.registrant_scope_id,
        _subscriptions.handle,
        _subscriptions.enabled,
        _subscriptions.record_json,
    )


@prepare
def next_subscription_number() -> ReturningInsert[int]:
    """Draw the next number; none is ever drawn twice (T-SUB-2)."""
    return insert(trigger_subscription_seq).returning(trigger_subscription_seq.c.id)


@prepare
def register_subscription(
    *,
    subscription_id: str,
    registrant_scope_id: str,
    handle: str,
    source_type: str,
    source_key: str,
    now_ms: int,
    record_json: str,
) -> Insert:
    """Store a subscription, enabled."""
    return insert(trigger_subscriptions).values(
        subscription_id=subscription_id,
        registrant_scope_id=registrant_scope_id,
        handle=handle,
        source_type=source_type,
        source_key=source_key,
        enabled=1,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        record_json=record_json,
    )


def is_registered_by(
    *, scope_id: str, frames_from: str, frames_to: str, session_id: str
) -> ColumnElement[bool]:
    """A condition on ``trigger_subscriptions``: the registrant is a scope, or a frame of it.

    The ids of a session's frames are a range of texts: behind ``…/frame:``, before ``…/frame;``.
    The session that the record names decides where it can be read: the id of a session may end
    like that of a frame of another.
    """
    registrant = _subscriptions.registrant_scope_id
    # Compared byte by byte; LIKE would take "A" for "a".
    within = or_(registrant == scope_id, and_(registrant >= frames_from, registrant < frames_to))
    return and_(within, func.coalesce(_named_session(), session_id) == session_id)


def _named_session() -> ColumnElement[str | None]:
    """The session that the record names, where it can be read: where that is a text."""
    path = ("registrant", "scope", "session_id")
    is_text = IsJsonString(_subscriptions.record_json, *path)
    return case((is_text, JsonText(_subscriptions.record_json, *path)))


@prepare
def list_subscriptions(
    *,
    scope_id: str | None,
    frames_from: str | None,
    frames_to: str | None,
    session_id: str | None,
    handle: str | None,
    name: str | None,
    source_type: str | None,
    source_key: str | None,
    definition: str | None,
    definition_json: str | None,
    enabled: int | None,
    after_scope_id: str,
    after_handle: str,
    before_scope_id: str,
    limit: int,
) -> Select[str, str, str, int, str]:
    """Read a page of subscriptions by (registrant's scope id, handle), as text (T-SUB-3).

    None filters by nothing; the arguments from scope to session belong together. Nothing is read from
    `before_scope_id` on: a text that no scope's id comes behind, or the end of a session's.
    """
    return _page(
        _matches(
            scope_id=scope_id,
            frames_from=frames_from,
            frames_to=frames_to,
            session_id=session_id,
            handle=handle,
            name=name,
            definition=definition,
            definition_json=definition_json,
            enabled=enabled,
        ),
        is_null_or(source_type, lambda given: _subscriptions.source_type == given),
        is_null_or(source_key, lambda given: _subscriptions.source_key == given),
        after_scope_id=after_scope_id,
        after_handle=after_handle,
        before_scope_id=before_scope_id,
        limit=limit,
    )


@prepare
def list_source(
    *,
    scope_id: str | None,
    frames_from: str | None,
    frames_to: str | None,
    session_id: str | None,
    handle: str | None,
    name: str | None,
    source_type: str,
    source_key: str,
    definition: str | None,
    definition_json: str | None,
    enabled: int | None,
    after_scope_id: str,
    after_handle: str,
    before_scope_id: str,
    limit: int,
) -> Select[str, str, str, int, str]:
    """Read what ``list_subscriptions`` reads of one source, by the index of the sources."""
    return _page(
        _matches(
            scope_id=scope_id,
            frames_from=frames_from,
            frames_to=frames_to,
            session_id=session_id,
            handle=handle,
            name=name,
            definition=definition,
            definition_json=definition_json,
            enabled=enabled,
        ),
        _subscriptions.source_type == source_type,
        OnOneRow(_subscriptions.source_key == source_key),
        after_scope_id=after_scope_id,
        after_handle=after_handle,
        before_scope_id=before_scope_id,
        limit=limit,
    )


def _page(
    *conditions: ColumnElement[bool],
    after_scope_id: str,
    after_handle: str,
    before_scope_id: str,
    limit: int,
) -> Select[str, str, str, int, str]:
    registrant, its_handle = _subscriptions.registrant_scope_id, _subscriptions.handle
    return (
        select_subscriptions()
        .where(
            # These two alone are what the index can be entered and left by.
            registrant >= after_scope_id,
            registrant < before_scope_id,
            or_(registrant > after_scope_id, its_handle > after_handle),
            *conditions,
        )
        .order_by(registrant, its_handle)
        .limit(limit)
    )


def _matches(
    *,
    scope_id: str | None,
    frames_from: str | None,
    frames_to: str | None,
    session_id: str | None,
    handle: str | None,
    name: str | None,
    definition: str | None,
    definition_json: str | None,
    enabled: int | None,
) -> ColumnElement[bool]:
    registrant, its_handle = _subscriptions.registrant_scope_id, _subscriptions.handle
    named = JsonText(_subscriptions.record_json, "name")
    # What can't be read may match: it is reported beside the list.
    broken = IsNoJson(_subscriptions.record_json)
    is_frame = and_(registrant >= nullable(frames_from), registrant < nullable(frames_to))
    return and_(
        is_null_or(scope_id, lambda given: registrant == given, is_frame),
        is_null_or(session_id, lambda given: func.coalesce(_named_session(), given) == given),
        is_null_or(handle, lambda given: its_handle == given),
        is_null_or(name, lambda given: named == given, broken),
        is_defined_by(definition, definition_json, _subscriptions.record_json, "target_identity"),
        is_null_or(enabled, lambda given: _subscriptions.enabled == given),
    )


@prepare
def find_subscription(
    *, scope_id: str, frames_from: str, frames_to: str, session_id: str, handle: str
) -> Select[str, str, str, int, str]:
    """Read the subscription that a registrant knows by a handle."""
    owned = is_registered_by(
        scope_id=scope_id, frames_from=frames_from, frames_to=frames_to, session_id=session_id
    )
    return select_subscriptions().where(owned, _subscriptions.handle == handle)


@prepare
def update_subscription(
    *, subscription_id: str, enabled: int, updated_at_ms: int, record_json: str | None
) -> Update:
    """Switch a subscription on or off, in its record, unless that is None, and in what is projected from it."""
    changed = update(trigger_subscriptions).where(_subscriptions.subscription_id == subscription_id)
    kept = func.coalesce(nullable(record_json), _subscriptions.record_json)
    return changed.values(enabled=enabled, updated_at_ms=updated_at_ms, record_json=kept)


@prepare
def delete_subscription(*, subscription_id: str) -> Delete:
    """Remove a subscription, and its deliveries with it, where foreign keys are enforced: ``configure()`` has them so."""
    return delete(trigger_subscriptions).where(_subscriptions.subscription_id == subscription_id)


@prepare
def delete_session(*, scope_id: str, frames_from: str, frames_to: str, session_id: str) -> Delete:
    """Remove a registrant's subscriptions, and their deliveries with them (T-SUB-5).

    Where foreign keys are enforced: ``configure()`` has them so.
    """
    owned = is_registered_by(
        scope_id=scope_id, frames_from=frames_from, frames_to=frames_to, session_id=session_id
    )
    return delete(trigger_subscriptions).where(owned)
