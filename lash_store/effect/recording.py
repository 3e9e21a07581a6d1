"""The decorator form of ``run``: how calls of functions become steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from lash_store._kernel.checks import shown
from lash_store.effect.running import RecordedOptions, check_run
from lash_store.errors import InvalidRecordError

R = TypeVar("R")


class Recording:
    """What a decorator is given, checked where it stands: how calls of functions become steps."""

    def __init__(
        self,
        scope_id: str | Callable[..., str],
        replay_key: str | Callable[..., str],
        options: RecordedOptions,
    ) -> None:
        for field, name in (("scope_id", scope_id), ("replay_key", replay_key)):
            if not isinstance(name, str) and not callable(name):
                raise InvalidRecordError(
                    field, shown(name), "must be a str, or a function of the call"
                )
        # As for any call of it: a name and a function that there could be.
        check_run("scope", "key", None, self.step_of, **options)
        self._names = tuple((name, _takes(name)) for name in (scope_id, replay_key))

    def step_of(
        self, function: Callable[..., R], signature: inspect.Signature, args: Any, kwargs: Any
    ) -> tuple[str, str, dict[str, Any], Callable[[], R]]:
        """Return what ``run`` takes for one call of `function`.

        The envelope is its name and its arguments, by name and with the defaults among them, so
        that one call has one envelope however it is written.
        """
        bound = signature.bind(*args, **kwargs)
        given = set(bound.arguments)
        bound.apply_defaults()
        values: dict[str, Any] = {}
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                values.update(bound.arguments[name])
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                values[name] = bound.arguments[name]
        defaults = values.keys() - given - kwargs.keys()

        def named(name: str | Callable[..., str], takes: _Takes | None) -> str:
            if isinstance(name, str):
                return name
            if takes is not None and takes.required <= values.keys():  # one call has one name, too
                return takes.called(name, values)
            # It calls them something else, or takes whatever there is: what was given, as it was given.
            known = defaults & (frozenset() if takes is None else takes.by_name)
            return name(*args, **{each: values[each] for each in known}, **kwargs)

        scope_id, replay_key = (named(name, takes) for name, takes in self._names)
        name = f"{function.__module__}.{function.__qualname__}"
        envelope = {"function": name, "arguments": dict(bound.arguments)}
        return scope_id, replay_key, envelope, lambda: function(*args, **kwargs)


class _Takes(NamedTuple):
    """What a function that makes a scope or a key takes."""

    by_place: dict[str, Any]
    """Those that have no name in a call, each with its default."""

    by_name: frozenset[str]
    required: frozenset[str]
    takes_others: bool

    def called(self, name: Callable[..., str], values: dict[str, Any]) -> str:
        """Return what it makes of the arguments that it names, and of the others if it takes any."""
        placed = [values.get(each, default) for each, default in self.by_place.items()]
        named = {
            each: value
            for each, value in values.items()
            if each in self.by_name or (self.takes_others and each not in self.by_place)
        }
        return name(*placed, **named)


def _takes(name: str | Callable[..., str]) -> _Takes | None:
    """Return what a function that makes a scope or a key takes; None if it does not say, or names nothing."""
    try:
        parameters = () if isinstance(name, str) else inspect.signature(name).parameters.values()
    except ValueError:  # written in C
        return None
    plain = [
        each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    if not plain and any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return None
    by_place = {each.name: each.default for each in plain if each.kind is each.POSITIONAL_ONLY}
    return _Takes(
        by_place,
        frozenset(each.name for each in plain if each.name not in by_place),
        frozenset(each.name for each in plain if each.default is each.empty),
        any(each.kind is each.VAR_KEYWORD for each in parameters),
    )


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a function that has a name; InvalidRecordError for anything else."""
    if not inspect.isfunction(function):
        raise InvalidRecordError(
            "function", shown(function), "must be a function, which has a name"
        )
    signature = inspect.signature(function)
    if next(iter(signature.parameters), None) == "self":
        raise InvalidRecordError(
            "function",
            shown(function),
            "is a method, whose `self` is no JSON: make it a function of what it needs, or call run() inside it",
        )
    return signature
