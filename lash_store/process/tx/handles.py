"""Handles on processes, on an open transaction."""

from __future__ import annotations

from collections.abc import Iterable

from lash_store._kernel.checks import bound, check_name, check_names, check_text
from lash_store._kernel.prepared import prepare
from lash_store._kernel.shapes.origins import Scope, written_scope
from lash_store.errors import NotFoundError
from lash_store.process import statements
from lash_store.process.records.handles import (
    HandleDescriptor,
    HandleGrant,
    SessionDeletion,
    read_grant,
    written_descriptor,
)
from lash_store.process.records.processes import read_members, revised
from lash_store.process.tx.processes import RecordOperations

_grant_handle = prepare(statements.grant_handle)
_list_handles = prepare(statements.list_handles)
_list_handles_on = prepare(statements.list_handles_on)
_list_live_handles = prepare(statements.list_live_handles)
_load_handle = prepare(statements.load_handle)
_revoke_handle = prepare(statements.revoke_handle)
_revoke_session = prepare(statements.revoke_session)
_running_handles_of_session = prepare(statements.running_handles_of_session)
_wake_targets = prepare(statements.wake_targets)


class HandleOperations(RecordOperations):
    """Operations on handles."""

    __slots__ = ()

    def grant_handle(
        self, scope: Scope, process_id: str, descriptor: HandleDescriptor | None = None
    ) -> HandleGrant:
        """Give a scope a handle on a process, in place of the one that it may have (P-GRANT-1).

        Raises NotFoundError for an unknown process, InvalidRecordError for a bad scope or
        descriptor.
        """
        written_scope("scope", scope)
        descriptor_json = written_descriptor(
            HandleDescriptor() if descriptor is None else descriptor
        )
        state = self.require_process(process_id)
        grant = read_grant(scope.session_id, scope.id, process_id, descriptor_json, state)
        self._grant(scope, process_id, descriptor_json)
        return grant

    def revoke_handle(self, scope: Scope, process_id: str) -> bool:
        """Take a scope's handle on a process away; tell whether it had one (P-GRANT-1)."""
        written_scope("scope", scope)
        name = check_name("process_id", process_id)
        return _revoke_handle.run(self.cursor, scope_id=scope.id, process_id=name) == 1

    def transfer_handles(self, source: Scope, target: Scope, process_ids: Iterable[str]) -> int:
        """Move a scope's handles on these processes to another scope; return how many (P-GRANT-1).

        All or nothing: NotFoundError names the first that the source does not have. A handle that
        the target had already is replaced. A process that is named twice is moved once.
        """
        written_scope("source", source)
        written_scope("target", target)
        names = list(dict.fromkeys(check_names("process_ids", process_ids)))
        cursor = self.cursor
        handles = []
        for name in names:
            row = _load_handle.one(cursor, scope_id=source.id, process_id=name)
            if row is None:
                raise NotFoundError(f"handle of {source.id} on process", name)
            handles.append(row)
        if source.id == target.id:
            return len(handles)
        with self.all_or_nothing():
            for _, _, process_id, descriptor_json, _ in handles:
                self._grant(target, process_id, descriptor_json)
                _revoke_handle.run(cursor, scope_id=source.id, process_id=process_id)
        return len(handles)

    def has_handle(self, scope: Scope, process_id: str) -> bool:
        """Tell whether a scope has a handle on a process."""
        written_scope("scope", scope)
        name = check_name("process_id", process_id)
        return _load_handle.one(self.cursor, scope_id=scope.id, process_id=name) is not None

    def list_handles(self, scope: Scope, *, after: str = "", limit: int = 100) -> list[HandleGrant]:
        """Return a page of a scope's handles, by process id from behind `after` (P-GRANT-1)."""
        written_scope("scope", scope)
        rows = _list_handles.all(
            self.cursor,
            scope_id=scope.id,
            after_process_id=check_text("after", after),
            limit=bound("limit", limit),
        )
        return [read_grant(*row) for row in rows]

    def list_live_handles(
        self, scope: Scope, *, after: str = "", limit: int = 100
    ) -> list[HandleGrant]:
        """Return a page of a scope's handles on processes that run (P-GRANT-1)."""
        written_scope("scope", scope)
        rows = _list_live_handles.all(
            self.cursor,
            scope_id=scope.id,
            after_process_id=check_text("after", after),
            limit=bound("limit", limit),
        )
        return [read_grant(*row) for row in rows]

    def list_handles_on(self, process_id: str) -> list[HandleGrant]:
        """Return every handle on a process, by session id, then scope id (P-GRANT-1)."""
        name = check_name("process_id", process_id)
        return [read_grant(*row) for row in _list_handles_on.all(self.cursor, process_id=name)]

    def delete_session(self, session_id: str) -> SessionDeletion:
        """Remove what the registry keeps for a session, and say what that left (P-GRANT-2).

        Its handles go, and no process, ended ones included, wakes it any more. Processes and
        acknowledgements stay.
        """
        name, cursor = check_name("session_id", session_id), self.cursor
        left = _running_handles_of_session.all(cursor, session_id=name)
        changed = [
            (
                process_id,
                status,
                revised(
                    read_members(process_id, record_json),
                    wake_target=None,
                    updated_at_ms=self.now_ms,
                ),
            )
            for process_id, status, record_json in _wake_targets.all(cursor, session_id=name)
        ]
        with self.all_or_nothing():
            revoked = _revoke_session.run(cursor, session_id=name)
            for process_id, status, record_json in changed:
                self.write_record(process_id, status, record_json, updated_at_ms=self.now_ms)
        return SessionDeletion(
            session_id=name,
            revoked_handle_count=revoked,
            deleted_wake_count=0,
            orphaned_process_ids=tuple(process_id for process_id, others in left if not others),
            preserved_process_ids=tuple(process_id for process_id, others in left if others),
        )

    def _grant(self, scope: Scope, process_id: str, descriptor_json: str) -> None:
        _grant_handle.run(
            self.cursor,
            session_id=scope.session_id,
            scope_id=scope.id,
            process_id=process_id,
            descriptor_json=descriptor_json,
        )
