"""A file that is removed, replaced or moved while it is open, and one that has a second name."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lash_store import (
    AsyncSessionStore,
    Deployment,
    NewWork,
    SessionDirectory,
    SessionLease,
    SessionStore,
)
from lash_store._backends import remove_database
from lash_store._backends.sqlite import births, connections, database, files, opened
from lash_store._kernel.watching import Waiter
from lash_store.errors import StoreBusyError, StoreLostError, StoreOpenError
from lash_store.session.tx import SessionTx
from lash_store.testing import ManualClock, as_another_process
from tests.conformance.test_holding import until
from tests.support.databases import all_rows, apart, database_of

pytestmark = pytest.mark.sqlite("what becomes of a file")

TIMEOUT_S = 20

_watched: list[list[str]] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched and event in ("open", "sqlite3.connect"):
        _watched[-1].append(str(arguments[0]))


sys.addaudithook(_hear)


@contextmanager
def opens_nothing(path: Path) -> Iterator[None]:
    """Fail if anything opens the database, through SQLite or past it."""
    heard: list[str] = []
    _watched.append(heard)
    try:
        yield
    finally:
        _watched.remove(heard)
    assert [each for each in heard if path.name in each] == []


def move(path: Path) -> None:
    path.rename(path.with_name("moved"))


def unlink(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    """By another session's store; the old one stays, under another name."""
    move(path)
    path.with_name("other.db").replace(path)


