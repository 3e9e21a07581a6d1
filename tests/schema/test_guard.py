"""K-GUARD: what the guard creates, accepts and refuses; a refusal changes nothing."""

from __future__ import annotations

import pickle
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from lash_store import EffectStore, SessionStore, SessionTx, configure
from lash_store.errors import SchemaDriftError, SchemaVersionError
from lash_store.schemas import KINDS, SCHEMAS, canonical_statements, init_file, schema_of
from tests.support.databases import all_rows, run_script

DRIFTS = {
    "missing table": ("DROP TABLE usage_deltas", "table usage_deltas: missing"),
    "missing index": ("DROP INDEX idx_queued_work_claim", "index idx_queued_work_claim: missing"),
    "added column": (
        "ALTER TABLE blobs ADD COLUMN extra TEXT",
        "table blobs: not as declared: extra text",
    ),
    "missing column": (
        "ALTER TABLE usage_deltas DROP COLUMN reasoning_tokens",
        "table usage_deltas: missing or changed: reasoning_tokens integer not null",
    ),
    "renamed column": (
        "ALTER TABLE blobs RENAME COLUMN content TO body",
        "table blobs: missing or changed: content blob not null",
    ),
    "changed type": (
        "DROP TABLE blobs; CREATE TABLE blobs (hash TEXT PRIMARY KEY, content TEXT NOT NULL)",
        "table blobs: not as declared: content text not null",
    ),
    "missing constraint": (
        "DROP TABLE session_head; CREATE TABLE session_head (singleton INTEGER PRIMARY KEY,"
        " session_id TEXT NOT NULL DEFAULT 'root', head_json TEXT NOT NULL DEFAULT '{}',"
        " head_revision INTEGER NOT NULL DEFAULT 0)",
        "table session_head: missing or changed: singleton integer primary key check ( singleton = 1 )",
    ),
    "changed default": (
        "DROP TABLE session_head; CREATE TABLE session_head (singleton INTEGER PRIMARY KEY"
        " CHECK (singleton = 1), session_id TEXT NOT NULL DEFAULT 'ROOT',"
        " head_json TEXT NOT NULL DEFAULT '{}', head_revision INTEGER NOT NULL DEFAULT 0)",
        "table session_head: not as declared: session_id text not null default 'ROOT'",
    ),
    "added constraint": (
        "DROP TABLE blobs; CREATE TABLE blobs (hash TEXT PRIMARY KEY, content BLOB NOT NULL) STRICT",
        "table blobs: not as declared: strict",
    ),
    "missing conflict clause": (
        "DROP TABLE queued_work_items; DROP TABLE queued_work_batches;"
        "CREATE TABLE queued_work_batches (enqueue_seq INTEGER PRIMARY KEY, batch_id TEXT NOT NULL"
        " UNIQUE, session_id TEXT NOT NULL, source_key TEXT, delivery_policy TEXT NOT NULL,"
        " slot_policy TEXT NOT NULL, merge_key_json TEXT NOT NULL, available_at_ms INTEGER NOT NULL,"
        " enqueued_at_ms INTEGER NOT NULL, claim_id TEXT, claim_owner_id TEXT, claim_token TEXT,"
        " claim_fencing_token INTEGER NOT NULL DEFAULT 0, claim_claimed_at_ms INTEGER NOT NULL"
        " DEFAULT 0, claim_expires_at_ms INTEGER NOT NULL DEFAULT 0, UNIQUE (session_id, source_key))",
        "table queued_work_batches: missing or changed: unique ( session_id , source_key ) on conflict ignore",
    ),
    "changed index": (
        "DROP INDEX idx_queued_work_claim;"
        "CREATE INDEX idx_queued_work_claim ON queued_work_batches (claim_id)",
        "index idx_queued_work_claim: missing or changed: session_id",
    ),
    "partial index made whole": (
        "DROP INDEX idx_attachment_manifest_uncommitted; CREATE INDEX"
        " idx_attachment_manifest_uncommitted ON attachment_manifest (committed_at_ms)",
        "index idx_attachment_manifest_uncommitted: missing or changed: where committed_at_ms is null",
    ),
    "added index": ("CREATE INDEX mine ON blobs (content)", "index mine: not declared"),
    "added trigger": (
        "CREATE TRIGGER mine AFTER INSERT ON blobs BEGIN DELETE FROM blobs; END",
        "trigger mine: not declared",
    ),
    "view in place of a table": (
        "DROP TABLE blobs; CREATE VIEW blobs AS SELECT 1 AS hash",
        "table blobs: missing",
    ),
    "and what the view is told to be": (
        "DROP TABLE blobs; CREATE VIEW blobs AS SELECT 1 AS hash",
        "view blobs: a table should be there",
    ),
}


