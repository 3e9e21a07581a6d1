"""Giving a term back where nobody can wait for it: thrown away, interrupted, inside a transaction, at the end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from lash_store import (
    AsyncDeployment,
    AsyncEffectStore,
    AsyncSessionStore,
    Busy,
    EffectStore,
    NewWork,
    ProcessRegistry,
    SessionLease,
    SessionStore,
)
from lash_store._backends.sqlite.group import Group
from lash_store._kernel.calls import ThreadCall
from lash_store._kernel.threads import TIMER
from lash_store._stores.holding import Holding
from lash_store.effect import store as effect_store
from lash_store.errors import LashStoreError, LeaseLostError, StoreClosedError
from lash_store.session.directory import AsyncSessionDirectory
from lash_store.testing import ManualClock
from tests.conformance.test_holding import kept_terms, until
from tests.support.databases import database_of
from tests.support.registries import lease_on, register
from tests.support.turns import PATIENCE_S, in_line

pytestmark = pytest.mark.canonical("opens both layouts by itself")


@pytest.fixture
def store(path: Path) -> Iterator[SessionStore]:
    with SessionStore.open(path, session_id="s") as opened:
        yield opened


async def answers(store: AsyncSessionStore) -> AsyncGenerator[str]:
    async with store.hold(owner_id="ann", ttl_ms=60_000):
        yield "first"
        yield "second"


def test_k_hold_4_a_generator_that_is_closed_releases_although_its_store_is_closed_behind_it(
    path: Path,
) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            stream: Any = answers(store)
            async for _ in stream:
                break
            await stream.aclose()

    with SessionStore.open(path, session_id="s") as other:
        for _ in range(10):
            asyncio.run(main())
            until(lambda: other.current_lease() is None)


def test_e_fin_2_a_step_that_is_thrown_away_is_given_back_although_its_store_is_closed_behind_it(
    path: Path,
) -> None:
    async def forever() -> None:
        await asyncio.sleep(1_000)

    async def main() -> None:
        async with AsyncEffectStore.open(path) as store:
            coroutine: Any = store.run("s", "k", None, forever, ttl_ms=60_000)
            task = asyncio.ensure_future(coroutine)
            while not kept_terms():
                await asyncio.sleep(0.001)
            coroutine.close()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    with EffectStore.open(path) as other:
        for _ in range(5):
            asyncio.run(main())
            until(lambda: not isinstance(other.look_up_effect("s", "k"), Busy))


PROGRAM = """
import asyncio, sys
from lash_store import AsyncSessionStore
from tests.conformance.test_letting_go import answers

async def main():
    stream = answers(await AsyncSessionStore.open(sys.argv[1], session_id="s"))
    async for _ in stream:
        break
    await stream.aclose()

