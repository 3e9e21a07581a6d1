"""The queue of processes for a file's write lock: bursts, and who is next."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from lash_store import SessionStore
from lash_store._backends.sqlite import dialect
from lash_store._backends.sqlite.connection import StoreConnection
from lash_store._backends.sqlite.fairness import WriteQueue
from tests.support.databases import apart, database_of

pytestmark = [
    pytest.mark.sqlite("SQLite's write lock"),
    pytest.mark.posix,
]

BURST_S = 0.01
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


def test_k_tx_4_the_head_lets_others_commit_for_a_burst_and_then_has_its_turn(
    here: SessionStore, other: SessionStore
) -> None:
    queue, connection = queued(here)
    for at_ms in range(10):
        assert queue.try_begin(connection, 100 + at_ms / 1000) is not None
        assert gate_is_open(other)
        other.put_blob(b"%d" % at_ms)
    # Its lock is free at this moment, as it was at every other.
    assert queue.try_begin(connection, 100 + BURST_S) is None
    assert connection.in_transaction
    connection.end(dialect.ROLLBACK)


def test_k_tx_4_the_head_begins_as_soon_as_nobody_commits(
    here: SessionStore, other: SessionStore
) -> None:
    queue, connection = queued(here)
    other.put_blob(b"1")
    assert queue.try_begin(connection, 100.0) is not None
    assert queue.try_begin(connection, 100.0003) is None
    connection.end(dialect.ROLLBACK)


def test_k_tx_4_a_writer_is_sent_to_the_back_once_its_burst_is_over(
    here: SessionStore, other: SessionStore
) -> None:
    queue, connection = queued(here)
    with other.begin():
        for at_s in (100.0, 100.0003, 100.0099):
            assert queue.try_begin(connection, at_s) is not None
            assert gate_is_open(other)
        nap_s = queue.try_begin(connection, 100 + BURST_S)
        assert nap_s is not None
        assert nap_s < 0.001  # nobody else may begin: each moment counts
    assert not gate_is_open(other)
    assert queue.try_begin(connection, 100.02) is None
    assert gate_is_open(other)  # nor is it kept closed for longer
    connection.end(dialect.ROLLBACK)


def test_k_tx_4_who_is_not_the_head_waits_until_that_is_late(
    here: SessionStore, other: SessionStore, path: Path
) -> None:
    """The head is stopped, and so is whoever closed the gate: they open nothing any more."""
    queue, connection = queued(here)
    stopped, its_connection = queued(other)
    third: SessionStore = apart(SessionStore.open, path, session_id="s")
    with third:
        with third.begin():
            assert stopped.try_begin(its_connection, 100.0) is not None
            assert stopped.try_begin(its_connection, 100 + BURST_S) is not None
            assert queue.try_begin(connection, 100.02) is not None
        assert queue.try_begin(connection, 100.2) is not None  # though the lock is free
        assert queue.try_begin(connection, 100.27) is None
        connection.end(dialect.ROLLBACK)
        assert gate_is_open(third)
    stopped.leave()


def test_k_tx_4_of_those_that_are_often_here_the_oldest_looks_most_often(
    here: SessionStore, other: SessionStore
) -> None:
    """Else whoever has just had its burst would look first, as the place of the head falls free."""
    queue, connection = queued(here)
    head, its_connection = queued(other)
    with apart(SessionStore.open, here.path, session_id="s").begin():
        assert head.try_begin(its_connection, 100.0) is not None
        first_s = queue.try_begin(connection, 100.0)
        assert first_s is not None
        assert first_s < 0.001  # it may be short
        queue.leave()
        naps = [
            queue.try_begin(connection, 100.05 + waited) or 0 for waited in (0, 0.01, 0.03, 0.1)
        ]
    assert naps == sorted(naps, reverse=True)
    assert naps[0] > BURST_S > 4 * naps[-1]
    for each in (queue, head):
        each.leave()
