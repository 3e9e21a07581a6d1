"""The demo: three workers, one lease, a SIGKILL, a takeover, and a stale worker that returns."""

import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from sqlalchemy import func, select

from lash_store.cli.worker import SESSION_ID, STEPS, metadata, refusals, steps
from lash_store.schemas import check_file
from lash_store.session import statements
from lash_store.session.store import SessionStore

_DEADLINE_S = 14.0
_STEPS_BEFORE_KILL = 3
_WORKERS = ("worker-a", "worker-b", "worker-c")

Event = tuple[str, dict[str, Any]]


def run_demo() -> bool:
    """Run it, print a timeline as it happens, and return the database's own verdict."""
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="lash-store-demo-") as folder:
        path = Path(folder) / "session.db"
        with SessionStore.open(path, session_id=SESSION_ID) as store, store.begin() as tx:
            metadata.create_all(tx.connection)
        console.print(f"three workers want to execute one session: {path}")
        try:
            killed = _play(path, console)
        except queue.Empty:
            console.print(f"the workers did not finish within {_DEADLINE_S:.0f} s")
            return False
        console.print("\nthe verdict, from the database:")
        holds = True
        for claim, held in verdict(path, killed):
            holds = holds and held
            console.print(f"  {'yes' if held else 'NO '}  {claim}")
    return holds


def _play(path: Path, console: Console) -> str:
    """Direct the workers; return the name of the one that was killed."""
    events: queue.Queue[Event] = queue.Queue()
    started_s = time.monotonic()
    killed, fence, came_back, finished = "", "", False, 0
    with _started(path, events) as processes:
        while finished < len(_WORKERS) or not came_back:
            left_s = started_s + _DEADLINE_S - time.monotonic()
            name, event = events.get(timeout=max(left_s, 0.0))
            console.print(f"  {time.monotonic() - started_s:6.2f} s  {name}  {_told(event)}")
            match event:
                case {"event": "claimed", "fence": proof} if not fence:
                    fence = json.dumps(proof)
                case {"event": "step", "number": number} if (
                    not killed and number == _STEPS_BEFORE_KILL
                ):
                    killed = name
                    processes[name].kill()
                case {"event": "step", "number": 1} if killed and name not in (killed, "returning"):
                    if "returning" not in processes:
                        processes["returning"] = _start(path, killed, events, "returning", fence)
                case {"event": "came back"}:
                    came_back = True
                case {"event": "ended"} if name != "returning":
                    finished += 1
    return killed


def verdict(path: Path, killed: str) -> Iterator[tuple[str, bool]]:
    """Yield each promise and whether the rows in the database keep it."""
    with SessionStore.open(path, session_id=SESSION_ID) as store, store.read() as tx:
        work = tx.connection.execute(select(steps).order_by(steps.c.id)).all()
        refused = tx.connection.execute(select(refusals)).all()
        lease = tx.connection.execute(statements.current_lease(key=SESSION_ID)).one()
        workers = tx.connection.scalars(
            select(func.count(steps.c.worker.distinct())).group_by(steps.c.fencing_token)
        ).all()
    numbers = [row.fencing_token for row in work]
    terms = sorted(set(numbers))
    first = {number: min(r.at_ms for r in work if r.fencing_token == number) for number in terms}
    last = {number: max(r.at_ms for r in work if r.fencing_token == number) for number in terms}
    dead = [row for row in work if row.worker == killed]
    yield "three terms, numbered 1, 2, 3", terms == [1, 2, 3]
    yield "every term belongs to one worker", set(workers) == {1}
    yield "fencing numbers never go down", numbers == sorted(numbers)
    yield (
        "no two workers were at work at once",
        all(last[one] <= first[next_one] for one, next_one in pairwise(terms)),
    )
    yield (
        "the takeover waited until the dead worker's term had run out",
        bool(dead) and len(terms) > 1 and first[terms[1]] >= dead[-1].expires_at_ms,
    )
    yield (
        "the dead worker did not finish, the others did",
        0 < len(dead) < STEPS and len(work) == len(dead) + 2 * STEPS,
    )
    yield (
        "the worker that came back was refused, and wrote nothing",
        [(r.worker, r.fencing_token) for r in refused] == [(killed, 1)]
        and refused[0].reason in ("superseded", "released"),
    )
    yield "the lease is free and remembers its number", (lease[2], lease[3]) == (None, 3)
    yield "the file is sound", check_file(path).is_sound


@contextmanager
def _started(path: Path, events: queue.Queue[Event]) -> Iterator[dict[str, subprocess.Popen[str]]]:
    processes = {name: _start(path, name, events, name) for name in _WORKERS}
    try:
        yield processes
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def _start(
    path: Path, name: str, events: queue.Queue[Event], label: str, *fence: str
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lash_store.cli.worker", str(path), name, *fence]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 # reason: our own module
    threading.Thread(target=_listen, args=(process, label, events), daemon=True).start()
    return process


def _listen(process: subprocess.Popen[str], label: str, events: queue.Queue[Event]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            events.put((label, json.loads(line)))
    events.put((label, {"event": "ended", "status": process.wait()}))


def _told(event: dict[str, Any]) -> str:
    match event:
        case {"event": "waits", "holder": holder}:
            text = f"waits for {holder}"
        case {"event": "claimed", "fence": fence}:
            text = f"holds the lease, fencing number {fence[3]}"
        case {"event": "step", "number": number, "fencing_token": token}:
            text = f"step {number} under fencing number {token}"
        case {"event": "released", "fencing_token": token}:
            text = f"released fencing number {token}"
        case {"event": "came back"}:
            text = (
                f"came back with fencing number {event['fencing_token']}: its write changed "
                f"{event['rows_written']} rows, its renewal was refused ({event['renewal']})"
            )
        case {"event": "ended", "status": status}:
            text = "killed (SIGKILL)" if status == -signal.SIGKILL else f"ended, status {status}"
        case _:
            text = str(event)
    return text
