"""How a consumer says what a transaction of its own engine is to be: one that writes, or a snapshot."""

from collections.abc import Callable
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

from sqlalchemy import Connection

from lash_store.errors import NotConfiguredError, TransactionEndedError

READ_OPTION: Final = "lash_store_read"
"""The execution option that makes a transaction of a configured engine one that only reads."""

WRITE_OPTION: Final = "lash_store_write"
"""The same for one that writes, where those that say nothing only read."""

IS_BEGINNING: Final = "_Connection__in_begin"
"""Where SQLAlchemy's Connection has noted that it is beginning."""

SAVEPOINTS: Final = "_Connection__savepoint_seq"
"""Where it counts its savepoints, by which it calls them."""

Mode = Literal["write", "read"]

BEGUN: Final[WeakKeyDictionary[Connection, Any]] = WeakKeyDictionary()
"""What each Connection has begun. Not in its ``info``, which it has no more once it has lost the database."""


def nothing_kept(path: str) -> TransactionEndedError:
    """Return the error of a COMMIT that would keep nothing of what a Tx has done (K-TX-8)."""
    return TransactionEndedError(
        f"an error before this has ended the transaction on {path!r}, and nothing of it is kept"
    )


def is_autocommit(connection: Connection) -> bool:
    """Whether each statement commits by itself: there is no transaction to join, or to be ended by anybody."""
    asked = connection.get_execution_options().get("isolation_level")
    return (asked or connection.dialect._on_connect_isolation_level) == "AUTOCOMMIT"  # noqa: SLF001 # reason: what create_engine() was given


def mode_of(connection: Connection, undeclared: Mode) -> Mode | None:
    """Return what a transaction that begins now is to be; None if it is none, in AUTOCOMMIT."""
    options = connection.get_execution_options()
    if is_autocommit(connection):
        return None
    if options.get(READ_OPTION):
        return "read"
    return "write" if options.get(WRITE_OPTION) else undeclared


def beginning_again(begin: Callable[[Connection], None]) -> Callable[[Connection], None]:
    """Return a listener of `begin` that may raise: the next statement on that Connection begins anew.

    SQLAlchemy takes it to be beginning until the listeners have returned, and begins nothing meanwhile:
    each statement would commit by itself.
    """

    def begun(connection: Connection) -> None:
        try:
            begin(connection)
        except BaseException:
            setattr(connection, IS_BEGINNING, False)
            raise

    return begun


def note_savepoint(connection: Connection, _: str | None) -> None:
    """Remember what was to be logged as a savepoint of the application's began, which has no name yet."""
    begun = BEGUN.get(connection)
    if begun is not None:
        begun.noted[f"sa_savepoint_{getattr(connection, SAVEPOINTS) + 1}"] = len(begun.notes)


def forget_savepoint(connection: Connection, name: str, *_: Any) -> None:
    """Forget what was to be logged of what it undoes."""
    begun = BEGUN.get(connection)
    if begun is not None:
        del begun.notes[begun.noted.get(name, len(begun.notes)) :]


def no_transaction(connection: Connection) -> NotConfiguredError:
    """Return the error of a Connection that is in no transaction which a configured engine has begun."""
    if is_autocommit(connection):
        why = "is in AUTOCOMMIT: each statement commits by itself, and there is nothing to join"
    else:
        why = (
            "has no transaction that a configured engine began: call "
            "lash_store.configure(engine) once, then use `with engine.begin() as connection:`"
        )
    return NotConfiguredError(f"{connection!r} {why}")


def already_begun(connection: Connection) -> NotConfiguredError:
    """Return the error of a transaction that did not begin as it was to."""
    return NotConfiguredError(
        f"{connection!r} is in a transaction already, which its driver, or another listener of `begin`, has "
        "begun: configure() begins them, as the mode says; remove that listener"
    )
