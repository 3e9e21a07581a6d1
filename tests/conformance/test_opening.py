"""K-OPEN, rule by rule."""

from __future__ import annotations

import gc
import os
import pickle
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lash_store import Deployment, LeaseHeld, ProcessRegistry, SessionLease, SessionStore
from lash_store._backends.sqlite import dialect
from lash_store._backends.sqlite.files import QUEUE_SUFFIX
from lash_store.clock import SystemClock
from lash_store.errors import (
    InvalidRecordError,
    NestedTransactionError,
    ReadOnlyStoreError,
    StoreBusyError,
    StoreClosedError,
    StoreEmptyError,
    StoreOpenError,
)
from tests.support.databases import all_rows, run_script


def pragmas(tx: Any) -> dict[str, Any]:
    names = [
        "journal_mode",
        "synchronous",
        "foreign_keys",
        "busy_timeout",
        "cache_size",
        "temp_store",
    ]
    return {name: tx.connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}


def page_size(path: Path) -> int:
    with closing(sqlite3.connect(path)) as raw:
        size: int = raw.execute("PRAGMA page_size").fetchone()[0]
    return size


@pytest.mark.canonical("opens files by their paths")
def test_k_open_15_pages_of_a_file_that_is_made(tmp_path: Path) -> None:
    made, empty = tmp_path / "made.db", tmp_path / "empty.db"
    empty.touch()
    for path in (made, empty):
        SessionStore.open(path, session_id="s").close()
        assert page_size(path) == 2048
    Deployment.open(f"sqlite:///{tmp_path / 'shared.db'}").close()
    assert page_size(tmp_path / "shared.db") == 2048


