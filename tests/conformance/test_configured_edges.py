"""K-TX-8 where a transaction of a consumer's engine ends by itself, its pool is shared, or its tables come later."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Engine,
    Index,
    Integer,
    create_engine,
    event,
    exists,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.pool import NullPool

from lash_store import (
    NewWork,
    ProcessTx,
    SessionDirectory,
    SessionLease,
    SessionStore,
    SessionTx,
    TurnCommit,
    configure,
    create_tables,
)
from lash_store._backends.orm_sessions import _note_scope
from lash_store.errors import (
    MissingTableError,
    NestedTransactionError,
    NotConfiguredError,
    ReadOnlyStoreError,
    ScopeError,
    StoreBusyError,
    TransactionControlError,
    TransactionEndedError,
)
from lash_store.process.tables import processes
from lash_store.schemas import adopt_database, check_file, mend_file
from lash_store.session.tables import (
    blobs,
    queued_work_batches,
    queued_work_items,
    session_head,
)
from lash_store.statements import across_sessions, json_text
from lash_store.testing import ManualClock
from lash_store.tracing import Statement, trace
from tests.support.databases import all_rows
from tests.support.registries import registration
from tests.support.sessions import lease_of

pytestmark = pytest.mark.canonical("a consumer's own engine")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = configure(create_engine(f"sqlite:///{tmp_path / 'app.db'}"))
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY)"))
        SessionTx.on(connection, session_id="s")
    yield made
    made.dispose()


def orders(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT id FROM orders")).scalars())


def depth(engine: Engine) -> int:
    with engine.begin() as connection:
        return SessionTx.on(connection, session_id="s").work_depth().batches


def undo_by_conflict(connection: Any) -> None:
    connection.execute(text("INSERT INTO orders VALUES (1)"))
    connection.execute(text("INSERT OR ROLLBACK INTO orders VALUES (1)"))


def undo_by_interrupt(connection: Any) -> None:
    raw = connection.connection.dbapi_connection
    raw.set_progress_handler(lambda: 1, 1_000)
    try:
        connection.execute(
            text(
                "INSERT INTO orders WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
                " WHERE i < 100000) SELECT i FROM n"
            )
        )
    finally:
        raw.set_progress_handler(None, 0)


UNDOING: dict[str, Callable[[Any], None]] = {
    "a conflict": undo_by_conflict,
    "an interrupt": undo_by_interrupt,
}


@pytest.mark.parametrize("why", UNDOING)
def test_k_tx_8_nothing_is_kept_of_what_comes_behind_a_rollback_by_sqlite(
    engine: Engine, why: str
) -> None:
    with (
        pytest.raises(TransactionEndedError, match="nothing of it is kept"),
        engine.begin() as connection,
    ):
        tx = SessionTx.on(connection, session_id="s")
        tx.enqueue_work(NewWork(["x"]))
        with pytest.raises(Exception, match=r"UNIQUE|interrupted"):
            UNDOING[why](connection)
        for use in (tx.work_depth, lambda: tx.enqueue_work(NewWork(["y"]))):
            with pytest.raises(TransactionEndedError):
                use()
        connection.execute(text("INSERT INTO orders VALUES (2)"))
    assert orders(engine) == []
    assert depth(engine) == 0


@pytest.mark.parametrize("why", UNDOING)
@pytest.mark.parametrize("is_kept", [True, False])
def test_k_tx_8_where_no_tx_has_joined_it_goes_on_as_without_us(
    engine: Engine, why: str, is_kept: bool
) -> None:
    with engine.connect() as connection:
        with pytest.raises(Exception, match=r"UNIQUE|interrupted"):
            UNDOING[why](connection)
        connection.execute(text("INSERT INTO orders VALUES (2)"))
        with pytest.raises(TransactionEndedError):
            SessionTx.on(connection, session_id="s")
        (connection.commit if is_kept else connection.rollback)()
        connection.begin()
        SessionTx.on(connection, session_id="s")
    assert orders(engine) == ([2] if is_kept else [])


def test_k_tx_8_whoever_shares_the_pool_has_it_as_it_was(tmp_path: Path) -> None:
    parent = create_engine(f"sqlite:///{tmp_path / 'app.db'}")
    with parent.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY)"))
    writing = configure(parent.execution_options(lash_store_write=True))
    for _ in range(2):
        with writing.begin() as connection:
            SessionTx.on(connection, session_id="s").enqueue_work(NewWork(["x"]))
        with parent.connect() as connection:
            connection.execute(text("INSERT INTO orders VALUES (1)"))
            connection.rollback()
        raw = parent.raw_connection()
        raw.cursor().execute("INSERT INTO orders VALUES (2)")
        raw.rollback()
        raw.close()
    assert orders(parent) == []
    # A snapshot that was dropped leaves nobody a connection that only reads.
    reading = configure(parent.execution_options(lash_store_read=True)).connect()
    reading.begin()
    with pytest.raises(ReadOnlyStoreError, match="lash_store_write=True"):
        reading.execute(text("INSERT INTO orders VALUES (1)"))
    reading.connection.close()  # past its Connection, as its finalizer does
    raw = parent.raw_connection()
    raw.cursor().execute("INSERT INTO orders VALUES (3)")
    raw.commit()
    raw.close()
    assert orders(parent) == [3]
    parent.dispose()


@pytest.mark.parametrize("option", [False, True])
def test_k_share_5_a_choice_is_about_the_tx_whose_it_is(tmp_path: Path, option: bool) -> None:
    """Though several sessions have joined one connection, or its option names another."""
    engine = configure(create_engine(f"sqlite:///{tmp_path / 'app.db'}"))
    options = {"lash_store_session": "a"} if option else {}
    urgent = json_text(queued_work_items.c.payload_json, "p").cast(Integer) > 5
    with engine.connect().execution_options(**options) as connection, connection.begin():
        both = [SessionTx.on(connection, session_id=name) for name in "ab"]
        third = SessionTx.beside(both[0], session_id="c")
        for tx in (*both, third):
            for urgency in (1, 9):
                tx.enqueue_work(NewWork([{"p": urgency}]))
        for tx in (*both, third):
            lease = tx.claim_lease(owner_id="o", ttl_ms=60_000)
            assert isinstance(lease, SessionLease)
            claim = tx.claim_work(lease.fence, owner_id="o", ttl_ms=60_000, where=urgent)
            assert claim is not None
            assert claim.session_id == tx.context.scope
            assert claim.batches[0].items[0].payload == {"p": 9}
    engine.dispose()


def test_k_tx_14_a_choice_on_an_async_connection(tmp_path: Path) -> None:
    """It is no coroutine, so it can't wait for the driver's thread."""
    urgent = json_text(queued_work_items.c.payload_json, "p").cast(Integer).in_([7, 9])
    latest = queued_work_batches.c.enqueue_seq.desc()

    async def main() -> None:
        engine = configure(create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'app.db'}"))
        async with engine.begin() as connection:
            tx = SessionTx.on(connection, session_id="a")
            for urgency in (1, 9, 7):
                tx.enqueue_work(NewWork([{"p": urgency}]))
            lease = tx.claim_lease(owner_id="o", ttl_ms=60_000)
            assert isinstance(lease, SessionLease)
            found = [
                tx.claim_work(lease.fence, owner_id="o", ttl_ms=60_000, **options)
                for options in (
                    {"where": urgent, "order_by": latest},
                    {"where": urgent},
                    {"where": urgent},
                )
            ]
            assert [each and each.batches[0].items[0].payload["p"] for each in found] == [
                7,
                9,
                None,
            ]
            registry = ProcessTx.on(connection)
            for name in ("p", "q"):
                registry.register_process(registration(name))
            claimed = registry.claim_next(
                owner_id="o", ttl_ms=60_000, where=processes.c.process_id == "q"
            )
            assert claimed is not None
            assert claimed.record.id == "q"
        await engine.dispose()

    asyncio.run(main())


class Base(DeclarativeBase):
    """Classes of a consumer's own."""


