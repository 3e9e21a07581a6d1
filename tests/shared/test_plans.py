"""Plans of a shared database: each scope is a range of an index, with statistics and without.

The database holds many sessions. A statement about one of them reads that one's rows by an index
that begins with ``store``; and where a canonical file has rows in the order of its rowid, the
explicit number behind an index has them in order here.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Select

from lash_store._kernel.prepared import PreparedRows
from lash_store._kernel.sharing import SCOPE, shared
from lash_store.schemas import SCHEMAS, canonical_statements
from lash_store.session import places
from tests.statements.catalogue import CONDITIONS, EXAMPLES
from tests.support.dialects import SHARED

SESSION = SCHEMAS["session"]
SESSIONS = 60
BATCHES = 40

ROWS = """
INSERT INTO lash_queued_work_batches WITH RECURSIVE
  s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {sessions}),
  b(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM b WHERE n < {batches})
SELECT 's' || s.n, b.n, 'b' || b.n, 's' || s.n, NULL, 'p', 'join', '1', 0, 1,
  CASE b.n WHEN 1 THEN 'qwc:1:1' END, NULL, CASE b.n WHEN 1 THEN 't' END, 0, 0, 0 FROM s, b;
INSERT INTO lash_queued_work_items
SELECT store, batch_id, 0, 'i', '1' FROM lash_queued_work_batches;
INSERT INTO lash_graph_nodes
SELECT store, enqueue_seq, batch_id, '{{}}', 0 FROM lash_queued_work_batches;
INSERT INTO lash_usage_deltas
SELECT store, enqueue_seq, 'a', 'm', 1, 1, 1, 1 FROM lash_queued_work_batches;
INSERT INTO lash_blobs SELECT store, batch_id, x'00' FROM lash_queued_work_batches;
INSERT INTO lash_artifact_refs SELECT store, batch_id, batch_id FROM lash_queued_work_batches;
INSERT INTO lash_attachment_manifest
SELECT store, batch_id, store, 'u', 1, CASE WHEN enqueue_seq % 2 THEN 5 END FROM lash_queued_work_batches;
INSERT INTO lash_runtime_turn_commits
SELECT store, store, batch_id, 'h', '{{}}', 1 FROM lash_queued_work_batches;
INSERT INTO lash_session_head SELECT DISTINCT store, 1, store, '{{}}', 1 FROM lash_graph_nodes;
INSERT INTO lash_session_meta
SELECT store, 1, store, store, 'unix:1', 'm', NULL, NULL FROM lash_session_head;
INSERT INTO lash_session_execution_leases SELECT store, store, 'o', 't', 1, 1, 1 FROM lash_session_head;
"""

SELECTS = [
    name
    for name, (builder, arguments) in EXAMPLES.items()
    if name.startswith("session.")
    and name not in CONDITIONS
    and name != "session.select_all_work"  # which reads all that there is
    and isinstance(builder, PreparedRows)
    and isinstance(builder(**arguments), Select)
]


@pytest.fixture(scope="module", params=["plain", "analysed"])
def database(request: pytest.FixtureRequest) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in canonical_statements(shared(SESSION, "lash_")):
            connection.execute(statement)
        connection.executescript(ROWS.format(sessions=SESSIONS, batches=BATCHES))
        if request.param == "analysed":
            connection.execute("ANALYZE")
        yield connection


def plan(connection: sqlite3.Connection, construct: Any) -> list[str]:
    compiled: Any = construct.compile(dialect=SHARED)
    values = {**compiled.params, SCOPE.key: "s7"}
    values = {name: json.dumps(v) if isinstance(v, list) else v for name, v in values.items()}
    rows = connection.execute(f"EXPLAIN QUERY PLAN {compiled}", values)
    return [detail for *_, detail in rows]


@pytest.mark.parametrize("name", SELECTS)
def test_every_read_is_a_range_of_its_sessions_rows(
    database: sqlite3.Connection, name: str
) -> None:
    builder, arguments = EXAMPLES[name]
    steps = plan(database, builder(**arguments))
    ours = [step for step in steps if re.search(r"(SEARCH|SCAN) (lash_|\w+ USING)", step)]
    assert ours
    for step in ours:
        assert step.startswith("SEARCH"), steps
        assert "store=?" in step, steps
    assert not any("BLOOM" in step or "AUTOMATIC" in step for step in steps), steps


def test_k_tx_6_a_page_of_sessions_is_read_in_order(database: sqlite3.Connection) -> None:
    """No more of each table than the page has: all of them were read and sorted for each."""
    construct: Any = places._entries("s3", 5)
    compiled = construct.compile(dialect=SHARED)
    rows = database.execute(f"EXPLAIN QUERY PLAN {compiled}", compiled.params)
    steps = [detail for *_, detail in rows]
    assert sum("store>?" in step for step in steps) == 2, steps
    assert not any(step.startswith("SCAN lash_") for step in steps), steps


def test_the_claim_reads_three_ranges_in_order(database: sqlite3.Connection) -> None:
    builder, arguments = EXAMPLES["session.claimable_work"]
    steps = plan(database, builder(**arguments))
    claims = [step for step in steps if "lash_idx_queued_work_claim" in step]
    assert len(claims) == 3, steps
    never = "(store=? AND session_id=? AND claim_id=? AND claim_token=?)"
    assert sum(step.endswith(never) for step in claims) == 1, steps


@pytest.mark.parametrize(
    "name", ["session.list_work", "session.load_graph", "session.newest_nodes"]
)
def test_what_is_in_order_is_not_sorted(database: sqlite3.Connection, name: str) -> None:
    builder, arguments = EXAMPLES[name]
    steps = plan(database, builder(**arguments))
    assert not any("TEMP B-TREE" in step for step in steps), steps
