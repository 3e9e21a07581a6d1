"""In a shared database, a statement sees and changes the rows of one session, and does what it does in a file.

Every builder, and statements such as a consumer composes, are run for one of three sessions that
have equal rows. What they give, and what they leave of that session's rows, is what the same
statement gives and leaves in a canonical file; the other sessions' rows stay as they were.
"""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, cast

import pytest
from msgspec.structs import replace
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    column,
    create_engine,
    delete,
    event,
    exists,
    func,
    insert,
    literal,
    select,
    table,
    text,
    true,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.exc import CompileError, DBAPIError, IntegrityError
from sqlalchemy.orm import Session, aliased, registry
from sqlalchemy.pool import StaticPool

from lash_store._backends.sqlite.dialect import SQLITE, dialect_for
from lash_store._backends.sqlite.driver import StoreCursor, _cursor_classes
from lash_store._kernel import placing, prepared
from lash_store._kernel.placing import SharingCompiler
from lash_store._kernel.sharing import SCOPE_OPTION, STORE, Sharing, shared
from lash_store.errors import ScopeError, StorageError
from lash_store.schemas import SCHEMAS, canonical_statements
from lash_store.session.tables import (
    blobs,
    graph_nodes,
    queued_work_batches,
    queued_work_items,
    runtime_turn_commits,
    session_execution_leases,
    session_head,
    usage_deltas,
)
from lash_store.statements import prepare
from tests.statements.catalogue import CONDITIONS, EXAMPLES
from tests.statements.test_prepared import FILLED

MINE = "chat-42"
STORES = ("aaa", MINE, "zzz")
SESSION = SCHEMAS["session"]
LEASE = (
    "INSERT INTO session_execution_leases VALUES ('chat-42', 'worker-a', 'c0ffee', 7, 500, 5000);"
)
EVERYTHING = FILLED["session"][0] + LEASE

Rows = dict[str, list[tuple[Any, ...]]]


def in_a_file() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in canonical_statements(SESSION):
        connection.execute(statement)
    connection.executescript(EVERYTHING)
    return connection


