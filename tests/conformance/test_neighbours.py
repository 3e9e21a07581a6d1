"""What is about one thing leaves its neighbours alone: those that sort before it, and those behind.

A condition that says ``<=`` where it should say ``==`` holds for the right row too.
"""

from __future__ import annotations

import datetime as dt
import gc
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import (
    INTEGER,
    BigInteger,
    Column,
    DateTime,
    Enum,
    FetchedValue,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    case,
    func,
    literal_column,
    orm,
    select,
    text,
    update,
)

from lash_store import (
    EffectStore,
    Fence,
    LeaseTable,
    NewWork,
    ProcessRegistry,
    SessionStore,
)
from lash_store._stores.leasing import leases_of
from lash_store.effect.records import EffectClaim, EffectError
from lash_store.effect.statements import is_live_claim, select_effects
from lash_store.effect.tables import runtime_effect_replay
from lash_store.errors import (
    ClaimLostError,
    CorruptRecordError,
    IdempotencyConflictError,
    InvalidRecordError,
    LeaseLostError,
)
from lash_store.session import statements
from lash_store.session.tables import queued_work_batches, session_execution_leases
from lash_store.testing import ManualClock
from tests.support.databases import all_rows
from tests.support.registries import lease_on, register
from tests.support.sessions import claim_of, lease_of

SCOPES, KEYS = ("a", "b", "c"), ("j", "k", "l")


def begun(effects: EffectStore, scope_id: str = "b", key: str = "k") -> EffectClaim:
    claim = effects.begin_effect(scope_id, key, envelope_hash="hash", owner_id="owner")
    assert isinstance(claim, EffectClaim)
    return claim


