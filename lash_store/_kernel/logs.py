"""What is logged, with the standard library's logging: silent unless a program listens (K-LOG-1).

Two loggers: ``lash_store.leases`` for who took over from whom and what was lost, and
``lash_store.writes`` for the write lock: who waited long, what was done again, a queue file that
can't be used. They name databases, keys, owners and operations; never a token, never a payload.

Whoever listens may take its time, so nobody is told in a turn, nor on a thread that others wait for.
And what is about a transaction is told once that is committed: a takeover that was rolled back did not happen.
"""

import logging
from collections.abc import Iterable
from functools import partial
from typing import Any, Final, TypeAlias

from lash_store._kernel.threads import WORKS, is_library_thread, report

LEASES: Final = logging.getLogger("lash_store.leases")
WRITES: Final = logging.getLogger("lash_store.writes")

LONG_WAIT_S: Final = 1.0
"""How long a call waits for its turn to write before that is worth a line."""

Note: TypeAlias = tuple[logging.Logger, int, str, tuple[Any, ...]]
"""One line: where it goes, its level, its text, and the values in it."""

logging.getLogger("lash_store").addHandler(logging.NullHandler())


def tell(notes: Iterable[Note]) -> None:
    """Log these lines: now, or where others wait for this thread, on one that may take its time.

    A handler that raises is reported and takes nothing from anybody: what it is told of has happened.
    """
    for logger, level, text, values in notes:
        if logger.isEnabledFor(level):
            if is_library_thread():
                WORKS.submit(partial(logger.log, level, text, *values))
            else:
                try:
                    logger.log(level, text, *values)
                except Exception as error:  # noqa: BLE001 # reason: whatever a program's handler raises
                    report(error)


def long_wait(path: str, operation: str | None, waited_s: float) -> Note:
    """Return the line of a call that got its turn after a long wait."""
    what = operation or "a transaction"
    return (
        WRITES,
        logging.WARNING,
        "%s: %s waited %.1f s for the write lock",
        (path, what, waited_s),
    )


def done_again(path: str, operations: Iterable[str | None]) -> Note:
    """Return the line of calls that were undone with the one of them that failed."""
    which = ", ".join(each or "a transaction" for each in operations)
    return (
        WRITES,
        logging.INFO,
        "%s: undone together, to be done again one by one: %s",
        (path, which),
    )


def no_queue(path: str, reason: str) -> Note:
    """Return the line of a file whose writers have no queue."""
    text = "%s: its queue of writers can't be used (%s); processes that write wait without an order"
    return WRITES, logging.WARNING, text, (path, reason)


def long_wal(path: str, size: int) -> Note:
    """Return the line of a WAL that grows, as somebody reads from it all the time."""
    text = "%s: its WAL has %.0f MB and grows while snapshots overlap; end those that are long"
    return WRITES, logging.WARNING, text, (path, size / 1e6)


takeovers_are_told: Final = partial(LEASES.isEnabledFor, logging.INFO)
"""Whether anybody listens for takeovers, each of which takes one more statement to see."""


def taken_over(path: str, what: str, key: str, before: str | None, now: str) -> Note:
    """Return the line of a term that somebody had, who did not give it back."""
    text = "%s: %s %r was taken over from %r by %r"
    return LEASES, logging.INFO, text, (path, what, key, before, now)


def not_released(path: str, term: Any, error: Exception) -> Note:
    """Return the line of a term that is over for whoever held it, and not for others before its end."""
    text = "%s: %r could not release its term on %r, which ends by itself (%s)"
    return LEASES, logging.WARNING, text, (path, *_whose(term), error)


def lost_term(path: str, term: Any, error: Exception) -> Note:
    """Return the line of a term that was held and is lost."""
    why = getattr(error, "reason", type(error).__name__)
    text = "%s: %r has lost its term on %r (%s)"
    return LEASES, logging.WARNING, text, (path, *_whose(term), why)


def _whose(term: Any) -> tuple[str, str | None]:
    """Return who had a term, and on what."""
    proof = term.fence
    return proof.owner_id, getattr(proof, "key", None) or getattr(proof, "claim_id", None)
