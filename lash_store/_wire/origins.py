"""Who started something: a host program, or a scope of a session."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec

from lash_store._kernel.checks import check_kind, check_name, check_text
from lash_store._wire.causes import written_cause
from lash_store.errors import InvalidRecordError

HOST: Final = "host"
"""The scope id of the host."""


class Scope(msgspec.Struct, frozen=True):
    """A session, or one agent frame of it, as an owner of processes, handles and triggers."""

    session_id: str
    agent_frame_id: str | None = None

    @property
    def id(self) -> str:
        """``session:{session_id}``, with ``/frame:{agent_frame_id}`` for a frame (P-REC-2)."""
        # As text: a member of a StrEnum would be formatted as its name.
        session = "session:" + str.__str__(self.session_id)
        if not self.agent_frame_id:
            return session
        return session + "/frame:" + str.__str__(self.agent_frame_id)


class Host(msgspec.Struct, frozen=True, tag_field="type", tag="host"):
    """The program around the sessions started it."""

    @property
    def scope_id(self) -> str:
        """The scope id that every host shares."""
        return HOST


class BySession(msgspec.Struct, frozen=True, tag_field="type", tag="session"):
    """A scope of a session started it."""

    scope: Scope

    @property
    def scope_id(self) -> str:
        """The id of that scope."""
        return self.scope.id


Originator: TypeAlias = Host | BySession
"""Who started something."""


_AROUND_CAUSE: Final = 2
"""How many levels of a wake, which is a batch's payload, are around what led to its process."""


class Provenance(msgspec.Struct, frozen=True):
    """Who started a process, and what led to it: an object tagged by ``type``, or None."""

    originator: Originator
    caused_by: Mapping[str, Any] | None = None


def written_scope(field: str, scope: Scope) -> dict[str, Any]:
    """Check a scope and return its written form; an empty frame id stays as it is."""
    check_kind(field, scope, Scope)
    session_id = check_name(f"{field}.session_id", scope.session_id)
    if "\0" in session_id:
        # SQL reads a text in JSON up to a NUL only, and finds a session's wake targets so.
        raise InvalidRecordError(f"{field}.session_id", ascii(session_id), "holds a NUL")
    written = {"session_id": session_id}
    if scope.agent_frame_id is not None:
        written["agent_frame_id"] = check_text(f"{field}.agent_frame_id", scope.agent_frame_id)
    return written


def written_originator(field: str, originator: Originator) -> dict[str, Any]:
    """Check an originator and return its written form."""
    check_kind(field, originator, (Host, BySession))
    if isinstance(originator, Host):
        return {"type": "host"}
    return {"type": "session", "scope": written_scope(f"{field}.scope", originator.scope)}


def written_provenance(provenance: Provenance) -> dict[str, Any]:
    """Check a provenance and return its written form."""
    check_kind("provenance", provenance, Provenance)
    written: dict[str, Any] = {
        "originator": written_originator("originator", provenance.originator)
    }
    if provenance.caused_by is not None:
        written["caused_by"] = written_cause(provenance.caused_by, around=-_AROUND_CAUSE)
    return written
