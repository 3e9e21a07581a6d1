"""E-RUN and E-SLEEP: running a step once, in threads, in asyncio, and across processes."""

from __future__ import annotations

import asyncio
import functools
import os
import pickle
import random
import signal
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from lash_store import (
    AsyncEffectStore,
    Busy,
    Deployment,
    EffectClaim,
    EffectStore,
    Replayed,
    SystemClock,
)
from lash_store._kernel.watching import ANYTHING, Waiter
from lash_store.effect.running import current_step
from lash_store.errors import (
    CoroutineError,
    EffectFailedError,
    InvalidRecordError,
    LeaseLostError,
    NestedTransactionError,
    StoreClosedError,
)
from lash_store.testing import ManualClock
from tests.support.bad_input import NoJson
from tests.support.databases import all_rows, apart
from tests.support.leased import JOBS, jobs
from tests.support.processes import Says, workers
from tests.support.timing import within
from tests.support.turns import eventually

ENVELOPE = {"model": "m"}


def statuses(effects: EffectStore) -> list[str]:
    return [effect.status for effect in effects.list_effects()]


def no_renewal_is_left() -> bool:
    return not [each for each in threading.enumerate() if each.name == "lash-store-renewal"]


def test_e_run_1_a_function_runs_once_and_its_outcome_is_replayed(effects: EffectStore) -> None:
    calls = []

    def call_model() -> Any:
        calls.append(1)
        return {"b": (1, 2), "a": None}

    for _ in range(3):
        assert effects.run("s/t", "k", ENVELOPE, call_model) == {"a": None, "b": [1, 2]}
    assert calls == [1]
    assert effects.run("s/t", "l", ENVELOPE, lambda: None) is None
    assert no_renewal_is_left()


def test_e_run_1_replaying_takes_no_write_lock(path: Path) -> None:
    with (
        EffectStore.open(path, busy_timeout_ms=0) as effects,
        apart(EffectStore.open, path) as other,
    ):
        effects.run("s", "k", ENVELOPE, lambda: 1)
        with other.begin():
            assert effects.run("s", "k", ENVELOPE, lambda: 2) == 1


def test_e_begin_4_waiting_takes_no_write_lock_and_ends_with_the_claim(path: Path) -> None:
    with EffectStore.open(path, owner_id="dead") as dead:
        started = time.monotonic()  # before the claim, which is what ends
        dead.begin_effect("s", "k", ENVELOPE, ttl_ms=300)
        with EffectStore.open(path) as effects, apart(EffectStore.open, path) as writer:
            ended: list[float] = []

            def wait() -> None:
                effects.run("s", "k", ENVELOPE, lambda: "taken over")
                ended.append(time.monotonic() - started)

            waiter = threading.Thread(target=wait)
            with writer.begin():  # all the while somebody else holds the lock
                waiter.start()
                time.sleep(0.15)
                with effects.read() as tx:
                    assert tx.count_effects(status="in_progress") == 1
            waiter.join(30)
            assert 0.25 < ended[0] < 5


