"""K-OPEN-14: what can't be opened is called what it is, and nothing is left behind."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from lash_store import Deployment, NewWork, SessionDirectory, SessionStore
from lash_store.errors import InvalidRecordError, ReadOnlyStoreError, StoreOpenError
from lash_store.moving import copy_deployment
from lash_store.schemas import check_file
from tests.support.databases import all_rows
from tests.support.sessions import enqueue

pytestmark = pytest.mark.canonical("opens files by itself")


def cause(path: str | Path, **options: Any) -> str:
    with pytest.raises(StoreOpenError) as caught:
        SessionStore.open(path, session_id="s", **options)
    assert caught.value.path == os.path.realpath(path)
    return caught.value.cause


def test_k_open_14_what_a_crash_has_left_half_written(tmp_path: Path) -> None:
    """Before WAL: only who may write can undo it, and must be told that it is to be undone."""
    with Deployment.open(f"sqlite:///{tmp_path}/app.db") as deployment:
        deployment.sessions.create("s", model="m").close()
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = DELETE")
        writer.execute("PRAGMA cache_size = 1")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("CREATE TABLE more AS SELECT zeroblob(100000) FROM lash_versions")
        for suffix in ("", "-journal"):
            shutil.copy(tmp_path / f"app.db{suffix}", tmp_path / f"crashed.db{suffix}")
        writer.execute("ROLLBACK")
    url = f"sqlite:///{tmp_path}/crashed.db"
    for call in (
        lambda: Deployment.open(url, read_only=True),
        lambda: check_file(url),
        lambda: copy_deployment(url, tmp_path / "copy"),
    ):
        with pytest.raises(StoreOpenError, match="opening it once for writing undoes"):
            call()
    with Deployment.open(url) as deployment:
        assert len(deployment.sessions.list()) == 1
    assert check_file(url).is_sound


@pytest.mark.parametrize("read_only", [False, True])
def test_k_open_14_what_is_no_file(tmp_path: Path, read_only: bool) -> None:
    """A pipe that nobody writes to would keep whoever opens it waiting for ever."""
    os.mkfifo(tmp_path / "pipe")
    with closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind(str(tmp_path / "socket"))
    (tmp_path / "folder").mkdir()
    before = sorted(each.name for each in tmp_path.iterdir())
    for path, kind in (
        (tmp_path / "pipe", "it is a pipe (FIFO), not a file"),
        (tmp_path / "socket", "it is a socket, not a file"),
        (tmp_path / "folder", "it is a folder, not a file"),
        (os.devnull, "it is a device, not a file"),
    ):
        assert cause(path, read_only=read_only) == kind
    assert sorted(each.name for each in tmp_path.iterdir()) == before


def test_k_open_14_names_and_paths_that_are_too_long(tmp_path: Path) -> None:
    SessionStore.open(tmp_path / ("x" * 247), session_id="s").close()
    assert "its name is 248 bytes long; 247 is the most" in cause(tmp_path / ("y" * 248))
    assert "its name is 300 bytes long" in cause(tmp_path / ("y" * 300))
    deep = tmp_path.joinpath(*["z" * 100] * 5)
    deep.mkdir(parents=True)
    assert "bytes long, and SQLite takes 504" in cause(deep / "s.db")
    assert list(deep.iterdir()) == []
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("y")] == []


def test_k_open_14_a_file_where_a_folder_is_to_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(StoreOpenError, match="file': it is there, and no folder"):
        Deployment.open(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"mine"


def when_none_is_left(path: Path, program: str) -> str:
    """What a program prints that has opened a store once, and then taken every descriptor there is."""
    taking = (
        "import os, resource, sys\n"
        "from lash_store import SessionStore\n"
        "from lash_store.errors import StoreOpenError\n"
        "SessionStore.open(sys.argv[1], session_id='s').close()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "taken = []\n"
        "try:\n"
        "    while True: taken.append(os.dup(0))\n"
        "except OSError: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", taking + program, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_k_open_14_no_descriptor_left(path: Path) -> None:
    told = when_none_is_left(
        path,
        "try:\n"
        "    SessionStore.open(sys.argv[1], session_id='s')\n"
        "except StoreOpenError as error: print(error.cause)\n"
        "for each in taken: os.close(each)\n"
        "SessionStore.open(sys.argv[1], session_id='s').close()\n",
    )
    assert told == "Too many open files\n"


def test_k_open_14_few_descriptors_left(path: Path) -> None:
    """The file itself can be opened, and what SQLite needs beside it can't."""
    told = when_none_is_left(
        path,
        "for _ in range(12):\n"
        "    os.close(taken.pop())\n"
        "    try:\n"
        "        SessionStore.open(sys.argv[1], session_id='s').close()\n"
        "    except StoreOpenError as error: print(error.cause)\n",
    )
    lines = told.splitlines()
    assert 2 <= len(lines) < 12
    assert all(each.endswith("Too many open files") for each in lines), lines


