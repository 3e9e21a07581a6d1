"""What an interrupt has kept from ending, and only its traceback keeps alive."""

import sys
from traceback import walk_stack, walk_tb

from lash_store.errors import LashStoreError


def is_unwound(holder: object) -> bool:
    """Whether only the traceback of an exception that is being handled keeps what holds a turn.

    In the handler of an interrupt its frames are still there, with what they held; the next call has
    its turn there too, not only once the handler is left (K-TX-10). What the library has refused itself
    has given back what it held.
    """
    error, seen = sys.exception(), set[int]()  # whoever sets a context may make a circle of them
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if not isinstance(error, LashStoreError):
            for frame, _ in walk_tb(error.__traceback__):
                is_ours = frame.f_globals.get("__name__", "").startswith("lash_store.")
                if is_ours and any(value is holder for value in frame.f_locals.values()):
                    return frame not in {each for each, _ in walk_stack(sys._getframe())}  # noqa: SLF001 # reason: the frames of this thread
        error = error.__context__
    return False
