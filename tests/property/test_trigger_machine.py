"""Triggers and the processes they start, under any sequence of operations, against a plain model.

An occurrence has one record; a delivery is handed out once; and whatever crash falls between
the two databases, a sweep starts every reserved process, once.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lash_store import Deployment, Host, Scope
from lash_store.errors import IdempotencyConflictError, NotFoundError
from lash_store.process.records import BySession, PayloadSchema
from lash_store.routing import prune_started, start_deliveries, unstarted_deliveries
from lash_store.testing import ManualClock, SequentialIds
from lash_store.trigger.records import Delivery
from tests.support.databases import all_rows
from tests.support.triggers import draft

REGISTRANTS = {
    "one": BySession(Scope("one")),
    "one f": BySession(Scope("one", "f")),
    "two": BySession(Scope("two")),
    "host": Host(),
}
WHO = st.sampled_from(sorted(REGISTRANTS))
KEYS = st.sampled_from(["daily", "weekly"])


@dataclass
class Subscribed:
    """A subscription as the model has it."""

    who: str
    source_key: str
    takes_text: bool
    enabled: bool = True

    def session(self) -> str | None:
        return None if self.who == "host" else self.who.split()[0]


@dataclass
class Occurred:
    """An occurrence as the model has it, and the numbers of the subscriptions it was reserved for."""

    source_key: str
    payload: Any
    at_ms: int
    occurrence_id: str
    reserved: dict[int, str] = field(default_factory=dict)


class TriggerMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock()
        self.subscribed: dict[int, Subscribed] = {}
        self.occurred: dict[str, Occurred] = {}
        self.started: set[str] = set()
        self.handed_out: set[tuple[str, str]] = set()
        self.numbers = 0
        self.open()

    def open(self) -> None:
        root = Path(self.folder.name) / "root"
        self.deployment = Deployment.open(root, clock=self.clock, ids=SequentialIds())
        self.triggers = self.deployment.triggers

    @rule(who=WHO, source_key=KEYS, takes_text=st.booleans())
    def register_subscription(self, who: str, source_key: str, takes_text: bool) -> None:
        self.numbers += 1
        schema = PayloadSchema({"type": "string"}) if takes_text else PayloadSchema()
        subscription = self.triggers.register_subscription(
            draft(registrant=REGISTRANTS[who], source_key=source_key, payload_schema=schema)
        )
        assert subscription.handle == f"trigger:{self.numbers}"
        self.subscribed[self.numbers] = Subscribed(who, source_key, takes_text)

    @rule(
        who=WHO,
        number=st.integers(1, 6),
        action=st.sampled_from(["cancel", "cancel", "enable", "delete"]),
        is_own=st.sampled_from([True, True, False]),
    )
    def change_subscription(self, *, who: str, number: int, action: str, is_own: bool) -> None:
        known = self.subscribed.get(number)
        if known is not None and is_own:
            who = known.who
        session = None if who == "host" else who.split(maxsplit=1)[0]
        call = getattr(self.triggers, f"{action}_subscription")
        is_own = known is not None and known.session() == session
        changed = call(session, f"trigger:{number}")
        if not is_own or known is None:
            assert changed is False
        elif action == "delete":
            assert changed is True
            self._gone({number})
        else:
            assert changed == (known.enabled == (action == "cancel"))
            known.enabled = action == "enable"

    @rule(session_id=st.sampled_from(["one", "two"]))
    def delete_session(self, session_id: str) -> None:
        gone = {n for n, each in self.subscribed.items() if each.session() == session_id}
        assert self.triggers.delete_session(session_id) == len(gone)
        self._gone(gone)

    def _gone(self, numbers: set[int]) -> None:
        for number in numbers:
            del self.subscribed[number]
            for occurred in self.occurred.values():
                occurred.reserved.pop(number, None)

    @rule(key=st.sampled_from("abc"), source_key=KEYS, payload=st.sampled_from(["text", 7]))
    def record_occurrence(self, key: str, source_key: str, payload: Any) -> None:
        def call() -> Any:
            return self.triggers.record_occurrence("cron", source_key, payload, idempotency_key=key)

        known = self.occurred.get(key)
        if known is not None and (known.source_key, known.payload) != (source_key, payload):
            self._refused(IdempotencyConflictError, call)
            return
        occurrence = call()
        if known is None:
            now_ms = self.clock.now_ms()
            assert occurrence.occurred_at_ms == now_ms
            self.occurred[key] = Occurred(source_key, payload, now_ms, occurrence.occurrence_id)
        else:
            assert (occurrence.occurrence_id, occurrence.occurred_at_ms) == (
                known.occurrence_id,
                known.at_ms,
            )

    @rule(key=st.sampled_from("abc"), again=st.booleans())
    def reserve(self, key: str, again: bool) -> None:
        known = self.occurred.get(key)
        call = self.triggers.redeliver if again else self.triggers.reserve_deliveries
        if known is None:
            self._refused(NotFoundError, lambda: call("trigger:unknown"))
            return
        matching = {
            number: each
            for number, each in self.subscribed.items()
            if each.enabled and each.source_key == known.source_key and number not in known.reserved
        }
        fits = {n for n, e in matching.items() if not e.takes_text or known.payload == "text"}
        reservations = call(known.occurrence_id)
        assert {self._number(m.subscription) for m in reservations.mismatches} == set(
            matching
        ) - fits
        expected = fits | set(known.reserved) if again else fits
        assert {self._number(d.subscription) for d in reservations.deliveries} == expected
        for delivery in reservations.deliveries:
            number = self._number(delivery.subscription)
            assert known.reserved.setdefault(number, delivery.process_id) == delivery.process_id
            pair = (delivery.occurrence.occurrence_id, delivery.subscription.subscription_id)
            if not again:
                assert pair not in self.handed_out, "a delivery was handed out twice"
            self.handed_out.add(pair)

    @staticmethod
    def _number(subscription: Any) -> int:
        return int(subscription.handle.removeprefix("trigger:"))

    @rule(most=st.integers(0, 3))
    def start_some(self, most: int) -> None:
        """The program dies after it has started as many."""
        deliveries = self._unstarted()[:most]
        start_deliveries(self.deployment.processes, deliveries)
        self.started |= {delivery.process_id for delivery in deliveries}

    def _unstarted(self) -> list[Delivery]:
        found: list[Delivery] = []
        after = ("", "")
        while True:
            page = unstarted_deliveries(
                self.triggers, self.deployment.processes, after=after, limit=2
            )
            found += page.deliveries
            if page.after is None:
                return found
            after = page.after

    @rule(age_ms=st.sampled_from([0, 10]))
    def prune(self, age_ms: int) -> None:
        before_ms = self.clock.now_ms() - age_ms
        gone = {
            key
            for key, each in self.occurred.items()
            if each.at_ms < before_ms and set(each.reserved.values()) <= self.started
        }
        pruned = prune_started(self.triggers, self.deployment.processes, before_ms)
        assert pruned.removed == len(gone)
        for key in gone:
            occurrence_id = self.occurred.pop(key).occurrence_id
            # What is pruned may occur and be handed out again: it is as if it had never been.
            self.handed_out = {pair for pair in self.handed_out if pair[0] != occurrence_id}

    @rule(by_ms=st.sampled_from([1, 10]))
    def wait(self, by_ms: int) -> None:
        self.clock.advance(by_ms)

    @rule()
    def reopen(self) -> None:
        self.deployment.close()
        self.open()

    @invariant()
    def everything_shows_what_happened(self) -> None:
        if not hasattr(self, "deployment"):
            return
        page = self.triggers.list_subscriptions()
        assert {self._number(each): each.enabled for each in page.subscriptions} == {
            number: each.enabled for number, each in self.subscribed.items()
        }
        assert page.undecodable == ()
        deliveries = self.triggers.list_deliveries().deliveries
        assert sorted(delivery.process_id for delivery in deliveries) == sorted(
            process_id for each in self.occurred.values() for process_id in each.reserved.values()
        )
        records = self.deployment.processes.list_processes(limit=1_000)
        assert {record.id for record in records} == self.started
        reserved = {delivery.process_id for delivery in deliveries}
        assert {each.process_id for each in self._unstarted()} == reserved - self.started
        for each in self.occurred.values():
            occurrence = self.triggers.load_occurrence(each.occurrence_id)
            assert occurrence is not None
            assert (occurrence.payload, occurrence.occurred_at_ms) == (each.payload, each.at_ms)

    def teardown(self) -> None:
        if hasattr(self, "deployment"):
            self.deployment.close()
            self.folder.cleanup()

    def _refused(self, error: type[Exception], call: Any) -> None:
        path = self.deployment.root / "triggers.db"
        before = all_rows(path)
        with pytest.raises(error):
            call()
        assert all_rows(path) == before


TestTriggers = TriggerMachine.TestCase
TestTriggers.settings = settings(settings(), stateful_step_count=50)
