"""What a statement reads on a server, in a database with a long queue and many sessions: by an index, and no more than it needs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from lash_store import (
    Append,
    Deployment,
    NewWork,
    Node,
    ProcessRegistry,
    SessionLease,
    SessionStore,
    TurnCommit,
)
from lash_store._kernel.observing import Event, observed_by
from lash_store.session import statements
from lash_store.tracing import explain
from tests.support.registries import register

Admin = psycopg.Connection[Any]
QUEUED, OTHERS = 20_000, 200


@pytest.fixture
def deployment(url: str, place: str, admin: Admin) -> Iterator[Deployment]:
    """A session with a long queue and a long path, among others; and many processes that run."""
    with Deployment.open(url, schema=place) as deployment:
        store = deployment.sessions.create("s", model="m")
        store.enqueue_work(NewWork(["x"]))
        register(deployment.processes, "p")
        fill(
            admin,
            place,
            "lash_queued_work_batches",
            {"enqueue_seq": "g + 1", "batch_id": "'b' || g"},
        )
        fill(
            admin,
            place,
            "lash_processes",
            {
                "process_id": "'p' || g",
                "created_at_ms": "g",
                "record_json": "jsonb_set(record_json::jsonb, '{id}', to_jsonb('p' || g))::text",
            },
        )
        yield deployment


def fill(admin: Admin, place: str, table: str, drawn: dict[str, str]) -> None:
    """Repeat the one row of a table, in its own session and in many others."""
    names = [
        name
        for (name,) in admin.execute(
            "SELECT column_name FROM information_schema.columns "
            "WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
            (place, table),
        )
    ]
    values = ", ".join(drawn.get(name, name) for name in names)
    many = f"SELECT {values} FROM {place}.{table}, generate_series(1, {QUEUED}) AS g"
    admin.execute(f"INSERT INTO {place}.{table} {many}")
    if "store" in names:
        others = ", ".join("'o' || g" if name == "store" else name for name in names)
        admin.execute(
            f"INSERT INTO {place}.{table} SELECT {others} FROM {place}.{table}, "
            f"generate_series(1, {OTHERS}) AS g WHERE store = 's' AND enqueue_seq <= 100"
        )


class Plans:
    """Notes the plan of each statement that is sent, and how many rows it has read."""

    def __init__(self, admin: Admin, place: str) -> None:
        self._admin, self._place = admin, place
        self.seen: list[str] = []

    def before(self, event: Event) -> None:
        """Note the text."""
        if event.kind == "statement":
            self.seen.append(event.sql)

    def after(self, _: Event) -> None:
        """Nothing."""

    def plans(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each statement with its generic plan, which goes by no values."""
        for sql in dict.fromkeys(self.seen):
            if sql.lstrip().startswith(("SELECT", "UPDATE", "DELETE")):
                cursor = psycopg.RawCursor(self._admin)
                row = cursor.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {sql}").fetchone()
                assert row is not None
                yield sql, row[0][0]["Plan"]


def steps(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every step of a plan."""
    yield plan
    for each in plan.get("Plans", ()):
        yield from steps(each)


@pytest.mark.parametrize("analyzed", [False, True], ids=["no statistics", "statistics"])
def test_no_call_of_a_worker_reads_a_long_table_from_its_begin(
    deployment: Deployment, admin: Admin, place: str, *, analyzed: bool
) -> None:
    if analyzed:
        admin.execute("ANALYZE")
    store = deployment.sessions.open("s")
    assert store is not None
    plans = Plans(admin, place)
    with observed_by(plans):
        work_on(store)
        run_one(deployment.processes)
    found = list(plans.plans())
    assert len(found) > 15
    for sql, plan in found:
        for step in steps(plan):
            table = step.get("Relation Name", "")
            is_long = table in ("lash_queued_work_batches", "lash_processes")
            assert not (is_long and step["Node Type"] == "Seq Scan"), (
                f"{sql}\n{json.dumps(plan, indent=1)}"
            )


def work_on(store: SessionStore) -> None:
    lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
    assert isinstance(lease, SessionLease)
    store.renew_lease(lease.fence, ttl_ms=60_000)
    store.enqueue_work(NewWork(["y"], source_key="k"))
    store.enqueue_work(NewWork(["y"], source_key="k"))
    claim = store.claim_work(lease.fence, owner_id="ann", ttl_ms=60_000)
    assert claim is not None
    store.renew_claim(claim, ttl_ms=60_000)
    store.abandon_claim(claim)
    claim = store.claim_work(lease.fence, owner_id="ann", ttl_ms=60_000)
    assert claim is not None
    store.commit_turn(
        TurnCommit(
            fence=lease.fence, graph=Append([Node("n", None, {})], leaf="n"), completed=[claim]
        )
    )
    store.load_path()
    store.release_lease(lease.fence)


def run_one(registry: ProcessRegistry) -> None:
    term = registry.claim_next(owner_id="ann", ttl_ms=60_000)
    assert term is not None
    registry.append_event(term.lease.fence.process_id, "tick", 1)
    registry.release_lease(term.lease.fence)


def test_the_first_of_a_long_queue_is_found_in_the_queues_order(
    deployment: Deployment, admin: Admin
) -> None:
    """No sort stands above the index on what nobody has claimed."""
    admin.execute("ANALYZE")
    store = deployment.sessions.open("s")
    assert store is not None
    with store.read() as tx:
        lines = explain(tx, statements.claimable_work(session_id="s", now_ms=0, max_batches=1))
    text = "\n".join(lines)
    assert "idx_queued_work_unclaimed" in text, text
    assert "Seq Scan" not in text, text
