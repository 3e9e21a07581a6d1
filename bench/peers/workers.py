"""Processes that work off jobs which wait already: claims and completions a second, all together."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from bench.peers.grouped import GroupedShared
from bench.peers.queues import QUEUES, Queue
from bench.peers.rounds import in_turn, new_folder

ROOT: Final = Path(__file__).resolve().parents[2]
JOBS: Final = 20_000
PROCESSES: Final = (1, 2, 4, 8)
CONTESTANTS: Final[dict[str, type[Queue]]] = {
    **{name: QUEUES[name] for name in ("raw", "session", "shared")},
    "grouped": GroupedShared,
    **{name: QUEUES[name] for name in ("registry", "litequeue", "huey", "honker")},
}

_NAMES: Final = {
    "session": "lash_store, sessions in eight files",
    "shared": "lash_store, eight sessions in one database",
    "grouped": "lash_store, the same, 64 tasks together",
}


def measure(rounds: int) -> list[dict[str, Any]]:
    """Measure jobs a second, at ``synchronous=NORMAL``."""
    figures = []
    for processes in PROCESSES:
        contestants: dict[str, Callable[[], float]] = {
            name: partial(_run, name, processes) for name in CONTESTANTS
        }
        for name, found in in_turn(contestants, max(1, rounds // 3)).items():
            figures.append(
                {
                    "case": f"{processes} processes",
                    "contestant": _NAMES.get(name, CONTESTANTS[name].name),
                    "unit": "jobs a second",
                    **found,
                }
            )
    return figures


def _run(name: str, processes: int) -> float:
    folder = new_folder()
    CONTESTANTS[name](folder, "NORMAL").fill(JOBS)
    command = [sys.executable, "-m", "bench.peers.workers", name, str(folder)]
    workers = [
        subprocess.Popen(
            [*command, str(index), str(processes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for index in range(processes)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    started = perf_counter()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    done = 0
    for worker in workers:
        assert worker.stdout is not None
        done += int(worker.stdout.readline())
    elapsed_s = perf_counter() - started
    for worker in workers:
        worker.communicate()
    assert done + processes == JOBS, f"{name}: {done + processes} of {JOBS} jobs were done"
    return done / elapsed_s


def work(name: str, folder: str, index: int, of: int) -> None:
    """Do one job, as a worker that runs already has; once told to, work off what there is, and say how much."""
    queue = CONTESTANTS[name](Path(folder), "NORMAL")
    queue.prepare_to_work(index, of)
    queue.work_once()
    print("ready", flush=True)
    sys.stdin.readline()
    print(queue.work_off(), flush=True)


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
