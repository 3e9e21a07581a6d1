r"""Seeing what the library sends to the database: every statement, timed, and the plan of a query.

Prepared statements run past SQLAlchemy, and so past ``echo`` and ``before_cursor_execute``. Here
they are told of, with all the others::

    with trace(lambda statement: print(statement.operation, statement.sql)):
        store.enqueue_work(NewWork(["hello"]))

    with store.begin() as tx:
        print(*explain(tx, select_work(session_id="chat-42")), sep="\n")
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import local
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Executable, FromClause, select
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.elements import ClauseElement

from lash_store._kernel.checks import check_kind, shown
from lash_store._kernel.observing import Event, Kind, observed_by
from lash_store._kernel.sharing import SCOPE
from lash_store._kernel.signals import is_from_handler
from lash_store._kernel.threads import report
from lash_store._stores.tx import Tx
from lash_store.errors import InvalidRecordError

__all__ = ["Statement", "explain", "log_statements", "trace"]


class Statement(NamedTuple):
    """One statement that was executed."""

    kind: Kind
    """``begin``, ``statement``, ``savepoint``, ``commit`` or ``rollback``."""

    operation: str
    """The one-call operation that it belongs to, or ``begin``, ``read`` or ``transact`` for a
    consumer's transaction, ``on`` for one that was joined, ``open`` while a database is opened."""

    sql: str
    """Its text; values are parameters, and not in it."""

    path: str
    """The database, as ``store.path`` has it."""

    took_ns: int
    """How long it took, in nanoseconds, the wait for a lock included."""


class _Traced:
    """An observer that times each statement, and tells of it once it is over."""

    def __init__(self, seen: Callable[[Statement], object], path: str | None) -> None:
        self._seen = seen
        self._path = path
        self._begun = local()

    def before(self, event: Event) -> None:  # noqa: ARG002 # reason: an observer's signature
        self._begun.at_ns = time.perf_counter_ns()

    def after(self, event: Event) -> None:
        if self._path is None or event.path == self._path:
            self._seen(Statement(*event, time.perf_counter_ns() - self._begun.at_ns))


@contextmanager
def trace(seen: Callable[[Statement], object], *, path: str | None = None) -> Iterator[None]:
    """Call `seen` for every statement of this process, or those on one database: ``store.path``.

    On the thread that has executed it, inside the transaction: it must be quick, and not raise,
    for what it raises fails the statement; of a COMMIT it is raised although that has happened. A statement that failed is not told of. What is open
    already is told of from its next transaction on. Free while nobody traces.
    """
    if not callable(seen):
        raise InvalidRecordError("seen", shown(seen), "must be a function")
    with observed_by(_Traced(seen, path)):
        yield


@contextmanager
def log_statements(
    logger: logging.Logger | None = None,
    *,
    path: str | None = None,
    level: int = logging.DEBUG,
) -> Iterator[None]:
    """Log every statement, to ``lash_store.statements`` unless another logger is given.

    Its handlers run as ``seen`` of :func:`trace` does: be quick. What one raises is reported by
    ``threading.excepthook``, and fails no statement (K-LOG-1).
    """
    log = logger or logging.getLogger("lash_store.statements")

    def seen(statement: Statement) -> None:
        took_ms = statement.took_ns / 1e6
        what = (statement.path, statement.operation, statement.sql, took_ms)
        try:
            log.log(level, "%s %s: %s (%.3f ms)", *what)
        except Exception as error:
            if is_from_handler(error):
                raise  # a signal's, which has struck here
            report(error)

    with trace(seen, path=path):
        yield


def explain(tx: Tx[Any], statement: ClauseElement) -> list[str]:
    """Return the database's plan for a statement in this transaction, a line for each step.

    Any builder's construct, or one of your own; nothing of it is executed. Steps inside others
    are indented. Raises InvalidRecordError for what is no SQL expression.
    """
    if isinstance(statement, (FromClause, ColumnElement)) and not isinstance(statement, Executable):
        statement = select(statement)
    check_kind("statement", statement, Executable)
    if isinstance(statement, ExecutableDDLElement):
        raise InvalidRecordError(
            "statement", shown(statement), "must be a query, or a change of rows"
        )
    cursor = tx.cursor
    driver = cursor.driver
    compiled: Any = statement.compile(dialect=driver.dialect)
    # No plan goes by the values; but how many there are of an expanding IN makes the text.
    values = dict.fromkeys(
        (name for name, each in compiled.binds.items() if not each.expanding), ""
    )
    state = compiled.construct_expanded_state({**values, SCOPE.key: ""})
    try:
        return driver.plan(cursor, state.statement, len(state.positiontup or ()))
    except driver.error as error:
        raise driver.explain(error, cursor) from error
