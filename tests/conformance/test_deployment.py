"""A deployment's stores, and the sessions that it opens: owned, closed, shared."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import threading
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lash_store import (
    AsyncDeployment,
    AsyncEffectStore,
    AsyncProcessRegistry,
    AsyncSessionStore,
    AsyncTriggerStore,
    Deployment,
    EffectStore,
    LeaseHeld,
    SessionDirectory,
    SessionLease,
    SessionStore,
)
from lash_store.errors import (
    InvalidRecordError,
    StorageError,
    StoreBusyError,
    StoreClosedError,
    StoreOpenError,
)
from lash_store.session.directory import AsyncSessionDirectory
from lash_store.testing import ManualClock
from tests.support.databases import database_of
from tests.support.registries import registration
from tests.support.turns import eventually

pytestmark = pytest.mark.sqlite("the files of a folder")


def test_a_deployment_closes_the_sessions_that_it_opened(tmp_path: Path) -> None:
    with Deployment.open(tmp_path) as deployment:
        one = deployment.sessions.create("one", model="m")
        again = deployment.sessions.open("one")
        assert again is not None
        assert database_of(one) is database_of(again)
        elsewhere = SessionStore.open(deployment.sessions.path_of("one"), session_id="one")
    for store in (one, again, deployment.processes, deployment.triggers, deployment.effects):
        assert store.closed
    elsewhere.claim_lease(owner_id="ann", ttl_ms=1)  # it was opened by somebody else
    elsewhere.close()
    deployment.close()


def test_a_deployments_options_are_its_sessions_unless_a_call_says_otherwise(
    tmp_path: Path,
) -> None:
    clock, other = ManualClock(5_000), ManualClock(7_000)
    with Deployment.open(tmp_path, clock=clock, synchronous="FULL") as deployment:
        store = deployment.sessions.create("one", model="m")
        lease = store.claim_lease(owner_id="ann", ttl_ms=0)
        assert isinstance(lease, SessionLease)
        assert lease.claimed_at_ms == 5_000
        late = deployment.sessions.open("one", clock=other)
        assert late is not None
        lease = late.claim_lease(owner_id="ann", ttl_ms=0)
        assert isinstance(lease, SessionLease)
        assert lease.claimed_at_ms == 7_000
        with pytest.raises(StoreOpenError, match=r"FULL.*NORMAL"):
            deployment.sessions.open("one", synchronous="NORMAL")
    with pytest.raises(InvalidRecordError, match="busy_timeout_ms"):
        SessionDirectory(tmp_path, busy_timeout_ms=-1)


@pytest.mark.canonical("the files of a folder")
def test_the_asyncio_deployment_has_the_same_stores(tmp_path: Path) -> None:
    async def main() -> AsyncSessionStore:
        async with AsyncDeployment.open(tmp_path) as deployment:
            session = await deployment.sessions.create("one", model="m")
            assert session.session_id == "one"
            assert await deployment.sessions.open("two") is None
            assert isinstance(await session.claim_lease(owner_id="ann", ttl_ms=1), SessionLease)
            (entry,) = await deployment.sessions.list()
            assert entry.meta is not None
            assert entry.meta.session_id == "one"
            assert await deployment.effects.run("s", "k", 1, lambda: asyncio.sleep(0, "done")) == (
                "done"
            )
            assert await deployment.processes.list_processes() == []
            assert (await deployment.triggers.list_subscriptions()).subscriptions == ()
            with Deployment.open(tmp_path) as beside:
                assert beside.effects.count_effects() == 1
            other = await deployment.sessions.create("two", model="m")
            await other.aclose()
            assert await deployment.sessions.delete("two")
        with pytest.raises(StoreClosedError):
            await deployment.processes.list_processes()
        await deployment.aclose()
        return session

    session = asyncio.run(main())
    with pytest.raises(StoreClosedError):
        asyncio.run(session.load_head())
    with pytest.raises(StoreClosedError, match="is not open yet: `async with` it"):
        _ = AsyncDeployment.open(tmp_path).sessions


def test_an_asyncio_deployment_opens_by_await_and_says_why_it_can_not(tmp_path: Path) -> None:
    async def main() -> None:
        deployment = await AsyncDeployment.open(tmp_path / "root")
        assert (tmp_path / "root" / "processes.db").exists()
        await deployment.aclose()
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreOpenError):
            await AsyncDeployment.open(tmp_path / "file")

    asyncio.run(main())


def test_an_asyncio_directory_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncSessionDirectory(tmp_path, busy_timeout_ms=100) as directory:
            store = await directory.create("one", model="m")
            assert directory.path_of("one").exists()
            await store.claim_lease(owner_id="ann", ttl_ms=1)
        with pytest.raises(StoreClosedError):
            await store.load_head()

    asyncio.run(main())


@pytest.mark.canonical("files in a folder of its own")
def test_a_relative_path_leads_where_it_led_when_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    monkeypatch.chdir(first)
    one_database = "sqlite:///one.db"

    async def main() -> None:
        stores: list[Any] = [
            AsyncSessionStore.open("a.db", session_id="s"),
            AsyncSessionStore.open(one_database, session_id="s"),
            AsyncEffectStore.open(Path("effects.db")),
            AsyncTriggerStore.open("triggers.db"),
        ]
        lazy = AsyncDeployment.open("lazy")
        directory = AsyncSessionDirectory("sessions")
        with Deployment.open("folder") as deployment, Deployment.open(one_database) as shared:
            monkeypatch.chdir(second)
            for each in (deployment, shared):
                each.sessions.create("s", model="m").close()
            for store in stores:
                async with store:
                    await store.check_schema()
            async with lazy, directory:
                for sessions in (lazy.sessions, directory):
                    await (await sessions.create("s", model="m")).aclose()

    asyncio.run(main())
    assert list(second.iterdir()) == []
    names = {str(each.relative_to(first)) for each in first.rglob("*.db")}
    session = SessionDirectory("x").path_of("s").name
    assert names >= {
        "a.db",
        "one.db",
        "effects.db",
        "triggers.db",
        f"folder/sessions/{session}",
        f"lazy/sessions/{session}",
        f"sessions/{session}",
    }


def test_no_path_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreOpenError, match="non-empty"):
        Deployment.open("")
    with pytest.raises(StoreOpenError, match="non-empty"):
        SessionDirectory("")
    with pytest.raises(StoreOpenError, match="non-empty"):
        asyncio.run(opened(AsyncDeployment.open("")))
    assert list(tmp_path.iterdir()) == []


def descriptors_of(folder: Path) -> int:
    """How many descriptors this process has of files in a folder, deleted ones included."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # another thread has closed it meanwhile
            found += str(folder) in os.readlink(each)
    return found


