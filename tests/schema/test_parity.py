"""The declared schemas against the canonical DDL, as text and as SQLite understands it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Column, ForeignKey, Index, Integer, MetaData, String, Table, create_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from lash_store._backends.postgresql.indexes import indexes_of
from lash_store._kernel.sharing import shared
from lash_store.errors import InvalidRecordError
from lash_store.schemas import KINDS, SCHEMAS, init_file, render, render_all, schema_of
from tests.support.databases import object_texts, pragma_facts
from tests.support.dialects import POSTGRESQL, SQLITE

CANONICAL = Path(__file__).parent / "canonical"
VERSIONS = {"session": 4, "process": 7, "trigger": 1, "effect": 1}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def canonical(kind: str) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.executescript((CANONICAL / f"{kind}.sql").read_text(encoding="utf-8"))
    return connection


def test_the_contract_here_is_the_contract_shared(root: Path, kind: str) -> None:
    shared = root.parent / "shared" / "canonical" / f"{kind}.sql"
    here = (CANONICAL / f"{kind}.sql").read_text(encoding="utf-8")
    assert here == (shared.read_text(encoding="utf-8") if shared.exists() else here)


def test_an_initialised_file_has_the_canonical_text(path: Path, kind: str) -> None:
    init_file(kind, path)
    with closing(sqlite3.connect(path)) as ours, closing(canonical(kind)) as theirs:
        assert object_texts(ours) == object_texts(theirs)
        assert ours.execute("PRAGMA user_version").fetchone() == (VERSIONS[kind],)


def test_an_initialised_file_has_the_canonical_pragma_facts(path: Path, kind: str) -> None:
    init_file(kind, path)
    with closing(sqlite3.connect(path)) as ours, closing(canonical(kind)) as theirs:
        assert pragma_facts(ours) == pragma_facts(theirs)


def test_create_all_gives_the_canonical_pragma_facts(kind: str) -> None:
    engine = create_engine("sqlite://")
    schema_of(kind).metadata.create_all(engine)
    with engine.connect() as connection, closing(canonical(kind)) as theirs:
        ours = connection.connection.dbapi_connection
        assert isinstance(ours, sqlite3.Connection)
        assert pragma_facts(ours) == pragma_facts(theirs)
    engine.dispose()


def test_a_file_made_from_the_canonical_ddl_opens(path: Path, kind: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((CANONICAL / f"{kind}.sql").read_text(encoding="utf-8"))
        connection.execute(f"PRAGMA user_version = {VERSIONS[kind]}")
    init_file(kind, path)


def test_a_stamped_file_made_by_create_all_opens(path: Path, kind: str) -> None:
    engine = create_engine(f"sqlite:///{path}")
    schema_of(kind).metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"PRAGMA user_version = {VERSIONS[kind]}")
    engine.dispose()
    init_file(kind, path)


def test_the_rendered_schema_is_not_stale(root: Path, kind: str) -> None:
    rendered = (root / "schema" / f"{kind}.sql").read_text(encoding="utf-8")
    assert rendered == render(schema_of(kind)), "run `nox -s schema`"


def test_the_rendered_schema_of_postgresql_is_not_stale(root: Path) -> None:
    """What it makes is looked at in ``tests/postgresql``."""
    rendered = (root / "schema" / "postgresql.sql").read_text(encoding="utf-8")
    assert rendered == render_all(SCHEMAS.values(), dialect="postgresql"), "run `nox -s schema`"


def test_another_dialect_and_a_bad_prefix_are_refused() -> None:
    with pytest.raises(InvalidRecordError, match="oracle"):
        render_all(SCHEMAS.values(), dialect="oracle")
    with pytest.raises(InvalidRecordError, match="no good"):
        render_all(SCHEMAS.values(), dialect="postgresql", prefix="no good")
    with pytest.raises(InvalidRecordError, match=r"our_.*canonical"):
        render_all(SCHEMAS.values(), dialect="sqlite", prefix="our_")


def test_the_rendered_schema_makes_the_canonical_database(root: Path, kind: str) -> None:
    with closing(sqlite3.connect(":memory:")) as ours, closing(canonical(kind)) as theirs:
        ours.executescript((root / "schema" / f"{kind}.sql").read_text(encoding="utf-8"))
        assert object_texts(ours) == object_texts(theirs)


def test_postgresql_has_bigint_where_sqlite_has_integer(kind: str) -> None:
    for table in schema_of(kind).tables:
        on_sqlite = str(CreateTable(table).compile(dialect=SQLITE)).split()
        on_postgresql = str(CreateTable(table).compile(dialect=POSTGRESQL)).split()
        words = [word.strip(",") for word in on_postgresql]
        integers = [word.strip(",") for word in on_sqlite].count("INTEGER")
        assert "INTEGER" not in words
        assert words.count("BIGINT") + words.count("BIGSERIAL") == integers


def test_partial_indexes_are_partial_on_postgresql() -> None:
    rendered = "\n".join(
        str(CreateIndex(index).compile(dialect=POSTGRESQL))
        for schema in SCHEMAS.values()
        for table in shared(schema, "").tables
        for index in indexes_of(table)
    )
    assert "WHERE committed_at_ms IS NULL" in rendered
    assert "CREATE UNIQUE INDEX idx_process_events_key" in rendered
    assert "WHERE idempotency_key IS NOT NULL" in rendered


def test_the_hook_leaves_a_consumers_tables_alone(kind: str) -> None:
    """Both in one MetaData: ours by create_all(), theirs exactly as without this library."""
    both = MetaData()
    for table in schema_of(kind).tables:
        table.to_metadata(both)
    orders = Table(
        "orders",
        both,
        Column("id", Integer, primary_key=True),
        Column("parent", ForeignKey("orders.id")),
        Column("name", String(20), unique=True, nullable=False, server_default="x"),
    )
    Index("idx_orders_name", orders.c.name)
    assert str(CreateTable(orders).compile(dialect=SQLITE)).split() == [
        *["CREATE", "TABLE", "orders", "(", "id", "INTEGER", "NOT", "NULL,", "parent", "INTEGER,"],
        *["name", "VARCHAR(20)", "DEFAULT", "'x'", "NOT", "NULL,", "PRIMARY", "KEY", "(id),"],
        *["FOREIGN", "KEY(parent)", "REFERENCES", "orders", "(id),", "UNIQUE", "(name)", ")"],
    ]
    engine = create_engine("sqlite://")
    both.create_all(engine)
    with engine.connect() as connection:
        names = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")
        found = {name for (name,) in names}
    engine.dispose()
    assert found >= {"orders", *(table.name for table in schema_of(kind).tables)}
