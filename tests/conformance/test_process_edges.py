"""Where a registry was broken once, or nearly: values by descent, schemas, corrupt rows, forks."""

from __future__ import annotations

import enum
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lash_store import (
    Cancelled,
    Failure,
    ProcessFence,
    ProcessRegistry,
    Scope,
    SessionStore,
    Success,
)
from lash_store.errors import CorruptRecordError, InvalidRecordError
from lash_store.process.records import (
    Const,
    EventType,
    ExternalRef,
    PayloadSchema,
    Pointer,
    ProcessFilter,
    ProcessIdentity,
    Semantics,
    Template,
    TerminalRule,
    signal_wait,
)
from lash_store.testing import ManualClock
from tests.support.databases import all_rows, run_script
from tests.support.processes import Says, workers
from tests.support.registries import lease_on, register


class Text(str):
    """What a template engine or an array library gives for a str."""

    __slots__ = ()


class Names(enum.StrEnum):
    A = "a"


@pytest.mark.parametrize(
    "schema",
    [
        {"x": 5, "$ref": "#/x"},
        {"minimum": 5, "$ref": "#/minimum/x"},
        {"$dynamicRef": "#/x", "x": 3},
        {"x": "s", "$ref": "#/x"},
        {"x": {"minimum": "a"}, "$ref": "#/x"},
        {"allOf": [{}], "$ref": "#/allOf/foo"},
        {"x": {"type": "foo"}, "$ref": "#/x"},
        {"pattern": "a{99999999999999999999999}"},
        {"$schema": "http://json-schema.org/draft-04/schema#", "$ref": {}},
        {"$ref": "#nope"},
    ],
    ids=ascii,
)
def test_p_event_2_whatever_a_schema_is_only_our_errors_come_out(
    registry: ProcessRegistry, path: Path, schema: Any
) -> None:
    try:
        register(registry, event_types=[EventType("e", PayloadSchema(schema))])
    except InvalidRecordError:
        return
    before = all_rows(path)
    for payload in (1, "s", {"x": 1}, [1]):
        with suppress(InvalidRecordError):  # whatever else comes out fails the test
            registry.append_event("p", "e", payload)
            before = all_rows(path)
        assert all_rows(path) == before


def test_a_text_by_descent_is_a_text(registry: ProcessRegistry, path: Path) -> None:
    end = EventType(Text("end"), semantics=Semantics(TerminalRule(Text("failed"), Pointer("/a"))))  # type: ignore[arg-type] # reason: that is the test
    register(
        registry,
        Text("p"),
        event_types=[end, EventType("tick")],
        identity=ProcessIdentity(Text("k")),
    )
    registry.append_event(Text("p"), Text("tick"), Text("x"), replay_key=Text("r"))
    registry.set_wait("p", signal_wait(Text("p"), Text("go"), ordinal=1, since_ms=1))
    registry.request_cancel(Text("p"), reason=Text("r"))
    registry.complete_process(Text("p"), Failure(Text("timeout"), Text("c"), Text("m")))  # type: ignore[arg-type] # reason: the same
    assert [event.process_id for event in registry.events_after("p")] == ["p"] * 3
    registry.grant_handle(Scope(Names.A, Names.A), "p")
    assert all_rows(path)["process_handle_grants"][0][:2] == ("a", "session:a/frame:a")


def test_p_event_4_a_declared_constant_can_not_be_changed(registry: ProcessRegistry) -> None:
    end = EventType("end", semantics=Semantics(TerminalRule("completed", Const({"a": [1]}))))
    for name in "pq":
        register(registry, name, event_types=[end])
    first = registry.append_event("p", "end", replay_key="k").event.semantics.terminal
    assert first is not None
    assert isinstance(first.await_output, Success)
    first.await_output.value["a"].append("changed")
    registry.append_event("q", "end", replay_key="k")
    record = registry.load_process("q")
    assert record is not None
    assert record.await_output == Success({"a": [1]})


def test_p_rec_6_templates_stand_in_each_other_to_a_limit(registry: ProcessRegistry) -> None:
    template = Template("{a}", {"a": Pointer("")})
    for _ in range(400):
        template = Template("{a}", {"a": template})
    deep = EventType("e", semantics=Semantics(TerminalRule("completed", template)))
    with pytest.raises(InvalidRecordError, match="too deep"):
        register(registry, event_types=[deep])


