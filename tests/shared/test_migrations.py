"""Our tables in an application's own migrations, and made by its own transactions."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text, create_engine
from sqlalchemy.orm import Session
from typer.testing import CliRunner

import lash_store.alembic
from lash_store import NewWork, SessionStore, SessionTx, configure, create_tables
from lash_store._stores.tx import Tx
from lash_store.cli.app import app
from lash_store.errors import (
    ForeignDatabaseError,
    InvalidRecordError,
    NamesTakenError,
    NotConfiguredError,
    StoreBusyError,
    StoreOpenError,
)
from lash_store.process.tx import ProcessTx
from lash_store.schemas import SCHEMAS, adopt_database
from tests.support.databases import all_rows, run_script

mine = MetaData()
notes = Table("notes", mine, Column("id", Integer, primary_key=True), Column("text", Text))


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    """An application's engine, not configured, on a database with a table of its own."""
    engine = create_engine(f"sqlite:///{path}")
    mine.create_all(engine)
    with engine.begin() as connection:
        connection.execute(notes.insert().values(text="x"))
    yield engine
    engine.dispose()


def kinds(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT * FROM lash_versions").fetchall())


ALL = {kind: schema.version for kind, schema in SCHEMAS.items()}


def difference(engine: Engine, **options: Any) -> list[Any]:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, mine))


@pytest.mark.parametrize("kind", ["sessions", Tx, dict, 7])
def test_a_kind_that_is_none_is_refused(engine: Engine, path: Path, kind: Any) -> None:
    with engine.begin() as connection:
        before = all_rows(path)
        with pytest.raises(InvalidRecordError, match="kind"):
            create_tables(connection, kind)
    assert all_rows(path) == before


def test_autogenerate_finds_nothing_before_and_after(engine: Engine, path: Path) -> None:
    ours = {"include_object": lash_store.alembic.include_object}
    assert difference(engine, **ours) == []
    with engine.begin() as connection:
        context = MigrationContext.configure(connection)
        operations = Operations(context)
        create_tables(operations.get_bind(), SessionTx, "process")
    assert kinds(path) == {"session": 4, "process": 7}
    assert len(difference(engine)) > 10  # it would drop them
    assert difference(engine, **ours) == []
    with engine.begin() as connection:
        create_tables(connection, prefix="more_")
    assert difference(engine, **ours) != []
    both = [lash_store.alembic.include_object, lash_store.alembic.including("more_")]
    assert difference(engine, include_object=lambda *o: all(each(*o) for each in both)) == []
    with SessionStore.open(f"sqlite:///{path}", session_id="s") as store:
        store.enqueue_work(NewWork([1]))
    assert difference(engine, include_object=lambda *o: all(each(*o) for each in both)) == []


def test_autogenerate_beside_our_own_metadata(engine: Engine, path: Path) -> None:
    """Copies of our tables in an application's metadata are ours too."""
    with engine.begin() as connection:
        create_tables(connection)
    everything = MetaData()
    for table in (*mine.tables.values(), *SCHEMAS["session"].tables):
        table.to_metadata(everything)
    with engine.connect() as connection:
        options = {"include_object": lash_store.alembic.include_object}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, everything) == []


def test_k_share_3_what_an_application_makes_it_can_roll_back(engine: Engine, path: Path) -> None:
    before = all_rows(path)
    with pytest.raises(ZeroDivisionError), engine.begin() as connection:
        create_tables(connection)
        connection.execute(notes.insert().values(text="y"))
        _ = 1 / 0
    assert all_rows(path) == before
    with engine.begin() as connection:
        create_tables(connection)
        connection.execute(notes.insert().values(text="y"))
        create_tables(connection)  # again: nothing to do
    assert kinds(path) == ALL
    with engine.connect() as connection:
        assert len(connection.execute(notes.select()).all()) == 2


def test_k_share_3_a_refusal_makes_nothing(engine: Engine, path: Path) -> None:
    run_script(path, "CREATE VIEW lash_processes AS SELECT 1")
    before = all_rows(path)
    with engine.begin() as connection:
        with pytest.raises(NamesTakenError, match="lash_processes"):
            create_tables(connection)
        with pytest.raises(InvalidRecordError, match="kind"):
            create_tables(connection, "sessions")  # type: ignore[arg-type] # reason: that is the test
        with pytest.raises(InvalidRecordError, match="prefix"):
            create_tables(connection, prefix="")
    assert all_rows(path) == before
    with pytest.raises(NotConfiguredError):
        create_tables(engine)  # type: ignore[arg-type] # reason: that is the test
    canonical = path.with_name("canonical.db")
    SessionStore.open(canonical, session_id="s").close()
    before = all_rows(canonical)
    there = create_engine(f"sqlite:///{canonical}")
    with there.begin() as connection, pytest.raises(ForeignDatabaseError):
        create_tables(connection)
    there.dispose()
    assert all_rows(canonical) == before


