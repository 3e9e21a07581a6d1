"""Prepared statements: the same rows and types as ordinary execution, and what is refused."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import closing
from typing import Any, ClassVar

import pytest
import sqlalchemy
from hypothesis import given, strategies as st
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Delete,
    Insert,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    Table,
    Text,
    TypeDecorator,
    Update,
    bindparam,
    create_engine,
    delete,
    insert,
    literal,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import registry
from sqlalchemy.sql.dml import ReturningInsert
from sqlalchemy.sql.elements import ClauseElement, ColumnElement

import lash_store
from lash_store import prepare
from lash_store._backends.sqlite.dialect import SQLITE
from lash_store._backends.sqlite.driver import StoreCursor
from lash_store._kernel import generated, prepared
from lash_store.errors import (
    LashStoreError,
    StorageError,
    StoreBusyError,
    UnpreparableStatementError,
)
from lash_store.schemas import SCHEMAS, canonical_statements
from lash_store.testing import strategies
from tests.statements.catalogue import CONDITIONS, EXAMPLES
from tests.support.dialects import POSTGRESQL

metadata = MetaData()


class Reversed(TypeDecorator[str]):
    """A type with processors both ways."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:
        return None if value is None else value[::-1]

    def process_result_value(self, value: str | None, dialect: object) -> str | None:
        return None if value is None else value[::-1]


things = Table(
    "things",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text),
    Column("body", LargeBinary),
    Column("secret", Reversed),
    Column("state", Text, server_default="new"),
)


def insert_thing(*, name: str | None, body: bytes | None, secret: str) -> Insert:
    """Insert one, with a constant beside the arguments."""
    return insert(things).values(name=name, body=body, secret=secret, state="made")


def insert_returning(*, name: str) -> ReturningInsert[int, str | None]:
    return insert(things).values(name=name).returning(things.c.id, things.c.name)


def select_things(*, state: str) -> Select[int, str | None, bytes | None, str | None]:
    columns = (things.c.id, things.c.name, things.c.body, things.c.secret)
    return select(*columns).where(things.c.state == state).order_by(things.c.id)


def rename_thing(*, thing_id: int, name: str) -> Update:
    return update(things).where(things.c.id == thing_id).values(name=name)


def forget_name(*, name: str) -> Update:
    """A constant whose parameter SQLAlchemy calls by the name of an argument."""
    return update(things).where(things.c.name == name).values(name=None)


def delete_things() -> Delete:
    return delete(things)


@pytest.fixture
def cursor() -> Iterator[StoreCursor]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        engine = create_engine("sqlite://", creator=lambda: connection)
        metadata.create_all(engine)
        yield StoreCursor(connection)


def ordinary(cursor: sqlite3.Cursor, construct: Any) -> list[tuple[Any, ...]] | int:
    """Execute the construct the way SQLAlchemy does, on the same database."""
    engine = create_engine("sqlite://", creator=lambda: cursor.connection)
    with engine.connect() as connection:
        result = connection.execute(construct)
        return [tuple(row) for row in result] if result.returns_rows else result.rowcount


SESSION = """
INSERT INTO session_execution_leases VALUES ('other', 'worker-a', 'c0ffee', 1, 1, 9999);
INSERT INTO blobs VALUES ('blob-1', x'0001'), ('blob-2', x'02');
INSERT INTO session_head VALUES (1, 'chat-42', '{"a":1}', 4);
INSERT INTO session_meta VALUES (1, 'chat-42', 'name', 'unix:1', 'm', NULL, NULL);
INSERT INTO graph_nodes VALUES (1, 'n1', '{"node_id":"n1"}', 0),
  (2, 'n2', '{"node_id":"n2","parent_node_id":"n1"}', 0),
  (3, 'n3', '{"parent_node_id":"n2","kind":"event","event":{"Conversation":{"role":"User"}}}', 0),
  (4, 'n4', '{"parent_node_id":"n2"}', 1);
INSERT INTO usage_deltas VALUES (1, 'a', 'm', 1, 2, 3, 4), (2, 'b', 'm', 0, 0, 9, 0),
  (3, 'a', 'm', 1, 1, 1, 1);
INSERT INTO runtime_turn_commits VALUES ('chat-42', 'turn-1', 'hash', '{}', 900);
INSERT INTO queued_work_batches VALUES
  (1, 'qwb:1', 'chat-42', 'source-1', 'p', 'join', '1', 0, 1, 'qwc:1:1', 'o', 'c0ffee', 1, 1, 9999),
  (2, 'qwb:2', 'chat-42', NULL, 'p', 'join', '1', 0, 2, NULL, NULL, NULL, 3, 0, 0),
  (3, 'qwb:3', 'chat-42', NULL, 'p', 'join', '1', 5000, 3, 'qwc:3:1', 'o', 'old', 1, 1, 500);
INSERT INTO queued_work_items VALUES ('qwb:1', 0, 'i1', '1'), ('qwb:2', 0, 'i2', '"x"');
INSERT INTO attachment_manifest VALUES ('att-1', 'chat-42', 'u', 900, NULL),
  ('att-2', 'chat-42', 'u', 100, NULL), ('att-3', 'chat-42', 'u', 1, 2);
INSERT INTO artifact_refs VALUES ('env', 'blob-1');
"""

