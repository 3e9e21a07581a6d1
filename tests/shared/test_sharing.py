"""Opening a database that is shared: what is made in it, what is left alone, what is refused."""

from __future__ import annotations

import asyncio
import os
import pickle
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, MetaData, create_engine, delete, func, insert, make_url, select
from sqlalchemy.exc import IntegrityError

from lash_store import (
    Append,
    AsyncSessionStore,
    Checkpoint,
    Deployment,
    EffectStore,
    External,
    Host,
    LeaseHeld,
    NewWork,
    Node,
    ProcessRegistration,
    ProcessRegistry,
    Provenance,
    SessionDirectory,
    SessionLease,
    SessionStore,
    TriggerStore,
    TurnCommit,
    configure,
)
from lash_store._backends import place_name
from lash_store.effect.tx import EffectTx
from lash_store.errors import (
    ForeignDatabaseError,
    InvalidRecordError,
    NamesTakenError,
    NestedTransactionError,
    SchemaDriftError,
    SchemaVersionError,
    ScopeError,
    StorageError,
    StoreEmptyError,
    StoreOpenError,
    ThreadError,
    TransactionEndedError,
)
from lash_store.moving import copy_deployment
from lash_store.process.tx import ProcessTx
from lash_store.schemas import (
    KINDS,
    SCHEMAS,
    STALE_COUNT,
    adopt_database,
    check_file,
    create_tables,
    mend_file,
)
from lash_store.session.tables import blobs, graph_nodes, queued_work_batches
from lash_store.session.tx import SessionTx
from lash_store.statements import across_sessions
from lash_store.testing import ManualClock, as_another_process, run_as_group
from tests.support.databases import all_rows, database_of, run_script

STORES: dict[str, Any] = {
    "session": partial(SessionStore.open, session_id="s"),
    "process": ProcessRegistry.open,
    "trigger": TriggerStore.open,
    "effect": partial(EffectStore.open, owner_id="ann"),
}
every_kind = pytest.mark.parametrize("kind", STORES)


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


