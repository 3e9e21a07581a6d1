"""Queues of jobs: ours and others', each as its own documentation uses it."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import honker
import litequeue
import persistqueue
import persistqueue.exceptions
from huey.storage import SqliteStorage

from lash_store import (
    External,
    Host,
    NewWork,
    ProcessRegistration,
    ProcessRegistry,
    Provenance,
    SessionLease,
    SessionStore,
    Success,
)
from lash_store.process.tables import CLAIM_ORDER

Synchronous = Literal["NORMAL", "FULL"]

JOB: Final[Any] = {"job": 7, "text": "some words about what is to be done"}
PAYLOAD: Final = json.dumps(JOB)
LONG_MS: Final = 10**9
WORKER: Final = "worker"


class Queue(ABC):
    """One queue, open in this process."""

    name: str

    @abstractmethod
    def __init__(self, folder: Path, synchronous: Synchronous) -> None: ...

    @abstractmethod
    def put(self) -> None:
        """Add one job."""

    @abstractmethod
    def claim(self) -> Any:
        """Take the next job; None if there is none."""

    @abstractmethod
    def complete(self, job: Any) -> Any:
        """Say that it is done; return what the package says to that."""

    def following(self, job: Any) -> Any:
        """Say that it is done, and take the next."""
        self.complete(job)
        return self.claim()

    def put_many(self, count: int) -> None:
        """Add several, as cheaply as it can."""
        for _ in range(count):
            self.put()

    def work_many(self, count: int) -> None:
        """Take and complete several, as cheaply as it can."""
        for _ in range(count):
            self.complete(self.claim())

    def fill(self, count: int) -> None:
        """Put so many jobs, for several processes to work on."""
        self.put_many(count)

    def prepare_to_work(self, index: int, of: int) -> None:  # noqa: B027 # reason: most need nothing
        """Make ready to be worker `index` of several processes."""

    def work_once(self) -> None:
        """Do one job: what a worker needs only once is made by then."""
        self.complete(self.claim())

    def work_off(self) -> int:
        """Work until nothing is left; return how many jobs that were."""
        done, job = 0, self.claim()
        while job is not None:
            done += 1
            job = self.following(job)
        return done


class Raw(Queue):
    """Hand-written sqlite3: one table, a lease row that fences, nothing else."""

    name = "hand-written sqlite3, fenced"

    def __init__(self, folder: Path, synchronous: Synchronous) -> None:
        self.connection = sqlite3.connect(folder / "raw.db", isolation_level=None, timeout=30)
        execute = self.execute = self.connection.execute
        execute("PRAGMA journal_mode = WAL")
        execute(f"PRAGMA synchronous = {synchronous}")
        execute(
            "CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, payload TEXT NOT NULL, "
            "token TEXT, expires_ms INTEGER NOT NULL DEFAULT 0)"
        )
        execute("CREATE TABLE IF NOT EXISTS lease (token TEXT, expires_ms INTEGER)")
        execute("INSERT INTO lease VALUES ('t', ?)", (2**60,))

    def put(self) -> None:
        self.execute("BEGIN IMMEDIATE")
        self.execute("INSERT INTO jobs (payload) VALUES (?)", (PAYLOAD,))
        self.execute("COMMIT")

    def claim(self) -> Any:
        token = secrets.token_hex(16)
        self.execute("BEGIN IMMEDIATE")
        now_ms = time.time_ns() // 1_000_000
        row = self.execute(
            "UPDATE jobs SET token = ?, expires_ms = ? WHERE id = (SELECT id FROM jobs "
            "WHERE token IS NULL OR expires_ms <= ? ORDER BY id LIMIT 1) AND EXISTS "
            "(SELECT 1 FROM lease WHERE token = 't' AND expires_ms > ?) RETURNING id, payload",
            (token, now_ms + LONG_MS, now_ms, now_ms),
        ).fetchall()
        self.execute("COMMIT")
        return (row[0][0], token) if row else None

    def complete(self, job: Any) -> None:
        self.execute("BEGIN IMMEDIATE")
        now_ms = time.time_ns() // 1_000_000
        changed = self.execute(
            "DELETE FROM jobs WHERE id = ? AND token = ? AND EXISTS "
            "(SELECT 1 FROM lease WHERE token = 't' AND expires_ms > ?)",
            (*job, now_ms),
        ).rowcount
        self.execute("COMMIT")
        assert changed == 1


class Sessions(Queue):
    """The work queue of a session, in a file of its own; eight of them for several processes."""

    name = "lash_store, a session's file"
    files = 8

    def __init__(self, folder: Path, synchronous: Synchronous) -> None:
        self.folder, self.synchronous = folder, synchronous
        self.at = 0
        self.stores = [self.open(0)]
        self.fences = [self.fence_of(self.stores[0])]

    def open(self, number: int) -> SessionStore:
        path = self.folder / f"session-{number}.db"
        return SessionStore.open(path, session_id=f"s{number}", synchronous=self.synchronous)

    def fence_of(self, store: SessionStore) -> Any:
        lease = store.claim_lease(owner_id=WORKER, ttl_ms=LONG_MS)
        assert isinstance(lease, SessionLease)
        return lease.fence

    def put(self) -> None:
        self.stores[0].enqueue_work(NewWork([JOB]))

    def claim(self) -> Any:
        for _ in self.stores:
            store, fence = self.stores[self.at], self.fences[self.at]
            claim = store.claim_work(fence, owner_id=WORKER, ttl_ms=LONG_MS)
            if claim is not None:
                return claim
            self.at = (self.at + 1) % len(self.stores)
        return None

    def complete(self, job: Any) -> None:
        self.stores[self.at].complete_work(self.fences[self.at], job)

    def following(self, job: Any) -> Any:
        store, fence = self.stores[self.at], self.fences[self.at]
        found = store.complete_and_claim_work(fence, job, ttl_ms=LONG_MS)
        return self.claim() if found is None else found

    def put_many(self, count: int) -> None:
        jobs = [NewWork([JOB], slot_policy="join") for _ in range(count)]
        self.stores[0].enqueue_all_work(jobs)

    def work_many(self, count: int) -> None:
        store, fence = self.stores[0], self.fences[0]
        claim = store.claim_work(fence, owner_id=WORKER, ttl_ms=LONG_MS, max_batches=count)
        assert claim is not None
        store.complete_work(fence, claim)

    def fill(self, count: int) -> None:
        """Put so many jobs, spread over the sessions."""
        for number in range(self.files):
            with self.open(number) as store:
                store.enqueue_all_work([NewWork([JOB]) for _ in range(count // self.files)])

    def prepare_to_work(self, index: int, of: int) -> None:
        self.stores = [self.open(number) for number in range(index, self.files, of)]
        self.fences = [self.fence_of(store) for store in self.stores]


class Shared(Sessions):
    """The same in one database that all sessions share."""

    name = "lash_store, one database"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'shared.db'}"

    def open(self, number: int) -> SessionStore:
        return SessionStore.open(self.url, session_id=f"s{number}", synchronous=self.synchronous)


class Registry(Queue):
    """The process registry: each job a process with a log, an output and a lease of its own."""

    name = "lash_store, process registry"

    def __init__(self, folder: Path, synchronous: Synchronous) -> None:
        self.registry = ProcessRegistry.open(
            folder / "registry.db", synchronous=synchronous, extras=[CLAIM_ORDER]
        )

    def put(self) -> None:
        self.registry.register_process(self.registration())

    def registration(self) -> ProcessRegistration:
        return ProcessRegistration(secrets.token_hex(8), External(JOB), Provenance(Host()))

    def claim(self) -> Any:
        return self.registry.claim_next(owner_id=WORKER, ttl_ms=LONG_MS)

    def complete(self, job: Any) -> None:
        self.registry.complete_process(job.lease.key, Success(1), fence=job.lease.fence)

    def following(self, job: Any) -> Any:
        return self.registry.complete_and_claim_next(job.fence, Success(1), ttl_ms=LONG_MS)[1]

    def put_many(self, count: int) -> None:
        with self.registry.begin() as tx:
            for _ in range(count):
                tx.register_process(self.registration())

    def work_many(self, count: int) -> None:
        with self.registry.begin() as tx:
            claimed = [tx.claim_next(owner_id=WORKER, ttl_ms=LONG_MS) for _ in range(count)]
        with self.registry.begin() as tx:
            for each in claimed:
                assert each is not None
                tx.complete_process(each.lease.key, Success(1), fence=each.lease.fence)


class LiteQueue(Queue):
    """litequeue: put, pop, done."""

    name = "litequeue"

    def __init__(self, folder: Path, synchronous: Synchronous) -> None:
        self.queue = litequeue.LiteQueue(str(folder / "litequeue.db"), timeout=30)
        self.queue.conn.execute(f"PRAGMA synchronous = {synchronous}")

    def put(self) -> None:
        self.queue.put(PAYLOAD)

    def claim(self) -> Any:
        return self.queue.pop()

    def complete(self, job: Any) -> Any:
        return self.queue.done(job.message_id, claim_id=job.claim_id)


class Huey(Queue):
    """huey's storage, as its consumer uses it: what is taken is gone, and a result is stored."""

    name = "huey (no acknowledgement)"

    def __init__(self, folder: Path, synchronous: Synchronous) -> None:
        self.storage = SqliteStorage("bench", filename=str(folder / "huey.db"), timeout=30)
        self.storage.conn.execute(f"PRAGMA synchronous = {synchronous}")
        self.number = 0

    def put(self) -> None:
        self.storage.enqueue(PAYLOAD.encode())

    def claim(self) -> Any:
        return self.storage.dequeue()

    def complete(self, job: Any) -> None:  # noqa: ARG002 # reason: nothing is there to acknowledge
        self.number += 1
        self.storage.put_data(f"{id(self)}-{self.number}", b"1")


