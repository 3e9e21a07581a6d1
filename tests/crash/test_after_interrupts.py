"""What comes behind an interrupt: in its handler, in the transaction that it came in, and for a held term."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from lash_store import NewWork, SessionLease, SessionStore
from lash_store._backends.sqlite import forking, opened
from lash_store._kernel.keeping import KEEPER
from lash_store._kernel.threads import TIMER
from lash_store.errors import TransactionEndedError
from tests.support.databases import database_of
from tests.support.interrupting import CALLS, LIBRARY, Interrupt, begin, read, read_one
from tests.support.turns import eventually, in_line, join, started

pytestmark = pytest.mark.canonical("a turn on a file, which interrupts could leave locked")


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, path: Path) -> Iterator[SessionStore]:
    where = path if request.param == "file" else None
    with SessionStore.open(where, session_id="s", busy_timeout_ms=20_000) as opened:
        assert isinstance(opened.claim_lease(owner_id="ann", ttl_ms=60_000), SessionLease)
        yield opened


@pytest.mark.parametrize("call", CALLS)
def test_k_tx_10_in_the_handler_of_an_interrupt_calls_proceed(
    store: SessionStore, call: Callable[[SessionStore], None]
) -> None:
    call(store)  # once: what is done the first time only is another matter
    for instruction in count(1):
        interrupt = Interrupt(instruction)
        try:
            interrupt.within(lambda: call(store))
        except KeyboardInterrupt:
            store.put_blob(b"%d" % instruction)
            with store.begin() as tx:
                tx.put_blob(b"y")
            store.work_depth()
        else:
            break
    assert instruction > 50


def test_k_tx_10_a_store_that_an_interrupt_leaves_can_be_closed_in_its_handler(path: Path) -> None:
    for instruction in count(1):
        store = SessionStore.open(path, session_id="s")
        interrupt = Interrupt(instruction, behind="begin_write")
        try:
            interrupt.within(lambda: begin(store))  # noqa: B023 # reason: it is called here
        except KeyboardInterrupt:
            store.close()
        else:
            store.close()
            break
        assert store.closed
    assert instruction > 30


@pytest.mark.posix("forks")
@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("call", [read, read_one])
def test_k_tx_10_an_interrupted_read_leaves_no_connection_that_a_fork_would_wait_for(
    path: Path, call: Callable[[SessionStore], None], is_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking, "FORK_WAIT_S", 0.0)
    with SessionStore.open(path, session_id="s") as store:
        if is_open:
            call(store)
        database = database_of(store)
        left = dict[str, int]()
        for instruction in count(1):
            where = Interrupt(instruction, of=LIBRARY / "_backends/sqlite/reading.py").strikes(
                lambda: call(store)
            )
            if not where:
                break
            forking._prepare_fork()
            if database.connections.all:
                left[where] = len(database.connections.all)
            forking._after_fork_in_parent()
            if is_open:
                call(store)
        assert instruction > 50
        assert left == {}


def test_k_tx_1_a_snapshot_lasts_as_long_as_its_block_at_most(path: Path) -> None:
    """One that is dropped and never left would keep the WAL growing, and each fork waiting."""
    with SessionStore.open(path, session_id="s") as store:
        kept = store.read().__enter__()  # its block is nobody's from here on
        assert store.work_depth().batches == 0
        with pytest.raises(TransactionEndedError):
            kept.work_depth()
        assert not database_of(store).readers.in_use


def test_k_tx_10_closing_that_was_interrupted_can_be_done_again_or_was_done(path: Path) -> None:
    """It was taken for done, with everything open, wherever an interrupt struck."""
    left_open = list[str]()
    for instruction in count(1):
        there = path.with_name(f"{instruction}.db")
        store = SessionStore.open(there, session_id="s")
        store.put_blob(b"x")
        where = Interrupt(instruction).strikes(store.close)
        with suppress(RuntimeError):
            opened.lock.release()  # a tracer strikes behind the taking of a lock, where no signal does
        if not where:
            break
        store.close()
        assert store.closed
        if database_of(store).connections.writer is not None:
            left_open.append(where)
    assert instruction > 100
    assert left_open == []


def test_k_tx_10_an_interrupt_in_opening_delays_no_fork_and_no_opening() -> None:
    there = LIBRARY / "_backends/sqlite/forking.py"
    for instruction in count(1):
        interrupt = Interrupt(instruction, of=there)
        try:
            interrupt.within(lambda: SessionStore.open(None, session_id="s"))
        except KeyboardInterrupt:
            pass
        else:
            break
        begun_s = time.monotonic()
        forking._prepare_fork()
        forking._after_fork_in_parent()
        assert time.monotonic() - begun_s < forking.FORK_WAIT_S / 2, interrupt.where
        join(*started(lambda: SessionStore.open(None, session_id="s").close()))
    assert instruction > 30


class StruckLock:
    """A lock behind whose taking an interrupt strikes at once, as a signal may."""

    def __init__(self, lock: Any) -> None:
        self.release = lock.release
        self._lock = lock

    def acquire(self, **how: Any) -> bool:
        self._lock.acquire(**how)
        raise KeyboardInterrupt


def test_k_tx_10_an_interrupt_in_opening_one_more_store_delays_no_other(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        database: Any = database_of(store)
        lock, database._opening = database._opening, StruckLock(database._opening)
        with pytest.raises(KeyboardInterrupt):
            SessionStore.open(path, session_id="s")
        database._opening = lock
        join(*started(lambda: SessionStore.open(path, session_id="s").close()))


def test_k_tx_10_an_interrupt_behind_a_fork_holds_no_other_database(tmp_path: Path) -> None:
    """Python reports what strikes there, and goes on: whatever was held for the fork has to be let go."""
    stores = [SessionStore.open(tmp_path / f"{each}.db", session_id="s") for each in "abc"]
    there = LIBRARY / "_backends/sqlite/database.py"
    for instruction in count(1):
        forking._prepare_fork()
        try:
            Interrupt(instruction, of=there).within(forking._after_fork_in_parent)
        except KeyboardInterrupt:
            for store in stores:
                with closing(
                    SessionStore.open(store, session_id="s", busy_timeout_ms=300)
                ) as other:
                    other.put_blob(b"%d" % instruction)
        else:
            break
    assert instruction > 30
    for store in stores:
        store.close()


def test_k_tx_10_an_interrupt_of_who_stood_in_line_leaves_no_turn_behind(
    store: SessionStore,
) -> None:
    """Its call still stands there, to be passed over by the next one who looks."""
    for instruction in range(1, 60):
        entered, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with store.begin():
                entered.set()  # noqa: B023 # reason: joined below
                leave.wait(60)  # noqa: B023 # reason: likewise

        def let_go() -> None:
            eventually(lambda: in_line(store))
            leave.set()  # noqa: B023 # reason: likewise

        others = started(hold)
        assert entered.wait(60)
        others += started(let_go)
        interrupt = Interrupt(instruction, behind="note_wait")
        try:
            interrupt.within(lambda: begin(store))
        except KeyboardInterrupt:
            pass
        else:
            join(*others)
            break
        join(*others)
        store.put_blob(b"%d" % instruction)
        assert store.work_depth().batches == 0
    assert instruction > 20


def test_k_tx_2_an_interrupt_in_an_operation_inside_is_itself(store: SessionStore) -> None:
    """And what was interrupted happened wholly, or not at all."""
    for instruction in count(1):
        interrupt = Interrupt(instruction)
        ended = False
        with store.begin() as tx:
            before = tx.work_depth().batches
            try:
                interrupt.within(
                    lambda: tx.enqueue_all_work([NewWork([1]), NewWork([2])])
                )  # reason: it is called here
                ended = True
            except KeyboardInterrupt:
                pass
            after = tx.work_depth().batches
        assert after - before in {0, 2}, interrupt.where
        assert store.work_depth().batches == after
        if ended:
            break
    assert instruction > 100


def test_k_hold_1_a_term_whose_block_an_interrupt_kept_from_being_entered_is_released(
    store: SessionStore,
) -> None:
    def hold() -> None:
        with store.hold(owner_id="bea", ttl_ms=60_000, session_id="other"):
            entered.append(1)

    gc.collect()
    gc.freeze()  # what is there by now need not be looked through each time
    for instruction in count(1):
        entered: list[int] = []
        interrupt = Interrupt(instruction, behind="_held")
        try:
            interrupt.within(hold)
        except KeyboardInterrupt:
            pass
        else:
            break
        for lock in (KEEPER._lock, TIMER._lock):
            with suppress(
                RuntimeError
            ):  # a tracer strikes behind the taking of a lock, where no signal does
                while True:
                    lock.release()
        gc.collect()
        assert not any(book.kept for book in KEEPER._books.values()), interrupt.where
        eventually(lambda: store.current_lease(session_id="other") is None)
    gc.unfreeze()
    assert entered
    assert instruction > 50
