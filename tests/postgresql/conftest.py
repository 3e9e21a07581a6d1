"""A real server for the tests of what PostgreSQL has of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, make_url

import lash_store
from tests.support import postgresql
from tests.support.proxy import Proxy, proxy

_numbers = count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a server that all tests of a worker share."""
    with postgresql.server() as url:
        yield url


@pytest.fixture
def admin(server: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to it, past everything that is under test."""
    with psycopg.connect(server, autocommit=True) as connection:
        yield connection


@pytest.fixture
def place(admin: psycopg.Connection[Any]) -> Iterator[str]:
    """An empty schema of its own."""
    name = f"own_{os.getpid()}_{next(_numbers)}"
    admin.execute(f"CREATE SCHEMA {name}")
    yield name
    admin.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture
def url(server: str) -> str:
    """The server's URL, as a store takes it."""
    return make_url(server).set(drivername="postgresql+psycopg").render_as_string(False)


@pytest.fixture
def wire(url: str) -> Iterator[Proxy]:
    """A wire to it that can be made slow, or cut."""
    with proxy(make_url(url)) as made:
        yield made


@pytest.fixture
def own_url(url: str, place: str) -> str:
    """The URL as an application has it, whose role looks into one schema first."""
    seen = make_url(url).update_query_dict({"options": f"-csearch_path={place}"})
    return seen.render_as_string(hide_password=False)


@pytest.fixture
def engine(own_url: str) -> Iterator[Engine]:
    made = lash_store.configure(create_engine(own_url), busy_timeout_ms=200)
    yield made
    made.dispose()
