"""Whether an operation stays as fast beside a hundred rows and beside a million.

    python -m bench.growth [--sizes N …] [--rounds N] [--json FILE]

Each operation that a worker's steps are made of, in stores of so many rows in every table: batches and items, nodes,
receipts, blobs; processes with an event each; subscriptions, occurrences, deliveries; recorded steps. Then
opening, a listing's page, collecting and checking, and what reads a whole session. ``by_1000`` is the
median ÷ that beside a thousand.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

from bench import hand_written
from bench.multiplied import (
    KINDS,
    LONG_MS,
    draft,
    fence_of,
    fill,
    open_effects,
    open_processes,
    open_session,
    open_triggers,
    registration,
)
from bench.report import publish
from lash_store import Checkpoint, NewWork, SessionStore, Success, TurnStamp
from lash_store.schemas import Kind, check_file
from lash_store.session.records import Append, Node, SessionMeta, TurnCommit

SIZES: Final = (100, 1_000, 10_000, 100_000, 1_000_000)
LARGEST: Final[dict[Kind, int]] = {"process": 100_000, "trigger": 100_000}
"""Where a row is large: a million processes are three gigabytes."""

_STANDARD: Final = 1_000
_FEW: Final = 5
Case = tuple[str, Callable[[], object], int]
"""What it is called, what is timed, and how many times."""


def main() -> None:
    """Measure each case at its sizes."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=200, help="repetitions (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON; - is stdout")
    options = parser.parse_args()
    figures: list[dict[str, Any]] = []
    for kind in KINDS:
        for size in options.sizes:
            if size <= LARGEST.get(kind, size):
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / f"{kind}.db"
                    fill(kind, path, size)
                    figures += [
                        {"case": f"{kind}: {name}", "rows": size, "median_us": _median(call, times)}
                        for name, call, times in CASES[kind](path, options.rounds)
                    ]
    by_1000 = {each["case"]: each["median_us"] for each in figures if each["rows"] == _STANDARD}
    for each in figures:
        if each["case"] in by_1000:
            each["by_1000"] = round(each["median_us"] / by_1000[each["case"]], 2)
    publish([*figures, *reads(50_000, options.rounds)], options.json)


def session(path: Path, rounds: int) -> Iterator[Case]:
    """A turn's steps in one session; a thousand live claims at the head of the queue come last."""
    with open_session(path) as store:
        fence, numbers = fence_of(store), count()

        def job() -> None:
            store.enqueue_work(NewWork(["a job"]))
            claim = store.claim_work(fence, owner_id="w", ttl_ms=LONG_MS)
            assert claim is not None
            store.complete_work(fence, claim)

        def claim() -> None:
            taken = store.claim_work(fence, owner_id="w", ttl_ms=LONG_MS, max_batches=8)
            assert taken is not None
            store.abandon_claim(taken)

        def commit() -> None:
            number = next(numbers)
            store.commit_turn(
                TurnCommit(
                    fence=fence,
                    stamp=TurnStamp(f"turn-{number}", "hash"),
                    graph=Append([Node(f"new{number}", "growing", {"kind": "x"})], f"new{number}"),
                    checkpoint=Checkpoint({"turn_index": number}),
                )
            )

        yield "renew_lease", lambda: store.renew_lease(fence, ttl_ms=LONG_MS), rounds
        yield "enqueue_work, claim_work, complete_work", job, rounds
        yield "claim_work of 8, abandon_claim", claim, rounds
        yield "commit_turn with a node, a checkpoint, a receipt", commit, rounds
        yield "load_head", store.load_head, rounds
        yield "load_receipt", lambda: store.load_receipt("growing"), rounds
        yield "load_path", store.load_path, rounds
        yield "list_pending_work, a page", lambda: store.list_pending_work(limit=100), rounds
        yield "work_depth", store.work_depth, _FEW
        yield "collect_blobs, a dry run", lambda: store.collect_blobs(dry_run=True), _FEW
        _claim_the_first(path, 1_000)
        yield "claim_work of 8 behind 1,000 live claims", claim, rounds
    yield "open", lambda: open_session(path).close(), rounds
    yield "check", lambda: check_file(path), _FEW


def process(path: Path, rounds: int) -> Iterator[Case]:
    """A process from its registration to its end, among others that wait."""
    with open_processes(path) as registry:
        numbers = count()
        registry.register_process(registration("mine"))

        def whole() -> None:
            name = f"new{next(numbers)}"
            registry.register_process(registration(name))
            registry.complete_process(name, Success(1))

        def claim() -> None:
            taken = registry.claim_next(owner_id="w", ttl_ms=LONG_MS)
            assert taken is not None
            registry.complete_process(taken.lease.key, Success(1), fence=taken.lease.fence)

        yield "register_process, complete_process", whole, rounds
        yield "claim_next, complete_process", claim, min(rounds, 50)
        yield "append_event", lambda: registry.append_event("mine", "tick", 1), rounds
        yield "load_process", lambda: registry.load_process("mine"), rounds
        yield "pending_wakes", registry.pending_wakes, rounds
        yield "list_processes, a page", registry.list_processes, rounds
    yield "open", lambda: open_processes(path).close(), rounds


def trigger(path: Path, rounds: int) -> Iterator[Case]:
    """An occurrence that one subscription among others matches."""
    with open_triggers(path) as triggers:
        triggers.register_subscription(draft("mine"))
        numbers = count()

        def deliver() -> None:
            key = f"new{next(numbers)}"
            found = triggers.record_occurrence("cron", "mine", 1, idempotency_key=key)
            assert len(triggers.reserve_deliveries(found.occurrence_id).deliveries) == 1

        yield "record_occurrence, reserve_deliveries", deliver, rounds
        yield "list_subscriptions, a page", triggers.list_subscriptions, rounds
        yield "list_deliveries, a page", triggers.list_deliveries, rounds
    yield "open", lambda: open_triggers(path).close(), rounds


def effect(path: Path, rounds: int) -> Iterator[Case]:
    """A step, recorded and replayed."""
    with open_effects(path) as effects:
        numbers = count()
        yield "run", lambda: effects.run("s", f"k{next(numbers)}", {}, lambda: 1), rounds
        yield "run that replays", lambda: effects.run("s", "k0", {}, lambda: 1), rounds
        yield "list_effects, a page", effects.list_effects, rounds
        yield "oldest_in_progress_ms", effects.oldest_in_progress_ms, rounds
    yield "open", lambda: open_effects(path).close(), rounds


CASES: Final[dict[Kind, Callable[[Path, int], Iterator[Case]]]] = {
    "session": session,
    "process": process,
    "trigger": trigger,
    "effect": effect,
}

_LIVE_CLAIMS: Final = """
UPDATE queued_work_batches SET claim_id = 'qwc:' || enqueue_seq || ':1', claim_owner_id = 'o',
  claim_token = 'token' || enqueue_seq, claim_expires_at_ms = 1 << 60
WHERE enqueue_seq <= ?"""

_NODES: Final = """
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :count)
INSERT INTO graph_nodes (node_id, node_json)
SELECT 'n' || n, json_object('node_id', 'n' || n, 'parent_node_id',
    'n' || CASE WHEN n <= 200 THEN n - 1 ELSE n % 200 + 1 END, 'timestamp', 't', 'kind', 'event',
    'event', json_object('Conversation', json_object('id', n, 'role',
      CASE n % 2 WHEN 1 THEN 'User' ELSE 'Assistant' END, 'parts',
      json_array(json_object('id', 'p', 'kind', 'Text', 'content', 'hello ' || n)))))
FROM number"""


def _claim_the_first(path: Path, claimed: int) -> None:
    connection = hand_written.connect(path)
    ((rows,),) = connection.execute("SELECT count(*) FROM queued_work_batches").fetchall()
    connection.execute(_LIVE_CLAIMS, (min(claimed, rows - 8),))
    connection.close()


def reads(size: int, rounds: int) -> list[dict[str, Any]]:
    """The active path of 200, the summary and the whole graph, of a session with many nodes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reads.db"
        with SessionStore.open(path, session_id="s") as store:
            store.save_meta(SessionMeta("s", "s", "unix:0", "m"))
            store.commit_turn(TurnCommit(fence=fence_of(store)))
            connection = hand_written.connect(path)
            connection.execute(_NODES, {"count": size})
            connection.close()
            cases: list[Case] = [
                ("load_path of 200", lambda: store.load_path("n200"), rounds),
                ("load_summary", store.load_summary, _FEW),
                ("load_graph", store.load_graph, _FEW),
            ]
            return [
                {"case": f"session: {name}", "rows": size, "median_us": _median(call, times)}
                for name, call, times in cases
            ]


def _median(call: Callable[[], object], times: int) -> float:
    call()
    taken = []
    for _ in range(times):
        started = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - started)
    return round(statistics.median(taken) / 1000, 1)


if __name__ == "__main__":
    main()
