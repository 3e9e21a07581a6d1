"""What a store's schema is: tables and a version, declared once for every database."""

from typing import Any, Final, Literal, TypeVar

import msgspec
from msgspec.structs import force_setattr
from sqlalchemy import BigInteger, CheckConstraint, Index, Integer, MetaData, Table, TypedColumns
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import DDLCompiler
from sqlalchemy.sql.elements import conv
from sqlalchemy.util import OrderedSet

Kind = Literal["session", "process", "trigger", "effect"]
"""The four kinds of store; each has its own schema and version."""

Int = Integer().with_variant(BigInteger(), "postgresql")
"""Every integer column: SQLite's INTEGER already holds 64 bits, PostgreSQL's holds 32."""


OURS: Final = "lash_store"
"""Where a table of ours says that it is one, in ``Table.info``."""


class Ours(msgspec.Struct, frozen=True):
    """What a table of ours says of itself; a copy of it, in other metadata, says so too."""

    table: Table[Any]
    is_scoped: bool
    is_across: bool = False
    """Whether it stands for the rows of all sessions."""


def ours_of(table: Table[Any]) -> Ours | None:
    """Return what a table of ours says of itself, a copy of its name too; None for any other.

    A copy under another name, as ``to_metadata(name=…)`` makes it, is an application's own table.
    """
    ours: Ours | None = table.info.get(OURS)
    return ours if ours is not None and table.name == ours.table.name else None


declared: "Final[list[Schema]]" = []
"""The schemas of all kinds, as they were declared: what a file is that has one of them."""


class Schema(msgspec.Struct, frozen=True, eq=False):
    """One store's declared schema: what the guard creates, stamps and compares."""

    kind: Kind
    version: int
    metadata: MetaData
    tables: tuple[Table[Any], ...]
    """In the canonical order, which ``metadata.sorted_tables`` does not keep."""

    is_scoped: bool = False
    """Whether a database of this kind is one session's, so that a shared one needs to tell whose."""

    prefix: str = ""
    """Before the names of all tables and indexes, in a database that is shared; see ``sharing``."""

    extras: tuple[str, ...] | None = ()
    """What an application has declared on our tables, as DDL; None for whatever there is."""

    optional: tuple[Index, ...] = ()
    """Indexes that a database of its own may have: an application adds them by ``extras``, and they
    are no drift. A shared database has them by itself, each in the place of what it replaces."""

    own: tuple[Any, ...] = ()
    """The tables that an application has declared as its own, each an ``extras.OwnTables``."""

    before: "Schema | None" = None
    """The schema of the release before, which can still be copied from."""

    indexes: dict[str, tuple[Index, ...]] | None = None
    """Ours by table: an application that builds one on a table of ours adds it to ``table.indexes``."""

    def __post_init__(self) -> None:
        if self.indexes is not None:
            return
        for index in self.optional:
            # Building one has added it to the table, which is to be made without it.
            assert index.table is not None
            index.table.indexes.discard(index)
        indexes = {each.name: tuple(each.indexes) for each in self.tables}
        force_setattr(self, "indexes", indexes)
        if not self.prefix:
            declared.append(self)
            self.metadata.info[OURS] = self.kind
            for table in self.tables:
                table.info[OURS] = Ours(table, self.is_scoped)

    def indexes_of(self, table: Table[Any]) -> tuple[Index, ...]:
        """Return our own indexes on one of the tables, in the canonical order."""
        assert self.indexes is not None
        return self.indexes[table.name]

    def shared_indexes_of(self, table: Table[Any]) -> list[Index]:
        """Return those that the table has in a shared database: what is read there, and the optional ones."""
        optional = [each for each in self.optional if each.table is table]
        replaced = {each.info.get(REPLACES) for each in optional}
        return [
            *(
                each
                for each in self.indexes_of(table)
                if each.name not in replaced and not each.info.get(UNSHARED)
            ),
            *optional,
        ]


REPLACES: Final = "lash_store_replaces"
"""In the info of an optional index: the name of the index that nobody needs beside it."""

UNSHARED: Final = "lash_store_unshared"
"""In the info of an index: whether no statement reads it in a shared database, which goes without."""

SQLITE_ONLY: Final = "lash_store_sqlite_only"
"""In the info of an index: whether no other database can have it."""


class UnnamedCheck(CheckConstraint):
    """A CHECK that has no name, whatever naming convention the metadata has that it is copied to.

    A convention that asks for names, as Alembic recommends, would refuse ``Table.to_metadata()``.
    """

    def __init__(self, condition: Any) -> None:
        super().__init__(condition, name=conv("unnamed"))  # which no convention looks at

    def _copy(self, **_: Any) -> "UnnamedCheck":
        return UnnamedCheck(self.sqltext)


@compiles(UnnamedCheck)
def _render_check(element: UnnamedCheck, compiler: DDLCompiler, **kw: Any) -> str:
    body: str = compiler.define_check_body(element, **kw)
    return body


_Columns = TypeVar("_Columns", bound=TypedColumns)


def ordered_indexes(table: Table[_Columns]) -> Table[_Columns]:
    """Make `table`, which has no index yet, keep the order in which indexes are declared.

    SQLAlchemy collects them in a set, so ``PRAGMA index_list`` would change from run to run.
    """
    table.indexes = OrderedSet()
    return table
