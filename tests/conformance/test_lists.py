"""``is_one_of``: a condition like any other, wherever it stands in a statement (K-COMPOSE-2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    and_,
    bindparam,
    case,
    func,
    insert,
    lambda_stmt,
    literal,
    not_,
    or_,
    select,
    text,
    true,
)

from lash_store import ProcessRegistry, SessionStore
from lash_store.statements import is_one_of
from tests.support.registries import register

things = Table(
    "things", MetaData(), Column("id", Integer, primary_key=True), Column("name", Text, index=True)
)
NAMES = ["50%", "it's", 'say "no"', "back\\slash"]

Among = Callable[[Any, list[Any]], ColumnElement[bool]]


@pytest.fixture
def connection(store: SessionStore) -> Iterator[Connection]:
    with store.begin() as tx:
        things.metadata.create_all(tx.connection)
        rows = [{"id": at + 1, "name": name} for at, name in enumerate(NAMES)]
        tx.connection.execute(insert(things), rows)
        yield tx.connection
        things.metadata.drop_all(tx.connection)


def among(column: Any, values: list[Any]) -> ColumnElement[bool]:
    """Do the same by SQLAlchemy's own means, which have a parameter for each value."""
    found: ColumnElement[bool] = column.in_(values)
    return found


CONDITIONS: dict[str, Callable[[Among], ColumnElement[bool]]] = {
    "alone": lambda one: one(things.c.id, [1, 3]),
    "none": lambda one: one(things.c.id, []),
    "not": lambda one: not_(one(things.c.id, [1, 3])),
    "not not": lambda one: not_(not_(one(things.c.id, [1, 3]))),
    "unequal": lambda one: one(things.c.id, [1, 2]) != one(things.c.id, [1]),
    "equal": lambda one: one(things.c.id, [1, 2]) == one(things.c.id, [1]),
    "of a literal": lambda one: literal(value=True) == one(things.c.id, [1, 2]),
    "distinct": lambda one: one(things.c.id, [1, 2]).is_distinct_from(one(things.c.id, [2])),
    "and": lambda one: and_(one(things.c.id, [1, 2, 3]), one(things.c.name, NAMES[1:])),
    "or": lambda one: or_(one(things.c.id, [1]), one(things.c.name, NAMES[2:])),
    "not and": lambda one: not_(and_(one(things.c.id, [1, 2]), one(things.c.id, [2, 3]))),
    "and true": lambda one: and_(true(), one(things.c.id, [4])),
    "of an expression": lambda one: one(things.c.id + 1, [2, 3]),
    "in a case": lambda one: case((one(things.c.id, [1]), 1), else_=0) == 1,
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_k_compose_2_a_list_stands_where_any_condition_does(
    connection: Connection, name: str
) -> None:
    ids = select(things.c.id).order_by(things.c.id)
    wanted, found = (
        connection.scalars(ids.where(CONDITIONS[name](each))).all() for each in (among, is_one_of)
    )
    assert found == wanted


def test_k_compose_2_a_list_is_a_column_and_a_clause_of_a_join(connection: Connection) -> None:
    chosen = is_one_of(things.c.id, [2, 4])
    rows = connection.execute(select(things.c.id, chosen.label("is_it")).order_by(things.c.id))
    assert [(at, bool(is_it)) for at, is_it in rows] == [
        (1, False),
        (2, True),
        (3, False),
        (4, True),
    ]
    other = things.alias()
    joined = select(func.count()).select_from(things.join(other, is_one_of(other.c.id, [1, 2])))
    assert connection.scalar(joined) == 8


@pytest.mark.parametrize("values", [[], [1, 2], NAMES, NAMES[:1]])
@pytest.mark.parametrize("column", ["id", "name"])
def test_k_compose_2_a_list_is_spelt_out_where_a_statement_is(
    connection: Connection, column: str, values: list[Any]
) -> None:
    if values and isinstance(values[0], int) != (column == "id"):
        values = []
    statement = select(things.c.id).where(is_one_of(things.c[column], values)).order_by(things.c.id)
    sql = str(statement.compile(connection, compile_kwargs={"literal_binds": True}))
    assert connection.exec_driver_sql(sql).scalars().all() == connection.scalars(statement).all()


@pytest.mark.sqlite("how it explains a plan")
def test_k_compose_2_a_list_is_looked_up_by_an_index(connection: Connection) -> None:
    for column, values in ((things.c.id, [1, 2]), (things.c.name, NAMES)):
        chosen = select(things).where(is_one_of(column, values))
        sql = str(chosen.compile(connection, compile_kwargs={"literal_binds": True}))
        steps = [row[-1] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {sql}"))]
        assert any(step.startswith("SEARCH things") for step in steps), steps
        assert not any(step.startswith("SCAN things") for step in steps), steps


def test_k_compose_2_known_processes_are_looked_up_by_their_names(
    registry: ProcessRegistry,
) -> None:
    for name in ("a", "b", "c"):
        register(registry, name)
    assert registry.known_processes(["a", "c", "nobody"]) == {"a", "c"}


def test_k_compose_2_a_list_may_be_what_a_lambda_closes_over(connection: Connection) -> None:
    """SQLAlchemy has a parameter in its place then; as a bound one of its own it is given later."""

    def named(names: list[str]) -> list[int]:
        statement = lambda_stmt(lambda: select(things.c.id).where(is_one_of(things.c.name, names)))
        return sorted(connection.scalars(statement).all())

    assert named(NAMES[:2]) == [1, 2]
    assert named(NAMES[1:]) == [2, 3, 4]
    given: Any = bindparam("names")
    later = select(things.c.id).where(is_one_of(things.c.name, given))
    assert connection.scalars(later, {"names": NAMES[3:]}).all() == [4]
