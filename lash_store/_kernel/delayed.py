"""Signals that come while this process forks: what Python raises there it throws away."""

import signal
from threading import get_ident, main_thread
from types import FrameType
from typing import Any, Final

from lash_store._kernel.threads import TIMER

_LOOK_AGAIN_S: Final = 0.001
_PATIENCE: Final = 200
"""How often it is looked whether the fork is over, whose other hooks would throw away what is raised too."""


class DelayedSignals:
    """Puts off what the application's handlers do, as long as the main thread is at something.

    A handler that runs in a hook of a fork may fork, and would wait for itself; and what it raises, an
    interrupt or SystemExit, is reported there and forgotten. Handlers run in the main thread alone.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._came: set[int] = set()
        self._wakeup_fd = -1
        """Where an event loop hears of signals, whatever their handlers do: it would hear of them twice."""

    def hold(self) -> None:
        """Note what comes, from now on."""
        if get_ident() != main_thread().ident:
            return
        self._wakeup_fd = signal.set_wakeup_fd(-1)
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._note)

    def _note(self, number: int, _: object) -> None:
        self._came.add(number)

    def let_go(self, forking: FrameType | None) -> None:
        """Have the handlers back, and send again what has come once `forking`, which forks, goes on."""
        if get_ident() != main_thread().ident:
            return
        came = self._give_back()
        if came:
            _send_behind(get_ident(), came, forking, -1 if forking is None else forking.f_lasti)

    def forget(self) -> None:
        """Have the handlers back, in a child: what came was its parent's."""
        self._give_back()

    def _give_back(self) -> set[int]:
        came, self._came = self._came, set()
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler)
        if self._wakeup_fd != -1:
            signal.set_wakeup_fd(self._wakeup_fd)
            self._wakeup_fd = -1
        return came


def _send_behind(
    thread: int, numbers: set[int], forking: FrameType | None, at: int, looks: int = 0
) -> None:
    def send() -> None:
        if forking is not None and forking.f_lasti == at and looks < _PATIENCE:
            _send_behind(thread, numbers, forking, at, looks + 1)
            return
        for number in numbers:
            signal.pthread_kill(thread, number)

    TIMER.after(_LOOK_AGAIN_S, send)
