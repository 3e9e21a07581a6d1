"""Workers that take turns in many sessions of one database, each of which may be killed, stopped or cut off.

What a worker was told it writes down: a batch that is enqueued, a batch that is completed, and what
nobody knows. Afterwards the rows have to agree with that.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import psycopg

from lash_store import Append, NewWork, Node, SessionLease, SessionStore, TurnCommit, TurnStamp
from lash_store._backends.postgresql import handle
from lash_store.errors import LashStoreError, OutcomeUnknownError

SESSIONS = 32
TTL_MS = 400


class Told:
    """What a worker was told, in a file that outlives it: a line is whole, or it is not there."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    def write(self, what: str, key: str) -> None:
        """Write down one answer."""
        os.write(self._file, f"{what} {key}\n".encode())


def work(url: str, place: str, folder: Path, seconds: float, options: dict[str, Any]) -> int:
    """Take turns until the time is over; return how many were committed."""
    told = Told(folder / f"{os.getpid()}.told")
    chance = random.Random(os.getpid())
    until_s, turns = time.monotonic() + seconds, 0
    stores: dict[str, SessionStore] = {}
    while time.monotonic() < until_s:
        name = f"s{chance.randrange(SESSIONS):02}"
        try:
            if name not in stores:
                stores[name] = SessionStore.open(url, session_id=name, schema=place, **options)
            turns += take_turn(stores[name], told, f"{os.getpid()}-{turns}-{chance.random()}")
        except LashStoreError as error:
            told.write("refused", type(error).__name__)
    for store in stores.values():
        store.close()
    return turns


def take_turn(store: SessionStore, told: Told, key: str) -> bool:
    """Enqueue a batch, claim what is first, and commit a node for it behind the leaf."""
    acknowledged(told, "enqueued", key, lambda: store.enqueue_work(NewWork([key], source_key=key)))
    lease = store.claim_lease(owner_id=key, ttl_ms=TTL_MS)
    if not isinstance(lease, SessionLease):
        return False
    claim = store.claim_work(lease.fence, owner_id=key, ttl_ms=TTL_MS)
    if claim is None:
        store.release_lease(lease.fence)
        return False
    head, done = store.load_head(), str(claim.batches[0].items[0].payload)
    leaf = None if head is None else head.leaf_node_id
    commit = TurnCommit(
        fence=lease.fence,
        stamp=TurnStamp(key, "hash"),
        expected_head_revision=0 if head is None else head.head_revision,
        graph=Append([Node(done, leaf, {"by": key})], leaf=done),
        completed=[claim],
        release=True,
    )
    acknowledged(told, "completed", done, lambda: store.commit_turn(commit))
    return True


def acknowledged(told: Told, what: str, key: str, call: Any) -> None:
    """Make a call, and write down that it was done, or that nobody knows."""
    try:
        call()
    except OutcomeUnknownError:
        told.write("unknown", key)
        raise
    except LashStoreError:
        told.write(f"not {what}", key)
        raise
    told.write(what, key)


def started(
    url: str,
    place: str,
    folder: Path,
    seconds: float,
    options: dict[str, Any],
    *,
    locks: str = "own",
    delay_s: float = 0.0,
) -> Popen[bytes]:
    """Start a worker in a process of its own, whose server's answers come that much later."""
    code = (
        "from pathlib import Path; from tests.support import hammer, proxy\n"
        f"hammer.under({locks!r})\n"
        f"with proxy.late({url!r}, {delay_s}) as url:\n"
        f"    hammer.work(url, {place!r}, Path({str(folder)!r}), {seconds}, {options!r})"
    )
    return Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.getcwd()})


def hammer(
    url: str,
    place: str,
    folder: Path,
    seconds: float,
    *,
    workers: int = 8,
    locks: str = "own",
    **options: Any,
) -> int:
    """Let workers work, kill one after another, and stop some beyond their terms; return how many died."""
    chance, killed = random.Random(7), 0
    until_s = time.monotonic() + seconds
    running = [started(url, place, folder, seconds, options, locks=locks) for _ in range(workers)]
    while (left_s := until_s - time.monotonic()) > 0:
        time.sleep(min(left_s, chance.uniform(0.1, 0.4)))
        at = chance.randrange(workers)
        if chance.random() < 0.5:
            running[at].kill()
            running[at].wait()
            killed += 1
            left_s = max(0.0, until_s - time.monotonic())
            running[at] = started(url, place, folder, left_s, options, locks=locks)
        else:
            running[at].send_signal(signal.SIGSTOP)
            time.sleep(TTL_MS / 1000)
            running[at].send_signal(signal.SIGCONT)
    for each in running:
        assert each.wait(60) == 0
    return killed


def answers(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what all workers were told."""
    for path in folder.glob("*.told"):
        for line in path.read_text().splitlines():
            what, _, key = line.partition(" ")
            yield what, key


def check(admin: psycopg.Connection[Any], place: str, folder: Path) -> dict[str, int]:
    """Compare the rows with what the workers were told; return how often they were told what."""
    told: dict[str, list[str]] = {}
    for what, key in answers(folder):
        told.setdefault(what, []).append(key)
    queued = [
        key for (key,) in admin.execute(f"SELECT source_key FROM {place}.lash_queued_work_batches")
    ]
    nodes = admin.execute(
        f"SELECT store, node_id, node_json::json ->> 'parent_node_id' FROM {place}.lash_graph_nodes "
        "ORDER BY store, seq"
    ).fetchall()
    done = [node_id for _, node_id, _ in nodes]
    completed, unknown = set(told.get("completed", ())), set(told.get("unknown", ()))
    enqueued = set(told.get("enqueued", ()))
    assert len(set(done)) == len(done), "a batch was completed twice"
    assert not set(done) & set(queued), "a batch is completed, and waits"
    assert completed <= set(done), "a turn was acknowledged, and is not there"
    assert enqueued <= set(done) | set(queued), "a batch was acknowledged, and is lost"
    refused = set(told.get("not enqueued", ()))
    assert not refused & (set(done) | set(queued)), "a batch was refused, and is there"
    leaf: dict[str, str | None] = {}
    for store, node_id, parent in nodes:
        assert parent == leaf.get(store), f"the graph of {store} forks at {node_id}"
        leaf[store] = node_id
    heads = admin.execute(
        f"SELECT store, head_json::json ->> 'leaf_node_id', head_revision FROM {place}.lash_session_head"
    ).fetchall()
    count = {store: sum(1 for each, _, _ in nodes if each == store) for store in leaf}
    for store, at, revision in heads:
        assert at == leaf.get(store), f"the head of {store} is not its last node"
        assert revision == count.get(store, 0), f"the head of {store} has moved without a node"
    assert {store for store, _, _ in heads} >= set(leaf)
    return {
        "turns": len(done),
        "queued": len(queued),
        "unknown": len(unknown),
        "refused": len(told.get("refused", ())),
    }


def under(locks: str) -> None:
    """Let this process take other locks than those that an operation needs: none, or one for all."""
    if locks == "global":
        vars(handle)["locks_of"] = lambda *_: ((1, False),)
    elif locks == "none":
        vars(handle)["locks_of"] = lambda *_: ()
