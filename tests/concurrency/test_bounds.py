"""What many sessions and many waiters take of a process, and whom they delay; each in its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.canonical("a program of its own opens the file")


SESSIONS = int(os.environ.get("LASH_STORE_SESSIONS", "400"))
"""How many, each of a file of its own: far more than the bounds; ``LASH_STORE_SESSIONS=1000`` for a thousand."""


def report(case: str, folder: Path, size: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.concurrency.bounded", case, str(folder), str(size)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("case", ["many_sessions", "many_sessions_asyncio"])
def test_k_open_12_many_sessions_take_little_of_the_process(tmp_path: Path, case: str) -> None:
    found = report(case, tmp_path, SESSIONS)
    assert found["complete"] == SESSIONS
    assert found["threads"] <= 16, found
    assert found["descriptors"] <= 200, found
    assert found["grown_mib"] <= 60, found
    assert found["left"] < 20, found


@pytest.mark.parametrize("waiting", [1, 8])
def test_k_tx_4_sixteen_locked_files_delay_no_other_file(tmp_path: Path, waiting: int) -> None:
    found = report("locked_asyncio", tmp_path, waiting)
    assert found["waited"] == 16 * waiting
    assert found["slowest_s"] < 0.3, found
    assert found["threads"] <= 16, found


def test_threads_that_wait_for_sixteen_files_delay_no_other_file(tmp_path: Path) -> None:
    found = report("locked_threads", tmp_path, 2)
    assert (found["waited"], found["done"]) == (32, 32)
    assert found["slowest_s"] < 0.3, found


def test_a_long_read_delays_no_other_read(tmp_path: Path) -> None:
    found = report("long_reads", tmp_path, 100)
    assert found["still"]
    assert found["consumers_s"] < 1, found
    assert found["one_calls_s"] < 1, found
