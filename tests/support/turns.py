"""Turns on one file: holding one while calls come to stand in line, and looking at the line."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

from lash_store._stores.store import Store
from tests.support.databases import database_of

PATIENCE_S = 60.0
"""How long a busy machine may take for what is a matter of milliseconds."""


def in_line(store: Store[Any]) -> int:
    """How many calls wait for their turn on the file of `store`."""
    return sum(call.waits for call in list(database_of(store).writer.turns.waiting))


def eventually(condition: Callable[[], object]) -> None:
    """Wait for what no event tells."""
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, "it never came"
        time.sleep(0.0005)


async def eventually_in_loop(condition: Callable[[], object]) -> None:
    """Wait for what no event tells, and let others go on."""
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, "it never came"
        await asyncio.sleep(0.0005)


def join(*threads: threading.Thread) -> None:
    """Wait for the end of threads, each of which has to come."""
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "a thread is stuck"


def started(*works: Callable[[], object]) -> list[threading.Thread]:
    """Run each of `works` in a thread of its own."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    return threads


def outcome(call: Callable[[], Any]) -> Any:
    """What a call gives, or its error."""
    try:
        return call()
    except BaseException as error:  # noqa: BLE001 # reason: interrupts are among what is looked for
        return error


@contextmanager
def held(store: Store[Any]) -> Iterator[None]:
    """Hold the turn in a block of another thread, so that what comes stands in line."""
    inside, go = threading.Event(), threading.Event()

    def hold() -> None:
        with store.begin():
            inside.set()
            go.wait(PATIENCE_S)

    (thread,) = started(hold)
    assert inside.wait(PATIENCE_S)
    try:
        yield
    finally:
        go.set()
        join(thread)


@contextmanager
def one_group(store: Store[Any]) -> Iterator[None]:
    """Let whatever stands in line at the end of the block be one group, however long it takes."""
    writer = database_of(store).writer
    writer._bound_s = inf
    try:
        with held(store):
            yield
    finally:
        eventually(lambda: not in_line(store) and writer.turns.is_free)
        writer._bound_s = None


@contextmanager
def everything_locked(path: Path) -> Iterator[None]:
    """Another program has the file for itself: it can't be read, nor opened."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.close()
