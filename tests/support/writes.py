"""Every operation that writes, of all four stores: each on a store that has something to lose."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lash_store import (
    EffectClaim,
    EffectStore,
    NewWork,
    ProcessRegistry,
    ProcessTx,
    Scope,
    SessionStore,
    Success,
    TriggerStore,
    TurnCommit,
)
from lash_store._stores.store import Store
from lash_store.effect.records import EffectError
from lash_store.process.records import ExternalRef, signal_wait
from lash_store.session.records import SessionMeta, UsageDelta
from lash_store.testing import ManualClock, SequentialIds
from tests.support import on_server as on_the_server
from tests.support.layouts import on_server
from tests.support.leased import JOBS, metadata as jobs_metadata
from tests.support.registries import lease_on, register, registration
from tests.support.sessions import chain, claim_of, enqueue, lease_of, whole_turn
from tests.support.triggers import draft, occur, subscribe

ONE, TWO = Scope("one"), Scope("two")
ENVELOPE = {"x": 1}
LONG_MS = 60_000


def open_session(path: Path, ids: str = "late") -> SessionStore:
    return SessionStore.open(path, session_id="s", clock=ManualClock(), ids=SequentialIds(ids))


def open_processes(path: Path, ids: str = "late") -> ProcessRegistry:
    return ProcessRegistry.open(path, clock=ManualClock(), ids=SequentialIds(ids))


def open_triggers(path: Path, ids: str = "late") -> TriggerStore:
    return TriggerStore.open(path, clock=ManualClock(), ids=SequentialIds(ids))


def open_effects(path: Path, ids: str = "late") -> EffectStore:
    options: Any = {"clock": ManualClock(), "ids": SequentialIds(ids)}
    return EffectStore.open(path, owner_id="ann", **options)


def fill_session(store: SessionStore, held: Any) -> None:
    """A turn is committed, a claim is held, work waits; a blob and a node are garbage."""
    held.fence = lease_of(store).fence
    store.commit_turn(
        TurnCommit(fence=held.fence, graph=chain("a", "b"), usage=[UsageDelta("chat", "m", 1)])
    )
    store.tombstone_nodes(["b"])
    store.put_blob(b"alone")
    store.record_attachment_intent("att-1", canonical_uri="u")
    store.record_attachment_intent("att-2", canonical_uri="u")
    enqueue(store, "claimed")
    held.claim = claim_of(store)
    held.waiting = [enqueue(store, each, slot_policy="join").batch_id for each in "abc"]
    held.turn = whole_turn(store, held.claim)


def fill_processes(registry: ProcessRegistry, held: Any) -> None:
    """One process is held, waits and has events; another is free; one has ended."""
    register(registry, "e")
    registry.grant_handle(ONE, "e")
    registry.complete_process("e", Success(1))
    for name in "pq":
        register(registry, name, wake_target=ONE)
        registry.grant_handle(ONE, name)
    registry.append_event("p", "wake", "x", replay_key="k")
    registry.set_wait("p", signal_wait("p", "go", ordinal=1, since_ms=1))
    held.fence = lease_on(registry).fence


def fill_triggers(store: TriggerStore, held: Any) -> None:
    """Three subscriptions, one occurrence with deliveries and one without."""
    for _ in range(3):
        subscribe(store)
    held.known = occur(store, 1, "known").occurrence_id
    store.reserve_deliveries(occur(store, 2, "old").occurrence_id)
    store.cancel_subscription("one", "trigger:3")
    held.started = store.list_reserved_processes(2**60)


def fill_effects(store: EffectStore, held: Any) -> None:
    """One effect is under way, two are done."""
    held.claim = store.begin_effect("s", "k", ENVELOPE)
    assert isinstance(held.claim, EffectClaim)
    store.run("s", "done", ENVELOPE, lambda: 1)
    store.run("s", "done too", ENVELOPE, lambda: 2)
    with store.begin() as tx:
        if on_server():  # where the tests copy our tables only
            beside = ProcessTx.beside(tx)
            beside.register_process(registration("p"))
            held.lease = beside.claim_lease("p", owner_id="ann", ttl_ms=LONG_MS)
        else:
            jobs_metadata.create_all(tx.connection)
            held.lease = JOBS.claim(tx, "job", owner_id="ann", ttl_ms=LONG_MS)


KINDS: dict[str, tuple[Callable[..., Store[Any]], Callable[[Any, Any], None]]] = {
    "session": (open_session, fill_session),
    "process": (open_processes, fill_processes),
    "trigger": (open_triggers, fill_triggers),
    "effect": (open_effects, fill_effects),
}

Write = Callable[[Any, Any], Any]

WRITES: dict[str, dict[str, Write]] = {
    "session": {
        "claim_lease": lambda s, _: s.claim_lease(owner_id="ann", ttl_ms=99),
        "claim_lease, refused": lambda s, _: s.claim_lease(owner_id="bob", ttl_ms=99),
        "renew_lease": lambda s, h: s.renew_lease(h.fence, ttl_ms=99),
        "release_lease": lambda s, h: s.release_lease(h.fence),
        "tombstone_nodes": lambda s, _: s.tombstone_nodes(["a"]),
        "vacuum_graph": lambda s, _: s.vacuum_graph(),
        "put_blob": lambda s, _: s.put_blob(b"new"),
        "enqueue_work": lambda s, _: s.enqueue_work(NewWork(["a", "b"], source_key="new")),
        "enqueue_all_work": lambda s, _: s.enqueue_all_work([NewWork(["a"]), NewWork(["b"])]),
        "claim_work": lambda s, h: s.claim_work(h.fence, owner_id="ann", ttl_ms=9, max_batches=3),
        "claim_work_batches": lambda s, h: s.claim_work_batches(
            h.fence, h.waiting[1:], owner_id="ann", ttl_ms=9
        ),
        "renew_claim": lambda s, h: s.renew_claim(h.claim, ttl_ms=LONG_MS),
        "complete_work": lambda s, h: s.complete_work(h.fence, h.claim),
        "complete_and_claim_work": lambda s, h: s.complete_and_claim_work(
            h.fence, h.claim, ttl_ms=9
        ),
        "abandon_claim": lambda s, h: s.abandon_claim(h.claim),
        "cancel_work": lambda s, h: s.cancel_work(h.waiting[0]),
        "discard_work": lambda s, h: s.discard_work(h.waiting[0]),
        "record_usage": lambda s, _: s.record_usage(UsageDelta("chat", "m", 10)),
        "save_meta": lambda s, _: s.save_meta(SessionMeta("s", "name", "unix:1", "m")),
        "record_attachment_intent": lambda s, _: s.record_attachment_intent(
            "att-3", canonical_uri="u"
        ),
        "commit_attachments": lambda s, _: s.commit_attachments(["att-1", "att-2"]),
        "forget_attachment": lambda s, _: s.forget_attachment("att-2"),
        "sweep_attachment": lambda s, _: s.sweep_attachment("att-1", older_than_ms=10**15),
        "put_artifact": lambda s, _: s.put_artifact("ref", kind="env", content=b"content"),
        "collect_blobs": lambda s, _: s.collect_blobs(),
        "commit_turn": lambda s, h: s.commit_turn(h.turn),
    },
    "process": {
        "register_process": lambda r, _: r.register_process(registration("new")),
        "set_external_ref": lambda r, _: r.set_external_ref("p", ExternalRef("b", "i")),
        "set_wait": lambda r, _: r.set_wait("q", signal_wait("q", "go", ordinal=1, since_ms=1)),
        "clear_wait": lambda r, _: r.clear_wait("p"),
        "append_event": lambda r, h: r.append_event(
            "p", "wake", "x", replay_key="new", fence=h.fence
        ),
        "append_event, again": lambda r, _: r.append_event("p", "wake", "x", replay_key="k"),
        "complete_process": lambda r, h: r.complete_process("p", Success(1), fence=h.fence),
        "request_cancel": lambda r, _: r.request_cancel("p", reason="r"),
        "ack_wake": lambda r, _: r.ack_wake("p", 1),
        "grant_handle": lambda r, _: r.grant_handle(TWO, "p"),
        "revoke_handle": lambda r, _: r.revoke_handle(ONE, "p"),
        "transfer_handles": lambda r, _: r.transfer_handles(ONE, TWO, ["p", "q"]),
        "delete_session": lambda r, _: r.delete_session("one"),
        "claim_lease": lambda r, _: r.claim_lease("q", owner_id="bob", ttl_ms=50),
        "claim_next": lambda r, _: r.claim_next(owner_id="bob", ttl_ms=50),
        "complete_and_claim_next": lambda r, h: r.complete_and_claim_next(
            h.fence, Success(1), ttl_ms=50
        ),
        "renew_lease": lambda r, h: r.renew_lease(h.fence, ttl_ms=99),
        "release_lease": lambda r, h: r.release_lease(h.fence),
        "prune_processes": lambda r, _: r.prune_processes(2**60),
    },
    "trigger": {
        "register_subscription": lambda s, _: s.register_subscription(draft()),
        "cancel_subscription": lambda s, _: s.cancel_subscription("one", "trigger:1"),
        "enable_subscription": lambda s, _: s.enable_subscription("one", "trigger:3"),
        "delete_subscription": lambda s, _: s.delete_subscription("one", "trigger:1"),
        "delete_session": lambda s, _: s.delete_session("one"),
        "record_occurrence": lambda s, _: occur(s, 1, "new"),
        "reserve_deliveries": lambda s, h: s.reserve_deliveries(h.known),
        "redeliver": lambda s, h: s.redeliver(h.known),
        "prune_occurrences": lambda s, h: s.prune_occurrences(2**60, started=h.started),
    },
    "effect": {
        "begin_effect": lambda s, _: s.begin_effect("s", "new", ENVELOPE),
        "renew_effect": lambda s, h: s.renew_effect(h.claim),
        "finish_effect": lambda s, h: s.finish_effect(h.claim, {"a": 1}),
        "fail_effect": lambda s, h: s.fail_effect(h.claim, EffectError("c", "m")),
        "record_effect": lambda s, h: s.record_effect(h.lease.fence, "s", "new", ENVELOPE, 3),
        "abandon_effect": lambda s, h: s.abandon_effect(h.claim),
        "begin_sleep": lambda s, _: s.begin_sleep("s", "z", 5),
        "forget_scope": lambda s, _: s.forget_scope("s"),
        "delete_session": lambda s, _: s.delete_session("s"),
        "prune_effects": lambda s, _: s.prune_effects(2**60),
    },
}


class Filled:
    """A store with something to lose, as often as it is wanted: its file is copied."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.held = kind, SimpleNamespace()
        self.open, fill = KINDS[kind]
        self.file = folder / f"{kind}.db"
        if on_server():
            on_the_server.keep(self.file)
        with self.open(self.file, "early") as store:
            fill(store, self.held)

    def copy_to(self, path: Path) -> None:
        """Put the file there, in the place of what is there."""
        if on_server():
            on_the_server.copy(self.file, path)
            return
        for left in path.parent.glob(f"{path.name}*"):
            left.unlink()
        shutil.copyfile(self.file, path)
