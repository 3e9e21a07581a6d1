"""K-TX-7 and K-TX-9 of ``tx.cursor``: inside its transaction, in its thread, and never its end."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import TextClause, create_engine, text

from lash_store import SessionStore, SessionTx, configure, prepare
from lash_store.errors import (
    NestedTransactionError,
    ThreadError,
    TransactionControlError,
    TransactionEndedError,
)
from tests.support.databases import all_rows


def the_text(sql: str) -> Any:
    """Prepare what no builder of ours gives, and anybody might."""

    def builder() -> TextClause:
        return text(sql)

    unchecked: Any = builder
    return prepare(unchecked)


commit_it = the_text("COMMIT")


ENDINGS: dict[str, Callable[[Any], object]] = {
    "COMMIT": lambda cursor: cursor.execute("COMMIT"),
    "ROLLBACK": lambda cursor: cursor.execute("/* well */ rollback", ()),
    "BEGIN": lambda cursor: cursor.execute("BEGIN"),
    "of many": lambda cursor: cursor.executemany("END", [()]),
    "later": lambda cursor: cursor.later("COMMIT", ()),
    "of many, later": lambda cursor: cursor.later_many("COMMIT", [()]),
    "whose rows are asked for": lambda cursor: cursor.ask("COMMIT", ()),
    "prepared": commit_it.run,
    "prepared, later": commit_it.later,
}


@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("how", ["begin", "read"])
def test_k_tx_7_the_cursor_of_a_tx_does_not_end_its_transaction(
    store: SessionStore, path: Path, end: Callable[[Any], object], how: str
) -> None:
    store.put_blob(b"before")
    before = all_rows(path)
    with pytest.raises(KeyError), getattr(store, how)() as tx:
        if how == "begin":
            tx.put_blob(b"undone")
        with pytest.raises(TransactionControlError, match="nothing was changed"):
            end(tx.cursor)
        tx.cursor.close()
        tx.cursor.execute("SELECT 1")
        assert [tuple(row) for row in tx.cursor.fetchall()] == [(1,)]
        raise KeyError
    assert all_rows(path) == before
    store.put_blob(b"x")


USES: dict[str, Callable[[Any], object]] = {
    "execute": lambda cursor: cursor.execute("SELECT 1"),
    "executemany": lambda cursor: cursor.executemany("SELECT 1", [()]),
    "fetchall": lambda cursor: cursor.fetchall(),
    "rowcount": lambda cursor: cursor.rowcount,
    "later": lambda cursor: cursor.later("SELECT 1", ()),
    "later_many": lambda cursor: cursor.later_many("SELECT 1", [()]),
    "ask": lambda cursor: cursor.ask("SELECT 1", ()),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("how", ["begin", "read"])
def test_k_tx_7_a_cursor_that_was_kept_is_of_no_use(
    store: SessionStore, path: Path, use: Callable[[Any], object], how: str
) -> None:
    with getattr(store, how)() as tx:
        kept = tx.cursor
        kept.execute("SELECT 1")
    before = all_rows(path)
    with pytest.raises(TransactionEndedError):
        use(kept)
    with store.begin() as tx:
        tx.put_blob(b"undisturbed")
        with pytest.raises(TransactionEndedError):
            use(kept)  # not in a later transaction of the same store either
    assert len(all_rows(path)["blobs"]) == len(before["blobs"]) + 1


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_k_tx_9_the_cursor_of_a_tx_stays_in_its_thread(
    store: SessionStore, use: Callable[[Any], object]
) -> None:
    with store.begin() as tx:
        cursor, found = tx.cursor, []
        cursor.execute("SELECT 1")
        thread = threading.Thread(target=lambda: found.append(raised(use, cursor)))
        thread.start()
        thread.join()
        (error,) = found
        assert isinstance(error, ThreadError)
        assert (error.owner, error.user) == (threading.get_ident(), thread.ident)
        assert [tuple(row) for row in cursor.fetchall()] == [(1,)]


def raised(function: Callable[..., object], *arguments: object) -> BaseException | None:
    try:
        function(*arguments)
    except Exception as error:  # noqa: BLE001 # reason: whatever it is, the test says
        return error
    return None


def test_k_tx_8_nor_does_that_of_a_tx_that_has_joined_a_transaction(path: Path) -> None:
    engine = configure(create_engine(f"sqlite:///{path}"))
    with engine.begin() as connection:
        tx = SessionTx.on(connection, session_id="s")
        tx.put_blob(b"x")
        with pytest.raises(TransactionControlError):
            tx.cursor.execute("COMMIT")
        kept = tx.cursor
    with pytest.raises(TransactionEndedError):
        kept.execute("SELECT 1")
    engine.dispose()


@pytest.mark.sqlite("pragmas")
def test_k_tx_7_what_a_cursor_sets_is_undone_at_the_end(store: SessionStore) -> None:
    def foreign_keys(tx: SessionTx) -> Any:
        return tx.connection.exec_driver_sql("PRAGMA cache_size").scalar()

    before = store.transact(foreign_keys)
    with store.begin() as tx:
        tx.cursor.execute("PRAGMA cache_size = 77")
    assert store.transact(foreign_keys) == before != 77


@pytest.mark.sqlite("a full disk")
def test_an_error_that_ends_the_transaction_is_told_as_it_is(store: SessionStore) -> None:
    """Of a prepared statement, run on a consumer's cursor."""

    insert_again = the_text("INSERT OR ROLLBACK INTO blobs (hash, content) VALUES ('h', x'00')")

    with pytest.raises(TransactionEndedError, match="rolled"), store.begin() as tx:
        kept = tx.cursor
        insert_again.run(kept)
        with pytest.raises(Exception, match="UNIQUE") as failed:
            insert_again.run(kept)
        assert not isinstance(failed.value, sqlite3.Error)
        with pytest.raises(TransactionEndedError):
            insert_again.run(kept)
    store.put_blob(b"x")


