"""Real processes on one file: opening, claiming, waiting fairly, forking."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from lash_store import LeaseHeld, SessionLease, SessionStore
from lash_store.errors import StoreClosedError, StoreOpenError, TransactionEndedError
from lash_store.schemas import KINDS, check_file, init_file
from tests.support.databases import all_rows, database_of
from tests.support.processes import Says, workers

ROUNDS = 20


def open_again_and_again(say: Says, folder: Path) -> None:
    say("ready")
    while (number := say.wait()) is not None:
        kind = KINDS[number % len(KINDS)]
        path = folder / f"{number}.db"
        time.sleep(max(0.0, say.wait() - time.time()))
        init_file(kind, path)
        say(all_rows(path)["user_version"] if number % 5 == 0 else None)


@pytest.mark.canonical("what stands in the file")
def test_k_guard_2_twenty_processes_open_the_same_new_file_at_once(tmp_path: Path) -> None:
    """Twenty times over, all four kinds in turn: nobody fails, every file is sound."""
    with workers(20, open_again_and_again, tmp_path) as openers:
        for opener in openers:
            opener.receive()
        for number in range(ROUNDS):
            at = time.time() + 0.02
            for opener in openers:
                opener.pipe.send(number)
                opener.pipe.send(at)
            versions = {str(opener.receive()) for opener in openers}
            assert len(versions) == 1
            report = check_file(tmp_path / f"{number}.db")
            assert (report.is_sound, report.kind) == (True, KINDS[number % len(KINDS)])


def watch_versions(say: Says, folder: Path) -> None:
    """Look, as fast as can be, for a version without tables or tables without a version."""
    import sqlite3  # noqa: PLC0415 # reason: plain sqlite3, for the looking alone

    torn = []
    say("ready")
    while not say._pipe.poll():
        for path in folder.glob("*.db"):
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
            version, tables = connection.execute(
                "SELECT user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version"
            ).fetchone()
            connection.close()
            if (version == 0) != (tables == 0):
                torn.append((path.name, version, tables))
    say(torn)


def test_k_guard_2_nobody_sees_a_file_half_made(tmp_path: Path) -> None:
    with workers(1, watch_versions, tmp_path) as (watcher,):
        watcher.receive()
        for number in range(100):
            init_file("session", tmp_path / f"{number}.db")
        watcher.pipe.send("stop")
        assert watcher.receive() == []


def claim_often(say: Says, path: Path, count: int) -> None:
    with SessionStore.open(path, session_id="s") as store:
        say("ready")
        say.wait()
        numbers = []
        for _ in range(count):
            lease = store.claim_lease(owner_id=f"worker-{os.getpid()}", ttl_ms=0)
            assert isinstance(lease, SessionLease)
            numbers.append(lease.fencing_token)
        say(numbers)


def test_every_claim_of_eight_processes_is_a_term_of_its_own(path: Path) -> None:
    SessionStore.open(path, session_id="s").close()
    with workers(8, claim_often, path, 100) as claimants:
        for claimant in claimants:
            claimant.receive()
        for claimant in claimants:
            claimant.pipe.send("go")
        numbers = [number for claimant in claimants for number in claimant.receive()]
    assert sorted(numbers) == list(range(1, 801))


def compete(say: Says, path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        say("ready")
        say.wait()
        lease = store.claim_lease(owner_id=f"worker-{os.getpid()}", ttl_ms=60_000)
        say(lease.fencing_token if isinstance(lease, SessionLease) else lease.owner_id)


def test_of_eight_processes_one_gets_the_lease_and_the_others_its_name(path: Path) -> None:
    with workers(8, compete, path) as claimants:
        for claimant in claimants:
            claimant.receive()
        for claimant in claimants:
            claimant.pipe.send("go")
        answers = [claimant.receive() for claimant in claimants]
        winners = [worker for worker, answer in zip(claimants, answers, strict=True) if answer == 1]
        assert len(winners) == 1
        names = {answer for answer in answers if answer != 1}
        assert names == {f"worker-{winners[0].process.pid}"}


def hold_and_count(say: Says, path: Path, hold_s: float) -> None:
    with SessionStore.open(path, session_id="s") as store:
        say("ready")
        until = say.wait()
        count, longest = 0, 0.0
        while (began := time.monotonic()) < until:
            with store.begin():
                longest = max(longest, time.monotonic() - began)
                time.sleep(hold_s)
            count += 1
        say((count, longest))


def test_k_tx_4_no_process_starves(path: Path) -> None:
    """Four processes that hold the lock 5 ms each; SQLite's busy handler would serve one."""
    SessionStore.open(path, session_id="s").close()
    with workers(4, hold_and_count, path, 0.005) as writers:
        for writer in writers:
            writer.receive()
        until = time.monotonic() + 2.0
        for writer in writers:
            writer.pipe.send(until)
        counts = sorted(writer.receive()[0] for writer in writers)
    # Measured within 5 % of the mean (bench.fairness); a busy machine gets some room here.
    assert counts[0] * 2 > sum(counts) / len(counts), counts