def replace_by_a_copy(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    move(path)
    path.with_name("copy").replace(path)


LOSSES = [unlink, replace, replace_by_a_copy, move]

CALLS: dict[str, Callable[[SessionStore], Any]] = {
    "begin": lambda store: store.begin().__enter__(),
    "read": lambda store: store.read().__enter__(),
    "a write": lambda store: store.put_blob(b"lost"),
    "a read": lambda store: store.current_lease(),
    "transact": lambda store: store.transact(lambda tx: tx.put_blob(b"lost")),
    "a repeatable transact": lambda store: store.transact(
        lambda tx: tx.put_blob(b"lost"), repeatable=True
    ),
    "wait_until": lambda store: store.wait_until(lambda _: None, timeout_ms=5_000),
    "check_schema": lambda store: store.check_schema(),
    "another handle": lambda store: SessionStore.open(store, session_id="t"),
}

ASYNC_CALLS: dict[str, Callable[[AsyncSessionStore], Any]] = {
    "a write": lambda store: store.put_blob(b"lost"),
    "a read": lambda store: store.current_lease(),
    "transact": lambda store: store.transact(lambda tx: tx.put_blob(b"lost")),
    "read": lambda store: store.read(lambda tx: tx.current_lease()),
    "wait_until": lambda store: store.wait_until(lambda _: None, timeout_ms=5_000),
    "check_schema": lambda store: store.check_schema(),
}


@pytest.fixture(params=[False, True], ids=["open", "idle-closed"])
def lost(path: Path, request: pytest.FixtureRequest) -> Iterator[SessionStore]:
    """A store whose file is about to be lost; the WAL is empty, and another file stands ready."""
    with SessionStore.open(path.with_name("other.db"), session_id="other") as other:
        other.claim_lease(owner_id="other", ttl_ms=60_000)
    # On its way to be lost: what is in the WAL is SQLite's to put into the file, so nothing is.
    with SessionStore.open(path, session_id="s") as store:
        store.claim_lease(owner_id="ann", ttl_ms=60_000)
    with SessionStore.open(path, session_id="s", busy_timeout_ms=2_000) as store:
        store.current_lease()
        if request.param:
            assert database_of(store).close_if_idle()
        yield store


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_k_open_9_the_next_use_of_a_lost_file_is_refused(
    path: Path,
    lost: SessionStore,
    lose: Callable[[Path], None],
    call: Callable[[SessionStore], Any],
) -> None:
    lose(path)
    files_before = {
        each: each.read_bytes() for each in (path, path.with_name("moved")) if each.exists()
    }
    with opens_nothing(path):
        for _ in range(2):
            with pytest.raises(StoreLostError, match=str(path)):
                call(lost)
    assert {each: each.read_bytes() for each in files_before} == files_before
    assert path.exists() == (path in files_before)  # and none has come into being


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("call", ASYNC_CALLS.values(), ids=ASYNC_CALLS)
def test_k_open_9_the_next_use_by_asyncio_is_refused(
    path: Path,
    lost: SessionStore,
    lose: Callable[[Path], None],
    call: Callable[[AsyncSessionStore], Any],
) -> None:
    async def main() -> None:
        async with AsyncSessionStore.open(lost, session_id="s", busy_timeout_ms=2_000) as store:
            database_of(lost).close_if_idle()
            lose(path)
            with opens_nothing(path):
                for _ in range(2):
                    with pytest.raises(StoreLostError, match=str(path)):
                        await asyncio.wait_for(call(store), TIMEOUT_S)
                # Several at once, each answered.
                answers = await asyncio.wait_for(
                    asyncio.gather(*(call(store) for _ in range(8)), return_exceptions=True),
                    TIMEOUT_S,
                )
                assert {type(answer) for answer in answers} == {StoreLostError}

    asyncio.run(main())
    assert path.exists() == (lose in (replace, replace_by_a_copy))


@pytest.mark.canonical("opens the path by itself, as another program would")
@pytest.mark.parametrize("lose", [move, replace, replace_by_a_copy])
def test_k_open_9_moved_back_it_works_again(
    path: Path, lost: SessionStore, lose: Callable[[Path], None]
) -> None:
    lose(path)
    for call in CALLS.values():
        with pytest.raises(StoreLostError):
            call(lost)
    path.with_name("moved").replace(path)
    assert isinstance(lost.current_lease(), SessionLease)
    lost.put_blob(b"found")
    # Commits of another process are noticed as well.
    other = apart(SessionStore.open, path, session_id="t")
    looked = threading.Event()

    def look(tx: SessionTx) -> SessionLease | None:
        looked.set()
        return tx.current_lease(session_id="t")

    def claim() -> None:
        looked.wait()
        other.claim_lease(owner_id="bob", ttl_ms=60_000)

    thread = threading.Thread(target=claim)
    thread.start()
    assert isinstance(lost.wait_until(look, timeout_ms=5_000), SessionLease)
    thread.join()
    other.close()


@pytest.mark.parametrize("lose", LOSSES)
def test_k_open_9_who_waits_for_a_commit_is_told_that_the_file_is_lost(
    path: Path, lose: Callable[[Path], None]
) -> None:
    """Nobody will ever commit to it: the wait would last for ever."""
    SessionStore.open(path.with_name("other.db"), session_id="other").close()
    with SessionStore.open(path, session_id="s") as store:
        looked = threading.Event()
        ended: list[Any] = []

        def wait() -> None:
            try:
                store.wait_until(lambda _: looked.set(), timeout_ms=20_000)
            except StoreLostError as error:
                ended.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        looked.wait()
        lose(path)
        thread.join(5)
        assert [type(each) for each in ended] == [StoreLostError]


@pytest.mark.canonical("opens the path by itself, as another program would")
@pytest.mark.parametrize("lose", LOSSES)
def test_k_open_9_the_path_can_be_opened_anew_while_the_old_store_stays_refused(
    path: Path, lost: SessionStore, lose: Callable[[Path], None]
) -> None:
    # The number of a file that is gone may be given to the next one: as long as somebody has it
    # open it is not. A store that was idle-closed has not, and can't tell such a file from its own.
    held_open = os.open(path, os.O_PATH)
    lose(path)
    with SessionStore.open(path, session_id="s") as anew:
        assert database_of(anew) is not database_of(lost)
        held = anew.current_lease(session_id="other")
        assert (held is not None) == (lose is replace)
        anew.put_blob(b"new")
        with pytest.raises(StoreLostError):
            lost.put_blob(b"old")
        lost.close()  # which takes nothing from the new one
        anew.put_blob(b"newer")
        assert path.with_name(f"{path.name}-wal").exists()
        other = apart(SessionStore.open, path, session_id="s")
        with other.read() as tx:
            blobs = tx.connection.exec_driver_sql("SELECT count(*) FROM blobs").scalar()
        assert blobs == 2
        other.close()
    os.close(held_open)
    assert len(all_rows(path)["blobs"]) == 2
    if path.with_name("moved").exists():
        assert all_rows(path.with_name("moved"))["blobs"] == []


def test_k_open_9_idle_closed_it_is_opened_again_by_its_next_use(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        database = database_of(store)
        for use in (
            lambda: store.put_blob(b"x"),
            store.current_lease,
            lambda: store.transact(lambda tx: tx.put_blob(b"y")),
            lambda: store.wait_until(lambda _: 1),
            store.check_schema,
            lambda: asyncio.run(_use(store)),
        ):
            assert database.close_if_idle()
            assert list(database.all_connections) == []
            use()
            assert len(database.all_connections) > 0
        with store.begin():
            assert not database.close_if_idle()
        with store.read():
            assert not database.close_if_idle()
        with store.watch.subscribed(Waiter(lambda: None)):
            assert not database.close_if_idle()
        end_s = time.monotonic() + 20
        while not database.close_if_idle():  # the timer may be looking for others' commits just now
            assert time.monotonic() < end_s


async def _use(store: SessionStore) -> None:
    async with AsyncSessionStore.open(store, session_id="s") as beside:
        await beside.put_blob(b"z")
        await beside.current_lease()


def test_k_open_9_a_file_that_was_only_read(path: Path) -> None:
    SessionStore.open(path, session_id="s").close()
    with SessionStore.open(path, session_id="s", read_only=True) as reader:
        reader.current_lease()
        move(path)
        with pytest.raises(StoreLostError):
            reader.current_lease()
        with pytest.raises(StoreOpenError):
            SessionStore.open(path, session_id="s", read_only=True)
        path.with_name("moved").rename(path)
        assert reader.current_lease() is None
    assert not path.with_name("moved").exists()


# K-OPEN-10


@pytest.mark.posix("there is no queue")
def test_k_open_10_a_file_with_two_names_is_refused_at_open(path: Path) -> None:
    SessionStore.open(path, session_id="s").close()
    link = path.with_name("link.db")
    os.link(path, link)
    for name in (path, link):
        with pytest.raises(StoreOpenError, match=rf"{name}.*2 names.*linked=True"):
            SessionStore.open(name, session_id="s")
        with pytest.raises(StoreOpenError, match="2 names"):
            asyncio.run(AsyncSessionStore.open(name, session_id="s").current_lease())
    assert sorted(each.name for each in path.parent.iterdir()) == [
        link.name,
        path.name,
        f"{path.name}-queue",
    ]
    with SessionStore.open(link, session_id="s", linked=True) as store:
        store.put_blob(b"x")
        SessionStore.open(link, session_id="s", read_only=True).close()
        with pytest.raises(StoreOpenError, match="2 names"):  # each store says it for itself
            SessionStore.open(link, session_id="s")
    with SessionStore.open(path, session_id="s", read_only=True) as reader:
        assert reader.current_lease() is None
    link.unlink()
    SessionStore.open(path, session_id="s").close()


def test_k_open_10_a_symbolic_link_is_no_second_name(path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    with SessionStore.open(link, session_id="s") as store:
        assert store.path == str(path)
        with SessionStore.open(path, session_id="s") as same:
            assert database_of(same) is database_of(store)


def test_k_open_10_a_link_that_comes_later_refuses_the_next_store(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        os.link(path, path.with_name("link.db"))
        with pytest.raises(StoreOpenError, match="2 names"):
            SessionStore.open(path, session_id="s")
        store.put_blob(b"x")


_MOUNTED = """
import sys
from lash_store import SessionStore
from lash_store.errors import StoreOpenError

where = sys.argv[1]
try:
    SessionStore.open(where, session_id="s")
except StoreOpenError as error:
    assert "mount point" in str(error), error
else:
    raise AssertionError("it was opened")
SessionStore.open(where, session_id="s", read_only=True).close()
with SessionStore.open(where, session_id="s", linked=True) as store:
    store.put_blob(b"x")
print("fine")
"""


def can_mount(folder: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    (folder / "from").touch()
    (folder / "to").touch()
    command = f"mount --bind '{folder}/from' '{folder}/to'"
    done = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.canonical("opens the path by itself, as another program would")
def test_k_open_10_a_file_that_is_mounted_by_itself(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a real mount where the machine lets us; else by what the system would have said."""
    path = tmp_path / "with space" / "store.db"
    path.parent.mkdir()
    SessionStore.open(path, session_id="s").close()
    target = tmp_path / "with space" / "mounted.db"
    target.touch()
    if can_mount(tmp_path):
        command = f"mount --bind '{path}' '{target}' && '{sys.executable}' -c \"$0\" '{target}'"
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", command, _MOUNTED],
            capture_output=True,
            text=True,
            check=False,
            cwd=root,
        )
        assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr
    told = {str(path)}
    monkeypatch.setattr(files, "_mount_points", lambda: told)
    with pytest.raises(StoreOpenError, match="mount point"):
        SessionStore.open(path, session_id="s")
    SessionStore.open(path, session_id="s", linked=True).close()
    told.clear()
    SessionStore.open(path, session_id="s").close()


def test_k_open_10_mount_points_are_read_as_the_system_writes_them() -> None:
    points = files._mount_points()
    assert "/" in points
    for point in points:
        assert "\\040" not in point


def test_nothing_of_a_lost_file_is_open_after_its_store_was_closed(path: Path) -> None:
    store = SessionStore.open(path, session_id="s")
    store.put_blob(b"x")
    store.current_lease()
    path.unlink()
    with pytest.raises(StoreLostError):
        store.current_lease()
    store.close()
    opened = [
        os.readlink(f"/proc/self/fd/{each}")
        for each in os.listdir("/proc/self/fd")
        if _is_open(each)
    ]
    assert [each for each in opened if str(path) in each] == []
    with closing(sqlite3.connect(path)) as anew:
        assert anew.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def _is_open(descriptor: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{descriptor}")


def test_k_open_9_a_file_that_takes_anothers_place_is_not_read_with_its_wal(tmp_path: Path) -> None:
    """SQLite leaves the WAL of a file that was replaced where it is, and would apply it to the next."""
    path, other = tmp_path / "a.db", tmp_path / "b.db"
    with SessionStore.open(path, session_id="s") as lost:
        with SessionStore.open(other, session_id="s") as store:
            store.put_blob(b"from b")
        for number in range(5):
            lost.put_blob(b"from a %d" % number)
        other.replace(path)
        with pytest.raises(StoreLostError):
            lost.put_blob(b"nowhere")
        with SessionStore.open(path, session_id="s") as anew:
            assert [row[1][-6:] for row in all_rows(path)["blobs"]] == [b"from b"]
            anew.put_blob(b"new")
            lost.close()
            anew.put_blob(b"newer")
        assert len(all_rows(path)["blobs"]) == 3
    (kept,) = tmp_path.glob("a.db-wal-lost-*")
    assert kept.stat().st_size > 0


def test_k_open_9_who_is_at_work_on_a_lost_file_has_to_end_first(tmp_path: Path) -> None:
    path, other = tmp_path / "a.db", tmp_path / "b.db"
    SessionStore.open(other, session_id="s").close()
    with SessionStore.open(path, session_id="s") as lost:
        with lost.begin() as tx:
            tx.put_blob(b"x")
            other.replace(path)
            with pytest.raises(StoreOpenError, match="at work on"):
                SessionStore.open(path, session_id="s")
        SessionStore.open(path, session_id="s").close()


def test_k_open_9_an_idle_file_that_was_emptied_is_not_made_a_store_again(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        store.claim_lease(owner_id="ann", ttl_ms=1)
        assert database_of(store).close_if_idle()
        path.write_bytes(b"")
        with pytest.raises(StoreLostError, match="empty"):
            store.claim_lease(owner_id="ann", ttl_ms=1)
        assert path.stat().st_size == 0


@pytest.mark.posix
def test_k_open_9_what_stands_beside_a_file_that_was_moved_is_not_deleted(tmp_path: Path) -> None:
    """A store that has it open goes on with its WAL, once it stands at its path again."""
    directory = SessionDirectory(tmp_path)
    with directory.create("s", model="m") as store:
        store.enqueue_work(NewWork([1]))
        path = directory.path_of("s")
        os.rename(path, f"{path}.away")
        beside = sorted(os.listdir(tmp_path))
        assert not directory.delete("s")
        assert sorted(os.listdir(tmp_path)) == beside
        os.rename(f"{path}.away", path)
        assert store.work_depth().batches == 1
        store.enqueue_work(NewWork([2]))
        assert store.work_depth().batches == 2


@pytest.mark.canonical("opens the path by itself, as another program would")
@pytest.mark.parametrize("comes_back", [False, True], ids=["same number", "same file"])
def test_k_open_9_what_was_given_up_for_another_file_stays_lost(
    path: Path, lost: SessionStore, comes_back: bool
) -> None:
    """A new file may get the number of the old one, which nobody has open any more."""
    if comes_back:
        move(path)
    else:
        path.unlink()
    with SessionStore.open(path, session_id="new") as new:
        before = all_rows(path)
        if comes_back:
            new.close()
            path.with_name("moved").replace(path)
        for call in CALLS.values():
            with pytest.raises(StoreLostError, match="open that one anew"):
                call(lost)
        assert comes_back or all_rows(path) == before


@pytest.mark.canonical("opens the path by itself, as another program would")
def test_k_open_9_a_file_stands_where_the_folder_was(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with SessionStore.open(folder / "c.db", session_id="s") as store:
        store.put_blob(b"x")
        folder.rename(tmp_path / "moved")
        folder.write_bytes(b"a file")
        with pytest.raises(StoreOpenError, match="its folder"):
            SessionStore.open(folder / "c.db", session_id="s")
        with pytest.raises(StoreLostError):
            store.put_blob(b"y")
    assert folder.read_bytes() == b"a file"


@pytest.mark.canonical("each store has a file of its own")
def test_k_open_12_what_is_only_read_from_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not the one that was idle longest, and is not closed for each that comes."""
    monkeypatch.setattr(opened, "MOST_CONNECTIONS", 6)
    with ExitStack() as stack:
        hot = stack.enter_context(SessionStore.open(tmp_path / "hot.db", session_id="s"))
        cold = [
            stack.enter_context(SessionStore.open(tmp_path / f"cold-{at}.db", session_id="s"))
            for at in range(12)
        ]
        hot.load_head()
        (reader,) = database_of(hot).all_connections[-1:]
        for each in cold:
            each.claim_lease(owner_id="ann", ttl_ms=1)
            hot.load_head()
        assert reader in database_of(hot).all_connections


def test_k_open_9_its_wal_is_known_although_no_descriptor_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no /proc, no descriptor is left, or another process alone keeps the WAL open."""
    path, other = tmp_path / "a.db", tmp_path / "b.db"
    with SessionStore.open(other, session_id="s") as store:
        store.put_blob(b"from b")
    with SessionStore.open(path, session_id="s") as lost:
        lost.put_blob(b"from a")
        other.replace(path)
        monkeypatch.setattr(database, "open_sidecars", lambda _: set())
        with SessionStore.open(path, session_id="s"):
            assert [row[1][-6:] for row in all_rows(path)["blobs"]] == [b"from b"]
    assert list(tmp_path.glob("a.db-wal-lost-*"))


def test_k_open_9_a_file_that_was_emptied_is_lost(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        store.claim_lease(owner_id="ann", ttl_ms=60_000)
        os.truncate(path, 0)
        with pytest.raises(StoreLostError, match="empty"):
            store.claim_lease(owner_id="bob", ttl_ms=60_000)
        assert path.stat().st_size == 0


def test_k_open_9_a_file_that_can_not_be_seen_for_a_while_is_not_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a term that is held: nobody has refused a renewal."""
    clock = ManualClock(1_000_000)

    def hidden(*_: object) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied")

    with SessionStore.open(path, session_id="s", clock=clock) as store:
        with store.hold(owner_id="ann", ttl_ms=900) as held:
            with monkeypatch.context() as patch:
                patch.setattr(connections, "stat", hidden)
                with pytest.raises(StoreOpenError, match="Permission denied"):
                    store.put_blob(b"x")
                clock.advance(400)  # at the first renewal
                until(lambda: held._kept._due_ms > clock.now_ms())
            clock.advance(200)
            until(lambda: held.renewals == 1 or held.lost)
            assert held.lost is None
        store.put_blob(b"x")


def test_k_open_12_a_file_that_goes_as_it_is_opened_again_is_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        path.unlink()
        raise StoreOpenError(str(path), "there is no such file")

    with SessionStore.open(path, session_id="s") as store:
        store.put_blob(b"x")
        assert database_of(store).close_if_idle()
        monkeypatch.setattr(connections, "open_writer", gone)
        with pytest.raises(StoreLostError):
            store.put_blob(b"y")
        monkeypatch.undo()


def test_k_open_7_the_queue_of_writers_touches_no_database_that_is_called_so(
    tmp_path: Path,
) -> None:
    mail, called_so = tmp_path / "mail", tmp_path / "mail-queue"
    with SessionStore.open(called_so, session_id="q") as store:
        store.put_blob(b"kept")
        before = called_so.read_bytes()[:16]
        with SessionStore.open(mail, session_id="m", busy_timeout_ms=20) as beside:
            queue = database_of(beside).connections.queue
            assert queue is not None
            assert not queue.is_fair
            with closing(sqlite3.connect(mail, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(StoreBusyError):
                    beside.put_blob(b"x")
        assert called_so.read_bytes()[:16] == before
        assert remove_database(str(mail))
        store.put_blob(b"kept as well")
    assert len(all_rows(called_so)["blobs"]) == 2


@pytest.mark.parametrize(
    "suffix",
    [
        pytest.param("-queue", marks=pytest.mark.posix("there is no queue")),
        "-wal",
        "-shm",
        "-journal",
    ],
)
def test_k_open_7_nothing_is_made_where_something_of_another_database_is_kept(
    path: Path, suffix: str
) -> None:
    with SessionStore.open(path, session_id="s"):
        before = sorted(path.parent.iterdir())
        with pytest.raises(StoreOpenError, match="kept"):
            SessionStore.open(f"{path}{suffix}", session_id="t")
        assert sorted(path.parent.iterdir()) == before


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("is_open", [True, False])
def test_k_open_7_no_store_is_taken_for_the_journal_of_a_new_one(
    tmp_path: Path, suffix: str, is_open: bool
) -> None:
    """SQLite would remove it without a word."""
    first = tmp_path / f"trip{suffix}"
    with SessionStore.open(first, session_id="s") as store:
        store.put_blob(b"kept")
        if not is_open:
            store.close()
        before = sorted(tmp_path.iterdir())
        with pytest.raises(StoreOpenError, match="a database by itself"):
            SessionStore.open(tmp_path / "trip", session_id="t")
        assert sorted(tmp_path.iterdir()) == before
    assert len(all_rows(first)["blobs"]) == 1


def test_k_dep_1_a_folder_is_where_its_link_led_to(tmp_path: Path) -> None:
    for release in ("v1", "v2"):
        Deployment.open(tmp_path / release).close()
    link = tmp_path / "current"
    link.symlink_to("v1", target_is_directory=True)
    with Deployment.open(link) as deployment:
        deployment.sessions.create("before", model="m").close()
        link.unlink()
        link.symlink_to("v2", target_is_directory=True)
        found = deployment.sessions.open("before")
        assert found is not None
        found.close()


def test_k_open_12_another_file_that_has_got_its_inode_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system gives a number anew: what was idle, and so held no file open, can't go by that alone."""
    path, other = tmp_path / "a.db", tmp_path / "b.db"
    with SessionStore.open(path, session_id="s") as store:
        store.put_blob(b"x")
        assert database_of(store).close_if_idle()
        assert store.list_work() == []  # as it stands there still, it is opened again
        assert database_of(store).close_if_idle()
        time.sleep(0.02)
        with SessionStore.open(other, session_id="t"):
            pass
        other.replace(path)
        found = database_of(store).connections
        found.identity = files.identity_of(str(path))
        if births.born_ns(str(path)) is None:  # this file system says nothing of it
            monkeypatch.setattr(connections, "born_ns", lambda _: 2)
            found.born_ns = 1
        before = path.read_bytes()
        for use in (partial(store.put_blob, b"y"), store.list_work):
            with pytest.raises(StoreLostError, match="another file"):
                use()
        assert path.read_bytes() == before


def test_a_file_is_told_from_another_by_when_it_was_made(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"")
    time.sleep(0.02)
    two.write_bytes(b"")
    born = [births.born_ns(str(each)) for each in (one, two)]
    assert born == [None, None] or born[0] < born[1] < time.time_ns() + 10**9  # type: ignore[operator] # reason: numbers, then
    one.write_bytes(b"more")
    assert births.born_ns(str(one)) == born[0]
    assert births.born_ns(str(tmp_path / "none")) is None


def test_k_open_7_beside_a_file_that_is_no_database_a_name_is_free(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("notes")
    for suffix in ("-queue", "-wal", "-journal"):
        with SessionStore.open(tmp_path / f"work{suffix}", session_id="s") as store:
            store.put_blob(b"x")
    with SessionStore.open(tmp_path / "mail", session_id="s"):
        pass
    (tmp_path / "mail-queue").unlink(missing_ok=True)  # nobody has it open
    with SessionStore.open(tmp_path / "mail-queue", session_id="s") as store:
        store.put_blob(b"x")


@pytest.mark.posix
def test_k_open_9_the_wal_of_a_file_that_others_have_made_since_is_theirs(tmp_path: Path) -> None:
    """Though it has got the inode of one that was there before."""
    path = tmp_path / "a.db"
    with SessionStore.open(path, session_id="s") as lost:
        lost.put_blob(b"from a")
        found = database_of(lost).connections
        assert database_of(lost).close_if_idle()  # its WAL goes with that
        path.unlink()
        with as_another_process(), SessionStore.open(path, session_id="s") as others:
            others.put_blob(b"from b")
            wal = os.stat(f"{path}-wal").st_ino
            found.sidecars = {(wal, 1), (wal, None)}
            with pytest.raises(StoreLostError):
                lost.put_blob(b"nowhere")
            with SessionStore.open(path, session_id="s"):
                assert [row[1][-6:] for row in all_rows(path)["blobs"]] == [b"from b"]
            others.put_blob(b"more from b")
    assert not list(tmp_path.glob("a.db-wal-lost-*"))
    assert len(all_rows(path)["blobs"]) == 2
