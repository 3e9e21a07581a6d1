"""Our queues under asyncio: each process works with tasks, whose calls that wait share a commit."""

from __future__ import annotations

import asyncio
from typing import Final

from bench.peers.queues import LONG_MS, WORKER, Shared
from lash_store import AsyncSessionStore, SessionLease

TASKS: Final = 64
"""All together, however many processes they are spread over."""


class GroupedShared(Shared):
    """Eight sessions in one database, and tasks of a process that share its sessions' leases."""

    name = "lash_store, one database, 64 tasks"

    def prepare_to_work(self, index: int, of: int) -> None:
        self.mine = range(index, self.files, of)

    def work_off(self) -> int:
        return asyncio.run(self._work_off())

    async def _work_off(self) -> int:
        return sum(await asyncio.gather(*(self._work_in(number) for number in self.mine)))

    async def _work_in(self, number: int) -> int:
        async with AsyncSessionStore.open(
            self.url, session_id=f"s{number}", synchronous=self.synchronous
        ) as store:
            lease = await store.claim_lease(owner_id=WORKER, ttl_ms=LONG_MS)
            assert isinstance(lease, SessionLease)
            tasks = (self._work_through(store, lease) for _ in range(TASKS // self.files))
            return sum(await asyncio.gather(*tasks))

    async def _work_through(self, store: AsyncSessionStore, lease: SessionLease) -> int:
        done, fence = 0, lease.fence
        claim = await store.claim_work(fence, owner_id=WORKER, ttl_ms=LONG_MS)
        while claim is not None:
            claim = await store.complete_and_claim_work(fence, claim, ttl_ms=LONG_MS)
            done += 1
        return done