asyncio.run(main())
"""


def test_k_hold_4_a_program_that_ends_gives_what_was_thrown_away_a_moment(path: Path) -> None:
    for _ in range(3):
        subprocess.run([sys.executable, "-c", PROGRAM, path], check=True)
        with SessionStore.open(path, session_id="s") as other:
            assert other.current_lease() is None


def test_k_hold_1_a_block_that_is_left_inside_a_transaction_releases_behind_it(
    store: SessionStore,
) -> None:
    def turns() -> Iterator[Any]:
        with store.hold(owner_id="ann", ttl_ms=60_000) as held:
            yield held

    block: Any = turns()
    held = next(block)
    with store.begin() as tx:
        tx.require(held.fence)
        block.close()
        tx.enqueue_work(NewWork([1]))
    until(lambda: store.current_lease() is None)
    assert store.work_depth().batches == 1


@pytest.mark.parametrize("where", ["entering", "leaving", "behind the release"])
def test_k_hold_1_an_interrupt_leaves_no_term(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    handle: Any = store._handle
    write, held = handle.write, Holding._held

    def interrupted_write(operation: str, work: Any) -> Any:
        if operation == "release_lease":
            if where == "behind the release":
                write(operation, work)
            raise KeyboardInterrupt
        return write(operation, work)

    def interrupted_held(*given: Any) -> Any:
        held(*given)
        raise KeyboardInterrupt

    if where == "entering":
        monkeypatch.setattr(Holding, "_held", interrupted_held)
    else:
        monkeypatch.setattr(handle, "write", interrupted_write)
    with pytest.raises(KeyboardInterrupt), store.hold(owner_id="ann", ttl_ms=60_000):
        assert where != "entering"
    monkeypatch.undo()
    until(lambda: store.current_lease() is None)
    assert kept_terms() == 0


def test_k_hold_1_a_claim_that_is_done_for_an_interrupted_block_is_undone(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another thread, which comes to it after the block has gone."""
    claims: list[Any] = []
    handle: Any = store._handle

    def interrupted(_: str, work: Any) -> Any:
        claims.append(work)
        raise KeyboardInterrupt

    monkeypatch.setattr(handle, "write", interrupted)
    with pytest.raises(KeyboardInterrupt), store.hold(owner_id="ann", ttl_ms=60_000):
        raise AssertionError("it is not entered")
    monkeypatch.undo()
    with pytest.raises(LashStoreError):
        store.transact(claims[0])
    assert store.current_lease() is None


def test_e_run_1_a_claim_that_is_done_for_an_interrupted_run_is_undone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another thread, which comes to it after the call has gone."""
    claims: list[Any] = []

    def interrupted(_: str, work: Any) -> Any:
        claims.append(work)
        raise KeyboardInterrupt

    with EffectStore.open(path) as effects:
        handle: Any = effects._handle
        monkeypatch.setattr(handle, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            effects.run("s", "k", None, lambda: "never called", ttl_ms=60_000)
        monkeypatch.undo()
        with pytest.raises(LashStoreError):
            effects.transact(claims[0])
        assert effects.run("s", "k", None, lambda: "called", ttl_ms=60_000) == "called"


def test_k_hold_5_a_term_that_its_owner_has_claimed_again_is_not_released_late(
    store: SessionStore,
) -> None:
    """By hand, behind a block that nobody has left: it is the same term."""
    block = store.hold(owner_id="ann", ttl_ms=60_000)
    held = block.__enter__()
    del block
    lease = store.claim_lease(owner_id="ann", ttl_ms=90_000)
    assert isinstance(lease, SessionLease)
    assert lease.fence == held.fence
    told = threading.Event()
    TIMER.after(0.05, told.set)
    assert told.wait(PATIENCE_S)
    store._handle.write("put_blob", lambda _: None)  # behind whatever stood in line
    assert store.current_lease() == lease
    assert isinstance(held.lost, LeaseLostError)
    assert held.wait_lost(timeout_ms=0) is held.lost


@pytest.mark.parametrize("where", ["a file", None])
def test_k_hold_5_nor_if_the_clock_reads_the_same_then(where: str | None, path: Path) -> None:
    clock = ManualClock()

    async def main() -> None:
        place = None if where is None else path
        for _ in range(12):
            async with AsyncSessionStore.open(place, session_id="s", clock=clock) as store:
                generator = answers(store)
                assert await anext(generator) == "first"
                await generator.aclose()
                lease = await store.claim_lease(owner_id="ann", ttl_ms=60_000)
                assert isinstance(lease, SessionLease)
                await all_done()
                assert await store.current_lease() == lease
                await store.release_lease(lease.fence)

    asyncio.run(main())


def test_k_hold_4_a_claim_that_is_undone_keeps_nothing_from_being_released(path: Path) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            generator = answers(store)
            assert await anext(generator) == "first"
            with SessionStore.open(path, session_id="s") as other:
                with pytest.raises(ValueError, match="undone"), other.begin() as tx:
                    await generator.aclose()
                    assert isinstance(tx.claim_lease(owner_id="ann", ttl_ms=90_000), SessionLease)
                    raise ValueError("undone")
                await all_done()
                assert other.current_lease() is None

    asyncio.run(main())


async def all_done() -> None:
    """Let what is put off be done: the library's timer, and who stands in line."""
    told = threading.Event()
    TIMER.after(0.05, told.set)
    assert await asyncio.to_thread(told.wait, PATIENCE_S)


