"""What the benchmarks share: interleaved timing, medians, and where the figures go."""

from __future__ import annotations

import argparse
import json
import platform
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy

Prepare = Callable[[], Callable[[], object]]
"""Does what need not be timed and returns the call that is."""


def interleaved(contestants: Sequence[Prepare], *, rounds: int) -> list[float]:
    """Time each contestant once per round, in turn; return their medians in microseconds.

    In turn, because a machine's speed drifts: what slows one slows the other as well.
    """
    times: list[list[int]] = [[] for _ in contestants]
    warm_up = max(rounds // 10, 20)
    for at in range(rounds + warm_up):
        for contestant, measured in zip(contestants, times, strict=True):
            call = contestant()
            started = time.perf_counter_ns()
            call()
            elapsed = time.perf_counter_ns() - started
            if at >= warm_up:
                measured.append(elapsed)
    return [statistics.median(measured) / 1000 for measured in times]


def arguments(description: str | None, *, rounds: int | None = None) -> argparse.Namespace:
    """Parse a benchmark's command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON; - is stdout")
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help="repetitions (%(default)s)")
    return parser.parse_args()


def machine() -> dict[str, str]:
    """Name what the figures depend on."""
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "sqlalchemy": sqlalchemy.__version__,
        "machine": platform.machine(),
    }


def publish(figures: list[dict[str, Any]], target: str | None) -> None:
    """Write the figures as JSON to `target`, or as a table to stdout."""
    if target is None:
        for figure in figures:
            print("  ".join(f"{name} {value}" for name, value in figure.items()))
        return
    text = json.dumps({"machine": machine(), "figures": figures}, indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).write_text(text, encoding="utf-8")
