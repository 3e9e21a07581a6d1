"""The machines of the kit: our stores stand, plain implementations stand, every broken one falls."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from lash_store.testing import (
    Machine,
    Violation,
    commit_machine,
    effect_machine,
    lock_machine,
    log_machine,
    queue_machine,
)
from tests.support import commits, locks, logs, queues, steps

pytestmark = pytest.mark.canonical("opens both layouts by itself")

OURS = settings()
ASYNC = settings(max_examples=max(20, settings().max_examples // 4))

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


def test_each_machine_has_six_broken_implementations() -> None:
    for kinds in (locks.broken, queues.broken, steps.broken, commits.broken, logs.broken):
        assert len(kinds) >= 6
