"""What the parts share: taking turns, and a median with its range."""

from __future__ import annotations

import atexit
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from time import perf_counter_ns
from typing import Any


def in_turn(
    contestants: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, dict[str, float]]:
    """Call each once a round, in another order each time; return median, least and most of each."""
    names = list(contestants)
    given: dict[str, list[float]] = {name: [] for name in names}
    for at in range(rounds):
        for name in names[at % len(names) :] + names[: at % len(names)]:
            given[name].append(contestants[name]())
    return {name: summary(values) for name, values in given.items()}


def figures_in_us(
    case: str, synchronous: str, contestants: Mapping[str, Callable[[], float]], rounds: int
) -> list[dict[str, Any]]:
    """Let them take turns at a case; return a figure for each, in microseconds."""
    return [
        {"case": case, "contestant": name, "synchronous": synchronous, "unit": "us", **found}
        for name, found in in_turn(contestants, rounds).items()
    ]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return the median of some values, the least and the most."""
    figures = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value, 2) for name, value in figures.items()}


def each_us(call: Callable[[], Any], times: int) -> float:
    """Return the median time of so many calls, in microseconds."""
    measured = []
    for _ in range(times):
        started = perf_counter_ns()
        call()
        measured.append(perf_counter_ns() - started)
    return statistics.median(measured) / 1000


def new_folder() -> Path:
    """Make a folder that is removed as the program ends: some packages still look at theirs."""
    folder = mkdtemp()
    atexit.register(rmtree, folder, ignore_errors=True)
    return Path(folder)
