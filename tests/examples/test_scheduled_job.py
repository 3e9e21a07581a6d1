"""The example runs, and its verdict is the databases'."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_scheduled_job_killed_after_each_of_its_steps(root: Path, tmp_path: Path) -> None:
    program = root / "examples" / "scheduled_job.py"
    run = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "job")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("was killed") == 8
    # Killed inside the call, it is called again; killed anywhere else, it is not.
    assert "8 workers killed, 2 calls of the model, one answer" in run.stdout
