"""What PostgreSQL has of its own: locks, the server's clock, lost connections, groups, the guard."""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from hashlib import sha256
from itertools import count
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from sqlalchemy import (
    Column,
    MetaData,
    Table,
    Text,
    and_,
    create_engine,
    func,
    make_url,
    or_,
    select,
    text,
    update,
)

import lash_store
from lash_store import (
    AsyncDeployment,
    Deployment,
    LeaseHeld,
    NewWork,
    ProcessLease,
    ProcessRegistry,
    ProcessTx,
    Replayed,
    SessionStore,
    Success,
)
from lash_store._backends.postgresql import guard
from lash_store._backends.postgresql.connection import StoreConnection
from lash_store._backends.postgresql.dialect import check_no_control
from lash_store._backends.postgresql.locks import locks_of, number_of, together
from lash_store._kernel.observing import Event, observed_by
from lash_store.clock import SystemClock
from lash_store.errors import (
    ConnectionLostError,
    DeadlockError,
    InvalidRecordError,
    LashStoreError,
    LeaseLostError,
    NamesTakenError,
    NestedTransactionError,
    OutcomeUnknownError,
    ReadOnlyStoreError,
    SchemaDriftError,
    SchemaVersionError,
    StorageError,
    StoreBusyError,
    StoreClosedError,
    StoreEmptyError,
    StoreOpenError,
    TransactionControlError,
    TransactionEndedError,
)
from lash_store.process.operations import claims
from lash_store.process.operations.claims import _Look
from lash_store.process.records import ProcessFilter, signal_wait
from lash_store.process.tables import SCHEMA as PROCESS, processes
from lash_store.schemas import check_file, create_tables
from lash_store.session.tables import SCHEMA as SESSION, blobs
from lash_store.session.tx import SessionTx
from lash_store.testing import ManualClock, Parked, as_another_process, run_as_group
from tests.support.postgresql import placed
from tests.support.proxy import Proxy
from tests.support.registries import register, registration
from tests.support.turns import eventually


@pytest.fixture
def deployment(url: str, place: str) -> Iterator[Deployment]:
    with Deployment.open(url, schema=place, application_name=place) as opened:
        yield opened


class Seen:
    """The statements that were sent."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def before(self, event: Event) -> None:
        self.statements.append(event.sql.split()[0])

    def after(self, event: Event) -> None:
        """Nothing more."""


@contextmanager
def in_thread(work: Any) -> Iterator[list[Any]]:
    """Run `work` in a thread beside the block; what it gives, or raises, is in the list after it."""
    given: list[Any] = []

    def run() -> None:
        try:
            given.append(work())
        except Exception as error:  # noqa: BLE001 # reason: it is what is looked at
            given.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield given
    thread.join(30)
    assert not thread.is_alive()


# The locks.


def test_k_lock_1_a_session_has_its_own_lock_and_other_kinds_share_theirs() -> None:
    (session,) = locks_of("p", SESSION, "a", None)
    assert session == (number_of("p", "session", "a"), False)
    assert locks_of("p", SESSION, "a", ("anything",)) == (session,)
    (kind,) = locks_of("p", PROCESS, "", None)
    assert kind == (number_of("p", "process"), False)
    shared, own = locks_of("p", PROCESS, "", ("x",))
    assert (shared, own) == ((kind[0], True), (number_of("p", "process", "x"), False))
    assert locks_of("p", PROCESS, "", ()) == ((kind[0], True),)
    assert number_of("p", "process", "a", "bc") != number_of("p", "process", "ab", "c")
    assert number_of("p", "process") != number_of("q", "process")
    assert len({number_of("p", "process", str(n)) for n in range(1_000)}) == 1_000


def test_k_lock_2_the_locks_of_a_kind_come_before_those_of_the_next() -> None:
    kinds = ("effect", "process", "session", "trigger", "opening")
    numbers = [
        number
        for kind in kinds
        for number in sorted(
            number_of(f"p{at}", kind, *key) for at in range(50) for key in ((), "a")
        )
    ]
    assert numbers == sorted(numbers)
    assert all(-(2**63) <= number < 2**63 for number in numbers)


@pytest.mark.parametrize("round_", range(4))  # whose schemas have other numbers
@pytest.mark.parametrize("of", ["session", "process"])
def test_k_lock_2_a_step_under_a_lease_is_in_no_deadlock_with_a_block(
    deployment: Deployment, admin: Any, of: str, round_: int
) -> None:
    """One that asks for effects, and then for what the lease is of."""
    if of == "session":
        held: Any = deployment.sessions.create("chat", model="m")
        fence = held.claim_lease(owner_id="w", ttl_ms=60_000).fence
    else:
        register(deployment.processes, "q")
        lease: Any = deployment.processes.claim_lease("q", owner_id="w", ttl_ms=60_000)
        fence = lease.fence
    has_begun, waiting = threading.Event(), "SELECT 1 FROM pg_locks WHERE NOT granted"
    apart: dict[str, Any] = {"schema": schema_name(deployment)}
    with as_another_process(), Deployment.open(str(deployment_url(deployment)), **apart) as other:

        def direct() -> Any:
            assert has_begun.wait(30)
            return other.effects.record_effect(fence, "s", "direct", "e", 1)

        with in_thread(direct) as given, deployment.effects.begin() as tx:
            has_begun.set()
            eventually(lambda: admin.execute(waiting).fetchone())
            if of == "process" and round_ % 2:
                ProcessTx.beside(tx)
            assert tx.record_effect(fence, "s", "in the block", "e", 1) == Replayed(1)
    assert given == [Replayed(1)]


def test_k_lock_2_a_group_takes_each_lock_once_in_one_order() -> None:
    locks = [(7, True), (3, False), (7, False), (5, True), (5, True)]
    assert together(locks) == ((3, False), (5, True), (7, False))


def test_k_lock_1_a_step_under_a_processs_lease_locks_that_process_alone(
    deployment: Deployment,
) -> None:
    """And the step, and the session where it is a session's lease: all at once, in one order."""
    fences: list[Any] = []
    for name in "ab":
        register(deployment.processes, name)
        fences.append(deployment.processes.claim_lease(name, owner_id="w", ttl_ms=60_000))
    session = deployment.sessions.create("chat", model="m")
    fences.append(session.claim_lease(owner_id="w", ttl_ms=60_000))
    of_a, of_b, of_session = (each.fence for each in fences)
    record = deployment.effects.record_effect
    apart: dict[str, Any] = {"busy_timeout_ms": 200, "schema": schema_name(deployment)}
    with as_another_process(), Deployment.open(str(deployment_url(deployment)), **apart) as other:
        with Parked(lambda: record(of_a, "s", "of a", "e", 1), at="insert") as parked:
            assert other.effects.record_effect(of_b, "s", "of b", "e", 1) == Replayed(1)
            assert other.effects.record_effect(of_session, "s", "c", "e", 1) == Replayed(1)
            with pytest.raises(StoreBusyError):
                other.processes.release_lease(of_a)
            assert other.processes.release_lease(of_b)
            assert parked.resume() == Replayed(1)
        with Parked(lambda: record(of_session, "s", "d", "e", 1), at="insert") as parked:
            theirs = other.sessions.open("chat")
            assert theirs is not None
            with pytest.raises(StoreBusyError):
                theirs.release_lease(of_session)
            assert parked.resume() == Replayed(1)


