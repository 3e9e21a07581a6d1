"""The operations of a session store, by aggregate, and their list."""

from lash_store._stores.operations import Operations, reads, writes
from lash_store.session.operations import (
    attachments,
    blobs,
    claims,
    collection,
    graph,
    head,
    leases,
    meta,
    queue,
    turns,
)


class SessionOperations(Operations):
    """What a session store does, on a transaction or by a call of its own; but see ``commit_turn``."""

    __slots__ = ()

    claim_lease = writes(leases.claim_lease)
    renew_lease = writes(leases.LEASES.renewing)
    release_lease = writes(leases.LEASES.releasing)
    current_lease = reads(leases.current_lease)

    load_head = reads(head.load_head)
    load_graph = reads(graph.load_graph)
    load_path = reads(graph.load_path)
    load_node = reads(graph.load_node)
    tombstone_nodes = writes(graph.tombstone_nodes)
    vacuum_graph = writes(graph.vacuum_graph)

    put_blob = writes(blobs.put_blob)
    load_blob = reads(blobs.load_blob)
    load_checkpoint = reads(blobs.load_checkpoint)

    enqueue_work = writes(queue.enqueue_work)
    enqueue_all_work = writes(queue.enqueue_all_work)
    claim_work = writes(claims.claim_work)
    claim_work_batches = writes(claims.claim_work_batches)
    renew_claim = writes(claims.renew_claim)
    complete_work = writes(claims.complete_work)
    complete_and_claim_work = writes(claims.complete_and_claim_work)
    abandon_claim = writes(claims.abandon_claim)
    cancel_work = writes(queue.cancel_work)
    discard_work = writes(queue.discard_work)
    list_work = reads(queue.list_work)
    list_pending_work = reads(queue.list_pending_work)
    work_depth = reads(queue.work_depth)

    load_receipt = reads(turns.load_receipt)
    record_usage = writes(turns.record_usage)
    load_usage = reads(turns.load_usage)

    load_meta = reads(meta.load_meta)
    load_summary = reads(meta.load_summary)
    save_meta = writes(meta.save_meta)

    record_attachment_intent = writes(attachments.record_attachment_intent)
    commit_attachments = writes(attachments.commit_attachments)
    forget_attachment = writes(attachments.forget_attachment)
    sweep_attachment = writes(attachments.sweep_attachment)
    list_uncommitted_attachments = reads(attachments.list_uncommitted_attachments)
    put_artifact = writes(attachments.put_artifact)
    load_artifact = reads(attachments.load_artifact)
    collect_blobs = writes(collection.collect_blobs)
