"""``caused_by``: what led to a node or a session, an object tagged by ``type``."""

from collections.abc import Mapping
from typing import Any, Final

from lash_store._kernel.checks import check_count, check_name, shown
from lash_store._kernel.codecs import free_object
from lash_store.errors import InvalidRecordError

_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "turn": ("session_id", "turn_id"),
    "effect": ("session_id", "turn_id", "effect_id"),
    "tool_call": ("session_id", "call_id"),
    "process": ("process_id",),
    "process_event": ("process_id", "sequence"),
    "trigger_occurrence": ("occurrence_id",),
    "session_node": ("session_id", "node_id"),
}
"""The fields of each tag, in the order of the wire; an effect's turn_id may be absent."""


def written_cause(value: Mapping[str, Any], *, around: int = 0) -> dict[str, Any]:
    """Check a ``caused_by`` and return its written form: tag, its fields in order, others sorted.

    Raises InvalidRecordError for an unknown tag, and for a field that is missing or no id.
    """
    given = free_object("caused_by", value, around=around)
    tag = given.pop("type", None)
    if not isinstance(tag, str) or tag not in _FIELDS:
        tags = ", ".join(_FIELDS)
        raise InvalidRecordError("caused_by.type", shown(tag), f"must be one of {tags}")
    written: dict[str, Any] = {"type": tag}
    for name in _FIELDS[tag]:
        if name == "turn_id" and tag == "effect" and name not in given:
            continue
        check = check_count if name == "sequence" else check_name
        written[name] = check(f"caused_by.{name}", given.pop(name, None))
    return {**written, **given}
