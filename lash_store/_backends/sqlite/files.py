"""Database files: their names, making them private, and why one can't be opened."""

import errno
import os
import re
import sqlite3
import stat
import threading
from contextlib import suppress
from typing import Final, TypeAlias

from lash_store._backends.sqlite.births import born_ns
from lash_store._backends.sqlite.driver import is_busy, primary_code
from lash_store._kernel.checks import shown
from lash_store._kernel.posix import CLOSE_ON_EXEC, fcntl, in_forked_child, require_systems_own
from lash_store.errors import StoreBusyError, StoreOpenError

IN_MEMORY: Final = ":memory:"
"""How an in-memory store is called in messages; SQLite's own name for one."""

QUEUE_SUFFIX: Final = "-queue"
"""The sidecar of the queue of writers, beside the database as SQLite's own are."""

WAL_SUFFIX: Final = "-wal"
_HEADER: Final = b"SQLite format 3\0"

SIDECARS: Final = (WAL_SUFFIX, "-shm", QUEUE_SUFFIX)
"""What stands beside a database."""

_opening = threading.Lock()
"""Held while a file is pre-created. Closing a descriptor drops every lock that this process
has on the file (K-OPEN-7), so no other thread may have opened it with SQLite by then."""


def resolve(path: str | os.PathLike[str] | None) -> str:
    """Return the real path of a database file, or ``:memory:`` for None.

    The real path, because the sidecars of one file must not depend on the link it was opened by.
    """
    if path is None:
        return IN_MEMORY
    try:
        name = os.fspath(path)
    except TypeError as error:
        raise StoreOpenError(shown(path), "it is no path: a str, or an os.PathLike") from error
    if not isinstance(name, str) or not name or "\0" in name:
        raise StoreOpenError(str(name), "a path is a non-empty str without NUL")
    if name == IN_MEMORY:
        raise StoreOpenError(name, "an in-memory store is opened with path=None")
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise StoreOpenError(ascii(name), "a path that the file system can't spell") from error
    try:
        return os.path.realpath(name)
    except OSError as error:  # of a relative one
        require_systems_own(error)
        why = f"this process's own folder can't be told: {error.strerror}"
        raise StoreOpenError(name, why) from error


def may_be_database(path: str) -> bool:
    """Whether a file looks like a database from outside: it has whole pages. It may be open, and is not opened for that."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size > 0 and not found.st_size % 512


def is_store(path: str) -> bool:
    """Whether a store has written to a database, by the queue of writers that it has made beside it.

    Nothing is opened: closing it would drop the locks that this process may have on it. Where there
    are no such locks, there is no queue either, and its header says so.
    """
    if fcntl is not None:
        return is_there(path + QUEUE_SUFFIX)
    with open(path, "rb") as file:
        return file.read(len(_HEADER)) == _HEADER


def is_taken(sidecar: str) -> bool:
    """Whether the place of the queue of writers, which has one byte, is another file's."""
    try:
        found = os.lstat(sidecar)
    except OSError:
        return False  # there is none, or using it says what is the matter
    return stat.S_ISREG(found.st_mode) and found.st_size > 1


def create_private_file(path: str) -> None:
    """Make the file, owner-only, unless it is there; SQLite's sidecars take over its mode."""
    too_long = _too_long(path)
    if too_long is not None:
        raise StoreOpenError(path, too_long)  # SQLite would refuse what was made already
    with _opening:
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | CLOSE_ON_EXEC
            os.close(os.open(path, flags, 0o600))
        except FileExistsError:
            pass  # and it was not opened: O_EXCL fails first
        except OSError as error:
            raise open_error(path, error) from error


Sidecar: TypeAlias = tuple[int, int | None]
"""The inode of a sidecar, which may be another file's later, and when it was made, if the system says so."""

Identity: TypeAlias = tuple[int, int]
"""Which file it is, by whatever path: device and inode."""

NO_FILE: Final[Identity] = (-1, -1)
"""What no file is."""


def identity_of(path: str) -> Identity | None:
    """Return which file stands at a path; None in memory."""
    if path == IN_MEMORY:
        return None
    try:
        found = os.stat(path)
    except OSError as error:
        raise open_error(path, error) from error
    return found.st_dev, found.st_ino


