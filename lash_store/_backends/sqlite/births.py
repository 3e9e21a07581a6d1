"""When a file was made, by which one is told from another that has got its inode since (K-OPEN-12).

By the system's own number, without opening anything. None where the system, or the file system, doesn't say.
"""

import ctypes
import os
import struct
import sys
from functools import cache
from typing import Any, Final

_HERE: Final = -100
"""AT_FDCWD: a path that is relative is so to this process's folder."""

_BIRTH: Final = 0x800
"""STATX_BTIME: what is asked for, and whether it is told."""

_SIZE: Final = 256
_BIRTH_AT: Final = 80
"""Where it stands: seconds, eight bytes, and nanoseconds, four."""


def born_ns(path: str) -> int | None:
    """Return when the file at a path was made, in nanoseconds since the epoch; None if nobody says."""
    if not sys.platform.startswith("linux"):
        try:
            seconds: float | None = getattr(os.stat(path), "st_birthtime", None)
        except OSError:
            return None
        return None if seconds is None else int(seconds * 1e9)
    statx, found = _statx(), ctypes.create_string_buffer(_SIZE)
    if statx is None or statx(_HERE, os.fsencode(path), 0, _BIRTH, found) != 0:
        return None
    (told,) = struct.unpack_from("=I", found)
    if not told & _BIRTH:
        return None
    seconds_ns, ns = struct.unpack_from("=qI", found, _BIRTH_AT)
    return int(seconds_ns) * 1_000_000_000 + int(ns)


@cache
def _statx() -> Any:
    """The C library's function; None if it has none."""
    try:
        return ctypes.CDLL(None).statx
    except (OSError, AttributeError):
        return None
