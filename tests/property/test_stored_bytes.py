"""Stored values that nobody wrote, through every read: a value, or CorruptRecordError.

One column of one row is replaced by what another program, or a broken disk, might have left there; then
everything is read. ``LASH_STORE_PROFILE=deep`` tries many more.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from lash_store import EffectStore, ProcessRegistry, SessionStore, Success, TriggerStore
from lash_store.errors import CorruptRecordError, IdempotencyConflictError, NotFoundError
from lash_store.schemas import SCHEMAS, Kind
from lash_store.testing import ManualClock
from tests.support.registries import lease_on, register
from tests.support.sessions import claim_of, enqueue, whole_turn
from tests.support.triggers import occur, subscribe

pytestmark = pytest.mark.canonical("writes to the tables by their canonical names")

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def _packed(value: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError):
        return b"\xc1"


VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=20).filter(lambda text: "\0" not in text),
    st.binary(max_size=30),
    JSON.map(json.dumps),  # whose integers may be larger than msgspec's
    JSON.map(_packed),
)

ANSWERS = (CorruptRecordError, NotFoundError, IdempotencyConflictError)
"""What a read may say: the row can't be read, or by its spoiled key it is not there, or is another's."""


def session(path: Path) -> None:
    with SessionStore.open(path, session_id="s", clock=ManualClock()) as store:
        enqueue(store, "first", {"a": 1})
        store.record_attachment_intent("att-1", canonical_uri="x:1")
        store.commit_turn(whole_turn(store, claim_of(store)))
        enqueue(store, "second")
        claim_of(store)
        enqueue(store, "third")


def process(path: Path) -> None:
    with ProcessRegistry.open(path, clock=ManualClock()) as registry:
        register(registry, "p")
        register(registry, "q")
        registry.append_event("p", "wake", {"text": "x"}, replay_key="k")
        registry.append_event("p", "tick", 7)
        registry.complete_process("q", Success(1))
        lease_on(registry, "p")


def trigger(path: Path) -> None:
    with TriggerStore.open(path, clock=ManualClock()) as triggers:
        subscribe(triggers)
        triggers.reserve_deliveries(occur(triggers).occurrence_id)


def effect(path: Path) -> None:
    with EffectStore.open(path, owner_id="ann", clock=ManualClock()) as effects:
        effects.run("s", "done", {}, lambda: {"a": 1})
        effects.begin_effect("s", "begun", {})
        effects.begin_sleep("s", "asleep", 5)


OPEN: dict[Kind, tuple[Any, Callable[[Path], None]]] = {
    "session": (lambda path: SessionStore.open(path, session_id="s", clock=ManualClock()), session),
    "process": (lambda path: ProcessRegistry.open(path, clock=ManualClock()), process),
    "trigger": (lambda path: TriggerStore.open(path, clock=ManualClock()), trigger),
    "effect": (lambda path: EffectStore.open(path, clock=ManualClock()), effect),
}


def reads(kind: str, store: Any) -> Iterator[Callable[[], Any]]:
    """Everything that can be read, by what the sound rows are called."""
    if kind == "session":
        for name in (
            "load_meta", "load_head", "load_graph", "load_path", "load_usage", "load_summary",
            "list_work", "list_pending_work", "current_lease",
        ):  # fmt: skip
            yield getattr(store, name)
        yield lambda: store.list_uncommitted_attachments(older_than_ms=10**15)
        yield lambda: store.load_receipt("turn-1")
        yield lambda: load_checkpoint(store)
        yield lambda: store.load_path("n1")
    elif kind == "process":
        yield store.list_processes
        yield lambda: store.list_processes(state="completed")
        yield store.pending_wakes
        for name in ("p", "q"):
            for read in (
                store.load_process,
                store.events_after,
                store.recent_events,
                store.wake_events_after,
                store.current_lease,
            ):
                yield partial(read, name)
    elif kind == "trigger":
        yield store.list_subscriptions
        yield store.list_deliveries
    else:
        yield store.list_effects
        yield store.oldest_in_progress_ms
        yield lambda: store.look_up_effect("s", "done", {})
        yield lambda: store.look_up_effect("s", "begun", {})
        yield lambda: store.look_up_sleep("s", "asleep", 5)


def load_checkpoint(store: SessionStore) -> Any:
    head = store.load_head()
    ref = None if head is None else head.checkpoint_ref
    return None if ref is None else store.load_checkpoint(ref)


@cache
def template(kind: Kind) -> Path:
    path = Path(tempfile.mkdtemp()) / f"{kind}.db"
    OPEN[kind][1](path)
    return path


COLUMNS = {
    kind: [(table.name, column.name) for table in SCHEMAS[kind].tables for column in table.c]
    for kind in OPEN
}


@pytest.mark.parametrize("kind", OPEN)
@settings(deadline=None, max_examples=settings().max_examples * 3)
@given(data=st.data())
def test_whatever_stands_there_is_read_or_refused(kind: Kind, data: st.DataObject) -> None:
    table, column = data.draw(st.sampled_from(COLUMNS[kind]))
    value = data.draw(VALUES)
    as_text = isinstance(value, bytes) and data.draw(st.booleans())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{kind}.db"
        shutil.copy(template(kind), path)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            new = "CAST(? AS TEXT)" if as_text else "?"
            try:
                connection.execute(
                    f"UPDATE {table} SET {column} = {new} "
                    f"WHERE rowid = (SELECT max(rowid) FROM {table})",
                    (value,),
                )
            except sqlite3.IntegrityError:
                return  # no program could have left that
        store = OPEN[kind][0](path)
        try:
            for read in reads(kind, store):
                try:
                    read()
                except ANSWERS:
                    continue
        finally:
            store.close()
