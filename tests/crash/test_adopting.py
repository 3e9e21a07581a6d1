"""Adopting a database is one transaction: killed or failing at any statement, it has changed nothing."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData

from lash_store import EffectStore, ProcessRegistry, SessionStore, TriggerStore
from lash_store._kernel.observing import Event, observed_by
from lash_store.errors import LashStoreError
from lash_store.schemas import OwnTables, Trigger
from lash_store.session.tables import blobs
from tests.support.databases import all_rows, run_script

OPENERS: dict[str, Callable[[str], Any]] = {
    "session": partial(SessionStore.open, session_id="s", adopt=True),
    "process": partial(ProcessRegistry.open, adopt=True),
    "trigger": partial(TriggerStore.open, adopt=True),
    "effect": partial(EffectStore.open, owner_id="ann", adopt=True),
}
DECLARED: dict[str, Any] = {
    "tables": [OwnTables("mine", 3, MetaData(), also=["CREATE TABLE mine (x)"])],
    "extras": [Trigger("seen", blobs, "AFTER INSERT", "INSERT INTO mine VALUES (1)")],
}
OPENERS["session, and what is declared beside it"] = partial(OPENERS["session"], **DECLARED)

THEIRS = """
CREATE TABLE blobs (id INTEGER PRIMARY KEY); INSERT INTO blobs VALUES (7);
PRAGMA user_version = 77; PRAGMA journal_mode = WAL;
"""


class At:
    """Does something at the `at`-th statement."""

    def __init__(self, at: int, when: str, what: Callable[[], None]) -> None:
        self._left, self._when, self._what = at, when, what
        self.fired = False

    def before(self, _: Event) -> None:
        self._left -= 1
        if self._left == 0 and self._when == "before":
            self._fire()

    def after(self, _: Event) -> None:
        if self._left == 0 and self._when == "after" and not self.fired:
            self._fire()

    def _fire(self) -> None:
        self.fired = True
        self._what()


def fail() -> None:
    error = sqlite3.OperationalError("the disk")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    error.sqlite_errorname = "SQLITE_IOERR"
    raise error


def interrupt() -> None:
    raise KeyboardInterrupt


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def is_whole(rows: Any, kind: str, before: Any) -> bool:
    """Whether all of a kind is there; else the database has to be as it was."""
    versions = dict(rows.get("lash_versions", []))
    if versions:
        assert set(versions) == {kind.partition(",")[0]}
        assert ("," in kind) == (rows.get("lash_own_tables") == [("mine", 3)])
        assert rows["user_version"] == [(77,)]
        return True
    assert rows == before
    return False


@pytest.mark.parametrize("what", [fail, interrupt], ids=["fault", "interrupt"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", OPENERS)
def test_a_fault_at_every_statement_of_adopting(
    path: Path, kind: str, when: str, what: Callable[[], None]
) -> None:
    at, whole = 0, 0
    while True:
        at += 1
        for file in path.parent.iterdir():
            file.unlink()
        run_script(path, THEIRS)
        before = all_rows(path)
        trouble = At(at, when, what)
        with observed_by(trouble), suppress(LashStoreError, KeyboardInterrupt):
            OPENERS[kind](f"sqlite:///{path}").close()
        whole += is_whole(all_rows(path), kind, before)
        OPENERS[kind](f"sqlite:///{path}").close()
        assert is_whole(all_rows(path), kind, before)
        if not trouble.fired:
            break
    assert at > 10
    assert whole < at


@pytest.mark.parametrize("kind", OPENERS)
def test_sigkill_at_every_statement_of_adopting(path: Path, kind: str) -> None:
    at, status = 0, -1
    while status != 0:
        at += 1
        for file in path.parent.iterdir():
            file.unlink()
        run_script(path, THEIRS)
        before = all_rows(path)
        child = os.fork()
        if child == 0:
            try:
                with observed_by(At(at, "before", die)):
                    OPENERS[kind](f"sqlite:///{path}").close()
            finally:
                os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert status in (0, signal.SIGKILL)
        is_whole(all_rows(path), kind, before)
        OPENERS[kind](f"sqlite:///{path}").close()
        assert is_whole(all_rows(path), kind, before)
    assert at > 10
