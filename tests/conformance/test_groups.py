"""Calls that share a transaction: savepoints, refusals, undoing, and what each is answered."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from lash_store import (
    AlreadyQueued,
    Append,
    AsyncSessionStore,
    LeaseHeld,
    NewWork,
    Node,
    ProcessRegistry,
    SessionFence,
    SessionLease,
    SessionStore,
    TurnCommit,
)
from lash_store._kernel.observing import Event, observed_by
from lash_store.errors import (
    InvalidRecordError,
    LeaseLostError,
    NodeConflictError,
    NotFoundError,
    StorageError,
    StoreBusyError,
    StoreClosedError,
    TransactionEndedError,
)
from lash_store.session.tx import SessionTx
from lash_store.testing import ManualClock, SequentialIds, as_another_process, run_as_group
from tests.support.databases import all_rows, database_of, run_script

pytestmark = pytest.mark.sqlite("its writer, and who joins its transactions")

NOBODYS = SessionFence("s", "nobody", "none", 1)


class Recorder:
    """The kinds of the statements that were sent, and of which operation."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def before(self, event: Event) -> None:
        self.events.append(event)

    def after(self, event: Event) -> None:
        pass

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


@pytest.fixture
def other(path: Path, clock: ManualClock, store: SessionStore) -> Any:
    """Another store on the same file: a session, a clock and ids of its own."""
    with SessionStore.open(path, session_id="t", clock=clock, ids=SequentialIds("other")) as other:
        yield other


def test_k_group_1_calls_of_several_stores_are_one_transaction(
    store: SessionStore, other: SessionStore
) -> None:
    recorder = Recorder()
    with observed_by(recorder):
        mine, yours, batch = run_as_group(
            partial(store.claim_lease, owner_id="ann", ttl_ms=60_000),
            partial(other.claim_lease, owner_id="bob", ttl_ms=60_000),
            partial(other.enqueue_work, NewWork([1])),
        )
    assert (mine.fence.session_id, yours.fence.session_id) == ("s", "t")
    assert batch.session_id == "t"
    assert recorder.kinds.count("begin") == recorder.kinds.count("commit") == 1
    assert recorder.kinds.count("savepoint") == 0  # of what does not fail after it has written
    assert [each.operation for each in recorder.events if each.kind == "statement"] == [
        "claim_lease",
        "claim_lease",
        "enqueue_work",
        "enqueue_work",
    ]
    assert store.current_lease() == mine
    assert other.current_lease() == yours


def test_k_group_3_a_refusal_concerns_its_own_call(
    store: SessionStore, other: SessionStore, path: Path
) -> None:
    mine, lost, yours, held = run_as_group(
        partial(store.claim_lease, owner_id="ann", ttl_ms=60_000),
        partial(store.renew_lease, NOBODYS, ttl_ms=1),
        partial(other.claim_lease, owner_id="bob", ttl_ms=60_000),
        partial(store.claim_lease, owner_id="cid", ttl_ms=1),
    )
    assert isinstance(lost, LeaseLostError)
    assert isinstance(held, LeaseHeld)
    assert store.current_lease() == mine
    assert other.current_lease() == yours


def test_k_group_3_an_operation_of_several_writes_is_undone_by_itself(path: Path) -> None:
    """A group's savepoint is the operation's own: it sets no other inside."""
    with SessionStore.open(path, session_id="s") as store:
        lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert isinstance(lease, SessionLease)
        first, refused, last = run_as_group(
            partial(store.enqueue_all_work, [NewWork(["a"], source_key="k")]),
            partial(store.transact, lambda tx: (tx.enqueue_work(NewWork(["b"])), 1 / 0)),
            partial(store.enqueue_work, NewWork(["c"], source_key="k")),
        )
        assert isinstance(refused, ZeroDivisionError)
        assert isinstance(last, AlreadyQueued)
        assert [batch.items[0].payload for batch in store.list_work()] == ["a"]
        assert first[0] == last.batch


