"""The databases that a store can stand on, one folder each; which it is is decided here.

``lash_store._kernel.backend`` says what a backend does.
"""

import os

from lash_store._backends.sqlite.files import remove_database
from lash_store._backends.sqlite.handle import SqliteHandle
from lash_store._backends.sqlite.joining import configure, join
from lash_store._backends.sqlite.opened import as_another_process as opened_apart
from lash_store._kernel.backend import Handle
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema

__all__ = ["configure", "join", "open_handle", "opened_apart", "remove_database"]


def open_handle(schema: Schema, path: str | os.PathLike[str] | None, settings: Settings) -> Handle:
    """Open what a path leads to, or a database in memory: either is SQLite's."""
    return SqliteHandle.open(schema, path, settings)
