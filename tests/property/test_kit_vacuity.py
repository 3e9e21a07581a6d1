"""What may not pass though it is broken, and what is sound and may not be blamed."""

from __future__ import annotations

import asyncio
import random
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lash_store import NewWork, SessionStore
from lash_store.errors import InvalidRecordError
from lash_store.testing import (
    ManualClock,
    OrderError,
    SequentialIds,
    Violation,
    commit_machine,
    effect_machine,
    explore,
    fail_at_each_statement,
    lock_machine,
    log_machine,
    point,
    queue_machine,
    run_as_group,
)
from lash_store.testing.shortening import BY_CHANCE, is_shown
from tests.support.locks import PlainClient, PlainLocks
from tests.support.turns import PATIENCE_S


def locks_of(client: type[PlainClient]) -> type[PlainLocks]:
    return type("Locks", (PlainLocks,), {"kind": client})


class NameAlone(PlainClient):
    """A name is proof: its number is never asked for."""

    def is_mine(self) -> bool:
        return self.locks.state.owner == self.actor


def test_a_lease_that_a_name_proves_is_found_as_its_zombie_comes_back() -> None:
    with pytest.raises(Violation) as found:
        lock_machine(locks_of(NameAlone)).run()
    assert found.value.name in ("stale-write", "stale-renewal", "foreign-release")
    assert any(step[0] == "haunt" for step in found.value.script)


@pytest.mark.parametrize(
    ("late", "behind", "name"),
    [
        ("write", [], "stale-write"),
        ("renew", [], "stale-renewal"),
        ("release", [("write", "ann")], "foreign-release"),
    ],
)
def test_each_way_to_come_back_is_found(late: str, behind: list[Any], name: str) -> None:
    machine = lock_machine(locks_of(NameAlone))
    script = [("acquire", "ann", 5), ("crash", "ann"), ("end", 0), ("acquire", "ann", 5)]
    with pytest.raises(Violation) as found:
        machine.replay([*script, ("haunt", "ann", late), *behind])
    assert found.value.name == name
    lock_machine(PlainLocks).replay([*script, ("haunt", "ann", late), *behind])
    with pytest.raises(InvalidRecordError, match="what of haunt"):
        machine.replay([*script, ("haunt", "ann", "sing")])


class ForgetsToReopen:
    """Nothing is durable, and `reopen` has a slip of the pen."""

    def __init__(self, _: object) -> None:
        self.known: dict[str, Any] = {}
        self.items: list[str] = []

    def run(self, key: str, request: str, function: Any) -> Any:
        if key not in self.known:
            self.known[key] = request, function()
        if self.known[key][0] != request:
            raise ValueError
        return self.known[key][1]

    def put(self, item: str) -> None:
        self.items.append(item)

    def claim(self, worker: str) -> tuple[str, str] | None:
        return (self.items[0], worker) if self.items else None

    def complete(self, worker: str, handle: str) -> None:
        self.items.pop(0)

    def lapse(self) -> None:
        self.clam.clear()  # type: ignore[attr-defined] # reason: that is the case

    def reopen(self) -> None:
        self.knwon.clear()  # type: ignore[attr-defined] # reason: likewise


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (effect_machine, [("run", "a", "x", "gives"), ("reopen",)]),
        (effect_machine, [("reopen",)]),
        (queue_machine, [("reopen",)]),
        (queue_machine, [("lapse",)]),
    ],
)
def test_what_the_test_asks_of_an_adapter_is_no_refusal(make: Any, steps: Any) -> None:
    with pytest.raises(AttributeError, match=r"knwon|clam"):
        make(ForgetsToReopen).replay(steps)


