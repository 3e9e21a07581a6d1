"""What a step gave, while the server is away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event, make_url

from lash_store import (
    AsyncEffectStore,
    EffectStore,
    ProcessRegistry,
    Replayed,
    SessionDirectory,
)
from lash_store._kernel.observing import Event, observed_by
from lash_store.effect.records import EffectError, ReplayedFailure
from lash_store.errors import (
    ConnectionLostError,
    EffectFailedError,
    LeaseLostError,
)
from lash_store.moving import copy_deployment
from tests.support.proxy import Proxy
from tests.support.registries import lease_on, register

AWAY_S = 0.4
"""Some attempts long."""

Run = Callable[..., Any]


@pytest.fixture
def direct(url: str, place: str) -> Iterator[EffectStore]:
    """The same steps, by a wire that holds."""
    with EffectStore.open(url, schema=place) as store:
        yield store


def run_sync(url: str, place: str, function: Callable[[], Any], **options: Any) -> Any:
    with EffectStore.open(url, schema=place) as store:
        return store.run("scope", "step", {}, function, **options)


def run_async(url: str, place: str, function: Callable[[], Any], **options: Any) -> Any:
    async def step() -> Any:
        return function()

    async def main() -> Any:
        async with AsyncEffectStore.open(url, schema=place) as store:
            return await store.run("scope", "step", {}, step, **options)

    return asyncio.run(main())


@pytest.fixture(params=[run_sync, run_async])
def run(request: pytest.FixtureRequest, direct: EffectStore, wire: Proxy, place: str) -> Run:
    del direct  # the tables are made
    return partial(request.param, wire.url, place)


@pytest.fixture(params=["claim", "lease"])
def options(request: pytest.FixtureRequest, url: str, place: str) -> Iterator[dict[str, Any]]:
    """How a step is run: under a claim of its own, or under a lease."""
    with ProcessRegistry.open(url, schema=place) as registry:
        if request.param == "claim":
            yield {}
        else:
            register(registry)
            yield {"under": lease_on(registry, ttl_ms=60_000).fence}


class Away:
    """A function whose server is away as it ends, for a moment or for good."""

    def __init__(
        self, wire: Proxy, *, back_in_s: float | None, error: Exception | None = None
    ) -> None:
        self.wire, self.back_in_s, self.error = wire, back_in_s, error
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        self.wire.is_away = True
        self.wire.cut()
        if self.back_in_s is not None:
            threading.Timer(self.back_in_s, self._come_back).start()
        if self.error is not None:
            raise self.error
        return 7

    def _come_back(self) -> None:
        self.wire.is_away = False


def test_e_run_6_an_outcome_outlives_an_outage(
    run: Run, wire: Proxy, direct: EffectStore, options: dict[str, Any]
) -> None:
    function = Away(wire, back_in_s=AWAY_S)
    assert run(function, **options) == 7
    assert function.calls == 1
    assert direct.look_up_effect("scope", "step", {}) == Replayed(7)


def test_e_run_6_a_failure_outlives_an_outage(
    run: Run, wire: Proxy, direct: EffectStore, options: dict[str, Any]
) -> None:
    function = Away(wire, back_in_s=AWAY_S, error=ValueError("no"))
    with pytest.raises(EffectFailedError, match="no"):
        run(function, terminal=ValueError, **options)
    assert function.calls == 1
    failed = ReplayedFailure(EffectError("ValueError", "no"))
    assert direct.look_up_effect("scope", "step", {}) == failed


def test_e_run_6_it_is_not_waited_for_a_server_for_longer_than_the_claim_holds(
    run: Run, wire: Proxy, direct: EffectStore
) -> None:
    with pytest.raises(LeaseLostError) as caught:
        run(Away(wire, back_in_s=None), ttl_ms=500)
    assert isinstance(caught.value.__cause__, ConnectionLostError)
    assert direct.run("scope", "step", {}, lambda: 8) == 8


@pytest.mark.parametrize("options", ["lease"], indirect=True)
def test_e_run_6_under_a_lease_it_is_waited_for_as_long_as_is_said(
    run: Run, wire: Proxy, direct: EffectStore, options: dict[str, Any]
) -> None:
    with pytest.raises(ConnectionLostError):
        run(Away(wire, back_in_s=None), ttl_ms=500, **options)
    assert direct.look_up_effect("scope", "step", {}) is None


class Unsaid:
    """The answer to the first COMMIT of some operations does not come, though it was done."""

    def __init__(self, *operations: str) -> None:
        self.operations = operations
        self.times = 0

    def before(self, _: Event) -> None:
        """Nothing."""

    def after(self, event: Event) -> None:
        if event.kind == "commit" and event.operation in self.operations and not self.times:
            self.times += 1
            raise psycopg.OperationalError("cannot exit pipeline mode while busy")


@pytest.mark.parametrize("error", [None, ValueError("no")])
def test_e_run_6_an_outcome_of_which_nothing_is_known_is_looked_up(
    run: Run, direct: EffectStore, options: dict[str, Any], error: Exception | None
) -> None:
    calls = []

    def function() -> int:
        calls.append(1)
        if error is not None:
            raise error
        return 7

    unsaid = Unsaid("finish_effect", "fail_effect", "record_effect")
    with observed_by(unsaid):
        if error is None:
            assert run(function, **options) == 7
        else:
            with pytest.raises(EffectFailedError, match="no"):
                run(function, terminal=ValueError, **options)
    assert (calls, unsaid.times) == ([1], 1)
    found = direct.look_up_effect("scope", "step", {})
    assert found == (
        Replayed(7) if error is None else ReplayedFailure(EffectError("ValueError", "no"))
    )


@pytest.mark.parametrize("how", ["list", "delete", "copy"])
def test_k_tx_3_a_directory_tells_of_a_connection_that_is_lost_in_its_statement(
    wire: Proxy, url: str, place: str, how: str, tmp_path: Path
) -> None:
    """As every operation does, and what it was to do has not happened."""
    there = make_url(wire.url).update_query_dict({"options": f"-csearch_path={place}"})
    own = make_url(url).update_query_dict({"options": f"-csearch_path={place}"})
    server, behind = (each.render_as_string(False) for each in (there, own))
    directory = SessionDirectory(server)
    directory.create("chat", model="m").close()
    calls: dict[str, Callable[[], Any]] = {
        "list": directory.list,
        "delete": lambda: directory.delete("chat"),
        "copy": lambda: copy_deployment(server, tmp_path / "copy"),
    }

    def cut(*given: Any) -> None:
        if "lash_session_meta" in given[2]:
            wire.cut()

    event.listen(Engine, "before_cursor_execute", cut)
    try:
        with pytest.raises(ConnectionLostError) as lost:
            calls[how]()
    finally:
        event.remove(Engine, "before_cursor_execute", cut)
    assert "postgresql" in lost.value.path
    with SessionDirectory(behind) as others:
        assert [entry.file_name for entry in others.list()] == ["chat"]
