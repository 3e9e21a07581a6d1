"""How fairly processes are served when all of them want to write (K-TX-4).

    python -m bench.fairness [--json FILE]

Each case runs several processes on one file, through the store's own ``begin()`` and, for
comparison, through plain sqlite3 with its busy handler. "A stopped head" and "a killed head"
stop or kill a process that stands first in the queue and show how long the others wait.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench import hand_written
from bench.report import arguments, publish
from lash_store import SessionStore

_FORK = multiprocessing.get_context("fork")

Write = Callable[[float], None]
"""One write transaction that holds the lock for so many seconds."""


@dataclass(frozen=True)
class Case:
    """Some processes, each in a loop: a transaction that holds the lock, then perhaps a pause."""

    name: str
    processes: int
    hold_s: float
    seconds: float


CASES = (
    Case("4 processes, 5 ms hold", 4, 0.005, 6.0),
    Case("4 processes, tight loop", 4, 0.0, 3.0),
    Case("16 processes, 2 ms hold", 16, 0.002, 6.0),
)


def main() -> None:
    """Run every case both ways, and the two with a head that can't go on."""
    options = arguments(__doc__)
    figures = []
    for case in CASES:
        for how, connect in (("store", _store_writer), ("busy handler", _busy_handler_writer)):
            figures.append(run(case, how, connect))
    figures.append(head_in_trouble("a stopped head of the queue", _stop))
    figures.append(head_in_trouble("a killed head whose forked child lives on", _kill))
    publish(figures, options.json)


def run(case: Case, how: str, connect: Callable[[Path], Write]) -> dict[str, Any]:
    """Run one case and summarise what each process got."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fair.db"
        SessionStore.open(path, session_id="s").close()
        start = time.monotonic() + 0.5
        workers = [_start(_work, path, connect, case, start) for _ in range(case.processes)]
        results = [pipe.recv() for _, pipe in workers]
        for process, _ in workers:
            process.join()
    counts = sorted(count for count, _, _ in results)
    mean = sum(counts) / len(counts)
    return {
        "case": case.name,
        "how": how,
        "per_second": round(sum(counts) / case.seconds),
        "fewest": counts[0],
        "most": counts[-1],
        "furthest_from_mean_percent": round(max(abs(c - mean) for c in counts) / mean * 100, 1),
        "longest_wait_ms": round(max(wait for _, wait, _ in results) * 1000),
        "errors": sum(errors for _, _, errors in results),
    }


def _start(target: Callable[..., None], *args: Any) -> tuple[Any, Connection]:
    mine, theirs = _FORK.Pipe()
    process = _FORK.Process(target=target, args=(*args, theirs))
    process.start()
    theirs.close()
    return process, mine


def _work(
    path: Path, connect: Callable[[Path], Write], case: Case, start: float, pipe: Connection
) -> None:
    write = connect(path)
    time.sleep(max(0.0, start - time.monotonic()))
    count = errors = 0
    longest = 0.0
    while (began := time.monotonic()) < start + case.seconds:
        try:
            write(case.hold_s)
        except Exception:  # noqa: BLE001 # reason: whatever it is, it is counted and published
            errors += 1
            continue
        longest = max(longest, time.monotonic() - began - case.hold_s)
        count += 1
    pipe.send((count, longest, errors))


def _store_writer(path: Path) -> Write:
    store = SessionStore.open(path, session_id="s")

    def write(hold_s: float) -> None:
        with store.begin() as tx:
            tx.claim_lease(owner_id="w", ttl_ms=0)
            if hold_s:
                time.sleep(hold_s)

    return write


def _busy_handler_writer(path: Path) -> Write:
    connection = hand_written.connect(path)

    def write(hold_s: float) -> None:
        hand_written.claim(connection, "s", "w", 0, hold_s=hold_s)

    return write


def head_in_trouble(name: str, trouble: Callable[[int], None]) -> dict[str, Any]:
    """Let one process hold the lock, a second become head of the queue and get into trouble.

    Then two more write for a while; the longest wait of any is the figure.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fair.db"
        SessionStore.open(path, session_id="s").close()
        # Started before the transaction: a child that is forked inside one is refused the file.
        head, head_pipe = _start(_be_head, path)
        child = head_pipe.recv()
        store = SessionStore.open(path, session_id="s")
        with store.begin():
            head_pipe.send("go")
            time.sleep(0.05)  # it is in the queue by now, and has closed the gate
            trouble(head.pid or 0)
        start = time.monotonic()
        case = Case(name, 2, 0.002, 3.0)
        workers = [_start(_work, path, _store_writer, case, start) for _ in range(2)]
        results = [pipe.recv() for _, pipe in workers]
        for process, _ in workers:
            process.join()
        store.close()
        for pid in (head.pid or 0, child):
            with suppress(ProcessLookupError):
                _kill(pid)
        head.join()
    return {
        "case": name,
        "how": "store",
        "per_second": round(sum(count for count, _, _ in results) / case.seconds),
        "longest_wait_ms": round(max(wait for _, wait, _ in results) * 1000),
        "errors": sum(errors for _, _, errors in results),
    }


def _be_head(path: Path, pipe: Connection) -> None:
    store = SessionStore.open(path, session_id="s")
    # A child that was forked past Python's own hooks would keep the queue's descriptor; this
    # one is given a duplicate, which holds the queue's lock just as long.
    mine, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        socket.recv_fds(theirs, 1, 1)
        time.sleep(30)
        os._exit(0)
    store.claim_lease(owner_id="head", ttl_ms=0)
    handle: Any = store._handle  # noqa: SLF001 # reason: the trouble is with its queue's very descriptor
    queue = handle.database.connections.queue
    descriptor = queue._descriptor if queue else None  # noqa: SLF001 # reason: the same
    if descriptor is not None:
        socket.send_fds(mine, [b"x"], [descriptor])
    pipe.send(child)
    pipe.recv()
    with store.begin():
        pass
    time.sleep(30)


def _stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