ENDS: dict[str, Callable[[EffectStore, EffectClaim], object]] = {
    "renew": lambda effects, claim: effects.renew_effect(claim, ttl_ms=60_000),
    "finish": lambda effects, claim: effects.finish_effect(claim, 1),
    "fail": lambda effects, claim: effects.fail_effect(claim, EffectError("code", "text")),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("field", ["scope_id", "replay_key", "envelope_hash", "owner_id", "token"])
def test_e_renew_1_a_claim_that_differs_in_one_field_holds_nothing(
    effects: EffectStore, path: Path, field: str, end: str
) -> None:
    claim = begun(effects)
    before = all_rows(path)
    reason = "superseded" if field in ("owner_id", "token") else "never_claimed"
    for other in ("!", "~"):  # which sort before all others, and behind them
        forged = msgspec.structs.replace(claim, **{field: other})
        with pytest.raises(LeaseLostError) as lost:
            ENDS[end](effects, forged)
        assert lost.value.reason == reason
        assert effects.abandon_effect(forged) is False
    assert all_rows(path) == before
    assert ENDS[end](effects, claim) in (1, None) or end == "renew"


def test_e_renew_1_why_a_claim_is_lost(effects: EffectStore, clock: ManualClock) -> None:
    claim = begun(effects)
    clock.advance(claim.expires_at_ms - clock.now_ms())
    assert lost_by(effects, claim) == "expired"
    again = begun(effects)  # by the same owner, under another token
    assert lost_by(effects, claim) == "superseded"
    effects.abandon_effect(again)
    assert lost_by(effects, again) == "released"


def lost_by(effects: EffectStore, claim: EffectClaim) -> str:
    with pytest.raises(LeaseLostError) as lost:
        effects.renew_effect(claim)
    return lost.value.reason


def test_e_begin_3_a_hash_on_either_side_is_another_step(effects: EffectStore, path: Path) -> None:
    claim = begun(effects)
    effects.abandon_effect(claim)
    before = all_rows(path)
    for other in ("!", "~"):
        with pytest.raises(IdempotencyConflictError):
            effects.begin_effect("b", "k", envelope_hash=other)
    assert all_rows(path) == before


def test_e_list_1_scopes_statuses_and_pages(effects: EffectStore, clock: ManualClock) -> None:
    began_ms = {}
    for scope in SCOPES:
        for key in KEYS:
            claim = begun(effects, scope, key)
            began_ms[scope, key] = clock.now_ms()
            if key == "j":
                effects.finish_effect(claim, key)
            elif key == "k":
                effects.fail_effect(claim, EffectError("code", "text"))
            clock.advance(10)
    names = [(scope, key) for scope in SCOPES for key in KEYS]

    def listed(**given: Any) -> list[tuple[str, str]]:
        return [(each.scope_id, each.replay_key) for each in effects.list_effects(**given)]

    assert listed() == names
    for at in range(len(names)):
        assert listed(after=names[at], limit=2) == names[at + 1 : at + 3]
    statuses: dict[str, Any] = {"j": "completed", "k": "failed", "l": "in_progress"}
    for key, status in statuses.items():
        assert listed(status=status) == [(scope, key) for scope in SCOPES]
        assert effects.count_effects(status=status) == 3
        for scope in SCOPES:
            assert listed(scope_id=scope, status=status) == [(scope, key)]
            assert effects.count_effects(scope_id=scope, status=status) == 1
    for scope in SCOPES:
        assert listed(scope_id=scope) == [(scope, key) for key in KEYS]
        assert listed(scope_id=scope, after=(scope, "j"), limit=1) == [(scope, "k")]
        age = effects.oldest_in_progress_ms(scope_id=scope)
        assert age == clock.now_ms() - began_ms[scope, "l"]
    assert effects.oldest_in_progress_ms() == clock.now_ms() - began_ms["a", "l"]


def test_e_list_1_the_oldest_of_a_scope_is_that_scopes(
    effects: EffectStore, clock: ManualClock
) -> None:
    for scope in ("a", "c", "b"):  # those on either side are older
        begun(effects, scope)
        clock.advance(10)
    assert effects.oldest_in_progress_ms(scope_id="b") == 10
    assert effects.oldest_in_progress_ms() == 30
    with effects.read() as tx:
        every = select_effects.all(tx.own_cursor)
    assert sorted(row[:2] for row in every) == [("a", "k"), ("b", "k"), ("c", "k")]


def test_e_list_1_what_is_forgotten_and_pruned_is_that_alone(
    effects: EffectStore, clock: ManualClock
) -> None:
    for scope in SCOPES:
        effects.finish_effect(begun(effects, scope, "j"), 1)
        effects.fail_effect(begun(effects, scope, "k"), EffectError("code", "text"))
        begun(effects, f"{scope}-busy", "l")
        clock.advance(10)
    assert effects.forget_scope("b") == 2

    def left() -> list[tuple[str, str]]:
        return [(each.scope_id, each.replay_key) for each in effects.list_effects()]

    assert left() == [
        ("a", "j"),
        ("a", "k"),
        ("a-busy", "l"),
        ("b-busy", "l"),
        ("c", "j"),
        ("c", "k"),
        ("c-busy", "l"),
    ]
    last_ms = clock.now_ms() - 10
    assert effects.prune_effects(last_ms) == 1
    assert left() == [
        ("a", "k"),
        ("a-busy", "l"),
        ("b-busy", "l"),
        ("c", "j"),
        ("c", "k"),
        ("c-busy", "l"),
    ]
    assert effects.prune_effects(last_ms + 1) == 1
    assert left() == [("a", "k"), ("a-busy", "l"), ("b-busy", "l"), ("c", "k"), ("c-busy", "l")]


@pytest.mark.parametrize("younger", [("a", "k"), ("c", "k"), ("b", "j"), ("b", "l")])
def test_e_list_1_what_is_pruned_is_what_is_old(
    effects: EffectStore, clock: ManualClock, younger: tuple[str, str]
) -> None:
    effects.finish_effect(begun(effects, "b", "k"), 1)
    clock.advance(10)
    effects.finish_effect(begun(effects, *younger), 1)
    assert effects.prune_effects(clock.now_ms()) == 1
    assert [(each.scope_id, each.replay_key) for each in effects.list_effects()] == [younger]


def test_s_queue_9_the_depth_tells_claimed_ready_and_not_yet(
    store: SessionStore, clock: ManualClock
) -> None:
    now = clock.now_ms()
    for available_at_ms in (now - 1, now - 1, now, now + 1):
        store.enqueue_work(NewWork([1], available_at_ms=available_at_ms))
    claim = claim_of(store)
    depth = store.work_depth()
    assert (depth.batches, depth.claimed, depth.ready) == (4, 1, 2)
    clock.advance(claim.expires_at_ms - 1 - clock.now_ms())
    assert (store.work_depth().claimed, store.work_depth().ready) == (1, 3)
    clock.advance(1)  # a term ends exclusively
    assert (store.work_depth().claimed, store.work_depth().ready) == (0, 4)


def test_s_queue_3_none_at_all_is_refused_and_one_is_taken(store: SessionStore) -> None:
    for _ in range(2):
        store.enqueue_work(NewWork([1]))
    assert len(claim_of(store, max_batches=1).batch_ids) == 1


def test_e_renew_1_the_condition_of_a_live_claim_holds_of_that_alone(
    effects: EffectStore, clock: ManualClock
) -> None:
    claim = begun(effects)
    given = {name: getattr(claim, name) for name in _CLAIM}

    def holds(now_ms: int, **others: Any) -> bool:
        condition = is_live_claim(**{**given, **others}, now_ms=now_ms)
        with effects.read() as tx:
            found = select(func.count()).select_from(runtime_effect_replay).where(condition)
            return bool(tx.connection.scalar(found) == 1)

    assert holds(clock.now_ms())
    assert holds(claim.expires_at_ms - 1)
    assert not holds(claim.expires_at_ms)
    for name in _CLAIM:
        for other in ("!", "~"):
            assert not holds(clock.now_ms(), **{name: other})
    effects.finish_effect(claim, 1)
    assert not holds(clock.now_ms())


_CLAIM = ("scope_id", "replay_key", "envelope_hash", "owner_id", "token")


def test_s_queue_6_a_claim_that_differs_in_one_field_stands_on_nothing(
    store: SessionStore, path: Path
) -> None:
    store.enqueue_work(NewWork([1]))
    claim = claim_of(store)
    before = all_rows(path)
    for field in ("session_id", "claim_id", "token"):
        for other in ("!", "~"):
            forged = msgspec.structs.replace(claim, **{field: other})
            with pytest.raises(ClaimLostError):
                store.renew_claim(forged, ttl_ms=60_000)
            with store.read() as tx, pytest.raises(ClaimLostError):
                tx.require_claim(forged)
    assert all_rows(path) == before


# Three sessions in one file, the store's own between the others, each with the same source keys.

SESSIONS = ("r", "s", "t")


@pytest.fixture
def full(store: SessionStore) -> SessionStore:
    for at in range(2):
        for session_id in SESSIONS:
            work = [NewWork([session_id, at, 0], source_key=f"k{at}", slot_policy="join")]
            store.enqueue_all_work(work, session_id=session_id)
    for at in range(2, 4):
        for session_id in SESSIONS:
            store.enqueue_work(NewWork([at, at + 10], slot_policy="join"), session_id=session_id)
    return store


def test_s_queue_9_what_is_read_of_a_session_is_that_sessions(full: SessionStore) -> None:
    every = {each: full.list_work(session_id=each) for each in SESSIONS}
    for session_id, batches in every.items():
        assert {batch.session_id for batch in batches} == {session_id}
        assert [[item.payload for item in batch.items] for batch in batches] == [
            [session_id, 0, 0],
            [session_id, 1, 0],
            [2, 12],
            [3, 13],
        ]
        depth = full.work_depth(session_id=session_id)
        assert (depth.batches, depth.claimed, depth.ready) == (4, 0, 4)
        with full.read() as tx:
            chosen = statements.select_work.all(tx.own_cursor, session_id=session_id)
            assert [row[1] for row in chosen] == [batch.batch_id for batch in batches]
            all_work = statements.select_all_work.all(tx.own_cursor)
            assert len(all_work) == sum(map(len, every.values()))
            items = statements.select_items.all(tx.own_cursor, session_id=session_id)
            assert len(items) == sum(len(batch.items) for batch in batches)
            for key, batch in (("k0", batches[0]), ("k1", batches[1])):
                row = statements.find_source.one(
                    tx.own_cursor, session_id=session_id, source_key=key
                )
                assert row == (batch.batch_id,)
            for batch in batches:
                of_batch = statements.load_batch_items.all(tx.own_cursor, batch_id=batch.batch_id)
                assert [row[1] for row in of_batch] == [item.item_id for item in batch.items]
            middle = batches[1:3]
            found = statements.load_items.all(
                tx.own_cursor,
                session_id=session_id,
                first_seq=middle[0].enqueue_seq,
                last_seq=middle[1].enqueue_seq,
            )
            assert [row[1] for row in found] == [
                item.item_id for batch in middle for item in batch.items
            ]


def test_s_queue_9_the_depth_of_nothing_is_nothing(store: SessionStore) -> None:
    depth = store.work_depth()
    assert (depth.batches, depth.claimed, depth.ready) == (0, 0, 0)


def test_s_queue_4_a_claim_has_the_items_of_its_batches_each_once(full: SessionStore) -> None:
    claim = claim_of(full, max_batches=4, order_by=queued_work_batches.c.enqueue_seq.desc())
    assert [[item.payload for item in batch.items] for batch in claim.batches] == [
        [3, 13],
        [2, 12],
        ["s", 1, 0],
        ["s", 0, 0],
    ]
    with full.read() as tx:
        rows = statements.load_claimed_items.all(
            tx.own_cursor, session_id="s", claim_id=claim.claim_id, token=claim.token
        )
        assert len(rows) == 10
        seqs = [batch.enqueue_seq for batch in claim.batches]
        for seq in seqs:
            assert statements.lapsed_claim.one(tx.own_cursor, enqueue_seq=seq) == (claim.owner_id,)
        assert statements.lapsed_claim.one(tx.own_cursor, enqueue_seq=max(seqs) + 1) is None


def test_k_compose_1_what_is_chosen_is_of_the_session_and_may_be_had(
    store: SessionStore, clock: ManualClock
) -> None:
    now = clock.now_ms()
    for session_id in SESSIONS:
        for available_at_ms in (now + 1, now, now - 1):
            store.enqueue_work(
                NewWork(
                    [available_at_ms, "more"], available_at_ms=available_at_ms, slot_policy="join"
                ),
                session_id=session_id,
            )
    chosen = claim_of(store, max_batches=9, order_by=queued_work_batches.c.available_at_ms)
    assert [batch.items[0].payload for batch in chosen.batches] == [now - 1, now]
    assert {batch.session_id for batch in chosen.batches} == {"s"}


_keys = queued_work_batches.c.source_key
_size = case((_keys == "b", 2), (_keys == "a", 1))


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (_keys, [None, "a", "b"]),
        (_keys.asc(), [None, "a", "b"]),
        (_keys.desc(), ["b", "a", None]),
        (_keys.nulls_last(), ["a", "b", None]),
        (_keys.desc().nulls_first(), [None, "b", "a"]),
        (_size, [None, "a", "b"]),
        (_size.label("size").desc(), ["b", "a", None]),
        ([queued_work_batches.c.session_id, _size.desc()], ["b", "a", None]),
        (func.coalesce(_keys, "z"), ["a", "b", None]),
    ],
)
def test_k_compose_1_what_has_no_value_is_first_and_by_desc_last(
    store: SessionStore, order: Any, expected: list[str | None]
) -> None:
    for key in ("a", None, "b"):
        store.enqueue_work(NewWork([key], source_key=key, slot_policy="join"))
    chosen = claim_of(store, max_batches=9, order_by=order)
    assert [batch.source_key for batch in chosen.batches] == expected