def test_e_run_1_many_threads_one_call(path: Path) -> None:
    calls: list[int] = []
    outcomes: list[Any] = []

    def slow() -> int:
        calls.append(1)
        time.sleep(0.6)
        return len(calls)

    with EffectStore.open(path) as effects:
        threads = [
            threading.Thread(
                target=lambda: outcomes.append(effects.run("s", "k", ENVELOPE, slow, ttl_ms=300))
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert (calls, outcomes) == ([1], [1] * 8)


def test_e_run_1_in_memory(clock: ManualClock) -> None:
    with EffectStore.open(None) as effects:
        assert effects.run("s", "k", ENVELOPE, lambda: effects.run("s", "inner", 1, lambda: 5)) == 5
        assert statuses(effects) == ["completed", "completed"]


def run_once(say: Says, path: Path, calls: Path) -> None:
    with EffectStore.open(path) as effects:
        say("ready")
        say.wait()

        def call() -> str:
            with calls.open("a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(0.5)
            return f"by {os.getpid()}"

        # Long enough that a busy machine does not starve the renewal.
        say(effects.run("s/t", "k", ENVELOPE, call, ttl_ms=2_000))


def test_e_run_1_eight_processes_one_call(path: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    with workers(8, run_once, path, calls) as runners:
        for runner in runners:
            runner.receive()
        for runner in runners:
            runner.pipe.send("go")
        outcomes = {runner.receive() for runner in runners}
    (caller,) = calls.read_text().split()
    assert outcomes == {f"by {caller}"}


@pytest.mark.posix("kills by SIGKILL")
def test_e_run_2_a_runner_that_is_killed_is_taken_over(path: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    with workers(8, run_once, path, calls) as runners:
        for runner in runners:
            runner.receive()
        for runner in runners:
            runner.pipe.send("go")
        while not calls.exists() or not calls.read_text():
            time.sleep(0.005)
        first = int(calls.read_text().split()[0])
        os.kill(first, signal.SIGKILL)
        outcomes = {runner.receive() for runner in runners if runner.process.pid != first}
    killed, second = map(int, calls.read_text().split())
    assert killed == first
    assert outcomes == {f"by {second}"}


def test_e_run_1_ten_seconds_under_a_lease_of_one(path: Path) -> None:
    """Renewed throughout, and recorded; nobody else could have begun in between."""
    seen: list[int] = []
    with EffectStore.open(path) as effects, EffectStore.open(path, read_only=True) as watcher:

        def long() -> str:
            for _ in range(100):
                time.sleep(0.1)
                with watcher.read() as tx:
                    assert isinstance(tx.look_up_effect("s", "k", ENVELOPE), Busy)
                    (effect,) = tx.list_effects()
                    seen.append(effect.expires_at_ms)
            return "done"

        assert effects.run("s", "k", ENVELOPE, long, ttl_ms=1_000) == "done"
        assert statuses(effects) == ["completed"]
    assert 25 < len(set(seen)) < 40  # every third of the lease
    assert seen == sorted(seen)


def hold_the_lock(say: Says, path: Path, hold_s: float) -> None:
    with EffectStore.open(path) as effects:
        say("ready")
        say.wait()
        with effects.begin():
            say("held")
            time.sleep(hold_s)


@pytest.mark.canonical("a process of its own opens the path")
@pytest.mark.parametrize("busy_timeout_ms", [100, 15_000])
def test_e_run_1_a_renewal_that_is_blocked_loses_the_lease(
    path: Path, busy_timeout_ms: int
) -> None:
    """Another process holds the write lock beyond the end of the lease: nothing is recorded."""
    with (
        EffectStore.open(path, busy_timeout_ms=busy_timeout_ms) as effects,
        workers(1, hold_the_lock, path, 1.0) as (holder,),
    ):
        holder.receive()

        def blocked() -> str:
            holder.pipe.send("hold")
            assert holder.receive() == "held"
            time.sleep(0.3)
            return "too late"

        with pytest.raises(LeaseLostError) as lost:
            effects.run("s", "k", ENVELOPE, blocked, ttl_ms=200)
        assert lost.value.reason == "expired"
        assert statuses(effects) == ["in_progress"]
        holder.process.join()
        assert effects.run("s", "k", ENVELOPE, lambda: "again") == "again"
    assert no_renewal_is_left()


def test_e_run_1_a_lost_lease_records_nothing(path: Path) -> None:
    with EffectStore.open(path) as effects, EffectStore.open(path, owner_id="thief") as thief:

        def robbed() -> str:
            with thief.begin() as tx:
                tx.connection.exec_driver_sql(
                    "UPDATE runtime_effect_replay SET lease_token = 'x', lease_owner_id = 'thief'"
                )
            return "mine"

        with pytest.raises(LeaseLostError) as lost:
            effects.run("s", "k", ENVELOPE, robbed)
        assert lost.value.reason == "superseded"
        (effect,) = effects.list_effects()
        assert (effect.status, effect.owner_id) == ("in_progress", "thief")


def test_e_fin_2_a_retryable_error_gives_the_step_back(effects: EffectStore) -> None:
    def fail() -> None:
        raise ConnectionError("once")

    with pytest.raises(ConnectionError, match="once"):
        effects.run("s", "k", ENVELOPE, fail)
    assert statuses(effects) == ["in_progress"]
    assert effects.run("s", "k", ENVELOPE, lambda: "twice") == "twice"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_e_fin_2_an_interrupt_gives_the_step_back(
    effects: EffectStore, interrupt: type[BaseException]
) -> None:
    def stop() -> None:
        raise interrupt

    with pytest.raises(interrupt):
        effects.run("s", "k", ENVELOPE, stop)
    assert effects.run("s", "k", ENVELOPE, lambda: 1) == 1
    assert no_renewal_is_left()


def test_e_fin_2_a_terminal_error_is_recorded_and_replayed(effects: EffectStore) -> None:
    def bad() -> None:
        raise ValueError("never")

    for function in (bad, lambda: "not called"):
        with pytest.raises(EffectFailedError) as failure:
            effects.run("s", "k", ENVELOPE, function, terminal=(KeyError, ValueError))
        assert (failure.value.code, failure.value.message, failure.value.key) == (
            "ValueError",
            "never",
            "s:k",
        )
        copy = pickle.loads(pickle.dumps(failure.value))
        assert str(copy) == str(failure.value)

    def refuse() -> None:
        raise EffectFailedError("no_such_model", "there is none")

    for _ in range(2):
        with pytest.raises(EffectFailedError, match="no_such_model"):
            effects.run("s", "l", ENVELOPE, refuse)
    assert statuses(effects) == ["failed", "failed"]


@pytest.mark.parametrize("under", [False, True])
def test_e_fin_2_a_function_for_another_facade_is_no_failure_of_its_step(
    effects: EffectStore, under: bool
) -> None:
    """Whatever is terminal: the program was wrong, and the mended one runs the step."""
    lease: Any = JOBS.claim if under else None

    async def call() -> str:
        raise AssertionError

    options: dict[str, Any] = {"terminal": Exception}
    if under:
        with effects.begin() as tx:
            jobs.create(tx.connection)
            lease = JOBS.claim(tx, "job", owner_id="ann", ttl_ms=60_000)
        options["under"] = lease.fence
    for wrong in (call, lambda: call()):  # noqa: PLW0108 # reason: a plain function, by its looks
        with pytest.raises(CoroutineError):
            effects.run("s", "k", ENVELOPE, wrong, **options)
    assert effects.run("s", "k", ENVELOPE, lambda: "mended", **options) == "mended"
    assert statuses(effects) == ["completed"]


def test_e_run_1_an_outcome_that_is_no_json_gives_the_step_back(effects: EffectStore) -> None:
    with pytest.raises(InvalidRecordError, match="outcome"):
        effects.run("s", "k", ENVELOPE, object)
    assert effects.run("s", "k", ENVELOPE, lambda: 1) == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"scope_id": " "},
        {"envelope": NoJson()},
        {"ttl_ms": 0},
        {"terminal": "ValueError"},
        {"terminal": (BaseException,)},
        {"strict": "yes"},
        {"envelope": None, "envelope_hash": ""},
    ],
    ids=ascii,
)
def test_e_run_1_bad_arguments_are_refused(
    effects: EffectStore, path: Path, bad: dict[str, Any]
) -> None:
    before = all_rows(path)
    arguments: dict[str, Any] = {
        "scope_id": "s",
        "replay_key": "k",
        "envelope": 1,
        "function": lambda: 1,
    }
    with pytest.raises(InvalidRecordError):
        effects.run(**{**arguments, **bad})
    assert all_rows(path) == before


def test_e_run_1_the_decorator(effects: EffectStore) -> None:
    calls: list[Any] = []

    @effects.recorded(lambda session, *_, **__: f"{session}/t", "model:0")
    def call_model(session: str, prompt: str, *, heat: float = 0.5) -> dict[str, Any]:
        """Call the model."""
        calls.append((session, prompt, heat))
        return {"answer": prompt.upper()}

    assert call_model("a", "hello") == call_model("a", "hello") == {"answer": "HELLO"}
    assert call_model("b", "hello", heat=1.0) == {"answer": "HELLO"}
    assert calls == [("a", "hello", 0.5), ("b", "hello", 1.0)]
    assert (call_model.__name__, call_model.__doc__) == ("call_model", "Call the model.")
    with pytest.raises(Exception, match="other content"):
        call_model("a", "bye")

    @effects.recorded("s", lambda prompt, model: f"{model}:{prompt}")
    def ask(prompt: str, model: str = "m") -> str:
        return f"{model} {prompt}"

    assert ask("x") == ask("x", "m") == ask(model="m", prompt="x") == "m x"
    assert effects.count_effects(scope_id="s") == 1

    @effects.recorded(lambda prompt: f"of {prompt}", lambda prompt, **_: f"any:{prompt}")
    def answer(prompt: str, /, *, heat: float = 0.0, times: int = 1) -> str:
        calls.append(prompt)
        return f"{prompt} {heat} {times}"

    # Whichever of its defaults are written out, it is one call.
    assert answer("x") == answer("x", heat=0.0) == answer("x", times=1, heat=0.0) == "x 0.0 1"
    assert calls.count("x") == 1

    def charge(customer: str, order: str = "first", **others: str) -> str:
        calls.append((customer, order, others))
        return order

    names: list[tuple[Any, str]] = [
        (lambda order, **_: order, "first"),
        (lambda *_, order, **__: order, "first"),
        (lambda customer, /, order: f"{customer}:{order}", "ann:first"),
        (lambda tenant="t", order="o", /: f"{tenant}:{order}", "t:first"),
        (lambda order, tenant="t": f"{tenant}:{order}", "t:first"),
        (lambda order, customer: f"{order}/{customer}", "first/ann"),
        (
            lambda **given: ",".join(f"{k}={v}" for k, v in given.items()),
            "customer=ann,order=first",
        ),
        (lambda: "fixed", "fixed"),
        (lambda *given: "+".join(given), "ann+first"),
        (lambda *given, **others: f"{given}{others}", "('ann', 'first'){}"),
        (lambda customer, *given: f"{customer}{given}", "ann()"),
        (lambda a, b="b": f"{a}-{b}", "ann-first"),
        (lambda a: a, "ann"),
        ("{0}!".format, "ann!"),
    ]
    for at, (name, key) in enumerate(names):
        scope = f"names {at}"
        charged = effects.recorded(scope, name)(charge)
        before = len(calls)
        charged("ann")
        assert charged("ann", "first") == charged(order="first", customer="ann") == "first"
        assert len(calls) == before + 1
        assert [each.replay_key for each in effects.list_effects(scope_id=scope)] == [key]
    tagged = effects.recorded("tagged", lambda tag: f"tag:{tag}")(charge)
    assert tagged("ann", tag="x") == tagged(customer="ann", tag="x") == "first"
    assert [each.replay_key for each in effects.list_effects(scope_id="tagged")] == ["tag:x"]

    whatever = effects.recorded("whatever", lambda *given, **others: f"{given}{others}")(charge)
    assert whatever("ann", b="2", a="1") == whatever(a="1", b="2", customer="ann") == "first"
    assert effects.count_effects(scope_id="whatever") == 1

    # What has no name of its own comes behind what has, and a name is the function's own before a caller's.
    @effects.recorded("tools", lambda tool, *given: f"{tool}{given}")
    def use(tool: str, *given: int) -> list[Any]:
        return [tool, *given]

    assert [use("add", 1, 2), use("add", 3)] == [["add", 1, 2], ["add", 3]]
    keys = [each.replay_key for each in effects.list_effects(scope_id="tools")]
    assert sorted(keys) == ["add(1, 2)", "add(3,)"]

    @effects.recorded("own", lambda name, **_: name)
    def greet(name: str, /, **others: str) -> list[Any]:
        return [name, others]

    assert greet("ann", name="x") == ["ann", {"name": "x"}]
    assert greet("bob", name="x") == ["bob", {"name": "x"}]
    assert {each.replay_key for each in effects.list_effects(scope_id="own")} == {"ann", "bob"}

    @effects.recorded("moves", lambda source, target: f"{target}<-{source}")
    def move(target: str, source: str, retries: int = 3) -> list[Any]:
        return [target, source, retries]

    assert move(target="a", source="b") == ["a", "b", 3]
    assert [each.replay_key for each in effects.list_effects(scope_id="moves")] == ["a<-b"]
    with pytest.raises(InvalidRecordError):
        call_model("c", object())  # type: ignore[arg-type] # reason: that is the test


def test_e_run_1_a_store_that_is_closed_under_a_run(path: Path) -> None:
    effects = EffectStore.open(path)

    def close() -> int:
        effects.close()
        return 1

    with pytest.raises(StoreClosedError):
        effects.run("s", "k", ENVELOPE, close)
    with EffectStore.open(path) as again:
        assert statuses(again) == ["in_progress"]


def test_e_sleep_1_sleeping_to_the_end_and_the_rest_of_it(path: Path) -> None:
    with EffectStore.open(path) as effects:
        started = time.monotonic()
        effects.sleep("s", "z", 80)
        assert time.monotonic() - started >= 0.08
        assert within(0.07, lambda _: effects.sleep("s", "z", 80))

        def sleep_to_the_end(number: int) -> None:
            started = time.monotonic()
            effects.begin_sleep("s", f"y{number}", 100)  # and who began it dies
            time.sleep(0.06)
            effects.sleep("s", f"y{number}", 100)
            assert time.monotonic() - started >= 0.1

        assert within(0.15, sleep_to_the_end)


def test_k_open_5_closing_ends_a_sleep(path: Path) -> None:
    effects = EffectStore.open(path)
    ended: list[str] = []

    def sleep() -> None:
        try:
            effects.sleep("s", "z", 3_600_000)
        except StoreClosedError:
            ended.append("sync")

    sleeping = threading.Thread(target=sleep, daemon=True)
    sleeping.start()
    eventually(lambda: bool(effects.watch.sleepers))
    assert not effects.watch.waiters  # nobody looks for others' commits meanwhile
    effects.close()
    sleeping.join(20)

    async def main() -> None:
        store = AsyncEffectStore.open(path)
        task = asyncio.create_task(store.sleep("s", "z", 3_600_000))
        while store._store is None or not store._store.watch.sleepers:
            await asyncio.sleep(0.001)
        await store.aclose()
        with pytest.raises(StoreClosedError):
            await asyncio.wait_for(task, 20)
        ended.append("asyncio")

    asyncio.run(main())
    assert ended == ["sync", "asyncio"]


def test_asyncio_runs(path: Path) -> None:
    async def main() -> None:
        async with AsyncEffectStore.open(path) as effects:
            calls: list[int] = []

            async def slow() -> list[int]:
                calls.append(1)
                await asyncio.sleep(1)  # past two terms, each as long as a machine may stall
                return [len(calls)]

            runs = [effects.run("s", "k", ENVELOPE, slow, ttl_ms=400) for _ in range(20)]
            assert await asyncio.gather(*runs) == [[1]] * 20
            assert calls == [1]

            async def bad() -> None:
                raise ValueError("never")

            with pytest.raises(ValueError, match="never"):
                await effects.run("s", "l", ENVELOPE, bad)
            for _ in range(2):
                with pytest.raises(EffectFailedError, match="never"):
                    await effects.run("s", "l", ENVELOPE, bad, terminal=ValueError)

            @effects.recorded("s", lambda prompt: f"model:{prompt}")
            async def call_model(prompt: str) -> str:
                calls.append(2)
                return prompt.upper()

            assert await call_model("x") == await call_model("x") == "X"
            assert calls == [1, 2]
            await effects.sleep("s", "z", 30)
            assert await effects.begin_sleep("s", "z", 30) == 0
            with pytest.raises(InvalidRecordError):
                await effects.run("s", "m", ENVELOPE, lambda: _value(object()))
            assert await effects.run("s", "m", ENVELOPE, lambda: _value(1)) == 1

    asyncio.run(main())


async def _value(value: Any) -> Any:
    return value


def test_cancelling_an_asyncio_run_gives_the_step_back(path: Path) -> None:
    async def main() -> None:
        async with AsyncEffectStore.open(path) as effects:
            running = asyncio.Event()

            async def forever() -> None:
                running.set()
                await asyncio.sleep(3_600)

            task = asyncio.create_task(effects.run("s", "k", ENVELOPE, forever))
            await running.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await effects.run("s", "k", ENVELOPE, lambda: _value(1)) == 1
            others = [each for each in asyncio.all_tasks() if each is not asyncio.current_task()]
            assert others == []

    asyncio.run(main())


def test_e_fin_2_steps_that_outlive_their_store_are_given_back_as_they_are_cancelled(
    path: Path,
) -> None:
    """As a program ends that leaves ``async with`` while its steps run."""
    begun: list[int] = []

    async def forever(number: int) -> None:
        begun.append(number)
        await asyncio.sleep(3_600)

    async def main() -> None:
        async with AsyncEffectStore.open(path) as effects:
            for number in range(5):
                step = effects.run("s", f"k{number}", ENVELOPE, partial(forever, number))
                tasks.append(asyncio.create_task(step))
            while len(begun) < 5:
                await asyncio.sleep(0)

    tasks: list[asyncio.Task[Any]] = []
    asyncio.run(main())
    assert all(task.cancelled() for task in tasks)
    with EffectStore.open(path) as effects:
        for number in range(5):
            assert isinstance(effects.begin_effect("s", f"k{number}", ENVELOPE), EffectClaim)


def test_asyncio_a_lease_that_is_lost_records_nothing(path: Path) -> None:
    async def main() -> None:
        async with AsyncEffectStore.open(path, busy_timeout_ms=50) as effects:

            async def blocked() -> int:
                with apart(EffectStore.open, path) as other, other.begin():
                    await asyncio.sleep(0.4)
                return 1

            with pytest.raises(LeaseLostError):
                await effects.run("s", "k", ENVELOPE, blocked, ttl_ms=150)
            assert await effects.count_effects(status="in_progress") == 1
            assert await effects.begin_effect("s", "k", ENVELOPE) != Replayed(1)

    asyncio.run(main())


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x\udcff"),
        ValueError("x\0y"),
        MuteError(),
        EffectFailedError("c", "x\udcff"),
        EffectFailedError("c\0", "x\0"),
    ],
)
def test_e_fin_2_whatever_a_terminal_error_says_it_is_recorded(
    effects: EffectStore, error: Exception
) -> None:
    def fail() -> None:
        raise error

    for _ in range(2):
        with pytest.raises(EffectFailedError):
            effects.run("s", "k", ENVELOPE, fail, terminal=(ValueError, MuteError))
    assert statuses(effects) == ["failed"]


