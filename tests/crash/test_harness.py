"""The harness that kills and fails at each statement: of ours nothing is torn, of others it is found."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from lash_store import NewWork, SessionStore, TurnCommit
from lash_store.errors import InvalidRecordError, LashStoreError
from lash_store.testing import fail_at_each_statement, kill_at_each_statement, point
from tests.support.databases import all_rows
from tests.support.sessions import claim_of, enqueue, lease_of, whole_turn

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
    with pytest.raises(AssertionError):
        kill_at_each_statement(move_in_two_steps, nothing_is_lost, make=make_two)


def test_what_fails_by_itself_is_no_crash() -> None:
    def fails(_: Path) -> None:
        raise ZeroDivisionError

    with pytest.raises(InvalidRecordError, match="failed by itself, at place 1"):
        kill_at_each_statement(fails, lambda *_: None)
    with pytest.raises(InvalidRecordError, match="more places"):
        kill_at_each_statement(queued, lambda *_: None, most=2)


class Opened:
    """A session with something to lose."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "s.db"
        queued(Path(self.folder.name))
        self.store = SessionStore.open(self.path, session_id="s", busy_timeout_ms=30)
        self.claim = claim_of(self.store)
        self.fence = lease_of(self.store).fence
        self.before = all_rows(self.path)

    def close(self) -> None:
        self.store.close()
        self.folder.cleanup()


WRITES: dict[str, Any] = {
    "commit_turn": lambda it: it.store.commit_turn(
        TurnCommit(fence=it.fence, config={"a": 1}, completed=[it.claim])
    ),
    "enqueue_work": lambda it: it.store.enqueue_work(NewWork([1, 2])),
    "renew_lease": lambda it: it.store.renew_lease(it.fence, ttl_ms=10**6),
    "abandon_claim": lambda it: it.store.abandon_claim(it.claim),
}


def all_or_nothing(it: Opened, error: BaseException | None) -> None:
    """An error of ours and the rows as they were; or, of a try that was made again, all of it."""
    assert error is None or isinstance(error, LashStoreError), repr(error)
    if error is not None:
        assert all_rows(it.path) == it.before
    with suppress(LashStoreError):
        it.store.enqueue_work(NewWork(["after"]))  # and nothing is locked
    assert len(it.store.list_work()) >= 1


@pytest.mark.parametrize("name", WRITES)
def test_a_write_that_fails_at_each_statement(name: str) -> None:
    failed = fail_at_each_statement(Opened, WRITES[name], all_or_nothing, close=Opened.close)
    assert failed >= 8
