"""A server that follows another one: what can be read there, and what is kept when it takes the place."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import count, takewhile

import pytest
from sqlalchemy import make_url

from lash_store import Deployment, EffectStore, NewWork, SessionLease, SessionStore, SessionTx
from lash_store.errors import (
    ConnectionLostError,
    OutcomeUnknownError,
    ReadOnlyStoreError,
    StoreEmptyError,
)
from tests.support import postgresql
from tests.support.postgresql import OwnServer, Replica
from tests.support.turns import PATIENCE_S, eventually

TTL_MS = 60_000
PATIENCE_MS = round(PATIENCE_S * 1000)


@pytest.fixture
def first() -> Iterator[OwnServer]:
    with postgresql.own_server(is_durable=True) as server:
        yield server


@pytest.fixture
def second(first: OwnServer) -> Iterator[Replica]:
    with first.replica() as replica:
        yield replica


def of(server: OwnServer | Replica) -> str:
    return make_url(server.url).set(drivername="postgresql+psycopg").render_as_string(False)


def either_of(first: OwnServer, second: Replica) -> str:
    """Return the URL of a program which looks for the one of them that can be written."""
    there = make_url(of(first))
    both = f"{there.query['host']},{second.folder}"
    asked = {"host": both, "port": "5432,5432", "target_session_attrs": "read-write"}
    return there.update_query_dict(asked).render_as_string(False)


def test_k_pg_7_a_replica_is_read_and_refuses_to_write(first: OwnServer, second: Replica) -> None:
    with pytest.raises(StoreEmptyError):
        SessionStore.open(of(second), session_id="s", read_only=True)
    with pytest.raises(ReadOnlyStoreError, match="recovery"):
        SessionStore.open(of(second), session_id="s")
    with (
        SessionStore.open(of(first), session_id="s") as store,
        SessionStore.open(of(second), session_id="s", read_only=True) as reader,
        SessionStore.open(of(second), session_id="s") as writer,
    ):
        store.enqueue_work(NewWork(["x"]))
        assert reader.list_work() == writer.list_work() == store.list_work()
        work = store.list_work()
        with pytest.raises(ReadOnlyStoreError, match="write inside"):
            reader.enqueue_work(NewWork(["y"]))
        with pytest.raises(ReadOnlyStoreError, match="recovery"):
            writer.enqueue_work(NewWork(["y"]))
        with pytest.raises(ReadOnlyStoreError, match="recovery"), writer.begin():
            pytest.fail("it began")
        assert store.list_work() == reader.list_work() == work


def test_k_wait_3_who_waits_at_a_replica_hears_of_what_has_come_there(
    first: OwnServer, second: Replica
) -> None:
    with (
        SessionStore.open(of(first), session_id="s") as store,
        SessionStore.open(of(second), session_id="s", read_only=True) as reader,
    ):
        looks: list[int] = []

        def look(tx: SessionTx) -> bool | None:
            looks.append(1)
            return tx.work_depth().batches == 1 or None

        got: list[bool | None] = []
        waiting = threading.Thread(
            target=lambda: got.append(reader.wait_until(look, timeout_ms=PATIENCE_MS))
        )
        waiting.start()
        eventually(lambda: bool(looks))
        store.enqueue_work(NewWork(["x"]))
        waiting.join(PATIENCE_S)
        assert got == [True]


def test_k_pg_2_a_program_goes_on_at_the_replica_that_takes_the_place(
    first: OwnServer, second: Replica
) -> None:
    """Of what was answered nothing is lost, the lease and its number neither, and no step runs twice."""
    answered: list[int] = []
    unknown: list[int] = []
    is_enough = threading.Event()

    def enqueue_on() -> None:
        for number in takewhile(lambda _: not is_enough.is_set(), count()):
            while True:
                try:
                    store.enqueue_work(NewWork([number], source_key=str(number)))
                except OutcomeUnknownError:
                    unknown.append(number)  # and sent again, as its docstring says
                except ConnectionLostError:
                    is_lost.set()
                else:
                    answered.append(number)
                    break

    is_lost = threading.Event()
    with closing(Deployment.open(either_of(first, second))) as deployment:
        store = deployment.sessions.create("s", model="m")
        steps: EffectStore = deployment.effects
        lease = store.claim_lease(owner_id="me", ttl_ms=TTL_MS)
        assert isinstance(lease, SessionLease)
        assert steps.run("scope", "step", {}, lambda: 1) == 1
        writing = threading.Thread(target=enqueue_on)
        writing.start()
        eventually(lambda: len(answered) > 20)
        first.stop()
        eventually(is_lost.is_set)
        second.promote()
        already = len(answered)
        eventually(lambda: len(answered) > already + 20)
        is_enough.set()
        writing.join(PATIENCE_S)
        there = [batch.source_key for batch in store.list_work()]
        assert there == [str(number) for number in answered]
        assert set(unknown) <= set(answered)
        assert store.renew_lease(lease.fence, ttl_ms=TTL_MS).fence == lease.fence
        assert steps.run("scope", "step", {}, lambda: 2) == 1