def stand_in_the_queue(say: Says, path: Path, fork: bool) -> None:
    store = SessionStore.open(path, session_id="s", busy_timeout_ms=60_000)
    child = 0
    if fork:
        # As if forked past Python's hooks: the child gets a duplicate of the queue's descriptor.
        mine, theirs = socket.socketpair()
        child = os.fork()
        if child == 0:
            socket.recv_fds(theirs, 1, 1)
            time.sleep(60)
            os._exit(0)
        store.claim_lease(owner_id="head", ttl_ms=0)
        queue = database_of(store).connections.queue
        assert queue is not None
        assert queue._descriptor is not None
        socket.send_fds(mine, [b"x"], [queue._descriptor])
    say(child)
    say.wait()
    with store.begin():
        say("served")


@pytest.mark.parametrize("trouble", ["stopped", "killed"])
def test_k_tx_4_a_head_of_the_queue_in_trouble_delays_others_for_a_moment(
    path: Path, trouble: str
) -> None:
    with (
        SessionStore.open(path, session_id="s") as store,
        workers(1, stand_in_the_queue, path, trouble == "killed") as (head,),
    ):
        child = head.receive()
        with store.begin():
            head.pipe.send("go")
            _wait_until_queued(path)
            if trouble == "stopped":
                os.kill(head.process.pid or 0, signal.SIGSTOP)
            else:
                head.kill()
        try:
            with workers(2, hold_and_count, path, 0.002) as others:
                for other in others:
                    other.receive()
                until = time.monotonic() + 1.5
                for other in others:
                    other.pipe.send(until)
                results = [other.receive() for other in others]
        finally:
            if child:
                os.kill(child, signal.SIGKILL)
        assert all(count > 0 for count, _ in results)
        assert all(longest < 1.0 for _, longest in results), results
        if trouble == "stopped":
            os.kill(head.process.pid or 0, signal.SIGCONT)
            assert head.receive() == "served"


def _wait_until_queued(path: Path) -> None:
    """The head closes the gate once it has waited for longer than a burst."""
    deadline = time.monotonic() + 30
    while Path(f"{path}-queue").read_bytes()[:1] != b"\1":
        assert time.monotonic() < deadline
        time.sleep(0.001)


def in_child(work: Any) -> int:
    """Fork, run `work` in the child, leave it the way a program ends, and return its status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 # reason: it is shown, and the status tells
            import traceback  # noqa: PLC0415 # reason: the child alone needs it

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_k_open_5_a_forked_child_opens_connections_of_its_own(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        inherited = list(database_of(store).connections.all)
        store.current_lease()

        def child() -> None:
            lease = store.claim_lease(owner_id="child", ttl_ms=60_000)
            assert isinstance(lease, SessionLease)
            assert store.current_lease() == lease
            assert not {id(c) for c in inherited} & {
                id(c) for c in database_of(store).connections.all
            }
            store.close()

        assert in_child(child) == 0
        held = store.claim_lease(owner_id="parent", ttl_ms=1)
        assert isinstance(held, LeaseHeld)
        assert held.owner_id == "child"


def test_k_open_5_a_transaction_stays_the_parents(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        block = store.begin()
        tx = block.__enter__()
        tx.claim_lease(owner_id="parent", ttl_ms=60_000)
        connection = tx.connection
        driver: Any = connection.connection.dbapi_connection

        def child() -> None:
            for use in (
                tx.current_lease,
                lambda: tx.connection,
                lambda: connection.execute(text("SELECT 1")),
                lambda: driver.execute("SELECT 1"),
            ):
                with pytest.raises(TransactionEndedError):
                    use()
            with pytest.raises(TransactionEndedError):
                block.__exit__(None, None, None)
            block.__exit__(ValueError, ValueError(), None)  # the error that is on its way goes on
            gc.collect()

        assert in_child(child) == 0
        assert tx.current_lease() is not None
        block.__exit__(None, None, None)
        assert store.current_lease() is not None


def test_k_open_5_an_in_memory_store_does_not_follow_into_a_child() -> None:
    with SessionStore.open(None, session_id="s") as store:
        store.claim_lease(owner_id="parent", ttl_ms=60_000)

        def child() -> None:
            with pytest.raises(StoreClosedError):
                store.current_lease()

        assert in_child(child) == 0
        assert store.current_lease() is not None


CHILDREN_COMMIT = """
import os, sys
from lash_store import SessionStore
path, inside = sys.argv[1], sys.argv[2]
store = SessionStore.open(path, session_id="s")
store.claim_lease(owner_id="parent", ttl_ms=0)
pids = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        for _ in range(100):
            store.claim_lease(owner_id="child", ttl_ms=0)
        os._exit(0)
    pids.append(pid)
