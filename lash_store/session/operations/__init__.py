"""The operations of a session store: functions of an open transaction, by aggregate, and their list."""

from lash_store._stores.operations import Operations, legacy_reads, legacy_writes, reads, writes
from lash_store.session.operations import (
    attachments,
    blobs,
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

    claim_lease = legacy_writes(leases.claim_lease)
    renew_lease = writes(leases.LEASES.renewing)
    release_lease = writes(leases.LEASES.releasing)
    current_lease = legacy_reads(leases.current_lease)

    load_head = legacy_reads(head.load_head)
    load_graph = legacy_reads(graph.load_graph)
    load_path = legacy_reads(graph.load_path)
    load_node = legacy_reads(graph.load_node)
    tombstone_nodes = legacy_writes(graph.tombstone_nodes)
    vacuum_graph = legacy_writes(graph.vacuum_graph)

    put_blob = legacy_writes(blobs.put_blob)
    load_blob = legacy_reads(blobs.load_blob)
    load_checkpoint = legacy_reads(blobs.load_checkpoint)

    enqueue_work = legacy_writes(queue.enqueue_work)
    enqueue_all_work = legacy_writes(queue.enqueue_all_work)
    claim_work = legacy_writes(queue.claim_work)
    claim_work_batches = legacy_writes(queue.claim_work_batches)
    renew_claim = legacy_writes(queue.renew_claim)
    abandon_claim = legacy_writes(queue.abandon_claim)
    cancel_work = legacy_writes(queue.cancel_work)
    list_work = legacy_reads(queue.list_work)
    list_pending_work = legacy_reads(queue.list_pending_work)
    work_depth = legacy_reads(queue.work_depth)

    load_receipt = legacy_reads(turns.load_receipt)
    record_usage = legacy_writes(turns.record_usage)
    load_usage = legacy_reads(turns.load_usage)

    load_meta = legacy_reads(meta.load_meta)
    load_summary = legacy_reads(meta.load_summary)
    save_meta = legacy_writes(meta.save_meta)

    record_attachment_intent = legacy_writes(attachments.record_attachment_intent)
    commit_attachments = legacy_writes(attachments.commit_attachments)
    forget_attachment = legacy_writes(attachments.forget_attachment)
    list_uncommitted_attachments = legacy_reads(attachments.list_uncommitted_attachments)
    put_artifact = legacy_writes(attachments.put_artifact)
    load_artifact = legacy_reads(attachments.load_artifact)
    collect_blobs = legacy_writes(collection.collect_blobs)
