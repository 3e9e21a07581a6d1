"""Every builder on a real PostgreSQL, beside SQLite: the same rows, the same counts, the same tables.

Both hold the same database in the shared layout: two sessions, and what the other stores have. Each
statement runs on both with the same arguments, drawn from what is there, and is taken back.
"""

from __future__ import annotations

import inspect
import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import psycopg
import pytest
from sqlalchemy import Table, select
from sqlalchemy.exc import CompileError

from lash_store import SessionStore
from lash_store._backends.postgresql.dialect import dialect_for
from lash_store._backends.sqlite.driver import open_cursor
from lash_store._kernel.arguments import bound_arguments
from lash_store._kernel.generated import CompiledStatement
from lash_store._kernel.sharing import STORE, VERSIONS, shared
from lash_store.schemas import SCHEMAS, render_all
from lash_store.session.tables import queued_work_batches
from lash_store.testing import ManualClock, SequentialIds
from tests.statements.catalogue import CONDITIONS, EXAMPLES
from tests.support import postgresql
from tests.support.writes import KINDS, fill_session

PREFIX = "lash_"
TABLES: list[Table[Any]] = [
    table
    for at, each in enumerate(SCHEMAS.values())
    for table in shared(each, PREFIX).tables[1 if at else 0 :]  # the first is that of versions
]
BUILDERS = [name for name in EXAMPLES if name not in CONDITIONS]
TRIES = 12
ROLES = ("SUPERUSER NOBYPASSRLS", "NOSUPERUSER BYPASSRLS")
"""Whom the server shows every row: what keeps one store from another's is in the statements alone."""
IDENTITIES = {"trigger.next_subscription_number"}


class Driver:
    """What preparing for psycopg needs to know."""

    dialect = dialect_for(PREFIX)
    error = psycopg.Error
    number_types: ClassVar[dict[type, int]] = {}

    def explain(self, error: Exception, *_: Any) -> Exception:
        return error


class Cursor(psycopg.RawCursor[Any]):
    """A cursor for prepared statements."""

    driver = Driver()
    scope = "s"


