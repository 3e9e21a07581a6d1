"""The operations of a trigger store, by aggregate, and their list."""

from lash_store._stores.operations import Operations, reads, writes
from lash_store.trigger.operations import deliveries, subscriptions


class TriggerOperations(Operations):
    """What a trigger store does, on a transaction or by a call of its own."""

    __slots__ = ()

    register_subscription = writes(subscriptions.register_subscription)
    list_subscriptions = reads(subscriptions.list_subscriptions)
    cancel_subscription = writes(subscriptions.cancel_subscription)
    enable_subscription = writes(subscriptions.enable_subscription)
    delete_subscription = writes(subscriptions.delete_subscription)
    delete_session = writes(subscriptions.delete_session)

    record_occurrence = writes(deliveries.record_occurrence)
    load_occurrence = reads(deliveries.load_occurrence)
    reserve_deliveries = writes(deliveries.reserve_deliveries, finds=True)
    redeliver = writes(deliveries.redeliver, finds=True)
    list_deliveries = reads(deliveries.list_deliveries)
    list_reserved_processes = reads(deliveries.list_reserved_processes)
    prune_occurrences = writes(deliveries.prune_occurrences)
