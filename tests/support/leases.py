"""Lease implementations for the machine: the store's own, and broken ones that it must catch."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select, update

from lash_store import (
    AsyncSessionStore,
    Fence,
    ProcessFence,
    ProcessLease,
    ProcessRegistry,
    SessionFence,
    SessionLease,
    SessionStore,
)
from lash_store.errors import LeaseLostError
from lash_store.process.tables import process_leases
from lash_store.process.tx import ProcessTx
from lash_store.session import statements
from lash_store.session.tx import SessionTx
from lash_store.testing import ManualClock, Observed, SequentialIds, Term
from tests.support.registries import registration

SESSION = "chat"

metadata = MetaData()
register = Table(
    "register", metadata, Column("id", Integer, primary_key=True), Column("value", Text)
)
"""A consumer's own table beside the store's."""


def fence_of(term: Term) -> SessionFence:
    return SessionFence(SESSION, term.owner_id, term.token, term.fencing_token)


def term_of(lease: SessionLease) -> Term:
    return Term(lease.owner_id, lease.fence.token, lease.fencing_token)


def create_register(tx: SessionTx | ProcessTx) -> None:
    metadata.create_all(tx.connection)
    tx.connection.execute(insert(register).values(id=1, value=None))


def fenced_write(tx: SessionTx | ProcessTx, fence: Fence, value: str) -> bool:
    """A consumer's own UPDATE with the fence in its WHERE."""
    changed = tx.connection.execute(
        update(register)
        .where(register.c.id == 1, fence.holds(now_ms=tx.now_ms))
        .values(value=value)
    )
    return changed.rowcount == 1


def observed(tx: SessionTx) -> Observed:
    """Read by statements of its own, not by the operations under test."""
    value = tx.connection.execute(select(register.c.value)).scalar_one()
    row = tx.connection.execute(statements.current_lease(key=SESSION)).one_or_none()
    if row is None:
        return Observed(None, 0, None, value)
    _, owner_id, token, fencing_token, _, expires_at_ms = row
    live = token is not None and expires_at_ms > tx.now_ms
    return Observed(
        owner_id if live else None, fencing_token, expires_at_ms if live else None, value
    )


class StoreLeases:
    """SessionStore on a file."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.ids = SequentialIds()
        self.folder = tempfile.TemporaryDirectory()
        self.store = self._open()
        with self.store.begin() as tx:
            create_register(tx)

    def _open(self) -> SessionStore:
        path = Path(self.folder.name) / "session.db"
        return SessionStore.open(path, session_id=SESSION, clock=self.clock, ids=self.ids)

    def claim(self, owner_id: str, ttl_ms: int) -> Term | None:
        lease = self.store.claim_lease(owner_id=owner_id, ttl_ms=ttl_ms)
        return term_of(lease) if isinstance(lease, SessionLease) else None

    def renew(self, term: Term, ttl_ms: int) -> bool:
        try:
            self.store.renew_lease(fence_of(term), ttl_ms=ttl_ms)
        except LeaseLostError:
            return False
        return True

    def release(self, term: Term) -> bool:
        return self.store.release_lease(fence_of(term))

    def write(self, term: Term, value: str) -> bool:
        with self.store.begin() as tx:
            return fenced_write(tx, fence_of(term), value)

    def observe(self) -> Observed:
        with self.store.read() as tx:
            return observed(tx)

    def reopen(self) -> None:
        self.store.close()
        self.store = self._open()

    def close(self) -> None:
        self.store.close()
        self.folder.cleanup()


class AsyncStoreLeases:
    """AsyncSessionStore on a file."""

    def __init__(self, clock: ManualClock) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.store = AsyncSessionStore.open(
            Path(self.folder.name) / "session.db",
            session_id=SESSION,
            clock=clock,
            ids=SequentialIds(),
        )
        self.runner.run(self.store.transact(create_register))

    def claim(self, owner_id: str, ttl_ms: int) -> Term | None:
        lease = self.runner.run(self.store.claim_lease(owner_id=owner_id, ttl_ms=ttl_ms))
        return term_of(lease) if isinstance(lease, SessionLease) else None

    def renew(self, term: Term, ttl_ms: int) -> bool:
        try:
            self.runner.run(self.store.renew_lease(fence_of(term), ttl_ms=ttl_ms))
        except LeaseLostError:
            return False
        return True

    def release(self, term: Term) -> bool:
        return self.runner.run(self.store.release_lease(fence_of(term)))

    def write(self, term: Term, value: str) -> bool:
        return self.runner.run(
            self.store.transact(lambda tx: fenced_write(tx, fence_of(term), value))
        )

    def observe(self) -> Observed:
        return self.runner.run(self.store.read(observed))

    def close(self) -> None:
        self.runner.run(self.store.aclose())
        self.runner.close()
        self.folder.cleanup()


class RegistryLeases:
    """ProcessRegistry on a file: the live owner that claims again gets a new term."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.ids = SequentialIds()
        self.folder = tempfile.TemporaryDirectory()
        self.store = self._open()
        self.store.register_process(registration("p"))
        with self.store.begin() as tx:
            create_register(tx)

    def _open(self) -> ProcessRegistry:
        path = Path(self.folder.name) / "registry.db"
        return ProcessRegistry.open(path, clock=self.clock, ids=self.ids)

    def claim(self, owner_id: str, ttl_ms: int) -> Term | None:
        lease = self.store.claim_lease("p", owner_id=owner_id, ttl_ms=ttl_ms)
        if isinstance(lease, ProcessLease):
            return Term(lease.owner_id, lease.fence.token, lease.fencing_token)
        return None

    def renew(self, term: Term, ttl_ms: int) -> bool:
        try:
            self.store.renew_lease(ProcessFence("p", *term), ttl_ms=ttl_ms)
        except LeaseLostError:
            return False
        return True

    def release(self, term: Term) -> bool:
        return self.store.release_lease(ProcessFence("p", *term))

    def write(self, term: Term, value: str) -> bool:
        with self.store.begin() as tx:
            return fenced_write(tx, ProcessFence("p", *term), value)

    def observe(self) -> Observed:
        with self.store.read() as tx:
            value = tx.connection.execute(select(register.c.value)).scalar_one()
            found = tx.connection.execute(select(process_leases)).one_or_none()
            if found is None:
                return Observed(None, 0, None, value)
            _, owner_id, token, number, _, ends_ms = found
            live = token is not None and ends_ms > tx.now_ms
            return Observed(owner_id if live else None, number, ends_ms if live else None, value)

    def reopen(self) -> None:
        self.store.close()
        self.store = self._open()

    def close(self) -> None:
        self.store.close()
        self.folder.cleanup()


