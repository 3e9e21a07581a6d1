"""Meta and summary of a session."""

from typing import Any, Final

import msgspec

from lash_store._kernel.checks import check_name, check_text, shown
from lash_store._kernel.codecs import decode_object, encode_json, read_as
from lash_store.errors import CorruptRecordError, InvalidRecordError
from lash_store.session import statements
from lash_store.session.context import SessionContext, Tx, Work
from lash_store.session.records.meta import (
    Relation,
    SessionMeta,
    SessionSummary,
    message_text,
    read_relation,
    written_relation,
)
from lash_store.session.tables import graph_nodes, session_meta

_TABLE: Final = session_meta.name


def load_meta(_: SessionContext) -> Work[SessionMeta | None]:
    """Return the session's meta, or None if none was saved (S-META-1)."""
    return _read_meta


def _read_meta(tx: Tx) -> SessionMeta | None:
    row = statements.load_meta.one(tx.own_cursor)
    return None if row is None else read_meta_row(row)


def read_meta_row(row: Any) -> SessionMeta:
    """Build the meta from its columns; CorruptRecordError for what is none."""
    session_id, name, created_at, model, cwd, relation = row
    key = session_id if isinstance(session_id, str) else shown(session_id)
    columns = {
        "session_id": session_id,
        "session_name": name,
        "created_at": created_at,
        "model": model,
        "cwd": cwd,
    }
    return read_as(SessionMeta, _TABLE, key, {**columns, "relation": _relation(key, relation)})


def save_meta(_: SessionContext, meta: SessionMeta) -> Work[None]:
    """Save the meta, in place of any that is there."""
    columns = check_meta(meta)

    def save(tx: Tx) -> None:
        statements.save_meta.later(tx.own_cursor, **columns)

    return save


def create_meta(_: SessionContext, meta: SessionMeta) -> Work[bool]:
    """Save the meta unless there is one; tell whether it was saved (S-DIR-2)."""
    columns = check_meta(meta)

    def create(tx: Tx) -> bool:
        return statements.create_meta.run(tx.own_cursor, **columns) == 1

    return create


def load_summary(_: SessionContext) -> Work[SessionSummary | None]:
    """Return what a picker shows, without loading the graph; None without meta (S-GC-3)."""
    return _read_summary


def _read_summary(tx: Tx) -> SessionSummary | None:
    meta = _read_meta(tx)
    if meta is None:
        return None
    ((counted,),) = statements.count_user_messages.all(tx.own_cursor)
    first = statements.first_user_message.one(tx.own_cursor) if counted else None
    return SessionSummary(
        session_id=meta.session_id,
        cwd=meta.cwd,
        relation=meta.relation,
        user_messages=counted,
        first_user_message="" if first is None else _text(str(first[0]), first[1]),
    )


def check_meta(meta: SessionMeta) -> dict[str, Any]:
    """Check what is to be saved and return its columns; InvalidRecordError if it can't be."""
    if not isinstance(meta, SessionMeta):
        raise InvalidRecordError("meta", shown(meta), "must be a SessionMeta")
    columns = {
        name: check_text(name, getattr(meta, name))
        for name in ("session_name", "created_at", "model")
    }
    columns["session_id"] = check_name("session_id", meta.session_id)
    cwd = None if meta.cwd is None else check_text("cwd", meta.cwd)
    return {**columns, "cwd": cwd, "relation_json": encode_json(written_relation(meta.relation))}


def _relation(session_id: str, text: str | None) -> Relation:
    if text is None:
        return Relation()  # SQL NULL reads as root
    try:
        return read_relation(decode_object(_TABLE, session_id, text))
    except msgspec.ValidationError as error:
        raise CorruptRecordError(_TABLE, session_id, str(error)) from error


def _text(seq: str, node_json: str) -> str:
    try:
        return message_text(decode_object(graph_nodes.name, seq, node_json))
    except (TypeError, KeyError, AttributeError) as error:
        raise CorruptRecordError(graph_nodes.name, seq, f"no user message: {error!r}") from error
