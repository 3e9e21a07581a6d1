"""An ORM Session on a store's transaction: what it rolls back is its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, create_engine, select
from sqlalchemy.exc import CompileError
from sqlalchemy.orm import Session, registry

from lash_store import NewWork, SessionStore, SessionTx, configure
from lash_store.errors import InvalidRecordError
from lash_store.session.tables import graph_nodes, queued_work_batches

mine = MetaData()
notes = Table("notes", mine, Column("id", Integer, primary_key=True), Column("text", Text))
mapping = registry(metadata=mine)


class Note:
    text: Any

    def __init__(self, text: str) -> None:
        self.text = text


class Batch:
    batch_id: Any


mapping.map_imperatively(Note, notes)
batch_columns = queued_work_batches.c
mapping.map_imperatively(Batch, queued_work_batches, primary_key=[batch_columns.batch_id])


class Numbered:
    seq: Any

    def __init__(self, node_id: str) -> None:
        self.node_id, self.node_json = node_id, "{}"


mapping.map_imperatively(Numbered, graph_nodes)

Begin = Callable[[], Any]


def test_s_queue_10_what_is_mapped_chooses_and_orders(begin: Begin) -> None:
    mapped: Any = Batch
    with begin() as tx:
        first, second = (tx.enqueue_work(NewWork([each])).batch_id for each in (1, 2))
        lease = tx.claim_lease(owner_id="ann", ttl_ms=60_000)
        for order_by, expected in (
            (mapped.enqueue_seq, first),
            ([mapped.enqueue_seq.desc()], second),
            ([mapped.delivery_policy, mapped.enqueue_seq.desc()], second),
        ):
            claim = tx.claim_work(lease.fence, owner_id="o", ttl_ms=9, order_by=order_by)
            assert [batch.batch_id for batch in claim.batches] == [expected]
            tx.abandon_claim(claim)
        with pytest.raises(InvalidRecordError, match="order_by"):
            tx.claim_work(lease.fence, owner_id="o", ttl_ms=9, order_by=mapped)
        with pytest.raises(InvalidRecordError, match="where"):
            tx.claim_work(lease.fence, owner_id="o", ttl_ms=9, where=mapped)


@pytest.fixture(params=["store", "consumer"])
def begin(request: pytest.FixtureRequest, path: Path) -> Iterator[Begin]:
    """Begins a transaction: of a store's, or an application's own that is joined."""
    if request.param == "store":
        with SessionStore.open(path, session_id="s") as store:
            with store.begin() as tx:
                mine.create_all(tx.connection)
            yield store.begin
        return
    engine = configure(create_engine(f"sqlite:///{path}"))
    mine.create_all(engine)

    @contextmanager
    def begun() -> Iterator[SessionTx]:
        with engine.begin() as connection:
            yield SessionTx.on(connection, session_id="s")

    yield begun
    engine.dispose()


def texts(begin: Begin) -> tuple[list[str], int]:
    with begin() as tx:
        found = tx.connection.execute(select(notes.c.text).order_by(notes.c.id)).scalars().all()
        return list(found), len(tx.list_work())


def test_k_tx_13_its_rollback_undoes_its_own_part(begin: Begin) -> None:
    with begin() as tx:
        tx.enqueue_work(NewWork([1]))
        with tx.orm() as orm:
            orm.add(Note("undone"))
            orm.flush()
            orm.rollback()
            orm.add(Note("kept"))
            orm.commit()
            orm.add(Note("not committed, so undone"))
            orm.flush()
        tx.enqueue_work(NewWork([2]))
    assert texts(begin) == (["kept"], 2)


def test_k_tx_13_the_transaction_undoes_what_it_committed(begin: Begin) -> None:
    with pytest.raises(ZeroDivisionError), begin() as tx:
        tx.enqueue_work(NewWork([1]))
        with tx.orm() as orm:
            orm.add(Note("committed in vain"))
            orm.commit()
        _ = 1 / 0
    assert texts(begin) == ([], 0)


def test_k_tx_13_no_exception_of_the_consumers_is_replaced(begin: Begin) -> None:
    with begin() as tx:
        tx.enqueue_work(NewWork([1]))
        with pytest.raises(ValueError, match="the consumer's own"), tx.orm() as orm, orm.begin():
            orm.add(Note("undone"))
            raise ValueError("the consumer's own")
    assert texts(begin) == ([], 1)


@pytest.mark.parametrize("ending", [Session.rollback, Session.close, lambda _: None])
def test_k_tx_13_a_savepoint_undoes_whatever_was_written_behind_it(
    begin: Begin, ending: Callable[[Session], object]
) -> None:
    with begin() as tx, tx.orm() as orm:
        tx.enqueue_work(NewWork([1]))  # before its first statement
        orm.add(Note("kept"))
        orm.flush()
        tx.enqueue_work(NewWork([2]))
        orm.commit()
        orm.add(Note("undone"))
        orm.flush()
        tx.enqueue_work(NewWork([3]))
        ending(orm)
    assert texts(begin) == (["kept"], 2)


def test_k_tx_13_rows_of_ours_are_entities(begin: Begin) -> None:
    with begin() as tx:
        batch = tx.enqueue_work(NewWork([1]))
        with tx.orm() as orm:
            assert [each.batch_id for each in orm.scalars(select(Batch))] == [batch.batch_id]


def numbers(store: SessionStore) -> list[int]:
    with store.read() as tx:
        return list(tx.connection.execute(select(graph_nodes.c.seq)).scalars())


@pytest.mark.canonical("has no form in a shared database")
def test_k_tx_13_several_new_rows_of_ours_are_flushed_at_once(path: Path) -> None:
    """Also of a table whose rows the database numbers."""
    with SessionStore.open(path, session_id="s") as store:
        with store.begin() as tx, tx.orm() as orm:
            nodes = [Numbered(f"n{at}") for at in range(3)]
            orm.add_all(nodes)
            orm.commit()
            assert [node.seq for node in nodes] == [1, 2, 3]
        assert numbers(store) == [1, 2, 3]


@pytest.mark.canonical("opens the other layout by itself")
def test_k_tx_13_several_new_rows_have_no_form_in_a_shared_database(path: Path) -> None:
    with SessionStore.open(f"sqlite:///{path}", session_id="s") as store:
        with store.begin() as tx, tx.orm() as orm:
            orm.add(Numbered("n1"))
            orm.flush()
            orm.add(Numbered("n2"))
            orm.commit()
        with pytest.raises(CompileError, match="several rows"), store.begin() as tx:
            with tx.orm() as orm:
                orm.add_all([Numbered("n3"), Numbered("n4")])
                orm.flush()
        assert numbers(store) == [1, 2]


def test_k_tx_13_a_session_made_on_the_connection_itself(path: Path) -> None:
    """Its rollback undoes what is its own, and nobody's exception is replaced."""
    with SessionStore.open(path, session_id="s") as store:
        with store.begin() as tx:
            mine.create_all(tx.connection)
        with store.begin() as tx:
            tx.enqueue_work(NewWork([1]))
            with Session(tx.connection) as orm:
                orm.add(Note("undone"))
                orm.flush()
                orm.rollback()
                orm.add(Note("kept"))
                orm.commit()
            with (
                pytest.raises(ValueError, match="mine"),
                Session(tx.connection) as orm,
                orm.begin(),
            ):
                orm.add(Note("undone too"))
                orm.flush()
                raise ValueError("mine")
        with store.read() as tx:
            assert tx.connection.execute(select(notes.c.text)).scalars().all() == ["kept"]
        assert store.work_depth().batches == 1
