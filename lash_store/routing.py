"""What leads from one store to another.

Each store is a database of its own, so no transaction spans two of them. What crosses over is
therefore made so that it may be sent again: the far side knows it by a key, and whatever a
crash kept from arriving can be found on the near side.

Wakes: from the process registry to a session's queue
    An append that wakes somebody returns a delivery. ``enqueue_wake`` puts it into the session's queue, unless
    the turn that answers it is there; then acknowledge the wake. ``registry.pending_wakes()`` finds those
    that never got so far.

Deliveries: from the trigger store to the process registry
    ``triggers.reserve_deliveries()`` returns each delivery once. ``start_deliveries`` registers
    their processes; the process id was reserved with the delivery, so registering again is
    harmless. ``start_unstarted`` does so for those that never got so far. Record an occurrence and
    reserve for it in one ``triggers.begin()``, so that no crash falls between the two.
"""

from collections.abc import Iterable, Sequence

import msgspec

from lash_store._kernel.checks import check_items, check_kind, page_size
from lash_store._wire.inputs import EngineCall, ProcessInput, ToolCall, takes_arguments
from lash_store._wire.origins import Provenance
from lash_store._wire.retention import Pruned
from lash_store.errors import CorruptRecordError, IdempotencyConflictError, InvalidRecordError
from lash_store.process.records.events import WakeDelivery
from lash_store.process.records.handles import HandleDescriptor
from lash_store.process.records.processes import ProcessRecord, ProcessRegistration
from lash_store.process.store import ProcessRegistry
from lash_store.process.tx import ProcessTx
from lash_store.session.records.queue import AlreadyQueued, NewWork, WorkBatch
from lash_store.session.store import SessionStore
from lash_store.session.tx import SessionTx
from lash_store.trigger.records.deliveries import Delivery, DeliveryPage, Occurrence
from lash_store.trigger.records.subscriptions import Fixed, Subscription
from lash_store.trigger.store import TriggerStore
from lash_store.trigger.tx import TriggerTx

_PER_TRANSACTION = 200
"""How many processes one transaction registers: others want to write, too."""


class RefusedDelivery(msgspec.Struct, frozen=True):
    """A delivery whose process can't be registered as its subscription describes it, and why."""

    delivery: Delivery
    problem: str


class Started(msgspec.Struct, frozen=True):
    """The processes of deliveries, registered now or before, and the deliveries without one."""

    records: tuple[ProcessRecord, ...]
    refused: tuple[RefusedDelivery, ...]


def work_of_wake(wake: WakeDelivery) -> NewWork:
    """Return a wake as a queue batch of its target session (P-EVENT-7).

    The batch's source key keeps it from standing in the queue twice, and no longer: once its turn is
    committed it may be enqueued anew. :func:`enqueue_wake` looks for that as well.
    """
    check_kind("wake", wake, WakeDelivery)
    return NewWork(
        [{"type": "process_wake", "wake": wake.written()}],
        source_key=f"process:{wake.process_id}:event:{wake.sequence}:wake",
        delivery_policy="earliest_safe_boundary",
        slot_policy="exclusive",
    )


def enqueue_wake(
    session: SessionStore, wake: WakeDelivery, *, turn_id: str
) -> WorkBatch | AlreadyQueued | None:
    """Queue a wake in its target session, unless the turn `turn_id`, which answers it, is committed: None then.

    Then acknowledge it in the registry. A crash between the two leaves the wake pending, and it is sent again,
    however often and by however many routers::

        enqueue_wake(session, wake, turn_id=f"turn-{work_of_wake(wake).source_key}")
        registry.ack_wake(wake.process_id, wake.sequence)

    For a worker that calls its turns so. Returns what ``enqueue_work`` does.
    For asyncio: ``await session.transact(lambda tx: enqueue_in_transaction(tx, wake, turn_id=…))``.
    Raises InvalidRecordError for a wake of another session.
    """
    check_kind("session", session, SessionStore)
    with session.begin() as tx:
        return enqueue_in_transaction(tx, wake, turn_id=turn_id)