def objects(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {name: text for name, text in rows if not name.startswith("sqlite_")}


def one(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


@every_kind
def test_k_share_1_an_empty_database_gets_the_tables_of_the_kind_that_is_opened(
    kind: str, path: Path, url: str
) -> None:
    STORES[kind](url).close()
    tables = {f"lash_{table.name}" for table in SCHEMAS[kind].tables}  # type: ignore[index] # reason: a str
    found = {name for name in objects(path) if not name.startswith("lash_idx")}
    assert found == tables | {"lash_versions"}
    assert one(path, "SELECT * FROM lash_versions") == [(kind, SCHEMAS[kind].version)]  # type: ignore[index] # reason: a str
    assert one(path, "PRAGMA user_version") == [(0,)]
    STORES[kind](url).check_schema()


def test_all_kinds_in_one_database(path: Path, url: str) -> None:
    stores = [opened(url) for opened in STORES.values()]
    assert len({id(store._handle.database) for store in stores}) == 1
    found = dict(one(path, "SELECT * FROM lash_versions"))
    assert found == {kind: schema.version for kind, schema in SCHEMAS.items()}
    for store in stores:
        store.check_schema()
        store.close()
    for opened in STORES.values():
        opened(url, read_only=True).close()


def test_all_kinds_in_memory() -> None:
    sessions = SessionStore.open("sqlite://", session_id="s")
    others = [opened(sessions) for kind, opened in STORES.items() if kind != "session"]
    for other in others:
        other.check_schema()
    sessions.put_blob(b"x")
    for store in (*others, sessions):
        store.close()


def test_another_prefix_is_another_deployment(path: Path, url: str) -> None:
    SessionStore.open(url, session_id="s").close()
    with pytest.raises(ForeignDatabaseError, match="prefix 'lash_' there, not 'two_'"):
        SessionStore.open(url, session_id="s", prefix="two_")
    with (
        SessionStore.open(url, session_id="s") as one_,
        SessionStore.open(url, session_id="s", prefix="two_", adopt=True) as two,
    ):
        one_.enqueue_work(NewWork(["one"]))
        assert two.list_work() == []
        two.check_schema()
    assert "two_queued_work_batches" in objects(path)


def test_k_share_5_a_joined_transaction_is_under_the_prefix_of_its_engine(
    path: Path, url: str
) -> None:
    """Not under the one that is there, nor in a second deployment that nobody asked for."""
    with SessionStore.open(url, session_id="s", prefix="our_") as ours:
        ours.enqueue_work(NewWork(["ours"]))
    before = all_rows(path)
    for wanted in ("lash_", "two_"):
        engine = configure(create_engine(url), prefix=wanted)
        with engine.begin() as connection, pytest.raises(ForeignDatabaseError) as refusal:
            SessionTx.on(connection, session_id="s")
        assert f"prefix 'our_' there, not '{wanted}'" in str(refusal.value)
        assert "configure(engine, prefix='our_') joins them" in str(refusal.value)
        engine.dispose()
    assert all_rows(path) == before

    engine = create_engine(url)
    with engine.begin() as connection:
        create_tables(connection, prefix="two_")
    configure(configure(engine, prefix="two_"), prefix="our_")  # the first time holds
    for expected in (0, 1):
        with engine.begin() as connection:
            tx = SessionTx.on(connection, session_id="s")
            assert len(tx.list_work()) == expected
            tx.enqueue_work(NewWork(["two"]))
            written = connection.execute(select(queued_work_batches)).all()
            assert len(written) == expected + 1
    engine.dispose()
    engine = configure(create_engine(url), prefix="our_")
    with engine.begin() as connection:
        assert len(SessionTx.on(connection, session_id="s").list_work()) == 1
    engine.dispose()


def test_a_transaction_inside_one_under_another_prefix_is_nested(url: str) -> None:
    with (
        SessionStore.open(url, session_id="s") as one_,
        SessionStore.open(url, session_id="s", prefix="two_", adopt=True) as two,
    ):
        two.enqueue_work(NewWork(["two"]))
        calls: list[Callable[[], object]] = [
            lambda: two.enqueue_work(NewWork(["lost"])),
            lambda: two.transact(lambda tx: tx.enqueue_work(NewWork(["lost"]))),
            lambda: two.begin().__enter__(),
        ]
        with one_.begin() as tx:
            for call in calls:
                with pytest.raises(NestedTransactionError, match="under the prefix 'lash_'"):
                    call()
            assert len(two.list_work()) == 1
            tx.enqueue_work(NewWork(["one"]))
        with pytest.raises(NestedTransactionError, match="under the prefix 'lash_'"):
            one_.transact(lambda _: calls[0]())
        two.enqueue_work(NewWork(["after"]))
        assert (len(one_.list_work()), len(two.list_work())) == (1, 2)


@pytest.mark.parametrize(
    "prefix", ["", "lash", "Lash_", "1_", 'x"_', "a" * 40 + "_", "sqlite_", None]
)
def test_a_bad_prefix(prefix: Any, path: Path, url: str) -> None:
    with pytest.raises(InvalidRecordError, match="prefix"):
        SessionStore.open(url, session_id="s", prefix=prefix)
    assert not path.exists()


# Beside an application's own.

THEIRS = """
CREATE TABLE blobs (id INTEGER PRIMARY KEY); INSERT INTO blobs VALUES (7);
CREATE TABLE notes (text TEXT); CREATE VIEW processes AS SELECT 1; PRAGMA user_version = 77;
"""


def test_k_share_3_another_programs_database_is_left_alone_unless_it_is_to_be_adopted(
    path: Path, url: str
) -> None:
    run_script(path, THEIRS)
    before = path.read_bytes()
    with pytest.raises(ForeignDatabaseError, match=r"blobs, notes.*adopt=True"):
        SessionStore.open(url, session_id="s")
    with pytest.raises(ForeignDatabaseError):
        SessionStore.open(url, session_id="s", read_only=True)
    assert path.read_bytes() == before


@every_kind
def test_k_share_3_adopting_changes_nothing_that_is_there(kind: str, path: Path, url: str) -> None:
    run_script(path, THEIRS)
    before = objects(path)
    STORES[kind](url, adopt=True).close()
    for opened in STORES.values():
        opened(url).close()  # once it is adopted, every kind may come
    after = objects(path)
    assert {name: after[name] for name in before} == before
    assert {name for name in after if not name.startswith("lash_")} == set(before)
    assert one(path, "SELECT * FROM blobs") == [(7,)]
    assert one(path, "PRAGMA user_version") == [(77,)]


@pytest.mark.parametrize(
    "taken",
    [
        "CREATE TABLE lash_blobs (x)",
        "CREATE VIEW LASH_BLOBS AS SELECT 1",
        "CREATE TABLE t (x); CREATE INDEX lash_idx_queued_work_claim ON t (x)",
        "CREATE TABLE lash_versions (kind TEXT)",
    ],
)
def test_k_share_3_names_that_are_taken_are_named(taken: str, path: Path, url: str) -> None:
    run_script(path, taken)
    before = objects(path)
    with pytest.raises((NamesTakenError, SchemaDriftError, StoreOpenError)) as refusal:
        SessionStore.open(url, session_id="s", adopt=True)
    assert "lash_" in str(refusal.value).lower()
    assert objects(path) == before
    SessionStore.open(url, session_id="s", adopt=True, prefix="our_").close()


def test_adopt_is_for_urls(path: Path) -> None:
    with pytest.raises(InvalidRecordError, match="adopt"):
        SessionStore.open(path, session_id="s", adopt=True)
    assert not path.exists()


# The two layouts, and who mistakes one for the other.


@every_kind
def test_k_share_1_a_canonical_file_is_opened_by_its_path(kind: str, path: Path, url: str) -> None:
    STORES[kind](path).close()
    before = objects(path)
    for opened in STORES.values():
        for adopt in (False, True):
            with pytest.raises(
                ForeignDatabaseError,
                match=f"{kind} store, and holds nothing else: open it by its path",
            ):
                opened(url, adopt=adopt)
    assert objects(path) == before


@every_kind
def test_k_share_1_a_shared_database_is_opened_by_its_url(kind: str, path: Path, url: str) -> None:
    STORES[kind](url).close()
    before = objects(path)
    for opened in STORES.values():
        with pytest.raises(StoreOpenError, match="open it by its URL, sqlite:///"):
            opened(path)
    assert objects(path) == before


@every_kind
def test_k_share_4_another_version_is_refused(kind: str, path: Path, url: str) -> None:
    STORES[kind](url).close()
    for version in (0, 99):
        run_script(path, f"UPDATE lash_versions SET version = {version}")
        before = all_rows(path)
        with pytest.raises(SchemaVersionError) as refusal:
            STORES[kind](url)
        assert all_rows(path) == before
        assert refusal.value.found == version
        assert "delete" not in str(refusal.value)


@every_kind
def test_k_share_4_drift_is_found(kind: str, path: Path, url: str) -> None:
    table = f"lash_{SCHEMAS[kind].tables[0].name}"  # type: ignore[index] # reason: a str
    for change in (
        f"ALTER TABLE {table} ADD COLUMN more TEXT",
        f"CREATE TRIGGER mine AFTER DELETE ON {table} BEGIN SELECT 1; END",
        f"DROP TABLE {table}",
        "ALTER TABLE lash_versions ADD COLUMN more TEXT",
    ):
        path.unlink(missing_ok=True)
        STORES[kind](url).close()
        run_script(path, f"PRAGMA foreign_keys = OFF; {change}")
        with pytest.raises(SchemaDriftError, match="lash_"):
            STORES[kind](url)
        report = check_file(path)
        assert report.kind == "shared"
        assert report.problems or "CREATE TRIGGER mine" in str(report.extras)


@pytest.mark.parametrize("where", ["file", "shared"])
def test_k_share_4_check_finds_a_checkpoint_that_nobody_can_go_on_from(
    path: Path, where: str
) -> None:
    place = path if where == "file" else f"sqlite:///{path}"
    table = "blobs" if where == "file" else "lash_blobs"
    with SessionStore.open(place, session_id="s") as store:
        lease = lease_of(store)
        store.commit_turn(TurnCommit(fence=lease.fence, checkpoint=Checkpoint({"n": 1})))
    assert check_file(path).problems == ()
    for damage in (f"UPDATE {table} SET content = x'00'", f"DELETE FROM {table}"):
        run_script(path, damage)
        (problem,) = check_file(path).problems
        assert "the head's checkpoint can't be read" in problem
        with pytest.raises(StorageError, match="not sound"):
            mend_file(place)


@pytest.mark.parametrize("where", ["file", "shared"])
def test_k_share_4_an_applications_tables_are_not_taken_for_ours(path: Path, where: str) -> None:
    SessionStore.open(path if where == "file" else f"sqlite:///{path}", session_id="s").close()
    run_script(path, "CREATE TABLE document_versions (id, body); CREATE TABLE document_blobs (id)")
    report = check_file(path)
    assert (report.kind, report.problems) == ("session" if where == "file" else "shared", ())


def test_k_share_4_check_looks_at_all_kinds_and_sessions(path: Path, url: str) -> None:
    for opened in STORES.values():
        opened(url).close()
    for name in "ab":
        with SessionStore.open(url, session_id=name) as store:
            store.commit_turn(turn(store, lease_of(store), "n1", "n2"))
    for where in (path, url):
        report = check_file(where)
        assert (report.kind, report.problems) == ("shared", ())
    run_script(path, "UPDATE lash_graph_nodes SET tombstoned = 1 WHERE store = 'b' AND seq = 1")
    (problem,) = check_file(path).problems
    assert problem == "b: the head's graph_node_count is 2, and there are 1 live nodes"
    mend_file(path)
    assert check_file(path).problems == ()
    run_script(path, "UPDATE lash_session_head SET head_json = '{' WHERE store = 'a'")
    assert "a: the session's head can't be read" in check_file(path).problems
    run_script(path, "UPDATE lash_versions SET version = 9 WHERE kind = 'effect'")
    run_script(path, "CREATE INDEX mine ON lash_processes (status)")
    assert check_file(path).problems == ("lash_: effect has version 9, expected 1",)
    (extra,) = check_file(path).extras
    assert extra.startswith("index mine: not declared")
    with pytest.raises(StoreOpenError):
        check_file("sqlite://")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "session"])
