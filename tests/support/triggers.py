"""Short ways to build what trigger tests register and record."""

from __future__ import annotations

from typing import Any

from lash_store import Scope, TriggerDraft, TriggerStore, TriggerTx
from lash_store.process.records import BySession, EngineCall, PayloadSchema, ProcessIdentity
from lash_store.trigger.records import FromEvent, Occurrence, Subscription

ONE = BySession(Scope("one"))


def draft(**parts: Any) -> TriggerDraft:
    given: dict[str, Any] = {
        "registrant": ONE,
        "env_ref": "env",
        "source_type": "cron",
        "source_key": "daily",
        "target": EngineCall("engine", {"code": "x"}),
        "target_identity": ProcessIdentity("engine", definition="def"),
        "input_template": {"event": FromEvent()},
        **parts,
    }
    return TriggerDraft(**given)


def subscribe(triggers: TriggerStore | TriggerTx, **parts: Any) -> Subscription:
    return triggers.register_subscription(draft(**parts))


def occur(
    triggers: TriggerStore | TriggerTx,
    payload: Any = 1,
    key: str = "once",
    source_key: str = "daily",
) -> Occurrence:
    return triggers.record_occurrence("cron", source_key, payload, idempotency_key=key)


INTEGERS = PayloadSchema({"type": "integer"})
