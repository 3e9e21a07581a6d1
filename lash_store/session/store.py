"""The session store's facades: sync and asyncio, one line for each operation."""

from __future__ import annotations

import os
import warnings
from typing import Self, Unpack

from lash_store._kernel.checks import check_count, check_name
from lash_store._kernel.connection import StoreConnection
from lash_store._kernel.engine import Database
from lash_store._kernel.opening import OpenOptions, Settings, resolve
from lash_store._kernel.store import (
    AsyncStore,
    Store,
    in_async_snapshot,
    in_async_transaction,
    in_snapshot,
    in_transaction,
)
from lash_store.errors import CollectionWarning, InvalidRecordError, LashStoreError
from lash_store.session.records import Profile, SessionHead, TurnCommit, TurnReceipt
from lash_store.session.tables import SCHEMA
from lash_store.session.tx import SessionTx
from lash_store.session.tx.blobs import SessionContext, check_profile


class SessionStore(Store[SessionTx]):
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
        path: str | os.PathLike[str] | None,
        *,
        session_id: str,
        profile: Profile | None = None,
        collect_every: int | None = None,
        **options: Unpack[OpenOptions],
    ) -> Self:
        """Open the database at `path`, or a private one in memory if it is None.

        A file that does not exist is created, readable and writable by its owner only.
        `profile` says when blobs are compressed; by default "balanced" for a file, and
        "low_latency", which is never, in memory. With `collect_every`, the call of
        ``commit_turn`` that makes the head's revision a multiple of it collects blobs as
        well, in a transaction of its own after the commit (S-GC-2); should that fail, a
        CollectionWarning says so, and the receipt is returned. See ``OpenOptions`` for
        `options`.

        Raises StoreOpenError (the path, and why), SchemaVersionError, SchemaDriftError,
        StoreBusyError, and InvalidRecordError for an empty session id or a bad option.
        """
        check_name("session_id", session_id)
        check_interval(collect_every)
        settings = Settings(**options)
        chosen = check_profile(profile or ("low_latency" if path is None else "balanced"))
        context = SessionContext(session_id, settings.clock, settings.ids, chosen)

        def make(raw: StoreConnection) -> SessionTx:
            return SessionTx(context, raw, raw.hot)

        store = cls(Database(SCHEMA, resolve(path), settings), make)
        store.session_id = session_id
        store.collect_every = collect_every
        return store

    claim_lease = in_transaction(SessionTx.claim_lease)
    renew_lease = in_transaction(SessionTx.renew_lease)
    release_lease = in_transaction(SessionTx.release_lease)
    current_lease = in_snapshot(SessionTx.current_lease)

    load_head = in_snapshot(SessionTx.load_head)
    load_graph = in_snapshot(SessionTx.load_graph)
    load_path = in_snapshot(SessionTx.load_path)
    load_node = in_snapshot(SessionTx.load_node)
    tombstone_nodes = in_transaction(SessionTx.tombstone_nodes)
    vacuum_graph = in_transaction(SessionTx.vacuum_graph)

    put_blob = in_transaction(SessionTx.put_blob)
    load_blob = in_snapshot(SessionTx.load_blob)
    load_checkpoint = in_snapshot(SessionTx.load_checkpoint)

    enqueue_work = in_transaction(SessionTx.enqueue_work)
    enqueue_all_work = in_transaction(SessionTx.enqueue_all_work)
    claim_work = in_transaction(SessionTx.claim_work)
    claim_work_batches = in_transaction(SessionTx.claim_work_batches)
    renew_claim = in_transaction(SessionTx.renew_claim)
    abandon_claim = in_transaction(SessionTx.abandon_claim)
    cancel_work = in_transaction(SessionTx.cancel_work)
    list_work = in_snapshot(SessionTx.list_work)
    list_pending_work = in_snapshot(SessionTx.list_pending_work)
    work_depth = in_snapshot(SessionTx.work_depth)

    def commit_turn(self, commit: TurnCommit) -> TurnReceipt:  # noqa: D102 # reason: set below
        before = None if self.collect_every is None else self.load_head()
        receipt = self._commit_turn(commit)
        if is_due(receipt, before, self.collect_every):
            try:
                self.collect_blobs()
            except LashStoreError as error:
                warn_of_collection(error)
        return receipt

    commit_turn.__doc__ = SessionTx.commit_turn.__doc__
    _commit_turn = in_transaction(SessionTx.commit_turn)
    load_receipt = in_snapshot(SessionTx.load_receipt)
    record_usage = in_transaction(SessionTx.record_usage)
    load_usage = in_snapshot(SessionTx.load_usage)

    save_meta = in_transaction(SessionTx.save_meta)
    record_attachment_intent = in_transaction(SessionTx.record_attachment_intent)
    commit_attachments = in_transaction(SessionTx.commit_attachments)
    forget_attachment = in_transaction(SessionTx.forget_attachment)
    put_artifact = in_transaction(SessionTx.put_artifact)
    collect_blobs = in_transaction(SessionTx.collect_blobs)
    load_meta = in_snapshot(SessionTx.load_meta)
    load_summary = in_snapshot(SessionTx.load_summary)
    list_uncommitted_attachments = in_snapshot(SessionTx.list_uncommitted_attachments)
    load_artifact = in_snapshot(SessionTx.load_artifact)


