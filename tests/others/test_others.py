"""The machines on packages that nobody here wrote: ten lines each, and what is found of them.

A session of its own installs them: ``nox -s others``.
"""

from __future__ import annotations

import tempfile
from typing import Any

import huey
import litequeue
import persistqueue
import pytest
from hypothesis import HealthCheck, Phase, settings

from lash_store.testing import Violation, lock_machine, queue_machine

HUNT = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # shrinking takes longer than finding
    suppress_health_check=list(HealthCheck),
)


class HueyLock:
    """``huey.lock_task()``: a key that is there or not, and whoever comes may delete it."""

    def __init__(self, clock: Any) -> None:
        self.huey = huey.MemoryHuey()

    def client(self, actor: str) -> Any:
        lock = self.huey.lock_task("job")
        lock.acquire_plainly = lock.acquire
        lock.acquire = lambda _: lock.acquire_plainly()  # it has no ttl unless it is given one
        return lock


class LiteQueue:
    """litequeue: a message is locked by whoever pops it, and ended by whoever knows its id."""

    def __init__(self, clock: Any) -> None:
        self.queue = litequeue.LiteQueue(memory=True)
        self.ids: list[str] = []

    def put(self, item: str) -> None:
        self.queue.put(item)

    def claim(self, worker: str) -> tuple[str, Any] | None:
        message = self.queue.pop()
        if message is None:
            return None
        self.ids.append(message.message_id)
        return message.data, message.message_id

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


NEVER_ENDS = ("refused-free",)
"""What is known of a lock without a ttl: whoever dies with it keeps it."""

FOUND: dict[str, tuple[Any, set[str]]] = {
    "huey.lock_task": (
        lock_machine(HueyLock, tolerate=NEVER_ENDS, settings=HUNT),
        {"foreign-release", "reentry"},
    ),
    "litequeue": (queue_machine(LiteQueue, settings=HUNT), {"stale-completion"}),
    "persist-queue": (queue_machine(PersistQueue, settings=HUNT), {"stale-completion"}),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_is_found(name: str) -> None:
    machine, names = FOUND[name]
    with pytest.raises(Violation) as found:
        machine.run()
    assert found.value.name in names, found.value
    with pytest.raises(Violation):
        machine.replay(found.value.script)
