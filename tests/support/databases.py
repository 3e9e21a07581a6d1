"""Looking at databases with plain sqlite3, past everything that is under test."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from lash_store._backends.sqlite.database import OpenDatabase
from lash_store._backends.sqlite.handle import SqliteHandle
from lash_store._stores.store import Store
from lash_store.testing import as_another_process
from tests.support import on_server as server
from tests.support.layouts import canonical_name, on_server, select_as_canonical

P = ParamSpec("P")
R = TypeVar("R")


def database_of(store: Store[Any]) -> OpenDatabase:
    """What a store stands on: its connections, its writer, its queue of processes."""
    handle = store._handle
    assert isinstance(handle, SqliteHandle)
    return handle.database


def apart(open_store: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Open a store as another process would, with connections and a writer of its own."""
    with as_another_process():
        return open_store(*args, **kwargs)


Rows = dict[str, list[tuple[Any, ...]]]


def tokens(sql: str) -> list[str]:
    """Split SQL at white space and punctuation, strings kept whole."""
    text = sql.replace("IF NOT EXISTS", "")
    return re.findall(r"'(?:[^']|'')*'|\w+|[^\s\w]", text)


def pragma_facts(connection: sqlite3.Connection) -> dict[str, Any]:
    """What SQLite says about every table and index."""
    facts: dict[str, Any] = {}
    objects = connection.execute("SELECT type, name FROM sqlite_master").fetchall()
    for kind, name in objects:
        pragmas = (
            ["table_xinfo", "index_list", "foreign_key_list"]
            if kind == "table"
            else ["index_xinfo"]
        )
        for pragma in pragmas:
            facts[f"{pragma} {name}"] = connection.execute(f"PRAGMA {pragma}({name})").fetchall()
    return facts


def object_texts(connection: sqlite3.Connection) -> dict[str, list[str] | None]:
    """The catalogue's text of every object, as tokens; None for automatic indexes."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    return {f"{kind} {name}": tokens(sql) if sql else None for kind, name, sql in rows}


def all_rows(path: Path) -> Rows:
    """Every row of every table in the file, and the version: what a refusal must not change."""
    if on_server():
        return server.all_rows(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = lambda text: text.decode(errors="surrogateescape")
        names = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        )
        rows = {
            canonical_name(name): connection.execute(select_as_canonical(name)).fetchall()
            for (name,) in names.fetchall()
        }
        rows["user_version"] = connection.execute("PRAGMA user_version").fetchall()
        rows["schema"] = connection.execute("SELECT * FROM sqlite_master ORDER BY 2").fetchall()
        return rows


def run_script(path: Path, script: str) -> None:
    """Change a file behind the library's back."""
    if on_server():
        server.run_script(path, script)
        return
    with closing(sqlite3.connect(path, timeout=15)) as connection:
        connection.executescript(script)
