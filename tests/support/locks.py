"""Locks for the machine: the stores' own leases, plain ones, and broken ones that it must catch."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select, update

from lash_store import (
    AsyncSessionStore,
    Fence,
    Lease,
    ProcessRegistry,
    SessionStore,
)
from lash_store.testing import ManualClock, SequentialIds
from tests.support.broken import Broken
from tests.support.leased import JOBS, metadata as jobs_metadata
from tests.support.on_file import SHARED, OnFile
from tests.support.registries import registration

metadata = MetaData()
register = Table(
    "register", metadata, Column("id", Integer, primary_key=True), Column("value", Text)
)
"""A consumer's own table beside the store's, whose writes are fenced."""


def create_register(tx: Any) -> None:
    metadata.create_all(tx.connection)
    tx.connection.execute(insert(register).values(id=1, value=None))


def fenced_write(tx: Any, fence: Fence, value: str) -> bool:
    """A consumer's own UPDATE with the fence in its WHERE."""
    changed = tx.connection.execute(
        update(register).where(register.c.id == 1, fence.holds(tx)).values(value=value)
    )
    return bool(changed.rowcount == 1)


def written(tx: Any) -> Any:
    return tx.connection.execute(select(register.c.value)).scalar_one()


def forged_fence(fence: Any, change: str) -> Any:
    values = {"owner_id": fence.owner_id, "token": fence.token, "number": fence.fencing_token}
    if change == "token":
        values["token"] += "-forged"
    elif change == "owner":
        values["owner_id"] += "-forged"
    else:
        values["number"] = max(0, values["number"] + (1 if change.startswith("higher") else -1))
    return type(fence)(fence.key, values["owner_id"], values["token"], values["number"])


class StoreClient:
    """A client of a lease of ours, on a store that is opened for all of them."""

    def __init__(self, locks: StoreLocks, actor: str) -> None:
        self.locks, self.actor = locks, actor
        self.term: Any = None

    def acquire(self, ttl_ms: int) -> bool:
        found = self.locks.claim(self.actor, ttl_ms)
        if isinstance(found, Lease):
            self.term = found.fence
        return isinstance(found, Lease)

    def renew(self, ttl_ms: int) -> bool:
        if self.term is None:
            return False
        self.locks.renew_lease(self.term, ttl_ms)
        return True

    def release(self) -> bool:
        return self.term is not None and bool(self.locks.release_lease(self.term))

    def fence(self) -> int:
        return int(self.term.fencing_token)

    def write(self, value: str) -> bool:
        return self.term is not None and bool(self.locks.write(self.term, value))

    def forged(self, change: str) -> StoreClient:
        forger = StoreClient(self.locks, self.actor)
        forger.term = forged_fence(self.term, change)
        return forger


class StoreLocks(OnFile):
    """SessionStore on a file."""

    def __init__(self, clock: ManualClock) -> None:
        self.ids = SequentialIds()
        super().__init__(clock)
        with self.store.begin() as tx:
            create_register(tx)

    def open(self, where: str) -> Any:
        return SessionStore.open(where, session_id="s", clock=self.clock, ids=self.ids)

    def client(self, actor: str) -> StoreClient:
        return StoreClient(self, actor)

    def claim(self, owner_id: str, ttl_ms: int) -> Any:
        return self.store.claim_lease(owner_id=owner_id, ttl_ms=ttl_ms)

    def renew_lease(self, fence: Any, ttl_ms: int) -> Any:
        return self.store.renew_lease(fence, ttl_ms=ttl_ms)

    def release_lease(self, fence: Any) -> Any:
        return self.store.release_lease(fence)

    def current(self) -> Any:
        return self.store.current_lease()

    def write(self, fence: Any, value: str) -> bool:
        with self.store.begin() as tx:
            return fenced_write(tx, fence, value)

    def value(self) -> Any:
        with self.store.read() as tx:
            return written(tx)

    def holder(self) -> str | None:
        lease = self.current()
        return None if lease is None else str(lease.owner_id)


class SharedStoreLocks(StoreLocks):
    """SessionStore in a database of many sessions."""

    url = SHARED


class RegistryLocks(StoreLocks):
    """ProcessRegistry: who holds a term and claims again gets a new one."""

    def open(self, where: str) -> Any:
        registry = ProcessRegistry.open(where, clock=self.clock, ids=self.ids)
        registry.register_process(registration("p"))
        return registry

    def claim(self, owner_id: str, ttl_ms: int) -> Any:
        return self.store.claim_lease("p", owner_id=owner_id, ttl_ms=ttl_ms)

    def current(self) -> Any:
        return self.store.current_lease("p")


