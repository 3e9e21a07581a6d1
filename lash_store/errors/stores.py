"""Errors of files: opening them, waiting for them, what stands in them."""

from collections.abc import Sequence
from typing import Final, Self

from lash_store.errors.root import LashStoreError


class StoreOpenError(LashStoreError):
    """A store could not be opened; the message names the path and the cause (K-OPEN-4)."""

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path = path
        self.cause = cause

    def __str__(self) -> str:
        return f"cannot open {self.path!r}: {self.cause}"


class StoreEmptyError(StoreOpenError):
    """A reader was to be opened on a file that nobody has made a store of yet (K-OPEN-2)."""

    @classmethod
    def of(cls, path: str, kind: str) -> Self:
        """Say what mends it."""
        return cls(path, f"it is not {_a_store(kind)} yet: open it once for writing as one")

    @classmethod
    def of_own(cls, path: str, names: Sequence[str]) -> Self:
        """Say the same of tables of an application's own."""
        listed = ", ".join(map(repr, names))
        return cls(path, f"the tables {listed} are not there: open it once for writing with them")


class ForeignDatabaseError(StoreOpenError):
    """A database that another program has made, and that was not said to be shared with it."""

    def __init__(self, path: str, cause: str | Sequence[str]) -> None:
        if not isinstance(cause, str):
            cause = (
                f"it holds another program's tables ({', '.join(cause)}); open it with adopt=True "
                "to have lash_store's own made beside them"
            )
        super().__init__(path, cause)


class NamesTakenError(StoreOpenError):
    """Tables of ours can't be made, since something else has their names; `names` says which.

    Or declared tables of an application's own: `of` says whose they are then.
    """

    def __init__(self, path: str, names: Sequence[str], of: str | None = None) -> None:
        listed = f"it has these names already: {', '.join(names)}"
        super().__init__(
            path,
            f"{listed}; choose another prefix= for lash_store's tables"
            if of is None
            else f"{listed}, which are not as {of} were declared",
        )
        self.names = tuple(names)
        self.of = of

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path, self.names, self.of), self.__dict__


class StoreClosedError(LashStoreError):
    """The store was used after ``close()`` (K-OPEN-5), or an AsyncDeployment before it was opened."""

    def __init__(self, path: str, is_new: bool = False) -> None:  # noqa: FBT001, FBT002 # reason: pickled by position
        super().__init__(path, is_new)
        self.path = path
        self.is_new = is_new

    def __str__(self) -> str:
        if self.is_new:
            return f"{self.path!r} is not open yet: `async with` it, or await it"
        return f"the store {self.path!r} is closed"


class StoreLostError(LashStoreError):
    """The file of an open store is not where it was: nothing was read or written (K-OPEN-9).

    What a transaction wrote to it now, nobody who opens the path would ever see. `cause` says
    what stands at the path instead, if anything does.
    """

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path = path
        self.cause = cause

    def __str__(self) -> str:
        return f"the open store {self.path!r} is lost: {self.cause}"


class ReadOnlyStoreError(LashStoreError):
    """A write through a read-only store, inside ``read()``, or on a server that is a replica (K-OPEN-2).

    `cause` is what a server said, if it was the server that refuses; else the text says where to write.
    """

    def __init__(self, path: str, cause: str | None = None) -> None:
        super().__init__(path, cause)
        self.path = path
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.path!r} can only be read here: " + (
            self.cause
            or "write inside begin(), on a store opened for writing, or, on an engine of your own, with "
            "execution_options(lash_store_write=True)"
        )


_LOCK: Final = "its lock"


class StoreBusyError(LashStoreError):
    """The lock was not free within the busy budget; nothing happened, so try again (K-TX-3).

    `waited_for` says what was not to be had in `waited_ms`: on a server it may be a connection of this
    process's own, of which other calls had as many as ``pool_size`` allows. If nothing was waited for, it
    says who has it.
    """

    def __init__(self, path: str, waited_ms: int, waited_for: str = _LOCK) -> None:
        super().__init__(path, waited_ms, waited_for)
        self.path = path
        self.waited_ms = waited_ms
        self.waited_for = waited_for

    def __str__(self) -> str:
        waited = (
            f"waited {self.waited_ms} ms for {self.waited_for}"
            if self.waited_ms
            else ("it is in use" if self.waited_for == _LOCK else self.waited_for)
        )
        return f"{self.path!r} is busy: {waited}; trying again is safe"


class DeadlockError(StoreBusyError):
    """Two transactions of a server waited for each other, and this one was ended; try again.

    Nothing of it was kept. `cause` is what the server says.
    """

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, 0)
        self.args = (path, cause)
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.path!r}: ended for another's sake ({self.cause}); trying again is safe"


