"""The turn commit, on an open transaction: everything that a turn changes, or nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from lash_store._kernel.checks import check_name
from lash_store._kernel.codecs import decode_object, encode_json, free_json
from lash_store._kernel.prepared import prepare
from lash_store.clock import MAX_INT
from lash_store.errors import (
    ClaimLostError,
    CorruptRecordError,
    InvalidRecordError,
    LeaseLostError,
    RevisionConflictError,
    SessionBindingError,
    TurnConflictError,
)
from lash_store.session import statements
from lash_store.session.records import Append, ReplaceFull, SessionHead, Unchanged
from lash_store.session.records.checkpoints import Manifest
from lash_store.session.records.turns import (
    TurnCommit,
    TurnReceipt,
    TurnStamp,
    UsageDelta,
    check_commit,
    check_usage,
)
from lash_store.session.tables import runtime_turn_commits, session_head
from lash_store.session.tx.blobs import BlobOperations
from lash_store.session.tx.graph import GraphOperations, append_nodes, delete_nodes, is_live_node
from lash_store.session.tx.head import save_head
from lash_store.session.tx.queue import QueueOperations, complete_claim

_commit_attachment = prepare(statements.commit_attachment)
_load_receipt = prepare(statements.load_receipt)
_load_usage = prepare(statements.load_usage)
_record_usage = prepare(statements.record_usage)
_save_receipt = prepare(statements.save_receipt)

_TABLE: Final = runtime_turn_commits.name


class TurnOperations(QueueOperations, GraphOperations, BlobOperations):
    """Operations on turns, and on the tokens that they used."""

    __slots__ = ()

    def commit_turn(self, commit: TurnCommit) -> TurnReceipt:
        """Commit everything that a turn changes, or nothing (S-COMMIT-1 to 9).

        A turn with a stamp may be sent again, any number of times and by any worker: the
        stored receipt comes back and nothing else happens, except that a release that is
        asked for is done.

        Raises, checked in this order, SessionBindingError (the head is another session's),
        TurnConflictError (the turn id was committed with another hash), LeaseLostError,
        RevisionConflictError (the head moved), ClaimLostError (a completed claim does not
        stand), NodeConflictError (a node id exists), InvalidRecordError (before all of these
        for what can't be stored; and for a leaf that is no live node, or a component's ref
        that is not stored). Nothing is written then, even if the caller's transaction goes on.
        """
        check_commit(commit)
        head = self.load_head()
        session_id = self.context.session_id
        if head is not None and head.session_id != session_id:
            raise SessionBindingError(head.session_id, session_id)
        if commit.stamp is not None:
            receipt = self._receipt(commit.stamp, session_id)
            if receipt is not None:
                if commit.release:  # a lease that the first try held on to is over as well
                    self.release_lease(commit.fence)
                return receipt
        if commit.fence.session_id != session_id:
            raise LeaseLostError(commit.fence, None, "never_claimed")
        self.require(commit.fence)
        current = 0 if head is None else head.head_revision
        if commit.expected_head_revision not in (None, current):
            raise RevisionConflictError(commit.expected_head_revision or 0, current)
        self._check_completed(commit, session_id)
        with self.all_or_nothing():
            return self._write(commit, head or SessionHead(session_id, 0))

    def load_receipt(self, turn_id: str) -> TurnReceipt | None:
        """Return the receipt of a turn of this session, or None if it was never committed."""
        name = check_name("turn_id", turn_id)
        row = _load_receipt.one(self.cursor, session_id=self.context.session_id, turn_id=name)
        return None if row is None else _read_receipt(turn_id, row[3])

    def record_usage(self, delta: UsageDelta) -> None:
        """Add a report of tokens used, outside a turn's commit."""
        check_usage(delta)
        _record_usage.run(self.cursor, **msgspec.structs.asdict(delta))

    def load_usage(self) -> list[UsageDelta]:
        """Return what was used by source and model, in order of first appearance (S-USAGE-1)."""
        return [UsageDelta(*row) for row in _load_usage.all(self.cursor)]

    def _receipt(self, stamp: TurnStamp, session_id: str) -> TurnReceipt | None:
        if stamp.session_id not in (None, session_id):
            raise TurnConflictError(stamp.session_id or "", stamp.turn_id)
        row = _load_receipt.one(self.cursor, session_id=session_id, turn_id=stamp.turn_id)
        if row is None:
            return None
        if row[2] != stamp.commit_hash:
            raise TurnConflictError(session_id, stamp.turn_id)
        return _read_receipt(stamp.turn_id, row[3])

    def _check_completed(self, commit: TurnCommit, session_id: str) -> None:
        seen: set[str] = set()
        for claim in commit.completed:
            self.require_claim(claim)
            ids = claim.batch_ids
            if claim.session_id != session_id or not seen.isdisjoint(ids):
                raise ClaimLostError(claim.claim_id, ids, sorted(seen & set(ids)))
            seen.update(ids)

    def _write(self, commit: TurnCommit, head: SessionHead) -> TurnReceipt:
        cursor = self.cursor
        checkpoint_ref: str | None = None
        manifest: Manifest | None = None
        if commit.checkpoint is not None:
            checkpoint_ref, manifest = self.put_checkpoint(commit.checkpoint)
        usage = [_record_usage.bind(**msgspec.structs.asdict(delta)) for delta in commit.usage]
        if usage:
            _record_usage.many(cursor, usage)
        leaf, count = self._write_graph(commit, head)
        revision = head.head_revision + 1
        if revision > MAX_INT:
            raise CorruptRecordError(session_head.name, head.session_id, "no revision is left")
        moved = _moved(commit, head, revision=revision, leaf=leaf, count=count)
        if checkpoint_ref is not None:
            moved = msgspec.structs.replace(moved, checkpoint_ref=checkpoint_ref)
        save_head(cursor, moved)
        for claim in commit.completed:
            complete_claim(cursor, claim)
        for attachment_id in commit.attachment_ids:
            _commit_attachment.run(
                cursor,
                session_id=head.session_id,
                attachment_id=attachment_id,
                now_ms=self.now_ms,
            )
        receipt = TurnReceipt(revision, checkpoint_ref, manifest)
        if commit.stamp is not None:
            _save_receipt.run(
                cursor,
                session_id=head.session_id,
                turn_id=commit.stamp.turn_id,
                commit_hash=commit.stamp.commit_hash,
                result_json=encode_json(_written_receipt(receipt)),
                committed_at_ms=self.now_ms,
            )
        if commit.release:
            self.release_lease(commit.fence)
        return receipt

    def _write_graph(self, commit: TurnCommit, head: SessionHead) -> tuple[str | None, int]:
        """Apply the graph delta; return the leaf and the count of live nodes after it."""
        cursor, delta, count = self.cursor, commit.graph, head.graph_node_count
        if isinstance(delta, Unchanged):
            leaf = head.leaf_node_id if delta.leaf is None else delta.leaf
        else:
            leaf = delta.leaf
        if isinstance(delta, ReplaceFull):
            delete_nodes(cursor)
            count = 0
        if isinstance(delta, (Append, ReplaceFull)):
            append_nodes(cursor, delta.nodes, rfc_3339(self.now_ms))
            count += len(delta.nodes)
        keeps = isinstance(delta, Unchanged) and delta.leaf is None
        if leaf is not None and not keeps and not is_live_node(cursor, leaf):
            raise InvalidRecordError("leaf", ascii(leaf), "is no live node of the graph")
        return leaf, count


def rfc_3339(now_ms: int) -> str:
    """Write a time as text, UTC, to the millisecond; a time past year 9999 as its number."""
    try:
        moment = datetime.fromtimestamp(now_ms // 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{now_ms}ms"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{now_ms % 1000:03d}Z"


def _moved(
    commit: TurnCommit, head: SessionHead, *, revision: int, leaf: str | None, count: int
) -> SessionHead:
    """Return the head after the commit, its checkpoint aside."""
    frame = commit.current_agent_frame_id
    return SessionHead(
        session_id=head.session_id,
        head_revision=revision,
        config=head.config if commit.config is None else commit.config,
        agent_frames=head.agent_frames if commit.agent_frames is None else commit.agent_frames,
        current_agent_frame_id=head.current_agent_frame_id if frame is None else frame or None,
        checkpoint_ref=head.checkpoint_ref,
        leaf_node_id=leaf,
        graph_node_count=count,
        # Unknown fields survive, but for the ledger, which a commit makes stale (S-HEAD-1).
        extra={name: value for name, value in head.extra.items() if name != "token_ledger"},
    )


def _written_receipt(receipt: TurnReceipt) -> dict[str, Any]:
    written: dict[str, Any] = msgspec.to_builtins(receipt)
    if receipt.manifest is not None:
        turn_state = free_json("turn_state", receipt.manifest.turn_state)
        written["manifest"] = {**written["manifest"], "turn_state": turn_state}
    return written


def _read_receipt(turn_id: str, text: str) -> TurnReceipt:
    written = decode_object(_TABLE, turn_id, text)
    try:
        return msgspec.convert(written, TurnReceipt)
    except msgspec.ValidationError as error:
        raise CorruptRecordError(_TABLE, turn_id, str(error)) from error
