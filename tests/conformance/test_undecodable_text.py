"""K-CODEC-5: text that is no UTF-8, as any program may store it, is reported where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lash_store import (
    Append,
    EffectStore,
    ProcessRegistry,
    SessionStore,
)
from lash_store.errors import CorruptRecordError
from lash_store.testing import ManualClock
from tests.support.databases import all_rows, run_script
from tests.support.registries import register
from tests.support.sessions import commit, enqueue, lease_of, node

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
