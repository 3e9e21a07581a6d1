"""How our tables in a database differ from what was declared, by what the catalogue says of them.

Both are written down as lines of text: a column, a key, a reference, a check, an index. An
application's own indexes on our tables do not count, unless they are unique: those refuse rows. Nor do
its triggers and policies, or rules that leave what is written as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Table, Text, UniqueConstraint
from sqlalchemy.schema import ForeignKeyConstraint

from lash_store._backends.postgresql.dialect import dialect_for
from lash_store._backends.postgresql.indexes import indexes_of
from lash_store._kernel.schema import Schema

_COLUMNS: Final = """\
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       coalesce(l.collname, ''), coalesce(pg_get_expr(d.adbin, d.adrelid), '')
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
LEFT JOIN pg_collation AS l ON l.oid = a.attcollation
WHERE c.relnamespace = $1::text::regnamespace AND c.relname = ANY ($2) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY c.relname, a.attnum"""

_RULES: Final = """\
SELECT c.relname, pg_get_constraintdef(r.oid)
FROM pg_class AS c JOIN pg_constraint AS r ON r.conrelid = c.oid
WHERE c.relnamespace = $1::text::regnamespace AND c.relname = ANY ($2) AND r.contype IN ('p', 'u', 'f', 'c', 'x')"""

_INDEXES: Final = """\
SELECT c.relname, i.relname, x.indisunique, x.indisvalid, pg_get_indexdef(x.indexrelid),
       coalesce(pg_get_expr(x.indpred, x.indrelid), '')
FROM pg_class AS c JOIN pg_index AS x ON x.indrelid = c.oid JOIN pg_class AS i ON i.oid = x.indexrelid
WHERE c.relnamespace = $1::text::regnamespace AND c.relname = ANY ($2)
  AND NOT EXISTS (SELECT FROM pg_constraint AS r WHERE r.conindid = i.oid AND r.contype IN ('p', 'u', 'x'))"""

_BESIDES: Final = """\
WITH ours AS (SELECT * FROM pg_class WHERE relnamespace = $1::text::regnamespace AND relname = ANY ($2))
SELECT relname, 'trigger ' || tgname FROM ours JOIN pg_trigger ON tgrelid = ours.oid WHERE NOT tgisinternal
UNION ALL SELECT relname, 'references that are not looked at'
FROM ours WHERE EXISTS (SELECT FROM pg_trigger WHERE tgrelid = ours.oid AND tgisinternal AND tgenabled IN ('D', 'R'))
UNION ALL SELECT relname, CASE WHEN is_instead OR ev_type IN ('2', '3') THEN 'a rule: ' ELSE 'rule beside: ' END || rulename
FROM ours JOIN pg_rewrite ON ev_class = ours.oid WHERE ours.relkind = 'r' AND ev_enabled <> 'D'
UNION ALL SELECT relname, 'policies for rows' FROM ours WHERE relrowsecurity
UNION ALL SELECT relname, 'nothing that outlives a crash: it is unlogged' FROM ours WHERE relpersistence = 'u'"""

_QUOTES: Final = (
    "SELECT current_setting('quote_all_identifiers'), set_config('quote_all_identifiers', $1, true)"
)

_BESIDE: Final = ("trigger ", "rule beside: ", "policies ")
"""What an application may add: it sees what is written, and refuses nothing of it by itself.

