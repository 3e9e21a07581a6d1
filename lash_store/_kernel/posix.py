"""What POSIX has and Windows has not, and what stands in its place there."""

import os
import signal
import threading
from _thread import interrupt_main
from collections.abc import Callable
from typing import Final, TypeVar

try:
    import fcntl
except ImportError:  # who would lock with it does without
    fcntl = None  # type: ignore[assignment] # reason: a module that may be absent has no other spelling

__all__ = ["CLOSE_ON_EXEC", "NO_LINK", "fcntl", "in_forked_child", "interrupt_main_thread"]

CLOSE_ON_EXEC: Final = getattr(os, "O_CLOEXEC", 0)
NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)

FunctionT = TypeVar("FunctionT", bound=Callable[[], object])


def in_forked_child(function: FunctionT) -> FunctionT:
    """Call `function` in each forked child; nowhere where there is no fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)
    return function


def interrupt_main_thread() -> None:
    """Let SIGINT strike in the main thread; what it waits for there is cut short, but for Windows."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)
    else:
        interrupt_main()