def test_k_group_3_what_fails_after_it_has_written_is_undone_by_itself(
    store: SessionStore, other: SessionStore, path: Path
) -> None:
    """The first time with everything else, which is done again; then in a savepoint of its own."""
    lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
    assert isinstance(lease, SessionLease)

    def commit(*names: str) -> TurnCommit:
        nodes = [Node(name, None) for name in names]
        return TurnCommit(fence=lease.fence, graph=Append(nodes, leaf=names[0]))

    store.commit_turn(commit("old"))
    savepoints, rolled_back = [], []
    for at in range(2):
        recorder = Recorder()
        with observed_by(recorder):
            before, refused, after = run_as_group(
                partial(other.enqueue_work, NewWork([f"before {at}"])),
                partial(store.commit_turn, commit("new", "old")),
                partial(other.enqueue_work, NewWork([f"after {at}"])),
            )
        assert isinstance(refused, NodeConflictError)
        assert other.list_work()[-2:] == [before, after]
        assert [node.node_id for node in store.load_graph().nodes] == ["old"]  # type: ignore[union-attr]
        savepoints.append(recorder.kinds.count("savepoint"))
        rolled_back.append(recorder.kinds.count("rollback"))
    assert savepoints == [0, 3]  # set, undone, released
    assert rolled_back == [2, 0]  # the group; and the commit, which is done again alone


def test_k_group_3_a_first_call_that_fails_ends_the_group_and_the_others_go_on(
    store: SessionStore, other: SessionStore
) -> None:
    recorder = Recorder()
    with observed_by(recorder):
        lost, yours = run_as_group(
            partial(store.renew_lease, NOBODYS, ttl_ms=1),
            partial(other.claim_lease, owner_id="bob", ttl_ms=60_000),
        )
    assert isinstance(lost, LeaseLostError)
    assert other.current_lease() == yours
    assert [kind for kind in recorder.kinds if kind != "statement"][:4] == [
        "begin",
        "rollback",
        "begin",
        "commit",
    ]


def test_k_group_4_each_call_reads_its_own_stores_clock_after_the_lock(
    store: SessionStore, path: Path
) -> None:
    late = ManualClock(9_000_000)
    with SessionStore.open(path, session_id="t", clock=late) as other:
        mine, yours = run_as_group(
            partial(store.claim_lease, owner_id="ann", ttl_ms=1),
            partial(other.claim_lease, owner_id="bob", ttl_ms=1),
        )
    assert yours.claimed_at_ms == 9_000_000
    assert mine.claimed_at_ms != yours.claimed_at_ms


# What one of several calls can do to the others: each is done again, alone.


def undo_everything(tx: SessionTx) -> None:
    tx.connection.exec_driver_sql("INSERT OR ROLLBACK INTO blobs SELECT hash, content FROM blobs")


def test_k_group_3_a_call_whose_statement_rolls_everything_back_costs_the_others_nothing(
    store: SessionStore, other: SessionStore
) -> None:
    store.put_blob(b"there")
    runs: list[int] = []

    def count(tx: SessionTx) -> int:
        runs.append(tx.now_ms)
        return len(runs)

    mine, counted, broken, yours = run_as_group(
        partial(store.claim_lease, owner_id="ann", ttl_ms=60_000),
        partial(store.transact, count),
        partial(store.transact, undo_everything),
        partial(other.claim_lease, owner_id="bob", ttl_ms=60_000),
    )
    assert "UNIQUE" in str(broken)
    assert store.current_lease() == mine
    assert mine.fence.fencing_token == 1  # what was undone left nothing behind
    assert other.current_lease() == yours
    assert counted == len(runs) == 2  # a repeatable work may run twice, and this one did


def test_k_group_3_a_call_that_hides_the_rollback_is_told_of_it(
    store: SessionStore, other: SessionStore
) -> None:
    store.put_blob(b"there")

    def hide(tx: SessionTx) -> str:
        with pytest.raises(Exception, match="UNIQUE"):
            undo_everything(tx)
        return "fine"

    mine, hidden = run_as_group(
        partial(store.claim_lease, owner_id="ann", ttl_ms=60_000), partial(other.transact, hide)
    )
    assert isinstance(hidden, TransactionEndedError)
    assert store.current_lease() == mine


def test_a_first_call_that_hides_the_rollback_is_told_of_it_and_nobody_joins_it(
    store: SessionStore, other: SessionStore
) -> None:
    store.put_blob(b"there")

    def hide(tx: SessionTx) -> str:
        with pytest.raises(Exception, match="UNIQUE"):
            undo_everything(tx)
        return "fine"

    hidden, yours = run_as_group(
        partial(store.transact, hide), partial(other.claim_lease, owner_id="bob", ttl_ms=60_000)
    )
    assert isinstance(hidden, TransactionEndedError)
    assert other.current_lease() == yours


def deferred(path: Path) -> None:
    run_script(
        path,
        "CREATE TABLE parents (id INTEGER PRIMARY KEY);"
        "CREATE TABLE children (id INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED);"
        "CREATE TABLE strict_children (id INTEGER REFERENCES parents (id))",
    )


def orphan(tx: SessionTx) -> str:
    tx.connection.execute(text("INSERT INTO children VALUES (1)"))
    return "not answered before COMMIT"


