"""An application's own tables and engines beside ours, on both databases: what each of them is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Select,
    Table,
    Text,
    create_engine,
    delete,
    exists,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import CompileError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session

from lash_store import (
    Deployment,
    Fence,
    Lease,
    Leases,
    LeaseTable,
    NewWork,
    SessionStore,
    SessionTx,
    configure,
    create_tables,
    prepare,
)
from lash_store.errors import ScopeError
from lash_store.session.tables import blobs, graph_nodes, queued_work_batches
from lash_store.statements import across_sessions

mine = MetaData()
my_blobs = Table(
    "blobs", mine, Column("hash", Text, primary_key=True), Column("content", LargeBinary)
)
my_notes = Table("notes", mine, Column("text", Text, primary_key=True))
prices = Table(
    "prices",
    mine,
    Column("id", Integer, primary_key=True),
    Column("amount", Numeric(10, 2)),
    Column("ratio", Float),
)


@pytest.fixture(params=["sqlite", "postgresql"])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that an application has: a file, or a schema of a server."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/app.db"
    found: str = request.getfixturevalue("own_url")
    return found


def test_k_share_2_two_tables_of_one_name_need_an_alias(at: str) -> None:
    engine = configure(create_engine(at))
    try:
        with engine.begin() as connection:
            SessionTx.on(connection, session_id="chat")
            mine.create_all(connection)
            connection.execute(insert(blobs).values(hash="h1", content=b"x"))
            connection.execute(insert(my_blobs), [{"hash": "h1"}, {"hash": "h2"}])
            same = blobs.c.hash == my_blobs.c.hash
            across = across_sessions(blobs)
            for refused in (
                delete(my_blobs).where(exists().where(same)),
                delete(blobs).where(exists().where(same)),
                update(my_blobs).values(
                    content=select(blobs.c.content).where(same).scalar_subquery()
                ),
                select(my_blobs.c.hash).where(~exists().where(same)),
                select(my_blobs.c.hash).join(blobs, same),
                select(across.c.store).where(exists().where(blobs.c.hash == across.c.hash)),
                insert(my_notes).from_select(
                    ["text"], select(my_blobs.c.hash).where(exists().where(same))
                ),
            ):
                with pytest.raises(CompileError, match=r"'blobs'.*alias"):
                    connection.execute(refused)
            named = my_blobs.alias("own")
            there = select(named.c.hash).where(exists().where(blobs.c.hash == named.c.hash))
            assert connection.scalars(there).all() == ["h1"]
            ours = blobs.alias("ours")
            gone = delete(my_blobs).where(exists().where(ours.c.hash == my_blobs.c.hash))
            assert connection.execute(gone).rowcount == 1
            # Beside each other, where neither sees the other, they need none.
            both = select(blobs.c.hash).union_all(select(my_blobs.c.hash))
            assert sorted(connection.scalars(both)) == ["h1", "h2"]
            apart = select(my_blobs.c.hash).subquery()
            assert connection.scalars(
                select(blobs.c.hash).where(blobs.c.hash.not_in(select(apart.c.hash)))
            ).all() == ["h1"]
    finally:
        engine.dispose()


def test_k_share_2_a_prepared_statement_without_a_session_is_refused(at: str) -> None:
    @prepare
    def batches() -> Select[str]:
        return select(queued_work_batches.c.batch_id)

    @prepare
    def renamed() -> Any:
        return update(queued_work_batches).values(source_key="x")

    with Deployment.open(at) as deployment:
        with deployment.sessions.create("chat", model="m") as store:
            store.enqueue_work(NewWork(["x"]))
            with store.read() as tx:
                assert len(batches.all(tx.cursor)) == 1
        with deployment.processes.begin() as unscoped:
            for call in (batches.all, batches.one, renamed.run):
                with pytest.raises(ScopeError):
                    call(unscoped.cursor)


def test_k_share_2_a_row_of_ours_may_come_with_one_of_a_cte(own_url: str) -> None:
    """On PostgreSQL: SQLite has no INSERT in a CTE."""
    with SessionStore.open(own_url, session_id="chat") as store, store.begin() as tx:
        mine.create_all(tx.connection)
        own = insert(my_notes).values(text="n1").returning(my_notes.c.text).cte("own")
        node = select(own.c.text).scalar_subquery()
        tx.connection.execute(insert(graph_nodes).values(node_id=node, node_json="{}"))
        assert tx.connection.scalars(select(graph_nodes.c.node_id)).all() == ["n1"]


def test_k_share_2_a_schema_translate_map_is_not_about_our_tables(at: str) -> None:
    with SessionStore.open(at, session_id="chat") as store, store.begin() as tx:
        schema = "main" if tx.connection.dialect.name == "sqlite" else None
        if schema is None:
            schema = tx.connection.exec_driver_sql("SELECT current_schema()").scalar_one()
        mine.create_all(tx.connection)
        mapped = tx.connection.execution_options(schema_translate_map={None: schema})
        mapped.execute(insert(blobs).values(hash="h", content=b""))
        mapped.execute(insert(my_notes).values(text="h"))
        joined = select(blobs.c.hash).join(my_notes, my_notes.c.text == blobs.c.hash)
        assert mapped.scalars(joined).all() == ["h"]
        changed = update(blobs).where(blobs.c.hash == "h").values(content=b"new")
        assert mapped.execute(changed).rowcount == 1
        assert mapped.execute(delete(blobs)).rowcount == 1


renamed_jobs = Table(
    "renamed",
    mine,
    Column("name", Text, primary_key=True),
    Column("owner", Text, key="token"),
    Column("token", Text, key="owner"),
    Column("the term", BigInteger, key="term", nullable=False, server_default="0"),
    Column("since", BigInteger, nullable=False, server_default="0"),
    Column("until", BigInteger, nullable=False, server_default="0"),
)


class RenamedFence(Fence, frozen=True):
    """Of a table whose columns have other names in Python, two of them each other's."""

    leases = LeaseTable(
        renamed_jobs,
        key=renamed_jobs.c.name,
        owner_id=renamed_jobs.c.owner,
        token=renamed_jobs.c.token,
        fencing_token=renamed_jobs.c.term,
        claimed_at_ms=renamed_jobs.c.since,
        expires_at_ms=renamed_jobs.c.until,
    )


