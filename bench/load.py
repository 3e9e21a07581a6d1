"""Mixed work by 1, 2, 4 and 8 processes and by 16 threads on one database, beside a reader that stays.

    python -m bench.load [--seconds N] [--json FILE]

In 32 sessions of one database, and in one session's file, each worker takes turns: a batch is
enqueued, a lease claimed, the first batch claimed, a node committed that completes it. In the database it
also registers, appends to and completes processes, and records steps. A reader opens one snapshot after the
other and stays in each for 20 ms. Each call is timed; batches that were lost or done twice are counted
from the rows at the end; so is how large the WAL has become.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from bench.report import publish
from lash_store import (
    Append,
    EffectStore,
    External,
    Host,
    NewWork,
    Node,
    ProcessRegistration,
    ProcessRegistry,
    Provenance,
    SessionLease,
    SessionStore,
    Success,
    TurnCommit,
    TurnStamp,
)
from lash_store.errors import LashStoreError

_SPAWN: Final = multiprocessing.get_context("spawn")
_SESSIONS: Final = 32
_TTL_MS: Final = 60_000
_SNAPSHOT_S: Final = 0.02


@dataclass
class Told:
    """What one worker has seen."""

    taken_ms: list[float] = field(default_factory=list)
    turns: int = 0
    enqueued: list[str] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def timed(self, call: Callable[[], Any]) -> Any:
        """Do a call, and remember how long it took."""
        started = time.perf_counter()
        try:
            return call()
        finally:
            self.taken_ms.append((time.perf_counter() - started) * 1000)


class Place:
    """Where the work is: 32 sessions, a registry and steps in one database, or one session in a file."""

    def __init__(self, where: str, *, is_shared: bool) -> None:
        self.where, self.is_shared = where, is_shared
        self.names = [f"s{at:02}" for at in range(_SESSIONS)] if is_shared else ["s"]

    @contextmanager
    def opened(self) -> Iterator[tuple[list[SessionStore], ProcessRegistry | None, Any]]:
        """Open its stores."""
        with ExitStack() as stack:
            sessions = [
                stack.enter_context(SessionStore.open(self.where, session_id=name))
                for name in self.names
            ]
            registry = effects = None
            if self.is_shared:
                registry = stack.enter_context(ProcessRegistry.open(self.where))
                effects = stack.enter_context(EffectStore.open(self.where))
            yield sessions, registry, effects


def main() -> None:
    """Run each number of workers at both places."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="each (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON; - is stdout")
    options = parser.parse_args()
    figures = []
    for is_shared in (True, False):
        for processes, threads in ((1, 1), (2, 1), (4, 1), (8, 1), (1, 16)):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "load.db"
                place = Place(f"sqlite:///{path}" if is_shared else str(path), is_shared=is_shared)
                figures.append(run(place, path, processes, threads, options.seconds))
    publish(figures, options.json)


def run(place: Place, path: Path, processes: int, threads: int, seconds: float) -> dict[str, Any]:
    """Let so many work for so long, and sum up what they have seen."""
    with place.opened():
        pass  # the tables are made
    started = [_start(work, place, threads, seconds) for _ in range(processes)]
    reader, reader_pipe = _start(stay, place, seconds)
    largest, until_s = 0, time.monotonic() + seconds
    wal = path.with_name(f"{path.name}-wal")
    while time.monotonic() < until_s:
        time.sleep(0.05)
        with suppress(FileNotFoundError):  # who ends last has emptied and removed it
            largest = max(largest, wal.stat().st_size)
    told: list[Told] = [each for _, pipe in started for each in pipe.recv()]
    snapshots = reader_pipe.recv()
    for process in (*(process for process, _ in started), reader):
        process.join()
    taken = sorted(each for one in told for each in one.taken_ms)
    turns = sorted(one.turns for one in told)
    return {
        "where": f"{len(place.names)} sessions in a database" if place.is_shared else "one session",
        "workers": f"{processes} processes" if threads == 1 else f"{threads} threads",
        "calls_a_second": round(len(taken) / seconds),
        "turns_a_second": round(sum(turns) / seconds),
        "p50_ms": _at(taken, 0.5),
        "p99_ms": _at(taken, 0.99),
        "max_ms": _at(taken, 1.0),
        "fewest_turns": turns[0],
        "most_turns": turns[-1],
        "snapshots": snapshots,
        "largest_wal_mb": round(largest / 1e6, 1),
        "errors": dict(sum((one.errors for one in told), Counter[str]())),
        **_lost(place, told),
    }


def _at(ordered: list[float], part: float) -> float:
    return round(ordered[min(int(len(ordered) * part), len(ordered) - 1)], 2)


def _lost(place: Place, told: list[Told]) -> dict[str, int]:
    enqueued = {key for one in told for key in one.enqueued}
    completed = Counter(key for one in told for key in one.completed)
    with place.opened() as (sessions, _, _):
        waiting: set[str] = set()
        nodes: Counter[str] = Counter()
        for store in sessions:
            waiting |= {str(item.payload) for work in store.list_work() for item in work.items}
            graph = store.load_graph()
            nodes.update(each.node_id for each in (() if graph is None else graph.nodes))
    return {
        "lost": len(enqueued - waiting - set(nodes)),
        "done_twice": sum(times > 1 for times in (*completed.values(), *nodes.values())),
        "done_and_waiting": len(waiting & set(nodes)),
    }


def _start(target: Callable[..., None], *args: Any) -> tuple[Any, Connection]:
    mine, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=target, args=(*args, theirs))
    process.start()
    theirs.close()
    assert mine.recv() == "ready"
    return process, mine


