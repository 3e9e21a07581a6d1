"""Renders statements on our tables in the places that a shared database has for them; see ``sharing``.

Ours go by their canonical names within a statement, as aliases: a column is then written as it always is.
"""

from copy import copy
from typing import Any, Final

from sqlalchemy import (
    Table,
    Text,
    column as sql_column,
    func,
    literal_column,
    select,
    table as sql_table,
    true,
)
from sqlalchemy.exc import CompileError
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.selectable import AliasedReturnsRows, TableClause

from lash_store._kernel.schema import ours_of
from lash_store._kernel.sharing import SCOPE, STORE, Place, Sharing

_NAMED: Final = (TableClause, AliasedReturnsRows)

_COUNTS: Final = ("visited_bindparam", "accumulate_bind_names")
"""What SQLAlchemy hands down to know which parameters each row of an executemany has."""


class SharingCompiler(SQLCompiler):
    """Renders tables of ours where a shared database has them; see the head of ``sharing``."""

    @property
    def sharing(self) -> Sharing:
        """Where the tables are."""
        found: Sharing = self.dialect.sharing  # type: ignore[attr-defined] # reason: a dialect of ours
        return found

    @property
    def preparer(self) -> Any:
        """What quotes names."""
        return self._preparer

    @preparer.setter
    def preparer(self, preparer: Any) -> None:
        # Ours are where they are, whatever an application's own schemas are called: in a statement by their names.
        named, own = preparer.schema_for_object, copy(preparer)
        own.schema_for_object = lambda each: None if self._is_ours(each) else named(each)
        self._preparer = own

    def _is_ours(self, table: Any) -> bool:
        """Whether a table is one of ours, in a file too, whose own are called as they are declared."""
        if self.sharing.place_of(table) is not None:
            return True
        return isinstance(table, Table) and table.schema is None and ours_of(table) is not None

    def hint_in_place(self, hint: str, place: Place) -> str:  # noqa: ARG002 # reason: for those that have hints
        """Return a hint on a canonical table, as it has to be on the one in its place."""
        return hint

    def _real(self, place: Place) -> str:
        schema = self.sharing.schema
        name: str = self.preparer.quote(place.name)
        return name if schema is None else f"{self.preparer.quote(schema)}.{name}"

    def visit_table(self, table: Any, *arguments: Any, **kw: Any) -> Any:
        """Render a table of ours in FROM, or as what is to be changed."""
        place = self.sharing.place_of(table)
        if place is None or not kw.get("asfrom"):
            return super().visit_table(table, *arguments, **kw)  # type: ignore[no-untyped-call] # reason: SQLAlchemy has no types there
        if kw.get("from_linter"):
            kw["from_linter"].froms[table] = table.fullname
        real = self._real(place)
        # One of two that are called alike, of which the other is in an attached database.
        alike: Any = (kw.get("ambiguous_table_name_map") or {}).get(table.name)
        called = table.name if alike is None else self._truncated_identifier("alias", alike)
        suffix = f" AS {self.preparer.quote(called)}"
        if kw.get("iscrud"):
            return real + suffix
        hint = self.hint_in_place((kw.get("fromhints") or {}).get(table, ""), place)
        alias = kw.get("enclosing_alias")
        if alias is not None and alias.element is table:
            suffix = ""
        if not place.is_scoped:
            return real + suffix + hint
        counted = {name: kw[name] for name in _COUNTS if name in kw}
        scope = self.process(SCOPE, **counted)
        return f"(SELECT * FROM {real}{hint} WHERE {STORE} = {scope}){suffix}"  # noqa: S608 # reason: names of ours

    def visit_column(self, column: Any, *arguments: Any, **kw: Any) -> Any:
        """Refuse a column that another table of its name would be asked for."""
        table = column.table
        if isinstance(table, _NAMED) and kw.get("include_table", True):
            self._check_seen(table)
        return super().visit_column(column, *arguments, **kw)

    def _check_seen(self, table: Any) -> None:
        """Raise CompileError for a table that is hidden by another, one of the two being ours.

        Ours goes by its canonical name in a statement, which an application's own may have too.
        """
        for level in reversed(self.stack):
            if any(self._hides(each, table) for each in level["asfrom_froms"]):
                raise CompileError(
                    f"two tables are called {table.name!r} in this statement, and lash_store's is one "
                    "of them: give one an alias, by its alias()"
                )
            if table in level["asfrom_froms"]:
                return

    def _hides(self, other: Any, table: Any) -> bool:
        if other is table or not isinstance(other, _NAMED):
            return False
        if self._name(other) != self._name(table):
            return False
        return other != table and any(map(self.sharing.place_of, (other, table)))

    def _name(self, table: Any) -> tuple[str, str | None]:
        """Return what a table, an alias, a CTE is called in a statement."""
        is_ours = self.sharing.place_of(table) is not None
        return table.name, None if is_ours else getattr(table, "schema", None)

    def visit_update(self, update_stmt: Any, *arguments: Any, **kw: Any) -> Any:
        """Change rows of one scope only."""
        return super().visit_update(self._within_scope(update_stmt), *arguments, **kw)

    def visit_delete(self, delete_stmt: Any, *arguments: Any, **kw: Any) -> Any:
        """Change rows of one scope only."""
        return super().visit_delete(self._within_scope(delete_stmt), *arguments, **kw)  # type: ignore[no-untyped-call] # reason: likewise

    def visit_insert(self, insert_stmt: Any, *arguments: Any, **kw: Any) -> Any:
        """Give a new row its scope, and its number in that."""
        table = insert_stmt.table
        place = self.sharing.place_of(table)
        is_selected = insert_stmt.select is not None
        more: list[str] = []
        if place is not None and place.is_scoped and is_selected:
            insert_stmt, more = _selected_within_scope(insert_stmt, place, self.sharing)
        text: str = super().visit_insert(insert_stmt, *arguments, **kw)  # type: ignore[no-untyped-call] # reason: likewise
        if place is None:
            return text
        name = self.preparer.format_table(table)
        into = f"INTO {self._real(place)} AS {name} "
        if not place.is_scoped:
            return text.replace(f"INTO {name} ", into, 1)
        self._check_insert(insert_stmt, text, name)
        if is_selected:
            before, _, after = text.partition(f"INTO {name} (")
            columns, _, rest = after.partition(") ")
            return f"{before}{into}({columns}, {', '.join(more)}) {rest}"
        given = text.partition(f"INTO {name} (")[2].partition(")")[0].split(", ")
        names, values = [STORE], [self.process(SCOPE)]
        if place.numbered is not None and place.numbered not in given:
            names.append(place.numbered)
            real = self._real(place)
            values.append(
                f"(SELECT coalesce(max({place.numbered}), 0) + 1 FROM {real} "  # noqa: S608 # reason: names of ours
                f"WHERE {STORE} = {self.process(SCOPE)})"
            )
        # Behind it: an INSERT in a CTE stands before.
        before, _, after = text.partition(f"INTO {name} (")
        after = after.replace(") VALUES (", f") VALUES ({', '.join(values)}, ", 1)
        return f"{before}{into}({', '.join(names)}, {after}"

    def _on_conflict_target(self, clause: Any, **kw: Any) -> str:
        """Name what a new row conflicts by: in its scope. Each database's own compiler has the rest."""
        target: str = super()._on_conflict_target(clause, **kw)  # type: ignore[misc] # reason: of the class beside this one
        statement: Any = self.stack[-1]["selectable"]
        place = self.sharing.place_of(statement.table)
        if place is not None and place.is_scoped:
            return target.replace("(", f"({STORE}, ", 1)
        return target

    def _check_insert(self, insert_stmt: Any, text: str, name: str) -> None:
        """Refuse what can't be given a scope, with the reason."""
        why = None
        if ours_of(insert_stmt.table) is None:
            why = "through a table that was reflected"
        elif insert_stmt._multi_values:  # noqa: SLF001 # reason: tested by name
            why = "of several rows by values([...])"
        elif f"INTO {name} (" not in text or (
            insert_stmt.select is None and ") VALUES (" not in text
        ):
            why = "of defaults alone"
        elif self._insertmanyvalues is not None:
            why = "of several rows with RETURNING"
        if why is not None:
            raise CompileError(
                f"an INSERT into {insert_stmt.table.name!r} {why} has no form in a shared "
                "database: insert row by row, through lash_store's own tables"
            )

    def _within_scope(self, statement: Any) -> Any:
        table = statement.table
        place = self.sharing.place_of(table)
        if place is None:
            target: Any = getattr(table, "element", None)
            if self.sharing.place_of(target) is not None:
                raise CompileError(
                    f"an UPDATE or DELETE of an alias of {target.name!r}: use the table"
                )
            return statement
        if not place.is_scoped:
            return statement
        store = literal_column(f"{self.preparer.quote(table.name)}.{STORE}", Text())
        return statement.where(store == SCOPE)


def _selected_within_scope(
    insert_stmt: Any, place: Place, sharing: Sharing
) -> tuple[Any, list[str]]:
    """Return an INSERT from a SELECT whose rows have their scope, and numbers in that; and in which columns."""
    rows = insert_stmt.select.subquery()
    more, columns = [STORE], [*rows.c, SCOPE.label(STORE)]
    names = [getattr(each, "name", each) for each in insert_stmt._select_names or ()]  # noqa: SLF001 # reason: tested by what it does
    if place.numbered is not None and place.numbered not in names:
        columns_there: tuple[Any, ...] = (sql_column(STORE), sql_column(place.numbered))
        there = sql_table(place.name, *columns_there, schema=sharing.schema)
        highest = select(func.coalesce(func.max(there.c[place.numbered]), 0))
        highest = highest.where(there.c[STORE] == SCOPE)
        columns.append(highest.scalar_subquery() + func.row_number().over())
        more.append(place.numbered)
    scoped = insert_stmt._generate()  # noqa: SLF001 # reason: a copy
    # With a WHERE: behind a bare FROM, SQLite takes ON CONFLICT for the condition of a join.
    scoped.select = select(*columns).where(true())
    return scoped, more
