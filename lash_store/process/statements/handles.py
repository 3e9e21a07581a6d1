"""Statements on handles."""

from sqlalchemy import Delete, Insert, Select, delete, func, select

from lash_store._kernel.dialects import OnOneRow, offered, upsert_insert
from lash_store._kernel.prepared import prepare
from lash_store.process.tables import process_handle_grants, processes

_grants = process_handle_grants.c
_RUNNING = "running"


@prepare
def select_handles() -> Select[str, str, str, str, str]:
    """Every handle: session id, scope id, process id, descriptor_json, and the process's status."""
    return select(
        _grants.session_id,
        _grants.scope_id,
        _grants.process_id,
        _grants.descriptor_json,
        processes.c.status,
    ).join(processes, processes.c.process_id == _grants.process_id)


@prepare
def grant_handle(
    *, session_id: str, scope_id: str, process_id: str, descriptor_json: str
) -> Insert:
    """Give a scope a handle on a process, in place of the one that it has (P-GRANT-1)."""
    fresh = upsert_insert(process_handle_grants).values(
        session_id=session_id,
        scope_id=scope_id,
        process_id=process_id,
        descriptor_json=descriptor_json,
    )
    return fresh.on_conflict_do_update(
        index_elements=[_grants.scope_id, _grants.process_id],
        set_=offered(fresh, _grants.session_id, _grants.descriptor_json),
    )


@prepare
def revoke_handle(*, scope_id: str, process_id: str) -> Delete:
    """Take a scope's handle on a process away; no row changes if it has none."""
    return delete(process_handle_grants).where(
        _grants.scope_id == scope_id, _grants.process_id == process_id
    )


@prepare
def load_handle(*, scope_id: str, process_id: str) -> Select[str, str, str, str, str]:
    """Read a scope's handle on a process."""
    return select_handles().where(_grants.scope_id == scope_id, _grants.process_id == process_id)


@prepare
def list_handles(
    *, scope_id: str, after_process_id: str, limit: int
) -> Select[str, str, str, str, str]:
    """Read a page of a scope's handles, by process id."""
    return (
        select_handles()
        .where(_grants.scope_id == scope_id, _grants.process_id > after_process_id)
        .order_by(_grants.process_id)
        .limit(limit)
    )


@prepare
def list_live_handles(
    *, scope_id: str, after_process_id: str, limit: int
) -> Select[str, str, str, str, str]:
    """Read a page of a scope's handles on running processes, by process id."""
    handles = list_handles(scope_id=scope_id, after_process_id=after_process_id, limit=limit)
    return handles.where(processes.c.status == _RUNNING)


@prepare
def list_handles_on(*, process_id: str) -> Select[str, str, str, str, str]:
    """Read every handle on one process, by session id and scope id."""
    on_process = select_handles().where(_grants.process_id == process_id)
    return on_process.order_by(_grants.session_id, _grants.scope_id)


@prepare
def running_handles_of_session(*, session_id: str) -> Select[str, int]:
    """Read the running processes that a session has handles on, and how many others have.

    Process id and the number of other sessions' handles, by process id (P-GRANT-2).
    """
    others = process_handle_grants.alias("others")
    held_by_others = (
        select(func.count())
        .select_from(others)
        .where(others.c.process_id == processes.c.process_id, others.c.session_id != session_id)
        .scalar_subquery()
    )
    return (
        # From the session's handles to their processes: few rows, whatever the registry holds.
        select(processes.c.process_id, held_by_others.label("held_by_others"))
        .join(process_handle_grants, _grants.process_id == processes.c.process_id)
        .where(OnOneRow(_grants.session_id == session_id), processes.c.status == _RUNNING)
        .distinct()
        .order_by(processes.c.process_id)
    )


@prepare
def revoke_session(*, session_id: str) -> Delete:
    """Take all of a session's handles away."""
    return delete(process_handle_grants).where(_grants.session_id == session_id)
