"""What goes over the wire: how many answers an operation waits for, and what becomes of what was not waited for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import func, make_url, select
from sqlalchemy.exc import OperationalError

from lash_store import (
    Append,
    AsyncDeployment,
    AsyncSessionStore,
    Checkpoint,
    Deployment,
    EffectStore,
    NewWork,
    Node,
    ProcessRegistry,
    Replayed,
    SessionLease,
    SessionStore,
    Success,
    TurnCommit,
    TurnStamp,
    WorkClaim,
)
from lash_store._backends.postgresql.locks import number_of
from lash_store._kernel.observing import Event, observed_by
from lash_store.errors import (
    ConnectionLostError,
    LashStoreError,
    LeaseLostError,
    OutcomeUnknownError,
    StorageError,
    StoreBusyError,
)
from lash_store.process.records.leases import ClaimedProcess
from lash_store.session import statements
from lash_store.session.records import UsageDelta
from lash_store.session.tables import usage_deltas
from lash_store.testing import ManualClock, as_another_process, run_as_group
from tests.support.proxy import Proxy
from tests.support.registries import register
from tests.support.turns import eventually, join

Admin = psycopg.Connection[Any]

SLOW_S = 0.02
"""Enough for what is sent together to be there together."""


@pytest.fixture
def store(wire: Proxy, place: str) -> Iterator[SessionStore]:
    with SessionStore.open(wire.url, session_id="s", schema=place) as opened:
        assert isinstance(opened.claim_lease(owner_id="ann", ttl_ms=60_000), SessionLease)
        yield opened


def trips(wire: Proxy, call: Callable[[], Any]) -> tuple[int, Any]:
    """Return how many answers a call has waited for, and what it gave."""
    wire.trips = 0
    try:
        given = call()
    except LashStoreError as error:
        given = error
    return wire.trips, given


def turn(lease: SessionLease, claim: WorkClaim, number: int) -> TurnCommit:
    """A turn with everything in it."""
    return TurnCommit(
        fence=lease.fence,
        stamp=TurnStamp(f"turn {number}", "hash"),
        config={"model": "m"},
        graph=Append(
            [Node(f"n{number}", f"n{number - 1}" if number else None, {})], leaf=f"n{number}"
        ),
        checkpoint=Checkpoint({"n": number}, execution_state=b"%d" % number),
        usage=[UsageDelta("chat", "m", 1)],
        completed=[claim],
    )


def test_k_pg_5_an_operation_waits_for_few_answers(store: SessionStore, wire: Proxy) -> None:
    lease = store.current_lease()
    assert lease is not None
    counted: list[list[int]] = []
    for number in range(10):
        if (
            number == 7
        ):  # until every statement is prepared, which takes an answer of its own, each once
            wire.delay_s = SLOW_S
            counted.clear()
        in_turn = [
            trips(wire, lambda: store.renew_lease(lease.fence, ttl_ms=60_000)),
            trips(wire, lambda: store.enqueue_work(NewWork(["x", "y"]))),
            trips(wire, lambda: store.claim_work(lease.fence, owner_id="ann", ttl_ms=60_000)),
        ]
        claim = in_turn[-1][1]
        assert isinstance(claim, WorkClaim)
        commit = turn(lease, claim, number)
        in_turn.append(trips(wire, lambda commit=commit: store.commit_turn(commit)))  # type: ignore[misc] # reason: a default
        counted.append([count for count, _ in in_turn])
    renew, enqueue, claim_work, commit_turn = map(max, zip(*counted, strict=True))
    assert (renew, enqueue, claim_work, commit_turn) == (2, 3, 4, 7)
    assert trips(wire, lambda: store.release_lease(lease.fence)) == (2, True)
    assert store.current_lease() is None


def test_k_pg_5_a_job_waits_for_few_answers(store: SessionStore, wire: Proxy) -> None:
    lease = store.current_lease()
    assert lease is not None
    fence = lease.fence
    store.enqueue_all_work([NewWork([n]) for n in range(9)])
    claim: Any = store.claim_work(fence, owner_id="ann", ttl_ms=60_000)
    for number in range(7):
        wire.delay_s = SLOW_S if number == 6 else 0.0
        count, claim = trips(
            wire,
            lambda claim=claim: store.complete_and_claim_work(fence, claim, ttl_ms=60_000),  # type: ignore[misc] # reason: a default
        )
    assert count == 5
    wire.delay_s = 0.0
    store.complete_work(fence, claim)
    claim = store.claim_work(fence, owner_id="ann", ttl_ms=60_000)
    wire.delay_s = SLOW_S
    assert trips(wire, lambda: store.complete_work(fence, claim)) == (3, None)


def test_k_pg_5_steps_are_recorded_with_their_commit(wire: Proxy, place: str) -> None:
    with EffectStore.open(wire.url, owner_id="ann", schema=place) as store:
        for number, key in enumerate("abcdefghi"):
            wire.delay_s = SLOW_S if number > 6 else 0.0
            claim: Any = store.begin_effect("s", key, "e", ttl_ms=60_000)
            count, claim = trips(wire, lambda claim=claim: store.renew_effect(claim))  # type: ignore[misc] # reason: a default
            ended = trips(wire, lambda claim=claim: store.finish_effect(claim, 7))  # type: ignore[misc] # reason: likewise
            assert number <= 6 or (count, ended) == (2, (2, 7))
        assert store.count_effects(status="completed") == 9


def test_k_pg_5_a_step_under_a_lease_has_its_locks_with_its_begin(wire: Proxy, place: str) -> None:
    with Deployment.open(wire.url, schema=place) as deployment:
        lease: Any = deployment.sessions.create("chat", model="m").claim_lease(
            owner_id="ann", ttl_ms=60_000
        )
        for number in range(9):
            wire.delay_s = SLOW_S if number > 7 else 0.0
            record = partial(deployment.effects.record_effect, lease.fence, "s", f"{number}", "e")
            count, given = trips(wire, lambda record=record: record(7))  # type: ignore[misc] # reason: a default
            assert given == Replayed(7)
        assert count == 4


def test_k_pg_6_what_is_refused_has_changed_nothing_and_is_explained(
    store: SessionStore, wire: Proxy, admin: Admin, place: str
) -> None:
    lease = store.current_lease()
    assert lease is not None
    store.release_lease(lease.fence)
    before = admin.execute(f"SELECT * FROM {place}.lash_session_execution_leases").fetchall()
    _, error = trips(wire, lambda: store.renew_lease(lease.fence, ttl_ms=60_000))
    assert isinstance(error, LeaseLostError)
    assert error.reason == "released"
    assert trips(wire, lambda: store.release_lease(lease.fence))[1] is False
    after = admin.execute(f"SELECT * FROM {place}.lash_session_execution_leases").fetchall()
    assert after == before


def test_k_pg_6_an_error_of_what_was_not_waited_for_undoes_the_call(
    store: SessionStore, admin: Admin, place: str
) -> None:
    """It comes with a later statement, or with COMMIT, and is the call's."""
    table = f"{place}.lash_queued_work_items"
    admin.execute(f"ALTER TABLE {table} ADD CHECK (payload_json NOT LIKE '%poison%')")
    with pytest.raises(StorageError, match=r"poison|check"):
        store.enqueue_work(NewWork(["poison"]))
    assert store.list_work() == []
    store.enqueue_work(NewWork(["good"]))
    with store.begin() as tx, pytest.raises(StorageError):  # here it is told at once
        tx.enqueue_work(NewWork(["poison"]))
    assert len(store.list_work()) == 1


