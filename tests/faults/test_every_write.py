"""Every operation that writes: killed, and failed, at each of its statements, by the public harness.

What is in the file afterwards is what was there before, or what there is after the operation: never
anything between. And the next call succeeds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, get_args

import pytest

from lash_store._stores.operations import operations_of
from lash_store.errors import LashStoreError
from lash_store.schemas import check_file
from lash_store.testing import fail_at_each_statement, kill_at_each_statement
from lash_store.testing.crashing import FaultKind
from tests.support.databases import Rows, all_rows
from tests.support.layouts import LAYOUT, on_server
from tests.support.writes import KINDS, WRITES, Filled

EACH = [(kind, name) for kind, writes in WRITES.items() for name in writes]
each_write = pytest.mark.parametrize(("kind", "name"), EACH)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Filled]:
    known = {kind: Filled(kind, tmp_path_factory.mktemp("filled")) for kind in KINDS}
    return known.__getitem__


@pytest.mark.parametrize("kind", KINDS)
def test_no_operation_is_left_out(kind: str, filled: Callable[[str], Filled]) -> None:
    with filled(kind).open(filled(kind).file.with_name("unused.db")) as store:
        listed = operations_of(type(store))
    writing = {name.removeprefix("_") for name, operation in listed.items() if operation.writes}
    assert {name.partition(",")[0] for name in WRITES[kind]} == writing


class Case:
    """One operation on its store, and what may be in the file."""

    def __init__(self, filled: Filled, kind: str, name: str, folder: Path) -> None:
        self.filled, self.write = filled, WRITES[kind][name]
        self.file = folder / "store.db"
        self.before = self.opened_and(lambda _: None)
        self.after = self.opened_and(self.act)

    def opened_and(self, act: Callable[[Any], object]) -> Rows:
        """Return what is in the file after this."""
        with closing(self.make()) as store:
            act(store)
        return plain(all_rows(self.file))

    def make(self) -> Any:
        """Open a store with something to lose."""
        self.filled.copy_to(self.file)
        return self.filled.open(self.file)

    def act(self, store: Any) -> None:
        self.write(store, self.filled.held)

    def check(self, path: Path) -> bool:
        """It was done, or it was not; tell which. Whoever was killed has left no lock."""
        found = plain(all_rows(path))
        assert found in (self.before, self.after)
        assert on_server() or check_file(path).is_sound
        with self.filled.open(path) as store, suppress(LashStoreError):  # a term may have ended
            self.act(store)
        return found == self.after


def plain(rows: Rows) -> Rows:
    """Rows without their tokens: one that is drawn again differs; as does a number of a server's."""
    drawn = r"late-\d+|(subscription|trigger):\d+" if on_server() else r"late-\d+"

    def blank(value: Any) -> Any:
        return re.sub(drawn, "drawn", value) if isinstance(value, str) else value

    if on_server():
        rows = {**rows, "trigger_subscription_seq": [(len(rows["trigger_subscription_seq"]),)]}
    return {
        table: sorted((tuple(map(blank, row)) for row in found), key=repr)  # a server has no order
        for table, found in rows.items()
    }


@each_write
def test_killed_at_each_statement(
    filled: Callable[[str], Filled], tmp_path: Path, kind: str, name: str
) -> None:
    case = Case(filled(kind), kind, name, tmp_path)

    def work(folder: Path) -> None:
        case.act(case.filled.open(folder / "store.db"))  # it dies, or exits without a close

    def check(folder: Path, is_done: bool) -> None:
        was_done = case.check(folder / "store.db")
        assert was_done or not is_done or case.before == case.after

    def make(folder: Path) -> None:
        case.filled.copy_to(folder / "store.db")

    assert kill_at_each_statement(work, check, make=make) > 3


@each_write
def test_failed_at_each_statement(
    filled: Callable[[str], Filled], tmp_path: Path, kind: str, name: str
) -> None:
    """Busy, an I/O error, a full disk; before each statement, and in place of what it answered."""
    case = Case(filled(kind), kind, name, tmp_path)

    def check(store: Any, error: BaseException | None) -> None:
        assert error is None or isinstance(error, LashStoreError), repr(error)
        found = plain(all_rows(case.file))
        assert found == case.after or (error is not None and found == case.before)
        if found == case.before:
            case.act(store)
            assert plain(all_rows(case.file)) == case.after
        case.check(case.file)

    # Of all kinds where it takes the least time: which error it is makes no difference to a layout.
    faults: Any = ("io error",) if os.environ[LAYOUT] != "canonical" else get_args(FaultKind)
    failed = fail_at_each_statement(
        case.make, case.act, check, close=lambda it: it.close(), faults=faults
    )
    assert failed >= 3


@each_write
def test_a_fault_that_a_consumer_catches_inside_a_transaction(
    filled: Callable[[str], Filled], tmp_path: Path, kind: str, name: str
) -> None:
    """What the operation wrote before the fault is undone, though the transaction goes on."""
    case = Case(filled(kind), kind, name, tmp_path)

    def work(store: Any) -> None:
        with store.begin() as tx, suppress(LashStoreError):
            case.act(tx)

    def check(store: Any, error: BaseException | None) -> None:
        assert error is None or isinstance(error, LashStoreError), repr(error)
        assert plain(all_rows(case.file)) in (case.before, case.after)

    failed = fail_at_each_statement(
        case.make, work, check, close=lambda it: it.close(), faults=("io error",)
    )
    assert failed >= 3
