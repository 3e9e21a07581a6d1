"""The trigger store's facades: sync and asyncio, one line for each operation."""

from __future__ import annotations

from lash_store._kernel.deployment import AsyncDeploymentStore, DeploymentStore
from lash_store._kernel.store import (
    in_async_snapshot,
    in_async_transaction,
    in_snapshot,
    in_transaction,
)
from lash_store.trigger.tx import TriggerTx


class TriggerStore(DeploymentStore[TriggerTx]):
    """The triggers of a deployment, in one database file.

    Every operation is one transaction; several go together in ``begin()``. The arguments,
    results and errors of each are documented on :class:`TriggerTx`.
    """

    operations = TriggerTx

    register_subscription = in_transaction(TriggerTx.register_subscription)
    list_subscriptions = in_snapshot(TriggerTx.list_subscriptions)
    cancel_subscription = in_transaction(TriggerTx.cancel_subscription)
    enable_subscription = in_transaction(TriggerTx.enable_subscription)
    delete_subscription = in_transaction(TriggerTx.delete_subscription)
    delete_session = in_transaction(TriggerTx.delete_session)

    record_occurrence = in_transaction(TriggerTx.record_occurrence)
    load_occurrence = in_snapshot(TriggerTx.load_occurrence)
    reserve_deliveries = in_transaction(TriggerTx.reserve_deliveries)
    redeliver = in_transaction(TriggerTx.redeliver)
    list_deliveries = in_snapshot(TriggerTx.list_deliveries)
    list_reserved_processes = in_snapshot(TriggerTx.list_reserved_processes)
    prune_occurrences = in_transaction(TriggerTx.prune_occurrences)


class AsyncTriggerStore(AsyncDeploymentStore[TriggerTx]):
    """:class:`TriggerStore` for asyncio: the same operations, as coroutines."""

    sync = TriggerStore

    register_subscription = in_async_transaction(TriggerTx.register_subscription)
    list_subscriptions = in_async_snapshot(TriggerTx.list_subscriptions)
    cancel_subscription = in_async_transaction(TriggerTx.cancel_subscription)
    enable_subscription = in_async_transaction(TriggerTx.enable_subscription)
    delete_subscription = in_async_transaction(TriggerTx.delete_subscription)
    delete_session = in_async_transaction(TriggerTx.delete_session)

    record_occurrence = in_async_transaction(TriggerTx.record_occurrence)
    load_occurrence = in_async_snapshot(TriggerTx.load_occurrence)
    reserve_deliveries = in_async_transaction(TriggerTx.reserve_deliveries)
    redeliver = in_async_transaction(TriggerTx.redeliver)
    list_deliveries = in_async_snapshot(TriggerTx.list_deliveries)
    list_reserved_processes = in_async_snapshot(TriggerTx.list_reserved_processes)
    prune_occurrences = in_async_transaction(TriggerTx.prune_occurrences)
