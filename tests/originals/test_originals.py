"""Files that the original program wrote: each is opened, compared whole, and worked on.

``files/expected.json`` says what the original program itself reads from each of them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lash_store import (
    Append,
    EffectClaim,
    EffectStore,
    External,
    Host,
    NewWork,
    Node,
    ProcessLease,
    ProcessRegistration,
    ProcessRegistry,
    Provenance,
    Replayed,
    SessionLease,
    SessionStore,
    Success,
    TriggerStore,
    TurnCommit,
    TurnStamp,
    WorkBatch,
)
from lash_store.clock import MAX_INT
from lash_store.effect.records import ReplayedFailure
from lash_store.errors import IdempotencyConflictError
from lash_store.process.records import (
    DedupeBy,
    DedupeConst,
    EventIdentity,
    Payload,
    Template,
)
from lash_store.schemas import KINDS, check_file, mend_file
from lash_store.testing import ManualClock

FILES = Path(__file__).parent / "files"
EXPECTED: dict[str, Any] = json.loads((FILES / "expected.json").read_text(encoding="utf-8"))
NOW_MS = 1_795_600_000_000
"""Later than anything in the files."""


STALE = {
    "session-tombstoned": ("the head's graph_node_count is 2, and there are 1 live nodes",),
}
"""The original does not count a node out that it hides."""


def named(kind: str) -> list[str]:
    return [name for name in EXPECTED if name.startswith(kind)]


@pytest.fixture
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of one of the files, to work on."""
    copy = tmp_path / "original.db"
    shutil.copy(FILES / f"{request.param}.db", copy)
    return copy


def every(kind: str) -> pytest.MarkDecorator:
    names = named(kind)
    return pytest.mark.parametrize(
        ("file", "name"), [(name, name) for name in names], indirect=["file"]
    )


def plain(value: Any) -> Any:
    """Write a record as the JSON of the original: written here anew, not by the library."""
    for kind, write in _SHAPES.items():
        if isinstance(value, kind):
            return write(value)
    return value


def _plain_record(record: msgspec.Struct) -> dict[str, Any]:
    config = record.__struct_config__
    written = {} if config.tag_field is None else {config.tag_field: config.tag}
    for field in msgspec.structs.fields(type(record)):
        value = getattr(record, field.name)
        if value is not None or field.required:  # an optional field is left out
            written[field.name] = plain(value)
    return written


_SHAPES: dict[Any, Any] = {
    Payload: lambda _: "payload",
    EventIdentity: lambda _: "event_identity",
    DedupeBy: lambda key: {"selector": plain(key.selector)},
    DedupeConst: lambda key: {"const": key.key},
    Template: lambda each: {"template": {"template": each.template, "fields": plain(each.fields)}},
    msgspec.Struct: _plain_record,
    (list, tuple): lambda items: [plain(item) for item in items],
    dict: lambda members: {name: plain(item) for name, item in members.items()},
}
"""How a value is written, by its type; the first that fits."""


def without_nulls(written: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in written.items() if value is not None}


def test_there_are_twelve_of_all_four_kinds() -> None:
    assert len(EXPECTED) == 12
    assert {path.stem for path in FILES.glob("*.db")} == set(EXPECTED)
    assert {name.split("-")[0] for name in EXPECTED} == set(KINDS)


@every("")
def test_a_file_is_sound_before_and_after_it_was_opened(file: Path, name: str) -> None:
    stores: dict[str, Any] = {
        "process": ProcessRegistry.open,
        "trigger": TriggerStore.open,
        "effect": EffectStore.open,
        "session": lambda path: SessionStore.open(path, session_id="root"),
    }
    report = check_file(file)
    assert report.kind == name.split("-", maxsplit=1)[0]
    assert report.problems == STALE.get(name, ())
    stores[name.split("-", maxsplit=1)[0]](file).close()
    assert check_file(file) == report
    mend_file(file)
    assert check_file(file).is_sound


def _node(node: Node) -> dict[str, Any]:
    named = without_nulls(plain(node))
    fields = named.pop("fields")
    return {**named, **fields}


