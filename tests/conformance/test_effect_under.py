"""E-RUN-5: steps under a lease that the caller holds, in one write."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lash_store import (
    AsyncDeployment,
    AsyncEffectStore,
    Busy,
    Deployment,
    EffectClaim,
    EffectStore,
    ProcessLease,
    Replayed,
    SessionLease,
    SessionStore,
)
from lash_store._backends import driver_fault
from lash_store._kernel.observing import Event, observed_by
from lash_store.effect.records import EffectError, ReplayedFailure
from lash_store.errors import (
    DiskFullError,
    EffectFailedError,
    IdempotencyConflictError,
    InvalidRecordError,
    LeaseLostError,
    NestedTransactionError,
    OutcomeUnknownError,
)
from lash_store.testing import ManualClock
from tests.conformance.test_transactions import traced
from tests.support.databases import all_rows
from tests.support.leased import JOBS, metadata as jobs_metadata
from tests.support.registries import registration

pytestmark = pytest.mark.canonical("opens both layouts by itself")

TTL = 1_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def deployment(tmp_path: Path, clock: ManualClock) -> Iterator[Deployment]:
    with Deployment.open(f"sqlite:///{tmp_path / 'a.db'}", clock=clock) as opened:
        opened.processes.register_process(registration("p"))
        opened.sessions.create("chat", model="m")
        yield opened


def on_process(deployment: Deployment, owner_id: str = "ann") -> Any:
    lease = deployment.processes.claim_lease("p", owner_id=owner_id, ttl_ms=TTL)
    assert isinstance(lease, ProcessLease)
    return lease.fence


def on_session(deployment: Deployment, owner_id: str = "ann") -> Any:
    opened = deployment.sessions.open("chat")
    assert opened is not None
    with opened as session:
        lease = session.claim_lease(owner_id=owner_id, ttl_ms=TTL)
        assert isinstance(lease, SessionLease)
        return lease.fence


def on_table(deployment: Deployment, owner_id: str = "ann") -> Any:
    with deployment.effects.begin() as tx:
        jobs_metadata.create_all(tx.connection)
        lease: Any = JOBS.claim(tx, "job", owner_id=owner_id, ttl_ms=TTL)
    return lease.fence


LEASES = {"process": on_process, "session": on_session, "table": on_table}
leased = pytest.mark.parametrize("kind", LEASES)


@leased
def test_e_run_5_a_step_under_a_lease_is_run_once_and_replayed(
    deployment: Deployment, kind: str
) -> None:
    fence, effects, calls = LEASES[kind](deployment), deployment.effects, []

    def call() -> Any:
        calls.append(1)
        return {"b": (1, 2)}

    for _ in range(2):
        assert effects.run("s", "k", "e", call, under=fence) == {"b": [1, 2]}
    assert effects.run("s", "k", "e", call) == {
        "b": [1, 2]
    }  # the record is a step's like any other
    assert calls == [1]
    assert [each.status for each in effects.list_effects()] == ["completed"]
    assert effects.begin_effect("s", "k", "e") == Replayed({"b": [1, 2]})


@pytest.mark.parametrize("failed", [False, True])
def test_e_run_5_the_record_is_that_of_a_step_that_was_begun_and_ended(
    deployment: Deployment, tmp_path: Path, *, failed: bool
) -> None:
    fence, effects, error = on_process(deployment), deployment.effects, EffectError("kind", "no")
    if failed:
        effects.record_effect(fence, "s", "k", "e", error=error)
    else:
        effects.record_effect(fence, "s", "k", "e", {"n": 1})
    (recorded,) = all_rows(tmp_path / "a.db")["runtime_effect_replay"]
    effects.forget_scope("s")
    begun = effects.begin_effect("s", "k", "e")
    assert isinstance(begun, EffectClaim)
    if failed:
        effects.fail_effect(begun, error)
    else:
        effects.finish_effect(begun, {"n": 1})
    (ended,) = all_rows(tmp_path / "a.db")["runtime_effect_replay"]
    assert recorded == ended


@leased
def test_e_run_5_a_lease_that_is_lost_records_nothing(
    deployment: Deployment, clock: ManualClock, kind: str, tmp_path: Path
) -> None:
    claim = LEASES[kind]
    fence, effects, calls = claim(deployment), deployment.effects, []
    clock.advance(TTL - 1)
    assert effects.run("s", "just in time", "e", lambda: 1, under=fence) == 1
    before = all_rows(tmp_path / "a.db")

    def too_long() -> None:
        calls.append(1)
        clock.advance(1)

    with pytest.raises(LeaseLostError, match="expired"):
        effects.run("s", "k", "e", too_long, under=fence)
    with pytest.raises(LeaseLostError, match="expired"):
        effects.record_effect(fence, "s", "k", "e", 1)
    with effects.begin() as tx, pytest.raises(LeaseLostError):
        tx.record_effect(fence, "s", "k", "e", 1)
    assert calls == [1]
    assert all_rows(tmp_path / "a.db") == before
    taken = claim(deployment, "bob")
    with pytest.raises(LeaseLostError, match="superseded"):
        effects.record_effect(fence, "s", "k", "e", 1)
    assert effects.record_effect(taken, "s", "k", "e", 2) == Replayed(2)
    # What it has recorded under a term is there for whoever comes later.
    with pytest.raises(LeaseLostError):
        effects.record_effect(fence, "s", "k", "e", 1)
    assert effects.run("s", "k", "e", lambda: 9, under=fence) == 2


def test_e_run_5_how_it_ended_before_is_what_counts(deployment: Deployment, tmp_path: Path) -> None:
    fence, effects = on_process(deployment), deployment.effects
    assert effects.record_effect(fence, "s", "k", "e", 1) == Replayed(1)
    assert effects.record_effect(fence, "s", "k", "e", 2) == Replayed(1)
    error = EffectError("c", "m")
    assert effects.record_effect(fence, "s", "bad", "e", error=error) == ReplayedFailure(error)
    assert effects.record_effect(fence, "s", "bad", "e", 2) == ReplayedFailure(error)
    before = all_rows(tmp_path / "a.db")
    for key in ("k", "bad"):
        with pytest.raises(IdempotencyConflictError):
            effects.record_effect(fence, "s", key, "another", 2)
        with pytest.raises(IdempotencyConflictError):
            effects.run("s", key, "another", lambda: 2, under=fence)
    assert all_rows(tmp_path / "a.db") == before


def test_e_run_5_failures_are_recorded_as_those_of_any_step(deployment: Deployment) -> None:
    fence, effects, calls = on_process(deployment), deployment.effects, []

    def fail(error: Exception) -> Any:
        calls.append(1)
        raise error

    for _ in range(2):
        with pytest.raises(EffectFailedError, match="no"):
            effects.run(
                "s", "k", "e", lambda: fail(ValueError("no")), under=fence, terminal=ValueError
            )
        assert len(calls) == 1
    for count in (2, 3):  # for now only: the next attempt calls it again
        with pytest.raises(OSError, match="for now"):
            effects.run("s", "l", "e", lambda: fail(OSError("for now")), under=fence)
        assert len(calls) == count


def test_e_run_5_who_has_begun_it_without_the_lease_is_waited_for(
    deployment: Deployment, clock: ManualClock
) -> None:
    fence, effects = on_process(deployment), deployment.effects
    claim = effects.begin_effect("s", "k", "e", ttl_ms=100, owner_id="eve")
    assert isinstance(claim, EffectClaim)
    assert effects.record_effect(fence, "s", "k", "e", 1) == Busy("eve", claim.expires_at_ms, None)
    clock.advance(99)
    assert isinstance(effects.record_effect(fence, "s", "k", "e", 1), Busy)
    clock.advance(1)  # nobody is at it any more
    assert effects.record_effect(fence, "s", "k", "e", 1) == Replayed(1)
    with pytest.raises(LeaseLostError):
        effects.finish_effect(claim, 2)
    late = effects.begin_effect("s", "l", "e", ttl_ms=100, owner_id="eve")
    assert isinstance(late, EffectClaim)

    def meanwhile() -> int:
        effects.finish_effect(late, "eve's")
        return 1

    clock.advance(50)
    effects.renew_effect(late, ttl_ms=10)
    clock.advance(10)  # free, so that it is called; and then ended by somebody else
    with pytest.raises(LeaseLostError):
        effects.run("s", "l", "e", meanwhile, under=fence)
    again = effects.begin_effect("s", "m", "e", ttl_ms=100, owner_id="eve")
    assert isinstance(again, EffectClaim)
    effects.abandon_effect(again)

    def begins_and_ends() -> int:
        other = effects.begin_effect("s", "m", "e", owner_id="eve")
        assert isinstance(other, EffectClaim)
        effects.finish_effect(other, "eve's")
        return 1

    assert effects.run("s", "m", "e", begins_and_ends, under=fence) == "eve's"


def test_e_run_5_a_step_inside_itself_is_refused(deployment: Deployment) -> None:
    fence, effects = on_process(deployment), deployment.effects

    def inside() -> Any:
        return effects.run("s", "k", "e", lambda: 1, under=fence)

    with pytest.raises(NestedTransactionError):
        effects.run("s", "k", "e", inside, under=fence)
    assert effects.run("s", "k", "e", lambda: 1, under=fence) == 1


def test_e_run_5_bad_arguments_are_refused_before_anything(
    deployment: Deployment, tmp_path: Path
) -> None:
    fence, effects = on_process(deployment), deployment.effects
    before, calls = all_rows(tmp_path / "a.db"), []
    bad: Any = (
        lambda: effects.record_effect("fence", "s", "k"),  # type: ignore[arg-type] # reason: what is refused
        lambda: effects.record_effect(fence, "", "k"),
        lambda: effects.record_effect(fence, "s", " "),
        lambda: effects.record_effect(fence, "s", "k", {1}),
        lambda: effects.record_effect(fence, "s", "k", "e", {1}),
        lambda: effects.record_effect(fence, "s", "k", "e", 1, error=EffectError("a", "b")),
        lambda: effects.record_effect(fence, "s", "k", "e", error="no"),  # type: ignore[arg-type] # reason: the same
        lambda: effects.run("s", "k", "e", lambda: calls.append(1), under="fence"),  # type: ignore[arg-type] # reason: the same
    )
    for call in bad:
        with pytest.raises(InvalidRecordError):
            call()
    with pytest.raises(InvalidRecordError):
        effects.run("s", "k", "e", lambda: {1}, under=fence)
    assert calls == []
    assert all_rows(tmp_path / "a.db") == before
    with EffectStore.open(tmp_path / "own.db") as own:
        for run in (
            lambda: own.record_effect(fence, "s", "k"),
            lambda: own.run("s", "k", "e", lambda: 1, under=fence),
        ):
            with pytest.raises(InvalidRecordError, match="process store are in another file"):
                run()
        assert own.list_effects() == []


def test_e_run_5_in_a_file_a_lease_on_a_table_of_ones_own(tmp_path: Path) -> None:
    with EffectStore.open(tmp_path / "own.db") as own:
        with own.begin() as tx:
            jobs_metadata.create_all(tx.connection)
            lease: Any = JOBS.claim(tx, "job", owner_id="ann", ttl_ms=60_000)
        assert own.run("s", "k", "e", lambda: 1, under=lease.fence) == 1
        with own.begin() as tx:
            JOBS.release(tx, lease.fence)
        with pytest.raises(LeaseLostError, match="released"):
            own.run("s", "l", "e", lambda: 1, under=lease.fence)


def test_e_run_5_takes_one_write(deployment: Deployment) -> None:
    fence, effects = on_process(deployment), deployment.effects
    effects.run("s", "first", "e", lambda: 1, under=fence)
    seen = traced(effects, lambda: effects.run("s", "k", "e", lambda: 1, under=fence))
    writes = ["BEGIN IMMEDIATE", "SELECT", "INSERT", "COMMIT"]
    assert [each for each in seen if each != "PRAGMA"] == [
        "BEGIN DEFERRED",
        "SELECT",
        "SELECT",
        "ROLLBACK",
        *writes,
    ]


def test_e_run_5_calls_nothing_under_a_lease_that_is_lost(deployment: Deployment) -> None:
    fence, effects, calls = on_process(deployment), deployment.effects, list[int]()
    assert effects.run("s", "done", "e", lambda: 1, under=fence) == 1
    deployment.processes.release_lease(fence)
    with pytest.raises(LeaseLostError, match="released"):
        effects.run("s", "k", "e", lambda: calls.append(1), under=fence)
    assert calls == []
    assert effects.run("s", "done", "e", lambda: calls.append(1), under=fence) == 1


def test_e_run_1_nor_by_its_own_function_where_one_is_under_a_lease(
    deployment: Deployment,
) -> None:
    fence, effects, calls = on_process(deployment), deployment.effects, list[int]()
    for name, outer, inner in (("a", None, fence), ("b", fence, None), ("c", fence, fence)):

        def again(name: str = name, inner: Any = inner) -> Any:
            return effects.run("s", name, "e", lambda: calls.append(1), under=inner)

        with pytest.raises(NestedTransactionError, match="its own function"):
            effects.run("s", name, "e", again, under=outer)
    assert calls == []


@pytest.mark.parametrize("facade", ["sync", "asyncio"])
def test_e_run_5_what_it_gave_outlasts_a_busy_database(tmp_path: Path, facade: str) -> None:
    """As under a claim: for as long as the lease is live, and no longer."""
    path, calls = tmp_path / "a.db", list[int]()
    with Deployment.open(f"sqlite:///{path}") as deployment:
        deployment.processes.register_process(registration("p"))
        lease: Any = deployment.processes.claim_lease("p", owner_id="ann", ttl_ms=60_000)
    options: Any = {"under": lease.fence}
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        freed = threading.Timer(0.3, lambda: other.execute("ROLLBACK"))

        def call() -> int:
            calls.append(1)
            other.execute("BEGIN IMMEDIATE")
            freed.start()
            return 7

        async def called() -> int:
            return call()

        async def main() -> Any:
            async with AsyncEffectStore.open(f"sqlite:///{path}", busy_timeout_ms=30) as effects:
                return await effects.run("s", "k", "e", called, **options)

        if facade == "asyncio":
            assert asyncio.run(main()) == 7
        else:
            with EffectStore.open(f"sqlite:///{path}", busy_timeout_ms=30) as effects:
                assert effects.run("s", "k", "e", call, **options) == 7
        freed.join()
    assert calls == [1]


@pytest.mark.parametrize("facade", ["sync", "asyncio"])
def test_e_run_5_what_it_gave_outlasts_a_lease_that_cannot_be_read(facade: str) -> None:
    """Where one connection does it all, in memory, or where the pool has no other."""
    calls = list[int]()
    with EffectStore.open(None, busy_timeout_ms=50) as effects:
        with effects.begin() as tx:
            jobs_metadata.create_all(tx.connection)
            lease: Any = JOBS.claim(tx, "job", owner_id="ann", ttl_ms=60_000)
        begun, never = threading.Event(), threading.Event()

        def block() -> None:
            with effects.begin():
                begun.set()
                never.wait(0.4)

        blocking = threading.Thread(target=block)

        def call() -> Any:
            calls.append(1)
            blocking.start()
            assert begun.wait(20)
            return 7

        async def main() -> Any:
            async with AsyncEffectStore.open(effects) as same:
                return await same.run("s", "k", "e", call, under=lease.fence)

        if facade == "asyncio":
            assert asyncio.run(main()) == 7
        else:
            assert effects.run("s", "k", "e", call, under=lease.fence) == 7
        blocking.join()
        assert calls == [1]
        assert effects.run("s", "k", "e", call, under=lease.fence) == 7


@pytest.mark.parametrize("busy_timeout_ms", [30, 15_000])
def test_e_run_5_the_end_of_the_loop_waits_for_what_it_gave(
    tmp_path: Path, busy_timeout_ms: int
) -> None:
    """``asyncio.run`` cancels whatever is left: what has started to be recorded is."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with Deployment.open(url) as deployment:
        deployment.processes.register_process(registration("p"))
        lease: Any = deployment.processes.claim_lease("p", owner_id="ann", ttl_ms=60_000)
        lock = sqlite3.connect(tmp_path / "a.db", isolation_level=None, check_same_thread=False)
        freed = threading.Timer(0.5, lambda: lock.execute("ROLLBACK"))
        tasks = list[Any]()

        async def call() -> int:
            lock.execute("BEGIN IMMEDIATE")
            freed.start()
            return 7

        async def main() -> None:
            effects = await AsyncEffectStore.open(url, busy_timeout_ms=busy_timeout_ms)
            run = effects.run("s", "k", "e", call, under=lease.fence)
            tasks.append(asyncio.ensure_future(run))
            await asyncio.sleep(0.2)

        asyncio.run(main())
        freed.join()
        lock.close()
        assert tasks[0].cancelled()
        assert deployment.effects.look_up_effect("s", "k", "e") == Replayed(7)


