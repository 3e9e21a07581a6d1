"""Garbage collection of blobs, on an open transaction."""

from __future__ import annotations

from lash_store._kernel.prepared import prepare
from lash_store.session import statements
from lash_store.session.records.attachments import CollectionReport
from lash_store.session.records.blobs import kind_of_blob, unpack_blob
from lash_store.session.records.checkpoints import manifest_of
from lash_store.session.tx.attachments import AttachmentOperations
from lash_store.session.tx.head import HeadOperations

_delete_blob = prepare(statements.delete_blob)
_load_blob = prepare(statements.load_blob)
_select_artifacts = prepare(statements.select_artifacts)
_select_blobs = prepare(statements.select_blobs)


class CollectionOperations(HeadOperations, AttachmentOperations):
    """Operations that reclaim space."""

    __slots__ = ()

    def collect_blobs(self, *, dry_run: bool = False) -> CollectionReport:
        """Remove every blob that neither the head's checkpoint nor an artifact leads to (S-GC-1).

        A checkpoint's manifest keeps its components, whichever root reaches it. Blobs stored
        on their own have no root. Marks and sweeps under the write lock; `dry_run` only
        reports. Raises CorruptRecordError, with nothing deleted, if the head or a manifest
        can't be read (S-GC-2).
        """
        head = self.load_head()
        checkpoint = None if head is None else head.checkpoint_ref
        artifacts = {blob_ref for _, blob_ref in _select_artifacts.all(self.cursor)}
        roots = artifacts | ({checkpoint} if checkpoint else set())
        sizes = dict(_select_blobs.all(self.cursor))
        kept = {ref for ref in roots if ref in sizes}
        for ref in sorted(kept):
            kept.update(self._components(ref, is_checkpoint=ref == checkpoint))
        doomed = sorted(key for key in sizes if key not in kept)
        if not dry_run and doomed:
            _delete_blob.many(self.cursor, [_delete_blob.bind(key=key) for key in doomed])
        return CollectionReport(
            roots=tuple(sorted(roots)),
            missing_roots=tuple(sorted(roots - sizes.keys())),
            retained=len(sizes) - len(doomed),
            deleted=tuple(doomed),
            deleted_bytes=sum(sizes[key] for key in doomed),
            dry_run=dry_run,
        )

    def _components(self, ref: str, *, is_checkpoint: bool) -> tuple[str, ...]:
        """Return what a rooted blob keeps, if it is a manifest.

        The kind that it was stored under proves it, but is not needed: the same bytes may have
        been stored as an artifact first. What looks like one keeps its components.
        """
        row = _load_blob.one(self.cursor, key=ref)
        stored = b"" if row is None else row[0]
        if is_checkpoint or kind_of_blob(stored) == "CheckpointManifest":
            return self.load_manifest(ref).component_refs  # raises if it can't be read
        manifest = manifest_of(unpack_blob(ref, stored) or b"")
        return () if manifest is None else manifest.component_refs
