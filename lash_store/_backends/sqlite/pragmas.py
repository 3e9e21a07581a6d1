"""What a consumer sets on ``tx.connection`` with PRAGMA, or makes beside the database, and how it is undone at the end.

A setting of the connection belongs to no transaction: no rollback would undo it, and whoever uses
the connection next would have it.
"""

import re
import sqlite3
from contextlib import suppress
from functools import cache
from typing import Final

_NAMES: Final = (
    "analysis_limit",
    "automatic_index",
    "busy_timeout",
    "cache_size",
    "cache_spill",
    "case_sensitive_like",
    "cell_size_check",
    "checkpoint_fullfsync",
    "count_changes",
    "empty_result_callbacks",
    "foreign_keys",
    "full_column_names",
    "fullfsync",
    "hard_heap_limit",
    "ignore_check_constraints",
    "journal_size_limit",
    "legacy_alter_table",
    "locking_mode",
    "max_page_count",
    "mmap_size",
    "query_only",
    "read_uncommitted",
    "recursive_triggers",
    "reverse_unordered_selects",
    "secure_delete",
    "short_column_names",
    "soft_heap_limit",
    "synchronous",
    "temp_store",
    "threads",
    "trusted_schema",
    "wal_autocheckpoint",
    "writable_schema",
)


@cache  # who only reads and changes rows does not wait for it to be compiled
def _setting() -> re.Pattern[str]:
    return re.compile(
        rf"""(?: [\s;\ufeff] | --[^\n]*\n | /\*.*?\*/ )*
        PRAGMA (?: \s | --[^\n]*\n | /\*.*?\*/ )+ (?: \w+ \s* \. \s* )?
        ["'`\[]? ({"|".join(_NAMES)}) ["'`\]]? \s* [=(]""",
        re.VERBOSE | re.IGNORECASE | re.DOTALL,
    )


_UNREADABLE: Final = {"case_sensitive_like": 0}
"""The default of what can be set and not be read."""


_BESIDE: Final = re.compile(
    r"""\b ATTACH \b | \b TEMP ["'`\]]? \s* \. | \b sqlite_temp
    | \b TEMP (?: ORARY )? (?: \s | --[^\n]*\n | /\*.*?\*/ )+ (?: TABLE | VIEW | TRIGGER ) \b""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
"""What may make something that lasts as long as the connection: nobody else is to write to it, or fire its triggers."""


_MADE: Final = """
SELECT type, name FROM temp.sqlite_master WHERE type <> 'index' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'
ORDER BY type = 'table', sql NOT LIKE 'CREATE VIRTUAL%'"""
"""What is on a table goes before it, a virtual one before its own."""


def _quoted(name: object) -> str:
    return '"' + str(name).replace('"', '""') + '"'


class Changed:
    """What a consumer has changed on one connection, and what it was before."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.before: dict[str, object] = {}

    def note(self, sql: object) -> None:
        """Remember, before a consumer's statement is executed, what it is going to change."""
        if isinstance(sql, str) and _BESIDE.search(sql):
            self.before[""] = None
        found = _setting().match(sql) if isinstance(sql, str) else None
        if found is None or (name := found[1].lower()) in self.before:
            return
        self.before[name] = _UNREADABLE[name] if name in _UNREADABLE else self._read(name)

    def restore(self, *, is_over: bool = False) -> None:
        """Set everything as it was; what stands beside the database only once the transaction is over."""
        is_beside = self.before.pop("", self) is None
        while self.before:
            name, value = self.before.popitem()
            self._run(f"PRAGMA {name} = {value}")
        if is_beside and is_over:
            self._clear()
        elif is_beside:
            self.before[""] = None

    def _clear(self) -> None:
        for _, name, *_ in self._run("PRAGMA database_list"):
            if name not in {"main", "temp"}:
                with suppress(
                    sqlite3.Error
                ):  # one that can't be let go of keeps nobody else waiting
                    self._run(f"DETACH {_quoted(name)}")
        self._run("PRAGMA foreign_keys = OFF")  # no key keeps one
        for kind, name in self._run(_MADE):
            with suppress(sqlite3.Error):  # one of a virtual table's own, which has gone with that
                self._run(f"DROP {kind} temp.{_quoted(name)}")
        self._run("PRAGMA foreign_keys = ON")

    def _read(self, name: str) -> object:
        (row,) = self._run(f"PRAGMA {name}")
        return row[0]

    def _run(self, sql: str) -> list[tuple[object, ...]]:
        # Past the guards of a consumer's cursor.
        cursor = sqlite3.Cursor(self._connection)
        try:
            return cursor.execute(sql).fetchall()
        finally:
            cursor.close()
