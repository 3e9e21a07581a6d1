"""What a store's schema is: tables and a version, declared once for every database."""

from dataclasses import dataclass
from typing import Literal, TypeVar

from sqlalchemy import BigInteger, Integer, MetaData, Table, TypedColumns
from sqlalchemy.util import OrderedSet

Kind = Literal["session", "process", "trigger", "effect"]
"""The four kinds of store; each has its own schema and version."""

Int = Integer().with_variant(BigInteger(), "postgresql")
"""Every integer column: SQLite's INTEGER already holds 64 bits, PostgreSQL's holds 32."""


@dataclass(frozen=True)
class Schema:
    """One store's declared schema: what the guard creates, stamps and compares."""

    kind: Kind
    version: int
    metadata: MetaData
    tables: tuple[Table, ...]
    """In the canonical order, which ``metadata.sorted_tables`` does not keep."""


_Columns = TypeVar("_Columns", bound=TypedColumns)


def ordered_indexes(table: Table[_Columns]) -> Table[_Columns]:
    """Make `table`, which has no index yet, keep the order in which indexes are declared.

    SQLAlchemy collects them in a set, so ``PRAGMA index_list`` would change from run to run.
    """
    table.indexes = OrderedSet()
    return table
