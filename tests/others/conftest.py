from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.others import redis_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis_server.Server]:
    folder: Path = tmp_path_factory.mktemp("redis")
    with redis_server.running(folder) as running:
        yield running