def test_e_run_1_a_lock_that_comes_free_in_time_costs_no_lease(path: Path) -> None:
    """A renewal that the lock kept out tries again at once, not a third of the lease later."""
    with (
        EffectStore.open(path, busy_timeout_ms=300) as effects,
        apart(EffectStore.open, path) as other,
    ):

        def slow() -> str:
            with other.begin():
                time.sleep(0.5)
            time.sleep(0.4)
            return "recorded"

        assert effects.run("s", "k", ENVELOPE, slow, ttl_ms=600) == "recorded"


def test_e_run_1_a_step_inside_of_itself_is_an_error(effects: EffectStore) -> None:
    with pytest.raises(NestedTransactionError, match="by its own function"):
        effects.run("s", "k", ENVELOPE, lambda: effects.run("s", "k", ENVELOPE, lambda: 1))
    assert effects.run("s", "k", ENVELOPE, lambda: effects.run("s", "l", ENVELOPE, lambda: 2)) == 2

    async def main() -> None:
        async with AsyncEffectStore.open(None) as store:
            inner = lambda: store.run("s", "k", ENVELOPE, lambda: _value(1))  # noqa: E731 # reason: short
            with pytest.raises(NestedTransactionError):
                await store.run("s", "k", ENVELOPE, inner)

    asyncio.run(main())