@every("session")
def test_a_session_is_read_whole(file: Path, name: str) -> None:
    expected = EXPECTED[name]
    with SessionStore.open(file, session_id="root") as session:
        for graph, read in (
            ("full_graph", session.load_graph()),
            ("active_path", session.load_path()),
        ):
            there = expected[graph]
            assert (read is None) == (there is None)
            if read is not None:
                assert [_node(node) for node in read.nodes] == there["graph"]["nodes"]
                assert read.leaf_node_id == there["graph"]["leaf_node_id"]
        head = session.load_head()
        if head is not None:
            _compare_head(session, head, expected["full_graph"])
            if name not in STALE:
                assert head.graph_node_count == len(expected["full_graph"]["graph"]["nodes"])
        meta = session.load_meta()
        assert (meta and _meta(meta)) == expected["meta"]
        batches = [_batch(batch) for batch in session.list_work(session_id="root")]
        assert batches == [_as_batch(batch) for batch in expected["queue_root"]]
        uncommitted = session.list_uncommitted_attachments(older_than_ms=MAX_INT)
        assert [plain(each) for each in uncommitted] == expected["uncommitted"]


def _compare_head(session: SessionStore, head: Any, expected: dict[str, Any]) -> None:
    for field in (
        "session_id",
        "head_revision",
        "config",
        "agent_frames",
        "current_agent_frame_id",
        "checkpoint_ref",
    ):
        assert plain(getattr(head, field)) == expected[field], field
    checkpoint = session.load_checkpoint(expected["checkpoint_ref"])
    assert {
        field: getattr(checkpoint, field) for field in checkpoint.__struct_fields__
    } == expected["checkpoint"]
    ledger = [
        {"model": each.model, "source": each.source, "usage": _counts(each)}
        for each in session.load_usage()
    ]
    assert ledger == expected["token_ledger"]


def _meta(meta: Any) -> dict[str, Any]:
    written: dict[str, Any] = plain(meta)
    assert written["relation"].pop("extra") == {}  # no member that this library does not know
    return written


def _counts(delta: Any) -> dict[str, int]:
    names = ("cached_input_tokens", "input_tokens", "output_tokens", "reasoning_tokens")
    return {name: getattr(delta, name) for name in names}


def _batch(batch: WorkBatch) -> dict[str, Any]:
    return without_nulls(plain(batch) | {"source_key": batch.source_key})


def _as_batch(written: dict[str, Any]) -> dict[str, Any]:
    return without_nulls(written)


@every("session")
def test_a_session_goes_on(file: Path, name: str) -> None:
    """Lease, queue and turn work on top of what is there; what was there stays."""
    expected = EXPECTED[name]["full_graph"]
    session_id = "root" if expected is None else expected["session_id"]
    clock = ManualClock(NOW_MS)
    with SessionStore.open(file, session_id=session_id, clock=clock) as session:
        before, graph = session.load_head(), session.load_graph()
        lease = session.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert isinstance(lease, SessionLease)
        waiting = session.list_work()
        added = session.enqueue_work(NewWork(["new"], source_key="new"))
        assert isinstance(added, WorkBatch)
        assert session.list_work() == [*waiting, added]
        claim = session.claim_work(lease.fence, owner_id="ann", ttl_ms=60_000)
        assert claim is not None
        node = Node("new-node", None if before is None else before.leaf_node_id)
        turn = TurnCommit(
            fence=lease.fence,
            stamp=TurnStamp("new-turn", "hash"),
            graph=Append([node], leaf="new-node"),
            completed=[claim],
            release=True,
        )
        receipt = session.commit_turn(turn)
        assert receipt == session.commit_turn(turn)
        assert receipt.head_revision == (0 if before is None else before.head_revision) + 1
        after = session.load_graph()
        assert after is not None
        assert after.nodes[:-1] == (() if graph is None else graph.nodes)
        left = [batch for batch in [*waiting, added] if batch.batch_id not in claim.batch_ids]
        assert session.list_work() == left
        if before is not None:
            assert session.collect_blobs().missing_roots == ()
            assert session.load_checkpoint(before.checkpoint_ref or "") is not None
    mend_file(file)
    assert check_file(file).is_sound


@every("process")
def test_a_registry_is_read_whole(file: Path, name: str) -> None:
    expected = EXPECTED[name]
    with ProcessRegistry.open(file) as registry:
        records = registry.list_processes(state=None)
        assert [plain(record) for record in records] == [
            without_nulls(record) for record in expected["processes"]
        ]
        for record in records:
            events = registry.events_after(record.id)
            assert [plain(event) for event in events] == expected["events"][record.id]
            wakes = registry.wake_events_after(record.id)
            assert [event.sequence for event in wakes] == expected["wakes"][record.id]
            grants = [
                {
                    "descriptor": plain(grant.descriptor),
                    "process_id": grant.process_id,
                    "session_id": grant.session_id,
                }
                for grant in registry.list_handles_on(record.id)
            ]
            assert grants == expected["grants"][record.id]