async def held_anew(store: AsyncSessionStore, how: str) -> AsyncGenerator[str]:
    """Hold a lease of which another renewal comes meanwhile."""
    async with store.hold(owner_id="ann", ttl_ms=60_000) as held:
        if how == "renewed by hand":
            await store.renew_lease(held.fence, ttl_ms=90_000)
        elif how == "claimed by hand":
            await store.claim_lease(owner_id="ann", ttl_ms=90_000)
        else:
            async with store.hold(owner_id="ann", ttl_ms=90_000):
                pass
        yield "first"


@pytest.mark.parametrize("how", ["renewed by hand", "claimed by hand", "within another block"])
@pytest.mark.parametrize("where", ["a file", None])
def test_k_hold_4_what_was_renewed_meanwhile_is_released_as_well(
    how: str, where: str | None, path: Path
) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(None if where is None else path, session_id="s") as store:
            for _ in range(8):
                generator = held_anew(store, how)
                assert await anext(generator) == "first"
                await generator.aclose()
                await all_done()
                assert await store.current_lease() is None

    asyncio.run(main())


@pytest.mark.posix("forks")
def test_k_hold_4_a_forked_child_gives_no_step_back(path: Path) -> None:
    async def main() -> Any:
        async with AsyncEffectStore.open(path) as effects:
            go_on = asyncio.Event()

            async def step() -> int:
                await go_on.wait()
                return 1

            task = asyncio.create_task(effects.run("s", "k", None, step, ttl_ms=60_000))
            while not kept_terms():
                await asyncio.sleep(0.001)
            child = os.fork()
            if child == 0:
                asyncio._set_running_loop(None)
                coroutine: Any = task.get_coro()
                coroutine.close()
                time.sleep(0.2)
                os._exit(0)
            await asyncio.to_thread(os.waitpid, child, 0)
            go_on.set()
            return await task

    assert asyncio.run(main()) == 1


@pytest.mark.posix("has signals")
def test_k_hold_1_no_signal_leaves_a_term(store: SessionStore) -> None:
    """At whatever instruction it strikes, entering, inside, or leaving."""

    class Struck(Exception):  # noqa: N818 # reason: no error, an interrupt
        pass

    armed: list[int] = []

    def strike(*_: object) -> None:
        if armed:
            armed.clear()
            raise Struck

    def block() -> None:
        with store.hold(owner_id="ann", ttl_ms=60_000):
            pass

    block()
    before, interrupted = signal.signal(signal.SIGALRM, strike), 0
    try:
        for number in range(3_000):
            try:
                armed.append(number)
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + number % 100 * 4e-6)
                block()
                armed.clear()
            except Struck:
                interrupted += 1
            until(lambda: store.current_lease() is None)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 300
    gc.collect()
    until(lambda: kept_terms() == 0)


def test_k_tx_10_who_was_interrupted_in_line_stands_there_no_more(store: SessionStore) -> None:
    """Also if the group that its call was in is undone, and put back: it would keep everybody behind it waiting."""
    writer, group = database_of(store).writer, Group()
    store.put_blob(b"x")
    call = ThreadCall(store._handle, "put_blob", lambda _: None, budget_s=PATIENCE_S)
    assert call.take(group)
    call.is_withdrawn = True
    call.taken.setdefault("by", call)
    writer.turns.put_back(call, group)
    assert in_line(store) == 0
    told = threading.Event()
    store._handle.submit_told([("put_blob", lambda _: None, 10.0, lambda _: told.set())])
    assert told.wait(PATIENCE_S)


