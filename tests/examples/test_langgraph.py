"""A LangGraph saver can be written on public names alone: a small one, under the engine itself."""

from __future__ import annotations

import ast
import operator
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from lash_store import SessionStore
from lash_store.errors import LeaseLostError
from tests.examples import langgraph_saver
from tests.examples.langgraph_saver import TABLES, LashSaver, ThreadHeldError

pytestmark = pytest.mark.canonical("opens both layouts by itself")

THREAD: Any = {"configurable": {"thread_id": "t1"}}


class State(TypedDict):
    words: Annotated[list[str], operator.add]


class WaitsForLeft(LashSaver):
    """Tells when the writes of "left" are stored: the engine drops what comes behind an error of "right"."""

    def __init__(self, store: SessionStore) -> None:
        super().__init__(store)
        self.left_is_stored = threading.Event()

    def put_writes(self, config: Any, writes: Any, *args: Any, **kwargs: Any) -> None:
        super().put_writes(config, writes, *args, **kwargs)
        if any(value == ["left"] for _, value in writes):
            self.left_is_stored.set()


def graph(saver: Any, fails: list[str] | None = None, calls: list[str] | None = None) -> Any:
    def node(name: str) -> Any:
        def run(_: State) -> dict[str, Any]:
            if calls is not None:
                calls.append(name)
            if fails and name in fails:
                fails.remove(name)
                assert saver.left_is_stored.wait(60)
                raise RuntimeError(f"{name} was killed")
            if name == "ask":
                return {"words": [f"ask:{interrupt('who?')}"]}
            return {"words": [name]}

        return run

    builder: Any = StateGraph(State)
    for name in ("one", "ask", "left", "right", "end"):
        builder.add_node(name, node(name))
    builder.add_edge(START, "one")
    builder.add_edge("one", "ask")
    for side in ("left", "right"):
        builder.add_edge("ask", side)
        builder.add_edge(side, "end")
    builder.add_edge("end", END)
    return builder.compile(checkpointer=saver)


@pytest.fixture(params=["file", "shared", "memory"])
def store(request: pytest.FixtureRequest, path: Path) -> Iterator[SessionStore]:
    where: Any = {"file": path, "shared": f"sqlite:///{path}", "memory": None}[request.param]
    with SessionStore.open(where, session_id="threads", tables=[TABLES]) as opened:
        yield opened


def history(saver: Any) -> list[Any]:
    return [
        (snapshot.values, snapshot.next, len(snapshot.tasks), snapshot.metadata["step"])
        for snapshot in graph(saver).get_state_history(THREAD)
    ]


def test_a_graph_runs_as_it_does_in_memory(store: SessionStore) -> None:
    found = []
    for saver in (InMemorySaver(), LashSaver(store)):
        app = graph(saver)
        paused = app.invoke({"words": ["start"]}, THREAD)
        assert paused["__interrupt__"][0].value == "who?"
        ended = app.invoke(Command(resume="ann"), THREAD)
        found.append((ended, history(saver)))
    assert found[0] == found[1]
    assert found[1][0]["words"] == ["start", "one", "ask:ann", "left", "right", "end"]


def test_a_step_that_failed_is_taken_up_where_it_was(store: SessionStore) -> None:
    calls: list[str] = []
    app = graph(WaitsForLeft(store), fails=["right"], calls=calls)
    app.invoke({"words": []}, THREAD)
    with pytest.raises(RuntimeError, match="right was killed"):
        app.invoke(Command(resume="ann"), THREAD)
    again = graph(LashSaver(store), calls=calls)
    ended = again.invoke(None, THREAD)
    assert ended["words"] == ["one", "ask:ann", "left", "right", "end"]
    assert calls.count("left") == 1  # what it wrote was there
    assert calls.count("right") == 2


def test_a_worker_that_was_overtaken_writes_nothing(store: SessionStore) -> None:
    stale, taker = LashSaver(store), LashSaver(store)
    with stale.hold("t1", owner_id="stale", ttl_ms=0):
        with pytest.raises(LeaseLostError):
            graph(stale).invoke({"words": []}, THREAD)
        with taker.hold("t1", owner_id="taker", ttl_ms=60_000):
            graph(taker).invoke({"words": ["mine"]}, THREAD)
            before = history(taker)
            with pytest.raises(LeaseLostError):
                graph(stale).invoke(Command(resume="x"), THREAD)
            with pytest.raises(ThreadHeldError, match="not by this saver"):
                graph(LashSaver(store)).invoke(Command(resume="x"), THREAD)
            assert history(taker) == before
            taker.delete_thread("t1")
            assert history(taker) == []


def test_a_checkpoint_goes_with_the_callers_transaction(store: SessionStore) -> None:
    saver = LashSaver(store)
    graph(saver).invoke({"words": []}, THREAD)
    newest = saver.get_tuple(THREAD)
    assert newest is not None
    config: Any = {"configurable": {**newest.config["configurable"]}}
    checkpoint: Any = {**newest.checkpoint, "id": "ffffffff"}
    with pytest.raises(KeyError), store.begin() as tx:
        saver.put_in(tx, config, checkpoint, {})
        raise KeyError
    assert saver.get_tuple(THREAD) == newest
    with store.begin() as tx:
        saver.put_in(tx, config, checkpoint, {})
    found = saver.get_tuple(THREAD)
    assert found is not None
    assert found.checkpoint["id"] == "ffffffff"
    assert found.parent_config == newest.config


def test_it_is_written_on_public_names_alone() -> None:
    tree = ast.parse(Path(langgraph_saver.__file__).read_text(encoding="utf-8"))
    modules = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in modules if (node.module or "").startswith("lash_store")]
    assert ours
    for node in ours:
        names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        assert not [name for name in names if name.startswith("_")]
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not {name for name in used if name.startswith("_")} - {
        "__init__",
        "_held",
        "_fence",
        "_read",
    }
