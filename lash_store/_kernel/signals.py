"""What comes out of a signal handler: it is its thread's, whosever call it strikes."""

import signal
import sys
from functools import partial
from threading import get_ident, main_thread
from traceback import walk_stack, walk_tb
from types import CodeType
from typing import Any


def is_from_handler(error: BaseException) -> bool:
    """Whether a signal handler of the application's has raised `error`, or what it was made of.

    Python runs those between any two instructions of its main thread, so that one may strike as that
    thread does another one's call (K-TX-10). What was being handled around the caller before is none of it,
    though it stands in the context of whatever is raised there.
    """
    if get_ident() != main_thread().ident:
        return False
    handlers = {_code_of(signal.getsignal(each)) for each in signal.valid_signals()} - {None}
    around = {frame for frame, _ in walk_stack(sys._getframe(1))}  # noqa: SLF001 # reason: the frames of this thread
    led_to_it: list[BaseException | None] = [error]
    seen: set[int] = set()  # an error may be its own cause, as SQLAlchemy makes them
    while led_to_it and handlers:
        found = led_to_it.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        trace = found.__traceback__
        if found is not error and trace is not None and trace.tb_frame in around:
            continue
        if any(frame.f_code in handlers for frame, _ in walk_tb(trace)):
            return True
        led_to_it += (found.__cause__, found.__context__)
    return False


def _code_of(handler: Any) -> CodeType | None:
    while isinstance(handler, partial):
        handler = handler.func
    # Of an object its class's own: an enum's member, as SIG_DFL is, is made by one of its metaclass's.
    calls = (vars(each).get("__call__") for each in type(handler).__mro__)
    for each in (handler, next((call for call in calls if call is not None), None)):
        code = getattr(each, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None  # the system's own, or none
