"""Stored values that nobody wrote, through every read and write: a value, or an error that says what is wrong.

One column of any row is replaced by what another program, or a broken disk, might have left there, or one
member of the JSON in it. ``LASH_STORE_PROFILE=deep`` tries many more.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from lash_store.errors import (
    CorruptRecordError,
    IdempotencyConflictError,
    LashStoreError,
    NotFoundError,
    StorageError,
)
from lash_store.schemas import SCHEMAS, Kind
from tests.support.databases import all_rows, run_script
from tests.support.stored import (
    ADD,
    READS,
    draw_changed,
    draw_spoiled,
    packed,
    put_value,
    rows_of,
    unpacked,
)
from tests.support.writes import WRITES, Filled

pytestmark = pytest.mark.layouts("writes to the tables by their canonical names")

ANSWERS = (CorruptRecordError, NotFoundError, IdempotencyConflictError)
"""What a read may say: the row can't be read, or by its spoiled key it is not there, or is another's."""

EACH = pytest.mark.parametrize("kind", SCHEMAS)
TABLES = {kind: {table.name: table for table in SCHEMAS[kind].tables} for kind in SCHEMAS}
COLUMNS = {
    kind: [(name, column.name) for name, table in TABLES[kind].items() for column in table.c]
    for kind in SCHEMAS
}


@cache
def filled(kind: Kind) -> Filled:
    """A store with rows in every table."""
    made = Filled(kind, Path(tempfile.mkdtemp()))
    with made.open(made.file, "more") as store:
        ADD[kind](store)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spoiled.db"


def spoil(kind: Kind, path: Path, data: st.DataObject) -> bool:
    """Put a drawn value into a drawn row, and tell whether any program could."""
    filled(kind).copy_to(path)
    table, column = data.draw(st.sampled_from(COLUMNS[kind]), "column")
    row = data.draw(st.sampled_from(rows_of(path, TABLES[kind][table])), "row")
    old = row[TABLES[kind][table].columns.keys().index(column)]
    return put_value(path, TABLES[kind][table], row, column, draw_spoiled(data, old))


def read_all(kind: Kind, store: Any) -> None:
    """Read everything; each read gives a value, or says what one may say."""
    for calls in READS[kind].values():
        for call in calls(store, filled(kind).held):
            with suppress(*ANSWERS):
                call()


@EACH
def test_there_are_rows_in_every_table_and_all_reads_are_called(kind: Kind) -> None:
    made = filled(kind)
    assert all(rows_of(made.file, table) for table in TABLES[kind].values())
    with made.open(made.file) as opened:
        store: Any = opened
        operations = store._operations
        assert set(READS[kind]) == {name for name, each in operations.items() if not each.writes}
        for calls in READS[kind].values():
            for call in calls(store, made.held):
                call()


@EACH
@settings(deadline=None, max_examples=settings().max_examples * 3)
@given(data=st.data())
def test_whatever_stands_there_is_read_or_refused(
    path: Path, kind: Kind, data: st.DataObject
) -> None:
    if spoil(kind, path, data):
        with filled(kind).open(path) as store:
            read_all(kind, store)


@EACH
@settings(deadline=None, max_examples=settings().max_examples * 3)
@given(data=st.data())
def test_whatever_stands_there_is_written_beside_or_refused(
    path: Path, kind: Kind, data: st.DataObject
) -> None:
    write = data.draw(st.sampled_from(sorted(WRITES[kind])), "write")
    if not spoil(kind, path, data):
        return
    before, refusal = all_rows(path), None
    with filled(kind).open(path) as store:
        try:
            WRITES[kind][write](store, filled(kind).held)
        except LashStoreError as error:
            refusal = error
    if refusal is not None:
        used_up = "SQLITE_FULL" in str(refusal)  # the numbers of an AUTOINCREMENT
        assert used_up or not isinstance(refusal, StorageError)
        assert all_rows(path) == before


def head_with(path: Path, checkpoint_ref: str) -> str:
    """The head's JSON, but for its checkpoint."""
    ((_, _, head_json, _),) = rows_of(path, TABLES["session"]["session_head"])
    return json.dumps({**json.loads(head_json), "checkpoint_ref": checkpoint_ref})


@settings(deadline=None)
@given(data=st.data())
def test_whatever_a_checkpoint_says_under_its_right_hash_is_read_or_refused(
    path: Path, data: st.DataObject
) -> None:
    made = filled("session")
    made.copy_to(path)
    with made.open(path) as opened:
        store: Any = opened
        ref = store.load_receipt("turn-1").checkpoint_ref
        for _ in range(data.draw(st.integers(1, 2), "changes")):
            value, _ = unpacked(store.load_blob(ref)) or ({}, packed)
            ref = store.put_blob(packed(draw_changed(data, value)), kind="CheckpointManifest")
        run_script(path, f"UPDATE session_head SET head_json = '{head_with(path, ref)}'")
        read_all("session", store)
