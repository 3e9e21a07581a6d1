"""SIGINT at any instruction of a main thread that catches it, alone and beside others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from lash_store import SessionStore
from lash_store._backends import sqlite
from lash_store._backends.sqlite.files import QUEUE_SUFFIX
from lash_store._kernel.posix import fcntl
from lash_store.testing import as_another_process
from tests.support.interrupting import Interrupt

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


SQLITE = Path(sqlite.__file__).parent

INSTRUCTIONS = 1_200
"""Before how many of them an interrupt comes in a call that waits: it is the head of the queue long before."""


@pytest.mark.posix
@pytest.mark.parametrize("operation", ["claim_lease", "begin"])
def test_k_tx_10_an_interrupt_anywhere_in_a_wait_leaves_the_queue_of_processes(
    operation: str, path: Path
) -> None:
    """Or its process would keep the others waiting until its next call, which may never come."""
    with _waiting(path, operation, busy_timeout_ms=20_000) as (call, check):
        for instruction in range(1, INSTRUCTIONS):
            where = Interrupt(instruction, of=SQLITE).strikes(call)
            assert where, f"the call ended before instruction {instruction}"
            check(where)


@pytest.mark.posix
@pytest.mark.parametrize("operation", ["claim_lease", "begin"])
def test_k_tx_10_an_interrupt_anywhere_in_a_refusal_leaves_the_queue_of_processes(
    operation: str, path: Path
) -> None:
    """Of a call that has spent its budget, and takes itself out of the line."""
    with _waiting(path, operation, busy_timeout_ms=5) as (call, check):
        for instruction in count(1):
            where = Interrupt(instruction, behind="busy_error", of=SQLITE).strikes(call)
            check(where)
            if not where:
                break
        assert instruction > 100


@contextmanager
def _waiting(
    path: Path, operation: str, *, busy_timeout_ms: int
) -> Iterator[tuple[Callable[[], object], Callable[[str], None]]]:
    """Give a call that waits for another process, and a check that this one is not the head for it."""
    with SessionStore.open(path, session_id="s", busy_timeout_ms=busy_timeout_ms) as store:
        with as_another_process():
            other = SessionStore.open(path, session_id="s")
        calls: dict[str, Callable[[], object]] = {
            "claim_lease": lambda: store.claim_lease(owner_id="ann", ttl_ms=1),
            "begin": lambda: store.begin().__enter__(),
        }
        calls["claim_lease"]()  # once: what is done the first time only is another matter
        queue = os.open(f"{path}{QUEUE_SUFFIX}", os.O_RDWR)

        def check(where: str) -> None:
            assert _can_lock(queue), f"it is the head, interrupted in {where}"
            assert os.pread(queue, 1, 0) != b"\1", f"the gate is closed, interrupted in {where}"

        with other.begin():
            yield calls[operation], check
        os.close(queue)
        calls["claim_lease"]()
        other.close()


def _can_lock(descriptor: int) -> bool:
    """Whether nobody else has the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True