def test_k_group_3_a_key_that_fails_at_commit_fails_its_own_call_alone(
    store: SessionStore, other: SessionStore, path: Path
) -> None:
    deferred(path)
    mine, broken, yours = run_as_group(
        partial(store.claim_lease, owner_id="ann", ttl_ms=60_000),
        partial(store.transact, orphan),
        partial(other.claim_lease, owner_id="bob", ttl_ms=60_000),
    )
    assert isinstance(broken, StorageError)
    assert broken.code == "SQLITE_CONSTRAINT_FOREIGNKEY"
    assert store.current_lease() == mine
    assert other.current_lease() == yours
    assert all_rows(path)["children"] == []


def test_k_group_3_keys_deferred_by_one_call_are_checked_at_once_for_the_next(
    store: SessionStore, other: SessionStore, path: Path
) -> None:
    deferred(path)

    def defer(tx: SessionTx) -> None:
        tx.connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")

    def break_a_key(tx: SessionTx) -> None:
        tx.connection.execute(text("INSERT INTO strict_children VALUES (7)"))

    mine, done, broken, yours = run_as_group(
        partial(store.claim_lease, owner_id="ann", ttl_ms=60_000),
        partial(store.transact, defer),
        partial(store.transact, break_a_key),
        partial(other.claim_lease, owner_id="bob", ttl_ms=60_000),
    )
    assert done is None
    assert "FOREIGN KEY" in str(broken)
    assert store.current_lease() == mine
    assert mine.fence.fencing_token == 1
    assert other.current_lease() == yours


def test_k_group_3_a_consumer_can_not_release_a_groups_savepoint(
    store: SessionStore, other: SessionStore
) -> None:
    def release(tx: SessionTx) -> None:
        tx.claim_lease(owner_id="eve", ttl_ms=60_000)
        for name in ("lash_store", "call", "savepoint_1"):
            with pytest.raises(Exception, match="no such savepoint"):
                tx.connection.exec_driver_sql(f"RELEASE {name}")
        raise ValueError

    _, refused = run_as_group(
        partial(other.claim_lease, owner_id="bob", ttl_ms=1), partial(store.transact, release)
    )
    assert isinstance(refused, ValueError)
    assert store.current_lease() is None


def test_k_group_2_what_a_consumer_leaves_open_is_closed_after_its_call(
    store: SessionStore, other: SessionStore
) -> None:
    kept: list[Any] = []

    def leave_open(tx: SessionTx) -> None:
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
        kept.append(tx.connection.exec_driver_sql(numbers))
        next(kept[0])
        kept.append(tx.connection)

    lease, _, again = run_as_group(
        partial(store.claim_lease, owner_id="ann", ttl_ms=60_000),
        partial(store.transact, leave_open),
        partial(other.claim_lease, owner_id="bob", ttl_ms=60_000),
    )
    assert other.current_lease() == again
    assert kept[1].closed
    assert store.current_lease() == lease


def test_k_group_2_what_the_first_leaves_open_is_closed_before_the_next(
    store: SessionStore, other: SessionStore, path: Path
) -> None:
    """Neither its SQLAlchemy Connection nor what that was told, nor keys that it has put off."""
    deferred(path)
    kept: list[Any] = []

    def leave_open(tx: SessionTx) -> None:
        tx.connection.execution_options(schema_translate_map={None: "elsewhere"})
        tx.connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        kept.append(tx.connection)

    def look(tx: SessionTx) -> tuple[bool, Any]:
        options = tx.connection.get_execution_options()
        return kept[0].closed, options.get("schema_translate_map")

    def break_a_key(tx: SessionTx) -> None:
        tx.connection.execute(text("INSERT INTO strict_children VALUES (7)"))

    runs: list[int] = []
    _, looked, broken, yours, counted = run_as_group(
        partial(store.transact, leave_open),
        partial(other.transact, look),
        partial(other.transact, break_a_key),
        partial(other.claim_lease, owner_id="bob", ttl_ms=60_000),
        partial(other.transact, lambda _: runs.append(1)),
    )
    assert looked == (True, None)
    assert "FOREIGN KEY" in str(broken)
    assert other.current_lease() == yours
    assert (counted, runs) == (None, [1])  # at once: nobody had to be run again


def test_k_group_1_a_group_may_be_composed_of_the_same_calls_again(store: SessionStore) -> None:
    call = partial(store.transact, lambda _: 7, repeatable=True)
    assert run_as_group(call, call) == run_as_group(call) * 2 == [7, 7]
    assert call.keywords == {"repeatable": True}