def test_e_run_6_who_is_cancelled_behind_a_stray_claim_loses_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with Deployment.open(url) as deployment:
        deployment.processes.register_process(registration("p"))
        lease: Any = deployment.processes.claim_lease("p", owner_id="ann", ttl_ms=60_000)

    async def main() -> None:
        async with AsyncEffectStore.open(url) as effects:

            async def call() -> int:
                await effects.begin_effect("s", "k", "e", ttl_ms=400, owner_id="eve")
                return 42

            task = asyncio.ensure_future(effects.run("s", "k", "e", call, under=lease.fence))
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await effects.look_up_effect("s", "k", "e") == Replayed(42)

    asyncio.run(main())


@pytest.mark.parametrize("facade", ["sync", "asyncio"])
def test_e_run_6_under_a_lease_what_is_in_doubt_is_looked_for(
    deployment: Deployment, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, facade: str
) -> None:
    """Tried again, the lease is over by then: that says nothing about the first try."""
    fence, effects = on_process(deployment), deployment.effects
    handle, tries = effects._handle, list[str]()
    write = handle.write

    def call() -> Any:
        return 7

    def doubted() -> None:
        tries.append("recorded")
        if len(tries) == 1:
            clock.advance(TTL)
            raise OutcomeUnknownError("a.db", "08006", "the connection is lost")

    def doubting(operation: str, work: Any) -> Any:
        try:
            return write(operation, work)
        finally:
            doubted()

    async def main() -> Any:
        async with AsyncEffectStore.open(effects, clock=clock) as same:
            assert same._store is not None
            submit_write = same._store._handle.submit_write

            async def submit_doubting(*args: Any, **options: Any) -> Any:
                try:
                    return await submit_write(*args, **options)
                finally:
                    doubted()

            monkeypatch.setattr(same._store._handle, "submit_write", submit_doubting)
            return await same.run("s", "k", "e", call, under=fence)

    if facade == "asyncio":
        assert asyncio.run(main()) == 7
    else:
        monkeypatch.setattr(handle, "write", doubting)
        assert effects.run("s", "k", "e", call, under=fence) == 7
    assert len(tries) == 2


