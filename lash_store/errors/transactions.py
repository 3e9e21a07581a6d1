"""Errors of transactions that are used against their rules, and of statements that can't run in them."""

import threading
from typing import Self

from sqlalchemy.exc import DontWrapMixin

from lash_store.errors.root import LashStoreError


class TransactionError(LashStoreError):
    """A transaction was used against its rules; the message says which."""


class TransactionEndedError(TransactionError):
    """A Tx was used after its transaction had ended, or in a forked child (K-TX-8)."""


class TransactionControlError(TransactionError):
    """Only the store ends its own transaction; the attempt changed nothing (K-TX-7)."""


class ThreadError(TransactionError):
    """A Tx, or its connection, was used in another thread than the one that its transaction is in.

    `owner` and `user` are the identifiers of the two threads. Nothing was changed.
    """

    def __init__(self, owner: int, user: int) -> None:
        super().__init__(owner, user)
        self.owner = owner
        self.user = user

    def __str__(self) -> str:
        return (
            f"the transaction belongs to thread {_thread_name(self.owner)} and was used in "
            f"{_thread_name(self.user)}: a Tx and its connection stay in one thread"
        )


def _thread_name(ident: int) -> str:
    """Name a thread, one that has ended by its number alone."""
    names = [each.name for each in threading.enumerate() if each.ident == ident]
    return f"{names[0]!r} ({ident})" if names else str(ident)


class NestedTransactionError(TransactionError):
    """A transaction was opened inside another one of the same store on the same thread."""

    @classmethod
    def on_this_thread(cls) -> Self:
        """Say what to do instead."""
        return cls(
            "this thread is inside a transaction on this database already, which would have "
            "to end first: use that one's `tx`, or another kind's beside it, "
            "ProcessTx.beside(tx) say, or go on after it; in a signal handler, which may strike in the midst "
            "of any call, note what came or raise"
        )


class NotConfiguredError(TransactionError):
    """The engine or connection is not one that ``configure()`` has prepared (K-TX-8)."""


class ScopeError(TransactionError, DontWrapMixin):
    """A statement on the tables of sessions, in a shared database, that says not whose it is about."""

    def __init__(self, where: str, is_orm: bool = False) -> None:  # noqa: FBT001, FBT002 # reason: pickled by position
        super().__init__(where, is_orm)
        self.where = where
        self.is_orm = is_orm

    def __str__(self) -> str:
        if self.is_orm:
            return (
                f"{self.where} may be the same object to it: use a Session for each, or "
                "expunge_all() first"
            )
        return (
            f"{self.where} does not say whose session a statement on lash_store's tables is about: "
            "run it on a tx.connection that is of one session, or with execution_options(lash_store_session=...)"
        )


class MissingTableError(TransactionError, DontWrapMixin):
    """A statement on a table of ours that this database does not have: another kind of store's.

    `table` is the table as it was called, `kind` the kind of store that has it; a fence, say, of one
    kind in a statement on another's database. Nothing was changed by it.
    """

    def __init__(self, path: str, table: str, kind: str) -> None:
        super().__init__(path, table, kind)
        self.path = path
        self.table = table
        self.kind = kind

    def __str__(self) -> str:
        return (
            f"{self.path!r} has no table {self.table}: it is a table of {self.kind} stores, and that "
            "of another kind, or none yet, is here"
        )


class CoroutineError(LashStoreError, TypeError):
    """A coroutine function, or what gives an awaitable, where a plain function is called for.

    Nobody would have awaited it, so it would have done nothing; what it was called in is undone.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return (
            f"{self.what} must not be asynchronous: it is called, and nobody awaits what it gives. "
            "Pass a plain function"
        )


class UnpreparableStatementError(LashStoreError, TypeError):
    """A construct whose SQL text or parameters are not fixed, so it can't be compiled once."""
