"""How a store is opened: the options, checked and with their defaults."""

import re
from collections.abc import Sequence
from typing import Final, Literal, TypedDict

import msgspec
from msgspec.structs import force_setattr

from lash_store._kernel.checks import check_count, check_has, check_kind, check_text, shown
from lash_store._kernel.extras import Extras, OwnTables, check_extras, check_own_tables
from lash_store.clock import Clock, IdSource, RandomIds, SystemClock
from lash_store.errors import InvalidRecordError

PREFIX: Final = re.compile(r"(?!sqlite_)[a-z][a-z0-9_]{0,30}_")

_SCHEMA: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")

Synchronous = Literal["NORMAL", "FULL"]
"""How far COMMIT goes: NORMAL may lose the last commits at power loss, FULL none."""


class OpenOptions(TypedDict, total=False):
    """How to open a store; every key has a default.

    ``read_only``        never write, create nothing (K-OPEN-2); default False
    ``create``           make the file, and a store of an empty one; False for one that must be there
                         (K-OPEN-13); default True
    ``immutable``        with `read_only`: of a file that nobody writes to, in a folder, or on a medium,
                         that can't be written (K-OPEN-14); default False
    ``busy_timeout_ms``  how long to wait for a lock, in milliseconds; default 15 000
    ``synchronous``      "NORMAL" (default) may lose the last commits at power loss, "FULL" none
    ``clock``            where the time comes from; default ``SystemClock()``
    ``ids``              where tokens come from; default ``RandomIds()``
    ``linked``           open a file that has a second name, or is mounted by itself (K-OPEN-10):
                         only where nobody opens it by another path; default False
    ``adopt``            make our tables beside those that another program has in a file that is
                         opened by a URL; default False. On a server they are made beside others anyway
    ``prefix``           what the names of our tables begin with there; default "lash_"
    ``extras``           indexes and triggers that the application adds to our tables, an ``Index``
                         or a ``Trigger`` each, made where they are missing (K-SHARE-9); "any"
                         takes whatever is there as it is; default none
    ``schema``           of PostgreSQL: the schema that our tables are in; by default the one that the role
                         looks in first
    ``pool_size``        of PostgreSQL: how many connections this process has on the database, at
                         least 1; default 8
    ``prepare_threshold``  of PostgreSQL: after how many executions a connection prepares a statement
                         there; None for never, behind a pooler in transaction mode; default 5
    ``application_name`` of PostgreSQL: what the server's lists call the connections; default "lash_store"
    ``tables``           tables of the application's own, each an ``OwnTables``, that are to be
                         made and guarded as ours are (K-SHARE-8); default none
    """

    read_only: bool
    create: bool
    immutable: bool
    busy_timeout_ms: int
    synchronous: Synchronous
    clock: Clock
    ids: IdSource
    linked: bool
    adopt: bool
    prefix: str
    extras: Extras
    tables: Sequence[OwnTables]
    schema: str | None
    pool_size: int
    prepare_threshold: int | None
    application_name: str


BUSY_TIMEOUT_MS: Final = 15_000


class Settings(msgspec.Struct, frozen=True):
    """The options of one open store, checked and with their defaults."""

    read_only: bool = False
    busy_timeout_ms: int = BUSY_TIMEOUT_MS
    synchronous: Synchronous = "NORMAL"
    clock: Clock = msgspec.field(default_factory=SystemClock)
    ids: IdSource = msgspec.field(default_factory=RandomIds)
    linked: bool = False
    adopt: bool = False
    prefix: str = "lash_"
    extras: Extras = ()
    tables: Sequence[OwnTables] = ()
    create: bool = True
    immutable: bool = False
    schema: str | None = None
    pool_size: int = 8
    prepare_threshold: int | None = 5
    application_name: str = "lash_store"

    def __post_init__(self) -> None:
        for name in ("read_only", "linked", "adopt", "create", "immutable"):
            check_kind(name, getattr(self, name), bool)
        check_has("clock", self.clock, "now_ms")
        check_has("ids", self.ids, "new_token")
        if self.immutable and not self.read_only:
            raise InvalidRecordError("immutable", "True", "needs read_only=True")
        if check_count("busy_timeout_ms", self.busy_timeout_ms) >= 2**31:
            raise InvalidRecordError(
                "busy_timeout_ms", shown(self.busy_timeout_ms), "SQLite takes less than 2**31"
            )
        if self.synchronous not in ("NORMAL", "FULL"):
            raise InvalidRecordError(
                "synchronous", shown(self.synchronous), "must be NORMAL or FULL"
            )
        if not isinstance(self.prefix, str) or not PREFIX.fullmatch(self.prefix):
            raise InvalidRecordError(
                "prefix",
                shown(self.prefix),
                "must be lower-case letters, digits and _, ending in _; sqlite_ is SQLite's own",
            )
        if self.schema is not None and not (
            isinstance(self.schema, str) and _SCHEMA.fullmatch(self.schema)
        ):
            raise InvalidRecordError(
                "schema", shown(self.schema), "must be lower-case letters, digits and _"
            )
        if check_count("pool_size", self.pool_size) == 0:
            raise InvalidRecordError("pool_size", "0", "must be at least 1")
        if self.prepare_threshold is not None:
            check_count("prepare_threshold", self.prepare_threshold)
        check_text("application_name", self.application_name)
        force_setattr(self, "extras", check_extras(self.extras))
        force_setattr(self, "tables", check_own_tables(self.tables))