def test_e_run_1_a_task_that_outlives_its_step_may_run_it_again(path: Path) -> None:
    async def main() -> None:
        async with AsyncEffectStore.open(path) as effects:
            tasks: list[asyncio.Task[Any]] = []

            async def later() -> Any:
                await asyncio.sleep(0.05)  # the step is given back by now, and somebody else at it
                return await effects.run("s", "k", ENVELOPE, lambda: _value("never"))

            async def fails() -> None:
                tasks.append(asyncio.create_task(later()))
                raise ConnectionError("now")

            with pytest.raises(ConnectionError):
                await effects.run("s", "k", ENVELOPE, fails)
            outcome = await effects.run("s", "k", ENVELOPE, lambda: asyncio.sleep(0.2, "second"))
            assert outcome == await tasks[0] == "second"

    asyncio.run(main())


def test_e_run_1_one_call_has_one_envelope_however_it_is_written(effects: EffectStore) -> None:
    @effects.recorded("s", "k")
    def function(a: int, b: int = 2, *rest: int, **more: int) -> list[int]:
        return [a, b, *rest, *more.values()]

    assert function(1) == function(1, 2) == function(a=1) == function(1, b=2) == [1, 2]
    with pytest.raises(TypeError):
        function()  # type: ignore[call-arg] # reason: that is the test


