"""Groups against single calls: whatever goes together gives what it would have given one by one.

The same calls are made on two databases whose clocks and ids are the same, on one of them in
groups. And the state machines of the stores run again, each of their calls among neighbours that
are refused.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings, strategies as st

from lash_store import (
    EffectClaim,
    EffectStore,
    NewWork,
    ProcessFence,
    ProcessRegistry,
    Scope,
    SessionFence,
    SessionStore,
    Success,
    TriggerStore,
    TurnCommit,
    TurnStamp,
)
from lash_store._stores.operations import operations_of
from lash_store.effect.records import EffectError
from lash_store.errors import LashStoreError
from lash_store.process.records import HandleDescriptor
from lash_store.session.records import (
    Append,
    Checkpoint,
    Node,
    ReplaceFull,
    UsageDelta,
    WorkBatch,
    WorkClaim,
)
from lash_store.testing import ManualClock, SequentialIds, run_as_group
from lash_store.trigger.records import Occurrence
from tests.property.test_effect_machine import EffectMachine
from tests.property.test_registry import RegistryMachine
from tests.property.test_sessions import SessionMachine
from tests.property.test_trigger_machine import REGISTRANTS, TriggerMachine
from tests.support.databases import all_rows
from tests.support.registries import registration
from tests.support.triggers import draft
from tests.support.turns import outcome

TTL = 20
NUMBERS = st.integers(0, 3)


class Step(NamedTuple):
    """A call that was drawn: on which handle, which, and numbers that say the rest."""

    handle: int
    action: str
    a: int
    b: int
    c: int


class World:
    """One database with three handles on it, and what its calls have given so far."""

    def __init__(self, folder: Path, open_handle: Callable[..., Any]) -> None:
        folder.mkdir()
        self.path = folder / "store.db"
        self.clocks = [ManualClock(), ManualClock(), ManualClock(1_000_007)]
        self.stores = [
            open_handle(at, self.path, clock=clock, ids=SequentialIds(f"id{at}"))
            for at, clock in enumerate(self.clocks)
        ]
        self.known: list[Any] = []

    def pick(self, kind: type[Any], number: int, otherwise: Any) -> Any:
        """One of the results that were of a kind, most often a recent one."""
        found = [each for each in self.known if isinstance(each, kind)]
        return found[-1 - number % len(found)] if found and number != 3 else otherwise

    def learn(self, results: list[Any]) -> None:
        for result in results:
            self.known += [result, getattr(result, "fence", None), getattr(result, "lease", None)]
            self.known.append(getattr(getattr(result, "lease", None), "fence", None))

    def shown(self, result: Any) -> Any:
        """A result as both worlds should have it; an error by its type and text."""
        if isinstance(result, BaseException):
            return type(result), str(result).replace(str(self.path), "PATH")
        return result

    def close(self) -> None:
        for store in self.stores:
            store.close()


Action = Callable[[World, Any, Step], Callable[[], Any]]


def failing(write: Callable[[Any, Step], object]) -> Action:
    """A consumer's work that writes and then fails."""

    def action(_: World, store: Any, step: Step) -> Callable[[], Any]:
        def work(tx: Any) -> None:
            write(tx, step)
            msg = f"after {step.a}"
            raise ValueError(msg)

        return partial(store.transact, work, repeatable=True)

    return action


def hiding(refused: Callable[[Any, Step], object], write: Callable[[Any, Step], object]) -> Action:
    """A consumer's work that passes over a refusal, and goes on."""

    def action(_: World, store: Any, step: Step) -> Callable[[], Any]:
        def work(tx: Any) -> Any:
            with suppress(LashStoreError):
                refused(tx, step)
            return write(tx, step)

        return partial(store.transact, work, repeatable=True)

    return action


def breaking(table: str) -> Action:
    """A consumer's statement that SQLite refuses."""

    def action(_: World, store: Any, step: Step) -> Callable[[], Any]:
        sql = f"INSERT INTO {table} SELECT * FROM {table} UNION ALL SELECT * FROM {table}"
        return partial(
            store.transact, lambda tx: tx.connection.exec_driver_sql(sql).rowcount, repeatable=True
        )

    return action


# Sessions.

NO_FENCE = SessionFence("one", "eve", "forged", 1)
NO_BATCH = WorkBatch(1, "none", "one", None, "after_current_turn_commit", "exclusive", None, 0, 0)
NO_CLAIM = WorkClaim("one", "none", "eve", "forged", 1, 1_000_000, 2**40, (NO_BATCH,))


