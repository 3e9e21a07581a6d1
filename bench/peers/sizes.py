"""What is left on disk after 20,000 jobs, all done; and what importing takes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.peers.queues import QUEUES, Queue
from bench.peers.rounds import in_turn, new_folder

_JOBS: Final = 20_000
_AT_ONCE: Final = 100

_IMPORTS: Final = {
    "lash_store, a session's store": "from lash_store import SessionStore",
    "lash_store, everything": "from lash_store import *",
    "SQLAlchemy alone": "import sqlalchemy, sqlalchemy.dialects.sqlite",
    "litequeue": "import litequeue",
    "huey": "import huey.storage",
    "honker": "import honker",
    "persist-queue": "import persistqueue",
    "unhinged": "import unhinged",
    "DBOS": "import dbos",
    "LangGraph's SqliteSaver": "import langgraph.checkpoint.sqlite",
    "OpenAI Agents": "import agents",
}


def measure(rounds: int) -> list[dict[str, Any]]:
    """Measure megabytes, once, and milliseconds."""
    sizes = [
        {"case": "after 20,000 jobs", "contestant": queue.name, "unit": "MB", "median": megabytes}
        for queue, megabytes in map(_worked, QUEUES.values())
    ]
    with tempfile.TemporaryDirectory() as cache:
        loading: dict[str, Callable[[], float]] = {
            name: partial(_import_ms, statement, cache) for name, statement in _IMPORTS.items()
        }
        for load in loading.values():
            load()  # which compiles what is imported
        imports = [
            {"case": "import", "contestant": name, "unit": "ms", **found}
            for name, found in in_turn(loading, rounds).items()
        ]
    return [*sizes, *imports]


def _worked(make: Callable[..., Queue]) -> tuple[Queue, float]:
    """Put, claim and complete all jobs; return the queue and what its files take."""
    folder = new_folder()
    queue = make(folder, "NORMAL")
    for _ in range(_JOBS // _AT_ONCE):
        queue.put_many(_AT_ONCE)
        queue.work_many(_AT_ONCE)
    files = [each for each in folder.rglob("*") if _is_database(each)]
    for each in files:
        with closing(sqlite3.connect(each)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return queue, round(sum(each.stat().st_size for each in files) / 1e6, 2)


def _import_ms(statement: str, cache: str) -> float:
    """Return how much longer an interpreter takes that imports this than one that does nothing."""
    return _run_ms(statement, cache) - _run_ms("pass", cache)


def _run_ms(statement: str, cache: str) -> float:
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], env=environment, check=True)
    return (time.perf_counter() - started) * 1000


def _is_database(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(6) == b"SQLite"
