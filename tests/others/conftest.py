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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What these packages leave to the garbage collector fails no test: it comes in whichever runs then."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(
                pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
            )