@pytest.mark.parametrize("kind", ["under a lease", "by a claim"])
@pytest.mark.parametrize("facade", ["sync", "asyncio"])
def test_e_run_6_what_waits_for_nothing_does_not_spin(
    tmp_path: Path, facade: str, kind: str
) -> None:
    """With a budget of nothing it tries some times a second."""
    url, tries = f"sqlite:///{tmp_path / 'a.db'}", list[str]()
    with Deployment.open(url) as deployment:
        deployment.processes.register_process(registration("p"))
        lease: Any = deployment.processes.claim_lease("p", owner_id="ann", ttl_ms=60_000)
    options: Any = {"under": lease.fence} if kind == "under a lease" else {}
    with closing(
        sqlite3.connect(tmp_path / "a.db", isolation_level=None, check_same_thread=False)
    ) as lock:
        freed = threading.Timer(0.5, lambda: lock.execute("ROLLBACK"))

        def call() -> Any:
            lock.execute("BEGIN IMMEDIATE")
            freed.start()
            return 7

        class Counting:
            def before(self, event: Event) -> None:
                if event.kind == "begin":
                    tries.append(event.operation)

            def after(self, _: Event) -> None:
                """Nothing."""

        async def main() -> Any:
            async with AsyncEffectStore.open(url, busy_timeout_ms=0) as effects:
                return await effects.run("s", "k", "e", call, **options)

        with observed_by(Counting()):
            if facade == "asyncio":
                assert asyncio.run(main()) == 7
            else:
                with EffectStore.open(url, busy_timeout_ms=0) as effects:
                    assert effects.run("s", "k", "e", call, **options) == 7
        freed.join()
    assert len(tries) < 40


