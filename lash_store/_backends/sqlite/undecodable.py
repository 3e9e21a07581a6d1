"""Text in a database that is no UTF-8: which row it stands in.

SQLite stores whatever bytes a program gives it as text. The driver refuses to read such a row, and
names the column; whoever is to mend it needs the table and the key, so the row is read once more, as
bytes.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from lash_store._kernel.backend import Statement
from lash_store.errors import CorruptRecordError

_COLUMN: Final = re.compile(r"Could not decode to UTF-8 column '(.+?)' with text", re.DOTALL)


def undecodable_column(error: Exception) -> str | None:
    """Return the column in which text can't be decoded, if that is what `error` says: it quotes the text."""
    found = _COLUMN.match(str(error))
    return None if found is None else found[1]


def undecodable_text(
    error: Exception,
    connection: sqlite3.Connection,
    statement: Statement,
    values: Sequence[Any],
) -> CorruptRecordError | None:
    """Return the error of a row whose text can't be decoded, if that is what `error` says."""
    said = undecodable_column(error)
    if said is None:
        return None
    row = _find_row(connection, statement, values)
    at, key = row if row is not None else (None, statement.key_of(None, values))
    table, column = statement.column(at if at is not None else said)
    return CorruptRecordError(table, key, f"its {column} is no UTF-8")


def _find_row(
    connection: sqlite3.Connection, statement: Statement, values: Sequence[Any]
) -> tuple[int, str] | None:
    """Read as bytes what was to be read; return the column and the key of the first bad row."""
    if statement.writes:
        return None  # it must not be done again
    as_text, connection.text_factory = connection.text_factory, bytes
    try:
        rows = sqlite3.Cursor(connection).execute(statement.sql, values).fetchall()
    finally:
        connection.text_factory = as_text
    for row in rows:
        for at, value in enumerate(row):
            if isinstance(value, bytes) and statement.is_text(at) and not _is_utf8(value):
                return at, statement.key_of(row, values)
    return None


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