PROCESS = """
INSERT INTO processes VALUES
  ('p1', 'hash', 'host', 10, 10, 'running', '{"identity":{"definition":"d"},"wake_target":{"session_id":"chat-42"}}'),
  ('p2', 'hash', 'session:chat-42', 5, 5, 'running', '{"wait":{"since_ms":1}}'),
  ('p3', 'hash', 'host', 1, 1, 'completed', '{}');
INSERT INTO process_events VALUES
  ('p1', 1, 'tick', 'h', NULL, 1, '{"semantics":{}}'),
  ('p1', 2, 'tick', 'h', 'again', 2, '{"semantics":{"wake":{"input":"x"}}}'),
  ('p1', 3, 'tock', 'h', NULL, 3, '{"semantics":{"wake":{"input":"y"}}}'),
  ('p2', 1, 'tick', 'h', 'again', 1, '{"semantics":{"wake":{"input":"z"}}}');
INSERT INTO process_wake_acks VALUES ('p1', 2);
INSERT INTO process_handle_grants VALUES ('chat-42', 'session:chat-42', 'p1', '{}'),
  ('other', 'session:other', 'p1', '{}'), ('chat-42', 'session:chat-42', 'p3', '{}');
INSERT INTO process_leases VALUES ('p2', 'worker-a', 'c0ffee', 1, 1, 9999);
"""

TRIGGER = """
INSERT INTO trigger_subscription_seq VALUES (3);
INSERT INTO trigger_subscriptions VALUES
  ('subscription:1', 'host', 'trigger:1', 'cron', 'k', 1, 1, 1, '{"name":"n","target_identity":{"definition":"d"}}'),
  ('subscription:2', 'host/frame:f', 'trigger:2', 'cron', 'k', 1, 1, 1, 'broken'),
  ('subscription:3', 'session:s', 'trigger:1', 'cron', 'k', 0, 1, 1, '{}');
INSERT INTO trigger_occurrences VALUES ('trigger:o', 'once', 'hash', 'cron', 'k', 10, '{}'),
  ('trigger:p', 'twice', 'hash', 'cron', 'k', 2000, '{}');
INSERT INTO trigger_deliveries VALUES ('trigger:o', 'subscription:2', 'process:1', 10),
  ('trigger:p', 'subscription:1', 'process:2', 10);
"""

EFFECT = """
INSERT INTO runtime_effect_replay VALUES
  ('s/t', 'j', 'hash', 'completed', '1', NULL, NULL, NULL, 0, NULL, 1, 1),
  ('s/t', 'l', 'hash', 'failed', NULL, '{}', NULL, NULL, 0, 5, 1, 1),
  ('u', 'k', 'hash', 'in_progress', NULL, NULL, 'worker-a', 'c0ffee', 9999, NULL, 1, 1);
"""

FILLED = {
    "session": (SESSION, "session_execution_leases", "chat-42"),
    "process": (PROCESS, "process_leases", "p1"),
    "trigger": (TRIGGER, None, None),
    "effect": (EFFECT, "runtime_effect_replay", "s/t"),
}
"""Rows of each store, its table of leases if it has one, and the key of the lease that is varied."""