def test_k_group_3_ignored_duplicates_are_told_apart_in_a_group(registry: ProcessRegistry) -> None:
    """A constraint with ON CONFLICT IGNORE swallows a statement: its counts are not the last one's."""
    with SessionStore.open(None, session_id="s") as store:
        first, again, another = run_as_group(
            partial(store.enqueue_work, NewWork([1], source_key="k")),
            partial(store.enqueue_work, NewWork([2], source_key="k")),
            partial(store.enqueue_work, NewWork([3], source_key="l")),
        )
        assert isinstance(again, AlreadyQueued)
        assert again.batch == first
        assert [batch.enqueue_seq for batch in (first, another)] == [1, 2]


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL])
@pytest.mark.parametrize("when", ["before", "after"])
def test_k_group_3_trouble_at_commit_fails_everybody_with_an_error_of_his_own(
    store: SessionStore, other: SessionStore, path: Path, code: int, when: str
) -> None:
    class AtCommit:
        def before(self, event: Event) -> None:
            if event.kind == "commit" and when == "before":
                self.fail()

        def after(self, event: Event) -> None:
            if event.kind == "commit" and when == "after":
                self.fail()

        def fail(self) -> None:
            error = sqlite3.OperationalError("the disk")
            error.sqlite_errorcode = code
            error.sqlite_errorname = "SQLITE_X"
            raise error

    before = all_rows(path)
    with observed_by(AtCommit()):
        results = run_as_group(
            partial(store.claim_lease, owner_id="ann", ttl_ms=60_000),
            partial(other.claim_lease, owner_id="bob", ttl_ms=60_000),
            partial(store.renew_lease, NOBODYS, ttl_ms=1),
        )
    assert [type(each) for each in results] == [StorageError] * 3
    assert len({id(each) for each in results}) == 3
    if when == "before":
        assert all_rows(path) == before
    assert isinstance(other.claim_lease(owner_id="cid", ttl_ms=1, session_id="u"), SessionLease)


def test_k_group_3_a_store_that_was_closed_meanwhile_is_refused_and_the_others_are_not(
    store: SessionStore, other: SessionStore
) -> None:
    def close(_: SessionTx) -> None:
        thread = threading.Thread(target=other.close)
        thread.start()
        thread.join()

    mine, _, refused = run_as_group(
        partial(store.claim_lease, owner_id="ann", ttl_ms=60_000),
        partial(store.transact, close),
        partial(other.claim_lease, owner_id="bob", ttl_ms=60_000),
    )
    assert isinstance(refused, StoreClosedError)
    assert store.current_lease() == mine


def test_what_can_not_be_in_a_group_is_refused(store: SessionStore, path: Path) -> None:
    with SessionStore.open(None, session_id="s") as elsewhere:
        for call in (
            store.current_lease,
            partial(store.load_blob, "x"),
            partial(print),
            partial(elsewhere.claim_lease, owner_id="ann", ttl_ms=1),
        ):
            with pytest.raises(InvalidRecordError):
                run_as_group(partial(store.claim_lease, owner_id="ann", ttl_ms=1), call)
        with pytest.raises(InvalidRecordError):
            run_as_group(partial(store.claim_lease, owner_id="", ttl_ms=1))
    assert run_as_group() == []
    assert store.current_lease() is None


def test_k_group_1_in_memory_calls_go_together_too() -> None:
    with (
        SessionStore.open(None, session_id="s") as one,
        SessionStore.open(one, session_id="t") as two,
    ):
        mine, lost, yours = run_as_group(
            partial(one.claim_lease, owner_id="ann", ttl_ms=60_000),
            partial(one.renew_lease, NOBODYS, ttl_ms=1),
            partial(two.claim_lease, owner_id="bob", ttl_ms=60_000),
        )
        assert isinstance(lost, LeaseLostError)
        assert (one.current_lease(), two.current_lease()) == (mine, yours)


def test_a_refused_process_operation_leaves_its_neighbours(registry: ProcessRegistry) -> None:
    from tests.support.registries import registration  # noqa: PLC0415 # reason: only here

    record, missing, appended = run_as_group(
        partial(registry.register_process, registration()),
        partial(registry.append_event, "nobody", "tick"),
        partial(registry.append_event, "p", "tick", {"n": 1}),
    )
    assert isinstance(missing, NotFoundError)
    assert registry.load_process("p") is not None
    assert registry.events_after("p") == [appended.event]
    assert record.id == "p"


def test_k_group_1_a_lone_call_sets_no_savepoint_and_makes_no_group(store: SessionStore) -> None:
    recorder = Recorder()
    with observed_by(recorder):
        store.claim_lease(owner_id="ann", ttl_ms=1)
    assert recorder.kinds == ["begin", "statement", "commit"]
    assert database_of(store).writer._group is None