@pytest.mark.canonical("opens files by their paths")
@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_k_open_15_pages_of_what_is_there(tmp_path: Path, mode: str) -> None:
    """Neither now, nor at a VACUUM of its owner's."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("PRAGMA page_size = 8192")
        raw.execute(f"PRAGMA journal_mode = {mode}")
        raw.execute("CREATE TABLE orders (id INTEGER)")
        raw.execute("DROP TABLE orders")  # it has no table, and a page
    SessionStore.open(path, session_id="s").close()
    assert page_size(path) == 8192
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("VACUUM")
    assert page_size(path) == 8192


def test_k_open_1_settings_of_a_file(path: Path) -> None:
    expected = {
        "journal_mode": "wal",
        "synchronous": 1,
        "foreign_keys": 1,
        "cache_size": -2000,
        "temp_store": 2,
    }
    with SessionStore.open(path, session_id="s") as store:
        with store.read() as tx:
            assert pragmas(tx) == {**expected, "busy_timeout": 15_000}
        with store.begin() as tx:  # the queue waits for the writer, see docs/differences.md
            assert pragmas(tx) == {**expected, "busy_timeout": 0}


def test_k_open_1_options(path: Path) -> None:
    with SessionStore.open(path, session_id="s", synchronous="FULL", busy_timeout_ms=7) as store:
        with store.read() as tx:
            assert pragmas(tx)["busy_timeout"] == 7
        with store.begin() as tx:
            assert pragmas(tx)["synchronous"] == 2
            for name in ("fullfsync", "checkpoint_fullfsync"):  # which only macOS goes by
                assert tx.connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() == 1


@pytest.mark.parametrize(
    "option",
    [
        {"busy_timeout_ms": -1},
        {"busy_timeout_ms": 2**31},
        {"busy_timeout_ms": "1"},
        {"busy_timeout_ms": True},
        {"synchronous": "OFF"},
        {"synchronous": "normal; DROP TABLE x"},
        {"read_only": 1},
        {"create": "no"},
        {"linked": 1},
        {"adopt": None},
        {"immutable": 1},
        {"clock": 1},
        {"clock": SystemClock},
        {"ids": "x"},
    ],
    ids=str,
)
def test_k_open_1_a_bad_option_is_refused_before_a_file_is_made(path: Path, option: Any) -> None:
    with pytest.raises(InvalidRecordError):
        SessionStore.open(path, session_id="s", **option)
    assert not path.exists()


def test_k_open_1_the_switch_to_wal_waits_for_a_reader(path: Path) -> None:
    """SQLite itself does not wait: it reports BUSY at once, whatever its timeout."""
    SessionStore.open(path, session_id="s").close()
    with closing(sqlite3.connect(path, check_same_thread=False)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN")
        other.execute("SELECT * FROM blobs").fetchall()
        threading.Timer(0.2, other.rollback).start()
        with SessionStore.open(path, session_id="s") as store, store.begin() as tx:
            assert pragmas(tx)["journal_mode"] == "wal"


def test_k_open_1_the_switch_to_wal_gives_up_within_the_budget(path: Path) -> None:
    SessionStore.open(path, session_id="s").close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN")
        other.execute("SELECT * FROM blobs").fetchall()
        with pytest.raises(StoreBusyError) as refusal:
            SessionStore.open(path, session_id="s", busy_timeout_ms=50)
        assert refusal.value.waited_ms >= 50
        other.rollback()


def test_k_open_2_read_only_reads_and_refuses_writes(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as writer:
        lease = writer.claim_lease(owner_id="ann", ttl_ms=60_000)
        with SessionStore.open(path, session_id="s", read_only=True) as reader:
            assert reader.current_lease() == lease
            writer.claim_lease(owner_id="bob", ttl_ms=60_000, session_id="other")
            assert reader.current_lease(session_id="other") is not None
            before = all_rows(path)
            with pytest.raises(ReadOnlyStoreError, match=str(path)):
                reader.claim_lease(owner_id="ann", ttl_ms=1)
            with pytest.raises(ReadOnlyStoreError), reader.begin():
                pass
            with reader.read() as tx, pytest.raises(ReadOnlyStoreError):
                tx.claim_lease(owner_id="ann", ttl_ms=1)
            assert all_rows(path) == before
            reader.check_schema()


@pytest.mark.parametrize("missing", ["absent.db", "no/such/folder.db"])
def test_k_open_2_read_only_creates_nothing(tmp_path: Path, missing: str) -> None:
    with pytest.raises(StoreOpenError, match=r"no such file|does not exist"):
        SessionStore.open(tmp_path / missing, session_id="s", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_k_open_2_read_only_refuses_an_empty_file(path: Path) -> None:
    path.touch()
    with pytest.raises(StoreOpenError, match=r"it is not .* yet"):
        SessionStore.open(path, session_id="s", read_only=True)
    assert path.read_bytes() == b""


@pytest.mark.canonical("what is in a path")
@pytest.mark.parametrize(
    "name",
    [
        "a b.db",
        "a%20b.db",
        "a?mode=memory",
        "a#b.db",
        "ü日本🙂.db",
        "a'b\".db",
        "file:x.db",
        "a;b\\c",
    ],
)
def test_k_open_2_a_path_is_a_path_whatever_is_in_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with SessionStore.open(path, session_id="s") as store:
        assert store.path == str(path)
        store.claim_lease(owner_id="ann", ttl_ms=60_000)
    assert path.is_file()
    with SessionStore.open(path, session_id="s", read_only=True) as reader:
        assert isinstance(reader.current_lease(), SessionLease)


def test_k_open_3_in_memory_is_private_and_shared_by_threads() -> None:
    with (
        SessionStore.open(None, session_id="s") as one,
        SessionStore.open(None, session_id="s") as two,
    ):
        one.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert two.current_lease() is None
        seen: list[object] = []
        thread = threading.Thread(target=lambda: seen.append(one.current_lease()))
        thread.start()
        thread.join()
        assert isinstance(seen[0], SessionLease)
        with one.read() as tx, pytest.raises(ReadOnlyStoreError):
            tx.claim_lease(owner_id="ann", ttl_ms=1)
        with one.begin() as tx:
            assert pragmas(tx)["foreign_keys"] == 1
        one.check_schema()


@pytest.mark.parametrize("outer", ["begin", "read"])
@pytest.mark.parametrize("inner", ["begin", "read"])
def test_k_open_3_in_memory_one_transaction_inside_another_is_an_error(
    outer: str, inner: str
) -> None:
    with SessionStore.open(None, session_id="s") as store:
        with getattr(store, outer)(), pytest.raises(NestedTransactionError):
            getattr(store, inner)().__enter__()
        store.claim_lease(owner_id="ann", ttl_ms=1)  # the outer one was left in order


def test_k_open_3_in_memory_threads_wait_for_each_other_within_the_budget() -> None:
    with SessionStore.open(None, session_id="s", busy_timeout_ms=50) as store:
        entered, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with store.read():
                entered.set()
                leave.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        entered.wait()
        with pytest.raises(StoreBusyError) as refusal:
            store.claim_lease(owner_id="ann", ttl_ms=1)
        assert refusal.value.waited_ms >= 50
        leave.set()
        thread.join()
        store.claim_lease(owner_id="ann", ttl_ms=1)


def test_k_open_3_in_memory_can_not_be_read_only() -> None:
    with pytest.raises(StoreOpenError):
        SessionStore.open(None, session_id="s", read_only=True)


@pytest.mark.posix("there is no queue")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_k_open_4_new_files_belong_to_their_owner_alone(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with SessionStore.open(path, session_id="s") as store:
            store.claim_lease(owner_id="ann", ttl_ms=1)
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
    finally:
        os.umask(before)
    names = [f"{path.name}{suffix}" for suffix in ("", "-wal", "-shm", QUEUE_SUFFIX)]
    assert modes == dict.fromkeys(names, 0o600)


@pytest.mark.posix("there is no queue")
def test_k_open_4_the_mode_of_a_file_that_is_there_is_kept(path: Path) -> None:
    SessionStore.open(path, session_id="s").close()
    Path(f"{path}{QUEUE_SUFFIX}").unlink()
    path.chmod(0o660)
    with SessionStore.open(path, session_id="s") as store:
        store.claim_lease(owner_id="ann", ttl_ms=1)
        modes = {stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
    assert modes == {0o660}


def test_k_open_4_every_bad_path_names_itself_and_the_cause(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.db").write_text("this is no database, but long enough to have a header " * 9)
    cases: dict[Any, str] = {
        tmp_path / "folder": "it is a folder",
        tmp_path / "missing" / "x.db": "its folder .* does not exist",
        tmp_path / "text.db": "no SQLite database",
        tmp_path / "text.db" / "x.db": "does not exist",
        tmp_path / ("x" * 300): "300 bytes long",
        "": "non-empty",
        "a\0b": "NUL",
        ":memory:": "path=None",
        b"x.db": "non-empty str",
    }
    before = sorted(tmp_path.iterdir())
    for path, why in cases.items():
        with pytest.raises(StoreOpenError, match=why) as refusal:
            SessionStore.open(path, session_id="s")
        assert repr(refusal.value.path) in str(refusal.value)
        copy = pickle.loads(pickle.dumps(refusal.value))
        assert str(copy) == str(refusal.value)
    assert sorted(tmp_path.iterdir()) == before


_WITHOUT_RIGHTS = """
import os, sys
from lash_store import SessionStore
from lash_store.errors import StoreOpenError
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
for path in sys.argv[1:]:
    try:
        SessionStore.open(path, session_id="s")
    except StoreOpenError as error:
        print(error.cause)
