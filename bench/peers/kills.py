"""Workers that are killed with SIGKILL in the midst of a job: what nobody does, and what is done twice.

A worker is killed while it works on a job that it has claimed, some jobs after it began; another takes its
place, recovers what the package recovers, and goes on. At the end one works off the rest. Then a job is
claimed twice, by a worker that stalls and by another; what the first says of it afterwards must be refused.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import persistqueue

from bench.peers.queues import (
    WORKER,
    Honker,
    Huey,
    LiteQueue,
    PersistQueue,
    Registry,
    Sessions,
    Shared,
    Synchronous,
)
from bench.peers.rounds import new_folder
from bench.peers.workers import ROOT
from lash_store import External, Host, NewWork, ProcessRegistration, Provenance

KILLS: Final = 50
_MOST: Final = 10
"""How many jobs a worker does at most before it is killed."""

JOBS: Final = KILLS * _MOST
_TTL_S: Final = 1
"""How long a claim holds: what the packages take whole seconds for."""


class Numbered:
    """What the table needs beside a queue: jobs that can be told apart, and claims that run out."""

    def put_number(self, number: int) -> None:
        """Add a job."""
        raise NotImplementedError

    def number_of(self, job: Any) -> int:
        """Return which it is."""
        raise NotImplementedError

    def recover(self) -> None:
        """Do what the package says is to be done after a crash."""


class _Sessions(Numbered, Sessions):
    def put_number(self, number: int) -> None:
        self.stores[0].enqueue_work(NewWork([number]))

    def claim(self) -> Any:
        return self.stores[0].claim_work(self.fences[0], owner_id=WORKER, ttl_ms=_TTL_S * 1000)

    def number_of(self, job: Any) -> int:
        return int(job.batches[0].items[0].payload)


class _Shared(_Sessions, Shared):
    pass


class _Registry(Numbered, Registry):
    def put_number(self, number: int) -> None:
        self.registry.register_process(
            ProcessRegistration(f"job-{number:06}", External({}), Provenance(Host()))
        )

    def claim(self) -> Any:
        return self.registry.claim_next(owner_id=WORKER, ttl_ms=_TTL_S * 1000)

    def number_of(self, job: Any) -> int:
        return int(job.lease.key.removeprefix("job-"))


class _LiteQueue(Numbered, LiteQueue):
    def put_number(self, number: int) -> None:
        self.queue.put(str(number))

    def number_of(self, job: Any) -> int:
        return int(job.data)

    def recover(self) -> None:
        self.queue.retry_expired(_TTL_S)


class _Huey(Numbered, Huey):
    def put_number(self, number: int) -> None:
        self.storage.enqueue(str(number).encode())

    def number_of(self, job: Any) -> int:
        return int(bytes(job))


class _Honker(Numbered, Honker):
    def __init__(self, folder: Path, synchronous: Synchronous) -> None:
        super().__init__(folder, synchronous)
        self.queue = self.database.queue("kills", visibility_timeout_s=_TTL_S, max_attempts=10**6)

    def put_number(self, number: int) -> None:
        self.queue.enqueue(number)

    def number_of(self, job: Any) -> int:
        return int(job.payload)


class _PersistQueue(Numbered, PersistQueue):
    def __init__(self, folder: Path, synchronous: Synchronous) -> None:
        super().__init__(folder, synchronous)
        self.folder = folder

    def put_number(self, number: int) -> None:
        self.queue.put(number)

    def number_of(self, job: Any) -> int:
        return int(job["data"])

    def recover(self) -> None:
        self.queue = persistqueue.SQLiteAckQueue(str(self.folder), auto_commit=True, timeout=30)


CONTESTANTS: Final[dict[str, Callable[[Path, Synchronous], Any]]] = {
    "session": _Sessions,
    "shared": _Shared,
    "registry": _Registry,
    "litequeue": _LiteQueue,
    "huey": _Huey,
    "honker": _Honker,
    "persist-queue": _PersistQueue,
}


def measure(_: int) -> list[dict[str, Any]]:
    """Count the jobs that nobody completed, and those that were completed twice."""
    return [_killed(name) for name in CONTESTANTS]


def _killed(name: str) -> dict[str, Any]:
    folder = new_folder()
    queue = CONTESTANTS[name](folder, "NORMAL")
    for number in range(JOBS):
        queue.put_number(number)
    log = folder / "log"
    for _ in range(KILLS):
        command = [sys.executable, "-m", "bench.peers.kills", name, str(folder)]
        before_it_hangs = str(random.randint(1, _MOST - 2))
        worker = subprocess.Popen(
            [*command, before_it_hangs], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert worker.stdout is not None
        worker.stdout.readline()  # it is in the midst of a job, or has found none
        worker.kill()
        worker.communicate()
    _work_off(CONTESTANTS[name](folder, "NORMAL"), log)
    done = Counter(int(line) for line in log.read_text().split())
    return {
        "case": f"{KILLS} SIGKILLs, {JOBS} jobs",
        "contestant": queue.name,
        "never completed": JOBS - len(done),
        "completed twice": sum(count > 1 for count in done.values()),
        "late completion": _stale(name),
    }


def _work_off(queue: Any, log: Path) -> None:
    for _ in range(3):  # what was claimed last runs out
        time.sleep(_TTL_S + 0.2)
        queue.recover()
        while (job := queue.claim()) is not None:
            _complete(queue, job, log)


def _complete(queue: Any, job: Any, log: Path) -> None:
    queue.complete(job)
    with log.open("a") as lines:
        lines.write(f"{queue.number_of(job)}\n")


def _stale(name: str) -> str:
    """Say whether what a worker says is accepted after another has claimed its job."""
    folder = new_folder()
    stalled, other = (CONTESTANTS[name](folder, "NORMAL") for _ in range(2))
    stalled.put_number(1)
    first = stalled.claim()
    time.sleep(_TTL_S + 0.2)
    other.recover()
    second = other.claim()
    if second is None:
        return "not handed out again"
    try:
        accepted = stalled.complete(first)
    except Exception as error:  # noqa: BLE001 # reason: however it is refused
        return f"refused: {type(error).__name__}"
    return "accepted" if accepted in (None, True) else "refused"


def work(name: str, folder: str, count: int) -> None:
    """Do some jobs, and hang in the midst of the next."""
    queue = CONTESTANTS[name](Path(folder), "NORMAL")
    queue.recover()
    for _ in range(count):
        if (job := queue.claim()) is not None:
            _complete(queue, job, Path(folder) / "log")
    queue.claim()
    print("here", flush=True)
    time.sleep(60)


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]))
