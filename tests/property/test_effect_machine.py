"""Effects under any sequence of operations, against a plain model.

A step is recorded once; what is recorded never changes; a lost claim never records.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from lash_store import Busy, EffectClaim, EffectStore, Replayed
from lash_store.effect.records import EffectError, ReplayedFailure
from lash_store.errors import (
    EffectFailedError,
    IdempotencyConflictError,
    LeaseLostError,
    NotFoundError,
)
from lash_store.testing import ManualClock, SequentialIds
from tests.support.databases import all_rows

TTL = 20
STEPS = st.sampled_from([("s", "a"), ("s", "b"), ("t", "a")])
ENVELOPES = st.sampled_from(["e", "e", "e", "other"])


@dataclass
class Step:
    """What is known of a step: its envelope, its end or its claim."""

    envelope: str
    created_ms: int
    due_ms: int | None
    token: str | None = None
    ends_ms: int = 0
    ended: Any = None

    def is_claimed(self, now_ms: int) -> bool:
        return self.token is not None and now_ms < self.ends_ms


class EffectMachine(RuleBasedStateMachine):
    claims: Bundle[EffectClaim] = Bundle("claims")

    @initialize(target=claims)
    def start(self) -> EffectClaim:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "effects.db"
        self.clock = ManualClock()
        self.ids = SequentialIds()
        self.steps: dict[tuple[str, str], Step] = {}
        self.tokens: set[str] = set()
        self.effects = self._open()
        return EffectClaim("s", "a", "hash", "ann", "forged", 2**60)

    def _open(self) -> EffectStore:
        return EffectStore.open(self.path, owner_id="ann", clock=self.clock, ids=self.ids)

    @rule(
        target=claims,
        name=STEPS,
        envelope=ENVELOPES,
        strict=st.sampled_from([False, False, True]),
        due_ms=st.sampled_from([None, 5]),
    )
    def begin_effect(
        self, name: tuple[str, str], envelope: str, strict: bool, due_ms: int | None
    ) -> Any:
        step, now_ms = self.steps.get(name), self.clock.now_ms()

        def call() -> Any:
            return self.effects.begin_effect(
                *name, envelope, ttl_ms=TTL, strict=strict, due_at_ms=due_ms
            )

        if step is None and strict:
            self._refused(NotFoundError, call)
            return multiple()
        if step is not None and step.envelope != envelope:
            self._refused(IdempotencyConflictError, call)
            return multiple()
        if step is not None and (step.ended is not None or step.is_claimed(now_ms)):
            before = all_rows(self.path)
            expected = step.ended or Busy("ann", step.ends_ms, step.due_ms)
            assert call() == expected
            assert all_rows(self.path) == before
            return multiple()
        claim = call()
        assert isinstance(claim, EffectClaim)
        assert claim.token not in self.tokens
        self.tokens.add(claim.token)
        if step is None:
            step = self.steps[name] = Step(envelope, now_ms, due_ms)
        elif step.due_ms is None:
            step.due_ms = due_ms
        assert claim.due_at_ms == step.due_ms
        step.token, step.ends_ms = claim.token, now_ms + TTL
        return claim

    def _holds(self, claim: EffectClaim) -> Step | None:
        step = self.steps.get((claim.scope_id, claim.replay_key))
        live = step is not None and step.ended is None and step.is_claimed(self.clock.now_ms())
        return step if live and step is not None and step.token == claim.token else None

    @rule(claim=claims)
    def renew_effect(self, claim: EffectClaim) -> None:
        step = self._holds(claim)
        if step is None:
            self._refused(LeaseLostError, lambda: self.effects.renew_effect(claim, ttl_ms=TTL))
            return
        self.effects.renew_effect(claim, ttl_ms=TTL)
        step.ends_ms = self.clock.now_ms() + TTL

    @rule(claim=claims, outcome=st.integers(0, 3))
    def finish_effect(self, claim: EffectClaim, outcome: int) -> None:
        step = self._holds(claim)
        if step is None:
            self._refused(LeaseLostError, lambda: self.effects.finish_effect(claim, outcome))
            return
        assert self.effects.finish_effect(claim, outcome) == outcome
        step.ended, step.token = Replayed(outcome), None

    @rule(claim=claims)
    def fail_effect(self, claim: EffectClaim) -> None:
        step, error = self._holds(claim), EffectError("c", "m")
        if step is None:
            self._refused(LeaseLostError, lambda: self.effects.fail_effect(claim, error))
            return
        self.effects.fail_effect(claim, error)
        step.ended, step.token = ReplayedFailure(error), None

    @rule(claim=claims)
    def abandon_effect(self, claim: EffectClaim) -> None:
        step = self.steps.get((claim.scope_id, claim.replay_key))
        own = step is not None and step.ended is None and step.token == claim.token
        before = all_rows(self.path)
        assert self.effects.abandon_effect(claim) == own
        if own and step is not None:
            step.token = None
        else:
            assert all_rows(self.path) == before

    @rule(claim=claims, change=st.sampled_from(["token", "owner_id", "envelope_hash"]))
    def act_on_a_forgery(self, claim: EffectClaim, change: str) -> None:
        forged = msgspec.structs.replace(claim, **{change: "forged too"})
        self._refused(LeaseLostError, lambda: self.effects.finish_effect(forged, "forged"))
        self._refused(LeaseLostError, lambda: self.effects.renew_effect(forged))

    @rule(name=STEPS, fails=st.sampled_from([None, None, ValueError, KeyError]))
    def run(self, name: tuple[str, str], fails: type[Exception] | None) -> None:
        step, now_ms = self.steps.get(name), self.clock.now_ms()
        if step is not None and step.ended is None and step.is_claimed(now_ms):
            return  # it would wait
        calls = []

        def function() -> str:
            calls.append(1)
            if fails is not None:
                raise fails("m")
            return "ran"

        def call() -> Any:
            return self.effects.run(*name, "e", function, terminal=ValueError)

        if step is not None and (step.envelope != "e" or step.ended is not None):
            self._replayed(step, call)
            assert not calls
            return
        if step is None:
            step = self.steps[name] = Step("e", now_ms, None)
        step.token = None
        if fails is None:
            assert call() == "ran"
            step.ended = Replayed("ran")
        else:
            with pytest.raises(EffectFailedError if fails is ValueError else fails):
                call()
            if fails is ValueError:
                step.ended = ReplayedFailure(EffectError("ValueError", "m"))
        assert calls == [1]

    def _replayed(self, step: Step, call: Any) -> None:
        if step.envelope != "e":
            self._refused(IdempotencyConflictError, call)
        elif isinstance(step.ended, Replayed):
            assert call() == step.ended.outcome
        else:
            self._refused(EffectFailedError, call)

    @rule(scope_id=st.sampled_from(["s", "t"]))
    def forget_scope(self, scope_id: str) -> None:
        gone = [
            n
            for n, step in self.steps.items()
            if n[0] == scope_id and (step.ended or (step.token is None and step.due_ms is None))
        ]
        assert self.effects.forget_scope(scope_id) == len(gone)
        for name in gone:
            del self.steps[name]

    @rule()
    def delete_session(self) -> None:
        """Of which no scope here is one of a turn."""
        assert self.effects.delete_session("s") == 0

    @rule(by_ms=st.sampled_from([1, 1, TTL - 1, TTL]))
    def wait(self, by_ms: int) -> None:
        self.clock.advance(by_ms)

    @rule()
    def reopen(self) -> None:
        self.effects.close()
        self.effects = self._open()

    @invariant()
    def the_store_shows_what_happened(self) -> None:
        if not hasattr(self, "effects"):
            return
        shown = {(e.scope_id, e.replay_key): e for e in self.effects.list_effects()}
        assert set(shown) == set(self.steps)
        for name, step in self.steps.items():
            effect = shown[name]
            assert effect.created_at_ms == step.created_ms
            assert effect.due_at_ms == step.due_ms
            if step.ended is None:
                assert effect.status == "in_progress"
                assert (effect.owner_id is None) == (step.token is None)
            elif isinstance(step.ended, Replayed):
                assert (effect.status, effect.outcome) == ("completed", step.ended.outcome)
            else:
                assert (effect.status, effect.error) == ("failed", step.ended.error)

    def teardown(self) -> None:
        if hasattr(self, "effects"):
            self.effects.close()
            self.folder.cleanup()

    def _refused(self, error: type[Exception], call: Any) -> None:
        before = all_rows(self.path)
        with pytest.raises(error):
            call()
        assert all_rows(self.path) == before


TestEffects = EffectMachine.TestCase
TestEffects.settings = settings(settings(), stateful_step_count=60)
