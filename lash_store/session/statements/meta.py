"""Statements on the session's meta, one row, and on what a picker shows."""

from typing import Any

from sqlalchemy import Insert, Select, and_, func, or_, select

from lash_store._kernel.dialects import UpsertInsert, WholeJsonText, offered, upsert_insert
from lash_store._kernel.prepared import prepare
from lash_store.session.tables import graph_nodes, session_meta

_meta = session_meta.c
_COLUMNS = (
    _meta.session_id,
    _meta.session_name,
    _meta.created_at,
    _meta.model,
    _meta.cwd,
    _meta.relation_json,
)


@prepare
def load_meta() -> Select[str, str, str, str, str | None, str | None]:
    """Read session id, name, created-at, model, cwd and relation_json."""
    return select(
        _meta.session_id,
        _meta.session_name,
        _meta.created_at,
        _meta.model,
        _meta.cwd,
        _meta.relation_json,
    )


@prepare
def save_meta(
    *,
    session_id: str,
    session_name: str,
    created_at: str,
    model: str,
    cwd: str | None,
    relation_json: str | None,
) -> Insert:
    """Write the meta, in place of any that is there."""
    fresh = _meta_row(session_id, session_name, created_at, model, cwd, relation_json)
    taken = offered(fresh, *_COLUMNS)
    return fresh.on_conflict_do_update(index_elements=[_meta.singleton], set_=taken)


@prepare
def create_meta(
    *,
    session_id: str,
    session_name: str,
    created_at: str,
    model: str,
    cwd: str | None,
    relation_json: str | None,
) -> Insert:
    """Write the meta if there is none: one statement, so that two creators agree (S-DIR-2)."""
    fresh = _meta_row(session_id, session_name, created_at, model, cwd, relation_json)
    return fresh.on_conflict_do_nothing(index_elements=[_meta.singleton])


@prepare
def select_user_messages() -> Select[int, str]:
    """Every user message of every branch: seq and node_json, in no order."""
    text, role = graph_nodes.c.node_json, ("event", "Conversation", "role")
    # Most nodes are somebody else's, and are not parsed to see it: only by \\u can it be written
    # in JSON otherwise than as it is.
    may_be = or_(text.contains("User"), text.contains("\\u", escape="!"))
    is_users = and_(WholeJsonText(text, "kind") == "event", WholeJsonText(text, *role) == "User")
    return select(graph_nodes.c.seq, text).where(graph_nodes.c.tombstoned == 0, may_be, is_users)


@prepare
def count_user_messages() -> Select[int]:
    """Count the user messages, without reading one into the program."""
    return select_user_messages().with_only_columns(func.count().label("messages"))


@prepare
def first_user_message() -> Select[int, str]:
    """Read the first user message."""
    return select_user_messages().order_by(graph_nodes.c.seq).limit(1)


def _meta_row(*values: str | None) -> UpsertInsert:
    row: dict[Any, Any] = dict(zip(_COLUMNS, values, strict=True))
    return upsert_insert(session_meta).values({_meta.singleton: 1, **row})
