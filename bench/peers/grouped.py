"""Our queues under asyncio: each process works with tasks, whose calls that wait share a commit."""

from __future__ import annotations

import asyncio
from typing import Final

from bench.peers.queues import LONG_MS, WORKER, Shared
from lash_store import AsyncSessionStore, SessionFence, SessionLease

TASKS: Final = 64
"""All together, however many processes they are spread over."""


class GroupedShared(Shared):
    """Eight sessions in one database, and tasks of a process that share its sessions' leases."""

    name = "lash_store, one database, 64 tasks"

    def prepare_to_work(self, index: int, of: int) -> None:
        self.runner = asyncio.Runner()
        self.workers = [
            self.runner.run(self._open(number)) for number in range(index, self.files, of)
        ]

    async def _open(self, number: int) -> tuple[AsyncSessionStore, SessionFence]:
        store = await AsyncSessionStore.open(
            self.url, session_id=f"s{number}", synchronous=self.synchronous
        )
        lease = await store.claim_lease(owner_id=WORKER, ttl_ms=LONG_MS)
        assert isinstance(lease, SessionLease)
        return store, lease.fence

    def work_once(self) -> None:
        self.runner.run(self._work_once())

    async def _work_once(self) -> None:
        store, fence = self.workers[0]
        claim = await store.claim_work(fence, owner_id=WORKER, ttl_ms=LONG_MS)
        assert claim is not None
        await store.complete_work(fence, claim)

    def work_off(self) -> int:
        return self.runner.run(self._work_off())

    async def _work_off(self) -> int:
        tasks = (
            self._work_through(store, fence)
            for store, fence in self.workers
            for _ in range(TASKS // self.files)
        )
        return sum(await asyncio.gather(*tasks))

    async def _work_through(self, store: AsyncSessionStore, fence: SessionFence) -> int:
        done = 0
        claim = await store.claim_work(fence, owner_id=WORKER, ttl_ms=LONG_MS)
        while claim is not None:
            claim = await store.complete_and_claim_work(fence, claim, ttl_ms=LONG_MS)
            done += 1
        return done
