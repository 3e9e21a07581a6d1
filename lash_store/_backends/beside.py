"""Files that stand beside a database, or in a folder of such, and are locked by all who use it."""

import os
from contextlib import suppress

from lash_store._kernel.posix import CLOSE_ON_EXEC


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
