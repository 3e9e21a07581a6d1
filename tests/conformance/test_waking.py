"""K-WAIT: who waits is told of what concerns it, and of nothing else."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text

from lash_store import (
    AsyncProcessRegistry,
    AsyncSessionStore,
    Deployment,
    NewWork,
    ProcessRegistry,
    ProcessTx,
    SessionStore,
    Success,
)
from lash_store._kernel.observing import Event, observed_by
from lash_store._kernel.watching import ANYTHING, Waiter
from lash_store.effect.records import EffectClaim
from lash_store.process import statements
from lash_store.session.tables import blobs
from lash_store.session.tx import SessionTx
from lash_store.testing import as_another_process
from lash_store.tracing import trace
from tests.support.leased import JOBS, jobs
from tests.support.processes import workers
from tests.support.registries import register

pytestmark = pytest.mark.canonical("opens both layouts by itself")


@pytest.fixture(params=["folder", "database"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "d") if request.param == "folder" else f"sqlite:///{tmp_path / 'a.db'}"


@pytest.fixture
def deployment(where: str) -> Iterator[Deployment]:
    with Deployment.open(where) as opened:
        yield opened


select_leases = JOBS.table.select_leases


class Waiting:
    """A thread that waits, and counts how often it has looked."""

    def __init__(self, store: Any, look: Callable[[Any], Any]) -> None:
        self.looks = 0
        self.result: Any = None
        self._store, self._look = store, look
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.settled()

    def _run(self) -> None:
        self.result = self._store.wait_until(self._count, timeout_ms=30_000)

    def _count(self, tx: Any) -> Any:
        self.looks += 1
        return self._look(tx)

    def settled(self) -> int:
        """How often it has looked, once it looks no more."""
        quiet, before = 0, -1
        while quiet < 3:
            quiet, before = (quiet + 1 if before == self.looks else 0), self.looks
            time.sleep(0.15)
        return self.looks

    def finished(self) -> Any:
        self._thread.join(30)
        assert not self._thread.is_alive(), "still waiting"
        return self.result


def depth(count: int) -> Callable[[SessionTx], bool | None]:
    return lambda tx: True if tx.work_depth().batches >= count else None


def test_k_wait_1_another_sessions_commit_is_no_concern(deployment: Deployment) -> None:
    one, two = (deployment.sessions.create(name, model="m") for name in ("one", "two"))
    waiting = Waiting(one, depth(1))
    looks = waiting.looks
    for _ in range(5):
        two.enqueue_work(NewWork([1]))
        deployment.effects.begin_effect("s", "k", owner_id="ann")
    assert waiting.settled() == looks
    one.enqueue_work(NewWork([1]))
    assert waiting.finished() is True


def test_k_wait_1_what_a_look_goes_over_concerns_it(tmp_path: Path) -> None:
    """Other kinds and sessions by ``beside``, and anything by its own statements."""
    with Deployment.open(f"sqlite:///{tmp_path / 'a.db'}") as deployment:
        one, two = (deployment.sessions.create(name, model="m") for name in ("one", "two"))
        register(deployment.processes, "p")
        other = Waiting(one, lambda tx: depth(1)(SessionTx.beside(tx, session_id="two")))
        kind = Waiting(one, lambda tx: ProcessTx.beside(tx).load_process("q"))
        own = Waiting(one, lambda tx: tx.connection.scalar(select(func.max(blobs.c.hash))))
        looks = kind.looks
        two.enqueue_work(NewWork([1]))
        assert other.finished() is True
        assert kind.settled() == looks
        register(deployment.processes, "q")
        assert kind.finished() is not None
        with one.begin() as tx:
            tx.connection.execute(insert(blobs).values(hash="x", content=b""))
        assert own.finished() == "x"


def test_k_wait_1_what_a_consumers_statement_has_changed_concerns_everybody(
    deployment: Deployment,
) -> None:
    one = deployment.sessions.create("one", model="m")
    waiting = Waiting(one, depth(1))
    looks = waiting.looks
    with one.begin() as tx:
        tx.connection.execute(text("CREATE TABLE mine (x)"))
    assert waiting.settled() > looks
    with one.begin() as tx:
        SessionTx.beside(tx, session_id="one").enqueue_work(NewWork([1]))
    assert waiting.finished() is True


def test_k_wait_1_a_look_that_goes_elsewhere_is_told_of_that(tmp_path: Path) -> None:
    """What is committed before a waiter is known to care is not missed."""
    with Deployment.open(f"sqlite:///{tmp_path / 'a.db'}") as deployment:
        one, two = (deployment.sessions.create(name, model="m") for name in ("one", "two"))
        inside, go_on = threading.Event(), threading.Event()
        turns: list[int] = []

        def look(tx: SessionTx) -> bool | None:
            if not turns and tx.work_depth().batches == 0:
                return None
            turns.append(1)
            found = depth(1)(SessionTx.beside(tx, session_id="two"))
            if len(turns) == 1:
                inside.set()
                assert go_on.wait(30)
            return found

        waiting = Waiting(one, look)
        one.enqueue_work(NewWork([1]))  # from now on it looks at the other one
        assert inside.wait(30)
        two.enqueue_work(
            NewWork([1])
        )  # which its snapshot does not show, and it is not known to care
        go_on.set()
        assert waiting.finished() is True


class Counting:
    """Counts the statements of waits."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.statements = 0

    def before(self, event: Event) -> None:
        self.statements += event.operation in self.names

    def after(self, event: Event) -> None:
        pass


