"""A job: put, claimed, completed; one at a time, with the next claimed at once, and by the hundred."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bench.peers.queues import OWN, QUEUES, Queue, Synchronous
from bench.peers.rounds import each_us, figures_in_us, new_folder

_TIMES: Final = {"NORMAL": 60, "FULL": 15}
_MANY: Final = 100


def measure(rounds: int) -> list[dict[str, Any]]:
    """Measure microseconds for each job."""
    figures: list[dict[str, Any]] = []
    synchronous: Synchronous
    for synchronous in ("NORMAL", "FULL"):
        folder = new_folder()
        queues = {}
        for name, make in QUEUES.items():
            place = folder / name
            place.mkdir()
            queues[name] = make(place, synchronous)
        for case, contestants in _cases(queues, _TIMES[synchronous]).items():
            for call in contestants.values():
                call()  # once before it counts
            named = {queues[name].name: call for name, call in contestants.items()}
            figures += figures_in_us(case, synchronous, named, rounds)
    return figures


def _cases(queues: dict[str, Queue], times: int) -> dict[str, dict[str, Callable[[], float]]]:
    ours = {name: queue for name, queue in queues.items() if name in OWN[:2]}
    return {
        "one job": {name: _whole(queue, times) for name, queue in queues.items()},
        "one job, claimed as the one before is completed": {
            **{name: _following(queue, times) for name, queue in ours.items()},
            "litequeue": _whole(queues["litequeue"], times),
            "huey": _whole(queues["huey"], times),
        },
        "each of a hundred": {name: _many(queue) for name, queue in queues.items()},
    }


def _whole(queue: Queue, times: int) -> Callable[[], float]:
    def job() -> None:
        queue.put()
        queue.complete(queue.claim())

    return lambda: each_us(job, times)


def _following(queue: Queue, times: int) -> Callable[[], float]:
    held: list[Any] = []

    def job() -> None:
        queue.put()
        held[0] = queue.following(held[0])

    def measured() -> float:
        queue.put()
        held[:] = [queue.claim()]
        try:
            return each_us(job, times)
        finally:
            queue.complete(held[0])

    return measured


def _many(queue: Queue) -> Callable[[], float]:
    def jobs() -> None:
        queue.put_many(_MANY)
        queue.work_many(_MANY)

    return lambda: each_us(jobs, 3) / _MANY
