"""P-GRANT and P-LEASE, rule by rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import column, func, literal, select

from lash_store import (
    Failure,
    Host,
    LeaseHeld,
    ProcessFence,
    ProcessLease,
    ProcessRegistry,
    Provenance,
    Scope,
    Success,
    prepare,
)
from lash_store.errors import CorruptRecordError, InvalidRecordError, LeaseLostError, NotFoundError
from lash_store.process import statements
from lash_store.process.records import (
    BySession,
    ClaimedProcess,
    HandleDescriptor,
    HandleGrant,
    ProcessFilter,
    SessionDeletion,
    signal_wait,
)
from lash_store.process.records.processes import read_members
from lash_store.process.tables import processes
from lash_store.testing import ManualClock
from tests.support.databases import all_rows, run_script
from tests.support.registries import lease_on, register

ONE, FRAME, TWO = Scope("one"), Scope("one", "f"), Scope("two")


def ids(grants: list[HandleGrant]) -> list[str]:
    return [grant.process_id for grant in grants]


def test_p_grant_1_grant_and_revoke(registry: ProcessRegistry, path: Path) -> None:
    register(registry)
    grant = registry.grant_handle(FRAME, "p", HandleDescriptor("tool", "search"))
    assert grant == HandleGrant(
        "one", "session:one/frame:f", "p", HandleDescriptor("tool", "search"), "running"
    )
    assert all_rows(path)["process_handle_grants"] == [
        ("one", "session:one/frame:f", "p", '{"kind":"tool","label":"search"}')
    ]
    registry.grant_handle(FRAME, "p", HandleDescriptor(label="other"))
    assert all_rows(path)["process_handle_grants"][0][3] == '{"label":"other"}'
    registry.grant_handle(ONE, "p")
    assert (registry.has_handle(ONE, "p"), registry.has_handle(TWO, "p")) == (True, False)
    assert (registry.revoke_handle(ONE, "p"), registry.revoke_handle(ONE, "p")) == (True, False)
    assert registry.list_handles(ONE) == []
    assert registry.list_handles(FRAME) == [
        HandleGrant("one", "session:one/frame:f", "p", HandleDescriptor(None, "other"), "running")
    ]


def test_p_grant_1_refusals(registry: ProcessRegistry, path: Path) -> None:
    register(registry)
    before = all_rows(path)
    with pytest.raises(NotFoundError, match="'q'"):
        registry.grant_handle(ONE, "q")
    bad: list[Any] = [
        lambda: registry.grant_handle(Host(), "p"),  # type: ignore[arg-type] # reason: that is the test
        lambda: registry.grant_handle(Scope(""), "p"),
        lambda: registry.grant_handle(ONE, ""),
        lambda: registry.grant_handle(ONE, "p", "label"),  # type: ignore[arg-type] # reason: the same
        lambda: registry.grant_handle(ONE, "p", HandleDescriptor(7)),  # type: ignore[arg-type] # reason: the same
        lambda: registry.revoke_handle("one", "p"),  # type: ignore[arg-type] # reason: the same
        lambda: registry.transfer_handles(ONE, TWO, "p"),
        lambda: registry.list_handles(ONE, limit=-1),
        lambda: registry.list_handles_on(7),  # type: ignore[arg-type] # reason: the same
        lambda: registry.delete_session(""),
    ]
    for call in bad:
        with pytest.raises(InvalidRecordError):
            call()
    assert all_rows(path) == before


def test_p_grant_1_lists(registry: ProcessRegistry) -> None:
    for name in "cab":
        register(registry, name)
        registry.grant_handle(ONE, name)
    registry.grant_handle(TWO, "a")
    registry.grant_handle(FRAME, "a")
    registry.complete_process("b", Success(1))
    assert ids(registry.list_handles(ONE)) == ["a", "b", "c"]
    assert [grant.state for grant in registry.list_handles(ONE)] == [
        "running",
        "completed",
        "running",
    ]
    assert ids(registry.list_handles(ONE, after="a", limit=1)) == ["b"]
    assert ids(registry.list_live_handles(ONE)) == ["a", "c"]
    assert [grant.scope_id for grant in registry.list_handles_on("a")] == [
        "session:one", "session:one/frame:f", "session:two",
    ]  # fmt: skip
    register(registry, "d")
    assert registry.list_handles_on("d") == []
    with pytest.raises(NotFoundError, match="'nobody'"):
        registry.list_handles_on("nobody")


def test_p_grant_1_transfer_is_all_or_nothing(registry: ProcessRegistry, path: Path) -> None:
    for name in "abc":
        register(registry, name)
    registry.grant_handle(ONE, "a", HandleDescriptor(label="la"))
    registry.grant_handle(ONE, "b")
    registry.grant_handle(TWO, "a", HandleDescriptor(label="old"))
    run_script(
        path,
        """UPDATE process_handle_grants SET descriptor_json = '{"label":"la","x":1}' WHERE scope_id = 'session:one' AND process_id = 'a'""",
    )
    before = all_rows(path)
    with pytest.raises(NotFoundError, match="'c'"):
        registry.transfer_handles(ONE, TWO, ["a", "c", "b"])
    with registry.begin() as tx, pytest.raises(NotFoundError, match="'c'"):
        tx.transfer_handles(ONE, TWO, ["a", "c"])
    assert registry.transfer_handles(ONE, ONE, ["a", "b"]) == 2
    assert registry.transfer_handles(ONE, TWO, []) == 0
    assert all_rows(path) == before
    assert registry.transfer_handles(ONE, TWO, ["a", "b", "a"]) == 2
    assert registry.list_handles(ONE) == []
    assert sorted(all_rows(path)["process_handle_grants"]) == [
        ("two", "session:two", "a", '{"label":"la","x":1}'),
        ("two", "session:two", "b", "{}"),
    ]


def test_k_codec_2_a_corrupt_descriptor_is_an_error(registry: ProcessRegistry, path: Path) -> None:
    register(registry)
    registry.grant_handle(ONE, "p")
    run_script(path, "UPDATE process_handle_grants SET descriptor_json = '{\"label\":7}'")
    with pytest.raises(CorruptRecordError, match="session:one on p"):
        registry.list_handles(ONE)


def test_p_grant_2_deleting_a_session(
    registry: ProcessRegistry, path: Path, clock: ManualClock
) -> None:
    for name in ("orphan", "kept", "done", "target", "free"):
        wakes = {"target": FRAME, "done": ONE, "orphan": TWO}.get(name)
        register(registry, name, wake_target=wakes)
    for scope, name in (
        (ONE, "orphan"),
        (FRAME, "orphan"),
        (ONE, "kept"),
        (TWO, "kept"),
        (ONE, "done"),
    ):
        registry.grant_handle(scope, name)
    registry.complete_process("done", Success(1))
    registry.append_event("target", "wake", 1)
    registry.ack_wake("target", 1)
    clock.advance(5)
    before = {row[0]: row for row in all_rows(path)["processes"]}
    assert registry.delete_session("one") == SessionDeletion("one", 4, 0, ("orphan",), ("kept",))
    rows = all_rows(path)
    assert rows["process_handle_grants"] == [("two", "session:two", "kept", "{}")]
    assert rows["process_wake_acks"] == [("target", 1)]
    after = {row[0]: row for row in rows["processes"]}
    for name, row in after.items():
        if name in ("target", "done"):
            assert "wake_target" not in json.loads(row[6])
            assert row[4] == json.loads(row[6])["updated_at_ms"] == clock.now_ms()
            assert row[5] == before[name][5]
        else:
            assert row == before[name]
    assert registry.delete_session("one") == SessionDeletion("one", 0, 0, (), ())


def test_p_grant_2_only_what_matches_is_read(registry: ProcessRegistry, path: Path) -> None:
    """A registry of broken records: the session's are found in SQL, and no other is looked into."""
    for name in "abcd":
        register(registry, name, wake_target=ONE if name == "a" else TWO)
    run_script(
        path,
        """UPDATE processes SET record_json = '{"id":7,"wake_target":{"session_id":"two"}}' WHERE process_id = 'b';
        UPDATE processes SET record_json = 'nothing' WHERE process_id = 'c'""",
    )
    assert registry.delete_session("one").revoked_handle_count == 0
    record = registry.load_process("a")
    assert record is not None
    assert record.wake_target is None


