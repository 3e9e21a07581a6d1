"""K-HOLD where several blocks of one owner, an interrupt, a fork or a cancelling meet."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sqlite3
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from lash_store import (
    AsyncEffectStore,
    AsyncProcessRegistry,
    AsyncSessionStore,
    Busy,
    EffectStore,
    NewWork,
    SessionStore,
    SystemClock,
    TurnCommit,
)
from lash_store._kernel.keeping import KEEPER, Entering
from lash_store._kernel.threads import Timer
from lash_store._stores.lines import is_waited_for
from lash_store.effect.records import EffectClaim
from lash_store.effect.running import current_step
from lash_store.errors import ClaimLostError, LeaseHeldError, LeaseLostError
from lash_store.session.operations.leases import LEASES
from lash_store.testing import ManualClock, SkewedClock
from tests.conformance.test_holding import until
from tests.support.registries import register

pytestmark = pytest.mark.canonical("opens both layouts by itself")


@pytest.fixture(params=["file", "shared", "memory"])
def where(request: pytest.FixtureRequest, path: Path) -> Any:
    return {"file": str(path), "shared": f"sqlite:///{path}", "memory": None}[request.param]


def test_k_hold_5_tasks_that_come_and_go_release_nobodys_term(where: Any) -> None:
    """One that leaves sees who has claimed the same term and is not inside yet."""

    async def request(store: AsyncSessionStore, chance: random.Random) -> None:
        for _ in range(60):
            async with store.hold(owner_id="server", ttl_ms=30_000) as held:
                await store.commit_turn(TurnCommit(fence=held.fence))
            await asyncio.sleep(chance.random() * 0.003)

    async def main() -> None:
        async with AsyncSessionStore.open(where, session_id="s") as store:
            await asyncio.gather(*(request(store, random.Random(at)) for at in range(3)))
            assert await store.current_lease() is None

    asyncio.run(main())


def test_k_hold_5_nor_do_threads(where: Any) -> None:
    lost: list[Exception] = []

    def request(store: SessionStore, chance: random.Random) -> None:
        for _ in range(60):
            with store.hold(owner_id="server", ttl_ms=30_000) as held:
                try:
                    store.commit_turn(TurnCommit(fence=held.fence))
                except LeaseLostError as error:
                    lost.append(error)
            time.sleep(chance.random() * 0.001)

    with SessionStore.open(where, session_id="s") as store:
        threads = [
            threading.Thread(target=request, args=(store, random.Random(at))) for at in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert lost == []
        assert store.current_lease() is None


def test_k_hold_5_one_that_is_cancelled_as_it_enters_releases_nobodys_term(where: Any) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(where, session_id="s") as store:

            async def other() -> None:
                async with store.hold(owner_id="server", ttl_ms=30_000):
                    await asyncio.sleep(60)

            for at in range(60):
                async with store.hold(owner_id="server", ttl_ms=30_000):
                    task = asyncio.create_task(other())
                    for _ in range(1 + at % 3):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.wait([task])
                    assert await store.current_lease() is not None
                assert await store.current_lease() is None

    asyncio.run(main())


def test_k_hold_5_a_release_that_is_overtaken_is_undone(where: Any) -> None:
    """On a server a lease of the consumer's own is behind its row's lock: only then is it seen."""
    with (
        SessionStore.open(where, session_id="s") as store,
        store.hold(owner_id="ann", ttl_ms=30_000) as held,
    ):
        asked = iter([False, True])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lash_store._stores.holding.KEEPER.is_held", lambda *_: next(asked))
            patch.setattr("lash_store._stores.holding.KEEPER.leave_to_others", lambda *_: False)
            with store.hold(owner_id="ann", ttl_ms=30_000):
                pass
        assert next(asked, None) is None
        with store.begin() as tx:
            tx.require(held.fence)


def test_k_hold_3_a_block_within_moves_the_end_of_the_one_around_it(path: Path) -> None:
    """The row has one end, and the last claim or renewal of it says which."""
    clock = ManualClock()
    with (
        SessionStore.open(path, session_id="s", clock=clock) as store,
        store.hold(owner_id="ann", ttl_ms=30_000) as outer,
    ):
        with store.hold(owner_id="ann", ttl_ms=900) as inner:
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")  # nobody renews it
                clock.advance(899)
                assert (inner.lost, outer.lost) == (None, None)
                clock.advance(1)
                assert isinstance(inner.lost, LeaseLostError)
                assert isinstance(outer.lost, LeaseLostError)
        assert store.current_lease() is None
    with (
        SessionStore.open(path, session_id="s", clock=clock) as store,
        store.hold(owner_id="ann", ttl_ms=30_000) as outer,
        store.hold(owner_id="ann", ttl_ms=900) as inner,
    ):
        clock.advance(300)
        until(lambda: inner.renewals)
        clock.advance(899)
        assert (inner.lost, outer.lost) == (None, None)


def test_k_hold_1_a_task_that_is_cancelled_as_it_waits_does_not_go_on(where: Any) -> None:
    went_on: list[int] = []

    async def main() -> None:
        async with AsyncSessionStore.open(where, session_id="s") as store:

            async def waits() -> None:
                async with store.hold(owner_id="bob", ttl_ms=30_000, timeout_ms=60_000):
                    await asyncio.sleep(0.05)
                    went_on.append(1)

            for _ in range(20):
                with pytest.raises(ExceptionGroup):
                    async with asyncio.TaskGroup() as group:
                        async with store.hold(owner_id="ann", ttl_ms=30_000):
                            group.create_task(waits())
                            await asyncio.sleep(0.01)
                        raise ValueError
                assert await store.current_lease() is None

    asyncio.run(main())
    assert went_on == []


def test_k_tx_11_whoever_waits_can_be_cancelled_as_it_is_told(path: Path) -> None:
    async def main() -> None:
        async with AsyncProcessRegistry.open(path) as registry:
            await registry.transact(lambda tx: register(tx, "p"))  # type: ignore[arg-type] # reason: a Tx
            for at in range(20):
                waiting = asyncio.create_task(registry.await_process("p", timeout_ms=60_000))
                await asyncio.sleep(0.02)
                await registry.append_event("p", "process.waiting", at)
                for _ in range(at % 3):
                    await asyncio.sleep(0)
                waiting.cancel()
                _, pending = await asyncio.wait([waiting], timeout=5)
                assert not pending
                assert waiting.cancelled()

    asyncio.run(main())


@pytest.mark.posix("there is no fork")
def test_k_hold_4_a_child_that_leaves_the_block_gives_nothing_back(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        store.enqueue_work(NewWork([1]))
        parent = os.getpid()
        try:
            with (
                store.hold(owner_id="ann", ttl_ms=30_000) as held,
                store.hold_work(held.fence, owner_id="ann", ttl_ms=30_000) as work,
            ):
                assert work is not None
                child = os.fork()
                if child == 0:
                    sys.exit(0)
                os.waitpid(child, 0)
                assert store.current_lease() is not None
                with store.begin() as tx:
                    tx.require_claim(work.term)
        finally:
            if os.getpid() != parent:
                os._exit(0)


def test_k_tx_10_an_interrupt_as_it_is_entered_keeps_no_other_from_being_renewed() -> None:
    def interrupt(frame: FrameType, _: str, __: Any) -> None:
        if frame.f_code is Timer.after.__code__:
            sys.settrace(None)
            raise KeyboardInterrupt

    with SessionStore.open(None, session_id="s") as store:
        before = sys.gettrace()
        sys.settrace(interrupt)
        try:
            with pytest.raises(KeyboardInterrupt), store.hold(owner_id="ann", ttl_ms=600):
                raise AssertionError("it was entered")
        finally:
            sys.settrace(before)
        with store.hold(owner_id="ann", ttl_ms=600) as held:
            until(lambda: held.renewals > 1)
            assert held.lost is None


def test_k_tx_10_an_interrupt_behind_the_claim_of_a_step_gives_it_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = EffectStore._begin

    def interrupted(self: EffectStore, *given: Any) -> Any:
        begin(self, *given)
        raise KeyboardInterrupt

    with EffectStore.open(path) as effects:
        monkeypatch.setattr(EffectStore, "_begin", interrupted)
        with pytest.raises(KeyboardInterrupt):
            effects.run("s", "k", None, list)
        assert isinstance(effects.begin_effect("s", "k", None), EffectClaim)


@pytest.mark.parametrize("is_asyncio", [False, True])
def test_k_hold_3_who_waits_for_the_loss_of_a_step_is_told_that_it_is_over(
    is_asyncio: bool, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []
    waiting: list[threading.Thread] = []

    def work() -> int:
        step = current_step()
        assert step is not None
        waiting.append(threading.Thread(target=lambda: told.append(step.wait_lost()), daemon=True))
        waiting[0].start()
        return 1

    async def awaited() -> int:
        return work()

    async def main() -> None:
        async with AsyncEffectStore.open(None) as effects:
            assert await effects.run("s", "k", None, awaited) == 1

    if is_asyncio:
        asyncio.run(main())
    else:
        with EffectStore.open(None) as effects:
            assert effects.run("s", "k", None, work) == 1
    waiting[0].join(20)
    (lost,) = told
    assert lost.reason == "released"
    assert caplog.records == []  # it has lost nothing


def test_e_run_4_a_lost_step_is_told_to_a_task_that_was_cancelled_before(path: Path) -> None:
    clock = ManualClock()

    async def cleans_up(effects: AsyncEffectStore) -> str:
        async def step() -> None:
            clock.advance(1_000)
            await asyncio.sleep(60)

        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            try:
                await effects.run("s", "k", None, step, ttl_ms=900)
            except LeaseLostError as lost:
                return lost.reason
        return "never"

    async def main() -> str:
        async with AsyncEffectStore.open(path, clock=clock) as effects:
            task = asyncio.create_task(cleans_up(effects))
            await asyncio.sleep(0.01)
            task.cancel()
            return await asyncio.wait_for(task, 20)

    assert asyncio.run(main()) == "expired"


def test_k_hold_1_under_a_skewed_clock_that_nobody_moves_it_is_renewed() -> None:
    clock = SkewedClock(SystemClock(), 3_600_000)
    with (
        SessionStore.open(None, session_id="s", clock=clock) as store,
        store.hold(owner_id="ann", ttl_ms=300) as held,
    ):
        until(lambda: held.renewals > 2)
        assert held.lost is None


def test_k_hold_1_waiting_is_over_in_real_time_under_a_clock_that_stands() -> None:
    with SessionStore.open(None, session_id="s", clock=ManualClock()) as store:
        store.claim_lease(owner_id="bob", ttl_ms=60_000)
        with (
            pytest.raises(LeaseHeldError),
            store.hold(owner_id="ann", ttl_ms=900, timeout_ms=10),
        ):
            raise AssertionError("it was entered")


def test_k_log_1_a_claim_that_a_turn_has_completed_is_no_loss(
    where: Any, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    with SessionStore.open(where, session_id="s", clock=clock) as store:
        store.enqueue_work(NewWork([1]))
        with (
            store.hold(owner_id="ann", ttl_ms=60_000) as held,
            store.hold_work(held.fence, owner_id="ann", ttl_ms=900) as work,
        ):
            assert work is not None
            store.commit_turn(TurnCommit(fence=held.fence, completed=[work.term]))
            clock.advance(300)
            lost = until(lambda: work.lost)
            assert isinstance(lost, ClaimLostError)
            assert lost.reason == "completed"
            assert "completed" in str(lost)
    assert caplog.record_tuples == []


def test_k_hold_1_a_store_that_is_closed_before_its_tasks_keeps_no_term(path: Path) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:

            async def job() -> None:
                async with store.hold(owner_id="ann", ttl_ms=60_000):
                    inside.set()
                    await asyncio.sleep(60)

            inside = asyncio.Event()
            task = asyncio.create_task(job())
            await inside.wait()
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    with SessionStore.open(path, session_id="s") as store:
        assert store.current_lease() is None


def test_k_hold_5_nor_does_it_release_what_another_block_is_entering_with(path: Path) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:

            async def job() -> None:
                async with store.hold(owner_id="ann", ttl_ms=60_000) as held:
                    inside.set_result((held._kept.handle.key, held.term))
                    await asyncio.sleep(60)

            inside: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            task = asyncio.create_task(job())
            key, term = await inside
        entering = Entering(key)
        KEEPER.claimed(entering, term)
        task.cancel()
        await asyncio.wait([task])
        KEEPER.entered(entering)

    asyncio.run(main())
    with SessionStore.open(path, session_id="s") as store:
        assert store.current_lease() is not None


@pytest.mark.parametrize("how", ["forgotten", "its loop is closed"])
def test_k_hold_5_a_block_that_is_gone_takes_nothing_from_the_others(how: str) -> None:
    """Its short term was the last word on when theirs is over: they renew before that."""
    clock = ManualClock()
    with SessionStore.open(None, session_id="s", clock=clock) as store:
        with store.hold(owner_id="ann", ttl_ms=30_000) as outer:
            if how == "forgotten":
                block = store.hold(owner_id="ann", ttl_ms=600)
                block.__enter__()
                del block
                gc.collect()
            else:
                kept = list[Any]()

                async def enter() -> None:
                    same = AsyncSessionStore.open(store, session_id="s", clock=clock)
                    kept.append(same.hold(owner_id="ann", ttl_ms=600))
                    await kept[0].__aenter__()

                loop = asyncio.new_event_loop()
                loop.run_until_complete(enter())
                loop.close()
            for _ in range(10):
                clock.advance(200)
                until(lambda: _expires_ms(store) > clock.now_ms() + 600)
                outer.check()
        assert store.current_lease() is None


def _expires_ms(store: SessionStore) -> int:
    lease = store.current_lease()
    return 0 if lease is None else lease.expires_at_ms


def test_k_hold_5_a_block_within_waits_for_nobody_who_waits_for_the_one_around_it(
    path: Path,
) -> None:
    with SessionStore.open(path, session_id="s") as store:

        def other() -> None:
            with store.hold(owner_id="bob", ttl_ms=30_000, timeout_ms=60_000):
                pass

        async def inside() -> None:
            async with AsyncSessionStore.open(store, session_id="s") as same:
                async with same.hold(owner_id="ann", ttl_ms=30_000, timeout_ms=60_000):
                    pass

        with store.hold(owner_id="ann", ttl_ms=30_000) as held:
            waiting = threading.Thread(target=other)
            waiting.start()
            until(lambda: is_waited_for((store._handle.key, f"{LEASES.table.table.name} s")))
            with store.hold(owner_id="ann", ttl_ms=30_000, timeout_ms=60_000) as inner:
                assert inner.fence == held.fence
            asyncio.run(asyncio.wait_for(inside(), 20))
            # Anybody else's, and one that is lost, are not its own.
            with pytest.raises(LeaseHeldError), store.hold(owner_id="eve", ttl_ms=1, timeout_ms=50):
                pass
            held.check()
        waiting.join(20)
        assert not waiting.is_alive()


@pytest.mark.parametrize("what", ["lease", "step"])
@pytest.mark.parametrize("after", ["before it claims", "after it has claimed"])
def test_k_hold_4_a_coroutine_that_is_thrown_away_as_it_enters_claims_nothing(
    path: Path, what: str, after: str
) -> None:
    sessions = SessionStore.open(path, session_id="s")
    effects = EffectStore.open(path.with_name("effects.db"))
    with sessions, effects:
        locked = path if what == "lease" else path.with_name("effects.db")
        lock = sqlite3.connect(locked, isolation_level=None)

        async def enter() -> None:
            if what == "lease":
                same = AsyncSessionStore.open(sessions, session_id="s")
                async with same.hold(owner_id="ann", ttl_ms=600_000):
                    pytest.fail("it is not to be entered")
            else:
                steps = AsyncEffectStore.open(effects)
                await steps.run("s", "k", "e", lambda: pytest.fail("nor to be called"))

        async def main() -> None:
            lock.execute("BEGIN IMMEDIATE")

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        coroutine = enter()
        task = loop.create_task(coroutine)
        loop.run_until_complete(asyncio.sleep(0.2))
        if after == "after it has claimed":
            lock.execute("ROLLBACK")
            time.sleep(0.3)  # and nobody tells it
        loop.close()
        with pytest.raises(GeneratorExit):
            coroutine.throw(GeneratorExit)
        del task
        if after == "before it claims":
            lock.execute("ROLLBACK")
        lock.close()

        def is_free() -> bool:
            if what == "lease":
                return sessions.current_lease() is None
            return not isinstance(effects.look_up_effect("s", "k", "e"), Busy)

        sessions.enqueue_work(NewWork(["behind whatever still waited"]))
        effects.begin_effect("s", "another", "e")
        until(is_free)
        time.sleep(0.1)
        assert is_free()
