"""One observer around every driver statement: private, and free while nobody listens.

A backend tells of each statement that it sends by itself or for a consumer: the beginning of a
transaction, savepoints, the statements in it, its end. Who listens is called before and after;
what it raises before, the statement has not done, and what it raises after, it has.

While somebody listens, a backend's cursors are of a class that tells; otherwise they are not,
and nothing is paid for. So a connection listens from its next transaction on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, NamedTuple, Protocol

Kind = Literal["begin", "statement", "savepoint", "commit", "rollback"]


class Event(NamedTuple):
    """One statement that a driver is given."""

    kind: Kind
    operation: str
    """The one-call operation that it belongs to, or the name of the consumer's transaction:
    ``begin``, ``read``, ``on``; ``open`` while a database is being opened."""

    sql: str
    path: str
    """The database, as in messages."""


class Observer(Protocol):
    """Who is told of statements; on the thread that executes them."""

    def before(self, event: Event) -> None:
        """The statement is about to be executed; an exception keeps it from being so."""

    def after(self, event: Event) -> None:
        """The statement was executed; an exception is raised in its place."""


observers: Final[list[Observer]] = []
"""Who listens now."""


@contextmanager
def observed_by(observer: Observer) -> Iterator[None]:
    """Tell `observer` of every statement of this process."""
    observers.append(observer)
    try:
        yield
    finally:
        observers.remove(observer)


@contextmanager
def telling(operation: str, sql: str, path: str) -> Iterator[None]:
    """Tell the observers around one statement."""
    event = Event(kind_of(sql), operation, sql, path)
    told = tuple(observers)  # who begins to listen meanwhile is not told of its end alone
    for observer in told:
        observer.before(event)
    yield
    for observer in told:
        observer.after(event)


def kind_of(sql: str) -> Kind:
    """Return what a statement does to its transaction, by its first words."""
    words = sql.split(None, 2)
    first = words[0].upper() if words else ""
    if first == "ROLLBACK":
        return "savepoint" if len(words) > 1 and words[1].upper() == "TO" else "rollback"
    return _KINDS.get(first, "statement")


_KINDS: Final[dict[str, Kind]] = {
    "BEGIN": "begin",
    "COMMIT": "commit",
    "SAVEPOINT": "savepoint",
    "RELEASE": "savepoint",
}