def test_k_lease_1_columns_may_have_other_names_in_python(at: str) -> None:
    jobs = Leases(RenamedFence)
    with SessionStore.open(at, session_id="chat") as store, store.begin() as tx:
        mine.create_all(tx.connection)
        for number, owner in enumerate(["ann", "bob"], 1):
            term = jobs.claim(tx, "job", owner_id=owner, ttl_ms=1_000)
            assert isinstance(term, Lease)
            assert (term.owner_id, term.fencing_token) == (owner, number)
            jobs.require(tx, term.fence)
            assert jobs.release(tx, term.fence)


def test_numbers_of_a_prepared_statement_come_as_sqlalchemy_gives_them(at: str) -> None:
    @prepare
    def price(*, number: int) -> Select[Any, Any, Any]:
        return select(prices.c.amount, prices.c.ratio, prices.c.id / 2).where(prices.c.id == number)

    with SessionStore.open(at, session_id="chat") as store, store.begin() as tx:
        mine.create_all(tx.connection)
        tx.connection.execute(insert(prices).values(id=3, amount=2, ratio=0.5))
        found = price.one(tx.cursor, number=3)
        assert found is not None
        expected = tx.connection.execute(price(number=3)).one()
        assert [(type(a), a) for a in found] == [(type(b), b) for b in expected]


def changes_of(connection: Connection) -> int:
    """Return how often a file's schema was changed; servers do not count that."""
    if connection.dialect.name != "sqlite":
        return 0
    return int(connection.exec_driver_sql("PRAGMA schema_version").scalar_one())


