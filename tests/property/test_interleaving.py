"""Calls that overlap: what the explorer finds, and what it finds nothing in."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lash_store import AsyncSessionStore, Lease, LeaseHeld, NewWork, SessionStore, TurnCommit
from lash_store.errors import (
    ClaimLostError,
    InvalidRecordError,
    LeaseLostError,
    RevisionConflictError,
    StoreBusyError,
)
from lash_store.testing import (
    ManualClock,
    OrderError,
    Parked,
    as_another_process,
    explore,
    interleaving,
    point,
)
from tests.support.sessions import enqueue, lease_of

# A consumer's own, on a plain connection for each call.


class Plain:
    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "x.db"
        self.run("CREATE TABLE lease (owner)")
        self.run("INSERT INTO lease VALUES (NULL)")

    def run(self, sql: str, *values: Any) -> Any:
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=10)) as connection:
            cursor = connection.execute(sql, values)
            return cursor.fetchall() or cursor.rowcount

    def close(self) -> None:
        self.folder.cleanup()


def takes_what_was_free(who: str) -> Any:
    def call(it: Plain) -> bool:
        point("select")
        ((owner,),) = it.run("SELECT owner FROM lease")
        if owner is not None:
            return False
        point("update")
        it.run("UPDATE lease SET owner = ?", who)
        return True

    return call


def takes_what_is_free(who: str) -> Any:
    def call(it: Plain) -> bool:
        point("update")
        return bool(it.run("UPDATE lease SET owner = ? WHERE owner IS NULL", who) == 1)

    return call


def at_most_one(_: Plain, results: list[Any]) -> None:
    assert sum(each is True for each in results) == 1, f"{results}: two hold it"


def test_select_then_update_is_caught_and_played_again() -> None:
    calls = [takes_what_was_free(who) for who in ("ann", "bob")]
    with pytest.raises(OrderError) as found:
        explore(Plain, calls, at_most_one, close=Plain.close)
    assert "two hold it" in str(found.value)
    assert set(found.value.steps) == {"0: select", "0: update", "1: select", "1: update"}
    with pytest.raises(OrderError) as again:
        explore(Plain, calls, at_most_one, close=Plain.close, only=found.value.order)
    assert again.value.order == found.value.order
    explore(Plain, calls, at_most_one, close=Plain.close, only=[0, 0, 1, 1])  # one after another


def test_coroutines_overlap_as_functions_do() -> None:
    def call(who: str) -> Any:
        async def takes(it: Plain) -> bool:
            point("read")
            ((owner,),) = it.run("SELECT owner FROM lease")
            await asyncio.sleep(0)
            point("write")
            return owner is None and it.run("UPDATE lease SET owner = ?", who) == 1

        return takes

    with pytest.raises(OrderError) as found:
        explore(Plain, [call("ann"), call("bob")], at_most_one, close=Plain.close)
    assert set(found.value.steps[:2]) == {"0: read", "1: read"}


def test_one_statement_is_sound_in_every_order() -> None:
    calls = [takes_what_is_free(who) for who in ("ann", "bob", "cid")]
    tried = explore(Plain, calls, at_most_one, close=Plain.close)
    assert tried.orders == 6  # 3!


def test_all_orders_are_tried() -> None:
    """Of two calls with two points each: 4! / (2! 2!)."""
    seen: set[tuple[str, ...]] = set()

    def call(name: str) -> Any:
        def run(it: list[str]) -> None:
            for number in (1, 2):
                point(str(number))
                it.append(f"{name}{number}")

        return run

    tried = explore(list, [call("a"), call("b")], lambda it, _: seen.add(tuple(it)))
    assert (tried.orders, len(seen), tried.waits) == (6, 6, 0)


# Ours: each call by a store of its own, as another process would have it.


class Shared:
    """One session's file, and a store for each call."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock()
        self.stores = [self.open() for _ in range(3)]
        self.fence: Any = None
        self.claim: Any = None

    def open(self) -> SessionStore:
        with as_another_process():
            path = Path(self.folder.name) / "s.db"
            return SessionStore.open(path, session_id="s", clock=self.clock)

    def close(self) -> None:
        for each in self.stores:
            each.close()
        self.folder.cleanup()


def leased() -> Shared:
    it = Shared()
    it.fence = lease_of(it.stores[0], "ann").fence
    return it


def claimed() -> Shared:
    it = leased()
    enqueue(it.stores[0], "job")
    it.claim = it.stores[0].claim_work(it.fence, owner_id="ann", ttl_ms=1_000)
    it.clock.advance(1_000)
    return it