def test_p_lease_1_claiming_needs_a_known_process(registry: ProcessRegistry, path: Path) -> None:
    register(registry)
    before = all_rows(path)
    with pytest.raises(NotFoundError, match="'q'"):
        registry.claim_lease("q", owner_id="ann", ttl_ms=1)
    with pytest.raises(NotFoundError, match="'q'"):
        registry.current_lease("q")
    for bad in ({"owner_id": ""}, {"ttl_ms": -1}, {"ttl_ms": 1.5}, {"process_id": ""}):
        arguments: dict[str, Any] = {"process_id": "p", "owner_id": "ann", "ttl_ms": 1, **bad}
        with pytest.raises(InvalidRecordError):
            registry.claim_lease(**arguments)
    assert all_rows(path) == before
    assert registry.current_lease("p") is None


def test_p_lease_1_the_live_owner_gets_a_new_term(registry: ProcessRegistry, path: Path) -> None:
    register(registry)
    first = lease_on(registry)
    second = lease_on(registry)
    assert (first.fencing_token, second.fencing_token) == (1, 2)
    assert first.fence.token != second.fence.token
    with pytest.raises(LeaseLostError) as lost:
        registry.renew_lease(first.fence, ttl_ms=5)
    assert lost.value.reason == "superseded"
    assert registry.release_lease(first.fence) is False
    assert registry.current_lease("p") == second