def test_k_group_1_asyncio_calls_of_many_stores_share_transactions(path: Path) -> None:
    import asyncio  # noqa: PLC0415 # reason: only here

    recorder = Recorder()

    async def main() -> list[Any]:
        stores = [await AsyncSessionStore.open(path, session_id=f"s{n}") for n in range(20)]
        with observed_by(recorder):
            leases = await asyncio.gather(
                *(store.claim_lease(owner_id="ann", ttl_ms=60_000) for store in stores),
                *(store.renew_lease(NOBODYS, ttl_ms=1) for store in stores),
                return_exceptions=True,
            )
        for store in stores:
            await store.aclose()
        return leases

    results = asyncio.run(main())
    assert all(isinstance(each, SessionLease) for each in results[:20])
    assert all(isinstance(each, LeaseLostError) for each in results[20:])
    assert len({id(each) for each in results}) == 40
    assert recorder.kinds.count("commit") < 10


def test_k_tx_3_a_budget_runs_from_the_calls_own_submission(path: Path) -> None:
    with as_another_process():
        holder = SessionStore.open(path, session_id="s")
    with (
        holder,
        SessionStore.open(path, session_id="s", busy_timeout_ms=60) as hasty,
        SessionStore.open(path, session_id="t", busy_timeout_ms=60_000) as patient,
    ):
        got: list[Any] = []
        with holder.begin():
            thread = threading.Thread(
                target=lambda: got.append(patient.claim_lease(owner_id="ann", ttl_ms=1))
            )
            thread.start()
            with pytest.raises(StoreBusyError) as refusal:
                hasty.claim_lease(owner_id="bob", ttl_ms=1)
            assert 60 <= refusal.value.waited_ms < 5_000
            assert got == []
        thread.join()
        assert isinstance(got[0], SessionLease)
        assert isinstance(hasty.claim_lease(owner_id="bob", ttl_ms=1), SessionLease)


@contextmanager
def listening(name: str, function: Callable[[Connection], object]) -> Iterator[None]:
    event.listen(Engine, name, function)
    try:
        yield
    finally:
        event.remove(Engine, name, function)


def note(what: str) -> Callable[[SessionTx], str]:
    def work(tx: SessionTx) -> str:
        tx.connection.execute(text("INSERT INTO notes VALUES (:what)"), {"what": what})
        tx.connection.info["at"] = what
        if what == "broken":
            raise ZeroDivisionError
        return what

    return work


def test_k_compose_5_each_call_of_a_group_tells_its_listeners_what_becomes_of_it(
    store: SessionStore, path: Path
) -> None:
    """As alone: what a listener of ``commit`` writes is of the call, and a call that fails rolls back."""
    run_script(path, "CREATE TABLE notes (what TEXT)")
    told = list[str]()

    def committed(connection: Connection) -> None:
        connection.execute(text("INSERT INTO notes VALUES ('audit')"))
        told.append(f"commit {connection.info['at']}")

    with (
        listening("commit", committed),
        listening("rollback", lambda connection: told.append(f"rollback {connection.info['at']}")),
    ):
        answers = run_as_group(
            partial(store.transact, note("one")),
            partial(store.transact, note("broken")),
            partial(store.enqueue_work, NewWork([1])),
            partial(store.transact, note("two")),
        )
    assert [answers[0], type(answers[1]), answers[3]] == ["one", ZeroDivisionError, "two"]
    assert told == ["commit one", "rollback broken", "commit two"]
    with store.read() as tx:
        rows = tx.connection.execute(text("SELECT what FROM notes")).scalars().all()
    assert rows == ["one", "audit", "two", "audit"]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_k_group_3_what_a_listener_raises_is_its_own_call_s(
    store: SessionStore, path: Path, at: int
) -> None:
    run_script(path, "CREATE TABLE notes (what TEXT)")
    names = ["one", "two", "three"]

    def refuse(connection: Connection) -> None:
        if connection.info["at"] == names[at]:
            raise KeyError(names[at])

    with listening("commit", refuse):
        answers = run_as_group(
            *(partial(store.transact, note(each)) for each in names),
            partial(store.enqueue_work, NewWork([1])),
        )
    assert [each for each in answers if isinstance(each, KeyError)] == [answers[at]]
    kept = [each for each in names if each != names[at]]
    assert [each for each in answers if isinstance(each, str)] == kept
    with store.read() as tx:
        assert tx.connection.execute(text("SELECT what FROM notes")).scalars().all() == kept
    assert len(store.list_work()) == 1
