"""From a put in another process to the claim of who waits for it, in milliseconds."""

from __future__ import annotations

import asyncio
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import honker

from bench.peers.queues import JOB, LONG_MS, WORKER, LiteQueue, Sessions
from bench.peers.rounds import new_folder
from bench.peers.workers import ROOT

_PUTS: Final = 20


def measure(rounds: int) -> list[dict[str, Any]]:
    """Measure how long each put takes to be claimed: the median, and 99 of a hundred."""
    figures = []
    for name, waiting in (("session", _session), ("honker", _honker), ("litequeue", _litequeue)):
        delays = sorted(waiting(new_folder(), rounds * _PUTS))
        figures.append(
            {
                "case": "wake-up by another process",
                "contestant": _NAMES[name],
                "unit": "ms",
                "median": round(statistics.median(delays), 2),
                "least": round(delays[0], 2),
                "p99": round(delays[int(len(delays) * 0.99)], 2),
                "most": round(delays[-1], 2),
            }
        )
    return figures


_NAMES: Final = {
    "session": Sessions.name,
    "honker": "honker",
    "litequeue": "litequeue, asked every 10 ms",
}


class Putter:
    """Another process that puts a job when it is told to, and says when it did."""

    def __init__(self, name: str, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.peers.wakeups", name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._say("")

    def _say(self, words: str) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if words:
            self.process.stdin.write(f"{words}\n")
            self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def tell(self) -> None:
        """Let it put a job, some milliseconds from now."""
        assert self.process.stdin is not None
        self.process.stdin.write("put\n")
        self.process.stdin.flush()

    def put_at(self) -> float:
        """Return when it had put the last one."""
        return self._say("")

    def close(self) -> None:
        """End it."""
        self.process.communicate()


def _delays(putter: Putter, times: int, wait: Callable[[], None]) -> list[float]:
    delays = []
    for _ in range(times):
        putter.tell()
        wait()
        claimed_at = time.monotonic()
        delays.append((claimed_at - putter.put_at()) * 1000)
    putter.close()
    return delays


def _session(folder: Path, times: int) -> list[float]:
    queue = Sessions(folder, "NORMAL")
    store, fence = queue.stores[0], queue.fences[0]

    def wait() -> None:
        store.wait_until(lambda tx: tx.work_depth().ready or None, timeout_ms=10_000)
        claim = store.claim_work(fence, owner_id=WORKER, ttl_ms=LONG_MS)
        assert claim is not None
        store.complete_work(fence, claim)

    return _delays(Putter("session", folder), times, wait)


def _litequeue(folder: Path, times: int) -> list[float]:
    queue = LiteQueue(folder, "NORMAL")

    def wait() -> None:
        while (job := queue.claim()) is None:
            time.sleep(0.01)
        queue.complete(job)

    return _delays(Putter("litequeue", folder), times, wait)


def _honker(folder: Path, times: int) -> list[float]:
    queue = honker.open(str(folder / "honker.db")).queue("bench")
    loop = asyncio.new_event_loop()
    jobs = queue.claim(WORKER)

    async def one() -> Any:
        return await anext(jobs)

    def wait() -> None:
        loop.run_until_complete(one()).ack()

    try:
        return _delays(Putter("honker", folder), times, wait)
    finally:
        loop.close()


def put(name: str, folder: str) -> None:
    """Put a job for each line, after a while that nobody can foresee."""
    if name == "honker":
        queue: Any = honker.open(f"{folder}/honker.db").queue("bench")
        add: Callable[[], object] = partial(queue.enqueue, JOB)
    else:
        made = (Sessions if name == "session" else LiteQueue)(Path(folder), "NORMAL")
        add = made.put
    print(time.monotonic(), flush=True)
    for _ in sys.stdin:
        time.sleep(random.uniform(0.005, 0.03))
        add()
        print(time.monotonic(), flush=True)


if __name__ == "__main__":
    put(sys.argv[1], sys.argv[2])
