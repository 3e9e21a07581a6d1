"""Reading lease rows: what a term is, who holds it, and why a fence does not."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import convert

from lash_store._kernel.leases import Fence, LeaseHeld, LeaseTable, LeaseTerm
from lash_store.clock import IdSource
from lash_store.errors import CorruptRecordError, InvalidRecordError, LeaseLostReason


def read_term(leases: LeaseTable, row: tuple[object, ...]) -> LeaseTerm:
    """Build the term from a row in ``LeaseTable`` order; raise CorruptRecordError if it is none."""
    try:
        return convert(row, LeaseTerm)
    except msgspec.ValidationError as error:
        raise CorruptRecordError(leases.table.name, str(row[0]), str(error)) from error


def owner_and_token(leases: LeaseTable, term: LeaseTerm) -> tuple[str, str]:
    """Return the holder of a live term; raise CorruptRecordError if the row names only half of it."""
    if term.owner_id is None or term.token is None:
        raise CorruptRecordError(leases.table.name, term.key, "a live term without owner or token")
    return term.owner_id, term.token


FenceT = TypeVar("FenceT", bound=Fence)


def fence_of(kind: type[FenceT], term: LeaseTerm) -> FenceT:
    """Build the fence of a live term; raise CorruptRecordError if its row can't be one's."""
    owner_id, token = owner_and_token(kind.leases, term)
    try:
        return kind(term.key, owner_id, token, term.fencing_token)
    except InvalidRecordError as error:
        raise CorruptRecordError(kind.leases.table.name, term.key, str(error)) from error


def new_token(ids: IdSource) -> str:
    """Draw a token; InvalidRecordError, before anything is written, for one that no fence can have."""
    token = ids.new_token()
    if not isinstance(token, str) or not token or not token.isascii():
        raise InvalidRecordError(
            "ids.new_token()", type(token).__name__, "must give non-empty ASCII text"
        )
    return token


def held_by_another(leases: LeaseTable, term: LeaseTerm | None) -> LeaseHeld:
    """Make the refusal value from the row that kept a claim out."""
    if term is None:
        raise CorruptRecordError(leases.table.name, "?", "a claim was refused, but there is no row")
    owner_id, _ = owner_and_token(leases, term)
    return LeaseHeld(term.key, owner_id, term.fencing_token, term.claimed_at_ms, term.expires_at_ms)


def check_fence(fence: Fence, kind: type[Fence]) -> None:
    """Raise InvalidRecordError unless `fence` is one of this kind: it may be for another table."""
    if not isinstance(fence, kind):
        # The type alone: a token in the place of its fence is still a secret.
        raise InvalidRecordError("fence", f"a {type(fence).__name__}", f"must be a {kind.__name__}")


def is_live_term(term: LeaseTerm, fence: Fence, *, now_ms: int) -> bool:
    """``LeaseTable.is_live_term`` on a row that was read."""
    return (
        term.owner_id == fence.owner_id
        and term.token == fence.token
        and term.fencing_token == fence.fencing_token
        and term.expires_at_ms > now_ms
    )


def lost_reason(fence: Fence, actual: LeaseTerm | None) -> LeaseLostReason:
    """Say why `fence` is not live, given the row as it stands (K-LEASE-5).

    Meant for a fence that was just refused: a term that matches in full has expired.
    """
    if actual is None or actual.fencing_token < fence.fencing_token:
        return "never_claimed"
    if actual.fencing_token > fence.fencing_token:
        return "superseded"
    if actual.token is None:
        return "released"
    if actual.token == fence.token and actual.owner_id == fence.owner_id:
        return "expired"
    return "never_claimed"