@pytest.mark.parametrize(
    "bad",
    [
        lambda effects: effects.recorded(5, "k"),
        lambda effects: effects.recorded("s", "k", ttl_ms=0),
        lambda effects: effects.recorded("s", "k", terminal="x"),
        lambda effects: effects.recorded("s", "k")(functools.partial(print)),
        lambda effects: effects.recorded("s", "k")(ManualClock.advance),
        lambda effects: effects.run("s", "k", ENVELOPE, None),
        lambda effects: effects.begin_effect("s", "k", strict="no"),
        lambda effects: effects.look_up_effect("s", "k", strict=1),
    ],
)
def test_e_run_1_what_is_wrong_is_refused_where_it_stands(
    effects: EffectStore, path: Path, bad: Any
) -> None:
    before = all_rows(path)
    with pytest.raises(InvalidRecordError):
        bad(effects)
    assert all_rows(path) == before


def test_e_run_1_a_very_long_lease(effects: EffectStore) -> None:
    assert effects.run("s", "k", ENVELOPE, lambda: 1, ttl_ms=2**63 - 1) == 1


def test_e_sleep_1_a_sleep_that_is_over_takes_no_write_lock(path: Path) -> None:
    with (
        EffectStore.open(path, busy_timeout_ms=0) as effects,
        apart(EffectStore.open, path) as other,
    ):
        effects.sleep("s", "z", 0)
        effects.sleep("s", "own hash", 1, envelope_hash="mine")
        with other.begin():
            effects.sleep("s", "z", 0)
            effects.sleep("s", "own hash", 1, envelope_hash="mine")
    with EffectStore.open(path, read_only=True) as reader:
        reader.sleep("s", "z", 0)


