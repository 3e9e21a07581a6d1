"""An interrupt before instructions of a call: nothing stays locked, in its handler already (K-TX-10)."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from itertools import count

import psycopg
import pytest

from lash_store import NewWork, SessionStore
from tests.support.interrupting import CALLS, Interrupt

EACH = 1 if os.environ.get("LASH_STORE_PROFILE") == "deep" else 23
"""Before every how many instructions one comes: a prime, so that no loop is always hit at the same place."""


@pytest.mark.parametrize("call", CALLS)
def test_k_tx_10_behind_an_interrupt_on_a_server_calls_proceed(
    url: str, place: str, call: Callable[[SessionStore], None]
) -> None:
    with SessionStore.open(
        url, session_id="s", schema=place, pool_size=3, busy_timeout_ms=5_000
    ) as store:
        call(store)  # once: what is done the first time only is another matter
        for instruction in count(1, EACH):
            interrupt = Interrupt(instruction)
            try:
                interrupt.within(lambda: call(store))
            except KeyboardInterrupt:
                store.put_blob(b"in the handler")
                store.work_depth()
            else:
                break
            gc.collect()
            store.put_blob(b"behind it")
            store.work_depth()
        assert instruction > 500
        turns = store._handle.database.turns  # type: ignore[attr-defined] # reason: what is open is no business of a store's
        assert turns._admitted == {}
        assert list(turns.waiting) == []


class DeadlineError(Exception):
    """An application's, raised by its handler."""


def _past(_: int, __: object) -> None:
    raise DeadlineError


def _in_a_block(store: SessionStore) -> None:
    with store.begin() as tx:
        tx.enqueue_work(NewWork([1]))


WAITS: dict[str, Callable[[SessionStore], object]] = {
    "enqueue_work": lambda store: store.enqueue_work(NewWork([1])),
    "transact": lambda store: store.transact(lambda tx: tx.enqueue_work(NewWork([1]))),
    "repeatable": lambda store: store.transact(
        lambda tx: tx.enqueue_work(NewWork([1])), repeatable=True
    ),
    "begin": _in_a_block,
    "list_work": lambda store: store.list_work(),
}


@pytest.mark.parametrize("handler", ["of Python", "own"])
@pytest.mark.parametrize("name", WAITS)
def test_k_tx_10_what_strikes_as_a_server_is_waited_for_is_raised_as_it_is(
    url: str, place: str, name: str, handler: str
) -> None:
    """Whatever the driver, or a savepoint that can't be undone any more, raises over it."""
    handle, expected = (
        (signal.default_int_handler, KeyboardInterrupt)
        if handler == "of Python"
        else (_past, DeadlineError)
    )
    before = signal.signal(signal.SIGALRM, handle)
    try:
        with (
            SessionStore.open(url, session_id="s", schema=place) as store,
            psycopg.connect(url.replace("+psycopg", "")) as other,
        ):
            store.enqueue_work(NewWork([0]))
            for _ in range(2):  # on a new connection as well
                other.execute(
                    f"LOCK TABLE {place}.lash_queued_work_batches IN ACCESS EXCLUSIVE MODE"
                )
                signal.setitimer(signal.ITIMER_REAL, 0.15)
                with pytest.raises(expected):
                    WAITS[name](store)
                other.rollback()
                assert store.work_depth().batches == 1
            store.enqueue_work(NewWork([2]))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
