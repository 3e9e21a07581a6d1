"""Debian's pgbouncer in transaction mode, between clients and a server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from sqlalchemy import URL

CONFIG = """\
[databases]
{name} = host={host} port={port} dbname={name} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 6
max_client_conn = 200
ignore_startup_parameters = extra_float_digits,options
logfile = {folder}/pgbouncer.log
"""


@contextmanager
def pgbouncer(server: URL, folder: Path) -> Iterator[str]:
    """Start one before a server that listens on a port; return its URL. It is an error if none is installed."""
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {
        "name": server.database,
        "host": server.host,
        "port": server.port,
        "user": server.username,
        "listen": port,
        "folder": folder,
    }
    config = folder / "pgbouncer.ini"
    config.write_text(CONFIG.format(**given))
    folder.chmod(0o777)  # it does not run as root
    config.chmod(0o644)
    for parent in folder.parents:
        if parent == Path("/tmp"):  # reason: where pytest's folders are
            break
        with suppress(PermissionError):
            parent.chmod(parent.stat().st_mode | 0o755)
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    running = subprocess.Popen([program, "-q", *user, str(config)])
    there = server.set(host="127.0.0.1", port=port, query={})
    try:
        _wait_for(there.set(drivername="postgresql").render_as_string(False))
        yield there.update_query_dict({"sslmode": "disable"}).render_as_string(False)
    finally:
        running.terminate()
        running.wait(10)


def _wait_for(url: str) -> None:
    until_s = time.monotonic() + 10
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.05)
        else:
            return