def test_cancelling_an_asyncio_run_at_any_moment_leaves_no_claim(path: Path) -> None:
    async def main() -> None:
        async with AsyncEffectStore.open(path) as effects:
            for at in range(150):
                run = effects.run("s", f"k{at}", ENVELOPE, lambda: asyncio.sleep(0.0005, 1))
                task = asyncio.create_task(run)
                await asyncio.sleep(at / 40_000)
                task.cancel()
                await asyncio.wait([task])
            left = await effects.list_effects(status="in_progress", limit=1_000)
            assert [effect for effect in left if effect.owner_id is not None] == []

    asyncio.run(main())


def test_e_run_1_asyncio_a_function_that_gives_nothing_to_await_is_called_once(path: Path) -> None:
    """Refusing what it gave would have it called again, and again."""
    calls: list[str] = []

    def send() -> str:
        calls.append("mail")
        return "sent"

    async def main() -> None:
        async with AsyncEffectStore.open(path) as effects:
            for _ in range(2):
                assert await effects.run("s", "k", ENVELOPE, send) == "sent"  # type: ignore[arg-type] # reason: that is the test
            assert await effects.run("s", "l", ENVELOPE, lambda: _value(2)) == 2
            with pytest.raises(InvalidRecordError, match="outcome"):
                await effects.run("s", "m", ENVELOPE, object)  # type: ignore[arg-type] # reason: likewise

    asyncio.run(main())
    assert calls == ["mail"]


