"""What leads from one store to another.

Each store is a database of its own, so no transaction spans two of them. What crosses over is
therefore made so that it may be sent again: the far side knows it by a key, and the near side
remembers, in a later transaction, that it arrived.
"""

from __future__ import annotations

from lash_store._kernel.checks import check_kind
from lash_store.process.records.events import WakeDelivery
from lash_store.session.records.queue import NewWork

__all__ = ["work_of_wake"]


def work_of_wake(wake: WakeDelivery) -> NewWork:
    """Return a wake as a queue batch of its target session (P-EVENT-7).

    Enqueue it in the store of ``wake.target_session_id``, then acknowledge it in the registry::

        session.enqueue_work(work_of_wake(wake))
        registry.ack_wake(wake.process_id, wake.sequence)

    A crash between the two leaves the wake pending, and it is enqueued again: the batch's source
    key keeps it from standing in the queue twice.
    """
    check_kind("wake", wake, WakeDelivery)
    return NewWork(
        [{"type": "process_wake", "wake": wake.written()}],
        source_key=f"process:{wake.process_id}:event:{wake.sequence}:wake",
        delivery_policy="earliest_safe_boundary",
        slot_policy="exclusive",
    )