Rules do, but on DELETE: beside one on INSERT or UPDATE there is no ON CONFLICT.
"""


def find_drift(cursor: Any, schema: Schema, place: str) -> list[str]:
    """Return how our tables differ from what was declared; what an application has added does not count."""
    differences, _ = compare(cursor, schema, place)
    return differences


def compare(cursor: Any, schema: Schema, place: str) -> tuple[list[str], list[str]]:
    """Return how our tables differ from what was declared, and what an application has added to them."""
    there = _catalogue(cursor, [table.name for table in schema.tables], place)
    differences: list[str] = []
    added: list[str] = []
    for table in schema.tables:
        found = there.get(table.name)
        if found is None:
            differences.append(f"table {table.name}: missing")
            continue
        declared = _declared(table)
        ours = {f"index {each.name}:" for each in indexes_of(table)}
        own = {line for line in found - declared if _is_an_applications(line, ours)}
        differences += [f"table {table.name}: lacks {line}" for line in sorted(declared - found)]
        differences += [
            f"table {table.name}: has {line}" for line in sorted(found - declared - own)
        ]
        added += [f"table {table.name}: {line}" for line in sorted(own)]
    return differences, added


def is_as_declared(cursor: Any, table: Table[Any], place: str) -> bool:
    """Whether a table that is there is a declared one."""
    return _catalogue(cursor, [table.name], place).get(table.name) == _declared(table)


def is_table_of_versions(cursor: Any, name: str, place: str) -> bool:
    """Whether a table has the columns that one of versions has."""
    lines = _catalogue(cursor, [name], place).get(name, set())
    return all(
        any(line.startswith(f"column {each} ") for line in lines) for each in ("kind", "version")
    )


def _is_an_applications(line: str, ours: set[str]) -> bool:
    """Whether this is what it may add, or an index of another name than ours: one that refuses no rows."""
    if line.startswith(_BESIDE):
        return True
    name, _, rest = line.partition(":")
    return line.startswith("index ") and f"{name}:" not in ours and not rest.startswith(" unique")


def _catalogue(cursor: Any, names: list[str], place: str) -> dict[str, set[str]]:
    # A role may ask for quotes around every name.
    ((quotes, _),) = cursor.execute(_QUOTES, ("off",)).fetchall()
    found = _lines(cursor, names, place)
    if quotes != "off":
        cursor.execute(_QUOTES, (quotes,))
    return found


def _lines(cursor: Any, names: list[str], place: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for table, name, kind, is_required, collation, default in cursor.execute(
        _COLUMNS, (place, names)
    ).fetchall():
        default = default.replace(f"'{place}.", "'")  # noqa: PLW2901 # reason: as below
        text = _column(name, kind, is_required=is_required, collation=collation)
        found.setdefault(table, set()).add(
            text + (f" DEFAULT {_plain(default)}" if default else "")
        )
    for table, rule in cursor.execute(_RULES, (place, names)).fetchall():
        if not rule.startswith("NOT NULL"):
            # The server names a schema that is not looked in by itself.
            found[table].add(
                f"rule {_plain(rule.replace(f' REFERENCES {place}.', ' REFERENCES '))}"
            )
    for table, name, is_unique, is_valid, definition, where in cursor.execute(
        _INDEXES, (place, names)
    ).fetchall():
        line = _index(name, _on_what(definition), where, is_unique=is_unique)
        found[table].add(line if is_valid else f"{line} (invalid)")
    for table, text in cursor.execute(_BESIDES, (place, names)).fetchall():
        found[table].add(text)
    return found


def _declared(table: Table[Any]) -> set[str]:
    lines: set[str] = set()
    keys = {column.name for column in table.primary_key.columns}
    for column in table.columns:
        is_text = isinstance(column.type, Text)
        kind = str(column.type.compile(dialect=dialect_for(""))).lower()
        default = "" if column.server_default is None else _default(column)
        if column is table.autoincrement_column and column is not None:
            default = f"nextval('{table.name}_{column.name}_seq'::regclass)"
        line = _column(
            column.name,
            kind,
            is_required=not column.nullable or column.name in keys,
            collation="C" if is_text else "",
        )
        lines.add(line + (f" DEFAULT {_plain(default)}" if default else ""))
    of_columns = [rule for column in table.columns for rule in column.constraints]
    for rule in (*table.constraints, *of_columns):
        lines |= {f"rule {_plain(text)}" for text in _rule(rule)}
    for index in indexes_of(table):
        text = _condition(index.dialect_options["postgresql"]["where"])
        lines.add(
            _index(
                str(index.name),
                f"({', '.join(each.name for each in index.columns)})",
                text,
                is_unique=index.unique,
            )
        )
    return lines


def _condition(where: Any) -> str:
    if where is None:
        return ""
    options = {"literal_binds": True, "include_table": False}
    return str(where.compile(dialect=dialect_for(""), compile_kwargs=options))


def _default(column: Any) -> str:
    given = column.server_default.arg
    return f"'{given}'" if isinstance(given, str) else str(given)


def _rule(rule: Any) -> Iterable[str]:
    names = ", ".join(column.name for column in getattr(rule, "columns", ()))
    if isinstance(rule, ForeignKeyConstraint):
        targets = [each.target_fullname.rpartition(".") for each in rule.elements]
        text = (
            f"FOREIGN KEY ({names}) REFERENCES {targets[0][0]}({', '.join(t[2] for t in targets)})"
        )
        yield text + (f" ON DELETE {rule.ondelete}" if rule.ondelete else "")
    elif isinstance(rule, UniqueConstraint):
        yield f"UNIQUE ({names})"
    elif hasattr(rule, "sqltext"):
        yield f"CHECK ({rule.sqltext})"
    elif names:
        yield f"PRIMARY KEY ({names})"


def _column(name: str, kind: str, *, is_required: bool, collation: str) -> str:
    collated = f' COLLATE "{collation}"' if collation else ""
    return f"column {name} {kind}{collated}{' NOT NULL' if is_required else ''}"


def _index(name: str, on: str, where: str, *, is_unique: bool) -> str:
    line = f"index {name}: {'unique ' if is_unique else ''}{on}"
    return line + (f" WHERE {_plain(where)}" if where else "")


def _on_what(definition: str) -> str:
    """Return the columns of an index, in which order, and its method unless that is a B-tree."""
    on = definition.partition(" USING ")[2].partition(" WHERE ")[0]
    return _STORAGE.sub("", on).replace('"', "").removeprefix("btree ")


_STORAGE: Final = re.compile(r" WITH \([^)]*\)$")
"""How its pages are filled, say."""


_CASTS: Final = re.compile(r"::(?:text|bigint|regclass)|[()\"\s]")


def _plain(text: str) -> str:
    """Return a rule or a condition without what a server adds as it writes it down again."""
    return _CASTS.sub("", text).lower()
