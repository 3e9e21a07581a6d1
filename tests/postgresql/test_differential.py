"""The same calls on a file and on a server, by a store, asyncio, a block and a joined transaction: the same results."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.property.test_differential import (
    STEPS,
    Step,
    by_asyncio,
    by_block,
    by_joining,
    by_store,
)
from tests.support.postgresql import placed

_numbers = count(1)


@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(STEPS, min_size=5, max_size=25))
def test_all_ways_give_the_same_as_a_file(
    url: str, admin: psycopg.Connection[Any], steps: list[Step]
) -> None:
    ways = {"store": by_store, "asyncio": by_asyncio, "block": by_block, "joined": by_joining}
    with ExitStack() as closing:
        folder = closing.enter_context(tempfile.TemporaryDirectory())
        file = by_store(Path(folder) / "store.db")
        closing.callback(file.close)
        faces = {}
        for name, make in ways.items():
            place = f"differs_{next(_numbers)}"
            admin.execute(f"CREATE SCHEMA {place}")
            closing.callback(admin.execute, f"DROP SCHEMA {place} CASCADE")
            faces[name] = make(placed(url, place))
            closing.callback(faces[name].close)
        for step in (("claim_lease", "ann"), ("enqueue", (None, 1)), *steps, ("look", None)):
            expected = file.play(step)
            for name, face in faces.items():
                assert face.play(step) == expected, f"{step}: {name} differs from a file"