def open_sidecars(path: str) -> set[int]:
    """Return the inodes of SQLite's sidecars of a database that this process has open.

    Whatever stands at their paths by now. Empty where the system does not say so.
    """
    found = set()
    with suppress(OSError):
        for descriptor in os.listdir("/proc/self/fd"):
            with suppress(OSError):  # the one that lists them is closed by now
                name = os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)")
                if name in (f"{path}-wal", f"{path}-shm"):
                    found.add(os.stat(f"/proc/self/fd/{descriptor}").st_ino)
    return found


def sidecars_of(path: str) -> set[Sidecar]:
    """Return what stands at the paths of SQLite's sidecars: inodes, and when each was made."""
    found = set[Sidecar]()
    for suffix in (WAL_SUFFIX, "-shm"):
        with suppress(OSError):  # there is none
            found.add((os.stat(path + suffix).st_ino, born_ns(path + suffix)))
    return found


def set_sidecars_aside(path: str, inodes: set[int], known: set[Sidecar]) -> None:
    """Rename those of a file that stood at `path` before: SQLite would read its WAL as the new one's.

    Beside the file, with the inode in the name: what was committed to a lost file is kept. By the `inodes` of
    what is open, or as they were `known` when something was opened last.
    """
    for suffix in (WAL_SUFFIX, "-shm"):
        try:
            inode = os.stat(f"{path}{suffix}").st_ino
            born = born_ns(f"{path}{suffix}")
            if inode in inodes or (born is not None and (inode, born) in known):
                os.rename(f"{path}{suffix}", f"{path}{suffix}-lost-{inode}")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise open_error(path, error) from error


def check_only_name(path: str) -> None:
    """Raise StoreOpenError for a file that may be open under another path (K-OPEN-10).

    SQLite keeps the WAL and its locks beside the *path*. Under two, one file has two of each:
    two writers at once, and batches that are acknowledged and lost.
    """
    try:
        found = os.stat(path)
    except OSError:
        return  # opening says what is the matter
    if not stat.S_ISREG(found.st_mode):
        return
    links = found.st_nlink
    if links > 1:
        raise StoreOpenError(
            path,
            f"the file has {links} names (hard links), and whoever opens it by another one does "
            "not see this one's WAL; remove the others, or open it with linked=True",
        )
    if path in _mount_points():
        raise StoreOpenError(
            path,
            "the file is a mount point of its own, and whoever opens it where it comes from does "
            "not see this WAL; mount its folder, or open it with linked=True",
        )


def _mount_points() -> set[str]:
    """Return what is mounted where; nothing where the system does not say so."""
    try:
        with open("/proc/self/mountinfo", "rb") as lines:
            fields = [line.split(b" ")[4] for line in lines]
    except OSError as error:
        require_systems_own(error)
        return set()
    return {os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), f)) for f in fields}


_OCTAL: Final = re.compile(rb"\\([0-7]{3})")
"""How the system writes white space and backslashes in a path."""


def is_there(path: str) -> bool:
    """Whether a path leads to anything; StoreOpenError if that can't be seen."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise open_error(path, error) from error
    return True


def check_openable(path: str, *, read_only: bool, immutable: bool) -> None:
    """Raise StoreOpenError for what SQLite would wait on, or open and then fail to write.

    A pipe without a writer keeps whoever opens it waiting; and a file that may not be written is
    opened all the same, to be read.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # opening says what is the matter
    kind = _KINDS.get(stat.S_IFMT(mode))
    if kind is not None:
        raise StoreOpenError(path, f"it is {kind}, not a file")
    if not os.access(path, os.R_OK):
        raise StoreOpenError(path, _UNREADABLE)
    if not read_only and not os.access(path, os.W_OK):
        raise StoreOpenError(path, "no permission to write it; read_only=True opens it to be read")
    for suffix in () if read_only else _WRITTEN_BESIDE:
        if _is_unwritable(path + suffix):
            raise StoreOpenError(
                path,
                f"no permission to write {os.path.basename(path) + suffix!r}, which stands beside it: who only "
                "reads makes it, with that user's rights, and leaves it; let its owner give it to this one's",
            )
    if immutable:
        _check_no_wal(path)


_WRITTEN_BESIDE: Final = ("-wal", "-shm")