def test_k_pg_6_in_a_group_it_strikes_nobody_else(
    store: SessionStore, admin: Admin, place: str
) -> None:
    table = f"{place}.lash_queued_work_items"
    admin.execute(f"ALTER TABLE {table} ADD CHECK (payload_json NOT LIKE '%poison%')")
    work = [NewWork([text]) for text in ("a", "poison", "b")]
    results = run_as_group(*(partial(store.enqueue_work, each) for each in work))
    assert [isinstance(each, StorageError) for each in results] == [False, True, False]
    assert [batch.items[0].payload for batch in store.list_work()] == ["a", "b"]


def test_k_pg_6_a_consumers_statement_goes_behind_what_waits(store: SessionStore) -> None:
    def work(tx: Any) -> int:
        statements.record_usage.later(
            tx.own_cursor,
            source="chat",
            model="m",
            input_tokens=1,
            output_tokens=0,
            cached_input_tokens=0,
            reasoning_tokens=0,
        )
        found: int = tx.connection.scalar(select(func.count()).select_from(usage_deltas))
        return found

    assert store._handle.write("record_usage", work) == 1


class Cut:
    """Cuts the wire as a statement is sent."""

    def __init__(self, wire: Proxy, kind: str) -> None:
        self._wire, self._kind = wire, kind

    def before(self, event: Event) -> None:
        if event.kind == self._kind:
            self._wire.close()

    def after(self, _: Event) -> None:
        """Nothing."""


def test_k_pg_6_lost_with_its_commit_nobody_knows(store: SessionStore, wire: Proxy) -> None:
    lease = store.current_lease()
    assert lease is not None
    with observed_by(Cut(wire, "commit")), pytest.raises(OutcomeUnknownError):
        store.renew_lease(lease.fence, ttl_ms=60_000)


