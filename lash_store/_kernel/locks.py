"""Which lock makes an operation safe, where a database locks less than all of itself (K-LOCK-1).

In a file one transaction writes at a time, and the operations count on that: they look, decide and
write. A database that lets several write at once gives each what it needs of that, and no more:

- of sessions the lock on the session, whatever is done in it;
- of the other kinds an operation says which one thing it is about, where its code stands:
  ``locked_by(work, process_id)``. It shares the lock on the kind, and has that on the thing alone;
- whoever says nothing, a consumer's ``begin()`` first of all, has the lock on the kind alone.

The lock is had before anything is read, and held until the end.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from lash_store._kernel.schema import Schema

WorkT = TypeVar("WorkT", bound=Callable[..., Any])


def locked_by(work: WorkT, *key: str) -> WorkT:
    """Say that `work` is about one thing of its kind; about none that others change, without a `key`."""
    said: Any = work
    said.locked_by = key
    return work


def locked_beside(work: WorkT, schema: Schema, scope: str, *key: str) -> WorkT:
    """Say that `work` looks at one thing of another kind of store as well, which must not change."""
    said: Any = work
    said.locked_beside = (schema, scope, key)
    return work


def goes_alone(work: WorkT) -> WorkT:
    """Say that `work` shares no transaction with others: rows' own locks decide what it is about, or what else.

    Two transactions of several of them could each wait for a row that the other has.
    """
    said: Any = work
    said.goes_alone = True
    return work


def must_go_alone(work: Any) -> bool:
    """Return whether a work has said so."""
    return getattr(work, "goes_alone", False)


def commits_with_first(work: WorkT) -> WorkT:
    """Say that the first statement of `work` is its last, unless it changes nothing.

    So a server may be told to commit with it, which saves waiting for one answer. What `work` does
    with what that statement gives can't undo it any more.
    """
    said: Any = work
    said.commits_with_first = True
    return work


def may_commit_with_first(work: Any) -> bool:
    """Return whether a work has said so."""
    return getattr(work, "commits_with_first", False)


def locked_as(work: WorkT, other: Any) -> WorkT:
    """Say of `work`, which does what `other` does and more, what that has said."""
    if must_go_alone(other):
        goes_alone(work)
    key = key_of(other)
    return work if key is None else locked_by(work, *key)


def beside_of(work: Any) -> tuple[Schema, str, tuple[str, ...]] | None:
    """Return what a work has said of another kind: its schema, the scope, the thing."""
    said: tuple[Schema, str, tuple[str, ...]] | None = getattr(work, "locked_beside", None)
    return said


def key_of(work: Any) -> tuple[str, ...] | None:
    """Return what a work has said; None if it said nothing."""
    said: tuple[str, ...] | None = getattr(work, "locked_by", None)
    return said