@pytest.mark.sqlite("how often a loop is woken for an answer")
def test_asyncio_a_step_wakes_its_loop_for_its_two_answers_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[Any] = []
    wake = asyncio.BaseEventLoop.call_soon_threadsafe

    def call_soon_threadsafe(loop: Any, callback: Any, *args: Any, **options: Any) -> Any:
        woken.append(callback)
        return wake(loop, callback, *args, **options)

    async def main() -> None:
        async with AsyncEffectStore.open(path) as effects:
            await effects.run("s", "first", ENVELOPE, partial(_value, 1))
            monkeypatch.setattr(asyncio.BaseEventLoop, "call_soon_threadsafe", call_soon_threadsafe)
            await effects.run("s", "second", ENVELOPE, partial(_value, 2))
            monkeypatch.undo()

    asyncio.run(main())
    assert 1 <= len(woken) <= 2  # what began it and what recorded it; leaving it wakes nobody


def test_asyncio_cancelling_while_a_renewal_waits_loses_no_outcome(path: Path) -> None:
    """The function has returned, and a renewal holds up its recording."""

    async def main() -> None:
        async with AsyncEffectStore.open(path) as effects:
            await effects.count_effects()
            with apart(EffectStore.open, path) as other:
                lock = other.begin()

                async def function() -> int:
                    lock.__enter__()
                    await asyncio.sleep(0.15)
                    return 42

                task = asyncio.create_task(effects.run("s", "k", ENVELOPE, function, ttl_ms=300))
                await asyncio.sleep(0.25)
                task.cancel()
                await asyncio.sleep(0.01)
                lock.__exit__(None, None, None)
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await effects.run("s", "k", ENVELOPE, lambda: _value("again")) == 42

    asyncio.run(main())


# E-RUN-4: a claim that is lost ends the step at the next renewal.


def steal(store: Any, key: str) -> None:
    """Let somebody else have the step: as one whose clock runs ahead."""
    ahead = ManualClock(SystemClock().now_ms() + 3_600_000)
    with EffectStore.open(store, owner_id="thief", clock=ahead) as thief:
        assert isinstance(thief.begin_effect("s", key, 1, ttl_ms=TTL_OF_THIEF), EffectClaim)


TTL_OF_THIEF = 3_600_000


def test_e_run_4_a_stolen_claim_ends_an_asyncio_step_at_the_next_renewal(path: Path) -> None:
    ended: list[str] = []

    async def main() -> None:
        async with AsyncEffectStore.open(path, owner_id="ann") as effects:

            async def function() -> str:
                steal(effects._store, "k")
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    ended.append("cancelled")
                    raise
                return "never"

            started_s = time.monotonic()
            with pytest.raises(LeaseLostError) as lost:
                await effects.run("s", "k", 1, function, ttl_ms=600)
            assert time.monotonic() - started_s < 5
            assert lost.value.reason == "superseded"
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0  # the caller itself is not cancelled
            await asyncio.sleep(0)
            busy = await effects.begin_effect("s", "k", 1)
            assert isinstance(busy, Busy)  # the thief's it is

    asyncio.run(main())
    assert ended == ["cancelled"]


def test_e_run_4_a_sync_step_can_see_it(path: Path) -> None:
    with EffectStore.open(path, owner_id="ann") as effects:
        found: list[Any] = []

        def function() -> str:
            step = current_step()
            assert step is not None
            step.check()
            steal(effects, "k")
            found.append(step.wait_lost(timeout_ms=20_000))
            with pytest.raises(LeaseLostError):
                step.check()
            return "too late"

        with pytest.raises(LeaseLostError):
            effects.run("s", "k", 1, function, ttl_ms=600)
        assert isinstance(found[0], LeaseLostError)
        assert current_step() is None


def test_e_run_4_the_callers_own_cancelling_is_its_own(path: Path) -> None:
    async def main() -> None:
        async with AsyncEffectStore.open(path, owner_id="ann") as effects:
            inside = asyncio.Event()

            async def function() -> str:
                inside.set()
                await asyncio.sleep(30)
                return "never"

            running = asyncio.create_task(effects.run("s", "k", 1, function, ttl_ms=600))
            await inside.wait()
            steal(effects._store, "k")
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await effects.run("s", "other", 1, function, ttl_ms=600)

    asyncio.run(main())


def test_e_run_4_a_function_that_passes_over_it_records_nothing(path: Path) -> None:
    async def main() -> None:
        async with AsyncEffectStore.open(path, owner_id="ann") as effects:

            async def function() -> str:
                steal(effects._store, "k")
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(30)
                return "stubborn"

            with pytest.raises(LeaseLostError):
                await effects.run("s", "k", 1, function, ttl_ms=300)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(0.01)

    asyncio.run(main())


