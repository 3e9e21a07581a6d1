"""S-META, S-HEAD, S-GRAPH, S-BLOB, S-CKPT and S-USAGE, rule by rule."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import zlib
from collections import OrderedDict, deque
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st
from sqlalchemy import Column, MetaData, Table, Text, insert, select, update

from lash_store import NewWork, SessionStore
from lash_store._kernel.codecs import encode_json, free_json, stable_hash
from lash_store.errors import CorruptRecordError, InvalidRecordError, NodeConflictError
from lash_store.session import statements, tables
from lash_store.session.operations import graph
from lash_store.session.records import (
    Append,
    Checkpoint,
    Node,
    Relation,
    ReplaceFull,
    SessionHead,
    SessionMeta,
    TurnCommit,
    Unchanged,
    UsageDelta,
    blobs,
)
from lash_store.session.records.blobs import pack_blob, unpack_blob
from tests.conformance.test_transactions import traced
from tests.support.bad_input import NoJson
from tests.support.databases import all_rows, run_script
from tests.support.sessions import chain, commit, lease_of, node

META = SessionMeta("s", "a name", "unix:1", "a-model", "/home", Relation())


class _Number(IntEnum):
    SEVEN = 7
    TOO_LARGE = 2**64


class _Word(StrEnum):
    KEY = "key"


class _Real(float):
    pass


def ids(graph: Any) -> list[str]:
    return [each.node_id for each in graph.nodes]


def set_parents(store: SessionStore, parents: Mapping[str, str | None]) -> None:
    """Give nodes that are there other parents, as another program could."""
    nodes = tables.graph_nodes
    with store.begin() as tx:
        for name, parent in parents.items():
            written = {"node_id": name, "parent_node_id": parent, "timestamp": "t"}
            change = update(nodes).where(nodes.c.node_id == name)
            tx.connection.execute(change.values(node_json=json.dumps(written)))


class TestMeta:
    def test_s_meta_1_saving_replaces_and_absence_is_none(self, store: SessionStore) -> None:
        assert store.load_meta() is None
        store.save_meta(META)
        assert store.load_meta() == META
        child = Relation("child", "parent", {"type": "turn", "session_id": "p", "turn_id": "t"})
        other = SessionMeta("s", "other", "unix:2", "m", None, child)
        store.save_meta(other)
        assert store.load_meta() == other

    def test_s_meta_1_texts_may_be_empty(self, store: SessionStore) -> None:
        """As the original program leaves them: what is read can be saved again."""
        empty = SessionMeta("s", "", "", "", "", Relation())
        store.save_meta(empty)
        assert store.load_meta() == empty
        nameless = UsageDelta("", "", 1)
        store.record_usage(nameless)
        assert store.load_usage() == [nameless]
        written = Node("n", None, {}, None, "", "")
        commit(store, graph=Append([written], "n"))
        graph = store.load_graph()
        assert graph is not None
        assert graph.nodes == (written,)

    def test_s_meta_1_relation_on_the_wire(self, store: SessionStore, path: Path) -> None:
        store.save_meta(META)
        assert all_rows(path)["session_meta"][0][-1] == '{"kind":"root"}'
        run_script(path, "UPDATE session_meta SET relation_json = NULL")
        assert store.load_meta() == META
        text = '{"kind":"child","parent_session_id":"p","caused_by":{"type":"process","process_id":"x"},"new":[1]}'
        run_script(path, f"UPDATE session_meta SET relation_json = '{text}'")
        loaded = store.load_meta()
        assert loaded is not None
        assert loaded.relation == Relation(
            "child", "p", {"type": "process", "process_id": "x"}, {"new": [1]}
        )
        store.save_meta(loaded)
        assert all_rows(path)["session_meta"][0][-1] == text

    @pytest.mark.sqlite("a column of a server has one type")
    @pytest.mark.parametrize("column", ["session_id", "session_name", "created_at", "model", "cwd"])
    def test_k_codec_2_bytes_are_no_meta(
        self, store: SessionStore, path: Path, column: str
    ) -> None:
        store.save_meta(META)
        run_script(path, f"UPDATE session_meta SET {column} = x'ff'")
        for load in (store.load_meta, store.load_summary):
            with pytest.raises(CorruptRecordError, match="session_meta"):
                load()

    @pytest.mark.parametrize("text", ["{", "[]", '{"kind":"uncle"}', '{"kind":1}'])
    def test_s_meta_1_a_relation_that_is_none_is_corrupt(
        self, store: SessionStore, path: Path, text: str
    ) -> None:
        store.save_meta(META)
        run_script(path, f"UPDATE session_meta SET relation_json = '{text}'")
        with pytest.raises(CorruptRecordError, match="session_meta"):
            store.load_meta()

    @pytest.mark.parametrize(
        "meta",
        [
            msgspec.structs.replace(META, session_id=""),
            msgspec.structs.replace(META, session_name="a\0"),
            msgspec.structs.replace(META, cwd=7),
            msgspec.structs.replace(META, relation=Relation("child")),
            msgspec.structs.replace(META, relation=Relation("root", "p")),
            msgspec.structs.replace(META, relation=Relation(extra={"x": float("nan")})),
            msgspec.structs.replace(META, relation=Relation(extra={"kind": "child"})),
            msgspec.structs.replace(META, relation=Relation(caused_by={"type": "rumour"})),
            None,
        ],
    )
    def test_s_meta_1_bad_meta_is_refused(self, store: SessionStore, path: Path, meta: Any) -> None:
        before = all_rows(path)
        with pytest.raises(InvalidRecordError):
            store.save_meta(meta)
        assert all_rows(path) == before


class TestHead:
    def test_s_head_1_before_the_first_commit_there_is_none(self, store: SessionStore) -> None:
        assert store.load_head() is None
        assert store.load_graph() is None
        assert store.load_path() is None

    def test_s_head_1_fields_stand_in_order_and_empty_ones_are_left_out(
        self, store: SessionStore, path: Path
    ) -> None:
        commit(store)
        assert all_rows(path)["session_head"] == [
            (
                1,
                "s",
                '{"session_id":"s","head_revision":1,"config":null,"agent_frames":[],'
                '"graph_node_count":0}',
                1,
            )
        ]
        commit(
            store,
            chain("a"),
            config={"z": 1, "a": 1e16},
            agent_frames=[b"\0\xff"],
            current_agent_frame_id="f",
            checkpoint=Checkpoint(turn_state=1),
        )
        written = all_rows(path)["session_head"][0][2]
        assert list(json.loads(written)) == [
            "session_id",
            "head_revision",
            "config",
            "agent_frames",
            "current_agent_frame_id",
            "checkpoint_ref",
            "leaf_node_id",
            "graph_node_count",
        ]
        assert '"config":{"a":1e+16,"z":1},"agent_frames":[[0,255]]' in written
        commit(store, current_agent_frame_id="")
        head = store.load_head()
        assert head is not None
        assert (head.current_agent_frame_id, head.config) == (None, {"a": 1e16, "z": 1})

    def test_s_head_1_the_column_is_the_truth_about_the_revision(
        self, store: SessionStore, path: Path
    ) -> None:
        commit(store)
        run_script(path, "UPDATE session_head SET head_revision = 41")
        head = store.load_head()
        assert head is not None
        assert head.head_revision == 41
        assert commit(store).head_revision == 42

    def test_s_head_1_unknown_fields_survive_but_the_ledger_goes(
        self, store: SessionStore, path: Path
    ) -> None:
        commit(store)
        run_script(
            path,
            "UPDATE session_head SET head_json = json_set(head_json,"
            " '$.later', json('{\"b\":1,\"a\":[2]}'), '$.token_ledger', json('[1]'))",
        )
        commit(store)
        head = store.load_head()
        assert head is not None
        assert head.extra == {"later": {"a": [2], "b": 1}}

    @pytest.mark.parametrize(
        "text", ["", "[]", '{"graph_node_count":"many"}', '{"agent_frames":3}']
    )
    def test_s_head_1_a_head_that_is_none_is_corrupt(
        self, store: SessionStore, path: Path, text: str
    ) -> None:
        commit(store)
        run_script(path, f"UPDATE session_head SET head_json = '{text}'")
        before = all_rows(path)
        with pytest.raises(CorruptRecordError, match="session_head"):
            store.load_head()
        with pytest.raises(CorruptRecordError, match="session_head"):
            commit(store)
        with pytest.raises(CorruptRecordError, match="session_head"):
            store.collect_blobs()
        assert {**all_rows(path), "session_execution_leases": []} == {
            **before,
            "session_execution_leases": [],
        }

    def test_s_head_2_no_head_binds_nobody(self, path: Path) -> None:
        with SessionStore.open(path, session_id="one") as one:
            lease_of(one)
        with SessionStore.open(path, session_id="two") as two:
            commit(two)
            head = two.load_head()
            assert head is not None
            assert head.session_id == "two"


class TestGraph:
    def test_s_graph_1_a_node_on_the_wire(self, store: SessionStore, path: Path) -> None:
        full = Node(
            "b",
            "a",
            {"zeta": 1, "alpha": {"y": 2, "x": 1.0}},
            caused_by={"type": "process", "process_id": "p"},
            agent_frame_id="f",
            timestamp="then",
        )
        commit(store, Append([Node("a", None), full], "b"))
        assert [row[:3] for row in all_rows(path)["graph_nodes"]] == [
            (1, "a", '{"node_id":"a","timestamp":"1970-01-01T00:16:40.000Z"}'),
            (
                2,
                "b",
                '{"node_id":"b","parent_node_id":"a","caused_by":{"type":"process","process_id":"p"},'
                '"agent_frame_id":"f","timestamp":"then","alpha":{"x":1.0,"y":2},"zeta":1}',
            ),
        ]
        assert store.load_node("b") == full

    @pytest.mark.parametrize(
        "bad",
        [
            Node("", None),
            Node("a", ""),
            Node("a", None, {"node_id": "x"}),
            Node("a\0b", None),
            Node("a", "b\0"),
            Node("a", None, caused_by={}),
            Node("a", None, caused_by={"type": "process"}),
            Node(
                "a", None, caused_by={"type": "process_event", "process_id": "p", "sequence": "1"}
            ),
            Node("a", None, {"x": float("inf")}),
            Node("a", None, {"x": 2**64}),
            Node("a", None, {"x": -(2**63) - 1}),
            Node("a", None, {"x": "\ud800"}),
            Node("a", None, {1: 2}),  # type: ignore[dict-item] # reason: that is the test
            Node("a", None, {"x": {1, 2}}),
            Node("a", None, {"x": NoJson()}),
            "a",
        ],
        ids=ascii,
    )
    def test_s_graph_1_a_node_that_can_not_be_stored_is_refused(
        self, store: SessionStore, path: Path, bad: Any
    ) -> None:
        lease_of(store)
        before = all_rows(path)
        with pytest.raises(InvalidRecordError):
            commit(store, Append([node("fine"), bad], "fine"))
        assert all_rows(path) == before

    def test_s_graph_1_too_deep_a_value_is_refused(self, store: SessionStore) -> None:
        deep: Any = []
        for _ in range(100_000):
            deep = [deep]
        with pytest.raises(InvalidRecordError, match="nested deeper than 100 levels"):
            commit(store, Append([Node("a", None, {"x": deep})], "a"))

    def test_s_graph_2_full_and_active_path(self, store: SessionStore) -> None:
        commit(store, chain("a", "b", "c"))
        commit(store, Append([node("x", "b"), node("y", "x")], "y"))
        full, active = store.load_graph(), store.load_path()
        assert full is not None
        assert active is not None
        assert (ids(full), full.leaf_node_id) == (["a", "b", "c", "x", "y"], "y")
        assert (ids(active), active.leaf_node_id) == (["a", "b", "x", "y"], "y")
        other = store.load_path("c")
        assert other is not None
        assert (ids(other), other.leaf_node_id) == (["a", "b", "c"], "c")

    def test_s_graph_2_an_absent_leaf_gives_an_empty_path_under_its_id(
        self, store: SessionStore
    ) -> None:
        commit(store)
        nothing, absent = store.load_path(), store.load_path("none")
        assert nothing is not None
        assert absent is not None
        assert (nothing.nodes, nothing.leaf_node_id) == ((), None)
        assert (absent.nodes, absent.leaf_node_id) == ((), "none")

    def test_s_graph_2_a_hidden_or_absent_ancestor_ends_the_path(self, store: SessionStore) -> None:
        commit(store, chain("a", "b", "c", "d"))
        commit(store, Append([node("far", "never there")], "far"))
        store.tombstone_nodes(["b"])
        path = store.load_path("d")
        assert path is not None
        assert ids(path) == ["c", "d"]
        far = store.load_path()
        assert far is not None
        assert ids(far) == ["far"]

    @pytest.mark.parametrize("looks", [(1, 1), (2, 4), (256, 4096)])
    @given(data=st.data())
    def test_s_graph_2_a_path_is_the_same_however_it_lies(
        self, looks: tuple[int, int], data: st.DataObject
    ) -> None:
        """Against a walk over a dict: parents before and behind, absent and hidden ones, cycles."""
        names = [f"n{at}" for at in range(data.draw(st.integers(1, 24)))]
        near = [[*names[max(0, at - 3) : at], None] for at in range(len(names))]
        anywhere = st.sampled_from([*names, "absent"])
        parents = {
            name: data.draw(st.sampled_from(near[at]) | anywhere) for at, name in enumerate(names)
        }
        hidden = set(data.draw(st.lists(st.sampled_from(names), max_size=3)))
        leaf = data.draw(anywhere)
        limit = data.draw(st.none() | st.integers(0, 30))
        path: list[str] = []
        at: str | None = leaf
        while at in parents and at not in hidden and at not in path and len(path) != limit:
            path.insert(0, at)
            at = parents[at]
        with (
            pytest.MonkeyPatch.context() as patch,
            SessionStore.open(None, session_id="s") as store,
        ):
            patch.setattr(graph, "_FIRST_LOOK", looks[0])
            patch.setattr(graph, "_LARGEST_LOOK", looks[1])
            commit(store, Append([node(name, None) for name in names], names[-1]))
            set_parents(store, parents)  # in what is committed, a cycle is refused
            store.tombstone_nodes(hidden)
            if at in path:
                with pytest.raises(CorruptRecordError, match="its own ancestor"):
                    store.load_path(leaf, limit=limit)
            else:
                found = store.load_path(leaf, limit=limit)
                assert found is not None
                assert (ids(found), found.leaf_node_id) == (path, leaf)

    def test_s_graph_2_a_parent_that_no_node_can_be_called_ends_the_path(
        self, store: SessionStore, path: Path
    ) -> None:
        commit(store, chain("a", "b", "c"))
        written = '{"node_id":"b","parent_node_id":"a\\u0000","timestamp":"t"}'
        run_script(path, f"UPDATE graph_nodes SET node_json = '{written}' WHERE node_id = 'b'")
        found = store.load_path()
        assert found is not None
        assert ids(found) == ["b", "c"]

    @pytest.mark.parametrize("limit", [2, 2**31 + 1, 2**63 - 1])
    def test_s_graph_2_a_path_that_lies_scattered_has_any_limit(
        self, store: SessionStore, limit: int
    ) -> None:
        aside = [node(f"a{at}", "r") for at in range(40)]
        commit(store, Append([node("r", None), *aside, node("leaf", "r")], "leaf"))
        path = store.load_path(limit=limit)
        assert path is not None
        assert ids(path) == ["r", "leaf"]

    @pytest.mark.sqlite("traces its statements")
    def test_s_graph_2_a_path_in_one_piece_is_read_in_few_looks(self, store: SessionStore) -> None:
        """Looks of 32, 256 and 2,048 nodes; what lies scattered is read by its parents at once."""
        far = [node(f"f{at}", f"f{at - 1}" if at else None) for at in range(3)]
        aside = [node(f"a{at}", None) for at in range(300)]
        long = [node(f"n{at}", f"n{at - 1}" if at else "f2") for at in range(600)]
        commit(store, Append([far[0], *aside, *far[1:], *long], "n599"))
        path = store.load_path()
        assert path is not None
        assert ids(path) == [each.node_id for each in (*far, *long)]
        of_head = 1
        assert traced(store, store.load_path).count("SELECT") == of_head + 3
        assert traced(store, lambda: store.load_path(limit=600)).count("SELECT") == of_head + 3

    @pytest.mark.parametrize("cycle", [["a"], ["a", "b"], ["a", "b", "c", "d"]])
    def test_s_graph_2_a_cycle_is_an_error_not_an_endless_query(
        self, store: SessionStore, cycle: list[str]
    ) -> None:
        commit(store, Append([node(n, None) for n in cycle], cycle[-1]))
        set_parents(store, {name: cycle[at - 1] for at, name in enumerate(cycle)})
        commit(store, Append([node("leaf", cycle[-1])], "leaf"))
        for leaf in ("leaf", *cycle):
            with pytest.raises(CorruptRecordError, match="its own ancestor"):
                store.load_path(leaf)

    def test_s_graph_2_a_cycle_is_an_error_however_far_a_path_may_go(
        self, store: SessionStore
    ) -> None:
        """Two commits make one, each of which is sound; the nodes between have SQL follow the parents."""
        commit(store, Append([node("a", "z")], "a"))
        commit(store, Append([node(f"x{at}", None) for at in range(100)], "x0"))
        commit(store, Append([node("z", "a")], "z"))
        for limit in (None, 3, 1_000, 2**62):
            with pytest.raises(CorruptRecordError, match="its own ancestor"):
                store.load_path(limit=limit)

    @pytest.mark.parametrize("again", [0, 1])
    def test_s_commit_7_a_graph_that_takes_anothers_place_is_numbered_from_its_first_node(
        self, store: SessionStore, path: Path, again: int
    ) -> None:
        commit(store, Append([node(f"n{at}", None) for at in range(5)], "n4"))
        for _ in range(1 + again):
            commit(store, ReplaceFull([node("n3", None), node("new", "n3")], "new"))
        assert [row[:2] for row in all_rows(path)["graph_nodes"]] == [(1, "n3"), (2, "new")]
        commit(store, Append([node("behind", "new")], "behind"))
        assert all_rows(path)["graph_nodes"][-1][:2] == (3, "behind")

    @pytest.mark.parametrize("cycle", [["a"], ["a", "b"], ["a", "b", "c", "d"]])
    @pytest.mark.parametrize("replaces", [False, True])
    def test_s_commit_6_nodes_that_are_their_own_ancestors_are_refused(
        self, store: SessionStore, path: Path, cycle: list[str], replaces: bool
    ) -> None:
        """No path would lead over them; one whose parent comes behind it, or is absent, is none."""
        ahead = [node("x", "y"), node("y", "absent"), node("z", "x")]
        commit(store, Append(ahead, "z"))
        found = store.load_path()
        assert found is not None
        assert ids(found) == ["y", "x", "z"]
        before = all_rows(path)
        nodes = [node("first", None), *(node(n, cycle[at - 1]) for at, n in enumerate(cycle))]
        with pytest.raises(InvalidRecordError, match="is its own ancestor") as refused:
            commit(
                store, (ReplaceFull if replaces else Append)([*nodes, node("leaf", "a")], "leaf")
            )
        assert refused.value.field == "parent_node_id"
        assert refused.value.value.strip("'") in cycle
        assert all_rows(path) == before

    def test_s_graph_3_tombstones_hide_and_are_counted_once(self, store: SessionStore) -> None:
        commit(store, chain("a", "b", "c"))
        assert store.tombstone_nodes(["b", "c", "unknown", "b"]) == 2
        assert store.tombstone_nodes(["b"]) == 0
        assert store.load_node("b") is None
        graph, head = store.load_graph(), store.load_head()
        assert graph is not None
        assert head is not None
        assert (ids(graph), graph.leaf_node_id) == (["a"], "c")  # the leaf may be hidden too
        assert (head.graph_node_count, head.head_revision) == (1, 1)

    def test_s_graph_3_vacuum_removes_the_hidden_and_mends_the_count(
        self, store: SessionStore, path: Path
    ) -> None:
        commit(store, chain("a", "b", "c"))
        store.tombstone_nodes(["c"])
        run_script(path, "UPDATE graph_nodes SET tombstoned = 1 WHERE node_id = 'b'")
        assert store.vacuum_graph() == 2
        assert store.vacuum_graph() == 0
        head = store.load_head()
        assert head is not None
        assert (head.graph_node_count, head.head_revision) == (1, 1)
        commit(store, Append([node("b")], "b"))  # the id is free again, and so is its seq
        assert [row[:2] for row in all_rows(path)["graph_nodes"]] == [(1, "a"), (2, "b")]

    def test_s_graph_3_a_bad_id_is_refused(self, store: SessionStore, path: Path) -> None:
        commit(store, chain("a", "b"))
        before = all_rows(path)
        for bad in ("", None, 7, "\ud800"):
            with pytest.raises(InvalidRecordError):
                store.tombstone_nodes(["a", bad])  # type: ignore[list-item] # reason: that is the test
        assert all_rows(path) == before

    def test_s_graph_4_consumers_filter_page_and_join(self, store: SessionStore) -> None:
        commit(store, chain("a", "b", "c", "d"))
        commit(store, Append([node("x", "b")], "x"))
        stars = Table("stars", MetaData(), Column("node_id", Text, primary_key=True))
        nodes = tables.graph_nodes.c
        with store.begin() as tx:
            stars.create(tx.connection)
            tx.connection.execute(insert(stars), [{"node_id": "b"}, {"node_id": "d"}])
        page = statements.select_nodes().where(nodes.seq > 2).order_by(nodes.seq).limit(2)
        path = statements.ancestry(leaf_node_id="x")
        starred = select(path.c.node_id).join(stars, stars.c.node_id == path.c.node_id)
        with store.read() as tx:
            assert [row.node_id for row in tx.connection.execute(page)] == ["c", "d"]
            assert tx.connection.scalars(starred).all() == ["b"]
            assert set(tx.connection.scalars(select(path.c.node_id))) == {"a", "b", "x"}

    @pytest.mark.parametrize("text", ["", "[]", '{"node_id":7}', '{"node_id":"a","timestamp":1}'])
    def test_s_graph_2_an_undecodable_node_is_an_error_everywhere(
        self, store: SessionStore, path: Path, text: str
    ) -> None:
        commit(store, chain("a", "b"))
        run_script(path, f"UPDATE graph_nodes SET node_json = '{text}' WHERE node_id = 'b'")
        for read in (store.load_graph, lambda: store.load_node("b")):
            with pytest.raises(CorruptRecordError, match="graph_nodes"):
                read()


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def envelope(content: Any, compression: str = "None") -> bytes:
    return msgspec.msgpack.encode(
        {"descriptor": {"kind": "GenericBlob"}, "compression": compression, "content": content}
    )


class TestBlobs:
    def test_s_blob_1_is_stored_once_under_its_hash(self, store: SessionStore, path: Path) -> None:
        key = store.put_blob(b"some bytes")
        assert key == sha(b"some bytes")
        assert store.put_blob(b"some bytes", kind="ToolState") == key
        ((_, stored),) = all_rows(path)["blobs"]
        assert msgspec.msgpack.decode(stored) == {
            "descriptor": {"kind": "GenericBlob"},
            "compression": "None",
            "content": b"some bytes",
        }
        assert store.load_blob(key) == b"some bytes"
        assert store.load_blob("0" * 64) is None

    @pytest.mark.parametrize(
        "stored",
        [
            envelope(b"content"),
            envelope(list(b"content")),
            envelope(zlib.compress(b"content"), "Zlib"),
            envelope(list(zlib.compress(b"content")), "Zlib"),
            b"content",
        ],
        ids=["bin", "array", "zlib", "zlib array", "bare"],
    )
    def test_s_blob_1_every_form_is_read(
        self, store: SessionStore, path: Path, stored: bytes
    ) -> None:
        key = sha(b"content")
        run_script(path, f"INSERT INTO blobs VALUES ('{key}', x'{stored.hex()}')")
        assert store.load_blob(key) == b"content"

    def test_s_blob_2_either_library_compresses_and_both_are_read(self) -> None:
        """isal, which the tests have, and zlib, which is there without the extra."""
        content = b"some words " * 1_000
        script = (
            "import sys; sys.modules['isal'] = None\n"
            "from lash_store.session.records.blobs import compress, pack_blob\n"
            "assert compress.__module__ == 'zlib'\n"
            "sys.stdout.buffer.write(pack_blob(b'some words ' * 1_000, 'ToolState', 'balanced'))"
        )
        command = [sys.executable, "-c", script]
        by_zlib = subprocess.run(command, check=True, capture_output=True).stdout
        by_isal = pack_blob(content, "ToolState", "balanced")
        assert vars(blobs)["compress"].__module__ == "isal.isal_zlib"
        for stored in (by_zlib, by_isal):
            assert len(stored) < 500
            assert unpack_blob(sha(content), stored) == content

    def test_s_blob_1_the_hash_decides_between_forms(self, store: SessionStore, path: Path) -> None:
        """Content that is itself an envelope, stored bare."""
        inner = envelope(b"content")
        run_script(path, f"INSERT INTO blobs VALUES ('{sha(inner)}', x'{inner.hex()}')")
        assert store.load_blob(sha(inner)) == inner

    @pytest.mark.parametrize("stored", ["x'00'", "'text'", "7", f"x'{envelope(b'other').hex()}'"])
    def test_s_blob_3_content_without_the_keys_hash_is_corrupt(
        self, store: SessionStore, path: Path, stored: str
    ) -> None:
        run_script(path, f"INSERT INTO blobs VALUES ('{sha(b'content')}', {stored})")
        with pytest.raises(CorruptRecordError, match="blobs"):
            store.load_blob(sha(b"content"))

    @pytest.mark.parametrize(
        ("profile", "path_given", "from_size"),
        [
            ("low_latency", True, None),
            ("balanced", True, 4096),
            ("compact", True, 1024),
            (None, True, 4096),
            (None, False, None),
        ],
    )
    def test_s_blob_2_profiles(
        self, path: Path, profile: Any, path_given: bool, from_size: int | None
    ) -> None:
        where = path if path_given else None
        with SessionStore.open(where, session_id="s", profile=profile) as store:
            for size in (1, 1023, 1024, 4095, 4096, 10_000):
                content = (b"%d " % size) * size
                content = content[:size]
                key = store.put_blob(content, kind="ToolState")
                generic = store.put_blob(content + b"!", kind="GenericBlob")
                with store.read() as tx:
                    read = tx.connection.execute(select(tables.blobs)).all()
                stored = {hash_: msgspec.msgpack.decode(bytes_) for hash_, bytes_ in read}
                compressed = from_size is not None and size >= from_size
                assert stored[key]["compression"] == ("Zlib" if compressed else "None")
                assert stored[generic]["compression"] == "None"
                assert store.load_blob(key) == content

    @pytest.mark.parametrize(
        ("kind", "hints"),
        [
            ("CheckpointManifest", ["Compressible"]),
            ("ProcessExecutionEnv", ["Compressible"]),
            ("ToolState", ["Compressible", "LargePayload"]),
            ("PluginSessionSnapshot", ["Compressible", "LargePayload"]),
            ("ExecutionStateSnapshot", ["Compressible", "LargePayload"]),
            ("LashlangModule", ["Compressible", "LargePayload"]),
            ("GenericBlob", None),
        ],
    )
    def test_s_blob_1_kinds_and_hints(self, kind: Any, hints: Any) -> None:
        descriptor = msgspec.msgpack.decode(pack_blob(b"x", kind, "compact"))["descriptor"]
        assert descriptor == {"kind": kind, **({"hints": hints} if hints else {})}

    def test_s_blob_1_bad_input_is_refused(self, store: SessionStore, path: Path) -> None:
        before = all_rows(path)
        wrong: Any = "text"
        with pytest.raises(InvalidRecordError, match="bytes"):
            store.put_blob(wrong)
        with pytest.raises(InvalidRecordError, match="kind"):
            store.put_blob(b"", kind=wrong)
        with pytest.raises(InvalidRecordError, match="profile"):
            SessionStore.open(path, session_id="s", profile=wrong)
        none_at_all: Any = ""
        with pytest.raises(InvalidRecordError, match="profile"):
            SessionStore.open(path, session_id="s", profile=none_at_all)
        assert all_rows(path) == before

    @given(content=st.binary(max_size=6000), kind=st.sampled_from(["ToolState", "GenericBlob"]))
    def test_s_blob_1_any_content_comes_back(self, content: bytes, kind: Any) -> None:
        with SessionStore.open(None, session_id="s", profile="compact") as store:
            assert store.load_blob(store.put_blob(content, kind=kind)) == content


class TestCheckpoints:
    FULL = Checkpoint(
        turn_state={"turn_index": 3, "half": 0.5},
        tool_state={"files": ["a"]},
        plugin_snapshot=[1, None],
        plugin_snapshot_revision=4,
        execution_state=b"\0\xff",
    )

    def test_s_ckpt_1_bodies_are_stored_and_their_refs_minted(self, store: SessionStore) -> None:
        receipt = commit(store, checkpoint=self.FULL)
        assert receipt.checkpoint_ref is not None
        assert receipt.manifest is not None
        assert receipt.manifest.tool_state_ref == sha(msgspec.msgpack.encode({"files": ["a"]}))
        loaded = store.load_checkpoint(receipt.checkpoint_ref)
        assert loaded is not None
        for name in (
            "turn_state",
            "tool_state",
            "plugin_snapshot",
            "plugin_snapshot_revision",
            "execution_state",
        ):
            assert getattr(loaded, name) == getattr(self.FULL, name)
        manifest = store.load_blob(receipt.checkpoint_ref)
        assert manifest is not None
        assert list(msgspec.msgpack.decode(manifest)) == [
            "turn_state",
            "tool_state_ref",
            "plugin_snapshot_ref",
            "plugin_snapshot_revision",
            "execution_state_ref",
        ]

    def test_s_ckpt_1_a_ref_stands_for_what_was_stored_and_a_body_wins(
        self, store: SessionStore
    ) -> None:
        first = commit(store, checkpoint=self.FULL).manifest
        assert first is not None
        again = Checkpoint(turn_state=4, tool_state_ref=first.tool_state_ref)
        receipt = commit(store, checkpoint=again)
        loaded = store.load_checkpoint(receipt.checkpoint_ref or "")
        assert loaded is not None
        assert (loaded.tool_state, loaded.execution_state) == ({"files": ["a"]}, None)
        both = Checkpoint(turn_state=5, tool_state="body", tool_state_ref=first.tool_state_ref)
        receipt = commit(store, checkpoint=both)
        loaded = store.load_checkpoint(receipt.checkpoint_ref or "")
        assert loaded is not None
        assert loaded.tool_state == "body"

    @pytest.mark.parametrize(
        "bad",
        [
            Checkpoint(turn_state=1, tool_state={"new": 1}, plugin_snapshot_ref="not there"),
            Checkpoint(turn_state=float("nan")),
            Checkpoint(turn_state=1, tool_state="x", execution_state="text"),  # type: ignore[arg-type] # reason: that is the test
            Checkpoint(turn_state=1, plugin_snapshot_revision=-1),
            Checkpoint(turn_state=1, tool_state_ref=""),
        ],
    )
    def test_s_ckpt_1_what_can_not_be_stored_is_refused_whole(
        self, store: SessionStore, path: Path, bad: Checkpoint
    ) -> None:
        lease_of(store)
        before = all_rows(path)
        with pytest.raises(InvalidRecordError):
            commit(store, chain("a"), checkpoint=bad)
        assert all_rows(path) == before

    def test_s_ckpt_2_missing_and_undecodable_parts_are_corrupt(
        self, store: SessionStore, path: Path
    ) -> None:
        receipt = commit(store, checkpoint=self.FULL)
        assert receipt.checkpoint_ref is not None
        assert receipt.manifest is not None
        with pytest.raises(CorruptRecordError, match="manifest is missing"):
            store.load_checkpoint("0" * 64)
        run_script(path, f"DELETE FROM blobs WHERE hash = '{receipt.manifest.tool_state_ref}'")
        with pytest.raises(CorruptRecordError, match="component is missing"):
            store.load_checkpoint(receipt.checkpoint_ref)
        no_manifest = store.put_blob(b"\xc1")
        with pytest.raises(CorruptRecordError):
            store.load_checkpoint(no_manifest)
        wrong_shape = store.put_blob(msgspec.msgpack.encode([1]))
        with pytest.raises(CorruptRecordError):
            store.load_checkpoint(wrong_shape)


class TestUsage:
    def test_s_usage_1_merges_in_order_of_first_appearance(self, store: SessionStore) -> None:
        reports = [
            UsageDelta("b", "m", 1, 2, 3, 4),
            UsageDelta("a", "m", 5),
            UsageDelta("nothing", "m", cached_input_tokens=9),
            UsageDelta("b", "m", 10, 20, 30, 40),
            UsageDelta("b", "n", reasoning_tokens=1),
            UsageDelta("nothing", "m", 1, cached_input_tokens=1),  # the first that counts
        ]
        commit(store, usage=reports[:2])
        for report in reports[2:]:
            store.record_usage(report)
        assert store.load_usage() == [
            UsageDelta("b", "m", 11, 22, 33, 44),
            UsageDelta("a", "m", 5),
            UsageDelta("b", "n", reasoning_tokens=1),
            UsageDelta("nothing", "m", 1, cached_input_tokens=1),
        ]

    def test_s_usage_1_sums_that_can_be_counted_are_together_what_they_are(
        self, store: SessionStore
    ) -> None:
        report = UsageDelta("chat", "m", 2**62, 2**62, 2**62, 2**62)
        store.record_usage(report)
        assert store.load_usage() == [report]

    def test_s_usage_1_a_sum_beyond_what_can_be_counted(self, store: SessionStore) -> None:
        for _ in range(2):
            store.record_usage(UsageDelta("chat", "m", 2**62))
        with pytest.raises(CorruptRecordError, match="2\\*\\*63 or more"):
            store.load_usage()

    @pytest.mark.parametrize(
        "bad",
        [UsageDelta("a", "m", -1), UsageDelta("\0", "m"), UsageDelta("a", "m", 1, 2**63)],
    )
    def test_s_usage_1_bad_reports_are_refused(
        self, store: SessionStore, path: Path, bad: UsageDelta
    ) -> None:
        lease_of(store)
        before = all_rows(path)
        with pytest.raises(InvalidRecordError):
            store.record_usage(bad)
        with pytest.raises(InvalidRecordError):
            commit(store, usage=[UsageDelta("a", "m", 1), bad])
        assert all_rows(path) == before


class TestCodecs:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (1e-5, "0.00001"),
            (1.5e-5, "0.000015"),
            (9.99e-6, "9.99e-6"),
            (1e-6, "1e-6"),
            (1e-7, "1e-7"),
            (0.0001, "0.0001"),
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (123456.789, "123456.789"),
            (1e15, "1000000000000000.0"),
            (9999999999999998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (5e-324, "5e-324"),
            ({"b": 1, "a": [True, None, "é"]}, '{"a":[true,null,"é"],"b":1}'),
            ((1, 2), "[1,2]"),
            (2**64 - 1, "18446744073709551615"),
            (-(2**63), "-9223372036854775808"),
        ],
    )
    def test_k_codec_1_the_one_written_form(self, value: Any, text: str) -> None:
        assert encode_json(free_json("value", value)) == text
        assert stable_hash(free_json("value", value)) == sha(text.encode())

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (OrderedDict(b=1, a=MappingProxyType({"x": 1})), '{"a":{"x":1},"b":1}'),
            (deque([range(2), bytearray(b"a"), ()]), "[[0,1],[97],[]]"),
            ([_Number.SEVEN, _Real(1.5), _Word.KEY], '[7,1.5,"key"]'),
            ({_Word.KEY: 1, "a": {_Word.KEY: 2}}, '{"a":{"key":2},"key":1}'),
        ],
    )
    def test_k_codec_4_other_types_count_as_what_they_are(
        self, store: SessionStore, value: Any, text: str
    ) -> None:
        assert encode_json(free_json("value", value)) == text
        store.enqueue_work(NewWork([value]))
        assert store.list_work()[0].items[0].payload == json.loads(text)

    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_k_codec_1_every_float_reads_back_as_itself(self, value: float) -> None:
        text = encode_json(free_json("value", value))
        assert json.loads(text) == value
        plain = 1e-5 <= abs(value) < 1e16 or value == 0
        assert ("e" not in text) == plain

    @pytest.mark.parametrize(
        "bad",
        [
            float("nan"),
            float("inf"),
            2**64,
            "\udfff",
            {"\ud800": 1},
            {1},
            1j,
            MappingProxyType({1: 2}),
            deque([{1}]),
            OrderedDict({_Word.KEY: 1, 2: 3}),
            _Number.TOO_LARGE,
            _Real("nan"),
        ],
    )
    def test_k_codec_4_what_can_not_be_stored_is_refused_and_placed(self, bad: Any) -> None:
        with pytest.raises(InvalidRecordError, match=r"value\.a\[1\]"):
            free_json("value", {"a": [0, bad]})


def test_s_commit_6_a_node_id_is_never_used_again(store: SessionStore, path: Path) -> None:
    commit(store, chain("a", "b"))
    store.tombstone_nodes(["b"])
    before = all_rows(path)
    for taken in ("a", "b"):
        with pytest.raises(NodeConflictError) as refusal:
            commit(store, Append([node("new"), node(taken), node("newer")], "new"))
        assert refusal.value.node_id == taken
    with pytest.raises(InvalidRecordError, match="twice"):
        commit(store, Append([node("x"), node("x")], "x"))
    assert all_rows(path) == before
    commit(store, ReplaceFull([node("b"), node("a", "b")], "a"))  # which begins anew
    graph, head = store.load_graph(), store.load_head()
    assert graph is not None
    assert head is not None
    assert (ids(graph), head.graph_node_count) == (["b", "a"], 2)


@pytest.mark.parametrize(
    "delta",
    [
        Append([node("x")], "none"),
        Append([], "b"),
        Unchanged("none"),
        Unchanged("b"),
        ReplaceFull([node("x")], "a"),
        "a",
    ],
)
def test_s_commit_6_the_leaf_is_a_live_node_after_the_delta(
    store: SessionStore, path: Path, delta: Any
) -> None:
    commit(store, chain("a", "b"))
    store.tombstone_nodes(["b"])
    before = all_rows(path)
    with pytest.raises(InvalidRecordError):
        commit(store, delta)
    assert all_rows(path) == before


def test_s_commit_6_a_refusal_undoes_itself_inside_a_transaction_that_goes_on(
    store: SessionStore, path: Path
) -> None:
    commit(store, chain("a"))
    before = all_rows(path)
    fence = lease_of(store).fence
    bad = TurnCommit(
        fence=fence,
        graph=Append([node("x"), node("a")], "x"),
        checkpoint=Checkpoint(turn_state=1, tool_state="new"),
        usage=[UsageDelta("a", "m", 1)],
    )
    with store.begin() as tx:
        with pytest.raises(NodeConflictError):
            tx.commit_turn(bad)
        tx.renew_lease(fence, ttl_ms=5)
    after = all_rows(path)
    after["session_execution_leases"] = before["session_execution_leases"]
    assert after == before


def test_s_commit_7_the_count_is_exact_through_every_kind_of_write(store: SessionStore) -> None:
    randomness = random.Random(7)
    live: list[str] = []
    number = 0
    for _ in range(60):
        choice = randomness.random()
        new = [f"n{number + at}" for at in range(randomness.randrange(3))]
        number += len(new)
        nodes = [node(n) for n in new]
        if choice < 0.6:
            commit(store, Append(nodes, new[-1] if new else (live[-1] if live else None)))
            live += new
        elif choice < 0.7:
            commit(store, ReplaceFull(nodes, new[-1] if new else None))
            live = new
        elif choice < 0.9 and live:
            gone = randomness.sample(live, min(2, len(live)))
            store.tombstone_nodes([*gone, "unknown"])
            live = [n for n in live if n not in gone]
        else:
            store.vacuum_graph()
        head: SessionHead | None = store.load_head()
        assert head is None or head.graph_node_count == len(live)


def test_s_commit_7_the_cost_does_not_grow_with_the_graph(store: SessionStore) -> None:
    """The same statements, none of which reads the graph, however many nodes there are."""
    from tests.conformance.test_transactions import traced  # noqa: PLC0415 # reason: one helper

    commit(store, chain(*(f"n{at}" for at in range(10))))
    small = traced(store, lambda: commit(store, Append([node("x", "n9")], "x")))
    commit(store, chain(*(f"m{at}" for at in range(3_000))))
    large = traced(store, lambda: commit(store, Append([node("y", "x")], "y")))
    assert small == large


@pytest.mark.parametrize(
    "cause",
    [
        {"type": "turn", "session_id": "s", "turn_id": "t"},
        {"type": "effect", "session_id": "s", "turn_id": "t", "effect_id": "e"},
        {"type": "effect", "session_id": "s", "effect_id": "e"},
        {"type": "tool_call", "session_id": "s", "call_id": "c"},
        {"type": "process", "process_id": "p"},
        {"type": "process_event", "process_id": "p", "sequence": 3},
        {"type": "trigger_occurrence", "occurrence_id": "o"},
        {"type": "session_node", "session_id": "s", "node_id": "n", "a": 1, "z": 2},
    ],
    ids=lambda cause: cause["type"],
)
def test_s_graph_1_what_caused_a_node_stands_in_the_order_of_the_wire(
    store: SessionStore, path: Path, cause: dict[str, Any]
) -> None:
    shuffled = dict(sorted(cause.items(), reverse=True))
    commit(store, Append([Node("a", None, caused_by=shuffled)], "a"))
    (row,) = all_rows(path)["graph_nodes"]
    assert f'"caused_by":{json.dumps(cause, separators=(",", ":"))}' in row[2]


class Descendant(str):
    """A str by descent, which no codec takes."""

    __slots__ = ()


def test_a_str_by_descent_is_taken_as_the_str_that_it_is(store: SessionStore) -> None:
    nodes = [
        Node(Descendant("a"), None),
        Node(Descendant("b"), Descendant("a"), {"k": Descendant("v")}),
    ]
    commit(
        store,
        Append(nodes, Descendant("b")),
        current_agent_frame_id=Descendant("f"),
        checkpoint=Checkpoint(turn_state=Descendant("x")),
    )
    path = store.load_path()
    assert path is not None
    assert [type(each.node_id) for each in path.nodes] == [str, str]


@pytest.mark.parametrize("operation", ["tombstone_nodes", "vacuum_graph"])
def test_k_tx_2_a_corrupt_head_is_found_before_anything_is_written(
    store: SessionStore, path: Path, operation: str
) -> None:
    commit(store, chain("a", "b"))
    store.tombstone_nodes(["b"])
    run_script(path, "UPDATE session_head SET head_json = '['")
    before = all_rows(path)
    with store.begin() as tx, pytest.raises(CorruptRecordError):
        tx.tombstone_nodes(["a"]) if operation == "tombstone_nodes" else tx.vacuum_graph()
    assert all_rows(path) == before


@pytest.mark.parametrize(
    "stored",
    [{"content": 2**40, "compression": "None"}, {"content": "text", "compression": "None"}, {}],
    ids=str,
)
def test_s_blob_1_a_map_that_is_no_envelope_is_bare_content(
    store: SessionStore, path: Path, stored: dict[str, Any]
) -> None:
    content = msgspec.msgpack.encode(stored)
    run_script(path, f"INSERT INTO blobs VALUES ('{sha(content)}', x'{content.hex()}')")
    assert store.load_blob(sha(content)) == content
