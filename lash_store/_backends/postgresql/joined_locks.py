"""The locks of a Tx that joins a consumer's own transaction (K-LOCK-1)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import psycopg
from sqlalchemy.util.concurrency import in_greenlet

from lash_store._backends.postgresql import dialect
from lash_store._backends.postgresql.begun import Begun, OnSameServer
from lash_store._backends.postgresql.driver import StoreCursor
from lash_store._backends.postgresql.locks import Lock
from lash_store.errors import StoreBusyError

_TIMEOUTS: Final = (
    "SELECT current_setting('lock_timeout'), current_setting('statement_timeout'), "
    "set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true)"
)

LIMIT: Final = (
    "CASE current_setting('lock_timeout') WHEN '0' THEN set_config('lock_timeout', $1, true) END"
)
"""Wait no longer for any lock from now on, unless the application has said for how long.

Others wait for those that the transaction has meanwhile. A savepoint that is undone takes it along.
"""


def limit_of(budget_ms: int) -> str:
    """Return a budget as the server takes it, to which 0 would be none."""
    return f"{max(1, budget_ms)}ms"


def lock_all(begun: Begun, cursor: StoreCursor, locks: Sequence[Lock], path: str) -> None:
    """Take the lock of a Tx."""
    started_s = time.monotonic()
    for lock in locks:
        if lock not in begun.held:
            waited_ms = round((time.monotonic() - started_s) * 1000)
            take(lock, cursor, begun.settings.busy_timeout_ms - waited_ms, path)
            begun.held.add(lock)


def take(lock: Lock, cursor: StoreCursor, budget_ms: int, path: str) -> None:
    """Take a lock in an application's transaction; StoreBusyError if that is not to be had in time.

    Whoever waits in vain waits in a savepoint: what its application has done before is kept. An event loop that
    could not go on is not kept waiting.
    """
    if cursor.execute(dialect.try_lock_statement(lock), prepare=False).fetchall()[0][0]:
        return
    if isinstance(cursor.connection, OnSameServer) and not in_greenlet():
        raise StoreBusyError(path, 0)
    _wait_for(lock, cursor, budget_ms, path)


def _wait_for(lock: Lock, cursor: StoreCursor, budget_ms: int, path: str) -> None:
    started_s = time.monotonic()
    cursor.execute("SAVEPOINT lash_store_lock")
    timeouts = (limit_of(budget_ms), "0")  # a role's own limit ends no such wait (K-LOCK-3)
    ((*before, _, _),) = cursor.execute(_TIMEOUTS, timeouts).fetchall()
    try:
        cursor.execute(dialect.lock_statement(lock), prepare=False)
    except psycopg.errors.LockNotAvailable as error:
        cursor.execute("ROLLBACK TO SAVEPOINT lash_store_lock")
        waited_ms = round((time.monotonic() - started_s) * 1000)
        raise StoreBusyError(path, waited_ms) from error
    cursor.execute(_TIMEOUTS, tuple(before))
    cursor.execute("RELEASE SAVEPOINT lash_store_lock")


def be_durable(begun: Begun, cursor: StoreCursor) -> None:
    """Have its COMMIT wait for the disk, if it was configured so; a savepoint that is undone takes it along."""
    if begun.settings.synchronous == "FULL":
        cursor.execute(dialect.FULL).fetchall()


def lock_again(begun: Begun, cursor: StoreCursor, lapsed: Sequence[Lock], path: str) -> None:
    """Take those that a rollback to a savepoint has freed."""
    try:
        cursor.execute(f"SELECT {LIMIT}", (limit_of(begun.settings.busy_timeout_ms),)).fetchall()
        lock_all(begun, cursor, lapsed, path)
        be_durable(begun, cursor)
    except psycopg.Error as error:
        raise cursor.driver.explain(error, cursor) from error
