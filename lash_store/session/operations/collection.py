"""Garbage collection of blobs."""

from lash_store._kernel.checks import check_kind
from lash_store.session import statements
from lash_store.session.context import SessionContext, Tx, Work
from lash_store.session.operations.blobs import check_ref, read_manifest
from lash_store.session.operations.head import read_head
from lash_store.session.records.attachments import CollectionReport
from lash_store.session.records.blobs import StoredBlob, content_of
from lash_store.session.records.checkpoints import manifest_of
from lash_store.session.tables import artifact_refs, blobs


def collect_blobs(_: SessionContext, *, dry_run: bool = False) -> Work[CollectionReport]:
    """Remove every blob that neither the head's checkpoint nor an artifact leads to (S-GC-1).

    A checkpoint's manifest keeps its components, whichever root reaches it. Blobs stored
    on their own have no root. Marks and sweeps under the write lock; `dry_run` only
    reports. Raises CorruptRecordError, with nothing deleted, if the head or a manifest
    can't be read (S-GC-2), InvalidRecordError for a `dry_run` that is no bool.
    """
    check_kind("dry_run", dry_run, bool)

    def collect(tx: Tx) -> CollectionReport:
        head, cursor = read_head(tx), tx.own_cursor
        checkpoint = None if head is None else head.checkpoint_ref
        artifacts = {
            check_ref(artifact_refs.name, name, ref)
            for name, ref in statements.select_artifacts.all(cursor)
        }
        roots = artifacts | ({checkpoint} if checkpoint else set())
        sizes = {
            check_ref(blobs.name, key, key): size
            for key, size in statements.select_blobs.all(cursor)
        }
        kept = {ref for ref in roots if ref in sizes}
        for ref in sorted(kept):
            kept.update(_components(tx, ref, is_checkpoint=ref == checkpoint))
        doomed = sorted(key for key in sizes if key not in kept)
        if not dry_run and doomed:
            statements.delete_blob.many(
                cursor, [statements.delete_blob.bind(cursor, key=key) for key in doomed]
            )
        return CollectionReport(
            roots=tuple(sorted(roots)),
            missing_roots=tuple(sorted(roots - sizes.keys())),
            retained=len(sizes) - len(doomed),
            deleted=tuple(doomed),
            deleted_bytes=sum(sizes[key] for key in doomed),
            dry_run=dry_run,
        )

    return collect


def _components(tx: Tx, ref: str, *, is_checkpoint: bool) -> tuple[str, ...]:
    """Return what a rooted blob keeps, if it is a manifest.

    The kind that it was stored under proves it, but is not needed: the same bytes may have
    been stored as an artifact first. What looks like one keeps its components.
    """
    row = statements.load_blob.one(tx.own_cursor, key=ref)
    blob = StoredBlob(b"" if row is None else row[0])
    if is_checkpoint or blob.kind == "CheckpointManifest":
        return read_manifest(tx, ref).component_refs  # raises if it can't be read
    # Nearly all are something else, and large: the hash of those is not needed.
    likely = (form for form in blob.forms() if manifest_of(form) is not None)
    manifest = manifest_of(content_of(ref, likely) or b"")
    return () if manifest is None else manifest.component_refs
