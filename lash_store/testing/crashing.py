"""What a crash leaves behind: a process killed, or a statement failed, at each place in turn.

::

    def work(folder):
        with SessionStore.open(folder / "chat.db", session_id="chat") as store: ...

    def check(folder, is_done): ...      # what may stand there, whenever it was killed

    kill_at_each_statement(work, check)

The places are the statements that this library sends, beginnings and ends of transactions among
them, and wherever code of your own says ``point("…")``.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar, get_args

from lash_store._backends import driver_fault
from lash_store._kernel.checks import check_choice
from lash_store._kernel.observing import Event, observed_by
from lash_store.errors import InvalidRecordError
from lash_store.testing.interleaving import closed_behind, holds
from lash_store.testing.points import at_points

C = TypeVar("C")

FaultKind = Literal["busy", "io error", "full disk"]
When = Literal["before", "after"]


def kill_at_each_statement(
    work: Callable[[Path], object],
    check: Callable[[Path, bool], object],
    *,
    make: Callable[[Path], object] | None = None,
    most: int = 1_000,
) -> int:
    """Run `work` in a child that is killed by SIGKILL at its first place, then at its second, and so on.

    Each time in a new folder, which `make` fills first. Then `check` is called with the folder, and
    whether `work` came to its end; it raises AssertionError if what it finds there may not be. Ends
    once `work` does; returns at how many places it was killed. Raises InvalidRecordError where there
    is no ``fork``, for an asynchronous `work`, and if that fails by itself or has no place.
    """
    if not hasattr(os, "fork"):
        raise InvalidRecordError("work", repr(work), "needs os.fork(), which this system has not")
    for at in range(1, most + 1):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            if make is not None:
                make(path)
            is_done = _run_killed(work, path, at)
            with _noted(
                f"killed at place {at}" if not is_done else "not killed: it came to its end"
            ):
                holds(check, path, is_done)
        if is_done:
            if at == 1:
                raise InvalidRecordError(
                    "work", repr(work), "came to no place that it could be killed at"
                )
            return at - 1
    raise InvalidRecordError("most", str(most), "work has more places than that")


def _run_killed(work: Callable[[Path], object], path: Path, at: int) -> bool:
    """Run it in a child that dies at its `at`-th place; tell whether it came to its end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with _at_place(at, lambda _: os.kill(os.getpid(), signal.SIGKILL)):
                _refuse_coroutine(work, work(path))
            status = 0
        except BaseException:  # noqa: BLE001 # reason: the child ends here, and nobody else would tell
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    try:
        _, status = os.waitpid(child, 0)
    except BaseException:  # an interrupt, or a test's timeout
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if status != 0:
        why = f"failed by itself, at place {at}: its traceback is on stderr"
        raise InvalidRecordError("work", repr(work), why)
    return True


def fail_at_each_statement(
    make: Callable[[], C],
    work: Callable[[C], object],
    check: Callable[[C, BaseException | None], object],
    *,
    close: Callable[[C], object] | None = None,
    faults: tuple[FaultKind, ...] = ("busy", "io error", "full disk"),
    whens: tuple[When, ...] = ("before", "after"),
    most: int = 1_000,
) -> int:
    """Run `work` with its first place failing, then its second, and so on; with each of `faults`.

    Each time on what `make` makes anew. `check` is given that, and the error that `work` raised or
    None; it raises AssertionError if what it finds may not be. What fails ``"before"`` was not done;
    what fails ``"after"`` was, and could not be told: a COMMIT among others. ``point("…")`` fails
    where it stands. Returns how many places were failed; InvalidRecordError for another fault or when, for
    an asynchronous `work`, one that fails by itself or has no place that can fail, and too small a `most`.
    """
    for fault in faults:
        check_choice("faults", fault, get_args(FaultKind))
    for when in whens:
        check_choice("whens", when, get_args(When))
    failed = 0
    for fault in faults:
        for when in whens:
            failed += _fail_each(make, work, check, close, fault=fault, when=when, most=most)
    if not failed:
        raise InvalidRecordError("work", repr(work), "came to no place that could be failed")
    return failed


def _fail_each(
    make: Callable[[], C],
    work: Callable[[C], object],
    check: Callable[[C, BaseException | None], object],
    close: Callable[[C], object] | None,
    *,
    fault: FaultKind,
    when: When,
    most: int,
) -> int:
    """Run it with one fault at each place in turn; return at how many."""
    failed = 0
    for at in range(1, most + 1):
        it = make()
        with closed_behind(it, close):
            error, places = _run_failing(work, it, at, fault, when)
            if places.has_fired:
                failed += 1
                with _noted(f"{fault} {when} place {at}, {places.where}"):
                    holds(check, it, error)
            elif error is not None:
                raise InvalidRecordError(
                    "work", repr(work), f"failed by itself: {error!r}"
                ) from error
        if not places.was_reached:
            return failed
    raise InvalidRecordError("most", str(most), "work has more places than that")


def _run_failing(
    work: Callable[[C], object], it: C, at: int, fault: FaultKind, when: When
) -> tuple[BaseException | None, _Places]:
    def fail(path: str) -> None:
        raise driver_fault(fault, path)

    with _at_place(at, fail, when) as places:
        try:
            given = work(it)
        except Exception as error:  # noqa: BLE001 # reason: which one it is, check is to say
            return error, places
    _refuse_coroutine(work, given)
    return None, places


@contextmanager
def _noted(where: str) -> Iterator[None]:
    """Let what `check` raises say of which place it is."""
    try:
        yield
    except Exception as error:
        error.add_note(where)
        raise


def _refuse_coroutine(work: object, given: object) -> None:
    """Raise InvalidRecordError if `work` gave what would have to be awaited: it has done nothing."""
    if inspect.iscoroutine(given):
        given.close()
        raise InvalidRecordError("work", repr(work), "is asynchronous: let it call asyncio.run()")


class _Places:
    """Counts places, and does something at one of them: before it, or once it was done."""

    def __init__(self, at: int, what: Callable[[str], None], when: When) -> None:
        self._left, self._what, self._when = at, what, when
        self._event: Event | None = None
        self._point = ""
        self.was_reached = False
        self.has_fired = False

    def before(self, event: Event) -> None:
        """Come to a statement."""
        if self._is_it():
            self._event = event
            if self._when == "before":
                self._fire()

    def after(self, event: Event) -> None:
        """Have done a statement."""
        if event is self._event and not self.has_fired:
            self._fire()

    def arrive(self, name: str) -> None:
        """Come to a point, of which there is only one side."""
        if self._is_it() and self._when == "before":
            self._point = name
            self._fire()

    def _is_it(self) -> bool:
        self._left -= 1
        self.was_reached = self.was_reached or self._left == 0
        return self._left == 0

    @property
    def where(self) -> str:
        """What has failed: a statement, or a point by its name."""
        return f"point({self._point!r})" if self._event is None else self._event.sql

    def _fire(self) -> None:
        self.has_fired = True
        self._what("" if self._event is None else self._event.path)


@contextmanager
def _at_place(at: int, what: Callable[[str], None], when: When = "before") -> Iterator[_Places]:
    places = _Places(at, what, when)
    with observed_by(places), at_points(places):
        yield places
