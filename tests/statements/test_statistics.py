"""What ANALYZE has gathered makes no statement read more than it reads without.

A store never gathers statistics, but a consumer may. Where *all* rows have one value, SQLite reads
them all, and is right to: that is no part of this.
"""

from __future__ import annotations

import functools
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import pytest
from sqlalchemy import Select

from lash_store import prepare
from lash_store._backends.sqlite.driver import StoreCursor
from lash_store._kernel.prepared import Prepared
from lash_store.schemas import SCHEMAS, canonical_statements
from tests.statements.catalogue import CONDITIONS, EXAMPLES

ROWS: Final = 3_000

Rows = dict[str, list[tuple[Any, ...]]]


SHAPES: Final = {"even": (1, 0), "lopsided": (19, 0), "rare": (997, 1)}
"""Every how many rows one has any of the values, and which of them the others have.

The examples ask for the first.
"""


class Spread:
    """Which of a few values a row has."""

    def __init__(self, every: int, usual: int) -> None:
        self.every = every
        self.usual = usual

    def __call__(self, row: int, values: int) -> int:
        return row % values if row % self.every == 0 else min(self.usual, values - 1)

    def pick(self, row: int, *values: Any) -> Any:
        return values[self(row, len(values))]


def process_rows(spread: Spread) -> Rows:
    record = '{"identity":{"definition":"d"},"wake_target":{"session_id":"chat-42"}}'
    wake = '{"semantics":{"wake":{"input":"x"}}}'
    states = ("running", "completed", "failed", "cancelled")
    logs = [(f"p{row % 500}", row // 500 + 1) for row in range(ROWS)]
    long_log = [("p1", sequence) for sequence in range(ROWS // 500 + 1, ROWS)]
    return {
        "processes": [
            (f"p{row}", "h", spread.pick(row, "host", f"s{row}"), row, row, state, record)
            for row in range(ROWS)
            for state in [spread.pick(row, *states)]
        ],
        "process_events": [
            (of, number, spread.pick(number, "tick", "tock"), "h", key, number, wake)
            for of, number in logs + long_log
            for key in [f"again{number}" if number % 2 else None]
        ],
        "process_wake_acks": logs[::2],
        "process_handle_grants": [
            (session_id, f"session:{session_id}", f"p{row}", "{}")
            for row in range(ROWS)
            for session_id in [spread.pick(row, "chat-42", *(f"s{at}" for at in range(30)))]
        ],
        "process_leases": [
            (f"p{row}", *(("w", "t") if row % 2 else (None, None)), 1, 1, row)
            for row in range(0, ROWS, 3)
        ],
    }


def trigger_rows(spread: Spread) -> Rows:
    def source(row: int) -> tuple[str, str]:
        keys = ("k", *(f"k{at}" for at in range(100)))
        return spread.pick(row, "cron", "web"), spread.pick(row, *keys)

    return {
        "trigger_subscriptions": [
            (f"subscription:{row}", registrant, f"trigger:{row}", *source(row), row % 2, 1, 1, "{}")
            for row in range(ROWS)
            for registrant in [spread.pick(row, "host", *(f"session:{at}" for at in range(30)))]
        ],
        "trigger_occurrences": [
            (f"trigger:{row}", f"once{row}", "h", *source(row), row, "{}") for row in range(ROWS)
        ],
        "trigger_deliveries": [
            (f"trigger:{row}", f"subscription:{row * 7 % ROWS}", f"process:{row}", row)
            for row in range(ROWS)
        ],
    }


def effect_rows(spread: Spread) -> Rows:
    ends = (("completed", "1", None), ("in_progress", None, None), ("failed", None, "{}"))
    return {
        "runtime_effect_replay": [
            (scope_id, f"k{row}", "h", *spread.pick(row, *ends), None, None, 0, None, row, row)
            for row in range(ROWS)
            for scope_id in [spread.pick(row, "s/t", *(f"s/{at}" for at in range(50)))]
        ]
    }


FILLED: Final[dict[Any, Any]] = {
    "process": process_rows,
    "trigger": trigger_rows,
    "effect": effect_rows,
}


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=FILLED)
def filled(request: pytest.FixtureRequest, shape: str) -> Iterator[tuple[str, StoreCursor]]:
    kind = request.param
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for statement in canonical_statements(SCHEMAS[kind]):
            connection.execute(statement)
        for table, rows in FILLED[kind](Spread(*SHAPES[shape])).items():
            places = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows)
        yield kind, StoreCursor(connection)


def selects(kind: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Each SELECT of a store: its name, the prepared statement, arguments."""
    for name, (builder, arguments) in EXAMPLES.items():
        if not name.startswith(f"{kind}.") or name in CONDITIONS:
            continue
        if isinstance(builder(**arguments), Select):
            prepared: Any = builder if isinstance(builder, Prepared) else prepare(builder)
            yield name, prepared, arguments


def plans(kind: str, cursor: StoreCursor) -> dict[str, list[str]]:
    """How SQLite goes about each SELECT of a store, a line for each step."""
    found = {}
    for name, statement, arguments in selects(kind):
        sql = statement.compiled_for(cursor.driver).sql
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}", statement.bind(cursor, **arguments))
        found[name] = [step[-1] for step in cursor.fetchall()]
    return found


SLOW: Final = {
    "every row of a table": r"SCAN (TABLE )?\w+( AS \w+)?( LEFT-JOIN)?",
    "a filter made for one statement": r".*BLOOM FILTER.*",
    "an index made for one statement": r".*AUTOMATIC.*",
}


def steps_taken(kind: str, cursor: StoreCursor) -> dict[str, int]:
    """How many instructions SQLite's machine takes for each SELECT of a store, in tens."""
    taken: Counter[str] = Counter()
    for name, statement, arguments in selects(kind):
        values = statement.bind(cursor, **arguments)
        sql = statement.compiled_for(cursor.driver).sql
        count = functools.partial(taken.update, [name])
        cursor.connection.set_progress_handler(count, 10)
        cursor.execute(sql, values)
        cursor.fetchall()
        cursor.connection.set_progress_handler(None, 0)
    return taken


def slow_steps(steps: list[str]) -> set[str]:
    return {
        what for what, pattern in SLOW.items() if any(re.fullmatch(pattern, step) for step in steps)
    }


def test_statistics_make_no_plan_worse(filled: tuple[str, StoreCursor]) -> None:
    kind, cursor = filled
    before = plans(kind, cursor)
    cursor.execute("ANALYZE")
    after = plans(kind, cursor)
    assert len(after) > 5
    worse = {
        name: (before[name], steps)
        for name, steps in after.items()
        if not slow_steps(steps) <= slow_steps(before[name])
    }
    assert worse == {}


def test_statistics_make_no_statement_read_more(filled: tuple[str, StoreCursor]) -> None:
    kind, cursor = filled
    before = steps_taken(kind, cursor)
    cursor.execute("ANALYZE")
    after = steps_taken(kind, cursor)
    assert len(after) > 5
    worse = {name: (before[name], n) for name, n in after.items() if n > 1.5 * before[name] + 10}
    assert worse == {}
