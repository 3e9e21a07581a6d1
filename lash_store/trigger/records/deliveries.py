"""What occurred, and the deliveries that it led to."""

from typing import Any

import msgspec

from lash_store._kernel.checks import check_words
from lash_store._kernel.codecs import encode_json, encode_raw, free_json, on_any_stack, stable_hash
from lash_store.errors import CorruptRecordError
from lash_store.trigger.records.subscriptions import NO_UTF8, Subscription, Undecodable
from lash_store.trigger.tables import trigger_occurrences


class Occurrence(msgspec.Struct, frozen=True):
    """Something that occurred at a source, once per idempotency key (T-OCC-1).

    `payload` and `source` are JSON; the time is milliseconds since the epoch.
    """

    occurrence_id: str
    source_type: str
    source_key: str
    payload: Any
    idempotency_key: str
    occurred_at_ms: int
    source: Any = None


class Delivery(msgspec.Struct, frozen=True):
    """An occurrence, a subscription that it matched, and the process reserved for the two.

    ``lash_store.routing`` starts the process. The time is milliseconds since the epoch.
    """

    occurrence: Occurrence
    subscription: Subscription
    process_id: str
    created_at_ms: int


class Mismatch(msgspec.Struct, frozen=True):
    """A subscription whose payload schema the occurrence does not fit, and where."""

    subscription: Subscription
    problem: str


class Reservations(msgspec.Struct, frozen=True):
    """What a reservation gave (T-DEL-1, T-DEL-3).

    `deliveries` are for the caller to start, in list order. Beside them stand the matching
    subscriptions that got none: those that the payload does not fit, and those that can't be
    read. Nothing is reserved for either, so a later call may.
    """

    deliveries: tuple[Delivery, ...]
    mismatches: tuple[Mismatch, ...]
    undecodable: tuple[Undecodable, ...]


class DeliveryFilter(msgspec.Struct, frozen=True):
    """Which deliveries to list; None never filters (T-DEL-2).

    `created_before_ms` is an exclusive time, in milliseconds since the epoch.
    """

    occurrence_id: str | None = None
    subscription_id: str | None = None
    process_id: str | None = None
    created_before_ms: int | None = None


class UndecodableOccurrence(msgspec.Struct, frozen=True):
    """An occurrence that can't be read, and why."""

    occurrence_id: str
    cause: str


class DeliveryPage(msgspec.Struct, frozen=True):
    """A page of deliveries, and those of the page whose subscription or occurrence can't be decoded.

    `after` is what to pass for the next page; None behind the last one.
    """

    deliveries: tuple[Delivery, ...]
    undecodable: tuple[Undecodable, ...]
    after: tuple[str, str] | None
    undecodable_occurrences: tuple[UndecodableOccurrence, ...] = ()


class NewOccurrence(msgspec.Struct, frozen=True):
    """An occurrence to record, checked: its id, the hash of the request, its members as written."""

    occurrence_id: str
    request_hash: str
    members: dict[str, Any]


_decode_occurrence = on_any_stack(msgspec.json.Decoder(Occurrence).decode)


def new_occurrence(
    source_type: str, source_key: str, payload: Any, idempotency_key: str, source: Any
) -> NewOccurrence:
    """Check an occurrence; InvalidRecordError for blank texts and for what is no JSON (T-OCC-1)."""
    kind = check_words("source_type", source_type)
    key = check_words("source_key", source_key)
    once = check_words("idempotency_key", idempotency_key)
    content = encode_raw(free_json("payload", payload))
    described = encode_raw(free_json("source", source))
    occurrence_id = f"trigger:{stable_hash([kind, key, once])}"
    members: dict[str, Any] = {
        "occurrence_id": occurrence_id,
        "source_type": kind,
        "source_key": key,
        "payload": content,
        "idempotency_key": once,
    }
    if source is not None:
        members["source"] = described
    return NewOccurrence(occurrence_id, stable_hash([kind, key, content, described]), members)


def written_occurrence(new: NewOccurrence, now_ms: int) -> str:
    """Return the record_json of an occurrence that is being recorded."""
    return encode_json({**new.members, "occurred_at_ms": now_ms})


def read_occurrence(occurrence_id: str, record_json: str) -> Occurrence:
    """Build an occurrence; CorruptRecordError if it can't be read."""
    try:
        occurrence = _decode_occurrence(record_json)
    except UnicodeEncodeError as error:
        raise CorruptRecordError(trigger_occurrences.name, occurrence_id, NO_UTF8) from error
    except (msgspec.DecodeError, TypeError) as error:
        raise CorruptRecordError(trigger_occurrences.name, occurrence_id, str(error)) from error
    if occurrence.occurrence_id != occurrence_id:
        said = f"it says that it is {occurrence.occurrence_id!r}"
        raise CorruptRecordError(trigger_occurrences.name, occurrence_id, said)
    return occurrence


def process_id_of(occurrence_id: str, subscription_id: str) -> str:
    """Return the id of the process that a delivery starts, the same for every reserver (T-DEL-1)."""
    return f"process:trigger:{stable_hash([occurrence_id, subscription_id])}"
