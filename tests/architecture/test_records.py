"""Records can't be changed: they are handed to many, and some are keys."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import msgspec
import pytest

import lash_store


def structs() -> list[Any]:
    found = {}
    for module in pkgutil.walk_packages(lash_store.__path__, "lash_store."):
        if module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            is_struct = isinstance(value, type) and issubclass(value, msgspec.Struct)
            if is_struct and value.__module__.startswith("lash_store."):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return [found[name] for name in sorted(found)]


@pytest.mark.parametrize("kind", structs(), ids=lambda kind: kind.__qualname__)
def test_a_record_is_frozen(kind: Any) -> None:
    assert kind.__struct_config__.frozen
