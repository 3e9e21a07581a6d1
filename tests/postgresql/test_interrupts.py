"""An interrupt before instructions of a call: nothing stays locked, in its handler already (K-TX-10)."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from itertools import count

import pytest

from lash_store import SessionStore
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
