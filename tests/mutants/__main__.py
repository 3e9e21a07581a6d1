"""Change one thing in what leases, claims, turns, effects and the writer stand on; a test has to notice.

    python -m tests.mutants [TARGET …] [--jobs N]

The mutants are made and run by cosmic-ray, in a copy of the repository; each target has its own tests,
and never the golden SQL, which notices any change and proves none. What survives is listed with
its reason in ``survivors.txt``, or ends the run with status 1.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import WorkerOutcome, WorkResult

ROOT = Path(__file__).resolve().parents[2]
SURVIVORS = Path(__file__).with_name("survivors.txt")
IGNORED = shutil.ignore_patterns(".git", ".venv", ".nox", "dist", "*cache*", "node_modules")

CONFORMANCE = "tests/conformance/test_"
QUICK = "-k 'not (asyncio or process or ten_seconds or is_killed)'"
LEASE_TESTS = (
    f"{CONFORMANCE}session_leases.py {CONFORMANCE}leases.py {CONFORMANCE}neighbours.py "
    f"{CONFORMANCE}logging.py {CONFORMANCE}waking.py "
    "tests/property/test_bad_input.py tests/statements/test_composing.py "
    f"tests/architecture/test_records.py {CONFORMANCE}holding.py {CONFORMANCE}effect_under.py "
    f"{CONFORMANCE}process_events.py {QUICK}"
)
QUEUE_TESTS = (
    f"{CONFORMANCE}session_queue.py {CONFORMANCE}two_steps.py {CONFORMANCE}neighbours.py "
    f"{CONFORMANCE}logging.py tests/statements/test_composing.py {CONFORMANCE}session_turns.py"
)
TURN_TESTS = (
    f"{CONFORMANCE}session_turns.py {CONFORMANCE}session_graph.py {CONFORMANCE}session_rest.py"
)
EFFECT_TESTS = (
    f"{CONFORMANCE}effects.py {CONFORMANCE}effect_recording.py {CONFORMANCE}effect_runs.py "
    f"{CONFORMANCE}effect_under.py {CONFORMANCE}neighbours.py {CONFORMANCE}logging.py "
    f"tests/statements/test_composing.py {QUICK}"
)
WRITER_TESTS = (
    f"{CONFORMANCE}leading.py {CONFORMANCE}data_version.py {CONFORMANCE}groups.py "
    f"{CONFORMANCE}transactions.py {CONFORMANCE}handles.py {CONFORMANCE}wakeups.py "
    f"{CONFORMANCE}logging.py {CONFORMANCE}observing.py tests/concurrency/test_turns.py "
    "tests/crash/test_group_faults.py tests/crash/test_interrupts.py "
    f"{CONFORMANCE}cancelling.py {CONFORMANCE}wal.py {CONFORMANCE}fairness.py tests/property/test_groups.py"
)

TARGETS = {
    "lash_store/_kernel/liveness.py": LEASE_TESTS,
    "lash_store/_kernel/leases.py": LEASE_TESTS,
    "lash_store/_stores/leasing.py": LEASE_TESTS,
    "lash_store/_stores/lost.py": LEASE_TESTS,
    "lash_store/session/statements/claims.py": QUEUE_TESTS,
    "lash_store/session/statements/queue.py": QUEUE_TESTS,
    "lash_store/session/operations/claims.py": QUEUE_TESTS,
    "lash_store/session/operations/queue.py": QUEUE_TESTS,
    "lash_store/session/operations/turns.py": TURN_TESTS,
    "lash_store/session/statements/turns.py": TURN_TESTS,
    "lash_store/effect/statements.py": EFFECT_TESTS,
    "lash_store/effect/operations/attempts.py": EFFECT_TESTS,
    "lash_store/_backends/sqlite/serving.py": WRITER_TESTS,
    "lash_store/_backends/sqlite/writing.py": WRITER_TESTS,
    "lash_store/_backends/sqlite/leading.py": WRITER_TESTS,
}

ONE_OF_TWELVE = re.compile(
    r"core/ReplaceBinaryOperator_(?!Add_Sub|Sub_Add|Mul_Div|Div_Mul|Mod_Mul|FloorDiv_Mul|BitOr_BitAnd|BitAnd_BitOr)"
)
"""An operator has twelve mutants, and whoever notices one notices the others: one is enough."""


class Mutant(NamedTuple):
    """One change, as ``survivors.txt`` names it."""

    file: str
    function: str
    line: str
    operator: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.file} | {self.function} | {self.operator} {self.occurrence} | {self.line}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("targets", nargs="*", help="parts of paths; all unless given")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    chosen = [each for each in TARGETS if not given.targets or _named(each, given.targets)]
    with ThreadPoolExecutor(given.jobs) as pool:
        results = list(pool.map(run, chosen))
    killed, equivalent, survived = (sum(each) for each in zip(*results, strict=True))
    print(_summary("all", killed, equivalent, survived))
    return 1 if survived else 0


def _named(target: str, parts: Iterable[str]) -> bool:
    return any(part in target for part in parts)


def run(target: str) -> tuple[int, int, int]:
    """Run all mutants of one file, in a copy of the repository.

    Return how many died, how many are known to change nothing, and how many live.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=IGNORED)
        config, session = Path(folder) / "config.toml", Path(folder) / "session.sqlite"
        config.write_text(_config(target))
        _cosmic_ray(copy, "init", config, session)
        with use_db(session, mode=WorkDB.Mode.open) as db:
            _skip(db, copy / target)
        _cosmic_ray(copy, "baseline", "--session-file", Path(folder) / "baseline.sqlite", config)
        _cosmic_ray(copy, "exec", config, session)
        with use_db(session, mode=WorkDB.Mode.open) as db:
            killed, lived = _outcome(db, target, (copy / target).read_text().splitlines())
    known = set(SURVIVORS.read_text().splitlines())
    unknown = [f"survived: {mutant}" for mutant in lived if str(mutant) not in known]
    counts = killed, len(lived) - len(unknown), len(unknown)
    print("\n".join([*unknown, _summary(target, *counts)]), flush=True)
    return counts


