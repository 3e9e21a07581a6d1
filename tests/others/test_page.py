"""The page on packages of others runs, in order, in one program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.others.redis_server import Server

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing_others.md"


def test_every_python_example_runs(server: Server) -> None:
    namespace: dict[str, Any] = {"__name__": "page", "redis_on": server.client}
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{PAGE.name}, example {number}", "exec", dont_inherit=True), namespace)
    assert len(blocks) == 2
