"""Values that stand where they do not belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from lash_store import Node, UsageDelta
from lash_store.errors import LashStoreError
from tests.support.databases import all_rows


class NoJson:
    """An object of a type that JSON has no place for; its name does not change from run to run."""

    def __repr__(self) -> str:
        return "NoJson()"


WRONG = st.sampled_from(
    [
        None,
        True,
        7,
        -1,
        2**63,
        2**70,
        0.5,
        float("nan"),
        "",
        "text",
        "\ud800",
        "\0",
        b"bytes",
        [],
        [None],
        ["text"],
        [7],
        ["\ud800"],
        {},
        {"a": 1},
        {1: 2},
        {"\ud800": 1},
        (),
        {1, 2},
        object(),
        [object()],
        Node("x", None),
        [Node("x", None)],
        UsageDelta("a", "m"),
        [UsageDelta("a", "m", -1)],
        lambda: None,
    ]
)


def replaced(record: Any, name: str, value: object) -> Any:
    return msgspec.structs.replace(record, **{name: value})


def attempt(path: Path, call: Any) -> None:
    """No driver's, codec's or interpreter's error may come out, and a refusal changes nothing."""
    before = all_rows(path)
    try:
        call()
    except LashStoreError:
        assert all_rows(path) == before


def fields(kind: type[msgspec.Struct]) -> st.SearchStrategy[str]:
    return st.sampled_from(kind.__struct_fields__)
