"""K-HOLD: a term that is held for longer than one call."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lash_store import (
    AsyncEffectStore,
    AsyncProcessRegistry,
    AsyncSessionStore,
    EffectStore,
    LeaseHeld,
    NewWork,
    ProcessRegistry,
    SessionStore,
    Success,
    SystemClock,
    TurnCommit,
)
from lash_store._kernel.keeping import KEEPER
from lash_store._kernel.kept import Kept
from lash_store._kernel.observing import Event, observed_by
from lash_store._kernel.threads import Bell
from lash_store.effect.records import Busy
from lash_store.effect.running import current_step
from lash_store.errors import (
    ClaimLostError,
    InvalidRecordError,
    LeaseHeldError,
    LeaseLostError,
    NestedTransactionError,
    NotFoundError,
    StoreClosedError,
)
from lash_store.process.records import ProcessLease
from lash_store.process.tables import processes
from lash_store.testing import ManualClock, as_another_process
from tests.support.databases import all_rows
from tests.support.leased import JOBS, jobs, metadata
from tests.support.registries import register, registration

pytestmark = pytest.mark.canonical("opens both layouts by itself")

TTL = 900


@pytest.fixture(params=["file", "shared", "memory"])
def where(request: pytest.FixtureRequest, path: Path) -> Any:
    return {"file": str(path), "shared": f"sqlite:///{path}", "memory": None}[request.param]


def until(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """Wait for what another thread brings about."""
    end_s = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end_s, "it never came about"
        time.sleep(0.002)
    return found


def kept_terms() -> int:
    """How many terms this process renews."""
    return sum(len(book.kept) for book in KEEPER._books.values())


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    yield
    assert not any(book.kept for book in KEEPER._books.values())


def test_k_hold_3_it_is_over_once_its_block_was_left(where: Any) -> None:
    with SessionStore.open(where, session_id="s") as store:
        store.enqueue_work(NewWork([1]))
        with store.hold(owner_id="ann", ttl_ms=60_000) as held:
            with store.hold_work(held.fence, owner_id="ann", ttl_ms=60_000) as work:
                assert work is not None
                waiter = threading.Thread(target=held.wait_lost, daemon=True)
                waiter.start()
            with pytest.raises(ClaimLostError):
                work.check()
            held.check()
        for _ in range(2):
            with pytest.raises(LeaseLostError, match="block was left"):
                held.check()
        waiter.join(20)
        assert not waiter.is_alive()


def test_k_hold_3_asyncio_is_told_as_well_and_leaves_nothing_behind(where: Any) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(where, session_id="s") as store:
            async with store.hold(owner_id="ann", ttl_ms=60_000) as held:
                for _ in range(20):
                    waiting = asyncio.ensure_future(held.until_lost())
                    await asyncio.sleep(0)
                    waiting.cancel()
                    await asyncio.wait([waiting])
                assert held._kept._told == []
                waiting = asyncio.ensure_future(held.until_lost())
                await asyncio.sleep(0)
            lost = await asyncio.wait_for(waiting, 20)
            assert isinstance(lost, LeaseLostError)
            assert lost.reason == "released"

    asyncio.run(main())


@pytest.mark.parametrize("inner_ttl", [TTL // 9, TTL])
def test_k_hold_5_a_block_within_a_block_releases_nothing(where: Any, inner_ttl: int) -> None:
    """Whatever its own ttl: the outer one renews as the inner one is left."""
    at = ManualClock(1_000)
    with SessionStore.open(where, session_id="s", clock=at) as store:
        with store.hold(owner_id="ann", ttl_ms=TTL) as outer:
            at.advance(1)
            with store.hold(owner_id="ann", ttl_ms=inner_ttl) as inner:
                assert inner.fence == outer.fence
            until(lambda: outer.renewals == 1)
            assert outer.term.expires_at_ms == 1_001 + TTL
            assert store.current_lease() == outer.term
            outer.check()
            at.advance(TTL // 3 + 1)
            until(lambda: outer.renewals == 2)
            store.renew_lease(outer.fence, ttl_ms=TTL)
        assert store.current_lease() is None


def test_k_hold_5_the_last_to_leave_releases(where: Any) -> None:
    """Also if that is the inner one, as two tasks of one owner may have it."""
    with SessionStore.open(where, session_id="s") as store:
        first, second = (store.hold(owner_id="ann", ttl_ms=60_000) for _ in range(2))
        first.__enter__()
        held = second.__enter__()
        first.__exit__(None, None, None)
        held.check()
        assert store.current_lease() is not None
        second.__exit__(None, None, None)
        assert store.current_lease() is None


def test_k_hold_5_asyncio(where: Any) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(where, session_id="s") as store:
            async with store.hold(owner_id="ann", ttl_ms=60_000) as outer:
                async with store.hold(owner_id="ann", ttl_ms=60_000):
                    pass
                await store.renew_lease(outer.fence, ttl_ms=60_000)
            assert await store.current_lease() is None

    asyncio.run(main())


# Claimed, renewed in time, released: by a clock that the test moves.


def test_k_hold_1_a_session(where: Any) -> None:
    at = ManualClock(1_000)
    with SessionStore.open(where, session_id="s", clock=at) as store:
        with store.hold(owner_id="ann", ttl_ms=TTL) as held:
            assert held.term.expires_at_ms == 1_900
            assert held.fence == held.term.fence
            at.advance(TTL // 3 - 100)
            assert held.renewals == 0
            at.advance(100)
            until(lambda: held.renewals == 1)
            assert held.term.expires_at_ms == 1_000 + TTL // 3 + TTL
            current = store.current_lease()
            assert current is not None
            assert current.expires_at_ms == held.term.expires_at_ms
            assert current.fence == held.fence
            held.check()
            before = store.current_lease()
            with pytest.raises(LeaseHeldError, match="held by 'ann'") as refused:
                with store.hold(owner_id="bob", ttl_ms=TTL):
                    raise AssertionError
            assert store.current_lease() == before
            assert refused.value.held.fencing_token == 1
        assert store.current_lease() is None
        at.advance(10 * TTL)
        with store.hold(owner_id="bob", ttl_ms=TTL) as second:
            assert second.term.fencing_token == 2


def test_k_hold_1_it_is_released_whatever_the_block_raises(where: Any) -> None:
    with SessionStore.open(where, session_id="s") as store:
        with pytest.raises(KeyError, match="mine"), store.hold(owner_id="ann", ttl_ms=TTL):
            raise KeyError("mine")
        assert store.current_lease() is None


def test_k_hold_1_a_block_that_is_open_is_not_entered_again(where: Any) -> None:
    with SessionStore.open(where, session_id="s") as store:
        block = store.hold(owner_id="ann", ttl_ms=TTL)
        with block as held:
            with pytest.raises(NestedTransactionError), block:
                pass
            held.check()
            assert store.current_lease() is not None
        assert store.current_lease() is None
        with block as held:  # it is over, and may begin anew
            held.check()


def test_k_hold_1_a_process_and_the_next_one(where: Any) -> None:
    at = ManualClock(1_000)
    with ProcessRegistry.open(where, clock=at) as registry:
        for name in ("p", "q"):
            register(registry, name)
            at.advance(1)
        with registry.hold("p", owner_id="ann", ttl_ms=TTL) as held:
            at.advance(TTL // 3)
            until(lambda: held.renewals == 1)
            with registry.hold_next(owner_id="bob", ttl_ms=TTL) as following:
                assert following is not None
                assert following.term.record.id == "q"
                at.advance(TTL // 3)
                until(lambda: following.renewals == 1 and held.renewals == 2)
                registry.complete_process("q", Success(1), fence=following.fence)
                with registry.hold_next(owner_id="carl", ttl_ms=TTL) as none:
                    assert none is None
        with registry.hold_next(
            owner_id="carl", ttl_ms=TTL, where=processes.c.process_id == "nobody"
        ) as none:
            assert none is None
        with pytest.raises(NotFoundError):
            with registry.hold("unknown", owner_id="ann", ttl_ms=TTL):
                raise AssertionError


def _have_renewals(held: list[Any], expected: list[int]) -> bool:
    return [each.renewals for each in held] == expected


def test_k_hold_2_the_next_one_that_is_completed_takes_no_other_with_it(where: Any) -> None:
    at = ManualClock(1_000)
    with ProcessRegistry.open(where, clock=at) as registry, ExitStack() as held_all:
        for name in ("p", "q", "r"):
            register(registry, name)
            at.advance(1)
        held = []
        for _ in range(3):
            each = held_all.enter_context(registry.hold_next(owner_id="ann", ttl_ms=TTL))
            assert each is not None
            held.append(each)
        registry.complete_process("p", Success(1), fence=held[0].fence)
        for count in (1, 2, 3, 4):
            at.advance(TTL // 3)
            until(partial(_have_renewals, held, [0, count, count]))
        assert isinstance(held[0].lost, LeaseLostError)
        assert held[0].lost.reason == "released"
        assert [each.lost for each in held[1:]] == [None, None]
        registry.request_cancel("q")  # whoever writes is not held up


def test_k_hold_3_the_next_one_is_over_by_the_clock() -> None:
    at = ManualClock(1_000)
    with ProcessRegistry.open(None, clock=at) as registry:
        register(registry, "p")
        with registry.hold_next(owner_id="ann", ttl_ms=TTL) as held:
            assert held is not None
            at.advance(TTL)
            assert isinstance(held.lost, LeaseLostError)
            with pytest.raises(LeaseLostError):
                held.check()


def test_k_hold_1_a_claim_on_work(where: Any) -> None:
    at = ManualClock(1_000)
    with SessionStore.open(where, session_id="s", clock=at) as store:
        store.enqueue_all_work([NewWork([1]), NewWork([2])])
        with store.hold(owner_id="ann", ttl_ms=TTL) as lease:
            with store.hold_work(lease.fence, owner_id="ann", ttl_ms=TTL) as work:
                assert work is not None
                at.advance(TTL // 3)
                until(lambda: work.renewals == 1 and lease.renewals == 1)
                commit = TurnCommit(fence=lease.fence, completed=[work.term])
                store.commit_turn(commit)
            with store.hold_work(lease.fence, owner_id="ann", ttl_ms=TTL) as second:
                assert second is not None
                assert second.term.batches[0].items[0].payload == 2
            assert store.work_depth().claimed == 0  # given back
            with store.hold_work(lease.fence, owner_id="ann", ttl_ms=TTL):
                with store.hold_work(lease.fence, owner_id="ann", ttl_ms=TTL) as none:
                    assert none is None


def test_k_hold_1_a_lease_on_a_table_of_your_own(where: Any) -> None:
    at = ManualClock(1_000)
    with SessionStore.open(where, session_id="s", clock=at) as store:
        with store.begin() as tx:
            jobs.create(tx.connection)
        with JOBS.hold(store, "job", owner_id="ann", ttl_ms=TTL) as held:
            at.advance(TTL // 3)
            until(lambda: held.renewals == 1)
            with store.begin() as tx:
                tx.require(held.fence)
        with store.begin() as tx:
            assert JOBS.bind(tx).current("job") is None


def test_k_hold_1_asyncio(where: Any) -> None:
    at = ManualClock(1_000)

    async def main() -> None:
        async with AsyncSessionStore.open(where, session_id="s", clock=at) as store:
            async with store.hold(owner_id="ann", ttl_ms=TTL) as held:
                at.advance(TTL // 3)
                while held.renewals < 1:
                    await asyncio.sleep(0.002)
                with pytest.raises(LeaseHeldError):
                    async with store.hold(owner_id="bob", ttl_ms=TTL):
                        raise AssertionError
            assert await store.current_lease() is None
            with pytest.raises(KeyError):
                async with store.hold(owner_id="ann", ttl_ms=TTL):
                    raise KeyError
            assert await store.current_lease() is None

    asyncio.run(main())


def test_k_hold_1_waiting_for_a_term(where: Any) -> None:
    with SessionStore.open(where, session_id="s") as store:
        first = store.hold(owner_id="ann", ttl_ms=60_000)
        first.__enter__()
        threading.Timer(0.1, lambda: first.__exit__(None, None, None)).start()
        started_s = time.monotonic()
        with store.hold(owner_id="bob", ttl_ms=60_000, timeout_ms=20_000) as held:
            assert time.monotonic() - started_s < 10
            assert held.term.owner_id == "bob"
        lease = store.claim_lease(owner_id="carl", ttl_ms=100)
        assert not isinstance(lease, LeaseHeld)
        with store.hold(owner_id="bob", ttl_ms=60_000, timeout_ms=20_000) as held:
            assert held.term.fencing_token == 4  # it ran out
        lease = store.claim_lease(owner_id="carl", ttl_ms=60_000)
        with pytest.raises(LeaseHeldError):
            with store.hold(owner_id="bob", ttl_ms=60_000, timeout_ms=50):
                raise AssertionError


@pytest.mark.parametrize(
    "bad",
    [
        {"ttl_ms": 0},
        {"ttl_ms": -1},
        {"owner_id": ""},
        {"session_id": ""},
        {"timeout_ms": -1},
        {"ttl_ms": 1.5},
    ],
)
def test_k_hold_1_bad_input_is_refused(path: Path, bad: dict[str, Any]) -> None:
    with SessionStore.open(path, session_id="s") as store:
        before = all_rows(path)
        given: Any = {"owner_id": "ann", "ttl_ms": TTL, **bad}
        with pytest.raises(InvalidRecordError, match=next(iter(bad))), store.hold(**given):
            raise AssertionError
        assert all_rows(path) == before


def test_k_hold_1_the_wrong_kind_of_block_is_refused(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        before = all_rows(path)
        with pytest.raises(InvalidRecordError, match="async with"):
            with AsyncSessionStore.open(path, session_id="s").hold(owner_id="ann", ttl_ms=TTL):
                raise AssertionError

        async def main() -> None:
            async with store.hold(owner_id="ann", ttl_ms=TTL):
                raise AssertionError

        with pytest.raises(InvalidRecordError, match="by `with`"):
            asyncio.run(main())
        assert all_rows(path) == before


# How a term is lost.


@pytest.mark.parametrize("timeout_ms", [20_000, 2**63 - 1])
def test_k_hold_2_a_term_that_was_taken_over(where: Any, timeout_ms: int) -> None:
    at = ManualClock(1_000)
    with SessionStore.open(where, session_id="s", clock=at) as store:
        with store.hold(owner_id="ann", ttl_ms=TTL) as held:
            with SessionStore.open(store, session_id="s", clock=ManualClock(1_000 + TTL)) as thief:
                stolen = thief.claim_lease(owner_id="thief", ttl_ms=TTL)
                assert not isinstance(stolen, LeaseHeld)
            held.check()  # nobody has told yet
            at.advance(TTL // 3)
            lost = held.wait_lost(timeout_ms=timeout_ms)
            assert isinstance(lost, LeaseLostError)
            assert lost.reason == "superseded"
            assert held.lost is lost
            with pytest.raises(LeaseLostError):
                held.check()
        current = store.current_lease()
        assert current is not None
        assert current.owner_id == "thief"  # whom leaving the block does not touch


def test_k_hold_2_a_claim_that_was_taken_over(where: Any) -> None:
    at = ManualClock(1_000)
    with SessionStore.open(where, session_id="s", clock=at) as store:
        store.enqueue_work(NewWork([1]))
        with (
            store.hold(owner_id="ann", ttl_ms=100 * TTL) as lease,
            store.hold_work(lease.fence, owner_id="ann", ttl_ms=TTL) as held,
        ):
            assert held is not None
            store.abandon_claim(held.term)
            at.advance(TTL // 3)
            assert isinstance(held.wait_lost(timeout_ms=20_000), ClaimLostError)
            lease.check()


@pytest.mark.parametrize("past", [-1, 0, 1])
def test_k_hold_3_the_end_is_exclusive(path: Path, past: int) -> None:
    """While nothing is renewed: the file is another process's."""
    at = ManualClock(1_000)
    with SessionStore.open(path, session_id="s", clock=at) as store:
        with store.hold(owner_id="ann", ttl_ms=TTL) as held:
            with (
                as_another_process(),
                SessionStore.open(path, session_id="s") as other,
                other.begin(),
            ):
                at.advance(TTL + past)
                if past < 0:
                    held.check()
                else:
                    with pytest.raises(LeaseLostError) as lost:
                        held.check()
                    assert lost.value.reason == "expired"
                    assert str(held.wait_lost(timeout_ms=0)) == str(lost.value)
            if past >= 0:
                with pytest.raises(LeaseLostError):
                    held.check()  # and it stays so