class Blob(Base):
    """Our table, mapped."""

    __table__ = blobs
    __mapper_args__ = {"primary_key": [blobs.c.hash]}  # noqa: RUF012 # reason: SQLAlchemy declares it so


@pytest.mark.parametrize("how", ["create_tables", "another process"])
def test_k_compose_5_tables_that_are_made_later_are_found(tmp_path: Path, how: str) -> None:
    """By statements, and by an ORM that has asked for them in vain before."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE orders (id)")
    engine = configure(create_engine(f"sqlite:///{path}"))
    everybody = select(across_sessions(queued_work_batches).c.batch_id)
    with engine.begin() as connection, pytest.raises(MissingTableError):
        connection.execute(everybody)
    mine = engine.execution_options(lash_store_session="s")
    with Session(mine) as orm, pytest.raises(MissingTableError):
        orm.add(Blob(hash="h", content=b"x"))
        orm.flush()
    if how == "create_tables":
        with engine.begin() as connection:
            create_tables(connection, SessionTx)
            assert connection.execute(everybody).all() == []
    else:
        adopt_database(path)
    with engine.begin() as connection:
        assert connection.execute(everybody).all() == []
    with Session(mine) as orm:
        orm.add(Blob(hash="h", content=b"x"))
        orm.commit()
    with engine.begin() as connection:
        SessionTx.on(connection, session_id="s")
        assert connection.execute(select(blobs.c.content)).scalars().all() == [b"x"]
    engine.dispose()


def test_k_tx_14_making_tables_waits_for_the_lock_beside_the_loop(tmp_path: Path) -> None:
    """Whoever has it may need that very loop to let go."""

    async def main() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'app.db'}")
        began = asyncio.Event()

        async def hold() -> None:
            async with engine.begin() as connection:
                await connection.execute(text("CREATE TABLE orders (id)"))
                await connection.execute(text("INSERT INTO orders VALUES (1)"))
                began.set()
                await asyncio.sleep(0.3)

        async def make() -> None:
            await began.wait()
            async with engine.begin() as connection:
                await connection.run_sync(lambda sync: create_tables(sync, SessionTx))

        await asyncio.wait_for(asyncio.gather(hold(), make()), 4)
        await engine.dispose()

    asyncio.run(main())


def test_k_compose_6_a_joined_transaction_is_traced_by_its_path(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = configure(create_engine("sqlite:///app.db"))
    for each in (engine, relative):
        seen: list[Statement] = []
        with trace(seen.append, path=os.path.realpath(tmp_path / "app.db")), each.begin() as opened:
            SessionTx.on(opened, session_id="s").enqueue_work(NewWork(["x"]))
        assert [each.sql for each in seen if "INSERT INTO lash_queued_work_batches" in each.sql]
        with each.begin() as opened, pytest.raises(MissingTableError, match=r"app\.db"):
            tx = SessionTx.on(opened, session_id="s")
            opened.execute(text("DROP TABLE lash_queued_work_items"))
            try:
                tx.enqueue_work(NewWork(["x"]))
            finally:
                opened.rollback()
    relative.dispose()


def test_k_log_1_a_takeover_that_is_not_committed_is_not_told(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lash_store")
    clock = ManualClock()
    with engine.begin() as connection:
        connection.execute(
            text("CREATE TABLE t (a REFERENCES orders DEFERRABLE INITIALLY DEFERRED)")
        )
        SessionTx.on(connection, session_id="s", clock=clock).claim_lease(owner_id="ann", ttl_ms=5)
    clock.advance(5)
    for is_broken in (True, False):
        with pytest.raises(Exception, match="FOREIGN KEY") if is_broken else nullcontext():
            with engine.begin() as connection:
                tx = SessionTx.on(connection, session_id="s", clock=clock)
                tx.claim_lease(owner_id="bob", ttl_ms=5)
                if is_broken:
                    connection.execute(text("INSERT INTO t VALUES (7)"))
        assert bool(caplog.records) is not is_broken


def test_k_share_6_on_a_stores_own_transaction_is_told_of_beside(tmp_path: Path) -> None:
    with SessionStore.open(f"sqlite:///{tmp_path / 'a.db'}", session_id="s") as store:
        with store.begin() as tx, tx.orm() as orm:
            for own in (tx.connection, orm):
                with pytest.raises(NotConfiguredError, match=r"SessionTx\.beside"):
                    SessionTx.on(own, session_id="s")


def test_k_compose_4_an_orm_session_that_has_nothing_of_ours_pays_for_nothing(
    engine: Engine,
) -> None:
    with Session(engine) as orm:
        for name in ("loaded_as_persistent", "pending_to_persistent"):
            assert not event.contains(Session, name, _note_scope)
            assert not event.contains(orm, name, _note_scope)
        SessionTx.on(orm, session_id="s")
        orm.add(Blob(hash="h", content=b"x"))
        orm.flush()
        assert event.contains(orm, "loaded_as_persistent", _note_scope)


@pytest.mark.parametrize("facade", ["sync", "asyncio"])
def test_k_share_5_a_choice_of_a_kind_without_scopes_goes_by_the_connection(
    tmp_path: Path, facade: str
) -> None:
    url, key = f"sqlite:///{tmp_path / 'app.db'}", queued_work_batches.c.source_key
    engine = configure(create_engine(url))
    with engine.begin() as connection:
        SessionTx.on(connection, session_id="a").enqueue_work(NewWork([1], source_key="k"))
        ProcessTx.on(connection).register_process(registration("p"))
    busy = exists().where(key == "k")  # which is true of that session alone

    def play(on: Any, option: str | None, joined: str) -> Any:
        for name in joined:
            SessionTx.on(on, session_id=name)
        tx = ProcessTx.on(on)
        return [bool(tx.claim_next(owner_id="w", ttl_ms=0, where=where)) for where in (busy, ~busy)]

    cases: list[tuple[str | None, str, Any]] = [
        (None, "a", [True, False]),
        (None, "b", [False, True]),
        ("a", "ab", [True, False]),
        ("b", "", [False, True]),
        (None, "", None),
        (None, "ab", None),
    ]

    async def main() -> None:
        other = configure(create_async_engine(url.replace("sqlite:", "sqlite+aiosqlite:")))
        for option, joined, expected in cases:
            options = {} if option is None else {"lash_store_session": option}
            async with other.execution_options(**options).begin() as connection:
                with nullcontext() if expected else pytest.raises(ScopeError):
                    assert play(connection, option, joined) == expected
        await other.dispose()

    if facade == "asyncio":
        asyncio.run(main())
    else:
        for option, joined, expected in cases:
            options = {} if option is None else {"lash_store_session": option}
            with engine.execution_options(**options).begin() as connection:
                with nullcontext() if expected else pytest.raises(ScopeError):
                    assert play(connection, option, joined) == expected
    engine.dispose()


def test_k_share_9_a_tx_beside_another_knows_what_is_declared(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    index = Index("own", session_head.c.head_revision)
    session_head.indexes.discard(index)
    with SessionDirectory(url, extras=[index]) as directory:
        directory.create("a", model="m").close()
        assert directory.open("a") is not None
    with SessionStore.open(url, session_id="a", extras="any") as store, store.begin() as tx:
        assert SessionTx.beside(tx, session_id="b").load_head() is None
        assert ProcessTx.beside(tx).known_processes(["p"]) == set()
    with SessionStore.open(url, session_id="a", extras=[index]) as store:
        store.commit_turn(TurnCommit(fence=lease_of(store).fence))
    report = check_file(url)
    assert (report.problems, len(report.extras)) == ((), 1)
    mend_file(url)


def test_k_tx_8_what_follows_a_consumers_own_commit_is_in_no_transaction(engine: Engine) -> None:
    """As a migration does that makes a table anew: VACUUM and foreign keys are for outside."""
    with engine.connect() as connection:
        connection.exec_driver_sql("INSERT INTO orders VALUES (1)")
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 0
        connection.exec_driver_sql("VACUUM")
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")
    assert orders(engine) == [1]


class Process(Base):
    """Our table, mapped, with a class that shares it."""

    __table__ = processes


class SpecialProcess(Process):
    """In the same rows."""


@pytest.mark.parametrize("how", ["subclass", "bulk", "mappings"])
def test_k_compose_5_tables_that_are_made_later_are_found_by_subclasses_and_in_bulk(
    tmp_path: Path, how: str
) -> None:
    engine = configure(create_engine(f"sqlite:///{tmp_path / 'app.db'}"))

    def write(name: str) -> None:
        row = {
            "process_id": name,
            "registration_hash": "h",
            "owner_scope_id": "s",
            "created_at_ms": 1,
            "updated_at_ms": 1,
            "status": "running",
            "record_json": "{}",
        }
        with Session(engine) as orm:
            if how == "subclass":
                orm.add(SpecialProcess(**row))
            elif how == "bulk":
                orm.bulk_save_objects([Process(**row)])
            else:
                orm.bulk_insert_mappings(inspect(Process), [row])
            orm.commit()

    with pytest.raises(MissingTableError):
        write("a")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        create_tables(connection)
        assert connection.execute(select(processes)).all() == []
    for name in "bc":
        write(name)
    with engine.connect() as connection:
        assert len(connection.execute(select(processes)).all()) == 2
    engine.dispose()


def test_k_tx_8_an_engine_is_configured_whatever_stood_in_its_place(tmp_path: Path) -> None:
    """In memory: one that is disposed of has another pool, and lets go of the first."""
    SessionStore.open(f"sqlite:///{tmp_path / 'app.db'}", session_id="s").close()
    disposed = list[Engine]()
    for _ in range(100):
        engine = configure(create_engine(f"sqlite:///{tmp_path / 'app.db'}"))
        with engine.begin() as connection:
            SessionTx.on(connection, session_id="s")
        with engine.begin() as connection:
            assert connection.info["lash_store_compared"]
            SessionTx.on(connection, session_id="s")
        engine.dispose()
        disposed.append(engine)
        del engine, connection
        gc.collect()


def test_k_tx_8_who_was_busy_begins_anew_on_the_same_connection(tmp_path: Path) -> None:
    """SQLAlchemy would begin nothing there, and each statement commit by itself."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE t (x)")
        base = create_engine(f"sqlite:///{path}", pool_size=1)
        engine = configure(base.execution_options(x=1), busy_timeout_ms=10)
        with engine.connect() as connection:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreBusyError):
                connection.execute(text("INSERT INTO t VALUES (0)"))
            other.execute("COMMIT")
            connection.execute(text("INSERT INTO t VALUES (1)"))
            assert connection.in_transaction()
            connection.rollback()
        with base.connect() as connection:  # and its pool's others have it as it was
            connection.execute(text("INSERT INTO t VALUES (2)"))
            connection.rollback()
        base.dispose()
        assert other.execute("SELECT x FROM t").fetchall() == []