def test_k_open_14_a_link_that_leads_to_itself(path: Path) -> None:
    path.symlink_to(path.name)
    for read_only in (False, True):
        assert "symbolic links" in cause(path, read_only=read_only)


_AS_NOBODY = """
import os, sys
from lash_store import SessionStore
from lash_store.errors import LashStoreError
SessionStore.open(None, session_id="s").list_pending_work()  # imports what is imported late
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
path, *options = sys.argv[1:]
try:
    with SessionStore.open(path, session_id="s", **{name: True for name in options}) as store:
        print(len(store.list_pending_work()))
except LashStoreError as error:
    print(type(error).__name__, error)
"""


def as_nobody(path: Path, *options: str) -> str:
    for above in path.parents:
        if above.stat().st_uid == os.getuid() and above != Path("/") and above != path.parent:
            above.chmod(above.stat().st_mode | 0o055)
    command = [sys.executable, "-c", _AS_NOBODY, str(path), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    return done.stdout.strip()


def in_a_folder_of_all(tmp_path: Path) -> Path:
    """Make a store in a folder that every user may write to."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    path = folder / "s.db"
    with SessionStore.open(path, session_id="s") as store:
        enqueue(store, 1)
    return path


def test_k_open_14_a_file_that_may_only_be_read(tmp_path: Path) -> None:
    """It was opened for writing, and the first write said that it was not."""
    path = in_a_folder_of_all(tmp_path)
    path.chmod(0o444)
    before = all_rows(path)
    said = as_nobody(path)
    assert said.startswith("StoreOpenError")
    assert all_rows(path) == before
    assert "no permission to write it; read_only=True opens it to be read" in said
    assert as_nobody(path, "read_only") == "1"


@pytest.mark.posix("the queue of processes")
@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_k_open_14_what_another_user_has_left_beside_a_file(tmp_path: Path, suffix: str) -> None:
    """It was opened, and each write said that the store was not one for writing."""
    path = in_a_folder_of_all(tmp_path)
    path.chmod(0o666)
    path.with_name("s.db-queue").chmod(0o666)
    SessionStore.open(path, session_id="s", read_only=True).close()
    for left in path.parent.glob("s.db-*"):
        left.chmod(0o444 if left.name.endswith(suffix) else 0o666)
    before = sorted(path.parent.iterdir())
    said = as_nobody(path)
    assert said.startswith("StoreOpenError")
    assert f"no permission to write 's.db{suffix}', which stands beside it" in said
    assert as_nobody(path, "read_only") == "1"
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.parametrize("comes_back", [False, True])
def test_k_open_14_what_goes_as_it_is_looked_at_hinders_nobody(
    path: Path, monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    """Another thread or process closes the file's last connection, and perhaps opens it again."""
    SessionStore.open(path, session_id="s").close()
    wal = path.with_name(f"{path.name}-wal")
    wal.touch()
    may = os.access
    gone: list[Any] = []

    def access(name: Any, mode: int) -> bool:
        if str(name) == str(wal) and not gone:
            gone.append(name)
            wal.unlink()
            found = may(name, mode)
            if comes_back:
                wal.touch()
            return found
        return may(name, mode)

    monkeypatch.setattr(os, "access", access)
    with SessionStore.open(path, session_id="s") as store:
        enqueue(store, 1)
    assert gone


def test_k_open_14_a_folder_that_cant_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "medium"
    folder.mkdir()
    path = folder / "s.db"
    with SessionStore.open(path, session_id="s") as store:
        enqueue(store, 1)
    path.chmod(0o644)
    (folder / "s.db-queue").unlink(missing_ok=True)
    folder.chmod(0o555)
    said = as_nobody(path, "read_only")
    assert "its folder can't be written, and WAL needs two files beside it" in said
    assert "immutable=True opens a file that nobody writes to" in said
    assert as_nobody(path, "read_only", "immutable") == "1"
    assert [each.name for each in folder.iterdir()] == ["s.db"]
    path.chmod(0o666)
    assert "its folder can't be written" in as_nobody(path)
    folder.chmod(0o755)


def test_k_open_14_immutable(path: Path) -> None:
    with pytest.raises(InvalidRecordError, match="needs read_only=True"):
        SessionStore.open(path, session_id="s", immutable=True)
    assert not path.exists()
    with SessionStore.open(path, session_id="s") as store:
        enqueue(store, 1)
        before = all_rows(path)
        with pytest.raises(StoreOpenError, match="open in this process with immutable=False"):
            SessionStore.open(path, session_id="s", read_only=True, immutable=True)
        assert all_rows(path) == before
        assert len(store.list_pending_work()) == 1  # and the store goes on
    (path.parent / f"{path.name}-queue").unlink(missing_ok=True)
    with SessionStore.open(path, session_id="s", read_only=True, immutable=True) as store:
        assert len(store.list_pending_work()) == 1
        assert [each.name for each in path.parent.iterdir()] == [path.name]
        with pytest.raises(ReadOnlyStoreError):
            store.enqueue_work(NewWork([2]))
        with pytest.raises(StoreOpenError, match="open in this process with immutable=True"):
            SessionStore.open(path, session_id="s")


def test_k_open_14_an_immutable_reader_overlooks_no_commit(path: Path) -> None:
    """A WAL with commits in it stays beside a file whose writer was killed."""
    with SessionStore.open(path, session_id="s") as store:
        enqueue(store, 1)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as keeps_it_open:
            keeps_it_open.execute("SELECT * FROM queued_work_batches").fetchall()
            store.close()
            wal = (path.parent / f"{path.name}-wal").read_bytes()
    copy = path.parent / "copy.db"
    copy.write_bytes(path.read_bytes())
    (path.parent / "copy.db-wal").write_bytes(wal or b"x")
    assert "beside it, whose commits nobody sees" in cause(copy, read_only=True, immutable=True)


@contextmanager
def unseen(folder: Path) -> Iterator[None]:
    """Let nobody look into a folder; who may look into every one is somebody else meanwhile."""
    folder.chmod(0)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if before == 0:
            os.seteuid(0)
        folder.chmod(0o700)


@pytest.mark.posix("there are no such modes")
def test_k_open_4_a_folder_that_cannot_be_seen_is_no_empty_one(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    directories = [
        SessionDirectory(hidden / "sessions"),
        SessionDirectory(f"sqlite:///{hidden / 's.db'}"),
    ]
    for directory in directories:
        directory.create("x", model="m").close()
        assert len(directory.list()) == 1
        assert directory.open("y") is None
        assert not directory.delete("y")
    with unseen(hidden):
        for directory in directories:
            with pytest.raises(StoreOpenError, match="Permission denied"):
                directory.list()
            with pytest.raises(StoreOpenError, match="Permission denied"):
                directory.open("x")
            with pytest.raises(StoreOpenError, match="Permission denied"):
                directory.delete("x")
        assert "can't be seen: Permission denied" in cause(hidden / "sessions" / "z.db")
    for directory in directories:
        assert len(directory.list()) == 1


@pytest.mark.posix("a folder in use is not removed there")
def test_k_open_4_a_process_whose_folder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(StoreOpenError, match="own folder can't be told"):
        SessionStore.open("s.db", session_id="s")
    with SessionDirectory(tmp_path / "sessions") as directory:
        with pytest.raises(InvalidRecordError, match="cwd = None: has to be given"):
            directory.create("s", model="m")
        assert directory.list() == []
        directory.create("s", model="m", cwd="/home").close()


def test_k_open_4_a_directory_has_names_that_a_file_system_can_spell(tmp_path: Path) -> None:
    for bad in ("a\0b", Path("a\0b"), ""):
        with pytest.raises(StoreOpenError, match="without NUL"):
            SessionDirectory(bad)
    for where in (tmp_path / "sessions", f"sqlite:///{tmp_path / 's.db'}"):
        with SessionDirectory(where) as directory:
            directory.create("s", model="m").close()
            for after in ("\ud800", "a\0b"):
                with pytest.raises(InvalidRecordError, match="after"):
                    directory.list(after=after)


@pytest.mark.canonical("the schema of a file")
def test_k_open_4_a_schema_that_is_no_utf_8_is_said_to_be_malformed(path: Path) -> None:
    """SQLite quotes it in its message, which can't be decoded then."""
    SessionStore.open(path, session_id="s").close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA journal_mode=DELETE")
    written = path.read_bytes()
    path.write_bytes(written.replace(b"CREATE TABLE blobs", b"CREATE \xffABLE blobs"))
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    for call in (
        lambda: SessionStore.open(path, session_id="s"),
        lambda: SessionStore.open(path, session_id="s", read_only=True),
        lambda: check_file(path),
    ):
        with pytest.raises(StoreOpenError, match="malformed"):
            call()
    after = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    assert after == before
