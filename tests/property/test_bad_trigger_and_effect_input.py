"""The same for triggers and effects: stored, or refused by an error of ours that changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from lash_store import EffectClaim, EffectStore, Host, ProcessRegistry, Scope, TriggerStore
from lash_store.effect.records import EffectError
from lash_store.errors import InvalidRecordError
from lash_store.process.records import BySession, EngineCall, PayloadSchema, ProcessIdentity
from lash_store.testing import ManualClock
from lash_store.trigger.records import DeliveryFilter, Fixed, SubscriptionFilter
from tests.support.bad_input import WRONG, attempt, fields, replaced
from tests.support.registries import register
from tests.support.triggers import draft, occur

PARTS: list[Any] = [
    BySession(Scope("s")), Scope("s", "f"), EngineCall("k", {}), ProcessIdentity("k", "l", "d"),
    PayloadSchema({}), Fixed(1), Host(),
]  # fmt: skip


@given(name=fields(type(draft())), value=WRONG)
def test_a_draft(triggers: TriggerStore, path: Path, name: str, value: object) -> None:
    spoilt = replaced(draft(), name, value)
    attempt(path, lambda: triggers.register_subscription(spoilt))
    assert triggers.list_subscriptions(limit=10_000).undecodable == ()


@given(part=st.sampled_from(PARTS[:-1]), data=st.data(), value=WRONG)
def test_what_a_draft_holds(
    triggers: TriggerStore, path: Path, part: Any, data: st.DataObject, value: object
) -> None:
    spoilt = replaced(part, data.draw(fields(type(part))), value)
    place: dict[str, Any] = {
        "BySession": {"registrant": spoilt},
        "Scope": {"wake_target": spoilt},
        "EngineCall": {"target": spoilt},
        "ProcessIdentity": {"target_identity": spoilt},
        "PayloadSchema": {"payload_schema": spoilt},
        "Fixed": {"input_template": {"a": spoilt}},
    }[type(part).__name__]
    attempt(path, lambda: triggers.register_subscription(draft(**place)))
    assert triggers.list_subscriptions(limit=10_000).undecodable == ()
    occurrence = occur(triggers, {"a": 1}, f"{len(list(path.parent.iterdir()))}")
    attempt(path, lambda: triggers.redeliver(occurrence.occurrence_id))


@given(a=WRONG, b=WRONG, c=WRONG)
def test_the_arguments_of_trigger_operations(
    triggers: TriggerStore, path: Path, a: Any, b: Any, c: Any
) -> None:
    for call in (
        lambda: triggers.register_subscription(a),
        lambda: triggers.list_subscriptions(a, after=b, limit=c),
        lambda: triggers.list_subscriptions(replaced(SubscriptionFilter(), "definition", a)),
        lambda: triggers.cancel_subscription(a, b),
        lambda: triggers.enable_subscription(a, b),
        lambda: triggers.delete_subscription(a, b),
        lambda: triggers.delete_session(a),
        lambda: triggers.record_occurrence(a, b, c, idempotency_key="k"),
        lambda: triggers.record_occurrence("t", "k", a, idempotency_key=b, source=c),
        lambda: triggers.load_occurrence(a),
        lambda: triggers.reserve_deliveries(a),
        lambda: triggers.redeliver(a),
        lambda: triggers.list_deliveries(a, after=b, limit=c),
        lambda: triggers.list_deliveries(replaced(DeliveryFilter(), "process_id", a)),
        lambda: triggers.prune_occurrences(a, started=b, after=c),
        lambda: triggers.list_reserved_processes(a, after=b, limit=c),
    ):
        attempt(path, call)


@given(name=fields(EffectClaim), value=WRONG)
def test_a_claim(
    effects: EffectStore, path: Path, clock: ManualClock, name: str, value: object
) -> None:
    clock.advance(60_000)
    claim = effects.begin_effect("s", "k", 1)
    assert isinstance(claim, EffectClaim)
    spoilt = replaced(claim, name, value)
    for call in (
        lambda: effects.renew_effect(spoilt),
        lambda: effects.abandon_effect(spoilt),
        lambda: effects.fail_effect(spoilt, "error"),  # type: ignore[arg-type] # reason: that is the test
    ):
        attempt(path, call)
    assert len(effects.list_effects()) == 1


@given(a=WRONG, b=WRONG, c=WRONG)
def test_the_arguments_of_effect_operations(
    effects: EffectStore, path: Path, a: Any, b: Any, c: Any
) -> None:
    for call in (
        lambda: effects.begin_effect(a, b, c),
        lambda: effects.begin_effect("s", "k", a, ttl_ms=b, due_at_ms=c),
        lambda: effects.begin_effect("s", "k", envelope_hash=a, owner_id=b, strict=c),
        lambda: effects.look_up_effect(a, b, c),
        lambda: effects.renew_effect(a, ttl_ms=b),
        lambda: effects.finish_effect(a, b),
        lambda: effects.fail_effect(a, EffectError("c", "m")),
        lambda: effects.abandon_effect(a),
        lambda: effects.begin_sleep("s", a, b),
        lambda: effects.look_up_sleep(a, "k", b),
        lambda: effects.list_effects(scope_id=a, status=b, after=c),
        lambda: effects.list_effects(limit=a),
        lambda: effects.count_effects(scope_id=a, status=b),
        lambda: effects.oldest_in_progress_ms(scope_id=a),
        lambda: effects.forget_scope(a),
        lambda: effects.delete_session(a),
        lambda: effects.prune_effects(a, limit=b),
        lambda: effects.run(a, "run", b, c) if not callable(c) else None,
    ):
        attempt(path, call)
    assert isinstance(effects.list_effects(limit=10_000), list)


def test_k_codec_1_depth_where_a_text_belongs_is_refused(tmp_path: Path) -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with EffectStore.open(tmp_path / "e.db") as effects:
        with pytest.raises(InvalidRecordError, match="envelope_hash"):
            effects.run("s", "k", {}, lambda: 1, envelope_hash=deep)
        assert effects.list_effects() == []
    with ProcessRegistry.open(tmp_path / "p.db") as registry:
        with pytest.raises(InvalidRecordError, match="env_ref"):
            register(registry, env_ref=deep)
        assert registry.list_processes(state=None) == []
