"""A process whose main thread is interrupted again and again in the midst of its calls.

``python -m tests.crash.interrupted FOLDER OPERATION INTERRUPTS THREADS`` prints what it found:
interrupts that came, calls that were acknowledged, and whatever contradicts them.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lash_store import (
    Append,
    EffectStore,
    NewWork,
    Node,
    ProcessRegistry,
    SessionStore,
    TurnCommit,
    TurnStamp,
)
from tests.support.registries import registration

MEAN_S = 0.0004
"""How long the main thread is left alone, on average: a few calls."""

Call = Callable[[str], object]


class Subject:
    """One operation on a store: how a call is made, and what the store says was done."""

    def __init__(self, name: str, folder: Path, opened: ExitStack) -> None:
        self.call: Call
        self.done: Callable[[], list[str]]
        options: Any = {"busy_timeout_ms": 20_000}
        if name in ("claim", "enqueue", "commit"):
            session = opened.enter_context(
                SessionStore.open(folder / "s.db", session_id="s", **options)
            )
            self._of_session(name, session)
        elif name == "append":
            registry = opened.enter_context(ProcessRegistry.open(folder / "p.db", **options))
            registry.register_process(registration())
            self.call = lambda key: registry.append_event("p", "tick", key, replay_key=key)
            self.done = lambda: [event.payload for event in registry.events_after("p", limit=2**40)]
        else:
            effects = opened.enter_context(EffectStore.open(folder / "e.db", **options))
            self.call = lambda key: effects.run("s", key, None, lambda: key)
            self.done = lambda: [
                effects.run("s", effect.replay_key, None, lambda: "not recorded")
                for effect in effects.list_effects(status="completed", limit=2**40)
            ]

    def _of_session(self, name: str, session: SessionStore) -> None:
        if name == "claim":
            self.call = lambda key: session.claim_lease(owner_id=key, ttl_ms=60_000, session_id=key)
            self.done = lambda: _claimed(session)
        elif name == "enqueue":
            self.call = lambda key: session.enqueue_work(NewWork([key], source_key=key))
            self.done = lambda: [
                item.payload for batch in session.list_work() for item in batch.items
            ]
        else:
            lease: Any = session.claim_lease(owner_id="ann", ttl_ms=10_000_000)
            self.call = lambda key: session.commit_turn(
                TurnCommit(
                    fence=lease.fence,
                    graph=Append([Node(key, None, {"text": key})], leaf=key),
                    stamp=TurnStamp(key, key),
                )
            )
            self.done = lambda: _nodes(session)


def _claimed(session: SessionStore) -> list[str]:
    with session.read() as tx:
        rows = tx.connection.exec_driver_sql("SELECT * FROM session_execution_leases").fetchall()
    assert all(row[3] == 1 for row in rows), "claimed twice"
    return [row[0] for row in rows]


def _nodes(session: SessionStore) -> list[str]:
    graph, head = session.load_graph(), session.load_head()
    nodes = [] if graph is None else [node.node_id for node in graph.nodes]
    assert head is None or head.head_revision == head.graph_node_count == len(nodes), "torn"
    return nodes


def hammer(call: Call, name: str, acknowledged: list[str], until: threading.Event) -> int:
    """Make calls until told to stop, and count the interrupts that came meanwhile."""
    at = caught = 0
    while True:
        try:
            while not until.is_set():
                at += 1
                key = f"{name}{at}"
                try:
                    call(key)
                    acknowledged.append(key)
                except KeyboardInterrupt:
                    caught += 1
        except KeyboardInterrupt:
            caught += 1
        else:
            return caught


def uninterrupted() -> int:
    """Let no more interrupt come; return how many still did."""
    caught = 0
    while True:
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt:
            caught += 1
        else:
            return caught


def interrupt(times: int, acknowledged: list[str], until: threading.Event) -> None:
    """Interrupt the main thread at random, once it is at its calls."""
    while "m1" not in acknowledged:
        time.sleep(0.001)
    chance = random.Random(times)
    main = threading.main_thread().ident or 0
    for _ in range(times):
        time.sleep(chance.expovariate(1 / MEAN_S))
        signal.pthread_kill(main, signal.SIGINT)
    time.sleep(0.5)  # the last one is on its way until the main thread runs again
    until.set()


def main(folder: str, operation: str, times: str, threads: str) -> None:
    # A shell's job in the background ignores it, and so does whatever that starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with ExitStack() as opened:
        subject = Subject(operation, Path(folder), opened)
        until = threading.Event()
        acknowledged: list[str] = []
        failures: list[str] = []

        def beside(number: int) -> None:
            try:
                hammer(subject.call, f"t{number}-", acknowledged, until)
            except BaseException as error:  # noqa: BLE001 # reason: that is what is looked for
                failures.append(repr(error))

        others = [threading.Thread(target=beside, args=(at,)) for at in range(int(threads))]
        for thread in others:
            thread.start()
        sender = threading.Thread(target=interrupt, args=(int(times), acknowledged, until))
        sender.start()
        try:
            caught = hammer(subject.call, "m", acknowledged, until)
        except Exception as error:  # noqa: BLE001 # reason: the same
            failures.append(repr(error))
            until.set()
            caught = -1
        caught += uninterrupted()
        for thread in [*others, sender]:
            thread.join(60)
        stuck = [thread.name for thread in others if thread.is_alive()]
        done = subject.done()
        report = {
            "caught": caught,
            "acknowledged": len(acknowledged),
            "done": len(done),
            "failures": failures,
            "stuck": stuck,
            "lost": sorted(set(acknowledged) - set(done))[:5],
            "doubled": len(done) - len(set(done)),
        }
        print(json.dumps(report))  # noqa: T201 # reason: what it is for


if __name__ == "__main__":
    main(*sys.argv[1:])