class AsyncSessionStore(AsyncStore[SessionTx]):
    """:class:`SessionStore` for asyncio: the same operations, as coroutines."""

    session_id: str
    collect_every: int | None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None,
        *,
        session_id: str,
        profile: Profile | None = None,
        collect_every: int | None = None,
        **options: Unpack[OpenOptions],
    ) -> Self:
        """Make a store that ``async with`` or ``await`` opens, as :meth:`SessionStore.open` does."""
        store = cls(
            lambda: SessionStore.open(path, session_id=session_id, profile=profile, **options)
        )
        store.session_id = session_id
        store.collect_every = check_interval(collect_every)
        return store

    claim_lease = in_async_transaction(SessionTx.claim_lease)
    renew_lease = in_async_transaction(SessionTx.renew_lease)
    release_lease = in_async_transaction(SessionTx.release_lease)
    current_lease = in_async_snapshot(SessionTx.current_lease)

    load_head = in_async_snapshot(SessionTx.load_head)
    load_graph = in_async_snapshot(SessionTx.load_graph)
    load_path = in_async_snapshot(SessionTx.load_path)
    load_node = in_async_snapshot(SessionTx.load_node)
    tombstone_nodes = in_async_transaction(SessionTx.tombstone_nodes)
    vacuum_graph = in_async_transaction(SessionTx.vacuum_graph)

    put_blob = in_async_transaction(SessionTx.put_blob)
    load_blob = in_async_snapshot(SessionTx.load_blob)
    load_checkpoint = in_async_snapshot(SessionTx.load_checkpoint)

    enqueue_work = in_async_transaction(SessionTx.enqueue_work)
    enqueue_all_work = in_async_transaction(SessionTx.enqueue_all_work)
    claim_work = in_async_transaction(SessionTx.claim_work)
    claim_work_batches = in_async_transaction(SessionTx.claim_work_batches)
    renew_claim = in_async_transaction(SessionTx.renew_claim)
    abandon_claim = in_async_transaction(SessionTx.abandon_claim)
    cancel_work = in_async_transaction(SessionTx.cancel_work)
    list_work = in_async_snapshot(SessionTx.list_work)
    list_pending_work = in_async_snapshot(SessionTx.list_pending_work)
    work_depth = in_async_snapshot(SessionTx.work_depth)

    async def commit_turn(self, commit: TurnCommit) -> TurnReceipt:  # noqa: D102 # reason: set below
        before = None if self.collect_every is None else await self.load_head()
        receipt = await self._commit_turn(commit)
        if is_due(receipt, before, self.collect_every):
            try:
                await self.collect_blobs()
            except LashStoreError as error:
                warn_of_collection(error)
        return receipt

    commit_turn.__doc__ = SessionTx.commit_turn.__doc__
    _commit_turn = in_async_transaction(SessionTx.commit_turn)
    load_receipt = in_async_snapshot(SessionTx.load_receipt)
    record_usage = in_async_transaction(SessionTx.record_usage)
    load_usage = in_async_snapshot(SessionTx.load_usage)

    save_meta = in_async_transaction(SessionTx.save_meta)
    record_attachment_intent = in_async_transaction(SessionTx.record_attachment_intent)
    commit_attachments = in_async_transaction(SessionTx.commit_attachments)
    forget_attachment = in_async_transaction(SessionTx.forget_attachment)
    put_artifact = in_async_transaction(SessionTx.put_artifact)
    collect_blobs = in_async_transaction(SessionTx.collect_blobs)
    load_meta = in_async_snapshot(SessionTx.load_meta)
    load_summary = in_async_snapshot(SessionTx.load_summary)
    list_uncommitted_attachments = in_async_snapshot(SessionTx.list_uncommitted_attachments)
    load_artifact = in_async_snapshot(SessionTx.load_artifact)


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
    warnings.warn(text, CollectionWarning, stacklevel=3)