"""


def test_k_open_4_missing_rights_are_named(tmp_path: Path) -> None:
    """In a process of its own, without root's rights, for which everything is permitted."""
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o755)
    private = folder / "private.db"
    SessionStore.open(private, session_id="s").close()
    for above in [folder, *folder.parents]:
        if above.stat().st_uid == os.getuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o055)
    if os.geteuid() != 0:
        private.chmod(0o000)
        folder.chmod(0o555)
    command = [sys.executable, "-c", _WITHOUT_RIGHTS, str(private), str(folder / "new.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    folder.chmod(0o755)
    assert done.stdout.splitlines() == ["no permission to read and write it", "Permission denied"]


_FULL_DISK = """
import resource, signal, sys
from lash_store import SessionStore
from lash_store.errors import LashStoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    SessionStore.open(sys.argv[1], session_id="s")
except LashStoreError as error:
    print(type(error).__name__, error)
"""


def test_k_open_4_a_full_disk_is_named(path: Path) -> None:
    """A limit on the size of files stands in for the disk."""
    command = [sys.executable, "-c", _FULL_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"StoreOpenError cannot open {str(path)!r}")
    assert any(word in done.stdout for word in ("disk I/O", "full"))
    assert all_rows(path) == {"user_version": [(0,)], "schema": []}
    SessionStore.open(path, session_id="s").close()


def test_k_open_5_close_is_idempotent_and_use_after_it_is_an_error(path: Path) -> None:
    store = SessionStore.open(path, session_id="s")
    lease = store.claim_lease(owner_id="ann", ttl_ms=60_000)
    assert isinstance(lease, SessionLease)
    store.close()
    store.close()
    assert store.closed
    assert "closed" in repr(store)
    for use in (
        lambda: store.claim_lease(owner_id="ann", ttl_ms=1),
        lambda: store.renew_lease(lease.fence, ttl_ms=1),
        store.current_lease,
        store.check_schema,
        store.begin().__enter__,
        store.read().__enter__,
    ):
        with pytest.raises(StoreClosedError, match=str(path)):
            use()


@pytest.mark.posix("there is no queue")
def test_k_open_5_closing_leaves_the_database_alone_on_disk(path: Path) -> None:
    with SessionStore.open(path, session_id="s") as store:
        store.claim_lease(owner_id="ann", ttl_ms=1)
        with store.read():
            pass
    assert {p.name for p in path.parent.iterdir()} == {path.name, path.name + QUEUE_SUFFIX}


def test_k_open_5_closing_waits_for_the_transaction_that_runs(path: Path) -> None:
    store = SessionStore.open(path, session_id="s")
    entered = threading.Event()

    def write() -> None:
        with store.begin() as tx:
            entered.set()
            time.sleep(0.1)
            tx.claim_lease(owner_id="ann", ttl_ms=60_000)

    thread = threading.Thread(target=write)
    thread.start()
    entered.wait()
    store.close()
    thread.join()
    assert len(all_rows(path)["session_execution_leases"]) == 1


def test_k_open_5_closing_inside_its_own_transaction_is_an_error(store: SessionStore) -> None:
    with store.begin() as tx:
        tx.claim_lease(owner_id="ann", ttl_ms=60_000)
        with pytest.raises(NestedTransactionError):
            store.close()
    assert store.current_lease() is not None


def test_k_open_5_a_snapshot_may_outlive_close(path: Path) -> None:
    store = SessionStore.open(path, session_id="s")
    store.claim_lease(owner_id="ann", ttl_ms=60_000)
    with store.read() as tx:
        store.close()
        assert isinstance(tx.current_lease(), SessionLease)
    with SessionStore.open(path, session_id="s") as store:
        assert isinstance(store.current_lease(), SessionLease)


def test_k_open_5_a_store_that_is_dropped_leaves_no_cycle_behind(path: Path) -> None:
    """Its connection goes with the last reference, without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        store = SessionStore.open(path, session_id="s")
        with store.begin() as tx:
            tx.claim_lease(owner_id="ann", ttl_ms=1)
        store.close()
        del store, tx
        assert not (path.parent / f"{path.name}-wal").exists()
    finally:
        gc.enable()


def test_k_open_6_threads_share_a_store(store: SessionStore) -> None:
    """Every claim of eight threads is a term of its own: no number is lost or given twice."""
    numbers: list[int] = []
    failures: list[BaseException] = []

    def claim() -> None:
        try:
            for _ in range(50):
                lease = store.claim_lease(owner_id="ann", ttl_ms=0)
                assert isinstance(lease, SessionLease)
                numbers.append(lease.fencing_token)
                store.current_lease()
        except BaseException as error:  # noqa: BLE001 # reason: shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(numbers) == list(range(1, 401))


def test_k_open_8_an_sqlite_without_returning_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.34.1")
    with pytest.raises(StoreOpenError, match=r"SQLite 3\.34\.1 .* 3\.35\.0"):
        SessionStore.open(path, session_id="s")
    assert not path.exists()
    assert dialect.MINIMUM_SQLITE == (3, 35, 0)


@pytest.mark.posix("there is no queue")
def test_one_file_under_two_names_is_one_store(tmp_path: Path) -> None:
    """The sidecar belongs to the file, not to the link that it was opened by."""
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    with (
        SessionStore.open(tmp_path / "link.db", session_id="s") as one,
        SessionStore.open(tmp_path / "real.db", session_id="s") as two,
    ):
        one.claim_lease(owner_id="ann", ttl_ms=60_000)
        assert isinstance(two.claim_lease(owner_id="bob", ttl_ms=1), LeaseHeld)
    assert {p.name for p in tmp_path.iterdir()} == {"link.db", "real.db", "real.db-queue"}


def test_a_file_that_sqlite_finds_corrupt_is_a_typed_error(path: Path) -> None:
    SessionStore.open(path, session_id="s").close()
    run_script(path, "PRAGMA journal_mode = DELETE")
    content = bytearray(path.read_bytes())
    content[100:200] = b"\xff" * 100
    path.write_bytes(content)
    with pytest.raises(StoreOpenError, match="malformed"):
        SessionStore.open(path, session_id="s")
    assert path.read_bytes() == content


def test_k_tx_3_a_file_that_is_locked_at_opening_is_busy(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError):
            SessionStore.open(path, session_id="s", busy_timeout_ms=30)


def test_k_open_4_a_path_that_can_not_be_spelt_is_refused() -> None:
    with pytest.raises(StoreOpenError, match="spell"):
        SessionStore.open("\ud800", session_id="s")


@pytest.mark.canonical("opens both layouts by itself")
@pytest.mark.parametrize("layout", ["file", "shared"])
def test_k_open_13_a_database_that_must_exist(path: Path, layout: str) -> None:
    where = str(path) if layout == "file" else f"sqlite:///{path}"
    with pytest.raises(StoreOpenError, match="create=False"):
        SessionStore.open(where, session_id="s", create=False)
    assert not path.exists()
    path.touch()
    with pytest.raises(StoreEmptyError, match=r"it is not .* yet"):
        SessionStore.open(where, session_id="s", create=False)
    assert path.stat().st_size == 0
    SessionStore.open(where, session_id="s").close()
    before = all_rows(path)
    with SessionStore.open(where, session_id="s", create=False) as store:
        if layout == "shared":  # whose tables of another kind nobody has made
            with pytest.raises(StoreEmptyError):
                ProcessRegistry.open(store, create=False)
            with pytest.raises(StoreEmptyError):
                ProcessRegistry.open(where, create=False)
    assert all_rows(path) == before
    with pytest.raises(StoreOpenError, match="create=False"):
        SessionStore.open(None, session_id="s", create=False)


@pytest.mark.canonical("opens both layouts by itself")
def test_k_open_13_a_deployment_that_must_exist(tmp_path: Path) -> None:
    for where in (tmp_path / "folder", f"sqlite:///{tmp_path / 'a.db'}"):
        with pytest.raises(StoreOpenError, match="create=False"):
            Deployment.open(where, create=False)
        assert list(tmp_path.iterdir()) == []
    for where in (tmp_path / "folder", f"sqlite:///{tmp_path / 'a.db'}"):
        Deployment.open(where).close()
        with Deployment.open(where, create=False) as deployment:
            deployment.sessions.create("s", model="m").close()
