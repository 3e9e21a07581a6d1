"""A fault at every statement of a group: whoever has a result has it kept, whoever has none is whole.

What a file may hold afterwards is found by running every choice of the calls one by one: the calls
that have a result are all among those that were done, and no call was done in part or twice.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from lash_store import (
    AsyncSessionStore,
    EffectStore,
    NewWork,
    ProcessRegistry,
    SessionFence,
    SessionLease,
    SessionStore,
    Success,
    TurnCommit,
    TurnStamp,
)
from lash_store._kernel.observing import Event, observed_by
from lash_store._stores.operations import operations_of
from lash_store._stores.store import Store
from lash_store.effect.records import EffectClaim
from lash_store.errors import (
    DiskFullError,
    LashStoreError,
    LeaseLostError,
    StorageError,
    StoreBusyError,
)
from lash_store.schemas import check_file
from lash_store.session.records import Checkpoint, UsageDelta
from lash_store.testing import (
    ManualClock,
    SequentialIds,
    fail_at_each_statement,
    kill_at_each_statement,
    run_as_group,
)
from lash_store.testing.crashing import FaultKind, When
from tests.support.databases import Rows, all_rows, database_of
from tests.support.registries import registration
from tests.support.sessions import chain
from tests.support.turns import eventually, held, in_line, join, outcome, started

Kind = Literal["sessions", "processes", "effects"]
Calls = list[Callable[[], Any]]
KINDS: list[Kind] = ["sessions", "processes", "effects"]


class At:
    """Raises at the `at`-th statement on one path, on one thread if that is said."""

    def __init__(self, path: str, at: int, when: str, error: Callable[[], BaseException]) -> None:
        self._path, self._left, self._when, self._error = path, at, when, error
        self.thread: int | None = None
        self.fired: Event | None = None

    def before(self, event: Event) -> None:
        if self._concerns(event):
            self._left -= 1
            if self._left == 0 and self._when == "before":
                self._fire(event)

    def after(self, event: Event) -> None:
        if self._concerns(event) and self._left == 0 and self._when == "after":
            self._fire(event)

    def _concerns(self, event: Event) -> bool:
        is_here = self.thread in (None, threading.get_ident())
        return is_here and event.path == self._path and self.fired is None

    def _fire(self, event: Event) -> None:
        self.fired = event
        raise self._error()


# The stores, each with five calls that change different things.


@contextmanager
def sessions(path: Path) -> Iterator[tuple[Store[Any], Calls]]:
    clock = ManualClock()
    options: Any = {"clock": clock, "busy_timeout_ms": 60_000}
    with (
        SessionStore.open(path, session_id="s", ids=SequentialIds("one"), **options) as one,
        SessionStore.open(path, session_id="t", ids=SequentialIds("two"), **options) as two,
    ):
        lease = one.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert isinstance(lease, SessionLease)
        turn = TurnCommit(
            fence=lease.fence,
            stamp=TurnStamp("turn", "hash"),
            config={"model": "m"},
            graph=chain("n1", "n2"),
            checkpoint=Checkpoint(turn_state={"n": 1}, execution_state=b"\0\1"),
            usage=[UsageDelta("chat", "m", 10, 5, 1, 2)],
        )
        yield (
            one,
            [
                partial(two.enqueue_work, NewWork(["a", "b"])),
                partial(one.commit_turn, turn),
                partial(two.renew_lease, SessionFence("t", "nobody", "none", 1), ttl_ms=1),
                partial(one.enqueue_all_work, [NewWork(["c"]), NewWork(["d"], source_key="k")]),
                partial(two.claim_lease, owner_id="bob", ttl_ms=60_000),
            ],
        )


@contextmanager
def processes(path: Path) -> Iterator[tuple[Store[Any], Calls]]:
    clock = ManualClock()
    options: Any = {"clock": clock, "busy_timeout_ms": 60_000}
    with (
        ProcessRegistry.open(path, ids=SequentialIds("one"), **options) as one,
        ProcessRegistry.open(path, ids=SequentialIds("two"), **options) as two,
    ):
        for name in "pq":
            one.register_process(registration(name))
        yield (
            one,
            [
                partial(one.register_process, registration("r")),
                partial(two.append_event, "p", "wake", {"n": 1}),
                partial(one.append_event, "nobody", "tick"),
                partial(two.complete_process, "q", Success("done")),
                partial(one.claim_lease, "p", owner_id="ann", ttl_ms=60_000),
            ],
        )


@contextmanager
def effects(path: Path) -> Iterator[tuple[Store[Any], Calls]]:
    clock = ManualClock()
    options: Any = {"clock": clock, "busy_timeout_ms": 60_000}
    with (
        EffectStore.open(path, owner_id="ann", ids=SequentialIds("one"), **options) as one,
        EffectStore.open(path, owner_id="bob", ids=SequentialIds("two"), **options) as two,
    ):
        claims = [one.begin_effect("s", key, "e", ttl_ms=60_000) for key in "abc"]
        first, second, third = claims
        assert isinstance(first, EffectClaim)
        assert isinstance(second, EffectClaim)
        assert isinstance(third, EffectClaim)
        yield (
            one,
            [
                partial(one.finish_effect, first, {"n": 1}),
                partial(two.begin_effect, "t", "a", "e", ttl_ms=60_000),
                partial(two.renew_effect, EffectClaim("s", "a", "e", "bob", "none", 1)),
                partial(one.abandon_effect, second),
                partial(two.renew_effect, third, ttl_ms=90_000),
            ],
        )


STORES = {"sessions": sessions, "processes": processes, "effects": effects}


def without_tokens(rows: Rows) -> Rows:
    """How many tokens were drawn is of no interest: a call that is run again draws another."""

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(r"\b(one|two)-\d+", "token", value)
        return value

    return {
        table: sorted((tuple(map(plain, row)) for row in found), key=repr)
        for table, found in rows.items()
    }


class Whole:
    """What may be in the file, by which of the calls were done; and what each call gives."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.rows: list[tuple[frozenset[int], Rows]] = []
        for number, done in enumerate(_choices(5)):
            path = folder / f"{kind}-{number}.db"
            with STORES[kind](path) as (_, calls):
                results = [outcome(calls[at]) for at in sorted(done)]
            self.rows.append((done, without_tokens(all_rows(path))))
        self.kinds = [type(result) for result in results]  # of all five: the last choice

    def check(
        self, results: list[Any], found: Rows, errors: tuple[type[BaseException], ...]
    ) -> None:
        """Each result is one that the call may have; and the file holds what has a result."""
        acknowledged = set()
        for at, (result, expected) in enumerate(zip(results, self.kinds, strict=True)):
            assert type(result) is expected or isinstance(result, errors), (at, result)
            if type(result) is expected and not isinstance(result, Exception):
                acknowledged.add(at)
        rows = without_tokens(found)
        assert any(rows == these and acknowledged <= done for done, these in self.rows)


