"""Which schema it is, whatever an application's transaction looks into; and what a server may be like."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, func, make_url, select, text
from sqlalchemy.ext.asyncio import create_async_engine

import lash_store
from lash_store import AsyncDeployment, Deployment, NewWork, SessionStore
from lash_store._backends.postgresql.dialect import outlasts_transaction
from lash_store._backends.postgresql.driver import is_lost
from lash_store._backends.urls import parsed_url, without_password
from lash_store.errors import (
    ConnectionLostError,
    CopyError,
    InvalidRecordError,
    NotConfiguredError,
    ReadOnlyStoreError,
    StoreBusyError,
    StoreOpenError,
)
from lash_store.moving import copy_deployment
from lash_store.schemas import create_tables
from lash_store.session.tables import blobs
from lash_store.session.tx import SessionTx
from tests.support.triggers import draft

Admin = psycopg.Connection[Any]


@pytest.fixture
def tenants(admin: Admin, place: str) -> Iterator[tuple[str, str]]:
    names = (f"{place}_a", f"{place}_b")
    for name in names:
        admin.execute(f"CREATE SCHEMA {name}")
    yield names
    for name in names:
        admin.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    made = lash_store.configure(create_engine(url))
    yield made
    made.dispose()


def look_into(connection: Any, schema: str) -> None:
    connection.execute(text(f"SET LOCAL search_path = {schema}"))


def depth(url: str, schema: str) -> int:
    with SessionStore.open(url, session_id="s", schema=schema) as store:
        return store.work_depth().batches


def test_k_pg_7_a_tx_writes_where_it_joined_or_not_at_all(
    engine: Engine, url: str, tenants: tuple[str, str]
) -> None:
    here, there = tenants
    for tenant in tenants:
        assert depth(url, tenant) == 0
    with engine.begin() as connection:
        look_into(connection, here)
        tx = SessionTx.on(connection, session_id="s")
        look_into(connection, there)
        with pytest.raises(NotConfiguredError, match=there):
            tx.enqueue_work(NewWork(["x"]))
        other = SessionTx.on(connection, session_id="s")
        other.enqueue_work(NewWork(["for the other"]))
        connection.execute(text(f"SELECT set_config('search_path', '{here}', true)"))
        with pytest.raises(NotConfiguredError, match=here):
            other.work_depth()
        tx.enqueue_work(NewWork(["x"]))
        tx.enqueue_work(NewWork(["y"]))
        with pytest.raises(NotConfiguredError, match=there):
            tx.cursor.execute(f"SET LOCAL search_path = {there}")
            tx.enqueue_work(NewWork(["z"]))
    assert [depth(url, tenant) for tenant in tenants] == [2, 1]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT set_config(:name, :there, true)",
        "SET LOCAL SCHEMA '{there}'",
        'SET LOCAL U&"se\\0061rch_path" = {there}',
        "SELECT 1; SET LOCAL SCHEMA '{there}'",
        "/* why */ SET LOCAL SCHEMA '{there}'",
        "-- why\nSET LOCAL SCHEMA '{there}'",
    ],
)
def test_k_pg_7_however_it_is_led_elsewhere(
    engine: Engine, url: str, tenants: tuple[str, str], statement: str
) -> None:
    here, there = tenants
    for tenant in tenants:
        assert depth(url, tenant) == 0
    with engine.begin() as connection:
        bound = text("SELECT set_config(:name, :value, true)")
        connection.execute(bound, {"name": "search_path", "value": here})
        tx = SessionTx.on(connection, session_id="s")
        tx.enqueue_work(NewWork(["x"]))
        led = text(statement.format(there=there))
        values = {"name": "search_path", "there": there} if led.compile().params else {}
        connection.execute(led, values)
        with pytest.raises(NotConfiguredError, match=there):
            tx.enqueue_work(NewWork(["secret"]))
        connection.execute(text("SET LOCAL statement_timeout = 1000"))
    assert [depth(url, tenant) for tenant in tenants] == [1, 0]


def test_k_pg_7_a_role_leads_elsewhere(
    url: str, tenants: tuple[str, str], admin: psycopg.Connection[Any]
) -> None:
    here, there = tenants  # each the name of a role too, which looks into its own schema first
    for tenant in tenants:
        assert depth(url, tenant) == 0
        admin.execute(f"CREATE ROLE {tenant}")
        admin.execute(f"GRANT ALL ON SCHEMA {tenant} TO {tenant}")
        admin.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {tenant} TO {tenant}")
    engine = lash_store.configure(
        create_engine(make_url(url).update_query_dict({"options": '-csearch_path="$user"'}))
    )
    try:
        with engine.begin() as connection:
            connection.execute(text(f"SET LOCAL ROLE {here}"))
            tx = SessionTx.on(connection, session_id="s")
            tx.enqueue_work(NewWork(["x"]))
            connection.execute(text(f"SET LOCAL ROLE {there}"))
            with pytest.raises(NotConfiguredError, match=there):
                tx.enqueue_work(NewWork(["secret"]))
        assert [depth(url, tenant) for tenant in tenants] == [1, 0]
    finally:
        engine.dispose()
        for tenant in tenants:
            admin.execute(f"DROP OWNED BY {tenant}")
            admin.execute(f"DROP ROLE {tenant}")


def test_k_pg_7_an_engine_with_a_schema_may_look_anywhere(
    url: str, tenants: tuple[str, str]
) -> None:
    engine = lash_store.configure(create_engine(url), schema=tenants[0])
    with engine.begin() as connection:
        tx = SessionTx.on(connection, session_id="s")
        look_into(connection, tenants[1])
        tx.enqueue_work(NewWork(["x"]))
    engine.dispose()
    assert [depth(url, tenant) for tenant in tenants] == [1, 0]


def test_k_pg_7_a_stores_own_transaction_stays_where_it_is(
    url: str, tenants: tuple[str, str]
) -> None:
    here, there = tenants
    seen = make_url(url).update_query_dict({"options": f"-csearch_path={here}"})
    assert depth(url, there) == 0
    with SessionStore.open(seen.render_as_string(False), session_id="s") as store:
        with store.begin() as tx:
            look_into(tx.connection, there)
            tx.enqueue_work(NewWork(["x"]))
        assert store.work_depth().batches == 1
    assert [depth(url, tenant) for tenant in tenants] == [1, 0]


@pytest.mark.parametrize("how", ["on", "create_tables"])
def test_k_pg_7_making_tables_leaves_the_application_where_it_looks(
    url: str, tenants: tuple[str, str], how: str
) -> None:
    here, there = tenants
    engine = create_engine(url)
    if how == "on":
        lash_store.configure(engine, schema=there)
    with engine.begin() as connection:
        look_into(connection, f"{here}, public")
        if how == "on":
            SessionTx.on(connection, session_id="s")
        else:
            look_into(connection, f"{there}, public")
            create_tables(connection, SessionTx)
            here = there
        assert connection.scalar(text("SHOW search_path")) == f"{here}, public"
    engine.dispose()
    assert depth(url, there) == 0


def end_backend(admin: Admin, pid: int) -> None:
    admin.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))


def test_k_pg_2_a_joined_tx_says_that_its_connection_is_lost(engine: Engine, admin: Admin) -> None:
    """And what ends the transaction does not hide it."""
    with pytest.raises(ConnectionLostError), engine.begin() as connection:
        tx = SessionTx.on(connection, session_id="s")
        driver: Any = connection.connection.driver_connection
        end_backend(admin, driver.info.backend_pid)
        tx.work_depth()
    with engine.begin() as connection:
        assert SessionTx.on(connection, session_id="s").work_depth().batches == 0


def test_k_pg_2_a_joined_tx_of_asyncio_says_so_too(url: str, admin: Admin) -> None:
    async def main() -> None:
        engine = create_async_engine(url)
        lash_store.configure(engine)
        with pytest.raises(ConnectionLostError):
            async with engine.begin() as connection:
                tx = SessionTx.on(connection, session_id="s")
                raw = await connection.get_raw_connection()
                driver: Any = raw.driver_connection
                end_backend(admin, driver.info.backend_pid)
                tx.work_depth()
        await engine.dispose()

    asyncio.run(main())


def test_k_pg_2_who_looks_for_commits_is_lost_while_it_is_idle(
    url: str, place: str, admin: Admin
) -> None:
    with SessionStore.open(url, session_id="s", schema=place, application_name=place) as store:
        for _ in range(2):
            assert store.wait_until(lambda _: None, timeout_ms=30) is None
            pids = admin.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = %s", (place,)
            ).fetchall()
            assert len(pids) > 1
            for (pid,) in pids:
                end_backend(admin, pid)
        assert store.wait_until(lambda tx: tx.work_depth(), timeout_ms=30) is not None


@pytest.mark.parametrize("code", ["25P03", "25P04", "57P05"])
def test_k_pg_2_a_session_that_took_too_long_is_a_lost_connection(code: str) -> None:
    assert is_lost(type("Ended", (psycopg.Error,), {"sqlstate": code})(), None)


def test_k_pg_3_a_database_in_another_encoding_is_refused(url: str, admin: Admin) -> None:
    name = f"latin_{os.getpid()}"
    admin.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        there = make_url(url).set(database=name).render_as_string(False)
        with pytest.raises(StoreOpenError, match="LATIN1"):
            SessionStore.open(there, session_id="s")
    finally:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_k_pg_2_a_replica_refuses_to_write(url: str, place: str) -> None:
    """It says so as the transaction begins: here in its place, a statement that no server knows."""
    with SessionStore.open(url, session_id="s", schema=place) as store:
        database: Any = store._handle.database  # type: ignore[attr-defined] # reason: what is open is no business of a store's
        connection = database._take()[0]

        def begin(*_: object) -> None:
            raise psycopg.errors.FeatureNotSupported

        connection._begin = begin
        database.give_back(connection)
        with pytest.raises(ReadOnlyStoreError):
            store.put_blob(b"x")
        del connection._begin
        with store.read() as tx:
            assert tx.connection.scalar(select(func.count()).select_from(blobs)) == 0


def test_k_pg_7_the_drivers_name_for_asyncio_leads_to_the_server(url: str, place: str) -> None:
    named = make_url(url).set(drivername="postgresql+psycopg_async").render_as_string(False)
    with Deployment.open(named, schema=place) as deployment:
        deployment.sessions.create("s", model="m").enqueue_work(NewWork(["x"]))
    assert depth(url, place) == 1

    async def main() -> int:
        async with AsyncDeployment.open(named, schema=place) as deployment:
            store = await deployment.sessions.open("s")
            assert store is not None
            return (await store.work_depth()).batches

    assert asyncio.run(main()) == 1


def test_k_pg_7_the_rest_of_a_password_that_is_not_quoted_is_no_host() -> None:
    with pytest.raises(StoreOpenError, match="has to be quoted") as refused:
        Deployment.open("postgresql+psycopg://app:pa@geheim@127.0.0.1:1/db")
    assert "geheim" not in f"{refused.value!r} {refused.value.__cause__!r}"


def test_k_pg_7_what_a_driver_takes_beside_urls_is_no_folder(tmp_path: Any) -> None:
    os.chdir(tmp_path)
    for named in (
        "host=127.0.0.1 port=5432 user=app password=geheim dbname=db",
        "user = app dbname = 'd b'",
    ):
        with pytest.raises(StoreOpenError, match="by a URL") as refused:
            Deployment.open(named)
        assert "geheim" not in str(refused.value)
        assert list(tmp_path.iterdir()) == []
    Deployment.open("tenant=a").close()  # a folder's name
    assert [each.name for each in tmp_path.iterdir()] == ["tenant=a"]


def test_k_pg_7_no_driver_makes_a_folder_of_a_url(tmp_path: Any) -> None:
    os.chdir(tmp_path)
    with pytest.raises(StoreOpenError):
        Deployment.open("post_gres+some_driver://app:secret@db/agents").sessions.create(
            "s", model="m"
        )
    assert list(tmp_path.iterdir()) == []


def test_k_pg_7_no_secret_of_a_url_is_shown() -> None:
    shown = without_password(
        parsed_url(
            "postgresql+psycopg://app:geheim@db/x?password=geheim&sslpassword=geheim&PASSWORD=geheim"
            "&oauth_client_secret=geheim&scram_client_key=geheim&scram_server_key=geheim&sslmode=require"
            "&passwd=geheim&pwd=geheim"
        )
    )
    assert "geheim" not in shown
    assert "sslmode=require" in shown
    for url in (
        " postgresql://app:geheim@db/x",
        "postgresql:app:geheim@db/x",
        "mysql:/app:geheim@db/x",
    ):
        with pytest.raises(StoreOpenError, match="two slashes") as refused:
            SessionStore.open(url, session_id="s")
        assert "geheim" not in str(refused.value)


def test_k_pg_7_after_an_opening_that_failed_the_place_is_looked_up_anew(
    url: str, tenants: tuple[str, str], admin: Admin
) -> None:
    role = f"moves_{os.getpid()}"
    admin.execute(f"CREATE ROLE {role} LOGIN")
    try:
        admin.execute(f"ALTER ROLE {role} SET search_path = {tenants[0]}")
        admin.execute(f"GRANT USAGE ON SCHEMA {tenants[0]} TO {role}")
        admin.execute(f"GRANT CREATE, USAGE ON SCHEMA {tenants[1]} TO {role}")
        as_role = make_url(url).set(username=role).render_as_string(False)
        gc.disable()  # what a failure leaves to it must not decide
        with pytest.raises(StoreOpenError, match="permission denied"):
            SessionStore.open(as_role, session_id="s")
        admin.execute(f"ALTER ROLE {role} SET search_path = {tenants[1]}")
        with SessionStore.open(as_role, session_id="s") as store:
            store.enqueue_work(NewWork([1]))
    finally:
        gc.enable()
        admin.execute(f"DROP OWNED BY {role} CASCADE")
        admin.execute(f"DROP ROLE {role}")
    counted = "SELECT count(*) FROM pg_tables WHERE schemaname = %s"
    assert admin.execute(counted, [tenants[0]]).fetchone() == (0,)


@pytest.mark.parametrize("named", ["own", "Own", "user", 'o"wn'])
def test_k_lock_1_who_has_every_name_quoted_has_the_same_locks(
    url: str, place: str, admin: Admin, named: str
) -> None:
    """Locks are named by the schema as SQL writes it, which a role's setting may not change."""
    name = f"{place}_{named}" if named != "user" else named
    written = '"{}"'.format(name.replace('"', '""'))
    admin.execute(f"CREATE SCHEMA {written}")
    ((expected,),) = admin.execute("SELECT quote_ident(%s)", [name]).fetchall()
    looks = f"-csearch_path={written}"
    plain = make_url(url).update_query_dict({"options": looks})
    quoting = make_url(url).update_query_dict({"options": f"{looks} -cquote_all_identifiers=on"})
    try:
        with (
            SessionStore.open(plain.render_as_string(False), session_id="s") as one,
            SessionStore.open(
                quoting.render_as_string(False), session_id="s", busy_timeout_ms=100
            ) as two,
        ):
            handle: Any = one._handle
            assert handle.database.schema_name == expected
            with one.begin(), ThreadPoolExecutor(1) as thread, pytest.raises(StoreBusyError):
                thread.submit(two.put_blob, b"x").result()
            assert two.put_blob(b"x")
        engine = lash_store.configure(create_engine(quoting))
        with engine.begin() as connection:
            create_tables(connection, "session")
            assert connection.scalar(text("SHOW quote_all_identifiers")) == "on"
        engine.dispose()
    finally:
        admin.execute(f"DROP SCHEMA {written} CASCADE")