def test_k_share_4_check_names_a_kind_that_the_versions_do_not(
    kind: str, path: Path, url: str
) -> None:
    """Nobody could open it: its tables would be taken for somebody else's."""
    for opened in STORES.values():
        opened(url).close()
    run_script(path, f"DELETE FROM lash_versions WHERE kind = '{kind}'")
    with pytest.raises(NamesTakenError):
        STORES[kind](url)
    (problem,) = check_file(path).problems
    assert problem.startswith(f"lash_: tables of {kind} are there, and lash_versions does not")
    before = all_rows(path)
    with pytest.raises(StorageError, match="not sound"):
        mend_file(path)
    assert all_rows(path) == before


@pytest.mark.parametrize("shared", [True, False])
def test_s_commit_7_what_is_damaged_is_not_mended(path: Path, url: str, shared: bool) -> None:
    """The count that is stored is right, and that of what can be found is not."""
    place: Any = url if shared else path
    prefix = "lash_" if shared else ""
    with SessionStore.open(place, session_id="s") as store:
        nodes = [Node(f"n{at}", f"n{at - 1}" if at else None) for at in range(30)]
        graph = Append(nodes, leaf="n29")
        store.commit_turn(TurnCommit(fence=lease_of(store).fence, graph=graph))
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA journal_mode = DELETE")
        (size,) = raw.execute("PRAGMA page_size").fetchone()
        (root,) = raw.execute(
            "SELECT rootpage FROM sqlite_master WHERE type = 'index' AND tbl_name = ? LIMIT 1",
            (f"{prefix}graph_nodes",),
        ).fetchone()
    with path.open("r+b") as file:  # a page of an index that has lost some of its entries
        file.seek((root - 1) * size + 3)
        cells = int.from_bytes(file.read(2), "big")
        file.seek(-2, 1)
        file.write((cells - 5).to_bytes(2, "big"))
    problems = check_file(place).problems
    assert problems
    assert not [each for each in problems if STALE_COUNT in each]
    before = path.read_bytes()
    with pytest.raises(StorageError, match="not sound"):
        mend_file(place)
    assert path.read_bytes() == before