def session_turn(world: World, store: Any, step: Step) -> Callable[[], Any]:
    claim = world.pick(WorkClaim, step.c, None)
    fence = world.pick(SessionFence, step.a, NO_FENCE)
    name = f"n{len(world.known)}-{step.b}"
    return partial(
        store.commit_turn,
        TurnCommit(
            fence=fence,
            stamp=TurnStamp(f"turn-{step.b}", f"hash-{step.c}"),
            expected_head_revision=step.c if step.b == 3 else None,
            graph=(ReplaceFull if step.c == 2 else Append)([Node(name, None)], name),
            checkpoint=Checkpoint(turn_state=step.a, tool_state={"n": step.b}),
            usage=[UsageDelta("u", "m", input_tokens=step.a)],
            completed=[] if claim is None or step.b == 0 else [claim],
            release=step.c == 1,
        ),
    )


def batch_id(world: World, number: int) -> str:
    batch = world.pick(WorkBatch, number, None)
    return "none" if batch is None else str(batch.batch_id)


SOURCES = [None, "x", "y", None]

SESSIONS: dict[str, Action] = {
    "claim": lambda _, s, n: partial(s.claim_lease, owner_id="ab"[n.a % 2], ttl_ms=TTL),
    "renew": lambda w, s, n: partial(
        s.renew_lease, w.pick(SessionFence, n.a, NO_FENCE), ttl_ms=TTL
    ),
    "release": lambda w, s, n: partial(s.release_lease, w.pick(SessionFence, n.a, NO_FENCE)),
    "enqueue": lambda _, s, n: partial(
        s.enqueue_work, NewWork([n.a, n.b], source_key=SOURCES[n.c], slot_policy="join")
    ),
    "enqueue all": lambda _, s, n: partial(
        s.enqueue_all_work, [NewWork([n.a], source_key=SOURCES[n.b]), NewWork([n.c])]
    ),
    "work": lambda w, s, n: partial(
        s.claim_work,
        w.pick(SessionFence, n.a, NO_FENCE),
        owner_id="w",
        ttl_ms=TTL,
        max_batches=n.b + 1,
    ),
    "renew claim": lambda w, s, n: partial(
        s.renew_claim, w.pick(WorkClaim, n.a, NO_CLAIM), ttl_ms=TTL
    ),
    "complete": lambda w, s, n: partial(
        s.complete_work, w.pick(SessionFence, n.a, NO_FENCE), w.pick(WorkClaim, n.b, NO_CLAIM)
    ),
    "complete and claim": lambda w, s, n: partial(
        s.complete_and_claim_work,
        w.pick(SessionFence, n.a, NO_FENCE),
        w.pick(WorkClaim, n.b, NO_CLAIM),
        ttl_ms=TTL,
    ),
    "abandon": lambda w, s, n: partial(s.abandon_claim, w.pick(WorkClaim, n.a, NO_CLAIM)),
    "cancel": lambda w, s, n: partial(s.cancel_work, batch_id(w, n.a)),
    "turn": session_turn,
    "turn again": session_turn,
    "blob": lambda _, s, n: partial(s.put_blob, bytes([n.a])),
    "tombstone": lambda _, s, n: partial(s.tombstone_nodes, [f"n{n.a}-{n.b}"]),
    "vacuum": lambda _, s, __: s.vacuum_graph,
    "collect": lambda _, s, n: partial(s.collect_blobs, dry_run=n.a == 0),
    "usage": lambda _, s, n: partial(s.record_usage, UsageDelta("v", "m", input_tokens=n.a)),
    "failing": failing(lambda tx, n: tx.enqueue_work(NewWork([n.b]))),
    "hiding": hiding(
        lambda tx, _: tx.renew_lease(NO_FENCE, ttl_ms=1), lambda tx, n: tx.put_blob(bytes([9, n.b]))
    ),
    "breaking": breaking("blobs"),
}


def open_session(at: int, path: Path, **options: Any) -> SessionStore:
    return SessionStore.open(path, session_id=("one", "two", "one")[at], **options)


# Processes.

NO_PROCESS = ProcessFence("a", "eve", "forged", 1)
SCOPES = [Scope("one"), Scope("one", "f"), Scope("two"), Scope("three")]


def process_fence(world: World, step: Step) -> ProcessFence | None:
    return world.pick(ProcessFence, step.c, NO_PROCESS) if step.a == 3 else None


