"""The frozen records of a trigger store: what its operations take and return."""

from lash_store._wire.retention import Pruned as Pruned
from lash_store.trigger.records.deliveries import (
    Delivery as Delivery,
    DeliveryFilter as DeliveryFilter,
    DeliveryPage as DeliveryPage,
    Mismatch as Mismatch,
    Occurrence as Occurrence,
    Reservations as Reservations,
    UndecodableOccurrence as UndecodableOccurrence,
)
from lash_store.trigger.records.subscriptions import (
    Binding as Binding,
    Fixed as Fixed,
    FromEvent as FromEvent,
    Subscription as Subscription,
    SubscriptionFilter as SubscriptionFilter,
    SubscriptionPage as SubscriptionPage,
    TriggerDraft as TriggerDraft,
    Undecodable as Undecodable,
    default_source_key as default_source_key,
)
