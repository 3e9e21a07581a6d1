"""Members of stored JSON, whoever wrote it: both databases find the same text, and neither raises."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from sqlalchemy import Text, column, select, table

from lash_store._backends.postgresql.dialect import dialect_for
from lash_store._backends.sqlite.dialect import SQLITE
from lash_store._kernel.dialects import IsNoJson, JsonText
from tests.support import postgresql

records = table("records", column("record_json", Text()))

TEXTS = [
    '{"a": {"b": "x"}}',
    '{"a": {"b": ""}}',
    '{"a": {"b": "é, \U0001f600"}}',
    r'{"a": {"b": "\ud83d\ude00"}}',
    r'{"a": {"b": "\u00e9"}}',
    '{"a": {"b": null}}',
    '{"a": {}}',
    '{"a": null}',
    '{"a": "x"}',
    '{"a": ["b"]}',
    "{}",
    '{"a":{"b":{"z":[2],"c":1}}}',
    '{"a":{"b":[1,{"x":"y"}]}}',
    "[]",
    "null",
    '"x"',
    "",
    " ",
    "no json",
    "{a: 1}",
    '{"a": {"b": "x"},}',
    '{"a": {"b": "x"}} ',
    '{"a": {"b": "x"}, "text": 12345678901234567890123456789}',
    '{"a": {"b": "x"}, "text": 1e999}',
    r'{"a": {"b": "x"}, "text": "\u0000"}',
    r'{"a": {"b": "x"}, "text": "\\u0000"}',
    r'{"a": {"b": "x"}, "text": "\ud800"}',
    r'{"a": {"b": "x"}, "text": "\udc00\ud800"}',
    r'{"a": {"b": "x", "c": "\u0000"}, "\u0000": 1}',
    r'{"a": {"b": "\\\\"}, "text": "\u0000"}',
]

ALIKE_BUT_FOR_THEIR_TYPE = ['{"a": {"b": 1}}', '{"a": {"b": 12345678901234567890123}}']
"""SQLite gives a number, PostgreSQL its text: neither is what a name is compared with."""


@pytest.fixture(scope="module")
def connection() -> Iterator[psycopg.Connection]:
    with postgresql.server() as url, postgresql.schema(url, f"members_{os.getpid()}") as connection:
        connection.execute("CREATE TABLE records (record_json TEXT)")
        yield connection


def found(connection: psycopg.Connection, text: str) -> list[tuple[object, object]]:
    """Return the member and whether it is no JSON, of SQLite and of PostgreSQL."""
    wanted = select(
        JsonText(records.c.record_json, "a", "b"), IsNoJson(records.c.record_json)
    ).select_from(records)
    with closing(sqlite3.connect(":memory:")) as lite:
        lite.execute("CREATE TABLE records (record_json TEXT)")
        lite.execute("INSERT INTO records VALUES (?)", (text,))
        member, broken = lite.execute(str(wanted.compile(dialect=SQLITE))).fetchone()
    connection.execute("TRUNCATE records")
    connection.execute("INSERT INTO records VALUES (%s)", (text,))
    answer = connection.execute(str(wanted.compile(dialect=dialect_for("lash_")))).fetchone()
    assert answer is not None
    return [(member, bool(broken)), tuple(answer)]


@pytest.mark.parametrize("text", TEXTS, ids=map(str, range(len(TEXTS))))
def test_both_find_the_same(connection: psycopg.Connection, text: str) -> None:
    here, there = found(connection, text)
    assert there == here


@pytest.mark.parametrize("text", ALIKE_BUT_FOR_THEIR_TYPE)
def test_numbers_are_text_on_postgresql(connection: psycopg.Connection, text: str) -> None:
    (member, broken), (text_there, broken_there) = found(connection, text)
    assert broken == broken_there is False
    assert text_there == text.rpartition(": ")[2].strip("}")
    assert member is not None


def test_of_two_members_of_one_name_each_takes_its_own(connection: psycopg.Connection) -> None:
    """What no program of ours writes: SQLite finds the first, PostgreSQL the last."""
    here, there = found(connection, '{"a": {"b": "x", "b": "y"}}')
    assert (here[0], there[0]) == ("x", "y")
