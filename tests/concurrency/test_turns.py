"""Turns on one file: their order, who gives up, holds that are dropped, and no lost wake-up."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lash_store import AsyncSessionStore, SessionLease, SessionStore
from lash_store._backends.sqlite import serving
from lash_store._backends.sqlite.group import Group
from lash_store._backends.sqlite.turns import Hold, Turns
from lash_store._kernel import calls
from lash_store._kernel.calls import ThreadCall
from lash_store.errors import NestedTransactionError, StoreBusyError
from tests.support.databases import all_rows, database_of
from tests.support.turns import PATIENCE_S, eventually, held, in_line, join, outcome, started


def call() -> ThreadCall:
    return ThreadCall(None, None, lambda _: None, budget_s=PATIENCE_S)


def elsewhere(work: Callable[[], Any]) -> Any:
    """What `work` gives in another thread."""
    got: list[Any] = []
    join(*started(lambda: got.append(outcome(work))))
    return got[0]


# The turns by themselves.


def test_a_turn_is_one_holds_until_it_is_given_back() -> None:
    turns, hold, other = Turns(), Hold(), Hold()
    assert turns.is_free
    assert turns.try_take(hold)
    assert not turns.is_free
    assert turns.is_held_by(hold)
    assert not turns.is_held_by(other)
    assert not turns.try_take(other)
    assert not turns.give_back(other)
    assert turns.give_back(hold)
    assert not turns.give_back(hold)
    assert turns.try_take(other)


def test_who_waits_takes_turns_in_strict_order() -> None:
    turns, first, second = Turns(), call(), call()
    turns.waiting.extend([first, second])
    hold = Hold()
    assert not turns.try_take_first(hold, second)
    assert turns.try_take_first(hold, first)
    assert first.take(hold)
    assert not turns.try_take_first(Hold(), second)  # it is not free yet
    assert turns.give_back(hold)
    assert turns.first() is second
    assert turns.try_take_first(Hold(), second)


def test_nobody_barges_while_somebody_waits() -> None:
    turns, waiting = Turns(), call()
    turns.waiting.append(waiting)
    assert not turns.try_take(Hold())  # though it is free
    assert turns.try_take_first(Hold(), waiting)


def test_a_hold_that_is_dropped_frees_the_turn_though_others_wait() -> None:
    turns, waiting = Turns(), call()
    hold: Hold | None = Hold()
    assert hold is not None
    assert turns.try_take(hold)
    turns.waiting.append(waiting)
    assert not turns.try_take_first(Hold(), waiting)
    hold = None
    gc.collect()
    assert turns.is_free
    assert not turns.is_mine
    turns.check_not_mine()
    assert turns.try_take_first(Hold(), waiting)


def test_who_gave_up_is_passed_over() -> None:
    turns, gone, waiting = Turns(), call(), call()
    turns.waiting.extend([gone, call(), waiting])
    for each in list(turns.waiting)[:2]:
        assert each.take(each)
    assert turns.first() is waiting
    assert list(turns.waiting) == [waiting]
    assert not turns.try_take_first(Hold(), gone)
    assert turns.try_take_first(Hold(), waiting)
    assert waiting.take(turns)
    assert turns.first() is None


def test_what_is_put_back_is_first_again_in_the_same_order_and_once() -> None:
    turns, group, waiting = Turns(), object(), call()
    led, withdrawn = [call(), call()], call()
    turns.waiting.append(waiting)
    for each in led:
        assert each.take(group)
    assert withdrawn.take(withdrawn)
    for each in reversed([*led, withdrawn]):
        turns.put_back(each, group)
    for each in reversed(led):
        turns.put_back(each, group)  # as after an interrupt in the midst of it
    order = []
    while (first := turns.first()) is not None:
        assert first.take(turns)
        order.append(first)
    assert order == [*led, waiting]
    assert all(each.alone for each in led)


def test_a_turn_is_its_threads_own_and_moves_with_its_hold() -> None:
    turns, hold = Turns(), Hold()
    assert turns.try_take(hold)
    assert turns.is_mine
    with pytest.raises(NestedTransactionError):
        turns.check_not_mine()
    assert elsewhere(turns.check_not_mine) is None
    elsewhere(lambda: turns.move_here(Hold()))  # which holds nothing
    assert turns.is_mine

    def take_over() -> bool:
        turns.move_here(hold)
        return turns.is_mine

    assert elsewhere(take_over) is True
    assert not turns.is_mine


@pytest.mark.parametrize("racers", [2, 8])
def test_a_call_is_taken_once_whoever_comes_at_the_same_time(racers: int) -> None:
    for _ in range(200):
        wanted = call()
        taken: list[object] = []
        barrier = threading.Barrier(racers, timeout=PATIENCE_S)

        def race(
            wanted: ThreadCall = wanted,
            taken: list[object] = taken,
            barrier: threading.Barrier = barrier,
        ) -> None:
            me = object()
            barrier.wait()
            if wanted.take(me):
                taken.append(me)

        join(*started(*[race] * racers))
        assert len(taken) == 1


# Turns of stores.


@pytest.fixture
def no_looking_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is woken, or waits for ever: nothing hides a wake-up that was lost."""
    monkeypatch.setattr(calls, "LOOK_AGAIN_S", 1_000.0)
    monkeypatch.setattr(serving, "LOOK_AGAIN_S", 1_000.0)


