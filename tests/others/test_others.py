"""The machines on packages that nobody here wrote: ten lines each, and what is found of them.

A session of its own installs them: ``nox -s others``.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import fakeredis
import huey
import litequeue
import persistqueue
import pytest
import redis_lock
from fakeredis._socket import _base as fake_socket
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


class Wall:
    """The module ``time`` as a server sees it: its wall clock is the test's."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock

    def time(self) -> float:
        return float(self.clock.now_ms()) / 1000

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class RedisLocks:
    """redis-py's Lock, on a server in this process that goes by the test's clock."""

    kind: Any

    def __init__(self, clock: Any) -> None:
        fake_socket.time = Wall(clock)
        self.server = fakeredis.FakeServer()

    def client(self, actor: str) -> Any:
        return self.kind(fakeredis.FakeRedis(server=self.server))


class RedisLock:
    def __init__(self, redis: Any) -> None:
        self.lock = redis.lock("job", timeout=1)

    def acquire(self, ttl_ms: int) -> bool:
        self.lock.timeout = ttl_ms / 1000
        return bool(self.lock.acquire(blocking=False))

    def renew(self, ttl_ms: int) -> bool:
        return bool(self.lock.extend(ttl_ms / 1000, replace_ttl=True))

    def release(self) -> None:
        self.lock.release()


class AddsToTheTtl(RedisLock):
    """What ``extend()`` does unless it is told otherwise: so long is added to what is left."""

    def renew(self, ttl_ms: int) -> bool:
        return bool(self.lock.extend(ttl_ms / 1000))


class PythonRedisLock:
    """python-redis-lock, which counts whole seconds."""

    def __init__(self, redis: Any) -> None:
        self.redis, self.lock = redis, redis_lock.Lock(redis, "job")

    def acquire(self, ttl_ms: int) -> bool:
        lock = redis_lock.Lock(self.redis, "job", expire=ttl_ms // 1000)
        took = bool(lock.acquire(blocking=False))
        self.lock = lock if took else self.lock
        return took

    def renew(self, ttl_ms: int) -> bool:
        self.lock.extend(expire=ttl_ms // 1000)
        return True

    def release(self) -> None:
        self.lock.release()


def on_redis(kind: Any) -> Any:
    return type(kind.__name__, (RedisLocks,), {"kind": kind})


SOUND: dict[str, Any] = {
    "redis-py": lock_machine(on_redis(RedisLock), edge="either", settings=HUNT),
    "python-redis-lock": lock_machine(
        on_redis(PythonRedisLock), edge="either", tick_ms=1_000, settings=HUNT
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_what_is_sound_passes(name: str) -> None:
    SOUND[name].run()


NEVER_ENDS = ("refused-free",)
"""What is known of a lock without a ttl: whoever dies with it keeps it."""

FOUND: dict[str, tuple[Any, set[str]]] = {
    "huey.lock_task": (
        lock_machine(HueyLock, tolerate=NEVER_ENDS, settings=HUNT),
        {"foreign-release", "reentry"},
    ),
    "redis-py, extend()": (
        lock_machine(on_redis(AddsToTheTtl), edge="either", settings=HUNT),
        {"refused-free"},
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
