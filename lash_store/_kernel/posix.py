"""What POSIX has and Windows has not, and what stands in its place there."""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

try:
    import fcntl
except ImportError:  # who would lock with it does without
    fcntl = None  # type: ignore[assignment] # reason: a module that may be absent has no other spelling

__all__ = [
    "CLOSE_ON_EXEC",
    "NO_LINK",
    "fcntl",
    "in_forked_child",
    "open_beside",
    "require_systems_own",
]

CLOSE_ON_EXEC: Final = getattr(os, "O_CLOEXEC", 0)
NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)

FunctionT = TypeVar("FunctionT", bound=Callable[[], object])


def in_forked_child(function: FunctionT) -> FunctionT:
    """Call `function` in each forked child; nowhere where there is no fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)
    return function


def open_beside(model: str, path: str, flags: int = 0) -> int:
    """Open what several users lock, or make it, for those who may use `model`, whoever makes it."""
    flags |= os.O_RDWR | CLOSE_ON_EXEC
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    its = os.stat(model)
    descriptor = os.open(path, flags | os.O_CREAT, 0o600)
    try:
        os.fchmod(descriptor, its.st_mode & 0o666)
        with suppress(PermissionError):
            os.fchown(descriptor, its.st_uid, its.st_gid)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def require_systems_own(error: OSError) -> None:
    """Raise it unless a system call gave it: a TimeoutError out of a signal handler has no number (K-TX-10)."""
    if error.errno is None:
        raise error
