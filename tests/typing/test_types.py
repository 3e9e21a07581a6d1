"""What a type checker sees: mypy --strict and pyright --strict both check this file.

It also runs, so that what it says is true of values as well.
"""

from __future__ import annotations

import asyncio
from typing import Any, assert_type

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Delete,
    Engine,
    Select,
    Update,
    create_engine,
    delete,
    select,
    union_all,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from lash_store import (
    AsyncSessionStore,
    LeaseHeld,
    SessionFence,
    SessionLease,
    SessionStore,
    SessionTx,
    configure,
    prepare,
)
from lash_store.session import statements
from lash_store.session.tables import blobs
from lash_store.statements import Prepared, PreparedRows, is_one_of, json_text

Term = tuple[str, str | None, str | None, int, int, int]


def test_builders() -> None:
    assert_type(
        statements.current_lease(key="s"),
        Select[str, str | None, str | None, int, int, int],
    )
    assert_type(
        statements.select_leases().where(statements.is_live(now_ms=1)).limit(3),
        Select[str, str | None, str | None, int, int, int],
    )
    assert_type(statements.is_live(now_ms=1), ColumnElement[bool])
    assert_type(
        statements.claim_lease(key="s", owner_id="o", token="t", now_ms=1, expires_at_ms=2),
        ReturningInsert[str, str | None, str | None, int, int, int],
    )
    assert_type(
        statements.renew_lease(
            key="s", owner_id="o", token="t", fencing_token=1, now_ms=1, expires_at_ms=2, ttl_ms=1
        ),
        ReturningUpdate[str, str | None, str | None, int, int, int],
    )
    assert_type(statements.release_lease(key="s", owner_id="o", token="t", fencing_token=1), Update)


def delete_blob(*, hash: str) -> Delete:  # noqa: A002 # reason: the column's name
    return delete(blobs).where(blobs.c.hash == hash)


def hashes_of(*, one: str, other: str) -> CompoundSelect[str, bytes]:
    named = select(blobs.c.hash, blobs.c.content)
    return union_all(named.where(blobs.c.hash == one), named.where(blobs.c.hash == other))


def test_prepared_statements_take_their_types_from_the_builder() -> None:
    with SessionStore.open(None, session_id="s") as store, store.begin() as tx:
        current = prepare(statements.current_lease)
        assert_type(current.one(tx.cursor, key="s"), Term | None)
        assert_type(current.all(tx.cursor, key="s"), list[Term])
        assert isinstance(current, PreparedRows)
        gone = prepare(delete_blob)
        assert_type(gone.run(tx.cursor, hash="h"), int)
        assert_type(gone.bind(tx.cursor, hash="h"), tuple[Any, ...])
        assert_type(gone.many(tx.cursor, [gone.bind(tx.cursor, hash="h")]), int)
        assert isinstance(gone, Prepared)
        ref = tx.put_blob(b"x")
        either = prepare(hashes_of)
        found = either.all(tx.cursor, one=ref, other=ref)
        assert_type(found, list[tuple[str, bytes]])
        assert [each for each, _ in found] == [ref, ref]


def test_operations() -> None:
    with SessionStore.open(None, session_id="s") as store:
        assert_type(store, SessionStore)
        lease = store.claim_lease(owner_id="a", ttl_ms=1_000)
        assert_type(lease, SessionLease | LeaseHeld)
        assert isinstance(lease, SessionLease)
        assert_type(lease.fence, SessionFence)
        assert_type(store.renew_lease(lease.fence, ttl_ms=1), SessionLease)
        assert_type(store.current_lease(), SessionLease | None)
        assert_type(store.release_lease(lease.fence), bool)
        with store.begin() as tx:
            assert_type(tx, SessionTx)
            assert_type(tx.claim_lease(owner_id="a", ttl_ms=1), SessionLease | LeaseHeld)
            assert_type(tx.now_ms, int)
            assert_type(tx.connection, Connection)
            assert_type(lease.fence.holds(now_ms=tx.now_ms), ColumnElement[bool])
        with store.read() as tx:
            assert_type(tx, SessionTx)


def test_async_operations() -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(None, session_id="s") as store:
            assert_type(store, AsyncSessionStore)
            lease = await store.claim_lease(owner_id="a", ttl_ms=1_000)
            assert_type(lease, SessionLease | LeaseHeld)
            assert isinstance(lease, SessionLease)
            assert_type(await store.renew_lease(lease.fence, ttl_ms=1), SessionLease)
            assert_type(await store.current_lease(), SessionLease | None)
            assert_type(await store.transact(lambda tx: tx.release_lease(lease.fence)), bool)
            assert_type(await store.read(lambda tx: tx.now_ms), int)

    asyncio.run(main())


def test_configure() -> None:
    engine = configure(create_engine("sqlite://"))
    assert_type(engine, Engine)
    with engine.begin() as connection:
        assert_type(SessionTx.on(connection, session_id="s"), SessionTx)
    engine.dispose()


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    notes: Mapped[str | None]
    priority: Mapped[int | None]
    ready: Mapped[bool]


def test_attributes_of_a_mapped_class() -> None:
    assert_type(is_one_of(Order.id, [1]), ColumnElement[bool])
    assert_type(is_one_of(Order.name, ["a"]), ColumnElement[bool])
    assert_type(is_one_of(Order.priority, [1]), ColumnElement[bool])
    assert_type(is_one_of(blobs.c.hash, ["a"]), ColumnElement[bool])
    assert_type(json_text(Order.name, "a"), ColumnElement[str])
    assert_type(json_text(Order.notes, "a"), ColumnElement[str])


def chosen(store: SessionStore, fence: SessionFence) -> None:
    """What an ORM's attributes are to type checkers; these are of no table that is claimed from."""
    store.claim_work(fence, owner_id="a", ttl_ms=1, where=Order.ready, order_by=Order.id)


def never(store: SessionStore, fence: SessionFence, tx: SessionTx) -> None:
    """Misuse that both checkers must refuse: to both, an ignore that is not needed is an error."""
    gone = prepare(delete_blob)
    gone.run(tx.cursor, hash=1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    gone.run(tx.cursor)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    gone.one(tx.cursor, hash="h")  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    store.claim_lease(owner_id="a")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    store.claim_lease(owner_id=1, ttl_ms=1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    store.renew_lease("fence", ttl_ms=1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    SessionStore.open("x")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    SessionStore.open("x", session_id="s", synchronous="OFF")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    SessionStore.open("x", session_id="s", unknown=1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    SessionStore.claim_lease(fence, owner_id="a", ttl_ms=1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