class SaysFalse:
    """Commits and a log, sound: what they refuse is False."""

    def __init__(self, _: object) -> None:
        self.revision, self.state = 0, None
        self.receipts: dict[str, Any] = {}
        self.events: dict[str, list[tuple[int, str]]] = {}
        self.keys: dict[Any, tuple[int, str]] = {}

    def load(self) -> tuple[int, Any]:
        return self.revision, self.state

    def commit(self, key: str, revision: int, state: Any) -> Any:
        if key in self.receipts:
            *given, made = self.receipts[key]
            return made if given == [revision, state] else False
        if revision != self.revision:
            return False
        self.revision, self.state = revision + 1, state
        self.receipts[key] = revision, state, self.revision
        return self.revision

    def append(self, stream: str, event: str, key: str | None) -> Any:
        if key is not None and (stream, key) in self.keys:
            sequence, known = self.keys[stream, key]
            return sequence if known == event else False
        events = self.events.setdefault(stream, [])
        events.append((len(events) + 1, event))
        if key is not None:
            self.keys[stream, key] = events[-1]
        return events[-1][0]

    def read(self, stream: str, after: int) -> list[tuple[int, str]]:
        return [each for each in self.events.get(stream, []) if each[0] > after]


@pytest.mark.parametrize("make", [commit_machine, log_machine])
def test_a_refusal_may_be_false(make: Any) -> None:
    make(SaysFalse).run()


class RefusesByFalse(SaysFalse):
    def commit(self, key: str, revision: int, state: Any) -> Any:
        return False

    def append(self, stream: str, event: str, key: str | None) -> Any:
        return False


@pytest.mark.parametrize("make", [commit_machine, log_machine])
def test_what_refuses_everything_by_false_is_found(make: Any) -> None:
    with pytest.raises(Violation) as found:
        make(RefusesByFalse).run()
    assert found.value.name == "refused"


class TellsTheDisplaced:
    """Whoever completes what another took over is told that it is done."""

    def __init__(self, _: object) -> None:
        self.waiting: list[str] = []
        self.claims: dict[int, str] = {}
        self.numbers = 0

    def put(self, item: str) -> None:
        self.waiting.append(item)

    def claim(self, worker: str) -> tuple[str, int] | None:
        if not self.waiting:
            return None
        self.numbers += 1
        self.claims[self.numbers] = self.waiting.pop(0)
        return self.claims[self.numbers], self.numbers

    def complete(self, worker: str, handle: int) -> bool:
        return self.claims.pop(handle, None) is not None or bool(self.claims)

    def lapse(self) -> None:
        self.waiting, self.claims = [*self.claims.values(), *self.waiting], {}


class Idempotent(TellsTheDisplaced):
    """Whoever completes what it has completed is told so once more."""

    def __init__(self, clock: object) -> None:
        super().__init__(clock)
        self.done: set[int] = set()

    def complete(self, worker: str, handle: int) -> bool:
        if self.claims.pop(handle, None) is not None:
            self.done.add(handle)
        return handle in self.done


def test_a_displaced_worker_that_is_told_it_is_done_is_found() -> None:
    with pytest.raises(Violation) as found:
        queue_machine(TellsTheDisplaced, lapsed="refused").run()
    assert found.value.name == "stale-completion"
    queue_machine(Idempotent, lapsed="refused").run()


def test_numbers_may_begin_at_zero() -> None:
    class FromZero(PlainClient):
        def fence(self) -> int:
            return super().fence() - 1

    lock_machine(locks_of(FromZero)).run()


def test_a_release_that_says_false_is_judged_by_what_comes_of_it() -> None:
    class Keeps(PlainClient):
        def release(self) -> bool:
            return False

    class SaysFalseToo(PlainClient):
        def release(self) -> bool:
            super().release()
            return False

    with pytest.raises(Violation) as found:
        lock_machine(locks_of(Keeps)).run()
    assert found.value.name == "release-refused"
    lock_machine(locks_of(Keeps), tolerate=["release-refused"]).run()
    lock_machine(locks_of(SaysFalseToo)).run()


class Counter:
    def __init__(self) -> None:
        self.number = 0


def add_one(counter: Counter) -> None:
    before = counter.number
    point("read")
    counter.number = before + 1