def test_p_lease_1_another_live_owner_is_a_value(
    registry: ProcessRegistry, path: Path, clock: ManualClock
) -> None:
    register(registry)
    held = lease_on(registry, ttl_ms=100)
    before = all_rows(path)
    refusal = registry.claim_lease("p", owner_id="bob", ttl_ms=5)
    assert refusal == LeaseHeld("p", "ann", 1, held.claimed_at_ms, held.expires_at_ms)
    assert all_rows(path) == before
    clock.advance(99)
    assert isinstance(registry.claim_lease("p", owner_id="bob", ttl_ms=5), LeaseHeld)
    clock.advance(1)
    assert lease_on(registry, owner_id="bob").fencing_token == 2


@pytest.mark.parametrize(
    "change",
    [
        {"token": "forged"},
        {"owner_id": "bob"},
        {"fencing_token": 0},
        {"fencing_token": 2},
        {"key": "q"},
    ],
    ids=str,
)
def test_p_lease_2_all_four_values_are_checked(
    registry: ProcessRegistry, path: Path, change: dict[str, Any]
) -> None:
    register(registry)
    register(registry, "q")
    fence = lease_on(registry).fence
    values = {name: getattr(fence, name) for name in ("key", "owner_id", "token", "fencing_token")}
    forged = ProcessFence(**{**values, **change})
    before = all_rows(path)
    with pytest.raises(LeaseLostError):
        registry.renew_lease(forged, ttl_ms=5)
    assert registry.release_lease(forged) is False
    with registry.read() as tx, pytest.raises(LeaseLostError):
        tx.require(forged)
    assert all_rows(path) == before
    renewed = registry.renew_lease(fence, ttl_ms=7)
    assert renewed.fence == fence
    assert registry.release_lease(fence) is True


def test_p_lease_3_claim_next_takes_the_oldest_without_a_live_lease(
    registry: ProcessRegistry, clock: ManualClock
) -> None:
    for name in ("z", "y", "x", "w"):
        clock.advance(1)
        register(registry, name)
    register(registry, "v")  # as old as w, and before it by id
    registry.complete_process("y", Success(1))
    lease_on(registry, "x", owner_id="other", ttl_ms=100)
    taken = []
    while (claimed := registry.claim_next(owner_id="ann", ttl_ms=50)) is not None:
        assert isinstance(claimed, ClaimedProcess)
        assert claimed.lease == registry.current_lease(claimed.record.id)
        assert claimed.record == registry.load_process(claimed.record.id)
        taken.append(claimed.record.id)
    assert taken == ["z", "v", "w"]
    clock.advance(49)
    assert registry.claim_next(owner_id="bob", ttl_ms=50) is None
    clock.advance(1)
    again = registry.claim_next(owner_id="bob", ttl_ms=50)
    assert again is not None
    assert (again.record.id, again.lease.fencing_token) == ("z", 2)
    registry.release_lease(again.lease.fence)
    clock.advance(51)
    assert registry.claim_next(owner_id="bob", ttl_ms=50) is not None


