"""The statements of a session store: arguments in, SQLAlchemy construct out, nothing run.

They serve twice. The store prepares them once and runs them on its hot paths, and a consumer
composes them: a ``Select`` can be filtered, joined and paged, a write can run in a
transaction of the consumer's own. ``now_ms`` is always an argument, milliseconds since the
epoch; so is every other time.
"""

from lash_store.session.statements.attachments import (
    commit_attachment as commit_attachment,
    forget_attachment as forget_attachment,
    list_uncommitted_attachments as list_uncommitted_attachments,
    load_artifact as load_artifact,
    put_artifact as put_artifact,
    record_attachment_intent as record_attachment_intent,
    select_artifacts as select_artifacts,
    select_attachments as select_attachments,
    sweep_attachment as sweep_attachment,
)
from lash_store.session.statements.blobs import (
    delete_blob as delete_blob,
    find_blob as find_blob,
    load_blob as load_blob,
    put_blob as put_blob,
    select_blobs as select_blobs,
)
from lash_store.session.statements.claims import (
    abandon_claim as abandon_claim,
    carries_claim as carries_claim,
    choosable_work as choosable_work,
    claim_batch as claim_batch,
    claimable_work as claimable_work,
    claimed_work as claimed_work,
    complete_claim as complete_claim,
    complete_work as complete_work,
    has_live_claim as has_live_claim,
    lapsed_claim as lapsed_claim,
    load_claimed_items as load_claimed_items,
    renew_claim as renew_claim,
)
from lash_store.session.statements.graph import (
    ancestry as ancestry,
    count_nodes as count_nodes,
    delete_nodes as delete_nodes,
    insert_node as insert_node,
    insert_node_at as insert_node_at,
    load_graph as load_graph,
    load_node as load_node,
    load_path as load_path,
    load_path_end as load_path_end,
    newest_ancestry as newest_ancestry,
    newest_nodes as newest_nodes,
    nodes_up_to as nodes_up_to,
    select_nodes as select_nodes,
    tombstone_node as tombstone_node,
    vacuum_nodes as vacuum_nodes,
)
from lash_store.session.statements.head import (
    load_head as load_head,
    save_head as save_head,
)
from lash_store.session.statements.leases import (
    claim_lease as claim_lease,
    current_lease as current_lease,
    is_live as is_live,
    release_lease as release_lease,
    renew_lease as renew_lease,
    select_leases as select_leases,
)
from lash_store.session.statements.meta import (
    count_user_messages as count_user_messages,
    create_meta as create_meta,
    first_user_message as first_user_message,
    load_meta as load_meta,
    save_meta as save_meta,
    select_user_messages as select_user_messages,
)
from lash_store.session.statements.queue import (
    cancel_work as cancel_work,
    enqueue_item as enqueue_item,
    enqueue_work as enqueue_work,
    find_source as find_source,
    list_pending_work as list_pending_work,
    list_work as list_work,
    load_batch_items as load_batch_items,
    load_items as load_items,
    load_items_of as load_items_of,
    load_work as load_work,
    select_all_work as select_all_work,
    select_items as select_items,
    select_work as select_work,
    work_depth as work_depth,
)
from lash_store.session.statements.turns import (
    load_receipt as load_receipt,
    load_usage as load_usage,
    record_usage as record_usage,
    save_receipt as save_receipt,
    select_receipts as select_receipts,
    select_usage as select_usage,
)