def stay(place: Place, seconds: float, pipe: Connection) -> None:
    """Read one snapshot after the other, and stay in each."""
    with place.opened() as (sessions, _, _):
        pipe.send("ready")
        until_s, snapshots = time.monotonic() + seconds, 0
        while time.monotonic() < until_s:
            with sessions[snapshots % len(sessions)].read() as tx:
                tx.load_head()
                time.sleep(_SNAPSHOT_S)
                tx.list_work(limit=100)
            snapshots += 1
        pipe.send(snapshots)


def work(place: Place, threads: int, seconds: float, pipe: Connection) -> None:
    """Take turns, in so many threads."""
    told = [Told() for _ in range(threads)]
    with place.opened() as stores:
        take = [partial(_work, stores, one, seconds, f"{id(one)}") for one in told]
        pipe.send("ready")
        if threads == 1:
            take[0]()
        else:
            running = [threading.Thread(target=each) for each in take]
            for each in running:
                each.start()
            for each in running:
                each.join()
    pipe.send(told)


def _work(stores: Any, told: Told, seconds: float, name: str) -> None:
    sessions, registry, effects = stores
    chance, numbers = random.Random(name), count()
    name = f"{name}-{chance.random()}"
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        key = f"{name}-{next(numbers)}"
        try:
            told.turns += _turn(chance.choice(sessions), told, key, name)
            if registry is not None:
                _process(registry, told, key)
                told.timed(partial(effects.run, name, key, {}, _nothing))
        except LashStoreError as error:
            told.errors[type(error).__name__] += 1


def _nothing() -> int:
    return 1


def _turn(store: SessionStore, told: Told, key: str, owner: str) -> bool:
    told.timed(lambda: store.enqueue_work(NewWork([key], source_key=key)))
    told.enqueued.append(key)
    lease = told.timed(lambda: store.claim_lease(owner_id=owner, ttl_ms=_TTL_MS))
    if not isinstance(lease, SessionLease):
        return False  # another has it
    claim = told.timed(lambda: store.claim_work(lease.fence, owner_id=owner, ttl_ms=_TTL_MS))
    if claim is None:
        told.timed(lambda: store.release_lease(lease.fence))
        return False
    head = told.timed(store.load_head)
    leaf = None if head is None else head.leaf_node_id
    done = str(claim.batches[0].items[0].payload)
    commit = TurnCommit(
        fence=lease.fence,
        stamp=TurnStamp(key, "hash"),
        graph=Append([Node(done, leaf, {"by": owner})], leaf=done),
        completed=[claim],
        release=True,
    )
    told.timed(lambda: store.commit_turn(commit))
    told.completed.append(done)
    return True


def _process(registry: ProcessRegistry, told: Told, key: str) -> None:
    registration = ProcessRegistration(key, External({}), Provenance(Host()))
    told.timed(lambda: registry.register_process(registration))
    told.timed(lambda: registry.complete_process(key, Success(1)))


if __name__ == "__main__":
    main()