def in_one_database(prefix: str) -> sqlite3.Connection:
    """All of it three times, for three sessions; with rows of their own, so that a leak shows."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    there = shared(SESSION, prefix)
    for statement in canonical_statements(there):
        connection.execute(statement)
    with closing(in_a_file()) as file:
        for store in STORES:
            for here in SESSION.tables:
                rows = file.execute(f"SELECT * FROM {here.name}").fetchall()
                marks = ", ".join("?" * (1 + len(here.columns)))
                names = ", ".join(here.columns.keys())
                connection.executemany(
                    f"INSERT INTO {prefix}{here.name} ({STORE}, {names}) VALUES ({marks})",
                    [(store, *row) for row in rows],
                )
    for store in STORES[::2]:
        connection.execute(
            f"INSERT INTO {prefix}blobs VALUES (?, ?, x'00')", (store, f"only-{store}")
        )
        connection.execute(
            f"INSERT INTO {prefix}graph_nodes VALUES (?, 9, 'n9', '{{}}', 0)", (store,)
        )
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def rows_of(connection: sqlite3.Connection, prefix: str, store: str | None) -> Rows:
    """All rows of one session, as they would be in a file; or those of the others, as they are."""
    found = {}
    for here in SESSION.tables:
        names = ", ".join(here.columns.keys())
        where = f"WHERE {STORE} = '{store}'" if store else f"WHERE {STORE} <> '{MINE}'"
        table = prefix + here.name
        if not prefix:
            query = f"SELECT {names} FROM {table} ORDER BY {names}"
        elif store:
            query = f"SELECT {names} FROM {table} {where} ORDER BY {names}"
        else:
            query = f"SELECT * FROM {table} {where} ORDER BY 1, {names}"
        found[here.name] = connection.execute(query).fetchall()
    return found


@contextmanager
def engine_on(connection: sqlite3.Connection, prefix: str) -> Iterator[Engine]:
    dialect = dialect_for(prefix)
    creator: Any = lambda: connection  # noqa: E731 # reason: SQLAlchemy types it otherwise
    pool = StaticPool(creator, reset_on_return=None, dialect=dialect)
    made = Engine(pool, dialect, create_engine("sqlite://").url)
    yield made.execution_options(**{SCOPE_OPTION: MINE}) if prefix else made


def by_sqlalchemy(connection: sqlite3.Connection, prefix: str, construct: Any) -> Any:
    with engine_on(connection, prefix) as engine, engine.connect() as opened:
        if callable(construct):
            return construct(opened)
        result = opened.execute(construct)
        return sorted(map(tuple, result), key=repr) if result.returns_rows else result.rowcount


def by_sqlalchemy_of(construct: Any, connection: sqlite3.Connection, prefix: str) -> Any:
    return by_sqlalchemy(connection, prefix, construct)


def by_prepared(
    connection: sqlite3.Connection, prefix: str, statement: Any, arguments: dict[str, Any]
) -> Any:
    cursor: StoreCursor = _cursor_classes(prefix)[0](connection)
    cursor.scope = MINE
    if isinstance(statement, prepared.PreparedRows):
        return sorted(statement.all(cursor, **arguments), key=repr)
    return statement.run(cursor, **arguments)


def both_ways(
    run: Callable[[sqlite3.Connection, str], Any], prefix: str = "lash_"
) -> tuple[Any, Any]:
    """Run it in a file and in a shared database; return what differs, in what it gives and leaves."""
    with closing(in_a_file()) as file, closing(in_one_database(prefix)) as database:
        assert rows_of(database, prefix, MINE) == rows_of(file, "", None)
        others = rows_of(database, prefix, None)
        file.execute("PRAGMA foreign_keys = ON")
        try:
            expected = run(file, "")
        except (IntegrityError, StorageError) as error:
            with pytest.raises(type(error)):
                run(database, prefix)
            expected = found = None
        else:
            found = run(database, prefix)
        kept = rows_of(database, prefix, None)
        assert kept == others
        return (found, rows_of(database, prefix, MINE)), (expected, rows_of(file, "", None))


OF_ALL = {"session.select_all_work"}
"""Builders that are about all sessions, as they say."""

BUILDERS = [
    name for name in EXAMPLES if name.startswith("session.") and name not in CONDITIONS | OF_ALL
]


@pytest.mark.parametrize("name", BUILDERS)
def test_k_share_2_every_builder_prepared(name: str) -> None:
    builder, arguments = EXAMPLES[name]
    statement: Any = builder if isinstance(builder, prepared.Prepared) else prepare(builder)
    found, expected = both_ways(lambda c, prefix: by_prepared(c, prefix, statement, arguments))
    assert found == expected


@pytest.mark.parametrize("name", BUILDERS)
def test_k_share_2_every_builder_on_a_connection(name: str) -> None:
    builder, arguments = EXAMPLES[name]
    found, expected = both_ways(lambda c, prefix: by_sqlalchemy(c, prefix, builder(**arguments)))
    assert found == expected


# What a consumer composes.

nodes, items, batches = graph_nodes.c, queued_work_items.c, queued_work_batches.c
other_nodes = graph_nodes.alias("parents")
twice = aliased(graph_nodes, name="again")
cte = select(nodes.node_id).where(nodes.tombstoned == 0).cte("live")

mapping = registry()


class Node:
    node_id: Any


mapping.map_imperatively(Node, graph_nodes, primary_key=[graph_nodes.c.node_id])


def through_a_copy(connection: Any) -> Any:
    copy = graph_nodes.to_metadata(MetaData())
    return sorted(connection.execute(select(copy.c.node_id)).scalars())


def by_the_orm(connection: Any) -> Any:
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        return sorted(node.node_id for node in session.scalars(select(Node)))


def changed_by_the_orm(connection: Any) -> Any:
    with Session(connection) as session:
        return session.execute(update(Node).values(tombstoned=5)).rowcount  # type: ignore[attr-defined] # reason: a cursor's result


in_main = graph_nodes.to_metadata(MetaData(), schema="main")

COMPOSED: dict[str, Any] = {
    "all": select(graph_nodes),
    "count": select(func.count()).select_from(blobs),
    "alias": select(other_nodes.c.node_id),
    "aliased": select(twice.c.node_id),
    "self join": select(nodes.node_id, other_nodes.c.node_id).join(
        other_nodes, other_nodes.c.seq == nodes.seq + 1
    ),
    "outer join": select(batches.batch_id, items.payload_json).outerjoin(
        queued_work_items, items.batch_id == batches.batch_id
    ),
    "nested outer join": select(batches.batch_id, items.payload_json, nodes.node_id).select_from(
        queued_work_batches.outerjoin(
            queued_work_items.join(graph_nodes, literal(True)), items.batch_id == batches.batch_id
        )
    ),
    "full join": select(usage_deltas.c.seq, nodes.seq).select_from(
        usage_deltas.join(graph_nodes, usage_deltas.c.seq + 2 == nodes.seq, full=True)
    ),
    "exists": select(nodes.node_id).where(
        exists().where(other_nodes.c.seq > nodes.seq, other_nodes.c.tombstoned == 0)
    ),
    "scalar subquery": select(
        session_head.c.head_revision,
        select(func.max(nodes.seq)).correlate(None).scalar_subquery(),
    ),
    "cte": select(cte),
    "union": select(nodes.node_id).union_all(select(blobs.c.hash)),
    "window": select(nodes.seq, func.row_number().over(order_by=nodes.seq)),
    "copy": through_a_copy,
    "orm": by_the_orm,
    "update": update(graph_nodes).values(tombstoned=1),
    "update in": update(graph_nodes)
    .where(nodes.node_id.in_(select(other_nodes.c.node_id)))
    .values(tombstoned=7),
    "update from": update(graph_nodes)
    .where(nodes.seq == usage_deltas.c.seq)
    .values(tombstoned=usage_deltas.c.cached_input_tokens),
    "update returning": update(session_head).values(head_revision=9).returning(session_head),
    "update by the orm": changed_by_the_orm,
    "select in its schema": select(in_main.c.node_id).where(in_main.c.seq > 1),
    "select beside its schema": select(nodes.node_id).where(
        exists().where(in_main.c.seq == 1)
    ),
    "update in its schema": update(in_main).values(tombstoned=4).where(in_main.c.seq > 1),
    "delete in its schema": delete(in_main).where(in_main.c.seq == 2),
    "insert in its schema": insert(in_main).values(node_id="new", node_json="{}"),
    "delete": delete(usage_deltas),
    "delete in": delete(queued_work_batches).where(
        batches.batch_id.in_(select(items.batch_id))
    ),
    "delete returning": delete(blobs).returning(blobs.c.hash),
    "insert": insert(blobs).values(hash="new", content=b"x"),
    "insert numbered": insert(usage_deltas).values(
        source="x", model="m", input_tokens=1, output_tokens=1,
        cached_input_tokens=1, reasoning_tokens=1,
    ),
    "insert with its number": insert(graph_nodes).values(seq=77, node_id="n77", node_json="{}"),
    "insert several": lambda c: c.execute(
        insert(graph_nodes), [{"node_id": f"m{at}", "node_json": "{}"} for at in range(3)]
    ).rowcount,
    "insert from a select": insert(blobs).from_select(
        ["hash", "content"], select("new-" + blobs.c.hash, blobs.c.content)
    ),
    "insert numbered from a select": insert(graph_nodes).from_select(
        ["node_id", "node_json"],
        select("new-" + nodes.node_id, nodes.node_json).order_by(nodes.seq),
    ),
    "insert with numbers from a union": insert(graph_nodes).from_select(
        ["seq", "node_id", "node_json"],
        select(nodes.seq + 50, "new-" + nodes.node_id, nodes.node_json).union_all(
            select(usage_deltas.c.seq + 80, "usage-" + usage_deltas.c.source, literal("{}"))
        ),
    ),
    "insert from a cte, or nothing": upsert(blobs)
    .from_select(["hash", "content"], select(cte.c.node_id, literal(b"x")).where(true()))
    .on_conflict_do_nothing(),
    "insert from a select that conflicts": insert(blobs).from_select(
        ["hash", "content"], select(blobs)
    ),
    "insert that conflicts": insert(graph_nodes).values(node_id="n1", node_json="{}"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPOSED)
def test_k_share_2_what_a_consumer_composes(name: str) -> None:
    found, expected = both_ways(lambda c, prefix: by_sqlalchemy(c, prefix, COMPOSED[name]))
    assert found == expected


def test_a_table_that_was_reflected_has_one_sessions_rows() -> None:
    with closing(in_one_database("lash_")) as database, engine_on(database, "lash_") as engine:
        with engine.connect() as connection:
            there = Table("lash_graph_nodes", MetaData(), autoload_with=connection)
            assert set(connection.execute(select(there.c.store)).scalars()) == {MINE}
            before = rows_of(database, "lash_", None)
            connection.execute(update(there).values(tombstoned=3))
            connection.execute(delete(there))
            with pytest.raises(CompileError, match="reflected"):
                connection.execute(insert(there).values(store="zzz", seq=1, node_id="x"))
        assert rows_of(database, "lash_", None) == before
        assert rows_of(database, "lash_", MINE)["graph_nodes"] == []


def test_k_share_2_an_applications_own_tables_are_its_own() -> None:
    """Whatever they are called, and whatever columns they have."""
    mine = MetaData()
    same_name = Table("blobs", mine, Column("hash", Text), Column("store", Text))
    same_prefix = Table("lash_shops", mine, Column("store", Text), Column("town", Text))
    with (
        closing(in_one_database("lash_")) as database,
        engine_on(database, "lash_") as engine,
        engine.begin() as connection,
    ):
        mine.create_all(connection)
        connection.execute(insert(same_name).values(hash="h", store="any"))
        connection.execute(
            insert(same_prefix), [{"store": "a", "town": "x"}, {"store": "b", "town": None}]
        )
        connection.execute(update(same_prefix).values(town="y"))
        assert connection.execute(select(same_name)).all() == [("h", "any")]
        assert len(connection.execute(select(same_prefix)).all()) == 2
        joined = select(same_prefix.c.store, blobs.c.hash).join(blobs, blobs.c.hash == "blob-1")
        assert len(connection.execute(joined).all()) == 2
        connection.execute(delete(same_prefix))


REFUSED: dict[str, Any] = {
    "of several rows by values": insert(blobs).values(
        [{"hash": "x", "content": b""}, {"hash": "y", "content": b""}]
    ),
    "of defaults alone": insert(session_head),
    "an UPDATE or DELETE of an alias": update(cast("Any", other_nodes)).values(tombstoned=1),
}


SAME_NAME: dict[str, Any] = {
    "a table()": table("blobs", column("hash")),
    "an alias": Table("mine", MetaData(), Column("hash", Text)).alias("blobs"),
    "a CTE": select(literal("h").label("hash")).cte("blobs"),
    "a subquery": select(literal("h").label("hash")).subquery("blobs"),
}


def test_k_share_2_a_copy_in_the_schema_itself_hides_the_table_too() -> None:
    with closing(in_one_database("lash_")) as database:
        both = select(in_main.c.node_id, nodes.node_id)
        with pytest.raises(CompileError, match="two tables are called 'graph_nodes'"):
            by_sqlalchemy(database, "lash_", both)


@pytest.mark.parametrize("other", SAME_NAME)
def test_k_share_2_what_is_called_as_a_table_of_ours_does_not_hide_it(other: str) -> None:
    hidden = SAME_NAME[other]
    there = exists().where(blobs.c.hash == hidden.c.hash)
    with closing(in_one_database("lash_")) as database:
        database.execute("CREATE TABLE blobs (hash)")
        for statement in (select(hidden.c.hash).where(there), select(hidden.c.hash).where(~there)):
            with pytest.raises(CompileError, match="two tables are called 'blobs'"):
                by_sqlalchemy(database, "lash_", statement)
        assert by_sqlalchemy(database, "lash_", select(blobs.c.hash)) != []


def test_k_share_2_rows_of_an_applications_own_with_what_is_read_of_ours() -> None:
    """Several by one statement, of which each has the session among its parameters."""
    mine = MetaData()
    newest = select(func.max(nodes.node_id)).scalar_subquery()
    notes = Table("notes", mine, Column("id", Integer, primary_key=True), Column("node", Text))
    with (
        closing(in_one_database("lash_")) as database,
        engine_on(database, "lash_") as engine,
        engine.begin() as connection,
    ):
        mine.create_all(connection)
        fresh = insert(notes).values(node=newest).returning(notes.c.id, notes.c.node)
        rows = connection.execute(fresh, [{"id": 1}, {"id": 2}, {"id": 3}]).all()
        assert rows == [(each, connection.scalar(select(newest))) for each in (1, 2, 3)]


@pytest.mark.parametrize("why", REFUSED)
def test_k_share_2_what_has_no_form_there_is_refused(why: str) -> None:
    with closing(in_one_database("lash_")) as database:
        before = [rows_of(database, "lash_", each) for each in (None, MINE)]
        with pytest.raises(CompileError, match=why):
            by_sqlalchemy(database, "lash_", REFUSED[why])
        assert [rows_of(database, "lash_", each) for each in (None, MINE)] == before


def test_several_rows_with_returning_are_refused() -> None:
    def run(connection: Any) -> None:
        rows = [{"node_id": f"m{at}", "node_json": "{}"} for at in range(3)]
        connection.execute(insert(graph_nodes).returning(nodes.seq), rows)

    with closing(in_one_database("lash_")) as database, pytest.raises(CompileError, match="RETURN"):
        by_sqlalchemy(database, "lash_", run)


def test_a_connection_that_says_not_whose_rows_is_refused() -> None:
    with closing(in_one_database("lash_")) as database, engine_on(database, "lash_") as engine:
        unsaid = engine.execution_options(**{SCOPE_OPTION: None})
        with unsaid.connect() as connection, pytest.raises(ScopeError, match="lash_store_session"):
            connection.execute(select(graph_nodes))


def test_text_is_not_scoped() -> None:
    """What the docs say: a text is what it is."""
    with closing(in_one_database("lash_")) as database:
        count = by_sqlalchemy(database, "lash_", text("SELECT count(*) FROM lash_blobs"))
    assert count == [(8,)]


# Each rule of the compiler, taken away, is missed.


def everything(prefix: str) -> None:
    """Run all of the above for one prefix, which has its own statements compiled."""
    for name in BUILDERS:
        builder, arguments = EXAMPLES[name]
        construct = builder(**arguments)
        found, expected = both_ways(partial(by_sqlalchemy_of, construct), prefix)
        assert found == expected
    for name in FROM_A_SELECT:
        found, expected = both_ways(partial(by_sqlalchemy_of, COMPOSED[name]), prefix)
        assert found == expected


FROM_A_SELECT = [name for name in COMPOSED if name.startswith("insert") and " from a " in name]


def without(text_: str, instead: str) -> Any:
    """Return the rule for INSERTs from a SELECT with something of it taken away."""
    source = inspect.getsource(placing._selected_within_scope)
    assert source.count(text_) == 1
    names = dict(vars(placing))
    exec(source.replace(text_, instead), names)  # reason: its own text, but for that
    return names["_selected_within_scope"]


def unscoped_from(compiler: Any, table: Any, *arguments: Any, **kw: Any) -> Any:
    place = compiler.sharing.place_of(table)
    if place is None or not kw.get("asfrom"):
        return super(SharingCompiler, compiler).visit_table(table, *arguments, **kw)
    return f"{place.name} AS {table.name}"


def unnumbered(self: Any, table: Any) -> Any:
    place = PLACE_OF(self, table)
    return place and replace(place, numbered=None)


PLACE_OF = Sharing.place_of

RULES: dict[str, tuple[Any, str, Any]] = {
    "from": (SharingCompiler, "visit_table", unscoped_from),
    "where": (SharingCompiler, "_within_scope", lambda _, statement: statement),
    "number": (Sharing, "place_of", unnumbered),
    "scope of a select": (
        placing,
        "_selected_within_scope",
        without("SCOPE.label(STORE)", "literal_column(\"'zzz'\").label(STORE)"),
    ),
    "number of a select": (
        placing,
        "_selected_within_scope",
        without("highest = highest.where(there.c[STORE] == SCOPE)", "pass"),
    ),
    "target": (
        type(dialect_for("x_")).statement_compiler,
        "_on_conflict_target",
        SQLiteCompiler._on_conflict_target,
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_k_share_2_each_rule_is_needed(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(f"with_{rule.replace(' ', '_')}_")
    monkeypatch.setattr(*RULES[rule])
    with pytest.raises((AssertionError, DBAPIError)):
        everything(f"without_{rule.replace(' ', '_')}_")


def test_events_see_what_is_sent() -> None:
    """An application's own hooks find the statement in its place."""
    seen: list[str] = []

    def see(*arguments: Any) -> None:
        seen.append(arguments[2])

    with closing(in_one_database("lash_")) as database, engine_on(database, "lash_") as engine:
        event.listen(engine, "before_cursor_execute", see)
        with engine.connect() as connection:
            connection.execute(select(runtime_turn_commits.c.turn_id))
    assert "lash_runtime_turn_commits" in seen[-1]


def test_the_canonical_dialect_knows_nothing_of_it() -> None:
    assert "lash_" not in str(select(session_execution_leases).compile(dialect=SQLITE))
