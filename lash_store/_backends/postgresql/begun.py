"""The record of a transaction that a consumer has begun, and that a Tx may join."""

from __future__ import annotations

import re
from typing import Any, Final

import psycopg

from lash_store._backends.beginning import Mode
from lash_store._backends.postgresql.locks import Held
from lash_store._kernel.logs import Note
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema

_UNDOES: Final = re.compile(r"\brollback\b", re.IGNORECASE)

_MAY_LOOK_ELSEWHERE: Final = re.compile(
    r"search_path|set_config|(?:^|;|\*/)\s*(?:set|reset|discard)\b"
    r"(?!\s+(?:(?:local|session)\s+)?(?:\w*timeout|constraints|transaction)\b)",
    re.IGNORECASE | re.MULTILINE,
)
"""What may change where a transaction looks first: by a value that is bound, a role, another name of it.

Whether it does is asked then; SET of what certainly has no part in it is passed over.
"""


class OnSameServer(psycopg.Connection[Any]):
    """A connection of the driver's own for asyncio, as a Tx uses it: in the thread of the event loop.

    Both stand on one connection to the server, which is never closed by this one, and whose notices and
    notifications stay the other's.
    """

    def __init__(self, pgconn: Any) -> None:
        heard = pgconn.notice_handler, pgconn.notify_handler
        super().__init__(pgconn)
        pgconn.notice_handler, pgconn.notify_handler = heard

    def __del__(self, _: Any = None, /) -> None:
        """Leave it to whose it is."""


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
