"""What comes out of a signal handler: it is its thread's, whosever call it strikes."""

import signal
from functools import partial
from threading import get_ident, main_thread
from traceback import walk_tb
from types import CodeType
from typing import Any


def is_from_handler(error: BaseException) -> bool:
    """Whether a signal handler of the application's has raised `error`, or what it was made of.

    Python runs those between any two instructions of its main thread, so that one may strike as that
    thread does another one's call (K-TX-10).
    """
    if get_ident() != main_thread().ident:
        return False
    handlers = {_code_of(signal.getsignal(each)) for each in signal.valid_signals()} - {None}
    found: BaseException | None = error
    while found is not None and handlers:
        if any(frame.f_code in handlers for frame, _ in walk_tb(found.__traceback__)):
            return True
        found = found.__cause__ or found.__context__
    return False


def _code_of(handler: Any) -> CodeType | None:
    while isinstance(handler, partial):
        handler = handler.func
    for each in (handler, getattr(type(handler), "__call__", None)):  # noqa: B004 # reason: its code is asked for
        code = getattr(each, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None  # the system's own, or none
