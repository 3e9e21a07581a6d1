"""A redis-server whose wall clock is the test's.

Without it a lock's term would have to be waited for. ``wall_clock.c`` is preloaded into the server;
each command sets the time that it sees, first.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

SHIM = Path(__file__).with_name("wall_clock.c")


class Timed(redis.Redis):  # type: ignore[misc] # reason: it has no types here
    """A client of the server; at each command the server's time is the clock's."""

    wall: mmap.mmap
    clock: Any

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        set_time(self.wall, self.clock.now_ms())
        return super().execute_command(*arguments, **options)


def set_time(wall: mmap.mmap, now_ms: int) -> None:
    wall[:] = (now_ms * 1_000).to_bytes(8, "little")


class Server:
    """A running server: clients of it, each of a clock."""

    def __init__(self, socket: Path, wall: mmap.mmap) -> None:
        self.socket, self.wall = socket, wall

    def client(self, clock: Any) -> Timed:
        """Return a client with a connection of its own."""
        client = Timed(unix_socket_path=str(self.socket))
        client.wall, client.clock = self.wall, clock
        return client

    def empty(self, clock: Any) -> None:
        """Forget everything: a run begins."""
        client = self.client(clock)
        client.flushall()
        client.close()


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """Run a server in this folder, on a socket there."""
    library, page, socket = folder / "wall_clock.so", folder / "now", folder / "redis.sock"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, SHIM], check=True)
    page.write_bytes((1_000_000).to_bytes(8, "little"))
    with page.open("r+b") as file:
        wall = mmap.mmap(file.fileno(), 8)
    options = ("--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no")
    seen = {**os.environ, "LD_PRELOAD": str(library), "LASH_STORE_WALL_CLOCK": str(page)}
    with (folder / "log").open("wb") as log:
        command = ["redis-server", *options]
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=seen)
    try:
        until_s = time.monotonic() + 10
        while not socket.exists():
            if server.poll() is not None or time.monotonic() > until_s:
                raise AssertionError((folder / "log").read_text())
            time.sleep(0.01)
        yield Server(socket, wall)
    finally:
        server.terminate()
        server.wait()
        wall.close()