@pytest.mark.parametrize("kind", ["under a lease", "by a claim"])
@pytest.mark.parametrize("facade", ["sync", "asyncio"])
def test_e_run_6_what_a_step_gave_waits_for_room_on_the_disk(
    tmp_path: Path, facade: str, kind: str
) -> None:
    """A disk that is full as it is to be recorded, and has room a moment later."""
    url, called, full = f"sqlite:///{tmp_path / 'a.db'}", list[str](), list[str]()
    with Deployment.open(url) as deployment:
        deployment.processes.register_process(registration("p"))
        lease: Any = deployment.processes.claim_lease("p", owner_id="ann", ttl_ms=60_000)
    options: Any = {"under": lease.fence} if kind == "under a lease" else {}

    def call() -> Any:
        called.append("called")
        return 7

    class Full:
        def before(self, event: Event) -> None:
            if called and event.kind == "commit" and len(full) < 3:
                full.append(event.operation)
                raise driver_fault("full disk", event.path)

        def after(self, _: Event) -> None:
            """Nothing."""

    async def main() -> Any:
        async with AsyncEffectStore.open(url) as effects:
            with observed_by(Full()):
                assert await effects.run("s", "k", "e", call, **options) == 7
            return await effects.run("s", "k", "e", call, **options)

    if facade == "asyncio":
        assert asyncio.run(main()) == 7
    else:
        with EffectStore.open(url) as effects:
            with observed_by(Full()):
                assert effects.run("s", "k", "e", call, **options) == 7
            assert effects.run("s", "k", "e", call, **options) == 7
    assert called == ["called"]
    assert len(full) == 3
    with SessionStore.open(url, session_id="s") as store, observed_by(Full()):
        full.clear()
        before = all_rows(tmp_path / "a.db")
        with pytest.raises(DiskFullError, match="disk is full"):
            store.put_blob(b"x")
        assert all_rows(tmp_path / "a.db") == before


