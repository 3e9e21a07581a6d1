"""K-WAIT-3: whose turn it is to read what others have committed, and by which connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lash_store import NewWork, SessionStore
from lash_store._backends.sqlite import leading
from lash_store._backends.sqlite.turns import Hold
from lash_store._kernel.watching import POLL_S
from lash_store.errors import StorageError, StoreClosedError, StoreLostError
from tests.support.databases import apart, database_of

pytestmark = pytest.mark.canonical("looks at the connections of a file")


@pytest.fixture
def opened(path: Path) -> Iterator[SessionStore]:
    with SessionStore.open(path, session_id="s") as store:
        store.enqueue_work(NewWork([1]))
        yield store


def test_k_wait_3_the_version_is_the_writers_and_changes_by_others_alone(
    opened: SessionStore, path: Path
) -> None:
    writer = database_of(opened).writer
    before = writer.data_version()
    assert before is not None
    assert before[0] == "writer"
    opened.enqueue_work(NewWork([2]))
    assert writer.data_version() == before
    with apart(SessionStore.open, path, session_id="s") as other:
        other.enqueue_work(NewWork([3]))
    after = writer.data_version()
    assert after is not None
    assert after[0] == "writer"
    assert after != before
    assert writer.turns.is_free


def test_k_wait_3_without_a_writer_it_is_read_by_a_connection_of_its_own(
    opened: SessionStore,
) -> None:
    database = database_of(opened)
    hold = Hold()
    assert database.writer.turns.try_take(hold)
    database.connections.close_writer()  # as an idle database is closed
    database.writer.turns.give_back(hold)
    found = database.writer.data_version()
    assert found is not None
    assert found[0] == "reader"
    assert database.connections.writer is None
    opened.enqueue_work(NewWork([2]))
    again = database.writer.data_version()
    assert again is not None
    assert again[0] == "writer"


def test_k_wait_3_while_somebody_has_the_turn_nobody_else_reads_it_for_a_while(
    opened: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = database_of(opened)
    writer, connections = database.writer, database.connections
    now_s = 100.0
    monkeypatch.setattr(leading, "monotonic", lambda: now_s)
    connections.looked_s = 0.0
    hold = Hold()
    assert writer.turns.try_take(hold)
    assert writer.data_version() is None  # since now, though nobody has looked for long
    now_s += 2 * POLL_S - 0.001
    assert writer.data_version() is None
    now_s += 0.002
    found = writer.data_version()
    assert found is not None
    assert found[0] == "reader"
    connections.looked_s = now_s  # whoever has the turn has looked
    assert writer.data_version() is None
    now_s += 2 * POLL_S + 0.001
    assert writer.data_version() == found
    assert writer.turns.is_held_by(hold)
    writer.turns.give_back(hold)
    again = writer.data_version()
    assert again is not None
    assert again[0] == "writer"
    # It counts from the first time that it could not be read again.
    connections.looked_s = 0.0
    assert writer.turns.try_take(hold)
    assert writer.data_version() is None
    writer.turns.give_back(hold)


def test_k_wait_3_in_the_midst_of_a_transaction_it_is_not_read(opened: SessionStore) -> None:
    writer: Any = database_of(opened).writer
    writer._began = True
    assert writer.data_version() is None
    writer._began = False
    assert writer.data_version() is not None
    assert writer.turns.is_free


def test_k_wait_3_who_came_meanwhile_has_the_turn_next(
    opened: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer: Any = database_of(opened).writer
    woken: list[int] = []
    monkeypatch.setattr(writer, "wake_first", lambda: woken.append(1))
    assert writer.data_version() is not None
    assert woken == []

    def meanwhile(_: object) -> tuple[str, int]:
        writer.turns.waiting.append("somebody")
        return "writer", 1

    monkeypatch.setattr(database_of(opened).connections, "version_of", meanwhile)
    assert writer.data_version() == ("writer", 1)
    assert woken == [1]
    writer.turns.waiting.clear()


def test_k_wait_3_what_can_not_be_read_is_a_typed_error(
    opened: SessionStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = database_of(opened)

    def fail(connection: object) -> Any:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(database.connections, "version_of", fail)
        with pytest.raises(StorageError, match="disk I/O error"):
            database.writer.data_version()
        assert database.writer.turns.is_free
    path.rename(path.with_suffix(".gone"))
    with pytest.raises(StoreLostError):
        database.writer.data_version()
    path.with_suffix(".gone").rename(path)
    assert database.writer.data_version() is not None
    opened.close()
    with pytest.raises(StoreClosedError):
        database.writer.data_version()
