"""Calls of two processes in every order on a server: what the locks exclude, and what their lack lets in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest

from lash_store import (
    Busy,
    Deployment,
    LeaseHeld,
    ProcessLease,
    Replayed,
    SessionStore,
    Success,
    TurnCommit,
    WorkClaim,
)
from lash_store._backends.postgresql import handle
from lash_store.errors import LeaseLostError, RevisionConflictError
from lash_store.process.records import Appended, Completed
from lash_store.testing import ManualClock, OrderError, as_another_process, explore
from tests.support.registries import register
from tests.support.sessions import chain, enqueue, lease_of

_numbers = count(1)
MOST = 2_000 if os.environ.get("LASH_STORE_PROFILE") == "deep" else 100
"""Orders that are tried: of three calls there are some hundred."""

CLOCK = ManualClock(1_700_000_000_000)


class Two:
    """Processes on one database: each has a store of one session, and the others of its own."""

    def __init__(self, deployments: list[Deployment]) -> None:
        self.name = f"n{next(_numbers)}"
        self.deployments = deployments
        self.sessions = [
            SessionStore.open(each.processes, session_id=self.name) for each in deployments
        ]

    def close(self) -> None:
        for each in self.sessions:
            each.close()


@pytest.fixture
def two(url: str, place: str) -> Iterator[Callable[[], Two]]:
    with ExitStack() as stack:
        deployments = []
        for _ in range(3):
            with as_another_process():
                deployments.append(
                    stack.enter_context(Deployment.open(url, schema=place, clock=CLOCK))
                )
        yield lambda: Two(deployments)


Call = Callable[[Two], Any]


def claim(at: int, owner: str) -> Call:
    return lambda it: it.sessions[at].claim_lease(owner_id=owner, ttl_ms=60_000)


def one_holds(_: Two, results: list[Any]) -> None:
    assert sorted(isinstance(each, LeaseHeld) for each in results) == [False, True], results


class Led(Two):
    """The same, with a lease that is held, work that waits, and a process."""

    def __init__(self, deployments: list[Deployment]) -> None:
        super().__init__(deployments)
        self.fence = lease_of(self.sessions[0]).fence
        for payload in ("one", "two"):
            enqueue(self.sessions[0], payload)
        register(deployments[0].processes, self.name)


def commit(at: int, node: str) -> Call:
    return lambda it: it.sessions[at].commit_turn(
        TurnCommit(fence=it.fence, expected_head_revision=0, graph=chain(node))  # type: ignore[attr-defined] # reason: it is led
    )


def one_commits(it: Two, results: list[Any]) -> None:
    refused = [isinstance(each, RevisionConflictError) for each in results]
    assert sorted(refused) == [False, True], results
    graph = it.sessions[0].load_path()
    assert graph is not None
    assert len(graph.nodes) == 1


def take_work(at: int, owner: str) -> Call:
    return lambda it: it.sessions[at].claim_work(it.fence, owner_id=owner, ttl_ms=60_000)  # type: ignore[attr-defined] # reason: it is led


def nobody_has_the_same(_: Two, results: list[Any]) -> None:
    assert all(isinstance(each, WorkClaim) for each in results), results
    taken = [batch for each in results for batch in each.batch_ids]
    assert len(set(taken)) == len(taken), results


def renew(at: int) -> Call:
    return lambda it: it.sessions[at].renew_lease(it.fence, ttl_ms=60_000)  # type: ignore[attr-defined] # reason: it is led


def it_stays_who_held_it(it: Two, results: list[Any]) -> None:
    held = it.sessions[0].current_lease()
    assert held is not None
    assert held.fence == it.fence, results  # type: ignore[attr-defined] # reason: it is led
    assert isinstance(results[1], LeaseHeld), results


def request(at: int) -> Call:
    return lambda it: it.deployments[at].processes.request_cancel(it.name, reason=f"by {at}")


def both_are_appended(_: Two, results: list[Any]) -> None:
    assert not any(isinstance(each, Exception) for each in results), results
    assert sorted(each.event.sequence for each in results) == [1, 2], results


def begin(at: int, owner: str) -> Call:
    return lambda it: it.deployments[at].effects.begin_effect(it.name, "k", owner_id=owner)


def one_is_at_it(_: Two, results: list[Any]) -> None:
    assert sorted(type(each).__name__ for each in results) == ["Busy", "EffectClaim"], results


def claim_process(at: int, owner: str) -> Call:
    return lambda it: it.deployments[at].processes.claim_lease(it.name, owner_id=owner, ttl_ms=1)


def complete(at: int) -> Call:
    return lambda it: it.deployments[at].processes.complete_process(it.name, Success(1))


def both_are_recorded(it: Two, results: list[Any]) -> None:
    claimed, requested, completed = results
    assert isinstance(claimed, ProcessLease), results
    assert isinstance(requested, Appended), results  # behind the end, too
    assert isinstance(completed, Completed), results
    events = it.deployments[0].processes.events_after(it.name)
    assert [each.sequence for each in events] == [1, 2], results
    recorded = [requested.event, completed.event]
    assert events == sorted(recorded, key=lambda each: each.sequence), results
    ended = it.deployments[0].processes.load_process(it.name)
    assert ended is not None
    assert ended.status == completed.record.status, results


class Begun(Two):
    """The same, with a step that somebody has begun, for as long as is said."""

    ttl_ms = 60_000

    def __init__(self, deployments: list[Deployment]) -> None:
        super().__init__(deployments)
        effects = deployments[0].effects
        self.step = effects.begin_effect(self.name, "k", owner_id="ann", ttl_ms=self.ttl_ms)


class Stale(Begun):
    """The same, and it has taken too long."""

    ttl_ms = 1

    def __init__(self, deployments: list[Deployment]) -> None:
        super().__init__(deployments)
        CLOCK.advance(1)


def finish(at: int) -> Call:
    return lambda it: it.deployments[at].effects.finish_effect(it.step, "ann's")  # type: ignore[attr-defined] # reason: it is begun


def it_ends_for_who_began_it(it: Two, results: list[Any]) -> None:
    *others, ended = results
    assert ended == "ann's", results
    assert all(isinstance(each, (Busy, Replayed)) for each in others), results
    assert begin(0, "dora")(it) == Replayed("ann's")


def one_takes_it_over(_: Two, results: list[Any]) -> None:
    *others, ended = results
    assert isinstance(ended, LeaseLostError), results
    assert sorted(type(each).__name__ for each in others) == ["Busy", "EffectClaim"], results


CALLS: dict[str, tuple[type[Two], list[Call], Callable[[Two, list[Any]], None]]] = {
    "claim, claim": (Two, [claim(0, "ann"), claim(1, "bob")], one_holds),
    "renew, claim": (Led, [renew(0), claim(1, "bob")], it_stays_who_held_it),
    "commit, commit": (Led, [commit(0, "a"), commit(1, "b")], one_commits),
    "claim work, claim work": (Led, [take_work(0, "x"), take_work(1, "y")], nobody_has_the_same),
    "append, append": (Led, [request(0), request(1)], both_are_appended),
    "begin, begin": (Two, [begin(0, "ann"), begin(1, "bob")], one_is_at_it),
    "claim, cancel, complete": (
        Led,
        [claim_process(0, "ann"), request(1), complete(2)],
        both_are_recorded,
    ),
    "begin, begin, finish": (
        Begun,
        [begin(0, "bob"), begin(1, "carl"), finish(2)],
        it_ends_for_who_began_it,
    ),
    "take over, take over, finish": (
        Stale,
        [begin(0, "bob"), begin(1, "carl"), finish(2)],
        one_takes_it_over,
    ),
}
BY_LOCKS = (
    "commit, commit",
    "claim work, claim work",
    "append, append",
    "claim, cancel, complete",
)
"""What is safe by its lock alone; each of the others is one statement, which the database keeps whole."""


@pytest.mark.parametrize("name", CALLS)
def test_k_lock_1_no_order_breaks_it(two: Callable[[], Two], name: str) -> None:
    kind, calls, check = CALLS[name]
    explored = explore(lambda: kind(two().deployments), calls, check, close=Two.close, most=MOST)
    assert explored.orders >= 2
    assert explored.waits


@pytest.mark.parametrize("name", BY_LOCKS)
def test_k_lock_1_without_its_lock_an_order_breaks_it(
    two: Callable[[], Two], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, calls, check = CALLS[name]
    made = two()
    monkeypatch.setattr(handle, "locks_of", lambda *_: ())
    with pytest.raises(OrderError):
        explore(lambda: kind(made.deployments), calls, check, close=Two.close)
