"""Whether what is opened shares what this process has open already: as a rule it does."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

shares: Final[ContextVar[bool]] = ContextVar("shares", default=True)
"""Whether what is opened now is shared with the other stores of its file."""


@contextmanager
def as_another_process() -> Iterator[None]:
    """Open what is opened in the block as another process would: with a writer of its own."""
    before = shares.set(False)
    try:
        yield
    finally:
        shares.reset(before)
