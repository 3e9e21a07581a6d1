"""Faults in the middle of an operation: an observer that fails the n-th statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lash_store._kernel.observing import Event, observed_by
from lash_store._stores.store import Store


class Fault(sqlite3.OperationalError):
    """What a disk or a killed statement looks like to the driver."""


class Failing:
    """Fails the `at`-th statement on one database, before or after it ran."""

    def __init__(self, path: str, at: int, when: str, *, opening: bool = False) -> None:
        self._path = path
        self._left = at
        self._when = when
        self._opening = opening
        self.fired = False

    def before(self, event: Event) -> None:
        if not self._concerns(event):
            return
        self._left -= 1
        if self._left == 0 and self._when == "before":
            self.fired = True
            raise Fault

    def after(self, event: Event) -> None:
        if self._concerns(event) and self._left == 0 and not self.fired:
            self.fired = True
            raise Fault

    def _concerns(self, event: Event) -> bool:
        return event.path == self._path and (event.operation == "open") == self._opening


@contextmanager
def faulty(store: Store[Any], at: int, when: str) -> Iterator[Failing]:
    failing = Failing(store.path, at, when)
    with observed_by(failing):
        yield failing
