"""The calls that one transaction has run: what becomes of it, they all are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lash_store._kernel.calls import Call


class Group:
    """The calls that one transaction has run so far."""

    __slots__ = ("calls", "error", "is_committing", "own", "told_s")

    def __init__(self, own: Call | None = None) -> None:
        self.own = own
        """The leading thread's own call: if that is interrupted, nobody does it in its place."""

        self.calls: list[Call] = []
        self.is_committing = False
        self.told_s = 0.0
        """When somebody began to tell its callers, who may have been interrupted since."""
        self.error: BaseException | None = None