def by(at: int, what: Any) -> Any:
    """One call, through a store of its own; an error of ours is what it gives."""
    return lambda it: what(it, it.stores[at])


def claims(who: str) -> Any:
    return lambda _, store: store.claim_lease(owner_id=who, ttl_ms=60_000)


def one_holds(it: Shared, results: list[Any]) -> None:
    held = [each for each in results if isinstance(each, Lease)]
    assert len(held) == 1, results
    assert it.stores[0].current_lease() == held[0]


def renews_or_takes(it: Shared, results: list[Any]) -> None:
    renewed, taken = results
    assert isinstance(renewed, LeaseLostError) is isinstance(taken, Lease), results


def one_commits(it: Shared, results: list[Any]) -> None:
    assert sum(isinstance(each, RevisionConflictError) for each in results) == 1, results
    head = it.stores[0].load_head()
    assert head is not None
    assert head.head_revision == 1


def turn(state: str) -> Any:
    def commit(it: Shared, store: SessionStore) -> Any:
        return store.commit_turn(
            TurnCommit(fence=it.fence, expected_head_revision=0, config={"by": state})
        )

    return commit


def fenced_write_is_fenced(it: Shared, results: list[Any]) -> None:
    taken, released, written = results
    assert released is True
    current = it.stores[0].current_lease()
    assert (current is None) is isinstance(taken, LeaseHeld), results
    assert isinstance(written, LeaseLostError) or written.head_revision == 1


def one_of_the_three(it: Shared, results: list[Any]) -> None:
    """A worker's claim has run out: another takes the batch, or it is cancelled, or completed."""
    taken, cancelled, completed = results
    is_done = not isinstance(completed, ClaimLostError)
    assert [taken is not None, bool(cancelled), is_done].count(True) == 1, results
    assert len(it.stores[0].list_work()) == (0 if taken is None else 1), results


def over(it: Shared) -> Shared:
    it.clock.advance(60_000)
    return it


def one_of_the_two(it: Shared, results: list[Any]) -> None:
    taken, completed = results
    assert (taken is None) is not isinstance(completed, ClaimLostError), results
    assert len(it.stores[0].list_work()) == (0 if taken is None else 1), results


RACES: dict[str, tuple[Any, list[Any], Any]] = {
    "claim, claim": (Shared, [by(0, claims("ann")), by(1, claims("bob"))], one_holds),
    "claim, claim, claim": (
        Shared,
        [by(at, claims(who)) for at, who in enumerate(("ann", "bob", "cid"))],
        one_holds,
    ),
    "claim, renew": (
        lambda: over(leased()),
        [
            by(0, lambda it, store: store.renew_lease(it.fence, ttl_ms=9)),
            by(1, claims("bob")),
        ],
        renews_or_takes,
    ),
    "commit, commit": (leased, [by(0, turn("a")), by(1, turn("b"))], one_commits),
    "claim, release, fenced write": (
        leased,
        [
            by(0, claims("bob")),
            by(1, lambda it, store: store.release_lease(it.fence)),
            by(2, lambda it, store: store.commit_turn(TurnCommit(fence=it.fence))),
        ],
        fenced_write_is_fenced,
    ),
    "claim, complete": (
        claimed,
        [
            by(0, lambda it, store: store.claim_work(it.fence, owner_id="bob", ttl_ms=1_000)),
            by(
                1,
                lambda it, store: store.commit_turn(
                    TurnCommit(fence=it.fence, completed=[it.claim])
                ),
            ),
        ],
        one_of_the_two,
    ),
    "claim, cancel, complete": (
        claimed,
        [
            by(0, lambda it, store: store.claim_work(it.fence, owner_id="bob", ttl_ms=1_000)),
            by(1, lambda it, store: store.cancel_work(it.claim.batch_ids[0])),
            by(
                2,
                lambda it, store: store.commit_turn(
                    TurnCommit(fence=it.fence, completed=[it.claim])
                ),
            ),
        ],
        one_of_the_three,
    ),
}


@pytest.mark.canonical("opens files by itself")
@pytest.mark.parametrize("name", RACES)
def test_no_order_of_ours_breaks_a_promise(name: str) -> None:
    make, calls, check = RACES[name]
    tried = explore(make, calls, check, close=Shared.close)
    assert tried.orders >= 4
    assert tried.waits  # the write lock keeps the other out: there is nothing in between


