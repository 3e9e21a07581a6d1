"""An interrupt before any one instruction of the library's own, wherever it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import lash_store
from lash_store import SessionStore
from lash_store.errors import StoreBusyError

LIBRARY = Path(lash_store.__file__).parent


class Interrupt:
    """An interrupt before the n-th instruction of the library's, or of one part of it.

    Counted from the beginning of a call, or `behind` the call of one of its functions.
    """

    def __init__(self, at: int, behind: str = "", of: Path = LIBRARY) -> None:
        self.left, self.where = at, ""
        self._behind, self._of = behind, str(of)

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        if self._behind == frame.f_code.co_name:
            self._behind = ""
        if event == "opcode" and not self._behind:
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                self.where = f"{frame.f_code.co_qualname}, line {frame.f_lineno}"
                raise KeyboardInterrupt
        elif not frame.f_code.co_filename.startswith(self._of):
            return None
        elif frame.f_code.co_name == "__del__":
            return None  # what is collected meanwhile is no part of it, and nobody could catch that
        frame.f_trace_opcodes = True
        return self

    def strikes(self, call: Callable[[], object]) -> str:
        """Make a call that is interrupted, or refused; tell where it was interrupted."""
        with suppress(KeyboardInterrupt, StoreBusyError):
            self.within(call)
        return self.where

    def within(self, call: Callable[[], object]) -> None:
        """Make a call, and be that interrupt in it; KeyboardInterrupt, unless it ended before."""
        sys.settrace(self)
        try:
            call()
        finally:
            sys.settrace(None)


def begin(store: SessionStore) -> None:
    """A block that writes."""
    with store.begin() as tx:
        tx.put_blob(b"x")


def read(store: SessionStore) -> None:
    """A snapshot."""
    with store.read() as tx:
        tx.work_depth()


def write_one(store: SessionStore) -> None:
    """One operation that writes."""
    store.put_blob(b"x")


def read_one(store: SessionStore) -> None:
    """One operation that reads."""
    store.work_depth()


CALLS = (begin, read, write_one, read_one)
"""A call of each kind."""
