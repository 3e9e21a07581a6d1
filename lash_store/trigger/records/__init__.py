"""The frozen records of a trigger store: what its operations take and return."""

from lash_store.trigger.records.deliveries import (
    Delivery,
    DeliveryFilter,
    DeliveryPage,
    Mismatch,
    Occurrence,
    Pruned,
    Reservations,
)
from lash_store.trigger.records.subscriptions import (
    Binding,
    Fixed,
    FromEvent,
    Subscription,
    SubscriptionFilter,
    SubscriptionPage,
    TriggerDraft,
    Undecodable,
    default_source_key,
)

__all__ = [
    "Binding",
    "Delivery",
    "DeliveryFilter",
    "DeliveryPage",
    "Fixed",
    "FromEvent",
    "Mismatch",
    "Occurrence",
    "Pruned",
    "Reservations",
    "Subscription",
    "SubscriptionFilter",
    "SubscriptionPage",
    "TriggerDraft",
    "Undecodable",
    "default_source_key",
]
