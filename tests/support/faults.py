"""Faults in the middle of an operation: a cursor that fails at its n-th statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lash_store._kernel.connection import StoreConnection
from lash_store._kernel.store import Store


class Fault(sqlite3.OperationalError):
    """What a disk or a killed statement looks like to the driver."""


class FaultyCursor:
    """The store's own cursor, failing at its `at`-th statement, before or after it ran."""

    def __init__(self, cursor: sqlite3.Cursor, at: int, when: str) -> None:
        self._cursor = cursor
        self._left = at
        self._when = when
        self.fired = False

    @property
    def connection(self) -> sqlite3.Connection:
        return self._cursor.connection

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    def fetchall(self) -> list[object]:
        return self._cursor.fetchall()

    def executemany(self, *arguments: object) -> FaultyCursor:
        return self._run(self._cursor.executemany, arguments)

    def execute(self, *arguments: object) -> FaultyCursor:
        return self._run(self._cursor.execute, arguments)

    def _run(self, run: Callable[..., object], arguments: tuple[object, ...]) -> FaultyCursor:
        self._left -= 1
        fires = self._left == 0
        if fires and self._when == "before":
            self.fired = True
            raise Fault
        run(*arguments)
        if fires:
            self.fired = True
            raise Fault
        return self


@contextmanager
def faulty(store: Store[Any], at: int, when: str) -> Iterator[FaultyCursor]:
    writer = store._database._writer
    assert isinstance(writer, StoreConnection)
    sound = writer.hot
    writer.hot = FaultyCursor(sound, at, when)  # type: ignore[assignment] # reason: stands in for it
    try:
        yield writer.hot  # type: ignore[misc] # reason: the same
    finally:
        writer.hot = sound
