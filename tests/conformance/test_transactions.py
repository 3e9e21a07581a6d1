"""K-TX-1 to 6: transactions, snapshots, their errors, and how many statements they take."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from lash_store import LeaseHeld, SessionFence, SessionLease, SessionStore
from lash_store._backends.sqlite import dialect
from lash_store._stores.store import Store
from lash_store.errors import (
    LeaseLostError,
    NestedTransactionError,
    StorageError,
    StoreBusyError,
    TransactionEndedError,
)
from lash_store.session.tx import SessionTx
from lash_store.testing import ManualClock
from tests.support.databases import all_rows, apart, database_of


def test_k_tx_1_a_write_transaction_has_the_lock_from_its_start(
    store: SessionStore, path: Path
) -> None:
    with apart(SessionStore.open, path, session_id="s", busy_timeout_ms=0) as other:
        with store.begin(), pytest.raises(StoreBusyError):
            other.claim_lease(owner_id="ann", ttl_ms=1)
        other.claim_lease(owner_id="ann", ttl_ms=1)


def test_k_tx_1_a_snapshot_stays_as_it_was(store: SessionStore) -> None:
    store.claim_lease(owner_id="ann", ttl_ms=60_000)
    with store.read() as tx:
        before = tx.current_lease()
        store.claim_lease(owner_id="ann", ttl_ms=99_000)
        assert tx.current_lease() == before
    assert store.current_lease() != before


def test_k_tx_1_readers_do_not_wait_for_a_writer_nor_it_for_them(
    store: SessionStore, path: Path
) -> None:
    with apart(SessionStore.open, path, session_id="s") as other, store.begin() as tx:
        tx.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert other.current_lease() is None
        with other.read() as one, other.read() as two:
            assert one.current_lease() is two.current_lease() is None
        seen: list[object] = []
        thread = threading.Thread(target=lambda: seen.append(store.current_lease()))
        thread.start()
        thread.join()
        assert seen == [None]
    assert store.current_lease() is not None


@pytest.mark.parametrize(
    "error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration]
)
def test_k_tx_2_any_exception_rolls_everything_back(
    store: SessionStore, path: Path, error: type[BaseException]
) -> None:
    before = all_rows(path)
    with pytest.raises(error), store.begin() as tx:
        tx.claim_lease(owner_id="ann", ttl_ms=60_000)
        tx.connection.execute(text("INSERT INTO blobs VALUES ('h', x'00')"))
        raise error
    assert all_rows(path) == before
    assert isinstance(store.claim_lease(owner_id="ann", ttl_ms=1), SessionLease)


def test_k_tx_2_the_operations_of_one_block_are_one_transaction(
    store: SessionStore, path: Path
) -> None:
    with store.begin() as tx:
        first = tx.claim_lease(owner_id="ann", ttl_ms=60_000)
        tx.connection.execute(text("INSERT INTO blobs VALUES ('h', x'00')"))
        held = tx.claim_lease(owner_id="bob", ttl_ms=60_000)
        assert isinstance(held, LeaseHeld)
        assert tx.current_lease() == first
    assert all_rows(path)["blobs"] == [("h", b"\0")]


def test_k_tx_2_the_clock_is_read_once_and_after_the_lock(path: Path) -> None:
    clock = ManualClock()
    readings = []

    class Counting:
        def now_ms(self) -> int:
            readings.append(clock.now_ms())
            return clock.now_ms()

    with (
        SessionStore.open(path, session_id="s", clock=Counting()) as store,
        SessionStore.open(path, session_id="s") as other,
    ):
        with other.begin():
            thread = threading.Thread(
                target=store.claim_lease, kwargs={"owner_id": "a", "ttl_ms": 1}
            )
            thread.start()
            time.sleep(0.05)
            clock.advance(500)  # while the claim waits for the lock
        thread.join()
        assert readings == [clock.now_ms()]
        with store.begin() as tx:
            tx.claim_lease(owner_id="a", ttl_ms=1)
            clock.advance(1)
            tx.claim_lease(owner_id="a", ttl_ms=1)
            assert tx.now_ms == clock.now_ms() - 1
        assert len(readings) == 2


@pytest.mark.parametrize("budget_ms", [0, 1, 60])
def test_k_tx_3_no_lock_within_the_budget_says_how_long_it_waited(
    store: SessionStore, path: Path, budget_ms: int
) -> None:
    with apart(SessionStore.open, path, session_id="s", busy_timeout_ms=budget_ms) as other:
        with store.begin():
            before = all_rows(path)
            started = time.monotonic()
            with pytest.raises(StoreBusyError) as refusal:
                other.claim_lease(owner_id="ann", ttl_ms=1)
            elapsed_ms = (time.monotonic() - started) * 1000
            assert budget_ms - 1 <= refusal.value.waited_ms <= elapsed_ms + 1
            assert all_rows(path) == before
        assert isinstance(other.claim_lease(owner_id="ann", ttl_ms=1), SessionLease)


def test_k_tx_3_threads_of_one_store_share_the_budget(path: Path) -> None:
    with SessionStore.open(path, session_id="s", busy_timeout_ms=40) as store:
        entered, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with store.begin():
                entered.set()
                leave.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        entered.wait()
        with pytest.raises(StoreBusyError):
            store.claim_lease(owner_id="ann", ttl_ms=1)
        leave.set()
        thread.join()
        assert isinstance(store.claim_lease(owner_id="ann", ttl_ms=1), SessionLease)


def test_one_write_transaction_inside_another_is_an_error_at_once(store: SessionStore) -> None:
    with store.begin() as tx:
        with pytest.raises(NestedTransactionError):
            store.claim_lease(owner_id="ann", ttl_ms=1)
        with pytest.raises(NestedTransactionError), store.begin():
            pass
        tx.claim_lease(owner_id="ann", ttl_ms=60_000)
    assert store.current_lease() is not None


Use = Callable[[SessionTx], object]
USES: dict[str, Use] = {
    "claim_lease": lambda tx: tx.claim_lease(owner_id="ann", ttl_ms=1),
    "current_lease": lambda tx: tx.current_lease(),
    "connection": lambda tx: tx.connection,
    "cursor": lambda tx: tx.cursor,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
@pytest.mark.parametrize("how", ["begin", "read"])
def test_a_tx_can_not_be_used_after_its_end(store: SessionStore, how: str, use: Use) -> None:
    with getattr(store, how)() as tx:
        use(tx) if how == "begin" or use is not USES["claim_lease"] else None
    with pytest.raises(TransactionEndedError):
        use(tx)
    with store.begin(), pytest.raises(TransactionEndedError):
        use(tx)  # not in a later transaction of the same store either


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_a_transaction_that_sqlite_rolled_back_is_over(
    store: SessionStore, path: Path, use: Use
) -> None:
    """INSERT OR ROLLBACK ends it; what would come after must not commit by itself."""
    before = all_rows(path)
    with pytest.raises(TransactionEndedError, match="rolled"), store.begin() as tx:
        tx.claim_lease(owner_id="ann", ttl_ms=60_000)
        insert = text("INSERT OR ROLLBACK INTO blobs VALUES ('h', x'00')")
        tx.connection.execute(insert)
        connection = tx.connection
        with pytest.raises(Exception, match="UNIQUE"):
            connection.execute(insert)
        with pytest.raises(TransactionEndedError):
            use(tx)
        with pytest.raises(TransactionEndedError):
            connection.execute(text("INSERT INTO blobs VALUES ('i', x'00')"))
    assert all_rows(path) == before
    assert isinstance(store.claim_lease(owner_id="ann", ttl_ms=1), SessionLease)


def test_a_commit_that_fails_is_a_typed_error_and_keeps_nothing(
    store: SessionStore, path: Path
) -> None:
    before = all_rows(path)
    with pytest.raises(StorageError, match="FOREIGN KEY"), store.begin() as tx:
        tx.claim_lease(owner_id="ann", ttl_ms=60_000)
        tx.connection.execute(text("PRAGMA defer_foreign_keys = ON"))
        tx.connection.execute(text("INSERT INTO queued_work_items VALUES ('none', 0, 'i', '{}')"))
    assert all_rows(path) == before
    assert isinstance(store.claim_lease(owner_id="ann", ttl_ms=1), SessionLease)


def traced(store: Store[Any], call: Callable[[], object]) -> list[str]:
    """The statements that SQLite runs on the store's connections, begin and end shortened."""
    seen: list[str] = []
    connections = database_of(store).connections.all
    for connection in connections:
        connection.set_trace_callback(lambda sql: seen.append(sql.split(" /*")[0].split("\n")[0]))
    try:
        call()
    finally:
        for connection in connections:
            connection.set_trace_callback(None)
    return [
        sql if sql.startswith(("BEGIN", "COMMIT", "ROLLBACK")) else sql.split()[0] for sql in seen
    ]


