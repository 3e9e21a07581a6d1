"""The shared layout beside the canonical one, in one run: the same calls, with many sessions there.

python -m bench.layouts [--sessions N] [--pairs N] [--json FILE]

Each row is the median over the pairs of the time of one call in a shared database that holds so many
sessions, ÷ the time in a file of the session's own. ``us`` is the shared one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from bench.report import publish
from lash_store import Append, EffectStore, NewWork, Node, SessionStore, TurnCommit, TurnStamp

CALLS = 400
TTL_MS = 600_000


def main() -> None:
    """Measure every call in pairs and publish the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON; - is stdout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/shared.db"
        fill(url, options.sessions)
        figures = []
        for name, make in CALLS_OF.items():
            shared = make(url)
            canonical = make(str(Path(folder) / f"{name.replace(' ', '-')}.db"))
            pairs = [(measured(shared), measured(canonical)) for _ in range(options.pairs)]
            ratios = sorted(there / here for there, here in pairs)
            figures.append(
                {
                    "case": f"{name}, {options.sessions} sessions",
                    "us": round(statistics.median(there for there, _ in pairs), 2),
                    "ratio": round(statistics.median(ratios), 3),
                    "from": round(ratios[0], 3),
                    "to": round(ratios[-1], 3),
                }
            )
    publish(figures, options.json)


def fill(url: str, sessions: int) -> None:
    """Put ten nodes and two batches into each of many sessions."""
    with SessionStore.open(url, session_id="first") as store, store.begin() as tx:
        for number in range(sessions):
            beside = type(tx).beside(tx, session_id=f"session-{number}")
            lease: Any = beside.claim_lease(owner_id="w", ttl_ms=TTL_MS)
            nodes = [Node(f"n{at}", None, {"text": "a line"}) for at in range(10)]
            beside.commit_turn(TurnCommit(fence=lease.fence, graph=Append(nodes, leaf="n9")))
            beside.enqueue_all_work([NewWork([1]), NewWork([2])])


def measured(call: Callable[[int], object]) -> float:
    """Return what a call costs, in microseconds."""
    started = time.perf_counter()
    for _ in range(CALLS):
        call(next(NUMBERS))
    return (time.perf_counter() - started) / CALLS * 1e6


NUMBERS = count()


def session(where: str) -> tuple[SessionStore, Any]:
    """Open the session that is measured, and claim it."""
    store = SessionStore.open(where, session_id="session-77")
    found = store.current_lease() or store.claim_lease(owner_id="w", ttl_ms=TTL_MS)
    return store, found


def renew(where: str) -> Callable[[int], object]:
    """Renewals of the lease."""
    store, lease = session(where)
    return lambda _: store.renew_lease(lease.fence, ttl_ms=TTL_MS)


def claim(where: str) -> Callable[[int], object]:
    """Claims of leases."""
    store, _ = session(where)
    return lambda at: store.claim_lease(owner_id="w", ttl_ms=TTL_MS, session_id=f"l{at}")


def head(where: str) -> Callable[[int], object]:
    """Reads of the head."""
    store, lease = session(where)
    if store.load_head() is None:
        nodes = [Node(f"n{at}", None, {"text": "a line"}) for at in range(10)]
        store.commit_turn(TurnCommit(fence=lease.fence, graph=Append(nodes, leaf="n9")))
    return lambda _: store.load_head()


def path(where: str) -> Callable[[int], object]:
    """Reads of a path of 200 nodes."""
    store, lease = session(where)
    nodes = [Node(f"p{at}", f"p{at - 1}" if at else None, {"at": at}) for at in range(200)]
    store.commit_turn(TurnCommit(fence=lease.fence, graph=Append(nodes, leaf="p199")))
    return lambda _: store.load_path()


def enqueue(where: str) -> Callable[[int], object]:
    """Batches of one item."""
    store, _ = session(where)
    return lambda at: store.enqueue_work(NewWork([at]))


def claim_work(where: str) -> Callable[[int], object]:
    """Claims of one batch, given back."""
    store, lease = session(where)
    store.enqueue_all_work([NewWork([at]) for at in range(100)])

    def call(_: int) -> None:
        found: Any = store.claim_work(lease.fence, owner_id="w", ttl_ms=TTL_MS)
        store.abandon_claim(found)

    return call


def commit(where: str) -> Callable[[int], object]:
    """Turns of one node, each with its receipt."""
    store, lease = session(where)

    def call(at: int) -> None:
        key = f"{at}-{where}"
        graph = Append([Node(key, None, {"text": "a line"})], leaf=key)
        store.commit_turn(TurnCommit(fence=lease.fence, graph=graph, stamp=TurnStamp(key, key)))

    return call


def step(where: str) -> Callable[[int], object]:
    """Steps, begun and finished."""
    effects = EffectStore.open(where if "://" in where else f"{where}-effects")

    def call(at: int) -> None:
        found: Any = effects.begin_effect("scope", f"{at}", {"at": at})
        effects.finish_effect(found, {"at": at})

    return call


CALLS_OF: dict[str, Callable[[str], Callable[[int], object]]] = {
    "renew": renew,
    "claim": claim,
    "load_head": head,
    "path of 200": path,
    "enqueue": enqueue,
    "claim_work + abandon": claim_work,
    "commit": commit,
    "begin + finish effect": step,
}

if __name__ == "__main__":
    main()
