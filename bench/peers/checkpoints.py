"""A checkpoint of 4 KiB that may be sent again: a turn with a receipt, and LangGraph's own saver."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite import SqliteSaver

from bench.peers.queues import LONG_MS, Synchronous
from bench.peers.rounds import each_us, in_turn
from lash_store import Checkpoint, SessionLease, SessionStore, TurnCommit, TurnStamp

_TIMES: Final = {"NORMAL": 50, "FULL": 15}
_SIZE: Final = 4_096


def measure(rounds: int) -> list[dict[str, Any]]:
    """Measure microseconds for each checkpoint, and what each takes on disk."""
    figures: list[dict[str, Any]] = []
    synchronous: Synchronous
    for synchronous in ("NORMAL", "FULL"):
        with tempfile.TemporaryDirectory() as folder:
            calls = {
                "lash_store, commit_turn with a receipt": _commit(Path(folder), synchronous),
                "LangGraph's SqliteSaver, put and put_writes": _put(Path(folder), synchronous),
            }
            contestants = {
                name: partial(each_us, call, _TIMES[synchronous]) for name, call in calls.items()
            }
            figures += [
                {
                    "case": "a checkpoint of 4 KiB",
                    "contestant": name,
                    "synchronous": synchronous,
                    "unit": "us",
                    **found,
                }
                for name, found in in_turn(contestants, rounds).items()
            ]
    return figures


def _state() -> str:
    """Some text that no compression makes short."""
    return token_hex(_SIZE // 2)


def _commit(folder: Path, synchronous: Synchronous) -> Callable[[], object]:
    store = SessionStore.open(folder / "turns.db", session_id="s", synchronous=synchronous)
    lease = store.claim_lease(owner_id="worker", ttl_ms=LONG_MS)
    assert isinstance(lease, SessionLease)
    numbers = count()

    def commit() -> None:
        number = next(numbers)
        store.commit_turn(
            TurnCommit(
                fence=lease.fence,
                stamp=TurnStamp(f"turn-{number}", f"hash-{number}"),
                checkpoint=Checkpoint({"turn_index": number, "text": _state()}),
            )
        )

    return commit


def _put(folder: Path, synchronous: Synchronous) -> Callable[[], object]:
    connection = sqlite3.connect(folder / "saver.db", check_same_thread=False)
    saver = SqliteSaver(connection)
    saver.setup()
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}

    def put() -> None:
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"text": _state()}
        given = saver.put(config, checkpoint, {"source": "loop", "step": 1, "parents": {}}, {})
        saver.put_writes(given, [("text", "x")], "task")

    return put
