"""What stands in a store, all of it read; and one value in it replaced by what nobody of ours wrote."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from hypothesis import strategies as st
from sqlalchemy import Table

from lash_store.session.records import Checkpoint, SessionMeta
from lash_store.trigger.records import SubscriptionFilter
from tests.support import on_server as on_the_server
from tests.support.layouts import on_server
from tests.support.registries import register
from tests.support.sessions import chain, commit, stamped
from tests.support.writes import ENVELOPE, ONE

LATE_MS = 10**15


def add_to_session(store: Any) -> None:
    """Give it also what a filled one has not: a receipt, a checkpoint, a longer path, names."""
    store.commit_turn(
        stamped(store, checkpoint=Checkpoint({"turn_index": 1}, execution_state=b"x"))
    )
    commit(store, chain("n1", "n2", "n3", "n4"), config={"model": "m"})
    store.save_meta(SessionMeta("s", "name", "unix:1", "m"))
    store.put_artifact("ref", kind="env", content=b"content")


def add_to_registry(registry: Any) -> None:
    """Give it also a wake that is known, and an event without one."""
    registry.ack_wake("p", 1)
    registry.append_event("p", "wake", {"text": "y"})
    registry.append_event("p", "tick", 7)
    register(registry, "r")


def add_nothing(store: Any) -> None:
    """A filled one has all."""


def add_to_effects(effects: Any) -> None:
    """Give it also a sleep."""
    effects.begin_sleep("s", "asleep", 5)


ADD: dict[str, Callable[[Any], None]] = {
    "session": add_to_session,
    "process": add_to_registry,
    "trigger": add_nothing,
    "effect": add_to_effects,
}


Calls = Callable[[Any, Any], list[Callable[[], Any]]]
"""Of a store, and of what was held when it was filled."""


def of_each(read: str, *names: str) -> Calls:
    """One call for each name."""
    return lambda store, _: [partial(getattr(store, read), name) for name in names]


def once(read: Callable[[Any], Any]) -> Calls:
    """One call."""
    return lambda store, _: [partial(read, store)]


READS: dict[str, dict[str, Calls]] = {
    "session": {
        "current_lease": once(lambda s: s.current_lease()),
        "load_head": once(lambda s: s.load_head()),
        "load_graph": once(lambda s: s.load_graph()),
        "load_path": lambda s, _: [s.load_path, *(partial(s.load_path, n) for n in ("n2", "a"))],
        "load_node": of_each("load_node", "n1", "a"),
        "load_blob": once(lambda s: s.load_blob(s.load_head().checkpoint_ref or "none")),
        "load_checkpoint": once(lambda s: s.load_checkpoint(s.load_head().checkpoint_ref or "no")),
        "list_work": once(lambda s: s.list_work()),
        "list_pending_work": once(lambda s: s.list_pending_work()),
        "work_depth": once(lambda s: s.work_depth()),
        "load_receipt": of_each("load_receipt", "turn-1"),
        "load_usage": once(lambda s: s.load_usage()),
        "load_meta": once(lambda s: s.load_meta()),
        "load_summary": once(lambda s: s.load_summary()),
        "list_uncommitted_attachments": once(
            lambda s: s.list_uncommitted_attachments(older_than_ms=LATE_MS)
        ),
        "load_artifact": of_each("load_artifact", "ref"),
    },
    "process": {
        "load_process": of_each("load_process", "p", "q", "r"),
        "known_processes": once(lambda r: r.known_processes(["p", "q"])),
        "list_processes": lambda r, _: [r.list_processes, partial(r.list_processes, state="completed")],
        "events_after": of_each("events_after", "p", "q"),
        "recent_events": of_each("recent_events", "p", "q"),
        "count_through": once(lambda r: r.count_through("p", "wake", 9)),
        "first_event_after": once(lambda r: r.first_event_after("p", "wake", 0)),
        "wake_events_after": of_each("wake_events_after", "p", "q"),
        "pending_wakes": once(lambda r: r.pending_wakes()),
        "has_handle": once(lambda r: r.has_handle(ONE, "p")),
        "list_handles": once(lambda r: r.list_handles(ONE)),
        "list_live_handles": once(lambda r: r.list_live_handles(ONE)),
        "list_handles_on": of_each("list_handles_on", "p", "q"),
        "current_lease": of_each("current_lease", "p", "q"),
        "list_causing_occurrences": once(lambda r: r.list_causing_occurrences(LATE_MS)),
    },
    "trigger": {
        "list_subscriptions": lambda t, _: [
            t.list_subscriptions,
            partial(t.list_subscriptions, SubscriptionFilter(source_type="cron")),
        ],
        "load_occurrence": lambda t, held: [partial(t.load_occurrence, held.known)],
        "list_deliveries": once(lambda t: t.list_deliveries()),
        "list_reserved_processes": once(lambda t: t.list_reserved_processes(LATE_MS)),
    },
    "effect": {
        "look_up_effect": lambda e, _: [
            partial(e.look_up_effect, "s", key, ENVELOPE) for key in ("k", "done", "none")
        ],
        "look_up_sleep": once(lambda e: e.look_up_sleep("s", "asleep", 5)),
        "list_effects": once(lambda e: e.list_effects()),
        "count_effects": once(lambda e: e.count_effects()),
        "oldest_in_progress_ms": once(lambda e: e.oldest_in_progress_ms()),
    },
}  # fmt: skip
"""Every operation that reads, by what the sound rows are called."""


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)

MEMBERS = JSON | st.sampled_from(["", "\0", "n1\0", "n2", "s", -1, 0, 2**63, 1e300])
"""What is put into JSON that is there: also names that no row can have, and those of other rows."""


def packed(value: Any) -> bytes:
    """Return it as MessagePack, or what is none."""
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError):
        return b"\xc1"


VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1) | st.sampled_from([2**63 - 1, -(2**63), 2**53]),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=30),
    JSON.map(json.dumps),  # whose integers may be larger than msgspec's
    JSON.map(packed),
)

Place = tuple[Any, ...]


def places_in(value: Any) -> Iterator[Place]:
    """The way to each member of what JSON says, that to the whole of it first."""
    yield ()
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from ((key, *rest) for rest in places_in(value[key]))


def with_another(value: Any, place: Place, new: Any) -> Any:
    """The same JSON, but for the member at a place."""
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = with_another(value[place[0]], place[1:], new)
    return copy


def without(value: Any, place: Place) -> Any:
    """The same JSON without the member at a place, or nothing for the whole of it."""
    if not place:
        return None
    copy = dict(value) if isinstance(value, dict) else list(value)
    if place[1:]:
        copy[place[0]] = without(value[place[0]], place[1:])
    else:
        del copy[place[0]]
    return copy


def unpacked(stored: Any) -> tuple[Any, Callable[[Any], Any]] | None:
    """Return what stored JSON or MessagePack says, and how to write it; None for what is neither."""
    if isinstance(stored, str):
        with suppress(ValueError):
            return json.loads(stored), json.dumps
    elif isinstance(stored, bytes):
        with suppress(msgspec.DecodeError, ValueError):
            return msgspec.msgpack.decode(stored), packed
    return None


def draw_changed(data: st.DataObject, value: Any) -> Any:
    """Draw the same JSON with another member, or with one less."""
    place = data.draw(st.sampled_from(list(places_in(value))), "place")
    if data.draw(st.booleans(), "left out"):
        return without(value, place)
    return with_another(value, place, data.draw(MEMBERS, "member"))


def draw_spoiled(data: st.DataObject, old: Any) -> Any:
    """Draw what stands in the place of a stored value."""
    known = unpacked(old)
    if known is None or data.draw(st.booleans(), "all of it"):
        value = data.draw(VALUES, "value")
        as_text = isinstance(value, bytes) and data.draw(st.booleans(), "as text")
        return AsText(value) if as_text else value
    value, pack = known
    return pack(draw_changed(data, value))


Row = Sequence[Any]


def rows_of(path: Path, table: Table[Any]) -> list[Row]:
    """Every row of a table."""
    names = ", ".join(table.columns.keys())
    query = f"SELECT {names} FROM {table.name} ORDER BY {', '.join(_key(table))}"
    if on_server():
        with on_the_server.transaction_at(path) as connection:
            return connection.execute(query).fetchall()
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


class AsText(bytes):
    """Bytes that are written as text, UTF-8 or not."""


def put_value(path: Path, table: Table[Any], row: Row, name: str, value: Any) -> bool:
    """Write a value into a row, and tell whether any program could."""
    held = dict(zip(table.columns.keys(), row, strict=True))
    mark = "%s" if on_server() else "?"
    new = f"CAST({mark} AS TEXT)" if isinstance(value, AsText) else mark
    which = " AND ".join(f"{each} = {mark}" for each in _key(table))
    update = f"UPDATE {table.name} SET {name} = {new} WHERE {which}"
    values = (value, *(held[each] for each in _key(table)))
    try:
        if on_server():
            with on_the_server.transaction_at(path) as connection:
                return connection.execute(update, values).rowcount == 1
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            return connection.execute(update, values).rowcount == 1
    except (sqlite3.IntegrityError, psycopg.Error):
        return False


def _key(table: Table[Any]) -> list[str]:
    return [column.name for column in table.primary_key]