@pytest.mark.canonical("opens files by itself")
def test_who_is_begun_first_is_tried_too() -> None:
    """Calls on one store wait for each other in line: none of them stops at a point of its own there."""

    def make() -> SessionStore:
        return SessionStore.open(None, session_id="s")

    def claim(who: str) -> Any:
        return lambda store: store.claim_lease(owner_id=who, ttl_ms=60_000)

    def ann_always_wins(_: SessionStore, given: list[Any]) -> None:
        assert isinstance(given[0], Lease)

    calls = [claim("ann"), claim("bob")]
    with pytest.raises(OrderError) as found:
        explore(make, calls, ann_always_wins, close=SessionStore.close)
    assert found.value.order[:2] == (-2, -1)
    with pytest.raises(OrderError) as again:
        explore(make, calls, ann_always_wins, close=SessionStore.close, only=found.value.order)
    assert again.value.order == found.value.order
    explore(make, calls, ann_always_wins, close=SessionStore.close, only=[0])


def test_what_comes_to_no_point_is_not_said_to_be_explored(path: Path) -> None:
    async def count(_: object) -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            await store.put_blob(b"x")

    with pytest.raises(InvalidRecordError, match="empty"):
        explore(list, [], lambda _, __: None)
    with pytest.raises(InvalidRecordError, match="library's threads"):
        explore(lambda: None, [count, count], lambda *_: None)
    with pytest.raises(InvalidRecordError, match="came to no point"):
        explore(lambda: None, [lambda _: 1, lambda _: 2], lambda *_: None)


@pytest.mark.parametrize(
    ("only", "most"),
    [([9, 9], 5), ([-1], 5), ([-1, -1], 5), (["x"], 5), (0, 5), (None, 0), (None, "x")],
)
def test_an_order_of_other_calls_is_refused(only: Any, most: Any) -> None:
    with pytest.raises(InvalidRecordError):
        explore(lambda: None, [print, print], lambda *_: None, only=only, most=most)


def test_parked_before_its_commit(path: Path) -> None:
    """Others can't see what it wrote, and can't write, until it goes on."""
    with SessionStore.open(path, session_id="s", busy_timeout_ms=100) as store:
        with as_another_process():
            other = SessionStore.open(path, session_id="s", busy_timeout_ms=100)
        with Parked(lambda: store.enqueue_work(NewWork(["x"])), at="commit") as parked:
            assert other.list_pending_work() == []
            with pytest.raises(StoreBusyError):
                other.claim_lease(owner_id="ann", ttl_ms=1)
            batch = parked.resume()
            assert other.list_pending_work() == [batch]
        other.close()


def test_a_point_that_never_comes(store: SessionStore) -> None:
    with pytest.raises(RuntimeError, match="never came to 'nowhere'"):
        with Parked(store.current_lease, at="nowhere"):
            pass


def test_a_parked_error_is_the_calls_own() -> None:
    def fails() -> None:
        point("here")
        raise ZeroDivisionError

    with Parked(fails, at="here") as parked, pytest.raises(ZeroDivisionError):
        parked.resume()


def test_calls_that_all_wait_for_each_other_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two locks, taken in two orders: which one that was is told, and plays it again."""
    monkeypatch.setattr(interleaving, "HANGS_S", 0.3)

    def taking(first: int, second: int) -> Any:
        def call(locks: list[threading.Lock]) -> None:
            point("none")
            with locks[first]:
                point(f"has {first}")
                if locks[second].acquire(timeout=2):
                    locks[second].release()

        return call

    def make() -> list[threading.Lock]:
        return [threading.Lock(), threading.Lock()]

    with pytest.raises(OrderError, match="all calls wait for each other") as found:
        explore(make, [taking(0, 1), taking(1, 0)], lambda *_: None)
    with pytest.raises(OrderError, match="all calls wait for each other"):
        explore(make, [taking(0, 1), taking(1, 0)], lambda *_: None, only=list(found.value.order))


class Flag:
    def __init__(self) -> None:
        self.is_set = False


def asks_again(flag: Flag) -> str:
    while not flag.is_set:
        point("asks")
    return "seen"


def sets(flag: Flag) -> None:
    point("sets")
    flag.is_set = True


@pytest.mark.parametrize(
    "calls", [[asks_again, sets], [sets, asks_again], [asks_again, asks_again, sets]]
)
def test_a_call_that_asks_again_lets_others_go_on(calls: list[Any]) -> None:
    seen: list[Any] = []
    explored = explore(Flag, calls, lambda _, results: seen.append(results), most=5)
    assert explored.orders == 5
    assert all(results.count("seen") == calls.count(asks_again) for results in seen)


def test_a_call_that_comes_to_no_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleaving, "_MOST_STEPS", 300)
    with pytest.raises(OrderError, match="call 0 comes to point after point, and to no end"):
        explore(Flag, [asks_again, lambda _: point("done")], lambda *_: None)
