"""Preparing statements of your own: built once, compiled once, run at the driver's speed."""

from lash_store._kernel.prepared import Prepared, PreparedRows, prepare

__all__ = ["Prepared", "PreparedRows", "prepare"]
