"""Eight processes at thirty-two sessions, killed, stopped, cut off and behind a pooler: nothing is lost or done twice.

``LASH_STORE_HAMMER_S`` says for how long each; a few seconds by default.
"""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psycopg
from sqlalchemy import make_url

from lash_store import SessionStore
from tests.support import postgresql
from tests.support.hammer import check, hammer
from tests.support.pgbouncer import pgbouncer
from tests.support.proxy import proxy

SECONDS = float(os.environ.get("LASH_STORE_HAMMER_S", "5"))
Admin = psycopg.Connection[Any]


def test_nothing_is_lost_or_done_twice_under_sigkill_and_sigstop(
    url: str, place: str, admin: Admin, tmp_path: Path
) -> None:
    SessionStore.open(url, session_id="first", schema=place).close()
    assert hammer(url, place, tmp_path, SECONDS) > 0
    found = check(admin, place, tmp_path)
    assert found["turns"] > 10


def test_nothing_is_lost_behind_a_pooler_in_transaction_mode(
    url: str, place: str, admin: Admin, tmp_path: Path
) -> None:
    with proxy(make_url(url)) as wire, pgbouncer(make_url(wire.url), tmp_path) as pooled:
        SessionStore.open(pooled, session_id="first", schema=place, prepare_threshold=None).close()
        told = tmp_path / "told"
        told.mkdir()
        hammer(pooled, place, told, SECONDS, prepare_threshold=None)
    found = check(admin, place, told)
    assert found["turns"] > 10


def test_k_pg_2_nothing_is_lost_when_the_server_is_restarted_again_and_again(
    tmp_path: Path,
) -> None:
    """Without a shutdown, as after a crash; every call is told that it was done, was not, or that nobody knows."""
    with postgresql.own_server(is_durable=True) as server:
        url = make_url(server.url).set(drivername="postgresql+psycopg").render_as_string(False)
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA hammered")
        SessionStore.open(url, session_id="first", schema="hammered").close()
        is_over, restarts = Event(), []

        def restart() -> None:
            while not is_over.wait(max(1.0, SECONDS / 6)):
                server.restart()
                restarts.append(1)

        thread = Thread(target=restart)
        thread.start()
        try:
            hammer(url, "hammered", tmp_path, SECONDS)
        finally:
            is_over.set()
            thread.join()
        with psycopg.connect(server.url, autocommit=True) as connection:
            found = check(connection, "hammered", tmp_path)
        assert len(restarts) > 1
        assert found["turns"] > 10
        assert found["refused"]
