"""The lock machine on locks that nobody here wrote: about ten lines each, and what is found of them.

Those on Redis run on a real redis-server that goes by the test's clock. ``nox -s others`` installs
what they need.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import huey
import pottery
import pytest
import redis_lock
import sherlock
import time_machine
from hypothesis import HealthCheck, Phase, settings

from lash_store.testing import Violation, lock_machine
from tests.others.redis_server import Server

HUNT = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # shrinking takes longer than finding
    suppress_health_check=list(HealthCheck),
)
SECONDS = {"edge": "either", "tick_ms": 1_000, "settings": HUNT}


class RedisLock:
    """redis-py's own."""

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


KEPT: list[Any] = []
"""What a crash forgets: sherlock's locks are released when they are collected, and a crash collects none."""


class Sherlock:
    """sherlock, which counts whole seconds on Redis."""

    def __init__(self, redis: Any) -> None:
        self.lock = sherlock.RedisLock("job", client=redis)
        KEPT.append(self.lock)

    def acquire(self, ttl_ms: int) -> bool:
        self.lock.expire = ttl_ms // 1000
        return bool(self.lock.acquire(blocking=False))

    def renew(self, ttl_ms: int) -> bool:
        self.lock.expire = ttl_ms // 1000
        return bool(self.lock.renew())

    def release(self) -> None:
        self.lock.release()


def forget() -> None:
    """A run is over: nothing of it is to be released later."""
    for each in KEPT:
        each._owner = None
    KEPT.clear()


class Redlock:
    """pottery's, on one server; two milliseconds and a hundredth of a term are for drift."""

    def __init__(self, redis: Any) -> None:
        self.lock = pottery.Redlock(key="job", masters={redis})

    def acquire(self, ttl_ms: int) -> bool:
        self.lock.auto_release_time = ttl_ms / 1000
        return bool(self.lock.acquire(blocking=False))

    def release(self) -> None:
        self.lock.release()


class OnRedis:
    """Locks of one class, on a server that is emptied for each run."""

    def __init__(self, server: Server, kind: Any, clock: Any) -> None:
        server.empty(clock)
        self.server, self.kind, self.clock = server, kind, clock
        self.redis: list[Any] = []

    def client(self, actor: str) -> Any:
        self.redis.append(self.server.client(self.clock))
        return self.kind(self.redis[-1])

    def close(self) -> None:
        forget()
        for each in self.redis:
            each.close()


def on_redis(server: Server, kind: Any, **options: Any) -> Any:
    def make(clock: Any) -> OnRedis:
        return OnRedis(server, kind, clock)

    make.__name__ = kind.__name__
    return lock_machine(make, **{"edge": "either", "settings": HUNT, **options})


class OfFiles:
    """sherlock's FileLock; it asks Python for the time, which is the test's."""

    def __init__(self, folder: Any, clock: Any) -> None:
        self.folder, self.clock = folder, clock
        self.time = time_machine.travel(clock.now_ms() / 1000, tick=False)
        self.now = self.time.start()
        for left in folder.iterdir():
            left.unlink()

    def client(self, actor: str) -> Any:
        return OfAFile(self)

    def close(self) -> None:
        forget()
        self.time.stop()


class OfAFile(Sherlock):
    def __init__(self, locks: OfFiles) -> None:
        self.locks, self.lock = locks, sherlock.FileLock("job", client=locks.folder)
        KEPT.append(self.lock)

    def _at(self, ttl_ms: int) -> None:
        self.locks.now.move_to(self.locks.clock.now_ms() / 1000, tick=False)
        self.lock.expire = dt.timedelta(milliseconds=ttl_ms).total_seconds()

    def acquire(self, ttl_ms: int) -> bool:
        self._at(ttl_ms)
        return bool(self.lock.acquire(blocking=False))

    def renew(self, ttl_ms: int) -> bool:
        self._at(ttl_ms)
        return bool(self.lock.renew())


SOUND: dict[str, tuple[Any, dict[str, Any]]] = {
    "redis-py": (RedisLock, {}),
    "python-redis-lock": (PythonRedisLock, SECONDS),
    "sherlock": (Sherlock, SECONDS),
}


@pytest.mark.parametrize("name", SOUND)
def test_what_is_sound_passes(server: Server, name: str) -> None:
    kind, options = SOUND[name]
    on_redis(server, kind, **options).run()


def test_what_is_sound_on_files_passes(tmp_path: Any) -> None:
    def make(clock: Any) -> OfFiles:
        return OfFiles(tmp_path, clock)

    lock_machine(make, edge="either", settings=HUNT).run()


class HueyLock:
    """``huey.lock_task()``: a key that is there or not, and whoever comes may delete it."""

    def __init__(self, clock: Any) -> None:
        self.huey = huey.MemoryHuey()

    def client(self, actor: str) -> Any:
        lock = self.huey.lock_task("job")
        lock.acquire_plainly = lock.acquire
        lock.acquire = lambda _: lock.acquire_plainly()  # it has no ttl unless it is given one
        return lock


NEVER_ENDS = ("refused-free",)
"""What is known of a lock without a ttl: whoever dies with it keeps it."""


def found_of(machine: Any, *names: str) -> None:
    """It is found, under one of these names, and again by its script."""
    with pytest.raises(Violation) as found:
        machine.run()
    assert found.value.name in names, found.value  # whose text is the timeline
    with pytest.raises(Violation) as again:
        machine.replay(found.value.script)
    assert again.value.name == found.value.name


def test_found_of_huey() -> None:
    # Most runs end at what is tolerated: where the term should have ended.
    machine = lock_machine(HueyLock, tolerate=NEVER_ENDS, settings=settings(HUNT, max_examples=400))
    found_of(machine, "foreign-release", "reentry")


def test_found_of_redis_pys_extend(server: Server) -> None:
    found_of(on_redis(server, AddsToTheTtl), "refused-free")


def test_found_of_pottery(server: Server) -> None:
    """A refused acquire makes up a new name for its holder, who then can't release what it has."""
    machine = on_redis(server, Redlock, tick_ms=1_000)
    found_of(machine, "lost-hold")