@pytest.mark.parametrize(
    "choice", [{"where": literal_column("nope") == 1}, {"order_by": literal_column("nope")}]
)
def test_k_compose_1_a_choice_of_work_that_the_database_cant_make_is_refused(
    store: SessionStore, path: Path, choice: dict[str, Any]
) -> None:
    store.enqueue_work(NewWork([1]))
    lease = lease_of(store)
    before = all_rows(path)
    with pytest.raises(InvalidRecordError, match="can't be run"):
        store.claim_work(lease.fence, owner_id="ann", ttl_ms=1_000, **choice)
    assert all_rows(path) == before
    with store.begin() as tx:  # where it is caught, what was done before stays (K-TX-2)
        tx.enqueue_work(NewWork([2]))
        with pytest.raises(InvalidRecordError, match="can't be run"):
            tx.claim_work(lease.fence, owner_id="ann", ttl_ms=1_000, **choice)
    assert len(store.list_work()) == 2
    assert store.claim_work(lease.fence, owner_id="ann", ttl_ms=1_000) is not None


@pytest.mark.parametrize(
    "text", ["1 = 0 OR 1 = 1", "1 = 0 OR queued_work_batches.batch_id IS NOT NULL"]
)
def test_k_compose_1_a_text_that_chooses_passes_over_no_rule(
    store: SessionStore, clock: ManualClock, text: str
) -> None:
    """SQLAlchemy puts none in parentheses."""
    store.enqueue_work(NewWork(["later"], available_at_ms=clock.now_ms() + 1))
    lease = lease_of(store)
    where: Any = literal_column(text)
    assert store.claim_work(lease.fence, owner_id="ann", ttl_ms=1_000, where=where) is None