def test_k_lock_1_other_sessions_and_other_things_do_not_wait(deployment: Deployment) -> None:
    one, two = (deployment.sessions.create(name, model="m") for name in ("one", "two"))
    for name in "ab":
        register(deployment.processes, name)
    apart: dict[str, Any] = {"busy_timeout_ms": 200, "schema": schema_name(deployment)}
    with as_another_process(), Deployment.open(str(deployment_url(deployment)), **apart) as other:
        with one.begin():
            theirs = other.sessions.open("two")
            assert theirs is not None
            theirs.enqueue_work(NewWork([1]))
            mine = other.sessions.open("one")
            assert mine is not None
            with pytest.raises(StoreBusyError):
                mine.enqueue_work(NewWork([1]))
        with two.begin() as tx:
            ProcessTx.beside(tx)  # the lock on the kind, from here on
            with pytest.raises(StoreBusyError):
                other.processes.request_cancel("a")
        assert other.processes.request_cancel("a").event.sequence == 1


def schema_name(deployment: Deployment) -> str:
    handle: Any = deployment.processes._handle
    return str(handle.database.schema_name)


def deployment_url(deployment: Deployment) -> str:
    handle: Any = deployment.processes._handle
    return str(handle.database.key.url)


def test_k_lock_1_each_operation_takes_them_before_it_reads(deployment: Deployment) -> None:
    store = deployment.sessions.create("one", model="m")
    seen = Seen()
    with observed_by(seen):
        store.enqueue_work(NewWork([1]))
        register(deployment.processes, "a")
    assert seen.statements == ["BEGIN", "INSERT", "INSERT", "COMMIT", "BEGIN", "INSERT", "COMMIT"]


def test_k_lock_1_claim_next_by_many_gives_nobody_the_same(deployment: Deployment) -> None:
    """Beside claims by id, which go the other way to the same rows: nobody gets in a deadlock."""
    processes = deployment.processes
    for round_ in range(6):
        names = [f"r{round_}p{n:02}" for n in range(24)]
        for name in names:
            register(processes, name)
        claimed: list[str] = []

        def sweep(owner: str, claimed: list[str] = claimed) -> None:
            while (found := processes.claim_next(owner_id=owner, ttl_ms=600_000)) is not None:
                claimed.append(found.record.id)

        def by_id(owner: str, names: list[str] = names, claimed: list[str] = claimed) -> None:
            for name in names[::5]:
                lease = processes.claim_lease(name, owner_id=owner, ttl_ms=600_000)
                if not isinstance(lease, LeaseHeld):
                    claimed.append(name)

        works = [partial(sweep, f"o{n}") for n in range(8)] + [partial(by_id, "by id")]
        waiting = [in_thread(work) for work in works]
        given = [each.__enter__() for each in waiting]
        for each in waiting:
            each.__exit__(None, None, None)
        assert given == [[None]] * len(works)
        assert sorted(claimed) == names


def test_k_lock_1_claim_next_by_many_of_one_name_gives_each_process_once(
    deployment: Deployment,
) -> None:
    """Though the owner that is live may claim again by id: the look may be older than that claim."""
    processes = deployment.processes
    names = [f"p{n:03}" for n in range(120)]
    for name in names:
        register(processes, name)
    claimed: list[tuple[str, int]] = []

    def sweep() -> None:
        while (found := processes.claim_next(owner_id="all", ttl_ms=600_000)) is not None:
            claimed.append((found.record.id, found.lease.fence.fencing_token))

    waiting = [in_thread(sweep) for _ in range(6)]
    for each in waiting:
        each.__enter__()
    for each in waiting:
        each.__exit__(None, None, None)
    assert sorted(claimed) == [(name, 1) for name in names]


@pytest.mark.parametrize("matching", [None, ProcessFilter(waiting=False)], ids=["any", "awake"])
@pytest.mark.parametrize("what", ["ends", "waits"])
def test_p_lease_3_claim_next_looks_again_at_what_it_could_not_lock(
    deployment: Deployment,
    admin: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    matching: ProcessFilter | None,
) -> None:
    """Somebody is at its row for a moment; before it is had alone, another one has run it to its end."""
    registry, place = deployment.processes, schema_name(deployment)
    read = vars(claims)["read_record"]
    wait = signal_wait("p", "go", ordinal=1, since_ms=1)
    register(registry, "p")

    def another() -> None:
        mine = registry.claim_next(owner_id="ann", ttl_ms=60_000)
        assert mine is not None
        if what == "ends":
            registry.complete_process("p", Success(1), fence=mine.lease.fence)
        else:
            registry.set_wait("p", wait)
            registry.release_lease(mine.lease.fence)

    def slowly(*args: Any) -> Any:
        monkeypatch.setattr(claims, "read_record", read)
        other.commit()
        with in_thread(another):
            pass
        return read(*args)

    with psycopg.connect(admin.info.dsn) as other:
        other.execute(SQL("SELECT 1 FROM {}.lash_processes FOR UPDATE").format(Identifier(place)))
        with (
            as_another_process(),
            ProcessRegistry.open(deployment_url(deployment), schema=place) as beside,
        ):
            monkeypatch.setattr(claims, "read_record", slowly)
            found = beside.claim_next(owner_id="bob", ttl_ms=60_000, matching=matching)
    if what == "waits" and matching is None:
        assert found is not None
        assert (found.lease.fence.fencing_token, found.record.wait) == (2, wait)
    else:
        assert found is None
        assert registry.current_lease("p") is None


