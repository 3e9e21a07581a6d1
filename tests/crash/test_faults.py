"""A fault at every step of every operation: the file is as before or as after, never between."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lash_store import LashStoreError, LeaseHeld, SessionFence, SessionLease, SessionStore
from lash_store._kernel.connection import StoreConnection
from lash_store._kernel.connection import execute as connection_execute
from lash_store.schemas import init_file
from lash_store.testing import ManualClock, SequentialIds
from tests.support.databases import Rows, all_rows

FENCE = SessionFence("s", "ann", "token-1", 1)

OPERATIONS: dict[str, Callable[[SessionStore], object]] = {
    "claim_lease": lambda store: store.claim_lease(owner_id="ann", ttl_ms=99),
    "claim_lease, refused": lambda store: store.claim_lease(owner_id="bob", ttl_ms=99),
    "renew_lease": lambda store: store.renew_lease(FENCE, ttl_ms=99),
    "release_lease": lambda store: store.release_lease(FENCE),
}


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

    def execute(self, *arguments: object) -> FaultyCursor:
        self._left -= 1
        fires = self._left == 0
        if fires and self._when == "before":
            self.fired = True
            raise Fault
        self._cursor.execute(*arguments)  # type: ignore[arg-type] # reason: passed on as given
        if fires:
            self.fired = True
            raise Fault
        return self


@contextmanager
def faulty(store: SessionStore, at: int, when: str) -> Iterator[FaultyCursor]:
    writer = store._database._writer
    assert isinstance(writer, StoreConnection)
    sound = writer.hot
    writer.hot = FaultyCursor(sound, at, when)  # type: ignore[assignment] # reason: stands in for it
    try:
        yield writer.hot  # type: ignore[misc] # reason: the same
    finally:
        writer.hot = sound


def prepare(path: Path, clock: ManualClock) -> SessionStore:
    store = SessionStore.open(path, session_id="s", clock=clock, ids=SequentialIds())
    assert isinstance(store.claim_lease(owner_id="ann", ttl_ms=50), SessionLease)
    return store


def expected_after(path: Path, operation: Callable[[SessionStore], object]) -> Rows:
    clean = path.parent / "clean.db"
    with prepare(clean, ManualClock()) as store:
        operation(store)
    return all_rows(clean)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_fault_at_every_statement_at_begin_and_at_commit(
    path: Path, clock: ManualClock, name: str, when: str
) -> None:
    operation = OPERATIONS[name]
    after = expected_after(path, operation)
    with prepare(path, clock) as store:
        before = all_rows(path)
        for at in range(1, 20):
            cause: object = None
            with faulty(store, at, when) as cursor:
                try:
                    operation(store)
                except LashStoreError as refusal:
                    cause = refusal.__cause__
            if not cursor.fired:
                break
            assert isinstance(cause, Fault)
            # A COMMIT that ran and then failed to report is the one step that is "after".
            assert all_rows(path) in (before, after)
            assert _usable(path)
            store.close()
            path.unlink()
            store = prepare(path, ManualClock())  # noqa: PLW2901 # reason: each fault meets a fresh file
        assert at > 2, "begin, at least one statement, commit"
        operation(store)
        assert all_rows(path) == after
        store.close()


def _usable(path: Path) -> bool:
    """No lock was left behind."""
    with SessionStore.open(path, session_id="other", busy_timeout_ms=0) as other:
        return isinstance(other.claim_lease(owner_id="x", ttl_ms=0), SessionLease | LeaseHeld)


@pytest.mark.parametrize("kind", ["session", "process", "trigger", "effect"])
def test_a_fault_at_every_statement_of_initialising(
    path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """An initialisation that fails anywhere leaves an empty file, which the next open makes whole."""
    sound = connection_execute
    empty: Rows = {"user_version": [(0,)], "schema": []}
    at, count = 0, 0

    def failing(connection: sqlite3.Connection, statement: str) -> sqlite3.Cursor:
        nonlocal count
        count += 1
        if count == at:
            raise Fault
        return sound(connection, statement)

    monkeypatch.setattr("lash_store._kernel.guard.execute", failing)
    for attempt in range(1, 100):
        at, count = attempt, 0
        try:
            init_file(kind, path)
        except LashStoreError as refusal:
            cause: object = refusal.__cause__
        else:
            break
        assert isinstance(cause, Fault)
        assert all_rows(path) == empty
    statements, at = at, 0
    assert statements > 2
    init_file(kind, path)  # it is whole now
    assert all_rows(path) != empty
