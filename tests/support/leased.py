"""Every lease there is, behind one face, for the one suite that all of them go through."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Column, MetaData, Table, Text

from lash_store import (
    AsyncProcessRegistry,
    AsyncSessionStore,
    Fence,
    Lease,
    LeaseHeld,
    Leases,
    LeaseTable,
    ProcessFence,
    ProcessRegistry,
    SessionFence,
    SessionStore,
)
from lash_store.testing import ManualClock, SequentialIds
from tests.support.registries import registration

metadata = MetaData()
jobs = Table(
    "jobs",
    metadata,
    Column("held_until", BigInteger, nullable=False, server_default="0"),
    Column("name", Text, primary_key=True),
    Column("held_by", Text),
    Column("secret", Text),
    Column("term", BigInteger, nullable=False, server_default="0"),
    Column("held_since", BigInteger, nullable=False, server_default="0"),
)
"""A consumer's own table, its columns in an order and under names of its own."""


class JobFence(Fence, frozen=True):
    """A lease on a consumer's own table, whole: this class and the line behind it."""

    leases = LeaseTable(
        jobs,
        key=jobs.c.name,
        owner_id=jobs.c.held_by,
        token=jobs.c.secret,
        fencing_token=jobs.c.term,
        claimed_at_ms=jobs.c.held_since,
        expires_at_ms=jobs.c.held_until,
    )


JOBS = Leases(JobFence)


class Leased(ABC):
    """One lease, on a file; fences of it are `fence` with `key`."""

    fence: ClassVar[type[Fence]]
    key: ClassVar[str]
    reentrant: ClassVar[bool] = False

    def __init__(self, path: Path, clock: ManualClock) -> None:
        self.path = path
        self.clock = clock
        self.ids = SequentialIds()
        self.open()

    @property
    def table(self) -> str:
        """The table that the lease's row stands in, made of the columns in ``LeaseTable`` order."""
        return str(self.fence.leases.table.name)

    def columns(self) -> str:
        """The columns of a term, in the order of a ``LeaseTerm``."""
        leases = self.fence.leases
        columns = (
            leases.key,
            leases.owner_id,
            leases.token,
            leases.fencing_token,
            leases.claimed_at_ms,
            leases.expires_at_ms,
        )
        return ", ".join(column.name for column in columns)

    @abstractmethod
    def open(self) -> None: ...
    @abstractmethod
    def close(self) -> None: ...
    @abstractmethod
    def claim(self, owner_id: str, ttl_ms: int) -> Lease[Any] | LeaseHeld: ...
    @abstractmethod
    def renew(self, fence: Any, ttl_ms: int) -> Lease[Any]: ...
    @abstractmethod
    def release(self, fence: Any) -> bool: ...
    @abstractmethod
    def current(self) -> Lease[Any] | None: ...
    @abstractmethod
    def transact(self, work: Any) -> Any: ...
    @abstractmethod
    def read(self, work: Any) -> Any: ...

    def require(self, tx: Any, fence: Any) -> None:
        tx.require(fence)


class SessionLeased(Leased):
    fence: ClassVar[type[Fence]] = SessionFence
    key = "s"
    reentrant = True

    def open(self) -> None:
        self.store: Any = SessionStore.open(
            self.path, session_id="s", clock=self.clock, ids=self.ids
        )

    def close(self) -> None:
        self.store.close()

    def claim(self, owner_id: str, ttl_ms: int) -> Lease[Any] | LeaseHeld:
        lease: Lease[Any] | LeaseHeld = self.store.claim_lease(owner_id=owner_id, ttl_ms=ttl_ms)
        return lease

    def renew(self, fence: Any, ttl_ms: int) -> Lease[Any]:
        lease: Lease[Any] = self.store.renew_lease(fence, ttl_ms=ttl_ms)
        return lease

    def release(self, fence: Any) -> bool:
        return bool(self.store.release_lease(fence))

    def current(self) -> Lease[Any] | None:
        lease: Lease[Any] | None = self.store.current_lease()
        return lease

    def transact(self, work: Any) -> Any:
        with self.store.begin() as tx:
            return work(tx)

    def read(self, work: Any) -> Any:
        with self.store.read() as tx:
            return work(tx)


class ProcessLeased(SessionLeased):
    fence = ProcessFence
    key = "p"
    reentrant = False

    def open(self) -> None:
        self.store = ProcessRegistry.open(self.path, clock=self.clock, ids=self.ids)
        self.store.register_process(registration("p"))

    def claim(self, owner_id: str, ttl_ms: int) -> Lease[Any] | LeaseHeld:
        lease: Lease[Any] | LeaseHeld = self.store.claim_lease(
            "p", owner_id=owner_id, ttl_ms=ttl_ms
        )
        return lease

    def current(self) -> Lease[Any] | None:
        lease: Lease[Any] | None = self.store.current_lease("p")
        return lease


class AsyncFace:
    """An asyncio store whose calls are waited for, so that a plain test can use it."""

    def __init__(self, store: Any) -> None:
        self._runner = asyncio.Runner()
        self._store = store

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)
        return lambda *args, **kwargs: self._runner.run(operation(*args, **kwargs))

    def close(self) -> None:
        self._runner.run(self._store.aclose())
        self._runner.close()


class AsyncSessionLeased(SessionLeased):
    def open(self) -> None:
        store = AsyncSessionStore.open(self.path, session_id="s", clock=self.clock, ids=self.ids)
        self.store = AsyncFace(store)
        self.store.check_schema()  # which opens it

    def transact(self, work: Any) -> Any:
        return self.store.transact(work)

    def read(self, work: Any) -> Any:
        return self.store.read(work)


class AsyncProcessLeased(ProcessLeased):
    def open(self) -> None:
        store = AsyncProcessRegistry.open(self.path, clock=self.clock, ids=self.ids)
        self.store = AsyncFace(store)
        self.store.register_process(registration("p"))

    def transact(self, work: Any) -> Any:
        return self.store.transact(work)

    def read(self, work: Any) -> Any:
        return self.store.read(work)


class JobLeased(SessionLeased):
    """A lease on a consumer's own table, in the file of a session store."""

    fence = JobFence
    key = "job-7"
    reentrant = False

    def open(self) -> None:
        super().open()
        with self.store.begin() as tx:
            metadata.create_all(tx.connection)

    def claim(self, owner_id: str, ttl_ms: int) -> Lease[Any] | LeaseHeld:
        with self.store.begin() as tx:
            return JOBS.claim(tx, "job-7", owner_id=owner_id, ttl_ms=ttl_ms)

    def renew(self, fence: Any, ttl_ms: int) -> Lease[Any]:
        with self.store.begin() as tx:
            return JOBS.renew(tx, fence, ttl_ms=ttl_ms)

    def release(self, fence: Any) -> bool:
        with self.store.begin() as tx:
            return JOBS.release(tx, fence)

    def current(self) -> Lease[Any] | None:
        with self.store.read() as tx:
            return JOBS.current(tx, "job-7")

    def require(self, tx: Any, fence: Any) -> None:
        JOBS.require(tx, fence)


LEASED = {
    "session": SessionLeased,
    "session, asyncio": AsyncSessionLeased,
    "process": ProcessLeased,
    "process, asyncio": AsyncProcessLeased,
    "a consumer's own": JobLeased,
}