@pytest.mark.usefixtures("no_looking_again")
def test_blocks_come_in_the_order_of_their_asking_and_newcomers_after_them(
    path: Path, store: SessionStore
) -> None:
    order: list[str] = []
    newcomers: list[threading.Thread] = []

    def newcomer(name: str) -> None:
        with store.begin():
            order.append(name)

    def block(number: int) -> None:
        with store.begin():
            order.append(f"{number}")
            standing = in_line(store)
            newcomers.extend(started(partial(newcomer, f"new {number}")))
            eventually(lambda: in_line(store) == standing + 1)

    threads: list[threading.Thread] = []
    with held(store):
        for number in range(6):
            threads += started(partial(block, number))
            eventually(lambda n=number: in_line(store) == n + 1)  # type: ignore[misc] # reason: a default
    join(*threads)
    join(*newcomers)
    assert order == [f"{n}" for n in range(6)] + [f"new {n}" for n in range(6)]


def test_a_block_that_is_dropped_lets_the_next_one_in_and_is_undone(
    path: Path, store: SessionStore
) -> None:
    """As an interrupt drops it, between taking the turn and the block."""
    entered, go = threading.Event(), threading.Event()
    got: list[Any] = []

    def drop() -> None:
        transaction = store.begin()
        tx = transaction.__enter__()
        tx.claim_lease(owner_id="dropped", ttl_ms=60_000)
        del tx
        entered.set()
        assert go.wait(PATIENCE_S)
        del transaction

    threads = started(drop)
    assert entered.wait(PATIENCE_S)
    for number in range(3):
        threads += started(
            lambda n=number: got.append(  # type: ignore[misc] # reason: a default
                store.claim_lease(owner_id=f"w{n}", ttl_ms=60_000, session_id=f"s{n}")
            )
        )
        eventually(lambda n=number: in_line(store) == n + 1)  # type: ignore[misc] # reason: a default
    go.set()
    join(*threads)
    assert {each.fence.session_id for each in got} == {"s0", "s1", "s2"}  # in one group, perhaps
    assert {row[0] for row in all_rows(path)["session_execution_leases"]} == {"s0", "s1", "s2"}


@pytest.mark.usefixtures("no_looking_again")
def test_who_gives_up_leaves_the_line_to_the_others(path: Path, store: SessionStore) -> None:
    with ExitStack() as stack:
        hasty = [
            stack.enter_context(SessionStore.open(path, session_id="s", busy_timeout_ms=budget))
            for budget in (0, 20, 60)
        ]
        patient = [
            stack.enter_context(SessionStore.open(path, session_id="s", busy_timeout_ms=60_000))
            for _ in range(3)
        ]
        refused: list[StoreBusyError] = []
        order: list[int] = []

        def give_up(each: SessionStore, budget_ms: int) -> None:
            error = outcome(partial(each.claim_lease, owner_id="h", ttl_ms=0))
            assert isinstance(error, StoreBusyError)
            assert error.waited_ms >= budget_ms
            refused.append(error)

        def go_on(number: int) -> None:
            with patient[number].begin():
                order.append(number)

        with held(store):
            threads: list[threading.Thread] = []
            giving_up: list[threading.Thread] = []
            for number, (each, budget_ms) in enumerate(zip(hasty, (0, 20, 60), strict=True)):
                giving_up += started(partial(give_up, each, budget_ms))
                threads += started(partial(go_on, number))
                eventually(
                    lambda n=number: (
                        sum(  # type: ignore[misc] # reason: a default
                            waiting.by_itself and waiting.waits
                            for waiting in list(database_of(store).writer.turns.waiting)
                            if isinstance(waiting, ThreadCall)
                        )
                        == n + 1
                    )
                )
            join(*giving_up)
            assert in_line(store) == 3
        join(*threads)
    assert len(refused) == 3
    assert order == [0, 1, 2]


