"""Garbage collection of blobs, on an open transaction."""

from __future__ import annotations

from lash_store._kernel.prepared import prepare
from lash_store.errors import CorruptRecordError
from lash_store.session import statements
from lash_store.session.records.attachments import CollectionReport
from lash_store.session.records.blobs import kind_of_blob
from lash_store.session.tables import blobs
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
            if ref == checkpoint or self._is_manifest(ref):
                kept.update(self._components(ref))
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

    def _is_manifest(self, ref: str) -> bool:
        row = _load_blob.one(self.cursor, key=ref)
        return row is not None and kind_of_blob(ref, row[0]) == "CheckpointManifest"

    def _components(self, ref: str) -> tuple[str, ...]:
        manifest = self.load_manifest(ref)
        if manifest is None:
            raise CorruptRecordError(blobs.name, ref, "a manifest is gone")
        return manifest.component_refs
