"""A database on a server in the place of each file: for tests that serve every backend.

Each path has a schema of its own there, with views of our tables under the names that they have in
a file. What is written to them goes to the tables, to the session ``s``.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from itertools import count
from pathlib import Path
from threading import get_ident
from typing import Any

import psycopg
from msgspec.structs import replace
from sqlalchemy import Table, make_url

from lash_store._backends import is_url, open_handle
from lash_store._kernel.backend import Handle
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema
from lash_store._kernel.sharing import STORE
from lash_store.schemas import SCHEMAS, render_all
from tests.support import layouts
from tests.support.postgresql import URL, placed

_numbers = count(1)
_SEQUENCE = "lash_trigger_subscription_seq_id_seq"

_places: dict[str, str] = {}
"""The schemas that this process has found in the places of files, by what these are called."""

_kept: set[str] = set()
"""Those of them that more than one test uses."""

_connections: dict[tuple[int, int], psycopg.Connection[Any]] = {}


@atexit.register
def _close_connections() -> None:
    """Close those of this process: a forked child has its parent's beside its own, which stay open."""
    for (process_id, _), connection in _connections.items():
        if process_id == os.getpid():
            connection.close()


def open_on_server(schema: Schema, where: Any, settings: Settings) -> Handle:
    """Open a schema of the server in the place of a file, or of a database in memory."""
    if is_url(where) or not isinstance(where, (str, os.PathLike, type(None))):
        return open_handle(schema, where, settings)
    key = _key_of(where)
    called = replace(settings, pool_size=4, application_name=key)
    return open_handle(schema, url(_schema_at(key)), called)


def url(name: str) -> str:
    """Return the URL of the server's database, seen by who looks into one schema first."""
    given = make_url(os.environ[URL]).set(drivername="postgresql+psycopg")
    return placed(given.render_as_string(hide_password=False), name)


def schema_of(where: Any) -> str:
    """Return the schema that stands in the place of a file; of no file, a new one.

    Making one takes longer than most tests, so they are used again: see :func:`clean`.
    """
    return _schema_at(_key_of(where))


def _schema_at(key: str) -> str:
    if key not in _places:
        _places[key] = _assigned(key)
    return _places[key]


def _key_of(where: Any) -> str:
    text = f"{os.getpid()} {next(_numbers)}" if where is None else str(Path(os.fspath(where)))
    return blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def keep(path: Path) -> None:
    """Leave what stands in the place of a file there, when a test has ended, for other tests."""
    _kept.add(_key_of(path))


def empty(path: Path) -> None:
    """Remove every row of what stands in the place of a file."""
    connection = admin()
    with connection.transaction():
        connection.execute(f"SET LOCAL search_path = {schema_of(path)}")
        connection.execute(_emptied())


def copy(source: Path, target: Path) -> None:
    """Put the rows of one into another, in the place of what is there."""
    name, connection = schema_of(source), admin()
    copied = "; ".join(f"INSERT INTO {each} SELECT * FROM {name}.{each}" for each in layouts.TABLES)
    number = f"(SELECT last_value, is_called FROM {name}.{_SEQUENCE}) AS seq"
    with connection.transaction():
        connection.execute(f"SET LOCAL search_path = {schema_of(target)}")
        connection.execute(f"{_emptied()}; {copied}")
        connection.execute(f"SELECT setval('{_SEQUENCE}', last_value, is_called) FROM {number}")


def _assigned(key: str) -> str:
    connection = admin()
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(1)")  # others come at once
        connection.execute(
            "CREATE TABLE IF NOT EXISTS public.places (schema text PRIMARY KEY, key text UNIQUE)"
        )
        row = connection.execute(
            "SELECT schema FROM public.places WHERE key = %s", [key]
        ).fetchone()
        row = (
            row
            or connection.execute(
                "UPDATE public.places SET key = %s WHERE schema = "
                "(SELECT schema FROM public.places WHERE key IS NULL LIMIT 1) RETURNING schema",
                [key],
            ).fetchone()
        )
        if row is not None:
            return str(row[0])
        # In one transaction: whoever finds its name finds it whole.
        connection.execute("INSERT INTO public.places VALUES (%s, %s)", [f"t_{key}", key])
        _make(f"t_{key}", connection)
    return f"t_{key}"


def _make(name: str, connection: psycopg.Connection[Any]) -> None:
    connection.execute(f"CREATE SCHEMA {name}; SET LOCAL search_path = {name}")
    connection.execute(render_all(SCHEMAS.values(), dialect="postgresql"))
    for here, there in layouts.TABLES.values():
        connection.execute("; ".join(_views(here, there)))


