"""A folder of sessions that others make and remove meanwhile is checked and copied as it stands (S-DIR-2, K-SHARE-7)."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lash_store import Deployment, SessionDirectory
from lash_store.cli.app import app
from lash_store.errors import StoreBusyError
from lash_store.moving import copy_deployment

FOR_S = 4.0


def churn(folder: str, name: str) -> None:
    """Make sessions, use them, and remove others: what a child process does."""
    directory, until_s, number = SessionDirectory(folder), time.monotonic() + FOR_S, 0
    while time.monotonic() < until_s:
        number += 1
        with directory.create(f"s{number % 20}-{name}", model="m") as session:
            session.put_blob(b"x")
        with suppress(StoreBusyError):  # it is being copied
            directory.delete(f"s{(number + 10) % 20}-{name}")


@pytest.mark.canonical("folders")
@pytest.mark.posix("locks of a folder")
def test_k_share_7_a_folder_in_use_is_checked_and_copied_without_a_false_alarm(
    tmp_path: Path,
) -> None:
    root, runner = tmp_path / "dep", CliRunner()
    with Deployment.open(root) as deployment:
        deployment.sessions.create("stays", model="m").close()
    program = (
        "import sys; from tests.concurrency.test_busy_folders import churn; churn(*sys.argv[1:])"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program, str(root / "sessions"), str(at)])
        for at in range(2)
    ]
    rounds = 0
    try:
        while any(child.poll() is None for child in children):
            checked = runner.invoke(app, ["check", str(root)])
            assert checked.exit_code == 0, checked.output
            copied = copy_deployment(root, tmp_path / f"copy-{rounds}")
            assert "stays" in {each.session_id for each in copied}
            rounds += 1
        assert [child.wait() for child in children] == [0, 0]
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert rounds > 2


@pytest.mark.canonical("folders")
def test_what_is_wrong_in_a_folder_is_told_all_the_same(tmp_path: Path) -> None:
    root = tmp_path / "dep"
    with Deployment.open(root) as deployment:
        path = deployment.sessions.path_of("bad")
        deployment.sessions.create("bad", model="m").close()
    content = bytearray(path.read_bytes())
    content[4096:4196] = bytes(100)
    path.write_bytes(content)
    (root / "sessions" / "none.db").write_bytes(b"no database at all, but long enough" * 100)
    checked = CliRunner().invoke(app, ["check", str(root)])
    assert checked.exit_code == 1
    assert "none.db" in checked.output
    assert not (root / ".lock").exists()
