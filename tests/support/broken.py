"""Where broken implementations are noted: what they are made of, and what may be found of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T", bound=type)


class Broken(dict[str, tuple[Any, set[str]]]):
    """By name, a broken implementation and the violations of which one has to be found."""

    def __call__(self, *names: str) -> Callable[[T], T]:
        def note(kind: T) -> T:
            self[kind.__name__] = (kind, set(names))
            return kind

        return note
