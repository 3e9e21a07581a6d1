"""The databases that a store can stand on, one folder each; which it is is decided here.

``lash_store._kernel.backend`` says what a backend does.
"""

import os

from lash_store._backends.sqlite.database import SqliteDatabase
from lash_store._backends.sqlite.files import remove_database
from lash_store._backends.sqlite.joining import configure, join
from lash_store._kernel.backend import Database
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema

__all__ = ["configure", "join", "open_database", "remove_database"]


def open_database(
    schema: Schema, path: str | os.PathLike[str] | None, settings: Settings
) -> Database:
    """Open what a path leads to, or a database in memory: either is SQLite's."""
    return SqliteDatabase(schema, path, settings)