def _choices(count: int) -> Iterator[frozenset[int]]:
    for size in range(count + 1):
        for choice in itertools.combinations(range(count), size):
            yield frozenset(choice)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], Whole]:
    known: dict[Kind, Whole] = {}

    def of(kind: Kind) -> Whole:
        if kind not in known:
            known[kind] = Whole(kind, tmp_path_factory.mktemp("whole"))
        return known[kind]

    return of


def anew(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def check_nothing_is_left(store: Store[Any], path: Path) -> None:
    """No lock, no transaction, no savepoint, no turn; and the next call works."""
    database = database_of(store)
    writer = database.connections.writer
    assert database.writer.turns.is_free
    assert database.writer._group is None
    assert not in_line(store)
    assert writer is not None
    assert not writer.in_transaction
    with closing(sqlite3.connect(path, timeout=0)) as another:
        another.execute("BEGIN IMMEDIATE")
        another.rollback()
    before = all_rows(path)
    assert store.transact(lambda tx: tx.connection.exec_driver_sql("SELECT 7").scalar()) == 7
    with store.begin() as tx:
        tx.connection.exec_driver_sql("CREATE TABLE passing (n INTEGER)")
        tx.connection.exec_driver_sql("DROP TABLE passing")
    after = all_rows(path)
    assert {**before, "schema": []} == {**after, "schema": []}


def in_savepoints(store: Store[Any]) -> None:
    """Let every operation of a group be in a savepoint, as those are that have once failed late."""
    database_of(store).writer._may_need_undoing.update(operations_of(type(store)))


class Opened:
    """The stores of one kind, open on a new file, with the calls that go together."""

    def __init__(self, kind: Kind, path: Path, *, apart: bool) -> None:
        anew(path)
        self._stack = ExitStack()
        self.store, self._calls = self._stack.enter_context(STORES[kind](path))
        if apart:
            in_savepoints(self.store)
        self.results: list[Any] = []

    def run(self) -> None:
        """Run all calls as one group."""
        self.results = run_as_group(*self._calls)

    def close(self) -> None:
        """Close the stores."""
        self._stack.close()


@pytest.mark.parametrize("apart", [False, True], ids=["plain", "savepoints"])
@pytest.mark.parametrize("when", get_args(When))
@pytest.mark.parametrize("fault", get_args(FaultKind))
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_every_statement_of_a_group(
    path: Path,
    *,
    kind: Kind,
    fault: FaultKind,
    when: When,
    apart: bool,
    whole: Callable[[Kind], Whole],
) -> None:
    may_be, unharmed = whole(kind), 0

    def check(it: Opened, error: BaseException | None) -> None:
        nonlocal unharmed
        assert error is None, repr(error)  # each call has its own
        may_be.check(it.results, all_rows(path), (StorageError, StoreBusyError))
        check_nothing_is_left(it.store, path)
        unharmed += [type(each) for each in it.results] == may_be.kinds

    failed = fail_at_each_statement(
        lambda: Opened(kind, path, apart=apart),
        Opened.run,
        check,
        close=Opened.close,
        faults=(fault,),
        whens=(when,),
    )
    # begin, commit, five statements or more; and a savepoint with its release for each further call
    assert failed >= (15 if apart else 7)
    # A savepoint is no call's own: if it fails, all are run again, and have what they would have had.
    assert unharmed >= (8 if apart else 0)


def test_a_group_that_is_killed_at_every_statement_is_kept_whole_or_not_at_all() -> None:
    def opened(folder: Path) -> SessionStore:
        return SessionStore.open(folder / "store.db", session_id="s", clock=ManualClock())

    def work(folder: Path) -> None:
        store = opened(folder)
        run_as_group(
            *(partial(store.enqueue_work, NewWork([each])) for each in "abc"),
            partial(store.claim_lease, owner_id="ann", ttl_ms=60_000),
        )

    def check(folder: Path, is_done: bool) -> None:
        with opened(folder) as store:
            found = len(store.list_work()), store.current_lease() is not None
        assert found == (3, True) or (found == (0, False) and not is_done)

    assert kill_at_each_statement(work, check, make=lambda folder: opened(folder).close()) >= 7


@pytest.mark.parametrize("apart", [False, True], ids=["plain", "savepoints"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_at_every_statement_concerns_the_leader_alone(
    path: Path, kind: Kind, when: str, apart: bool, whole: Callable[[Kind], Whole]
) -> None:
    """Those that other threads wait for are completed: by the leader, or by one of them."""
    may_be = whole(kind)
    at = 0
    while True:
        at += 1
        with STORES[kind](path) as (store, calls):
            if apart:
                in_savepoints(store)
            interrupt = At(store.path, at, when, KeyboardInterrupt)
            results: list[Any] = [None] * len(calls)

            def call(
                number: int,
                calls: Calls = calls,
                results: list[Any] = results,
                interrupt: At = interrupt,
            ) -> None:
                if number == 0:
                    interrupt.thread = threading.get_ident()
                results[number] = outcome(calls[number])

            threads: list[threading.Thread] = []
            interrupt.thread = -1  # until the leader is there
            with observed_by(interrupt):
                with held(store):
                    for number in range(len(calls)):
                        threads += started(partial(call, number))
                        eventually(lambda n=number, store=store: in_line(store) == n + 1)  # type: ignore[misc] # reason: defaults
                join(*threads)
            found = all_rows(path)
            may_be.check(results, found, (KeyboardInterrupt,))
            assert not any(isinstance(each, KeyboardInterrupt) for each in results[1:])
            assert isinstance(results[0], KeyboardInterrupt) == (interrupt.fired is not None)
            check_nothing_is_left(store, path)
        anew(path)
        if interrupt.fired is None:
            break
    assert at > (10 if apart else 7)
    assert without_tokens(found) == may_be.rows[-1][1]


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupted_leader_leaves_no_event_loop_without_an_answer(
    path: Path, when: str
) -> None:
    at = 0
    while True:
        at += 1
        with SessionStore.open(path, session_id="s") as store:
            interrupt = At(store.path, at, when, KeyboardInterrupt)
            interrupt.thread = -1
            got: list[Any] = []

            def lead(
                store: SessionStore = store, interrupt: At = interrupt, got: list[Any] = got
            ) -> None:
                interrupt.thread = threading.get_ident()
                got.append(outcome(partial(store.claim_lease, owner_id="ann", ttl_ms=60_000)))

            async def main(
                store: SessionStore = store,
                interrupt: At = interrupt,
                lead: Callable[[], None] = lead,
            ) -> list[Any]:
                async with AsyncSessionStore.open(path, session_id="t") as mine:
                    with observed_by(interrupt):
                        with held(store):
                            threads = started(lead)
                            eventually(lambda: in_line(store) == 1)
                            tasks = [
                                asyncio.create_task(
                                    mine.claim_lease(
                                        owner_id="bob", ttl_ms=60_000, session_id=f"t{number}"
                                    )
                                )
                                for number in range(3)
                            ]
                            while in_line(store) < 4:
                                await asyncio.sleep(0)
                        async with asyncio.timeout(60):
                            leases = await asyncio.gather(*tasks)
                        await asyncio.to_thread(join, *threads)
                    return list(leases)

            leases = asyncio.run(main())
            rows = all_rows(path)["session_execution_leases"]
            assert [lease.fencing_token for lease in leases] == [1, 1, 1]
            assert {f"t{number}" for number in range(3)} <= {row[0] for row in rows}
            check_nothing_is_left(store, path)
        anew(path)
        if interrupt.fired is None:
            break
        assert isinstance(got[0], KeyboardInterrupt)
    assert at > 6  # begin, four claims, commit


# A disk that is full.

SIZE_KB = 640


def enqueue_until_full(folder: str) -> None:
    """Fill a small disk with groups of fifty, make room, and go on; in a process of its own."""
    path = Path(folder) / "store.db"
    filler = Path(folder) / "filler"
    filler.write_bytes(b"\0" * 100_000)
    with SessionStore.open(path, session_id="s", busy_timeout_ms=60_000) as store:
        done: list[str] = []
        numbers = itertools.count()

        def group() -> list[Any]:
            keys = [f"k{next(numbers)}" for _ in range(50)]
            work = [NewWork(["x" * 200], source_key=key) for key in keys]
            results = run_as_group(*(partial(store.enqueue_work, each) for each in work))
            for key, result in zip(keys, results, strict=True):
                if isinstance(result, LashStoreError):
                    failed.append(result)
                else:
                    done.append(key)
            return results

        def kept() -> list[str]:
            keys = [batch.source_key for batch in store.list_work(limit=100_000)]
            return [key for key in keys if key is not None]

        failed: list[LashStoreError] = []
        while not failed:
            group()
            assert len(done) < 100_000
        assert len(done) > 50
        for error in failed:
            assert isinstance(error, StorageError), error
            assert error.code.split("_")[1] in ("FULL", "IOERR"), error.code
        for _ in range(3):
            group()  # it is full still, and an error again
        assert kept() == done  # each once, in order
        filler.unlink()
        failed.clear()
        assert len(group()) == 50
        assert not failed
        assert kept() == done
    assert check_file(path).is_sound


def test_a_full_disk_fails_calls_and_loses_none(tmp_path: Path) -> None:
    """On a disk of its own, in a mount namespace of its own; without the right to have one, a file
    that may not grow stands for it: see the next test."""
    run = f"from tests.crash.test_group_faults import enqueue_until_full as f; f({str(tmp_path)!r})"
    command = f'mount -t tmpfs -o size={SIZE_KB}k none "$0" || exit 77; exec "$1" -c "$2"'
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here: the next test stands for this one")
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, str(tmp_path), sys.executable, run],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    if ended.returncode == 77 or "unshare failed" in ended.stderr:
        pytest.skip(f"no mount of our own here: {ended.stderr.strip()}")
    assert ended.returncode == 0, ended.stderr


def test_a_file_that_may_not_grow_fails_calls_and_loses_none(
    path: Path, store: SessionStore
) -> None:
    def allow(pages: int) -> None:
        with held(store):
            writer = database_of(store).connections.writer
            assert writer is not None
            sqlite3.Connection.cursor(writer).execute(f"PRAGMA max_page_count = {pages}")

    pages = Path(path).stat().st_size // 2048
    allow(pages + 80)
    done: list[str] = []
    failed: list[Any] = []
    for round_ in range(20):
        keys = [f"{round_}-{at}" for at in range(50)]
        works = [NewWork(["x" * 200], source_key=key) for key in keys]
        results = run_as_group(*(partial(store.enqueue_work, each) for each in works))
        failed += [result for result in results if isinstance(result, Exception)]
        done += [
            key
            for key, result in zip(keys, results, strict=True)
            if not isinstance(result, Exception)
        ]
        assert [batch.source_key for batch in store.list_work(limit=10_000)] == done
    assert len(done) > 10
    assert failed
    assert {(type(error), error.code) for error in failed} == {(DiskFullError, "SQLITE_FULL")}
    allow(1_000_000)
    works = [NewWork(["x" * 200], source_key=f"last {at}") for at in range(50)]
    run_as_group(*(partial(store.enqueue_work, each) for each in works))
    assert len(store.list_work(limit=10_000)) == len(done) + 50
    assert check_file(path).is_sound


def test_a_lost_lease_is_no_fault(path: Path, whole: Callable[[Kind], Whole]) -> None:
    """What the five calls give, so that the tests above mean what they say."""
    assert [each.__name__ for each in whole("sessions").kinds] == [
        "WorkBatch",
        "TurnReceipt",
        LeaseLostError.__name__,
        "list",
        "SessionLease",
    ]