@pytest.mark.usefixtures("no_looking_again")
def test_threads_of_mixed_budgets_end_with_a_result_or_after_their_own_budget(path: Path) -> None:
    """Short calls, blocks and repeatable works; who has no patience, who has some, who has much."""
    budgets = [0, 3, 10, 40, 60_000, 60_000, 60_000, 60_000]
    done: list[int] = []
    late_s: list[float] = []

    def work(store: SessionStore, budget_ms: int, seed: int) -> None:
        chance = random.Random(seed)

        def block() -> Any:
            with store.begin() as tx:
                time.sleep(chance.uniform(0, 0.002))  # a consumer at work
                return tx.claim_lease(owner_id="w", ttl_ms=0)

        kinds: list[Callable[[], Any]] = [
            partial(store.claim_lease, owner_id="w", ttl_ms=0),
            block,
            lambda: store.transact(lambda tx: tx.claim_lease(owner_id="w", ttl_ms=0)),
            lambda: store.transact(
                lambda tx: tx.claim_lease(owner_id="w", ttl_ms=0), repeatable=True
            ),
        ]
        for _ in range(60):
            began_s = time.monotonic()
            result = outcome(chance.choice(kinds))
            took_s = time.monotonic() - began_s
            if isinstance(result, SessionLease):
                done.append(result.fencing_token)
                continue
            assert isinstance(result, StoreBusyError), result
            assert result.waited_ms >= budget_ms
            late_s.append(took_s - budget_ms / 1000)
            assert budget_ms < 1_000

    failures: list[BaseException] = []
    with ExitStack() as stack:
        stores = [
            stack.enter_context(SessionStore.open(path, session_id="s", busy_timeout_ms=budget))
            for budget in budgets
        ]

        def noted(*arguments: Any) -> None:
            error = outcome(partial(work, *arguments))
            if error is not None:
                failures.append(error)

        join(
            *started(
                *(
                    partial(noted, store, budget, seed)
                    for seed, (store, budget) in enumerate(zip(stores, budgets, strict=True))
                )
            )
        )
    assert failures == []
    assert sorted(done) == list(range(1, len(done) + 1))
    assert len(done) >= 4 * 60  # the patient ones got everything
    assert not late_s or max(late_s) < 5.0


class Mixed:
    """Threads and event loops that claim one session's lease again and again."""

    def __init__(self, path: Path) -> None:
        self.options: Any = {"path": path, "session_id": "s", "busy_timeout_ms": 60_000}
        self.numbers: list[int] = []
        self.failures: list[Any] = []

    def note(self, result: Any) -> None:
        if isinstance(result, SessionLease):
            self.numbers.append(result.fencing_token)
        else:
            self.failures.append(result)

    def by_thread(self, store: SessionStore) -> None:
        for _ in range(200):
            self.note(outcome(partial(store.claim_lease, owner_id="t", ttl_ms=0)))

    async def task(self, store: AsyncSessionStore) -> None:
        for at in range(50):
            if at % 10:
                self.note(await store.claim_lease(owner_id="l", ttl_ms=0))
                continue
            repeatable = at % 20 == 0
            self.note(
                await store.transact(
                    lambda tx: tx.claim_lease(owner_id="l", ttl_ms=0), repeatable=repeatable
                )
            )

    async def by_loop(self) -> None:
        async with (
            AsyncSessionStore.open(**self.options) as one,
            AsyncSessionStore.open(**self.options) as two,
        ):
            await asyncio.gather(*(self.task(one if at % 2 else two) for at in range(16)))

    def in_loop(self) -> None:
        error = outcome(lambda: asyncio.run(self.by_loop()))
        if error is not None:
            self.failures.append(error)


@pytest.mark.usefixtures("no_looking_again")
def test_threads_and_event_loops_on_one_file_get_gapless_numbers(path: Path) -> None:
    mixed = Mixed(path)
    with SessionStore.open(**mixed.options) as one, SessionStore.open(**mixed.options) as two:
        threads = [partial(mixed.by_thread, each) for each in (one, two, one, two)]
        join(*started(*threads, mixed.in_loop, mixed.in_loop))
        assert in_line(one) == 0
        assert database_of(one).writer.turns.is_free
    assert mixed.failures == []
    assert sorted(mixed.numbers) == list(range(1, 4 * 200 + 2 * 16 * 50 + 1))


def test_answers_that_an_interrupt_kept_back_are_given_although_nobody_waits(
    store: SessionStore,
) -> None:
    """Somebody has begun to tell, and may be gone: the timer looks again until they are given."""
    writer, group = database_of(store).writer, Group()
    call = ThreadCall(store._handle, "claim_lease", lambda _: None, budget_s=PATIENCE_S)
    assert call.take(group)
    group.calls.append(call)
    group.told_s = time.monotonic()
    writer._ended.append(group)
    writer._look_after()
    assert not call.settled
    eventually(lambda: call.settled)
    assert not writer._ended