def test_p_lease_3_claim_next_with_a_filter(registry: ProcessRegistry, path: Path) -> None:
    register(registry, "a")
    register(registry, "b", provenance=Provenance(BySession(Scope("s"))))
    register(registry, "c")
    registry.set_wait("c", signal_wait("c", "go", ordinal=1, since_ms=1))

    def next_id(matching: ProcessFilter) -> str | None:
        claimed = registry.claim_next(owner_id="ann", ttl_ms=1_000, matching=matching)
        return None if claimed is None else claimed.record.id

    assert next_id(ProcessFilter(originator=BySession(Scope("s")))) == "b"
    assert next_id(ProcessFilter(waiting=True)) == "c"
    assert next_id(ProcessFilter(definition="none")) is None
    before = all_rows(path)
    for bad in ({"owner_id": ""}, {"ttl_ms": -1}, {"matching": "x"}):
        arguments: dict[str, Any] = {"owner_id": "ann", "ttl_ms": 1, **bad}
        with pytest.raises(InvalidRecordError):
            registry.claim_next(**arguments)
    assert all_rows(path) == before
    assert next_id(ProcessFilter()) == "a"


def test_p_lease_4_one_process_is_ended_and_the_next_is_claimed_together(
    registry: ProcessRegistry, path: Path, clock: ManualClock
) -> None:
    for name in ("a", "b", "c", "d"):
        clock.advance(1)
        register(registry, name)
    first = registry.claim_next(owner_id="ann", ttl_ms=50)
    assert first is not None
    ended, second = registry.complete_and_claim_next(first.fence, Success(1), ttl_ms=5)
    assert second is not None
    assert second.record == registry.load_process("b")
    assert second.lease == registry.current_lease("b")
    assert (second.fence.owner_id, second.expires_at_ms) == ("ann", clock.now_ms() + 5)
    assert registry.await_process("a") == Success(1)
    assert ended.event == registry.recent_events("a")[-1]
    assert registry.current_lease("a") is None
    # What it takes is chosen as claim_next chooses.
    _, third = registry.complete_and_claim_next(
        second.fence, Success(2), ttl_ms=50, where=processes.c.process_id > "c"
    )
    assert third is not None
    assert third.record.id == "d"
    _, none = registry.complete_and_claim_next(
        third.fence, Failure("external", "x", "no"), ttl_ms=50, matching=ProcessFilter(waiting=True)
    )
    assert none is None
    assert [each.id for each in registry.list_processes(state="failed")] == ["d"]
    # Sent again it ends nothing twice, and takes one more.
    log = all_rows(path)["process_events"]
    repeated, again = registry.complete_and_claim_next(first.fence, Success(1), ttl_ms=50)
    assert again is not None
    assert again.record.id == "c"
    assert (repeated.event, repeated.is_replay) == (ended.event, True)
    assert all_rows(path)["process_events"] == log
    # It ends nothing that it holds no more, and takes nothing then.
    clock.advance(50)
    before = all_rows(path)
    for stale, output in ((again.fence, Success(1)), (first.fence, Success(2))):
        with pytest.raises(LeaseLostError):
            registry.complete_and_claim_next(stale, output, ttl_ms=50)
    arguments: dict[str, Any] = {"fence": first.fence, "await_output": Success(1), "ttl_ms": 1}
    for bad in ({"fence": None}, {"await_output": 1}, {"ttl_ms": -1}, {"matching": "x"}):
        with pytest.raises(InvalidRecordError):
            registry.complete_and_claim_next(**{**arguments, **bad})
    assert all_rows(path) == before


def test_p_lease_4_what_cannot_be_read_keeps_both_from_being_done(
    registry: ProcessRegistry, path: Path
) -> None:
    register(registry, "a")
    held = registry.claim_next(owner_id="ann", ttl_ms=50)
    assert held is not None
    register(registry, "b")
    run_script(path, "UPDATE processes SET record_json = '{' WHERE process_id = 'b'")
    before = all_rows(path)
    with pytest.raises(CorruptRecordError, match="'b'"):
        registry.complete_and_claim_next(held.fence, Success(1), ttl_ms=50)
    with registry.begin() as tx, pytest.raises(CorruptRecordError, match="'b'"):
        tx.complete_and_claim_next(held.fence, Success(1), ttl_ms=50)
    assert all_rows(path) == before