def test_numbers_beyond_reason(registry: ProcessRegistry) -> None:
    end = EventType(
        "e", semantics=Semantics(TerminalRule("completed", Pointer("/a/" + "1" * 5_000)))
    )
    register(registry, event_types=[end])
    with pytest.raises(InvalidRecordError, match="nothing is at"):
        registry.append_event("p", "e", {"a": [1]}, replay_key="k")
    with pytest.raises(InvalidRecordError):
        signal_wait("p", "go", ordinal=10**5_000, since_ms=1)
    with pytest.raises(InvalidRecordError, match="NUL"):
        registry.list_processes(matching=ProcessFilter(definition="d\0e"))


def test_p_event_10_an_end_that_is_declared_to_end_nothing(
    registry: ProcessRegistry, path: Path
) -> None:
    register(registry, event_types=[EventType("process.completed")])
    fence = lease_on(registry).fence
    before = all_rows(path)
    with pytest.raises(InvalidRecordError, match="ends nothing"):
        registry.complete_process("p", Success(1), fence=fence)
    with registry.begin() as tx, pytest.raises(InvalidRecordError, match="ends nothing"):
        tx.complete_process("p", Success(1), fence=fence)
    assert all_rows(path) == before


@pytest.mark.parametrize("spoilt", ["{broken", "5", '"text"'])
def test_k_codec_2_no_filter_hides_a_corrupt_row(
    registry: ProcessRegistry, path: Path, spoilt: str
) -> None:
    register(registry)
    registry.append_event("p", "wake", 1)
    run_script(path, f"UPDATE processes SET record_json = '{spoilt}'")
    calls: list[Any] = [
        registry.list_processes,
        lambda: registry.list_processes(matching=ProcessFilter(waiting=False)),
        lambda: registry.load_process("p"),
    ]
    if spoilt.startswith("{"):
        calls += [
            lambda: registry.list_processes(matching=ProcessFilter(waiting=True)),
            lambda: registry.list_processes(matching=ProcessFilter(definition="d")),
            lambda: registry.claim_next(
                owner_id="o", ttl_ms=1, matching=ProcessFilter(definition="d")
            ),
        ]
    for call in calls:
        with pytest.raises(CorruptRecordError, match="'p'"):
            call()
    run_script(path, "UPDATE process_events SET event_json = '{broken'")
    for call in (registry.pending_wakes, lambda: registry.wake_events_after("p")):
        with pytest.raises(CorruptRecordError):
            call()


@pytest.mark.parametrize(
    "spoilt",
    [
        'record_json = replace(record_json, \'"id":"p"\', \'"id":"other"\')',
        "status = 'failed'",
        "status = 'running'",
    ],
)
def test_k_codec_2_a_record_that_contradicts_its_row(
    registry: ProcessRegistry, path: Path, spoilt: str
) -> None:
    """Neither is believed: what was done would take the record's end away, or give it another."""
    register(registry)
    if "running" in spoilt:
        registry.complete_process("p", Success("the end"))
    run_script(path, f"UPDATE processes SET {spoilt}")
    state: Any = "failed" if "failed" in spoilt else "running"
    before = all_rows(path)
    calls: list[Any] = [
        lambda: registry.load_process("p"),
        lambda: registry.list_processes(state=state),
        lambda: registry.append_event("p", "process.yield", None),
        lambda: registry.complete_process("p", Failure("internal", "E1", "no end")),
        lambda: registry.complete_process("p", Success("the end")),
        lambda: registry.request_cancel("p"),
        lambda: registry.set_external_ref("p", ExternalRef("b", "i")),
    ]
    for call in calls:
        with pytest.raises(CorruptRecordError, match="it says that it is"):
            call()
    assert all_rows(path) == before


@pytest.mark.parametrize(
    "spoilt",
    [
        "lease_owner_id = ''",
        "lease_fencing_token = -1",
        "lease_token = 'é'",
        "lease_owner_id = NULL",
    ],
)
def test_k_codec_2_a_corrupt_lease(
    path: Path, tmp_path: Path, spoilt: str, clock: ManualClock
) -> None:
    with ProcessRegistry.open(path, clock=clock) as registry:
        register(registry)
        lease_on(registry)
        run_script(path, f"UPDATE process_leases SET {spoilt}")
        with pytest.raises(CorruptRecordError, match="process_leases"):
            registry.current_lease("p")
    other = tmp_path / "session.db"
    with SessionStore.open(other, session_id="s", clock=clock) as session:
        session.claim_lease(owner_id="ann", ttl_ms=50)
        run_script(other, f"UPDATE session_execution_leases SET {spoilt}")
        with pytest.raises(CorruptRecordError, match="session_execution_leases"):
            session.current_lease()