PROCESSES: dict[str, Action] = {
    "register": lambda _, s, n: partial(
        s.register_process, registration("abcd"[n.a], wake_target=SCOPES[n.b // 3])
    ),
    "append": lambda w, s, n: partial(
        s.append_event,
        "abcd"[n.b],
        ("tick", "wake", "wake", "strict")[n.c],
        {"n": n.a, "text": "t"} if n.b != 2 else {"n": "no number"},
        replay_key=(None, "k", "l", None)[n.a],
        fence=process_fence(w, n),
    ),
    "complete": lambda w, s, n: partial(
        s.complete_process, "abcd"[n.b], Success(n.c // 2), fence=process_fence(w, n)
    ),
    "request cancel": lambda _, s, n: partial(s.request_cancel, "abcd"[n.a], reason=SOURCES[n.b]),
    "ack": lambda _, s, n: partial(s.ack_wake, "abcd"[n.a], n.b + 1),
    "claim": lambda _, s, n: partial(
        s.claim_lease, "abcd"[n.a], owner_id="ab"[n.b % 2], ttl_ms=TTL
    ),
    "claim next": lambda _, s, n: partial(s.claim_next, owner_id="ab"[n.b % 2], ttl_ms=TTL),
    "complete and claim": lambda w, s, n: partial(
        s.complete_and_claim_next,
        w.pick(ProcessFence, n.a, NO_PROCESS),
        Success(n.c // 2),
        ttl_ms=TTL,
    ),
    "prune": lambda _, s, n: partial(s.prune_processes, 1_000_000 + 10 * n.a),
    "renew": lambda w, s, n: partial(
        s.renew_lease, w.pick(ProcessFence, n.a, NO_PROCESS), ttl_ms=TTL
    ),
    "release": lambda w, s, n: partial(s.release_lease, w.pick(ProcessFence, n.a, NO_PROCESS)),
    "grant": lambda _, s, n: partial(
        s.grant_handle, SCOPES[n.a], "abcd"[n.b], HandleDescriptor(label=str(n.c))
    ),
    "revoke": lambda _, s, n: partial(s.revoke_handle, SCOPES[n.a], "abcd"[n.b]),
    "transfer": lambda _, s, n: partial(
        s.transfer_handles, SCOPES[n.a], SCOPES[n.b], ["a", "abcd"[n.c]]
    ),
    "delete session": lambda _, s, n: partial(s.delete_session, SCOPES[n.a].session_id),
    "failing": failing(lambda tx, n: tx.register_process(registration("abcd"[n.b]))),
    "hiding": hiding(
        lambda tx, _: tx.append_event("nobody", "tick"),
        lambda tx, n: tx.grant_handle(SCOPES[n.a], "a", HandleDescriptor(label="h")),
    ),
    "breaking": breaking("processes"),
}


def open_registry(_: int, path: Path, **options: Any) -> ProcessRegistry:
    return ProcessRegistry.open(path, **options)


# Triggers.

WHO = sorted(REGISTRANTS)


def occurrence_id(world: World, number: int) -> str:
    occurrence = world.pick(Occurrence, number, None)
    return "none" if occurrence is None else str(occurrence.occurrence_id)


TRIGGERS: dict[str, Action] = {
    "register": lambda _, s, n: partial(
        s.register_subscription,
        draft(registrant=REGISTRANTS[WHO[n.a]], source_key=("daily", "weekly")[n.b % 2]),
    ),
    "cancel": lambda _, s, n: partial(
        s.cancel_subscription, (None, "one", "two", "one")[n.a], f"trigger:{n.b}"
    ),
    "enable": lambda _, s, n: partial(
        s.enable_subscription, (None, "one", "two", "one")[n.a], f"trigger:{n.b}"
    ),
    "delete": lambda _, s, n: partial(
        s.delete_subscription, (None, "one", "two", "one")[n.a], f"trigger:{n.b}"
    ),
    "delete session": lambda _, s, n: partial(s.delete_session, ("one", "two")[n.a % 2]),
    "occur": lambda _, s, n: partial(
        s.record_occurrence,
        "cron",
        ("daily", "weekly")[n.b % 2],
        n.c // 2,
        idempotency_key=f"k{n.a}",
    ),
    "reserve": lambda w, s, n: partial(s.reserve_deliveries, occurrence_id(w, n.a)),
    "redeliver": lambda w, s, n: partial(s.redeliver, occurrence_id(w, n.a)),
    "prune": lambda _, s, n: partial(s.prune_occurrences, 1_000_000 + 10 * n.a),
    "failing": failing(lambda tx, _: tx.register_subscription(draft())),
    "hiding": hiding(
        lambda tx, _: tx.reserve_deliveries("none"),
        lambda tx, n: tx.record_occurrence("cron", "daily", n.a, idempotency_key=f"h{n.a}"),
    ),
}


def open_triggers(_: int, path: Path, **options: Any) -> TriggerStore:
    return TriggerStore.open(path, **options)


# Effects.

NO_EFFECT = EffectClaim("s", "a", "e", "eve", "forged", 1)

EFFECTS: dict[str, Action] = {
    "begin": lambda _, s, n: partial(
        s.begin_effect,
        "st"[n.a % 2],
        "abcd"[n.b],
        "e" if n.c else "other",
        ttl_ms=TTL,
        strict=n.a == 3,
    ),
    "renew": lambda w, s, n: partial(
        s.renew_effect, w.pick(EffectClaim, n.a, NO_EFFECT), ttl_ms=TTL
    ),
    "finish": lambda w, s, n: partial(s.finish_effect, w.pick(EffectClaim, n.a, NO_EFFECT), n.b),
    "fail": lambda w, s, n: partial(
        s.fail_effect, w.pick(EffectClaim, n.a, NO_EFFECT), EffectError("c", "m")
    ),
    "abandon": lambda w, s, n: partial(s.abandon_effect, w.pick(EffectClaim, n.a, NO_EFFECT)),
    "sleep": lambda _, s, n: partial(s.begin_sleep, "st"[n.a % 2], f"z{n.b}", 10 * n.c),
    "forget": lambda _, s, n: partial(s.forget_scope, "st"[n.a % 2]),
    "delete": lambda _, s, n: partial(s.delete_session, "st"[n.a % 2]),
    "prune": lambda _, s, n: partial(s.prune_effects, 1_000_000 + 10 * n.a),
    "failing": failing(lambda tx, n: tx.begin_effect("s", "abcd"[n.b], "e", ttl_ms=TTL)),
    "hiding": hiding(
        lambda tx, _: tx.renew_effect(NO_EFFECT, ttl_ms=1),
        lambda tx, n: tx.begin_effect("h", "abcd"[n.b], "e", ttl_ms=TTL),
    ),
}


def open_effects(at: int, path: Path, **options: Any) -> EffectStore:
    return EffectStore.open(path, owner_id=("ann", "bob", "ann")[at], **options)


FIRST: dict[str, list[Step]] = {
    "session": [
        *(Step(at, action, 0, 0, 0) for action in ("claim", "enqueue", "enqueue") for at in (0, 1)),
        Step(0, "enqueue", 1, 1, 1),
    ],
    "process": [Step(0, "register", at, 0, 0) for at in range(3)]
    + [Step(1, "append", 0, at, 1) for at in range(2)],
    "trigger": [Step(0, "register", at, at, 0) for at in range(3)] + [Step(1, "occur", 0, 0, 0)],
    "effect": [Step(at, "begin", 0, at, 1) for at in range(2)],
}
"""What both databases are begun with, so that much of what comes is no refusal."""

KINDS: dict[str, tuple[Callable[..., Any], dict[str, Action]]] = {
    "session": (open_session, SESSIONS),
    "process": (open_registry, PROCESSES),
    "trigger": (open_triggers, TRIGGERS),
    "effect": (open_effects, EFFECTS),
}


def groups_of(actions: dict[str, Action]) -> st.SearchStrategy[list[tuple[list[Step], int]]]:
    """Groups of calls, and how much time passes after each."""
    step = st.builds(
        Step, st.integers(0, 2), st.sampled_from(sorted(actions)), NUMBERS, NUMBERS, NUMBERS
    )
    group = st.lists(step, min_size=1, max_size=8)
    return st.lists(st.tuples(group, st.sampled_from([0, 0, 1, TTL])), min_size=1, max_size=6)


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(data=st.data())
def test_a_group_gives_what_its_calls_give_one_by_one(kind: str, data: st.DataObject) -> None:
    open_handle, actions = KINDS[kind]
    groups = data.draw(groups_of(actions))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        together, alone = (World(Path(folder) / name, open_handle) for name in ("one", "two"))
        stack.callback(together.close)
        stack.callback(alone.close)
        for world in (together, alone):
            for step in FIRST[kind]:
                world.learn([actions[step.action](world, world.stores[step.handle], step)()])
        for steps, passes_ms in groups:
            made = [
                [actions[step.action](world, world.stores[step.handle], step) for step in steps]
                for world in (together, alone)
            ]
            results = run_as_group(*made[0])
            expected = [outcome(call) for call in made[1]]
            for step, got, wanted in zip(steps, results, expected, strict=True):
                assert together.shown(got) == alone.shown(wanted), step
            assert all_rows(together.path) == all_rows(alone.path)
            for world, found in ((together, results), (alone, expected)):
                world.learn(found)
                for clock in world.clocks:
                    clock.advance(passes_ms)


# The state machines, with neighbours.


def in_groups(store: Any, beside: Any, neighbours: list[Callable[[], Any]]) -> Any:
    """Make every writing call of `store` in a group, among neighbours that change nothing."""
    chance = Random(0)

    def some() -> list[Callable[[], Any]]:
        return chance.choices(neighbours, k=chance.randrange(4))

    def grouped(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            before, behind = some(), some()
            calls: list[Callable[[], Any]] = [*before, partial(method, *args, **keywords), *behind]
            result = run_as_group(*calls)[len(before)]
            if isinstance(result, BaseException):
                raise result
            return result

        return call

    def close() -> None:
        beside.close()
        type(store).close(store)

    for name, operation in operations_of(type(store)).items():
        public = name.removeprefix("_")
        if operation.writes:
            setattr(store, public, grouped(getattr(store, public)))
    store.close = close
    return store


def idle(store: Any) -> Callable[[], Any]:
    """A call that does nothing: so that a group goes on behind it."""
    return partial(store.transact, lambda _: None, repeatable=True)


def undone(store: Any, write: Callable[[Any], object]) -> Callable[[], Any]:
    """A call that writes, and fails."""

    def work(tx: Any) -> None:
        write(tx)
        raise ValueError

    return partial(store.transact, work, repeatable=True)


class GroupedSessions(SessionMachine):
    def _open(self) -> Any:
        store = super()._open()
        other = SessionStore.open(self.path, session_id="t", ids=SequentialIds("other"))
        nobodys = SessionFence("t", "nobody", "none", 1)
        return in_groups(
            store,
            other,
            [
                idle(store),
                idle(other),
                partial(store.renew_lease, SessionFence("s", "nobody", "none", 1), ttl_ms=1),
                partial(other.renew_lease, nobodys, ttl_ms=1),
                partial(other.release_lease, nobodys),
                partial(other.claim_work, nobodys, owner_id="w", ttl_ms=1),
                partial(other.commit_turn, TurnCommit(fence=nobodys, stamp=TurnStamp("t", "h"))),
                undone(other, lambda tx: tx.enqueue_all_work([NewWork([1]), NewWork([2])])),
                undone(other, lambda tx: tx.claim_lease(owner_id="x", ttl_ms=9)),
            ],
        )


class GroupedRegistry(RegistryMachine):
    def _open(self) -> Any:
        store = super()._open()
        other = ProcessRegistry.open(self.path, ids=SequentialIds("other"))
        return in_groups(
            store,
            other,
            [
                idle(other),
                partial(other.append_event, "nobody", "tick"),
                partial(other.renew_lease, ProcessFence("a", "nobody", "none", 1), ttl_ms=1),
                partial(other.release_lease, ProcessFence("b", "nobody", "none", 1)),
                undone(other, lambda tx: tx.register_process(registration("passing"))),
                undone(other, lambda tx: tx.append_event("a", "wake", 7)),
                undone(other, lambda tx: tx.delete_session("one")),
            ],
        )


class GroupedTriggers(TriggerMachine):
    def open(self) -> None:
        super().open()
        other = TriggerStore.open(self.triggers.path, ids=SequentialIds("other"))
        in_groups(
            self.triggers,
            other,
            [
                idle(other),
                partial(other.reserve_deliveries, "none"),
                partial(other.cancel_subscription, "nobody", "trigger:1"),
                undone(other, lambda tx: tx.register_subscription(draft())),
                undone(other, lambda tx: tx.delete_session("one")),
            ],
        )


class GroupedEffects(EffectMachine):
    def _open(self) -> Any:
        store = super()._open()
        other = EffectStore.open(self.path, owner_id="bob", ids=SequentialIds("other"))
        return in_groups(
            store,
            other,
            [
                idle(other),
                partial(other.renew_effect, NO_EFFECT, ttl_ms=1),
                partial(other.abandon_effect, NO_EFFECT),
                undone(other, lambda tx: tx.begin_effect("s", "passing", "e", ttl_ms=9)),
                undone(other, lambda tx: tx.forget_scope("s")),
            ],
        )


_FEWER = settings(
    settings(), max_examples=max(1, settings().max_examples // 4), stateful_step_count=40
)

TestGroupedSessions = GroupedSessions.TestCase
TestGroupedSessions.settings = _FEWER
TestGroupedRegistry = GroupedRegistry.TestCase
TestGroupedRegistry.settings = _FEWER
TestGroupedTriggers = GroupedTriggers.TestCase
TestGroupedTriggers.settings = _FEWER
TestGroupedEffects = GroupedEffects.TestCase
TestGroupedEffects.settings = _FEWER
