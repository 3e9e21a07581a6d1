"""What opening a store costs, and how much of that is the drift check.

python -m bench.guard [--json FILE]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import hand_written
from bench.report import arguments, interleaved, publish
from lash_store import SessionStore
from lash_store._backends.sqlite import guard
from lash_store._backends.sqlite.drift import read_catalogue
from lash_store.session.tables import SCHEMA


def main() -> None:
    """Measure opening, and the check alone."""
    options = arguments(__doc__, rounds=500)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        keep_open = SessionStore.open(path, session_id="s")
        raw = hand_written.connect(path)

        def open_raw() -> Callable[[], object]:
            return lambda: hand_written.connect(path).close()

        def open_store() -> Callable[[], object]:
            return lambda: SessionStore.open(path, session_id="s").close()

        def check() -> Callable[[], object]:
            return lambda: guard.needs_initialising(SCHEMA, read_catalogue(raw.cursor()), "")

        contestants = [open_raw, open_store, check]
        raw_us, store_us, check_us = interleaved(contestants, rounds=options.rounds)
        raw.close()
        keep_open.close()
    figures = [
        {"operation": "open and close, sqlite3 and pragmas", "us": round(raw_us, 1)},
        {"operation": "open and close, SessionStore", "us": round(store_us, 1)},
        {"operation": "of which the version and drift check", "us": round(check_us, 1)},
    ]
    publish(figures, options.json)


if __name__ == "__main__":
    main()