class Honker(Queue):
    """honker: enqueue, claim, acknowledge."""

    name = "honker"

    def __init__(self, folder: Path, synchronous: Synchronous) -> None:
        self.database = honker.open(str(folder / "honker.db"))
        self.synchronous = synchronous
        self.queue = self.database.queue("bench", visibility_timeout_s=10**6)

    def put(self) -> None:
        with self.database.transaction() as tx:
            self.queue.enqueue(JOB, tx=tx)

    def claim(self) -> Any:
        return self.until_unlocked(lambda: self.queue.claim_one(WORKER))

    def complete(self, job: Any) -> Any:
        return self.until_unlocked(lambda: self.queue.ack(job.id, WORKER))

    def until_unlocked(self, call: Callable[[], Any]) -> Any:
        """Call again what eight processes at once make fail."""
        while True:
            try:
                return call()
            except RuntimeError as error:
                if "locked" not in str(error):
                    raise

    def put_many(self, count: int) -> None:
        with self.database.transaction() as tx:
            for _ in range(count):
                self.queue.enqueue(JOB, tx=tx)

    def work_many(self, count: int) -> None:
        jobs = self.queue.claim_batch(WORKER, count)
        self.queue.ack_batch([each.id for each in jobs], WORKER)


class PersistQueue(Queue):
    """persist-queue's queue with acknowledgements."""

    name = "persist-queue"

    def __init__(self, folder: Path, synchronous: Synchronous) -> None:
        self.queue = persistqueue.SQLiteAckQueue(str(folder), auto_commit=True, timeout=30)
        for connection in (self.queue._putter, self.queue._getter):  # noqa: SLF001 # reason: it has no option
            connection.execute(f"PRAGMA synchronous = {synchronous}")

    def put(self) -> None:
        self.queue.put(JOB)

    def claim(self) -> Any:
        try:
            return self.queue.get(block=False, raw=True)
        except persistqueue.exceptions.Empty:
            return None

    def complete(self, job: Any) -> Any:
        return self.queue.ack(id=job["pqid"])


QUEUES: Final[dict[str, type[Queue]]] = {
    "raw": Raw,
    "session": Sessions,
    "shared": Shared,
    "registry": Registry,
    "litequeue": LiteQueue,
    "huey": Huey,
    "honker": Honker,
    "persist-queue": PersistQueue,
}
OWN: Final = ("session", "shared", "registry")
