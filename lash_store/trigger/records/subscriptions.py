"""Subscriptions: who wants which process started by what."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from lash_store._kernel.checks import check_kind, check_name, check_text, check_words, shown
from lash_store._kernel.codecs import encode_json, free_json, on_any_stack, stable_hash
from lash_store._wire.events import EventType, read_shape, written_event_types
from lash_store._wire.inputs import (
    ProcessIdentity,
    ProcessInput,
    takes_arguments,
    written_identity,
    written_input,
)
from lash_store._wire.origins import (
    Originator,
    Scope,
    written_originator,
    written_scope,
)
from lash_store._wire.payloads import PayloadSchema, written_schema
from lash_store.errors import CorruptRecordError, InvalidRecordError
from lash_store.trigger.tables import trigger_subscriptions

NO_UTF8: Final = "its record_json is no UTF-8"


class FromEvent(msgspec.Struct, frozen=True, tag_field="type", tag="event"):
    """The argument is the occurrence's payload."""


class Fixed(msgspec.Struct, frozen=True, tag_field="type", tag="fixed"):
    """The argument is the same JSON value for every occurrence."""

    value: Any


Binding: TypeAlias = FromEvent | Fixed
"""Where an argument of the process comes from."""


class TriggerDraft(msgspec.Struct, frozen=True):
    """A subscription to register (T-SUB-1).

    When something occurs at the source (`source_type`, `source_key`; `source` describes it, JSON)
    whose payload fits `payload_schema`, the process `target` is to be started in the environment
    `env_ref`, under `target_identity`, with the arguments of `input_template` by name.
    `target_label`, if it is given, must not contradict the identity's label. The process
    declares `event_types` beside the core ones and wakes `wake_target`.
    """

    registrant: Originator
    env_ref: str
    source_type: str
    source_key: str
    target: ProcessInput
    target_identity: ProcessIdentity
    source: Any = None
    payload_schema: PayloadSchema = PayloadSchema()
    event_types: Sequence[EventType] = ()
    input_template: Mapping[str, Binding] = {}
    wake_target: Scope | None = None
    name: str | None = None
    target_label: str | None = None


class Subscription(msgspec.Struct, frozen=True):
    """A registered subscription: its draft, and what the store added (T-SUB-2).

    `handle` is its registrant's name for it. Times are milliseconds since the epoch.
    """

    subscription_id: str
    registrant: Originator
    env_ref: str
    handle: str
    source_type: str
    source_key: str
    source: Any
    payload_schema: PayloadSchema
    target: ProcessInput
    target_identity: ProcessIdentity
    enabled: bool
    created_at_ms: int
    updated_at_ms: int
    event_types: tuple[EventType, ...] = ()
    input_template: Mapping[str, Binding] = {}
    wake_target: Scope | None = None
    name: str | None = None
    target_label: str | None = None


class Undecodable(msgspec.Struct, frozen=True):
    """A subscription that can't be read, and why; it can still be cancelled and deleted."""

    subscription_id: str
    handle: str
    cause: str


class SubscriptionFilter(msgspec.Struct, frozen=True):
    """Which subscriptions to list; None never filters (T-SUB-3).

    `session_id` is the registrant's, `definition` the target identity's.
    """

    session_id: str | None = None
    handle: str | None = None
    name: str | None = None
    source_type: str | None = None
    source_key: str | None = None
    definition: Any = None
    enabled: bool | None = None


class SubscriptionPage(msgspec.Struct, frozen=True):
    """A page of subscriptions, and those of the page that can't be decoded.

    `after` is what to pass for the next page; None behind the last one.
    """

    subscriptions: tuple[Subscription, ...]
    undecodable: tuple[Undecodable, ...]
    after: tuple[str, str] | None


_ORDER: Final = (
    "subscription_id",
    "registrant",
    "env_ref",
    "wake_target",
    "handle",
    "name",
    "source_type",
    "source_key",
    "source",
    "payload_schema",
    "target",
    "target_identity",
    "event_types",
    "input_template",
    "target_label",
    "enabled",
    "created_at_ms",
    "updated_at_ms",
)

