"""Rules about the source that no linter knows."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import lash_store

PACKAGE = Path(lash_store.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_and_functions_are_short(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for function in functions(ast.parse(text)):
        assert (function.end_lineno or 0) - function.lineno < 60, function.name


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_dialects_knows_a_dialect(file: Path) -> None:
    """SQL that one database alone understands, and the names of databases, stand in few places."""
    if "_backends" in file.parts or file.name in (
        "dialects.py",
        "schema.py",
        "sharing.py",
        "tables.py",
    ):
        # A variant of Integer; sqlite_ and postgresql_ options of tables, here and in their copies.
        return
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docstrings = {
        ast.get_docstring(node, clean=False)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value in docstrings:
                continue
            assert not node.value.upper().startswith(("PRAGMA ", "BEGIN ")), node.value
            assert node.value not in ("sqlite", "postgresql"), node.lineno


def public_objects() -> Iterator[tuple[str, object]]:
    for module in pkgutil.walk_packages([str(PACKAGE)], "lash_store."):
        if "._" in module.name:
            continue
        loaded = importlib.import_module(module.name)
        yield module.name, loaded
        for name, value in vars(loaded).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.name:
                continue
            if inspect.isfunction(value) or inspect.isclass(value):
                yield f"{module.name}.{name}", value
    for name in lash_store.__all__:
        yield f"lash_store.{name}", getattr(lash_store, name)


OBJECTS = dict(public_objects())


@pytest.mark.parametrize("name", OBJECTS)
def test_every_public_name_is_documented(name: str) -> None:
    value = OBJECTS[name]
    if isinstance(value, str):
        return  # a version
    assert inspect.getdoc(value), name
    if inspect.isclass(value):
        for attribute in list(vars(value)):
            getattr(value, attribute, None)  # a store's operations are made as they are asked for
        for attribute, member in vars(value).items():
            if not attribute.startswith("_") and (
                inspect.isfunction(member) or isinstance(member, property)
            ):
                assert inspect.getdoc(member), f"{name}.{attribute}"


def test_everything_exported_is_there_and_sorted() -> None:
    assert sorted(lash_store.__all__) == list(lash_store.__all__)
    assert len(set(lash_store.__all__)) == len(lash_store.__all__)


STORES = [
    (lash_store.SessionTx, lash_store.SessionStore, lash_store.AsyncSessionStore),
    (lash_store.ProcessTx, lash_store.ProcessRegistry, lash_store.AsyncProcessRegistry),
    (lash_store.TriggerTx, lash_store.TriggerStore, lash_store.AsyncTriggerStore),
    (lash_store.EffectTx, lash_store.EffectStore, lash_store.AsyncEffectStore),
]


@pytest.mark.parametrize(("tx", "sync", "asyncio"), STORES, ids=lambda kind: kind.__name__)
def test_one_verb_phrase_through_every_layer(tx: type, sync: type, asyncio: type) -> None:
    """An operation has one name, signature and text: on the Tx, and on both stores."""
    operations = [name for name in dir(sync) if hasattr(tx, name) and not name.startswith("_")]
    assert len(operations) > 10
    for name in operations:
        operation = getattr(tx, name)
        for store in (sync, asyncio):
            method = getattr(store, name)
            assert _beyond_self(method) == _beyond_self(operation)
            assert inspect.getdoc(method) == inspect.getdoc(operation)


def _beyond_self(method: object) -> inspect.Signature:
    """The signature but for its first parameter: a commit of a turn calls it otherwise."""
    signature = inspect.signature(method)  # type: ignore[arg-type] # reason: a function
    return signature.replace(parameters=list(signature.parameters.values())[1:])


@pytest.mark.parametrize("store", ["session", "process"])
def test_the_lease_statements_are_named_as_the_operations(store: str) -> None:
    statements = vars(importlib.import_module(f"lash_store.{store}.statements"))
    for name in ("claim_lease", "renew_lease", "release_lease", "current_lease"):
        assert name in statements


CITED = re.compile(r"\b([KSPTE]-[A-Z]+)(?:-(\d+)((?:, \d+\b| to (?:\1-)?\d+)*))?")


def defined_rules(root: Path) -> tuple[set[str], set[str]]:
    """The rules that the page defines, and its families of rules."""
    page = (root / "docs" / "rules.md").read_text(encoding="utf-8")
    rules = re.findall(r"^- \*\*([KSPTE]-[A-Z]+-\d+)\*\* ", page, re.MULTILINE)
    families = re.findall(r"^### .+ \(([KSPTE]-[A-Z]+)\)$", page, re.MULTILINE)
    assert len(set(rules)) == len(rules)
    assert len(set(families)) == len(families)
    return set(rules), set(families)


def cited_rules(text: str) -> tuple[set[str], set[str]]:
    """The rules and families that a text cites, its ranges and lists taken apart."""
    rules, families = set(), set()
    for family, first, more in CITED.findall(text):
        if not first:
            families.add(family)
            continue
        rules.add(f"{family}-{first}")
        last = int(first)
        for word, number in re.findall(r"(,| to) (?:[KSPTE]-[A-Z]+-)?(\d+)", more):
            numbers = range(last + 1, int(number) + 1) if word == " to" else [int(number)]
            rules |= {f"{family}-{each}" for each in numbers}
            last = int(number)
    return rules, families


def test_a_citation_is_taken_apart() -> None:
    text = "(S-COMMIT-1 to 9), (S-QUEUE-3, 4, 10), (P-EVENT-1 to P-EVENT-3), (S-DIR), K-TX-7."
    rules, families = cited_rules(text)
    assert families == {"S-DIR"}
    assert rules == {
        *(f"S-COMMIT-{n}" for n in range(1, 10)),
        *(f"S-QUEUE-{n}" for n in (3, 4, 10)),
        *(f"P-EVENT-{n}" for n in (1, 2, 3)),
        "K-TX-7",
    }


def test_every_rule_that_is_cited_is_defined_and_every_one_defined_is_cited(root: Path) -> None:
    rules, families = defined_rules(root)
    text = "\n".join(file.read_text(encoding="utf-8") for file in FILES)
    pages = "\n".join(
        page.read_text(encoding="utf-8")
        for page in [root / "README.md", *(root / "docs").glob("*.md")]
        if page.name != "rules.md"
    )
    for where in (text, pages):
        cited, cited_families = cited_rules(where)
        assert cited - rules == set()
        assert cited_families - families == set()
    assert {rule.rsplit("-", 1)[0] for rule in rules} == families


def test_every_rule_is_tested_by_name(root: Path) -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (root / "tests").rglob("*.py"))
    rules, _ = defined_rules(root)
    assert len(rules) > 100
    names = {rule: rule.lower().replace("-", "_") for rule in rules}
    untested = [rule for rule, name in names.items() if f"def test_{name}_" not in tests]
    assert sorted(untested) == []
