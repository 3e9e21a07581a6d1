"""The harness that kills and fails at each statement: of ours nothing is torn, of others it is found."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lash_store import NewWork, SessionStore
from lash_store.errors import InvalidRecordError
from lash_store.testing import fail_at_each_statement, kill_at_each_statement, point
from tests.support.sessions import claim_of, enqueue, whole_turn

pytestmark = pytest.mark.canonical("opens files by itself")


def queued(folder: Path) -> None:
    with SessionStore.open(folder / "s.db", session_id="s") as store:
        store.record_attachment_intent("att-1", canonical_uri="x:1")
        enqueue(store, "job")


def take_a_turn(folder: Path) -> None:
    with SessionStore.open(folder / "s.db", session_id="s") as store:
        store.commit_turn(whole_turn(store, claim_of(store)))


def whole_or_nothing(folder: Path, is_done: bool) -> None:
    """Either the turn is there, or its batch is still to be had."""
    with SessionStore.open(folder / "s.db", session_id="s") as store:
        head, left = store.load_head(), store.list_work()
        assert (head is None) is bool(left), (head, left)
        assert head is not None or not is_done
        if head is not None:
            assert store.load_receipt("turn-1") is not None
            assert head.checkpoint_ref is not None
            store.load_checkpoint(head.checkpoint_ref)


def test_a_turn_that_is_killed_at_each_statement() -> None:
    killed = kill_at_each_statement(take_a_turn, whole_or_nothing, make=queued)
    assert killed > 30


def make_two(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "x.db")) as connection:
        connection.execute("CREATE TABLE x (who, amount)")
        connection.execute("INSERT INTO x VALUES ('ann', 5), ('bob', 0)")
        connection.commit()


def move_in_two_steps(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "x.db", isolation_level=None)) as connection:
        connection.execute("UPDATE x SET amount = amount - 5 WHERE who = 'ann'")
        point("in between")
        connection.execute("UPDATE x SET amount = amount + 5 WHERE who = 'bob'")


def nothing_is_lost(folder: Path, is_done: bool) -> None:
    with closing(sqlite3.connect(folder / "x.db")) as connection:
        ((amount,),) = connection.execute("SELECT sum(amount) FROM x")
    assert amount == 5


def test_what_is_torn_is_found() -> None:
    """Of a consumer's own: two transactions where there should be one."""
    with pytest.raises(AssertionError) as found:
        kill_at_each_statement(move_in_two_steps, nothing_is_lost, make=make_two)
    assert found.value.__notes__ == ["killed at place 1"]


def test_what_fails_by_itself_is_no_crash() -> None:
    def fails(_: Path) -> None:
        raise ZeroDivisionError

    with pytest.raises(InvalidRecordError, match="failed by itself, at place 1"):
        kill_at_each_statement(fails, lambda *_: None)
    with pytest.raises(InvalidRecordError, match="more places"):
        kill_at_each_statement(queued, lambda *_: None, most=2)


def open_in_memory() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE x (who, amount)")
    connection.execute("INSERT INTO x VALUES ('ann', 5), ('bob', 0)")
    return connection


def move_in_one(connection: sqlite3.Connection, *, undo: bool) -> None:
    connection.execute("BEGIN")
    try:
        connection.execute("UPDATE x SET amount = amount - 5 WHERE who = 'ann'")
        point("in between")
        connection.execute("UPDATE x SET amount = amount + 5 WHERE who = 'bob'")
    except sqlite3.Error:
        if undo:
            connection.execute("ROLLBACK")
            raise
    connection.execute("COMMIT")


def test_a_forgotten_rollback_is_found() -> None:
    """Of a consumer's own: a point fails as a disk does, before it alone."""
    seen: list[str] = []

    def check(connection: sqlite3.Connection, error: BaseException | None) -> None:
        seen.append(str(error))
        ((amount,),) = connection.execute("SELECT sum(amount) FROM x")
        assert amount == 5

    def failed(*, undo: bool) -> int:
        return fail_at_each_statement(
            open_in_memory,
            lambda connection: move_in_one(connection, undo=undo),
            check,
            close=lambda connection: connection.close(),
        )

    assert failed(undo=True) == 3
    assert len(set(seen)) == 3  # busy, an I/O error, a full disk
    with pytest.raises(AssertionError) as found:
        failed(undo=False)
    assert found.value.__notes__ == ["busy before place 1, point('in between')"]


@pytest.mark.parametrize("bad", [{"faults": ("rust",)}, {"whens": ("during",)}])
def test_a_fault_that_there_is_not_is_refused(bad: Any) -> None:
    """Before anything is made."""
    made: list[int] = []
    with pytest.raises(InvalidRecordError, match=r"rust|during"):
        fail_at_each_statement(lambda: made.append(1), lambda _: None, lambda *_: None, **bad)
    assert made == []


async def asynchronous(_: Any) -> None:
    """What has to be awaited, and never is."""


def test_asynchronous_work_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidRecordError, match=r"asyncio\.run"):
        fail_at_each_statement(lambda: None, asynchronous, lambda *_: None)
    with pytest.raises(InvalidRecordError, match="stderr"):
        kill_at_each_statement(asynchronous, lambda *_: None)
    assert "asyncio.run" in capfd.readouterr().err


def test_what_fails_after_it_was_done(tmp_path: Path) -> None:
    """A COMMIT that was done and could not be told: an error, and the rows are there."""
    paths = iter(range(1_000))
    outcomes: set[tuple[bool, int]] = set()

    def make() -> SessionStore:
        return SessionStore.open(tmp_path / f"{next(paths)}.db", session_id="s")

    def check(store: SessionStore, error: BaseException | None) -> None:
        outcomes.add((error is None, len(store.list_work())))

    failed = fail_at_each_statement(
        make,
        lambda store: store.enqueue_work(NewWork(["job"])),
        check,
        close=lambda store: store.close(),
        faults=("io error",),
        whens=("after",),
    )
    assert failed >= 3
    assert outcomes == {(False, 0), (False, 1)}