def test_k_share_3_adopting_by_command(engine: Engine, path: Path) -> None:
    run = CliRunner()
    for where in (str(path), f"sqlite:///{path}"):
        result = run.invoke(app, ["adopt", where])
        assert (result.exit_code, kinds(path)) == (0, ALL)
    assert "session, process, trigger, effect" in result.output
    check = run.invoke(app, ["check", str(path)])
    assert (check.exit_code, "shared" in check.output) == (0, True)
    missing = run.invoke(app, ["adopt", str(path.with_name("none.db"))])
    assert missing.exit_code == 1
    assert not path.with_name("none.db").exists()
    with pytest.raises(StoreOpenError):
        adopt_database("sqlite://")


def test_k_share_3_who_finds_it_locked_says_how_long_it_waited(path: Path) -> None:
    hasty = create_engine(f"sqlite:///{path}", connect_args={"timeout": 0.2})
    with closing(sqlite3.connect(path)) as other, hasty.connect() as connection:
        other.execute("BEGIN IMMEDIATE")
        before = all_rows(path)
        with pytest.raises(StoreBusyError) as caught:
            create_tables(connection)
        assert 150 <= caught.value.waited_ms < 15_000
        assert all_rows(path) == before
    hasty.dispose()


def test_k_share_3_eight_adopt_at_once(engine: Engine, path: Path) -> None:
    before = all_rows(path)["notes"]
    start, errors = threading.Barrier(8), []

    def adopt() -> None:
        start.wait()
        try:
            adopt_database(path)
        except BaseException as error:  # noqa: BLE001 # reason: shown below
            errors.append(error)

    threads = [threading.Thread(target=adopt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert kinds(path) == ALL
    assert all_rows(path)["notes"] == before


def test_k_share_5_a_session_of_the_orm_can_be_joined(path: Path) -> None:
    engine = configure(create_engine(f"sqlite:///{path}"))
    mine.create_all(engine)
    with Session(engine) as session, session.begin():
        session.execute(notes.insert().values(text="x"))
        tx = SessionTx.on(session, session_id="s")
        tx.enqueue_work(NewWork([1]))
        assert ProcessTx.on(session).load_process("p") is None
    with Session(engine) as session, pytest.raises(ZeroDivisionError), session.begin():
        SessionTx.on(session, session_id="s").enqueue_work(NewWork([2]))
        _ = 1 / 0
    engine.dispose()
    with SessionStore.open(f"sqlite:///{path}", session_id="s") as store:
        assert [batch.items[0].payload for batch in store.list_work()] == [1]


def test_our_tables_are_copied_under_a_naming_convention() -> None:
    """The one that Alembic recommends asks for a name of each CHECK; ours have none."""
    convention = {
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
    copied = MetaData(naming_convention=convention)
    for schema in SCHEMAS.values():
        assert schema.metadata.info == {"lash_store": schema.kind}
        for table in schema.tables:
            table.to_metadata(copied)
    engine = create_engine("sqlite://")
    copied.create_all(engine)
    with engine.connect() as connection:
        texts = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE sql LIKE '%CHECK%'")
        assert [text.count("CHECK (singleton = 1)") for text in texts.scalars()] == [1, 1]
    engine.dispose()


def test_k_share_3_what_is_no_kind_is_refused(engine: Engine, path: Path) -> None:
    before = all_rows(path)
    for kind in (SessionStore, 7, "sessions"):
        with engine.begin() as connection, pytest.raises(InvalidRecordError):
            create_tables(connection, kind)  # type: ignore[arg-type] # reason: what is refused
    assert all_rows(path) == before


def test_autogenerate_in_a_file_of_one_store(tmp_path: Path) -> None:
    """Whose tables have their own names: an application that has made its own there says so."""
    path = tmp_path / "session.db"
    with SessionStore.open(path, session_id="s") as store, store.begin() as tx:
        mine.create_all(tx.connection)
    engine = create_engine(f"sqlite:///{path}")
    assert len(difference(engine)) > 10
    assert difference(engine, include_object=lash_store.alembic.including("")) == []
    engine.dispose()