def test_e_run_5_what_it_gave_is_lost_with_the_lease(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "a.db"
    with Deployment.open(f"sqlite:///{path}", clock=clock) as deployment:
        deployment.processes.register_process(registration("p"))
        fence = on_process(deployment)
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as other,
        EffectStore.open(f"sqlite:///{path}", busy_timeout_ms=30, clock=clock) as effects,
    ):

        def call() -> int:
            other.execute("BEGIN IMMEDIATE")
            clock.advance(TTL)
            return 7

        with pytest.raises(LeaseLostError, match="expired"):
            effects.run("s", "k", "e", call, under=fence)
        other.execute("ROLLBACK")
        assert effects.list_effects() == []


def test_e_run_5_asyncio(tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncDeployment.open(f"sqlite:///{tmp_path / 'a.db'}") as deployment:
            await deployment.processes.register_process(registration("p"))
            lease: Any = await deployment.processes.claim_lease("p", owner_id="ann", ttl_ms=60_000)
            fence, effects, calls = lease.fence, deployment.effects, []

            async def call() -> int:
                calls.append(1)
                return 7

            async def fail() -> int:
                raise ValueError("no")

            async def inside() -> Any:
                return await effects.run("s", "i", "e", call, under=fence)

            for _ in range(2):
                assert await effects.run("s", "k", "e", call, under=fence) == 7
            assert calls == [1]
            for _ in range(2):
                with pytest.raises(EffectFailedError):
                    await effects.run("s", "f", "e", fail, under=fence, terminal=ValueError)
            with pytest.raises(ValueError, match="no"):
                await effects.run("s", "g", "e", fail, under=fence)
            with pytest.raises(NestedTransactionError):
                await effects.run("s", "i", "e", inside, under=fence)
            not_async: Any = lambda: 1  # noqa: E731 # reason: what gives nothing to await
            assert await effects.run("s", "h", "e", not_async, under=fence) == 1

            def refuse() -> Any:
                raise ValueError("at once")

            with pytest.raises(EffectFailedError, match="at once"):
                await effects.run("s", "j", "e", refuse, under=fence, terminal=ValueError)
            await deployment.processes.release_lease(fence)
            with pytest.raises(LeaseLostError, match="released"):
                await effects.run("s", "l", "e", call, under=fence)

            # Cancelled, it calls nobody any more and records nothing; the next attempt begins at once.
            lease = await deployment.processes.claim_lease("p", owner_id="ann", ttl_ms=60_000)
            began = asyncio.Event()

            async def never() -> None:
                began.set()
                await asyncio.Event().wait()

            task = asyncio.ensure_future(effects.run("s", "c", "e", never, under=lease.fence))
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await effects.run("s", "c", "e", call, under=lease.fence) == 7

    asyncio.run(main())
