"""What the state machines have in common: steps, a timeline, named violations, replaying.

A machine plays *steps* against an implementation and a model. A step is a name and plain values, so
what was found is a list of steps, and :meth:`Machine.replay` plays it again: a regression test. What
the implementation did in each stands in the timeline, which is part of the message.

An implementation may be synchronous or asynchronous; what is to be awaited is awaited in one task
on one event loop, from the beginning of a run to its end.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Final, Self

from hypothesis import (
    HealthCheck,
    Phase,
    currently_in_test_context,
    event,
    settings as hypothesis_settings,
)
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from lash_store._kernel.checks import (
    check_choice,
    check_count,
    check_has,
    check_items,
    check_kind,
    shown,
)
from lash_store.errors import InvalidRecordError
from lash_store.testing.clock import ManualClock
from lash_store.testing.one_task import OneTask
from lash_store.testing.shortening import BY_CHANCE, is_shown, leaves, shortened
from lash_store.testing.violations import (
    Line,
    Outcome,
    Script,
    Violation,
    short,
    told,
)

_STOCK_DEADLINE: Final = timedelta(milliseconds=200)
"""What Hypothesis allows an example, unless told otherwise."""


def _settings_of(given: hypothesis_settings | None) -> hypothesis_settings:
    """Return the settings that were given, or the profile's, without what Hypothesis has by default and is not for machines.

    An implementation may take its time, on a database say. And explaining takes ten times as long as the
    rest, and tells of the machine's own lines.
    """
    chosen = given or hypothesis_settings()
    return hypothesis_settings(
        chosen,
        deadline=None if chosen.deadline == _STOCK_DEADLINE else chosen.deadline,
        suppress_health_check={*chosen.suppress_health_check, HealthCheck.too_slow},
        phases=[each for each in chosen.phases if each is not Phase.explain],
    )


class Machine(RuleBasedStateMachine):
    """The part that every machine has; its rules and its model are its subclass's."""

    subject: ClassVar[str]
    """What the implementation is called in messages."""

    @staticmethod
    def make(clock: ManualClock) -> Any:
        """Make the implementation, once for each run."""
        raise NotImplementedError(clock)

    violations: ClassVar[Mapping[str, str]]
    """What it may find, by name; a subclass's rules may find more."""

    needs: ClassVar[tuple[str, ...]] = ()
    """The methods without which there is nothing to be tested."""

    tolerate: ClassVar[frozenset[str]] = frozenset()
    """Violations that are known and accepted: a run goes on past them."""

    refusals: ClassVar[tuple[type[BaseException], ...]] = (Exception,)
    """What the implementation raises to refuse; anything else fails the run as it is."""

    chosen_settings: ClassVar[hypothesis_settings | None] = None
    """What Hypothesis goes by, in subclasses too."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.timeline: list[Line] = []
        self.script: list[tuple[Any, ...]] = []
        self.is_broken = False
        """Whether a step was broken off: there is nothing to be checked any more."""

        self._last_error: BaseException | None = None
        """What the last call has raised: what was found may be the adapter's own fault."""

        self._task: OneTask | None = None
        self.it: Any = None
        try:
            self.it = self.resolve(type(self).make(self.clock))
            for method in self.needs:
                check_has("make(clock)", self.it, method)
            self.start()
        except BaseException:
            self._close()
            raise

    def __init_subclass__(cls, **more: Any) -> None:
        """Let a subclass of a consumer's own have the settings that its machine was made with."""
        super().__init_subclass__(**more)
        cls.TestCase.settings = _settings_of(cls.chosen_settings)
        case: Any = cls.TestCase

        def run_test(case: Any) -> None:
            cls.run(case.settings)

        run_test.is_hypothesis_test = True  # type: ignore[attr-defined] # reason: pytest's plugin asks for it
        case.runTest = run_test

    def start(self) -> None:
        """Look at what was made, before the model is: what fails here closes it."""

    @classmethod
    def replay(cls, script: Script) -> None:
        """Play these steps against a new implementation; raises the Violation that they show.

        InvalidRecordError for what is no step of this machine, before any is played.
        """
        if isinstance(script, (str, bytes)) or not isinstance(script, Iterable):
            raise InvalidRecordError("script", shown(script), "must be a list of steps")
        script = list(script)
        for step in script:
            cls._check_step(step)
        machine = cls()
        try:
            for step in script:
                machine.do(*step)
        except BaseException as found:
            machine._close_after(found)
            raise
        machine.teardown()

    @classmethod
    def _check_step(cls, step: tuple[Any, ...]) -> None:
        """Raise InvalidRecordError for what is no step, before anything is played."""
        if not isinstance(step, (tuple, list)) or not step:
            raise InvalidRecordError(
                "script", shown(step), "must be a step's name and its arguments"
            )
        name, *arguments = step
        signature = inspect.signature(cls._step(name))
        try:
            given = signature.bind(None, *arguments).arguments
        except TypeError as error:
            raise InvalidRecordError("script", shown(step), str(error)) from None
        for parameter, value in given.items():
            kind = _KINDS.get(signature.parameters[parameter].annotation)
            if kind is not None:
                check_kind(f"{parameter} of {name}", value, kind)
            if parameter.endswith("_ms"):
                check_count(f"{parameter} of {name}", value)
        for parameter, option in (("actor", "actors"), ("stream", "streams")):
            if parameter in given:
                check_choice(f"{parameter} of {name}", given[parameter], getattr(cls, option))

    @classmethod
    def _step(cls, name: str) -> Callable[..., None]:
        step: Callable[..., None] | None = getattr(cls, f"do_{name}", None)
        if step is None:
            raise InvalidRecordError("script", shown(name), f"is no step of {cls.__name__}")
        return step

    @classmethod
    def run(cls, settings: hypothesis_settings | None = None) -> None:
        """Look for a violation at once, and raise it, shrunken."""
        chosen = cls.TestCase.settings if settings is None else settings
        try:
            run_state_machine_as_test(cls, settings=chosen)
        except (Violation, BaseExceptionGroup, Flaky) as found:
            first, *others = sorted(leaves(found), key=lambda each: not isinstance(each, Violation))
            if isinstance(found, Flaky):
                first.add_note(BY_CHANCE)
            if not isinstance(first, Violation):
                raise
            shortest = shortened(cls.replay, first)
            if not isinstance(found, Flaky) and not is_shown(cls.replay, shortest):
                shortest.add_note(BY_CHANCE)
            for other in others:
                shortest.add_note(f"found as well: {other!r}")
            raise shortest from shortest.__cause__

    def do(self, name: str, *arguments: Any) -> None:
        """Play one step, and check what can be seen."""
        step = self._step(name)
        self.script.append((name, *arguments))
        self.is_broken = True
        try:
            step(self, *arguments)
            self.look()
        except Exception as error:
            if not isinstance(error, Violation):
                error.add_note(f"in the steps {self.script}")
            raise
        self.is_broken = False

    @rule()
    def reopen(self) -> None:
        """Everything that is not durable is lost."""
        self.do("reopen")

    def do_reopen(self) -> None:
        """Lose what is not durable, if the implementation can."""
        if self.has(self.it, "reopen"):
            self.control("reopen", self.it.reopen)

    def control(self, what: str, function: Callable[[], Any]) -> None:
        """Do what the test asks of the implementation, which refuses nobody: what it raises ends the run."""
        outcome = self.call("", what, function)
        if outcome.error is not None:
            raise outcome.error

    def look(self) -> None:
        """Check what can be seen from outside after a step."""

    def settle(self) -> None:
        """Check, at the end of a run, what has to be left."""

    def call(self, who: str, what: str, function: Callable[..., Any], *arguments: Any) -> Outcome:
        """Call the implementation, and write down what it did."""
        at_ms = self.clock.now_ms()
        try:
            outcome = Outcome(self.resolve(function(*arguments)), None)
        except type(self).refusals as error:
            outcome = Outcome(None, error)
        self._last_error = outcome.error
        said = f"-> {short(outcome.value)}"
        if outcome.error is not None:
            said = f"-> refused ({told(outcome.error)})"
        shown = ", ".join(map(short, arguments))
        self.timeline.append(Line(at_ms, who, f"{what}({shown}) {said}"))
        return outcome

    def saw(self, what: str, value: object) -> None:
        """Write down what the implementation said when it was looked at, by nobody's call."""
        self.timeline.append(Line(self.clock.now_ms(), "", f"{what}() -> {short(value)}"))

    def has(self, of: Any, capability: str) -> bool:
        """Whether an implementation can do what not all can."""
        return getattr(of, capability, None) is not None

    def resolve(self, value: Any) -> Any:
        """Return what a call gave; of an asynchronous one, what awaiting it gives."""
        if not inspect.isawaitable(value):
            return value
        if self._task is None:
            self._task = OneTask()
        return self._task.wait_for(value)

    def violates(self, name: str, text: str) -> None:
        """Raise a Violation, unless it is tolerated."""
        if name not in type(self).tolerate:
            found = Violation(type(self).subject, name, text, self.timeline, self.script)
            raise found from self._last_error
        self.note(f"tolerated: {name}")

    def note(self, what: str) -> None:
        """Count it among what Hypothesis's statistics say of the runs."""
        if currently_in_test_context():
            event(what)

    def teardown(self) -> None:
        """Check what has to be left, unless the run was broken off, and close the implementation."""
        try:
            if not self.is_broken:
                self.settle()
        except BaseException as found:
            self._close_after(found)
            raise
        self._close()

    def _close_after(self, found: BaseException) -> None:
        """Close the implementation; what that raises does not stand in the place of what was found."""
        try:
            self._close()
        except Exception as error:
            if isinstance(found, asyncio.CancelledError):
                raise  # a scope's own, which says only now why
            found.add_note(f"closing it has failed as well: {error!r}")

    def _close(self) -> None:
        try:
            close = getattr(self.it, "close", None) or getattr(self.it, "aclose", None)
            if close is not None:
                self.resolve(close())
        finally:
            if self._task is not None:
                self._task.close()

    @classmethod
    def of(
        cls,
        make: Callable[[ManualClock], Any],
        *,
        tolerate: Iterable[str],
        refusals: tuple[type[BaseException], ...],
        settings: hypothesis_settings | None,
        **more: Any,
    ) -> type[Self]:
        """Make the machine of one implementation.

        InvalidRecordError for a `tolerate` that is no list of names of `violations`, for an option that
        leaves nothing to choose from, and, once it runs, for what lacks a method that it `needs`.
        """
        if not callable(make):
            raise InvalidRecordError("make", shown(make), "must be called with a clock")
        if settings is not None:
            check_kind("settings", settings, hypothesis_settings)
        check_kind("refusals", refusals, tuple)
        for refusal in refusals:
            if not (isinstance(refusal, type) and issubclass(refusal, BaseException)):
                raise InvalidRecordError(
                    "refusals", shown(refusal), "must be classes of exceptions"
                )
        tolerated = frozenset(check_texts("tolerate", tolerate))
        for unknown in sorted(tolerated.difference(cls.violations)):
            known = ", ".join(sorted(cls.violations))
            raise InvalidRecordError("tolerate", repr(unknown), f"must be of {known}")
        for option, value in more.items():
            if value == ():
                raise InvalidRecordError(option, repr(value), "must not be empty")
        name = getattr(make, "__name__", type(make).__name__)
        members = {
            "subject": name,
            "make": staticmethod(make),
            "tolerate": tolerated,
            "refusals": refusals,
            "chosen_settings": settings,
            "__doc__": f"{name}: {(cls.__doc__ or '').partition(chr(10))[0]}",
            "__module__": __name__,
            **more,
        }
        machine: Any = type(cls.__name__.replace("Machine", f"_{name}"), (cls,), members)
        machine.TestCase.__name__ = machine.TestCase.__qualname__ = f"{cls.__name__}[{name}]"
        found: type[Self] = machine
        return found


def check_texts(option: str, values: Iterable[str]) -> tuple[str, ...]:
    """Return what there is to choose from: any texts, as the implementation may know what to do with them."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise InvalidRecordError(option, shown(values), "must be a list of names")
    found = tuple(values)
    check_items(option, found, str)
    return found


_KINDS: Final = {"str": str, "int": int}
"""The annotations of steps that a script's values can be held against."""