@pytest.mark.posix
@pytest.mark.parametrize("how", ["create", "open"])
def test_k_open_12_who_is_cancelled_while_it_opens_a_session_leaves_none_open(
    tmp_path: Path, how: str
) -> None:
    names = [f"s{number}" for number in range(30)]

    async def main() -> None:
        async with AsyncDeployment.open(tmp_path) as deployment:
            if how == "open":
                for name in names:
                    await (await deployment.sessions.create(name, model="m")).aclose()
            before = descriptors_of(tmp_path)
            for name in names:
                sessions: Any = deployment.sessions
                calls = sessions.create(name, model="m") if how == "create" else sessions.open(name)
                task = asyncio.ensure_future(calls)
                await asyncio.sleep(0.001)
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():  # it was too late
                    await task.result().aclose()
                await deployment.sessions.delete(name)
            assert sum(not store.closed for store in deployment.sessions._directory._opened) == 0
            assert descriptors_of(tmp_path) == before

    asyncio.run(main())


@pytest.mark.parametrize("step", [0, 1, 3, 10])
def test_k_open_5_an_asyncio_deployment_is_closed_though_who_closes_it_is_cancelled(
    tmp_path: Path, step: int
) -> None:
    async def main() -> None:
        deployment = await AsyncDeployment.open(tmp_path)
        session = await deployment.sessions.create("s", model="m")
        closing = asyncio.create_task(deployment.aclose())
        for _ in range(step + 1):
            await asyncio.sleep(0)
        if closing.cancel():
            with pytest.raises(asyncio.CancelledError):
                await closing
        for store in (deployment.processes, deployment.triggers, deployment.effects, session):
            with pytest.raises(StoreClosedError):
                await store.check_schema()

    asyncio.run(main())


@pytest.mark.posix
def test_k_open_12_a_store_that_is_dropped_leaves_no_descriptor(tmp_path: Path) -> None:
    for number in range(5):
        store = SessionStore.open(tmp_path / f"{number}.db", session_id="s")
        store.put_blob(b"x")
        del store
    gc.collect()
    eventually(lambda: not descriptors_of(tmp_path))


def test_k_open_5_what_is_closed_while_it_opens_is_closed(tmp_path: Path) -> None:
    """A store, and a deployment: whoever opens it sees that, or whoever closes it."""

    async def main() -> None:
        for number in range(20):
            store = AsyncSessionStore.open(tmp_path / f"{number}.db", session_id="s")
            task = asyncio.ensure_future(store.load_head())
            await asyncio.sleep(0.0005)
            await store.aclose()
            await asyncio.wait([task])
            assert task.exception() is None or isinstance(task.exception(), StoreClosedError)
            with pytest.raises(StoreClosedError):
                await store.load_head()
            assert store._store is None or store._store.closed
            deployment = AsyncDeployment.open(tmp_path / str(number))
            opening = asyncio.ensure_future(opened(deployment))
            await asyncio.sleep(0.0005)
            await deployment.aclose()
            await asyncio.wait([opening])
            assert opening.exception() is None or isinstance(opening.exception(), StoreClosedError)
            with pytest.raises(StoreClosedError):
                await deployment
            assert not isinstance(deployment._deployment, Deployment) or (
                deployment._deployment.processes.closed
            )

    asyncio.run(main())