def test_k_open_10_adopt_refuses_a_second_name(path: Path) -> None:
    other = path.with_name("other.db")
    run_script(path, "PRAGMA journal_mode = WAL; CREATE TABLE orders (id)")
    other.hardlink_to(path)
    before = path.read_bytes()
    for where in (other, f"sqlite:///{other}"):
        with pytest.raises(StoreOpenError, match="2 names"):
            adopt_database(where)
    assert path.read_bytes() == before
    assert not other.with_name("other.db-wal").exists()
    other.unlink()
    link = path.with_name("link.db")
    link.symlink_to(path)
    adopt_database(link)
    assert check_file(path).kind == "shared"


def test_k_open_14_adopt_says_what_can_not_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreOpenError, match="pipe"):
        adopt_database(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    run_script(tmp_path / "app.db", "CREATE TABLE orders (id)")
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)  # whoever runs this
    with pytest.raises(StoreOpenError, match="no permission to write it"):
        adopt_database("app.db")


def test_a_reader_makes_nothing(path: Path, url: str) -> None:
    sqlite3.connect(path).close()
    path.touch()
    with pytest.raises(StoreEmptyError):
        SessionStore.open(url, session_id="s", read_only=True)
    ProcessRegistry.open(url).close()
    with pytest.raises(StoreEmptyError):
        SessionStore.open(url, session_id="s", read_only=True)
    assert "lash_blobs" not in objects(path)


@pytest.mark.parametrize(
    "url",
    [
        Path("sqlite:///app.db"),
        make_url("sqlite://u:secret@h/app.db"),
        "postgresql:/u:secret@h/app",
    ],
)
def test_k_share_1_a_url_that_is_no_str_is_refused(url: Any) -> None:
    """As a path it would be a folder's name; SQLAlchemy's own hides its password where it is made a str."""
    for refused in (
        lambda: Deployment.open(url),
        lambda: SessionDirectory(url),
        lambda: SessionStore.open(url, session_id="s"),
        lambda: check_file(url),
        lambda: copy_deployment(url, "target"),
        lambda: copy_deployment("source", url),
    ):
        with pytest.raises(StoreOpenError, match="has to be a str") as error:
            refused()
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:secret@host/db",
        "sqlite://host/db",
        "sqlite:///x.db?mode=ro",
        "sqlite:///x?y.db",
        "sqlite:///x.db?",
        "postgresql+psycopg://user:secret@host:port/db",
        "mysql:///x",
        "mysql://user:secret@host/x",
        "sqlite+nothing:///x",
        "http://[",
    ],
)
def test_k_share_1_other_urls_are_refused_and_show_no_password(url: str) -> None:
    with pytest.raises(StoreOpenError) as refusal:
        SessionStore.open(url, session_id="s")
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://user:secret@host/db", "postgresql+psycopg://user@host/db"),
        ("postgresql://user@host/db?password=secret&a=b", "postgresql://user@host/db?a=b"),
        ("mysql://user:secret@host/x", "mysql://user@host/x"),
        ("postgresql+psycopg://user:secret@host:port/db", "postgresql+psycopg"),
        ("sqlite:///x.db", "sqlite:///x.db"),
        ("sqlite:///a ü%20.db", "sqlite:///a ü%20.db"),
        ("sqlite://user:secret@host/x", "sqlite://user@host/x"),
        ("sqlite:///x.db?password=secret", "sqlite:///x.db"),
        ("sqlite+pysqlcipher://:secret@/x.db", "sqlite+pysqlcipher://@/x.db"),
        ("postgresql:/user:secret@host/db", "postgresql"),
        ("x.db", "x.db"),
    ],
)
def test_k_share_1_a_place_is_named_without_a_password(url: str, shown: str) -> None:
    assert place_name(url) == shown


