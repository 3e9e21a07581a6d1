"""Stores with many rows: a few that the library has written, copied by SQL under names of their own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from bench import hand_written
from lash_store import (
    Append,
    EffectStore,
    External,
    Host,
    NewWork,
    Node,
    ProcessRegistration,
    ProcessRegistry,
    Provenance,
    Scope,
    SessionFence,
    SessionLease,
    SessionStore,
    TriggerDraft,
    TriggerStore,
    TurnCommit,
    TurnStamp,
)
from lash_store.process.records import BySession, EngineCall, EventType, ProcessIdentity
from lash_store.process.tables import CLAIM_ORDER, WAKE_EVENTS
from lash_store.schemas import SCHEMAS, Kind, mend_file
from lash_store.session.records import UsageDelta
from lash_store.testing import SequentialIds
from lash_store.trigger.records import FromEvent
from lash_store.trigger.tables import DELIVERIES_OF_SUBSCRIPTION

NAME: Final = "growing"
"""What every name that is copied holds once."""

LONG_MS: Final = 10**9
EXTRAS: Final = {
    "process": [CLAIM_ORDER, WAKE_EVENTS],
    "trigger": [DELIVERIES_OF_SUBSCRIPTION],
}


def open_session(path: Path, **options: Any) -> SessionStore:
    """Open the session."""
    return SessionStore.open(path, session_id="s", **options)


def open_processes(path: Path, **options: Any) -> ProcessRegistry:
    """Open the registry, with the indexes that a file may have."""
    return ProcessRegistry.open(path, extras=EXTRAS["process"], **options)


def open_triggers(path: Path, **options: Any) -> TriggerStore:
    """Open the triggers, with the index that a file may have."""
    return TriggerStore.open(path, extras=EXTRAS["trigger"], **options)


def open_effects(path: Path, **options: Any) -> EffectStore:
    """Open the steps."""
    return EffectStore.open(path, owner_id="worker", **options)


def fence_of(store: SessionStore) -> SessionFence:
    """Claim the session's lease, or re-enter it."""
    lease = store.claim_lease(owner_id="worker", ttl_ms=LONG_MS)
    assert isinstance(lease, SessionLease)
    return lease.fence


def registration(process_id: str) -> ProcessRegistration:
    """A process that waits to be claimed."""
    types = [EventType("tick")]
    return ProcessRegistration(process_id, External({}), Provenance(Host()), event_types=types)


def draft(source_key: str) -> TriggerDraft:
    """A subscription to one source."""
    return TriggerDraft(
        registrant=BySession(Scope(NAME)),
        env_ref="env",
        source_type="cron",
        source_key=source_key,
        target=EngineCall("engine", {"code": "x"}),
        target_identity=ProcessIdentity("engine", definition="def"),
        input_template={"event": FromEvent()},
    )


def _write_session(store: SessionStore) -> None:
    store.enqueue_work(NewWork(["a job"], slot_policy="join"))
    store.put_blob(NAME.encode())
    store.record_attachment_intent(NAME, canonical_uri="file:x")
    store.commit_turn(
        TurnCommit(
            fence=fence_of(store),
            stamp=TurnStamp(NAME, "hash"),
            graph=Append([Node(NAME, None, {"kind": "note"})], NAME),
            usage=[UsageDelta("chat", "m", 1)],
        )
    )


def _write_processes(registry: ProcessRegistry) -> None:
    registry.register_process(registration(NAME))
    registry.append_event(NAME, "tick", 1)


def _write_triggers(triggers: TriggerStore) -> None:
    triggers.register_subscription(draft(NAME))
    occurrence = triggers.record_occurrence("cron", NAME, 1, idempotency_key=NAME)
    triggers.reserve_deliveries(occurrence.occurrence_id)


def _write_effects(effects: EffectStore) -> None:
    effects.run("others", NAME, {}, lambda: 1)


Open = Callable[..., Any]
KINDS: Final[Mapping[Kind, tuple[Open, Callable[[Any], None]]]] = {
    "session": (open_session, _write_session),
    "process": (open_processes, _write_processes),
    "trigger": (open_triggers, _write_triggers),
    "effect": (open_effects, _write_effects),
}

_ONCE: Final = {"session_head", "session_execution_leases", "trigger_subscription_seq"}
"""Tables that have one row, or one for each lease that was ever taken."""


def fill(kind: Kind, path: Path, count: int) -> None:
    """Make a store of `count` rows in every table that a worker's steps add to."""
    open_store, write = KINDS[kind]
    with open_store(path, ids=SequentialIds(NAME)) as store:
        write(store)
    connection = hand_written.connect(path)
    connection.execute("PRAGMA foreign_keys = OFF")
    tables = [table for table in SCHEMAS[kind].tables if table.name not in _ONCE]
    names = {NAME}.union(*(_names_in(connection, table) for table in tables))
    for table in tables:
        connection.execute(_copies(table, sorted(names)), {"count": count})
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    if kind == "session":
        mend_file(path)  # the head counts the nodes


def _names_in(connection: sqlite3.Connection, table: Any) -> set[str]:
    """Return what the row of a table is called by."""
    columns = list(table.primary_key)
    if len(columns) > 1:
        return set()
    rows = connection.execute(f"SELECT {columns[0].name} FROM {table.name}").fetchall()
    return {name for (name,) in rows if isinstance(name, str)}


def _copies(table: Any, names: list[str]) -> str:
    """Return the statement that copies a table's row under so many other names, wherever they stand."""
    columns = [column.name for column in table.c if column is not table.autoincrement_column]
    values = []
    for column in columns:
        renamed = column
        for name in names:
            renamed = f"replace({renamed}, '{name}', '{name}.' || n)"
        values.append(f"CASE typeof({column}) WHEN 'text' THEN {renamed} ELSE {column} END")
    return (
        "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :count) "
        f"INSERT INTO {table.name} ({', '.join(columns)}) "
        f"SELECT {', '.join(values)} FROM number, (SELECT * FROM {table.name} LIMIT 1)"
    )