def test_k_guard_5_what_was_made_and_undone_is_made_again(at: str) -> None:
    engine = configure(create_engine(at, pool_size=1, max_overflow=0))
    try:
        for how in ("transaction", "savepoint"):
            with engine.connect() as connection, connection.begin() as whole:
                part = connection.begin_nested() if how == "savepoint" else whole
                SessionTx.on(connection, session_id="a")
                SessionTx.on(connection, session_id="b")
                changes = changes_of(connection)
                part.rollback()
                if how == "savepoint":
                    whole.commit()
            other = create_engine(at)  # as many changes of the schema, by somebody else
            with other.begin() as connection:
                while (now := changes_of(connection)) < changes:
                    connection.exec_driver_sql(f"CREATE TABLE theirs_{now} (x)")
            other.dispose()
        with engine.begin() as connection:
            SessionTx.on(connection, session_id="a").enqueue_work(NewWork(["x"]))
        with engine.begin() as connection:
            assert SessionTx.on(connection, session_id="a").work_depth().batches == 1
    finally:
        engine.dispose()


class Base(DeclarativeBase):
    pass


class Blob(Base):
    __table__ = blobs
    content: Mapped[bytes]


def test_k_share_11_an_object_of_another_session_is_not_taken_in(at: str) -> None:
    engine = configure(create_engine(at))
    try:
        for name in ("a", "b"):
            with Session(engine) as session, session.begin():
                SessionTx.on(session, session_id=name)
                session.add(Blob(hash="k", content=name.encode()))
        with Session(engine, expire_on_commit=False) as session, session.begin():
            SessionTx.on(session, session_id="a")
            of_a = session.get(Blob, "k")
            assert of_a is not None
        with Session(engine) as session, session.begin():
            SessionTx.on(session, session_id="b")
            with pytest.raises(ScopeError, match=r"'a'.*'b'"):
                session.add(of_a)
            assert session.scalars(select(Blob)).one().content == b"b"
        with Session(engine) as session, session.begin():
            session.add(of_a)
            with pytest.raises(ScopeError):
                SessionTx.on(session, session_id="b")
        with Session(engine) as session, session.begin():
            SessionTx.on(session, session_id="a")
            session.add(of_a)
            assert session.scalars(select(Blob)).one() is of_a
    finally:
        engine.dispose()


def test_k_share_5_tables_are_made_in_autocommit_too(at: str) -> None:
    engine = create_engine(at, isolation_level="AUTOCOMMIT")
    try:
        mine.create_all(engine)
        with engine.connect() as connection:
            create_tables(connection)
            connection.execute(insert(my_notes).values(text="n"))
        with engine.connect() as connection:
            assert len(inspect(connection).get_table_names()) > 20
            assert connection.scalars(select(my_notes.c.text)).all() == ["n"]
    finally:
        engine.dispose()


def test_k_share_2_an_engines_first_statement_is_about_our_tables(at: str) -> None:
    """It is compiled before it begins anything."""
    for made in (True, False, False):
        engine = configure(create_engine(at))
        try:
            if made:
                with engine.begin() as connection:
                    mine.create_all(connection)
                    SessionTx.on(connection, session_id="a")
                    connection.execute(insert(my_blobs).values(hash="mine"))
                    connection.execute(insert(blobs).values(hash="ours", content=b""))
                continue
            with engine.connect() as connection:
                with pytest.raises(ScopeError):
                    connection.execute(delete(blobs))
                connection.rollback()
                gone = connection.execute(
                    delete(blobs), execution_options={"lash_store_session": "b"}
                )
                assert gone.rowcount == 0
                connection.commit()
                connection.execution_options(isolation_level="AUTOCOMMIT")
                assert connection.scalars(
                    select(blobs.c.hash), execution_options={"lash_store_session": "a"}
                ).all() == ["ours"]
                assert connection.scalars(select(my_blobs.c.hash)).all() == ["mine"]
        finally:
            engine.dispose()
