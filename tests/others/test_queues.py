"""The queue machine on queues that nobody here wrote: about ten lines each, and what is found of them."""

from __future__ import annotations

import datetime as dt
import itertools
import logging
import tempfile
from contextlib import AsyncExitStack
from typing import Any

import litequeue
import persistqueue
import procrastinate.jobs
import procrastinate.manager
import procrastinate.testing
import pytest
import time_machine
from apscheduler import Job, JobOutcome, JobResult, Task
from apscheduler.datastores.memory import MemoryDataStore
from apscheduler.datastores.sqlalchemy import SQLAlchemyDataStore
from apscheduler.eventbrokers.local import LocalEventBroker
from sqlalchemy import StaticPool, create_engine

from lash_store.testing import Violation, queue_machine
from tests.others.test_locks import HUNT, found_of


class LiteQueue:
    """litequeue: a message is locked by whoever pops it, and ended by whoever knows its id."""

    def __init__(self, clock: Any) -> None:
        self.queue = litequeue.LiteQueue(memory=True)

    def put(self, item: str) -> None:
        self.queue.put(item)

    def claim(self, worker: str) -> tuple[str, Any] | None:
        message = self.queue.pop()
        return None if message is None else (message.data, message.message_id)

    def complete(self, worker: str, handle: Any) -> None:
        self.queue.done(handle)

    def close(self) -> None:
        self.queue.close()

    def lapse(self) -> None:
        for message in list(self.queue.list_locked(-1)):
            self.queue.retry(message.message_id)


class PersistQueue:
    """persist-queue's SQLiteAckQueue: what was not acknowledged is had again after a restart."""

    def __init__(self, clock: Any) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.lapse()

    def close(self) -> None:
        self.queue.close()
        self.folder.cleanup()

    def lapse(self) -> None:
        self.queue = persistqueue.SQLiteAckQueue(self.folder.name, auto_resume=True)

    def put(self, item: str) -> None:
        self.queue.put(item)

    def claim(self, worker: str) -> tuple[str, Any] | None:
        try:
            found = self.queue.get(block=False, raw=True)
        except persistqueue.Empty:
            return None
        return found["data"], found["pqid"]

    def complete(self, worker: str, handle: Any) -> None:
        self.queue.ack(id=handle)


class Procrastinate:
    """procrastinate, on its connector in memory; stalled jobs are put back as its docs tell."""

    def __init__(self, clock: Any) -> None:
        connector = procrastinate.testing.InMemoryConnector()
        connector.workers = dict.fromkeys(range(3), dt.datetime.now(dt.UTC))
        self.jobs = procrastinate.manager.JobManager(connector)
        self.numbers: dict[str, int] = {}

    async def put(self, item: str) -> None:
        job = procrastinate.jobs.Job(queue="q", lock=None, queueing_lock=None, task_name=item)
        await self.jobs.defer_job_async(job)

    async def claim(self, worker: str) -> tuple[str, Any] | None:
        number = self.numbers.setdefault(worker, len(self.numbers))
        job = await self.jobs.fetch_job(None, number)
        return None if job is None else (job.task_name, job)

    async def complete(self, worker: str, handle: Any) -> None:
        await self.jobs.finish_job(handle, procrastinate.jobs.Status.SUCCEEDED, delete_job=False)

    async def lapse(self) -> None:
        for job in await self.jobs.get_stalled_jobs(seconds_since_heartbeat=-60):
            await self.jobs.retry_job(job)


class APScheduler:
    """APScheduler 4's data stores: a job is acquired for a time, and released with its result."""

    slots: int | None = None

    def __init__(self, clock: Any) -> None:
        self.time = time_machine.travel(1_000_000, tick=False)
        self.now, self.stack, self.s = (
            self.time.start(),
            AsyncExitStack(),
            itertools.count(1_000_001),
        )
        self.store: Any = None

    def make(self) -> Any:
        return MemoryDataStore()

    async def opened(self) -> Any:
        if self.store is None:
            self.store, broker = self.make(), LocalEventBroker()
            await broker.start(self.stack, logging.getLogger())
            await self.store.start(self.stack, broker, logging.getLogger())
            task = Task(id="t", func="os:getpid", job_executor="e", max_running_jobs=self.slots)
            await self.store.add_task(task)
        return self.store

    async def put(self, item: str) -> None:
        self.now.move_to(next(self.s))
        await (await self.opened()).add_job(Job(task_id="t", executor="e", args=(item,)))

    async def claim(self, worker: str) -> tuple[str, Any] | None:
        for job in await (await self.opened()).acquire_jobs(worker, dt.timedelta(hours=1), 1):
            return job.args[0], job
        return None

    async def complete(self, worker: str, handle: Any) -> None:
        result = JobResult.from_job(handle, JobOutcome.success)
        await (await self.opened()).release_job(worker, handle, result)

    def lapse(self) -> None:
        self.s = itertools.count(next(self.s) + 7_200)
        self.now.move_to(next(self.s))

    async def aclose(self) -> None:
        await self.stack.aclose()
        self.time.stop()


class APSchedulerOnSql(APScheduler):
    def make(self) -> Any:
        self.engine = create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        return SQLAlchemyDataStore(self.engine)

    async def aclose(self) -> None:
        await super().aclose()
        if self.store is not None:
            self.engine.dispose()


class APSchedulerWithOneSlot(APSchedulerOnSql):
    slots = 1


FOUND: dict[str, tuple[Any, str]] = {
    "litequeue": (LiteQueue, "stale-completion"),
    "persist-queue": (PersistQueue, "stale-completion"),
    "procrastinate": (Procrastinate, "stale-completion"),
    "APScheduler, in memory": (APScheduler, "stale-completion"),
    "APScheduler, SQL": (APSchedulerOnSql, "stale-completion"),
}


@pytest.mark.parametrize("name", FOUND)
def test_found_of_queues(name: str) -> None:
    make, violation = FOUND[name]
    found_of(queue_machine(make, settings=HUNT), violation)


def test_found_of_a_job_that_expired_in_the_only_slot() -> None:
    """It is counted as running for ever, and can't be claimed again."""
    script = [("put", "item-1"), ("claim", "ann"), ("lapse",), ("claim", "bob")]
    machine = queue_machine(APSchedulerWithOneSlot, settings=HUNT)
    found_of(machine, "lost")
    with pytest.raises(Violation, match="lost"):
        machine.replay(script)