class SchemaVersionError(LashStoreError):
    """The file does not carry the schema version of this kind of store (K-GUARD-1).

    `kind` is the name, where the tables are an application's own (`is_own`). `is_kind` is the kind of
    store that it is instead, if it is one; `mended_by` what would give a file that lacks nothing else
    its version; `is_missing` whether there are no such tables yet, for a snapshot that is joined.
    """

    def __init__(
        self,
        kind: str,
        expected: int,
        found: int,
        path: str,
        *,
        is_kind: str | None = None,
        mended_by: str | None = None,
        is_own: bool = False,
        is_missing: bool = False,
    ) -> None:
        super().__init__(kind, expected, found, path)
        self.is_own = is_own
        self.is_missing = is_missing
        self.is_kind = is_kind
        self.mended_by = mended_by
        self.kind = kind
        self.expected = expected
        self.found = found
        self.path = path

    def __str__(self) -> str:
        if self.is_own:
            return (
                f"{self.path!r} has version {self.found} of the tables {self.kind!r}, and version "
                f"{self.expected} was declared: migrate them, and note that by "
                "lash_store.schemas.stamp_tables()"
            )
        if self.is_missing:
            return (
                f"{self.path!r} has no tables of {_a_store(self.kind)}, and a snapshot makes none: join a "
                "transaction that writes, or call lash_store.schemas.create_tables(connection)"
            )
        found = f"version {self.found}" if self.found else "tables without a version"
        if self.mended_by is not None:
            ours = _a_store(self.is_kind or self.kind)
            what = f"It has the tables of {ours}, as a dump has that was read back: "
            what += f"{self.mended_by} mends it"
        elif self.is_kind is not None and self.is_kind != self.kind:
            what = f"It is {_a_store(self.is_kind)}: open it as one. Several kinds are in one file where that "
            what += "was opened by its URL (`sqlite:///…`)"
        else:
            what = "There is no migration chain: open it with the release or program that made it"
        return (
            f"{self.path!r} is no {self.kind} store of this release: expected version "
            f"{self.expected}, found {found}. {what}"
        )


def _a_store(kind: str) -> str:
    return f"{'an' if kind.startswith('e') else 'a'} {kind} store"


class SchemaDriftError(LashStoreError):
    """The version is right, but tables or indexes of ours are not as declared (K-GUARD-4)."""

    def __init__(self, kind: str, path: str, differences: Sequence[str]) -> None:
        super().__init__(kind, path, tuple(differences))
        self.kind = kind
        self.path = path
        self.differences = tuple(differences)

    def __str__(self) -> str:
        listed = "".join(f"\n  {difference}" for difference in self.differences)
        return f"{self.path!r} has drifted from the {self.kind} schema:{listed}"


class CopyError(LashStoreError):
    """Something of a deployment could not be copied; nothing of that was (``copy_deployment``)."""

    def __init__(self, path: str, what: str, cause: str) -> None:
        super().__init__(path, what, cause)
        self.path = path
        self.what = what
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.what} is not copied to {self.path!r}: {self.cause}"


class CorruptRecordError(LashStoreError):
    """A stored row can't be read as what it should be: names table, key and cause (K-CODEC-2)."""

    def __init__(self, table: str, key: str, cause: str) -> None:
        super().__init__(table, key, cause)
        self.table = table
        self.key = key
        self.cause = cause

    def __str__(self) -> str:
        return f"corrupt row in {self.table}, key {self.key!r}: {self.cause}"


class StorageError(LashStoreError):
    """The database reported I/O trouble, a full disk, corruption or another failure of the file."""

    def __init__(self, path: str, code: str, cause: str) -> None:
        super().__init__(path, code, cause)
        self.path = path
        self.code = code
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.path!r}: {self.cause} ({self.code})"


class DiskFullError(StorageError):
    """There is no room on the disk, or what a quota allows is used up. Nothing was kept; with room, try again."""


class ConnectionLostError(StorageError):
    """The connection to a server was lost before COMMIT was sent, or could not be made again.

    Nothing was kept, so try again.
    """


class OutcomeUnknownError(StorageError):
    """The connection to a server was lost at COMMIT: the transaction was committed, or it was not.

    Who has to know looks again, once there is a connection: a turn by ``load_receipt`` or by
    committing it again under its id (S-COMMIT-2), a batch by its source key, an event by its replay
    key, a step by ``look_up_effect``, a lease by ``current_lease`` and its token. All of these may be
    sent again as they were, and happen once. What has no such key may happen twice.
    """

    def __str__(self) -> str:
        return (
            f"{self.path!r}: the connection was lost at COMMIT, so whether it was committed is not "
            f"known ({self.cause})"
        )
