"""The same work beside pgqueuer and DBOS: on the same server, in the same run, in turn.

    pip install --group bench-peers && python -m bench.postgresql_peers

A job is put, claimed and completed, one at a time and by the hundred; a step is run and recorded, alone
and 64 at once. On a server of its own, as durable as it comes.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import uuid4

import psycopg
from dbos import DBOS
from pgqueuer.queries import EntrypointExecutionParameter, Queries
from sqlalchemy import make_url

from lash_store import (
    AsyncEffectStore,
    AsyncSessionStore,
    NewWork,
    SessionLease,
    TurnCommit,
)
from tests.support import postgresql

ROUNDS = 5
JOBS = 200
MANY = 10**9


async def main() -> None:
    """Run all in turn, and print the medians of the rounds."""
    with postgresql.own_server(is_durable=True) as server:
        with psycopg.connect(server.url, autocommit=True) as admin:
            for name in ("ours", "theirs"):
                admin.execute(f"CREATE DATABASE {name}")
        base = make_url(server.url)
        url = base.set(drivername="postgresql+psycopg", database="ours").render_as_string(
            hide_password=False
        )
        peers = base.set(database="theirs").render_as_string(hide_password=False)
        ours, pgqueuer, dbos = Ours(url), PgQueuer(peers), Dbos(peers)
        for each in (ours, pgqueuer, dbos):
            await each.open()
        try:
            await compare("a job, put, claimed and completed", ours.job, pgqueuer.job)
            await compare("each of 100 jobs together", ours.jobs, pgqueuer.jobs, each=100, times=3)
            await compare("a recorded step", ours.step, dbos.step)
            await compare("each of 64 steps at once", ours.steps, dbos.steps, each=64, times=3)
        finally:
            for each in (ours, pgqueuer, dbos):
                await each.close()


async def compare(
    what: str,
    ours: Callable[[], Awaitable[Any]],
    theirs: Callable[[], Awaitable[Any]],
    *,
    each: int = 1,
    times: int = 50,
) -> None:
    """Time both in turn."""
    for way in (ours, theirs):
        for _ in range(3):
            await way()
    mine, peer = [], []
    for _ in range(ROUNDS):
        mine.append(await microseconds(ours, times) / each)
        peer.append(await microseconds(theirs, times) / each)
    ratio = statistics.median(a / b for a, b in zip(mine, peer, strict=True))
    name = theirs.__self__.name  # type: ignore[attr-defined] # reason: a method
    print(
        f"{what}: {statistics.median(mine):.0f} us, {name} {statistics.median(peer):.0f} us: {ratio:.2f}",
        flush=True,
    )


async def microseconds(way: Callable[[], Awaitable[Any]], times: int) -> float:
    """Return how long one takes, of several one after another."""
    began_s = time.perf_counter()
    for _ in range(times):
        await way()
    return (time.perf_counter() - began_s) / times * 1e6


class Ours:
    """This library: a session's queue under a lease, and steps."""

    name = "lash_store"

    def __init__(self, url: str) -> None:
        self.url = url

    async def open(self) -> None:
        """Open the stores, and claim the lease that a worker of a session has."""
        self.store = await AsyncSessionStore.open(self.url, session_id="s")
        self.effects = await AsyncEffectStore.open(self.url, owner_id="ann")
        lease = await self.store.claim_lease(owner_id="ann", ttl_ms=MANY)
        assert isinstance(lease, SessionLease)
        self.fence, self.numbers = lease.fence, count()

    async def job(self) -> None:
        """Fenced: who has lost the lease completes nothing."""
        await self.store.enqueue_work(NewWork([1]))
        await self._complete(1)

    async def jobs(self) -> None:
        """A hundred in one transaction each."""
        await self.store.enqueue_all_work([NewWork([1], slot_policy="join") for _ in range(100)])
        await self._complete(100)

    async def _complete(self, most: int) -> None:
        claim = await self.store.claim_work(
            self.fence, owner_id="ann", ttl_ms=MANY, max_batches=most
        )
        assert claim is not None
        assert len(claim.batches) == most
        await self.store.commit_turn(TurnCommit(fence=self.fence, completed=[claim]))

    async def step(self) -> None:
        """Begin, run and record."""
        await self.effects.run("scope", f"step {next(self.numbers)}", {"n": 1}, nothing)

    async def steps(self) -> None:
        """64 of them."""
        await asyncio.gather(*(self.step() for _ in range(64)))

    async def close(self) -> None:
        """Close both."""
        await self.store.aclose()
        await self.effects.aclose()


async def nothing() -> int:
    """The step itself."""
    return 1


class PgQueuer:
    """pgqueuer, by its own queries on psycopg."""

    name = "pgqueuer"

    def __init__(self, url: str) -> None:
        self.url = url

    async def open(self) -> None:
        """Install its tables."""
        self.connection = await psycopg.AsyncConnection.connect(self.url, autocommit=True)
        self.queries = Queries.from_psycopg_connection(self.connection)
        await self.queries.install()
        self.manager: Any = uuid4()
        self.entrypoints: Any = {"job": EntrypointExecutionParameter(0)}

    async def job(self) -> None:
        """One."""
        await self.queries.enqueue("job", b"1")
        await self._complete(1)

    async def jobs(self) -> None:
        """A hundred."""
        await self.queries.enqueue(["job"] * 100, [b"1"] * 100, [0] * 100)
        await self._complete(100)

    async def _complete(self, most: int) -> None:
        jobs = await self.queries.dequeue(
            most, self.entrypoints, self.manager, None, timedelta(seconds=30)
        )
        assert len(jobs) == most
        await self.queries.log_jobs([(job, "successful", None) for job in jobs])

    async def close(self) -> None:
        """Close its connection."""
        await self.connection.close()


class Dbos:
    """DBOS: a workflow of one step, or of 64 at once; without what a workflow of none takes."""

    name = "DBOS"

    def __init__(self, url: str) -> None:
        self.dbos = DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR"})

        @DBOS.step()  # type: ignore[untyped-decorator] # reason: it has no types here
        async def step() -> int:
            return 1

        @DBOS.workflow()  # type: ignore[untyped-decorator] # reason: likewise
        async def one() -> None:
            for _ in range(10):
                await step()

        @DBOS.workflow()  # type: ignore[untyped-decorator] # reason: likewise
        async def many() -> None:
            await asyncio.gather(*(step() for _ in range(64)))

        self._one, self._many = one, many

    async def open(self) -> None:
        """Start it."""
        DBOS.launch()

    async def step(self) -> None:
        """A tenth of a workflow of ten steps stands for one."""
        self.left = getattr(self, "left", 0) - 1
        if self.left < 0:
            self.left = 9
            await self._one()

    async def steps(self) -> None:
        """64 of them."""
        await self._many()

    async def close(self) -> None:
        """Stop it."""
        DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main())
