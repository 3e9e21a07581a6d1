"""What an error in the midst of several statements leaves behind on the connection: nothing that the next call meets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, make_url, select, text

from lash_store import (
    Append,
    NewWork,
    Node,
    SessionStore,
    TurnCommit,
    configure,
)
from lash_store.errors import LashStoreError, MissingTableError, StorageError
from lash_store.session.records import SessionLease
from lash_store.session.tables import queued_work_batches
from lash_store.session.tx import SessionTx
from tests.support.turns import eventually, join, started

LONG_MS = 600_000


class Failing:
    """An application's trigger on some of our tables, which refuses each row while it is told to."""

    def __init__(self, admin: psycopg.Connection[Any], place: str) -> None:
        self._admin, self._place = admin, place
        admin.execute(f"CREATE TABLE {place}.refusing (now boolean)")
        admin.execute(
            f"CREATE FUNCTION {place}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF EXISTS (SELECT FROM {place}.refusing) THEN RAISE 'refused by the application'; END IF; "
            "RETURN NEW; END $$"
        )
        for table in ("queued_work_items", "session_execution_leases", "graph_nodes"):
            admin.execute(
                f"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {place}.lash_{table} "
                f"FOR EACH ROW EXECUTE FUNCTION {place}.refuse()"
            )

    @contextmanager
    def now(self) -> Iterator[None]:
        self._admin.execute(f"INSERT INTO {self._place}.refusing VALUES (true)")
        yield
        self._admin.execute(f"DELETE FROM {self._place}.refusing")


def _commit(store: SessionStore, lease: SessionLease) -> object:
    head = store.load_head()
    parent = None if head is None else head.leaf_node_id
    name = f"after-{parent}"
    return store.commit_turn(
        TurnCommit(fence=lease.fence, graph=Append([Node(name, parent, {})], leaf=name))
    )


CALLS: dict[str, Callable[[SessionStore, SessionLease], object]] = {
    "renew_lease": lambda store, lease: store.renew_lease(lease.fence, ttl_ms=LONG_MS),
    "enqueue_work": lambda store, _: store.enqueue_work(NewWork([1])),
    "commit_turn": _commit,
}


@pytest.mark.parametrize("begins_with_a_read", [True, False])
@pytest.mark.parametrize("name", CALLS)
def test_k_lock_3_a_statement_that_fails_leaves_its_connection_of_use(
    url: str, place: str, admin: psycopg.Connection[Any], name: str, *, begins_with_a_read: bool
) -> None:
    """However often the same were executed on it before: some are prepared by then, and some are about to be."""
    call = CALLS[name]
    for executions in range(8):
        with SessionStore.open(
            url, session_id=f"s{executions}", schema=place, pool_size=1
        ) as store:
            if executions == 0:
                failing = Failing(admin, place)
            if begins_with_a_read:
                store.load_head()
            lease = store.claim_lease(owner_id="ann", ttl_ms=LONG_MS)
            assert isinstance(lease, SessionLease)
            for _ in range(executions):
                call(store, lease)
            with failing.now(), pytest.raises(StorageError, match="refused by the application"):
                call(store, lease)
            for _ in range(7):
                call(store, lease)


def test_k_lock_3_what_fails_in_a_savepoint_leaves_the_rest_of_the_transaction_of_use(
    url: str, place: str, admin: psycopg.Connection[Any]
) -> None:
    with SessionStore.open(url, session_id="s", schema=place, pool_size=1) as store:
        failing = Failing(admin, place)
        for executions in range(8):
            with store.begin() as tx:
                for _ in range(executions):
                    tx.enqueue_work(NewWork(["before"]))
                with failing.now(), suppress(LashStoreError), tx.connection.begin_nested():
                    tx.enqueue_work(NewWork(["never"]))
                for _ in range(7):
                    tx.enqueue_work(NewWork(["behind"]))
        batches = store.list_work(limit=1_000)
        payloads = [batch.items[0].payload for batch in batches]
        assert payloads.count("behind") == 8 * 7
        assert "never" not in payloads


def test_k_group_3_those_that_an_application_refuses_cost_the_others_nothing(
    url: str, place: str, admin: psycopg.Connection[Any]
) -> None:
    with SessionStore.open(url, session_id="s", schema=place) as store:
        store.work_depth()
        admin.execute(
            f"CREATE FUNCTION {place}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF NEW.payload_json::text LIKE '%bad%' THEN RAISE 'refused'; END IF; RETURN NEW; END $$"
        )
        admin.execute(
            f"CREATE TRIGGER refuse BEFORE INSERT ON {place}.lash_queued_work_items "
            f"FOR EACH ROW EXECUTE FUNCTION {place}.refuse()"
        )
        answered: list[str] = []
        refused: dict[str, StorageError] = {}

        def enqueue(number: int) -> None:
            for at in range(20):
                name = f"{'bad' if (at + number) % 7 == 0 else 'good'}-{number}-{at}"
                try:
                    store.enqueue_work(NewWork([name], source_key=name))
                except StorageError as error:
                    refused[name] = error
                else:
                    answered.append(name)

        join(*started(*[lambda number=number: enqueue(number) for number in range(6)]))
        assert not [name for name in refused if "bad" not in name]
        rows = admin.execute(f"SELECT source_key FROM {place}.lash_queued_work_batches").fetchall()
        assert sorted(answered) == sorted(key for (key,) in rows)
        assert len(answered) == sum((at + n) % 7 != 0 for n in range(6) for at in range(20))