class Shifted:
    """The machine's clock, as somebody sets it."""

    def __init__(self) -> None:
        self.by_ms = 0

    def now_ms(self) -> int:
        return SystemClock().now_ms() + self.by_ms


def test_k_hold_3_a_clock_that_is_set_back(path: Path) -> None:
    """Steady time since the renewal was sent tells, which nobody sets."""
    clock = Shifted()
    with SessionStore.open(path, session_id="s", clock=clock) as store:
        with store.hold(owner_id="ann", ttl_ms=300) as held:
            with (
                as_another_process(),
                SessionStore.open(path, session_id="s") as other,
                other.begin(),
            ):
                clock.by_ms = -3_600_000
                held.check()
                time.sleep(0.35)
                with pytest.raises(LeaseLostError):
                    held.check()


def test_k_hold_3_a_clock_that_is_set_forward(path: Path) -> None:
    clock = Shifted()
    with SessionStore.open(path, session_id="s", clock=clock) as store:
        with store.hold(owner_id="ann", ttl_ms=60_000) as held:
            clock.by_ms = 86_400_000
            with pytest.raises(LeaseLostError):
                held.check()


def test_k_hold_3_only_a_committed_renewal_moves_the_end(path: Path) -> None:
    at = ManualClock(1_000)

    class Failing:
        def before(self, event: Event) -> None:
            if event.operation == "renew_lease" and event.kind == "commit":
                error = sqlite3.OperationalError("the disk")
                error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"
                raise error

        def after(self, event: Event) -> None:
            pass

    with SessionStore.open(path, session_id="s", clock=at) as store:
        with store.hold(owner_id="ann", ttl_ms=TTL) as held:
            with observed_by(Failing()):
                at.advance(TTL // 3)
                time.sleep(0.2)
            assert (held.renewals, held.term.expires_at_ms) == (0, 1_000 + TTL)
            at.advance(100)
            until(lambda: held.renewals == 1)


def test_k_hold_2_asyncio_can_wait_for_it(path: Path) -> None:
    async def main() -> None:
        async with AsyncProcessRegistry.open(path) as registry:
            await registry.transact(lambda tx: register(tx, "p"))  # type: ignore[arg-type] # reason: a Tx has the same operation
            async with registry.hold("p", owner_id="ann", ttl_ms=300) as held:
                stolen = await registry.claim_lease("p", owner_id="ann", ttl_ms=60_000)
                assert not isinstance(stolen, LeaseHeld)
                error = await asyncio.wait_for(held.until_lost(), 20)
                assert isinstance(error, LeaseLostError)

    asyncio.run(main())


# One keeper.


def test_k_hold_4_many_holds_take_one_thread_and_few_transactions(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s.db", session_id="s") as store, ExitStack() as holding:
        before = threading.active_count()
        held = [
            holding.enter_context(store.hold(owner_id=f"w{at}", ttl_ms=1_500, session_id=f"s{at}"))
            for at in range(200)
        ]
        commits: list[str] = []

        class Counting:
            def before(self, event: Event) -> None:
                pass

            def after(self, event: Event) -> None:
                if event.kind == "commit" and event.operation == "renew_lease":
                    commits.append(event.operation)

        with observed_by(Counting()):
            started_s = time.monotonic()
            until(lambda: all(each.renewals >= 3 for each in held))
            took_s = time.monotonic() - started_s
        assert threading.active_count() <= before + 5
        assert len(commits) <= 20 * took_s + 3
        for each in held:
            each.check()


def test_k_hold_4_what_waits_for_longer_than_a_lock_can_ends_no_thread() -> None:
    """As the timer did for a term of 2**63-1 ms, and renewed nothing any more."""
    bell = Bell()
    bell.ring()
    bell.wait(2.0**53)


def test_k_hold_4_a_locked_file_costs_nobody_else_a_term(tmp_path: Path) -> None:
    with ExitStack() as holding:
        stores = [
            holding.enter_context(SessionStore.open(tmp_path / f"{at}.db", session_id="s"))
            for at in range(40)
        ]
        held = [holding.enter_context(each.hold(owner_id="w", ttl_ms=1_000)) for each in stores]
        with closing(sqlite3.connect(tmp_path / "0.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert isinstance(held[0].wait_lost(timeout_ms=20_000), LeaseLostError)
            for each in held[1:]:
                each.check()
            time.sleep(1)
            for each in held[1:]:
                each.check()
                assert each.renewals >= 2
            other.execute("ROLLBACK")


def test_k_hold_4_an_event_loop_that_is_blocked_loses_no_term(path: Path) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            async with store.hold(owner_id="ann", ttl_ms=600) as held:
                time.sleep(1.5)  # reason: that is the test
                held.check()
                assert held.renewals >= 4

    asyncio.run(main())


@pytest.mark.posix("forks")
@pytest.mark.parametrize("what", ["hold", "step"])
def test_k_hold_4_a_loop_that_is_closed_holds_nothing(path: Path, what: str) -> None:
    """Nobody would ever let go of it."""
    loop = asyncio.new_event_loop()
    store = AsyncEffectStore.open(path) if what == "step" else None
    sessions = AsyncSessionStore.open(path, session_id="s") if what == "hold" else None

    async def forever() -> None:
        await asyncio.sleep(1_000)

    async def hold() -> None:
        assert sessions is not None
        async with sessions.hold(owner_id="ann", ttl_ms=300):
            await forever()

    task = loop.create_task(
        hold() if store is None else store.run("s", "k", None, forever, ttl_ms=300)
    )
    until(lambda: loop.run_until_complete(asyncio.sleep(0.01)) or kept_terms())
    loop.close()
    until(lambda: not kept_terms())
    coroutine: Any = task.get_coro()
    coroutine.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined] # reason: it is what this is about


def test_k_hold_4_a_loop_that_ends_as_a_block_is_left_releases(path: Path) -> None:
    """Every task is cancelled then, also one that was made to release and has not begun to."""

    async def hold(store: AsyncSessionStore, stop: asyncio.Event) -> None:
        async with store.hold(owner_id="ann", ttl_ms=600_000):
            await stop.wait()

    async def main() -> None:
        store, stop = AsyncSessionStore.open(path, session_id="s"), asyncio.Event()
        task = asyncio.create_task(hold(store, stop))
        while not kept_terms():
            await asyncio.sleep(0.001)
        stop.set()
        kept.append(task)

    kept: list[Any] = []
    asyncio.run(main())
    with SessionStore.open(path, session_id="s") as store:
        assert store.current_lease() is None


@pytest.mark.parametrize("what", ["hold", "step"])
def test_k_hold_4_a_coroutine_that_is_thrown_away_releases(path: Path, what: str) -> None:
    """As it is collected, say, once its loop is closed: it can't await anything more."""

    async def forever() -> None:
        await asyncio.sleep(1_000)

    async def thrown_away(work: Any) -> None:
        task = asyncio.ensure_future(work)
        while not kept_terms():
            await asyncio.sleep(0.001)
        coroutine: Any = task.get_coro()
        coroutine.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def step() -> None:
        async with AsyncEffectStore.open(path) as store:
            await thrown_away(store.run("s", "k", None, forever, ttl_ms=60_000))
            while isinstance(await store.begin_effect("s", "k", owner_id="bob"), Busy):
                await asyncio.sleep(0.01)

    async def hold() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:

            async def block() -> None:
                async with store.hold(owner_id="ann", ttl_ms=60_000):
                    await forever()

            await thrown_away(block())
            while await store.current_lease() is not None:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(hold() if what == "hold" else step(), 20))


@pytest.mark.posix("forks")
def test_k_hold_4_a_child_holds_nothing(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        with store.hold(owner_id="ann", ttl_ms=60_000) as held:
            child = os.fork()
            if child == 0:
                os._exit(0 if isinstance(held.lost, LeaseLostError) and not KEEPER._books else 1)
            assert os.waitpid(child, 0)[1] == 0
            held.check()


def test_k_hold_1_what_was_claimed_for_a_block_of_a_closed_store_is_given_back(path: Path) -> None:
    """The claim is committed, its task is not yet told, and the store is closed."""

    async def main() -> None:
        store = await AsyncSessionStore.open(path, session_id="s")
        committed = Committed()

        async def enter() -> None:
            async with store.hold(owner_id="ann", ttl_ms=60_000):
                raise AssertionError("it is not entered")

        with observed_by(committed):
            entering = asyncio.create_task(enter())
            await asyncio.sleep(0)
            assert committed.seen.wait(20)
        store.close()
        with pytest.raises(StoreClosedError):
            await entering

    asyncio.run(main())
    with SessionStore.open(path, session_id="s") as other:
        assert other.current_lease() is None


class Committed:
    """Sees that a claim was committed."""

    def __init__(self) -> None:
        self.seen = threading.Event()
        self._claims = False

    def before(self, event: Event) -> None:
        self._claims = self._claims or event.operation == "claim_lease"

    def after(self, event: Event) -> None:
        if self._claims and event.kind == "commit":
            self.seen.set()


def test_k_open_12_leaving_a_block_makes_no_database_anew(path: Path) -> None:
    async def main() -> None:
        store = await AsyncSessionStore.open(path, session_id="s")
        async with store.hold(owner_id="ann", ttl_ms=60_000):
            await store.aclose()
            path.unlink()

    asyncio.run(main())
    assert not path.exists()


def test_k_hold_4_a_look_goes_over_what_is_due_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of thousands that are held few are due at a time; what was released leaves little behind."""
    url = f"sqlite:///{path}"
    looked: list[Any] = []
    asked = Kept.asked

    def noted(kept: Kept, by_ms: float) -> Any:
        looked.append(kept)
        return asked(kept, by_ms)

    monkeypatch.setattr(Kept, "asked", noted)
    with SessionStore.open(url, session_id="a") as store, ExitStack() as held:
        for number in range(50):
            held.enter_context(
                store.hold(owner_id="ann", ttl_ms=60_000, session_id=f"long-{number}")
            )
        book = KEEPER._books[store._handle.key]
        short = held.enter_context(store.hold(owner_id="ann", ttl_ms=300, session_id="short"))
        until(lambda: short.renewals)
        assert {kept.fence for kept in looked} == {short.fence}
        for _ in range(300):
            with store.hold(owner_id="ann", ttl_ms=60_000, session_id="again"):
                pass
        assert len(book._due) <= 2 * len(book.kept) + 65


@pytest.mark.parametrize("raises", [True, False])
def test_k_hold_7_what_is_kept_is_released_by_time_alone(where: Any, *, raises: bool) -> None:
    """What has failed is tried later, and what stands behind it has its turn meanwhile."""
    at = ManualClock(1_000)
    with ProcessRegistry.open(where, clock=at) as registry:
        for name in ("poison", "good"):
            register(registry, name)
            at.advance(1)
        done: list[str] = []
        while True:
            with suppress(KeyError), registry.hold_next(owner_id="ann", ttl_ms=TTL) as held:
                if held is None:
                    break
                name = held.term.record.id
                done.append(name)
                if name == "poison":
                    held.keep_for(ttl_ms=5)
                    held.keep_for(ttl_ms=2_000)  # the last word holds
                    if raises:
                        raise KeyError(name)
                else:
                    registry.complete_process(name, Success(1), fence=held.fence)
        assert done == ["poison", "good"]
        now_ms = at.now_ms()
        lease = registry.current_lease("poison")
        assert lease is not None
        assert lease.expires_at_ms == now_ms + 2_000
        at.advance(1_999)
        with registry.hold_next(owner_id="bob", ttl_ms=TTL) as none:
            assert none is None
        at.advance(1)
        with registry.hold_next(owner_id="bob", ttl_ms=TTL) as again:
            assert again is not None
            assert again.fence.fencing_token == 2
        assert registry.current_lease("poison") is None  # this block has kept nothing


def test_k_hold_7_work_a_session_and_a_lease_of_ones_own_are_kept(where: Any) -> None:
    at = ManualClock(1_000)
    with SessionStore.open(where, session_id="s", clock=at) as store:
        store.enqueue_all_work([NewWork([1]), NewWork([2])])
        with store.hold(owner_id="ann", ttl_ms=TTL) as lease:
            with store.hold_work(lease.fence, owner_id="ann", ttl_ms=TTL) as work:
                assert work is not None
                work.keep_for(ttl_ms=3_000)
                work.check()  # it is held until the block is left
            with pytest.raises(ClaimLostError):
                work.check()
            assert store.work_depth().claimed == 1
            with store.hold_work(lease.fence, owner_id="ann", ttl_ms=TTL) as other:
                assert other is not None
                assert other.term.batches[0].items[0].payload == 2
                store.complete_work(lease.fence, other.term)
                other.keep_for(ttl_ms=3_000)  # which is nobody's to keep any more
            assert store.work_depth().claimed == 1
            lease.keep_for(ttl_ms=4_000)
        kept = store.current_lease()
        assert kept is not None
        assert kept.fence == lease.fence
        assert kept.expires_at_ms == at.now_ms() + 4_000
        at.advance(2_999)
        assert store.work_depth().claimed == 1
        at.advance(1)
        assert store.work_depth().claimed == 0
        with store.begin() as tx:
            metadata.create_all(tx.connection)
        with JOBS.hold(store, "nightly", owner_id="ann", ttl_ms=TTL) as job:
            job.keep_for(ttl_ms=1)
        with store.read() as tx:
            assert JOBS.bind(tx).current("nightly") is not None
        at.advance(1)
        with store.read() as tx:
            assert JOBS.bind(tx).current("nightly") is None


def test_k_hold_7_asyncio(where: Any) -> None:
    at = ManualClock(1_000)

    async def main() -> None:
        async with AsyncProcessRegistry.open(where, clock=at) as registry:
            await registry.register_process(registration("poison"))
            with pytest.raises(KeyError):
                async with registry.hold_next(owner_id="ann", ttl_ms=TTL) as held:
                    assert held is not None
                    held.keep_for(ttl_ms=2_000)
                    raise KeyError
            async with registry.hold_next(owner_id="ann", ttl_ms=TTL) as none:
                assert none is None
            at.advance(2_000)
            inside = asyncio.Event()
            task = asyncio.create_task(kept_until_cancelled(registry, inside))
            await inside.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            kept = await registry.current_lease("poison")
            assert kept is not None
            assert kept.expires_at_ms == at.now_ms() + 7_000

    async def kept_until_cancelled(registry: Any, inside: asyncio.Event) -> None:
        async with registry.hold_next(owner_id="bob", ttl_ms=TTL) as held:
            held.keep_for(ttl_ms=7_000)
            inside.set()
            await asyncio.sleep(60)

    asyncio.run(main())


def test_k_hold_7_the_last_of_several_blocks_has_the_last_word(where: Any) -> None:
    at = ManualClock(1_000)
    with SessionStore.open(where, session_id="s", clock=at) as store:
        with store.hold(owner_id="ann", ttl_ms=TTL) as outer:
            with store.hold(owner_id="ann", ttl_ms=TTL) as inner:
                inner.keep_for(ttl_ms=50_000)
            outer.check()
            current = store.current_lease()
            assert current is not None
            assert current.expires_at_ms <= at.now_ms() + TTL  # the other holds it, and renews
        assert store.current_lease() is None


@pytest.mark.parametrize("ttl_ms", [0, -1, 1.5, True, None, "1"])
def test_k_hold_7_bad_input_is_refused(path: Path, ttl_ms: Any) -> None:
    with SessionStore.open(path, session_id="s") as store:
        with store.hold(owner_id="ann", ttl_ms=TTL) as held:
            with pytest.raises(InvalidRecordError, match="ttl_ms"):
                held.keep_for(ttl_ms=ttl_ms)
        assert store.current_lease() is None


def test_k_hold_7_a_step_is_no_block_to_keep(path: Path) -> None:
    def function() -> None:
        step = current_step()
        assert step is not None
        with pytest.raises(InvalidRecordError, match="of a step"):
            step.keep_for(ttl_ms=5)

    with EffectStore.open(path, owner_id="ann") as effects:
        effects.run("s", "k", None, function)


@pytest.mark.parametrize("how", ["keep_for", "renew_lease"])
def test_k_hold_7_who_waits_has_it_as_soon_as_it_is_over(path: Path, how: str) -> None:
    """Not at the end that was read first, nor at that of its own patience."""
    with ProcessRegistry.open(path) as registry:
        register(registry, "p")
        waited: list[float] = []

        def wait() -> None:
            begun_s = time.monotonic()
            with registry.hold("p", owner_id="bob", ttl_ms=TTL, timeout_ms=30_000):
                waited.append(time.monotonic() - begun_s)

        lease = registry.claim_lease("p", owner_id="ann", ttl_ms=60_000)
        assert isinstance(lease, ProcessLease)
        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: registry.watch.waiters)
        if how == "renew_lease":
            registry.renew_lease(lease.fence, ttl_ms=300)
        else:  # the same, as a block does it
            with registry.hold("p", owner_id="ann", ttl_ms=60_000) as held:
                held.keep_for(ttl_ms=300)
        thread.join(20)
        assert waited
        assert waited[0] < 15

        async def main() -> None:
            async with AsyncProcessRegistry.open(path) as other:
                lease = await other.claim_lease("p", owner_id="ann", ttl_ms=60_000)
                assert isinstance(lease, ProcessLease)
                hold = other.hold("p", owner_id="bob", ttl_ms=TTL, timeout_ms=30_000)
                task = asyncio.create_task(entered(hold))
                await asyncio.sleep(0.1)
                await other.renew_lease(lease.fence, ttl_ms=300)
                await asyncio.wait_for(task, 15)

        async def entered(hold: Any) -> None:
            async with hold:
                pass

        asyncio.run(main())


def test_k_hold_7_what_was_said_of_one_block_is_not_of_the_next(where: Any) -> None:
    at = ManualClock(1_000)
    with ProcessRegistry.open(where, clock=at) as registry:
        for name in ("a", "b"):
            register(registry, name)
            at.advance(1)
        block = registry.hold_next(owner_id="ann", ttl_ms=TTL)
        with block as first:
            assert first is not None
            first.keep_for(ttl_ms=60_000)
        with block as second:
            assert second is not None
            assert second.term.record.id == "b"
            first.keep_for(ttl_ms=60_000)
        assert registry.current_lease("a") is not None
        assert registry.current_lease("b") is None


def test_k_hold_1_a_block_whose_entry_was_interrupted_is_entered_again(
    where: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SessionStore.open(where, session_id="s") as store:
        block: Any = store.hold(owner_id="ann", ttl_ms=TTL)
        hold = block._held

        def struck(*arguments: Any) -> None:
            hold(*arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(block, "_held", struck)
        with pytest.raises(KeyboardInterrupt), block:
            pytest.fail("it was entered")
        monkeypatch.undo()
        with block as held:
            held.check()
        assert store.current_lease() is None
