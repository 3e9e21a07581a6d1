"""Statements on the session's head, one row."""

from sqlalchemy import Insert, Select, select

from lash_store._kernel.dialects import offered, upsert_insert
from lash_store._kernel.prepared import prepare
from lash_store.session.tables import session_head


@prepare
def load_head() -> Select[str, str, int]:
    """Read session id, head_json and the revision, which is the truth about it (S-HEAD-1)."""
    return select(session_head.c.session_id, session_head.c.head_json, session_head.c.head_revision)


@prepare
def save_head(*, session_id: str, head_json: str, head_revision: int) -> Insert:
    """Write the head, whether there is one or not."""
    fresh = upsert_insert(session_head).values(
        singleton=1, session_id=session_id, head_json=head_json, head_revision=head_revision
    )
    return fresh.on_conflict_do_update(
        index_elements=[session_head.c.singleton],
        set_=offered(
            fresh, session_head.c.session_id, session_head.c.head_json, session_head.c.head_revision
        ),
    )