def enqueue_in_transaction(
    tx: SessionTx, wake: WakeDelivery, *, turn_id: str
) -> WorkBatch | AlreadyQueued | None:
    """Do what :func:`enqueue_wake` does in a transaction that is open."""
    check_kind("tx", tx, SessionTx)
    work = work_of_wake(wake)
    if wake.target_session_id != tx.context.session_id:
        why = f"is {wake.target_session_id!r}, and this is session {tx.context.session_id!r}"
        raise InvalidRecordError("wake", "its target", why)
    return None if tx.load_receipt(turn_id) is not None else tx.enqueue_work(work)


def process_of_delivery(delivery: Delivery) -> ProcessRegistration:
    """Return the process that a delivery starts, under the id that was reserved for it.

    Input, identity, event types, environment and wake target are the subscription's. Its
    `input_template` becomes the object ``args`` in the payload of an engine, in place of any that
    is there: the occurrence's payload for each ``FromEvent``, the value for each ``Fixed``.
    Provenance is the registrant, caused by the occurrence.

    Raises InvalidRecordError for a template on a target that takes none: one that is no engine,
    or whose payload is no object.
    """
    check_kind("delivery", delivery, Delivery)
    subscription, occurrence = delivery.subscription, delivery.occurrence
    check_kind("delivery.subscription", subscription, Subscription)
    check_kind("delivery.occurrence", occurrence, Occurrence)
    needs_env = isinstance(subscription.target, EngineCall | ToolCall)
    return ProcessRegistration(
        delivery.process_id,
        _input_of(delivery),
        Provenance(
            subscription.registrant,
            {"type": "trigger_occurrence", "occurrence_id": occurrence.occurrence_id},
        ),
        env_ref=subscription.env_ref if needs_env else None,
        identity=subscription.target_identity,
        event_types=subscription.event_types,
        wake_target=subscription.wake_target,
    )


def start_deliveries(registry: ProcessRegistry, deliveries: Sequence[Delivery]) -> Started:
    """Register the processes of deliveries, which may be done any number of times.

    A few hundred in a transaction. A process that is new gives a handle to its wake target. One
    that can't be registered is reported, and does not keep the others from being so.
    """
    check_kind("registry", registry, ProcessRegistry)
    check_items("deliveries", deliveries, Delivery)
    records: list[ProcessRecord] = []
    refused: list[RefusedDelivery] = []
    for at in range(0, len(deliveries), _PER_TRANSACTION):
        with registry.begin() as tx:
            started = start_in_transaction(tx, deliveries[at : at + _PER_TRANSACTION])
        records += started.records
        refused += started.refused
    return Started(tuple(records), tuple(refused))


def start_in_transaction(tx: ProcessTx, deliveries: Iterable[Delivery]) -> Started:
    """Do what ``start_deliveries`` does in a transaction that is open.

    For asyncio: ``await registry.transact(lambda tx: start_in_transaction(tx, deliveries))``.
    """
    check_kind("tx", tx, ProcessTx)
    check_kind("deliveries", deliveries, Iterable)
    records: list[ProcessRecord] = []
    refused: list[RefusedDelivery] = []
    for delivery in deliveries:
        check_kind("delivery", delivery, Delivery)
        try:
            records.append(_start(tx, delivery))
        except (InvalidRecordError, IdempotencyConflictError, CorruptRecordError) as error:
            refused.append(RefusedDelivery(delivery, str(error)))
    return Started(tuple(records), tuple(refused))


def _start(tx: ProcessTx, delivery: Delivery) -> ProcessRecord:
    registration = process_of_delivery(delivery)
    target, identity = registration.wake_target, delivery.subscription.target_identity
    with tx.all_or_nothing():
        is_new = not tx.known_processes([delivery.process_id])
        record = tx.register_process(registration)
        # Only once: a handle that was revoked since must not come back with a redelivery.
        if is_new and target is not None:
            label = delivery.subscription.target_label
            tx.grant_handle(target, record.id, HandleDescriptor(identity.kind, label))
    return record