def test_points_in_a_thread_of_asyncio_are_the_calls() -> None:
    async def call(counter: Counter) -> None:
        point("start")
        await asyncio.to_thread(add_one, counter)

    def both(counter: Counter, _: object) -> None:
        assert counter.number == 2

    with pytest.raises(OrderError):
        explore(Counter, [call, call], both)


def test_several_threads_of_one_call_come_one_after_another() -> None:
    async def both(counter: Counter) -> None:
        together = threading.Barrier(2)

        def one(name: str) -> None:
            together.wait(PATIENCE_S)
            point(name)

        await asyncio.gather(asyncio.to_thread(one, "a"), asyncio.to_thread(one, "b"))

    assert explore(Counter, [both, add_one], lambda *_: None).orders > 1


def test_a_client_that_is_no_other_is_no_zombie() -> None:
    class Kept(PlainLocks):
        def client(self, actor: str) -> PlainClient:
            return self.__dict__.setdefault(actor, PlainClient(self, actor))  # type: ignore[no-any-return] # reason: it is one

    lock_machine(Kept).run()


def test_a_check_may_say_false(tmp_path: Path) -> None:
    def both(counter: Counter, _: object) -> bool:
        return counter.number == 2

    with pytest.raises(OrderError, match=r"both\(\) gave False"):
        explore(Counter, [add_one, add_one], both)

    def make() -> SessionStore:
        return SessionStore.open(None, session_id="s")

    def stands(store: SessionStore, _: object) -> bool:
        return store.work_depth().batches == 1

    with pytest.raises(AssertionError, match=r"stands\(\) gave False"):
        fail_at_each_statement(
            make, lambda store: store.enqueue_work(NewWork([1])), stands, close=SessionStore.close
        )


def test_an_order_that_can_not_be_played_leaves_nothing_behind() -> None:
    closed: list[Counter] = []
    before = threading.active_count()
    for _ in range(3):
        with pytest.raises(InvalidRecordError, match="can't be played"):
            explore(
                Counter,
                [add_one, add_one],
                lambda *_: None,
                only=[0, 0, 0],
                close=closed.append,
            )
    assert len(closed) == 3
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "script", [5, None, "acquire", [("acquire", "ann", -1)], [("wait", -5)]], ids=repr
)
def test_what_is_no_script_is_refused_before_it_is_played(script: Any) -> None:
    made: list[object] = []

    def make(clock: ManualClock) -> PlainLocks:
        made.append(clock)
        return PlainLocks(clock)

    with pytest.raises(InvalidRecordError):
        lock_machine(make).replay(script)
    assert made == []


def test_a_group_of_a_transact_without_its_work_is_refused() -> None:
    with SessionStore.open(None, session_id="s") as store:
        call: Any = store.transact
        with pytest.raises(InvalidRecordError, match="must have its `work`"):
            run_as_group(partial(store.put_blob, b"x"), call)


def test_what_is_not_shown_again_is_said_to_be_by_chance() -> None:
    """Where Hypothesis has seen it each time: it seeds what an implementation may go by."""
    calls: list[int] = []

    class Moody(PlainClient):
        def acquire(self, ttl_ms: int) -> bool:
            calls.append(random.randrange(2**62))
            return calls.count(calls[-1]) == 1 and super().acquire(ttl_ms)

    random.seed(7)
    machine = lock_machine(locks_of(Moody))
    with pytest.raises(Violation) as found:
        machine.run()
    assert is_shown(machine.replay, found.value) is False
    assert BY_CHANCE in found.value.__notes__


def test_ids_that_begin_again_need_another_prefix(tmp_path: Path) -> None:
    for prefix in ("first", "second"):
        ids = SequentialIds(prefix)
        with SessionStore.open(tmp_path / "s.db", session_id="s", ids=ids) as store:
            store.enqueue_work(NewWork(["one"]))
    with SessionStore.open(tmp_path / "s.db", session_id="s") as store:
        assert store.work_depth().batches == 2