def test_e_run_4_stolen_at_any_moment_around_the_end(path: Path) -> None:
    """Never a wrong outcome, never a lost cancelling: recorded by one, or refused."""
    chance = random.Random(7)
    begun: dict[str, asyncio.Event] = {}

    async def main() -> tuple[int, int]:
        recorded = refused = 0
        async with AsyncEffectStore.open(path, owner_id="ann") as effects:
            ahead = ManualClock(SystemClock().now_ms() + 3_600_000)
            thief = EffectStore.open(effects._store, owner_id="thief", clock=ahead)

            async def one(key: str) -> bool:
                async def function() -> str:
                    begun[key].set()
                    await asyncio.sleep(chance.random() * 0.02)
                    return f"ann's {key}"

                try:
                    outcome = await effects.run("s", key, 1, function, ttl_ms=24)
                except LeaseLostError:
                    return False
                assert outcome == f"ann's {key}"
                return True

            async def steal_it(key: str) -> Any:
                await begun[key].wait()  # else ann would wait for the thief
                await asyncio.sleep(chance.random() * 0.02)
                return await asyncio.to_thread(thief.begin_effect, "s", key, 1)

            for batch in range(50):
                keys = [f"{batch} {at}" for at in range(20)]
                begun.update((key, asyncio.Event()) for key in keys)
                results = await asyncio.gather(*map(one, keys), *map(steal_it, keys))
                ran, stolen = results[:20], results[20:]
                for key, was_recorded, found in zip(keys, ran, stolen, strict=True):
                    if isinstance(found, EffectClaim):
                        assert thief.finish_effect(found, "thief's") == "thief's"
                    row = thief.look_up_effect("s", key, 1)
                    if was_recorded:
                        assert row == Replayed(f"ann's {key}")
                        recorded += 1
                    else:
                        assert row is None or row == Replayed("thief's")
                        refused += 1
            thief.close()
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
        return recorded, refused

    recorded, refused = asyncio.run(main())
    assert recorded > 20
    assert refused > 20


def test_e_run_4_a_loop_that_ends_gives_its_steps_back_at_once(path: Path) -> None:
    async def main() -> None:
        effects = AsyncEffectStore.open(path, owner_id="ann")
        await effects.count_effects()
        for at in range(50):
            step = effects.run("s", f"k{at}", 1, lambda: asyncio.sleep(60), ttl_ms=60_000)
            asyncio.get_running_loop().create_task(step)
        while await effects.count_effects() < 50:
            await asyncio.sleep(0.01)

    started_s = time.monotonic()
    asyncio.run(main())
    with EffectStore.open(path, owner_id="bob") as effects:
        for at in range(50):
            assert isinstance(effects.begin_effect("s", f"k{at}", 1), EffectClaim)
    assert time.monotonic() - started_s < 20


def test_an_empty_run_starts_no_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EffectStore.open(path, owner_id="ann") as effects:
        effects.run("s", "first", 1, lambda: 1)  # the timer may be begun by it

        def no_thread(_: object) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_thread)
            assert effects.run("s", "k", 1, lambda: 2) == 2


def test_e_run_1_a_step_that_is_asynchronous_is_for_an_asyncio_store(path: Path) -> None:
    """Nothing of it is recorded, and nothing is said of a coroutine that never ran."""

    async def step() -> int:
        return 1

    def starts() -> Any:
        return step()

    with EffectStore.open(path) as store:
        with pytest.raises(CoroutineError):
            store.run("s", "k", None, step)
        with pytest.raises(CoroutineError):
            store.recorded("s", "k")(step)
        assert store.list_effects() == []
        with pytest.raises(CoroutineError):
            store.run("s", "k", None, starts)
        assert isinstance(
            store.begin_effect("s", "k", owner_id="bob"), EffectClaim
        )  # it was given back


@pytest.mark.parametrize("closed", ["the store", "its deployment"])
def test_e_sleep_1_who_sleeps_is_told_of_its_stores_end_alone(tmp_path: Path, closed: str) -> None:
    """Not of commits that concern everybody, for which a waiter beside it has to look."""
    with Deployment.open(f"sqlite:///{tmp_path / 'a.db'}") as deployment:
        effects, rung, told = deployment.effects, list[str](), list[str]()
        waiter = Waiter(lambda: told.append("to look"))
        look = effects.watch.subscribed(waiter, [ANYTHING])
        with look, effects.watch.sleeping(lambda: rung.append("to see whether it is closed")):
            with effects.begin() as tx:
                tx.connection.execute(text("SELECT 1"))
            assert (bool(told), rung) == (True, [])
            (effects if closed == "the store" else deployment).close()
            assert rung
