"""How SQLite finds subscriptions and deliveries by a filter: by the index that is there for it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from lash_store._kernel.prepared import Prepared
from lash_store._kernel.sharing import shared
from lash_store.schemas import SCHEMAS, canonical_statements
from lash_store.trigger import statements
from tests.statements.test_listing import plan

LAYOUTS: dict[str, Any] = {
    "file": SCHEMAS["trigger"],
    "shared": shared(SCHEMAS["trigger"], "lash_"),
}
SUBSCRIPTIONS: dict[str, Any] = dict.fromkeys(
    ("scope_id", "frames_from", "frames_to", "session_id", "handle", "name", "source_type",
     "source_key", "definition", "definition_json", "enabled")
) | {"after_scope_id": "h", "after_handle": "t", "before_scope_id": "i", "limit": 10}  # fmt: skip
DELIVERIES: dict[str, Any] = dict.fromkeys(
    ("occurrence_id", "subscription_id", "process_id", "created_before_ms")
) | {"after_occurrence_id": "", "after_subscription_id": "", "limit": 10}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("statement", "given", "found_by"),
    [
        (
            statements.list_subscriptions,
            {**SUBSCRIPTIONS, "scope_id": "host", "frames_from": "a", "frames_to": "b"},
            "registrant_scope_id>? AND registrant_scope_id<?",
        ),
        (
            statements.list_source,
            {**SUBSCRIPTIONS, "source_type": "cron", "source_key": "daily"},
            "source_type=? AND source_key=?",
        ),
        (statements.list_process, {**DELIVERIES, "process_id": "p"}, "(process_id=?)"),
        (statements.list_occurrence, {**DELIVERIES, "occurrence_id": "o"}, "(occurrence_id=?"),
    ],
    ids=["session", "source", "process", "occurrence"],
)
def test_a_filter_is_found_by_its_index(
    layout: str, statement: Prepared[..., Any], given: dict[str, Any], found_by: str
) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        for each in canonical_statements(LAYOUTS[layout]):
            connection.execute(each)
        first, *_ = plan(connection, layout, statement, **given)
    assert first.startswith("SEARCH")
    assert found_by in first
