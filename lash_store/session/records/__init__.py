"""The frozen records of a session store: what its operations take and return."""

from lash_store.session.records.attachments import (
    Attachment as Attachment,
    CollectionReport as CollectionReport,
)
from lash_store.session.records.blobs import (
    BlobKind as BlobKind,
    Profile as Profile,
)
from lash_store.session.records.checkpoints import (
    Checkpoint as Checkpoint,
    Manifest as Manifest,
)
from lash_store.session.records.graph import (
    Append as Append,
    Graph as Graph,
    GraphDelta as GraphDelta,
    Node as Node,
    ReplaceFull as ReplaceFull,
    Unchanged as Unchanged,
)
from lash_store.session.records.head import (
    SessionHead as SessionHead,
)
from lash_store.session.records.leases import (
    SessionFence as SessionFence,
    SessionLease as SessionLease,
)
from lash_store.session.records.meta import (
    Relation as Relation,
    SessionMeta as SessionMeta,
    SessionSummary as SessionSummary,
)
from lash_store.session.records.queue import (
    AlreadyQueued as AlreadyQueued,
    Boundary as Boundary,
    DeliveryPolicy as DeliveryPolicy,
    NewWork as NewWork,
    SlotPolicy as SlotPolicy,
    WorkBatch as WorkBatch,
    WorkClaim as WorkClaim,
    WorkDepth as WorkDepth,
    WorkItem as WorkItem,
    claimable_prefix as claimable_prefix,
)
from lash_store.session.records.turns import (
    TurnCommit as TurnCommit,
    TurnReceipt as TurnReceipt,
    TurnStamp as TurnStamp,
    UsageDelta as UsageDelta,
    turn_commit_hash as turn_commit_hash,
)
