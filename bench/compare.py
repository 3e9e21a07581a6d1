"""This checkout against another, of an earlier commit: the same benchmarks, interleaved.

git worktree add ../before COMMIT
python -m bench.compare ../before [--pairs N] [--bench NAME …] [--json FILE]

A pair is one run of a benchmark in each checkout, one after the other, in turn which comes
first. For each row it shows the median over the pairs of this checkout's time ÷ the other's, and
the fastest run here ÷ the fastest there, which a machine that is slow for a while moves less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.report import publish

HERE = Path(__file__).resolve().parents[1]
BENCHES = ("hot_paths", "registry", "effects", "growth", "guard", "together")
_TIMES = ("store_us", "median_us", "us", "ms", "median_ms", "cpu_ms")


def main() -> None:
    """Run the pairs and publish a ratio for each row of each benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, help="the checkout to compare with")
    parser.add_argument("--pairs", type=int, default=9, help="how many pairs (%(default)s)")
    parser.add_argument("--bench", nargs="*", default=BENCHES, help="which benchmarks")
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON; - is stdout")
    options = parser.parse_args()
    figures = []
    for name in options.bench:
        pairs = [_pair(name, options.other, first=at % 2) for at in range(options.pairs)]
        for row in pairs[0][0]:
            both = [(here[row], there[row]) for here, there in pairs if there.get(row)]
            if both:
                figures.append(_figure(name, row, both))
    publish(figures, options.json)


def _figure(name: str, row: str, both: list[tuple[float, float]]) -> dict[str, Any]:
    ratios = sorted(here / there for here, there in both)
    fastest = min(here for here, _ in both) / min(there for _, there in both)
    return {
        "bench": name,
        "row": row,
        "ratio": round(statistics.median(ratios), 3),
        "from": round(ratios[0], 3),
        "to": round(ratios[-1], 3),
        "fastest": round(fastest, 3),
    }


def _pair(name: str, other: Path, *, first: int) -> tuple[dict[str, float], dict[str, float]]:
    checkouts = [HERE, other.resolve()]
    runs = {checkout: _run(name, checkout) for checkout in checkouts[:: -1 if first else 1]}
    return runs[HERE], runs[checkouts[1]]


def _run(name: str, checkout: Path) -> dict[str, float]:
    """Run one benchmark in one checkout; return each of its times by what the row is called."""
    # A benchmark that the other commit has not is run there all the same, from this checkout.
    is_there = (checkout / "bench" / f"{name}.py").exists()
    what = ["-m", f"bench.{name}"] if is_there else [str(HERE / "bench" / f"{name}.py")]
    done = subprocess.run(
        [sys.executable, *what, "--json", "-"],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        check=True,
        capture_output=True,
        text=True,
    )
    times = {}
    for figure in json.loads(done.stdout)["figures"]:
        label = figure.get("operation") or figure["case"]
        for kind in _TIMES:
            if kind in figure:
                times[label] = float(figure[kind])
    return times


if __name__ == "__main__":
    main()
