"""The machines of the kit: our stores stand, plain implementations stand, every broken one falls."""

from __future__ import annotations

import ast
import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from lash_store.errors import InvalidRecordError
from lash_store.testing import (
    Machine,
    Violation,
    commit_machine,
    effect_machine,
    lock_machine,
    log_machine,
    queue_machine,
)
from lash_store.testing.commits import CommitMachine
from lash_store.testing.effects import EffectMachine, StepFailedError
from lash_store.testing.lock_machine import LockMachine
from lash_store.testing.logs import LogMachine
from lash_store.testing.queues import QueueMachine
from tests.support import commits, locks, logs, queues, steps

pytestmark = pytest.mark.layouts("opens both layouts by itself")

OURS = settings()
ASYNC = settings(max_examples=min(settings().max_examples, max(20, settings().max_examples // 4)))

TestSession = lock_machine(locks.StoreLocks, reentry="same", settings=OURS).TestCase
TestShared = lock_machine(locks.SharedStoreLocks, reentry="same", settings=OURS).TestCase
TestRegistry = lock_machine(locks.RegistryLocks, reentry="new", settings=OURS).TestCase
TestOwnTable = lock_machine(locks.JobLocks, reentry="new", settings=OURS).TestCase
TestAsyncSession = lock_machine(locks.AsyncStoreLocks, reentry="same", settings=ASYNC).TestCase
TestPlainLocks = lock_machine(locks.PlainLocks).TestCase

TestQueue = queue_machine(queues.StoreQueue, order="fifo", settings=OURS).TestCase
TestSharedQueue = queue_machine(queues.SharedStoreQueue, order="fifo", settings=OURS).TestCase
TestPlainQueue = queue_machine(queues.PlainQueue, order="fifo", lapsed="accepted").TestCase

RECORDED: dict[str, Any] = {"failures": "retried", "settings": OURS}
TestEffects = effect_machine(steps.StoreEffects, **RECORDED).TestCase
TestSharedEffects = effect_machine(steps.SharedStoreEffects, **RECORDED).TestCase
TestAsyncEffects = effect_machine(steps.AsyncStoreEffects, settings=ASYNC).TestCase
TestPlainMemo = effect_machine(steps.PlainMemo).TestCase

TestTurns = commit_machine(commits.StoreTurns, settings=OURS).TestCase
TestSharedTurns = commit_machine(commits.SharedStoreTurns, settings=OURS).TestCase
TestPlainDocument = commit_machine(commits.PlainDocument).TestCase

TestLog = log_machine(logs.RegistryLog, settings=OURS).TestCase
TestSharedLog = log_machine(logs.SharedRegistryLog, settings=OURS).TestCase
TestPlainLog = log_machine(logs.PlainLog).TestCase

HUNT = settings(
    max_examples=100,  # Hypothesis's own default: what a consumer gets
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)

ALL = (locks.broken, queues.broken, steps.broken, commits.broken, logs.broken)

BROKEN: list[tuple[type[Machine], set[str]]] = [
    *((lock_machine(each, settings=HUNT), names) for each, names in locks.broken.values()),
    *(
        (queue_machine(each, order="fifo", lapsed="accepted", settings=HUNT), names)
        for each, names in queues.broken.values()
    ),
    *((effect_machine(each, settings=HUNT), names) for each, names in steps.broken.values()),
    *((commit_machine(each, settings=HUNT), names) for each, names in commits.broken.values()),
    *((log_machine(each, settings=HUNT), names) for each, names in logs.broken.values()),
]


@pytest.mark.parametrize(
    ("machine", "names"), BROKEN, ids=[machine.__name__ for machine, _ in BROKEN]
)
def test_what_is_broken_is_caught(machine: type[Machine], names: set[str]) -> None:
    with pytest.raises(Violation) as found:
        machine.run()
    violation = found.value
    assert violation.name in names, violation
    with pytest.raises(Violation) as again:
        machine.replay(violation.script)
    assert (again.value.name, again.value.text) == (violation.name, violation.text)
    assert str(again.value) == str(violation)
    if "LASH_STORE_WRITE_FINDINGS" in os.environ:
        _write_down(machine, violation)


class Swallows(steps.PlainMemo):
    """A failure is recorded, and raised in replays alone."""

    def run(self, key: str, request: str, function: Callable[[], Any]) -> Any:
        try:
            found = super().run(key, request, function)
        except StepFailedError:
            self.known[key] = (request, StepFailedError)
            return None
        if found is StepFailedError:
            raise StepFailedError
        return found


def test_a_first_failure_that_is_swallowed_is_caught() -> None:
    machine = effect_machine(Swallows, failures="recorded", settings=HUNT)
    with pytest.raises(Violation, match="failed, and") as found:
        machine.run()
    assert found.value.name == "failure"


@pytest.mark.parametrize(
    "make",
    [
        lambda: lock_machine(locks.PlainLocks, edge="fre"),  # type: ignore[arg-type] # reason: refused
        lambda: lock_machine(locks.PlainLocks, reentry="none"),  # type: ignore[arg-type] # reason: likewise
        lambda: queue_machine(queues.PlainQueue, order="lifo"),  # type: ignore[arg-type] # reason: likewise
        lambda: queue_machine(queues.PlainQueue, lapsed="x"),  # type: ignore[arg-type] # reason: likewise
        lambda: effect_machine(steps.PlainMemo, failures="x"),  # type: ignore[arg-type] # reason: likewise
        lambda: log_machine(logs.PlainLog, tolerate="read"),
        lambda: log_machine(logs.PlainLog, tolerate=["lost"]),
        lambda: log_machine(logs.PlainLog, streams=()),
        lambda: lock_machine(locks.PlainLocks, ttls=()),
        lambda: lock_machine(locks.PlainLocks, actors=[]),
        lambda: lock_machine(locks.PlainLocks, actors=["ann", "ann"]),
        lambda: lock_machine(locks.PlainLocks, ttls=(1, 0)),
        lambda: lock_machine(locks.PlainLocks, tick_ms=0),
        lambda: lock_machine(locks.PlainLocks, refusals=(5,)),  # type: ignore[arg-type] # reason: refused
        lambda: lock_machine(locks.PlainLocks, tick_ms=-1),
        lambda: effect_machine(steps.PlainMemo, keys=()),
    ],
)
def test_options_that_there_are_not_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(InvalidRecordError):
        make()


class Nothing:
    """What has no method that a machine could call."""

    def __init__(self, clock: object) -> None:
        pass


class NoClient(Nothing):
    """Locks whose clients can't do anything."""

    def client(self, actor: str) -> object:
        return object()


@pytest.mark.parametrize(
    ("machine", "lacks"),
    [
        (lock_machine(Nothing), r"client\(\)"),
        (lock_machine(NoClient), r"acquire\(\)"),
        (queue_machine(Nothing), r"put\(\)"),
        (log_machine(Nothing), r"append\(\)"),
        (effect_machine(Nothing), r"run\(\)"),
        (commit_machine(Nothing), r"load\(\)"),
    ],
)
def test_what_lacks_a_method_is_refused(machine: type[Machine], lacks: str) -> None:
    with pytest.raises(InvalidRecordError, match=lacks):
        machine.run()


class ItemsAlone(queues.PlainQueue):
    """A queue whose claims have no handle."""

    def claim(self, worker: str) -> Any:
        found = super().claim(worker)
        return None if found is None else found[0]


def test_a_claim_without_a_handle_is_refused_by_name() -> None:
    with pytest.raises(InvalidRecordError, match=r"claim\(\).*tuple of two"):
        queue_machine(ItemsAlone).run()


def test_a_script_of_another_machine_is_refused() -> None:
    with pytest.raises(InvalidRecordError, match="bogus"):
        lock_machine(locks.PlainLocks).replay([("bogus", "ann")])


@pytest.mark.parametrize(
    "machine", [CommitMachine, EffectMachine, LockMachine, LogMachine, QueueMachine]
)
def test_a_machine_names_every_violation_that_it_may_find(machine: type[Machine]) -> None:
    """As its source has them: given to ``violates``, or put under a name for it."""
    found: set[str] = set()
    classes = [
        each for each in machine.__mro__ if issubclass(each, Machine) and each is not Machine
    ]
    for node in ast.walk(ast.parse("\n".join(map(inspect.getsource, classes)))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in {"violates", "_suspect", "_suspect_later", "_blamed"}:
                found |= _texts(*node.args[:2])
        elif (isinstance(node, ast.Assign) and "suspect" in ast.unparse(node.targets[0])) or (
            isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "name"
        ):
            found |= _texts(node.value)
    assert found == set(machine.violations)


def _texts(*nodes: ast.AST) -> set[str]:
    """Return the plain texts among some expressions, but for those that are conditions or messages."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.IfExp):
            found |= _texts(node.body, node.orelse)
        elif isinstance(node, ast.BoolOp):
            found |= _texts(*node.values)
    return found


PAGE = Path(__file__).resolve().parents[2] / "docs" / "findings.md"
ENTRY = re.compile(r"^### (\w+)\n(.*?)\n```\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def _what(machine: type[Machine]) -> tuple[str, str]:
    """Return the name of a broken implementation, and what is wrong with it."""
    name = machine.subject
    (kind,) = (each[name][0] for each in ALL if name in each)
    return name, " ".join(kind.__doc__.split())


def _write_down(machine: type[Machine], violation: Violation) -> None:
    """Put the shrunken example on the page, in the place of the one that is there."""
    head, entries = PAGE.read_text().partition("### ")[0], ENTRY.findall(PAGE.read_text())
    kept = {name: (text, found) for name, text, found in entries}
    name, text = _what(machine)
    kept[name] = (text, f"{violation}\n")
    written = [
        f"### {name}\n{kept[name][0]}\n```\n{kept[name][1]}```\n"
        for name in _names()
        if name in kept
    ]
    PAGE.write_text(head + "\n".join(written))


def _names() -> list[str]:
    return [machine.subject for machine, _ in BROKEN]


def test_the_page_shows_an_example_of_each_broken_implementation() -> None:
    """Each is what its steps show when they are played again."""
    entries = ENTRY.findall(PAGE.read_text())
    assert [name for name, _, _ in entries] == _names()
    for (machine, _), (name, text, found) in zip(BROKEN, entries, strict=True):
        assert (name, text) == _what(machine)
        script = ast.literal_eval(found.rpartition(".replay(")[2].strip()[:-1])
        with pytest.raises(Violation) as shown:
            machine.replay(script)
        assert f"{shown.value}\n" == found


def test_each_machine_has_six_broken_implementations() -> None:
    for kinds in ALL:
        assert len(kinds) >= 6


class RenewsNoShorter(locks.PlainClient):
    """A renewal that asks for less moves nothing."""

    def renew(self, ttl_ms: int) -> bool:
        ends_ms = self.locks.state.ends_ms
        kept = super().renew(ttl_ms)
        self.locks.state.ends_ms = max(ends_ms, self.locks.state.ends_ms)
        return kept


class NoShorterLocks(locks.PlainLocks):
    def client(self, actor: str) -> RenewsNoShorter:
        return RenewsNoShorter(self, actor)

    def holder(self) -> str | None:
        return self.state.owner if self.is_live() else None


def test_what_was_seen_stands_in_the_timeline() -> None:
    machine = lock_machine(NoShorterLocks)
    with pytest.raises(Violation, match="is said to hold it") as found:
        machine.replay([("acquire", "ann", 2), ("renew", "ann", 1), ("end", 0)])
    start_ms = found.value.timeline[0].at_ms
    told = [(each.at_ms - start_ms, each.who, each.what) for each in found.value.timeline]
    assert told == [
        (0, "ann", "acquire(2) -> True"),
        (0, "ann", "renew(1) -> True"),
        (1, "", "holder() -> 'ann'"),
    ]
