"""Forks beside threads and event loops that use a store (K-OPEN-5), in a process of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from lash_store.session.folder_lock import FolderLock

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


def program(source: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source), str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )


BESIDE_A_BLOCK = """
    import os, signal, sys, threading, time
    from lash_store import NewWork, SessionStore

    store = SessionStore.open(sys.argv[1], session_id="s")
    begun, may_end = threading.Event(), threading.Event()

    def write():
        with store.begin():
            begun.set()
            may_end.wait(20)

    threading.Thread(target=write, daemon=True).start()
    begun.wait()
    threading.Timer(0.4, may_end.set).start()
"""


def test_k_open_5_a_signal_handler_forks_while_its_thread_does(path: Path) -> None:
    """As a supervisor does that starts another worker for one that has ended."""
    done = program(
        BESIDE_A_BLOCK
        + """
    def fork(*_):
        child = os.fork()
        if not child:
            store.enqueue_work(NewWork([1]))
            os._exit(0)
        children.append(child)

    children = []
    signal.signal(signal.SIGALRM, fork)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    fork()
    while len(children) < 2:
        time.sleep(0.01)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert len(store.list_work()) == 2
    assert signal.getsignal(signal.SIGALRM) is fork
    """,
        path,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.posix("locks of a folder")
@pytest.mark.parametrize("end", ["leaves", "is killed"])
def test_s_dir_2_a_forked_child_keeps_no_lock_of_a_folder(tmp_path: Path, end: str) -> None:
    """Whether its parent leaves the lock, or is killed while it has it."""
    done = program(
        f"""
    import os, signal, sys, time
    from pathlib import Path
    from lash_store.session.folder_lock import FolderLock

    lock = FolderLock(Path(sys.argv[1]))
    with lock.held(exclusive=True):
        child = os.fork()
        if not child:
            os.close(1), os.close(2)
            time.sleep(20)
            os._exit(0)
        print(child, flush=True)
        if {end!r} == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
    """,
        tmp_path,
    )
    child = int(done.stdout)
    try:
        with FolderLock(tmp_path, busy_timeout_ms=0).held(exclusive=True):
            os.kill(child, 0)  # it is there
    finally:
        os.kill(child, signal.SIGKILL)
