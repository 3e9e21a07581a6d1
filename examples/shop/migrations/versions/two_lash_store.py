"""Durable work: lash_store's tables, beside the shop's."""

from alembic import op

import lash_store

revision = "two"
down_revision = "one"


def upgrade() -> None:
    """Make them; nothing of the shop's is touched."""
    lash_store.create_tables(op.get_bind())
