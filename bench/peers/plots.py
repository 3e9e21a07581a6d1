"""Draw what was measured beside others, as the README shows it.

python -m bench.peers.plots bench/results/peers.json docs/plots
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot as plt

_OURS: Final = "#2b6cb0"
_OTHERS: Final = "#a0aec0"
_BARS: Final = {
    "jobs": ("jobs", "one job", "NORMAL", "A job: put, claimed, completed (µs)"),
    "steps": ("steps", "a recorded step", "NORMAL", "A recorded step that does nothing (µs)"),
    "steps_at_once": (
        "steps",
        "a recorded step, 64 tasks",
        "NORMAL",
        "A recorded step, each of 64 tasks' (µs)",
    ),
    "checkpoints_at_once": (
        "checkpoints",
        "a checkpoint of 4 KiB, 64 tasks",
        "NORMAL",
        "A checkpoint of 4 KiB, each of 64 tasks' (µs)",
    ),
    "checkpoints": (
        "checkpoints",
        "a checkpoint of 4 KiB",
        "FULL",
        "A checkpoint of 4 KiB, synced (µs)",
    ),
    "wakeups": ("wakeups", "wake-up by another process", None, "Wake-up by another process (ms)"),
}
"""By the name of a plot: part, case, durability and title."""


def main(source: str, target: str) -> None:
    """Draw each plot as a file of its own."""
    figures: list[dict[str, Any]] = json.loads(Path(source).read_text())["figures"]
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    mpl.rcParams["svg.hashsalt"] = "lash_store"  # the same figures are the same file
    for name, (part, case, synchronous, title) in _BARS.items():
        rows = [
            each
            for each in figures
            if (each["part"], each["case"], each.get("synchronous")) == (part, case, synchronous)
        ]
        _draw_bars(folder / f"{name}.svg", title, rows)
    _draw_workers(folder / "workers.svg", [each for each in figures if each["part"] == "workers"])


def _draw_bars(path: Path, title: str, rows: list[dict[str, Any]]) -> None:
    rows = sorted(rows, key=lambda row: -float(row["median"]))
    drawn, axes = plt.subplots(figsize=(7, 0.42 * len(rows) + 0.9))
    medians = [row["median"] for row in rows]
    spread = [
        [row["median"] - row["least"] for row in rows],
        [row.get("p99", row["most"]) - row["median"] for row in rows],
    ]
    names = [row["contestant"] for row in rows]
    colours = [_OURS if name.startswith("lash_store") else _OTHERS for name in names]
    axes.barh(names, medians, xerr=spread, color=colours, error_kw={"elinewidth": 0.8})
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    _save(drawn, path)


def _draw_workers(path: Path, rows: list[dict[str, Any]]) -> None:
    drawn, axes = plt.subplots(figsize=(8.5, 3.6))
    for name in dict.fromkeys(row["contestant"] for row in rows):
        own = [row for row in rows if row["contestant"] == name]
        processes = [row["case"].split()[0] for row in own]
        is_ours = name.startswith("lash_store")
        axes.plot(
            processes,
            [row["median"] for row in own],
            marker="o",
            label=name,
            linewidth=2 if is_ours else 1,
            linestyle="-" if is_ours else "--",
        )
    axes.set_title(
        "Processes on waiting jobs: claims and completions a second", loc="left", fontsize=10
    )
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("processes", fontsize=8)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(drawn, path)


def _save(drawn: Any, path: Path) -> None:
    drawn.tight_layout()
    drawn.savefig(path, metadata={"Date": None})
    plt.close(drawn)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
