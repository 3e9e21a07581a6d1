"""Subscriptions."""

from typing import Any, Final

from lash_store._kernel.checks import check_kind, check_name, check_pair, check_text, page_size
from lash_store._kernel.codecs import encode_raw
from lash_store._kernel.locks import goes_alone, locked_by
from lash_store._stores.tx import Context
from lash_store._wire.inputs import definition_arguments
from lash_store._wire.origins import HOST, Scope
from lash_store.errors import CorruptRecordError
from lash_store.trigger import statements
from lash_store.trigger.context import Tx, Work
from lash_store.trigger.records.subscriptions import (
    Subscription,
    SubscriptionFilter,
    SubscriptionPage,
    TriggerDraft,
    Undecodable,
    read_subscription,
    revised,
    written_draft,
    written_subscription,
)
from lash_store.trigger.tables import trigger_subscription_seq, trigger_subscriptions

_BEHIND_ALL: Final = "\U0010ffff"
"""A text that no scope's id comes behind: those begin with ``session:`` or are the host's."""


def register_subscription(_: Context, draft: TriggerDraft) -> Work[Subscription]:
    """Register a subscription under a handle that was never used before (T-SUB-2).

    Each call makes another one. Raises InvalidRecordError for what T-SUB-1 refuses, before
    anything is written.
    """
    written = written_draft(draft)
    members = {name: encode_raw(value) for name, value in written.items()}
    source_type, source_key = written["source_type"], written["source_key"]
    registrant_scope_id = draft.registrant.scope_id

    def register(tx: Tx) -> Subscription:
        with tx.all_or_nothing():
            subscription_id, handle = _new_names(tx)
            record_json = written_subscription(
                {
                    **members,
                    "subscription_id": subscription_id,
                    "handle": handle,
                    "enabled": True,
                    "created_at_ms": tx.now_ms,
                    "updated_at_ms": tx.now_ms,
                }
            )
            statements.register_subscription.later(
                tx.own_cursor,
                subscription_id=subscription_id,
                registrant_scope_id=registrant_scope_id,
                handle=handle,
                source_type=source_type,
                source_key=source_key,
                now_ms=tx.now_ms,
                record_json=record_json,
            )
        return read_subscription(subscription_id, record_json)

    return goes_alone(locked_by(register))  # each makes a row of its own


def list_subscriptions(
    _: Context,
    matching: SubscriptionFilter | None = None,
    *,
    after: tuple[str, str] = ("", ""),
    limit: int = 100,
) -> Work[SubscriptionPage]:
    """Return a page of subscriptions by (registrant's scope id, handle), as text (T-SUB-3).

    Pass the page's `after` for the next one. Filtered in SQL. One that can't be decoded is
    reported beside the list. Raises InvalidRecordError for a bad filter or bound.
    """
    after_scope_id, after_handle = check_texts("after", after)
    most = page_size("limit", limit)
    given = _filter_arguments(SubscriptionFilter() if matching is None else matching)

    if (
        given["scope_id"] is not None
    ):  # a session's stand together: from its scope's id to its frames' last
        after_scope_id, after_handle = max((after_scope_id, after_handle), (given["scope_id"], ""))
    of_source = given["source_type"] is not None and given["source_key"] is not None
    statement: Any = statements.list_source if of_source else statements.list_subscriptions

    def list_page(tx: Tx) -> SubscriptionPage:
        rows = statement.all_leniently(
            tx.own_cursor,
            **given,
            after_scope_id=after_scope_id,
            after_handle=after_handle,
            before_scope_id=given["frames_to"] or _BEHIND_ALL,
            limit=most,
        )
        found: list[Subscription] = []
        broken: list[Undecodable] = []
        for subscription_id, _, handle, _, record_json in rows:
            read = readable(subscription_id, handle, record_json)
            if isinstance(read, Undecodable):
                broken.append(read)
            else:
                found.append(read)
        last = (rows[-1][1], rows[-1][2]) if rows else (after_scope_id, after_handle)
        return SubscriptionPage(tuple(found), tuple(broken), last if len(rows) == most else None)

    return list_page


def cancel_subscription(_: Context, session_id: str | None, handle: str) -> Work[bool]:
    """Disable a session's subscription, or the host's if `session_id` is None (T-SUB-4).

    True if it was enabled. False, with the time of its last change moved, if it was not;
    False for an unknown handle, or another registrant's.
    """
    return _switching(session_id, handle, enabled=False)


def enable_subscription(_: Context, session_id: str | None, handle: str) -> Work[bool]:
    """Enable a session's subscription again, or the host's if `session_id` is None (T-SUB-4).

    True if it was disabled. False, with the time of its last change moved, if it was not;
    False for an unknown handle, or another registrant's.
    """
    return _switching(session_id, handle, enabled=True)