def test_k_compose_1_a_text_that_chooses_claims_no_process_twice(
    registry: ProcessRegistry, path: Path
) -> None:
    """One that could not be put in parentheses is refused, and goes on for ever nowhere."""
    register(registry, "p")
    assert registry.claim_next(owner_id="ann", ttl_ms=60_000) is not None
    before = all_rows(path)
    held: Any = literal_column("1 = 0 OR processes.process_id = 'p'")
    assert registry.claim_next(owner_id="bob", ttl_ms=60_000, where=held) is None
    broken: Any = literal_column("1 = 0) OR (processes.process_id = 'p'")
    with pytest.raises(InvalidRecordError, match="not to be claimed"):
        registry.claim_next(owner_id="bob", ttl_ms=60_000, where=broken)
    assert all_rows(path) == before


@pytest.mark.canonical("nothing is opened")
def test_k_lease_5_a_table_whose_rows_no_claim_can_make_is_refused() -> None:
    """When it is declared: the first claim of a key would be refused by the database, row or no row."""

    def declare(*more: Column[Any]) -> LeaseTable:
        table = Table(
            "jobs",
            MetaData(),
            Column("id", Text, primary_key=True),
            *(Column(name, Text) for name in ("owner", "token")),
            *(Column(name, BigInteger, nullable=False) for name in ("term", "since", "until")),
            *more,
        )
        c = table.c
        return LeaseTable(
            table,
            key=c.id,
            owner_id=c.owner,
            token=c.token,
            fencing_token=c.term,
            claimed_at_ms=c.since,
            expires_at_ms=c.until,
        )

    for bad in (
        Column("payload", Text, nullable=False),
        Column("payload", Text, nullable=False, default="x"),
    ):
        with pytest.raises(InvalidRecordError, match=r"table = jobs\.payload: must be nullable"):
            declare(bad)
    for good in (
        Column("payload", Text),
        Column("payload", Text, nullable=False, server_default=""),
        Column("payload", Text, FetchedValue(), nullable=False),
    ):
        assert declare(good).table.name == "jobs"


