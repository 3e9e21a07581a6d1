"""What a type checker sees of triggers, effects and what leads from store to store."""

from __future__ import annotations

import asyncio
from typing import Any, assert_type

from sqlalchemy import Delete, Select, Update
from sqlalchemy.sql.dml import ReturningInsert

from lash_store import (
    AsyncEffectStore,
    AsyncTriggerStore,
    Busy,
    Deployment,
    EffectClaim,
    EffectStore,
    EffectTx,
    Host,
    ProcessRegistration,
    ProcessRegistry,
    Replayed,
    TriggerDraft,
    TriggerStore,
    TriggerTx,
)
from lash_store.effect import statements as effect_statements
from lash_store.effect.records import Effect, ReplayedFailure
from lash_store.process.records import EngineCall, ProcessIdentity
from lash_store.routing import (
    Started,
    process_of_delivery,
    prune_ended,
    prune_started,
    start_deliveries,
    unstarted_deliveries,
)
from lash_store.trigger import statements as trigger_statements
from lash_store.trigger.records import (
    Delivery,
    DeliveryPage,
    Occurrence,
    Pruned,
    Reservations,
    Subscription,
    SubscriptionPage,
)

DRAFT = TriggerDraft(Host(), "env", "cron", "daily", EngineCall("e", {}), ProcessIdentity("e"))


def test_builders() -> None:
    assert_type(trigger_statements.select_subscriptions(), Select[str, str, str, int, str])
    assert_type(trigger_statements.next_subscription_number(), ReturningInsert[int])
    assert_type(trigger_statements.delete_occurrence(occurrence_id="o"), Delete)
    assert_type(effect_statements.count_effects(status=None), Select[int])
    assert_type(
        effect_statements.abandon_effect(
            scope_id="s", replay_key="k", envelope_hash="h", owner_id="o", token="t", now_ms=1
        ),
        Update,
    )


def test_triggers() -> None:
    with TriggerStore.open(None) as triggers, ProcessRegistry.open(None) as registry:
        assert_type(triggers.register_subscription(DRAFT), Subscription)
        assert_type(triggers.list_subscriptions(), SubscriptionPage)
        assert_type(triggers.cancel_subscription(None, "trigger:1"), bool)
        occurrence = triggers.record_occurrence("cron", "daily", idempotency_key="k")
        assert_type(occurrence, Occurrence)
        reservations = triggers.reserve_deliveries(occurrence.occurrence_id)
        assert_type(reservations, Reservations)
        assert_type(reservations.deliveries, tuple[Delivery, ...])
        assert_type(start_deliveries(registry, reservations.deliveries), Started)
        assert_type(unstarted_deliveries(triggers, registry), DeliveryPage)
        assert_type(prune_started(triggers, registry, 1), Pruned)
        assert_type(prune_ended(triggers, registry, 1), Pruned)
        assert_type(registry.prune_processes(1), Pruned)
        assert_type(registry.list_causing_occurrences(1), list[str])
        with triggers.begin() as tx:
            assert_type(tx, TriggerTx)


def test_effects() -> None:
    with EffectStore.open(None) as effects:
        begun = effects.begin_effect("s", "k")
        assert_type(begun, EffectClaim | Replayed | ReplayedFailure | Busy)
        assert isinstance(begun, EffectClaim)
        assert_type(effects.renew_effect(begun), EffectClaim)
        assert_type(effects.abandon_effect(begun), bool)
        assert_type(effects.run("s", "k", None, lambda: 1), Any)
        assert_type(effects.list_effects(), list[Effect])

        @effects.recorded("s", "l")
        def shout(text: str, *, times: int = 1) -> str:
            return text.upper() * times

        assert_type(shout("x", times=2), str)
        with effects.begin() as tx:
            assert_type(tx, EffectTx)


def test_async() -> None:
    async def main() -> None:
        async with AsyncTriggerStore.open(None) as triggers:
            assert_type(await triggers.register_subscription(DRAFT), Subscription)
        async with AsyncEffectStore.open(None) as effects:

            @effects.recorded("s", "l")
            async def shout(text: str) -> str:
                return text.upper()

            assert_type(await shout("x"), str)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(shout("x"))
            assert_type(task.result(), str)

    asyncio.run(main())


def never(effects: EffectStore, delivery: Delivery, deployment: Deployment) -> None:
    """Misuse that both checkers must refuse; it never runs."""
    assert_type(process_of_delivery(delivery), ProcessRegistration)
    assert_type(deployment.triggers, TriggerStore)
    effects.finish_effect("claim")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    effects.list_effects(status="asleep")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    effects.run("s", "k", None, 1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    TriggerDraft(Host(), "env", "cron", "daily")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    start_deliveries(deployment.triggers, [])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
