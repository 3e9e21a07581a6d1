"""The lock that threads of one store share: exclusion, order, timeouts, interruptions."""

from __future__ import annotations

import random
import threading
import time

import pytest

from lash_store._backends.sqlite.fairness import FairLock
from lash_store.errors import NestedTransactionError


def test_one_thread_at_a_time_whatever_the_timeouts() -> None:
    lock = FairLock()
    inside = 0
    most = 0
    taken = [0] * 8
    missed = [0] * 8

    def contend(number: int) -> None:
        nonlocal inside, most
        randomness = random.Random(number)
        for _ in range(400):
            if not lock.acquire(randomness.choice([0.0, 0.0001, 0.001, 5.0])):
                missed[number] += 1
                continue
            inside += 1
            most = max(most, inside)
            if randomness.random() < 0.1:
                time.sleep(0.0002)
            inside -= 1
            taken[number] += 1
            lock.release()

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert most == 1
    assert [sum(pair) for pair in zip(taken, missed, strict=True)] == [400] * 8
    assert lock.acquire(0.0)  # and it is free at the end
    assert not lock._waiters


def test_a_thread_that_asks_again_stands_behind_those_who_wait() -> None:
    lock = FairLock()
    served: list[str] = []
    assert lock.acquire(1.0)

    def other() -> None:
        assert lock.acquire(10.0)
        served.append("other")
        lock.release()

    thread = threading.Thread(target=other)
    thread.start()
    while not lock._waiters:
        time.sleep(0.001)
    lock.release()
    assert lock.acquire(10.0)
    served.append("again")
    lock.release()
    thread.join()
    assert served == ["other", "again"]


def test_asking_while_holding_is_an_error() -> None:
    lock = FairLock()
    assert lock.acquire(1.0)
    with pytest.raises(NestedTransactionError):
        lock.acquire(1.0)
    lock.release()
    assert lock.acquire(0.0)


def test_a_waiter_that_gave_up_is_not_served() -> None:
    lock = FairLock()
    assert lock.acquire(1.0)
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(lock.acquire(0.01)))
    thread.start()
    thread.join()
    assert results == [False]
    lock.release()
    assert lock.acquire(0.0)
