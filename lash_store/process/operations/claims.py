"""Claiming the next process: of those that nobody runs, and for who has just ended one."""

from functools import partial
from typing import Any, Final, NamedTuple

from lash_store._kernel.backend import KeyLocks
from lash_store._kernel.checks import check_count, check_name
from lash_store._kernel.choosing import Choice, OrderBy, Where, chosen
from lash_store._kernel.leases import check_fence
from lash_store._kernel.locks import goes_alone, locked_by
from lash_store._stores.tx import Context
from lash_store.process import statements
from lash_store.process.context import Tx, Work
from lash_store.process.operations.events import ending
from lash_store.process.operations.leases import LEASES
from lash_store.process.operations.processes import FilterArguments, filter_arguments
from lash_store.process.records.events import Appended
from lash_store.process.records.leases import ClaimedProcess, ProcessFence, ProcessLease
from lash_store.process.records.outputs import AwaitOutput
from lash_store.process.records.processes import RUNNING, ProcessFilter, read_record
from lash_store.process.tables import processes

_OFTEN: Final = 9
"""How often one process may be found to be claimable, and be somebody's then."""


def claim_next(
    _: Context,
    *,
    owner_id: str,
    ttl_ms: int,
    matching: ProcessFilter | None = None,
    where: Where | None = None,
    order_by: OrderBy | None = None,
) -> Work[ClaimedProcess | None]:
    """Claim the oldest running process without a live lease (P-LEASE-3).

    The recovery sweep of a worker: None if there is no such process, or none that
    `matching` lets through. Raises InvalidRecordError for an empty owner, a bad `ttl_ms` or
    a bad filter; on PostgreSQL, where it waits for who is writing about the only one, StoreBusyError. `where` and `order_by`, on columns of ``processes``, let through fewer of them
    and put others first (K-COMPOSE-1).
    """
    choice = chosen(where, order_by)
    check_name("owner_id", owner_id)
    check_count("ttl_ms", ttl_ms)
    look = _Look(filter_arguments(matching), choice)

    # About no one process to begin with: its row's own lock decides which, and then it has that one's.
    return goes_alone(locked_by(partial(_claim, look, owner_id, ttl_ms, may_wait=True)))


def _claim(
    look: "_Look", owner_id: str, ttl_ms: int, tx: Tx, *, may_wait: bool
) -> ClaimedProcess | None:
    """Claim the first that nobody else is about; if others are about all, and it may, wait for one of them."""
    locks = tx.key_locks
    if locks is not None:
        locks.set_point()
    held: list[str] = []
    busy: list[str] = []
    while True:
        found, is_locked = look.next(tx, busy)
        if found is None:
            if locks is None or not busy or not may_wait:
                return None
            # Its worker may end it, or release it; and who stops at None would miss it.
            locks.wait_for(tx.schema, tx.context.scope, (busy[0],))
            busy.clear()
            tx._read_time_again()  # noqa: SLF001 # reason: its own Tx; or what is claimed now might be over by then
            continue
        process_id, record_json = found
        # Somebody may have claimed it as it was looked at; again and again, it never was to be claimed.
        if look.choice is not None and held.count(process_id) > _OFTEN:
            raise look.choice.misleads()
        # First: nobody can run what can't be read.
        record = read_record(process_id, record_json, RUNNING)
        if locks is not None and not look.has_alone(
            tx, locks, found, (held, busy), is_locked=is_locked
        ):
            tx._read_time_again()  # noqa: SLF001 # reason: likewise
            continue
        lease = LEASES.claim(tx, process_id, owner_id=owner_id, ttl_ms=ttl_ms)
        if isinstance(lease, ProcessLease):
            return ClaimedProcess(lease, record)
        held.append(process_id)


def complete_and_claim_next(
    _: Context,
    fence: ProcessFence,
    await_output: AwaitOutput,
    *,
    ttl_ms: int,
    matching: ProcessFilter | None = None,
    where: Where | None = None,
    order_by: OrderBy | None = None,
) -> Work[tuple[Appended, ClaimedProcess | None]]:
    """End a process with what it gave and take the next, for the same owner, in one transaction (P-LEASE-4).

    As ``complete_process`` under `fence`, of its process, and then ``claim_next``. Returns the event that
    ended the one, with the wake that it gives, and the next; None if nothing more is to be had (on PostgreSQL also
    if others are just writing about all that is: ``claim_next`` waits for them). Raises what they raise; nothing is ended or taken then. Sent again, it ends
    nothing twice, and takes one more: what the first took is free once its term is over.
    """
    check_fence(fence, ProcessFence)
    name = check_name("process_id", fence.process_id)
    end = ending(name, await_output, fence)
    check_count("ttl_ms", ttl_ms)
    look = _Look(filter_arguments(matching), chosen(where, order_by))

    def complete_and_claim(tx: Tx) -> tuple[Appended, ClaimedProcess | None]:
        with tx.all_or_nothing():
            ended, *_ = end(tx)
            # It waits for nobody: whoever it would wait for may wait for the process that has ended here.
            return ended, _claim(look, fence.owner_id, ttl_ms, tx, may_wait=False)

    return goes_alone(locked_by(complete_and_claim, name))


class _Look(NamedTuple):
    """What a claim of the next process looks for."""

    given: FilterArguments
    choice: Choice | None

    def first(self, tx: Tx, statement: Any, **which: Any) -> tuple[str, str] | None:
        """Return the first that `statement` finds: id and record_json."""
        asked = {**self.given, **which}
        if self.choice is None:
            found: tuple[str, str] | None = statement.one(tx.own_cursor, now_ms=tx.now_ms, **asked)
            return found
        claimable = statement(now_ms=tx.now_ms, **asked)
        order = (processes.c.created_at_ms, processes.c.process_id)
        with tx.all_or_nothing():
            rows = self.choice.rows(tx, tx.context.scope, self.choice.applied(claimable, *order))
        return (rows[0][0], rows[0][1]) if rows else None

    def next(self, tx: Tx, busy: list[str]) -> tuple[tuple[str, str] | None, bool]:
        """Return the first of those that are not `busy`, and whether its row is locked."""
        if not busy:
            found = self.first(tx, statements.lock_claimable)
            # What is passed over because somebody else is at its row may yet be claimable.
            if found is not None or tx.key_locks is None:
                return found, True
        return self.first(tx, statements.claimable_besides, passed=busy), False

    def has_alone(
        self,
        tx: Tx,
        locks: KeyLocks,
        found: tuple[str, str],
        others: tuple[list[str], list[str]],
        *,
        is_locked: bool,
    ) -> bool:
        """Whether what was found is free still, and nobody else is about it from now on.

        A stale worker may be writing under the term before: then it is `busy`, and passed over while there are
        others. And somebody may have claimed it since it was looked at, of the same owner too: the next look
        sees that. Then it is `held`.
        """
        held, busy = others
        process_id, _ = found
        is_had = locks.lock_if_free(tx.schema, tx.context.scope, (process_id,))
        holder = LEASES.current(tx, process_id)
        if holder is not None:
            held.append(process_id)
        if not is_had():
            busy.append(process_id)
            return False
        if holder is None and (is_locked or self._finds_again(tx, found)):
            return True
        locks.let_go()
        return False

    def _finds_again(self, tx: Tx, found: tuple[str, str]) -> bool:
        """Whether what was read before its lock was had is the same: it may have been run to its end since."""
        return self.first(tx, statements.claimable_process, process_id=found[0]) == found
