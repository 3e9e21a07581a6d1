"""One database for many: idle waiters, a long queue, and processes beside one another.

python -m bench.one_database [--waiters N] [--rows N] [--seconds S] [--json FILE]

``waiters``: a commit of another session, and one of another process of the registry, while so many
threads wait for processes to end, ÷ the same without them. ``claim``: from a queue of so many rows, in a
shared database, ÷ from one of a thousand, before and after ANALYZE. ``processes``: each appends to a
session of its own, all in one database or each in a file; commits a second in all, and the 99th
percentile of one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.report import publish
from lash_store import (
    Deployment,
    External,
    Host,
    NewWork,
    ProcessRegistration,
    Provenance,
    SessionStore,
)

CALLS = 300
PAIRS = 9
TTL_MS = 600_000


def main() -> None:
    """Measure all three and publish the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiters", type=int, default=100)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON; - is stdout")
    options = parser.parse_args()
    figures = [
        *waiters(options.waiters),
        *claims(options.rows),
        *(each for count in (2, 8) for each in processes(count, options.seconds)),
    ]
    publish(figures, options.json)


def waiters(count: int) -> list[dict[str, Any]]:
    """Commits beside threads that wait for something else."""
    figures = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Deployment.open(f"sqlite:///{folder}/shared.db") as deployment,
    ):
        registry = deployment.processes
        names = [f"p{at}" for at in range(count)]
        for name in (*names, "busy"):
            registry.register_process(ProcessRegistration(name, External({}), Provenance(Host())))
        session = deployment.sessions.create("one", model="m")
        cases: dict[str, Callable[[], object]] = {
            "another session": lambda: session.enqueue_work(NewWork([1])),
            "another process": lambda: registry.claim_lease("busy", owner_id="w", ttl_ms=TTL_MS),
        }
        alone: dict[str, list[float]] = {name: [] for name in cases}
        beside: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(PAIRS):
            for name, call in cases.items():
                alone[name].append(timed(call))
            ended = threading.Event()

            def wait(process_id: str, ended: threading.Event = ended) -> None:
                while not ended.is_set():
                    registry.await_process(process_id, timeout_ms=2_000)

            threads = [threading.Thread(target=wait, args=(name,)) for name in names]
            for each in threads:
                each.start()
            time.sleep(0.3)
            for name, call in cases.items():
                beside[name].append(timed(call))
            ended.set()
            for each in threads:
                each.join()
        for name in cases:
            ratios = [b / a for a, b in zip(alone[name], beside[name], strict=True)]
            figures.append(row(f"commit of {name}, {count} waiters", beside[name], ratios))
    return figures


def claims(rows: int) -> list[dict[str, Any]]:
    """Claims at the head of a long queue and of a short one, in one database each."""
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        opened = {}
        for count in (1_000, rows):
            path = Path(folder) / f"{count}.db"
            with SessionStore.open(f"sqlite:///{path}", session_id="s") as store:
                store.enqueue_work(NewWork([1]))
            fill_queue(path, count)
            opened[count] = path
        for how in ("", ", after ANALYZE"):
            if how:
                for path in opened.values():
                    with closing(sqlite3.connect(path)) as database:
                        database.execute("ANALYZE")
            stores = [
                SessionStore.open(f"sqlite:///{path}", session_id="s") for path in opened.values()
            ]
            calls = [claim_and_give_back(store) for store in stores]
            pairs = [(timed(calls[0]), timed(calls[1])) for _ in range(PAIRS)]
            ratios = [long / short for short, long in pairs]
            figures.append(
                row(f"claim and abandon, {rows} queued{how}", [b for _, b in pairs], ratios)
            )
            for store in stores:
                store.close()
    return figures


def fill_queue(path: Path, count: int) -> None:
    """Copy the one batch that is there, so many times."""
    with closing(sqlite3.connect(path)) as database, database:
        names = [row[1] for row in database.execute("PRAGMA table_info(lash_queued_work_batches)")]
        values = ", ".join(
            {"enqueue_seq": "at.n + 1", "batch_id": "'qwb:' || at.n"}.get(name, name)
            for name in names
        )
        database.execute(
            "WITH RECURSIVE at(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM at WHERE n < ?) "
            f"INSERT INTO lash_queued_work_batches SELECT {values} "
            "FROM lash_queued_work_batches, at WHERE enqueue_seq = 1",
            (count,),
        )
        database.execute(
            "INSERT INTO lash_queued_work_items SELECT b.store, b.batch_id, 0, 'i' || b.enqueue_seq, '1' "
            "FROM lash_queued_work_batches AS b WHERE b.enqueue_seq > 1"
        )


def claim_and_give_back(store: SessionStore) -> Callable[[], object]:
    """Return a call that takes the head of the queue and gives it back."""
    lease: Any = store.claim_lease(owner_id="w", ttl_ms=TTL_MS)

    def call() -> None:
        claim = store.claim_work(lease.fence, owner_id="w", ttl_ms=TTL_MS)
        assert claim is not None
        store.abandon_claim(claim)

    return call


def processes(count: int, seconds: float) -> list[dict[str, Any]]:
    """Processes that append, all in one database or each in a file of its own."""
    figures = []
    context = multiprocessing.get_context("spawn")
    for layout in ("one database", "a file each"):
        with tempfile.TemporaryDirectory() as folder:
            start, results = context.Barrier(count), context.Queue()
            started = []
            for at in range(count):
                where = (
                    f"sqlite:///{folder}/shared.db"
                    if layout == "one database"
                    else f"{folder}/{at}.db"
                )
                started.append(
                    context.Process(target=append, args=(where, at, seconds, start, results))
                )
                started[-1].start()
            took_us = [results.get() for _ in started]
            for each in started:
                each.join()
        everything = sorted(one for each in took_us for one in each)
        figures.append(
            {
                "case": f"{count} processes, {layout}",
                "us": round(statistics.median(everything), 1),
                "per second": round(len(everything) / seconds),
                "p99 ms": round(everything[len(everything) * 99 // 100] / 1000, 2),
                "least of them": round(min(map(len, took_us)) / max(map(len, took_us)), 2),
            }
        )
    return figures


def append(where: str, at: int, seconds: float, start: Any, results: Any) -> None:
    """Append to a session of one's own for so long; tell how long each took, in microseconds."""
    took = []
    with SessionStore.open(where, session_id=f"s{at}") as store:
        start.wait()
        until_s = time.perf_counter() + seconds
        while (now_s := time.perf_counter()) < until_s:
            store.enqueue_work(NewWork([1]))
            took.append((time.perf_counter() - now_s) * 1e6)
    results.put(took)


def timed(call: Callable[[], object]) -> float:
    """Return how long one call takes, in microseconds."""
    started_s = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - started_s) / CALLS * 1e6


def row(case: str, took_us: list[float], ratios: list[float]) -> dict[str, Any]:
    """Return one row of the report."""
    return {
        "case": case,
        "us": round(statistics.median(took_us), 1),
        "ratio": round(statistics.median(ratios), 3),
        "from": round(min(ratios), 3),
        "to": round(max(ratios), 3),
    }


if __name__ == "__main__":
    main()
