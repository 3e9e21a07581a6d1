"""Opening a store as another process would, inside this one."""

from contextlib import AbstractContextManager

from lash_store._backends import opened_apart


def as_another_process() -> AbstractContextManager[None]:
    """Open what is opened in a ``with`` block as another process would.

    All stores of a file share one writer in a process, so two of them never meet a lock that the
    other holds. What is opened in here shares nothing: it has connections of its own, waits for
    SQLite's lock, and learns of commits as from another process.
    """
    return opened_apart()