def wait_for_ends(registry: ProcessRegistry, names: list[str], how: str) -> list[threading.Thread]:
    """Wait for the end of each, by threads or by tasks of one loop."""
    if how == "threads":
        waits = [partial(registry.await_process, name, timeout_ms=60_000) for name in names]
    else:

        async def main() -> None:
            shared = AsyncProcessRegistry.over(registry, lambda: registry)
            await asyncio.gather(*(shared.await_process(n, timeout_ms=60_000) for n in names))

        waits = [partial(asyncio.run, main())]
    threads = [threading.Thread(target=wait, daemon=True) for wait in waits]
    for each in threads:
        each.start()
    while len(registry.watch.waiters) < len(names):
        time.sleep(0.001)
    time.sleep(0.3)
    return threads


@pytest.mark.parametrize("how", ["threads", "tasks"])
def test_k_wait_2_another_process_wakes_nobody(deployment: Deployment, how: str) -> None:
    registry = deployment.processes
    names = [f"p{at}" for at in range(30)]
    for name in (*names, "busy", "busy again", "busy still"):
        register(registry, name)
    threads = wait_for_ends(registry, names, how)
    for busy in ("busy", "busy again", "busy still"):
        # Where a turn takes long, as on a machine that is busy, it is looked at by another connection.
        counting = Counting("read", "wait", "first_event_after", "load_process")
        with observed_by(counting):
            for _ in range(20):
                registry.claim_lease(busy, owner_id="ann", ttl_ms=1)
                registry.append_event(busy, "tick")
            registry.complete_process(busy, Success(1))
            time.sleep(0.2)
        if counting.statements == 0:
            break
    assert counting.statements == 0
    for name in names:
        registry.complete_process(name, Success(1))
    for each in threads:
        each.join(30)
        assert not each.is_alive()


@pytest.mark.parametrize("how", ["threads", "tasks"])
def test_k_wait_2_who_commits_elsewhere_is_looked_at_once_for_all(
    deployment: Deployment, where: str, how: str
) -> None:
    registry = deployment.processes
    names = [f"p{at}" for at in range(30)]
    for name in (*names, "busy"):
        register(registry, name)
    threads = wait_for_ends(registry, names, how)
    at = where if where.startswith("sqlite") else str(Path(where) / "processes.db")
    registry.claim_lease("busy", owner_id="ann", ttl_ms=1)
    counting = Counting("wait")
    with as_another_process(), ProcessRegistry.open(at) as elsewhere:
        time.sleep(0.2)
        with observed_by(counting):
            elsewhere.claim_lease("busy", owner_id="bob", ttl_ms=1)
            time.sleep(0.3)
        # One snapshot: its begin, a statement for each, its end.
        assert counting.statements == 32
        for name in names:
            elsewhere.complete_process(name, Success(1))
        for each in threads:
            each.join(30)
            assert not each.is_alive()