@pytest.mark.parametrize(("change", "difference"), DRIFTS.values(), ids=DRIFTS.keys())
def test_k_guard_4_drift_is_refused_with_a_readable_difference(
    path: Path, change: str, difference: str
) -> None:
    init_file("session", path)
    run_script(path, change)
    before = all_rows(path)
    with pytest.raises(SchemaDriftError) as refusal:
        SessionStore.open(path, session_id="s")
    assert any(line.startswith(difference) for line in refusal.value.differences), str(
        refusal.value
    )
    assert str(path) in str(refusal.value)
    assert all_rows(path) == before


@pytest.mark.parametrize(("change", "difference"), DRIFTS.values(), ids=DRIFTS.keys())
def test_k_guard_4_drift_is_refused_for_readers_too(
    path: Path, change: str, difference: str
) -> None:
    init_file("session", path)
    run_script(path, change)
    with pytest.raises(SchemaDriftError):
        SessionStore.open(path, session_id="s", read_only=True)


def test_k_guard_4_check_schema_finds_drift_while_open(store: SessionStore, path: Path) -> None:
    store.check_schema()
    run_script(path, "DROP INDEX idx_queued_work_claim")
    with pytest.raises(SchemaDriftError):
        store.check_schema()


def test_k_guard_4_a_consumers_own_objects_are_no_drift(path: Path) -> None:
    init_file("session", path)
    run_script(
        path,
        "CREATE TABLE mine (id INTEGER PRIMARY KEY, note TEXT); CREATE INDEX mine_note ON mine (note);"
        "CREATE VIEW seen AS SELECT node_id FROM graph_nodes;"
        "CREATE TRIGGER own AFTER INSERT ON mine BEGIN UPDATE mine SET note = 'x'; END; ANALYZE;",
    )
    SessionStore.open(path, session_id="s").close()


def test_k_guard_4_white_space_quotes_comments_and_case_are_no_drift(path: Path) -> None:
    init_file("session", path)
    run_script(
        path,
        'DROP TABLE blobs; create table "blobs" ( [hash] text primary key, -- the key\n'
        "`content` BLOB not null /* bytes */ )",
    )
    SessionStore.open(path, session_id="s").close()


@pytest.mark.parametrize("found", [1, 3, 5, 7, 2**31 - 1, -1])
def test_k_guard_1_another_version_is_refused_unchanged(path: Path, found: int) -> None:
    init_file("session", path)
    run_script(path, f"PRAGMA user_version = {found}")
    before = all_rows(path)
    with pytest.raises(SchemaVersionError) as refusal:
        SessionStore.open(path, session_id="s")
    error = refusal.value
    assert (error.kind, error.expected, error.found, error.path) == ("session", 4, found, str(path))
    assert "no migration chain" in str(error)
    assert all_rows(path) == before


def test_k_guard_1_a_version_without_tables_is_drift(path: Path) -> None:
    run_script(path, "PRAGMA user_version = 4")
    with pytest.raises(SchemaDriftError) as refusal:
        SessionStore.open(path, session_id="s")
    assert len(refusal.value.differences) == len(canonical_statements(schema_of("session")))


def test_k_guard_1_a_foreign_database_is_refused_unchanged(path: Path) -> None:
    """Not even its journal mode is touched."""
    run_script(path, "CREATE TABLE theirs (id INTEGER PRIMARY KEY); INSERT INTO theirs VALUES (1)")
    before, content = all_rows(path), path.read_bytes()
    with pytest.raises(SchemaVersionError, match="tables without a version"):
        SessionStore.open(path, session_id="s")
    assert all_rows(path) == before
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", KINDS)
def test_k_guard_1_an_empty_file_is_initialised(path: Path, kind: str) -> None:
    path.touch()
    init_file(kind, path)
    assert all_rows(path)["user_version"] == [(schema_of(kind).version,)]


