"""The statements of a session store: arguments in, SQLAlchemy construct out, nothing run.

They serve twice. The store prepares them once and runs them on its hot paths, and a consumer
composes them: a ``Select`` can be filtered, joined and paged, a write can run in a
transaction of the consumer's own. ``now_ms`` is always an argument, milliseconds since the
epoch; so is every other time.
"""

from lash_store.session.statements.attachments import (
    commit_attachment,
)
from lash_store.session.statements.blobs import find_blob, load_blob, put_blob, select_blobs
from lash_store.session.statements.graph import (
    ancestry,
    count_nodes,
    delete_nodes,
    insert_node,
    load_graph,
    load_node,
    load_path,
    newest_nodes,
    select_nodes,
    tombstone_node,
    vacuum_nodes,
)
from lash_store.session.statements.head import load_head, save_head
from lash_store.session.statements.leases import (
    claim_lease,
    current_lease,
    is_live,
    release_lease,
    renew_lease,
    select_leases,
)
from lash_store.session.statements.queue import (
    abandon_claim,
    cancel_work,
    carries_claim,
    claim_batch,
    claimable_work,
    claimed_work,
    complete_claim,
    enqueue_item,
    enqueue_work,
    find_source,
    has_live_claim,
    list_pending_work,
    list_work,
    load_claimed_items,
    load_claimed_work,
    load_items,
    load_work,
    renew_claim,
    select_work,
    work_depth,
)
from lash_store.session.statements.turns import (
    load_receipt,
    load_usage,
    record_usage,
    save_receipt,
    select_receipts,
    select_usage,
)

__all__ = [
    "abandon_claim",
    "ancestry",
    "cancel_work",
    "carries_claim",
    "claim_batch",
    "claim_lease",
    "claimable_work",
    "claimed_work",
    "commit_attachment",
    "complete_claim",
    "count_nodes",
    "current_lease",
    "delete_nodes",
    "enqueue_item",
    "enqueue_work",
    "find_blob",
    "find_source",
    "has_live_claim",
    "insert_node",
    "is_live",
    "list_pending_work",
    "list_work",
    "load_blob",
    "load_claimed_items",
    "load_claimed_work",
    "load_graph",
    "load_head",
    "load_items",
    "load_node",
    "load_path",
    "load_receipt",
    "load_usage",
    "load_work",
    "newest_nodes",
    "put_blob",
    "record_usage",
    "release_lease",
    "renew_claim",
    "renew_lease",
    "save_head",
    "save_receipt",
    "select_blobs",
    "select_leases",
    "select_nodes",
    "select_receipts",
    "select_usage",
    "select_work",
    "tombstone_node",
    "vacuum_nodes",
    "work_depth",
]
