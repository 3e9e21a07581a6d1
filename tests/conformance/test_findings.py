"""K-TX-15: payloads are checked where no lock is held."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lash_store import AsyncProcessRegistry, ProcessRegistry, TriggerStore
from lash_store._kernel.observing import Event, observed_by
from lash_store._wire import validating
from lash_store.errors import InvalidRecordError
from lash_store.process.operations import events
from lash_store.process.records import EventType, PayloadSchema
from lash_store.testing import run_as_group
from tests.support.databases import all_rows
from tests.support.registries import TICK, register
from tests.support.triggers import INTEGERS, draft, occur, subscribe

NUMBER = EventType("number", PayloadSchema({"type": "integer"}))


@pytest.fixture(autouse=True)
def nothing_is_known() -> None:
    events._schemas_lately.clear()


class Gate:
    """Lets a check of a payload wait, and tells that it does."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.checks = 0


@contextmanager
def held_checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate, check = Gate(), validating.mismatch

    def waits(validator: Any, payload: Any) -> str | None:
        gate.checks += 1
        gate.reached.set()
        assert gate.opened.wait(20)
        return check(validator, payload)

    with monkeypatch.context() as patched:
        patched.setattr(validating, "mismatch", waits)
        try:
            yield gate
        finally:
            gate.opened.set()


def begins(call: Callable[[], Any]) -> int:
    class Counts:
        count = 0

        def before(self, event: Event) -> None:
            self.count += event.kind == "begin"

        def after(self, event: Event) -> None:
            pass

    counts = Counts()
    with observed_by(counts):
        call()
    return counts.count


def test_k_tx_15_others_write_while_a_payload_is_checked(
    registry: ProcessRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(registry, "p", event_types=[NUMBER, TICK])
    appended: list[Any] = []
    with held_checks(monkeypatch) as gate:
        slow = threading.Thread(
            target=lambda: appended.append(registry.append_event("p", "number", 7))
        )
        slow.start()
        assert gate.reached.wait(20)
        assert registry.append_event("p", "tick").event.sequence == 1  # the lock is free
        gate.opened.set()
        slow.join()
    assert appended[0].event.sequence == 2
    assert gate.checks == 1


def test_k_tx_15_an_event_loop_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(gate: Gate) -> None:
        async with AsyncProcessRegistry.open(path) as registry:
            with ProcessRegistry.open(path) as sync:
                register(sync, "p", event_types=[NUMBER, TICK])
            slow = asyncio.create_task(registry.append_event("p", "number", 7))
            while not gate.reached.is_set():
                await asyncio.sleep(0.001)
            assert (await registry.append_event("p", "tick")).event.sequence == 1
            gate.opened.set()
            assert (await slow).event.sequence == 2

    with held_checks(monkeypatch) as gate:
        asyncio.run(check(gate))


def test_k_tx_15_the_next_append_of_the_type_takes_one_transaction(
    registry: ProcessRegistry,
) -> None:
    register(registry, "p", event_types=[NUMBER, TICK])
    assert begins(lambda: registry.append_event("p", "number", 1)) == 2
    assert begins(lambda: registry.append_event("p", "number", 2)) == 1
    assert begins(lambda: registry.append_event("p", "tick")) == 1  # takes anything
    text = EventType("text", PayloadSchema({"type": "string"}))
    register(registry, "q", event_types=[text])
    for length, transactions in ((1_000, 2), (1_000, 1), (1_100, 2)):
        # What is large is not checked on the caller's thread, which may be a loop's.
        assert begins(partial(registry.append_event, "q", "text", "x" * length)) == transactions


def test_k_tx_15_a_process_does_not_wait_for_the_schema_of_another(path: Path) -> None:
    """One with a pattern, which may take minutes, is asked of nobody who has not declared it."""
    slow = EventType("note", PayloadSchema({"type": "string", "pattern": "^(a+)+$"}))
    with ProcessRegistry.open(path) as registry, ProcessRegistry.open(None) as elsewhere:
        register(registry, "slow", event_types=[slow])
        register(
            registry, "numbers", event_types=[EventType("note", PayloadSchema({"type": "integer"}))]
        )
        register(elsewhere, "any", event_types=[EventType("note")])
        for _ in range(2):
            registry.append_event("slow", "note", "a")
        elsewhere.append_event("any", "note", "a" * 40 + "!")  # else it would not end
        # Each its own, in turn: what the last one had does not make the next one do it twice.
        registry.append_event("numbers", "note", 1)
        assert begins(lambda: registry.append_event("slow", "note", "a")) == 1
        assert begins(lambda: registry.append_event("numbers", "note", 2)) == 1
        # Of one that is new, what others of the type had is most likely its own.
        register(
            registry, "new", event_types=[EventType("note", PayloadSchema({"type": "integer"}))]
        )
        assert begins(lambda: registry.append_event("new", "note", 3)) == 1


def test_k_tx_15_a_refusal_writes_nothing(registry: ProcessRegistry, path: Path) -> None:
    register(registry, "p", event_types=[NUMBER])
    before = all_rows(path)
    for _ in range(2):  # found out in between, and known before
        with pytest.raises(InvalidRecordError, match="does not fit the schema of number"):
            registry.append_event("p", "number", "seven")
    assert all_rows(path) == before


def test_k_tx_15_in_a_block_it_is_found_out_inside(registry: ProcessRegistry) -> None:
    register(registry, "p", event_types=[NUMBER])
    with registry.begin() as tx:
        assert tx.append_event("p", "number", 1).event.sequence == 1
        with pytest.raises(InvalidRecordError):
            tx.append_event("p", "number", "x")
        assert tx.append_event("p", "number", 2).event.sequence == 2
    assert registry.events_after("p")[-1].sequence == 2


def test_k_tx_15_in_a_group(registry: ProcessRegistry) -> None:
    register(registry, "p", event_types=[NUMBER, TICK])
    first, bad, last = run_as_group(
        partial(registry.append_event, "p", "tick"),
        partial(registry.append_event, "p", "number", "x"),
        partial(registry.append_event, "p", "number", 1),
    )
    assert (first.event.sequence, last.event.sequence) == (1, 2)
    assert isinstance(bad, InvalidRecordError)


def test_k_tx_15_threads_that_share_transactions(registry: ProcessRegistry) -> None:
    """Who lacks an answer leaves the group; the others are committed with it all the same."""
    register(registry, "p", event_types=[NUMBER, TICK])
    kinds = ["number", "tick"] * 4

    def append(kind: str) -> None:
        for number in range(25):
            events._schemas_lately.clear()
            registry.append_event("p", kind, number)

    threads = [threading.Thread(target=append, args=(kind,)) for kind in kinds]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert registry.events_after("p")[-1].sequence == 200


def test_k_tx_15_a_schema_that_changed_meanwhile(
    triggers: TriggerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is the schema in the transaction that reserves."""
    subscription = subscribe(triggers, payload_schema=INTEGERS)
    occurrence = occur(triggers, "text")
    with held_checks(monkeypatch) as gate:
        found: list[Any] = []
        slow = threading.Thread(
            target=lambda: found.append(triggers.reserve_deliveries(occurrence.occurrence_id))
        )
        slow.start()
        assert gate.reached.wait(20)
        triggers.cancel_subscription("one", subscription.handle)
        triggers.register_subscription(draft(payload_schema=PayloadSchema({"type": "string"})))
        gate.opened.set()
        slow.join()
    assert len(found[0].deliveries) == 1
    assert found[0].mismatches == ()