def delete_subscription(_: Context, session_id: str | None, handle: str) -> Work[bool]:
    """Remove a session's subscription, or the host's, and its deliveries (T-SUB-4).

    Tells whether there was one. Its handle is never used again.
    """
    find = _finding(session_id, handle)

    def delete(tx: Tx) -> bool:
        rows, cursor = find(tx), tx.own_cursor
        deleted = [statements.delete_subscription.run(cursor, subscription_id=r[0]) for r in rows]
        return sum(deleted) > 0

    return delete


def delete_session(_: Context, session_id: str) -> Work[int]:
    """Remove a session's subscriptions and their deliveries; return how many (T-SUB-5).

    Those of the host and of other sessions stay.
    """
    registrant = _registrant(check_name("session_id", session_id))

    def delete(tx: Tx) -> int:
        return statements.delete_session.run(tx.own_cursor, **registrant)

    return delete


def _new_names(tx: Tx) -> tuple[str, str]:
    """Draw the id and the handle of a subscription."""
    row = statements.next_subscription_number.one(tx.own_cursor)
    if row is None:
        raise CorruptRecordError(trigger_subscription_seq.name, "?", "no number was drawn")
    return f"subscription:{row[0]}", f"trigger:{row[0]}"


def _switching(session_id: str | None, handle: str, *, enabled: bool) -> Work[bool]:
    find = _finding(session_id, handle)

    def switch(tx: Tx) -> bool:
        changed = False
        for subscription_id, _, _, was_enabled, record_json in find(tx):
            statements.update_subscription.later(
                tx.own_cursor,
                subscription_id=subscription_id,
                enabled=int(enabled),
                updated_at_ms=tx.now_ms,
                record_json=revised(
                    subscription_id, record_json, enabled=enabled, updated_at_ms=tx.now_ms
                ),
            )
            changed = changed or bool(was_enabled) != enabled
        return changed

    return locked_by(switch, "subscription", session_id or "", handle)


def _finding(session_id: str | None, handle: str) -> Work[list[tuple[str, str, str, int, str]]]:
    if session_id is not None:
        check_name("session_id", session_id)
    registrant, name = _registrant(session_id), check_name("handle", handle)

    def find(tx: Tx) -> list[tuple[str, str, str, int, str]]:
        rows = statements.find_subscription.all_leniently(tx.own_cursor, **registrant, handle=name)
        for subscription_id, *_ in rows:  # its record may be anything; by this it is found again
            try:
                str(subscription_id).encode()
            except UnicodeEncodeError as error:
                cause = "its subscription_id is no UTF-8"
                raise CorruptRecordError(trigger_subscriptions.name, name, cause) from error
        return rows

    return find


def readable(subscription_id: str, handle: str, record_json: str) -> Subscription | Undecodable:
    """Read a subscription, or say why it can't be read: for listings, which report it (T-SUB-3)."""
    try:
        return read_subscription(subscription_id, record_json)
    except CorruptRecordError as error:
        return Undecodable(subscription_id, handle, error.cause)


def check_texts(field: str, pair: tuple[str, str]) -> tuple[str, str]:
    """Return `pair` if it is a key of two texts; either may be empty."""
    first, second = check_pair(field, pair)
    return check_text(field, first), check_text(field, second)


def _registrant(session_id: str | None) -> dict[str, str]:
    """Return the scope id of a registrant, and the range of the ids of its frames."""
    scope_id = HOST if session_id is None else Scope(session_id).id
    return {
        "scope_id": scope_id,
        "frames_from": f"{scope_id}/frame:",
        "frames_to": f"{scope_id}/frame;",  # the next character after the colon
        "session_id": session_id or "",
    }


def _filter_arguments(matching: SubscriptionFilter) -> Any:
    check_kind("matching", matching, SubscriptionFilter)
    if matching.enabled is not None:
        check_kind("matching.enabled", matching.enabled, bool)
    texts = {
        name: None if text is None else check_text(f"matching.{name}", text)
        for name, text in (
            ("session_id", matching.session_id),
            ("handle", matching.handle),
            ("name", matching.name),
            ("source_type", matching.source_type),
            ("source_key", matching.source_key),
        )
    }
    session_id = texts.pop("session_id")
    if session_id is not None:
        check_name("matching.session_id", session_id)
    absent = {"scope_id": None, "frames_from": None, "frames_to": None, "session_id": None}
    return {
        **texts,
        **(absent if session_id is None else _registrant(session_id)),
        **definition_arguments("matching.definition", matching.definition),
        "enabled": None if matching.enabled is None else int(matching.enabled),
    }
