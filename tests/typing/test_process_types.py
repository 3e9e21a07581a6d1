"""What a type checker sees of the process registry; see test_types.py."""

from __future__ import annotations

import asyncio
from typing import assert_type

from sqlalchemy import Delete, Insert, Select, Update

from lash_store import (
    AsyncProcessRegistry,
    External,
    Host,
    LeaseHeld,
    NewWork,
    ProcessFence,
    ProcessLease,
    ProcessRegistration,
    ProcessRegistry,
    ProcessTx,
    Provenance,
    Scope,
    SessionFence,
    Success,
    prepare,
)
from lash_store.process import statements
from lash_store.process.records import (
    Appended,
    AwaitOutput,
    ClaimedProcess,
    Completed,
    EventType,
    HandleGrant,
    PayloadSchema,
    PendingWake,
    ProcessEvent,
    ProcessRecord,
    SessionDeletion,
    WakeDelivery,
)
from lash_store.routing import work_of_wake

REGISTRATION = ProcessRegistration(
    "p", External({}), Provenance(Host()), event_types=[EventType("tick", PayloadSchema({}))]
)


def test_builders() -> None:
    assert_type(statements.select_processes(), Select[str, str, str, int, str])
    assert_type(statements.select_events().limit(3), Select[str, int, str, int, str])
    assert_type(statements.load_standing(process_id="p"), Select[str, str, int])
    assert_type(statements.revoke_session(session_id="s"), Delete)
    assert_type(statements.ack_wake(process_id="p", sequence=1), Insert)
    assert_type(
        statements.update_process(process_id="p", status="s", updated_at_ms=1, record_json="{}"),
        Update,
    )


def test_operations() -> None:
    with ProcessRegistry.open(None) as registry:
        assert_type(registry, ProcessRegistry)
        assert_type(registry.register_process(REGISTRATION), ProcessRecord)
        assert_type(registry.load_process("p"), ProcessRecord | None)
        assert_type(registry.list_processes(), list[ProcessRecord])
        assert_type(registry.append_event("p", "tick", 1), Appended)
        assert_type(registry.events_after("p"), list[ProcessEvent])
        assert_type(registry.pending_wakes(), list[PendingWake])
        assert_type(registry.wait_event_after("p", "tick"), ProcessEvent | None)
        assert_type(registry.grant_handle(Scope("s"), "p"), HandleGrant)
        assert_type(registry.delete_session("s"), SessionDeletion)
        assert_type(registry.claim_next(owner_id="o", ttl_ms=1), ClaimedProcess | None)
        lease = registry.claim_lease("p", owner_id="o", ttl_ms=1_000)
        assert_type(lease, ProcessLease | LeaseHeld)
        assert isinstance(lease, ProcessLease)
        assert_type(lease.fence, ProcessFence)
        assert_type(registry.complete_process("p", Success(1), fence=lease.fence), Completed)
        assert_type(
            registry.complete_and_claim_next(lease.fence, Success(1), ttl_ms=1),
            tuple[Appended, ClaimedProcess | None],
        )
        assert_type(registry.await_process("p"), AwaitOutput | None)
        with registry.begin() as tx:
            assert_type(tx, ProcessTx)
            assert_type(tx.require_process("p"), str)
        with registry.read() as tx:
            statement = prepare(statements.load_process)
            assert_type(statement.one(tx.cursor, process_id="p"), tuple[str, str, str] | None)


def test_async_operations() -> None:
    async def main() -> None:
        async with AsyncProcessRegistry.open(None) as registry:
            assert_type(registry, AsyncProcessRegistry)
            assert_type(await registry.register_process(REGISTRATION), ProcessRecord)
            assert_type(await registry.complete_process("p", Success(1)), Completed)
            assert_type(await registry.await_process("p"), AwaitOutput | None)
            assert_type(await registry.transact(lambda tx: tx.now_ms), int)

    asyncio.run(main())


def routed(wake: WakeDelivery) -> None:
    assert_type(work_of_wake(wake), NewWork)


def never(registry: ProcessRegistry, fence: SessionFence) -> None:
    """Misuse that both checkers must refuse; it never runs."""
    registry.complete_process("p", {"type": "success"})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    registry.complete_process("p", Success(1), fence=fence)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    registry.list_processes(state="asleep")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    registry.grant_handle("s", "p")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    registry.claim_lease("p")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    ProcessRegistry.open("x", session_id="s")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    ProcessRegistration("p", External({}))  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
