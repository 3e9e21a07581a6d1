"""The operations of a trigger store: functions of an open transaction, by aggregate, and their list."""

from lash_store._stores.operations import Operations, legacy_reads, legacy_writes, reads, writes
from lash_store.trigger.operations import deliveries, subscriptions


class TriggerOperations(Operations):
    """What a trigger store does, on a transaction or by a call of its own."""

    __slots__ = ()

    register_subscription = legacy_writes(subscriptions.register_subscription)
    list_subscriptions = legacy_reads(subscriptions.list_subscriptions)
    cancel_subscription = legacy_writes(subscriptions.cancel_subscription)
    enable_subscription = legacy_writes(subscriptions.enable_subscription)
    delete_subscription = legacy_writes(subscriptions.delete_subscription)
    delete_session = legacy_writes(subscriptions.delete_session)

    record_occurrence = legacy_writes(deliveries.record_occurrence)
    load_occurrence = legacy_reads(deliveries.load_occurrence)
    reserve_deliveries = legacy_writes(deliveries.reserve_deliveries)
    redeliver = legacy_writes(deliveries.redeliver)
    list_deliveries = legacy_reads(deliveries.list_deliveries)
    list_reserved_processes = legacy_reads(deliveries.list_reserved_processes)
    prune_occurrences = legacy_writes(deliveries.prune_occurrences)
