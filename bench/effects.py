"""Effects against hand-written sqlite3, what a run costs, and a reservation at many subscriptions.

python -m bench.effects [--json FILE] [--rounds N]
"""

from __future__ import annotations

import secrets
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import hand_written
from bench.report import arguments, interleaved, publish
from lash_store import EffectClaim, EffectStore, Host, TriggerDraft, TriggerStore
from lash_store._kernel.codecs import decode_json, encode_json, free_json, stable_hash
from lash_store.effect.tables import SCHEMA
from lash_store.process.records import EngineCall, PayloadSchema, ProcessIdentity
from lash_store.schemas import canonical_statements
from lash_store.trigger.records import FromEvent

_TTL_MS = 30_000
_SUBSCRIPTIONS = 10_000
_ENVELOPE = {"model": "m", "prompt": "some words that ask for something", "heat": 0.5}
_OUTCOME = {"answer": "some words that answer it", "tokens": 7}

_BEGIN = """
INSERT INTO runtime_effect_replay VALUES (?, ?, ?, 'in_progress', NULL, NULL, ?, ?, ?, NULL, ?, ?)
ON CONFLICT (scope_id, replay_key) DO UPDATE SET lease_owner_id = excluded.lease_owner_id,
  lease_token = excluded.lease_token, lease_expires_at_ms = excluded.lease_expires_at_ms,
  updated_at_ms = excluded.updated_at_ms
WHERE envelope_hash = ? AND status = 'in_progress'
  AND (lease_token IS NULL OR lease_expires_at_ms <= ?)
RETURNING due_at_ms"""

_FINISH = """
UPDATE runtime_effect_replay SET status = 'completed', outcome_json = ?, error_json = NULL,
  lease_owner_id = NULL, lease_token = NULL, lease_expires_at_ms = 0, updated_at_ms = ?
WHERE scope_id = ? AND replay_key = ? AND envelope_hash = ? AND lease_owner_id = ?
  AND lease_token = ? AND status = 'in_progress' AND lease_expires_at_ms > ?"""


def main() -> None:
    """Measure every case."""
    options = arguments(__doc__, rounds=3_000)
    with tempfile.TemporaryDirectory() as folder:
        figures = [
            *attempts(Path(folder), options.rounds),
            reservation(Path(folder)),
        ]
    publish(figures, options.json)


def attempts(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Begin and finish a step, by hand and by the store; then what a whole run and a replay cost."""
    raw = hand_written.connect(folder / "raw.db")
    for statement in canonical_statements(SCHEMA):
        raw.execute(statement)
    numbers = iter(range(10**9))
    with EffectStore.open(folder / "effects.db") as effects:

        def by_hand() -> Callable[[], object]:
            key = f"k{next(numbers)}"
            return lambda: finish_by_hand(*begin_by_hand(raw, "s", key, _ENVELOPE), _OUTCOME)

        def by_store() -> Callable[[], object]:
            key = f"k{next(numbers)}"

            def call() -> None:
                begun = effects.begin_effect("s", key, _ENVELOPE)
                assert isinstance(begun, EffectClaim)
                effects.finish_effect(begun, _OUTCOME)

            return call

        def by_run() -> Callable[[], object]:
            key = f"k{next(numbers)}"
            return lambda: effects.run("s", key, _ENVELOPE, lambda: _OUTCOME)

        raw_us, store_us, run_us = interleaved([by_hand, by_store, by_run], rounds=rounds)
        effects.run("s", "replayed", _ENVELOPE, lambda: _OUTCOME)
        replay_us = _median(
            lambda: effects.run("s", "replayed", _ENVELOPE, lambda: _OUTCOME), rounds
        )
    raw.close()
    return [
        {
            "case": "begin_effect + finish_effect",
            "raw_us": round(raw_us, 1),
            "store_us": round(store_us, 1),
            "ratio": round(store_us / raw_us, 3),
        },
        {
            "case": "run of a function that does nothing",
            "median_us": round(run_us, 1),
            "by_begin_and_finish": round(run_us / store_us, 3),
        },
        {"case": "run that replays", "median_us": replay_us},
    ]


def begin_by_hand(
    connection: sqlite3.Connection, scope_id: str, key: str, envelope: Any
) -> tuple[sqlite3.Connection, tuple[str, ...]]:
    """Claim a step as one would write it by hand."""
    digest, token = stable_hash(free_json("envelope", envelope)), secrets.token_hex(16)
    connection.execute("BEGIN IMMEDIATE")
    try:
        now = time.time_ns() // 1_000_000
        values = (scope_id, key, digest, "owner", token, now + _TTL_MS, now, now, digest, now)
        assert len(connection.execute(_BEGIN, values).fetchall()) == 1
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return connection, (scope_id, key, digest, "owner", token)


def finish_by_hand(
    connection: sqlite3.Connection,
    claim: tuple[str, ...],
    outcome: Any,
) -> Any:
    """Record an outcome as one would write it by hand, and read it back as it will be replayed."""
    outcome_json = encode_json(free_json("outcome", outcome))
    connection.execute("BEGIN IMMEDIATE")
    try:
        now = time.time_ns() // 1_000_000
        assert connection.execute(_FINISH, (outcome_json, now, *claim, now)).rowcount == 1
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return decode_json("effects", "key", outcome_json)


def reservation(folder: Path) -> dict[str, Any]:
    """Reserve every delivery of an occurrence that many subscriptions match, in one call."""
    draft = TriggerDraft(
        Host(),
        "env",
        "cron",
        "daily",
        EngineCall("engine", {}),
        ProcessIdentity("engine"),
        payload_schema=PayloadSchema({"type": "object"}),
        input_template={"event": FromEvent()},
    )
    with TriggerStore.open(folder / "triggers.db") as triggers:
        with triggers.begin() as tx:
            for _ in range(_SUBSCRIPTIONS):
                tx.register_subscription(draft)
        occurrence = triggers.record_occurrence("cron", "daily", {}, idempotency_key="once")
        started = time.perf_counter()
        reserved = triggers.reserve_deliveries(occurrence.occurrence_id)
        elapsed_s = time.perf_counter() - started
        assert len(reserved.deliveries) == _SUBSCRIPTIONS
    return {"case": f"reserve at {_SUBSCRIPTIONS} subscriptions", "ms": round(elapsed_s * 1000, 1)}


def _median(call: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - started)
    return round(statistics.median(times) / 1000, 1)


if __name__ == "__main__":
    main()
