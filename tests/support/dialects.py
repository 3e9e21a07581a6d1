"""The two dialects that every builder has to compile for."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Dialect
from sqlalchemy.dialects import postgresql, sqlite

SQLITE: Final[Dialect] = sqlite.dialect(paramstyle="named")
POSTGRESQL: Final[Dialect] = postgresql.dialect()  # type: ignore[no-untyped-call] # reason: SQLAlchemy leaves it untyped