@pytest.mark.parametrize("folder", ["a%20b", "what?", "a b", "50%", "ü#"])
@pytest.mark.parametrize(
    "name", ["app.db", "50%25.db", "50%.db", "what?.db", "a%20b.db", "ü#&=.db"]
)
def test_k_share_1_every_way_leads_to_the_file_that_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, name: str
) -> None:
    """Whatever of its name, or of the folder's, is special in a URL."""
    at = tmp_path / folder
    at.mkdir()
    monkeypatch.chdir(at)
    url = "sqlite:///" + name.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
    with SessionStore.open(url, session_id="chat") as store:
        store.enqueue_work(NewWork([1]))
        assert Path(store.path) == at.resolve() / name

    async def depth() -> int:
        async with AsyncSessionStore.open(url, session_id="chat") as store:
            return (await store.work_depth()).batches

    assert asyncio.run(depth()) == 1
    with Deployment.open(url) as deployment:
        assert deployment.root == at / name
        assert deployment.sessions.open("chat") is None  # there is no meta of it
        deployment.sessions.create("chat", model="m").close()
    for place in (name, at / name, url):
        assert check_file(place).problems == ()
        mend_file(place)
        adopt_database(place, prefix="other_")
    assert copy_deployment(url, at / "copied") != []
    beside = {f"{name}{suffix}" for suffix in ("-queue", "-wal", "-shm")}
    assert {each.name for each in at.iterdir()} - beside == {name, "copied"}
    assert {each.name for each in tmp_path.iterdir()} == {folder}


def test_k_share_1_a_database_that_is_adopted_is_the_one_that_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect("50%25.db")) as connection:
        connection.execute("CREATE TABLE own (a)")
    adopt_database("50%25.db")
    assert [each.name for each in tmp_path.iterdir()] == ["50%25.db"]
    assert check_file("50%25.db").kind == "shared"


def test_k_share_1_no_folder_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for refused in (Deployment.open, SessionDirectory):
        with pytest.raises(StoreOpenError, match="no folder in memory"):
            refused(":memory:")
    assert list(tmp_path.iterdir()) == []


def test_k_guard_4_an_empty_database_is_told(url: str, path: Path) -> None:
    """A store was opened on it, and all its tables are gone."""
    with SessionStore.open(url, session_id="s") as store:
        with closing(sqlite3.connect(path)) as connection:
            tables = [
                n
                for (n,) in connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table'"
                )
            ]
            for name in reversed(tables):
                connection.execute(f"DROP TABLE {name}")
            connection.commit()
        with pytest.raises(StoreEmptyError, match="not a session store yet"):
            store.check_schema()


@pytest.mark.parametrize("parent", ["id", "no_key"])
def test_k_guard_4_what_an_applications_rows_refer_to_is_its_own(
    tmp_path: Path, url: str, path: Path, parent: str
) -> None:
    """SQLite checks no references by default, so rows that refer to none are common."""
    with Deployment.open(url) as deployment:
        deployment.sessions.create("s", model="m").enqueue_work(NewWork([1]))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE customers (id INTEGER PRIMARY KEY, no_key INTEGER);"
            f"CREATE TABLE orders (id INTEGER, customer INTEGER REFERENCES customers ({parent}));"
            "INSERT INTO orders VALUES (1, 7);"
        )
    assert check_file(url).problems == ()
    mend_file(url)
    assert copy_deployment(url, tmp_path / "copied") != []
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM lash_queued_work_batches")
        connection.commit()
    (problem,) = check_file(url).problems
    assert "refers to a missing row of lash_queued_work_batches" in problem