def test_k_wait_2_a_step_wakes_who_waits_for_it(deployment: Deployment) -> None:
    effects = deployment.effects
    claim, other = (effects.begin_effect("s", key, owner_id="ann") for key in "ab")
    assert isinstance(claim, EffectClaim)
    assert isinstance(other, EffectClaim)
    replayed: list[Any] = []

    def wait() -> None:
        replayed.append(effects.run("s", "a", None, lambda: "never"))

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while not effects.watch.waiters:
        time.sleep(0.001)
    time.sleep(0.2)
    counting = Counting("wait", "read")
    with observed_by(counting):
        effects.finish_effect(other, "other")
        time.sleep(0.1)
    assert counting.statements == 0
    effects.finish_effect(claim, "found")
    thread.join(30)
    assert replayed == ["found"]


def commit_elsewhere(say: Any, where: str) -> None:
    with SessionStore.open(where, session_id="s") as store:
        say("open")
        say.wait()
        store.enqueue_work(NewWork(["elsewhere"]))
        say("done")
        say.wait()


def test_k_wait_3_a_busy_process_hears_of_others(tmp_path: Path) -> None:
    """The timer gets no turn while this process writes without a pause; its writers look then."""
    where = str(tmp_path / "s.db")
    with (
        SessionStore.open(where, session_id="s") as store,
        workers(1, commit_elsewhere, where) as (w,),
    ):
        assert w.receive() == "open"

        def look(tx: SessionTx) -> float | None:
            batches = tx.list_work(limit=1000)
            found = any(item.payload == "elsewhere" for each in batches for item in each.items)
            return time.monotonic() if found else None

        waiting = Waiting(store, look)
        stop = threading.Event()

        def write() -> None:
            with SessionStore.open(store, session_id="t") as own:
                while not stop.is_set():
                    own.claim_lease(owner_id="ann", ttl_ms=1)

        writers = [threading.Thread(target=write) for _ in range(3)]
        for each in writers:
            each.start()
        try:
            w.pipe.send("go")
            assert w.receive() == "done"
            assert waiting.finished() is not None
        finally:
            stop.set()
            for each in writers:
                each.join()
            w.pipe.send("end")


@pytest.mark.parametrize("in_memory", [False, True])
def test_k_wait_1_asyncio(tmp_path: Path, in_memory: bool) -> None:
    looks = 0

    async def main() -> None:
        nonlocal looks
        where = None if in_memory else tmp_path / "s.db"
        async with AsyncSessionStore.open(where, session_id="s") as store:
            assert store._store is not None

            def look(tx: SessionTx) -> bool | None:
                nonlocal looks
                looks += 1
                return depth(1)(tx)

            waiting = asyncio.create_task(store.wait_until(look, timeout_ms=30_000))
            while looks < 2:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            settled = looks
            with closing(SessionStore.open(store._store, session_id="t")) as other:
                for _ in range(5):
                    other.current_lease()
                await asyncio.sleep(0.2)
            assert looks == settled
            await store.enqueue_work(NewWork([1]))
            assert await waiting is True

    asyncio.run(main())
    assert looks < 10


def test_a_waiter_is_told_of_what_it_was_widened_to(deployment: Deployment) -> None:
    watch, told = deployment.effects.watch, []
    waiter = Waiter(lambda: told.append(1))
    with watch.subscribed(waiter):
        assert watch.widen(waiter, [("effect", "", "a")])
        assert not watch.widen(waiter, [("effect", "", "a")])
        watch.announce([("effect", "", "b"), ("effect", "", None)])
        assert told == []
        watch.announce([("effect", "", "a")])
        watch.announce([ANYTHING])
        assert len(told) == 2
    watch.announce([("effect", "", "a")])
    assert len(told) == 2
    assert watch._by_concern == {}


def test_k_wait_1_all_sessions_of_a_file_are_one(tmp_path: Path) -> None:
    """There is one head in it, and operations take any session's id."""
    with (
        SessionStore.open(tmp_path / "c.db", session_id="x") as one,
        SessionStore.open(tmp_path / "c.db", session_id="y") as two,
    ):
        waiting = Waiting(one, lambda tx: True if tx.work_depth(session_id="x").batches else None)
        two.enqueue_work(NewWork([1]), session_id="x")
        assert waiting.finished() is True


