"""Break the lease in seven ways, one at a time, and see that its suite finds out for every lease.

python -m tests.mutants

Each mutant is a copy of the package with one line changed; the suite ``test_leases.py`` alone
runs against it, once for each kind of lease. Exit status 1 if any mutant lives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.support.leased import LEASED

ROOT = Path(__file__).resolve().parents[2]
PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider")
SUITE = "tests/conformance/test_leases.py"


class Mutant(NamedTuple):
    """One line of one file, and what it becomes."""

    name: str
    file: str
    line: str
    becomes: str


LIVENESS, LEASES, LEASING = "_kernel/liveness.py", "_kernel/leases.py", "_stores/leasing.py"

MUTANTS = (
    Mutant(
        "the end is inclusive, in SQL",
        LIVENESS,
        "return self.expires_at_ms <= (",
        "return self.expires_at_ms < (",
    ),
    Mutant(
        "the end is inclusive, in Python",
        LIVENESS,
        "return expires_at_ms <= now_ms",
        "return expires_at_ms < now_ms",
    ),
    Mutant(
        "liveness is unchecked",
        LEASES,
        "return and_(term, ~self.liveness.is_over(now_ms=now_ms))",
        "return term",
    ),
    Mutant("release is always true", LEASING, "return released == 1", "return True"),
    Mutant(
        "the reason is constant",
        LEASING,
        "return LeaseLostError(fence, actual, _lost_reason(fence, actual))",
        'return LeaseLostError(fence, actual, "expired")',
    ),
    Mutant(
        "the kind of fence is unchecked in renew",
        LEASING,
        'check_fence(fence, self.fence)\n        check_count("ttl_ms", ttl_ms)',
        'check_count("ttl_ms", ttl_ms)',
    ),
    Mutant(
        "the kind of fence is unchecked in release",
        LEASING,
        "check_fence(fence, self.fence)\n\n        def release",
        "def release",
    ),
    Mutant(
        "the reason is constant in require",
        LEASING,
        "raise _lost(fence, term)",
        'raise LeaseLostError(fence, term, "expired")',
    ),
)


def main() -> int:
    """Run the suite against every mutant, for every lease; tell which live."""
    alive = []
    if any(_is_killed(None, kind) for kind in LEASED):
        raise SystemExit("the suite fails without any mutant")
    for mutant in MUTANTS:
        for kind in LEASED:
            killed = _is_killed(mutant, kind)
            print(f"{'killed' if killed else 'ALIVE '}  {mutant.name}: {kind}")
            if not killed:
                alive.append((mutant.name, kind))
    print(f"{len(MUTANTS) * len(LEASED) - len(alive)} of {len(MUTANTS) * len(LEASED)} killed")
    return 1 if alive else 0


def _is_killed(mutant: Mutant | None, kind: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "lash_store"
        shutil.copytree(ROOT / "lash_store", package)
        if mutant is not None:
            _break(package, mutant)
        for part in ("tests", "pyproject.toml"):
            (Path(folder) / part).symlink_to(ROOT / part)
        done = subprocess.run(
            [*PYTEST, SUITE, "--lease", kind],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": folder},
            capture_output=True,
            check=False,
        )
        if done.returncode not in (0, 1):
            raise SystemExit(done.stdout.decode()[-2000:])
        return done.returncode == 1


def _break(package: Path, mutant: Mutant) -> None:
    file = package / mutant.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutant.line) != 1:
        raise SystemExit(f"{mutant.file} does not hold once: {mutant.line}")
    file.write_text(text.replace(mutant.line, mutant.becomes), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
