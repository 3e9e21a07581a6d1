"""The turn commit: everything that a turn changes, or nothing."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from lash_store._kernel.checks import check_name
from lash_store._kernel.codecs import decode_object, encode_json, encode_raw, read_as
from lash_store.clock import MAX_INT
from lash_store.errors import (
    ClaimLostError,
    CorruptRecordError,
    InvalidRecordError,
    LeaseLostError,
    RevisionConflictError,
    SessionBindingError,
    StorageError,
    TurnConflictError,
)
from lash_store.session import statements
from lash_store.session.context import SessionContext, Tx, Work
from lash_store.session.operations.attachments import stamp_attachments
from lash_store.session.operations.blobs import find_manifest, store_checkpoint
from lash_store.session.operations.claims import complete_claim, require_standing
from lash_store.session.operations.graph import append_nodes, delete_nodes, is_live_node
from lash_store.session.operations.head import read_head, save_head
from lash_store.session.operations.leases import LEASES
from lash_store.session.records import SessionHead, WorkClaim
from lash_store.session.records.turns import (
    TurnCommit,
    TurnReceipt,
    TurnStamp,
    UsageDelta,
    WrittenCommit,
    WrittenDelta,
    check_usage,
    written_commit,
)
from lash_store.session.tables import runtime_turn_commits, session_head, usage_deltas

_TABLE: Final = runtime_turn_commits.name
_TOO_LARGE: Final = re.compile("overflow|out of range")
"""What databases say of a sum that is no integer of 64 bits."""


def commit_turn(context: SessionContext, commit: TurnCommit) -> Work[TurnReceipt]:
    """Commit everything that a turn changes, or nothing (S-COMMIT-1 to 9).

    A turn with a stamp may be sent again, any number of times and by any worker: the
    stored receipt comes back and nothing else happens, except that a release that is
    asked for is done: no claim is completed then either; ``complete_work`` ends work that was queued again.

    Raises, checked in this order, SessionBindingError (the head is another session's),
    TurnConflictError (the turn id was committed with another hash), LeaseLostError,
    RevisionConflictError (the head moved), ClaimLostError (a completed claim does not
    stand), NodeConflictError (a node id exists), InvalidRecordError (before all of these
    for what can't be stored; and for a leaf that is no live node, or a component's ref
    that is not stored). Nothing is written then, even if the caller's transaction goes on.
    """
    written = written_commit(commit)
    session_id, fence = context.session_id, written.fence
    require_lease = LEASES.requiring(context, fence)
    release_lease = LEASES.releasing(context, fence) if written.release else None
    write = _writing(context, written)

    def commit_once(tx: Tx) -> TurnReceipt:
        head = read_head(tx)
        if head is not None and head.session_id != session_id:
            raise SessionBindingError(head.session_id, session_id)
        if written.stamp is not None:
            receipt = _receipt(tx, written.stamp, session_id)
            if receipt is not None:
                if release_lease and fence.session_id == session_id:
                    release_lease(tx)  # which the first try held on to
                return receipt
        if fence.session_id != session_id:
            raise LeaseLostError(fence, None, "never_claimed")
        require_lease(tx)
        current = 0 if head is None else head.head_revision
        if written.expected_head_revision not in (None, current):
            raise RevisionConflictError(written.expected_head_revision or 0, current)
        _check_completed(tx, written.completed, session_id)
        with tx.all_or_nothing():
            receipt = write(tx, head or SessionHead(session_id, 0))
            if release_lease:
                release_lease(tx)
        return receipt

    return commit_once


def load_receipt(context: SessionContext, turn_id: str) -> Work[TurnReceipt | None]:
    """Return the receipt of a turn of this session, or None if it was never committed."""
    name, session_id = check_name("turn_id", turn_id), context.session_id

    def load(tx: Tx) -> TurnReceipt | None:
        row = statements.load_receipt.one(tx.own_cursor, session_id=session_id, turn_id=name)
        return None if row is None else _read_receipt(tx, name, row[3])

    return load


def record_usage(_: SessionContext, delta: UsageDelta) -> Work[None]:
    """Add a report of tokens used, outside a turn's commit."""
    columns = msgspec.structs.asdict(check_usage(delta))

    def record(tx: Tx) -> None:
        statements.record_usage.later(tx.own_cursor, **columns)

    return record


def load_usage(_: SessionContext) -> Work[list[UsageDelta]]:
    """Return what was used by source and model, in order of first appearance (S-USAGE-1).

    Raises CorruptRecordError if the sum of one of them is 2**63 or more.
    """

    def load(tx: Tx) -> list[UsageDelta]:
        try:
            rows = statements.load_usage.all(tx.own_cursor)
        except StorageError as error:
            if not _TOO_LARGE.search(str(error.__cause__)):
                raise
            why = "the tokens of one source and model are 2**63 or more"
            raise CorruptRecordError(usage_deltas.name, "sum", why) from error
        return [UsageDelta(*row) for row in rows]

    return load


def _receipt(tx: Tx, stamp: TurnStamp, session_id: str) -> TurnReceipt | None:
    if stamp.session_id not in (None, session_id):
        raise TurnConflictError(stamp.session_id or "", stamp.turn_id)
    row = statements.load_receipt.one(tx.own_cursor, session_id=session_id, turn_id=stamp.turn_id)
    if row is None:
        return None
    if row[2] != stamp.commit_hash:
        raise TurnConflictError(session_id, stamp.turn_id)
    return _read_receipt(tx, stamp.turn_id, row[3])


def _check_completed(tx: Tx, claims: Sequence[WorkClaim], session_id: str) -> None:
    seen: set[str] = set()
    for claim in claims:
        ids = claim.batch_ids
        if claim.session_id != session_id:
            raise ClaimLostError(claim.claim_id, ids, [], "of another session")
        require_standing(tx, claim)
        if not seen.isdisjoint(ids):
            raise ClaimLostError(claim.claim_id, ids, sorted(seen & set(ids)), "named twice")
        seen.update(ids)


def _writing(
    context: SessionContext, commit: WrittenCommit
) -> Callable[[Tx, SessionHead], TurnReceipt]:
    """Encode what a commit writes; return what writes it on top of a head."""
    checkpoint, stamp = commit.checkpoint, commit.stamp
    put_checkpoint = None if checkpoint is None else store_checkpoint(context, checkpoint)
    usage = [msgspec.structs.asdict(delta) for delta in commit.usage]
    graph = commit.graph
    append = append_nodes(graph.nodes, replaces=graph.replaces) if graph.nodes else None
    encoded = _encoded_for_head(commit)
    completed, attachment_ids = commit.completed, commit.attachment_ids

    def write(tx: Tx, head: SessionHead) -> TurnReceipt:
        checkpoint_ref, manifest = (None, None) if put_checkpoint is None else put_checkpoint(tx)
        if usage:
            _record_usage(tx, usage)
        leaf, count = _write_graph(tx, commit.graph, append, head)
        moved = _moved(commit, head, leaf=leaf, count=count, checkpoint_ref=checkpoint_ref)
        save_head(tx, moved, encoded)
        for claim in completed:
            complete_claim(tx, claim)
        if attachment_ids:
            stamp_attachments(tx, head.session_id, attachment_ids)
        receipt = TurnReceipt(moved.head_revision, checkpoint_ref, manifest)
        if stamp is not None:
            _save_receipt(tx, stamp, head.session_id, receipt)
        return receipt

    return write


def _encoded_for_head(commit: WrittenCommit) -> dict[str, msgspec.Raw]:
    """Encode the consumer's own values that the commit gives the head."""
    encoded = {}
    if commit.config is not None:
        encoded["config"] = encode_raw(commit.config)
    if commit.agent_frames is not None:
        encoded["agent_frames"] = encode_raw(commit.agent_frames)
    return encoded


def _record_usage(tx: Tx, usage: Sequence[dict[str, Any]]) -> None:
    cursor = tx.own_cursor
    rows = [statements.record_usage.bind(cursor, **columns) for columns in usage]
    statements.record_usage.later_many(cursor, rows)


def _write_graph(
    tx: Tx, delta: WrittenDelta, append: Work[None] | None, head: SessionHead
) -> tuple[str | None, int]:
    """Apply the graph delta; return the leaf and the count of live nodes after it."""
    leaf = head.leaf_node_id if delta.keeps_leaf else delta.leaf
    if delta.replaces:
        delete_nodes(tx)
    if append is not None:
        append(tx)
    is_new = any(node["node_id"] == leaf for node in delta.nodes)  # as it nearly always is
    if leaf is not None and not (is_new or delta.keeps_leaf or is_live_node(tx, leaf)):
        raise InvalidRecordError("leaf", ascii(leaf), "is no live node of the graph")
    return leaf, (0 if delta.replaces else head.graph_node_count) + len(delta.nodes)


def _moved(
    commit: WrittenCommit,
    head: SessionHead,
    *,
    leaf: str | None,
    count: int,
    checkpoint_ref: str | None,
) -> SessionHead:
    """Return the head after the commit, but for what stands encoded in its place."""
    if head.head_revision >= MAX_INT:
        raise CorruptRecordError(session_head.name, head.session_id, "no revision is left")
    frame = commit.current_agent_frame_id
    return msgspec.structs.replace(
        head,
        head_revision=head.head_revision + 1,
        current_agent_frame_id=head.current_agent_frame_id if frame is None else frame or None,
        checkpoint_ref=head.checkpoint_ref if checkpoint_ref is None else checkpoint_ref,
        leaf_node_id=leaf,
        graph_node_count=count,
        # Unknown fields survive, but for the ledger, which a commit makes stale (S-HEAD-1).
        extra={name: value for name, value in head.extra.items() if name != "token_ledger"},
    )


def _save_receipt(tx: Tx, stamp: TurnStamp, session_id: str, receipt: TurnReceipt) -> None:
    """Write a receipt without its manifest, which stands among the blobs under the checkpoint_ref."""
    statements.save_receipt.later(
        tx.own_cursor,
        session_id=session_id,
        turn_id=stamp.turn_id,
        commit_hash=stamp.commit_hash,
        result_json=encode_json(msgspec.structs.replace(receipt, manifest=None)),
        committed_at_ms=tx.now_ms,
    )


def _read_receipt(tx: Tx, turn_id: str, text: str) -> TurnReceipt:
    receipt = read_as(TurnReceipt, _TABLE, turn_id, decode_object(_TABLE, turn_id, text))
    if receipt.manifest is None and receipt.checkpoint_ref is not None:
        manifest = find_manifest(tx, receipt.checkpoint_ref)
        return msgspec.structs.replace(receipt, manifest=manifest)
    return receipt  # the original writes the manifest into it