def test_k_wait_1_prepared_statements_of_a_consumers_concern_everybody(tmp_path: Path) -> None:
    with Deployment.open(f"sqlite:///{tmp_path / 'a.db'}") as deployment:
        one, two = (deployment.sessions.create(name, model="m") for name in ("one", "two"))
        with one.begin() as tx:
            jobs.create(tx.connection)
        by_lease = Waiting(one, lambda tx: JOBS.bind(tx).current("job"))
        by_cursor = Waiting(one, lambda tx: select_leases.all(tx.cursor) or None)
        with two.begin() as tx:
            JOBS.bind(tx).claim("job", owner_id="ann", ttl_ms=60_000)
        assert by_lease.finished().owner_id == "ann"
        assert len(by_cursor.finished()) == 1


def test_k_wait_2_builders_of_the_library_that_a_consumer_runs(deployment: Deployment) -> None:
    registry = deployment.processes
    register(registry, "p")
    ended: list[Any] = []
    thread = threading.Thread(
        target=lambda: ended.append(registry.await_process("p", timeout_ms=30_000)), daemon=True
    )
    thread.start()
    while not registry.watch.waiters:
        time.sleep(0.001)
    time.sleep(0.1)
    with ProcessRegistry.open(None) as scratch:  # what the record of one that has ended looks like
        register(scratch, "p")
        scratch.complete_process("p", Success(1))
        with scratch.read() as tx:
            status, _, record_json = (
                statements.load_process.one(tx.cursor, process_id="p") or ("",) * 3
            )
    with registry.begin() as tx:
        statements.update_process.run(
            tx.cursor, process_id="p", status=status, updated_at_ms=1, record_json=record_json
        )
    thread.join(30)
    assert ended == [Success(1)]


def test_k_wait_3_others_are_heard_inside_a_long_block(tmp_path: Path) -> None:
    where = str(tmp_path / "s.db")
    with (
        SessionStore.open(where, session_id="s") as store,
        workers(1, commit_elsewhere, where) as (w,),
    ):
        assert w.receive() == "open"
        waiting = Waiting(store, depth(1))
        w.pipe.send("go")
        assert w.receive() == "done"
        with SessionStore.open(store, session_id="t") as other, other.begin():
            assert waiting.finished() is True
        w.pipe.send("end")


def test_k_wait_3_a_trace_that_raises_stops_nobody_from_hearing(tmp_path: Path) -> None:
    where = str(tmp_path / "s.db")

    def fails(_: Any) -> None:
        raise RuntimeError("a callback")

    with (
        SessionStore.open(where, session_id="s") as store,
        workers(1, commit_elsewhere, where) as (w,),
    ):
        assert w.receive() == "open"
        waiting = Waiting(store, depth(1))
        with trace(fails):
            time.sleep(0.2)
        w.pipe.send("go")
        assert w.receive() == "done"
        assert waiting.finished() is True
        w.pipe.send("end")


def test_k_wait_1_waiting_is_no_statement_of_anybodys(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s.db", session_id="s") as store:
        waiting = Waiting(store, depth(1))
        seen: list[Any] = []
        with trace(seen.append):
            time.sleep(0.2)
            with SessionStore.open(store, session_id="t") as other:
                other.claim_lease(owner_id="ann", ttl_ms=1)
        assert not [each for each in seen if "data_version" in each.sql]
        store.enqueue_work(NewWork([1]))
        assert waiting.finished() is True


def test_k_wait_1_a_lease_on_a_table_of_your_own_concerns_everybody(where: str) -> None:
    """For nobody knows who waits for it; one of ours says whose it is."""
    with Deployment.open(where) as deployment:
        store = deployment.sessions.create("s", model="m")
        with store.begin() as tx:
            jobs.metadata.create_all(tx.connection)
        with store.begin() as tx:
            tx.claim_lease(owner_id="ann", ttl_ms=1)
            assert ANYTHING not in tx.current.touched
            JOBS.claim(tx, "job-7", owner_id="ann", ttl_ms=1)
            assert ANYTHING in tx.current.touched
