"""A recorded step that does nothing: alone, under a lease that is held, and by 64 tasks at once."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from unhinged import Engine, TaskContext

from bench.peers.queues import LONG_MS, Synchronous
from bench.peers.rounds import each_us, in_turn, summary
from lash_store import (
    AsyncEffectStore,
    Deployment,
    EffectStore,
    External,
    Host,
    ProcessLease,
    ProcessRegistration,
    Provenance,
)

_TIMES: Final = {"NORMAL": 100, "FULL": 25}
_TASKS: Final = 64
_EACH: Final = 5


def measure(rounds: int) -> list[dict[str, Any]]:
    """Measure microseconds for each step."""
    figures = []
    synchronous: Synchronous
    for synchronous in ("NORMAL", "FULL"):
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            made = _contestants(Path(folder), synchronous, stack)
            contestants = {
                name: partial(each_us, call, _TIMES[synchronous]) for name, call in made.items()
            }
            found = in_turn(contestants, rounds)
            found["lash_store, 64 asyncio tasks"] = _at_once(Path(folder), synchronous, rounds)
        figures += [
            {
                "case": "a recorded step",
                "contestant": name,
                "synchronous": synchronous,
                "unit": "us",
                **each,
            }
            for name, each in found.items()
        ]
    return figures


def _contestants(
    folder: Path, synchronous: Synchronous, stack: ExitStack
) -> dict[str, Callable[[], Any]]:
    own = stack.enter_context(EffectStore.open(folder / "own.db", synchronous=synchronous))
    deployment = stack.enter_context(
        Deployment.open(f"sqlite:///{folder / 'shared.db'}", synchronous=synchronous)
    )
    deployment.processes.register_process(
        ProcessRegistration("p", External({}), Provenance(Host()))
    )
    lease = deployment.processes.claim_lease("p", owner_id="worker", ttl_ms=LONG_MS)
    assert isinstance(lease, ProcessLease)
    fence, effects = lease.fence, deployment.effects
    engine = Engine(str(folder / "unhinged.db"), synchronous=synchronous.lower())
    engine.create_queue("bench")
    engine.spawn_task("bench", "task", {})
    (task,) = engine.claim_task("bench", "worker", 10**6, 1)
    context = TaskContext(engine, "bench", task, 10**6)
    numbers = count()
    return {
        "lash_store": lambda: own.run("s", f"k{next(numbers)}", {}, _nothing),
        "lash_store, under a lease": lambda: effects.run(
            "s", f"k{next(numbers)}", {}, _nothing, under=fence
        ),
        "unhinged, under a lease": lambda: context.step(f"k{next(numbers)}", _nothing),
    }


def _nothing() -> int:
    return 1


def _at_once(folder: Path, synchronous: Synchronous, rounds: int) -> dict[str, float]:
    async def nothing() -> int:
        return 1

    async def main() -> list[float]:
        measured = []
        async with AsyncEffectStore.open(folder / "tasks.db", synchronous=synchronous) as effects:

            async def run(task: str) -> None:
                for number in range(_EACH):
                    await effects.run(task, f"k{number}", {}, nothing)

            for at in range(rounds):
                started = perf_counter()
                await asyncio.gather(*(run(f"{at}-{task}") for task in range(_TASKS)))
                measured.append((perf_counter() - started) / (_TASKS * _EACH) * 1e6)
        return measured

    return summary(asyncio.run(main()))
