"""The README's examples run, in order, in one program; its commands are those that CI runs."""

from __future__ import annotations

import re
import unittest
from pathlib import Path
from typing import Any

import pytest

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(root: Path) -> list[str]:
    return BLOCK.findall((root / "README.md").read_text(encoding="utf-8"))


def test_every_python_example_runs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "readme"}
    for number, block in enumerate(blocks(root), 1):
        exec(compile(block, f"README.md, example {number}", "exec", dont_inherit=True), namespace)
    assert {path.name for path in tmp_path.glob("*.db")} == {
        "chat-42.db",
        "app.db",
        "effects.db",
        "processes.db",
    }
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(namespace["TestDictLocks"])
    result = unittest.TextTestRunner().run(suite)
    assert result.testsRun == 1
    assert result.wasSuccessful()


@pytest.mark.parametrize(
    "page", ["process", "trigger", "effect", "layouts", "composing", "holding", "testing"]
)
def test_every_python_example_of_a_page_runs(
    root: Path, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (root / "docs" / f"{page}.md").read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": page}
    for number, block in enumerate(BLOCK.findall(text), 1):
        exec(compile(block, f"{page}.md, example {number}", "exec", dont_inherit=True), namespace)
    assert list(tmp_path.iterdir())


def test_the_quick_start_is_short(root: Path) -> None:
    assert len(blocks(root)[0].splitlines()) <= 15


def test_ci_runs_the_readmes_test_command(root: Path) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8")
    command = (root / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    assert f"`{command}`" in readme


def test_every_link_leads_somewhere(root: Path) -> None:
    for page in [root / "README.md", *root.glob("docs/*.md"), *root.glob("bench/*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