def test_k_tx_8_what_a_listener_of_commit_can_not_fetch_undoes_nothing(tmp_path: Path) -> None:
    engine = configure(create_engine(f"sqlite:///{tmp_path / 'app.db'}"))

    @event.listens_for(engine, "commit")
    def audit(connection: Any) -> None:
        with pytest.raises(OperationalError):
            connection.execute(text("SELECT CAST(x'ff' AS TEXT)")).all()

    with engine.begin() as connection:
        SessionTx.on(connection, session_id="s").enqueue_work(NewWork([1]))
    with engine.begin() as connection:
        assert SessionTx.on(connection, session_id="s").work_depth().batches == 1
    engine.dispose()


@pytest.mark.parametrize("autocommit", [True, False])
def test_k_tx_8_a_driver_that_controls_transactions_by_itself_is_refused(
    tmp_path: Path, autocommit: bool
) -> None:
    path = tmp_path / "app.db"
    told: dict[str, Any] = {"autocommit": autocommit}
    if sys.version_info < (3, 12):  # whose driver has none
        told = {"factory": type("Told", (sqlite3.Connection,), told)}
    engine = create_engine(f"sqlite:///{path}", connect_args=told)
    if autocommit:
        with pytest.raises(NotConfiguredError, match="LEGACY"), engine.connect() as connection:
            create_tables(connection, SessionTx)
    configure(engine)
    with pytest.raises(NotConfiguredError, match="LEGACY"), engine.begin():
        pass
    engine.dispose()
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_k_log_1_a_takeover_that_a_savepoint_undoes_is_not_told(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lash_store")
    clock = ManualClock()
    with engine.begin() as connection:
        SessionTx.on(connection, session_id="s", clock=clock).claim_lease(owner_id="ann", ttl_ms=5)
    clock.advance(5)
    with engine.begin() as connection:
        tx = SessionTx.on(connection, session_id="s", clock=clock)
        with connection.begin_nested() as undone:
            tx.claim_lease(owner_id="bob", ttl_ms=5)
            undone.rollback()
    assert caplog.records == []
    with engine.begin() as connection:
        tx = SessionTx.on(connection, session_id="s", clock=clock)
        with connection.begin_nested():
            tx.claim_lease(owner_id="bob", ttl_ms=5)
        with connection.begin_nested() as undone:
            undone.rollback()
    (told,) = caplog.records
    assert "by 'bob'" in told.getMessage()


@pytest.mark.parametrize("named", ["path", "uri", "creator"])
def test_k_tx_12_an_engine_begins_nothing_inside_a_stores_block_of_its_thread(
    path: Path, named: str
) -> None:
    """It would wait for itself."""
    made = {
        "path": lambda: create_engine(f"sqlite:///{path}"),
        "uri": lambda: create_engine(f"sqlite:///file:{path}?uri=true"),
        "creator": lambda: create_engine(
            "sqlite://", creator=lambda: sqlite3.connect(path), poolclass=NullPool
        ),
    }
    engine = configure(made[named]())
    with SessionStore.open(f"sqlite:///{path}", session_id="s") as store:
        for _ in range(2):  # on a new connection, and on one that has begun before
            with store.begin() as tx:
                tx.put_blob(b"x")
                with pytest.raises(NestedTransactionError, match=r"use its `tx\.connection`"):
                    with engine.begin():
                        pytest.fail("it has begun")
                reading = engine.execution_options(lash_store_read=True)
                with reading.begin() as snapshot:  # which waits for nobody
                    assert not SessionTx.on(snapshot, session_id="s").list_work()
            with engine.begin() as connection:
                SessionTx.on(connection, session_id="s").enqueue_work(NewWork([1]))
            store.transact(lambda tx: [tx.cancel_work(each.batch_id) for each in tx.list_work()])
    engine.dispose()


def without_keys(dbapi: Any, _: Any) -> None:
    dbapi.execute("PRAGMA foreign_keys = OFF")


@pytest.mark.parametrize("said", ["before", "behind", "by hand"])
def test_k_tx_8_foreign_keys_that_the_application_has_off_stay_off(path: Path, said: str) -> None:
    """For what it does by itself: where they are off, nothing of ours is written."""
    engine = create_engine(f"sqlite:///{path}")
    if said == "before":
        event.listen(engine, "connect", without_keys)
    configure(engine)
    with engine.begin() as connection:
        if said != "before":
            SessionTx.on(connection, session_id="s").enqueue_work(NewWork([1]))
    if said == "behind":
        event.listen(engine, "connect", without_keys)
        engine.dispose()
    if said == "by hand":
        autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        with autocommit.connect() as connection:
            connection.execute(text("PRAGMA foreign_keys = OFF"))
    rows = all_rows(path)
    with engine.begin() as connection:
        assert connection.scalar(text("PRAGMA foreign_keys")) == 0
        with pytest.raises(NotConfiguredError, match="foreign keys are off"):
            SessionTx.on(connection, session_id="s")
    assert all_rows(path) == rows
    engine.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "PRAGMA foreign_keys=OFF",
        "pragma main.foreign_keys (0)",
        "PRAGMA FOREIGN_KEYS='no'",
        '/* a comment */ PRAGMA "foreign_keys" = disabled',
        "-- another\nPRAGMA/**/foreign_keys = +00",
        "; PRAGMA [main] . `foreign_keys` = [off]",
    ],
)
def test_k_tx_7_foreign_keys_are_not_turned_off_where_sqlite_passes_over_it(
    engine: Engine, statement: str
) -> None:
    with engine.connect() as connection:
        with pytest.raises(TransactionControlError, match="no effect in a transaction"):
            connection.execute(text(statement))
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
        for kept in ("ON", "1", "'yes'", "(true)", "+01"):
            given = kept if kept.startswith("(") else f"= {kept}"
            connection.execute(text(f"PRAGMA foreign_keys {given}"))
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection:
        connection.execute(text(statement))
        assert connection.scalar(text("PRAGMA foreign_keys")) == 0


