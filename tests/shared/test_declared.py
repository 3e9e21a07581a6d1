"""What an application declares beside our tables: tables of its own, indexes and triggers on ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    func,
    insert,
    literal_column,
    select,
    text,
)
from typer.testing import CliRunner

from lash_store import (
    Deployment,
    NewWork,
    ProcessRegistry,
    SessionStore,
    SessionTx,
    configure,
    create_tables,
)
from lash_store._kernel.options import Settings
from lash_store.cli.app import app
from lash_store.errors import (
    InvalidRecordError,
    NamesTakenError,
    SchemaDriftError,
    SchemaVersionError,
    StoreEmptyError,
)
from lash_store.moving import copy_deployment
from lash_store.process.tables import processes
from lash_store.schemas import (
    SCHEMAS,
    OwnTables,
    Trigger,
    check_file,
    render_all,
    stamp_tables,
)
from lash_store.session.tables import blobs, graph_nodes, queued_work_batches
from lash_store.tracing import explain
from tests.support.databases import all_rows, database_of, run_script
from tests.support.processes import workers


def own(version: int = 1, **more: Any) -> OwnTables:
    metadata = MetaData()
    notes = Table(
        "Notes",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("text", Text, nullable=False, index=True),
    )
    Table("tags", metadata, Column("note", ForeignKey(notes.c.id)), Column("tag", Text))
    return OwnTables("notes", version, metadata, **more)


OWN = own()
MEMBER = func.json_extract(graph_nodes.c.node_json, literal_column("'$.priority'"))
PRIORITY = Index("ix_priority", MEMBER)
POLICY = Index(
    "ix_policy",
    queued_work_batches.c.delivery_policy,
    sqlite_where=queued_work_batches.c.claim_id.is_(None),
)
UNIQUE = Index("ux_content", blobs.c.content, unique=True)
SEEN = Trigger(
    "seen", graph_nodes, "AFTER INSERT", "INSERT INTO Notes (text) VALUES (new.node_id);"
)
OF_PROCESSES = Index("ix_registered", processes.c.registration_hash)
EXTRAS: list[Index | Trigger] = [PRIORITY, POLICY, UNIQUE, SEEN, OF_PROCESSES]
Settings(extras=EXTRAS)  # which takes them off our tables: other tests make these by their metadata

Open = Callable[..., SessionStore]


@pytest.fixture(params=["file", "shared", "memory"])
def open_(request: pytest.FixtureRequest, path: Path) -> Open:
    where: Any = {"file": path, "shared": f"sqlite:///{path}", "memory": None}[request.param]

    def opened(**options: Any) -> SessionStore:
        return SessionStore.open(where, session_id="s", **options)

    return opened


@pytest.fixture(params=["file", "shared"])
def on_disk(request: pytest.FixtureRequest, path: Path) -> Open:
    where: Any = {"file": path, "shared": f"sqlite:///{path}"}[request.param]
    return lambda **options: SessionStore.open(where, session_id="s", **options)


def objects(store: SessionStore) -> set[str]:
    with store.read() as tx:
        found = tx.connection.execute(text("SELECT name FROM sqlite_master"))
        return {name for name in found.scalars() if not name.startswith("sqlite_")}


def insert_node(store: SessionStore, node_id: str) -> None:
    with store.begin() as tx:
        tx.connection.execute(insert(graph_nodes).values(node_id=node_id, node_json="{}"))


# Tables of its own.


def test_k_share_8_are_made_at_first_open_and_found_after_that(open_: Open) -> None:
    with open_(tables=[OWN]) as store:
        made = {"Notes", "tags", "ix_Notes_text", "lash_own_tables"}
        assert made <= objects(store)
        with store.begin() as tx:
            tx.connection.execute(OWN.tables[0].insert().values(text="x"))
            versions = tx.connection.execute(text("SELECT * FROM lash_own_tables")).all()
            assert [tuple(row) for row in versions] == [("notes", 1)]
        store.check_schema()
        with SessionStore.open(store, session_id="s", tables=[OWN]) as second, second.read() as tx:
            assert tx.connection.scalar(select(func.count()).select_from(OWN.tables[0])) == 1


def test_k_share_8_are_made_in_a_store_that_was_there_without_them(on_disk: Open) -> None:
    on_disk().close()
    with on_disk() as first:  # a second handle on what is open
        first.enqueue_work(NewWork([1]))
        on_disk(tables=[OWN]).close()
        first.enqueue_work(NewWork([2]))
        assert "Notes" in objects(first)
    on_disk().close()  # who does not declare them leaves them alone


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("DROP TABLE tags", "table tags: missing"),
        ("DROP INDEX ix_Notes_text", "index ix_notes_text: missing"),
        ("ALTER TABLE Notes ADD COLUMN more TEXT", "table notes: not as declared: more text"),
        ("CREATE INDEX mine ON Notes (text)", "index mine: not declared (in their metadata)"),
        (
            "CREATE TRIGGER mine AFTER INSERT ON tags BEGIN SELECT 1; END",
            "trigger mine: not declared",
        ),
    ],
)
def test_k_share_8_drift_is_refused(
    on_disk: Open, path: Path, change: str, difference: str
) -> None:
    on_disk(tables=[OWN]).close()
    run_script(path, change)
    before = all_rows(path)
    with pytest.raises(SchemaDriftError) as refusal:
        on_disk(tables=[OWN])
    assert any(line.startswith(difference) for line in refusal.value.differences), refusal.value
    assert refusal.value.kind == "notes"
    assert all_rows(path) == before
    on_disk().close()


@pytest.mark.parametrize("version", [0, 2])
def test_k_share_8_an_older_and_a_newer_version_are_refused(
    on_disk: Open, path: Path, version: int
) -> None:
    on_disk(tables=[OWN]).close()
    before = all_rows(path)
    with pytest.raises(SchemaVersionError, match="migrate them") as refusal:
        on_disk(tables=[own(version)])
    assert (refusal.value.kind, refusal.value.expected, refusal.value.found) == (
        "notes",
        version,
        1,
    )
    assert all_rows(path) == before


def test_k_share_8_names_that_are_taken_are_refused(on_disk: Open, path: Path) -> None:
    on_disk().close()
    run_script(path, "CREATE TABLE notes (x); INSERT INTO notes VALUES (7)")
    before = all_rows(path)
    with pytest.raises(NamesTakenError, match="not as the tables 'notes' were declared"):
        on_disk(tables=[OWN])
    assert all_rows(path) == before


def test_k_share_8_tables_that_are_there_as_declared_are_taken_over(
    on_disk: Open, path: Path
) -> None:
    on_disk().close()
    engine = create_engine(f"sqlite:///{path}")
    OWN.metadata.create_all(engine)
    engine.dispose()
    run_script(path, "INSERT INTO Notes (text) VALUES ('kept')")
    with on_disk(tables=[OWN]) as store, store.read() as tx:
        assert tx.connection.execute(select(OWN.tables[0].c.text)).scalars().all() == ["kept"]


def test_k_share_8_a_reader_makes_nothing(on_disk: Open, path: Path) -> None:
    on_disk().close()
    before = all_rows(path)
    with pytest.raises(StoreEmptyError, match="'notes' are not there"):
        on_disk(tables=[OWN], read_only=True)
    assert all_rows(path) == before
    on_disk(tables=[OWN]).close()
    on_disk(tables=[OWN], read_only=True).close()


def test_k_share_8_what_metadata_can_not_say(open_: Open) -> None:
    more = own(
        also=["CREATE VIEW short AS SELECT id FROM Notes", "CREATE VIRTUAL TABLE fts USING fts5(x)"]
    )
    with open_(tables=[more]) as store:
        assert {"short", "fts", "fts_data"} <= objects(store)
        SessionStore.open(store, session_id="s", tables=[more]).close()
        store.check_schema()


def test_k_share_8_a_migration_stamps_the_new_version(on_disk: Open, path: Path) -> None:
    on_disk(tables=[OWN]).close()
    newer = MetaData()
    columns = (Column("id", Integer, primary_key=True), Column("text", Text, nullable=False))
    Table("Notes", newer, *columns, Column("more", Text))
    two = OwnTables("notes", 2, newer)
    engine = create_engine(f"sqlite:///{path}")
    before = all_rows(path)
    with engine.begin() as connection, pytest.raises(SchemaDriftError):
        stamp_tables(connection, two)
    assert all_rows(path) == before
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX ix_Notes_text"))
        connection.execute(text("ALTER TABLE Notes ADD COLUMN more TEXT"))
        stamp_tables(connection, two)
    engine.dispose()
    on_disk(tables=[two]).close()
    with pytest.raises(SchemaVersionError):
        on_disk(tables=[OWN])


def open_at_once(tell: Any, where: str) -> None:
    tell("ready")
    tell.wait()
    with SessionStore.open(where, session_id="s", tables=[own()], extras=EXTRAS, adopt=True) as it:
        tell(sorted(objects(it)))


def test_k_share_8_first_openers_race(path: Path) -> None:
    run_script(path, "CREATE TABLE theirs (x)")
    with workers(8, open_at_once, f"sqlite:///{path}") as started:
        for each in started:
            assert each.receive() == "ready"
        for each in started:
            each.pipe.send("go")
        found = [each.receive() for each in started]
    assert found == [found[0]] * 8
    assert {"Notes", "ix_priority", "seen", "theirs"} <= set(found[0])


def test_k_share_8_bad_declarations_are_refused(path: Path) -> None:
    bad: Any = [["x"], "x", [OWN, own()]]
    for tables in bad:
        with pytest.raises(InvalidRecordError, match="tables"):
            SessionStore.open(path, session_id="s", tables=tables)
    wrong: Any = [("a b", 1), ("", 1), ("a", -1), ("a", "1")]
    for name, version in wrong:
        with pytest.raises(InvalidRecordError, match="tables"):
            OwnTables(name, version, MetaData())
    with pytest.raises(InvalidRecordError, match="one of ours"):
        OwnTables("a", 1, graph_nodes.metadata)
    with pytest.raises(InvalidRecordError, match="near"):
        SessionStore.open(path, session_id="s", tables=[own(also=["CREATE TABEL x (y)"])])
    assert not path.exists() or path.stat().st_size == 0
    with pytest.raises(InvalidRecordError, match="tables"):
        Deployment.open(path.parent / "folder", tables=[OWN])
    assert not (path.parent / "folder").exists()


# Indexes and triggers on ours.


def test_k_share_9_are_made_and_known(open_: Open) -> None:
    with open_(extras=EXTRAS, tables=[OWN]) as store:
        assert {"ix_priority", "ix_policy", "ux_content", "seen"} <= objects(store)
        assert "ix_registered" not in objects(store)  # which is on a table of processes
        store.check_schema()
        insert_node(store, "n")
        with store.read() as tx:
            assert tx.connection.execute(select(OWN.tables[0].c.text)).scalars().all() == ["n"]
            by_priority = select(graph_nodes.c.node_id).where(MEMBER == 1)
            assert any("ix_priority" in line for line in explain(tx, by_priority))
        SessionStore.open(store, session_id="s", extras=EXTRAS, tables=[OWN]).close()


def test_k_share_9_ours_stay_as_they_are_declared_for_who_declares_nothing(on_disk: Open) -> None:
    before = render_all(SCHEMAS.values(), dialect="postgresql")
    on_disk(extras=[POLICY, UNIQUE, PRIORITY]).close()
    assert render_all(SCHEMAS.values(), dialect="postgresql") == before


def test_k_share_9_are_made_in_a_store_that_was_there_without_them(on_disk: Open) -> None:
    on_disk().close()
    on_disk(extras=[POLICY]).close()
    with on_disk(extras=[POLICY, UNIQUE], read_only=True) as store:
        assert "ux_content" not in objects(store)  # a reader does without
    with on_disk(extras=[POLICY, UNIQUE]) as store:
        assert {"ix_policy", "ux_content"} <= objects(store)


def test_k_share_9_undeclared_ones_are_drift_that_says_how_to_declare_them(on_disk: Open) -> None:
    on_disk(extras=[POLICY]).close()
    chosen: list[list[Index | Trigger]] = [[], [UNIQUE]]
    for extras in chosen:
        with pytest.raises(SchemaDriftError, match=r"index ix_policy: not declared \(by extras="):
            on_disk(extras=extras)
    on_disk(extras=[POLICY]).close()


def test_k_share_9_any_takes_what_is_there(on_disk: Open) -> None:
    on_disk(extras=[POLICY]).close()
    with on_disk(extras="any") as store:
        (undeclared,) = store.undeclared_extras()
        assert undeclared.startswith("index ix_policy: not declared")
        store.enqueue_work(NewWork([1]))
    with on_disk(extras=[POLICY]) as store:
        assert store.undeclared_extras() == ()


def test_k_share_9_an_extra_of_another_text_is_drift(on_disk: Open, path: Path) -> None:
    with on_disk() as store:
        table = "lash_blobs" if "lash_blobs" in objects(store) else "blobs"
    run_script(path, f"CREATE INDEX ux_content ON {table} (hash)")
    with pytest.raises(SchemaDriftError, match="ux_content"):
        on_disk(extras=[UNIQUE])


def test_k_share_9_our_own_schema_stays_as_it_is(path: Path) -> None:
    """An Index is added to the table that it is built on, until it is declared."""
    loose = Index("ix_loose", queued_work_batches.c.slot_policy)
    try:
        with SessionStore.open(path, session_id="s") as store:
            assert "ix_loose" not in objects(store)
        with SessionStore.open(f"sqlite:///{path}2", session_id="s") as store:
            assert not {"ix_loose", "lash_ix_loose"} & objects(store)
        SessionStore.open(f"{path}3", session_id="s", extras=[loose]).close()
        assert loose not in queued_work_batches.indexes
    finally:
        queued_work_batches.indexes.discard(loose)


def test_k_share_9_a_unique_one_is_each_sessions_own(path: Path) -> None:
    url = f"sqlite:///{path}"
    for name in ("a", "b"):
        with SessionStore.open(url, session_id=name, extras=[UNIQUE]) as store:
            store.put_blob(b"the same")


def test_k_share_9_idle_connections_are_opened_again_with_them(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as first:
        with SessionStore.open(path, session_id="s", extras=[POLICY]):
            pass
        assert database_of(first).close_if_idle()
        first.enqueue_work(NewWork([1]))


def test_k_share_9_on_an_engine_of_the_consumers(path: Path) -> None:
    engine = configure(create_engine(f"sqlite:///{path}"), extras=EXTRAS, tables=[OWN])
    with engine.begin() as connection:
        tx = SessionTx.on(connection, session_id="s")
        tx.enqueue_work(NewWork([1]))
        connection.execute(OWN.tables[0].insert().values(text="x"))
    with engine.begin() as connection:
        SessionTx.on(connection, session_id="t")
    engine.dispose()
    undeclared = configure(create_engine(f"sqlite:///{path}"))
    with undeclared.begin() as connection, pytest.raises(SchemaDriftError, match="extras="):
        SessionTx.on(connection, session_id="s")
    undeclared.dispose()
    SessionStore.open(f"sqlite:///{path}", session_id="s", extras=EXTRAS, tables=[OWN]).close()


def test_k_share_9_in_a_migration(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        create_tables(connection, extras=EXTRAS, tables=[OWN])
    engine.dispose()
    url = f"sqlite:///{path}"
    SessionStore.open(url, session_id="s", extras=EXTRAS, tables=[OWN]).close()
    ProcessRegistry.open(url, extras=EXTRAS, tables=[OWN]).close()


def test_k_share_9_check_reports_them_and_goes_on(on_disk: Open, path: Path) -> None:
    on_disk(extras=[POLICY]).close()
    report = check_file(path)
    assert report.is_sound
    assert [line.partition(":")[0] for line in report.extras] == ["index ix_policy"]
    told = CliRunner().invoke(app, ["check", str(path)])
    assert told.exit_code == 0
    assert "beside ours: index ix_policy" in told.output


def test_k_share_9_copy_reports_them_and_goes_on(path: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{path}"
    with SessionStore.open(url, session_id="s", extras=[POLICY]) as store:
        store.enqueue_work(NewWork([1]))
    (unit,) = copy_deployment(url, tmp_path / "folder")
    assert [line.partition(":")[0] for line in unit.extras] == ["index ix_policy"]
    told = CliRunner().invoke(app, ["copy", url, str(tmp_path / "again")])
    assert told.exit_code == 0
    assert "not copied: index ix_policy" in told.output


def test_k_share_9_what_is_no_extra_of_ours_is_refused(path: Path) -> None:
    mine = OWN.tables[0]
    copied = graph_nodes.to_metadata(MetaData())
    bad: Any = [
        "some",
        7,
        ["CREATE INDEX x"],
        [Index("mine", mine.c.text)],
        [Index("loose", "x")],
        [Index("copied", copied.c.node_json)],
    ]
    for extras in bad:
        with pytest.raises(InvalidRecordError, match="extras"):
            SessionStore.open(path, session_id="s", extras=extras)
    mine.indexes.discard(bad[3][0])
    with pytest.raises(InvalidRecordError, match=r"trigger\.name"):
        Trigger("a b", graph_nodes, "AFTER INSERT", "SELECT 1")
    with pytest.raises(InvalidRecordError, match="extras or tables"):
        SessionStore.open(
            path, session_id="s", extras=[Trigger("t", graph_nodes, "AFTER LUNCH", "SELECT 1")]
        )
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_k_share_8_a_table_of_your_own_has_no_name_of_ours(path: Path) -> None:
    metadata = MetaData()
    Table("lash_blobs", metadata, Column("id", Integer))
    own = OwnTables("own", 1, metadata)
    with pytest.raises(InvalidRecordError, match="lash_blobs"):
        SessionStore.open(f"sqlite:///{path}", session_id="s", tables=[own])
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    there = f"sqlite:///{path}"
    with SessionStore.open(there, session_id="s", tables=[own], prefix="other_") as store:
        store.put_blob(b"x")


def test_k_share_9_a_name_that_something_else_has_is_refused_at_once(path: Path) -> None:
    run_script(path, "CREATE TABLE orders (p); CREATE INDEX ix_policy ON orders (p)")
    before = all_rows(path)
    for _ in range(2):
        with pytest.raises(NamesTakenError, match="ix_policy"):
            SessionStore.open(f"sqlite:///{path}", session_id="a", adopt=True, extras=[POLICY])
        assert all_rows(path) == before


def test_k_share_9_two_deployments_in_one_database_can_not_have_the_same(path: Path) -> None:
    url = f"sqlite:///{path}"
    SessionStore.open(url, session_id="a", extras=[POLICY]).close()
    with pytest.raises(NamesTakenError, match="ix_policy"):
        SessionStore.open(url, session_id="a", adopt=True, prefix="two_", extras=[POLICY])
    SessionStore.open(url, session_id="a", adopt=True, prefix="two_").close()
    SessionStore.open(url, session_id="a", extras=[POLICY]).close()


def test_k_share_8_references_to_ours(path: Path) -> None:
    metadata = MetaData()
    Table("mine", metadata, Column("process", ForeignKey(processes.c.process_id)))
    referring = OwnTables("mine", 1, metadata)
    ProcessRegistry.open(path, tables=[referring]).close()
    ProcessRegistry.open(path, tables=[referring]).close()
    with pytest.raises(InvalidRecordError, match="another name and key"):
        ProcessRegistry.open(f"sqlite:///{path}2", tables=[referring])
    unknown = MetaData()
    Table("mine", unknown, Column("process", ForeignKey("nowhere.id")))
    with pytest.raises(InvalidRecordError, match="nowhere"):
        ProcessRegistry.open(path, tables=[OwnTables("mine", 1, unknown)])