KEPT: dict[str, Callable[[], Column[Any]]] = {
    "id": lambda: Column("id", Text, primary_key=True),
    "owner": lambda: Column("owner", Text),
    "token": lambda: Column("token", Text),
    "term": lambda: Column("term", BigInteger, nullable=False, server_default="0"),
    "since": lambda: Column("since", BigInteger, nullable=False, server_default="0"),
    "until": lambda: Column("until", BigInteger, nullable=False, server_default="0"),
}
OTHERS: list[tuple[str, Column[Any], str]] = [
    ("id", Column("id", Integer, primary_key=True), "text"),
    ("id", Column("id", Uuid, primary_key=True), "text"),
    ("id", Column("id", Uuid(as_uuid=False), primary_key=True), "text"),
    ("id", Column("id", Enum("mail", "sms", name="kind"), primary_key=True), "text"),
    ("id", Column("id", Text, nullable=False), "unique by itself"),
    ("id", Column("id", Text, primary_key=True, default="x"), "default in Python"),
    ("tenant", Column("tenant", Text, primary_key=True, server_default="t"), "unique by itself"),
    ("owner", Column("owner", Text, nullable=False, server_default=""), "nullable"),
    ("token", Column("token", Uuid), "text"),
    ("term", Column("term", BigInteger), "must not be nullable"),
    ("since", Column("since", DateTime, nullable=False), "number"),
    ("until", Column("until", BigInteger, nullable=True), "must not be nullable"),
    ("until", Column("until", Integer, nullable=False, server_default="0"), "BigInteger"),
    ("term", Column("term", SmallInteger, nullable=False, server_default="0"), "BigInteger"),
    ("state", Column("state", Text, default="new"), "default in Python"),
    ("at", Column("at", DateTime, onupdate=dt.datetime.now), "default in Python"),
]