def test_statement_counts_of_the_lease_operations(store: SessionStore) -> None:
    begin, commit, rollback = dialect.BEGIN_WRITE, dialect.COMMIT, dialect.ROLLBACK
    lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
    assert isinstance(lease, SessionLease)
    store.current_lease()  # opens the reading connection
    assert traced(store, lambda: store.claim_lease(owner_id="ann", ttl_ms=60_000)) == [
        begin,
        "INSERT",
        commit,
    ]
    assert traced(store, lambda: store.renew_lease(lease.fence, ttl_ms=60_000)) == [
        begin,
        "UPDATE",
        commit,
    ]
    assert traced(store, store.current_lease) == [dialect.BEGIN_READ, "SELECT", rollback]
    assert traced(store, lambda: store.claim_lease(owner_id="bob", ttl_ms=1)) == [
        begin,
        "INSERT",
        "SELECT",
        commit,
    ]
    assert traced(store, lambda: store.release_lease(lease.fence)) == [begin, "UPDATE", commit]


def test_statement_count_of_a_refusal(store: SessionStore) -> None:
    def renew() -> None:
        with suppress(LeaseLostError):
            store.renew_lease(SessionFence("s", "ann", "none", 1), ttl_ms=1)

    assert traced(store, renew) == [dialect.BEGIN_WRITE, "UPDATE", "SELECT", dialect.ROLLBACK]


