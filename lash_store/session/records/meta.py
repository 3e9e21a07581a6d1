"""What a session is called and where it came from, and what a picker shows of it."""

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from lash_store._kernel.checks import check_name, shown
from lash_store._kernel.codecs import free_object
from lash_store._wire.causes import written_cause
from lash_store.errors import InvalidRecordError

_NAMED: Final = ("kind", "parent_session_id", "caused_by")


class Relation(msgspec.Struct, frozen=True):
    """How a session came to be (S-META-1).

    A root, or a child of `parent_session_id`, caused by an object tagged by ``type``. `extra`
    are stored fields that this library does not know; they survive.
    """

    kind: Literal["root", "child"] = "root"
    parent_session_id: str | None = None
    caused_by: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = {}


class SessionMeta(msgspec.Struct, frozen=True):
    """One session's name and origin; `created_at` is text, ``unix:SECONDS`` from the directory."""

    session_id: str
    session_name: str
    created_at: str
    model: str
    cwd: str | None = None
    relation: Relation = Relation()


class SessionSummary(msgspec.Struct, frozen=True):
    """What a session picker shows (S-GC-3).

    `first_user_message` is the text of the first user message, "" if there is none, over all
    branches of the graph.
    """

    session_id: str
    cwd: str | None
    relation: Relation
    user_messages: int
    first_user_message: str


def written_relation(relation: Relation) -> dict[str, Any]:
    """Check a relation and return its stored form."""
    if not isinstance(relation, Relation) or relation.kind not in ("root", "child"):
        raise InvalidRecordError("relation", shown(relation), "must be a Relation, root or child")
    if (relation.kind == "child") != (relation.parent_session_id is not None):
        raise InvalidRecordError(
            "relation", shown(relation), "a child has a parent_session_id, and a root has none"
        )
    written: dict[str, Any] = {"kind": check_name("relation.kind", relation.kind)}
    if relation.parent_session_id is not None:
        written["parent_session_id"] = check_name("parent_session_id", relation.parent_session_id)
    if relation.caused_by is not None:
        written["caused_by"] = written_cause(relation.caused_by)
    extra = free_object("relation.extra", relation.extra)
    for name in _NAMED:
        if name in extra:
            raise InvalidRecordError("relation.extra", name, "is a field of Relation itself")
    return {**written, **extra}


def read_relation(written: dict[str, Any]) -> Relation:
    """Build a relation from its stored form."""
    named: dict[str, Any] = {name: written.pop(name) for name in _NAMED if name in written}
    return msgspec.convert({**named, "extra": written}, Relation)


def message_text(node: Mapping[str, Any]) -> str:
    """Return the text of a user message's node: its parts, joined by blank lines (S-GC-3).

    Tool calls and results, blank parts and what is none are left out: a node's event is the consumer's own.
    An image stands as a remark. Raises TypeError, KeyError or AttributeError for a node that is none of a user's.
    """
    texts = []
    parts = node["event"]["Conversation"].get("parts")
    for part in parts if isinstance(parts, list) else ():
        kind = part.get("kind") if isinstance(part, dict) else "ToolCall"
        if kind in ("ToolCall", "ToolResult"):
            continue
        content = "[Image attached]" if kind == "Image" else part.get("content")
        if isinstance(content, str) and content.strip():
            texts.append(content)
    return "\n\n".join(texts).strip()