class TestEveryStatementOfTheProject:
    """Walks the catalogue of builders; each runs both ways on equal databases."""

    @classmethod
    def database(cls, kind: Any, lease: tuple[Any, ...] | None) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        for statement in canonical_statements(SCHEMAS[kind]):
            connection.execute(statement)
        if lease is not None:
            rows, table, key = FILLED[kind]
            connection.executescript(rows)
            if kind == "effect":  # where a lease is part of what it is a lease on
                owner_id, token, _, _, expires_at_ms = lease
                step = (key, "k", "hash", "in_progress", None, None)
                term = (owner_id, token, expires_at_ms, 7, 1, 1)
                connection.execute(
                    f"INSERT INTO {table} VALUES ({', '.join('?' * 12)})", step + term
                )
            elif table is not None:
                connection.execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?)", (key, *lease))
        return connection

    @pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in CONDITIONS])
    @pytest.mark.parametrize(
        "lease",
        [
            None,
            ("worker-a", "c0ffee", 7, 500, 5_000),
            ("worker-b", "beef", 9, 500, 5_000),
            (None, None, 7, 0, 0),
        ],
        ids=["empty", "own live term", "another's term", "released"],
    )
    def test_gives_what_ordinary_execution_gives(
        self, name: str, lease: tuple[Any, ...] | None
    ) -> None:
        builder, arguments = EXAMPLES[name]
        # A statement that a consumer composes is none of ours to run, but can be prepared.
        statement: Any = builder if isinstance(builder, prepared.Prepared) else prepare(builder)
        kind = name.split(".", maxsplit=1)[0]
        with closing(self.database(kind, lease)) as one, closing(self.database(kind, lease)) as two:
            try:
                expected: Any = ordinary(one.cursor(), builder(**arguments))
            except IntegrityError:
                with pytest.raises(StorageError):
                    statement.run(StoreCursor(two), **arguments)
                return
            if isinstance(statement, prepared.PreparedRows):
                found: Any = statement.all(StoreCursor(two), **arguments)
                types = [[type(value) for value in row] for row in found]
                assert types == [[type(value) for value in row] for row in expected]
            else:
                found = statement.run(StoreCursor(two), **arguments)
            assert found == expected
            assert list(two.iterdump()) == list(one.iterdump())

    def test_every_prepared_statement_is_in_the_catalogue(self) -> None:
        """Nothing is prepared that the test above does not walk."""
        modules = pkgutil.walk_packages(lash_store.__path__, "lash_store.")
        found = {
            id(value): f"{module.name}.{name}"
            for module in modules
            if "cli" not in module.name
            for name, value in vars(importlib.import_module(module.name)).items()
            if isinstance(value, prepared.Prepared)
        }
        catalogued = {id(builder) for builder, _ in EXAMPLES.values()}
        assert len(found) > 100
        assert [name for key, name in found.items() if key not in catalogued] == []


def test_run_changes_rows_and_counts_them(cursor: StoreCursor) -> None:
    assert prepare(insert_thing).run(cursor, name="a", body=b"\0\1", secret="abc") == 1
    assert prepare(rename_thing).run(cursor, thing_id=1, name="b") == 1
    assert prepare(rename_thing).run(cursor, thing_id=2, name="b") == 0
    assert cursor.execute("SELECT name, body, secret, state FROM things").fetchall() == [
        ("b", b"\0\1", "cba", "made")
    ]
    assert prepare(delete_things).run(cursor) == 1


def test_a_constant_named_like_an_argument_stays_a_constant(cursor: StoreCursor) -> None:
    prepare(insert_thing).run(cursor, name="a", body=None, secret="")
    assert prepare(forget_name).run(cursor, name="a") == 1
    assert cursor.execute("SELECT name FROM things").fetchall() == [(None,)]


def rename_by(*, cursor: str, SQL: str) -> Update:  # noqa: N803 # reason: names that a generated function might use
    return update(things).where(things.c.name == cursor).values(name=SQL)


def test_an_argument_may_have_any_name(cursor: StoreCursor) -> None:
    prepare(insert_thing).run(cursor, name="a", body=None, secret="")
    assert prepare(rename_by).run(cursor, cursor="a", SQL="b") == 1
    assert cursor.execute("SELECT name FROM things").fetchall() == [("b",)]


def test_run_is_refused_where_rows_come_back(cursor: StoreCursor) -> None:
    counting: Any = prepare(insert_returning)
    for function in (counting.run, counting.later):
        with pytest.raises(UnpreparableStatementError, match="counts no rows"):
            function(cursor, name="a")