@dataclass
class _State:
    term: Term | None = None
    expires_at_ms: int = 0
    fencing_token: int = 0
    value: str | None = None


class PlainLeases:
    """A correct implementation in plain Python, for the broken ones below to deviate from."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.ids = SequentialIds()
        self.state = _State()

    def is_live(self) -> bool:
        return self.state.term is not None and self.clock.now_ms() < self.state.expires_at_ms

    def matches(self, term: Term) -> bool:
        return term == self.state.term

    def claim(self, owner_id: str, ttl_ms: int) -> Term | None:
        current = self.state.term
        if current is not None and self.is_live() and current.owner_id != owner_id:
            return None
        number = self.state.fencing_token + 1
        term = Term(owner_id, self.ids.new_token(), number)
        expires_at_ms = self.clock.now_ms() + ttl_ms
        self.state = replace(
            self.state, term=term, expires_at_ms=expires_at_ms, fencing_token=number
        )
        return term

    def renew(self, term: Term, ttl_ms: int) -> bool:
        if not (self.matches(term) and self.is_live()):
            return False
        self.state.expires_at_ms = self.clock.now_ms() + ttl_ms
        return True

    def release(self, term: Term) -> bool:
        if not self.matches(term):
            return False
        self.state.term = None
        return True

    def write(self, term: Term, value: str) -> bool:
        if not (self.matches(term) and self.is_live()):
            return False
        self.state.value = value
        return True

    def observe(self) -> Observed:
        term = self.state.term if self.is_live() else None
        return Observed(
            term.owner_id if term else None,
            self.state.fencing_token,
            self.state.expires_at_ms if term else None,
            self.state.value,
        )


class NoTokenCheck(PlainLeases):
    """Broken: the owner id and the number are taken for proof."""

    def matches(self, term: Term) -> bool:
        current = self.state.term
        return current is not None and term._replace(token=current.token) == current


class ExpiryInclusive(PlainLeases):
    """Broken: at the millisecond of its end the term still counts as live."""

    def is_live(self) -> bool:
        return self.state.term is not None and self.clock.now_ms() <= self.state.expires_at_ms


class FencingResetOnRelease(PlainLeases):
    """Broken: a release deletes the row, and the number starts anew."""

    def release(self, term: Term) -> bool:
        released = super().release(term)
        if released:
            self.state.fencing_token = 0
        return released


class RenewAfterExpiry(PlainLeases):
    """Broken: an expired term can be renewed while nobody has taken over."""

    def renew(self, term: Term, ttl_ms: int) -> bool:
        if not self.matches(term):
            return False
        self.state.expires_at_ms = self.clock.now_ms() + ttl_ms
        return True


class StaleWriteLands(PlainLeases):
    """Broken: writes are not fenced."""

    def write(self, term: Term, value: str) -> bool:
        self.state.value = value
        return self.matches(term) and self.is_live()


class RefusalChanges(PlainLeases):
    """Broken: a refused claim shortens the holder's term."""

    def claim(self, owner_id: str, ttl_ms: int) -> Term | None:
        term = super().claim(owner_id, ttl_ms)
        if term is None:
            self.state.expires_at_ms -= 1
        return term


BROKEN = (
    NoTokenCheck,
    ExpiryInclusive,
    FencingResetOnRelease,
    RenewAfterExpiry,
    StaleWriteLands,
    RefusalChanges,
)