def test_k_tx_8_rows_are_plain_whatever_the_engine_makes_of_them(url: str, place: str) -> None:
    engine = create_engine(url, connect_args={"row_factory": psycopg.rows.namedtuple_row})
    with lash_store.configure(engine, schema=place).begin() as connection:
        tx = SessionTx.on(connection, session_id="s")
        tx.enqueue_work(NewWork([1]))
        assert tx.work_depth().batches == 1
    engine.dispose()


def test_k_pg_3_a_text_that_can_not_be_sent_by_now_is_named(url: str, place: str) -> None:
    with SessionStore.open(url, session_id="s", schema=place) as store, store.begin() as tx:
        tx.connection.exec_driver_sql("SET LOCAL client_encoding = latin1")
        with pytest.raises(InvalidRecordError, match="can't be spelt in iso8859-1"):
            tx.enqueue_work(NewWork(["snow"], source_key="\u2603"))
        assert tx.work_depth().batches == 0
        assert tx.connection.default_isolation_level == "READ COMMITTED"


def test_k_pg_7_copying_says_what_a_role_may_not(
    url: str, place: str, admin: Admin, tmp_path: Any
) -> None:
    role = f"copies_{os.getpid()}"
    with Deployment.open(tmp_path / "from") as source:
        source.triggers.register_subscription(draft())
    with Deployment.open(url, schema=place) as target:
        assert target.triggers.list_subscriptions().subscriptions == ()
    admin.execute(f"CREATE ROLE {role} LOGIN")
    try:
        admin.execute(f"GRANT USAGE ON SCHEMA {place} TO {role}")
        admin.execute(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {place} TO {role}"
        )
        admin.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {place} TO {role}")
        limited = make_url(url).set(username=role)
        limited = limited.update_query_dict({"options": f"-csearch_path={place}"})
        to = limited.render_as_string(False)
        with pytest.raises(CopyError, match="permission denied for sequence"):
            copy_deployment(tmp_path / "from", to)
        left = admin.execute(f"SELECT count(*) FROM {place}.lash_trigger_subscriptions").fetchone()
        assert left == (0,)  # nothing of it was kept
        admin.execute(f"GRANT UPDATE ON ALL SEQUENCES IN SCHEMA {place} TO {role}")
        assert any(copied.rows for copied in copy_deployment(tmp_path / "from", to))
    finally:
        admin.execute(f"DROP OWNED BY {role}")
        admin.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize(
    "statement",
    [
        "DO $$BEGIN SET statement_timeout = '77ms'; END$$",
        "call p()",
        "SELECT 1 AS a INTO TEMP t",
        "select 1 as a into temporary table t",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    ],
)
def test_k_tx_7_what_may_set_something_for_the_session_is_known(statement: str) -> None:
    assert outlasts_transaction(statement)
    assert not outlasts_transaction("SELECT into_temp, with_hold FROM doing")


def test_k_share_5_tables_are_made_where_the_engine_is_configured(
    url: str, tenants: tuple[str, str], admin: Admin
) -> None:
    def made_in() -> set[str]:
        found = admin.execute(
            "SELECT schemaname FROM pg_tables WHERE tablename = 'lash_session_head'"
        )
        return {name for (name,) in found.fetchall()}

    before = made_in()
    engine = lash_store.configure(create_engine(url), schema=tenants[1])
    try:
        with engine.begin() as connection:
            create_tables(connection, SessionTx)
            SessionTx.on(connection, session_id="s").enqueue_work(NewWork([1]))
    finally:
        engine.dispose()
    assert made_in() - before == {tenants[1]}
    assert depth(url, tenants[1]) == 1
