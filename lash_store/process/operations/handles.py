"""Handles on processes."""

from collections.abc import Iterable

from lash_store._kernel.checks import bound, check_name, check_names, check_text
from lash_store._kernel.locks import locked_by
from lash_store._stores.tx import Context
from lash_store._wire.origins import Scope, written_scope
from lash_store.errors import NotFoundError
from lash_store.process import statements
from lash_store.process.context import Tx, Work
from lash_store.process.operations.processes import state_of, write_record
from lash_store.process.records.handles import (
    HandleDescriptor,
    HandleGrant,
    SessionDeletion,
    read_grant,
    written_descriptor,
)
from lash_store.process.records.processes import read_members, revised


def grant_handle(
    _: Context, scope: Scope, process_id: str, descriptor: HandleDescriptor | None = None
) -> Work[HandleGrant]:
    """Give a scope a handle on a process, in place of the one that it may have (P-GRANT-1).

    Raises NotFoundError for an unknown process, InvalidRecordError for a bad scope or
    descriptor.
    """
    written_scope("scope", scope)
    descriptor_json = written_descriptor(HandleDescriptor() if descriptor is None else descriptor)
    name = check_name("process_id", process_id)

    def grant(tx: Tx) -> HandleGrant:
        state = state_of(tx, name)
        granted = read_grant(scope.session_id, scope.id, name, descriptor_json, state)
        _grant(tx, scope, name, descriptor_json)
        return granted

    return locked_by(grant, name)


def revoke_handle(_: Context, scope: Scope, process_id: str) -> Work[bool]:
    """Take a scope's handle on a process away; tell whether it had one (P-GRANT-1)."""
    written_scope("scope", scope)
    name = check_name("process_id", process_id)

    def revoke(tx: Tx) -> bool:
        return statements.revoke_handle.run(tx.own_cursor, scope_id=scope.id, process_id=name) == 1

    return locked_by(revoke, name)


def transfer_handles(
    _: Context, source: Scope, target: Scope, process_ids: Iterable[str]
) -> Work[int]:
    """Move a scope's handles on these processes to another scope; return how many (P-GRANT-1).

    All or nothing: NotFoundError names the first that the source does not have. A handle that
    the target had already is replaced. A process that is named twice is moved once.
    """
    written_scope("source", source)
    written_scope("target", target)
    names = tuple(dict.fromkeys(check_names("process_ids", process_ids)))

    def transfer(tx: Tx) -> int:
        cursor = tx.own_cursor
        handles = []
        for name in names:
            row = statements.load_handle.one(cursor, scope_id=source.id, process_id=name)
            if row is None:
                raise NotFoundError(f"handle of {source.id} on process", name)
            handles.append(row)
        if source.id == target.id:
            return len(handles)
        with tx.all_or_nothing():
            for _, _, process_id, descriptor_json, _ in handles:
                _grant(tx, target, process_id, descriptor_json)
                statements.revoke_handle.later(cursor, scope_id=source.id, process_id=process_id)
        return len(handles)

    return transfer


def has_handle(_: Context, scope: Scope, process_id: str) -> Work[bool]:
    """Tell whether a scope has a handle on a process."""
    written_scope("scope", scope)
    name = check_name("process_id", process_id)

    def look(tx: Tx) -> bool:
        row = statements.load_handle.one(tx.own_cursor, scope_id=scope.id, process_id=name)
        return row is not None

    return look


def list_handles(
    _: Context, scope: Scope, *, after: str = "", limit: int = 100
) -> Work[list[HandleGrant]]:
    """Return a page of a scope's handles, by process id from behind `after` (P-GRANT-1)."""
    written_scope("scope", scope)
    behind, most = check_text("after", after), bound("limit", limit)

    def list_page(tx: Tx) -> list[HandleGrant]:
        rows = statements.list_handles.all(
            tx.own_cursor, scope_id=scope.id, after_process_id=behind, limit=most
        )
        return [read_grant(*row) for row in rows]

    return list_page


def list_live_handles(
    _: Context, scope: Scope, *, after: str = "", limit: int = 100
) -> Work[list[HandleGrant]]:
    """Return a page of a scope's handles on processes that run (P-GRANT-1)."""
    written_scope("scope", scope)
    behind, most = check_text("after", after), bound("limit", limit)

    def list_page(tx: Tx) -> list[HandleGrant]:
        rows = statements.list_live_handles.all(
            tx.own_cursor, scope_id=scope.id, after_process_id=behind, limit=most
        )
        return [read_grant(*row) for row in rows]

    return list_page


def list_handles_on(_: Context, process_id: str) -> Work[list[HandleGrant]]:
    """Return every handle on a process, by session id, then scope id (P-GRANT-1).

    Raises NotFoundError if it is not registered.
    """
    name = check_name("process_id", process_id)

    def list_all(tx: Tx) -> list[HandleGrant]:
        rows = statements.list_handles_on.all(tx.own_cursor, process_id=name)
        if not rows:
            state_of(tx, name)
        return [read_grant(*row) for row in rows]

    return list_all


def delete_session(_: Context, session_id: str) -> Work[SessionDeletion]:
    """Remove what the registry keeps for a session, and say what that left (P-GRANT-2).

    Its handles go, and no process, ended ones included, wakes it any more. Processes and
    acknowledgements stay.
    """
    name = check_name("session_id", session_id)

    def delete(tx: Tx) -> SessionDeletion:
        cursor = tx.own_cursor
        left = statements.running_handles_of_session.all(cursor, session_id=name)
        changed = [
            (process_id, status, _without_wake_target(tx, process_id, record_json))
            for process_id, status, record_json in statements.wake_targets.all(
                cursor, session_id=name
            )
        ]
        with tx.all_or_nothing():
            revoked = statements.revoke_session.run(cursor, session_id=name)
            for process_id, status, record_json in changed:
                write_record(tx, process_id, status, record_json, updated_at_ms=tx.now_ms)
        return SessionDeletion(
            session_id=name,
            revoked_handle_count=revoked,
            deleted_wake_count=0,
            orphaned_process_ids=tuple(process_id for process_id, others in left if not others),
            preserved_process_ids=tuple(process_id for process_id, others in left if others),
        )

    return delete


def _without_wake_target(tx: Tx, process_id: str, record_json: str) -> str:
    members = read_members(process_id, record_json)
    return revised(members, wake_target=None, updated_at_ms=tx.now_ms)


def _grant(tx: Tx, scope: Scope, process_id: str, descriptor_json: str) -> None:
    statements.grant_handle.later(
        tx.own_cursor,
        session_id=scope.session_id,
        scope_id=scope.id,
        process_id=process_id,
        descriptor_json=descriptor_json,
    )
