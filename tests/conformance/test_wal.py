"""The WAL stays short while others read, and what that costs those who write (K-WAL-1)."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import pytest

from lash_store import SessionStore
from lash_store._backends.sqlite import dialect, fairness, wal
from lash_store._backends.sqlite.driver import unobserved
from lash_store.testing import ManualClock, run_as_group
from tests.support.databases import database_of
from tests.support.turns import eventually, join, started

pytestmark = [
    pytest.mark.sqlite("its WAL"),
    pytest.mark.usefixtures("soon"),
]

LONG = 400_000


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The WAL is long soon, and looked at after every transaction."""
    monkeypatch.setattr(wal, "LONG", LONG)
    monkeypatch.setattr(wal, "LOOK_S", -1.0)
    monkeypatch.setattr(wal, "_WAITS_S", (0.1,))


def write(store: SessionStore, times: int = 1) -> None:
    """Write half of what is too long, each time; the tables take some, too."""
    for _ in range(times):
        store.put_blob(os.urandom(LONG // 2))


def look_soon(store: SessionStore) -> None:
    """Let the next transaction look at the WAL, whatever pause there is."""
    shortened = database_of(store).connections.wal
    shortened.due_s = shortened._measure_s = 0.0


def size_of_wal(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


class Reader:
    """A snapshot of another connection, past the library."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.begin()

    def begin(self) -> None:
        self.connection.execute("BEGIN")
        self.connection.execute("SELECT * FROM sqlite_master").fetchall()

    def end(self) -> None:
        self.connection.execute("COMMIT")


@pytest.fixture
def reader(store: SessionStore, path: Path) -> Iterator[Reader]:
    write(store)
    reader = Reader(path)
    with closing(reader.connection):
        yield reader


class Seen:
    """The statements of the one connection that writes, and what is done at one of them."""

    def __init__(self, store: SessionStore) -> None:
        self.cuts = 0
        self.at_cut: dict[int, Any] = {}
        writer = database_of(store).connections.writer
        assert writer is not None
        self.writer = writer
        writer.set_trace_callback(self._see)

    def _see(self, sql: str) -> None:
        if sql == dialect.CUT_WAL:
            self.cuts += 1
            self.at_cut.get(self.cuts, lambda: None)()

    def busy_timeout_ms(self) -> int:
        ((found,),) = self.writer.own_cursor.execute(dialect.BUSY_TIMEOUT).fetchall()
        return int(found)


def test_k_wal_1_it_is_cut_once_it_is_long(store: SessionStore, path: Path) -> None:
    seen = Seen(store)
    write(store)
    assert (size_of_wal(path) > 0, seen.cuts) == (True, 0)
    write(store)
    assert (size_of_wal(path), seen.cuts) == (0, 1)


def in_a_group(store: SessionStore) -> None:
    run_as_group(*(partial(store.put_blob, os.urandom(LONG // 2)) for _ in range(3)))


def in_a_block(store: SessionStore) -> None:
    with store.begin() as tx:
        for _ in range(3):
            tx.put_blob(os.urandom(LONG // 2))


@pytest.mark.parametrize("way", [in_a_group, in_a_block])
def test_k_wal_1_it_is_cut_after_every_kind_of_transaction(
    store: SessionStore, path: Path, way: Any
) -> None:
    seen = Seen(store)
    way(store)
    assert (size_of_wal(path), seen.cuts) == (0, 1)


def test_k_wal_1_it_is_looked_at_now_and_then(
    store: SessionStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal, "LOOK_S", 3_600.0)
    write(store)  # which looks, and not again for an hour
    write(store, 4)
    assert size_of_wal(path) > LONG


def test_k_wal_1_a_snapshot_that_ends_meanwhile_is_waited_for(
    store: SessionStore, path: Path, reader: Reader
) -> None:
    seen = Seen(store)
    seen.at_cut[2] = reader.end
    write(store)
    assert (size_of_wal(path), seen.cuts) == (0, 2)
    assert seen.busy_timeout_ms() == 0


def test_k_wal_1_who_reads_anew_meanwhile_is_not_in_the_way(
    store: SessionStore, path: Path, reader: Reader
) -> None:
    """SQLite itself goes on waiting for the place of a snapshot that others have taken since."""
    others = [Reader(path)]

    def change_places() -> None:
        others[0].end()
        others[0].begin()
        reader.end()
        reader.begin()

    seen = Seen(store)
    seen.at_cut = {2: change_places, 3: change_places}
    write(store)
    assert (size_of_wal(path), seen.cuts) == (0, 3)
    others[0].connection.close()


def test_k_wal_1_a_snapshot_that_stays_is_waited_for_once(
    store: SessionStore, path: Path, reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    seen, connections = Seen(store), database_of(store).connections
    with caplog.at_level(logging.WARNING, "lash_store.writes"):
        write(store, 2)
        tried = seen.cuts
        assert tried > 0
        assert size_of_wal(path) > LONG
        assert connections.wal.due_s > connections.used_s + 0.1  # it pauses
        for _ in range(4):
            look_soon(store)
            write(store)
        assert seen.cuts == tried  # it is the same that is in the way
        assert seen.busy_timeout_ms() == 0
    assert [each.message.partition(": ")[2].split()[:3] for each in caplog.records] == [
        ["its", "WAL", "has"]
    ]
    reader.end()
    look_soon(store)
    write(store)
    assert size_of_wal(path) == 0


def test_k_wal_1_another_snapshot_is_waited_for_longer(
    store: SessionStore, path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal, "_WAITS_S", (0.0, 0.02))
    seen = Seen(store)
    write(store, 2)
    assert seen.cuts == 0  # the first is over at once
    reader.end()
    reader.begin()
    write(store)
    look_soon(store)
    write(store)
    assert seen.cuts > 0
    assert size_of_wal(path) > LONG


def test_k_wal_1_an_error_of_it_is_nobodys(
    store: SessionStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialect, "CUT_WAL", "PRAGMA wal_checkpoint(TRUNCATE) nonsense")
    write(store, 3)
    assert size_of_wal(path) > LONG
    assert Seen(store).busy_timeout_ms() == 0
    monkeypatch.undo()
    monkeypatch.setattr(wal, "LONG", LONG)
    look_soon(store)
    write(store)
    assert size_of_wal(path) == 0


def test_k_wal_1_a_lost_wal_is_the_next_transactions_affair(
    store: SessionStore, path: Path
) -> None:
    write(store)
    path.with_name(f"{path.name}-wal").rename(path.with_name("elsewhere"))
    store.put_blob(b"x")
    path.with_name("elsewhere").rename(path.with_name(f"{path.name}-wal"))


def test_k_wal_2_beside_others_it_is_put_into_the_file_under_the_lock(
    store: SessionStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its writer, between two transactions; by SQLite again once nobody else writes."""
    monkeypatch.setattr(wal, "_MANY_PAGES", 20)
    monkeypatch.setattr(wal, "_LOOK_BESIDE_OTHERS_S", -1.0)
    monkeypatch.setattr(fairness, "_CONTENDED_S", 3_600.0)
    connections = database_of(store).connections
    writer, queue = connections.writer, connections.queue
    assert writer is not None
    assert queue is not None

    def pages_behind_a_commit() -> int:
        ((pages,),) = unobserved(writer.own_cursor, "PRAGMA wal_autocheckpoint")
        return pages

    store.put_blob(b"alone")
    assert pages_behind_a_commit() == 1_000
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        threads = started(lambda: store.put_blob(b"in line"))
        eventually(lambda: queue.is_waiting and not writer.folds_by_itself)
        other.execute("COMMIT")
        join(*threads)
        assert pages_behind_a_commit() == 0
        other.execute("BEGIN")
        other.execute("SELECT * FROM blobs").fetchall()
        store.put_blob(os.urandom(100_000))
        store.put_blob(b"beside who reads")
        assert connections.wal._has(20)
        other.execute("COMMIT")
    store.put_blob(b"all is in the file")
    assert connections.wal._has(20)
    store.put_blob(b"it begins anew")
    assert not connections.wal._has(20)
    assert size_of_wal(path) > 100_000  # which tells nothing of what stands in it
    queue._contended_s = -inf
    store.put_blob(b"alone again")
    assert pages_behind_a_commit() == 1_000


def test_k_wal_1_memory_has_none(clock: ManualClock) -> None:
    with SessionStore.open(None, session_id="s", clock=clock) as store:
        seen = Seen(store)
        write(store, 4)
        assert seen.cuts == 0
