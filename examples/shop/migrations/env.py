"""Alembic's environment: the shop's tables are migrated, lash_store's are none of its business."""

from alembic import context

import lash_store.alembic
from examples.shop.models import Base

with context.config.attributes["engine"].begin() as connection:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_object=lash_store.alembic.include_object,
    )
    context.run_migrations()
