"""Work that waits for a session: batches, what is claimed of them, and which prefix a claim takes."""

from collections.abc import Sequence
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias, cast, get_args

import msgspec

from lash_store._kernel.checks import (
    check_choice,
    check_count,
    check_items,
    check_kind,
    check_name,
    check_time,
    shown,
)
from lash_store._kernel.codecs import Json, encode_json, free_json
from lash_store._kernel.liveness import Guarded, check_token
from lash_store.errors import InvalidRecordError

DeliveryPolicy = Literal["earliest_safe_boundary", "after_current_turn_commit"]
"""When a batch may be taken: inside a running turn too, or only between turns."""

SlotPolicy = Literal["join", "exclusive"]
"""Whether a batch may be claimed together with the ones behind it."""

Boundary = Literal["idle", "active_turn_checkpoint"]
"""Where the claimant stands: between turns, or at a safe point inside one."""

DELIVERY_POLICIES: Final[tuple[str, ...]] = get_args(DeliveryPolicy)
SLOT_POLICIES: Final[tuple[str, ...]] = get_args(SlotPolicy)
BOUNDARIES: Final[tuple[str, ...]] = get_args(Boundary)


class NewWork(msgspec.Struct, frozen=True):
    """A batch to enqueue (S-QUEUE-1).

    `payloads` are the items, JSON, in order. `source_key` makes enqueueing idempotent for as
    long as the batch exists. `merge_key` is "never", "payload_default" or ``{"group": NAME}``;
    batches with different keys are never claimed together. `available_at_ms` is the earliest
    time at which it may be claimed, milliseconds since the epoch.
    """

    payloads: Sequence[Json]
    source_key: str | None = None
    delivery_policy: DeliveryPolicy = "after_current_turn_commit"
    slot_policy: SlotPolicy = "exclusive"
    merge_key: Json = "never"
    available_at_ms: int = 0


class WorkItem(msgspec.Struct, frozen=True):
    """One payload of a batch."""

    item_id: str
    payload: Any


class WorkBatch(msgspec.Struct, frozen=True):
    """A batch as it stands in the queue; times are milliseconds since the epoch."""

    enqueue_seq: int
    batch_id: str
    session_id: str
    source_key: str | None
    delivery_policy: DeliveryPolicy
    slot_policy: SlotPolicy
    merge_key: Any
    available_at_ms: int
    enqueued_at_ms: int
    items: tuple[WorkItem, ...] = ()


class AlreadyQueued(msgspec.Struct, frozen=True):
    """The source was enqueued before and its batch still exists: nothing was added (S-QUEUE-2)."""

    batch: WorkBatch


class WorkClaim(Guarded, msgspec.Struct, frozen=True):
    """Batches that one claimant has taken, and the proof of it (S-QUEUE-4).

    The random `token` proves it; `claim_id` and `fencing_token` may come again once the queue
    has run dry. It holds until somebody else takes the batches, which nobody may before
    `expires_at_ms`.
    """

    shown: ClassVar = (
        "session_id",
        "claim_id",
        "owner_id",
        "token",
        "fencing_token",
        "expires_at_ms",
        "batch_ids",
    )

    session_id: str
    claim_id: str
    owner_id: str
    token: str
    fencing_token: int
    claimed_at_ms: int
    expires_at_ms: int
    batches: tuple[WorkBatch, ...]

    @property
    def fence(self) -> Self:
        """What proves it: itself."""
        return self

    @property
    def batch_ids(self) -> tuple[str, ...]:
        """The ids of the batches, in order."""
        return tuple(batch.batch_id for batch in self.batches)


class WorkDepth(msgspec.Struct, frozen=True):
    """How much waits for a session (S-QUEUE-9).

    `batches` in all, `claimed` of them under a live claim, `ready` to be claimed now; the rest
    is not available yet. `oldest_enqueued_at_ms` is that of the oldest batch, None if empty.
    """

    batches: int
    claimed: int
    ready: int
    oldest_enqueued_at_ms: int | None


