"""A wire between a client and a PostgreSQL server that counts round trips, adds time to each, or is cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import sleep
from typing import Final

from sqlalchemy import URL, make_url

_CHUNK: Final = 1 << 16


class Proxy:
    """Listens on a port of this machine, and passes on what comes."""

    def __init__(self, server: URL, delay_s: float = 0.0) -> None:
        self._server = server
        self.delay_s = delay_s
        """How long an answer is held back, beyond what it takes."""
        self.trips = 0
        """How often a client has sent something after an answer."""
        self.is_away = False
        """Whether who connects now is cut off at once."""
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The URL of the server, by way of this."""
        port = self._listener.getsockname()[1]
        query = {key: value for key, value in self._server.query.items() if key != "host"}
        there = self._server.set(host="127.0.0.1", port=port, query=query)
        return there.update_query_dict(
            {"sslmode": "disable", "gssencmode": "disable"}
        ).render_as_string(hide_password=False)

    def close(self) -> None:
        """Cut whatever is connected, and listen no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # or who waits in accept() accepts one more
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Cut whatever is connected."""
        for pair in self._pairs:
            for each in pair:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_away:
                client.close()
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server = self._connect()
            self._pairs.append((client, server))
            state = [True]  # whether the server was the last to speak
            for function in (self._up, self._down):
                threading.Thread(target=function, args=(client, server, state), daemon=True).start()

    def _connect(self) -> socket.socket:
        folder = self._server.query.get("host")
        if folder is None:
            return socket.create_connection(
                (self._server.host or "localhost", self._server.port or 5432)
            )
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"{folder}/.s.PGSQL.{self._server.port or 5432}")
        return connection

    def _up(self, client: socket.socket, server: socket.socket, state: list[bool]) -> None:
        with suppress(OSError):
            while sent := client.recv(_CHUNK):
                self.trips += state[0]
                state[0] = False
                server.sendall(sent)
            server.shutdown(socket.SHUT_WR)

    def _down(self, client: socket.socket, server: socket.socket, state: list[bool]) -> None:
        with suppress(OSError):
            while answer := server.recv(_CHUNK):
                if not state[0] and self.delay_s:
                    sleep(self.delay_s)
                state[0] = True
                client.sendall(answer)
            client.shutdown(socket.SHUT_WR)


@contextmanager
def proxy(server: URL, delay_s: float = 0.0) -> Iterator[Proxy]:
    """Stand between clients and a server."""
    made = Proxy(server, delay_s)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def late(url: str, delay_s: float) -> Iterator[str]:
    """Give the URL of a server whose answers come that much later; of itself if they don't."""
    if not delay_s:
        yield url
        return
    with proxy(make_url(url), delay_s) as wire:
        yield wire.url
