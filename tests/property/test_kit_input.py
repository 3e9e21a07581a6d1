"""The kit, asked for what there is not: options, scripts, files; and implementations that give it nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lash_store.errors import InvalidRecordError
from lash_store.testing import (
    History,
    HistoryError,
    LeaseState,
    ManualClock,
    Operation,
    check_history,
    commit_machine,
    effect_machine,
    explore,
    lease_model,
    lock_machine,
    log_machine,
    queue_machine,
    read_history,
)
from tests.support import commits, locks, logs, queues, steps

OPTIONS: list[Callable[[], Any]] = [
    lambda: lock_machine(locks.PlainLocks, refusals=ValueError),  # type: ignore[arg-type] # reason: refused
    lambda: lock_machine(locks.PlainLocks, tolerate=5),  # type: ignore[arg-type] # reason: likewise
    lambda: lock_machine(locks.PlainLocks, actors="ann"),
    lambda: lock_machine(locks.PlainLocks, ttls=5),  # type: ignore[arg-type] # reason: likewise
    lambda: lock_machine(locks.PlainLocks, settings=5),  # type: ignore[arg-type] # reason: likewise
    lambda: lock_machine(None),  # type: ignore[arg-type] # reason: likewise
    lambda: queue_machine(queues.PlainQueue, workers=[1]),  # type: ignore[list-item] # reason: likewise
    lambda: log_machine(logs.PlainLog, streams="ab"),
    lambda: effect_machine(steps.PlainMemo, keys=5),  # type: ignore[arg-type] # reason: likewise
    lambda: lock_machine(locks.PlainLocks).replay([("acquire", "eve", 5)]),
    lambda: lock_machine(locks.PlainLocks).replay([("acquire", "ann")]),
    lambda: lock_machine(locks.PlainLocks).replay([("acquire", "ann", "5")]),
    lambda: lock_machine(locks.PlainLocks).replay([()]),
    lambda: lock_machine(locks.PlainLocks).replay(["wait"]),  # type: ignore[list-item] # reason: likewise
    lambda: log_machine(logs.PlainLog).replay([("append", "z", "x", None)]),
    lambda: commit_machine(commits.PlainDocument).replay([("commit", "k", -5, "x")]),
    lambda: explore(dict, (each for each in [len]), lambda _, __: None),  # type: ignore[arg-type] # reason: likewise
    lambda: explore(dict, [5], lambda _, __: None),  # type: ignore[arg-type] # reason: likewise
    lambda: History().end(1, None),
]


@pytest.mark.parametrize("misused", OPTIONS)
def test_what_the_kit_can_not_play_is_refused_by_name(misused: Callable[[], Any]) -> None:
    with pytest.raises(InvalidRecordError):
        misused()


def test_a_script_is_looked_through_before_it_is_played() -> None:
    made: list[locks.PlainLocks] = []

    def make(clock: ManualClock) -> locks.PlainLocks:
        made.append(locks.PlainLocks(clock))
        return made[-1]

    with pytest.raises(InvalidRecordError, match="eve"):
        lock_machine(make).replay([("acquire", "ann", 5), ("release", "eve")])
    assert not made


class Misimplemented:
    """What gives other things than it has to."""

    def __init__(self, clock: ManualClock) -> None:
        self.gives: Any = None

    def client(self, _: str) -> Any:
        return self

    def acquire(self, _: int) -> bool:
        return True

    def release(self) -> None: ...

    def fence(self) -> Any: ...

    def load(self) -> tuple[int, str]:
        return 1, ""

    def commit(self, *_: Any) -> Any: ...

    def append(self, *_: Any) -> Any: ...

    def read(self, *_: Any) -> list[Any]:
        return []


class NothingLoaded(Misimplemented):
    def load(self) -> Any:
        return None


class NothingRead(Misimplemented):
    def read(self, *_: Any) -> Any:
        return None


@pytest.mark.parametrize(
    ("machine", "step", "named"),
    [
        (lock_machine(Misimplemented), ("acquire", "ann", 5), r"fence\(\)"),
        (commit_machine(Misimplemented), ("commit", "k", 0, "x"), r"commit\(\)"),
        (commit_machine(NothingLoaded), ("reopen",), r"load\(\)"),
        (log_machine(Misimplemented), ("append", "a", "x", None), r"append\(\)"),
        (log_machine(NothingRead), ("read", "a", 0), r"read\(\)"),
    ],
)
def test_what_gives_something_else_is_refused_by_its_name(
    machine: Any, step: tuple[Any, ...], named: str
) -> None:
    with pytest.raises(InvalidRecordError, match=named):
        machine.replay([step])


def test_a_lock_may_say_its_grants_and_refusals_as_true_and_false() -> None:
    def history(*answers: bool) -> list[Operation]:
        return [
            Operation(who, "acquire", (1_000,), answer, 2 * at, 2 * at + 1)
            for at, (who, answer) in enumerate(zip("ab", answers, strict=True))
        ]

    assert check_history(history(True, False), lease_model, LeaseState()) == 2
    with pytest.raises(HistoryError):
        check_history(history(True, True), lease_model, LeaseState())
    with pytest.raises(HistoryError):
        check_history(history(False, True), lease_model, LeaseState())
    freed = Operation("a", "release", (), True, 5, 6)
    again = Operation("b", "acquire", (1_000,), True, 7, 8)
    done = [*history(True, False), freed, again]
    assert check_history(done, lease_model, LeaseState()) == 4


def test_a_lease_model_is_of_a_lease() -> None:
    for what, result in (("lock", None), ("acquire", "token")):
        with pytest.raises(InvalidRecordError):
            list(lease_model(LeaseState(), Operation("a", what, (1,), result, 0, 1)))


@pytest.mark.parametrize(
    "line", [b"{}", b"not json", b'["end", 7, null, 1]', b'["begin", 1]', b'["end", 1]']
)
def test_a_file_that_is_no_history_is_refused_by_its_name(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(line + b"\n")
    with pytest.raises(InvalidRecordError, match=r"notes\.txt"):
        read_history(path)
