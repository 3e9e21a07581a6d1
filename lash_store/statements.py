"""Statements of your own: prepared to run at the driver's speed, or about the rows of all sessions."""

from lash_store._kernel.prepared import Prepared, PreparedRows, prepare
from lash_store._kernel.sharing import across_sessions

__all__ = ["Prepared", "PreparedRows", "across_sessions", "prepare"]