def test_errors_pickle() -> None:
    for error in (
        ForeignDatabaseError("x.db", ["a", "b"]),
        NamesTakenError("x.db", ["a", "b"]),
        ScopeError("this connection"),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_k_share_3_first_openers_race(path: Path, url: str) -> None:
    """Each with connections of its own, as processes have them; each of another kind, some alike."""
    errors: list[BaseException] = []
    start = threading.Barrier(8)

    def first(opened: Any) -> None:
        try:
            start.wait()
            with as_another_process():
                opened(url).close()
        except BaseException as error:  # noqa: BLE001 # reason: shown below
            errors.append(error)

    run_script(path, THEIRS)
    openers = [partial(opened, adopt=True) for opened in STORES.values()] * 2
    threads = [threading.Thread(target=first, args=(each,)) for each in openers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = dict(one(path, "SELECT * FROM lash_versions"))
    assert found == {kind: schema.version for kind, schema in SCHEMAS.items()}


# Many sessions.


def turn(store: SessionStore, lease: SessionLease, *names: str) -> TurnCommit:
    nodes = [Node(name, None, {"of": store.session_id}) for name in names]
    return TurnCommit(fence=lease.fence, graph=Append(nodes, leaf=names[0]))


def lease_of(store: SessionStore) -> SessionLease:
    lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
    assert isinstance(lease, SessionLease)
    return lease


def test_k_share_2_sessions_have_rows_of_their_own(url: str) -> None:
    names = ["a", "b", "c"]
    stores = [SessionStore.open(url, session_id=name) for name in names]
    for store in stores:
        store.commit_turn(turn(store, lease_of(store), "n1", "n2"))
        store.enqueue_work(NewWork([store.session_id], source_key="k"))
    for store in stores:
        graph = store.load_graph()
        assert graph is not None
        assert [node.fields["of"] for node in graph.nodes] == [store.session_id] * 2
        (batch,) = store.list_work()
        assert (batch.enqueue_seq, batch.items[0].payload) == (1, store.session_id)
        store.close()


def test_k_share_2_calls_of_different_sessions_are_one_group(url: str) -> None:
    """The scope goes with each call: in a group, after a failure, and when done again."""
    a, b = (SessionStore.open(url, session_id=name) for name in "ab")
    leases = lease_of(a), lease_of(b)
    for at in range(2):
        results = run_as_group(
            partial(a.enqueue_work, NewWork([f"a{at}"])),
            partial(b.commit_turn, turn(b, leases[1], f"n{at}")),
            partial(a.commit_turn, turn(a, leases[1], "never")),  # of another session
            partial(b.commit_turn, turn(b, leases[1], "x", f"n{at}")),  # fails when it has written
            partial(a.commit_turn, turn(a, leases[0], f"n{at}")),
            partial(b.enqueue_work, NewWork([f"b{at}"])),
        )
        assert [isinstance(each, Exception) for each in results] == [
            False,
            False,
            True,
            True,
            False,
            False,
        ]
    for store in (a, b):
        graph = store.load_graph()
        assert graph is not None
        found = [(node.node_id, node.fields["of"]) for node in graph.nodes]
        assert found == [("n0", store.session_id), ("n1", store.session_id)]
        payloads = [batch.items[0].payload for batch in store.list_work()]
        assert payloads == [f"{store.session_id}0", f"{store.session_id}1"]
        store.close()


def test_one_more_session_takes_no_descriptor(url: str) -> None:
    first = SessionStore.open(url, session_id="first")
    SessionStore.open(url, session_id="second").close()
    database = database_of(first)
    before = len(database.all_connections)
    stores = [SessionStore.open(url, session_id=f"s{at}") for at in range(100)]
    assert len(database.all_connections) == before
    for store in (*stores, first):
        store.close()


def test_many_tasks_of_many_sessions(url: str) -> None:
    async def main() -> None:
        stores = [AsyncSessionStore.open(url, session_id=f"s{at}") for at in range(20)]

        async def one_session(store: AsyncSessionStore) -> None:
            for at in range(10):
                await store.enqueue_work(NewWork([f"{store.session_id} {at}"]))
            async with asyncio.timeout(60):
                batches = await store.list_work()
            assert [batch.enqueue_seq for batch in batches] == list(range(1, 11))
            assert [batch.items[0].payload for batch in batches] == [
                f"{store.session_id} {at}" for at in range(10)
            ]

        await asyncio.gather(*map(one_session, stores))
        for store in stores:
            await store.aclose()

    asyncio.run(main())


# An application's own transactions.


def test_k_share_5_a_consumers_transaction_of_two_kinds_is_one(path: Path, url: str) -> None:
    run_script(path, THEIRS)
    engine = configure(create_engine(url))
    clock = ManualClock()
    with pytest.raises(ZeroDivisionError), engine.begin() as connection:
        SessionTx.on(connection, session_id="s", clock=clock).enqueue_work(NewWork(["x"]))
        EffectTx.on(connection, owner_id="ann", clock=clock).begin_effect("scope", "key")
        connection.exec_driver_sql("INSERT INTO notes VALUES ('n')")
        _ = 1 / 0
    assert one(path, "SELECT * FROM notes") == []
    with engine.begin() as connection:
        tx = SessionTx.on(connection, session_id="s", clock=clock)
        tx.enqueue_work(NewWork(["x"]))
        EffectTx.on(connection, owner_id="ann", clock=clock).begin_effect("scope", "key")
        connection.exec_driver_sql("INSERT INTO notes VALUES ('n')")
        connection.execute(insert(blobs).values(hash="h", content=b"c"))
        assert connection.execute(select(blobs.c.hash)).all() == [("h",)]
    engine.dispose()
    assert one(path, "SELECT store, hash FROM lash_blobs") == [("s", "h")]
    assert one(path, "SELECT * FROM blobs") == [(7,)]
    with SessionStore.open(url, session_id="s") as store:
        assert [batch.items[0].payload for batch in store.list_work()] == ["x"]


def test_k_share_5_of_two_sessions_on_one_connection_a_statement_has_to_say_which(url: str) -> None:
    engine = configure(create_engine(url))
    with engine.begin() as connection:
        for name in "ab":
            tx = SessionTx.on(connection, session_id=name)
            tx.commit_turn(TurnCommit(fence=_claimed(tx), graph=Append([Node(name, None)], name)))
        with pytest.raises(ScopeError, match=r"a, b|b, a"):
            connection.execute(select(graph_nodes.c.node_id))
        for name in "ab":
            chosen = select(graph_nodes.c.node_id).execution_options(lash_store_session=name)
            assert connection.execute(chosen).scalars().all() == [name]
    with engine.begin() as connection, pytest.raises(ScopeError):
        connection.execute(select(graph_nodes))  # nobody has joined this one
    engine.dispose()


def test_k_share_5_a_scope_ends_with_its_transaction(url: str) -> None:
    """What the same connection runs by itself afterwards is about nobody."""
    engine = configure(create_engine(url, pool_size=1, max_overflow=0))
    with engine.begin() as connection:
        SessionTx.on(connection, session_id="a").put_blob(b"x")
        assert len(connection.execute(select(blobs.c.hash)).all()) == 1
    alone = engine.execution_options(isolation_level="AUTOCOMMIT")
    with alone.connect() as connection, pytest.raises(ScopeError):
        connection.execute(select(blobs.c.hash))
    engine.dispose()


def _claimed(tx: SessionTx) -> Any:
    lease = tx.claim_lease(owner_id="ann", ttl_ms=60_000)
    assert not isinstance(lease, LeaseHeld)
    return lease.fence


def test_an_engine_that_was_configured_first_finds_what_is_there(url: str) -> None:
    engine = configure(create_engine(url))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE mine (x)")
    SessionStore.open(url, session_id="s", adopt=True).close()
    with engine.begin() as connection:
        chosen = select(blobs.c.hash).execution_options(lash_store_session="s")
        assert SessionTx.on(connection, session_id="s").list_work() == []
        assert connection.execute(chosen).all() == []
    engine.dispose()


def test_k_share_5_what_is_joined_is_compared_once_for_each_change_of_the_schema(url: str) -> None:
    SessionStore.open(url, session_id="s").close()
    engine = configure(create_engine(url))
    with engine.begin() as connection:
        SessionTx.on(connection, session_id="s").list_work()
    sent: list[str] = []
    with engine.begin() as connection:
        raw: Any = connection.connection.dbapi_connection
        raw.set_trace_callback(sent.append)
        SessionTx.on(connection, session_id="s")
        raw.set_trace_callback(None)
    assert sent == ["PRAGMA foreign_keys", "PRAGMA schema_version"]
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE INDEX mine ON lash_blobs (content)")
    with engine.begin() as connection, pytest.raises(SchemaDriftError, match="mine"):
        SessionTx.on(connection, session_id="s")
    engine.dispose()


def test_k_share_5_what_a_refused_commit_has_made_is_made_again(url: str) -> None:
    SessionStore.open(url, session_id="s").close()
    engine = configure(create_engine(url))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE parents (id int PRIMARY KEY)")
        connection.exec_driver_sql(
            "CREATE TABLE children (parent REFERENCES parents DEFERRABLE INITIALLY DEFERRED)"
        )
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO children VALUES (1)")
        for _ in range(2):  # its tables are made, and they are compared
            assert EffectTx.on(connection).list_effects() == []
        made = _schema_version(connection)
    with engine.begin() as connection:
        for each in range(made - _schema_version(connection)):  # by others, as often
            connection.exec_driver_sql(f"CREATE TABLE mine_{each} (x)")
    with engine.begin() as connection:
        assert _schema_version(connection) == made
        assert EffectTx.on(connection).list_effects() == []
    engine.dispose()


def _schema_version(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA schema_version").scalar_one())


# One transaction for several kinds and sessions.


def wake_up(sessions: SessionTx) -> None:
    processes, effects = ProcessTx.beside(sessions), EffectTx.beside(sessions, owner_id="ann")
    other = SessionTx.beside(sessions, session_id="other")
    sessions.enqueue_work(NewWork(["mine"]))
    other.enqueue_work(NewWork(["theirs"]))
    processes.register_process(ProcessRegistration("p", External({}), Provenance(Host())))
    effects.begin_effect("scope", "key")
    assert {each.now_ms for each in (sessions, processes, effects, other)} == {sessions.now_ms}


def seen(url: str) -> list[Any]:
    with (
        SessionStore.open(url, session_id="s") as mine,
        SessionStore.open(url, session_id="other") as other,
        ProcessRegistry.open(url) as processes,
        EffectStore.open(url, owner_id="bob") as effects,
    ):
        payloads = [store.list_work()[0].items[0].payload for store in (mine, other)]
        record = processes.load_process("p")
        busy = effects.look_up_effect("scope", "key")
        return [*payloads, record is not None, type(busy).__name__]


@pytest.mark.parametrize("own", [False, True], ids=["store", "consumer"])
def test_k_share_6_several_kinds_and_sessions_in_one_transaction(url: str, own: bool) -> None:
    for fails in (True, False):
        if own:
            engine = configure(create_engine(url))
            with suppress(ZeroDivisionError), engine.begin() as connection:
                wake_up(SessionTx.on(connection, session_id="s"))
                _ = 1 / (0 if fails else 1)
            engine.dispose()
        else:
            with (
                SessionStore.open(url, session_id="s") as store,
                suppress(ZeroDivisionError),
                store.begin() as tx,
            ):
                wake_up(tx)
                _ = 1 / (0 if fails else 1)
        if fails:
            with SessionStore.open(url, session_id="s") as store:
                assert store.list_work() == []
    assert seen(url) == ["mine", "theirs", True, "Busy"]


def test_k_share_6_a_tx_beside_another_ends_with_it(url: str) -> None:
    with SessionStore.open(url, session_id="s") as store:
        with store.begin() as tx:
            beside = SessionTx.beside(tx, session_id="t")
            beside.enqueue_work(NewWork([1]))
        for _ in range(2):
            with pytest.raises(TransactionEndedError, match="has ended"):
                beside.list_work()  # it was committed, and not undone by an error
            store.work_depth()
        with store.begin(), pytest.raises(TransactionEndedError, match="has ended"):
            beside.list_work()
        with pytest.raises(TransactionEndedError):
            SessionTx.beside(tx, session_id="t")
        with store.read() as snapshot:
            assert len(SessionTx.beside(snapshot, session_id="t").list_work()) == 1
            with pytest.raises(SchemaVersionError):
                ProcessTx.beside(snapshot)
        found: list[BaseException] = []
        with store.begin() as tx:
            beside = SessionTx.beside(tx, session_id="t")

            def elsewhere() -> None:
                try:
                    beside.list_work()
                except ThreadError as error:
                    found.append(error)

            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
        assert len(found) == 1


def test_k_share_6_each_has_a_connection_for_its_own_rows(url: str) -> None:
    with SessionStore.open(url, session_id="s") as store, store.begin() as tx:
        beside = SessionTx.beside(tx, session_id="t")
        for each, name in ((tx, "s"), (beside, "t"), (tx, "s")):
            each.connection.execute(
                insert(blobs)
                .values(hash=f"{name}{each.operation}", content=b"")
                .prefix_with("OR IGNORE")
            )
            assert each.connection.execute(select(blobs.c.hash)).scalars().all() == [f"{name}None"]
        across = across_sessions(blobs)
        everybody = select(across.c.store, across.c.hash).order_by(across.c.store)
        assert tx.connection.execute(everybody).all() == [("s", "sNone"), ("t", "tNone")]
    with pytest.raises(InvalidRecordError):
        across_sessions(across)


def test_k_share_6_a_file_is_of_one_kind(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store, store.begin() as tx:
        tx.enqueue_work(NewWork([1]))
        assert len(SessionTx.beside(tx, session_id="s").list_work()) == 1
        with pytest.raises(SchemaVersionError):
            ProcessTx.beside(tx)


@pytest.mark.parametrize("where", ["file", "shared"])
def test_k_share_2_a_copy_under_another_name_is_the_consumers(path: Path, where: str) -> None:
    """An archive, say: in both layouts the same program does the same."""
    at = str(path) if where == "file" else f"sqlite:///{path}"
    mine = MetaData()
    archive = graph_nodes.to_metadata(mine, name="archive_nodes")
    with SessionStore.open(at, session_id="a") as store:
        lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert not isinstance(lease, LeaseHeld)
        nodes = Append([Node("n1", None), Node("n2", "n1")], leaf="n2")
        store.commit_turn(TurnCommit(fence=lease.fence, graph=nodes))
        with store.begin() as tx:
            mine.create_all(tx.connection)
            names = [column.name for column in archive.c]
            live = select(*(graph_nodes.c[name] for name in names))
            tx.connection.execute(insert(archive).from_select(names, live))
            (archived,) = tx.connection.execute(select(func.count()).select_from(archive)).one()
            tx.connection.execute(delete(archive).where(archive.c.node_id == "n1"))
            left = tx.connection.execute(select(archive.c.node_id)).scalars().all()
        graph = store.load_graph()
        assert graph is not None
        assert (archived, left) == (2, ["n2"])
        assert [node.node_id for node in graph.nodes] == ["n1", "n2"]
