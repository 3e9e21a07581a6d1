"""The dialects that every builder has to compile for."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Dialect
from sqlalchemy.dialects import postgresql, sqlite

from lash_store._backends.sqlite.dialect import dialect_for
from lash_store._kernel.sharing import Sharing

SQLITE: Final[Dialect] = sqlite.dialect(paramstyle="named")
POSTGRESQL: Final[Dialect] = postgresql.dialect()  # type: ignore[no-untyped-call] # reason: SQLAlchemy leaves it untyped


def _shared() -> Dialect:
    kind: Any = type(dialect_for("lash_"))
    dialect = kind(paramstyle="named")
    dialect.sharing = Sharing("lash_")
    made: Dialect = dialect
    return made


SHARED: Final = _shared()
"""SQLite's, for a database that is shared."""
