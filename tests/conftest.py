"""Profiles and fixtures for every layer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from lash_store import EffectStore, ProcessRegistry, SessionStore, TriggerStore
from lash_store.testing import ManualClock, SequentialIds
from tests.support import postgresql
from tests.support.layouts import LAYOUT, on_server, use_layout
from tests.support.on_server import clean

ROOT = Path(__file__).resolve().parent.parent

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile(
    "default", max_examples=60, deadline=None, suppress_health_check=_SLOW_IS_FINE
)
settings.register_profile(
    "deep",
    max_examples=2_000,
    stateful_step_count=100,
    deadline=None,
    suppress_health_check=_SLOW_IS_FINE,
)
settings.register_profile(
    "server", max_examples=8, deadline=None, suppress_health_check=_SLOW_IS_FINE
)
settings.load_profile(os.environ.get("LASH_STORE_PROFILE", "default"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "canonical(why): of canonical files alone, not run with --layout shared"
    )
    config.addinivalue_line("markers", "layouts(why): not run again with --layout shared")
    config.addinivalue_line("markers", "sqlite(why): of SQLite alone, not run on a server")
    config.addinivalue_line(
        "markers", "posix(why): not run without what POSIX has, see tests.support.no_posix"
    )
    os.environ[LAYOUT] = config.getoption("--layout")
    if on_server() and postgresql.URL not in os.environ:
        # Here and not in a fixture: the workers of ``pytest -n`` have one server together.
        running = ExitStack()
        config.add_cleanup(running.close)
        os.environ[postgresql.URL] = running.enter_context(postgresql.server())
    use_layout()  # and processes that tests start do the same


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--layout", default="canonical", choices=["canonical", "shared", "postgresql"])
    parser.addoption("--at-least", type=int, default=0, help="how many tests have to have passed")
    parser.addoption("--lease", help="only the tests of one kind of lease, by its name")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every id is the same in each run, or the workers of ``pytest -n`` collect other tests."""
    if on_server():
        _leave_out_sqlites(items)
    unstable = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if unstable:
        raise pytest.UsageError(f"ids with an address in them: {unstable}")
    layout = config.getoption("--layout")
    leave_out = {"shared": ("canonical", "layouts"), "postgresql": ("canonical", "sqlite")}
    apart = leave_out.get(layout, ())
    items[:] = [item for item in items if not any(map(item.get_closest_marker, apart))]
    kind = config.getoption("--lease")
    if kind is not None:
        items[:] = [item for item in items if _lease_of(item) == kind]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which fewer tests have passed than there have to be: none was left out unseen."""
    wanted = session.config.getoption("--at-least")
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if not wanted or hasattr(session.config, "workerinput"):
        return
    passed = len(reporter.stats.get("passed", ()))
    if passed < wanted:
        reporter.write_line(f"{passed} tests passed, and {wanted} have to", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _leave_out_sqlites(items: list[pytest.Item]) -> None:
    """Leave out what is of SQLite alone, one by one, each with its reason."""
    lines = (ROOT / "tests/support/sqlite_alone.txt").read_text(encoding="utf-8").splitlines()
    alone = {line.partition(" | ")[0] for line in lines}
    items[:] = [
        item
        for item in items
        if item.nodeid not in alone and item.nodeid.partition("[")[0] not in alone
    ]


def _lease_of(item: pytest.Item) -> object:
    called = getattr(item, "callspec", None)
    return called and called.params.get("leased")


@pytest.fixture(autouse=True)
def emptied() -> Iterator[None]:
    """On a server, what a test has written is gone once it is over."""
    yield
    if on_server():
        clean()


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a database may be made."""
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path, clock: ManualClock) -> Iterator[SessionStore]:
    """A session store on a file, whose time and ids the test owns."""
    with SessionStore.open(path, session_id="s", clock=clock, ids=SequentialIds()) as store:
        yield store


@pytest.fixture
def registry(path: Path, clock: ManualClock) -> Iterator[ProcessRegistry]:
    """A process registry on a file, whose time and ids the test owns."""
    with ProcessRegistry.open(path, clock=clock, ids=SequentialIds()) as registry:
        yield registry


@pytest.fixture
def triggers(path: Path, clock: ManualClock) -> Iterator[TriggerStore]:
    """A trigger store on a file, whose time and ids the test owns."""
    with TriggerStore.open(path, clock=clock, ids=SequentialIds()) as triggers:
        yield triggers


@pytest.fixture
def effects(path: Path, clock: ManualClock) -> Iterator[EffectStore]:
    """An effect store on a file, whose time and ids the test owns."""
    with EffectStore.open(path, owner_id="ann", clock=clock, ids=SequentialIds()) as effects:
        yield effects
