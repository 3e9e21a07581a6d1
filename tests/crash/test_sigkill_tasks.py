"""SIGKILL on processes full of asyncio tasks: what was acknowledged stays, once, and nothing is torn.

Several processes with several stores and many tasks each write to the same two files, in groups
all the time, and are killed in the midst of it. Others come and send again what may have been cut
off.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from itertools import count
from math import inf
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lash_store import (
    Append,
    AsyncProcessRegistry,
    AsyncSessionStore,
    NewWork,
    Node,
    ProcessRegistry,
    SessionLease,
    SessionStore,
    TurnCommit,
    TurnStamp,
)
from lash_store.schemas import check_file
from tests.support import processes
from tests.support.processes import Says, workers
from tests.support.registries import registration
from tests.support.turns import PATIENCE_S

PROCESSES = 8
TASKS = 64
ROUNDS = 2


class Done(NamedTuple):
    """What a process says once a call has returned, and not before."""

    kind: str
    task: str
    number: int

    @property
    def key(self) -> str:
        return f"{self.task}-{self.number}"


class Worker:
    """One process: several stores on each of two files, and tasks that use them."""

    def __init__(self, say: Says, folder: Path) -> None:
        self.say, self.me = say, os.getpid()
        self.sessions = [
            AsyncSessionStore.open(folder / "s.db", session_id="shared", busy_timeout_ms=60_000)
            for _ in range(3)
        ]
        self.registries = [
            AsyncProcessRegistry.open(folder / "p.db", busy_timeout_ms=60_000) for _ in range(2)
        ]

    async def do(self, each: Done, at: int = 0) -> None:
        """Make a call that has a key of its own, and may be made again."""
        store = self.sessions[at % len(self.sessions)]
        if each.kind == "append":
            registry = self.registries[at % len(self.registries)]
            await registry.append_event("p", "tick", each.key, replay_key=each.key)
        elif each.kind == "enqueue":
            items = [each.key, f"{each.key} too"]
            await store.enqueue_work(NewWork(items, source_key=each.key))
        else:
            # One team: whoever of it comes later has the same term.
            lease = await store.claim_lease(owner_id="team", ttl_ms=600_000)
            assert isinstance(lease, SessionLease)
            nodes = [Node(f"{each.key} {side}", None, {}) for side in "ab"]
            commit = TurnCommit(
                fence=lease.fence,
                graph=Append(nodes, nodes[-1].node_id),
                stamp=TurnStamp(each.key, each.key),
            )
            await store.commit_turn(commit)

    async def keep_doing(self, kind: str, at: int) -> None:
        for number in count():
            done = Done(kind, f"{self.me}-{at}", number)
            await self.do(done, at)
            self.say(done)

    async def keep_claiming(self, at: int) -> None:
        store = self.sessions[at % len(self.sessions)]
        while True:
            lease = await store.claim_lease(owner_id=str(at), ttl_ms=0, session_id="counter")
            if isinstance(lease, SessionLease):
                self.say(Done("claim", f"{self.me}-{at}", lease.fencing_token))

    async def work(self, again: list[Done]) -> None:
        await asyncio.gather(*(self.do(each) for each in again))
        async with asyncio.TaskGroup() as group:
            for at in range(TASKS):
                kind = ("enqueue", "append", "commit", "claim")[at % 4]
                task = self.keep_claiming(at) if kind == "claim" else self.keep_doing(kind, at)
                group.create_task(task)


def work_in_tasks(say: Says, folder: Path, again: list[Done]) -> None:
    asyncio.run(Worker(say, folder).work(again))


def hear_until_killed(running: list[processes.Worker], chance: random.Random) -> list[Done]:
    """What the processes say, each until it is killed at some moment; all of them are."""
    heard: list[Done] = []
    kill_s: dict[Any, float] = {}
    by_pipe = {worker.pipe: worker for worker in running}
    patience_ends_s = time.monotonic() + 2 * PATIENCE_S
    while by_pipe:
        assert time.monotonic() < patience_ends_s, "a process says nothing"
        for pipe in wait(list(by_pipe), timeout=0.01):
            assert isinstance(pipe, Connection)
            try:
                kind, value = pipe.recv()
            except (EOFError, OSError):
                worker = by_pipe.pop(pipe)
                worker.process.join(PATIENCE_S)
                assert worker.process.exitcode == -signal.SIGKILL, "it ended by itself"
                continue
            assert kind == "said", value
            heard.append(value)
            kill_s.setdefault(pipe, time.monotonic() + chance.uniform(0.2, 1.0))
        for pipe, worker in list(by_pipe.items()):
            if time.monotonic() > kill_s.get(pipe, inf) and worker.process.is_alive():
                worker.kill()
    return heard


def perhaps_cut_off(heard: list[Done]) -> list[Done]:
    """The last of each task that has a key of its own, and the one that it was at."""
    last = {(each.kind, each.task): each for each in heard if each.kind != "claim"}
    return [each._replace(number=each.number + more) for each in last.values() for more in (0, 1)]


def keys_of(heard: list[Done], kind: str) -> set[str]:
    return {each.key for each in heard if each.kind == kind}


def check_sessions(path: Path, heard: list[Done]) -> None:
    with SessionStore.open(path, session_id="shared") as store:
        batches = store.list_work()
        keys = Counter(batch.source_key for batch in batches)
        assert max(keys.values()) == 1
        assert keys_of(heard, "enqueue") <= set(keys)
        for batch in batches:
            payloads = [item.payload for item in batch.items]
            assert payloads == [batch.source_key, f"{batch.source_key} too"]

        numbers = Counter(each.number for each in heard if each.kind == "claim")
        assert max(numbers.values()) == 1
        lease = store.claim_lease(owner_id="last", ttl_ms=0, session_id="counter")
        assert isinstance(lease, SessionLease)
        assert lease.fencing_token > max(numbers)

        head, graph = store.load_head(), store.load_graph()
        assert head is not None
        assert graph is not None
        assert head.graph_node_count == len(graph.nodes) == 2 * head.head_revision
        there = {node.node_id for node in graph.nodes}
        turns = {name.removesuffix(" a") for name in there if name.endswith(" a")}
        assert there == {f"{turn} {side}" for turn in turns for side in "ab"}
        assert keys_of(heard, "commit") <= turns
        with store.read() as tx:
            receipts = [tx.load_receipt(turn) for turn in sorted(turns)]
        revisions = sorted(each.head_revision for each in receipts if each is not None)
        assert revisions == list(range(1, head.head_revision + 1))


def check_registry(path: Path, heard: list[Done]) -> None:
    with ProcessRegistry.open(path) as registry:
        events = registry.events_after("p", limit=10**6)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    keys = Counter(event.payload for event in events)
    assert max(keys.values()) == 1
    assert keys_of(heard, "append") <= set(keys)


@pytest.mark.parametrize("seed", [1])
def test_no_acknowledged_call_of_many_tasks_is_lost_to_sigkill(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    SessionStore.open(tmp_path / "s.db", session_id="shared").close()
    with ProcessRegistry.open(tmp_path / "p.db") as registry:
        registry.register_process(registration())
    heard: list[Done] = []
    for _ in range(ROUNDS):
        again = perhaps_cut_off(heard)
        again = chance.sample(again, min(len(again), 100))
        with workers(PROCESSES, work_in_tasks, tmp_path, again) as running:
            new = hear_until_killed(running, chance)
        assert {each.kind for each in new} == {"enqueue", "append", "claim", "commit"}
        heard += new
        check_sessions(tmp_path / "s.db", heard)
        check_registry(tmp_path / "p.db", heard)
        for name in ("s.db", "p.db"):
            assert check_file(tmp_path / name).is_sound
