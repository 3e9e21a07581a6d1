"""The shop runs: killed at each statement, nothing of it is torn apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_shop_killed_at_each_statement(root: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "examples.shop", str(tmp_path / "shop.db")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=root,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("ok ") == 6
    killed = int(run.stdout.splitlines()[-1].split()[0])
    assert killed > 100
