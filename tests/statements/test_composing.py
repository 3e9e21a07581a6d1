"""Builders, composed on aliases and with one another."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Dialect,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    TypeDecorator,
    Update,
    func,
    select,
    true,
    update,
)
from sqlalchemy.exc import SAWarning

from lash_store import (
    Append,
    EffectStore,
    Fence,
    LeaseHeld,
    Leases,
    LeaseTable,
    NewWork,
    Node,
    ProcessFence,
    ProcessRegistry,
    SessionFence,
    SessionLease,
    SessionStore,
    TriggerStore,
    TurnCommit,
    WorkClaim,
    prepare,
)
from lash_store.errors import CorruptRecordError, InvalidRecordError, LeaseLostError
from lash_store.process import statements as process_statements
from lash_store.process.records import ProcessFilter, signal_wait
from lash_store.process.tables import processes
from lash_store.session import statements
from lash_store.session.tables import (
    graph_nodes,
    queued_work_batches,
    queued_work_items,
    session_meta,
)
from lash_store.statements import is_one_of, json_text, on_alias
from lash_store.testing import ManualClock
from lash_store.trigger.records import DeliveryFilter
from tests.statements.catalogue import EXAMPLES
from tests.support.databases import all_rows
from tests.support.leased import JOBS, jobs
from tests.support.registries import register


@pytest.fixture(params=["file", "shared"])
def where(request: pytest.FixtureRequest, path: Path) -> str:
    return str(path) if request.param == "file" else f"sqlite:///{path}"


def test_a_condition_on_an_alias(where: str) -> None:
    with SessionStore.open(where, session_id="s") as store:
        lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert not isinstance(lease, LeaseHeld)
        store.enqueue_all_work([NewWork([1]), NewWork([2])])
        claim = store.claim_work(lease.fence, owner_id="ann", ttl_ms=60_000)
        assert claim is not None
        alias = queued_work_batches.alias("work")
        with store.read() as tx:
            live = statements.has_live_claim(now_ms=tx.now_ms)
            claimed = select(alias.c.batch_id).where(on_alias(live, alias))
            free = select(alias.c.batch_id).where(on_alias(~live, alias))
            assert tx.connection.execute(claimed).scalars().all() == list(claim.batch_ids)
            assert len(tx.connection.execute(free).all()) == 1
        assert "queued_work_batches." not in str(claimed).replace("queued_work_batches AS", "")


def test_k_compose_1_an_alias_that_lacks_what_a_condition_is_about_is_refused() -> None:
    """A cross join would answer otherwise."""
    live = statements.has_live_claim(now_ms=1)
    lacking = statements.select_work(session_id="s").with_only_columns(
        queued_work_batches.c.batch_id
    )
    with pytest.raises(InvalidRecordError, match="lacks 'claim_token'"):
        on_alias(live, lacking.subquery())
    with pytest.raises(InvalidRecordError, match="no table that the condition"):
        on_alias(live, queued_work_items.alias())
    alias = queued_work_batches.alias("work")
    counted = (
        select(func.count())
        .select_from(queued_work_items)
        .where(queued_work_items.c.batch_id == queued_work_batches.c.batch_id)
        .scalar_subquery()
    )
    assert "work.batch_id" in str(select(alias.c.batch_id).where(on_alias(counted > 1, alias)))
    assert str(on_alias(true(), alias)) == "true"
    whole = select(queued_work_batches).subquery()
    assert "queued_work_batches" not in str(on_alias(live, whole))


def test_a_common_ancestor(where: str) -> None:
    """Two paths in one statement."""
    with SessionStore.open(where, session_id="s") as store:
        lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert not isinstance(lease, LeaseHeld)
        parents = {"a": None, "b": "a", "c": "b", "left": "c", "right": "b", "far": "right"}
        nodes = [Node(name, parent) for name, parent in parents.items()]
        store.commit_turn(TurnCommit(fence=lease.fence, graph=Append(nodes, leaf="left")))
        left = statements.ancestry(leaf_node_id="left")
        right = statements.ancestry(leaf_node_id="far")
        common = (
            select(graph_nodes.c.node_id)
            .join(left, left.c.node_id == graph_nodes.c.node_id)
            .join(right, right.c.node_id == graph_nodes.c.node_id)
            .order_by(graph_nodes.c.seq.desc())
        )
        with store.read() as tx:
            assert tx.connection.execute(common).scalars().all() == ["b", "a"]


# K-COMPOSE-1: claims by a condition and an order of a consumer's own.

PRIORITY = json_text(queued_work_items.c.payload_json, "priority").cast(Integer)


def among(priorities: list[int]) -> ColumnElement[bool]:
    return PRIORITY.in_(priorities)


def enqueue(store: SessionStore, *priorities: int, joined: bool = False) -> None:
    for each in priorities:
        work = NewWork(
            [{"priority": each}, {"priority": -each}],
            slot_policy="join" if joined else "exclusive",
        )
        store.enqueue_work(work)


def priorities_of(claim: WorkClaim | None) -> list[int]:
    assert claim is not None
    return [batch.items[0].payload["priority"] for batch in claim.batches]


def rows(store: SessionStore) -> list[Any]:
    with store.read() as tx:
        work = tx.connection.execute(select(queued_work_batches)).all()
        leases = tx.connection.execute(statements.select_leases()).all()
    return [*map(tuple, work), *map(tuple, leases)]


def leased(store: SessionStore) -> SessionFence:
    lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
    assert not isinstance(lease, LeaseHeld)
    return lease.fence


@pytest.mark.parametrize(
    ("where_", "order_by", "expected"),
    [
        (None, None, [1]),
        (PRIORITY > 1, None, [9]),
        (None, PRIORITY.desc(), [9]),
        (PRIORITY < 9, PRIORITY.desc(), [7]),
        (None, [PRIORITY % 2, PRIORITY.desc()], [4]),
        (queued_work_batches.c.source_key.is_(None), PRIORITY, [1]),
    ],
)
def test_k_compose_1_a_claim_by_condition_and_order(
    where: str, where_: Any, order_by: Any, expected: list[int]
) -> None:
    with SessionStore.open(where, session_id="s") as store:
        fence = leased(store)
        enqueue(store, 1, 9, 7, 4)
        claim = store.claim_work(
            fence, owner_id="ann", ttl_ms=60_000, where=where_, order_by=order_by
        )
        assert priorities_of(claim) == expected
        again = store.claim_work(fence, owner_id="ann", ttl_ms=60_000, where=among(expected))
        assert again is None  # it is under a live claim, whatever the condition says


def test_k_compose_1_the_prefix_rule_sees_the_chosen_batches(where: str) -> None:
    with SessionStore.open(where, session_id="s") as store:
        fence = leased(store)
        enqueue(store, 1, 5, joined=True)
        enqueue(store, 3)
        enqueue(store, 2, 4, joined=True)
        claim = store.claim_work(
            fence, owner_id="ann", ttl_ms=60_000, max_batches=9, order_by=PRIORITY.desc()
        )
        assert priorities_of(claim) == [5, 4]  # behind which stands an exclusive one
        assert claim is not None
        assert store.renew_claim(claim, ttl_ms=60_000).batch_ids == claim.batch_ids


def test_k_compose_1_the_lease_rules_stay(where: str) -> None:
    with SessionStore.open(where, session_id="s") as store:
        fence = leased(store)
        enqueue(store, 1)
        store.release_lease(fence)
        with pytest.raises(LeaseLostError):
            store.claim_work(fence, owner_id="ann", ttl_ms=60_000, where=PRIORITY > 0)
        fence = leased(store)
        before = rows(store)
        for where_, order_by in (("prio > 5", None), (None, "prio"), (None, [1])):
            bad: Any = {"where": where_, "order_by": order_by}
            with pytest.raises(InvalidRecordError, match=r"where|order_by"):
                store.claim_work(fence, owner_id="ann", ttl_ms=60_000, **bad)
        assert rows(store) == before


def test_k_compose_1_the_next_process_by_condition_and_order(where: str) -> None:
    at = ManualClock(1_000)
    with ProcessRegistry.open(where, clock=at) as registry:
        for name in ("a", "b", "c"):
            register(registry, name)
            at.advance(1)
        first = registry.claim_next(
            owner_id="w",
            ttl_ms=60_000,
            where=processes.c.process_id != "c",
            order_by=processes.c.created_at_ms.desc(),
        )
        assert first is not None
        assert first.lease.key == "b"
        none = registry.claim_next(owner_id="w", ttl_ms=60_000, where=processes.c.process_id == "b")
        assert none is None


# K-COMPOSE-2: builders.


@pytest.mark.parametrize("name", EXAMPLES)
def test_k_compose_2_every_column_has_a_name(name: str) -> None:
    builder, example = EXAMPLES[name]
    construct = builder(**example)
    if isinstance(construct, Select):
        names = [column["name"] for column in construct.column_descriptions]
        assert all(re.fullmatch(r"[a-z_]+", each) for each in names), names
        assert len(set(names)) == len(names), names
        assert not {"count", "sum", "coalesce", "min", "max", "length"} & set(names)


def test_k_compose_2_work_with_its_claim_and_its_items(where: str) -> None:
    with SessionStore.open(where, session_id="s") as store:
        fence = leased(store)
        enqueue(store, 1, 2)
        claim = store.claim_work(fence, owner_id="ann", ttl_ms=60_000)
        assert claim is not None
        with store.read() as tx:
            in_order = statements.select_work(session_id="s").order_by(
                queued_work_batches.c.enqueue_seq
            )
            rows = tx.connection.execute(in_order).mappings().all()
            assert [row["claim_owner_id"] for row in rows] == ["ann", None]
            assert [row["claim_id"] for row in rows] == [claim.claim_id, None]
            assert "claim_token" not in rows[0]
            of_all = tx.connection.execute(statements.select_all_work()).mappings().all()
            assert [dict(row) for row in of_all] == [dict(row) for row in rows]
            items = statements.select_items(session_id="s").order_by(
                queued_work_batches.c.enqueue_seq, queued_work_items.c.item_index
            )
            payloads = [row.payload_json for row in tx.connection.execute(items)]
            assert payloads == [f'{{"priority":{n}}}' for n in (1, -1, 2, -2)]


def test_k_compose_2_work_of_all_sessions_of_a_shared_database(path: Path) -> None:
    for name in ("a", "b"):
        with SessionStore.open(f"sqlite:///{path}", session_id=name) as store:
            enqueue(store, 1)
            with store.read() as tx:
                every = tx.connection.execute(statements.select_all_work()).all()
    assert [row.session_id for row in every] == ["a", "b"]


@prepare
def batches_among(*, batch_ids: list[str]) -> Select[str]:
    column = queued_work_batches.c.batch_id
    return select(column).where(is_one_of(column, batch_ids)).order_by(column)


@prepare
def places_among(*, places: list[int]) -> Select[int]:
    column = queued_work_batches.c.enqueue_seq
    return select(column).where(is_one_of(column, places)).order_by(column)


def test_k_compose_2_a_list_as_one_argument(where: str) -> None:
    with SessionStore.open(where, session_id="s") as store:
        enqueue(store, 1, 2, 3)
        ids = sorted(batch.batch_id for batch in store.list_work())
        for chosen in ([], ids[:1], ids[:2], [*ids, "unknown", "quo'te"]):
            expected = [(each,) for each in chosen if each in ids]
            with store.read() as tx:
                assert batches_among.all(tx.cursor, batch_ids=chosen) == expected
                built = tx.connection.execute(batches_among(batch_ids=chosen)).all()
                assert [tuple(row) for row in built] == expected
        with store.read() as tx:
            assert places_among.all(tx.cursor, places=[1, 3, 99]) == [(1,), (3,)]
            bad: list[Any] = ["abc", ["a", 1], [None], [1.5], [True]]
            for wrong in bad:
                with pytest.raises(InvalidRecordError, match="list of int or of str"):
                    batches_among.all(tx.cursor, batch_ids=wrong)


def test_k_compose_2_a_member_that_can_not_be_named_is_refused() -> None:
    for name in ("it's", 'a"b', "a.b", "$", "", "a b", "0", "12"):
        with pytest.raises(InvalidRecordError, match="path"):
            json_text(queued_work_items.c.payload_json, name)


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 99])
def test_k_compose_2_the_newest_nodes_of_a_path(where: str, limit: int) -> None:
    with SessionStore.open(where, session_id="s") as store:
        nodes = [Node(f"n{at}", f"n{at - 1}" if at else None) for at in range(4)]
        nodes.append(Node("aside", "n1"))
        store.commit_turn(TurnCommit(fence=leased(store), graph=Append(nodes, leaf="n3")))
        whole, end = store.load_path(), store.load_path(limit=limit)
        assert whole is not None
        assert end is not None
        assert end.nodes == whole.nodes[max(0, 4 - limit) :]
        with store.read() as tx:
            path = statements.newest_ancestry(leaf_node_id="n3", limit=limit)
            depths = tx.connection.execute(select(path.c.node_id, path.c.depth)).all()
        assert sorted(depths) == [(f"n{3 - at}", at) for at in reversed(range(min(4, limit)))]
        with pytest.raises(InvalidRecordError, match="limit"):
            store.load_path(limit=-1)


def test_k_compose_2_a_cycle_ends_at_the_limit(where: str) -> None:
    with SessionStore.open(where, session_id="s") as store:
        nodes = [Node("a", None), Node("b", "a")]
        store.commit_turn(TurnCommit(fence=leased(store), graph=Append(nodes, leaf="b")))
        with store.begin() as tx:
            node = func.json_set(graph_nodes.c.node_json, "$.parent_node_id", "b")
            tx.connection.execute(
                update(graph_nodes).where(graph_nodes.c.node_id == "a").values(node_json=node)
            )
        with pytest.raises(CorruptRecordError, match="its own ancestor"):
            store.load_path(limit=9)


def test_k_compose_2_filters_may_be_left_out(where: str) -> None:
    with ProcessRegistry.open(where) as registry:
        register(registry, "a")
        with registry.read() as tx:
            found = process_statements.next_claimable.one(tx.cursor, now_ms=tx.now_ms)
            assert found is not None
            assert found[0] == "a"
            built = process_statements.next_claimable(now_ms=tx.now_ms)
            assert tx.connection.execute(built).scalar_one() == "a"
            none = process_statements.next_claimable.one(
                tx.cursor, now_ms=tx.now_ms, owner_scope_id="nobody"
            )
            assert none is None


# K-COMPOSE-3: seconds.

FENCE = SessionFence("s", "ann", "c0ffee", 1)


@pytest.mark.parametrize("now_s", [1_000_000_000, 1_795_000_000, 9_999_999_999])
def test_k_compose_3_seconds_are_refused(now_s: int) -> None:
    for predicate in (statements.has_live_claim, statements.is_live, FENCE.holds):
        with pytest.raises(InvalidRecordError, match="looks like seconds"):
            predicate(now_ms=now_s)
    with (
        SessionStore.open(None, session_id="s", clock=ManualClock(now_s)) as store,
        pytest.raises(InvalidRecordError, match="looks like seconds"),
    ):
        store.claim_lease(owner_id="ann", ttl_ms=1)


GIVEN: list[Callable[[Any, int], object]] = [
    lambda it, at: it.sessions.enqueue_work(NewWork([1], available_at_ms=at)),
    lambda it, at: it.sessions.record_attachment_intent("a", canonical_uri="u", intent_at_ms=at),
    lambda it, at: it.sessions.list_uncommitted_attachments(older_than_ms=at),
    lambda it, at: it.effects.begin_effect("s", "k", None, ttl_ms=1, due_at_ms=at, owner_id="o"),
    lambda it, at: it.effects.prune_effects(at),
    lambda it, at: it.triggers.prune_occurrences(at),
    lambda it, at: it.triggers.list_reserved_processes(at),
    lambda it, at: it.triggers.list_deliveries(matching=DeliveryFilter(created_before_ms=at)),
    lambda it, at: it.processes.list_processes(matching=ProcessFilter(created_before_ms=at)),
    lambda it, at: signal_wait("p", "n", ordinal=0, since_ms=at),
]


class Stores(NamedTuple):
    """One of each kind."""

    sessions: SessionStore
    processes: ProcessRegistry
    triggers: TriggerStore
    effects: EffectStore


@pytest.mark.parametrize("call", GIVEN)
def test_k_compose_3_seconds_that_are_given_are_refused(
    call: Callable[[Any, int], object], path: Path
) -> None:
    there = f"sqlite:///{path}"
    with (
        SessionStore.open(there, session_id="s") as sessions,
        ProcessRegistry.open(there) as processes,
        TriggerStore.open(there) as triggers,
        EffectStore.open(there) as effects,
    ):
        stores, before = Stores(sessions, processes, triggers, effects), all_rows(path)
        with pytest.raises(InvalidRecordError, match="looks like seconds"):
            call(stores, 1_795_000_000)
        assert all_rows(path) == before
        call(stores, 1_795_000_000_000)


@prepare
def _fenced(
    *, key: str, owner_id: str, token: str, fencing_token: int, now_ms: int, model: str
) -> Update:
    holds = SessionFence.leases.holds(
        key=key, owner_id=owner_id, token=token, fencing_token=fencing_token, now_ms=now_ms
    )
    return update(session_meta).where(holds).values(model=model)


def test_k_compose_3_seconds_are_refused_to_prepared_statements_too(path: Path) -> None:
    """An expired term would be taken for a live one."""
    clock = ManualClock(1_795_000_000_000)
    with SessionStore.open(path, session_id="s", clock=clock) as store:
        lease = store.claim_lease(owner_id="ann", ttl_ms=1)
        assert isinstance(lease, SessionLease)
        clock.advance(1)
        fence: Any = {
            name: getattr(lease.fence, name)
            for name in ("key", "owner_id", "token", "fencing_token")
        }
        before = all_rows(path)
        with store.begin() as tx:
            for use in (_fenced.run, _fenced.bind):
                with pytest.raises(InvalidRecordError, match="looks like seconds"):
                    use(tx.cursor, now_ms=1_795_000_000, model="x", **fence)
            assert _fenced.run(tx.cursor, now_ms=tx.now_ms, model="x", **fence) == 0
        assert all_rows(path) == before


def test_k_compose_3_times_on_either_side_of_seconds_are_taken() -> None:
    for now_ms in (0, 999_999_999, 10_000_000_000, 1_795_000_000_000):
        FENCE.holds(now_ms=now_ms)


@pytest.mark.parametrize("now", ["now", 1.5, True, None, -1])
def test_k_compose_3_what_is_no_time_is_refused(now: Any) -> None:
    with pytest.raises(InvalidRecordError, match="now_ms"):
        FENCE.holds(now_ms=now)
    with pytest.raises(InvalidRecordError, match="now_ms"):
        statements.has_live_claim(now_ms=now)


# K-COMPOSE-4: fences on tables of a consumer's own.


def test_k_compose_4_a_lease_on_a_table_of_your_own(where: str) -> None:
    at = ManualClock(1_000)
    with SessionStore.open(where, session_id="s", clock=at) as store:
        with store.begin() as tx:
            jobs.create(tx.connection)
            bound = JOBS.bind(tx)
            term = bound.claim("job", owner_id="ann", ttl_ms=100)
            assert not isinstance(term, LeaseHeld)
            assert isinstance(bound.claim("job", owner_id="bob", ttl_ms=100), LeaseHeld)
            assert bound.renew(term.fence, ttl_ms=200).expires_at_ms == 1_200
            assert bound.current("job") is not None
            bound.require(term.fence)
            tx.require(term.fence)
            done = update(jobs).where(jobs.c.name == "job", term.fence.holds(tx))
            assert tx.connection.execute(done.values(held_by="ann")).rowcount == 1
        at.advance(200)
        with store.begin() as tx:
            assert tx.connection.execute(done.values(held_by="ann")).rowcount == 1  # the old time
            later = update(jobs).where(jobs.c.name == "job", term.fence.holds(tx))
            assert tx.connection.execute(later.values(held_by="ann")).rowcount == 0
            for refused in (tx.require, JOBS.bind(tx).require):
                with pytest.raises(LeaseLostError) as lost:
                    refused(term.fence)
                assert lost.value.reason == "expired"
            assert JOBS.bind(tx).release(term.fence)
            assert JOBS.bind(tx).current("job") is None


def test_k_compose_4_a_fence_takes_one_time() -> None:
    bad: Any = FENCE
    with pytest.raises(InvalidRecordError, match="either this or a Tx"):
        bad.holds()
    with (
        SessionStore.open(None, session_id="s") as store,
        store.read() as tx,
        pytest.raises(InvalidRecordError, match="either this or a Tx"),
    ):
        bad.holds(tx, now_ms=1)


def test_k_compose_4_a_fence_of_no_table_is_refused() -> None:
    """As one is that was read by its common class."""
    with pytest.raises(InvalidRecordError, match="of a class that names its table"):
        Fence("key", "ann", "c0ffee", 1).holds(now_ms=5)


def test_k_compose_4_a_fence_of_another_kind_of_store_is_refused(where: str) -> None:
    process = ProcessFence("p", "ann", "c0ffee", 1)
    with SessionStore.open(where, session_id="s") as store, store.begin() as tx:
        bad: list[Any] = [process, "a fence", None]
        for wrong in bad:
            with pytest.raises(InvalidRecordError, match="fence"):
                tx.require(wrong)


def test_k_compose_1_a_condition_that_multiplies_rows_chooses_each_once(where: str) -> None:
    with SessionStore.open(where, session_id="s") as store:
        fence = leased(store)
        enqueue(store, 1, 2, joined=True)
        with store.begin() as tx:
            jobs.create(tx.connection)
            tx.connection.execute(jobs.insert(), [{"name": "a"}, {"name": "b"}])
        with pytest.warns(SAWarning, match="cartesian"):
            claim = store.claim_work(
                fence, owner_id="ann", ttl_ms=1_000, max_batches=9, where=jobs.c.name != "c"
            )
        assert priorities_of(claim) == [1, 2]


def test_k_compose_2_a_list_with_a_nul_is_refused(where: str) -> None:
    """SQLite's JSON would end it there."""
    with SessionStore.open(where, session_id="s") as store, store.read() as tx:
        with pytest.raises(InvalidRecordError, match="NUL"):
            batches_among.all(tx.cursor, batch_ids=["a\0b"])


