"""A pytest plugin that takes away what POSIX has and Windows has not, before anything is imported.

    pytest -p tests.support.no_posix tests/conformance

Tests that need one of them are marked ``posix``, and left out.
"""

import os
import signal
import sys

import pytest

sys.modules["fcntl"] = None  # type: ignore[assignment] # reason: importing it is an ImportError from now on
for _module, _name in (
    (os, "O_CLOEXEC"),
    (os, "O_NOFOLLOW"),
    (os, "fchmod"),
    (os, "fchown"),
    (os, "register_at_fork"),
    (os, "fork"),
    (signal, "SIGKILL"),
    (signal, "SIGSTOP"),
    (signal, "SIGCONT"),
):
    delattr(_module, _name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what can't be run without them."""
    items[:] = [item for item in items if item.get_closest_marker("posix") is None]
