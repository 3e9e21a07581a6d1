"""The frozen records of a session store: what its operations take and return."""

from lash_store.session.records.attachments import (
    Attachment,
    CollectionReport,
)
from lash_store.session.records.blobs import BlobKind, Profile
from lash_store.session.records.checkpoints import Checkpoint, Manifest
from lash_store.session.records.graph import (
    Append,
    Graph,
    GraphDelta,
    Node,
    ReplaceFull,
    Unchanged,
)
from lash_store.session.records.head import SessionHead
from lash_store.session.records.leases import SessionFence, SessionLease
from lash_store.session.records.meta import (
    Relation,
    SessionMeta,
    SessionSummary,
)
from lash_store.session.records.queue import (
    AlreadyQueued,
    Boundary,
    DeliveryPolicy,
    NewWork,
    SlotPolicy,
    WorkBatch,
    WorkClaim,
    WorkDepth,
    WorkItem,
    claimable_prefix,
)
from lash_store.session.records.turns import (
    TurnCommit,
    TurnReceipt,
    TurnStamp,
    UsageDelta,
    turn_commit_hash,
)

__all__ = [
    "AlreadyQueued",
    "Append",
    "Attachment",
    "BlobKind",
    "Boundary",
    "Checkpoint",
    "CollectionReport",
    "DeliveryPolicy",
    "Graph",
    "GraphDelta",
    "Manifest",
    "NewWork",
    "Node",
    "Profile",
    "Relation",
    "ReplaceFull",
    "SessionFence",
    "SessionHead",
    "SessionLease",
    "SessionMeta",
    "SessionSummary",
    "SlotPolicy",
    "TurnCommit",
    "TurnReceipt",
    "TurnStamp",
    "Unchanged",
    "UsageDelta",
    "WorkBatch",
    "WorkClaim",
    "WorkDepth",
    "WorkItem",
    "claimable_prefix",
    "turn_commit_hash",
]
