"""A database that orders text as a dictionary does, not by code points: ours is ordered as on SQLite all the same."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from tests.support import postgresql

RANGES = ("process_handles", "triggers", "neighbours")
"""The suites whose statements read ranges of keys, and pages in an order."""


@pytest.fixture(scope="module", params=["libc", *(["icu"] if postgresql.URL in os.environ else [])])
def elsewhere(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database in which "a" comes before "B".

    By the system's library, on the wheel's server, which has no other; and by ICU on one that a URL names.
    """
    with of_icu() if request.param == "icu" else of_the_system() as url:
        yield url


@contextmanager
def of_icu() -> Iterator[str]:
    """Make such a database on the server that a URL names, and drop it."""
    name, named = f"icu_{os.getpid()}", os.environ[postgresql.URL]
    with psycopg.connect(named, autocommit=True) as admin:
        admin.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
        )
        try:
            yield make_url(named).set(database=name).render_as_string(hide_password=False)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def of_the_system() -> Iterator[str]:
    """Make one on a server of its own; its locale is compiled for this test."""
    with (
        tempfile.TemporaryDirectory(prefix="locales", dir="/tmp") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        Path(folder).chmod(0o755)
        place = f"{folder}/en_US.utf8"
        subprocess.run(["localedef", "-i", "en_US", "-f", "UTF-8", place], check=True)
        patch.setenv("LOCPATH", folder)
        with postgresql.own_server() as server:
            with psycopg.connect(server.url, autocommit=True) as admin:
                admin.execute("CREATE DATABASE other TEMPLATE template0 LOCALE 'en_US.utf8'")
            yield make_url(server.url).set(database="other").render_as_string(hide_password=False)


def test_such_a_database_orders_otherwise(elsewhere: str) -> None:
    with psycopg.connect(elsewhere) as connection:
        assert connection.execute("SELECT 'a' < 'B', 'a' < 'B' COLLATE \"C\"").fetchone() == (
            True,
            False,
        )


def test_the_suites_pass_there(elsewhere: str, root: Path) -> None:
    files = [f"tests/conformance/test_{name}.py" for name in RANGES]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "--layout", "postgresql", *files],
        cwd=root,
        env={**os.environ, postgresql.URL: elsewhere},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-5_000:]