@pytest.mark.parametrize("at", ["insert", "commit"])
def test_k_lease_6_claim_next_waits_for_who_writes_under_the_term_before(
    deployment: Deployment, at: str
) -> None:
    """Its term runs out meanwhile, and what it writes under that is there before the next one begins."""
    processes, clock = deployment.processes, ManualClock()
    with ProcessRegistry.open(
        deployment_url(deployment), schema=schema_name(deployment), clock=clock
    ) as beside:
        register(processes, "p")
        lease = beside.claim_lease("p", owner_id="ann", ttl_ms=1_000)
        assert isinstance(lease, ProcessLease)
        append = partial(beside.append_event, "p", "tick", fence=lease.fence)
        with Parked(append, at=at) as parked:
            clock.advance(1_000)
            with in_thread(partial(beside.claim_next, owner_id="bob", ttl_ms=1_000)) as given:
                time.sleep(0.1)
                assert given == []
                parked.resume()
        (found,) = given
        assert found is not None
        assert [event.event_type for event in beside.events_after("p")] == ["tick"]


def test_k_lock_2_a_deadlock_is_typed_and_leaves_nothing(url: str, place: str) -> None:
    with Deployment.open(url, schema=place) as deployment:
        for name in ("one", "two"):
            deployment.sessions.create(name, model="m")
        barrier = threading.Barrier(2)

        def cross(first: str, second: str) -> str:
            with (
                as_another_process(),
                SessionStore.open(url, session_id=first, schema=place) as store,
            ):
                with store.begin() as tx:
                    tx.enqueue_work(NewWork([first]))
                    barrier.wait(10)
                    SessionTx.beside(tx, session_id=second).enqueue_work(NewWork([second]))
                return "done"

        with (
            in_thread(lambda: cross("one", "two")) as here,
            in_thread(lambda: cross("two", "one")) as there,
        ):
            pass
        results = [*here, *there]
        assert "done" in results
        (error,) = [each for each in results if each != "done"]
        assert type(error) is DeadlockError
        assert "trying again is safe" in str(error)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        stores = [deployment.sessions.open(name) for name in ("one", "two")]
        assert [each.work_depth().batches for each in stores if each is not None] == [1, 1]


def test_k_lock_2_claim_next_waits_in_no_ring(
    url: str, place: str, admin: psycopg.Connection[Any]
) -> None:
    """Who has waited for a process that it does not want any more lets go of it before the next one.

    Two wait for one each, and then want the other's: who was at them has changed that.
    """
    table = f"{place}.lash_processes"
    with Deployment.open(url, schema=place) as deployment, ExitStack() as opened:
        for name in ("p", "q"):
            register(deployment.processes, name)
        admin.execute(f"UPDATE {table} SET updated_at_ms = 0")
        others = [opened.enter_context(psycopg.connect(admin.info.dsn)) for _ in "pq"]
        for other, name in zip(others, "pq", strict=True):
            *_, (number, _) = locks_of(f"{place}.lash_", PROCESS, "", (name,))
            other.execute(f"SELECT pg_advisory_xact_lock({number})")
            other.execute(f"UPDATE {table} SET updated_at_ms = 1 WHERE process_id = '{name}'")

        def claim(first: str, second: str) -> Any:
            fresh = and_(processes.c.process_id == first, processes.c.updated_at_ms == 0)
            wanted = or_(fresh, processes.c.process_id == second)
            with (
                as_another_process(),
                ProcessRegistry.open(url, schema=place) as registry,
            ):
                return registry.claim_next(
                    owner_id=f"for {second}", ttl_ms=60_000, where=wanted, order_by=fresh.desc()
                )

        with (
            in_thread(lambda: claim("p", "q")) as one,
            in_thread(lambda: claim("q", "p")) as two,
        ):
            eventually(lambda: _waiting_for_locks(admin) == 2)
            for other in others:
                other.commit()
        assert [each.record.id for each in (*one, *two)] == ["q", "p"]


