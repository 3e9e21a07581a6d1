"""What POSIX has and Windows has not, and what stands in its place there."""

import os
from collections.abc import Callable
from typing import Final, TypeVar

try:
    import fcntl
except ImportError:  # who would lock with it does without
    fcntl = None  # type: ignore[assignment] # reason: a module that may be absent has no other spelling

__all__ = ["CLOSE_ON_EXEC", "NO_LINK", "fcntl", "in_forked_child", "require_systems_own"]

CLOSE_ON_EXEC: Final = getattr(os, "O_CLOEXEC", 0)
NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)

FunctionT = TypeVar("FunctionT", bound=Callable[[], object])


def in_forked_child(function: FunctionT) -> FunctionT:
    """Call `function` in each forked child; nowhere where there is no fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)
    return function


def require_systems_own(error: OSError) -> None:
    """Raise it unless a system call gave it: a TimeoutError out of a signal handler has no number (K-TX-10)."""
    if error.errno is None:
        raise error