@every("process")
def test_a_registry_goes_on(file: Path, name: str) -> None:
    clock = ManualClock(NOW_MS)
    with ProcessRegistry.open(file, clock=clock) as registry:
        for record in registry.list_processes():
            highest = len(registry.events_after(record.id))
            lease = registry.claim_lease(record.id, owner_id="ann", ttl_ms=60_000)
            assert isinstance(lease, ProcessLease)
            appended = registry.append_event(
                record.id, "process.waiting", {"n": 1}, fence=lease.fence
            )
            assert appended.event.sequence == highest + 1
            for wake in registry.wake_events_after(record.id):
                assert registry.ack_wake(record.id, wake.sequence)
            ended = registry.complete_process(record.id, Success(7), fence=lease.fence)
            assert ended.record.await_output == Success(7)
            assert ended.record.registration_hash == record.registration_hash
        assert registry.list_processes() == []
        assert registry.pending_wakes() == []
        new = ProcessRegistration("new", External({}), Provenance(Host()))
        assert registry.register_process(new) == registry.register_process(new)
    assert check_file(file).is_sound


@every("trigger")
def test_a_trigger_store_is_read_whole(file: Path, name: str) -> None:
    with TriggerStore.open(file) as triggers:
        page = triggers.list_subscriptions()
        assert page.undecodable == ()
        assert [plain(each) for each in page.subscriptions] == [
            without_nulls(each) for each in EXPECTED[name]["subscriptions"]
        ]


@every("trigger")
def test_a_trigger_store_goes_on(file: Path, name: str) -> None:
    with TriggerStore.open(file, clock=ManualClock(NOW_MS)) as triggers:
        for delivery in triggers.list_deliveries().deliveries:
            again = triggers.redeliver(delivery.occurrence.occurrence_id)
            assert delivery in again.deliveries
        for each in triggers.list_subscriptions().subscriptions:
            occurrence = triggers.record_occurrence(
                each.source_type,
                each.source_key,
                {"button": "save"},
                idempotency_key=f"once-{each.handle}",
            )
            reserved = triggers.reserve_deliveries(occurrence.occurrence_id)
            found = [delivery.subscription for delivery in reserved.deliveries]
            missed = [mismatch.subscription for mismatch in reserved.mismatches]
            assert (each in [*found, *missed]) == each.enabled
            assert triggers.reserve_deliveries(occurrence.occurrence_id).deliveries == ()
    assert check_file(file).is_sound


@every("effect")
def test_effects_are_read_whole(file: Path, name: str) -> None:
    with EffectStore.open(file, owner_id="ann") as effects:
        recorded = {effect.replay_key: effect for effect in effects.list_effects()}
    expected = EXPECTED[name]["effects"]
    assert len(recorded) == len(expected)
    for there in expected:
        assert plain(recorded[there["replay_key"]]) == {
            "scope_id": there["scope_id"],
            "replay_key": there["replay_key"],
            "envelope_hash": there["envelope_hash"],
            "status": there["status"],
            "outcome": there["outcome_json"],
            "error": there["error_json"],
            "owner_id": there["lease_owner_id"],
            "expires_at_ms": there["lease_expires_at_ms"],
            "due_at_ms": there["due_at_ms"],
            "created_at_ms": there["created_at_ms"],
            "updated_at_ms": there["updated_at_ms"],
        }


@every("effect")
def test_effects_go_on(file: Path, name: str) -> None:
    """What ended is replayed, what was left by a dead worker is taken over."""
    with EffectStore.open(file, owner_id="ann", clock=ManualClock(NOW_MS)) as effects:
        for there in EXPECTED[name]["effects"]:
            names = (there["scope_id"], there["replay_key"])
            with pytest.raises(IdempotencyConflictError):
                effects.begin_effect(*names, envelope_hash="another")
            begun = effects.begin_effect(*names, envelope_hash=there["envelope_hash"])
            if there["status"] == "completed":
                assert begun == Replayed(there["outcome_json"])
            elif there["status"] == "failed":
                assert isinstance(begun, ReplayedFailure)
                assert plain(begun.error) == there["error_json"]
            else:
                assert isinstance(begun, EffectClaim)
                assert begun.due_at_ms == there["due_at_ms"]
                assert effects.finish_effect(begun, "done") == "done"
        assert effects.count_effects(status="in_progress") == 0
    assert check_file(file).is_sound