class Broken(ManualClock):
    """A clock that can't be read for once."""

    is_broken = False

    def now_ms(self) -> int:
        if self.is_broken:
            raise RuntimeError("no time")
        return super().now_ms()


def test_k_pg_5_a_call_that_fails_before_its_first_statement_commits_nothing_else(
    url: str, place: str, admin: Admin
) -> None:
    clock = Broken()
    with SessionStore.open(
        url, session_id="s", schema=place, clock=clock, application_name=place
    ) as store:
        lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert isinstance(lease, SessionLease)
        clock.is_broken = True
        with pytest.raises(RuntimeError, match="no time"):
            store.renew_lease(lease.fence, ttl_ms=1)
        clock.is_broken = False
        states = admin.execute(
            "SELECT state FROM pg_stat_activity WHERE application_name = %s", (place,)
        ).fetchall()
        assert states == [("idle",)]
        store.renew_lease(lease.fence, ttl_ms=60_000)
        assert store.release_lease(lease.fence)


class Confused:
    """The driver loses its way as COMMIT goes over the wire."""

    def before(self, _: Event) -> None:
        """Nothing."""

    def after(self, event: Event) -> None:
        if event.kind == "commit":
            raise psycopg.OperationalError("cannot exit pipeline mode while busy")


@pytest.mark.parametrize("which", ["enqueue", "renew"])
def test_k_pg_6_what_the_driver_can_not_say_nobody_knows(store: SessionStore, which: str) -> None:
    """It was committed here; it might not have been."""
    lease = store.current_lease()
    assert lease is not None
    with observed_by(Confused()), pytest.raises(OutcomeUnknownError):
        if which == "enqueue":
            store.enqueue_work(NewWork(["x"]))
        else:
            store.renew_lease(lease.fence, ttl_ms=90_000)
    assert len(store.list_work()) == (which == "enqueue")


def test_k_pg_2_a_server_that_is_away_for_a_moment_is_a_lost_connection(
    store: SessionStore, wire: Proxy
) -> None:
    """Which a renewal may pass over; StoreOpenError says that a place is none."""
    lease = store.current_lease()
    assert lease is not None
    wire.close()
    for _ in range(2):
        with pytest.raises(ConnectionLostError):
            store.renew_lease(lease.fence, ttl_ms=60_000)


def test_k_pg_2_a_lock_that_is_not_had_costs_no_connection(url: str, place: str) -> None:
    with as_another_process():
        other = SessionStore.open(url, session_id="s", schema=place)
    with (
        other,
        SessionStore.open(url, session_id="s", schema=place, busy_timeout_ms=50) as store,
        SessionStore.open(store, session_id="t") as beside,
    ):
        database: Any = store._handle.database  # type: ignore[attr-defined] # reason: what is open is no business of a store's
        with store.read(), beside.read():
            store.current_lease()
        idle = len(database._idle)
        assert idle == 3
        with other.begin(), pytest.raises(StoreBusyError):
            store.put_blob(b"x")
        assert len(database._idle) == idle


def test_k_tx_10_an_interrupt_at_the_end_of_a_turn_leaves_nothing_locked(
    store: SessionStore,
) -> None:
    class Interrupted(dict[Any, Any]):
        times = 0

        def pop(self, *given: Any) -> Any:
            self.times += 1
            if self.times == 1:
                raise KeyboardInterrupt
            return super().pop(*given)

    turns: Any = store._handle.database.turns  # type: ignore[attr-defined] # reason: the same
    turns._admitted = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        store.put_blob(b"x")
    assert turns._admitted == {}
    assert store.put_blob(b"y")


