"""A consumer's transaction on SQLite, as the connection remembers it until it ends."""

import sqlite3
from typing import Any

from sqlalchemy import Connection

from lash_store._backends.beginning import Mode
from lash_store._backends.sqlite import guard
from lash_store._kernel.logs import Note
from lash_store._kernel.sharing import Sharing
from lash_store.errors import NotConfiguredError


class Begun:
    """The record of one transaction of a consumer: how it began, and who has joined it."""

    def __init__(self, raw: sqlite3.Connection, mode: Mode, sharing: Sharing) -> None:
        self.raw = raw
        self.mode = mode
        self.sharing = sharing
        self.joined: list[Any] = []
        self.notes: list[Note] = []
        self.savepoints: list[str] = []
        self.compared: guard.Compared = {}
        """What was compared in it, and is known of the database once it is committed."""


def raw_of(connection: Connection) -> sqlite3.Connection:
    """Return the driver's connection, which aiosqlite keeps in a thread of its own."""
    dbapi: Any = connection.connection.dbapi_connection
    raw = getattr(getattr(dbapi, "driver_connection", None), "_conn", dbapi)
    if not isinstance(raw, sqlite3.Connection):
        raise NotConfiguredError(f"{raw!r} is no sqlite3 connection")
    return raw