def test_k_compose_1_claim_next_by_a_condition_and_an_order(registry: ProcessRegistry) -> None:
    for name in ("a", "b", "c", "d"):
        register(registry, name)

    def next_id(**choice: Any) -> str | None:
        claimed = registry.claim_next(owner_id="ann", ttl_ms=1_000, **choice)
        return None if claimed is None else claimed.record.id

    assert next_id(where=processes.c.process_id == "c") == "c"
    assert next_id(where=processes.c.process_id == "c") is None
    assert next_id(order_by=processes.c.process_id.desc()) == "d"
    old = ProcessFilter(created_before_ms=2**50)
    assert next_id(order_by=processes.c.process_id.desc(), matching=old) == "b"
    assert next_id(matching=old) == "a"


@pytest.mark.parametrize(
    "choice",
    [
        {"where": column("nope") == 1},
        {"where": func.nope(processes.c.process_id) == 1},
        {"where": processes.c.process_id == object()},
        {"where": processes.c.process_id == "\udcff"},
        {"where": processes.c.created_at_ms < 2**70},
        {"order_by": column("nope")},
    ],
)
def test_k_compose_1_a_choice_that_the_database_cant_make_is_refused(
    registry: ProcessRegistry, path: Path, choice: dict[str, Any]
) -> None:
    register(registry, "a")
    before = all_rows(path)
    with pytest.raises(InvalidRecordError, match="can't be run") as caught:
        registry.claim_next(owner_id="ann", ttl_ms=1_000, **choice)
    assert {caught.value.field} == set(choice)
    assert all_rows(path) == before
    with registry.begin() as tx:  # where it is caught, what was done before stays (K-TX-2)
        register(tx, "b")  # type: ignore[arg-type] # reason: a Tx
        with pytest.raises(InvalidRecordError, match="can't be run"):
            tx.claim_next(owner_id="ann", ttl_ms=1_000, **choice)
    assert registry.load_process("b") is not None
    assert registry.claim_next(owner_id="ann", ttl_ms=1_000) is not None


@pytest.mark.parametrize(
    "builder",
    [
        lambda: statements.next_claimable(now_ms=1),
        lambda: statements.list_processes(status="x", after_process_id="", limit=5),
        lambda: statements.list_processes(after_process_id="", limit=5),
        lambda: statements.list_status(status="x", after_process_id="", limit=5),
        lambda: statements.select_processes().where(statements.matches_filter()),
        lambda: statements.select_processes().where(
            statements.matches_filter(waiting=0, definition="d", created_before_ms=5)
        ),
    ],
)
def test_k_compose_1_builders_with_what_is_left_out_run_on_a_connection(
    registry: ProcessRegistry, builder: Any
) -> None:
    """A bare NULL has no type: where a server has to know it, it is not asked."""
    with registry.read() as tx:
        assert tx.connection.execute(builder()).all() == []


def test_k_lease_6_a_process_fence_is_a_predicate(
    registry: ProcessRegistry, clock: ManualClock
) -> None:
    register(registry)
    lease = lease_on(registry, ttl_ms=100)
    assert isinstance(lease, ProcessLease)
    for late_ms, holds in ((99, 1), (1, 0), (1, 0)):
        clock.advance(late_ms)
        with registry.read() as tx:
            found = tx.connection.execute(
                select(literal(1)).where(lease.fence.holds(now_ms=tx.now_ms))
            ).all()
            assert len(found) == holds
            if not holds:
                with pytest.raises(LeaseLostError):
                    tx.require(lease.fence)


def test_p_grant_2_rows_that_are_read(
    registry: ProcessRegistry, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three thousand processes SQL hands out the session's three, and no other is decoded."""
    register(registry)
    run_script(
        path,
        """WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 3000)
        INSERT INTO processes SELECT 'p' || n, 'h', 'host', 0, 0, 'running',
          json_object('id', 'p' || n, 'wake_target', json_object('session_id',
            CASE WHEN n % 1000 = 0 THEN 'one' ELSE 'session-' || n END)) FROM number""",
    )
    decoded = []

    def counting(process_id: str, record_json: str) -> Any:
        decoded.append(process_id)
        return read_members(process_id, record_json)

    monkeypatch.setattr("lash_store.process.operations.handles.read_members", counting)
    statement = prepare(statements.wake_targets)
    with registry.read() as tx:
        assert len(statement.all(tx.cursor, session_id="one")) == 3
    registry.delete_session("one")
    assert decoded == ["p1000", "p2000", "p3000"]