class JobLocks(StoreLocks):
    """A lease on a consumer's own table."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        with self.store.begin() as tx:
            jobs_metadata.create_all(tx.connection)

    def claim(self, owner_id: str, ttl_ms: int) -> Any:
        with self.store.begin() as tx:
            return JOBS.claim(tx, "job", owner_id=owner_id, ttl_ms=ttl_ms)

    def renew_lease(self, fence: Any, ttl_ms: int) -> Any:
        with self.store.begin() as tx:
            return JOBS.renew(tx, fence, ttl_ms=ttl_ms)

    def release_lease(self, fence: Any) -> Any:
        with self.store.begin() as tx:
            return JOBS.release(tx, fence)

    def current(self) -> Any:
        with self.store.read() as tx:
            return JOBS.current(tx, "job")


class AsyncClient:
    """The same on an asyncio store."""

    def __init__(self, locks: AsyncStoreLocks, actor: str) -> None:
        self.store, self.actor = locks.store, actor
        self.term: Any = None

    async def acquire(self, ttl_ms: int) -> bool:
        found = await self.store.claim_lease(owner_id=self.actor, ttl_ms=ttl_ms)
        if isinstance(found, Lease):
            self.term = found.fence
        return isinstance(found, Lease)

    async def renew(self, ttl_ms: int) -> bool:
        if self.term is None:
            return False
        await self.store.renew_lease(self.term, ttl_ms=ttl_ms)
        return True

    async def release(self) -> bool:
        return self.term is not None and bool(await self.store.release_lease(self.term))

    def fence(self) -> int:
        return int(self.term.fencing_token)

    async def write(self, value: str) -> bool:
        term = self.term
        if term is None:
            return False
        return bool(await self.store.transact(lambda tx: fenced_write(tx, term, value)))


class AsyncStoreLocks:
    """AsyncSessionStore on a file."""

    def __init__(self, clock: ManualClock) -> None:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "s.db"
        self.store: Any = AsyncSessionStore.open(
            path, session_id="s", clock=clock, ids=SequentialIds()
        )
        self.is_ready = False

    async def client(self, actor: str) -> AsyncClient:
        if not self.is_ready:
            await self.store.transact(create_register)
            self.is_ready = True
        return AsyncClient(self, actor)

    async def value(self) -> Any:
        return await self.store.read(written)

    async def holder(self) -> str | None:
        lease = await self.store.current_lease()
        return None if lease is None else str(lease.owner_id)

    async def aclose(self) -> None:
        await self.store.aclose()
        self.folder.cleanup()


# Plain ones, without any store, and what can be wrong with them.


@dataclass
class State:
    owner: str | None = None
    token: int = 0
    ends_ms: int = 0
    number: int = 0
    value: Any = None


@dataclass
class PlainClient:
    locks: PlainLocks
    actor: str
    token: int = 0
    number: int = 0

    def acquire(self, ttl_ms: int) -> bool:
        state = self.locks.state
        if self.locks.is_live():
            return False
        state.number += 1
        state.owner, state.token = self.actor, state.number
        state.ends_ms = self.locks.clock.now_ms() + ttl_ms
        self.token = self.number = state.number
        return True

    def is_mine(self) -> bool:
        state = self.locks.state
        return state.owner == self.actor and state.token == self.token != 0

    def holds(self) -> bool:
        return self.is_mine() and self.locks.is_live()

    def renew(self, ttl_ms: int) -> bool:
        if not self.holds():
            return False
        self.locks.state.ends_ms = self.locks.clock.now_ms() + ttl_ms
        return True

    def release(self) -> bool:
        if not self.is_mine():
            return False
        self.locks.state.owner = None
        return True

    def fence(self) -> int:
        return self.number

    def write(self, value: str) -> bool:
        if not self.holds():
            return False
        self.locks.state.value = value
        return True


@dataclass
class PlainLocks:
    """Sound, in plain Python."""

    clock: ManualClock
    state: State = field(default_factory=State)
    kind: ClassVar[type[PlainClient]] = PlainClient

    def client(self, actor: str) -> PlainClient:
        return self.kind(self, actor)

    def is_live(self) -> bool:
        return self.state.owner is not None and self.clock.now_ms() < self.state.ends_ms

    def value(self) -> Any:
        return self.state.value


class _BrokenClients(Broken):
    """Notes clients, as the locks that have them."""

    def __call__(self, *names: str) -> Any:
        def note(client: type[PlainClient]) -> type[PlainClient]:
            kind = type(client.__name__, (PlainLocks,), {"kind": client, "__doc__": client.__doc__})
            self[client.__name__] = (kind, set(names))
            return client

        return note


broken = _BrokenClients()


@broken("foreign-release")
class ReleasesAnybodys(PlainClient):
    """A release asks not whose it is."""

    def release(self) -> bool:
        self.locks.state.owner = None
        return True


@broken("foreign-release", "stale-write", "stale-renewal")
class OwnerAlone(PlainClient):
    """The owner's name is proof enough: a worker that was taken for dead ends the term of its successor."""

    def is_mine(self) -> bool:
        return self.locks.state.owner == self.actor


