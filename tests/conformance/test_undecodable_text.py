"""K-CODEC-5: text that is no UTF-8, as any program may store it, is reported where it stands."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lash_store import (
    Append,
    EffectStore,
    ProcessRegistry,
    SessionStore,
    TriggerStore,
)
from lash_store.errors import CorruptRecordError
from lash_store.testing import ManualClock
from lash_store.trigger.records import Undecodable, UndecodableOccurrence
from tests.support.databases import all_rows, run_script
from tests.support.registries import register
from tests.support.sessions import commit, enqueue, lease_of, node
from tests.support.triggers import occur, subscribe

pytestmark = pytest.mark.canonical("writes to the tables by their canonical names")

NO_UTF8 = "CAST(x'6162ff63' AS TEXT)"


def spoil(path: Path, table: str, column: str, where: str = "1") -> None:
    run_script(path, f"UPDATE {table} SET {column} = {NO_UTF8} WHERE {where};")


def refusal(call: Any) -> tuple[str, str, str]:
    with pytest.raises(CorruptRecordError) as caught:
        call()
    assert "abÿ" not in str(caught.value)  # the text itself is the consumer's
    return caught.value.table, caught.value.key, caught.value.cause


def test_k_codec_5_in_a_session(store: SessionStore, path: Path) -> None:
    first = enqueue(store, 1)
    spoil(path, "queued_work_items", "payload_json")
    table, key, cause = refusal(store.list_pending_work)
    assert (table, cause) == ("queued_work_items", "its payload_json is no UTF-8")
    assert first.batch_id in key
    lease = lease_of(store)
    before = all_rows(path)
    found = refusal(lambda: store.claim_work(lease.fence, owner_id="ann", ttl_ms=1))
    assert found == (table, key, cause)
    assert all_rows(path) == before  # nothing is claimed
    assert store.discard_work(first.batch_id)
    assert store.list_pending_work() == []


def test_k_codec_5_a_node(store: SessionStore, path: Path) -> None:
    commit(store, Append([node("a"), node("b", "a")], leaf="b"))
    spoil(path, "graph_nodes", "node_json", "node_id = 'b'")
    assert refusal(lambda: store.load_path("b")) == (
        "graph_nodes",
        "b",
        "its node_json is no UTF-8",
    )


@pytest.mark.parametrize("column", ["node_json", "node_id"])
@pytest.mark.parametrize("limit", [None, 2, 3])
def test_k_codec_5_a_node_fails_the_paths_that_it_is_on(
    store: SessionStore, path: Path, column: str, limit: int | None
) -> None:
    nodes = [node("a"), node("aside", "a"), node("b", "a"), node("c", "b")]
    commit(store, Append(nodes, leaf="c"))
    spoil(path, "graph_nodes", column, "node_id = 'aside'")
    found = store.load_path(limit=limit)
    assert found is not None
    assert [each.node_id for each in found.nodes] == ["a", "b", "c"][-(limit or 3) :]
    refusal(store.load_graph)
    spoil(path, "graph_nodes", "node_json", "node_id = 'a'")
    if limit == 2:
        assert store.load_path(limit=limit) == found
    else:
        assert refusal(lambda: store.load_path(limit=limit))[:2] == ("graph_nodes", "a")


def test_k_codec_5_a_lease(store: SessionStore, path: Path) -> None:
    lease_of(store)
    spoil(path, "session_execution_leases", "lease_owner_id")
    found = ("session_execution_leases", "s", "its lease_owner_id is no UTF-8")
    assert refusal(store.current_lease) == found
    assert refusal(lambda: store.claim_lease(owner_id="bob", ttl_ms=1)) == found


def test_k_codec_5_a_process_and_its_events(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "p.db"
    with ProcessRegistry.open(path, clock=clock) as registry:
        register(registry, "p")
        register(registry, "q")
        spoil(path, "processes", "record_json", "process_id = 'q'")
        found = ("processes", "q", "its record_json is no UTF-8")
        assert refusal(lambda: registry.load_process("q")) == found
        assert refusal(registry.list_processes) == found
        assert registry.load_process("p") is not None


def test_k_codec_5_a_step(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "e.db"
    with EffectStore.open(path, clock=clock) as effects:
        effects.run("s", "k", {}, lambda: 1)
        spoil(path, "runtime_effect_replay", "outcome_json")
        called: list[int] = []
        found = ("runtime_effect_replay", "s:k", "its outcome_json is no UTF-8")
        assert refusal(lambda: effects.run("s", "k", {}, lambda: called.append(1))) == found
        assert called == []


def test_t_sub_3_a_subscription_that_is_no_utf8_keeps_no_other_back(
    triggers: TriggerStore, path: Path
) -> None:
    good, bad = (subscribe(triggers) for _ in range(2))
    told = Undecodable(bad.subscription_id, bad.handle, "its record_json is no UTF-8")
    occurrence = occur(triggers, key="i")
    triggers.reserve_deliveries(occurrence.occurrence_id)
    spoil(path, "trigger_subscriptions", "record_json", f"handle = '{bad.handle}'")
    listed = triggers.list_subscriptions()
    assert (listed.subscriptions, listed.undecodable) == ((good,), (told,))
    again = occur(triggers, key="another")
    for reserve in (triggers.reserve_deliveries, triggers.redeliver):
        found = reserve(again.occurrence_id)
        assert [each.subscription for each in found.deliveries] == [good]
        assert found.undecodable == (told,)
    page = triggers.list_deliveries()
    assert [each.subscription for each in page.deliveries] == [good, good]
    assert page.undecodable == (told,)
    before = all_rows(path)["trigger_subscriptions"]
    assert triggers.cancel_subscription("one", bad.handle)
    assert triggers.enable_subscription("one", bad.handle)
    assert all_rows(path)["trigger_subscriptions"] == before  # what can't be read stays as it is
    assert triggers.delete_subscription("one", bad.handle)
    assert triggers.list_subscriptions().undecodable == ()


def test_t_sub_3_a_subscription_whose_id_is_no_utf8_is_told_by_its_handle(
    triggers: TriggerStore, path: Path
) -> None:
    bad = subscribe(triggers)
    spoil(path, "trigger_subscriptions", "subscription_id")
    before = all_rows(path)
    found = ("trigger_subscriptions", bad.handle, "its subscription_id is no UTF-8")
    for call in (
        triggers.cancel_subscription,
        triggers.enable_subscription,
        triggers.delete_subscription,
    ):
        assert refusal(partial(call, "one", bad.handle)) == found
    assert all_rows(path) == before


def test_t_del_2_an_occurrence_that_is_no_utf8_stands_beside_the_list(
    triggers: TriggerStore, path: Path
) -> None:
    subscribe(triggers)
    occurrences = [occur(triggers, key=key) for key in "ab"]
    for each in occurrences:
        triggers.reserve_deliveries(each.occurrence_id)
    spoilt, sound = occurrences
    spoil(path, "trigger_occurrences", "record_json", f"occurrence_id = '{spoilt.occurrence_id}'")
    page = triggers.list_deliveries()
    assert [each.occurrence for each in page.deliveries] == [sound]
    assert page.undecodable_occurrences == (
        UndecodableOccurrence(spoilt.occurrence_id, "its record_json is no UTF-8"),
    )
