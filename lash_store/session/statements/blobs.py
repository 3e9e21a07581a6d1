"""Statements on content-addressed blobs."""

from sqlalchemy import Delete, Insert, Select, delete, func, select

from lash_store._kernel.dialects import upsert_insert
from lash_store._kernel.prepared import prepare
from lash_store.session.tables import blobs


@prepare
def select_blobs() -> Select[str, int]:
    """Every blob: its key and the bytes that it takes as stored."""
    return select(blobs.c.hash, func.length(blobs.c.content).label("size"))


@prepare
def load_blob(*, key: str) -> Select[bytes]:
    """Read one blob as it is stored."""
    return select(blobs.c.content).where(blobs.c.hash == key)


@prepare
def find_blob(*, key: str) -> Select[str]:
    """Look whether a blob is there, without reading it."""
    return select(blobs.c.hash).where(blobs.c.hash == key)


@prepare
def put_blob(*, key: str, content: bytes) -> Insert:
    """Store a blob; one that is there stays as it is, for it has the same content."""
    fresh = upsert_insert(blobs).values(hash=key, content=content)
    return fresh.on_conflict_do_nothing(index_elements=[blobs.c.hash])


@prepare
def delete_blob(*, key: str) -> Delete:
    """Remove a blob."""
    return delete(blobs).where(blobs.c.hash == key)