class Candidate(msgspec.Struct, frozen=True, array_like=True):
    """A batch that is available and under no live claim, as it stands but for its items."""

    enqueue_seq: int
    batch_id: str
    session_id: str
    source_key: str | None
    delivery_policy: str
    slot_policy: str
    merge_key_json: str
    available_at_ms: int
    enqueued_at_ms: int
    claim_fencing_token: int


Prefix: TypeAlias = Sequence[Candidate]


def claimable_prefix(candidates: Prefix, *, boundary: Boundary, max_batches: int) -> Prefix:
    """Return which of the candidates, in enqueue order, one claim takes (S-QUEUE-3).

    The head decides: inside a turn it must be made for that; an exclusive head goes alone; a
    joining one takes what follows while it joins too, under the same policy and merge key.
    """
    if not candidates or max_batches == 0:
        return ()
    head = candidates[0]
    if boundary == "active_turn_checkpoint" and head.delivery_policy != "earliest_safe_boundary":
        return ()
    if head.slot_policy != "join":
        return candidates[:1]
    taken = 1
    for candidate in candidates[1:max_batches]:
        fits = (
            candidate.slot_policy == "join"
            and candidate.delivery_policy == head.delivery_policy
            and candidate.merge_key_json == head.merge_key_json
        )
        if not fits:
            break
        taken += 1
    return candidates[:taken]


class WrittenWork(msgspec.Struct, frozen=True):
    """A batch that was checked and encoded: it shares nothing with what the caller can change."""

    source_key: str | None
    delivery_policy: DeliveryPolicy
    slot_policy: SlotPolicy
    merge_key_json: str
    available_at_ms: int
    payloads: tuple[str, ...]


def written_work(work: NewWork) -> WrittenWork:
    """Check a batch and encode what it holds."""
    check_kind("work", work, NewWork)
    source_key = None if work.source_key is None else check_name("source_key", work.source_key)
    check_time("available_at_ms", work.available_at_ms)
    check_choice("delivery_policy", work.delivery_policy, DELIVERY_POLICIES)
    check_choice("slot_policy", work.slot_policy, SLOT_POLICIES)
    check_items("payloads", work.payloads, object)
    if not work.payloads:
        raise InvalidRecordError("payloads", "[]", "a batch has at least one item")
    payloads = [
        encode_json(free_json(f"payloads[{at}]", payload))
        for at, payload in enumerate(work.payloads)
    ]
    return WrittenWork(
        source_key,
        cast("DeliveryPolicy", str.__str__(work.delivery_policy)),
        cast("SlotPolicy", str.__str__(work.slot_policy)),
        encode_json(_merge_key(work.merge_key)),
        work.available_at_ms,
        tuple(payloads),
    )


def check_claim(claim: WorkClaim) -> WorkClaim:
    """Return a claim whose batches nobody can change; InvalidRecordError if it can be none."""
    check_kind("claim", claim, WorkClaim)
    check_name("claim.session_id", claim.session_id)
    check_name("claim.claim_id", claim.claim_id)
    check_token("claim.token", claim.token)
    check_count("claim.claimed_at_ms", claim.claimed_at_ms)
    check_items("claim.batches", claim.batches, WorkBatch)
    if not claim.batches:
        raise InvalidRecordError("claim.batches", "()", "a claim stands on at least one batch")
    for batch in claim.batches:
        check_name("batch_id", batch.batch_id)
    batches: Sequence[WorkBatch] = claim.batches  # a list, if the caller has built it of one
    if type(batches) is tuple:
        return claim
    return msgspec.structs.replace(claim, batches=tuple(batches))


def _merge_key(key: Json) -> Json:
    if isinstance(key, str) and key in ("never", "payload_default"):
        return check_name("merge_key", key)
    if isinstance(key, dict) and list(key) == ["group"] and isinstance(key["group"], str):
        return {"group": check_name("merge_key.group", key["group"])}
    raise InvalidRecordError(
        "merge_key", shown(key), 'must be "never", "payload_default" or {"group": NAME}'
    )
