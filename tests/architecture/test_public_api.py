"""The public API stands in ``docs/public_api.txt``: what changes it shows up in a diff.

``LASH_STORE_WRITE_API=1`` writes it anew. What is not in the file is private, whatever its name.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import sqlalchemy

import lash_store
from lash_store.statements import Prepared

STORES = ("session", "process", "trigger", "effect")
MODULES = (
    "lash_store",
    "lash_store.clock",
    "lash_store.errors",
    "lash_store.leases",
    "lash_store.routing",
    "lash_store.schemas",
    "lash_store.statements",
    "lash_store.testing",
    "lash_store.testing.strategies",
    *(
        f"lash_store.{store}.{part}"
        for store in STORES
        for part in ("records", "statements", "tables")
    ),
)


def test_the_front_is_small_and_collides_with_no_name_of_sqlalchemys() -> None:
    assert len(lash_store.__all__) <= 60
    assert set(lash_store.__all__) & set(dir(sqlalchemy)) <= {"__version__"}
    records = [*exported("lash_store.process.records"), *exported("lash_store.trigger.records")]
    assert not {"Engine", "Identity"} & set(records)


def test_errors_have_one_home() -> None:
    assert not [name for name in lash_store.__all__ if name.endswith(("Error", "Warning"))]


def test_the_public_api_is_as_written_down(root: Path) -> None:
    file = root / "docs" / "public_api.txt"
    text = "\n".join(line for module in MODULES for line in described(module)) + "\n"
    if os.environ.get("LASH_STORE_WRITE_API"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def exported(name: str) -> dict[str, Any]:
    """What a module hands out: its ``__all__``, or what it defines or passes on of the library's."""
    module = importlib.import_module(name)
    names = getattr(module, "__all__", None) or [
        each for each, value in vars(module).items() if each[0] != "_" and _is_ours(value, module)
    ]
    return {each: getattr(module, each) for each in sorted(names)}


def _is_ours(value: Any, module: ModuleType) -> bool:
    if inspect.ismodule(value):
        return False
    if isinstance(value, (Prepared, sqlalchemy.Table, lash_store.LeaseTable)):
        return True
    home = getattr(value, "__module__", "")
    package = module.__name__.rsplit(".", 1)[0]
    if inspect.isroutine(value) or inspect.isclass(value):
        is_passed_on = module.__file__ is not None and module.__file__.endswith("__init__.py")
        return home == module.__name__ or (
            is_passed_on and home.startswith((f"{package}.", "lash_store._"))
        )
    return False


def described(module: str) -> Iterator[str]:
    yield f"# {module}"
    for name, value in exported(module).items():
        if inspect.isclass(value):
            yield f"class {name}{_bases(value)}"
            if module in ("lash_store", "lash_store.leases", "lash_store.statements"):
                yield from (f"    {line}" for line in _members(value))
            elif issubclass(value, msgspec.Struct):
                fields = msgspec.structs.fields(value)
                yield from (f"    {each.name}{'' if each.required else ' = …'}" for each in fields)
        elif isinstance(value, Prepared) or inspect.isroutine(value):
            yield f"def {name}{_signature(value)}"
        else:
            yield f"{name}: {type(value).__name__}"
    yield ""


def _bases(kind: type) -> str:
    shown = [base.__name__ for base in kind.__bases__ if base is not object]
    return f"({', '.join(shown)})" if shown else ""


def _members(kind: type) -> Iterator[str]:
    members: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("lash_store"):
            for name in list(vars(base)):
                getattr(base, name, None)  # a store's operations are made as they are asked for
            members.update(vars(base))
    if issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            yield f"{field.name}{'' if field.required else ' = …'}"
            members.pop(field.name, None)
    for name, value in sorted(members.items()):
        if name.startswith("_") and name != "__init__":
            continue
        function = getattr(value, "__func__", value)
        if inspect.isfunction(function):
            yield f"def {name}{_signature(function, of_method=True)}"
        elif isinstance(value, property):
            yield f"{name}"


def _signature(function: Any, *, of_method: bool = False) -> str:
    """Names, kinds and defaults; the annotations are the type checkers'."""
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in list(signature.parameters.values())[of_method:]
    ]
    bare = signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    return str(bare)
