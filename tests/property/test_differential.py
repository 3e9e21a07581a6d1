"""The same operations on a file, in memory, by asyncio, in a joined transaction, in both layouts.

Whatever they are, they give the same results and the same refusals, and leave the same records.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from sqlalchemy import create_engine

from lash_store import (
    Append,
    AsyncSessionStore,
    Checkpoint,
    Lease,
    NewWork,
    Node,
    SessionStore,
    SessionTx,
    TurnCommit,
    WorkClaim,
    configure,
)
from lash_store.errors import LashStoreError
from lash_store.session.records import TurnStamp
from lash_store.testing import ManualClock, SequentialIds
from tests.support.leased import AsyncFace

pytestmark = pytest.mark.canonical("opens both layouts by itself")

Step = tuple[str, Any]

STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("claim_lease"), st.sampled_from(("ann", "bob"))),
    st.tuples(st.just("renew_lease"), st.integers(0, 50)),
    st.tuples(st.just("release_lease"), st.none()),
    st.tuples(st.just("enqueue"), st.tuples(st.sampled_from((None, "a", "b")), st.integers(0, 3))),
    st.tuples(st.just("claim_work"), st.integers(0, 3)),
    st.tuples(st.just("renew_claim"), st.integers(0, 50)),
    st.tuples(st.just("abandon_claim"), st.none()),
    st.tuples(st.just("complete_work"), st.none()),
    st.tuples(st.just("complete_and_claim_work"), st.integers(0, 3)),
    st.tuples(st.just("commit"), st.tuples(st.booleans(), st.integers(0, 3), st.booleans())),
    st.tuples(st.just("append"), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.integers(0, 60)),
    st.tuples(st.just("look"), st.none()),
)


class Face:
    """One way to reach a session's operations."""

    def __init__(
        self, call: Callable[..., Any], clock: ManualClock, close: Callable[[], Any]
    ) -> None:
        self.call, self.clock, self.close = call, clock, close
        self.fence: Any = None
        self.claim: Any = None
        self.turns = 0

    def play(self, step: Step) -> Any:
        """Take one step; return what it gave, an error as what it says."""
        name, given = step
        try:
            return getattr(self, f"do_{name}")(given)
        except LashStoreError as error:
            return type(error).__name__, str(error)

    def do_claim_lease(self, owner_id: str) -> Any:
        found = self.call("claim_lease", owner_id=owner_id, ttl_ms=40)
        if isinstance(found, Lease):
            self.fence = found.fence
        return found

    def do_renew_lease(self, ttl_ms: int) -> Any:
        return self.fence and self.call("renew_lease", self.fence, ttl_ms=ttl_ms)

    def do_release_lease(self, _: None) -> Any:
        return self.fence and self.call("release_lease", self.fence)

    def do_enqueue(self, given: tuple[str | None, int]) -> Any:
        key, payload = given
        return self.call("enqueue_work", NewWork([payload, {"n": payload}], source_key=key))

    def do_claim_work(self, most: int) -> Any:
        found = self.fence and self.call(
            "claim_work", self.fence, owner_id="w", ttl_ms=30, max_batches=most
        )
        if isinstance(found, WorkClaim):
            self.claim = found
        return found

    def do_renew_claim(self, ttl_ms: int) -> Any:
        return self.claim and self.call("renew_claim", self.claim, ttl_ms=ttl_ms)

    def do_complete_work(self, _: None) -> Any:
        return self.claim and self.call("complete_work", self.fence, self.claim)

    def do_complete_and_claim_work(self, most: int) -> Any:
        found = self.claim and self.call(
            "complete_and_claim_work", self.fence, self.claim, ttl_ms=30, max_batches=most
        )
        if isinstance(found, WorkClaim):
            self.claim = found
        return found

    def do_abandon_claim(self, _: None) -> Any:
        return self.claim and self.call("abandon_claim", self.claim)

    def do_commit(self, given: tuple[bool, int, bool]) -> Any:
        completes, number, release = given
        if self.fence is None:
            return None
        turn = TurnCommit(
            fence=self.fence,
            stamp=TurnStamp(f"turn-{number}", f"hash-{number}-{completes}"),
            config={"n": number},
            checkpoint=Checkpoint({"state": number}, tool_state={"t": number}),
            completed=[self.claim] if completes and self.claim else [],
            release=release,
        )
        return self.call("commit_turn", turn)

    def do_append(self, number: int) -> Any:
        if self.fence is None:
            return None
        graph = Append([Node(f"n{number}", None, {"text": number})], f"n{number}")
        return self.call("commit_turn", TurnCommit(fence=self.fence, graph=graph))

    def do_wait(self, by_ms: int) -> Any:
        return self.clock.advance(by_ms)

    def do_look(self, _: None) -> Any:
        return (
            self.call("current_lease"),
            self.call("load_head"),
            self.call("load_path"),
            self.call("load_graph"),
            self.call("list_work"),
            self.call("list_pending_work"),
            self.call("load_usage"),
        )


def by_store(where: Any) -> Face:
    clock = ManualClock()
    store: Any = SessionStore.open(where, session_id="s", clock=clock, ids=SequentialIds())
    return Face(lambda name, *a, **k: getattr(store, name)(*a, **k), clock, store.close)


def by_asyncio(where: Any) -> Face:
    clock = ManualClock()
    face = AsyncFace(
        AsyncSessionStore.open(where, session_id="s", clock=clock, ids=SequentialIds())
    )
    return Face(lambda name, *a, **k: getattr(face, name)(*a, **k), clock, face.close)


def by_joining(url: str) -> Face:
    clock, ids = ManualClock(), SequentialIds()
    engine = configure(create_engine(url))

    def call(name: str, *arguments: Any, **keywords: Any) -> Any:
        with engine.begin() as connection:
            tx = SessionTx.on(connection, session_id="s", clock=clock, ids=ids)
            return getattr(tx, name)(*arguments, **keywords)

    return Face(call, clock, engine.dispose)


def by_block(where: Any) -> Face:
    """Each in a ``begin()`` of its own."""
    clock = ManualClock()
    store: Any = SessionStore.open(where, session_id="s", clock=clock, ids=SequentialIds())

    def call(name: str, *arguments: Any, **keywords: Any) -> Any:
        with store.begin() as tx:
            return getattr(tx, name)(*arguments, **keywords)

    return Face(call, clock, store.close)


@settings(deadline=None)
@given(st.lists(STEPS, min_size=5, max_size=25))
def test_all_ways_give_the_same(steps: list[Step]) -> None:
    folder = Path(tempfile.mkdtemp())
    with ExitStack() as closing:
        closing.callback(shutil.rmtree, folder)
        faces = {
            "file": by_store(folder / "a.db"),
            "memory": by_store(None),
            "shared": by_store(f"sqlite:///{folder / 'b.db'}"),
            "asyncio": by_asyncio(folder / "c.db"),
            "block": by_block(folder / "d.db"),
            "joined": by_joining(f"sqlite:///{folder / 'e.db'}"),
        }
        for face in faces.values():
            closing.callback(face.close)
        for step in (("claim_lease", "ann"), ("enqueue", (None, 1)), *steps, ("look", None)):
            results = {name: face.play(step) for name, face in faces.items()}
            for name, result in results.items():
                assert result == results["file"], f"{step}: {name} differs from a file"
