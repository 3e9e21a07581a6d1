"""The replayed conversation: with and without kills, twice over the same folder, and what it finds."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from lash_store.session.directory import SessionDirectory


@pytest.fixture
def example(root: Path) -> Path:
    return root / "examples" / "replay_conversation.py"


@pytest.fixture
def recorded(root: Path) -> Path:
    return root / "examples" / "conversation.jsonl"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)


@pytest.mark.parametrize("workers", ["1", "3"])
@pytest.mark.parametrize("kill", [[], ["--kill"]], ids=["undisturbed", "killed"])
def test_every_message_is_there_once_in_order(
    example: Path, recorded: Path, tmp_path: Path, workers: str, kill: list[str]
) -> None:
    for _ in range(2):  # the second time everything is there already
        done = run(example, recorded, tmp_path, "--workers", workers, *kill)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "6 turns" in done.stdout


def load(example: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("replay_conversation", example)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_session_that_differs_is_found(example: Path, recorded: Path, tmp_path: Path) -> None:
    assert run(example, recorded, tmp_path).returncode == 0
    module = load(example)
    conversation = module.Conversation.read(recorded)
    store = SessionDirectory(tmp_path).open("conversation")
    assert store is not None
    with store:
        assert list(module.compare(conversation, store)) == []
        store.tombstone_nodes(["m4"])
        assert len(list(module.compare(conversation, store))) == 2


def test_turns_cover_the_conversation(example: Path, recorded: Path) -> None:
    module = load(example)
    conversation = module.Conversation.read(recorded)
    turns = conversation.turns()
    assert turns[0].first == 0
    assert turns[-1].end == len(conversation.messages)
    assert all(one.end == two.first for one, two in pairwise(turns))
    assert sum(turn.ends_work for turn in turns) == len(conversation.user_messages())
