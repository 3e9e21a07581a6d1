"""Waits of the kernel: none is longer than it was asked to be, however short that is."""

from __future__ import annotations

import signal
import threading
import time

from lash_store._kernel.calls import ThreadCall
from lash_store._kernel.threads import Timer
from tests.support.timing import within


def call() -> ThreadCall:
    return ThreadCall(None, None, lambda _: None, budget_s=1)


def test_a_wait_of_next_to_nothing_ends() -> None:
    """SimpleQueue.get(timeout=...) of CPython may not: see ThreadCall."""
    ended = threading.Event()

    def wait() -> None:
        for _ in range(50_000):
            call().wait(time.monotonic() + 1e-6)
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    assert ended.wait(30)


def test_a_wait_ends_though_a_signal_is_handled_meanwhile() -> None:
    handled: list[int] = []

    def handle(*_: object) -> None:
        handled.append(1)
        time.sleep(0.02)  # past the end of the wait

    before = signal.signal(signal.SIGALRM, handle)
    waiting = call()
    rescue = threading.Timer(5, waiting.wake)
    rescue.start()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        started_s = time.monotonic()
        waiting.wait(started_s + 0.015)
        waited_s = time.monotonic() - started_s
    finally:
        rescue.cancel()
        signal.signal(signal.SIGALRM, before)
    assert handled == [1]
    assert waited_s < 2


def test_a_call_that_is_woken_before_it_waits_does_not_wait() -> None:
    def wait(_: int) -> None:
        woken = call()
        woken.wake()
        woken.wake()
        woken.wait(time.monotonic() + 10)

    assert within(0.04, wait)  # a wait looks again after 50 ms at the latest


def test_the_timer_runs_what_is_due_in_order_however_soon() -> None:
    timer, done = Timer("test-timer"), threading.Event()
    ran: list[int] = []
    left = 20_000

    def again() -> None:
        nonlocal left
        left -= 1
        if left:
            timer.after(1e-6, again)
        else:
            done.set()

    timer.after(0.05, lambda: ran.append(2))
    timer.after(0.01, lambda: ran.append(1))
    timer.after(0, again)
    assert done.wait(30)
    last = threading.Event()
    timer.after(0.06, last.set)
    assert last.wait(30)
    assert ran == [1, 2]