if inside == "closed":
    store.close()  # the last connection of this process: SQLite would drop the WAL
for _ in range(20):
    SessionStore.open(path, session_id="s").close()
assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0, 0]
"""


@pytest.mark.canonical("a program of its own opens the path")
@pytest.mark.parametrize("parent", ["open", "closed"])
def test_k_open_5_what_forked_children_commit_is_kept(path: Path, parent: str) -> None:
    """Whatever the parent does with its own store meanwhile."""
    command = [sys.executable, "-W", "error", "-c", CHILDREN_COMMIT, str(path), parent]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert all_rows(path)["session_execution_leases"][0][3] == 301
    assert check_file(path).is_sound


def test_k_open_5_a_child_forked_inside_a_transaction_is_refused_the_file(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:

        def child() -> None:
            with pytest.raises(StoreOpenError, match="forked"):
                store.claim_lease(owner_id="child", ttl_ms=1)
            with pytest.raises(StoreOpenError, match="forked"):
                SessionStore.open(path, session_id="s")

        with store.begin() as tx:
            tx.claim_lease(owner_id="parent", ttl_ms=60_000)
            assert in_child(child) == 0
        assert store.current_lease() is not None


FORK_WHILE_WRITING = """
import os, sqlite3, sys
from lash_store import SessionStore
path = sys.argv[1]
store = SessionStore.open(path, session_id="s")
for round in range(40):
    store.claim_lease(owner_id="parent", ttl_ms=0)
    pid = os.fork()
    if pid == 0:
        # The child ends as a program does: every object it inherited is torn down.
        if round % 2:
            store.close()
        del store
        sys.exit(0)
    for _ in range(20):
        store.claim_lease(owner_id="parent", ttl_ms=0)
    os.waitpid(pid, 0)
    for _ in range(20):
        store.claim_lease(owner_id="parent", ttl_ms=0)
print(store.claim_lease(owner_id="parent", ttl_ms=0).fencing_token)
store.close()
"""


@pytest.mark.canonical("a program of its own opens the path")
def test_k_open_5_children_that_end_while_the_parent_writes_harm_nothing(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORK_WHILE_WRITING, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1641\n", "")
    assert check_file(path).is_sound
    assert all_rows(path)["session_execution_leases"][0][3] == 1641


LOCKS_SURVIVE = """
import subprocess, sys
from lash_store import SessionStore
from lash_store.errors import StoreBusyError
from lash_store.schemas import init_file
path = sys.argv[1]
store = SessionStore.open(path, session_id="s")
other = SessionStore.open(path, session_id="s", read_only=True)
contender = '''
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    connection.execute("BEGIN IMMEDIATE")
    print("got the lock")
except sqlite3.OperationalError as error:
    print(error)
'''
def contend():
    return subprocess.run([sys.executable, "-c", contender, path], capture_output=True, text=True).stdout
with store.begin() as tx:
    tx.claim_lease(owner_id="holder", ttl_ms=60_000)
    # Everything that opens the file again in this process, while it holds the lock:
    SessionStore.open(path, session_id="s", read_only=True).close()
    SessionStore.open(path, session_id="s").close()
    init_file("session", path)
    other.close()
    print(contend(), end="")
print(contend(), end="")
store.close()
"""


def test_k_open_7_opening_the_file_again_drops_no_lock(path: Path) -> None:
    """POSIX drops a process's locks on a file when any descriptor on it is closed."""
    command = [sys.executable, "-c", LOCKS_SURVIVE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["database is locked", "got the lock"]


OPENED_BY_US = """
import os, sys
from lash_store import SessionStore
from lash_store.schemas import check_file
path = os.path.realpath(sys.argv[1])
SessionStore.open(path, session_id="s").close()
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
with SessionStore.open(path, session_id="s") as store:
    store.claim_lease(owner_id="a", ttl_ms=1)
    store.current_lease()
    SessionStore.open(path, session_id="s").close()
    check_file(path)
print([str(name) for name in opened if str(name) == path])
"""


def test_k_open_7_nothing_but_sqlite_opens_the_file(path: Path) -> None:
    """``os.open`` is tried with O_EXCL, which fails on a file that is there, unopened."""
    command = [sys.executable, "-c", OPENED_BY_US, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    attempts = done.stdout.strip()
    assert attempts in ("[]", f"['{path}']"), attempts
    with pytest.raises(FileExistsError):
        os.open(path, os.O_CREAT | os.O_EXCL)
