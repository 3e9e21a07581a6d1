"""K-SHARE-11: an ORM Session in a shared database is about one session of ours at a time."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import Session, registry

from lash_store import NewWork, SessionStore, SessionTx, configure
from lash_store.errors import ScopeError
from lash_store.session.tables import queued_work_batches
from lash_store.statements import across_sessions
from tests.support.databases import all_rows

pytestmark = pytest.mark.canonical("is about the shared layout")

mapping = registry()
columns = queued_work_batches.c


class Batch:
    enqueue_seq: Any
    batch_id: Any
    merge_key_json: Any


class AnyBatch:
    store: Any
    batch_id: Any


mapping.map_imperatively(Batch, queued_work_batches, primary_key=[columns.enqueue_seq])
every = across_sessions(queued_work_batches)
mapping.map_imperatively(AnyBatch, every, primary_key=[every.c.store, every.c.enqueue_seq])


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{path}"
    for name in ("a", "b"):
        with SessionStore.open(url, session_id=name) as store:
            store.enqueue_work(NewWork([name]))
    made = configure(create_engine(url))
    yield made
    made.dispose()


def first(session: Session, scope: str | None = None) -> Batch:
    options: dict[str, Any] = {} if scope is None else {"lash_store_session": scope}
    return session.execute(select(Batch), execution_options=options).scalar_one()


def test_k_share_11_the_other_sessions_object_is_not_given(engine: Engine) -> None:
    with Session(engine) as orm:
        of_a = first(orm, "a")
        with pytest.raises(ScopeError, match="holds objects of 'a', and what it asks of 'b'"):
            first(orm, "b")
        assert first(orm, "a") is of_a
        orm.expunge_all()
        assert first(orm, "b").batch_id != of_a.batch_id


def test_k_share_11_nor_in_the_next_transaction(engine: Engine) -> None:
    with Session(engine) as orm:
        SessionTx.on(orm, session_id="a")
        of_a = first(orm)
        orm.commit()
        with pytest.raises(ScopeError, match="expunge_all"):
            SessionTx.on(orm, session_id="b")
        SessionTx.on(orm.connection(), session_id="b")
        with pytest.raises(ScopeError, match="expunge_all"):
            first(orm)
        with pytest.raises(ScopeError, match="expunge_all"):
            orm.get(Batch, 1, populate_existing=True)
        with pytest.raises(ScopeError, match="expunge_all"):
            _ = of_a.merge_key_json  # which was expired by the commit


def test_k_share_11_nor_is_it_by_its_key(engine: Engine) -> None:
    """What a Session holds it gives without asking the database."""
    with Session(engine, expire_on_commit=False) as orm:
        of_a = first(orm, "a")
        with pytest.raises(ScopeError, match="holds objects of 'a'"):
            orm.get(Batch, of_a.enqueue_seq, execution_options={"lash_store_session": "b"})
        options = {"lash_store_session": "a"}
        assert orm.get(Batch, of_a.enqueue_seq, execution_options=options) is of_a
        orm.commit()
        assert orm.get(Batch, of_a.enqueue_seq) is of_a  # which asks for nobody's
        SessionTx.on(orm.connection(), session_id="b")
        with pytest.raises(ScopeError, match="holds objects of 'a'"):
            orm.get(Batch, of_a.enqueue_seq)
        orm.expunge_all()
        found = orm.get(Batch, of_a.enqueue_seq)
        assert found is not None
        assert found.batch_id != of_a.batch_id


def test_sqlalchemy_still_looks_objects_up_so() -> None:
    assert callable(Session._identity_lookup)


def test_sqlalchemy_still_keeps_what_mappers_write_so() -> None:
    mappers: Any = sys.modules["sqlalchemy.orm.mapper"]
    assert callable(mappers._all_registries)
    assert hasattr(mappers.Mapper, "_compiled_cache")


def test_k_share_11_nor_is_its_row_written(engine: Engine, path: Path) -> None:
    before = all_rows(path)
    with Session(engine, expire_on_commit=False) as orm:
        SessionTx.on(orm, session_id="a")
        of_a = first(orm)
        orm.commit()
        SessionTx.on(orm.connection(), session_id="b")
        of_a.merge_key_json = '"stolen"'
        with pytest.raises(ScopeError, match="expunge_all"):
            orm.flush()
        orm.rollback()
    assert all_rows(path) == before


def test_k_share_11_on_a_transaction_of_a_store(path: Path, engine: Engine) -> None:
    engine.dispose()
    with (
        SessionStore.open(f"sqlite:///{path}", session_id="a") as store,
        store.begin() as tx,
        tx.orm() as orm,
    ):
        of_a = first(orm)
        with pytest.raises(ScopeError):
            first(orm, "b")
        with SessionTx.beside(tx, session_id="b").orm() as second:
            assert first(second).batch_id != of_a.batch_id


def test_k_share_11_one_scope_after_another_and_all_at_once(engine: Engine) -> None:
    for scope in ("a", "b"):
        with Session(engine) as orm:
            assert first(orm, scope).batch_id
    with Session(engine) as orm:
        first(orm, "a")
        both = orm.execute(select(AnyBatch)).scalars().all()
        assert sorted(each.store for each in both) == ["a", "b"]


def test_k_share_11_a_file_is_one_sessions(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s.db", session_id="a") as store:
        store.enqueue_work(NewWork([1]))
        with store.begin() as tx, tx.orm() as orm:
            first(orm, "a")
            first(orm, "b")  # which says nothing there


def test_the_refusal_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(ScopeError("this", is_orm=True)))
    assert str(error) == str(ScopeError("this", is_orm=True))


@pytest.mark.parametrize("how", ["change", "delete"])
def test_k_share_11_an_object_remembers_whose_it_is(engine: Engine, path: Path, how: str) -> None:
    """In another ORM Session too, which knows nothing of the first."""
    before = all_rows(path)
    with Session(engine, expire_on_commit=False) as orm:
        SessionTx.on(orm, session_id="a")
        of_a = first(orm)
    with Session(engine) as orm:
        SessionTx.on(orm, session_id="b")
        of_a.merge_key_json = '"stolen"'
        with pytest.raises(ScopeError, match="an object of 'a'"):
            orm.add(of_a) if how == "change" else orm.delete(of_a)
        orm.flush()
        orm.commit()
    assert all_rows(path) == before
