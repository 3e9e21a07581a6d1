"""The record of a transaction that a consumer has begun, and that a Tx may join."""

from __future__ import annotations

import re
from collections.abc import Generator
from math import inf
from time import monotonic
from typing import Any, Final, NamedTuple

import psycopg
from sqlalchemy import Connection
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from lash_store._backends.beginning import Mode
from lash_store._backends.postgresql.locks import Held
from lash_store._kernel.logs import Note
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema
from lash_store.errors import NotConfiguredError

_UNDOES: Final = re.compile(r"\brollback\b", re.IGNORECASE)

_MAY_LOOK_ELSEWHERE: Final = re.compile(
    r"search_path|set_config|(?:^|;|\*/)\s*(?:set|reset|discard)\b"
    r"(?!\s+(?:(?:local|session)\s+)?(?:\w*timeout|constraints|transaction)\b)",
    re.IGNORECASE | re.MULTILINE,
)
"""What may change where a transaction looks first: by a value that is bound, a role, another name of it.

Whether it does is asked then; SET of what certainly has no part in it is passed over.
"""


_AT_ONCE_S: Final = 0.01
"""So long an event loop waits for an answer, and nobody comes in between; then it goes on."""


class OnSameServer(psycopg.Connection[Any]):
    """A connection of the driver's own for asyncio, as a Tx uses it: in the thread of the event loop.

    Both stand on one connection to the server, which is never closed by this one, and whose notices and
    notifications stay the other's. Within ``run_sync()`` the loop goes on while an answer keeps it waiting.
    """

    def __init__(self, given: psycopg.AsyncConnection[Any]) -> None:
        pgconn = given.pgconn
        heard = pgconn.notice_handler, pgconn.notify_handler
        super().__init__(pgconn)
        pgconn.notice_handler, pgconn.notify_handler = heard
        self._given = given
        self.lock: Any = _OneAtATime(given)

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """Wait for an answer, at last as the connection for asyncio does, where its loop can go on."""
        if not in_greenlet():
            return super().wait(gen, *args, **options)
        found: Any = super().wait(_for_a_moment(gen), _AT_ONCE_S)
        return await_only(self._in_loop(gen, found)) if isinstance(found, _Pending) else found

    async def _in_loop(self, gen: Any, pending: _Pending) -> Any:
        async with self._given.lock:
            return await self._given.wait(_going_on(gen, pending.state))

    def __del__(self, _: Any = None, /) -> None:
        """Leave it to whose it is."""


class _Pending(NamedTuple):
    """What the driver waits for, of an answer that has not come."""

    state: Any


def _for_a_moment(gen: Any) -> Generator[Any, Any, Any]:
    """Do what the driver does for an answer, and give it; or, after a moment, what is pending still."""
    until_s = monotonic() + _AT_ONCE_S
    try:
        state = next(gen)
        while True:
            ready = yield state
            if ready is None:
                until_s = inf  # anew: an interrupt struck, and what it has cancelled is waited for
            elif not ready and monotonic() >= until_s:
                return _Pending(state)
            state = gen.send(ready)
    except StopIteration as end:
        return end.value


def _going_on(gen: Any, state: Any) -> Generator[Any, Any, Any]:
    """Go on with that."""
    try:
        while True:
            ready = yield state
            state = gen.send(ready)
    except StopIteration as end:
        return end.value


class _OneAtATime:
    """The lock of such a connection: two tasks at one are told, and none of them waits for the other."""

    def __init__(self, given: psycopg.AsyncConnection[Any]) -> None:
        self._given = given
        self._is_taken = False

    @property
    def is_taken(self) -> bool:
        """Whether a task waits for an answer."""
        return self._is_taken or self._given.lock.locked()

    def __enter__(self) -> None:
        if self.is_taken:
            raise psycopg.OperationalError(
                "another task waits for an answer on this connection: each needs one of its own"
            )
        self._is_taken = True

    def __exit__(self, *_: object) -> None:
        self._is_taken = False


class Begun:
    """The record of one transaction of a consumer: how it began, and who has joined it."""

    def __init__(self, raw: psycopg.Connection[Any], mode: Mode, settings: Settings) -> None:
        self.raw = raw
        self.mode: Mode = mode
        self.settings = settings
        self.looks_first: str | None = None
        """The schema that it looked into first as a Tx joined it last."""
        self.held = Held()
        self.joined: list[Any] = []
        self.notes: list[Note] = []
        self.noted: dict[str, int] = {}
        """How many of these there were as each savepoint of the application's began."""

        self.savepoints: list[str] = []
        self.compared: dict[tuple[str, Schema], set[Schema]] = {}
        """What was compared in it, and where that is noted once it is committed."""

        self.looks_elsewhere = False
        """Whether a statement may have led it into another schema than before."""

        self.was_ended = False
        """Whether a statement of the application's has ended it; another may stand in its place."""

        self.is_lost = False
        """Whether a Tx has found its connection lost."""

    @property
    def has_ended(self) -> bool:
        """Whether an error has ended it, or a statement: COMMIT would keep nothing, and say nothing of that."""
        return self.was_ended or self.raw.info.transaction_status in (
            psycopg.pq.TransactionStatus.INERROR,
            psycopg.pq.TransactionStatus.IDLE,
        )

    @property
    def is_torn(self) -> bool:
        """Whether its connection waits for an answer still: an interrupt struck in a statement of a Tx."""
        pgconn = self.raw.pgconn
        is_asked = pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE
        return is_asked or pgconn.pipeline_status != psycopg.pq.PipelineStatus.OFF

    @property
    def is_anothers(self) -> bool:
        """Whether its connection waits for the answer to another task: what is asked of it now says so."""
        lock = self.raw.lock
        return isinstance(lock, _OneAtATime) and lock.is_taken

    def note_lost(self) -> None:
        """Note that its connection is lost, so that it can't even be rolled back."""
        self.is_lost = True

    def note(self, sql: object) -> None:
        """Note what a statement of the application's may have changed: locks, or where it looks."""
        self.held.note_rollback(sql)
        if _UNDOES.search(str(sql)):
            self.compared.clear()
        if _MAY_LOOK_ELSEWHERE.search(str(sql)):
            self.looks_elsewhere = True


def raw_of(connection: Connection) -> psycopg.Connection[Any]:
    """Return the driver's connection; of one for asyncio one that stands on the same server's."""
    raw = driver_connection(connection)
    if isinstance(raw, psycopg.AsyncConnection):
        made = OnSameServer(raw)
        made.prepare_threshold = None  # names of prepared statements are the other one's
        if raw.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            # Whichever sends the first statement begins the transaction, and how is the application's to say.
            made.autocommit, made.isolation_level = raw.autocommit, raw.isolation_level
            made.read_only, made.deferrable = raw.read_only, raw.deferrable
        return made
    if not isinstance(raw, psycopg.Connection):
        raise NotConfiguredError(f"{raw!r} is no connection of psycopg's")
    return raw


def driver_connection(connection: Connection) -> Any:
    """Return the driver's own connection, or the driver's own for asyncio."""
    dbapi: Any = connection.connection.dbapi_connection
    return getattr(dbapi, "driver_connection", dbapi)
