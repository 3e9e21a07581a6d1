"""What the shop does: orders are placed and shipped, each in one transaction with all that follows.

An order, the work that it makes and the step that it is shipped by stand in one database: whoever
is killed has done all of it or nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, String, cast, select, update
from sqlalchemy.orm import Session

from lash_store import (
    Append,
    EffectClaim,
    EffectTx,
    LeaseHeld,
    NewWork,
    Node,
    SessionFence,
    SessionTx,
    TurnCommit,
    TurnStamp,
    turn_commit_hash,
)
from lash_store.errors import LeaseLostError
from lash_store.session.records import WorkClaim
from lash_store.session.tables import queued_work_batches

from .models import Order, Waiting

SHOP = "shop"
TTL_MS = 100
"""Short, so that who takes over from a worker that was killed does not wait long."""


@contextmanager
def writing(engine: Engine) -> Iterator[tuple[Session, SessionTx]]:
    """One write transaction, for the shop's own objects and the session that its work is in."""
    with Session(engine.execution_options(lash_store_write=True)) as orm, orm.begin():
        yield orm, SessionTx.on(orm, session_id=SHOP)


def place_order(engine: Engine, customer_id: int, item: str, priority: int) -> int:
    """Take an order, and note the work that it makes."""
    with writing(engine) as (orm, tx):
        order = Order(customer_id=customer_id, item=item, priority=priority)
        orm.add(order)
        orm.flush()
        tx.enqueue_work(NewWork([{"order": order.id}], source_key=str(order.id)))
        return order.id


def orders_that_wait(engine: Engine) -> list[str]:
    """Which items wait to be shipped, joined with the queue that they wait in."""
    with Session(engine) as orm:
        SessionTx.on(orm, session_id=SHOP)
        of_order = Waiting.source_key == cast(Order.id, String)  # type: ignore[attr-defined] # reason: a column of the table
        waiting = select(Order.item).join(Waiting, of_order).order_by(Order.priority.desc())
        return list(orm.execute(waiting).scalars())


def ship_next(engine: Engine, worker: str, carrier: Callable[[int], None]) -> bool | None:
    """Ship the most urgent order; False if there is none, None if another worker is at it.

    The carrier is called between two transactions, and may be called again if this worker is killed:
    so it gets the order's number, as an idempotency key.
    """
    with writing(engine) as (_, tx):
        lease = tx.claim_lease(owner_id=worker, ttl_ms=TTL_MS)
        if isinstance(lease, LeaseHeld):
            return None
        urgency = (
            select(Order.priority)
            .where(cast(Order.id, String) == queued_work_batches.c.source_key)
            .scalar_subquery()
        )
        claim = tx.claim_work(
            lease.fence, owner_id=worker, ttl_ms=TTL_MS, where=urgency > 0, order_by=urgency.desc()
        )
        if claim is None:
            return False
        order_id = claim.batches[0].items[0].payload["order"]
        # The step of a worker that was killed is taken over once its claim has run out.
        step = EffectTx.beside(tx, owner_id=worker).begin_effect(SHOP, f"ship:{order_id}", order_id)
        if not isinstance(step, EffectClaim):
            tx.abandon_claim(claim)
            tx.release_lease(lease.fence)
            return None
    carrier(order_id)
    try:
        with writing(engine) as (orm, tx):
            # Fenced in its own WHERE: a worker that was overtaken changes nothing.
            shipped = update(Order).where(Order.id == order_id, lease.fence.holds(tx))
            orm.execute(shipped.values(status="shipped"))
            EffectTx.beside(tx, owner_id=worker).finish_effect(step, "shipped")
            tx.commit_turn(_turn(lease.fence, claim, order_id))
    except LeaseLostError:
        return None  # it was too slow: the order waits again, once the claim on it has run out
    return True


def _turn(fence: SessionFence, claim: WorkClaim, order_id: int) -> TurnCommit:
    node = Node(f"order-{order_id}", None, {"kind": "shipped", "order": order_id})
    graph = Append([node], leaf=node.node_id)
    hashed = turn_commit_hash(TurnCommit(fence=fence, graph=graph))
    return TurnCommit(
        fence=fence,
        stamp=TurnStamp(f"ship-{order_id}", hashed),
        graph=graph,
        completed=[claim],
        release=True,
    )
