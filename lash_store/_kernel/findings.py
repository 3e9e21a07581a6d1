"""Answers that take long, found where no lock is held and used where one is.

Whether a payload fits a schema may take seconds, and everybody else would wait for that. But which
schema it is about is only known in the transaction. So an operation of the library that lacks an
answer there ends its transaction before it has written anything, finds the answer, and is run again;
its answers are its own, so it lacks none the second time, unless somebody has changed the question.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from lash_store._kernel.jobs import on_library_thread
from lash_store.errors import LashStoreError

K = TypeVar("K")
V = TypeVar("V")


class InTransaction(Protocol):
    """A Tx, as far as it says whether its transaction is the library's own."""

    @property
    def operation(self) -> str | None:
        """The one operation that the transaction is for; None in one of a consumer's."""


class FindingsDueError(LashStoreError):
    """An answer is to be found before the transaction can go on; no caller ever sees it."""

    def __init__(self, find: Callable[[], None]) -> None:
        super().__init__("an answer is due")
        self.find = find


def answers(
    tx: InTransaction, known: dict[K, V], find: Callable[[K], V], questions: Iterable[K]
) -> Mapping[K, V]:
    """Return the answers that a call has, once all are `known`; FindingsDueError if one is due.

    In a consumer's transaction they are found at once: nobody could run its block again.
    """
    lacking = [each for each in questions if each not in known]
    if lacking and tx.operation is not None:
        raise FindingsDueError(partial(find_all, known, find, lacking))
    find_all(known, find, lacking)
    return known


def find_all(known: dict[K, V], find: Callable[[K], V], questions: Iterable[K]) -> None:
    """Find what is not known yet."""
    for each in questions:
        if each not in known:
            known[each] = find(each)


def write_finding(handle: Any, operation: str, work: Callable[[Any], V]) -> V:
    """Do `work` in a write transaction, and again once an answer was found that it lacked."""
    while True:
        try:
            result: V = handle.write(operation, work)
        except FindingsDueError as due:
            due.find()
        else:
            return result


async def submit_write_finding(
    submit: Callable[[str, Callable[[Any], V]], Awaitable[V]],
    operation: str,
    work: Callable[[Any], V],
) -> V:
    """Do the same for an event loop, which goes on while the answer is found."""
    while True:
        try:
            return await submit(operation, work)
        except FindingsDueError as due:
            await on_library_thread(due.find, may_be_left=True)


def finding_inside(work: Callable[[Any], V]) -> Callable[[Any], V]:
    """Make `work` find its answers in its transaction: for who can't run it again."""

    def do(tx: Any) -> V:
        while True:
            try:
                return work(tx)
            except FindingsDueError as due:
                due.find()

    return do
