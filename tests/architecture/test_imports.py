"""What importing loads: what is asked for, and no more."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lash_store

FRONT = Path(lash_store.__file__)


def loaded_by(statement: str) -> set[str]:
    """Which modules a fresh interpreter has after a statement."""
    script = f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')"
    ended = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        cwd=FRONT.parents[1],
    )
    return set(ended.stdout.split())


@pytest.mark.parametrize("name", sorted(lash_store._MODULES))
def test_each_module_that_the_front_tells_of_is_there_with_it(name: str) -> None:
    assert f"lash_store.{name}" in loaded_by(f"import lash_store; lash_store.{name}")
    assert f"``lash_store.{name}``" in str(lash_store.__doc__) or name in ("clock", "deployment")


def test_each_name_of_the_front_is_where_type_checkers_look_for_it() -> None:
    block, _ = [each for each in ast.parse(FRONT.read_text()).body if isinstance(each, ast.If)]
    said = {
        alias.name: each.module
        for each in block.body
        if isinstance(each, ast.ImportFrom)
        for alias in each.names
    }
    homes = {name: f"lash_store.{home}" for name, home in lash_store._HOMES.items()}
    assert homes == said
    assert {*homes, "__version__"} == set(lash_store.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'lash_store' has no attribute 'SesionStore'"):
        lash_store.SesionStore  # type: ignore[attr-defined] # noqa: B018 # reason: that is the test
    with pytest.raises(ImportError, match="SesionStore"):
        from lash_store import SesionStore  # type: ignore[attr-defined] # noqa: F401, PLC0415 # reason: the same
    assert set(lash_store.__all__) < set(dir(lash_store))


def test_the_front_loads_nothing_by_itself() -> None:
    loaded = loaded_by("import lash_store")
    assert {name for name in loaded if name.startswith("lash_store")} == {"lash_store"}
    assert "sqlalchemy" not in loaded


def test_a_store_loads_itself_alone() -> None:
    loaded = loaded_by("from lash_store import SessionStore")
    for elsewhere in (
        "lash_store.process.store",
        "lash_store.trigger.store",
        "lash_store.effect.store",
        "lash_store._backends.postgresql",
        "sqlalchemy.dialects.postgresql",
        "sqlalchemy.orm",
        "jsonschema",
        "hypothesis",
        "psycopg",
        "typer",
    ):
        assert elsewhere not in loaded
    assert "lash_store.session.store" in loaded


def test_modules_are_reached_through_the_front() -> None:
    loaded = loaded_by("import lash_store\nlash_store.errors.LeaseLostError\nlash_store.process")
    assert {"lash_store.errors", "lash_store.process"} <= loaded


def test_an_operation_is_made_when_it_is_asked_for_and_stays() -> None:
    script = """
from lash_store import SessionStore
found = vars(SessionStore)["claim_lease"]
assert type(found).__name__ == "_Unmade", found
first = SessionStore.claim_lease
assert vars(SessionStore)["claim_lease"] is first is SessionStore.claim_lease
assert first.__qualname__ == "SessionStore.claim_lease"
class Own(SessionStore): pass
assert Own.renew_lease is SessionStore.renew_lease
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=FRONT.parents[1])