def test_k_tx_10_an_interrupt_is_not_lost_under_what_the_driver_makes_of_it(
    store: SessionStore,
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    def send_and_be_interrupted() -> None:
        connection.own_cursor.execute_now("SELECT 1", None)
        connection.wait = interrupt  # which is next as the pipeline ends, for the answers

    with pytest.raises(KeyboardInterrupt), store.begin() as tx:
        connection: Any = tx.transaction
        connection.send(send_and_be_interrupted)
    assert store.put_blob(b"x")


def test_k_tx_10_an_error_while_an_interrupt_is_handled_is_itself(store: SessionStore) -> None:
    def fail() -> None:
        raise psycopg.errors.UniqueViolation

    def interrupt() -> None:
        raise KeyboardInterrupt

    with store.begin() as tx:
        connection: Any = tx.transaction
        try:
            interrupt()
        except KeyboardInterrupt:
            with pytest.raises(psycopg.errors.UniqueViolation):
                connection.send(fail)
        assert not connection.closed


def test_k_pg_2_a_statement_timeout_is_no_lost_connection(url: str, place: str) -> None:
    with as_another_process():
        other = SessionStore.open(url, session_id="s", schema=place)
    hasty = make_url(url).update_query_dict({"options": "-cstatement_timeout=100ms"})
    hastily = hasty.render_as_string(hide_password=False)
    with other, SessionStore.open(hastily, session_id="s", schema=place) as store:
        store.put_blob(b"x")
        with pytest.raises(OperationalError, match="statement timeout"), store.begin() as tx:
            tx.connection.exec_driver_sql("SELECT pg_sleep(20)")
        store.put_blob(b"y")


def test_k_hold_2_a_term_outlives_a_server_that_is_away_for_a_moment(
    url: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = threading.Event()

    def refuse(_: object) -> None:
        refused.set()
        raise psycopg.OperationalError("the database system is starting up")

    with SessionStore.open(url, session_id="s", schema=place) as store:
        database: Any = store._handle.database  # type: ignore[attr-defined] # reason: the same
        with store.hold(owner_id="ann", ttl_ms=3_000) as held:
            with monkeypatch.context() as patched:
                patched.setattr(type(database), "_connect", refuse)
                database._close_idle()
                assert refused.wait(10)
            eventually(lambda: held.renewals)
            held.check()


def test_k_pg_5_a_process_that_is_ended_as_the_next_is_claimed_waits_for_few_answers(
    wire: Proxy, place: str
) -> None:
    with ProcessRegistry.open(wire.url, schema=place) as registry:
        for number in range(9):
            register(registry, f"p{number}")
        claimed = registry.claim_next(owner_id="ann", ttl_ms=60_000)
        for number in range(7):
            assert claimed is not None
            fence = claimed.fence
            wire.delay_s = SLOW_S if number == 6 else 0.0
            count, (_, claimed) = trips(
                wire,
                lambda fence=fence: registry.complete_and_claim_next(  # type: ignore[misc] # reason: a default
                    fence, Success(1), ttl_ms=60_000
                ),
            )
        wire.delay_s = 0.0
        assert count == 9


def test_k_lock_1_who_waits_for_one_process_keeps_nothing_while_it_asks_for_the_next(
    url: str, server: str, place: str, admin: Admin
) -> None:
    """Or those who wait would wait for each other in a ring."""
    with ProcessRegistry.open(url, schema=place) as registry:
        for name in ("first", "second"):
            register(registry, name)
        found: list[ClaimedProcess | None] = []
        claimer = threading.Thread(
            target=lambda: found.append(registry.claim_next(owner_id="ann", ttl_ms=60_000))
        )
        first, second = (
            number_of(f"{place}.lash_", "process", name) for name in ("first", "second")
        )
        with psycopg.connect(server) as one, psycopg.connect(server) as two:
            one.execute("SELECT pg_advisory_xact_lock(%s)", [first])
            two.execute("SELECT pg_advisory_xact_lock(%s)", [second])
            claimer.start()
            eventually(lambda: waits_for(admin, first))
            one.execute(
                f"UPDATE {place}.lash_processes SET status = 'x' WHERE process_id = 'first'"
            )
            one.commit()
            eventually(lambda: waits_for(admin, second))
            ((is_free,),) = two.execute("SELECT pg_try_advisory_xact_lock(%s)", [first]).fetchall()
            two.rollback()
        join(claimer)
        assert is_free
        assert [each and each.record.id for each in found] == ["second"]


def waits_for(admin: Admin, number: int) -> bool:
    """Whether somebody waits for an advisory lock."""
    ((found,),) = admin.execute(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
        "AND (classid::bigint << 32) + objid::bigint = %s",
        [number],
    ).fetchall()
    return bool(found)


def test_k_hold_1_what_is_left_as_the_deployment_closes_is_released(
    wire: Proxy, place: str
) -> None:
    """What a closing has open meanwhile, to release what its own stores can't any more, it leaves alone."""
    names = [f"s{number}" for number in range(20)]

    async def hold(store: AsyncSessionStore, stop: asyncio.Event, held: list[str]) -> None:
        async with store.hold(owner_id="ann", ttl_ms=600_000):
            held.append(store.session_id)
            await stop.wait()

    async def main() -> None:
        stop, held = asyncio.Event(), list[str]()
        async with AsyncDeployment.open(wire.url, schema=place) as deployment:
            stores = [await deployment.sessions.create(name, model="m") for name in names]
            tasks = [asyncio.create_task(hold(store, stop, held)) for store in stores]
            while len(held) < len(names):
                await asyncio.sleep(0.01)
            wire.delay_s = 0.005
            stop.set()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        wire.delay_s = 0.0

    asyncio.run(main())
    with Deployment.open(wire.url, schema=place) as deployment:
        for name in names:
            store = deployment.sessions.open(name)
            assert store is not None
            assert store.current_lease() is None
