"""PostgreSQL with eight processes at it: by their locks, claims of processes, appends, and a slow wire.

    python -m bench.postgresql_processes [--seconds S] [--hammer-seconds S] [--rounds N]

On a server of its own, with its settings as they come, in one run: each way in turn, medians of the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from subprocess import Popen

import psycopg
from sqlalchemy import make_url

from lash_store import Deployment, LeaseHeld, NewWork, ProcessRegistry, SessionLease, SessionStore
from lash_store.process.statements import next_claimable
from lash_store.testing import run_as_group
from tests.support import hammer, postgresql
from tests.support.proxy import late, proxy
from tests.support.registries import register

PLACE = "bench"
WORKERS = 8
MANY = 10**9
LOCKS = ("own", "none", "global")
APPENDING = {"own locks": "own", "no lock": "none", "one lock": "global"}
WIRES = {0.0: "", 0.001: ", each answer 1 ms later"}
"""A server on the same cores, which are then what all wait for; and one that is elsewhere."""

FURTHER = {**WIRES, 0.004: ", each answer 4 ms later"}
"""And one that is farther: an append is short, and eight at once still need the two cores all the time."""


def main() -> None:
    """Run all, one after another."""
    parser = argparse.ArgumentParser(prog="python -m bench.postgresql_processes")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--hammer-seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with (
        postgresql.own_server(is_durable=True) as server,
        psycopg.connect(server.url, autocommit=True) as admin,
    ):
        there = make_url(server.url).set(drivername="postgresql+psycopg")
        url = there.render_as_string(hide_password=False)
        for delay_s, wire in WIRES.items():
            show(
                f"turns of 8 processes in 32 sessions{wire}, under",
                given.rounds,
                {
                    locks: partial(turns, admin, url, given.seconds, locks, delay_s)
                    for locks in LOCKS
                },
            )
        show(
            "turns of 8 processes in 32 sessions, which are stopped and killed, under",
            given.rounds,
            {locks: partial(hammered, admin, url, given.hammer_seconds, locks) for locks in LOCKS},
        )
        for delay_s, wire in WIRES.items():
            show(
                f"claims of the next process by 8{wire}",
                given.rounds,
                {
                    how: partial(by_workers, admin, url, given.seconds, how, delay_s)
                    for how in ("claim_next", "retrying")
                },
            )
        for delay_s, wire in FURTHER.items():
            show(
                f"appends to 8 processes by 8{wire}, under",
                given.rounds,
                {
                    how: partial(by_workers, admin, url, given.seconds, how, delay_s)
                    for how in APPENDING
                },
            )
        fresh(admin)
        slow_wire(url)


def show(what: str, rounds: int, ways: dict[str, Callable[[], float]]) -> None:
    """Take each way in turn, some rounds, and print the medians and their ratios."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            rates[name].append(way())
    first = next(iter(ways))
    for name, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rates[first], found, strict=True) if b)
        print(
            f"{what} {name}: {statistics.median(found):.0f}/s ({first} is {ratio:.2f} of it)",
            flush=True,
        )


def fresh(admin: psycopg.Connection) -> None:
    """Begin with an empty schema."""
    admin.execute(f"DROP SCHEMA IF EXISTS {PLACE} CASCADE; CREATE SCHEMA {PLACE}")


def turns(admin: psycopg.Connection, url: str, seconds: float, locks: str, delay_s: float) -> float:
    """Return how many turns a second were committed."""
    fresh(admin)
    SessionStore.open(url, session_id="first", schema=PLACE).close()
    with tempfile.TemporaryDirectory() as folder:
        started = [
            hammer.started(url, PLACE, Path(folder), seconds, {}, locks=locks, delay_s=delay_s)
            for _ in range(WORKERS)
        ]
        for each in started:
            each.wait()
        return completed(Path(folder)) / seconds