def test_what_may_be_sent_later_is_done_by_the_next_statement(cursor: StoreCursor) -> None:
    statement = prepare(insert_thing)
    statement.later(cursor, name="a", body=None, secret="abc")
    rows = [statement.bind(cursor, name=each, body=None, secret="abc") for each in "bc"]
    statement.later_many(cursor, rows)
    asked = prepare(select_things).ask(cursor, state="made")
    prepare(delete_things).run(cursor)
    assert asked() == [(at, each, None, "abc") for at, each in enumerate("abc", 1)]
    assert prepare(insert_returning).ask(cursor, name="d")() == [(1, "d")]


def test_many_binds_in_order_and_counts(cursor: StoreCursor) -> None:
    statement = prepare(insert_thing)
    rows = [statement.bind(cursor, secret=str(at), name=f"n{at}", body=None) for at in range(10)]
    assert statement.many(cursor, rows) == 10
    assert prepare(select_things).all(cursor, state="made") == ordinary(
        cursor, select_things(state="made")
    )


def test_one_gives_the_row_or_none_and_refuses_two(cursor: StoreCursor) -> None:
    one = prepare(select_things).one
    assert one(cursor, state="made") is None
    insert_one = prepare(insert_thing)
    insert_one.run(cursor, name=None, body=None, secret="x")
    assert one(cursor, state="made") == (1, None, None, "x")
    insert_one.run(cursor, name=None, body=None, secret="y")
    with pytest.raises(UnpreparableStatementError, match="2 rows"):
        one(cursor, state="made")


def test_returning_is_fetched_whole_so_that_commit_works(cursor: StoreCursor) -> None:
    cursor.execute("BEGIN IMMEDIATE")
    assert prepare(insert_returning).one(cursor, name="a") == (1, "a")
    cursor.execute("COMMIT")


@given(name=strategies.names(), body=st.binary(), secret=strategies.names())
def test_any_value_comes_back_as_by_ordinary_execution(
    cursor: StoreCursor, name: str, body: bytes, secret: str
) -> None:
    prepare(delete_things).run(cursor)
    prepare(insert_thing).run(cursor, name=name, body=body, secret=secret)
    (row,) = prepare(select_things).all(cursor, state="made")
    assert row[1:] == (name, body, secret)
    assert [row] == ordinary(cursor, select_things(state="made"))


def test_a_driver_error_becomes_a_typed_one(cursor: StoreCursor) -> None:
    cursor.execute("CREATE UNIQUE INDEX unique_name ON things (name)")
    statement = prepare(insert_thing)
    statement.run(cursor, name="a", body=None, secret="")
    with pytest.raises(StorageError) as failure:
        statement.run(cursor, name="a", body=None, secret="")
    assert isinstance(failure.value.__cause__, sqlite3.IntegrityError)
    assert failure.value.code == "SQLITE_CONSTRAINT_UNIQUE"
    row = statement.bind(cursor, name="a", body=None, secret="")
    for run_many in ("many", "later_many"):
        with pytest.raises(StorageError):
            getattr(statement, run_many)(cursor, [row])
    with pytest.raises(StorageError):
        statement.later(cursor, name="a", body=None, secret="")
    cursor.execute("DROP TABLE things")
    with pytest.raises(StorageError):
        prepare(select_things).ask(cursor, state="made")


def test_a_locked_database_becomes_store_busy_error(tmp_path: Any) -> None:
    one = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    two = sqlite3.connect(tmp_path / "x.db", isolation_level=None, timeout=0)
    with closing(one), closing(two):
        metadata.create_all(create_engine("sqlite://", creator=lambda: one))
        one.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError):
            prepare(delete_things).run(StoreCursor(two))


def positional(thing_id: int) -> Select[int]:
    return select(things.c.id).where(things.c.id == thing_id)


def expanding(*, names: list[str]) -> Select[int]:
    return select(things.c.id).where(things.c.name.in_(names))


def floating(*, age: float) -> Select[int]:
    return select(things.c.id).where(things.c.id > age)


def post_compiled(*, name: str) -> Select[int]:
    return select(things.c.id).where(things.c.name.in_(bindparam("p_name", expanding=True)))


def open_parameter(*, name: str) -> Select[int]:
    return select(things.c.id).where(things.c.name == name, things.c.state == bindparam("other"))


def unused(*, name: str, other: int) -> Select[int]:
    return select(things.c.id).where(things.c.name == name)


defaulted = Table(
    "defaulted",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text),
    Column("made", Integer, default=lambda: 7),
)


