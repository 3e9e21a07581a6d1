"""The indexes that a file may have and a shared database has: what they are for, and that they are known."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Index
from typer.testing import CliRunner

from lash_store import ProcessRegistry, Success, TriggerStore, TriggerTx
from lash_store._backends.postgresql.indexes import indexes_of
from lash_store._kernel.sharing import shared
from lash_store.cli.app import app
from lash_store.errors import CorruptRecordError, SchemaDriftError
from lash_store.process.tables import CLAIM_ORDER, SCHEMA, WAKE_EVENTS, processes
from lash_store.testing import ManualClock
from lash_store.trigger.tables import DELIVERIES_OF_SUBSCRIPTION
from tests.conformance.test_transactions import traced
from tests.support.databases import run_script
from tests.support.registries import register, registration
from tests.support.triggers import occur, subscribe

pytestmark = pytest.mark.canonical("opens both layouts by itself")

OPTIONAL = [CLAIM_ORDER, WAKE_EVENTS]
FEW, MANY = 10, 2_000


def with_optional(path: Path, layout: str, clock: ManualClock | None = None) -> ProcessRegistry:
    if layout == "shared":
        return ProcessRegistry.open(f"sqlite:///{path}", clock=clock or ManualClock())
    return ProcessRegistry.open(path, extras=OPTIONAL, clock=clock or ManualClock())


def index_names(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql <> ''"
        )
        return sorted(name.removeprefix("lash_") for (name,) in rows)


def steps_of(store: ProcessRegistry | TriggerStore, call: Callable[[Any], object]) -> int:
    """How many instructions of SQLite's a call takes, and then undo it."""
    counted = 0

    def tick() -> None:
        nonlocal counted
        counted += 1

    class UndoneError(Exception):
        pass

    with pytest.raises(UndoneError), store.begin() as tx:
        tx.cursor.connection.set_progress_handler(tick, 1)
        try:
            call(tx)
        finally:
            tx.cursor.connection.set_progress_handler(None, 0)
        raise UndoneError
    return counted


@pytest.mark.parametrize("layout", ["file", "shared"])
@pytest.mark.parametrize("analysed", [False, True])
def test_p_lease_3_claiming_the_next_does_not_depend_on_how_many_wait(
    path: Path, layout: str, *, analysed: bool
) -> None:
    with with_optional(path, layout) as registry:
        taken = {}
        for count in (FEW, MANY):
            with registry.begin() as tx:
                for at in range(count):
                    tx.register_process(registration(f"p{count}-{at}"))
            if analysed:
                run_script(path, "ANALYZE")
            taken[count] = steps_of(registry, lambda tx: tx.claim_next(owner_id="w", ttl_ms=1))
    assert taken[MANY] <= taken[FEW] * 1.1


@pytest.mark.parametrize("layout", ["file", "shared"])
@pytest.mark.parametrize("analysed", [False, True])
def test_p_event_8_wakes_are_found_in_a_log_without_any(
    path: Path, layout: str, *, analysed: bool
) -> None:
    taken: dict[str, list[int]] = {"of one": [], "of all": []}
    for count in (FEW, MANY):
        where = path.with_name(f"{count}.db")
        with with_optional(where, layout) as registry:
            register(registry)
            with registry.begin() as tx:
                for at in range(count):
                    tx.append_event("p", "tick", at)
            if analysed:
                run_script(where, "ANALYZE")
            taken["of one"].append(steps_of(registry, lambda tx: tx.wake_events_after("p")))
            taken["of all"].append(steps_of(registry, lambda tx: tx.pending_wakes()))
            registry.append_event("p", "wake", "x")
            assert len(registry.wake_events_after("p")) == 1
            assert len(registry.pending_wakes()) == 1
            registry.ack_wake("p", count + 1)
            assert registry.wake_events_after("p") == []
            assert registry.pending_wakes() == []
    for few, many in taken.values():
        assert many <= few * 1.1


@pytest.mark.parametrize("layout", ["file", "shared"])
@pytest.mark.parametrize("analysed", [False, True])
def test_t_sub_4_deleting_does_not_depend_on_the_deliveries_of_others(
    path: Path, layout: str, *, analysed: bool
) -> None:
    shared_url = f"sqlite:///{path}"
    where, extras = (path, [DELIVERIES_OF_SUBSCRIPTION]) if layout == "file" else (shared_url, [])
    taken = {}
    with TriggerStore.open(where, extras=extras) as store:
        for count in (FEW, MANY):
            with store.begin() as tx:
                mine = subscribe(tx, source_key=f"{count} mine")
                subscribe(tx, source_key=f"{count} others")
                keys = [*(f"{count} others" for _ in range(count)), f"{count} mine"]
                for at, key in enumerate(keys):
                    occurred = occur(tx, at, f"{count}-{at}", key)
                    assert len(tx.reserve_deliveries(occurred.occurrence_id).deliveries) == 1
            if analysed:
                run_script(path, "ANALYZE")
            delete = partial(TriggerTx.delete_subscription, session_id="one", handle=mine.handle)
            taken[count] = steps_of(store, delete)
    assert taken[MANY] <= taken[FEW] * 1.1