def test_nothing_is_parsed_twice(store: SessionStore) -> None:
    """Every text of a hot path is one string object, so the driver's cache finds it."""
    authorised: list[int] = []
    for _ in range(3):
        store.claim_lease(owner_id="ann", ttl_ms=0)
    writer = database_of(store).connections.writer
    assert writer is not None

    def authorise(action: int, *_: object) -> int:
        authorised.append(action)
        return sqlite3.SQLITE_OK

    sqlite3.Connection.set_authorizer(writer, authorise)
    store.claim_lease(owner_id="ann", ttl_ms=0)  # setting an authorizer expires what is cached
    authorised.clear()
    store.claim_lease(owner_id="ann", ttl_ms=0)
    assert authorised == []


def test_k_tx_4_threads_are_served_in_order(store: SessionStore) -> None:
    """Each thread asks while another holds the lock; they get it in the order of asking."""
    served: list[int] = []
    threads = []

    def claim(number: int) -> None:
        with store.begin():
            served.append(number)

    turns = database_of(store).writer.turns
    with store.begin():
        for number in range(8):
            thread = threading.Thread(target=claim, args=(number,))
            thread.start()
            threads.append(thread)
            while len(turns.waiting) <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert served == list(range(8))


@pytest.mark.posix("there is no queue")
def test_k_tx_4_without_a_sidecar_every_writer_tries_by_itself(path: Path) -> None:
    SessionStore.open(path, session_id="s").close()
    sidecar = Path(f"{path}-queue")
    sidecar.unlink()
    sidecar.symlink_to(path.parent / "elsewhere")  # O_NOFOLLOW refuses it
    with SessionStore.open(path, session_id="s", busy_timeout_ms=2_000) as store:
        assert not database_of(store).connections.queue.is_fair  # type: ignore[union-attr] # reason: a file has one
        with apart(SessionStore.open, path, session_id="s", busy_timeout_ms=30) as other:
            with store.begin(), pytest.raises(StoreBusyError) as refusal:
                other.claim_lease(owner_id="ann", ttl_ms=1)
            assert refusal.value.waited_ms >= 30
            other.claim_lease(owner_id="ann", ttl_ms=1)
    assert not (path.parent / "elsewhere").exists()


@pytest.mark.parametrize("left", [b"", b"\1", b"\0", b"\1garbage"])
def test_k_tx_4_a_sidecar_left_in_any_state_delays_nobody_for_long(path: Path, left: bytes) -> None:
    SessionStore.open(path, session_id="s").close()
    Path(f"{path}-queue").write_bytes(left)
    with SessionStore.open(path, session_id="s", busy_timeout_ms=1_000) as store:
        assert isinstance(store.claim_lease(owner_id="ann", ttl_ms=1), SessionLease)
        os.truncate(f"{path}-queue", 0)
        assert isinstance(store.claim_lease(owner_id="ann", ttl_ms=1), SessionLease)
        os.unlink(f"{path}-queue")
        assert isinstance(store.claim_lease(owner_id="ann", ttl_ms=1), SessionLease)


def test_k_tx_5_a_conditional_write_that_changes_no_row_is_a_refusal(store: SessionStore) -> None:
    """Nobody else is involved: the row is gone by the time of the write, in the same transaction."""
    lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
    assert isinstance(lease, SessionLease)
    with store.begin() as tx:
        tx.renew_lease(lease.fence, ttl_ms=60_000)
        tx.connection.execute(text("DELETE FROM session_execution_leases"))
        with pytest.raises(LeaseLostError):
            tx.renew_lease(lease.fence, ttl_ms=60_000)
        assert tx.release_lease(lease.fence) is False


def test_k_tx_6_no_operation_leaves_a_transaction_or_a_cursor_open(store: SessionStore) -> None:
    lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
    assert isinstance(lease, SessionLease)
    for operation in (
        store.current_lease,
        lambda: store.claim_lease(owner_id="bob", ttl_ms=1),
        lambda: store.renew_lease(lease.fence, ttl_ms=60_000),
        lambda: store.release_lease(lease.fence),
    ):
        operation()
        assert not any(c.in_transaction for c in database_of(store).connections.all)
        assert not any(c._cursors for c in database_of(store).connections.all)
