"""One worker of the demo, a process of its own: ``python -m lash_store.cli.worker PATH NAME [FENCE]``.

It prints what happens as it happens, one JSON object a line. With a FENCE (a JSON list of the
four values) it is a worker that comes back from the dead: it tries to go on where it was.
"""

import json
import sys
import time

import msgspec
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, literal, select

from lash_store import LeaseHeld, SessionFence, SessionLease, SessionStore
from lash_store.errors import LeaseLostError
from lash_store.session.tx import SessionTx

SESSION_ID = "demo"
TTL_MS = 1_200
STEPS = 6
_STEP_S = 0.12
_POLL_S = 0.03

metadata = MetaData()
steps = Table(
    "demo_steps",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("worker", Text, nullable=False),
    Column("fencing_token", Integer, nullable=False),
    Column("at_ms", Integer, nullable=False),
    Column("expires_at_ms", Integer, nullable=False),
)
"""The demo's own table in the session's file: one row per step of work, each of them fenced."""

refusals = Table(
    "demo_refusals",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("worker", Text, nullable=False),
    Column("fencing_token", Integer, nullable=False),
    Column("reason", Text, nullable=False),
)
"""Attempts to work under a term that was over."""


def work(store: SessionStore, name: str) -> None:
    """Wait for the lease, do a few steps under it, and release it."""
    while isinstance(lease := store.claim_lease(owner_id=name, ttl_ms=TTL_MS), LeaseHeld):
        tell("waits", holder=lease.owner_id)
        _sleep_until_free(store)
    tell("claimed", fence=list(msgspec.structs.astuple(lease.fence)))
    for number in range(1, STEPS + 1):
        with store.begin() as tx:
            lease = tx.renew_lease(lease.fence, ttl_ms=TTL_MS)
            write_step(tx, lease.fence, name, lease.expires_at_ms)
        tell("step", number=number, fencing_token=lease.fencing_token)
        time.sleep(_STEP_S)
    store.release_lease(lease.fence)
    tell("released", fencing_token=lease.fencing_token)


def come_back(store: SessionStore, name: str, fence: SessionFence) -> None:
    """Try to go on under an old fence, by a fenced write and by renewing."""
    with store.begin() as tx:
        landed = write_step(tx, fence, name, expires_at_ms=0)
    reason = "not refused"
    try:
        store.renew_lease(fence, ttl_ms=TTL_MS)
    except LeaseLostError as error:
        reason = error.reason
    with store.begin() as tx:
        row = {"worker": name, "fencing_token": fence.fencing_token, "reason": reason}
        tx.connection.execute(insert(refusals).values(row))
    tell("came back", fencing_token=fence.fencing_token, rows_written=landed, renewal=reason)


def write_step(tx: SessionTx, fence: SessionFence, name: str, expires_at_ms: int) -> int:
    """Insert a step if `fence` holds; return how many rows that wrote."""
    row = select(
        literal(name), literal(fence.fencing_token), literal(tx.now_ms), literal(expires_at_ms)
    ).where(fence.holds(now_ms=tx.now_ms))
    columns = ["worker", "fencing_token", "at_ms", "expires_at_ms"]
    return tx.connection.execute(insert(steps).from_select(columns, row)).rowcount


def tell(event: str, **details: object) -> None:
    """Print one event for whoever started this process."""
    print(json.dumps({"event": event, **details}), flush=True)  # noqa: T201 # reason: the protocol


def _sleep_until_free(store: SessionStore) -> None:
    while isinstance(store.current_lease(), SessionLease):
        time.sleep(_POLL_S)


def main(path: str, name: str, fence: str | None = None) -> None:
    """Open the session and be a worker, or one that comes back."""
    with SessionStore.open(path, session_id=SESSION_ID) as store:
        if fence is None:
            work(store, name)
        else:
            come_back(store, name, SessionFence(*json.loads(fence)))


if __name__ == "__main__":
    main(*sys.argv[1:])