# How durable a commit is (``synchronous``).


@pytest.fixture
def careless(url: str) -> str:
    """The server's URL, for a role whose commits don't wait for the disk."""
    return f"{url}{'&' if '?' in url else '?'}options=-csynchronous_commit%3Doff"


def test_full_holds_for_a_call_that_joins_one_that_did_not_ask_for_it(
    careless: str, place: str, admin: psycopg.Connection[Any]
) -> None:
    with (
        SessionStore.open(careless, session_id="s", schema=place) as relaxed,
        SessionStore.open(careless, session_id="s", schema=place, synchronous="FULL") as durable,
    ):
        admin.execute(f"CREATE TABLE {place}.seen (what text, how text)")
        admin.execute(
            f"CREATE FUNCTION {place}.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"INSERT INTO {place}.seen VALUES (NEW.payload_json::text, current_setting('synchronous_commit')); "
            "RETURN NEW; END $$"
        )
        admin.execute(
            f"CREATE TRIGGER note BEFORE INSERT ON {place}.lash_queued_work_items "
            f"FOR EACH ROW EXECUTE FUNCTION {place}.note()"
        )
        relaxed.enqueue_work(NewWork(["relaxed, alone"]))
        database: Any = relaxed._handle.database  # type: ignore[attr-defined] # reason: what is open is no business of a store's
        with relaxed.begin():
            threads = started(lambda: relaxed.enqueue_work(NewWork(["relaxed"])))
            eventually(lambda: len(database.turns.waiting) == 1)
            threads += started(lambda: durable.enqueue_work(NewWork(["durable"])))
            eventually(lambda: len(database.turns.waiting) == 2)
        join(*threads)
        seen = dict(admin.execute(f"SELECT what, how FROM {place}.seen").fetchall())
        assert seen['"relaxed, alone"'] == "off"
        assert seen['"durable"'] == "on"


@pytest.mark.parametrize(
    "levels",
    [
        ("off", "NORMAL", "off"),
        ("off", "FULL", "on"),
        ("local", "FULL", "on"),
        ("on", "FULL", "on"),
        ("remote_apply", "FULL", "remote_apply"),
        ("remote_apply", "NORMAL", "remote_apply"),
    ],
)
@pytest.mark.parametrize("how", ["own", "joined"])
def test_full_is_at_least_what_it_says(
    url: str, place: str, how: str, levels: tuple[str, Any, str]
) -> None:
    server, asked, found = levels
    there = f"{url}{'&' if '?' in url else '?'}options=-csynchronous_commit%3D{server}"
    show = text("SHOW synchronous_commit")
    with SessionStore.open(there, session_id="s", schema=place, synchronous=asked) as store:
        if how == "own":
            with store.begin() as tx:
                assert tx.connection.scalar(show) == found
            return
    engine = configure(create_engine(there), schema=place, synchronous=asked)
    with engine.connect() as connection:
        with connection.begin():
            SessionTx.on(connection, session_id="s").enqueue_work(NewWork([1]))
            assert connection.scalar(show) == found
        with connection.begin():
            with suppress(ZeroDivisionError), connection.begin_nested():
                SessionTx.on(connection, session_id="s")
                raise ZeroDivisionError
            SessionTx.on(connection, session_id="s").enqueue_work(NewWork([1]))
            assert connection.scalar(show) == found
        with connection.begin():
            with suppress(ZeroDivisionError), connection.begin_nested():
                tx = SessionTx.on(connection, session_id="s")
                raise ZeroDivisionError
            tx.enqueue_work(NewWork([1]))
            assert connection.scalar(show) == found
    engine.dispose()


@pytest.mark.parametrize("name", ["My Schema", 'q"uote', "a.b", "O'Brien", "100%x"])
def test_k_share_3_a_table_that_is_gone_is_told_wherever_it_was(
    url: str, admin: psycopg.Connection[Any], name: str
) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    admin.execute(f"CREATE SCHEMA {quoted}")
    there = make_url(url).update_query_dict({"options": f"-csearch_path={_escaped(quoted)}"})
    try:
        with SessionStore.open(there.render_as_string(False), session_id="s") as store:
            store.enqueue_work(NewWork([1]))
            admin.execute(
                f"DROP TABLE {quoted}.lash_queued_work_items, {quoted}.lash_queued_work_batches"
            )
            with pytest.raises(MissingTableError):
                store.enqueue_work(NewWork([1]))
            with pytest.raises(MissingTableError), store.begin() as tx:
                tx.connection.execute(select(queued_work_batches))
    finally:
        admin.execute(f"DROP SCHEMA {quoted} CASCADE")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
