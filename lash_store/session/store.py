"""The session store's facades, sync and asyncio: opening, and committing a turn."""

import os
import warnings
from typing import Any, Self, Unpack

from lash_store._backends import absolute, is_in_memory
from lash_store._kernel.checks import check_count
from lash_store._kernel.logs import WRITES
from lash_store._kernel.options import OpenOptions, Settings
from lash_store._stores.async_store import AsyncStore
from lash_store._stores.cancelling import lane_of
from lash_store._stores.operations import writes
from lash_store._stores.store import Store, open_at
from lash_store.errors import CollectionWarning, InvalidRecordError, LashStoreError
from lash_store.session.context import session_context
from lash_store.session.holding import SessionHolding
from lash_store.session.operations import SessionOperations, turns
from lash_store.session.records import Profile, SessionHead, TurnCommit, TurnReceipt
from lash_store.session.tables import SCHEMA
from lash_store.session.tx import SessionTx


class SessionStore(SessionHolding, SessionOperations, Store[SessionTx]):
    """One session's durable state, in one database file.

    Every operation is one transaction; several go together in ``begin()``. The arguments,
    results and errors of each are documented on :class:`SessionTx`.
    """

    session_id: str
    """The session that operations act on when they are given none."""

    collect_every: int | None
    """After how many commits blobs are collected; None is never."""

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | Store[Any] | None,
        *,
        session_id: str,
        profile: Profile | None = None,
        collect_every: int | None = None,
        **options: Unpack[OpenOptions],
    ) -> Self:
        """Open the database at `path`, or a private one in memory if it is None.

        All stores of a file share what is open of it, whatever session each is for; given a
        store, this one shares what that one has open, in memory too. A file that does not exist
        is created, readable and writable by its owner only.
        `profile` says when blobs are compressed; by default "balanced" for a file, and
        "low_latency", which is never, in memory. With `collect_every`, the call of
        ``commit_turn`` that makes the head's revision a multiple of it collects blobs as
        well, in a transaction of its own after the commit (S-GC-2); should that fail, a
        CollectionWarning says so, and the receipt is returned. See ``OpenOptions`` for
        `options`.

        Raises StoreOpenError (the path, and why), SchemaVersionError, SchemaDriftError,
        StoreBusyError, and InvalidRecordError for an empty session id or a bad option.
        """
        settings = Settings(**options)
        in_memory = path.path == ":memory:" if isinstance(path, Store) else is_in_memory(path)
        by_default: Profile = "low_latency" if in_memory else "balanced"
        chosen = by_default if profile is None else profile
        context = session_context(session_id, chosen, settings.clock, settings.ids)
        check_interval(collect_every)
        handle, _ = open_at(path, SCHEMA, options)
        store = cls(handle, SessionTx, context)
        store.session_id = session_id
        store.collect_every = collect_every
        return store

    def commit_turn(self, commit: TurnCommit) -> TurnReceipt:  # noqa: D102 # reason: set below
        before = None if self.collect_every is None else self.load_head()
        receipt = self._commit_turn(commit)
        if is_due(receipt, before, self.collect_every):
            try:
                self.collect_blobs()
            except LashStoreError as error:
                warn_of_collection(error)
        return receipt

    commit_turn.__doc__ = turns.commit_turn.__doc__
    _commit_turn = writes(turns.commit_turn)


class AsyncSessionStore(SessionHolding, SessionOperations, AsyncStore[SessionTx]):
    """:class:`SessionStore` for asyncio: the same operations, as coroutines."""

    _described_by = ("session_id", "collect_every")

    session_id: str
    collect_every: int | None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | Store[Any] | None,
        *,
        session_id: str,
        profile: Profile | None = None,
        collect_every: int | None = None,
        **options: Unpack[OpenOptions],
    ) -> Self:
        """Make a store that ``async with`` or ``await`` opens, as :meth:`SessionStore.open` does."""
        there = absolute(path)
        store = cls(
            lambda **more: SessionStore.open(
                there, session_id=session_id, profile=profile, **{**options, **more}
            )
        )
        store._lane = lane_of(there, options)
        store.session_id = session_id
        store.collect_every = check_interval(collect_every)
        return store

    async def commit_turn(self, commit: TurnCommit) -> TurnReceipt:  # noqa: D102 # reason: set below
        before = None if self.collect_every is None else await self.load_head()
        receipt = await self._commit_turn(commit)
        if is_due(receipt, before, self.collect_every):
            try:
                await self.collect_blobs()
            except LashStoreError as error:
                warn_of_collection(error)
        return receipt

    commit_turn.__doc__ = turns.commit_turn.__doc__
    _commit_turn = writes(turns.commit_turn)


def check_interval(collect_every: int | None) -> int | None:
    """Return the interval if it is one: at least 1, or None."""
    if collect_every is not None and check_count("collect_every", collect_every) == 0:
        raise InvalidRecordError("collect_every", "0", "must be at least 1, or None")
    return collect_every


def is_due(receipt: TurnReceipt, before: SessionHead | None, collect_every: int | None) -> bool:
    """Whether blobs are to be collected: after a commit that moved the head to a multiple."""
    moved = receipt.head_revision > (0 if before is None else before.head_revision)
    return collect_every is not None and moved and receipt.head_revision % collect_every == 0


def warn_of_collection(error: LashStoreError) -> None:
    """Tell that a collection failed, without hiding the receipt of a turn that is committed."""
    text = f"the turn is committed, but collecting blobs after it failed: {error}"
    try:
        warnings.warn(text, CollectionWarning, stacklevel=3)
    except CollectionWarning:  # where warnings are errors: the receipt is more
        WRITES.warning("%s", text)
