"""Forks beside threads and event loops that use a store (K-OPEN-5), in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.canonical("a program of its own opens the file")


def report(case: str, path: Path, forks: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.concurrency.forking", case, str(path), str(forks)],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["errors"] == [], f"{found}\n{done.stderr}"
    assert done.stderr == ""
    counts: dict[str, Any] = found["counts"]
    return counts


FORKS = int(os.environ.get("LASH_STORE_FORKS", "200"))


def test_k_open_5_forks_beside_threads_that_read(path: Path) -> None:
    counts = report("beside_readers", path, FORKS)
    assert counts["blobs"] == FORKS
    assert all(counts[f"reads {number}"] > FORKS for number in range(4)), counts


def test_forks_beside_threads_that_wait_for_commits(path: Path) -> None:
    counts = report("beside_waiters", path, FORKS)
    assert all(counts[f"waits {number}"] > 50 for number in range(4)), counts


def test_forks_beside_threads_and_an_event_loop_that_write(path: Path) -> None:
    counts = report("beside_writers_and_a_loop", path, 100)
    assert (counts["lost"], counts["doubled"]) == (0, 0), counts
    assert counts["found"] == counts["acknowledged"]


def test_k_open_5_forks_after_stores_that_were_dropped(path: Path) -> None:
    assert report("after_dropped_stores", path, 10)["blobs"] == 30


def test_k_open_5_forks_beside_threads_that_close_and_drop_stores(path: Path) -> None:
    counts = report("beside_closing", path, FORKS)
    assert min(counts["closes"], counts["drops"]) > 10, counts


def test_k_open_5_forks_beside_a_store_in_memory_and_deletions(path: Path) -> None:
    counts = report("beside_memory", path, FORKS)
    assert min(counts["puts"], counts["deletes"]) > 10, counts
