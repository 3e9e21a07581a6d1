"""The turn commit, on an open transaction: everything that a turn changes, or nothing."""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from lash_store._kernel.checks import check_name
from lash_store._kernel.codecs import decode_object, encode_json, free_json, read_as
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
from lash_store.session.context import Tx
from lash_store.session.operations.blobs import put_checkpoint
from lash_store.session.operations.graph import append_nodes, delete_nodes, is_live_node
from lash_store.session.operations.head import load_head, save_head
from lash_store.session.operations.leases import LEASES
from lash_store.session.operations.queue import complete_claim, require_claim
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

_TABLE: Final = runtime_turn_commits.name


def commit_turn(tx: Tx, commit: TurnCommit) -> TurnReceipt:
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
    head = load_head(tx)
    session_id = tx.context.session_id
    if head is not None and head.session_id != session_id:
        raise SessionBindingError(head.session_id, session_id)
    if commit.stamp is not None:
        receipt = _receipt(tx, commit.stamp, session_id)
        if receipt is not None:
            if commit.release:  # a lease that the first try held on to is over as well
                LEASES.release(tx, commit.fence)
            return receipt
    if commit.fence.session_id != session_id:
        raise LeaseLostError(commit.fence, None, "never_claimed")
    LEASES.require(tx, commit.fence)
    current = 0 if head is None else head.head_revision
    if commit.expected_head_revision not in (None, current):
        raise RevisionConflictError(commit.expected_head_revision or 0, current)
    _check_completed(tx, commit, session_id)
    with tx.all_or_nothing():
        return _write(tx, commit, head or SessionHead(session_id, 0))


def load_receipt(tx: Tx, turn_id: str) -> TurnReceipt | None:
    """Return the receipt of a turn of this session, or None if it was never committed."""
    name = check_name("turn_id", turn_id)
    row = statements.load_receipt.one(tx.cursor, session_id=tx.context.session_id, turn_id=name)
    return None if row is None else _read_receipt(turn_id, row[3])


def record_usage(tx: Tx, delta: UsageDelta) -> None:
    """Add a report of tokens used, outside a turn's commit."""
    check_usage(delta)
    statements.record_usage.run(tx.cursor, **msgspec.structs.asdict(delta))


def load_usage(tx: Tx) -> list[UsageDelta]:
    """Return what was used by source and model, in order of first appearance (S-USAGE-1)."""
    return [UsageDelta(*row) for row in statements.load_usage.all(tx.cursor)]


def _receipt(tx: Tx, stamp: TurnStamp, session_id: str) -> TurnReceipt | None:
    if stamp.session_id not in (None, session_id):
        raise TurnConflictError(stamp.session_id or "", stamp.turn_id)
    row = statements.load_receipt.one(tx.cursor, session_id=session_id, turn_id=stamp.turn_id)
    if row is None:
        return None
    if row[2] != stamp.commit_hash:
        raise TurnConflictError(session_id, stamp.turn_id)
    return _read_receipt(stamp.turn_id, row[3])


def _check_completed(tx: Tx, commit: TurnCommit, session_id: str) -> None:
    seen: set[str] = set()
    for claim in commit.completed:
        require_claim(tx, claim)
        ids = claim.batch_ids
        if claim.session_id != session_id or not seen.isdisjoint(ids):
            raise ClaimLostError(claim.claim_id, ids, sorted(seen & set(ids)))
        seen.update(ids)


def _write(tx: Tx, commit: TurnCommit, head: SessionHead) -> TurnReceipt:
    cursor = tx.cursor
    checkpoint_ref: str | None = None
    manifest: Manifest | None = None
    if commit.checkpoint is not None:
        checkpoint_ref, manifest = put_checkpoint(tx, commit.checkpoint)
    usage = [
        statements.record_usage.bind(cursor, **msgspec.structs.asdict(delta))
        for delta in commit.usage
    ]
    if usage:
        statements.record_usage.many(cursor, usage)
    leaf, count = _write_graph(tx, commit, head)
    revision = head.head_revision + 1
    if revision > MAX_INT:
        raise CorruptRecordError(session_head.name, head.session_id, "no revision is left")
    moved = _moved(commit, head, revision=revision, leaf=leaf, count=count)
    if checkpoint_ref is not None:
        moved = msgspec.structs.replace(moved, checkpoint_ref=checkpoint_ref)
    save_head(tx, moved)
    for claim in commit.completed:
        complete_claim(tx, claim)
    for attachment_id in commit.attachment_ids:
        statements.commit_attachment.run(
            cursor,
            session_id=head.session_id,
            attachment_id=attachment_id,
            now_ms=tx.now_ms,
        )
    receipt = TurnReceipt(revision, checkpoint_ref, manifest)
    if commit.stamp is not None:
        statements.save_receipt.run(
            cursor,
            session_id=head.session_id,
            turn_id=commit.stamp.turn_id,
            commit_hash=commit.stamp.commit_hash,
            result_json=encode_json(_written_receipt(receipt)),
            committed_at_ms=tx.now_ms,
        )
    if commit.release:
        LEASES.release(tx, commit.fence)
    return receipt


def _write_graph(tx: Tx, commit: TurnCommit, head: SessionHead) -> tuple[str | None, int]:
    """Apply the graph delta; return the leaf and the count of live nodes after it."""
    delta, count = commit.graph, head.graph_node_count
    if isinstance(delta, Unchanged):
        leaf = head.leaf_node_id if delta.leaf is None else delta.leaf
    else:
        leaf = delta.leaf
    if isinstance(delta, ReplaceFull):
        delete_nodes(tx)
        count = 0
    if isinstance(delta, (Append, ReplaceFull)):
        append_nodes(tx, delta.nodes, rfc_3339(tx.now_ms))
        count += len(delta.nodes)
    keeps = isinstance(delta, Unchanged) and delta.leaf is None
    if leaf is not None and not keeps and not is_live_node(tx, leaf):
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
    return read_as(TurnReceipt, _TABLE, turn_id, decode_object(_TABLE, turn_id, text))
