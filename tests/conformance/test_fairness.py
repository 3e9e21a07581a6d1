"""The queue of processes for a file's write lock: bursts, and who is next."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from lash_store import AsyncSessionStore, SessionStore
from lash_store._backends import driver_fault
from lash_store._backends.sqlite import dialect, fairness
from lash_store._backends.sqlite.connection import StoreConnection
from lash_store._backends.sqlite.fairness import WriteQueue
from lash_store.testing.crashing import FaultKind
from tests.support.databases import apart, database_of

pytestmark = [
    pytest.mark.sqlite("SQLite's write lock"),
    pytest.mark.posix,
]

LATER_S = count(1_000_000)


@pytest.fixture
def here(path: Path) -> Iterator[SessionStore]:
    with SessionStore.open(path, session_id="s") as store:
        yield store


@pytest.fixture
def other(here: SessionStore, path: Path) -> Iterator[SessionStore]:
    """The same file, as another process would have it."""
    store: SessionStore = apart(SessionStore.open, path, session_id="s")
    with store:
        yield store


def queued(store: SessionStore) -> tuple[WriteQueue, StoreConnection]:
    connections = database_of(store).connections
    queue, writer = connections.queue, connections.writer
    assert queue is not None
    assert writer is not None
    return queue, writer


def gate_is_open(store: SessionStore) -> bool:
    """Whether one may begin that does not wait, as seen after a while."""
    queue, _ = queued(store)
    return queue.may_try(next(LATER_S))


@pytest.fixture
def third(here: SessionStore, path: Path) -> Iterator[SessionStore]:
    store: SessionStore = apart(SessionStore.open, path, session_id="s")
    with store:
        yield store


def after_a_long_wait(here: SessionStore, other: SessionStore, third: SessionStore) -> None:
    """Let `here` wait behind another head from 100 s on; what it does next it does as the head."""
    queue, connection = queued(here)
    head, its_connection = queued(other)
    with third.begin():
        assert head.try_begin(its_connection, 100.0) is not None
        assert queue.try_begin(connection, 100.0) is not None
    head.leave()


def ended(connection: StoreConnection) -> bool:
    """End the transaction that it has begun."""
    assert connection.in_transaction
    connection.end(dialect.ROLLBACK)
    return True


def test_k_tx_4_after_a_long_wait_the_head_lets_others_commit_for_a_burst(
    here: SessionStore, other: SessionStore, third: SessionStore
) -> None:
    after_a_long_wait(here, other, third)
    queue, connection = queued(here)
    for at_ms in range(4):
        assert queue.try_begin(connection, 100.04 + at_ms / 1000) is not None
        assert gate_is_open(third)
        third.put_blob(b"%d" % at_ms)
    # The lock is free at this moment, as it was at every other.
    assert queue.try_begin(connection, 100.046) is None
    assert ended(connection)


def test_k_tx_4_the_head_begins_as_soon_as_nobody_commits(
    here: SessionStore, other: SessionStore, third: SessionStore
) -> None:
    after_a_long_wait(here, other, third)
    queue, connection = queued(here)
    assert queue.try_begin(connection, 100.04) is not None
    assert queue.try_begin(connection, 100.0403) is None
    assert ended(connection)


def test_k_tx_4_after_a_short_wait_it_begins_at_once(here: SessionStore) -> None:
    queue, connection = queued(here)
    assert queue.try_begin(connection, 100.0) is None
    assert ended(connection)


def test_k_tx_4_a_writer_is_sent_to_the_back_once_its_burst_is_over(
    here: SessionStore, other: SessionStore
) -> None:
    queue, connection = queued(here)
    with other.begin():
        for at_s in (100.0, 100.0003, 100.0009):
            assert queue.try_begin(connection, at_s) is not None
            assert gate_is_open(other)
        nap_s = queue.try_begin(connection, 100.002)
        assert nap_s is not None
        assert nap_s < 0.001  # nobody else may begin: each moment counts
        assert not gate_is_open(other)
    assert queue.try_begin(connection, 100.003) is None
    assert gate_is_open(other)  # nor is it kept closed for longer
    assert ended(connection)


def test_k_tx_4_who_is_not_the_head_waits_until_that_is_late(
    here: SessionStore, other: SessionStore, third: SessionStore
) -> None:
    """The head is stopped, and has closed the gate: whoever passes it by opens that."""
    queue, connection = queued(here)
    stopped, its_connection = queued(other)
    with third.begin():
        assert stopped.try_begin(its_connection, 100.0) is not None
        assert stopped.try_begin(its_connection, 100.01) is not None
        assert queue.try_begin(connection, 100.03) is not None
    assert queue.try_begin(connection, 100.2) is not None  # though the lock is free
    assert not gate_is_open(third)
    assert queue.try_begin(connection, 100.29) is None
    assert ended(connection)
    assert gate_is_open(third)
    stopped.leave()


def test_k_tx_4_a_gate_that_a_killed_head_has_left_closed_costs_one_try(
    here: SessionStore, path: Path
) -> None:
    sidecar = path.with_name(f"{path.name}-queue")
    sidecar.write_bytes(b"\1")
    assert not gate_is_open(here)
    queue, connection = queued(here)
    assert queue.try_begin(connection, 100.0) is None
    assert ended(connection)
    assert sidecar.read_bytes() == b"\0"


def test_k_tx_4_the_oldest_looks_most_often(here: SessionStore, other: SessionStore) -> None:
    queue, connection = queued(here)
    head, its_connection = queued(other)
    with apart(SessionStore.open, here.path, session_id="s").begin():
        assert head.try_begin(its_connection, 100.0) is not None
        naps = [
            queue.try_begin(connection, 100.05 + waited) or 0 for waited in (0, 0.01, 0.03, 0.1)
        ]
    assert naps == sorted(naps, reverse=True)
    assert naps[0] == 0.002 > 3 * naps[-1]  # two of this process wait, for which naps are longer
    for each in (queue, head):
        each.leave()


def test_k_tx_4_a_look_that_finds_the_file_busy_is_a_try_in_vain(
    here: SessionStore,
    other: SessionStore,
    third: SessionStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As while another process mends the WAL; any other error ends the wait."""
    after_a_long_wait(here, other, third)
    queue, connection = queued(here)

    def failing(error: FaultKind) -> Any:
        def look(_: object) -> int:
            raise driver_fault(error, here.path)

        return look

    monkeypatch.setattr(fairness, "data_version", failing("busy"))
    assert queue.try_begin(connection, 100.04) is not None
    assert queue.is_waiting
    monkeypatch.setattr(fairness, "data_version", failing("io error"))
    with pytest.raises(sqlite3.OperationalError):
        queue.try_begin(connection, 100.0403)
    assert not queue.is_waiting


def test_a_store_that_is_closed_leaves_the_queue(
    here: SessionStore, other: SessionStore, third: SessionStore
) -> None:
    queue, connection = queued(other)
    with third.begin():
        assert queue.try_begin(connection, 100.0) is not None
        assert queue.try_begin(connection, 100.01) is not None
        assert not gate_is_open(here)
        queue.close()
        assert gate_is_open(here)
    assert not queue.is_waiting


def test_a_cancelled_transact_leaves_the_queue(path: Path) -> None:
    """Also if no thread was there to lead it yet."""

    async def main() -> None:
        async with AsyncSessionStore.open(path, session_id="s") as store:
            await store.put_blob(b"x")
            holder = apart(SessionStore.open, path, session_id="s")
            for at in range(20):
                with holder.begin(), suppress(TimeoutError):
                    async with asyncio.timeout(0.004 + at / 2000):
                        await store.transact(lambda tx: tx.put_blob(b"y"))
            queue = database_of(await store._opened()).connections.queue
            assert queue is not None
            for _ in range(200):
                if not queue.is_waiting:
                    break
                await asyncio.sleep(0.01)
            assert not queue.is_waiting
            holder.close()

    asyncio.run(main())
