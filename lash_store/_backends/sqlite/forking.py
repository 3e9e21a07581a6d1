"""Forks: what a process does to its open databases before one, and on both sides after it.

SQLite's locks belong to a process, and its view of them is copied by a fork; so no connection may
be carried into a child (K-OPEN-5). ``Database.prepare_fork`` says how that is kept from happening.
"""

import ctypes
import os
import threading
import weakref
from contextlib import suppress
from threading import get_ident
from time import monotonic, sleep
from typing import Final, Protocol

from lash_store._backends.sqlite.connection import StoreConnection
from lash_store.errors import NestedTransactionError, StoreOpenError

FORK_WAIT_S: Final = 5.0
"""How long a fork waits for transactions, snapshots and openings of other threads to end."""


class Forked(Protocol):
    """What a database does about a fork."""

    path: str

    def hold_writes(self, until_s: float) -> None:
        """Let nobody write from now on, once those who do have ended."""

    def hold_watch(self, until_s: float) -> None:
        """Let nobody look for others' commits from now on."""

    def close_for_fork(self, until_s: float) -> None:
        """Close what is idle, and what is read as it ends, and let nobody read from now on."""

    def after_fork_in_parent(self) -> None:
        """Let the others go on."""

    def leave_to_parent(self) -> bool:
        """Give up what the parent had open; tell whether a connection was carried over."""
        ...


def make_immortal(connection: StoreConnection) -> None:
    """Hold a reference that even the interpreter's shutdown does not give back."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


databases: Final[weakref.WeakValueDictionary[int, Forked]] = weakref.WeakValueDictionary()
"""Every database that this process has open or is opening."""


_carried: Final[set[str]] = set()
"""Files with a transaction of the parent's open when this process was forked."""


def check_not_carried(path: str) -> None:
    """Raise StoreOpenError for a file that this process can't use safely (K-OPEN-5)."""
    if path in _carried:
        raise StoreOpenError(
            path,
            "a transaction was open on it in the parent process when this one was forked, and "
            "SQLite's view of its locks came along; fork outside transactions, or spawn",
        )


class Opening:
    """A block in which a connection is opened, which a fork waits for.

    One that is half open is on no list yet, and the child would carry it over unseen.
    """

    def __enter__(self) -> None:
        self.thread = get_ident()
        # Under way first, and only then not paused: whoever pauses looks in the other order. No lock,
        # which an interrupt might leave locked; and what one leaves behind here is gone by itself.
        while True:
            _under_way[id(self)] = weakref.ref(self)
            if not _paused:
                return
            self.__exit__()
            if get_ident() in _paused.values():
                raise NestedTransactionError(
                    "this thread is forking, which a signal has interrupted: no database can be opened before that is over"
                )
            sleep(_LOOK_AGAIN_S)

    def __exit__(self, *_: object) -> None:
        _under_way.pop(id(self), None)


_LOOK_AGAIN_S: Final = 0.001
_under_way: Final[dict[int, weakref.ref[Opening]]] = {}
_paused: Final[dict[str, int]] = {}
"""What keeps a connection from being opened: a fork, and the thread that forks; or nothing."""


def pause_openings(until_s: float) -> None:
    """Let none begin, and wait for those that have begun in other threads, until then at most."""
    _paused["fork"] = me = get_ident()
    while monotonic() < until_s:
        begun = [each() for each in list(_under_way.values())]
        if not any(each is not None and each.thread != me for each in begun):
            return
        sleep(_LOOK_AGAIN_S)


_forking = threading.RLock()
"""Forks of one thread at a time: what a fork locks is noted on the database, once."""

_PREPARING, _PREPARED, _WITHIN = "preparing", "prepared", "within"

_forks: Final[list[str]] = []
"""How far the fork of that thread is; behind it that of a signal handler which has struck in there, and so on."""

_again: Final[list[bool]] = []
"""Not empty if a handler's fork has let all go on that another one was about to hold."""

_prepared: Final[list[Forked]] = []
"""The databases that the fork that is under way has prepared, and has to let go on."""


def _all_databases() -> list[Forked]:
    # valuerefs() is a list made at once: another thread may be opening or closing one.
    return [each for each in (ref() for ref in databases.valuerefs()) if each is not None]


def _prepare_fork() -> None:
    _forking.acquire()
    if _forks and _forks[-1] == _PREPARED:
        _forks.append(_WITHIN)
        return
    is_anew = bool(_forks)
    _forks.append(_PREPARING)
    while _forks[-1] == _PREPARING:
        _again.clear()
        for database in _all_databases() if is_anew else ():
            database.after_fork_in_parent()  # of the fork that this one interrupts, or was interrupted by
        _prepared.clear()
        is_anew = True
        _hold_all()
        _forks[-1] = _PREPARED
        if _again:
            _forks[-1] = _PREPARING


def _hold_all() -> None:
    until_s = monotonic() + FORK_WAIT_S
    # Who writes may have to open something first, so writes end before nothing is opened any more.
    _hold_writes(until_s)
    # The same of who looks for commits: it would hold what the fork needs, and wait for its end.
    for database in _prepared:
        with suppress(Exception):
            database.hold_watch(until_s)
    pause_openings(until_s)
    _hold_writes(until_s)  # of what was opened in the meantime
    for database in _prepared:
        # One that can't be prepared is carried over, and refused in the child; the others are not.
        with suppress(Exception):
            database.close_for_fork(until_s)


def _hold_writes(until_s: float) -> None:
    for database in _all_databases():
        if database not in _prepared:
            _prepared.append(database)
            with suppress(Exception):
                database.hold_writes(until_s)


def _after_fork_in_parent() -> None:
    if not _forking._is_owned():  # type: ignore[attr-defined] # noqa: SLF001 # reason: an interrupt came before it was had
        return
    try:
        if (_forks.pop() if _forks else None) != _WITHIN:
            _again.append(True)
            _let_all_go_on()
    except BaseException:  # an interrupt: the others would be held for good
        _let_all_go_on()
        raise
    finally:
        if not _forks or _forks[-1] == _PREPARING:
            _paused.clear()
        _forking.release()


def _let_all_go_on() -> None:
    for database in _prepared:
        database.after_fork_in_parent()
    _prepared.clear()


def _leave_all_to_parent() -> None:
    global _forking  # noqa: PLW0603 # reason: the threads that use them do not exist here
    _forking = threading.RLock()
    _forks.clear()
    _under_way.clear()
    _paused.clear()
    _prepared.clear()
    for database in _all_databases():
        if database.leave_to_parent():
            _carried.add(database.path)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_prepare_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_leave_all_to_parent,
    )
