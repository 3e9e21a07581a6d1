"""Forgetting processes that have ended long ago."""

from collections.abc import Iterable
from typing import Any

import msgspec

from lash_store._kernel.checks import check_name, check_names, check_text, check_time, page_size
from lash_store._stores.tx import Context
from lash_store._wire.retention import Pruned
from lash_store.errors import CorruptRecordError, InvalidRecordError
from lash_store.process import statements
from lash_store.process.context import Tx, Work
from lash_store.process.records.processes import read_record


class _Old(msgspec.Struct, frozen=True):
    """A process that ended long ago."""

    process_id: str
    occurrence_id: str | None
    """The trigger's occurrence that led to it."""

    stays: bool
    """Whether it may not be removed, whatever has become of that."""


def list_causing_occurrences(
    _: Context, updated_before_ms: int, *, after: str = "", limit: int = 1_000
) -> Work[list[str]]:
    """Return the ids of the trigger occurrences that led to the batch that such a pruning looks at.

    The arguments are those of ``prune_processes``, to which the caller then says which of these
    occurrences are forgotten themselves.
    """
    find_old = _finding_old(updated_before_ms, after, limit)

    def list_batch(tx: Tx) -> list[str]:
        causes = (old.occurrence_id for old in find_old(tx))
        return list(dict.fromkeys(cause for cause in causes if cause is not None))

    return list_batch


def prune_processes(
    _: Context,
    updated_before_ms: int,
    *,
    forgotten: Iterable[str] = (),
    after: str = "",
    limit: int = 1_000,
) -> Work[Pruned]:
    """Remove processes that ended long ago, with all that is kept of them, one batch (P-RET-1).

    Those that ended and were last changed before `updated_before_ms`, exclusive, milliseconds since the
    epoch: with their logs, handles, leases and acknowledgements. At most `limit` of them are looked at,
    by id, from behind `after`. What has a wake that nobody has acknowledged, and somebody to be woken, stays, and so does what
    can't be read, or names as its cause what can be no occurrence. What a trigger's occurrence led to stays unless that is among those `forgotten`: as
    long as it is there, its delivery would be taken for one that was never started, and start the process
    again; ``lash_store.routing.prune_ended`` asks the trigger store. What is removed is forgotten: its
    id may be registered anew, and its completion sent again is NotFoundError. Sessions that answered its wakes
    do not forget them: let one that wakes sessions have an id of its own. All of a batch goes in one
    transaction, logs too: where those are long, choose a small `limit`.
    """
    gone = frozenset(check_names("forgotten", forgotten))
    find_old = _finding_old(updated_before_ms, after, limit)

    def prune(tx: Tx) -> Pruned:
        found, cursor = find_old(tx), tx.own_cursor
        over = [
            old.process_id
            for old in found
            if not old.stays and (old.occurrence_id is None or old.occurrence_id in gone)
        ]
        rows = [statements.delete_process.bind(cursor, process_id=name) for name in over]
        with tx.all_or_nothing():
            removed = statements.delete_process.many(cursor, rows) if rows else 0
        for name in over:
            tx.touch(name)
        last = found[-1].process_id if found else after
        return Pruned(removed, len(found), last if len(found) == limit else None)

    return prune


def _finding_old(updated_before_ms: int, after: str, limit: int) -> Work[list[_Old]]:
    before = check_time("updated_before_ms", updated_before_ms)
    behind, most = check_text("after", after), page_size("limit", limit)

    def find(tx: Tx) -> list[_Old]:
        rows = statements.old_processes.all(
            tx.own_cursor, updated_before_ms=before, after_process_id=behind, limit=most
        )
        return [_old(*row) for row in rows]

    return find


def _old(process_id: str, record_json: str, status: str, wakes: int) -> _Old:
    try:
        record = read_record(process_id, record_json, status)
        cause: Any = record.provenance.caused_by
        is_awaited = bool(wakes) and record.wake_target is not None
        if cause is None or cause.get("type") != "trigger_occurrence":
            return _Old(process_id, None, is_awaited)
        occurrence_id = check_name("caused_by.occurrence_id", cause.get("occurrence_id"))
    except (CorruptRecordError, InvalidRecordError):
        # It can't be read, or nobody could say what has become of what led to it.
        return _Old(process_id, None, stays=True)
    return _Old(process_id, occurrence_id, is_awaited)
