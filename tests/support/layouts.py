"""A shared database, looked at as if it were a canonical file: for tests that serve both layouts."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Table

from lash_store._backends import is_url, open_handle
from lash_store._kernel.backend import Handle
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema
from lash_store._kernel.sharing import STORE, shared
from lash_store._stores import store
from lash_store.schemas import SCHEMAS

PREFIX = "lash_"
THE_STORE = "s"
"""The session of the fixture ``store``: whose a row is that a test writes by hand."""

TABLES: dict[str, tuple[Table[Any], Table[Any]]] = {
    there.name: (here, there)
    for schema in SCHEMAS.values()
    for here, there in zip(schema.tables, shared(schema, PREFIX).tables[1:], strict=True)
}
"""Each table in its place in a shared database: as it is in a file, and as it is there."""


LAYOUT = "LASH_STORE_TEST_LAYOUT"
"""The environment's variable that says in which layout the tests are run."""


def use_layout() -> None:
    """Where tests are run in the shared layout, open by its URL whatever is opened by a path."""
    if os.environ.get(LAYOUT) == "shared":
        vars(store)["open_handle"] = open_shared
    elif on_server():
        from tests.support.on_server import open_on_server  # noqa: PLC0415 # reason: it needs what stands here

        vars(store)["open_handle"] = open_on_server


def on_server() -> bool:
    """Whether what would be opened as a file is opened on a server."""
    return os.environ.get(LAYOUT) == "postgresql"


def open_shared(schema: Schema, where: Any, settings: Settings) -> Handle:
    """Open a shared database in the place of a file."""
    if where is None:
        where = "sqlite://"
    elif isinstance(where, (str, os.PathLike)) and not is_url(where) and Path(where).is_absolute():
        where = f"sqlite:///{os.fspath(where)}"
    opened = open_handle(schema, where, settings)
    show_as_canonical(opened)
    return opened


def canonical_name(name: str) -> str:
    """Return what a table of a shared database is called in a file."""
    return TABLES[name][0].name if name in TABLES else name


def select_as_canonical(name: str) -> str:
    """Return the query of all that is in a table, as it would be in a file."""
    if name not in TABLES:
        return f'SELECT * FROM "{name}" ORDER BY 1'
    here = TABLES[name][0]
    # By the first column alone, a server returns the rows of one process in any order.
    order = ", ".join(["1", *here.primary_key.columns.keys()])
    return f"SELECT {', '.join(here.columns.keys())} FROM {name} ORDER BY {order}"


def show_as_canonical(opened: Any) -> None:
    """Give a shared database views of its tables under the names that they have in a file.

    What is written to them goes to the tables, to the session ``s``.
    """
    if opened.path == ":memory:":
        writer = opened.database.connections.writer
        if not writer.in_transaction:
            _show(sqlite3.Connection.cursor(writer))
        return
    with closing(sqlite3.connect(opened.path, timeout=60, isolation_level=None)) as connection:
        _show(connection.cursor())


def _show(cursor: sqlite3.Cursor) -> None:
    if not _missing(cursor):
        return
    cursor.execute("BEGIN IMMEDIATE")
    for name in _missing(cursor):
        for statement in _views(*TABLES[name]):
            cursor.execute(statement)
    cursor.execute("COMMIT")


def _missing(cursor: sqlite3.Cursor) -> list[str]:
    found = {name for (name,) in cursor.execute("SELECT name FROM sqlite_master").fetchall()}
    return [name for name in TABLES if name in found and TABLES[name][0].name not in found]


def _views(here: Table[Any], there: Table[Any]) -> list[str]:
    names = list(here.columns.keys())
    listed = ", ".join(names)
    is_scoped = STORE in there.columns
    given = [_given(here, there, name) for name in names]
    scope = (f"{STORE}, ", f"'{THE_STORE}', ") if is_scoped else ("", "")
    same = " AND ".join(f"{name} IS OLD.{name}" for name in _names(here.primary_key))
    set_ = ", ".join(f"{name} = NEW.{name}" for name in names)
    head = f"CREATE TRIGGER {here.name}_{{0}} INSTEAD OF {{0}} ON {here.name} BEGIN "
    return [
        f"CREATE VIEW {here.name} AS SELECT {listed} FROM {there.name}",
        head.format("INSERT")
        + f"INSERT INTO {there.name} ({scope[0]}{listed}) VALUES ({scope[1]}{', '.join(given)}); END",
        head.format("UPDATE") + f"UPDATE {there.name} SET {set_} WHERE {same}; END",
        head.format("DELETE") + f"DELETE FROM {there.name} WHERE {same}; END",
    ]


def _names(rule: Any) -> list[str]:
    return [column.name for column in rule.columns]


def _given(here: Table[Any], there: Table[Any], name: str) -> str:
    column: Any = here.columns[name]
    if column is here._autoincrement_column and STORE in there.columns:
        highest = f"SELECT coalesce(max({name}), 0) + 1 FROM {there.name}"
        return f"coalesce(NEW.{name}, ({highest} WHERE {STORE} = '{THE_STORE}'))"
    if column.server_default is None:
        return f"NEW.{name}"
    default = column.server_default.arg
    text = f"'{default}'" if isinstance(default, str) else str(default)
    return f"coalesce(NEW.{name}, {text})"
