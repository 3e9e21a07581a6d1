"""A recorded step that does nothing: alone, under a lease that is held, and by 64 tasks at once."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

from dbos import DBOS
from sqlalchemy import create_engine, event
from unhinged import Engine, TaskContext

from bench.peers.queues import LONG_MS, Synchronous
from bench.peers.rounds import each_us, figures_in_us
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
_NUMBERS: Final = count()


def measure(rounds: int) -> list[dict[str, Any]]:
    """Measure microseconds for each step."""
    figures = []
    synchronous: Synchronous
    for synchronous in ("NORMAL", "FULL"):
        with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
            folder = Path(place)
            dbos = Dbos(folder, synchronous, stack)
            runner = stack.enter_context(asyncio.Runner())
            cases: dict[str, dict[str, Callable[[], float]]] = {
                "a recorded step": {
                    **_one_at_a_time(folder, synchronous, stack),
                    "DBOS, in a workflow": partial(dbos.alone, _TIMES[synchronous]),
                },
                "a recorded step, 64 tasks": {
                    "lash_store": partial(_run, runner, _at_once(folder, synchronous, stack)),
                    "DBOS, in a workflow": partial(_run, runner, dbos.at_once),
                },
            }
            for case, contestants in cases.items():
                figures += figures_in_us(case, synchronous, contestants, rounds)
    return figures


def _one_at_a_time(
    folder: Path, synchronous: Synchronous, stack: ExitStack
) -> dict[str, Callable[[], float]]:
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
    calls: dict[str, Callable[[], Any]] = {
        "lash_store": lambda: own.run("s", f"k{next(_NUMBERS)}", {}, _nothing),
        "lash_store, under a lease": lambda: effects.run(
            "s", f"k{next(_NUMBERS)}", {}, _nothing, under=fence
        ),
        "unhinged, under a lease": lambda: context.step(f"k{next(_NUMBERS)}", _nothing),
    }
    return {name: partial(each_us, call, _TIMES[synchronous]) for name, call in calls.items()}


def _nothing() -> int:
    return 1


def _at_once(
    folder: Path, synchronous: Synchronous, stack: ExitStack
) -> Callable[[], Coroutine[Any, Any, float]]:
    """Return what has 64 tasks run some steps each, and gives the microseconds of each step."""
    effects = AsyncEffectStore.open(folder / "tasks.db", synchronous=synchronous)
    stack.callback(effects.close)

    async def nothing() -> int:
        return 1

    async def run(task: str) -> None:
        for number in range(_EACH):
            await effects.run(task, f"k{number}", {}, nothing)

    async def run_all() -> float:
        at, started = next(_NUMBERS), time.perf_counter()
        await asyncio.gather(*(run(f"{at}-{task}") for task in range(_TASKS)))
        return (time.perf_counter() - started) / (_TASKS * _EACH) * 1e6

    return run_all


def _run(runner: asyncio.Runner, main: Callable[[], Coroutine[Any, Any, float]]) -> float:
    return runner.run(main())


class Dbos:
    """DBOS: steps inside a workflow, whose own begin and end are not counted."""

    def __init__(self, folder: Path, synchronous: Synchronous, stack: ExitStack) -> None:
        url = f"sqlite:///{folder / 'dbos.db'}"
        engine = create_engine(url)

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, _: object) -> None:
            # It asks for unixepoch('subsec'), which SQLite has from 3.42 on.
            connection.create_function("unixepoch", -1, lambda *_: time.time())
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {synchronous}")

        DBOS(
            config={
                "name": "bench",
                "system_database_url": url,
                "system_database_engine": engine,
                "log_level": "ERROR",
            }
        )
        stack.callback(DBOS.destroy, destroy_registry=True)
        plain: Callable[[], int] = DBOS.step()(_nothing)

        @DBOS.step()  # type: ignore[untyped-decorator] # reason: it has no types here
        async def step() -> int:
            return 1

        @DBOS.workflow()  # type: ignore[untyped-decorator] # reason: likewise
        def alone(times: int) -> float:
            return each_us(plain, times)

        @DBOS.workflow()  # type: ignore[untyped-decorator] # reason: likewise
        async def at_once() -> float:
            started = time.perf_counter()
            await asyncio.gather(*(step() for _ in range(_TASKS)))
            return (time.perf_counter() - started) / _TASKS * 1e6

        self.alone, self.at_once = alone, at_once
        DBOS.launch()