class Database:
    """One of the two, with its rows, and how a statement is run on it."""

    def __init__(self, connection: Any, cursor: Any) -> None:
        self.connection, self.cursor, self.driver = connection, cursor, cursor.driver

    def run(self, name: str, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return what a statement gave, and what it left in the tables; and take it back."""
        builder = getattr(EXAMPLES[name][0], "builder", EXAMPLES[name][0])
        binds = bound_arguments(builder)
        statement = CompiledStatement(name, builder(**binds), binds, {}, self.driver)
        self.cursor.execute("BEGIN")
        try:
            answer = self._answer(statement, arguments)
            left = {} if answer == "refused" else self.rows()
        finally:
            self.cursor.execute("ROLLBACK")
        return answer, left

    def _answer(self, statement: CompiledStatement, arguments: dict[str, Any]) -> Any:
        gives_rows = bool(statement.compiled._result_columns)
        call = statement.function("all" if gives_rows else "run", _elsewhere, None)
        try:
            answer = call(self.cursor, **arguments)
        except (sqlite3.IntegrityError, psycopg.IntegrityError):
            return "refused"
        except Exception as error:
            if isinstance(error.__cause__, (sqlite3.IntegrityError, psycopg.IntegrityError)):
                return "refused"
            raise
        if not gives_rows:
            return answer
        typed = [[(type(value).__name__, value) for value in row] for row in answer]
        return typed if "ORDER BY" in statement.sql else sorted(typed, key=repr)

    def rows(self, *, of: str | None = None) -> dict[str, Any]:
        """Return everything in the tables, of one session if that is said."""
        found = {}
        for table in TABLES:
            self.cursor.execute(f"SELECT {', '.join(table.columns.keys())} FROM {table.name}")
            rows = [tuple(row) for row in self.cursor.fetchall()]
            if of is not None and STORE in table.columns:
                rows = [row for row in rows if row[0] == of]
            found[table.name] = sorted(rows, key=repr)
        return found


def _elsewhere(*_: Any, **__: Any) -> Any:
    raise AssertionError


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql.server() as url:
        yield url


@pytest.fixture(scope="module", params=ROLES)
def both(
    server: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[list[Database]]:
    path = tmp_path_factory.mktemp("both") / "app.db"
    fill(path)
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as lite,
        postgresql.schema(server, f"statements_{os.getpid()}") as postgres,
    ):
        lite.execute("PRAGMA foreign_keys = ON")
        cursor = open_cursor(lite, PREFIX)
        cursor.scope = "s"
        here = Database(lite, cursor)
        there = Database(postgres, Cursor(postgres))
        postgres.execute(render_all(SCHEMAS.values(), dialect="postgresql", prefix=PREFIX))
        postgres.execute(f"DELETE FROM {PREFIX}{VERSIONS}")
        copy(here, there)
        with acting_as(postgres, request.param):
            yield [here, there]


@contextmanager
def acting_as(postgres: psycopg.Connection[Any], attribute: str) -> Iterator[None]:
    """Be a role that the server hides no row from, though everything is hidden: for one of two reasons."""
    name = f"sees_all_{os.getpid()}"
    postgres.execute(f"CREATE ROLE {name} {attribute}")
    try:
        for table in TABLES:
            postgres.execute(f"ALTER TABLE {table.name} FORCE ROW LEVEL SECURITY")
            postgres.execute(f"ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY")
        ((place,),) = postgres.execute("SELECT current_schema()").fetchall()
        postgres.execute(f"GRANT ALL ON SCHEMA {place} TO {name}")
        for kind in ("TABLES", "SEQUENCES"):
            postgres.execute(f"GRANT ALL ON ALL {kind} IN SCHEMA {place} TO {name}")
        postgres.execute(f"SET ROLE {name}")
        yield
    finally:
        postgres.execute("RESET ROLE")
        postgres.execute(f"DROP OWNED BY {name}")
        postgres.execute(f"DROP ROLE {name}")


def fill(path: Path) -> None:
    """Two sessions, and the other stores: each with something to lose."""
    url: Any = f"sqlite:///{path}"
    for open_store, fill_store in KINDS.values():
        with open_store(url) as store:
            fill_store(store, SimpleNamespace())
    other: Any = {"clock": ManualClock(), "ids": SequentialIds("other")}
    with SessionStore.open(url, session_id="other", **other) as store:
        fill_session(store, SimpleNamespace())


def copy(here: Database, there: Database) -> None:
    for table in TABLES:
        names = list(table.columns.keys())
        rows = here.cursor.execute(f"SELECT {', '.join(names)} FROM {table.name}").fetchall()
        values = ", ".join(f"${at}" for at in range(1, len(names) + 1))
        text = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({values})"
        for row in rows:
            there.cursor.execute(text, row)
        numbered = table.autoincrement_column
        if numbered is not None and rows:  # it numbers on from there, as SQLite does
            name = f"pg_get_serial_sequence('{table.name}', '{numbered.name}')"
            there.cursor.execute(f"SELECT setval({name}, max({numbered.name})) FROM {table.name}")


def arguments_of(name: str, database: Database) -> Iterator[dict[str, Any]]:
    """Yield arguments: the example's, and some that are drawn from what stands in columns of that name."""
    builder, example = EXAMPLES[name]
    yield example
    chance = random.Random(name)
    known: dict[str, list[Any]] = {}
    rows = database.rows(of="s")
    for table in TABLES:
        for at, column in enumerate(table.columns.keys()):
            known.setdefault(column, []).extend(row[at] for row in rows[table.name])
    kinds = {
        each: parameter.annotation
        for each, parameter in inspect.signature(builder).parameters.items()
    }
    for _ in range(TRIES):
        yield {
            each: chance.choice(
                [*(v for v in _candidates(each, known) if _fits(v, kinds[each])), value]
            )
            for each, value in example.items()
        }


def _candidates(argument: str, known: dict[str, list[Any]]) -> list[Any]:
    """Return what stands in the columns that an argument is compared with, by their names."""
    names = [
        argument,
        f"lease_{argument}",
        f"claim_{argument}",
        *(["session_id", "process_id"] if argument == "key" else []),
        *(["scope_id"] if argument.endswith("scope_id") else []),
        *(["intent_at_ms"] if argument == "older_than_ms" else []),
    ]
    lists = [
        [value] for value in known.get(argument.removesuffix("s"), []) if argument not in known
    ]
    return [*(value for each in names for value in known.get(each, [])), *lists]


def _fits(value: Any, annotation: Any) -> bool:
    if value is None:
        return "None" in str(annotation)
    return type(value).__name__ in str(annotation)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_same_on_both(both: list[Database], name: str) -> None:
    here, there = both
    other = here.rows(of="other")
    for arguments in arguments_of(name, here):
        expected, left = here.run(name, arguments)
        answer, found = there.run(name, arguments)
        if name in IDENTITIES:  # which have gaps there: what was taken back was given out
            ((number,),), ((least,),) = answer, expected
            assert number >= least
            continue
        assert answer == expected, arguments
        assert found == left, arguments
        if name.startswith("session.") and found:
            for table, rows in other.items():
                if STORE in next(each for each in TABLES if each.name == table).columns:
                    kept = [row for row in found[table] if row[0] == "other"]
                    assert kept == rows, (name, table)


def test_something_is_read_and_written(both: list[Database]) -> None:
    """The arguments meet what is there: or the test above would compare nothing."""
    here, _ = both
    before, met = here.rows(), set[str]()
    for name in BUILDERS:
        for arguments in arguments_of(name, here):
            answer, left = here.run(name, arguments)
            if answer not in ([], 0, "refused") or (left and left != before):
                met.add(name)
    assert len(met) >= 0.8 * len(BUILDERS), sorted(set(BUILDERS) - met)


def test_k_share_2_a_hint_is_what_it_is_on_any_table() -> None:
    """ONLY leaves out what inherits from a table, and nothing does from ours; there is no other."""
    batches = select(queued_work_batches.c.batch_id)
    there: Any = dialect_for("lash_")
    plain = str(batches.compile(dialect=there))
    assert (
        str(batches.with_hint(queued_work_batches, "ONLY", "postgresql").compile(dialect=there))
        == plain
    )
    with pytest.raises(CompileError, match="hint"):
        batches.with_hint(queued_work_batches, "FAST", "postgresql").compile(dialect=there)