def clean() -> None:
    """Empty the schemas that a test has used, for the next one; one that it has altered is dropped."""
    there = {*layouts.TABLES, "lash_versions", *(here.name for here, _ in layouts.TABLES.values())}
    connection = admin()
    for key, name in list(_places.items()):
        if key in _kept:
            continue
        del _places[key]
        was_in_use = _end_all(key)  # what a test has left open must not write to the next one's
        with suppress(psycopg.Error), connection.transaction():
            connection.execute(f"SET LOCAL lock_timeout = 500; SET LOCAL search_path = {name}")
            found = connection.execute(_RELATIONS).fetchall()
            # What was writing may go on by a new connection, with the calls that were in line.
            if {each[0] for each in found} == there and not was_in_use:
                connection.execute(_emptied())
                connection.execute("UPDATE public.places SET key = NULL WHERE schema = %s", [name])
            else:
                connection.execute("DELETE FROM public.places WHERE schema = %s", [name])
                connection.execute(f"DROP SCHEMA {name} CASCADE")


def _end_all(key: str) -> bool:
    """End the connections to what stood in the place of one file; tell whether one was in use."""
    connection, was_in_use = admin(), False
    for _ in range(200):
        left = connection.execute(
            "SELECT pg_terminate_backend(pid), state FROM pg_stat_activity "
            "WHERE application_name = %s",
            [key],
        ).fetchall()
        was_in_use = was_in_use or any(state != "idle" for _, state in left)
        if not left:
            break
        time.sleep(0.005)
    return was_in_use


def _emptied() -> str:
    reversed_ = list(reversed(layouts.TABLES))  # those that refer to others first
    deleted = "; ".join(f"DELETE FROM {name}" for name in reversed_)
    return f"{deleted}; SELECT setval('{_SEQUENCE}', 1, false)"


_RELATIONS = (
    "SELECT relname FROM pg_class "
    "WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'v')"
)


def admin() -> psycopg.Connection[Any]:
    """Return a connection to the server, past everything that is under test."""
    mine = os.getpid(), get_ident()
    found = _connections.get(mine)
    if found is None or found.closed:
        found = _connections[mine] = psycopg.connect(os.environ[URL], autocommit=True)
    return found


def _views(here: Table[Any], there: Table[Any]) -> list[str]:
    names = list(here.columns.keys())
    listed = ", ".join(names)
    if STORE not in there.columns:
        return [f"CREATE OR REPLACE VIEW {here.name} AS SELECT {listed} FROM {there.name}"]
    given = ", ".join(_given(here, there, name) for name in names)
    insert = f"INSERT INTO {there.name} ({STORE}, {listed}) VALUES ('{layouts.THE_STORE}', {given})"
    return [
        f"CREATE OR REPLACE VIEW {here.name} AS SELECT {listed} FROM {there.name}",
        f"CREATE OR REPLACE FUNCTION insert_{here.name}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {insert}; RETURN NEW; END $$",
        f"CREATE OR REPLACE TRIGGER inserted INSTEAD OF INSERT ON {here.name} "
        f"FOR EACH ROW EXECUTE FUNCTION insert_{here.name}()",
    ]


def _given(here: Table[Any], there: Table[Any], name: str) -> str:
    column: Any = here.columns[name]
    if column is here._autoincrement_column:
        highest = f"SELECT coalesce(max({name}), 0) + 1 FROM {there.name}"
        return f"coalesce(NEW.{name}, ({highest} WHERE {STORE} = '{layouts.THE_STORE}'))"
    if column.server_default is None:
        return f"NEW.{name}"
    default = column.server_default.arg
    text = f"'{default}'" if isinstance(default, str) else str(default)
    return f"coalesce(NEW.{name}, {text})"


def all_rows(path: Any) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of ours in the place of a file, as it would be there."""
    name, connection = schema_of(path), admin()
    with connection.transaction():
        connection.execute(f"SET LOCAL search_path = {name}")
        found = connection.execute(
            "SELECT relname FROM pg_class "
            "WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' ORDER BY 1"
        ).fetchall()
        names = [name for (name,) in found]
        # Most are empty, and each takes a round trip.
        filled = " UNION ALL ".join(
            f"SELECT '{name}' WHERE EXISTS (SELECT FROM {name})" for name in names
        )
        full = {row[0] for row in connection.execute(filled).fetchall()}
        rows: dict[str, list[tuple[Any, ...]]] = {}
        for name in names:
            key, query = layouts.canonical_name(name), layouts.select_as_canonical(name)
            rows[key] = connection.execute(query).fetchall() if name in full else []
        return rows


def run_script(path: Any, script: str) -> None:
    """Change a database behind the library's back."""
    with transaction_at(path) as connection:
        connection.execute(script)


@contextmanager
def transaction_at(path: Any) -> Iterator[psycopg.Connection[Any]]:
    """Begin a transaction past the library, in what stands in the place of a file."""
    name, connection = schema_of(path), admin()
    with connection.transaction():
        connection.execute(f"SET LOCAL search_path = {name}")
        yield connection