_decode_subscription = on_any_stack(msgspec.json.Decoder(Subscription, dec_hook=read_shape).decode)
_decode_members = on_any_stack(msgspec.json.Decoder(dict[str, msgspec.Raw]).decode)


def default_source_key(source_type: str, source: Any) -> str:
    """Return the source key of a source that has no key of its own (T-SRC-1)."""
    kind = check_words("source_type", source_type)
    return f"source:{kind}:sha256:{stable_hash([kind, free_json('source', source)])}"


def written_draft(draft: TriggerDraft) -> dict[str, Any]:
    """Check a draft and return the written form of its members; InvalidRecordError if it is bad."""
    check_kind("draft", draft, TriggerDraft)
    label = None if draft.target_label is None else check_text("target_label", draft.target_label)
    written: dict[str, Any] = {
        "registrant": written_originator("registrant", draft.registrant),
        "env_ref": check_words("env_ref", draft.env_ref),
        "source_type": check_words("source_type", draft.source_type),
        "source_key": check_words("source_key", draft.source_key),
        "source": free_json("source", draft.source),
        "payload_schema": written_schema("payload_schema", draft.payload_schema),
        "target": written_input("target", draft.target),
        "target_identity": written_identity("target_identity", draft.target_identity),
        "event_types": written_event_types(draft.event_types),
        "input_template": _written_template(draft.input_template),
    }
    if draft.input_template and not takes_arguments(draft.target):
        problem = "only an engine whose payload is an object takes arguments"
        raise InvalidRecordError("input_template", shown(draft.input_template), problem)
    known = draft.target_identity.label
    if label is not None and known is not None and label != known:
        raise InvalidRecordError(
            "target_label", shown(label), f"target_identity is labelled {shown(known)}"
        )
    if draft.wake_target is not None:
        written["wake_target"] = written_scope("wake_target", draft.wake_target)
    if draft.name is not None:
        written["name"] = check_name("name", draft.name)
        if "\0" in draft.name:  # SQL reads a text in JSON up to a NUL only
            raise InvalidRecordError("name", ascii(draft.name), "holds a NUL")
    if label is not None:
        written["target_label"] = label
    return written


def written_subscription(members: Mapping[str, Any]) -> str:
    """Return the record_json of a subscription, its members in the order of the wire."""
    return encode_json({name: members[name] for name in _ORDER if name in members})


def revised(
    subscription_id: str, record_json: str, *, enabled: bool, updated_at_ms: int
) -> str | None:
    """Return the record_json switched on or off; None for one that is no object, and is to stay (T-SUB-3)."""
    try:
        members: dict[str, Any] = {**_decode_members(record_json)}
    except (msgspec.DecodeError, TypeError, UnicodeEncodeError):
        return None
    if members.get("subscription_id") != msgspec.Raw(encode_json(subscription_id).encode()):
        return None
    return encode_json({**members, "enabled": enabled, "updated_at_ms": updated_at_ms})


def read_subscription(subscription_id: str, record_json: str) -> Subscription:
    """Build a subscription; CorruptRecordError if it can't be read."""
    try:
        subscription = _decode_subscription(record_json)
    except UnicodeEncodeError as error:
        raise CorruptRecordError(trigger_subscriptions.name, subscription_id, NO_UTF8) from error
    except (msgspec.DecodeError, TypeError, ValueError) as error:
        raise CorruptRecordError(trigger_subscriptions.name, subscription_id, str(error)) from error
    if subscription.subscription_id != subscription_id:
        said = f"it says that it is {subscription.subscription_id!r}"
        raise CorruptRecordError(trigger_subscriptions.name, subscription_id, said)
    return subscription


def _written_template(template: Mapping[str, Binding]) -> dict[str, Any]:
    check_kind("input_template", template, Mapping)
    written: dict[str, Any] = {}
    for name in template:
        binding, field = template[name], f"input_template.{shown(name)}"
        check_kind(field, binding, (FromEvent, Fixed))
        written[check_text("input_template", name)] = (
            {"type": "fixed", "value": free_json(field, binding.value)}
            if isinstance(binding, Fixed)
            else {"type": "event"}
        )
    return dict(sorted(written.items()))