@pytest.mark.parametrize("layout", ["file", "shared"])
def test_an_event_that_cannot_be_read_is_reported_by_the_index_too(path: Path, layout: str) -> None:
    prefix = "lash_" if layout == "shared" else ""
    with with_optional(path, layout) as registry:
        register(registry)
        registry.append_event("p", "tick", 1)
        run_script(path, f"UPDATE {prefix}process_events SET event_json = '{{'")
        with pytest.raises(CorruptRecordError):
            registry.wake_events_after("p")
        with pytest.raises(CorruptRecordError):
            registry.pending_wakes()


def test_k_share_9_a_file_that_has_them_may_be_opened_without_naming_them(path: Path) -> None:
    ProcessRegistry.open(path).close()
    assert "idx_processes_claim_order" not in index_names(path)
    ProcessRegistry.open(path, extras=OPTIONAL).close()
    names = index_names(path)
    assert {"idx_processes_claim_order", "idx_process_events_wakes"} < set(names)
    assert "idx_processes_status" in names
    ProcessRegistry.open(path).close()
    ProcessRegistry.open(path, extras=[WAKE_EVENTS]).close()
    checked = CliRunner().invoke(app, ["check", str(path)])
    assert checked.exit_code == 0, checked.output
    assert "not declared" not in checked.output
    run_script(path, "DROP INDEX idx_processes_claim_order")
    ProcessRegistry.open(path).close()
    assert "idx_processes_claim_order" not in index_names(path)
    # By that name another index is drift, as any other would be.
    run_script(path, "CREATE INDEX idx_processes_claim_order ON processes (status, process_id)")
    with pytest.raises(SchemaDriftError, match="idx_processes_claim_order"):
        ProcessRegistry.open(path)
    with pytest.raises(SchemaDriftError, match="idx_processes_claim_order"):
        ProcessRegistry.open(path, extras=OPTIONAL)


def test_k_share_9_a_shared_database_has_them_by_itself(path: Path) -> None:
    url = f"sqlite:///{path}"
    ProcessRegistry.open(url).close()
    names = index_names(path)
    assert {"idx_processes_claim_order", "idx_process_events_wakes"} < set(names)
    assert "idx_processes_status" not in names
    own = Index("ix_hash", processes.c.registration_hash)
    ProcessRegistry.open(url, extras=[*OPTIONAL, own]).close()
    assert sorted([*names, "ix_hash"]) == index_names(path)
    on_server = [
        index.name for table in shared(SCHEMA, "lash_").tables for index in indexes_of(table)
    ]
    assert "lash_idx_processes_claim_order" in on_server
    assert "lash_idx_process_events_wakes" not in on_server


def test_p_lease_3_the_oldest_is_claimed_with_and_without(tmp_path: Path) -> None:
    found = []
    for extras in ([], OPTIONAL):
        clock = ManualClock()
        where = tmp_path / f"{len(extras)}.db"
        with ProcessRegistry.open(where, extras=extras, clock=clock) as registry:
            for at, name in enumerate("dbac"):
                register(registry, name)
                clock.advance(at % 2)
            claims: list[Any] = []
            for _ in range(6):
                claims.append(registry.claim_next(owner_id="w", ttl_ms=3))
                clock.advance(1)
                if len(claims) == 2:
                    fence = claims[0].lease.fence
                    registry.complete_process(claims[0].lease.key, Success(1), fence=fence)
            found.append([claim and claim.lease.key for claim in claims])
    assert found[0] == found[1]
    assert found[0][:4] == ["b", "d", "a", "c"]


def test_statement_counts_of_a_registered_job(path: Path) -> None:
    """What a worker does for each: a look, a claim; the log, the record, the lease."""
    with ProcessRegistry.open(path, extras=OPTIONAL) as registry:
        register(registry)
        taken: list[Any] = []
        claim = traced(
            registry, lambda: taken.append(registry.claim_next(owner_id="w", ttl_ms=9_000))
        )
        assert claim == ["BEGIN IMMEDIATE", "SELECT", "INSERT", "COMMIT"]
        fence = taken[0].lease.fence
        complete = traced(registry, lambda: registry.complete_process("p", Success(1), fence=fence))
        assert complete == [
            "BEGIN IMMEDIATE", "SELECT", "SELECT", "UPDATE", "INSERT", "UPDATE", "COMMIT"
        ]  # fmt: skip
        assert registry.current_lease("p") is None
