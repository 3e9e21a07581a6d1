"""How SQLite goes about the session store's reads, and that statistics do not mislead it."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import CTE, Select, select
from sqlalchemy.sql.elements import ClauseElement

from lash_store import (
    Append,
    Checkpoint,
    NewWork,
    Node,
    ProcessRegistry,
    SessionStore,
    UsageDelta,
)
from lash_store._backends.sqlite.dialect import SQLITE
from lash_store.session import statements
from lash_store.session.records import Relation, SessionMeta
from tests.statements.catalogue import CONDITIONS, EXAMPLES
from tests.support.databases import run_script
from tests.support.sessions import claim_of, commit, stamped

NODES = 5_000

POOR = re.compile(r"SCAN (?!anon_1\b)\w+$|.*(BLOOM FILTER|AUTOMATIC)")
"""A step of a plan that reads a whole table; the rows of a recursion are no table."""


def selects() -> dict[str, ClauseElement]:
    built = {
        name: builder(**example)
        for name, (builder, example) in EXAMPLES.items()
        if name.startswith("session.") and name not in CONDITIONS
    }
    return {name: each for name, each in built.items() if isinstance(each, Select)}


SELECTS = selects()


def populate(path: Path) -> None:
    """A session with a long conversation, and with something in every other table."""
    nodes = [
        Node(f"n{at}", f"n{at - 1}" if at else None, {"kind": "note", "text": "x" * 50})
        for at in range(NODES)
    ]
    with SessionStore.open(path, session_id="chat-42") as store:
        store.save_meta(SessionMeta("chat-42", "a name", "unix:1", "m", "/home", Relation()))
        commit(store, Append(nodes, f"n{NODES - 1}"), usage=[UsageDelta("chat", "m", 1)] * 200)
        # Of several sessions: where all batches are one's, those who read each scan the table.
        for session_id in ("chat-42", "chat-43", "chat-44", "chat-45"):
            store.enqueue_all_work(
                (
                    NewWork([{"at": at}], source_key=f"source-{at}", slot_policy="join")
                    for at in range(200)
                ),
                session_id=session_id,
            )
        claim_of(store, max_batches=100)
        for at in range(200):
            store.commit_turn(
                stamped(store, f"turn-{at}", checkpoint=Checkpoint({"at": at}, tool_state=at))
            )
        with store.begin() as tx:
            for at in range(200):
                tx.put_artifact(f"artifact-{at}", kind="note", content=b"%d" % at)
                tx.record_attachment_intent(f"att-{at}", canonical_uri="u")
                tx.claim_lease(owner_id="ann", ttl_ms=0, session_id=f"other-{at}")
            tx.commit_attachments(f"att-{at}" for at in range(100))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two like files, of which SQLite has statistics of one."""
    folder = tmp_path_factory.mktemp("plans")
    files = {name: folder / f"{name}.db" for name in ("plain", "analysed")}
    for file in files.values():
        populate(file)
    run_script(files["analysed"], "ANALYZE")
    with closing(sqlite3.connect(files["analysed"])) as connection:
        analysed = {name for (name,) in connection.execute("SELECT tbl FROM sqlite_stat1")}
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        assert analysed == {name for (name,) in names if not name.startswith("sqlite_")}
    return files


def plan(file: Path, construct: ClauseElement) -> list[str]:
    sql = construct.compile(dialect=SQLITE, compile_kwargs={"literal_binds": True})
    with closing(sqlite3.connect(file)) as connection:
        return [detail for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]


def poor(steps: list[str]) -> Counter[str]:
    return Counter(step for step in steps if POOR.match(step))


@pytest.mark.parametrize("name", SELECTS)
def test_no_plan_is_the_worse_for_statistics(files: dict[str, Path], name: str) -> None:
    before, after = (plan(files[file], SELECTS[name]) for file in ("plain", "analysed"))
    assert before
    assert poor(after) <= poor(before), after


@pytest.mark.parametrize("file", ["plain", "analysed"])
def test_a_path_is_followed_by_index_alone(files: dict[str, Path], file: str) -> None:
    leaf = f"n{NODES - 1}"
    path = plan(files[file], statements.load_path(leaf_node_id=leaf))
    ancestry: CTE = statements.ancestry(leaf_node_id=leaf)
    for steps in (path, plan(files[file], select(ancestry))):
        assert any(step.startswith("SEARCH graph_nodes USING INDEX") for step in steps)
        assert not poor(steps), steps


def test_a_path_is_the_same_with_statistics(files: dict[str, Path]) -> None:
    for file in files.values():
        with SessionStore.open(file, session_id="chat-42") as store:
            graph = store.load_path()
            assert graph is not None
            assert [node.node_id for node in graph.nodes] == [f"n{at}" for at in range(NODES)]


@pytest.mark.parametrize("name", ["session.load_items_of", "process.known_processes"])
def test_what_a_list_names_is_looked_up(tmp_path: Path, name: str) -> None:
    """However much there is beside it; a scan of an index reads all of it as well."""
    path = tmp_path / "a.db"
    kind = (
        SessionStore.open(path, session_id="s") if "session" in name else ProcessRegistry.open(path)
    )
    kind.close()
    builder, example = EXAMPLES[name]
    table = {"session": "queued_work_items", "process": "processes"}[name.split(".", 1)[0]]
    steps = plan(path, builder(**example))
    assert [step for step in steps if step.startswith(f"SEARCH {table} USING")], steps
    assert not [step for step in steps if step.startswith(f"SCAN {table}")], steps
