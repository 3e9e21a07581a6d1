"""Real processes on one trigger store: an occurrence is recorded once, a delivery handed out once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from lash_store import ProcessRegistry, TriggerStore
from lash_store.routing import start_deliveries
from tests.support.processes import Says, workers
from tests.support.triggers import occur, subscribe

SUBSCRIPTIONS = 20
OCCURRENCES = 15


def record_and_reserve(say: Says, triggers_path: Path, processes_path: Path) -> None:
    with (
        TriggerStore.open(triggers_path) as triggers,
        ProcessRegistry.open(processes_path) as processes,
    ):
        say("ready")
        say.wait()
        reserved = []
        for at in range(OCCURRENCES):
            occurrence = occur(triggers, at, f"key-{at}")
            deliveries = triggers.reserve_deliveries(occurrence.occurrence_id).deliveries
            start_deliveries(processes, deliveries)
            # Whoever is in doubt starts all of them again.
            start_deliveries(processes, triggers.redeliver(occurrence.occurrence_id).deliveries)
            reserved += [delivery.process_id for delivery in deliveries]
        say(reserved)


def test_t_del_1_eight_reservers_at_once(tmp_path: Path) -> None:
    paths = (tmp_path / "triggers.db", tmp_path / "processes.db")
    with TriggerStore.open(paths[0]) as triggers:
        for _ in range(SUBSCRIPTIONS):
            subscribe(triggers)
        with workers(8, record_and_reserve, *paths) as reservers:
            for reserver in reservers:
                reserver.receive()
            for reserver in reservers:
                reserver.pipe.send("go")
            counted = Counter(name for reserver in reservers for name in reserver.receive())
        assert len(counted) == SUBSCRIPTIONS * OCCURRENCES
        assert set(counted.values()) == {1}
    with ProcessRegistry.open(paths[1]) as processes:
        records = processes.list_processes(limit=10_000)
        assert {record.id for record in records} == set(counted)
