"""Forks beside threads and an event loop, in a process of its own: ``python -m tests.concurrency.forking``.

Prints a report as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from lash_store import AsyncSessionStore, NewWork, SessionDirectory, SessionStore

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: that is the test

ENOUGH_S = 20
"""For a child to do what takes a few milliseconds."""

FINE = 7


class Report:
    """What was done, and every error, of this process and of its children."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.counts: dict[str, int] = {}
        self.stop = threading.Event()

    def run(self, name: str, work: Callable[[], Any]) -> threading.Thread:
        """Do `work` again and again on a thread, until the end."""

        def again() -> None:
            done = 0
            while not self.stop.is_set():
                try:
                    work()
                except BaseException:  # noqa: BLE001 # reason: it is reported
                    self.errors.append(traceback.format_exc())
                    break
                done += 1
            self.counts[name] = done

        thread = threading.Thread(target=again, name=name)
        thread.start()
        return thread

    def fork(self, work: Callable[[], Any]) -> None:
        """Do `work` in a child, which must say that it was fine."""
        child = os.fork()
        if child == 0:
            _end_after(work)
        until_s = time.monotonic() + ENOUGH_S
        while time.monotonic() < until_s:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                if code != FINE:
                    self.errors.append(f"a child ended with {code}")
                return
            time.sleep(0.0005)
        os.kill(child, 9)
        os.waitpid(child, 0)
        self.errors.append("a child hung")

    def fork_and_stop(
        self, forks: int, child: Callable[[], Any], threads: list[threading.Thread]
    ) -> None:
        """Do `child` in so many children, or until an error; then end the threads."""
        for _ in range(forks):
            self.fork(child)
            if self.errors:
                break
        self.stop.set()
        for thread in threads:
            thread.join(ENOUGH_S)
            if thread.is_alive():
                self.errors.append(f"{thread.name} hangs")


def _end_after(work: Callable[[], Any]) -> None:
    code = 1
    try:
        work()
        code = FINE
    except BaseException:  # noqa: BLE001 # reason: the parent reports it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def beside_readers(path: Path, forks: int, report: Report) -> None:
    """Four threads read in a loop; each child reads and writes."""
    with SessionStore.open(path, session_id="s") as store:
        store.claim_lease(owner_id="ann", ttl_ms=600_000)

        def read() -> None:
            store.current_lease()
            time.sleep(0.0005)  # four threads without a pause leave the forks little of two cores

        threads = [report.run(f"reads {n}", read) for n in range(4)]
        for number in range(forks):

            def child(number: int = number) -> None:
                assert store.current_lease() is not None
                store.put_blob(str(number).encode())

            report.fork(child)
            if report.errors:
                break
        report.stop.set()
        for thread in threads:
            thread.join(ENOUGH_S)
        with store.read() as tx:
            count = tx.connection.exec_driver_sql("SELECT count(*) FROM blobs").scalar()
        report.counts["blobs"] = int(count or 0)


def beside_waiters(path: Path, forks: int, report: Report) -> None:
    """Four threads wait for commits, so that somebody always looks for those of the children."""
    with SessionStore.open(path, session_id="s") as store:
        threads = [
            report.run(f"waits {n}", lambda: store.wait_until(lambda _: None, timeout_ms=3))
            for n in range(4)
        ]
        report.fork_and_stop(forks, lambda: store.put_blob(b"x"), threads)