@broken("foreign-release", "stale-write", "stale-renewal")
class OwnersFold(PlainClient):
    """Two owners whose names differ in their case alone are one."""

    def is_mine(self) -> bool:
        return self.locks.state.owner == self.actor.lower()

    def acquire(self, ttl_ms: int) -> bool:
        took = super().acquire(ttl_ms)
        if took:
            self.locks.state.owner = self.actor.lower()
        return took


@broken("two-holders", "reentry")
class CheckThenAct(PlainClient):
    """What was free when this client last looked is free."""

    def acquire(self, ttl_ms: int) -> bool:
        if getattr(self, "looked", False):
            self.locks.state.owner = None
        self.looked = not self.locks.is_live()
        return super().acquire(ttl_ms)


@broken("lost-hold", "release-refused")
class RefusalLoses(PlainClient):
    """A refused call forgets what its caller holds."""

    def acquire(self, ttl_ms: int) -> bool:
        took = super().acquire(ttl_ms)
        if not took:
            self.token = 0
        return took

    def release(self) -> bool:
        if not self.token:
            raise ValueError("nothing was acquired")
        return super().release()


@broken("stale-renewal")
class RenewsWhatIsOver(PlainClient):
    """A term that is over can be renewed as long as nobody has taken over."""

    def renew(self, ttl_ms: int) -> bool:
        if not self.is_mine():
            return False
        self.locks.state.ends_ms = self.locks.clock.now_ms() + ttl_ms
        return True


@broken("stale-write")
class UnfencedWrite(PlainClient):
    """Whoever was given the lock once may write."""

    def write(self, value: str) -> bool:
        if not self.number:
            return False
        self.locks.state.value = value
        return True


@broken("number")
class NumberStartsAnew(PlainClient):
    """A release deletes the row, and the number with it."""

    def release(self) -> bool:
        released = super().release()
        if released:
            self.locks.state.number = 0
        return released


@broken("write-lost")
class LostUpdate(PlainClient):
    """A write that lands in a copy."""

    def write(self, value: str) -> bool:
        held = self.holds()
        if held and self.locks.state.number % 2:
            self.locks.state.value = value
        return held


@broken("stale-write")
class RefusedWriteErases(PlainClient):
    """What was refused has emptied it before."""

    def write(self, value: str) -> bool:
        written = super().write(value)
        if not written:
            self.locks.state.value = None
        return written


@broken("stale-write")
class WritesBackWhatItKnew(PlainClient):
    """Who was refused puts its own last value in the place of the new holder's."""

    last: Any = None

    def write(self, value: str) -> bool:
        written = super().write(value)
        if written:
            self.last = value
        elif self.last is not None:
            self.locks.state.value = self.last
        return written


@broken("write-lost")
class ReleaseErases(PlainClient):
    """What was written goes with the term."""

    def release(self) -> bool:
        released = super().release()
        if released:
            self.locks.state.value = None
        return released


@broken("write-lost")
class TakingErases(PlainClient):
    """Whoever takes it begins with nothing."""

    def acquire(self, ttl_ms: int) -> bool:
        acquired = super().acquire(ttl_ms)
        if acquired:
            self.locks.state.value = None
        return acquired


@broken("write-lost")
class RefusalErases(PlainClient):
    """Whoever can't have it destroys what its holder has written."""

    def acquire(self, ttl_ms: int) -> bool:
        acquired = super().acquire(ttl_ms)
        if not acquired:
            self.locks.state.value = None
        return acquired


class NothingDurable(PlainLocks):
    """Opened again it has forgotten what was written."""

    def reopen(self) -> None:
        self.state.value = None


broken["NothingDurable"] = (NothingDurable, {"write-lost"})


@broken("refused-free")
class NeverExpires(PlainClient):
    """Whoever dies with it keeps it."""

    def acquire(self, ttl_ms: int) -> bool:
        return super().acquire(10**9)


class InclusiveEnd(PlainLocks):
    """At the millisecond of its end a term still counts."""

    def is_live(self) -> bool:
        return self.state.owner is not None and self.clock.now_ms() <= self.state.ends_ms


broken["InclusiveEnd"] = (InclusiveEnd, {"refused-free", "stale-write", "stale-renewal"})
