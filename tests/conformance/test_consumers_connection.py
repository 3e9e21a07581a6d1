"""K-COMPOSE-5 and K-COMPOSE-6: what ``tx.connection`` tells, and what is told of prepared statements."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    DDL,
    Connection,
    Engine,
    bindparam,
    create_engine,
    event,
    exc,
    exists,
    insert,
    select,
    text,
)

from lash_store import (
    LeaseHeld,
    NewWork,
    ProcessFence,
    SessionStore,
    SessionTx,
    configure,
)
from lash_store.errors import (
    InvalidRecordError,
    MissingTableError,
    ReadOnlyStoreError,
    TransactionEndedError,
)
from lash_store.session import statements
from lash_store.session.tables import blobs, graph_nodes
from lash_store.testing import run_as_group
from lash_store.tracing import Statement, explain, log_statements, trace
from tests.support.databases import all_rows

pytestmark = pytest.mark.canonical("opens both layouts by itself")


@pytest.fixture(params=["file", "shared", "memory"])
def store(request: pytest.FixtureRequest, path: Path) -> Iterator[SessionStore]:
    where = {"file": str(path), "shared": f"sqlite:///{path}", "memory": None}[request.param]
    with SessionStore.open(where, session_id="s") as opened:
        yield opened


# Events.


def heard_on(connection: Connection) -> list[str]:
    told: list[str] = []
    for name in ("commit", "rollback", "savepoint", "rollback_savepoint"):
        event.listen(connection, name, lambda *_, name=name: told.append(name))
    return told


def test_k_compose_5_a_commit_is_told_of_as_one(store: SessionStore) -> None:
    with store.begin() as tx:
        told = heard_on(tx.connection)
        tx.connection.execute(insert(blobs).values(hash="a", content=b""))
        assert told == []
    assert told == ["commit"]


def test_k_compose_5_a_rollback_is_told_of_as_one(store: SessionStore) -> None:
    with pytest.raises(KeyError), store.begin() as tx:
        told = heard_on(tx.connection)
        raise KeyError
    assert told == ["rollback"]
    with store.read() as tx:
        told = heard_on(tx.connection)
        tx.connection.execute(select(blobs.c.hash)).all()
    assert told == ["rollback"]  # as of any connection that was only read through


def test_k_compose_5_what_a_listener_raises_keeps_the_commit_from_being(
    store: SessionStore,
) -> None:
    def refuse(_: Connection) -> None:
        raise KeyError("not now")

    with pytest.raises(KeyError, match="not now"), store.begin() as tx:
        event.listen(tx.connection, "commit", refuse)
        tx.connection.execute(insert(blobs).values(hash="a", content=b""))
    with store.read() as tx:
        assert tx.connection.execute(select(blobs.c.hash)).all() == []
    store.enqueue_work(NewWork([1]))


def test_k_compose_5_an_open_savepoint_goes_with_the_commit(store: SessionStore) -> None:
    with store.begin() as tx:
        told = heard_on(tx.connection)
        tx.connection.begin_nested()
        tx.connection.execute(insert(blobs).values(hash="a", content=b""))
    assert told == ["savepoint", "commit"]
    with store.read() as tx:
        assert len(tx.connection.execute(select(blobs.c.hash)).all()) == 1


# Warnings and errors.


def test_k_compose_5_a_cartesian_product_warns(store: SessionStore) -> None:
    with store.read() as tx, pytest.warns(exc.SAWarning, match="cartesian product"):
        tx.connection.execute(select(blobs.c.hash, graph_nodes.c.node_id)).all()


@pytest.mark.filterwarnings("error")
def test_k_compose_5_no_statement_of_ours_warns(store: SessionStore) -> None:
    lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
    assert not isinstance(lease, LeaseHeld)
    path = statements.ancestry(leaf_node_id="n")
    composed = [
        statements.select_items(session_id="s"),
        statements.load_path(leaf_node_id="n"),
        statements.claimable_work(session_id="s", now_ms=1, max_batches=3),
        statements.choosable_work(session_id="s", now_ms=1, max_batches=3),
        select(path.c.node_id).where(lease.fence.holds(now_ms=1)),
        select(blobs.c.hash).where(lease.fence.holds(now_ms=1)),
    ]
    with store.read() as tx:
        for each in composed:
            assert tx.connection.execute(each).all() == []


def test_k_compose_5_a_write_in_a_snapshot(store: SessionStore) -> None:
    with store.read() as tx:
        for write in (insert(blobs).values(hash="a", content=b""), text("CREATE TABLE t (x)")):
            with pytest.raises(ReadOnlyStoreError):
                tx.connection.execute(write)
        assert tx.connection.execute(select(blobs.c.hash)).all() == []


@pytest.mark.parametrize("fetch", ["all", "one", "first", "fetchmany", "scalars"])
def test_k_compose_5_a_result_after_the_end(store: SessionStore, fetch: str) -> None:
    store.enqueue_all_work([NewWork([1]), NewWork([2])])
    for block in (store.begin, store.read):
        with block() as tx:
            result = tx.connection.execute(statements.select_all_work())
        with pytest.raises(TransactionEndedError, match="inside the block"):
            used = getattr(result, fetch)()
            if fetch == "scalars":
                used.all()


def test_k_compose_5_a_table_of_another_kind_of_store(store: SessionStore) -> None:
    process = ProcessFence("p", "ann", "c0ffee", 1)
    fenced = select(blobs.c.hash).where(process.holds(now_ms=1))
    with store.begin() as tx:
        with pytest.raises(MissingTableError, match="a table of process stores") as refusal:
            tx.connection.execute(fenced)
        assert refusal.value.kind == "process"
        with pytest.raises(MissingTableError, match="a table of process stores"):
            process.leases.current_lease.one(tx.cursor, key="p")
        for mine in ("mine", "my_blobs", "lashed_processes"):  # the consumer's own is as ever
            with pytest.raises(exc.OperationalError, match=f"no such table: {mine}"):
                tx.connection.execute(text(f"SELECT * FROM {mine}"))
        tx.enqueue_work(NewWork([1]))
    assert store.work_depth().batches == 1


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    made = configure(create_engine(f"sqlite:///{path}"), begin="read")
    yield made
    made.dispose()


def test_k_compose_5_the_same_on_an_engine_of_the_consumers(engine: Engine, path: Path) -> None:
    SessionStore.open(f"sqlite:///{path}", session_id="s").close()
    with engine.begin() as connection:
        tx = SessionTx.on(connection, session_id="s")
        with pytest.raises(ReadOnlyStoreError):
            connection.execute(insert(blobs).values(hash="a", content=b""))
        process = ProcessFence("p", "ann", "c0ffee", 1)
        with pytest.raises(MissingTableError):
            connection.execute(select(blobs.c.hash).where(process.holds(tx)))


# What a consumer's PRAGMA has set.

SETTINGS = {
    "recursive_triggers": "ON",
    "query_only": "1",
    "cache_size": "17",
    "ignore_check_constraints": "yes",
    "secure_delete": "FAST",
    "busy_timeout": "7",
    "temp_store": "FILE",
    "reverse_unordered_selects": "true",
}


@pytest.mark.parametrize(
    ("name", "form"),
    [
        *((name, "PRAGMA {} = {}") for name in SETTINGS),
        ("cache_size", "pragma main . {}({})"),
        ("cache_size", "/* x */PRAGMA -- y\n {}={}"),
    ],
)
@pytest.mark.parametrize("how", ["commit", "rollback", "read", "group"])
def test_k_compose_5_a_setting_is_undone(
    store: SessionStore, name: str, form: str, how: str
) -> None:
    def read_it(tx: SessionTx) -> Any:
        return tx.connection.exec_driver_sql(f"PRAGMA {name}").scalar()

    def set_it(tx: SessionTx) -> None:
        before = read_it(tx)
        tx.connection.exec_driver_sql(form.format(name, SETTINGS[name]))
        if name != "query_only" or how != "read":  # which is on, in a snapshot
            assert read_it(tx) != before

    def look() -> list[Any]:
        found = []
        for block in (store.begin, store.read):
            with block() as tx:
                found.append(read_it(tx))
        return found

    before = look()
    if how == "group":
        store.transact(set_it, repeatable=True)
    elif how == "rollback":
        with pytest.raises(KeyError), store.begin() as tx:
            set_it(tx)
            raise KeyError
    else:
        with store.begin() if how == "commit" else store.read() as tx:
            set_it(tx)
    assert look() == before
    store.enqueue_work(NewWork([1]))


def test_k_compose_5_like_is_without_case_again(store: SessionStore) -> None:
    with store.begin() as tx:
        tx.connection.exec_driver_sql("PRAGMA case_sensitive_like = ON")
        assert tx.connection.scalar(text("SELECT 'A' LIKE 'a'")) == 0
    with store.begin() as tx:
        assert tx.connection.scalar(text("SELECT 'A' LIKE 'a'")) == 1


# Tracing.


def test_k_compose_6_who_can_not_be_told_is_refused() -> None:
    with pytest.raises(InvalidRecordError, match="seen"), trace(5):  # type: ignore[arg-type] # reason: that is the test
        pass


def traced(run: Callable[[], object], **options: Any) -> list[Statement]:
    seen: list[Statement] = []
    with trace(seen.append, **options):
        run()
    run()  # which nobody is told of
    return seen


def test_k_compose_6_prepared_statements_are_told_of(store: SessionStore) -> None:
    seen = traced(lambda: store.enqueue_work(NewWork([1])))
    assert [(each.kind, each.operation) for each in seen] == [
        ("begin", "enqueue_work"),
        ("statement", "enqueue_work"),
        ("statement", "enqueue_work"),
        ("commit", "enqueue_work"),
    ]
    assert "INSERT INTO" in seen[1].sql
    assert {each.path for each in seen} == {store.path}
    assert all(each.took_ns > 0 for each in seen)


def test_k_compose_6_a_consumers_statements_are_told_of(store: SessionStore) -> None:
    def work() -> None:
        with store.begin() as tx:
            tx.connection.execute(select(blobs.c.hash)).all()

    assert [each.operation for each in traced(work)] == ["begin"] * 3


def test_k_compose_6_of_one_database_alone(store: SessionStore, path: Path) -> None:
    with SessionStore.open(path.with_name("other.db"), session_id="o") as other:

        def both() -> None:
            store.enqueue_work(NewWork([1]))
            other.enqueue_work(NewWork([1]))

        assert len(traced(both)) == 8
        assert {each.path for each in traced(both, path=other.path)} == {other.path}


def test_k_compose_6_statements_are_logged(
    store: SessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "lash_store"):
        store.enqueue_work(NewWork(["a secret"]))
        assert caplog.records == []
        with log_statements():
            store.enqueue_work(NewWork(["a secret"]))
        with log_statements(logging.getLogger("mine"), level=logging.WARNING):
            store.work_depth()
    assert "enqueue_work: INSERT INTO" in caplog.text
    assert "a secret" not in caplog.text
    assert {record.name for record in caplog.records} == {"lash_store.statements", "mine"}


def test_k_compose_6_a_plan_is_explained(store: SessionStore) -> None:
    before = None if store.path == ":memory:" else all_rows(Path(store.path))
    with store.begin() as tx:
        plan = explain(tx, statements.claimable_work(session_id="s", now_ms=1, max_batches=3))
        assert any("idx_queued_work_claim" in line for line in plan)
        assert plan[0] == plan[0].lstrip()
        assert any(line.startswith("  ") for line in plan)
        assert explain(tx, insert(blobs).values(hash="a", content=b"")) is not None
        assert explain(tx, text("SELECT 1")) == ["SCAN CONSTANT ROW"]
        # No plan goes by values, and a column or a condition is a query's.
        unset = select(blobs).where(blobs.c.hash == bindparam("wanted"))
        assert explain(tx, insert(blobs)) == []  # there is nothing to be looked for
        for each in (unset, blobs.c.hash, exists().where(blobs.c.hash == "h")):
            assert explain(tx, each)
        assert explain(tx, select(blobs).where(blobs.c.hash.in_(["a", "b"])))
        bad: Any = "SELECT 1"
        with pytest.raises(InvalidRecordError, match="statement"):
            explain(tx, bad)
    assert before == (None if store.path == ":memory:" else all_rows(Path(store.path)))


def test_k_compose_6_nobody_is_told_without_being_asked(store: SessionStore) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert traced(lambda: None) == []


def test_k_compose_6_traces_that_come_and_go_fail_no_call(store: SessionStore) -> None:
    stop, failed = threading.Event(), []

    def come_and_go() -> None:
        while not stop.is_set():
            with trace(lambda _: None):
                time.sleep(0.0005)

    with trace(lambda _: None):
        others = [threading.Thread(target=come_and_go) for _ in range(2)]
        for each in others:
            each.start()
        try:
            for _ in range(500):
                try:
                    store.enqueue_work(NewWork([1]))
                except Exception as error:  # noqa: BLE001 # reason: that is what is counted
                    failed.append(error)
        finally:
            stop.set()
            for each in others:
                each.join()
    assert failed == []
    assert store.work_depth().batches == 500


def test_k_compose_6_whatever_has_a_plan(store: SessionStore) -> None:
    with store.begin() as tx:
        chosen = select(blobs.c.hash).where(blobs.c.hash.in_(["a", "b"]))
        assert explain(tx, chosen)
        assert explain(tx, statements.ancestry(leaf_node_id="n"))
        assert explain(tx, blobs)
        ddl: Any = DDL
        for wrong in (ddl("CREATE TABLE t (x)"), ddl("DROP TABLE blobs")):
            with pytest.raises(InvalidRecordError, match="statement"):
                explain(tx, wrong)


@pytest.mark.parametrize("name", ["count_changes", "full_column_names", "short_column_names"])
def test_k_compose_5_old_settings_are_undone_too(store: SessionStore, name: str) -> None:
    with store.begin() as tx:
        before = tx.connection.exec_driver_sql(f"PRAGMA {name}").scalar()
        tx.connection.exec_driver_sql(f"PRAGMA {name} = {1 - int(before or 0)}")
    with store.begin() as tx:
        assert tx.connection.exec_driver_sql(f"PRAGMA {name}").scalar() == before
    store.enqueue_work(NewWork([1]))


@pytest.mark.sqlite("what one connection has beside its database")
@pytest.mark.parametrize("how", ["begin", "transact", "group"])
def test_k_compose_5_what_stands_beside_the_database_goes_with_its_transaction(
    tmp_path: Path, how: str
) -> None:
    """All stores of a file have one writer: nobody else is to wait for another file, or fire that trigger."""
    other = str(tmp_path / "other.db")

    def make(tx: SessionTx) -> None:
        for sql in (
            f"ATTACH '{other}' AS \"an other\"",
            'CREATE TABLE "an other".kept (x)',
            "CREATE TEMP TABLE scratch (x)",
            "CREATE TEMP VIEW seen AS SELECT * FROM scratch",
            "CREATE TEMP TABLE parents (id INTEGER PRIMARY KEY AUTOINCREMENT)",
            "CREATE TEMP TABLE children (parent REFERENCES parents)",
            "INSERT INTO parents VALUES (1)",
            "INSERT INTO children VALUES (1)",
            "CREATE VIRTUAL TABLE temp.found USING fts5 (x)",
            "CREATE TEMP TRIGGER t AFTER INSERT ON main.queued_work_items "
            "BEGIN DELETE FROM queued_work_batches; END",
        ):
            tx.connection.execute(text(sql))

    def beside(tx: SessionTx) -> tuple[list[Any], int]:
        names = tx.connection.execute(text("PRAGMA database_list")).all()
        made = tx.connection.scalar(
            text("SELECT count(*) FROM temp.sqlite_master WHERE name NOT LIKE '%sqlite%'")
        )
        return sorted({name for _, name, _ in names} - {"main", "temp"}), made or 0

    with SessionStore.open(tmp_path / "s.db", session_id="s") as store:
        for _ in range(2):
            if how == "begin":
                with store.begin() as tx:
                    make(tx)
                    names, made = beside(tx)
                    assert (names, made > 5) == (["an other"], True)
            elif how == "transact":
                store.transact(make)
            else:
                run_as_group(partial(store.transact, make), partial(store.put_blob, b"x"))
            with sqlite3.connect(other, timeout=0) as program:
                program.execute("DROP TABLE kept")
        with store.begin() as tx:
            assert beside(tx) == ([], 0)
            assert tx.connection.scalar(text("PRAGMA foreign_keys")) == 1
        store.enqueue_work(NewWork(["pay"]))
        assert store.work_depth().batches >= 1
