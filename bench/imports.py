"""What importing costs beyond SQLAlchemy's own, in fresh interpreters, in turn.

python -m bench.imports [--json FILE] [--rounds N]

From compiled files, as an installed package has them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from bench.report import arguments, publish

ROOT: Final = Path(__file__).resolve().parents[1]
STATEMENTS: Final = {
    "SQLAlchemy": "import sqlalchemy, sqlalchemy.dialects.sqlite",
    "lash_store": "import lash_store",
    "a session store": "from lash_store import SessionStore",
    "everything": "from lash_store import *",
}

_TIMED: Final = """
from time import perf_counter
started = perf_counter()
{first}
between = perf_counter()
{second}
print(between - started, perf_counter() - between)
"""


def main() -> None:
    """Measure milliseconds, each beyond SQLAlchemy's own, which is loaded before it."""
    options = arguments(__doc__, rounds=9)
    with tempfile.TemporaryDirectory() as cache:
        figures = [_figure(name, options.rounds, cache) for name in list(STATEMENTS)[1:]]
    publish(figures, options.json)


def _figure(name: str, rounds: int, cache: str) -> dict[str, Any]:
    times = [_timed(STATEMENTS["SQLAlchemy"], STATEMENTS[name], cache) for _ in range(rounds + 1)]
    own, beyond = zip(*times[1:], strict=True)  # the first has filled the cache
    return {
        "import": STATEMENTS[name],
        "beyond_ms": round(statistics.median(beyond), 1),
        "least_ms": round(min(beyond), 1),
        "most_ms": round(max(beyond), 1),
        "sqlalchemy_ms": round(statistics.median(own), 1),
    }


def _timed(first: str, second: str, cache: str) -> tuple[float, float]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    ended = subprocess.run(
        [sys.executable, "-c", _TIMED.format(first=first, second=second)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    sqlalchemy_s, beyond_s = map(float, ended.stdout.split())
    return sqlalchemy_s * 1000, beyond_s * 1000


if __name__ == "__main__":
    main()
