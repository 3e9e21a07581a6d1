"""A state machine that tries to break what is to happen once: a step with an effect.

::

    class Memo:
        def __init__(self, clock): ...
        def run(self, key, request, function): ...   # the outcome, recorded or replayed
        def reopen(self): ...

    TestMemo = effect_machine(Memo).TestCase
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, Protocol, get_args

from hypothesis import settings as hypothesis_settings, strategies as st
from hypothesis.stateful import rule

from lash_store._kernel.checks import check_choice
from lash_store.testing.clock import ManualClock
from lash_store.testing.machine import Machine, check_texts
from lash_store.testing.violations import Line, Outcome

Failures = Literal["retried", "recorded"]
"""What a step does that has failed before: its function again, or the same failure."""


class Effects(Protocol):
    """Steps that are run once; made with a ManualClock as its only argument.

    It may have ``reopen()``, which forgets what is not durable, and ``close()``; and ``lapse()``, which lets what a
    killed worker has claimed run out, if a step is claimed for a while: moves the clock, say.
    """

    def run(self, key: str, request: str, function: Callable[[], Any]) -> Any:
        """Call `function` unless `key` has an outcome; return that. Another request is refused."""
        ...


class StepFailedError(Exception):
    """What the function of a step raises in a run of the machine."""


class Killed(BaseException):
    """What stands for the end of a process in the middle of a step."""


def _killed_by(error: BaseException) -> BaseException | None:
    """Return the Killed that an error is, or that a TaskGroup has wrapped; None for anything else."""
    if isinstance(error, BaseExceptionGroup):
        killed, others = error.split(Killed)
        return None if killed is None or others is not None else Killed()
    return error if isinstance(error, Killed) else None


def effect_machine(
    make: Callable[[ManualClock], Any],
    *,
    failures: Failures = "retried",
    keys: Iterable[str] = ("a", "A", "a/b"),
    refusals: tuple[type[BaseException], ...] = (Exception,),
    tolerate: Iterable[str] = (),
    settings: hypothesis_settings | None = None,
) -> type[EffectMachine]:
    """Make a machine that tries to break the steps that `make` makes.

    `failures` says what becomes of a step whose function has raised. For the rest see
    ``lock_machine``. An implementation whose ``run`` is an ``async def`` gets an asynchronous function.
    """
    check_choice("failures", failures, get_args(Failures))
    return EffectMachine.of(
        make,
        tolerate=tolerate,
        refusals=refusals,
        settings=settings,
        failures=failures,
        keys=check_texts("keys", keys),
    )


class EffectMachine(Machine):
    """A function is called until it has given an outcome, and never again; that is what all get."""

    violations: ClassVar[Mapping[str, str]] = {
        "ran-twice": "a function was called that has an outcome, or twice for one",
        "not-run": "an outcome came of no call",
        "forgotten": "a recorded outcome is gone after reopening",
        "refused": "an outcome that there is was refused",
        "wrong-outcome": "another outcome came than the function has given",
        "wrong-request": "another request under the key got the old outcome",
        "failure": "one was recorded that is to be tried again, or the other way round",
    }

    needs = ("run",)
    failures: ClassVar[Failures] = "retried"
    keys: ClassVar[tuple[str, ...]] = ("a", "A", "a/b")

    def __init__(self) -> None:
        super().__init__()
        self.recorded: dict[str, tuple[str, Any]] = {}
        """By key, the request and the outcome; an outcome of None is a failure."""

        self.begun: dict[str, str] = {}
        """By key, the request of a step that was begun and has no outcome."""

        self.calls = 0
        self.may_be_forgotten: set[str] = set()

    # What Hypothesis chooses.

    @rule(
        data=st.data(),
        request=st.sampled_from(("x", "y")),
        how=st.sampled_from(("gives", "fails", "dies", "gives none")),
    )
    def run_step(self, data: st.DataObject, request: str, how: str) -> None:
        """Somebody comes to a step."""
        self.do("run", data.draw(st.sampled_from(self.keys)), request, how)

    @rule(data=st.data(), request=st.sampled_from(("x", "y")))
    def run_again(self, data: st.DataObject, request: str) -> None:
        """The same step twice, as after a crash, and once with another request."""
        key = data.draw(st.sampled_from(self.keys))
        self.do("run", key, request, "gives")
        if data.draw(st.booleans()):
            self.do("reopen")
        self.do("run", key, request, "gives")
        self.do("run", key, "y" if request == "x" else "x", "gives")

    # What the steps are.

    def do_run(self, key: str, request: str, how: str) -> None:
        """Run a step whose function gives something, gives None, fails, or dies in the middle."""
        before = self.calls
        got = self._come_to(key, request, how)
        ran = self.calls - before
        known = self.recorded.get(key)
        if known is not None and known[0] != request:
            self._check_other_request(key, request, got, ran)
        elif known is not None:
            self._check_replay(key, known[1], got, ran)
        elif ran == 0 and self.begun.get(key, request) != request:
            pass  # a step that was begun for another request may be refused
        elif ran != 1:
            name = "ran-twice" if ran else "not-run"
            self.violates(name, f"the function of {key!r} was called {ran} times")
        elif how.startswith("gives"):
            outcome = f"outcome-{self.calls}" if how == "gives" else "none"
            self._check_first(key, request, outcome, got)
        elif how == "fails":
            self._check_failure(key, request, got)
        else:
            self.begun[key] = request
        if isinstance(got.error, Killed):
            self.do_reopen()
            if self.has(self.it, "lapse"):
                self.control("lapse", self.it.lapse)

    def do_reopen(self) -> None:
        """Lose what is not durable, and remember that it may be gone."""
        super().do_reopen()
        if self.has(self.it, "reopen"):
            self.may_be_forgotten |= set(self.recorded)

    def _come_to(self, key: str, request: str, how: str) -> Outcome:
        try:
            return self.call("", f"run, which {how},", self._run, key, request, how)
        except BaseException as error:
            killed = _killed_by(error)
            if killed is None:
                raise
            self.timeline.append(Line(self.clock.now_ms(), "", f"run({key!r}, {request!r}) died"))
            return Outcome(None, killed)

    def _run(self, key: str, request: str, how: str) -> Any:
        def function() -> Any:
            self.calls += 1
            if how == "fails":
                raise StepFailedError(f"failure-{self.calls}")
            if how == "dies":
                raise Killed
            return f"outcome-{self.calls}" if how == "gives" else None

        async def later() -> Any:
            return function()

        is_async = inspect.iscoroutinefunction(inspect.unwrap(self.it.run))
        return self.resolve(self.it.run(key, request, later if is_async else function))

    def _check_first(self, key: str, request: str, outcome: Any, got: Any) -> None:
        given = None if outcome == "none" else outcome
        if got.error is not None:
            self.violates("refused", f"{key!r} has run, and its outcome was refused")
        elif got.value != given:
            self.violates("wrong-outcome", f"{key!r} gave {given!r}, and {got.value!r} came back")
        self.recorded[key] = (request, outcome)
        self.may_be_forgotten.discard(key)
        self.begun.pop(key, None)
        self.note("a first run")

    def _check_failure(self, key: str, request: str, got: Any) -> None:
        if self.failures == "recorded":
            self.recorded[key] = (request, None)
        else:
            self.begun[key] = request
        if got.error is None:
            self.violates("failure", f"{key!r} failed, and {got.value!r} came of it")

    def _check_replay(self, key: str, outcome: Any, got: Any, ran: int) -> None:
        if ran:
            name = "forgotten" if key in self.may_be_forgotten else "ran-twice"
            if outcome is None:
                name = "failure"
            self.violates(name, f"{key!r} has an outcome, and its function was called again")
            self._adopt(key, self.recorded[key][0], got)
            return
        given = None if outcome == "none" else outcome
        if outcome is None:
            if got.error is None:
                self.violates("failure", f"{key!r} has failed for good, and gave {got.value!r}")
        elif got.error is not None:
            self.violates("refused", f"{key!r} has an outcome, and it was refused")
        elif got.value != given:
            self.violates("wrong-outcome", f"{key!r} gave {given!r}, and now {got.value!r}")
        else:
            self.note("a replay")

    def _adopt(self, key: str, request: str, got: Any) -> None:
        """Go on from a run that is tolerated: what it gave is the outcome from now on."""
        if got.error is None:
            self.recorded[key] = (request, "none" if got.value is None else got.value)
            self.may_be_forgotten.discard(key)

    def _check_other_request(self, key: str, request: str, got: Any, ran: int) -> None:
        if ran:
            name = "forgotten" if key in self.may_be_forgotten else "ran-twice"
            self.violates(name, f"{key!r} has an outcome, and ran for {request!r} as well")
            self._adopt(key, request, got)
        elif got.error is None:
            self.violates("wrong-request", f"{request!r} got what {key!r} gave another request")