@pytest.mark.canonical("nothing is opened")
@pytest.mark.parametrize(("name", "column", "why"), OTHERS, ids=str)
def test_k_lease_5_a_table_in_which_no_lease_can_stand_is_refused(
    name: str, column: Column[Any], why: str
) -> None:
    """When it is declared: the first claim, renewal or release would fail, or all of those that follow."""
    columns: dict[str, Any] = {**KEPT, name: lambda: column}
    table: Table[Any] = Table("jobs", MetaData(), *(make() for make in columns.values()))
    with pytest.raises(InvalidRecordError, match=why):
        leased(table.c)


@pytest.mark.canonical("nothing is opened")
def test_k_lease_5_columns_of_a_lease_are_the_tables_own() -> None:
    table, other = (Table("jobs", MetaData(), *(make() for make in KEPT.values())) for _ in "ab")
    assert leased(table.c).table is table
    for wrong in (other.c.token, "token", None):
        with pytest.raises(InvalidRecordError, match="a column of the table itself"):
            leased(table.c, token=wrong)
    with pytest.raises(InvalidRecordError, match="a column of its own"):
        leased(table.c, token=table.c.owner)

    class Job:
        """What is mapped to it has the columns as attributes."""

    orm.registry().map_imperatively(Job, table)
    mapped: Any = Job
    with pytest.raises(InvalidRecordError, match=r"table = .*which of a mapped class is its"):
        LeaseTable(mapped, **parts_of(mapped))
    kept: dict[str, Any] = {**KEPT, "id": lambda: Column("id", String(40), nullable=False)}
    unique: Table[Any] = Table(
        "jobs", MetaData(), *(make() for make in kept.values()), UniqueConstraint("id")
    )
    assert leased(unique.c).key is unique.c.id
    for where, holds in ((None, True), (text("term > 0"), False)):  # of some rows alone
        indexed: Table[Any] = Table("jobs", MetaData(), *(make() for make in kept.values()))
        Index("ix_id", indexed.c.id, unique=True, sqlite_where=where)
        if holds:
            assert leased(indexed.c).key is indexed.c.id
        else:
            with pytest.raises(InvalidRecordError, match="unique by itself"):
                leased(indexed.c)
    for unlike in (
        lambda column: Index("ix_lower", func.lower(column), unique=True),
        lambda column: UniqueConstraint(column, deferrable=True),
        lambda column: UniqueConstraint(column, initially="DEFERRED"),
    ):
        loose: Table[Any] = Table("jobs", MetaData(), *(make() for make in kept.values()))
        constraint = unlike(loose.c.id)
        if isinstance(constraint, UniqueConstraint):
            loose.append_constraint(constraint)
        with pytest.raises(InvalidRecordError, match="unique by itself"):
            leased(loose.c)


