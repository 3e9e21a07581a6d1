"""The process registry: appends against hand-written sqlite3, growth, waiting, a large deletion.

python -m bench.registry [--json FILE] [--rounds N]
"""

from __future__ import annotations

import json
import resource
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from bench import hand_written
from bench.report import Prepare, arguments, interleaved, publish
from lash_store import External, Host, ProcessRegistration, ProcessRegistry, Provenance, Scope
from lash_store._kernel.codecs import encode_json, encode_raw, free_json, stable_hash
from lash_store.process.records import EventIdentity, EventType, Payload, Semantics, WakeRule
from lash_store.process.tables import SCHEMA
from lash_store.schemas import canonical_statements

_WAITERS = 100
_IDLE_S = 10.0
_PROCESSES = 100_000
_OWN = 10

_PAYLOAD = {"step": 7, "text": "some words about what happened", "done": False}


def main() -> None:
    """Measure every case."""
    options = arguments(__doc__, rounds=3_000)
    with tempfile.TemporaryDirectory() as folder:
        figures = [
            *appends(Path(folder), options.rounds),
            *growth(Path(folder), options.rounds // 10),
            waiting(Path(folder)),
            deletion(Path(folder)),
        ]
    publish(figures, options.json)


def appends(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Append, without and with a replay key, against the same statements and encoding by hand."""
    raw = hand_written.connect(folder / "raw.db")
    for statement in canonical_statements(SCHEMA):
        raw.execute(statement)
    figures = []
    with ProcessRegistry.open(folder / "appends.db") as registry:
        _register(registry, "p")
        _copy(registry, raw)
        for name, keyed in (("append_event", False), ("append_event, replay key", True)):
            keys = iter(range(10**9))

            def key(keys: Any = keys if keyed else None) -> str | None:
                return None if keys is None else f"key-{next(keys)}"

            def by_hand(key: Callable[[], str | None] = key) -> Callable[[], object]:
                fresh = key()
                return lambda: append_by_hand(raw, "p", "tick", _PAYLOAD, fresh)

            def by_store(key: Callable[[], str | None] = key) -> Callable[[], object]:
                fresh = key()
                return lambda: registry.append_event("p", "tick", _PAYLOAD, replay_key=fresh)

            contestants: list[Prepare] = [by_hand, by_store]
            raw_us, store_us = interleaved(contestants, rounds=rounds)
            figures.append(
                {
                    "case": name,
                    "raw_us": round(raw_us, 1),
                    "store_us": round(store_us, 1),
                    "ratio": round(store_us / raw_us, 3),
                }
            )
    raw.close()
    return figures


def append_by_hand(
    connection: sqlite3.Connection, process_id: str, event_type: str, payload: Any, key: str | None
) -> dict[str, Any]:
    """Append an event as one would write it by hand: the same statements, the same encoding."""
    payload_json = encode_raw(free_json("payload", payload))
    digest = stable_hash([event_type, payload_json])
    connection.execute("BEGIN IMMEDIATE")
    try:
        now_ms = time.time_ns() // 1_000_000
        status, record_json, highest = connection.execute(
            _STANDING, (process_id, process_id)
        ).fetchone()
        record = _MEMBERS.decode(record_json)
        known = None
        if key is not None:
            known = connection.execute(_REPLAY, (process_id, key)).fetchone()
        assert known is None
        assert event_type.encode() in bytes(record["event_types"])
        sequence = highest + 1
        invocation: dict[str, Any] = {
            "scope": {"session_id": "runtime"},
            "subject": {
                "type": "process_event",
                "process_id": process_id,
                "sequence": sequence,
                "event_type": event_type,
            },
            "caused_by": {"type": "process", "process_id": process_id},
        }
        if key is not None:
            invocation["replay"] = {"key": key}
        event = {
            "process_id": process_id,
            "sequence": sequence,
            "event_type": event_type,
            "payload": payload_json,
            "invocation": invocation,
            "semantics": {},
            "occurred_at": {
                "secs_since_epoch": now_ms // 1000,
                "nanos_since_epoch": now_ms % 1000 * 1_000_000,
            },
        }
        event_json = encode_json(event)
        values = (process_id, sequence, event_type, digest, key, now_ms, event_json)
        connection.execute("INSERT INTO process_events VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        record_json = encode_json({**record, "updated_at_ms": now_ms})
        connection.execute(_UPDATE, (status, now_ms, record_json, process_id))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return event


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STANDING = """SELECT status, record_json,
  (SELECT coalesce(max(sequence), 0) FROM process_events WHERE process_id = ?)
  FROM processes WHERE process_id = ?"""
_REPLAY = """SELECT sequence, payload_hash, event_json FROM process_events
  WHERE process_id = ? AND idempotency_key = ?"""
_UPDATE = "UPDATE processes SET status = ?, updated_at_ms = ?, record_json = ? WHERE process_id = ?"


def growth(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Append, and read the wakes, behind logs of 100 and of 100,000 events, each tenth a wake."""
    figures = []
    for count in (100, 100_000):
        path = folder / f"growth-{count}.db"
        with ProcessRegistry.open(path) as registry:
            _register(registry, "p")
            with registry.begin() as tx:
                for at in range(count):
                    tx.append_event("p", "tick" if at % 10 else "wake", _PAYLOAD)
            cases: dict[str, Callable[[], object]] = {
                "append_event": lambda r=registry: r.append_event("p", "tick", _PAYLOAD),  # type: ignore[misc] # reason: bound per turn
                "wake_events_after, the newest 100": lambda r=registry, c=count: (
                    r.wake_events_after("p", c - 100, limit=10)
                ),  # type: ignore[misc] # reason: the same
                "wake_events_after, the first 10": lambda r=registry: r.wake_events_after(
                    "p", limit=10
                ),  # type: ignore[misc] # reason: the same
                "pending_wakes, the first 10": lambda r=registry: r.pending_wakes(limit=10),  # type: ignore[misc] # reason: the same
                "wake_events_after, no wake in the log": lambda r=registry: r.wake_events_after(
                    "q"
                ),  # type: ignore[misc] # reason: the same
            }
            _register(registry, "q")
            with registry.begin() as tx:
                for _ in range(count):
                    tx.append_event("q", "tick", _PAYLOAD)
            for name, call in cases.items():
                few = 5 if name.endswith("in the log") else rounds
                figures.append({"case": f"{name}, {count} events", "median_us": _median(call, few)})
    return figures


def waiting(folder: Path) -> dict[str, Any]:
    """CPU time of a process in which a hundred threads wait and nothing happens."""
    with ProcessRegistry.open(folder / "waiting.db") as registry:
        _register(registry, "p")
        idle_ms = round(_IDLE_S * 1000) + 2_000
        threads = [
            threading.Thread(target=lambda: registry.await_process("p", timeout_ms=idle_ms))
            for _ in range(_WAITERS)
        ]
        for thread in threads:
            thread.start()
        time.sleep(1)
        before = _cpu_s()
        time.sleep(_IDLE_S)
        used_s = _cpu_s() - before
        for thread in threads:
            thread.join()
    return {
        "case": f"{_WAITERS} waiters, idle for {_IDLE_S:.0f} s",
        "cpu_ms": round(used_s * 1000, 1),
        "share_of_one_core_percent": round(used_s / _IDLE_S * 100, 2),
    }


def deletion(folder: Path) -> dict[str, Any]:
    """Delete a session's state in a large registry, of which ten processes are its own."""
    with ProcessRegistry.open(folder / "deletion.db") as registry:
        _register(registry, "p")
        with registry.begin() as tx:
            (record,) = tx.list_processes()
            text = tx.connection.exec_driver_sql("SELECT record_json FROM processes").scalar_one()
            rows = []
            for at in range(_PROCESSES):
                target = "mine" if at % (_PROCESSES // _OWN) == 0 else f"session-{at}"
                members = {
                    **json.loads(text),
                    "id": f"p{at}",
                    "wake_target": {"session_id": target},
                }
                rows.append(
                    (
                        f"p{at}",
                        record.registration_hash,
                        "host",
                        0,
                        0,
                        "running",
                        json.dumps(members),
                    )
                )
            tx.connection.exec_driver_sql(
                "INSERT INTO processes VALUES (?, ?, ?, ?, ?, ?, ?)", rows
            )
        for at in range(0, _PROCESSES, _PROCESSES // _OWN):
            registry.grant_handle(Scope("mine"), f"p{at}")
        started = time.perf_counter()
        report = registry.delete_session("mine")
        elapsed_s = time.perf_counter() - started
        assert len(report.orphaned_process_ids) == report.revoked_handle_count == _OWN
    return {
        "case": f"delete_session among {_PROCESSES} processes, {_OWN} its own",
        "ms": round(elapsed_s * 1000, 1),
    }


def _register(registry: ProcessRegistry, process_id: str) -> None:
    wake = EventType("wake", semantics=Semantics(wake=WakeRule(Payload(), EventIdentity())))
    registry.register_process(
        ProcessRegistration(
            process_id,
            External({"title": "a job"}),
            Provenance(Host()),
            event_types=[EventType("tick"), wake],
            wake_target=Scope("chat-42"),
        )
    )


def _copy(registry: ProcessRegistry, raw: sqlite3.Connection) -> None:
    """Give the contestant the same process."""
    with registry.read() as tx:
        rows = tx.connection.exec_driver_sql("SELECT * FROM processes").all()
    raw.executemany(
        "INSERT INTO processes VALUES (?, ?, ?, ?, ?, ?, ?)", [tuple(row) for row in rows]
    )


def _median(call: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - started)
    return round(statistics.median(times) / 1000, 1)


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
