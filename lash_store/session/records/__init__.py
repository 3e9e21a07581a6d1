"""The frozen records of a session store: what its operations take and return."""

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

__all__ = [
    "Append",
    "BlobKind",
    "Checkpoint",
    "Graph",
    "GraphDelta",
    "Manifest",
    "Node",
    "Profile",
    "ReplaceFull",
    "SessionFence",
    "SessionHead",
    "SessionLease",
    "Unchanged",
]