@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("opened", KINDS)
def test_k_guard_3_a_file_of_another_kind_is_refused(path: Path, made: str, opened: str) -> None:
    init_file(made, path)
    before = all_rows(path)
    if made == opened:
        init_file(opened, path)
    else:
        same_version = schema_of(made).version == schema_of(opened).version
        with pytest.raises(SchemaDriftError if same_version else SchemaVersionError):
            init_file(opened, path)
    assert all_rows(path) == before


def test_k_guard_5_initialises_inside_a_consumers_transaction(path: Path) -> None:
    """No hidden commit: what the consumer rolls back is gone, tables and version included."""
    engine = configure(create_engine(f"sqlite:///{path}"))
    with pytest.raises(ZeroDivisionError), engine.begin() as connection:
        SessionTx.on(connection, session_id="s").claim_lease(owner_id="a", ttl_ms=10)
        raise ZeroDivisionError
    assert all_rows(path) == {"user_version": [(0,)], "schema": []}
    with engine.begin() as connection:
        SessionTx.on(connection, session_id="s").claim_lease(owner_id="a", ttl_ms=10)
        connection.execute(text("CREATE TABLE mine (id INTEGER PRIMARY KEY)"))
    engine.dispose()
    rows = all_rows(path)
    assert rows["user_version"] == [(0,)]  # an application's own, if it has one
    assert rows["lash_versions"] == [("session", 4)]
    assert len(rows["session_execution_leases"]) == 1
    assert rows["mine"] == []


def test_k_guard_5_leaves_alone_what_a_consumers_database_has_already(path: Path) -> None:
    theirs = "CREATE TABLE blobs (id INTEGER PRIMARY KEY); INSERT INTO blobs VALUES (7);"
    run_script(path, theirs + "PRAGMA user_version = 77")
    engine = configure(create_engine(f"sqlite:///{path}"))
    with engine.begin() as connection:
        SessionTx.on(connection, session_id="s").put_artifact("a", kind="text", content=b"b")
    engine.dispose()
    rows = all_rows(path)
    assert rows["user_version"] == [(77,)]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM blobs").fetchall() == [(7,)]
        assert len(connection.execute("SELECT * FROM lash_blobs").fetchall()) == 1


@pytest.mark.parametrize("kind", SCHEMAS)
def test_k_guard_1_a_dump_that_was_read_back_is_told_what_mends_it(kind: str, path: Path) -> None:
    init_file(kind, path)
    restored = path.with_name("restored.db")
    with closing(sqlite3.connect(path)) as one, closing(sqlite3.connect(restored)) as two:
        two.executescript("\n".join(one.iterdump()))
    for opened in SCHEMAS:
        with pytest.raises(SchemaVersionError, match=f"tables of an? {kind} store") as refusal:
            init_file(opened, restored)
    assert refusal.value.mended_by is not None
    run_script(restored, refusal.value.mended_by.strip("`"))
    init_file(kind, restored)


@pytest.mark.parametrize("kind", SCHEMAS)
def test_k_guard_3_a_file_of_another_kind_is_called_by_its_kind(kind: str, path: Path) -> None:
    init_file(kind, path)
    for other, schema in SCHEMAS.items():
        if schema.version == SCHEMAS[kind].version:  # type: ignore[index] # reason: a str
            continue
        with pytest.raises(SchemaVersionError, match=f"It is an? {kind} store: open it as one"):
            init_file(other, path)


def test_k_guard_3_a_database_in_memory_is_called_by_its_kind() -> None:
    with SessionStore.open(None, session_id="s") as store:
        with pytest.raises(SchemaVersionError, match="It is a session store: open it as one"):
            EffectStore.open(store)


def test_each_statement_of_each_schema_is_checked() -> None:
    """Dropping any single object is noticed: the check leaves none out."""
    for schema in SCHEMAS.values():
        with closing(sqlite3.connect(":memory:")) as connection:
            for statement in canonical_statements(schema):
                connection.execute(statement)
            rows = connection.execute(
                "SELECT type, name FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%'"
            ).fetchall()
        assert len(rows) == len(canonical_statements(schema))


def test_errors_of_the_guard_pickle() -> None:
    for error in (
        SchemaVersionError("session", 4, 7, "x.db"),
        SchemaDriftError("session", "x.db", ["table blobs: missing"]),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
