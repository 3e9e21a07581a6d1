"""The hot operations of this checkout against another's, in slices of about a millisecond.

git worktree add ../before COMMIT
python -m bench.slices ../before [--rounds N] [--only NAME …] [--json FILE]

Two processes, one for each checkout, do the same operation in turn, some dozens of calls at a time, so
that a machine which is slow for a second is slow for both. A row is the median of the ratios of
neighbouring slices, this checkout's time ÷ the other's.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
_WORKER = "--worker"


def main() -> None:
    """Run slices in turn and publish a ratio for each operation."""
    from bench.report import publish  # noqa: PLC0415 # reason: a worker is run in another checkout too

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, help="the checkout to compare with")
    parser.add_argument("--rounds", type=int, default=400, help="how many pairs (%(default)s)")
    parser.add_argument("--only", nargs="*", help="which operations")
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON; - is stdout")
    options = parser.parse_args()
    here, there = _start(HERE), _start(options.other.resolve())
    figures = []
    for name in options.only or _ask(here, "?").split():
        pairs = []
        for at in range(options.rounds):
            first, second = (here, there) if at % 2 else (there, here)
            times = {id(each): int(_ask(each, name)) for each in (first, second)}
            pairs.append((times[id(here)], times[id(there)]))
        ratios = [mine / others for mine, others in pairs]
        medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
        figures.append(
            {
                "operation": name,
                "ratio": round(statistics.median(ratios), 3),
                "of_medians": round(medians[0] / medians[1], 3),
            }
        )
    for each in (here, there):
        assert each.stdin is not None
        each.stdin.close()
        each.wait()
    publish(figures, options.json)


def _start(checkout: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "bench" / "slices.py"), _WORKER],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _ask(worker: subprocess.Popen[str], what: str) -> str:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{what}\n")
    worker.stdin.flush()
    return worker.stdout.readline().strip()


def serve() -> None:
    """Do slices for as long as somebody asks for them, and answer with nanoseconds."""
    with tempfile.TemporaryDirectory() as folder:
        operations = _operations(Path(folder))
        gc.disable()
        for line in sys.stdin:
            name = line.strip()
            if name == "?":
                print(*operations, flush=True)
                continue
            function, times = operations[name]
            started_ns = time.perf_counter_ns()
            for _ in range(times):
                function()
            print(time.perf_counter_ns() - started_ns, flush=True)


def _operations(folder: Path) -> dict[str, tuple[Callable[[], Any], int]]:
    """Return each operation, and how many calls of it are a slice."""
    # Of the checkout that this worker is run in.
    from lash_store import (  # noqa: PLC0415 # reason: as above
        Append,
        EffectStore,
        NewWork,
        Node,
        ProcessRegistry,
        SessionStore,
        TriggerStore,
        TurnCommit,
    )
    from tests.support.registries import register  # noqa: PLC0415 # reason: as above
    from tests.support.triggers import INTEGERS, occur, subscribe  # noqa: PLC0415 # reason: as above

    numbers = count()
    envelope = {"model": "m", "prompt": "some words that ask for something", "heat": 0.5}
    outcome = {"answer": "some words that answer it", "tokens": 7}
    session = SessionStore.open(folder / "s.db", session_id="s")
    effects = EffectStore.open(folder / "e.db")
    registry = ProcessRegistry.open(folder / "p.db")
    triggers = TriggerStore.open(folder / "t.db")
    lease: Any = session.claim_lease(owner_id="ann", ttl_ms=10**9)
    effects.run("s", "replayed", envelope, lambda: outcome)
    register(registry, "p")
    register(registry, "woken")
    for number in range(100):
        registry.append_event("woken", "wake", {"text": str(number)})
    nodes = [Node(f"n{at}", f"n{at - 1}" if at else None, {"text": "words"}) for at in range(200)]
    session.commit_turn(TurnCommit(fence=lease.fence, graph=Append(nodes, "n199")))
    register(registry, "long")
    with registry.begin() as tx:
        for number in range(20_000):
            tx.append_event("long", "tick", number)
    for _ in range(1_000):
        subscribe(triggers, payload_schema=INTEGERS)

    def release_and_claim() -> None:
        nonlocal lease
        session.release_lease(lease.fence)
        lease = session.claim_lease(owner_id="ann", ttl_ms=10**9)

    def begin_and_finish() -> None:
        begun: Any = effects.begin_effect("s", f"b{next(numbers)}", envelope)
        effects.finish_effect(begun, outcome)

    def job() -> None:
        session.enqueue_work(NewWork(["some words"]))
        claim: Any = session.claim_work(lease.fence, owner_id="ann", ttl_ms=10**6)
        session.commit_turn(TurnCommit(fence=lease.fence, completed=[claim]))

    def commit() -> None:
        node = Node(f"m{next(numbers)}", "n0", {"text": "words"})
        session.commit_turn(
            TurnCommit(fence=lease.fence, config={"n": 1}, graph=Append([node], "n199"))
        )

    def open_and_close() -> None:
        SessionStore.open(folder / "other.db", session_id="s").close()

    def reserve() -> None:
        occurrence = occur(triggers, 1, f"k{next(numbers)}")
        triggers.reserve_deliveries(occurrence.occurrence_id)

    return {
        "claim_lease": (lambda: session.claim_lease(owner_id="ann", ttl_ms=10**9), 60),
        "renew_lease": (lambda: session.renew_lease(lease.fence, ttl_ms=10**9), 60),
        "release_lease+claim_lease": (release_and_claim, 30),
        "current_lease": (session.current_lease, 60),
        "job": (job, 6),
        "commit_turn": (commit, 8),
        "load_path": (session.load_path, 1),
        "load_graph": (session.load_graph, 1),
        "load_summary": (session.load_summary, 4),
        "wake_events_after": (lambda: registry.wake_events_after("woken"), 2),
        "open+close": (open_and_close, 1),
        "begin_effect+finish_effect": (begin_and_finish, 15),
        "run": (lambda: effects.run("s", f"r{next(numbers)}", envelope, lambda: outcome), 10),
        "replay": (lambda: effects.run("s", "replayed", envelope, lambda: outcome), 60),
        "append_event": (lambda: registry.append_event("p", "tick", {"n": next(numbers)}), 25),
        "append_event_behind_20000": (
            lambda: registry.append_event("long", "tick", next(numbers)),
            25,
        ),
        "pending_wakes": (lambda: registry.pending_wakes(limit=10), 4),
        "reserve_deliveries": (reserve, 1),
    }


if __name__ == "__main__":
    serve() if _WORKER in sys.argv else main()
