"""Reading and writing the head, and what it says about the graph."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from lash_store._kernel.codecs import decode_object, encode_json, free_json
from lash_store.errors import CorruptRecordError, InvalidRecordError
from lash_store.session import statements
from lash_store.session.context import SessionContext, Tx, Work
from lash_store.session.records import SessionHead
from lash_store.session.tables import session_head

_NAMED: Final = (
    "session_id",
    "head_revision",
    "config",
    "agent_frames",
    "current_agent_frame_id",
    "checkpoint_ref",
    "leaf_node_id",
    "graph_node_count",
)
_LEFT_OUT_WHEN_EMPTY: Final = ("current_agent_frame_id", "checkpoint_ref", "leaf_node_id")
_TABLE: Final = session_head.name
_PLAIN_INT: Final = 2**53
_NOTHING: Final[Mapping[str, msgspec.Raw]] = MappingProxyType({})


def load_head(_: SessionContext) -> Work[SessionHead | None]:
    """Return where the session stands, or None before its first commit (S-HEAD-1).

    Raises CorruptRecordError if the stored head is none.
    """
    return read_head


def read_head(tx: Tx) -> SessionHead | None:
    """Read the head, on an open transaction; see :func:`load_head`."""
    row = statements.load_head.one(tx.own_cursor)
    if row is None:
        return None
    session_id, text, revision = row
    written = decode_object(_TABLE, session_id, text)
    # An empty object is a head that another program made and never wrote to.
    named: dict[str, Any] = {name: written.pop(name) for name in _NAMED if name in written}
    named["session_id"] = named.get("session_id", session_id)
    named["head_revision"] = revision
    try:
        for name, value in (*named.items(), *written.items()):
            if not _is_plain(value):
                free_json(f"head.{name}", value)  # what could not be written again is no head
        return msgspec.convert({**named, "extra": written}, SessionHead)
    except (msgspec.ValidationError, InvalidRecordError) as error:
        raise CorruptRecordError(_TABLE, session_id, str(error)) from error


def save_head(tx: Tx, head: SessionHead, encoded: Mapping[str, msgspec.Raw] = _NOTHING) -> None:
    """Write the head: the named fields in order, then those that this library does not know.

    What is `encoded` already stands for the field of its name. Text needs no other form, and was
    checked when it was read or given.
    """
    written: dict[str, Any] = {}
    for name in _NAMED:
        value = encoded.get(name)
        if value is None:
            value = getattr(head, name)
            if not _is_plain(value):
                value = free_json(name, value)
        written[name] = value
    for name in _LEFT_OUT_WHEN_EMPTY:
        if not written[name]:
            del written[name]
    statements.save_head.later(
        tx.own_cursor,
        session_id=head.session_id,
        head_json=encode_json(
            {**written, **free_json("head", head.extra, around=1)} if head.extra else written
        ),
        head_revision=head.head_revision,
    )


def _is_plain(value: Any) -> bool:
    """Whether a value has no other written form and can always be written, as nearly all of them."""
    kind = type(value)
    return kind is str or value is None or (kind is int and -_PLAIN_INT <= value <= _PLAIN_INT)