def test_k_compose_4_what_is_no_tx_and_no_cursor_is_named(path: Path) -> None:
    class Bare(Fence, frozen=True):
        pass

    refusals: list[Callable[[Any, Any], object]] = [
        lambda store, _: JOBS.claim(store, "k", owner_id="ann", ttl_ms=1),
        lambda store, _: JOBS.bind(store),
        lambda store, tx: JOBS.require(tx.connection, FENCE),  # type: ignore[arg-type] # reason: that is the test
        lambda _, tx: _fenced.run(tx, now_ms=1, model="m", **TERM),
        lambda _, tx: statements.load_head.one(tx.connection),
        lambda *_: Leases(jobs),  # type: ignore[call-overload] # reason: that is the test
        lambda *_: Leases(Bare),
        lambda *_: on_alias(statements.is_live(now_ms=1), Job),  # type: ignore[arg-type] # reason: likewise
    ]
    with SessionStore.open(path, session_id="s") as store:
        before = all_rows(path)
        for refused in refusals:
            with store.begin() as tx, pytest.raises(InvalidRecordError, match="must be"):
                refused(store, tx)
        assert all_rows(path) == before


class Job:
    """What an application would map."""


TERM = {name: getattr(FENCE, name) for name in ("key", "owner_id", "token", "fencing_token")}