def test_an_asyncio_deployment_is_opened_once(tmp_path: Path) -> None:
    async def main() -> None:
        deployment = AsyncDeployment.open(tmp_path)
        with pytest.raises(StoreClosedError):
            _ = deployment.processes
        with pytest.raises(AttributeError, match="nothing"):
            _ = deployment.nothing

        async def processes() -> AsyncProcessRegistry:
            return (await deployment).processes

        one, other = await asyncio.gather(processes(), processes())
        assert one is other
        stores = [one, deployment.triggers, deployment.effects]
        await deployment.aclose()
        for store in stores:
            with pytest.raises(StoreClosedError):
                await store.check_schema()
        with pytest.raises(StoreClosedError):
            async with deployment:
                pass

    asyncio.run(main())


def test_an_asyncio_deployment_whose_opening_was_cancelled_can_be_opened(tmp_path: Path) -> None:
    async def main() -> None:
        deployment = AsyncDeployment.open(tmp_path)
        for _ in range(5):
            task = asyncio.ensure_future(opened(deployment))
            await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])
            assert not task.cancelled() or deployment._deployment is None
        async with deployment:
            await deployment.processes.check_schema()

    asyncio.run(main())


async def opened(deployment: AsyncDeployment) -> None:
    await deployment


def test_k_open_5_an_asyncio_deployment_that_was_busy_is_closed_by_the_next(tmp_path: Path) -> None:
    async def main() -> None:
        begun, go_on = threading.Event(), threading.Event()

        def work(_: Any) -> None:
            begun.set()
            go_on.wait()

        deployment = await AsyncDeployment.open(tmp_path, busy_timeout_ms=50)
        slow = asyncio.create_task(deployment.effects.transact(work))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        with pytest.raises(StoreBusyError):
            await deployment.aclose()
        go_on.set()
        await slow
        await deployment.aclose()
        for store in (deployment.processes, deployment.triggers, deployment.effects):
            with pytest.raises(StoreClosedError):
                await store.check_schema()
        with pytest.raises(StoreClosedError):
            _ = deployment.root

    asyncio.run(main())


@pytest.mark.parametrize("place", ["folder", "sqlite:///{}/app.db"])
def test_k_hold_1_what_is_held_is_given_back_after_the_block_of_its_deployment(
    tmp_path: Path, place: str
) -> None:
    root = place.format(tmp_path) if ":" in place else tmp_path / place

    async def forever() -> None:
        await asyncio.sleep(3_600)

    async def hold(store: Any, *key: str) -> None:
        async with store.hold(*key, owner_id="ann", ttl_ms=60_000):
            await forever()

    async def main() -> None:
        async with AsyncDeployment.open(root) as deployment:
            await deployment.processes.register_process(registration("p"))
            session = await deployment.sessions.create("s", model="m")
            tasks = [
                asyncio.create_task(deployment.effects.run("scope", "step", {}, forever)),
                asyncio.create_task(hold(deployment.processes, "p")),
                asyncio.create_task(hold(session)),
            ]
            while (
                await deployment.effects.look_up_effect("scope", "step", {}) is None
                or await deployment.processes.current_lease("p") is None
                or await session.current_lease() is None
            ):
                await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    with Deployment.open(root) as deployment:
        assert deployment.effects.look_up_effect("scope", "step", {}) is None
        assert not isinstance(
            deployment.processes.claim_lease("p", owner_id="bob", ttl_ms=1), LeaseHeld
        )
        session = deployment.sessions.open("s")
        assert session is not None
        assert session.current_lease() is None


def test_k_wait_1_who_waited_in_a_loop_that_was_closed_is_told_no_more(tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    with EffectStore.open(tmp_path / "effects.db") as store:
        shared = AsyncEffectStore.over(store, lambda: store)
        waits = [loop.create_task(shared.wait_until(lambda _: None)) for _ in range(3)]
        loop.run_until_complete(asyncio.sleep(0.1))
        assert len(store.watch.waiters) == 3
        loop.close()
        store.begin_sleep("scope", "key", 1)
        assert not store.watch.waiters
        assert not any(wait.done() for wait in waits)  # they are kept until then
        for wait in waits:
            wait.get_coro().close()
            wait._log_destroy_pending = False  # type: ignore[attr-defined] # reason: nobody is to say so


def test_k_tx_3_reading_and_deleting_a_session_say_what_befalls_them(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    directory = SessionDirectory(f"sqlite:///{path}")
    directory.create("s", model="m").close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = raw.execute("PRAGMA page_size").fetchone()
        (page,) = raw.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'lash_session_meta'"
        ).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    for call in (directory.list, partial(directory.delete, "s")):
        with pytest.raises(StorageError, match="malformed"):
            call()
