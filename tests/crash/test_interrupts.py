"""SIGINT at any instruction of a main thread that catches it, alone and beside others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.canonical("a program of its own opens the file")


INTERRUPTS = int(os.environ.get("LASH_STORE_INTERRUPTS", "500"))
"""How many come in each case; ``nox -s interrupts`` asks for 10,000."""


@pytest.mark.parametrize("threads", [0, 3], ids=["alone", "beside threads"])
@pytest.mark.parametrize("operation", ["claim", "enqueue", "commit", "append", "run"])
def test_k_tx_10_an_interrupt_leaves_nothing_locked_lost_or_doubled(
    operation: str, threads: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.crash.interrupted"]
    done = subprocess.run(
        [*command, str(tmp_path), operation, str(INTERRUPTS), str(threads)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["caught"] > INTERRUPTS / 4  # some come so soon that they are one
    assert report["acknowledged"] > 0
    for wrong in ("failures", "stuck", "lost"):
        assert report[wrong] == [], report
    assert report["doubled"] == 0
    assert done.stderr == ""  # no interrupt was swallowed