def test_k_tx_10_an_interrupt_as_a_thread_is_asked_to_lead_keeps_no_call_waiting(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer: Any = database_of(store).writer
    store.put_blob(b"x")
    told = threading.Event()
    with store.begin() as tx:
        tx.put_blob(b"y")
        store._handle.submit_told([("put_blob", lambda _: None, 60.0, lambda _: told.set())])
        pool_for = writer._pool_for

        def interrupted(first: Any) -> Any:
            monkeypatch.setattr(writer, "_pool_for", pool_for)
            raise KeyboardInterrupt

        monkeypatch.setattr(writer, "_pool_for", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.wake_first()
    assert told.wait(PATIENCE_S / 6)


def test_e_run_2_an_interrupt_leaves_no_step_that_is_renewed_and_not_run(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[sqlite3.Connection] = []

    class Interrupted:
        def __init__(self, *_: object) -> None:
            others.append(sqlite3.connect(path, isolation_level=None))
            others[0].execute("BEGIN IMMEDIATE")  # so that it can't be given back
            raise KeyboardInterrupt

    with EffectStore.open(path, busy_timeout_ms=20) as effects:
        monkeypatch.setattr(effect_store, "Inside", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            effects.run("s", "k", None, lambda: "never called", ttl_ms=600)
        assert kept_terms() == 0
        others[0].close()
        gc.collect()


def test_e_run_5_behind_who_goes_on_with_the_step_a_run_can_be_cancelled(tmp_path: Path) -> None:
    """For one term of that at most: then there is somebody whose outcome counts."""
    url = f"sqlite:///{tmp_path}/all.db"
    with ProcessRegistry.open(url) as registry, EffectStore.open(url, owner_id="eve") as others:
        register(registry, "p")
        fence = lease_on(registry, "p", ttl_ms=600_000).fence
        go_on, at_it = threading.Event(), threading.Event()

        def theirs() -> str:
            at_it.set()
            go_on.wait(PATIENCE_S)
            return "theirs"

        other = threading.Thread(target=lambda: others.run("s", "k", 1, theirs, ttl_ms=600))

        async def mine() -> str:
            other.start()
            await asyncio.to_thread(at_it.wait)
            return "mine"

        async def main() -> float:
            async with AsyncEffectStore.open(url) as effects:
                begun_s = time.monotonic()
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await effects.run("s", "k", 1, mine, under=fence)
                return time.monotonic() - begun_s

        took_s = asyncio.run(main())
        go_on.set()
        other.join(PATIENCE_S)
        assert took_s < PATIENCE_S / 6
        assert others.run("s", "k", 1, lambda: "again") == "theirs"


def test_k_hold_4_a_loop_that_is_closed_as_somebody_waits_for_a_loss_is_let_go_of(
    path: Path,
) -> None:
    async def hold(store: AsyncSessionStore) -> None:
        async with store.hold(owner_id="ann", ttl_ms=300) as held:
            await held.until_lost()

    def closed_loop(store: AsyncSessionStore) -> weakref.ref[asyncio.AbstractEventLoop]:
        loop = asyncio.new_event_loop()
        task: Any = loop.create_task(hold(store))
        task._log_destroy_pending = False
        until(lambda: loop.run_until_complete(asyncio.sleep(0.01)) or kept_terms())
        loop.close()
        return weakref.ref(loop)

    store = AsyncSessionStore.open(path, session_id="s")
    gone = closed_loop(store)
    until(lambda: not kept_terms())
    until(lambda: gc.collect() >= 0 and gone() is None)
    store.close()


def test_k_hold_4_short_terms_beside_a_long_one_leave_no_looks_behind(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far: list[float] = []
    near: list[object] = []
    after = TIMER.after

    def noted(seconds: float, job: Any) -> None:
        if seconds > 1_000:
            far.append(seconds)
            return

        def run() -> None:
            job()
            near.remove(run)

        near.append(run)
        after(seconds, run)

    monkeypatch.setattr(TIMER, "after", noted)
    with ProcessRegistry.open(path) as registry:
        register(registry, "long")
        register(registry, "short")
        with registry.hold("long", owner_id="ann", ttl_ms=86_400_000):
            for _ in range(5):
                with registry.hold("short", owner_id="ann", ttl_ms=60) as held:
                    until(lambda: held.renewals)
                until(lambda: not near)
    assert len(far) == 1


def test_e_run_6_another_tasks_transaction_on_the_same_thread_loses_nothing(
    tmp_path: Path,
) -> None:
    """Nor keeps it a lease: what it refuses for now is done once it is over."""
    paid: list[int] = []

    async def main() -> None:
        effects = await AsyncEffectStore.open(tmp_path / "e.db")
        session = await AsyncSessionStore.open(tmp_path / "s.db", session_id="s")
        begun, tasks = asyncio.Event(), list[asyncio.Task[None]]()

        async def another(store: Any) -> None:
            with store.begin():
                begun.set()
                await asyncio.sleep(0.05)
            store.close()

        async def charge() -> int:
            tasks.append(
                asyncio.create_task(another(EffectStore.open(tmp_path / "e.db", owner_id="b")))
            )
            await begun.wait()
            paid.append(1)
            return len(paid)

        assert await effects.run("order", "charge", 1, charge) == 1
        begun.clear()
        async with session.hold(owner_id="ann", ttl_ms=60_000):
            other = SessionStore.open(tmp_path / "s.db", session_id="s")
            tasks.append(asyncio.create_task(another(other)))
            await begun.wait()
        await asyncio.gather(*tasks)
        until_s = time.monotonic() + PATIENCE_S
        while await session.current_lease() is not None:
            assert time.monotonic() < until_s
            await asyncio.sleep(0.01)
        assert await effects.run("order", "charge", 1, charge) == 1
        await effects.aclose()
        await session.aclose()

    asyncio.run(main())
    assert paid == [1]


def test_e_run_6_a_store_that_is_closed_as_a_step_runs_records_it(path: Path) -> None:
    paid: list[int] = []

    async def charge() -> int:
        await asyncio.sleep(0.05)
        paid.append(1)
        return len(paid)

    async def main() -> None:
        async with AsyncEffectStore.open(path) as effects:
            step = asyncio.create_task(effects.run("order", "charge", 1, charge))
            await asyncio.sleep(0.02)
        assert await step == 1
        async with AsyncEffectStore.open(path) as effects:
            assert await effects.run("order", "charge", 1, charge) == 1
        async with AsyncEffectStore.open(None) as effects:
            step = asyncio.create_task(effects.run("order", "charge", 1, charge))
            await asyncio.sleep(0.02)
        with pytest.raises(StoreClosedError):  # with which all is gone
            await step

    asyncio.run(main())
    assert paid == [1, 1]


def test_e_fin_2_a_step_whose_task_is_dropped_is_given_back(path: Path) -> None:
    """What renews it does not keep it: nobody else refers to a task that waits for what never comes."""

    async def main() -> None:
        async with AsyncEffectStore.open(path) as effects:

            async def never() -> None:
                await asyncio.get_running_loop().create_future()

            task = asyncio.create_task(effects.run("s", "k", 1, never, ttl_ms=60_000))
            while not isinstance(await effects.look_up_effect("s", "k", 1), Busy):
                await asyncio.sleep(0.001)
            del task
            until_s = time.monotonic() + PATIENCE_S
            while isinstance(await effects.look_up_effect("s", "k", 1), Busy):
                assert time.monotonic() < until_s
                gc.collect()
                await asyncio.sleep(0.01)
            assert kept_terms() == 0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asyncio.run(main())


def test_k_hold_3_a_claim_that_waited_for_a_lock_holds_from_then_on(tmp_path: Path) -> None:
    """Its row is dated behind the lock: it is not lost on arrival, nor is the function called for nothing."""
    for name in ("e.db", "s.db"):
        with (
            EffectStore.open(tmp_path / "e.db"),
            SessionStore.open(tmp_path / "s.db", session_id="s"),
        ):
            pass
        with closing(
            sqlite3.connect(tmp_path / name, isolation_level=None, check_same_thread=False)
        ) as other:
            other.execute("BEGIN IMMEDIATE")
            ends = threading.Timer(0.7, other.rollback)
            ends.start()
            if name == "e.db":
                with EffectStore.open(tmp_path / "e.db") as effects:
                    assert effects.run("s", "k", 1, lambda: "once", ttl_ms=500) == "once"
            else:
                with (
                    SessionStore.open(tmp_path / "s.db", session_id="s") as session,
                    session.hold(owner_id="ann", ttl_ms=500) as held,
                ):
                    held.check()
            ends.join()


def test_k_hold_3_who_comes_to_its_claim_too_late_claims_once_more(tmp_path: Path) -> None:
    calls: list[int] = []

    async def main() -> None:
        async with (
            AsyncEffectStore.open(tmp_path / "e.db") as effects,
            AsyncSessionStore.open(tmp_path / "s.db", session_id="s") as session,
        ):
            await effects.count_effects()
            await session.work_depth()

            async def block(look: Any) -> None:
                """Keep the loop from going on, once the claim is there, until that is over."""
                while look() is None:
                    await asyncio.sleep(0)
                time.sleep(0.3)

            async def enter() -> None:
                async with session.hold(owner_id="ann", ttl_ms=250) as held:
                    held.check()

            async def call() -> None:
                calls.append(1)

            with SessionStore.open(tmp_path / "s.db", session_id="s") as look:
                await asyncio.gather(enter(), block(look.current_lease))
            with EffectStore.open(tmp_path / "e.db") as beside:

                def busy() -> Any:
                    return beside.look_up_effect("s", "k", 1)

                await asyncio.gather(effects.run("s", "k", 1, call, ttl_ms=250), block(busy))

    asyncio.run(main())
    assert calls == [1]


@pytest.mark.parametrize("kind", ["store", "directory", "deployment"])
def test_k_open_5_a_task_that_is_thrown_away_in_its_block_closes_it(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What its sessions have open goes with them."""
    made: dict[str, Any] = {
        "store": AsyncSessionStore.open(tmp_path / "s.db", session_id="s"),
        "directory": AsyncSessionDirectory(tmp_path),
        "deployment": AsyncDeployment.open(tmp_path),
    }

    async def main(block: Any) -> None:
        async with block as entered:
            if kind != "store":
                sessions = entered.sessions if kind == "deployment" else entered
                stores.append(
                    weakref.ref(database_of((await sessions.create("s", model="m"))._store))
                )
            else:
                stores.append(weakref.ref(database_of(entered._store)))
            await asyncio.get_running_loop().create_future()

    stores: list[Any] = []
    loop = asyncio.new_event_loop()
    task = loop.create_task(main(made.pop(kind)))
    while not stores:
        loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    unraisable: list[Any] = []
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        del task
        gc.collect()
        until(lambda: stores[0]() is None or not stores[0]().connections.all)
    finally:
        sys.unraisablehook = hook
    assert unraisable == []
    assert "pending" in caplog.text  # of asyncio: the task was thrown away


def test_k_hold_3_each_that_asks_has_an_error_of_its_own(path: Path) -> None:
    clock, raised = ManualClock(1_000_000), list[LeaseLostError]()
    with (
        SessionStore.open(path, session_id="s", clock=clock) as store,
        store.hold(owner_id="ann", ttl_ms=1_000) as held,
    ):
        with store.begin():  # so that nobody renews it
            clock.advance(1_000)
        for _ in range(2):
            with pytest.raises(LeaseLostError) as seen:
                held.check()
            raised.append(seen.value)
    first, second = raised
    assert first is not second
    assert (str(first), first.expected, first.reason) == (str(second), second.expected, "expired")