class JobName(TypeDecorator[str]):
    """A type of an application's own, on a text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value.upper()


class Milliseconds(TypeDecorator[int]):
    impl = BigInteger
    cache_ok = True


named_jobs = Table(
    "named_jobs",
    MetaData(),
    Column("name", JobName, primary_key=True),
    Column("held_by", Text),
    Column("secret", Text),
    Column("term", BigInteger, nullable=False, server_default="0"),
    Column("held_since", Milliseconds, nullable=False, server_default="0"),
    Column("held_until", Milliseconds, nullable=False, server_default="0"),
)


def test_a_lease_may_have_columns_of_types_of_ones_own(where: str) -> None:
    columns = named_jobs.c

    class NamedFence(Fence, frozen=True):
        leases = LeaseTable(
            named_jobs,
            key=columns.name,
            owner_id=columns.held_by,
            token=columns.secret,
            fencing_token=columns.term,
            claimed_at_ms=columns.held_since,
            expires_at_ms=columns.held_until,
        )

    leases = Leases(NamedFence)
    with SessionStore.open(where, session_id="s") as store, store.begin() as tx:
        named_jobs.metadata.create_all(tx.connection)
        lease = leases.claim(tx, "nightly", owner_id="ann", ttl_ms=1_000)
        assert not isinstance(lease, LeaseHeld)
        assert isinstance(leases.claim(tx, "nightly", owner_id="bob", ttl_ms=1_000), LeaseHeld)
        assert leases.renew(tx, lease.fence, ttl_ms=2_000).fence == lease.fence
        assert tx.connection.execute(select(columns.name)).scalar() == "NIGHTLY"
        assert leases.release(tx, lease.fence)
