"""The threads of the library: few, and further ones only while those stand still."""

from __future__ import annotations

import threading

import pytest

from lash_store._kernel.threads import Pool
from tests.support.turns import eventually

pytestmark = pytest.mark.canonical("opens nothing")


def named(name: str) -> int:
    return sum(thread.name.startswith(name) for thread in threading.enumerate())


def test_k_tx_4_jobs_that_stand_still_keep_no_other_waiting() -> None:
    pool, go_on, done = Pool("stands", 2, spare=3), threading.Event(), threading.Event()
    ended: list[int] = []
    for _ in range(4):
        pool.submit(lambda: go_on.wait(60))
    pool.submit(done.set)
    assert done.wait(20)
    # And no more than there may be; what waits then is done once one goes on.
    pool.submit(lambda: go_on.wait(60))
    pool.submit(lambda: go_on.wait(60))
    eventually(lambda: named("stands") == 5)
    for number in range(3):
        pool.submit(lambda number=number: ended.append(number))  # type: ignore[misc] # reason: of this round
    assert ended == []
    go_on.set()
    eventually(lambda: len(ended) == 3)
    eventually(lambda: named("stands") == 2)  # the others go once nothing waits


def test_k_tx_4_jobs_that_go_on_get_no_further_thread() -> None:
    pool, last = Pool("goes on", 1, spare=3), threading.Event()
    for _ in range(2_000):
        pool.submit(lambda: None)
    pool.submit(last.set)
    assert last.wait(20)
    assert named("goes on") == 1
