"""The built wheel, installed elsewhere without this checkout, runs the quick start."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

CHECK = """
import pathlib, sqlite3, sys
import lash_store
from lash_store.schemas import check_file
assert pathlib.Path(lash_store.__file__).is_relative_to(sys.prefix), lash_store.__file__
{quick_start}
assert check_file("chat-42.db").is_sound
for extra in ("typer", "rich", "hypothesis"):
    assert extra not in sys.modules, extra
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(root)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "lash_store/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"lash_store"}


def test_the_wheel_runs_the_quick_start_elsewhere(wheel: Path, root: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, command)),
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=clean,
        )

    installed = run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel)
    assert installed.returncode == 0, installed.stderr
    readme = (root / "README.md").read_text(encoding="utf-8")
    quick_start = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)[0]
    ran = run(python, "-c", CHECK.format(quick_start=quick_start))
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "chat-42.db").exists()
    missing = run(environment / "bin" / "lash-store", "demo")
    assert missing.returncode == 1
    assert "pip install 'lash-store[cli]'" in missing.stderr
    missing = run(python, "-c", "import lash_store.testing")
    assert missing.returncode == 1
    assert missing.stderr.splitlines()[-1] == (
        "ImportError: lash_store.testing needs Hypothesis: pip install 'lash-store[testing]'"
    )
