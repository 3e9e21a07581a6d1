"""The schema of a shared database, as PostgreSQL has it."""

from collections.abc import Iterable

from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from lash_store._backends.postgresql.dialect import dialect_for
from lash_store._backends.postgresql.indexes import indexes_of
from lash_store._kernel.schema import Schema
from lash_store._kernel.sharing import VERSIONS, shared

_HEAD = """\
-- PostgreSQL 16 or newer: {kinds}, under the prefix {prefix}
-- Rendered from lash_store's MetaData by `nox -s schema`; not edited by hand.
"""


def render(schemas: Iterable[Schema], prefix: str) -> str:
    """Return the text that makes the tables of these kinds, and notes their versions.

    One table of versions is for all; so kinds that are added later go without its statement.
    """
    canonical = list(schemas)
    kinds = ", ".join(f"{each.kind} {each.version}" for each in canonical)
    texts = [_HEAD.format(kinds=kinds, prefix=prefix)]
    for at, schema in enumerate(canonical):
        there = shared(schema, prefix)
        elements: list[ExecutableDDLElement] = []
        for table in there.tables[1 if at else 0 :]:  # the first is the table of versions
            elements += [CreateTable(table), *map(CreateIndex, indexes_of(table))]
        texts += [_text(each, prefix) for each in elements]
    noted = ",\n    ".join(f"('{each.kind}', {each.version})" for each in canonical)
    texts.append(
        f"INSERT INTO {prefix}{VERSIONS} (kind, version) VALUES\n    {noted};\n"
    )  # reason: names of ours
    return "\n".join(texts)


def _text(element: ExecutableDDLElement, prefix: str) -> str:
    lines = str(element.compile(dialect=dialect_for(prefix))).strip().splitlines()
    return "\n".join(line.rstrip().replace("\t", "    ") for line in lines) + ";\n"
