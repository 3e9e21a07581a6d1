"""The decorator form of ``run``: how calls of functions become steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar

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
        self._names = tuple((name, _taken_by(name)) for name in (scope_id, replay_key))

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
        plain = {
            name: bound.arguments[name]
            for name, parameter in signature.parameters.items()
            if parameter.kind not in _SEVERAL
        }

        def named(name: str | Callable[..., str], taken: frozenset[str] | None) -> str:
            if isinstance(name, str):
                return name
            if taken is not None and taken <= plain.keys():  # one call has one name, too
                return name(**_only(plain, taken))
            # It calls them something else, or takes any: what was given, as it was given.
            others = {each: plain[each] for each in plain.keys() - given if each in (taken or ())}
            return name(*args, **others, **kwargs)

        scope_id, replay_key = (named(name, taken) for name, taken in self._names)
        name = f"{function.__module__}.{function.__qualname__}"
        envelope = {"function": name, "arguments": dict(bound.arguments)}
        return scope_id, replay_key, envelope, lambda: function(*args, **kwargs)


_SEVERAL: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _taken_by(name: str | Callable[..., str]) -> frozenset[str] | None:
    """Return what a function that makes a scope or a key takes, by name; None if it says not, or takes any."""
    try:
        parameters = () if isinstance(name, str) else inspect.signature(name).parameters.values()
    except ValueError:  # written in C
        return None
    if any(each.kind in (*_SEVERAL, inspect.Parameter.POSITIONAL_ONLY) for each in parameters):
        return None
    return frozenset(each.name for each in parameters)


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


def _only(values: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in names}
