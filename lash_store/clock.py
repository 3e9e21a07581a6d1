"""Time and randomness: the two things that tests and crash replays have to own."""

import os
import socket
from time import time_ns
from typing import Protocol

MAX_INT = 2**63 - 1
"""The largest time, counter and duration: what an SQLite INTEGER holds."""


class Clock(Protocol):
    """Where a store gets the time: once per transaction, after the lock is held."""

    def now_ms(self) -> int:
        """Return milliseconds since the epoch, 0 ≤ n < 2**63."""
        ...


class SystemClock:
    """The machine's wall clock."""

    __slots__ = ()

    def now_ms(self) -> int:
        """Return milliseconds since the epoch."""
        return time_ns() // 1_000_000


class IdSource(Protocol):
    """Where a store gets tokens and ids, which are opaque."""

    def new_token(self) -> str:
        """Return a token that nobody can guess and that never comes twice."""
        ...


class RandomIds:
    """Tokens that begin with the time: what is made together stands together in an index.

    Of 20,000 batches that wait each took a page of an index for itself, as long as their ids were
    random from the first digit.
    """

    __slots__ = ()

    def new_token(self) -> str:
        """Return 32 hexadecimal digits: milliseconds since the epoch in twelve, and 80 random bits."""
        return f"{time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def unique_owner_id(label: str = "worker") -> str:
    """Make an owner id for one executor: its label, host, process id and eight random digits.

    Two executors that share an owner id share a term of the session lease (S-LEASE-1), so
    each of them should make its own id, once, when it starts.
    """
    return f"{label}:{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