def _is_unwritable(path: str) -> bool:
    """Whether a file is there, and may not be written; not one that others make and remove as it is looked at."""
    return all(not os.access(path, os.W_OK) and os.path.exists(path) for _ in range(_LOOKS))


_LOOKS: Final = 3
"""What is not there can't be written either, and may be there a moment later: hardly so several times on end."""


def _check_no_wal(path: str) -> None:
    try:
        size = os.stat(f"{path}-wal").st_size
    except OSError:
        return
    if size:
        raise StoreOpenError(
            path,
            f"there is a WAL of {size} bytes beside it, whose commits nobody sees with "
            "immutable=True: open it once for writing, where that can be done",
        )


_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_error(
    path: str, error: sqlite3.Error | OSError | UnicodeDecodeError, *, waited_ms: int = 0
) -> StoreOpenError | StoreBusyError:
    """Say why `path` can't be opened, where SQLite says "unable to open database file"."""
    if isinstance(error, sqlite3.Error) and is_busy(error):
        return StoreBusyError(path, waited_ms)
    if isinstance(error, OSError):
        require_systems_own(error)
        return StoreOpenError(path, _reason_from_path(path) or error.strerror or str(error))
    if isinstance(error, UnicodeDecodeError):  # of what SQLite says, which quotes the file
        return StoreOpenError(
            path, "its schema is malformed: a name or a statement in it is no UTF-8"
        )
    code = primary_code(error)
    if code == sqlite3.SQLITE_NOTADB:
        return StoreOpenError(path, "it is a file, but no SQLite database")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR):
        reason = _reason_from_path(path) or _reason_from_file(path) or _reason_from_process()
        return StoreOpenError(path, reason or str(error))
    return StoreOpenError(path, str(error))


def _reason_from_path(path: str) -> str | None:
    if os.path.isdir(path):
        return "it is a folder"
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        return f"its folder {parent!r} {_why_missing(parent)}"
    return _too_long(path)


def _too_long(path: str) -> str | None:
    parent, name = os.path.split(path)
    longest = _longest_name(parent)
    room = longest - len(_LONGEST_SIDECAR)
    if len(os.fsencode(name)) > room:
        return (
            f"its name is {len(os.fsencode(name))} bytes long; {room} is the most, for what stands "
            f"beside it may be called {longest} there"
        )
    if len(os.fsencode(path)) > _LONGEST_PATH:
        return f"its path is {len(os.fsencode(path))} bytes long, and SQLite takes {_LONGEST_PATH}"
    return None


def _why_missing(folder: str) -> str:
    try:
        os.stat(folder)
    except PermissionError as error:
        return f"can't be seen: {error.strerror}"
    except OSError:
        pass
    return "does not exist"


_LONGEST_SIDECAR: Final = "-journal"
"""What SQLite makes beside a database before that is in WAL."""

_LONGEST_PATH: Final = 512 - len(_LONGEST_SIDECAR)


def _longest_name(folder: str) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows has none of it, and the same limit
        return 255


_UNREADABLE: Final = "no permission to read and write it"


def _reason_from_file(path: str) -> str | None:
    try:
        os.stat(path)
    except FileNotFoundError:
        return "there is no such file"
    except OSError as error:
        return error.strerror
    if not os.access(path, os.R_OK):
        return _UNREADABLE
    if os.path.exists(f"{path}-journal"):
        return "a transaction on it was cut off, which opening it once for writing undoes"
    if not os.access(os.path.dirname(path), os.W_OK):
        return (
            "its folder can't be written, and WAL needs two files beside it (-wal, -shm); "
            "read_only=True, immutable=True opens a file that nobody writes to"
        )
    return None


def _reason_from_process() -> str | None:
    taken = []
    try:
        for _ in range(_FILES_OF_ONE):
            # Never the file itself: see above.
            taken.append(os.open(os.devnull, os.O_RDONLY))  # noqa: PERF401 # reason: those before one that fails are to be closed
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return f"no file can be opened: {error.strerror}"
    finally:
        for each in taken:
            os.close(each)
    return None


_FILES_OF_ONE: Final = 3
"""What SQLite opens for one connection: the database, its WAL, and what its readers share."""


@in_forked_child
def _renew_lock() -> None:
    global _opening  # noqa: PLW0603 # reason: the thread that held it does not exist in the child
    _opening = threading.Lock()