def hammered(admin: psycopg.Connection, url: str, seconds: float, locks: str) -> float:
    """Return how many turns a second were committed by workers that are stopped beyond their terms, and killed.

    Who is stopped may hold a lock, and who waits for it waits on: for its own session, or for all of them.
    """
    fresh(admin)
    SessionStore.open(url, session_id="first", schema=PLACE).close()
    with tempfile.TemporaryDirectory() as folder:
        hammer.hammer(url, PLACE, Path(folder), seconds, workers=WORKERS, locks=locks)
        if locks != "none":
            hammer.check(admin, PLACE, Path(folder))
        return completed(Path(folder)) / seconds


def completed(folder: Path) -> int:
    """Return of how many turns the workers were told that they are committed."""
    return sum(what == "completed" for what, _ in hammer.answers(folder))


def by_workers(
    admin: psycopg.Connection, url: str, seconds: float, how: str, delay_s: float = 0.0
) -> float:
    """Return how many calls a second eight processes made; nobody claimed what another had."""
    fresh(admin)
    with ProcessRegistry.open(url, schema=PLACE) as registry:
        for at in range(8 if how in APPENDING else 400):
            register(registry, f"p{at:03}")
    code = f"from bench.postgresql_processes import worker; worker({url!r}, {seconds}, {how!r}, {delay_s}, "
    started = [
        Popen(
            [sys.executable, "-c", f"{code}{at})"],
            stdout=-1,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        for at in range(WORKERS)
    ]
    return sum(int(each.communicate()[0]) for each in started) / seconds


def worker(url: str, seconds: float, how: str, delay_s: float, at: int) -> None:
    """Do one thing again and again, in a process of its own, and print how often."""
    hammer.under(APPENDING.get(how, "own"))
    with late(url, delay_s) as there, ProcessRegistry.open(there, schema=PLACE) as registry:
        numbers, done = count(), 0
        time.sleep(max(0.0, 1.5 - time.process_time()))  # until the others are there
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            if how in APPENDING:
                registry.append_event(f"p{at:03}", "tick", next(numbers))
                done += 1
            else:
                done += claim_and_release(registry, how, f"w{at}")
        print(done)


def claim_and_release(registry: ProcessRegistry, how: str, owner_id: str) -> int:
    """Claim what is next, in one call or by looking and trying; give it back at once."""
    if how == "claim_next":
        found = registry.claim_next(owner_id=owner_id, ttl_ms=MANY)
        if found is None:
            return 0
        fence = found.lease.fence
    else:
        with registry.read() as tx:
            row = next_claimable.one(tx.cursor, now_ms=tx.now_ms)
        if row is None:
            return 0
        lease = registry.claim_lease(row[0], owner_id=owner_id, ttl_ms=MANY)
        if isinstance(lease, LeaseHeld):
            return 0
        fence = lease.fence
    registry.release_lease(fence)
    return 1


def slow_wire(url: str) -> None:
    """Add a millisecond to each answer: one call, and many that go together."""
    with (
        proxy(make_url(url), delay_s=0.001) as wire,
        Deployment.open(wire.url, schema=PLACE) as deployment,
    ):
        store = deployment.sessions.create("one", model="m")
        lease = store.claim_lease(owner_id="ann", ttl_ms=MANY)
        assert isinstance(lease, SessionLease)
        fence = lease.fence
        renew = milliseconds(lambda: store.renew_lease(fence, ttl_ms=MANY))
        single = milliseconds(lambda: store.enqueue_work(NewWork([1])))
        calls = [partial(store.enqueue_work, NewWork([1])) for _ in range(64)]
        together = milliseconds(lambda: run_as_group(*calls), times=10) / 64
        print(
            f"a wire of 1 ms: a renewal {renew:.1f} ms; enqueueing {single:.1f} ms alone, "
            f"{together:.2f} ms each among 64 in one transaction"
        )


def milliseconds(call: Callable[[], object], times: int = 60) -> float:
    """Return the median of how long a call takes."""
    taken = []
    for _ in range(times):
        began_s = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began_s)
    return statistics.median(taken) * 1000


if __name__ == "__main__":
    main()
