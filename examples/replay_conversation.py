"""Replay a recorded conversation through worker processes, some of which are killed.

    python examples/replay_conversation.py FILE.jsonl ROOT [--workers N] [--kill]

FILE holds one chat message a line (``role``, ``content``, ``tool_calls``?, ``tool_call_ids``?).
Each user message is enqueued as work for one session under ROOT. Worker processes take the
session's lease, claim the work, produce the recorded answer turn by turn, and commit each turn:
nodes, checkpoint, usage, receipt, and with the last one the work itself. With ``--kill`` the
worker that holds the lease is killed with SIGKILL, again and again, and another is started. At
the end the session is read back and compared with the file. Exit status 0 only if every message
is there once, in order, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import queue
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lash_store import LeaseHeld, SessionFence, SessionLease, SessionStore
from lash_store.errors import LashStoreError
from lash_store.session import statements
from lash_store.session.directory import SessionDirectory
from lash_store.session.records import (
    Append,
    Checkpoint,
    NewWork,
    Node,
    TurnCommit,
    TurnStamp,
    UsageDelta,
    WorkClaim,
    turn_commit_hash,
)

TERM_MS = 300
"""How long a dead worker keeps the session and its work from the others."""

THINKING_S = 0.02
DEADLINE_S = 120.0
MOST_KILLS = 12


@dataclass(frozen=True)
class Turn:
    """A run of messages that is committed at once: `first` up to, not including, `end`."""

    first: int
    end: int
    ends_work: bool
    """Whether the work, one user message and all its answers, is done with it."""


@dataclass(frozen=True)
class Conversation:
    """The recorded messages, as lines and parsed."""

    name: str
    lines: list[str]
    messages: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Conversation:
        """Read the file; lines keep every byte but the line end."""
        lines = path.read_text(encoding="utf-8").splitlines()
        return cls(path.stem, lines, [json.loads(line) for line in lines])

    def user_messages(self) -> list[int]:
        """Where the work begins."""
        return [at for at, message in enumerate(self.messages) if message["role"] == "user"]

    def turns(self) -> list[Turn]:
        """Cut the messages into turns: one per answer, with the results of its tools.

        What stands before the first answer to a user message, a system prompt included, goes
        with that answer.
        """
        users = set(self.user_messages())
        cuts = [0]
        answered = False
        for at, message in enumerate(self.messages[1:], 1):
            starts = (at in users and at != min(users)) or (
                message["role"] == "assistant" and answered
            )
            if starts:
                cuts.append(at)
                answered = False
            answered = answered or message["role"] == "assistant"
        ends = [*cuts[1:], len(self.messages)]
        last = len(self.messages)
        return [Turn(a, b, b in users or b == last) for a, b in zip(cuts, ends, strict=True)]


def work(conversation: Conversation, store: SessionStore, name: str) -> None:
    """Be a worker: until every message is committed, hold the lease and do turns."""
    while _committed(store) < len(conversation.messages):
        lease = _claim_lease(store, name)
        if lease is None:
            time.sleep(0.02)
            continue
        try:
            claim = store.claim_work(lease.fence, owner_id=name, ttl_ms=TERM_MS)
            if claim is None:  # a dead worker's claim has not run out yet
                store.release_lease(lease.fence)
                time.sleep(0.02)
                continue
            do_work(conversation, store, lease.fence, claim)
            store.release_lease(lease.fence)
        except LashStoreError as error:
            tell("refused", error=type(error).__name__)


def do_work(
    conversation: Conversation, store: SessionStore, fence: SessionFence, claim: WorkClaim
) -> None:
    """Do the turns that are left of one piece of work; killed at any point, another goes on."""
    done = _committed(store)
    for number, turn in enumerate(conversation.turns()):
        if turn.first < done:
            continue
        time.sleep(random.uniform(0.5, 1.5) * THINKING_S)  # noqa: S311 # reason: a stand-in for a model
        with store.begin() as tx:
            tx.renew_lease(fence, ttl_ms=TERM_MS)
            tx.renew_claim(claim, ttl_ms=TERM_MS)
        receipt = store.commit_turn(commit_of(conversation, number, turn, fence, claim))
        tell("turn", number=number, revision=receipt.head_revision)
        if turn.ends_work:
            return


def commit_of(
    conversation: Conversation, number: int, turn: Turn, fence: SessionFence, claim: WorkClaim
) -> TurnCommit:
    """Build the commit of one turn; the same turn has the same hash, whoever builds it."""
    indexes = range(turn.first, turn.end)
    nodes = [_node(conversation, at) for at in indexes]
    tokens = sum(len(conversation.lines[at]) for at in indexes)
    commit = TurnCommit(
        fence=fence,
        graph=Append(nodes, nodes[-1].node_id),
        checkpoint=Checkpoint(turn_state={"turn_index": number, "messages": turn.end}),
        usage=[UsageDelta("replay", "recorded", output_tokens=tokens)],
        completed=[claim] if turn.ends_work else [],
    )
    stamp = TurnStamp(f"turn-{number}", turn_commit_hash(commit))
    return TurnCommit(
        fence=fence,
        stamp=stamp,
        graph=commit.graph,
        checkpoint=commit.checkpoint,
        usage=commit.usage,
        completed=commit.completed,
    )


def _node(conversation: Conversation, at: int) -> Node:
    message = conversation.messages[at]
    parts = [{"id": f"p{at}", "kind": "Text", "content": message["content"], "prune_state": "Full"}]
    body = {"id": f"m{at}", "role": message["role"].capitalize(), "parts": parts}
    fields = {"kind": "event", "event": {"Conversation": body}, "line": conversation.lines[at]}
    return Node(f"m{at}", f"m{at - 1}" if at else None, fields)


def _committed(store: SessionStore) -> int:
    head = store.load_head()
    return 0 if head is None else head.graph_node_count


def _claim_lease(store: SessionStore, name: str) -> SessionLease | None:
    with store.begin() as tx:
        query = statements.current_lease(key=tx.context.session_id)
        row = tx.connection.execute(query).one_or_none()
        lease = tx.claim_lease(owner_id=name, ttl_ms=TERM_MS)
    if isinstance(lease, LeaseHeld):
        return None
    if row is not None and row.lease_token is not None and row.lease_owner_id != name:
        tell("takeover", of=row.lease_owner_id)
    return lease


def tell(event: str, **details: object) -> None:
    """Print one event for the process that started this one."""
    print(json.dumps({"event": event, **details}), flush=True)


def replay(path: Path, root: Path, workers: int, *, kill: bool) -> bool:
    """Enqueue the work, direct the workers, and compare the session with the file."""
    conversation = Conversation.read(path)
    directory = SessionDirectory(root)
    started_s = time.monotonic()
    with directory.create(conversation.name, model="recorded") as store:
        done = _committed(store)
        for at in conversation.user_messages():
            if at >= done:
                store.enqueue_work(NewWork([conversation.lines[at]], source_key=f"user-{at}"))
        counts = _direct(path, root, store, len(conversation.messages), workers, kill=kill)
        problems = list(compare(conversation, store))
    elapsed_s = time.monotonic() - started_s
    print(
        f"{path.name}: {len(conversation.turns())} turns, {counts['kills']} kills, "
        f"{counts['takeover']} takeovers, {counts['refused']} refusals, {elapsed_s:.1f} s"
    )
    for problem in problems:
        print(f"  NOT SO: {problem}")
    return not problems


def _direct(
    path: Path, root: Path, store: SessionStore, messages: int, workers: int, *, kill: bool
) -> Counter[str]:
    events: queue.Queue[dict[str, Any]] = queue.Queue()
    names = iter(range(10**9))
    running: dict[str, subprocess.Popen[str]] = {}
    counts: Counter[str] = Counter()
    deadline_s = time.monotonic() + DEADLINE_S
    next_kill_s = time.monotonic() + 0.2
    try:
        while _committed(store) < messages and time.monotonic() < deadline_s:
            running = {name: process for name, process in running.items() if process.poll() is None}
            while len(running) < workers:
                name = f"worker-{next(names)}"
                running[name] = _start(path, root, name, events)
            if kill and counts["kills"] < MOST_KILLS and time.monotonic() >= next_kill_s:
                holder = store.current_lease()
                if holder is not None and holder.owner_id in running:
                    running[holder.owner_id].kill()
                    counts["kills"] += 1
                    next_kill_s = time.monotonic() + random.uniform(0.02, 0.5)  # noqa: S311 # reason: any moment will do
            time.sleep(0.005)
        for process in running.values():
            process.wait(timeout=10)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    time.sleep(0.05)  # the last lines that the workers said
    while not events.empty():
        counts[events.get()["event"]] += 1
    return counts


def _start(
    path: Path, root: Path, name: str, events: queue.Queue[dict[str, Any]]
) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, str(path), str(root), "--be", name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 # reason: this file
    threading.Thread(target=_listen, args=(process, events), daemon=True).start()
    return process


def _listen(process: subprocess.Popen[str], events: queue.Queue[dict[str, Any]]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            events.put(json.loads(line))


def compare(conversation: Conversation, store: SessionStore) -> Iterator[str]:
    """Yield whatever in the session is not as in the file."""
    graph, path = store.load_graph(), store.load_path()
    stored = [] if graph is None else [node.fields["line"] for node in graph.nodes]
    if stored != conversation.lines:
        yield f"{len(stored)} messages stored, {len(conversation.lines)} recorded, or not the same"
    if path is None or [node.fields["line"] for node in path.nodes] != conversation.lines:
        yield "the active path is not the conversation"
    turns = conversation.turns()
    with store.read() as tx:
        receipts = tx.connection.execute(statements.select_receipts()).all()
    if {row.turn_id for row in receipts} != {f"turn-{number}" for number in range(len(turns))}:
        yield f"{len(receipts)} receipts for {len(turns)} turns"
    head = store.load_head()
    if head is None or head.head_revision != len(turns):
        yield "the head was moved more or less often than there are turns"
    used = sum(each.output_tokens for each in store.load_usage())
    if used != sum(map(len, conversation.lines)):
        yield "usage was counted more or less than once"
    ref = head.checkpoint_ref if head else None
    checkpoint = store.load_checkpoint(ref) if ref else None
    last = {"turn_index": len(turns) - 1, "messages": len(conversation.messages)}
    if checkpoint is None or checkpoint.turn_state != last:
        yield "the checkpoint is not the last turn's"
    if store.work_depth().batches:
        yield "work is left in the queue"
    summary = store.load_summary()
    if summary is None or summary.user_messages != len(conversation.user_messages()):
        yield "the summary counts other user messages"


def main() -> int:
    """Parse the command line; be a worker, or direct some."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--be", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be is None:
        return 0 if replay(options.file, options.root, options.workers, kill=options.kill) else 1
    conversation = Conversation.read(options.file)
    store = SessionDirectory(options.root).open(conversation.name)
    assert store is not None
    with store:
        work(conversation, store, options.be)
    return 0


if __name__ == "__main__":
    sys.exit(main())
