"""Handles: which scopes may see and steer a process."""

from typing import Any

import msgspec

from lash_store._kernel.checks import check_kind, check_text
from lash_store._kernel.codecs import decode_object, encode_json, read_as
from lash_store.process.records.processes import State
from lash_store.process.tables import process_handle_grants


class HandleDescriptor(msgspec.Struct, frozen=True):
    """How a process is shown to the scope that has a handle on it."""

    kind: str | None = None
    label: str | None = None


class HandleGrant(msgspec.Struct, frozen=True):
    """A handle that a scope has on a process, and how that process stands."""

    session_id: str
    scope_id: str
    process_id: str
    descriptor: HandleDescriptor
    state: State


class SessionDeletion(msgspec.Struct, frozen=True):
    """What deleting a session's state did in the registry (P-GRANT-2).

    `revoked_handle_count` handles are gone. Of the running processes that they were on,
    `orphaned_process_ids` have no handle left and `preserved_process_ids` have others'; both
    are sorted. `deleted_wake_count` is 0: acknowledgements stay, so that a wake that was
    consumed is never shown again.
    """

    session_id: str
    revoked_handle_count: int
    deleted_wake_count: int
    orphaned_process_ids: tuple[str, ...]
    preserved_process_ids: tuple[str, ...]


def written_descriptor(descriptor: HandleDescriptor) -> str:
    """Check a descriptor and return its JSON."""
    check_kind("descriptor", descriptor, HandleDescriptor)
    members = {"kind": descriptor.kind, "label": descriptor.label}
    return encode_json(
        {
            name: check_text(f"descriptor.{name}", text)
            for name, text in members.items()
            if text is not None
        }
    )


def read_grant(
    session_id: str, scope_id: str, process_id: str, descriptor_json: str, state: Any
) -> HandleGrant:
    """Build a grant from its row; CorruptRecordError if the descriptor can't be read."""
    key = f"{scope_id} on {process_id}"
    written = decode_object(process_handle_grants.name, key, descriptor_json)
    row = {
        "session_id": session_id,
        "scope_id": scope_id,
        "process_id": process_id,
        "descriptor": written,
        "state": state,
    }
    return read_as(HandleGrant, process_handle_grants.name, key, row)