def python_default(*, name: str) -> Insert:
    return insert(defaulted).values(name=name)


def branching(*, thing_id: int) -> Select[int]:
    return select(things.c.id).limit(1) if thing_id > 1 else select(things.c.id)


def paged(*, after: int | None) -> Select[int]:
    found = select(things.c.id)
    return found if after is None else found.where(things.c.id > after)


def paged_within(*, after: int | None) -> Select[int]:
    conditions = [things.c.id > 0 for _ in range(2) if after is not None]
    return select(things.c.id).where(*conditions, things.c.id > after)


def among_texts(*, state: str) -> Select[int]:
    found = select(things.c.id).where(things.c.state == state)
    return found if state in {"open", "new"} else found.limit(1)


def matching_none(*, after: int | None) -> Select[int]:
    match after:
        case None:
            return select(things.c.id)
    return select(things.c.id).where(things.c.id > after)


def equal_to_a_text(*, state: str) -> Delete:
    gone = delete(things).where(things.c.state == state)
    return gone.where(things.c.id > 3) if state == "failed" else gone


def in_a_list(*, state: str) -> Select[int]:
    found = select(things.c.id).where(things.c.state == state)
    return found if state not in ["open", "new"] else found.limit(1)


def formatted(*, state: str) -> Select[int]:
    return select(things.c.id).where(or_(things.c.state == state, things.c.name.like(f"%{state}%")))


def in_words(*, state: str) -> Select[int]:
    named = things.c.name.like("%%%s%%" % state)  # noqa: UP031 # reason: that is the case
    return select(things.c.id).where(or_(things.c.state == state, named))


def no_statement(*, state: str) -> Select[int]:
    return state  # type: ignore[return-value] # reason: that is the case


def unreadable(*, state: Unheard) -> Select[int]:  # type: ignore[name-defined] # noqa: F821 # reason: that is the case
    return select(things.c.id).where(things.c.state == state)


def clashing(*, cursor_: str) -> Select[int]:
    return select(things.c.id).where(things.c.name == cursor_)


def clashing_too(*, SQL_: str) -> Select[int]:  # noqa: N803 # reason: that is the case
    return select(things.c.id).where(things.c.name == SQL_)


def equal_to_none(*, state: str | None) -> Select[int]:
    return select(things.c.id).where(things.c.state == state)


def unequal_to_none(*, state: str | None, name: str) -> Delete:
    return delete(things).where(things.c.name == name, things.c.state != state)


def distinct_or_not(*, state: str | None) -> Select[int]:
    return select(things.c.id).where(things.c.state.is_not_distinct_from(state))


def left_out(*, state: str | None) -> Select[int]:
    asked: Any = state if isinstance(state, ClauseElement) else bindparam("p", state, Text())
    return select(things.c.id).where(or_(asked.is_(None), things.c.state == asked))


mapped = registry()


class Thing:
    pass


mapped.map_imperatively(Thing, things, primary_key=[things.c.id])


def whole(*, thing_id: int) -> Select[Any]:
    return select(Thing).where(things.c.id == thing_id)


@pytest.mark.parametrize("builder", [distinct_or_not, left_out])
@pytest.mark.parametrize("state", [None, "new", "made"])
def test_an_argument_that_may_be_none_gives_what_its_builder_gives(
    cursor: StoreCursor, builder: Any, state: Any
) -> None:
    for each in ("new", None):
        cursor.execute("INSERT INTO things (state) VALUES (?)", (each,))
    expected = ordinary(
        cursor,
        builder(state=state)
        if state
        else select(things.c.id).where(true() if builder is left_out else things.c.state.is_(None)),
    )
    assert prepare(builder).all(cursor, state=state) == expected


