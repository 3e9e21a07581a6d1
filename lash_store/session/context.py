"""What every transaction of a session store shares: whose it is, and how blobs are stored."""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from lash_store._kernel.checks import check_choice, check_name
from lash_store._stores import tx as stores
from lash_store._stores.tx import Context
from lash_store.clock import Clock, IdSource
from lash_store.session.records.blobs import PROFILES, Profile

R = TypeVar("R")


class SessionContext(Context, frozen=True, kw_only=True):
    """What every transaction of a session store shares."""

    session_id: str
    """The session that operations act on when they are given none."""

    profile: Profile


Tx: TypeAlias = stores.Tx[SessionContext]
"""What the work of a session store's operations is a function of."""

Work: TypeAlias = Callable[[Tx], R]
"""What an operation returns when its arguments are checked: to be run in a transaction."""


def session_context(
    session_id: str, profile: Profile, clock: Clock, ids: IdSource
) -> SessionContext:
    """Check what a session store is opened with; InvalidRecordError names what is wrong."""
    check_name("session_id", session_id)
    check_choice("profile", profile, PROFILES)
    # Its scope is the store's session, whichever one an operation is given: as in a file.
    return SessionContext(clock, ids, session_id=session_id, profile=profile, scope=session_id)


def chosen_session(context: SessionContext, session_id: str | None) -> str:
    """Return the session that an operation is about: the one given, or else the store's."""
    return context.session_id if session_id is None else check_name("session_id", session_id)