@pytest.mark.canonical("nothing of it is stored")
def test_k_lease_5_numbers_are_wide_wherever_they_stand() -> None:
    """By a variant, too; and what was reflected is what is there."""
    metadata = MetaData()
    for at, wide in enumerate(
        (
            BigInteger(),
            BigInteger().with_variant(Integer(), "sqlite"),
            Integer().with_variant(BigInteger(), "postgresql"),
            INTEGER(),
        )
    ):
        kept: dict[str, Any] = {**KEPT, "until": partial(Column, "until", wide, nullable=False)}
        table: Table[Any] = Table(f"t{at}", metadata, *(make() for make in kept.values()))
        assert leased(table.c).expires_at_ms is table.c.until
    kept = {**KEPT, "id": lambda: Column("id", Text, nullable=False)}
    ordered: Table[Any] = Table("jobs", MetaData(), *(make() for make in kept.values()))
    Index("ix_id", ordered.c.id.desc(), unique=True)
    assert leased(ordered.c).key is ordered.c.id


@pytest.mark.canonical("nothing of it is stored")
def test_classes_of_fences_may_be_made_again_and_again(store: SessionStore) -> None:
    """A class that was required once is kept no longer than some hundred others."""

    def declared() -> weakref.ref[type[Fence]]:
        table: Table[Any] = Table("jobs", MetaData(), *(make() for make in KEPT.values()))

        class JobFence(Fence, frozen=True):
            leases = leased(table.c)

        leases_of(JobFence)
        return weakref.ref(JobFence)

    first = declared()
    assert first() is not None
    for _ in range(300):
        declared()
    gc.collect()
    assert first() is None


def leased(c: Any, **other: Any) -> LeaseTable:
    return LeaseTable(c.id.table, **{**parts_of(c), **other})


def parts_of(c: Any) -> dict[str, Any]:
    return {
        "key": c.id,
        "owner_id": c.owner,
        "token": c.token,
        "fencing_token": c.term,
        "claimed_at_ms": c.since,
        "expires_at_ms": c.until,
    }


def test_k_lease_5_numbers_are_compared_by_what_they_are(store: SessionStore) -> None:
    """Beyond the small ones, two objects may be the same number."""
    lease = lease_of(store)
    with store.begin() as tx:
        tx.connection.execute(update(session_execution_leases).values(lease_fencing_token=10**9))
    fence = msgspec.structs.replace(lease.fence, fencing_token=int("1" + "0" * 9))
    with store.read() as tx:
        tx.require(fence)
    assert store.release_lease(fence)
    with pytest.raises(LeaseLostError) as lost:
        store.renew_lease(fence, ttl_ms=1)
    assert lost.value.reason == "released"


@pytest.mark.sqlite("a column of a server has one type")
def test_k_codec_2_a_lease_that_can_not_be_read_is_named(store: SessionStore) -> None:
    lease = lease_of(store)
    for column, value in (("lease_owner_id", ""), ("lease_claimed_at_ms", "never")):
        with store.begin() as tx:
            tx.connection.execute(
                update(session_execution_leases).values(
                    {column: literal_column(repr(value)), "lease_expires_at_ms": 2**62}
                )
            )
        with pytest.raises(CorruptRecordError) as corrupt:
            store.current_lease()
        assert corrupt.value.key == lease.fence.session_id


def test_p_event_11_an_event_is_seen_again_by_whoever_was_not_superseded(
    registry: ProcessRegistry, clock: ManualClock
) -> None:
    register(registry)
    fence = lease_on(registry, ttl_ms=10).fence
    first = registry.append_event("p", "tick", 1, replay_key="k", fence=fence)
    clock.advance(10)  # its term is over, and nobody has another
    again = registry.append_event("p", "tick", 1, replay_key="k", fence=fence)
    assert again.event == first.event
    with pytest.raises(LeaseLostError):
        registry.append_event("p", "tick", 1, replay_key="new", fence=fence)
    lease_on(registry, owner_id="bob")
    with pytest.raises(LeaseLostError):
        registry.append_event("p", "tick", 1, replay_key="k", fence=fence)
