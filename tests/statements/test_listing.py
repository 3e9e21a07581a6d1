"""How SQLite goes about a page of processes: by the ids' order, or by the index of the status."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Dialect

from lash_store._kernel.arguments import bound_arguments
from lash_store._kernel.prepared import Prepared
from lash_store._kernel.sharing import shared
from lash_store.process import statements
from lash_store.schemas import SCHEMAS, canonical_statements
from tests.support.dialects import SHARED, SQLITE

ROWS = 2_000
FEW, MANY = "running", "completed"

LAYOUTS: dict[str, tuple[Dialect, Any, str]] = {
    "file": (SQLITE, SCHEMAS["process"], "INSERT INTO processes VALUES (?, ?, 'host', ?, 1, ?, ?)"),
    "shared": (
        SHARED,
        shared(SCHEMAS["process"], "lash_"),
        "INSERT INTO lash_processes VALUES (?, ?, 'host', ?, 1, ?, ?)",
    ),
}


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module", params=["plain", "analysed"])
def database(request: pytest.FixtureRequest, layout: str) -> Iterator[sqlite3.Connection]:
    _, schema, insert = LAYOUTS[layout]
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in canonical_statements(schema):
            connection.execute(statement)
        connection.executemany(
            insert,
            ((f"p{at}", "h", at, FEW if at % 500 == 0 else MANY, "{}") for at in range(ROWS)),
        )
        if request.param == "analysed":
            connection.execute("ANALYZE")
        yield connection


def plan(
    connection: sqlite3.Connection, layout: str, statement: Prepared[..., Any], **arguments: Any
) -> list[str]:
    """As the library runs it: compiled once, for whatever the arguments may be."""
    construct = statement.builder(**bound_arguments(statement.builder))
    compiled: Any = construct.compile(dialect=LAYOUTS[layout][0], column_keys=[])
    given = {f"p_{name}": value for name, value in arguments.items()}
    rows = connection.execute(f"EXPLAIN QUERY PLAN {compiled}", {**compiled.params, **given})
    return [detail for *_, detail in rows]


@pytest.mark.parametrize("status", [None, FEW, MANY])
def test_p_list_1_by_id_a_page_is_read_in_order_and_not_sorted(
    database: sqlite3.Connection, layout: str, status: str | None
) -> None:
    page = {"status": status, "after_process_id": "p1", "limit": 10}
    (step,) = plan(database, layout, statements.list_processes, **page)
    assert step.startswith("SEARCH")
    assert "process_id>?" in step


@pytest.mark.parametrize("status", [FEW, MANY])
def test_p_list_1_by_status_only_what_has_it_is_read(
    database: sqlite3.Connection, layout: str, status: str
) -> None:
    page = {"status": status, "after_process_id": "p1", "limit": 10}
    read, *after = plan(database, layout, statements.list_status, **page)
    assert read.startswith("SEARCH")
    assert "status=?" in read
    assert after == ["USE TEMP B-TREE FOR ORDER BY"]


def test_p_list_1_the_count_of_a_status_reads_its_index_alone(
    database: sqlite3.Connection, layout: str
) -> None:
    steps = plan(database, layout, statements.count_status, status=MANY, up_to=10)
    (read,) = [step for step in steps if step.startswith("SEARCH")]
    assert "COVERING INDEX" in read
    assert "status=?" in read
