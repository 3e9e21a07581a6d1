"""A group of calls, composed by hand: which they are, and in which order."""

from collections.abc import Callable
from functools import partial
from typing import Any

from lash_store._kernel.checks import shown
from lash_store._stores.operations import work_of
from lash_store._stores.store import Store, plain_function
from lash_store.errors import InvalidRecordError


def run_as_group(*calls: Callable[[], Any]) -> list[Any]:
    """Run one-call operations in one transaction, as they run when they wait for each other.

    Each is a ``functools.partial`` of a sync store's method, or such a method itself: an operation
    that writes, or ``transact``, which counts as repeatable. The stores may differ, their database
    may not. The first leads, each of the others has a savepoint, all are committed at once. Each
    result stands at its place; an error that a call would have raised stands there as well::

        lease, lost = run_as_group(
            partial(one.claim_lease, owner_id="ann", ttl_ms=1_000),
            partial(two.renew_lease, fence, ttl_ms=1_000),
        )

    Raises InvalidRecordError for anything else, and for arguments that an operation refuses.
    """
    made = [_made(call) for call in calls]
    if not made:
        return []
    results: list[Any] = made[0][0].write_together(made)
    return results


def _made(call: Callable[[], Any]) -> tuple[Any, str | None, Callable[[Any], Any]]:
    method, args, keywords = (
        (call.func, call.args, call.keywords) if isinstance(call, partial) else (call, (), {})
    )
    store = getattr(method, "__self__", None)
    if not isinstance(store, Store):
        raise InvalidRecordError("calls", shown(call), "must be calls of a store's methods")
    handle, name = store._handle, method.__name__  # noqa: SLF001 # reason: the tools of the library itself
    if name == "transact":
        if not args and "work" not in keywords:
            raise InvalidRecordError(
                "calls", shown(call), "must have its `work` with it, by partial()"
            )
        given = {key: value for key, value in keywords.items() if key != "repeatable"}
        return handle, None, plain_function("work", *args, **given)
    return handle, name, work_of(store, name, *args, **keywords)
