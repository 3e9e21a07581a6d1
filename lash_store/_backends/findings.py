"""What was found in a database that may be anything."""

from collections.abc import Collection, Iterable, Sequence

import msgspec

from lash_store._kernel.options import PREFIX
from lash_store._kernel.schema import Schema
from lash_store._kernel.sharing import VERSIONS, shared


def prefixes_among(schemas: Sequence[Schema], there: Collection[str]) -> list[str]:
    """Return what the names of our tables begin with among those that are there, whatever they look like.

    A table of versions alone may be an application's own; who asks looks at its columns as well.
    """
    candidates = (name.removesuffix(VERSIONS) for name in there if name.endswith(VERSIONS))
    return [
        prefix
        for prefix in candidates
        if PREFIX.fullmatch(prefix)
        and any(unnamed(shared(each, prefix), there) for each in schemas)
    ]


def unnamed(schema: Schema, there: Iterable[str]) -> list[str]:
    """Say of a kind that the table of versions does not name, if a table of its is there all the same."""
    versions, *tables = schema.tables  # of a shared database
    names = {name.lower() for name in there}
    if not any(table.name.lower() in names for table in tables):
        return []
    what = f"tables of {schema.kind} are there, and {versions.name} does not name the kind"
    return [f"{schema.prefix}: {what}"]


class Findings(msgspec.Struct, frozen=True):
    """What a file is, or a database on a server, and what is wrong with it."""

    path: str
    schema: Schema | None
    """The schema that the file is closest to, or None if none has its version."""

    version: int
    """``PRAGMA user_version``, which is 0 where the versions stand in a table."""

    drift: tuple[str, ...]
    damage: tuple[str, ...]
    """Broken pages, and references to rows that are not there."""

    prefixes: tuple[str, ...] = ()
    """What the names of our tables begin with, in a database that is shared: for each deployment."""

    extras: tuple[str, ...] = ()
    """Indexes and triggers on our tables that are an application's."""