@pytest.mark.parametrize(
    ("builder", "why"),
    [
        (equal_to_none, "'state' may be None, and what is equal to NULL is nothing"),
        (unequal_to_none, "'state' may be None"),
        (whole, "selects Thing as a whole"),
        (clashing, "its argument cursor_ is called"),
        (clashing_too, "its argument SQL_ is called"),
        (branching, "raises TypeError"),
        (paged, "asks in Python what its argument 'after' is"),
        (paged_within, "asks in Python what its argument 'after' is"),
        (matching_none, "asks in Python what its argument 'after' is"),
        (among_texts, "asks in Python what its argument 'state' is"),
        (equal_to_a_text, "raises TypeError: what an argument is, is not known"),
        (in_a_list, "raises TypeError: what an argument is, is not known"),
        (formatted, "raises TypeError: what an argument is, is not known"),
        (in_words, "raises TypeError: what an argument is, is not known"),
        (no_statement, "which is no statement"),
        (unreadable, "its annotations can't be read .NameError: name 'Unheard' is not defined"),
        (positional, "'thing_id' is not keyword-only"),
        (expanding, "depends on its parameters"),
        (floating, "'age' is no int, str or bytes"),
        (lambda: select(things.c.id), "not annotated with what it returns"),
        (post_compiled, "depends on its parameters"),
        (open_parameter, "'other' is neither an argument nor a constant"),
        (unused, "does not use other"),
        (python_default, "default in Python"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_can_not_be_prepared_is_refused(cursor: StoreCursor, builder: Any, why: str) -> None:
    with pytest.raises(UnpreparableStatementError, match=why):
        prepare(builder).bind(cursor)


class PostgresDriver:
    """Another driver: another dialect, another root of errors."""

    dialect = postgresql.psycopg.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call] # reason: SQLAlchemy leaves it untyped
    error = ArithmeticError
    number_types: ClassVar[dict[type, int]] = {}

    def explain(self, error: Exception, cursor: Any, *_: Any) -> LashStoreError:
        return StorageError("elsewhere", "X", str(error))


class PostgresCursor:
    """Keeps what it is given; fails where it is told to."""

    driver = PostgresDriver()
    connection = None
    rowcount = 1

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.fails = False

    def execute(self, sql: str, parameters: Any = ()) -> PostgresCursor:
        if self.fails:
            raise ZeroDivisionError
        self.seen.append((" ".join(sql.split()), parameters))
        return self

    executemany = execute

    def fetchall(self) -> list[Any]:
        return []


def test_one_prepared_statement_serves_every_driver_by_its_cursor(cursor: StoreCursor) -> None:
    prepare(insert_thing).run(cursor, name="a", body=b"", secret="s")
    statement: Any = prepare(rename_thing)
    other: Any = PostgresCursor()
    for _ in range(2):  # whoever comes first, and whoever comes next
        assert statement.run(cursor, thing_id=1, name="b") == 1
        assert statement.run(other, thing_id=1, name="b") == 1
    sql = "UPDATE things SET name=$1::VARCHAR WHERE things.id = $2::INTEGER"
    assert other.seen == [(sql, ("b", 1))] * 2
    rows = [statement.bind(other, name="c", thing_id=2)]
    assert statement.many(other, rows) == 1
    assert other.seen[-1] == (sql, [("c", 2)])
    assert prepare(select_things).one(other, state="made") is None
    other.fails = True
    with pytest.raises(StorageError, match="elsewhere"):
        statement.run(other, thing_id=1, name="b")
    with pytest.raises(StorageError, match="elsewhere"):
        statement.many(other, rows)


def named_in_nothing(*, at_most: int, wanted: str | None) -> Select[int]:
    return select(things.c.id).where(_is_absent(wanted)).limit(at_most)


def _is_absent(wanted: str | None) -> ColumnElement[bool]:
    return literal(wanted).is_(None) if wanted is None else wanted.is_(None)  # type: ignore[attr-defined] # reason: a bindparam


def test_an_argument_takes_the_type_of_its_annotation_where_nothing_else_gives_it_one(
    cursor: StoreCursor,
) -> None:
    other: Any = PostgresCursor()
    prepare(named_in_nothing).all(other, at_most=3, wanted=None)
    assert other.seen == [
        ("SELECT things.id FROM things WHERE $1::VARCHAR IS NULL LIMIT $2::BIGINT", (None, 3))
    ]
    # A column's own type comes first, with what it converts.
    prepare(insert_thing).run(cursor, name="a", body=b"", secret="abc")
    assert cursor.execute("SELECT secret FROM things").fetchall() == [("cba",)]


def test_a_driver_that_names_its_parameters_is_refused() -> None:
    class Naming(PostgresCursor):
        driver: Any = PostgresDriver()
        driver.dialect = POSTGRESQL

    naming: Any = Naming()
    with pytest.raises(UnpreparableStatementError, match="by name"):
        prepare(rename_thing).run(naming, thing_id=1, name="a")


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(UnpreparableStatementError, match="5 can't be prepared: it is no function"):
        prepare(5)  # type: ignore[call-overload] # reason: that is the test


def to_nowhere(*, state: str) -> Nowhere:  # type: ignore[name-defined] # noqa: F821 # reason: that is the case
    return select(things.c.id).where(things.c.state == state)


def to_a_number(*, state: str) -> int:
    return len(state)


@pytest.mark.parametrize(
    ("builder", "why"),
    [
        (to_nowhere, "its annotations can't be read .NameError: name 'Nowhere' is not defined"),
        (to_a_number, "annotated to return <class 'int'>, which is no statement"),
    ],
)
def test_what_is_not_annotated_with_a_statement_is_refused_as_it_is_prepared(
    builder: Any, why: str
) -> None:
    with pytest.raises(UnpreparableStatementError, match=why):
        prepare(builder)


documents = Table("documents", MetaData(), Column("id", Integer), Column("body", JSON))


def test_a_key_into_json_may_be_an_argument(cursor: StoreCursor) -> None:
    cursor.execute("CREATE TABLE documents (id INTEGER, body JSON)")
    for each in ('{"k": "1"}', '{"l": "1"}'):
        cursor.execute("INSERT INTO documents VALUES (1, ?)", (each,))

    @prepare
    def by_key(*, key: str) -> Select[str]:
        found = documents.c.body[key].as_string()
        return select(found).where(found == "1")

    assert by_key.all(cursor, key="k") == [("1",)] == ordinary(cursor, by_key(key="k"))


def test_a_name_within_is_none_of_an_argument(cursor: StoreCursor) -> None:
    @prepare
    def shadowing(*, state: str) -> Select[int]:
        def maybe(state: str | None) -> ColumnElement[bool]:
            return true() if state is None else things.c.state != state

        return select(things.c.id).where(things.c.state == state, maybe("zzz"))

    assert shadowing.all(cursor, state="new") == []


def test_what_is_annotated_with_anything_may_give_rows(cursor: StoreCursor) -> None:
    def found(*, state: str) -> Any:
        return select(things.c.id).where(things.c.state == state)

    def changed(*, state: str) -> Any:
        return update(things).values(state=state)

    assert prepare(found).all(cursor, state="new") == []
    assert prepare(changed).run(cursor, state="new") == 0


def test_a_generated_function_shows_its_source(cursor: StoreCursor) -> None:
    statement = prepare(rename_thing)
    statement.run(cursor, thing_id=1, name="a")
    source = inspect.getsource(statement.run)
    assert "return cursor_.execute(SQL_, (name, thing_id,)).rowcount" in source
    cursor.execute("DROP TABLE things")
    with pytest.raises(StorageError) as failure:
        statement.run(cursor, thing_id=1, name="a")
    shown = "".join(traceback.format_exception(failure.value))
    assert "raise explain_(error_, cursor_, statement_, (name, thing_id,)) from error_" in shown


def test_a_prepared_builder_is_still_its_builder() -> None:
    statement: Any = prepare(rename_thing)
    assert str(statement(thing_id=1, name="a")) == str(rename_thing(thing_id=1, name="a"))
    assert inspect.signature(statement) == inspect.signature(rename_thing)
    assert statement.__name__ == "rename_thing"
    assert prepare(insert_thing).__doc__ == insert_thing.__doc__


@pytest.mark.parametrize("name", generated.UNDOCUMENTED_ATTRIBUTES)
def test_sqlalchemy_still_has(name: str) -> None:
    """What the module reads beyond SQLAlchemy's documented interface, by name."""
    construct: ClauseElement = select(literal_column("1", BigInteger))
    assert hasattr(construct.compile(dialect=SQLITE), name), sqlalchemy.__version__


def test_the_undocumented_attributes_mean_what_they_did() -> None:
    construct = insert(things).values(name=bindparam("p_name"), state="made").returning(things.c.id)
    compiled: Any = construct.compile(dialect=SQLITE)
    assert compiled.positional is True
    assert compiled.positiontup == ["p_name", "state"]
    assert compiled.binds["p_name"].required
    assert compiled.binds["state"].value == "made"
    assert [entry.type for entry in compiled._result_columns] == [things.c.id.type]
    assert not compiled.insert_prefetch
    assert not compiled.update_prefetch
    expanded: Any = expanding(names=["a"]).compile(dialect=SQLITE)
    assert expanded.post_compile_params
    assert not compiled.post_compile_params
    assert not compiled.literal_execute_params
