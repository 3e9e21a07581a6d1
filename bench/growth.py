"""Whether a session stays fast as it grows: a long queue, a large graph.

python -m bench.growth [--json FILE] [--rounds N]
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import hand_written
from bench.report import arguments, publish
from lash_store import SessionFence, SessionLease, SessionStore
from lash_store.session.records import Append, Node, SessionMeta, TurnCommit

_TTL_MS = 3_600_000

_BATCHES = """
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :count)
INSERT INTO queued_work_batches (batch_id, session_id, delivery_policy, slot_policy,
  merge_key_json, available_at_ms, enqueued_at_ms, claim_id, claim_owner_id, claim_token,
  claim_expires_at_ms)
SELECT 'b' || n, 's', 'after_current_turn_commit', 'join', '"never"', 0, 0,
  CASE WHEN n <= :claimed THEN 'qwc:' || n || ':1' END, CASE WHEN n <= :claimed THEN 'o' END,
  CASE WHEN n <= :claimed THEN 'token' || n END, CASE WHEN n <= :claimed THEN 1 << 60 ELSE 0 END
FROM number"""

_NODES = """
WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :count)
INSERT INTO graph_nodes (node_id, node_json)
SELECT 'n' || n, json_object('node_id', 'n' || n, 'parent_node_id',
    'n' || CASE WHEN n <= :depth THEN n - 1 ELSE n % :depth + 1 END, 'timestamp', 't', 'kind', 'event',
    'event', json_object('Conversation', json_object('id', n, 'role',
      CASE n % 2 WHEN 1 THEN 'User' ELSE 'Assistant' END, 'parts',
      json_array(json_object('id', 'p', 'kind', 'Text', 'content', 'hello ' || n)))))
FROM number"""


def main() -> None:
    """Measure each case at its sizes."""
    options = arguments(__doc__, rounds=300)
    figures = [
        queue(1_000, 0, options.rounds),
        queue(1_000_000, 0, options.rounds),
        queue(1_000_000, 1_000, options.rounds),
        graph(100, options.rounds),
        graph(100_000, options.rounds),
        *reads(50_000, options.rounds),
    ]
    publish(figures, options.json)


def queue(count: int, claimed: int, rounds: int) -> dict[str, Any]:
    """One claim of 8 batches and its abandoning, timed apart; `claimed` stand at the head."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "queue.db"
        with SessionStore.open(path, session_id="s") as store:
            fence = _fence(store)
            _fill(path, _BATCHES, {"count": count, "claimed": claimed})

            def call() -> Callable[[], object]:
                def claim() -> None:
                    taken = store.claim_work(fence, owner_id="w", ttl_ms=_TTL_MS, max_batches=8)
                    assert taken is not None
                    claims.append(taken)

                return claim

            claims: list[Any] = []
            return {
                "case": f"claim of 8 among {count} ready, {claimed} claimed at the head",
                "median_us": _median(call, rounds, after=lambda: store.abandon_claim(claims.pop())),
            }


def graph(count: int, rounds: int) -> dict[str, Any]:
    """One commit that appends a node to a graph of `count` nodes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.db"
        with SessionStore.open(path, session_id="s") as store:
            fence = _fence(store)
            store.commit_turn(TurnCommit(fence=fence))
            _fill(path, _NODES, {"count": count, "depth": count})
            numbers = iter(range(10**9))

            def call() -> Callable[[], object]:
                name = f"new{next(numbers)}"
                turn = TurnCommit(
                    fence=fence, graph=Append([Node(name, "n1", {"kind": "x"})], name)
                )
                return lambda: store.commit_turn(turn)

            return {
                "case": f"commit to a graph of {count} nodes",
                "median_us": _median(call, rounds),
            }


def reads(count: int, rounds: int) -> list[dict[str, Any]]:
    """The active path of 200 nodes, and the summary, in a session of `count` nodes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reads.db"
        with SessionStore.open(path, session_id="s") as store:
            store.save_meta(SessionMeta("s", "s", "unix:0", "m"))
            store.commit_turn(TurnCommit(fence=_fence(store)))
            _fill(path, _NODES, {"count": count, "depth": 200})
            figures = []
            for name, read in (
                ("active path of 200", lambda: store.load_path("n200")),
                ("summary", store.load_summary),
                ("full graph", store.load_graph),
            ):
                few = rounds if name == "active path of 200" else 10
                median = _median(lambda read=read: read, few)  # type: ignore[misc] # reason: bound per turn
                figures.append({"case": f"{name} in {count} nodes", "median_us": median})
            return figures


def _fence(store: SessionStore) -> SessionFence:
    lease = store.claim_lease(owner_id="w", ttl_ms=_TTL_MS)
    assert isinstance(lease, SessionLease)
    return lease.fence


def _fill(path: Path, statement: str, values: dict[str, int]) -> None:
    connection = hand_written.connect(path)
    connection.execute(statement, values)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _median(
    call: Callable[[], Callable[[], object]],
    rounds: int,
    *,
    after: Callable[[], object] = lambda: None,
) -> float:
    times = []
    for _ in range(rounds):
        timed = call()
        started = time.perf_counter_ns()
        timed()
        times.append(time.perf_counter_ns() - started)
        after()
    return round(statistics.median(times) / 1000, 1)


if __name__ == "__main__":
    main()