def _summary(what: str, killed: int, equivalent: int, survived: int) -> str:
    total = killed + equivalent + survived
    return f"{what}: {total} mutants, {killed} killed, {equivalent} equivalent, {survived} survived"


def _config(target: str) -> str:
    pytest = f"{sys.executable} -m pytest -x -q -p no:cacheprovider {TARGETS[target]}"
    return (
        f"[cosmic-ray]\nmodule-path = {json.dumps(target)}\ntimeout = 300.0\n"
        f"excluded-modules = []\ntest-command = {json.dumps(pytest)}\n"
        '[cosmic-ray.distributor]\nname = "local"\n'
    )


def _cosmic_ray(folder: Path, *arguments: object) -> None:
    command = [sys.executable, "-m", "cosmic_ray.cli", *map(str, arguments)]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def _skip(db: Any, file: Path) -> None:
    """Leave out what is no code that runs, and eleven of the twelve that an operator becomes."""
    apart = list(_apart(ast.parse(file.read_text())))
    for item in db.work_items:
        (mutation,) = item.mutations
        at = mutation.start_pos
        is_apart = any(begin <= at < end for begin, end in apart)
        if is_apart or ONE_OF_TWELVE.match(mutation.operator_name):
            db.set_result(item.job_id, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))


def _apart(tree: ast.AST) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield where types and the heads of functions stand: only type checkers look at the first, and
    the star of the second is no product."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield (node.lineno, node.col_offset), _begin(node.body[0])
        elif isinstance(node, ast.AnnAssign):
            yield _begin(node.annotation), _end(node.annotation)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp):
            yield _begin(node.value), _end(node.value)  # the name of a union of types
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.BinOp | ast.Tuple):
            yield _begin(node.slice), _end(node.slice)


def _begin(node: Any) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _end(node: Any) -> tuple[int, int]:
    return node.end_lineno, node.end_col_offset


def _outcome(db: Any, target: str, lines: list[str]) -> tuple[int, list[Mutant]]:
    results = dict(db.results)
    killed, survived = 0, []
    for item in db.work_items:
        result = results[item.job_id]
        if result.worker_outcome == WorkerOutcome.SKIPPED:
            continue
        if result.is_killed:
            killed += 1
            continue
        (mutation,) = item.mutations
        survived.append(
            Mutant(
                target.removeprefix("lash_store/"),
                mutation.definition_name or "",
                lines[mutation.start_pos[0] - 1].strip(),
                mutation.operator_name.removeprefix("core/"),
                mutation.occurrence,
            )
        )
    return killed, survived


if __name__ == "__main__":
    sys.exit(main())