def test_k_tx_8_what_another_listener_has_refused_is_not_joined(engine: Engine) -> None:
    refusing = [ValueError("once")]

    def refuse(_: Any) -> None:
        if refusing:
            raise refusing.pop()

    event.listen(engine, "begin", refuse)
    with engine.connect() as connection:
        with pytest.raises(ValueError, match="once"):
            connection.begin()
        with pytest.raises(NotConfiguredError, match="no transaction"):
            SessionTx.on(connection, session_id="s")
    assert depth(engine) == 0


def test_k_tx_12_no_tables_are_made_inside_a_stores_block_of_its_thread(path: Path) -> None:
    """By an engine that nobody has configured neither."""
    engine = create_engine(f"sqlite:///{path}")
    with SessionStore.open(f"sqlite:///{path}", session_id="s") as store, store.begin() as tx:
        tx.put_blob(b"x")
        rows = all_rows(path)
        with engine.connect() as connection, pytest.raises(NestedTransactionError, match="use its"):
            create_tables(connection, prefix="other_")
        assert all_rows(path) == rows
    engine.dispose()


def test_k_tx_3_a_wait_for_an_engine_of_this_process_says_so(path: Path) -> None:
    """Inside its transaction it would be one for itself; nobody can tell that for sure, but its programmer."""
    engine = configure(create_engine(f"sqlite:///{path}"))
    with SessionStore.open(f"sqlite:///{path}", session_id="s", busy_timeout_ms=50) as store:
        store.put_blob(b"x")
        with engine.begin() as connection:
            SessionTx.on(connection, session_id="s")
            rows = all_rows(path)
            with pytest.raises(
                StoreBusyError, match=r"begun in the thread 'MainThread'.*by on"
            ) as busy:
                store.put_blob(b"y")
            assert busy.value.waited_ms >= 50
            assert all_rows(path) == rows
            second = configure(create_engine(f"sqlite:///{path}"), busy_timeout_ms=50)
            with pytest.raises(StoreBusyError, match="begun in the thread 'MainThread'"):
                with second.begin():
                    pytest.fail("it has begun")
            second.dispose()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreBusyError, match="for its lock; trying"):
                store.put_blob(b"y")
    engine.dispose()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # of what aiosqlite leaves behind
def test_k_tx_14_who_is_cancelled_as_it_connects_leaves_its_place_in_the_pool(path: Path) -> None:
    SessionStore.open(path, session_id="s").close()

    async def main() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_timeout=3)
        configure(engine)

        async def request() -> None:
            async with engine.begin() as connection:
                SessionTx.on(connection, session_id="s").work_depth()

        await request()
        for steps in range(400):
            task = asyncio.create_task(request())
            for _ in range(steps % 12):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        pool: Any = engine.sync_engine.pool
        for _ in range(1_000):
            if not pool.checkedout():
                break
            await asyncio.sleep(0.005)
        assert pool.checkedout() == 0
        await request()
        await engine.dispose()

    asyncio.run(main())
    gc.collect()