def beside_writers_and_a_loop(path: Path, forks: int, report: Report) -> None:  # noqa: C901, PLR0915 # reason: three kinds of writers share one count
    """Two threads and sixteen tasks write; each child writes as well, by threads and by asyncio."""
    acknowledged: list[str] = []
    looping = threading.Event()

    with SessionStore.open(path, session_id="s") as store:
        beside = AsyncSessionStore.open(store, session_id="s")

        async def task(number: int) -> None:
            done = 0
            while not report.stop.is_set():
                payload = f"task {number} {done}"
                await beside.enqueue_work(NewWork([payload]))
                acknowledged.append(payload)
                done += 1
                looping.set()
            report.counts[f"task {number}"] = done

        async def tasks() -> None:
            async with beside:
                await asyncio.gather(*(task(number) for number in range(16)))

        def loop() -> None:
            try:
                asyncio.run(tasks())
            except BaseException:  # noqa: BLE001 # reason: it is reported
                report.errors.append(traceback.format_exc())

        def writer(number: int) -> Callable[[], None]:
            done = iter(range(10**9))

            def write() -> None:
                payload = f"thread {number} {next(done)}"
                store.enqueue_work(NewWork([payload]))
                acknowledged.append(payload)
                time.sleep(0.002)

            return write

        looped = threading.Thread(target=loop, name="loop")
        looped.start()
        threads = [report.run(f"writes {n}", writer(n)) for n in range(2)]
        looping.wait(ENOUGH_S)
        for number in range(forks):

            def child(number: int = number) -> None:
                store.enqueue_work(NewWork([f"child {number} sync"]))

                async def use() -> None:
                    await beside.enqueue_work(NewWork([f"child {number} asyncio"]))

                asyncio.run(use())

            before = len(acknowledged)
            report.fork(child)
            acknowledged += [f"child {number} sync", f"child {number} asyncio"]
            until_s = time.monotonic() + ENOUGH_S
            while len(acknowledged) < before + 10 and time.monotonic() < until_s:
                time.sleep(0.001)  # the parent's loop and threads go on
            if report.errors or len(acknowledged) < before + 10:
                report.errors += [] if report.errors else ["the parent does not go on"]
                break
        report.stop.set()
        for thread in (*threads, looped):
            thread.join(ENOUGH_S)
            if thread.is_alive():
                report.errors.append(f"{thread.name} hangs")
        found = [batch.items[0].payload for batch in store.list_work()]
    report.counts["acknowledged"] = len(acknowledged)
    report.counts["lost"] = len(set(acknowledged) - set(map(str, found)))
    report.counts["doubled"] = len(found) - len(set(map(str, found)))
    report.counts["found"] = len(found)


def after_dropped_stores(path: Path, forks: int, report: Report) -> None:
    """Each child writes beside a parent that has dropped a store before, whose rest is collected then."""
    gc.disable()
    for number in range(forks):
        SessionStore.open(path, session_id="s").put_blob(b"before %d" % number)
        (written, say_written), (ended, say_ended) = os.pipe(), os.pipe()

        def child(number: int = number, say_written: int = say_written, ended: int = ended) -> None:
            with SessionStore.open(path, session_id="s") as store:
                store.put_blob(b"child %d" % number)
                os.write(say_written, b"x")
                os.read(ended, 1)
                store.put_blob(b"child %d again" % number)

        def collect(written: int = written, say_ended: int = say_ended) -> None:
            os.read(written, 1)
            gc.collect()
            os.write(say_ended, b"x")

        collecting = threading.Thread(target=collect)
        collecting.start()
        report.fork(child)
        collecting.join(ENOUGH_S)
        for each in (written, say_written, ended, say_ended):
            os.close(each)
        if report.errors:
            break
    with SessionStore.open(path, session_id="s") as store, store.read() as tx:
        count = tx.connection.exec_driver_sql("SELECT count(*) FROM blobs").scalar()
    report.counts["blobs"] = int(count or 0)


def beside_closing(path: Path, forks: int, report: Report) -> None:
    """A thread opens and closes stores, another drops them; each child uses a file of its own."""

    def close() -> None:
        with SessionStore.open(path, session_id="s") as store:
            store.put_blob(os.urandom(30_000))

    def drop() -> None:
        SessionStore.open(f"{path}-dropped", session_id="s").put_blob(os.urandom(30_000))

    def child() -> None:
        with SessionStore.open(f"{path}-child", session_id="s") as store:
            store.put_blob(b"x")

    threads = [report.run("closes", close), report.run("drops", drop)]
    report.fork_and_stop(forks, child, threads)


def beside_memory(path: Path, forks: int, report: Report) -> None:
    """A thread writes to a store in memory, another makes and deletes sessions; each child uses a file of its own."""
    memory = SessionStore.open(None, session_id="m")
    sessions = SessionDirectory(path.with_name("sessions"))

    def delete() -> None:
        sessions.create("s", model="m").close()
        sessions.delete("s")

    def child() -> None:
        with SessionStore.open(f"{path}-child", session_id="s") as store:
            store.put_blob(b"x")

    threads = [
        report.run("puts", lambda: memory.put_blob(os.urandom(2_000))),
        report.run("deletes", delete),
    ]
    report.fork_and_stop(forks, child, threads)


CASES: Final = (
    beside_readers,
    beside_waiters,
    beside_writers_and_a_loop,
    after_dropped_stores,
    beside_closing,
    beside_memory,
)

if __name__ == "__main__":
    made = Report()
    cases = {each.__name__: each for each in CASES}
    cases[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]), made)
    sys.stdout.write(json.dumps({"errors": made.errors, "counts": made.counts}))
    sys.stdout.flush()
    os._exit(0)  # whatever hangs