# The block.


@pytest.mark.parametrize("how", ["begin", "read"])
def test_k_tx_9_a_block_is_entered_once_at_a_time(
    store: SessionStore, path: Path, how: str
) -> None:
    block = getattr(store, how)()
    before = all_rows(path)["blobs"]
    with block as tx:
        if how == "begin":
            tx.put_blob(b"mine")
        with pytest.raises(NestedTransactionError, match="of its own"), block:
            pass
        error = in_another_thread(block.__enter__)
        assert isinstance(error, NestedTransactionError)
    assert len(all_rows(path)["blobs"]) == len(before) + (how == "begin")
    with block as tx:  # one after another
        assert tx.load_head() is None


def in_another_thread(function: Callable[..., object], *arguments: object) -> BaseException | None:
    found: list[BaseException | None] = []
    thread = threading.Thread(target=lambda: found.append(raised(function, *arguments)))
    thread.start()
    thread.join()
    return found[0]


def test_k_tx_9_another_thread_does_not_commit_a_block(store: SessionStore, path: Path) -> None:
    before = all_rows(path)
    block = store.begin()
    tx = block.__enter__()
    tx.put_blob(b"mine")
    error = in_another_thread(block.__exit__, None, None, None)
    assert isinstance(error, ThreadError)
    assert error.owner == threading.get_ident()
    assert all_rows(path) == before
    tx.put_blob(b"goes on")
    block.__exit__(None, None, None)
    assert len(all_rows(path)["blobs"]) == len(before["blobs"]) + 2


def test_k_tx_9_another_thread_may_undo_a_block(store: SessionStore, path: Path) -> None:
    """As the collector does, of a generator that is left in the midst of one."""
    before = all_rows(path)
    block = store.begin()
    block.__enter__().put_blob(b"undone")
    assert in_another_thread(block.__exit__, KeyError, KeyError(), None) is None
    assert all_rows(path) == before
    store.put_blob(b"x")
