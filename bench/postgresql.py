"""PostgreSQL: a renewal beside the bare cursor, appends by their locks, an event loop's calls together, a long queue.

    python -m bench.postgresql

On a server of its own, or the one that LASH_STORE_TEST_POSTGRESQL names, in one run.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
from collections.abc import Callable
from itertools import count
from time import perf_counter
from typing import Any

import psycopg
from sqlalchemy import make_url

from lash_store import AsyncDeployment, Deployment, NewWork, SessionLease, SessionStore
from lash_store._backends.postgresql import handle
from lash_store.session import statements
from tests.support import postgresql
from tests.support.registries import register

PLACE = "bench"
BEGIN = (
    "BEGIN; SET LOCAL lock_timeout = 15000; SELECT pg_advisory_xact_lock(1); "
    "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
)
UPDATE = (
    f"UPDATE {PLACE}.lash_session_execution_leases SET lease_expires_at_ms = $1 "
    "WHERE store = 'one' AND session_id = 'one' RETURNING lease_token"
)
MANY = 10**9


def main() -> None:
    """Run all, one after another."""
    with postgresql.server() as server, psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"DROP SCHEMA IF EXISTS {PLACE} CASCADE; CREATE SCHEMA {PLACE}")
        url = (
            make_url(server)
            .set(drivername="postgresql+psycopg")
            .render_as_string(hide_password=False)
        )
        with Deployment.open(url, schema=PLACE) as deployment:
            store = deployment.sessions.create("one", model="m")
            compare_renewals(store, admin)
            compare_locks(deployment)
        asyncio.run(compare_loops(url))
        time_long_queue(url, admin)
        admin.execute(f"DROP SCHEMA {PLACE} CASCADE")


def compare_renewals(store: SessionStore, connection: psycopg.Connection[Any]) -> None:
    """Time a renewal, and the same three statements on a bare cursor, in turn."""
    lease = store.claim_lease(owner_id="ann", ttl_ms=MANY)
    assert isinstance(lease, SessionLease)
    cursor = psycopg.RawCursor(connection)

    def bare() -> None:
        cursor.execute(BEGIN, prepare=False)
        cursor.execute(UPDATE, (10**13,)).fetchall()
        cursor.execute("COMMIT")

    def ours() -> None:
        store.renew_lease(lease.fence, ttl_ms=MANY)

    pairs = [(microseconds(ours), microseconds(bare)) for _ in range(7)]
    ratio = statistics.median(mine / theirs for mine, theirs in pairs)
    print(f"renew_lease: {pairs[-1][0]:.0f} us, the bare cursor {pairs[-1][1]:.0f}: {ratio:.2f}")


def compare_locks(deployment: Deployment) -> None:
    """Time appends to eight processes, under the lock of each and under that of all."""
    names = [f"p{at}" for at in range(8)]
    for name in names:
        register(deployment.processes, name)
    numbers, own = count(), vars(handle)["locks_of"]

    def append(name: str) -> None:
        deployment.processes.request_cancel(name, reason=str(next(numbers)))

    found: dict[str, list[float]] = {"its own": [], "its kind's": []}
    for _ in range(3):
        for which, locks_of in (("its own", own), ("its kind's", whole_kind(own))):
            vars(handle)["locks_of"] = locks_of
            found[which].append(per_second(append, names))
    vars(handle)["locks_of"] = own
    for which, rates in found.items():
        print(
            f"append_event by eight threads, under {which} lock: {statistics.median(rates):.0f}/s"
        )


def whole_kind(own: Callable[..., Any]) -> Callable[..., Any]:
    """Return what locks the kind, whatever an operation is about."""
    return lambda place, schema, scope, _: own(place, schema, scope, None)


async def compare_loops(url: str) -> None:
    """Time the enqueues of an event loop, together and one by one."""
    async with AsyncDeployment.open(url, schema=PLACE) as deployment:
        store = await deployment.sessions.open("one")
        assert store is not None
        began_s = perf_counter()
        await asyncio.gather(*(store.enqueue_work(NewWork([at])) for at in range(1_000)))
        together = 1_000 / (perf_counter() - began_s)
        began_s = perf_counter()
        for at in range(1_000):
            await store.enqueue_work(NewWork([at]))
        print(
            f"enqueue_work of a loop: together {together:.0f}/s, one by one "
            f"{1_000 / (perf_counter() - began_s):.0f}/s"
        )


def time_long_queue(url: str, admin: psycopg.Connection[Any]) -> None:
    """Time claims of the first of 100,000 batches that wait, among a million rows of many sessions."""
    table = f"{PLACE}.lash_queued_work_batches"
    with SessionStore.open(url, session_id="long", schema=PLACE) as store:
        store.enqueue_work(NewWork([1]))
        row = admin.execute(f"SELECT * FROM {table} WHERE store = 'long'")
        names = [column.name for column in row.description or ()]
        for scope, rows in (("'long'", 100_000), ("'other ' || g % 1000", 900_000)):
            drawn = {
                "store": scope,
                "session_id": scope,
                "enqueue_seq": "g + 1",
                "batch_id": "'b' || g",
            }
            values = ", ".join(drawn.get(name, name) for name in names)
            admin.execute(
                f"INSERT INTO {table} SELECT {values} FROM {table}, generate_series(1, {rows}) AS g "
                "WHERE store = 'long' AND enqueue_seq = 1"
            )
        admin.execute("ANALYZE")
        lease = store.claim_lease(owner_id="ann", ttl_ms=MANY)
        assert isinstance(lease, SessionLease)

        def look() -> None:
            with store.read() as tx:
                now_ms = tx.now_ms
                began_s = perf_counter()
                statements.claimable_work.all(
                    tx.own_cursor, session_id="long", now_ms=now_ms, max_batches=1
                )
                looks.append(perf_counter() - began_s)

        looks: list[float] = []
        for _ in range(300):
            look()
        claims = [
            microseconds(lambda: store.claim_work(lease.fence, owner_id="ann", ttl_ms=MANY), 1)
            for _ in range(300)
        ]
        print(
            f"100,000 that wait among 1,000,000 rows: the first is found in "
            f"{statistics.median(looks) * 1000:.2f} ms, a claim takes {statistics.median(claims) / 1000:.2f} ms, "
            f"of a hundred the slowest {sorted(claims)[-len(claims) // 100] / 1000:.2f} ms"
        )


def microseconds(call: Callable[[], object], times: int = 400) -> float:
    """Return how long a call takes."""
    began_s = perf_counter()
    for _ in range(times):
        call()
    return (perf_counter() - began_s) / times * 1e6


def per_second(call: Callable[[str], None], names: list[str], seconds: float = 2.0) -> float:
    """Return how many calls a second threads make, one for each name."""
    done, until_s = [0] * len(names), perf_counter() + seconds

    def go_on(at: int) -> None:
        while perf_counter() < until_s:
            call(names[at])
            done[at] += 1

    threads = [threading.Thread(target=go_on, args=(at,)) for at in range(len(names))]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return sum(done) / seconds


if __name__ == "__main__":
    main()
