"""Moving a deployment between a folder of files, a SQLite database and PostgreSQL, any way.

::

    copy_deployment("folder", "sqlite:///app.db")      # or: lash-store copy folder sqlite:///app.db
    copy_deployment("sqlite:///app.db", "postgresql+psycopg://…")
    copy_deployment("postgresql+psycopg://…", "folder")

What is copied goes by units: each session, and the processes, triggers and effects. A unit is copied in
one transaction, out of one snapshot, and compared before it is committed: a digest for each table. So
a copy that was interrupted may be run again: a unit that is there and equal is passed over.
"""

from lash_store.moving.copying import Copied, Progress, copy_deployment

__all__ = ["Copied", "Progress", "copy_deployment"]
