"""The decorator form of ``run``: how calls of functions become steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from functools import partial
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
        self._named = _named(scope_id), _named(replay_key)

    def step_of(
        self, function: Callable[..., R], signature: inspect.Signature, args: Any, kwargs: Any
    ) -> tuple[str, str, dict[str, Any], Callable[[], R]]:
        """Return what ``run`` takes for one call of `function`.

        The envelope is its name and its arguments, by name and with the defaults among them, so
        that one call has one envelope, one scope and one key however it is written.
        """
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        call = _Call(signature, bound)
        scope_id, replay_key = (named(call) for named in self._named)
        name = f"{function.__module__}.{function.__qualname__}"
        envelope = {"function": name, "arguments": dict(bound.arguments)}
        return scope_id, replay_key, envelope, lambda: function(*args, **kwargs)


class _Call:
    """One call of a function, the same however it is written: with its defaults, and others in order of their names."""

    def __init__(self, signature: inspect.Signature, bound: inspect.BoundArguments) -> None:
        self.places: tuple[Any, ...] = bound.args
        """All that can be given by place."""

        self.others: dict[str, Any] = dict(sorted(bound.kwargs.items()))
        """The rest."""

        self.unnamed: tuple[Any, ...] = ()
        named: dict[str, Any] = {}
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                self.unnamed = bound.arguments[name]
            elif parameter.kind is not parameter.VAR_KEYWORD:
                named[name] = bound.arguments[name]
        self.named: dict[str, Any] = {
            **named,
            **{k: v for k, v in self.others.items() if k not in named},
        }
        """Those that have a name; of two by one name the one that the function itself calls so."""


class _Takes(NamedTuple):
    """What a function that makes a scope or a key takes."""

    by_place: dict[str, Any]
    """Those that have no name in a call, or none that could be used, each with its default."""

    by_name: frozenset[str]
    required: frozenset[str]
    most_places: int | None
    """How many can be given by place; None for any number."""

    takes_others: bool
    names_any: bool
    """Whether it names anything, or what comes by name alone."""

    def called(self, name: Callable[..., str], call: _Call) -> str:
        """Return what it makes of a call: of what it names, where it has the function's own names for that."""
        if not self.names_any or not self.required <= call.named.keys():
            # It calls them something else, or takes whatever there is.
            return name(*call.places[: self.most_places], **self._others(call.others, ()))
        placed = [call.named.get(each, default) for each, default in self.by_place.items()]
        unnamed = call.unnamed if self.most_places is None else ()
        return name(*placed, *unnamed, **self._others(call.named, self.by_place))

    def _others(self, given: dict[str, Any], placed: Collection[str]) -> dict[str, Any]:
        return {
            each: value
            for each, value in given.items()
            if each not in placed and (self.takes_others or each in self.by_name)
        }


def _named(name: str | Callable[..., str]) -> Callable[[_Call], str]:
    """Return what gives the scope or the key of a call."""
    if isinstance(name, str):
        return lambda _: name
    return partial(_takes(name).called, name)


def _takes(name: Callable[..., str]) -> _Takes:
    try:
        parameters = inspect.signature(name).parameters.values()
    except ValueError:  # written in C: it does not say
        return _Takes({}, frozenset(), frozenset(), None, takes_others=True, names_any=False)
    kinds = [each.kind for each in parameters]
    takes_any_place = inspect.Parameter.VAR_POSITIONAL in kinds
    plain = [
        each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    by_place = [each for each in plain if each.kind is not each.KEYWORD_ONLY]
    if not takes_any_place:  # else what has no name comes behind all that can be given by place
        by_place = [each for each in by_place if each.kind is each.POSITIONAL_ONLY]
    names = {each.name for each in by_place}
    return _Takes(
        {each.name: each.default for each in by_place},
        frozenset(each.name for each in plain if each.name not in names),
        frozenset(each.name for each in plain if each.default is each.empty),
        None if takes_any_place else sum(each.kind is not each.KEYWORD_ONLY for each in plain),
        takes_others=inspect.Parameter.VAR_KEYWORD in kinds,
        names_any=bool(plain) or not takes_any_place,
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