def start_unstarted(
    triggers: TriggerStore, registry: ProcessRegistry, *, limit: int = 100
) -> Started:
    """Start whatever was reserved and never started, however much else there is (T-DEL-2).

    After a crash, or now and then: it reads all deliveries, `limit` of them at a time. InvalidRecordError for a
    `limit` that is no count, or 0.
    """
    page_size("limit", limit)
    records: list[ProcessRecord] = []
    refused: list[RefusedDelivery] = []
    after: tuple[str, str] | None = ("", "")
    while after is not None:
        page = unstarted_deliveries(triggers, registry, after=after, limit=limit)
        started = start_deliveries(registry, page.deliveries)
        records += started.records
        refused += started.refused
        after = page.after
    return Started(tuple(records), tuple(refused))


def unstarted_deliveries(
    triggers: TriggerStore,
    registry: ProcessRegistry,
    *,
    after: tuple[str, str] = ("", ""),
    limit: int = 100,
) -> DeliveryPage:
    """Return the deliveries of a page whose processes were never registered (T-DEL-2).

    At most `limit` deliveries are looked at, from behind `after`; pass the page's `after` for the
    next one, until it is None.
    """
    check_kind("triggers", triggers, TriggerStore)
    check_kind("registry", registry, ProcessRegistry)
    page = triggers.list_deliveries(after=after, limit=limit)
    known = registry.known_processes(delivery.process_id for delivery in page.deliveries)
    unknown = [each for each in page.deliveries if each.process_id not in known]
    # Or it was started, has ended, and was forgotten since: its occurrence before it.
    with triggers.read() as tx:
        missing = tuple(each for each in unknown if _is_there(tx, each.occurrence.occurrence_id))
    undecodable = tuple(dict.fromkeys(page.undecodable))
    return msgspec.structs.replace(page, deliveries=missing, undecodable=undecodable)


def prune_started(
    triggers: TriggerStore,
    registry: ProcessRegistry,
    occurred_before_ms: int,
    *,
    after: str = "",
    limit: int = 100,
) -> Pruned:
    """Remove old occurrences whose processes are all registered, one batch (T-RET-1).

    See ``TriggerStore.prune_occurrences``, which is told here what is started.
    """
    check_kind("triggers", triggers, TriggerStore)
    check_kind("registry", registry, ProcessRegistry)
    candidates = triggers.list_reserved_processes(occurred_before_ms, after=after, limit=limit)
    known = registry.known_processes(candidates)
    return triggers.prune_occurrences(occurred_before_ms, started=known, after=after, limit=limit)


def prune_ended(
    triggers: TriggerStore,
    registry: ProcessRegistry,
    updated_before_ms: int,
    *,
    after: str = "",
    limit: int = 100,
) -> Pruned:
    """Remove processes that ended long ago and whose occurrences are gone, one batch (P-RET-1).

    See ``ProcessRegistry.prune_processes``, which is told here what is forgotten; ``prune_started`` first.
    """
    check_kind("triggers", triggers, TriggerStore)
    check_kind("registry", registry, ProcessRegistry)
    causes = registry.list_causing_occurrences(updated_before_ms, after=after, limit=limit)
    with triggers.read() as tx:
        gone = _gone(tx, causes)
    return registry.prune_processes(updated_before_ms, forgotten=gone, after=after, limit=limit)


def _gone(tx: TriggerTx, causes: Iterable[str]) -> list[str]:
    return [occurrence_id for occurrence_id in causes if not _is_there(tx, occurrence_id)]


def _is_there(tx: TriggerTx, occurrence_id: str) -> bool:
    try:
        return tx.load_occurrence(occurrence_id) is not None
    except CorruptRecordError:  # it can't be read, and its deliveries can be
        return True


def _input_of(delivery: Delivery) -> ProcessInput:
    subscription = delivery.subscription
    target, template = subscription.target, subscription.input_template
    if takes_arguments(target):
        arguments = {
            name: binding.value if isinstance(binding, Fixed) else delivery.occurrence.payload
            for name, binding in template.items()
        }
        return EngineCall(target.kind, {**target.payload, "args": arguments})
    if template:
        raise InvalidRecordError(
            "input_template",
            f"of {subscription.subscription_id}",
            "only an engine whose payload is an object takes arguments",
        )
    return target
