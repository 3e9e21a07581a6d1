"""Public calls against hand-written sqlite3 doing the same work, interleaved in one process.

python -m bench.hot_paths [--json FILE] [--rounds N]
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import hand_written
from bench.report import Prepare, arguments, interleaved, publish
from lash_store import SessionLease, SessionStore
from lash_store.schemas import canonical_statements
from lash_store.session.tables import SCHEMA

_TTL_MS = 60_000


def main() -> None:
    """Measure every operation and publish both medians and their ratio."""
    options = arguments(__doc__, rounds=5_000)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        raw = hand_written.connect(Path(folder) / "raw.db")
        for statement in canonical_statements(SCHEMA):
            raw.execute(statement)
        with SessionStore.open(Path(folder) / "store.db", session_id="s") as store:
            for name, contest in _CONTESTS.items():
                raw_us, store_us = interleaved(contest(raw, store), rounds=options.rounds)
                figures.append(_figure(name, raw_us, store_us))
        raw.close()
    publish(figures, options.json)


def _figure(name: str, raw_us: float, store_us: float) -> dict[str, Any]:
    return {
        "operation": name,
        "raw_us": round(raw_us, 2),
        "store_us": round(store_us, 2),
        "ratio": round(store_us / raw_us, 3),
    }


def _claim(raw: sqlite3.Connection, store: SessionStore) -> list[Prepare]:
    # A term of 0 ms is over at once, so each claim begins a new one.
    return [
        lambda: lambda: hand_written.claim(raw, "s", "w", 0),
        lambda: lambda: store.claim_lease(owner_id="w", ttl_ms=0),
    ]


def _renew(raw: sqlite3.Connection, store: SessionStore) -> list[Prepare]:
    term = hand_written.claim(raw, "s", "w", _TTL_MS)
    fence = _claimed(store).fence
    return [
        lambda: lambda: hand_written.renew(raw, term, _TTL_MS),
        lambda: lambda: store.renew_lease(fence, ttl_ms=_TTL_MS),
    ]


def _release(raw: sqlite3.Connection, store: SessionStore) -> list[Prepare]:
    def raw_release() -> Callable[[], object]:
        term = hand_written.claim(raw, "s", "w", _TTL_MS)
        return lambda: hand_written.release(raw, term)

    def store_release() -> Callable[[], object]:
        fence = _claimed(store).fence
        return lambda: store.release_lease(fence)

    return [raw_release, store_release]


def _claimed(store: SessionStore) -> SessionLease:
    lease = store.claim_lease(owner_id="w", ttl_ms=_TTL_MS)
    assert isinstance(lease, SessionLease)
    return lease


_CONTESTS: dict[str, Callable[[sqlite3.Connection, SessionStore], list[Prepare]]] = {
    "claim_lease": _claim,
    "renew_lease": _renew,
    "release_lease": _release,
}

if __name__ == "__main__":
    main()