@pytest.mark.parametrize("token", ["é", "a\0b"], ids=ascii)
def test_k_tx_2_a_token_that_no_fence_can_have(path: Path, token: str) -> None:
    class BadIds:
        def new_token(self) -> str:
            return token

    with ProcessRegistry.open(path, ids=BadIds()) as registry:
        register(registry)
        before = all_rows(path)
        with registry.begin() as tx, pytest.raises(InvalidRecordError, match="new_token"):
            tx.claim_lease("p", owner_id="ann", ttl_ms=5)
        assert all_rows(path) == before
    with pytest.raises(InvalidRecordError, match="token"):
        ProcessFence("p", "ann", token, 1)


@pytest.mark.posix("there is no queue")
def test_k_open_5_closing_after_a_wait_leaves_no_sidecars(path: Path) -> None:
    with ProcessRegistry.open(path) as registry:
        register(registry)
        assert registry.await_process("p", timeout_ms=1) is None
    assert sorted(file.name for file in path.parent.iterdir()) == ["store.db", "store.db-queue"]


def append_when_told(say: Says, path: Path) -> None:
    with ProcessRegistry.open(path) as registry:
        say("ready")
        while say.wait() == "append":
            registry.append_event("p", "tick")
            say("appended")


@pytest.mark.posix("forks")
@pytest.mark.canonical("a process of its own opens the path")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_p_event_9_a_fork_right_after_a_commit_loses_no_wake(path: Path) -> None:
    with ProcessRegistry.open(path) as registry, workers(1, append_when_told, path) as (writer,):
        register(registry)
        assert writer.receive() == "ready"
        for at in range(10):
            found: list[Any] = []
            waiter = threading.Thread(
                target=lambda at=at, found=found: found.append(
                    registry.wait_event_after("p", "tick", at, timeout_ms=5_000)
                )
            )
            waiter.start()
            while not registry.watch.waiters:
                time.sleep(0.001)
            time.sleep(0.03)
            writer.pipe.send("append")
            assert writer.receive() == "appended"
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
            waiter.join()
            assert found[0] is not None


@pytest.mark.posix("forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_k_open_5_threads_that_fork_at_once(path: Path) -> None:
    with ProcessRegistry.open(path, busy_timeout_ms=5_000) as registry:
        register(registry)

        def fork_and_write() -> None:
            for _ in range(10):
                child = os.fork()
                if child == 0:
                    os._exit(0)
                os.waitpid(child, 0)
                registry.append_event("p", "tick")

        threads = [threading.Thread(target=fork_and_write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(registry.events_after("p")) == 40


@pytest.mark.posix("forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_k_open_5_forks_while_stores_are_opened(tmp_path: Path) -> None:
    """No fork stands for ever."""
    stop = threading.Event()

    def open_and_close(number: int) -> None:
        while not stop.is_set():
            with ProcessRegistry.open(tmp_path / f"{number}.db") as registry:
                registry.list_processes()

    threads = [threading.Thread(target=open_and_close, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            child = os.fork()
            if child == 0:
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.canonical("writes to the tables by their canonical names")
@pytest.mark.parametrize(
    "call",
    [
        lambda it: it.load_process("p"),
        lambda it: it.claim_next(owner_id="ann", ttl_ms=9),
        lambda it: it.set_wait("p", signal_wait("p", "s", ordinal=1, since_ms=1)),
        lambda it: it.set_external_ref("p", ExternalRef("x", "1")),
        lambda it: register(it, "p"),
    ],
    ids=["load", "claim_next", "set_wait", "set_external_ref", "register"],
)
def test_k_codec_2_a_record_that_ended_in_a_row_that_runs_is_corrupt(
    registry: ProcessRegistry, path: Path, call: Any
) -> None:
    register(registry, "p")
    ended = '{"state":"completed","await_output":{"type":"success","value":1}}'
    run_script(
        path,
        f"UPDATE processes SET record_json = json_set(record_json, '$.status', json('{ended}'))",
    )
    before = all_rows(path)
    with pytest.raises(CorruptRecordError):
        call(registry)
    assert all_rows(path) == before


def test_p_rec_4_a_message_may_hold_a_nul(registry: ProcessRegistry) -> None:
    for each, output in (
        ("a", Failure("execution", "code", "stderr \0 said")),
        ("b", Cancelled("stop \0 it")),
    ):
        register(registry, each)
        registry.request_cancel(each, reason="why \0 not")
        registry.complete_process(each, output)
        assert registry.await_process(each) == output
        with pytest.raises(InvalidRecordError, match="surrogate"):
            registry.request_cancel(each, reason="\0\ud800")