def test_k_lock_1_claim_next_keeps_the_lock_that_it_has_waited_for(
    url: str, place: str, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or all who wait for one process would hand its lock round, and none of them would claim it."""
    *_, (number, _) = locks_of(f"{place}.lash_", PROCESS, "", ("p",))
    can_be_had: list[bool] = []
    first = _Look.first

    def looking(self: _Look, tx: Any, statement: Any, **which: str) -> Any:
        row = admin.execute(f"SELECT pg_try_advisory_xact_lock({number})").fetchone()
        assert row is not None
        can_be_had.append(row[0])
        return first(self, tx, statement, **which)

    with (
        ProcessRegistry.open(url, schema=place) as registry,
        psycopg.connect(admin.info.dsn) as other,
    ):
        register(registry, "p")
        other.execute(f"SELECT pg_advisory_xact_lock({number})")
        monkeypatch.setattr(_Look, "first", looking)
        with in_thread(partial(registry.claim_next, owner_id="ann", ttl_ms=60_000)) as given:
            eventually(lambda: _waiting_for_locks(admin) == 1)
            can_be_had.clear()
            other.commit()
    (found,) = given
    assert found is not None
    assert found.lease.fence.fencing_token == 1
    assert can_be_had
    assert not any(can_be_had)


@contextmanager
def another_at(
    admin: psycopg.Connection[Any], place: str, *process_ids: str
) -> Iterator[psycopg.Connection[Any]]:
    """Have the locks of processes, as a worker has that was stopped behind its BEGIN."""
    with psycopg.connect(admin.info.dsn) as other:
        for name in process_ids:
            *_, (number, _) = locks_of(f"{place}.lash_", PROCESS, "", (name,))
            other.execute(f"SELECT pg_advisory_xact_lock({number})")
        yield other


def test_k_lock_1_claim_next_passes_over_whom_somebody_else_is_about(
    url: str, place: str, admin: psycopg.Connection[Any]
) -> None:
    """One worker that is stopped in the midst of a write keeps nobody from the next process."""
    with ProcessRegistry.open(url, schema=place) as registry:
        for name in ("p0", "p1", "p2", "p3"):
            register(registry, name)
        with another_at(admin, place, "p0", "p2"):
            found = [registry.claim_next(owner_id="ann", ttl_ms=60_000) for _ in range(2)]
        assert [each and each.record.id for each in found] == ["p1", "p3"]
        assert [
            each and each.record.id
            for each in (registry.claim_next(owner_id="ann", ttl_ms=60_000) for _ in range(3))
        ] == ["p0", "p2", None]


def test_k_lock_3_claim_next_lends_its_connection_while_it_waits(
    url: str, place: str, admin: psycopg.Connection[Any]
) -> None:
    """And fails once its budget is spent, of which it was told nothing in between."""
    with Deployment.open(url, schema=place, pool_size=1, busy_timeout_ms=20_000) as deployment:
        registry = deployment.processes
        register(registry, "p")
        with another_at(admin, place, "p") as other:
            claim = partial(registry.claim_next, owner_id="ann", ttl_ms=60_000)
            with in_thread(claim) as given:
                eventually(lambda: _waiting_for_locks(admin) == 1)
                with in_thread(lambda: registry.load_process("p")) as loaded:
                    eventually(lambda: bool(loaded))
                    assert given == []
                    other.commit()
        (found,) = given
        assert found is not None
        registry.release_lease(found.lease.fence)
    with (
        ProcessRegistry.open(url, schema=place, busy_timeout_ms=600) as brief,
        another_at(admin, place, "p"),
    ):
        before = admin.execute(f"SELECT * FROM {place}.lash_process_leases").fetchall()
        with pytest.raises(StoreBusyError) as refusal:
            brief.claim_next(owner_id="ann", ttl_ms=60_000)
        assert type(refusal.value) is StoreBusyError
        assert refusal.value.waited_ms >= 600
        assert admin.execute(f"SELECT * FROM {place}.lash_process_leases").fetchall() == before


def test_k_lock_2_complete_and_claim_next_waits_for_nobody(
    url: str, place: str, admin: psycopg.Connection[Any]
) -> None:
    """It has its own process alone, which whoever it would wait for may want."""
    with ProcessRegistry.open(url, schema=place) as registry:
        for name in ("p", "q", "r"):
            register(registry, name)
        first = registry.claim_lease("q", owner_id="ann", ttl_ms=60_000)
        assert isinstance(first, ProcessLease)
        with another_at(admin, place, "p", "r"):
            ended, following = registry.complete_and_claim_next(
                first.fence, Success("q"), ttl_ms=60_000
            )
            assert following is None
        assert ended.event.sequence == 1
        assert registry.await_process("q") == Success("q")
        found = registry.claim_next(owner_id="ann", ttl_ms=60_000)
        assert found is not None
        assert found.record.id == "p"
        _, following = registry.complete_and_claim_next(
            found.lease.fence, Success("p"), ttl_ms=60_000
        )
        assert following is not None
        assert following.record.id == "r"


def _waiting_for_locks(admin: psycopg.Connection[Any]) -> int:
    rows = admin.execute(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    ).fetchall()
    return int(rows[0][0])


def test_k_lock_2_who_waits_for_a_lock_of_this_process_takes_no_connection(
    url: str, place: str
) -> None:
    with Deployment.open(url, schema=place, pool_size=2) as deployment:
        one, two = (deployment.sessions.create(name, model="m") for name in ("one", "two"))
        with one.begin() as tx:
            waiting = [in_thread(lambda: one.enqueue_work(NewWork([1]))) for _ in range(6)]
            entered = [each.__enter__() for each in waiting]
            time.sleep(0.1)
            with in_thread(lambda: two.enqueue_work(NewWork([1]))) as given:
                pass
            assert len(given) == 1
            assert not isinstance(given[0], Exception)
            tx.enqueue_work(NewWork([1]))
            assert entered == [[]] * 6
        for each in waiting:
            each.__exit__(None, None, None)
        assert one.work_depth().batches == 7


def test_what_waits_together_is_one_transaction(deployment: Deployment) -> None:
    one = deployment.sessions.create("one", model="m")
    seen = Seen()

    async def main() -> None:
        async with AsyncDeployment.open(
            deployment_url(deployment), schema=schema_name(deployment)
        ) as opened:
            store = await opened.sessions.open("one")
            assert store is not None
            with observed_by(seen):
                calls = [store.enqueue_work(NewWork([n])) for n in range(20)]
                refused = store.transact(lambda _: 1 / 0)
                given = await asyncio.gather(*calls, refused, return_exceptions=True)
            assert isinstance(given[-1], ZeroDivisionError)
            assert len({each.batch_id for each in given[:-1]}) == 20  # type: ignore[union-attr] # reason: all were taken

    asyncio.run(main())
    assert one.work_depth().batches == 20
    assert seen.statements.count("COMMIT") < 10


def test_a_refusal_in_a_group_is_its_own_and_a_failure_is_done_again(
    deployment: Deployment,
) -> None:
    one = deployment.sessions.create("one", model="m")
    lease = one.claim_lease(owner_id="ann", ttl_ms=60_000)
    lost = lease.fence  # type: ignore[union-attr] # reason: it was free
    one.release_lease(lost)

    def broken(tx: SessionTx) -> None:
        tx.connection.execute(text("SELECT nothing"))

    given = run_as_group(
        partial(one.enqueue_work, NewWork([1])),
        partial(one.renew_lease, lost, ttl_ms=1),
        partial(one.transact, broken),
        partial(one.enqueue_work, NewWork([2])),
    )
    assert isinstance(given[1], LeaseLostError)
    assert "nothing" in str(given[2])
    assert not any(isinstance(each, Exception) for each in (given[0], given[3]))
    assert one.work_depth().batches == 2


class Interrupts:
    """Interrupts the thread that leads a group once its COMMIT was executed, or before, once."""

    def __init__(self, when: str) -> None:
        self.when, self.is_over = when, False
        self.begun: dict[int, int] = {}

    def before(self, event: Event) -> None:
        me = threading.get_ident()
        if event.kind == "begin":
            self.begun[me] = 0
        elif event.kind == "statement":
            self.begun[me] = self.begun.get(me, 0) + 1
        self._strike(event, "before")

    def after(self, event: Event) -> None:
        self._strike(event, "after")

    def _strike(self, event: Event, when: str) -> None:
        is_group = (
            self.begun.get(threading.get_ident(), 0) > 2
        )  # an enqueueing takes two statements
        if event.kind == "commit" and when == self.when and is_group and not self.is_over:
            self.is_over = True
            raise KeyboardInterrupt


@pytest.mark.parametrize("when", ["before", "after"])
def test_k_group_3_an_interrupt_at_commit_does_nobodys_call_twice(
    deployment: Deployment, when: str
) -> None:
    store = deployment.sessions.create("one", model="m")
    told: list[str] = []

    def enqueue() -> None:
        try:
            store.enqueue_work(NewWork([1]))
        except BaseException as error:  # noqa: BLE001 # reason: an interrupt among them
            told.append(type(error).__name__)
        else:
            told.append("kept")

    struck = Interrupts(when)
    with observed_by(struck), ExitStack() as waiting:
        with store.begin():
            for _ in range(8):
                waiting.enter_context(in_thread(enqueue))
            time.sleep(0.2)
    assert struck.is_over
    assert told.count("KeyboardInterrupt") == 1
    unknown = told.count("OutcomeUnknownError")
    assert told.count("kept") + unknown == 7
    assert unknown
    kept = store.work_depth().batches
    assert told.count("kept") <= kept <= 8
    assert kept == (8 if when == "after" else told.count("kept"))


# The clock.


def test_k_pg_1_the_time_is_the_servers(
    deployment: Deployment, admin: psycopg.Connection[Any]
) -> None:
    class Ahead(SystemClock):
        """A machine whose clock is an hour ahead: which no server goes by."""

    store = deployment.sessions.create("one", model="m")
    before = server_ms(admin)
    with store.begin() as tx:
        assert before <= tx.now_ms <= server_ms(admin)
        assert tx.now_ms == SessionTx.beside(tx, session_id="two").now_ms
    assert abs(store.read_clock() - server_ms(admin)) < 1_000
    own = SessionStore.open(store, session_id="one", clock=ManualClock(5_000))
    with own, own.begin() as tx:
        assert tx.now_ms == 5_000
    assert Ahead is not None


def server_ms(admin: psycopg.Connection[Any]) -> int:
    row = admin.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").fetchone()
    assert row is not None
    return int(row[0])


def test_k_pg_1_a_machine_that_is_an_hour_ahead_loses_no_lease(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = deployment.sessions.create("one", model="m")
    hour_s = 3_600
    real = time.time_ns
    monkeypatch.setattr("lash_store.clock.time_ns", lambda: real() + hour_s * 10**9)
    with store.hold(owner_id="ann", ttl_ms=30_000) as held:
        held.check()
        other = SessionStore.open(store, session_id="one")
        assert type(other.claim_lease(owner_id="bob", ttl_ms=1_000)).__name__ == "LeaseHeld"


# Lost connections.


def kill_all(admin: psycopg.Connection[Any], place: str) -> None:
    admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
        [place],
    )


def test_k_pg_1_a_key_that_no_index_takes_is_refused(deployment: Deployment) -> None:
    """Of some 2,700 bytes that can't be compressed: in a file there is no such end."""
    store = deployment.sessions.create("one", model="m")
    long = os.urandom(5_000).hex()
    with pytest.raises(InvalidRecordError, match="index row"):
        store.enqueue_work(NewWork([1], source_key=long))
    assert store.work_depth().batches == 0
    store.enqueue_work(NewWork([1]))


def test_k_pg_2_a_connection_lost_while_it_was_idle_is_opened_again(
    deployment: Deployment, admin: psycopg.Connection[Any], place: str
) -> None:
    store = deployment.sessions.create("one", model="m")
    kill_all(admin, place)
    time.sleep(0.05)
    store.enqueue_work(NewWork([1]))
    assert store.work_depth().batches == 1


def test_k_pg_2_a_connection_lost_before_commit_kept_nothing(
    deployment: Deployment, admin: psycopg.Connection[Any], place: str
) -> None:
    store = deployment.sessions.create("one", model="m")
    with pytest.raises(ConnectionLostError) as caught, store.begin() as tx:
        tx.enqueue_work(NewWork([1]))
        kill_all(admin, place)
        time.sleep(0.05)
        tx.enqueue_work(NewWork([2]))
    assert isinstance(caught.value, StorageError)
    assert store.work_depth().batches == 0


def test_k_pg_2_a_connection_lost_at_commit_is_an_unknown_outcome(
    deployment: Deployment,
    admin: psycopg.Connection[Any],
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As if it came behind the last look whether the server is there.
    monkeypatch.setattr(StoreConnection, "_require_connected", lambda _: None)
    store = deployment.sessions.create("one", model="m")
    with pytest.raises(OutcomeUnknownError, match="not known") as caught, store.begin() as tx:
        tx.enqueue_work(NewWork([1], source_key="k"))
        kill_all(admin, place)
        time.sleep(0.05)
    assert pickle.loads(pickle.dumps(caught.value)).code == caught.value.code
    # Who has to know sends it again under its key: it is there once, whatever became of the first.
    for _ in range(2):
        store.enqueue_work(NewWork([1], source_key="k"))
    assert store.work_depth().batches == 1


def test_k_pg_2_of_what_is_cut_off_again_and_again_every_outcome_is_told(
    deployment: Deployment, admin: psycopg.Connection[Any], place: str
) -> None:
    stores = [deployment.sessions.create(f"s{n}", model="m") for n in range(4)]
    told: dict[str, set[str]] = {"kept": set(), "unknown": set(), "lost": set()}
    until_s = time.monotonic() + 2

    def enqueue(at: int) -> None:
        numbers = count()
        while time.monotonic() < until_s:
            key = f"{at}-{next(numbers)}"
            try:
                stores[at].enqueue_work(NewWork([1], source_key=key))
            except OutcomeUnknownError:
                told["unknown"].add(key)
            except LashStoreError:
                told["lost"].add(key)
            else:
                told["kept"].add(key)

    with ExitStack() as waiting:
        given = [waiting.enter_context(in_thread(partial(enqueue, at))) for at in range(4)]
        while time.monotonic() < until_s:
            kill_all(admin, place)
            time.sleep(0.005)
    assert given == [[None]] * 4
    rows = admin.execute(f"SELECT source_key FROM {place}.lash_queued_work_batches").fetchall()
    there = {key for (key,) in rows}
    assert told["kept"] <= there
    assert not told["lost"] & there
    assert there <= told["kept"] | told["unknown"]
    assert told["kept"]
    assert told["lost"] | told["unknown"]


def test_an_error_ends_the_transaction_and_the_next_use_says_so(deployment: Deployment) -> None:
    store = deployment.sessions.create("one", model="m")
    with pytest.raises(TransactionEndedError, match="savepoint"), store.begin() as tx:
        tx.enqueue_work(NewWork([1]))
        with pytest.raises(Exception, match="nothing"):
            tx.connection.execute(text("SELECT nothing"))
        tx.enqueue_work(NewWork([2]))
    with pytest.raises(TransactionEndedError, match="nothing of it was kept"), store.begin() as tx:
        tx.enqueue_work(NewWork([1]))
        with pytest.raises(Exception, match="nothing"):
            tx.connection.execute(text("SELECT nothing"))
    assert store.work_depth().batches == 0
    with store.begin() as tx:
        tx.enqueue_work(NewWork([1]))
        with pytest.raises(Exception, match="nothing"), tx.connection.begin_nested():
            tx.connection.execute(text("SELECT nothing"))
    assert store.work_depth().batches == 1


# Opening, and the guard.


def test_k_pg_4_several_open_at_once_and_one_makes_the_tables(url: str, place: str) -> None:
    def opened() -> str:
        with as_another_process(), Deployment.open(url, schema=place) as deployment:
            return repr(deployment)

    waiting = [in_thread(opened) for _ in range(6)]
    given = [each.__enter__() for each in waiting]
    for each in waiting:
        each.__exit__(None, None, None)
    assert {str(each[0]).split("/")[0] for each in given} == {"<Deployment 'postgresql+psycopg:"}


def test_k_pg_4_drift_is_said_line_by_line(
    url: str, place: str, admin: psycopg.Connection[Any]
) -> None:
    Deployment.open(url, schema=place).close()
    admin.execute(f"SET search_path = {place}")
    ((claimed,),) = admin.execute(
        "SELECT pg_get_indexdef('lash_idx_queued_work_claimed'::regclass)"
    ).fetchall()
    for change, undo, said in [
        (
            "ALTER TABLE lash_blobs ADD x int",
            "ALTER TABLE lash_blobs DROP x",
            "has column x integer",
        ),
        (
            "ALTER TABLE lash_session_head DROP CONSTRAINT lash_session_head_pkey",
            "ALTER TABLE lash_session_head ADD PRIMARY KEY (store, singleton)",
            "lacks rule primarykeystore,singleton",
        ),
        (
            "ALTER INDEX lash_idx_queued_work_claimed RENAME TO mine",
            "ALTER INDEX mine RENAME TO lash_idx_queued_work_claimed",
            "lacks index lash_idx_queued_work_claim",
        ),
        (
            "CREATE UNIQUE INDEX once ON lash_blobs (content)",
            "DROP INDEX once",
            "has index once: unique",
        ),
        (
            "DROP INDEX lash_idx_queued_work_claimed; CREATE INDEX lash_idx_queued_work_claimed "
            "ON lash_queued_work_batches (store) INCLUDE (claim_id)",
            f"DROP INDEX lash_idx_queued_work_claimed; {claimed}",
            r"has index lash_idx_queued_work_claimed: \(store\) INCLUDE \(claim_id\)",
        ),
        (
            "DROP INDEX lash_idx_queued_work_claimed; "
            + claimed.replace("(store,", "(store DESC,"),
            f"DROP INDEX lash_idx_queued_work_claimed; {claimed}",
            r"has index lash_idx_queued_work_claimed: \(store DESC,",
        ),
        (
            "ALTER TABLE lash_blobs ADD CONSTRAINT once EXCLUDE USING btree (hash WITH =)",
            "ALTER TABLE lash_blobs DROP CONSTRAINT once",
            "has rule excludeusingbtreehashwith=",
        ),
        (
            "ALTER TABLE lash_blobs SET UNLOGGED",
            "ALTER TABLE lash_blobs SET LOGGED",
            "table lash_blobs: has nothing that outlives a crash: it is unlogged",
        ),
        (
            "CREATE RULE silent AS ON INSERT TO lash_blobs DO INSTEAD NOTHING",
            "DROP RULE silent ON lash_blobs",
            "has a rule: silent",
        ),
        (
            "CREATE RULE audit AS ON INSERT TO lash_blobs DO ALSO NOTHING",  # no upsert works beside it
            "DROP RULE audit ON lash_blobs",
            "has a rule: audit",
        ),
        (
            "ALTER TABLE lash_queued_work_items DISABLE TRIGGER ALL",
            "ALTER TABLE lash_queued_work_items ENABLE TRIGGER ALL",
            "has references that are not looked at",
        ),
    ]:
        admin.execute(change)
        with pytest.raises(SchemaDriftError, match=said):
            SessionStore.open(url, session_id="a", schema=place)
        admin.execute(undo)
    for addition in (
        "CREATE INDEX mine ON lash_graph_nodes USING hash (node_json)",
        "CREATE RULE beside AS ON DELETE TO lash_blobs DO ALSO NOTHING",
        "ALTER TABLE lash_blobs ENABLE ROW LEVEL SECURITY",
        "ALTER INDEX lash_idx_queued_work_claimed SET (fillfactor = 50)",
    ):
        admin.execute(addition)  # which is the application's own affair
    SessionStore.open(url, session_id="a", schema=place).close()
    assert check_file(placed(url, place)).extras == (
        "table lash_blobs: policies for rows",
        "table lash_blobs: rule beside: beside",
        "table lash_graph_nodes: index mine: hash (node_json)",
    )
    admin.execute("UPDATE lash_versions SET version = 3 WHERE kind = 'session'")
    with pytest.raises(SchemaVersionError, match="expected version"):
        SessionStore.open(url, session_id="a", schema=place)


@pytest.mark.parametrize("name", ["app-versions", "2versions", "MYversions", "schema_versions"])
def test_k_pg_4_an_applications_table_of_versions_is_its_own(
    url: str, place: str, admin: psycopg.Connection[Any], name: str
) -> None:
    Deployment.open(url, schema=place).close()
    admin.execute(f'CREATE TABLE {place}."{name}" (kind text, version text)')
    admin.execute(f"""INSERT INTO {place}."{name}" VALUES ('session', 'v1')""")
    admin.execute(f"CREATE TABLE {place}.document_versions (id int, body text)")
    admin.execute(f"CREATE TABLE {place}.document_blobs (id int)")
    assert check_file(placed(url, place)).problems == ()


def test_k_pg_4_a_table_of_versions_that_has_drifted(
    url: str, place: str, admin: psycopg.Connection[Any]
) -> None:
    Deployment.open(url, schema=place).close()
    admin.execute(f"ALTER TABLE {place}.lash_versions ADD note text")
    assert "table lash_versions: has column note text" in " ".join(
        check_file(placed(url, place)).problems
    )


def test_k_share_3_tables_that_another_makes_meanwhile_are_not_taken_for_an_applications(
    url: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In READ COMMITTED each look at the catalogue sees what was committed before it."""
    versions = guard.versions

    def made_after_it(*given: Any) -> dict[str, int]:
        found = versions(*given)
        monkeypatch.setattr(guard, "versions", versions)
        with as_another_process(), SessionStore.open(url, session_id="b", schema=place):
            return found

    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    monkeypatch.setattr(guard, "versions", made_after_it)
    with engine.begin() as connection:
        create_tables(connection, "session", schema=place)
    engine.dispose()


def test_k_pg_4_what_is_not_there_is_not_made_for_who_only_reads(url: str, place: str) -> None:
    options: list[Any] = [{"read_only": True}, {"create": False}]
    for each in options:
        with pytest.raises(StoreEmptyError):
            ProcessRegistry.open(url, schema=place, **each)
    ProcessRegistry.open(url, schema=place).close()
    with ProcessRegistry.open(url, schema=place, read_only=True) as registry:
        assert registry.list_processes() == []
        with pytest.raises(ReadOnlyStoreError):
            registry.request_cancel("a")


def test_k_pg_4_names_that_are_taken_are_named(
    url: str, place: str, admin: psycopg.Connection[Any]
) -> None:
    admin.execute(f"CREATE TABLE {place}.lash_blobs (x int)")
    with pytest.raises(NamesTakenError, match="lash_blobs"):
        SessionStore.open(url, session_id="a", schema=place)
    with SessionStore.open(url, session_id="a", schema=place, prefix="ours_") as store:
        store.enqueue_work(NewWork([1]))


def test_a_prefix_leaves_room_for_the_names_behind_it(url: str, place: str) -> None:
    with Deployment.open(url, schema=place, prefix="a" * 26 + "_") as deployment:
        deployment.sessions.create("one", model="m")
        for store in (deployment.processes, deployment.triggers, deployment.effects):
            store.check_schema()
    with pytest.raises(InvalidRecordError, match="27 characters at most"):
        Deployment.open(url, schema=place, prefix="a" * 27 + "_")


def test_k_log_1_what_follows_from_a_refusal_is_not_logged(
    url: str, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By the driver, of the pipeline that the refused statement stood in."""
    longest = "".join(sha256(bytes([at])).hexdigest() for at in range(60))
    with ProcessRegistry.open(url, schema=place) as registry:
        register(registry)
        for _ in range(20):
            with pytest.raises(InvalidRecordError, match="too long for an index"):
                registry.append_event("p", "process.waiting", replay_key=longest)
        assert registry.recent_events("p") == []
    assert caplog.records == []


@pytest.mark.parametrize("name", ["Tenant", "a b", "x.y", 'we"ird', "ünï", "select"])
def test_the_schema_that_a_role_looks_in_first_may_have_any_name(
    name: str, url: str, admin: psycopg.Connection[Any]
) -> None:
    quoted = Identifier(name)
    admin.execute(SQL("CREATE SCHEMA {}").format(quoted))
    try:
        seen = make_url(url).update_query_dict({"options": f"-csearch_path={_escaped(name)}"})
        own = seen.render_as_string(hide_password=False)
        for _ in range(2):  # it makes them, and finds them
            with SessionStore.open(own, session_id="a") as store:
                store.enqueue_work(NewWork([1]))
                store.check_schema()
        engine = lash_store.configure(create_engine(own))
        with engine.begin() as connection:
            assert SessionTx.on(connection, session_id="a").work_depth().batches == 2
        engine.dispose()
    finally:
        admin.execute(SQL("DROP SCHEMA {} CASCADE").format(quoted))


def _escaped(name: str) -> str:
    """A name as a list of schemas in a connection's options has it: quoted, each blank escaped."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'.replace(" ", "\\ ")


@pytest.mark.parametrize(
    ("sql", "is_refused"),
    [
        ("SELECT 1; COMMIT", True),
        ("SELECT ';' ;; -- and\n rollback", True),
        ("-- a\rCOMMIT", True),
        ("/* a */ END", True),
        ("SELECT E'\\''; COMMIT --'", True),
        ("SELECT 1; ROLLBACK TO SAVEPOINT a", False),
        ("SELECT '; COMMIT'", False),
        ("SELECT E'\\'; COMMIT'", False),
        ("SELECT 'it''s; COMMIT', $a$; COMMIT$a$ -- ; COMMIT", False),
        ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC; SELECT 1; END", False),
        ('SELECT 1 AS "; COMMIT"; SELECT 2', False),
    ],
)
def test_k_tx_7_no_statement_of_several_ends_the_transaction(sql: str, *, is_refused: bool) -> None:
    with pytest.raises(TransactionControlError) if is_refused else nullcontext():
        check_no_control(sql)


def test_k_tx_7_what_several_statements_would_end_is_undone(deployment: Deployment) -> None:
    store = deployment.sessions.create("one", model="m")
    with pytest.raises(TransactionControlError), store.begin() as tx:
        tx.enqueue_work(NewWork([1]))
        tx.connection.exec_driver_sql("SELECT 1; COMMIT")
    assert store.work_depth().batches == 0


def test_opening_says_why_it_can_not(url: str) -> None:
    with pytest.raises(StoreOpenError, match=r"no schema 'absent'"):
        SessionStore.open(url, session_id="a", schema="absent")
    nowhere = "postgresql+psycopg://ann:secret@127.0.0.1:1/x"
    with pytest.raises(StoreOpenError) as caught:
        SessionStore.open(nowhere, session_id="a")
    assert "secret" not in str(caught.value)
    with pytest.raises(StoreOpenError, match="psycopg"):
        SessionStore.open("postgresql+asyncpg://x/y", session_id="a")
    bad: list[Any] = [
        {"pool_size": 0},
        {"schema": "A b"},
        {"linked": True},
        {"prepare_threshold": -1},
    ]
    for each in bad:
        with pytest.raises(InvalidRecordError):
            SessionStore.open(url, session_id="a", **each)


def test_k_pg_5_a_client_library_without_pipelines_is_refused(
    url: str, place: str, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psycopg.Pipeline, "is_supported", lambda: False)
    with pytest.raises(StoreOpenError, match="libpq 14"):
        SessionStore.open(url, session_id="a", schema=place)
    tables = admin.execute("SELECT FROM pg_tables WHERE schemaname = %s", (place,)).fetchall()
    assert tables == []


def test_two_schemas_and_two_prefixes_know_nothing_of_each_other(
    url: str, place: str, admin: psycopg.Connection[Any]
) -> None:
    with (
        Deployment.open(url, schema=place) as one,
        Deployment.open(url, schema=place, prefix="two_") as two,
    ):
        first = one.sessions.create("s", model="m")
        with first.begin():
            two.sessions.create("s", model="m").enqueue_work(NewWork([1]))
        assert first.work_depth().batches == 0
        assert [each.file_name for each in one.sessions.list()] == ["s"]
    assert admin.execute(f"SELECT count(*) FROM {place}.two_queued_work_batches").fetchone() == (1,)


def test_a_closed_store_says_so_and_a_nested_transaction_too(deployment: Deployment) -> None:
    store = deployment.sessions.create("one", model="m")
    with store.begin(), pytest.raises(NestedTransactionError):
        store.enqueue_work(NewWork([1]))
    store.close()
    store.close()
    with pytest.raises(StoreClosedError):
        store.work_depth()


def test_an_interrupt_that_drops_a_block_frees_its_lock(deployment: Deployment) -> None:
    store = deployment.sessions.create("one", model="m")
    block = store.begin()
    block.__enter__()
    del block  # as what an interrupt unwinds is dropped
    store.enqueue_work(NewWork([1]))
    assert store.work_depth().batches == 1


@pytest.mark.posix("forks")
def test_a_forked_child_has_connections_of_its_own(deployment: Deployment) -> None:
    store = deployment.sessions.create("one", model="m")
    store.enqueue_work(NewWork([1]))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            store.enqueue_work(NewWork([2]))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    store.enqueue_work(NewWork([3]))
    assert store.work_depth().batches == 3


# What composes.


def test_consumers_statements_are_in_the_same_transaction(
    deployment: Deployment, place: str, admin: psycopg.Connection[Any]
) -> None:
    orders = Table("orders", MetaData(), Column("id", Text), Column("state", Text), schema=place)
    admin.execute(f"CREATE TABLE {place}.orders (id text, state text)")
    store = deployment.sessions.create("one", model="m")
    lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
    fence = lease.fence  # type: ignore[union-attr] # reason: it was free
    with store.begin() as tx:
        tx.connection.execute(orders.insert().values(id="1", state="new"))
        done = update(orders).values(state="done").where(orders.c.id == "1", fence.holds(tx))
        assert tx.connection.execute(done).rowcount == 1
        assert tx.connection.scalar(select(func.count()).select_from(blobs)) == 0
        with tx.orm() as orm:
            assert orm.scalar(select(orders.c.state)) == "done"
        ProcessTx.beside(tx).register_process(registration("p"))
    store.release_lease(fence)
    with store.begin() as tx:
        assert tx.connection.execute(done.values(state="late").where(fence.holds(tx))).rowcount == 0
    assert deployment.processes.load_process("p") is not None
    assert deployment.processes.complete_process("p", Success(1)).record is not None


def test_ten_thousand_sessions_take_no_thread_and_no_connection_each(
    deployment: Deployment, admin: psycopg.Connection[Any], place: str
) -> None:
    first = deployment.sessions.create("s", model="m")
    threads = threading.active_count()
    stores = [SessionStore.open(first, session_id=f"s{n}") for n in range(10_000)]
    for each in stores[:50]:
        each.enqueue_work(NewWork([1]))
    assert threading.active_count() == threads
    row = admin.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [place]
    ).fetchone()
    assert row is not None
    assert row[0] <= 8
    for each in stores:
        each.close()


def test_k_pg_2_a_block_that_idled_too_long_was_not_committed(url: str, place: str) -> None:
    """The server has ended it before COMMIT was sent, and says so."""
    with SessionStore.open(url, session_id="s", schema=place) as store:
        with pytest.raises(ConnectionLostError):
            with store.begin() as tx:
                tx.enqueue_work(NewWork([1]))
                tx.connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 20")
                time.sleep(0.2)
        assert store.work_depth().batches == 0


def test_k_open_4_a_server_that_says_nothing_is_waited_for_as_long_as_the_url_says(
    url: str,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        before_s = time.monotonic()
        with pytest.raises(StoreOpenError):
            SessionStore.open(
                f"postgresql+psycopg://u@127.0.0.1:{port}/d?connect_timeout=2", session_id="s"
            )
        assert time.monotonic() - before_s < 20


def test_k_open_4_opening_a_deployment_on_a_server_that_says_nothing_can_be_left(
    wire: Proxy, place: str
) -> None:
    async def main() -> None:
        deployment = AsyncDeployment.open(wire.url, schema=place)
        wire.delay_s = 3
        before_s = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await deployment
        assert time.monotonic() - before_s < 2
        with pytest.raises(StoreClosedError):
            _ = deployment.root
        wire.delay_s = 0
        async with deployment:
            assert await deployment.effects.list_effects() == []

    asyncio.run(main())
