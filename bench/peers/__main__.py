"""The same work beside what people use instead, in one run: a table, and JSON for the plots.

    nox -s peers        # a Python that all of them take, their packages, and the plots
    python -m bench.peers [PART …] [--rounds N] [--json FILE]

Contestants take turns, some dozens of calls at a time; a figure is the median over the rounds, with the
least and the most. Each is used as its documentation says, at the durability that is named.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.peers import checkpoints, jobs, kills, sizes, steps, wakeups, workers
from bench.report import publish

PARTS: Final[dict[str, Callable[[int], list[dict[str, Any]]]]] = {
    "jobs": jobs.measure,
    "workers": workers.measure,
    "wakeups": wakeups.measure,
    "steps": steps.measure,
    "checkpoints": checkpoints.measure,
    "sizes": sizes.measure,
    "kills": kills.measure,
}


def main() -> None:
    """Run the parts that are asked for, all unless any is."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all unless given")
    parser.add_argument("--rounds", type=int, default=9, help="how many (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON; - is stdout")
    options = parser.parse_args()
    figures = _of_other_parts(options.json, options.parts)
    for name in options.parts or PARTS:
        figures += [{"part": name, **each} for each in PARTS[name](options.rounds)]
    publish(sorted(figures, key=lambda each: list(PARTS).index(each["part"])), options.json)


def _of_other_parts(target: str | None, parts: list[str]) -> list[dict[str, Any]]:
    """Return what the file says of parts that are not measured again: each part is a run by itself."""
    if not parts or target in (None, "-") or not Path(target).exists():
        return []
    figures: list[dict[str, Any]] = json.loads(Path(target).read_text())["figures"]
    return [each for each in figures if each["part"] not in parts]


if __name__ == "__main__":
    main()
