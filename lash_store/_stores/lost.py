"""Why a fence is not live: what a refusal says of the term, given the row as it stands."""

from lash_store._kernel.leases import Fence, LeaseTerm
from lash_store.errors import LeaseLostError, LeaseLostReason


def is_term(term: LeaseTerm, fence: Fence) -> bool:
    """``LeaseTable.is_term`` on a row that was read."""
    return (
        term.owner_id == fence.owner_id
        and term.token == fence.token
        and term.fencing_token == fence.fencing_token
    )


def lost(fence: Fence, actual: LeaseTerm | None) -> LeaseLostError:
    """Return the error of a fence that was refused, with the row as it stands and the reason."""
    return LeaseLostError(fence, actual, _reason(fence, actual))


def _reason(fence: Fence, actual: LeaseTerm | None) -> LeaseLostReason:
    """Say why `fence` is not live (K-LEASE-5).

    Meant for a fence that was just refused: a term that matches in full has expired.
    """
    if actual is None or actual.fencing_token < fence.fencing_token:
        return "never_claimed"
    if actual.fencing_token > fence.fencing_token:
        return "superseded"
    if actual.token is None:
        return "released"
    return "expired" if is_term(actual, fence) else "never_claimed"
