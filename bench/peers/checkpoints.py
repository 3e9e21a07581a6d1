"""A checkpoint of 4 KiB that may be sent again, and two nodes more in a conversation.

Ours is a turn with a receipt; beside it LangGraph's own savers, and the session of OpenAI's Agents SDK, which
has no checkpoints, receipts or fences.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import aiosqlite
from agents import SQLiteSession
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from bench.peers.queues import LONG_MS, Synchronous
from bench.peers.rounds import each_us, figures_in_us
from lash_store import (
    Append,
    AsyncDeployment,
    AsyncSessionStore,
    Checkpoint,
    Node,
    SessionFence,
    SessionLease,
    SessionStore,
    TurnCommit,
    TurnStamp,
)

_TIMES: Final = {"NORMAL": 50, "FULL": 15}
_TASKS: Final = 64
_EACH: Final = 3
_SIZE: Final = 4_096
_NUMBERS: Final = count()
_OWN: Final = "lash_store, commit_turn with a receipt"
_OWN_TURN: Final = "lash_store, commit_turn"


def measure(rounds: int) -> list[dict[str, Any]]:
    """Measure microseconds for each."""
    figures: list[dict[str, Any]] = []
    synchronous: Synchronous
    for synchronous in ("NORMAL", "FULL"):
        with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
            folder, runner = Path(place), stack.enter_context(asyncio.Runner())
            cases = {
                "a checkpoint of 4 KiB": _alone(folder, synchronous),
                "a checkpoint of 4 KiB, 64 tasks": _at_once(folder, synchronous, stack, runner),
                "two nodes": _two_nodes(folder, synchronous, stack, runner),
            }
            for case, contestants in cases.items():
                figures += figures_in_us(case, synchronous, contestants, rounds)
    return figures


def _alone(folder: Path, synchronous: Synchronous) -> dict[str, Callable[[], float]]:
    calls = {
        _OWN: _commit(folder, synchronous),
        "LangGraph's SqliteSaver, put and put_writes": _put(folder, synchronous),
    }
    return {name: partial(each_us, call, _TIMES[synchronous]) for name, call in calls.items()}


def _state() -> str:
    """Some text that no compression makes short."""
    return token_hex(_SIZE // 2)


def _turn(fence: SessionFence) -> TurnCommit:
    number = next(_NUMBERS)
    return TurnCommit(
        fence=fence,
        stamp=TurnStamp(f"turn-{number}", f"hash-{number}"),
        checkpoint=Checkpoint({"turn_index": number, "text": _state()}),
    )


def _commit(folder: Path, synchronous: Synchronous) -> Callable[[], object]:
    store = SessionStore.open(folder / "turns.db", session_id="s", synchronous=synchronous)
    fence = _fence_of(store.claim_lease(owner_id="worker", ttl_ms=LONG_MS))
    return lambda: store.commit_turn(_turn(fence))


def _fence_of(lease: object) -> SessionFence:
    assert isinstance(lease, SessionLease)
    return lease.fence


def _checkpoint() -> Any:
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"text": _state()}
    return checkpoint


_METADATA: Final[Any] = {"source": "loop", "step": 1, "parents": {}}
_WRITES: Final = [("text", "x")]


def _config(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


def _put(folder: Path, synchronous: Synchronous) -> Callable[[], object]:
    connection = sqlite3.connect(folder / "saver.db", check_same_thread=False)
    saver = SqliteSaver(connection)
    saver.setup()
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    config = _config("t")

    def put() -> None:
        given = saver.put(config, _checkpoint(), _METADATA, {})
        saver.put_writes(given, _WRITES, "task")

    return put


Loop = Callable[[], Coroutine[Any, Any, None]]


def _at_once(
    folder: Path, synchronous: Synchronous, stack: ExitStack, runner: asyncio.Runner
) -> dict[str, Callable[[], float]]:
    """64 tasks, a session or a thread each, in one database."""

    async def all_tasks(one: Callable[[int], Coroutine[Any, Any, None]]) -> float:
        async def task(number: int) -> None:
            for _ in range(_EACH):
                await one(number)

        started = time.perf_counter()
        await asyncio.gather(*map(task, range(_TASKS)))
        return (time.perf_counter() - started) / (_TASKS * _EACH) * 1e6

    ours = runner.run(_open_sessions(folder, synchronous))
    stack.callback(lambda: runner.run(ours[0].aclose()))
    saver = runner.run(_open_saver(folder, synchronous))
    stack.callback(lambda: runner.run(saver.conn.close()))

    async def commit(number: int) -> None:
        store, fence = ours[1][number]
        await store.commit_turn(_turn(fence))

    async def put(number: int) -> None:
        given = await saver.aput(_config(f"t{number}"), _checkpoint(), _METADATA, {})
        await saver.aput_writes(given, _WRITES, "task")

    return {
        _OWN: lambda: runner.run(all_tasks(commit)),
        "LangGraph's AsyncSqliteSaver, aput and aput_writes": lambda: runner.run(all_tasks(put)),
    }


async def _open_sessions(
    folder: Path, synchronous: Synchronous
) -> tuple[AsyncDeployment, list[tuple[AsyncSessionStore, SessionFence]]]:
    url = f"sqlite:///{folder / 'sessions.db'}"
    deployment = await AsyncDeployment.open(url, synchronous=synchronous)
    stores = []
    for number in range(_TASKS):
        store = await deployment.sessions.create(f"s{number}", model="m")
        lease = await store.claim_lease(owner_id="worker", ttl_ms=LONG_MS)
        stores.append((store, _fence_of(lease)))
    return deployment, stores


async def _open_saver(folder: Path, synchronous: Synchronous) -> AsyncSqliteSaver:
    connection = await aiosqlite.connect(folder / "tasks_saver.db")
    saver = AsyncSqliteSaver(connection)
    await saver.setup()
    await connection.execute(f"PRAGMA synchronous = {synchronous}")
    return saver


def _two_nodes(
    folder: Path, synchronous: Synchronous, stack: ExitStack, runner: asyncio.Runner
) -> dict[str, Callable[[], float]]:
    store = SessionStore.open(folder / "nodes.db", session_id="s", synchronous=synchronous)
    stack.enter_context(store)
    fence = _fence_of(store.claim_lease(owner_id="worker", ttl_ms=LONG_MS))
    leaf: str | None = None

    def commit() -> None:
        nonlocal leaf
        said, answered = (f"n{next(_NUMBERS)}" for _ in range(2))
        nodes = [Node(said, leaf, _ITEMS[0]), Node(answered, said, _ITEMS[1])]
        store.commit_turn(TurnCommit(fence=fence, graph=Append(nodes, answered)))
        leaf = answered

    session = Peer("s", folder / "agents.db", synchronous)
    stack.callback(session.close)
    times = _TIMES[synchronous]

    async def add() -> float:
        taken = []
        for _ in range(times):
            started = time.perf_counter_ns()
            await session.add_items(list(_ITEMS))
            taken.append(time.perf_counter_ns() - started)
        return sorted(taken)[times // 2] / 1000

    return {
        _OWN_TURN: partial(each_us, commit, times),
        "OpenAI Agents' SQLiteSession, add_items": lambda: runner.run(add()),
    }


_ITEMS: Final[Any] = (
    {"role": "user", "content": "what is to be done?"},
    {"role": "assistant", "content": "some words about what is to be done"},
)


class Peer(SQLiteSession):  # type: ignore[misc] # reason: it has no types here
    """The Agents SDK's session, at the durability that is named: it has no option."""

    def __init__(self, session_id: str, path: Path, synchronous: Synchronous) -> None:
        self.synchronous = synchronous
        super().__init__(session_id, path)

    def _configure_connection(self, connection: sqlite3.Connection) -> None:
        super()._configure_connection(connection)
        connection.execute(f"PRAGMA synchronous = {self.synchronous}")
