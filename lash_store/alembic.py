"""For an application that migrates its own tables with Alembic, in a database that it shares with ours.

In its ``env.py``::

    context.configure(target_metadata=mine, include_object=lash_store.alembic.include_object)

Our tables are no business of its migrations: there is no migration of them. Without this, autogenerate
would drop them. A migration that makes them calls ``lash_store.create_tables(op.get_bind())``.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Table

from lash_store._backends.sqlite.dialect import own_versions
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import ours_of
from lash_store._kernel.sharing import shared
from lash_store.schemas import SCHEMAS

__all__ = ["include_object", "including"]

IncludeObject = Callable[[Any, str | None, str, bool, Any], bool]
"""What Alembic asks of each object: itself, its name, its type, whether it was reflected, the other."""


def including(prefix: str) -> IncludeObject:
    """Return :func:`include_object` for tables of ours under another prefix than ``lash_``.

    Under ``""``, in a file of one store's, which has them by their own names. Raises InvalidRecordError
    for what can't be a prefix.
    """
    schemas = list(SCHEMAS.values())
    if prefix:
        Settings(prefix=prefix)
        schemas = [shared(schema, prefix) for schema in schemas]
    names = {table.name for schema in schemas for table in schema.tables}
    names.add(own_versions(prefix))

    def include(
        item: Any,
        name: str | None,  # noqa: ARG001 # reason: Alembic's signature
        type_: str,  # noqa: ARG001 # reason: Alembic's signature
        reflected: bool,  # noqa: ARG001, FBT001 # reason: Alembic's signature
        compare_to: Any,  # noqa: ARG001 # reason: Alembic's signature
    ) -> bool:
        """Whether an object is the application's: no table of ours, nor a column or index of one."""
        table = item if isinstance(item, Table) else getattr(item, "table", None)
        return table is None or not (ours_of(table) or table.name in names)

    return include


include_object: IncludeObject = including("lash_")
