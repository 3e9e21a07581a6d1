"""The SQL of every builder, for SQLite and PostgreSQL, against the goldens beside this file.

No database is involved. ``LASH_STORE_WRITE_GOLDENS=1`` writes them anew, for review in a diff.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import CTE, Dialect, column, select, table, update
from sqlalchemy.sql.elements import ClauseElement

from lash_store import SessionFence
from lash_store._kernel.arguments import bound_arguments
from tests.statements.catalogue import EXAMPLES, STORES, builders
from tests.support.dialects import POSTGRESQL, SHARED, SQLITE

GOLDEN = Path(__file__).parent / "golden"
DIALECTS = {"sqlite": SQLITE, "postgresql": POSTGRESQL, "shared": SHARED}


def rendered(construct: ClauseElement, dialect: Dialect) -> str:
    """The SQL, a line for each clause, and the constants in it."""
    compiled: Any = construct.compile(dialect=dialect, column_keys=[])
    lines = re.sub(
        r" (?=(VALUES|ON CONFLICT|DO UPDATE|FROM|WHERE|RETURNING)\b)", "\n", str(compiled)
    )
    constants = {name: value for name, value in compiled.params.items() if value is not None}
    notes = [f"-- {name} = {value!r}" for name, value in sorted(constants.items())]
    return "\n".join([*(line.strip() for line in lines.splitlines()), *notes]) + "\n"


def check(name: str, construct: ClauseElement, dialect: str) -> None:
    golden = GOLDEN / f"{name}.{dialect}.sql"
    text = rendered(construct, DIALECTS[dialect])
    if os.environ.get("LASH_STORE_WRITE_GOLDENS"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_builder(name: str, dialect: str) -> None:
    builder, _ = EXAMPLES[name]
    construct = builder(**bound_arguments(getattr(builder, "builder", builder)))
    check(name, select(construct) if isinstance(construct, CTE) else construct, dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_fence_in_a_consumers_update(dialect: str) -> None:
    notes = table("notes", column("id"), column("text"))
    fence = SessionFence("chat-42", "worker-a", "c0ffee", 7)
    fenced = update(notes).where(notes.c.id == 7, fence.holds(now_ms=1000)).values(text="done")
    check("fence.holds", fenced, dialect)


def test_every_public_builder_is_exported() -> None:
    """What the modules define is what the package hands out: so the goldens above are of all."""
    for store, package in STORES.items():
        modules = pkgutil.iter_modules(getattr(package, "__path__", ()), f"{package.__name__}.")
        defined = {
            name
            for module in modules
            for name in builders(store, importlib.import_module(module.name))
        }
        assert defined <= set(builders(store, package)), store


def test_no_golden_is_left_over() -> None:
    expected = {
        f"{name}.{dialect}.sql" for name in [*EXAMPLES, "fence.holds"] for dialect in DIALECTS
    }
    assert {path.name for path in GOLDEN.iterdir()} == expected
