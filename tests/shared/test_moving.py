"""A deployment, copied from a folder into one database and back: every row, or a refusal."""

from __future__ import annotations

import random
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import Column, Index, MetaData, Text
from typer.testing import CliRunner

from lash_store import (
    Append,
    Checkpoint,
    Deployment,
    External,
    Host,
    NewWork,
    Node,
    ProcessRegistration,
    ProcessRegistry,
    Provenance,
    SessionDirectory,
    SessionStore,
    TurnCommit,
    TurnStamp,
)
from lash_store._kernel.observing import Event, observed_by
from lash_store._kernel.options import OpenOptions
from lash_store._kernel.schema import Schema, declared, ordered_indexes
from lash_store.cli.app import app
from lash_store.errors import (
    CopyError,
    CorruptRecordError,
    SchemaVersionError,
    StorageError,
    StoreOpenError,
)
from lash_store.moving import Copied, copy_deployment, units
from lash_store.process.tx import ProcessTx
from lash_store.schemas import SCHEMAS
from lash_store.session.places import file_name
from lash_store.session.records import Relation, SessionMeta, UsageDelta
from lash_store.session.tx import SessionTx
from tests.support.databases import all_rows, run_script
from tests.support.triggers import draft
from tests.support.turns import join, outcome, started

SESSIONS = 25


def fill(deployment: Deployment, sessions: int) -> None:
    """Something in every table."""
    for number in range(sessions):
        with deployment.sessions.create(f"chat {number}/ü", model="m") as session:
            lease: Any = session.claim_lease(owner_id="ann", ttl_ms=60_000)
            nodes = [Node(f"n{at}", f"n{at - 1}" if at else None, {"at": at}) for at in range(4)]
            session.record_attachment_intent("att", canonical_uri="u")
            session.commit_turn(
                TurnCommit(
                    fence=lease.fence,
                    stamp=TurnStamp("turn", "hash"),
                    graph=Append(nodes, leaf="n3"),
                    checkpoint=Checkpoint({"n": number}, execution_state=b"\0\xff" * 2000),
                    usage=[UsageDelta("chat", "m", 1, 2), UsageDelta("tool", "m", 3, 4)],
                    attachment_ids=["att"],
                )
            )
            session.tombstone_nodes(["n1"])
            session.vacuum_graph()
            session.enqueue_all_work([NewWork([number, "x"], source_key="k"), NewWork([1])])
            session.claim_work(lease.fence, owner_id="ann", ttl_ms=60_000)
            session.put_artifact("a", kind="note", content=b"z")
    registry = deployment.processes
    for name in "pq":
        registry.register_process(ProcessRegistration(name, External({}), Provenance(Host())))
    registry.claim_next(owner_id="ann", ttl_ms=60_000)
    for at in range(3):
        deployment.triggers.register_subscription(draft(source_key=f"h{at}"))
    for at in range(3):
        deployment.effects.begin_effect("scope", f"k{at}", {"at": at})


def contents(folder: Path) -> dict[str, Any]:
    """Every row of every file."""
    found: dict[str, Any] = {}
    for file in sorted(folder.rglob("*.db")):
        with closing(sqlite3.connect(file)) as connection:
            names = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
            )
            found[str(file.relative_to(folder))] = {
                name: connection.execute(f'SELECT * FROM "{name}" ORDER BY 1, 2').fetchall()
                if name not in ("blobs", "sqlite_sequence", "trigger_subscription_seq")
                else connection.execute(f'SELECT * FROM "{name}" ORDER BY 1').fetchall()
                for (name,) in names.fetchall()
            }
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Deployment.open(tmp_path / "one") as deployment:
        fill(deployment, SESSIONS)
    return tmp_path / "one"


def test_k_share_7_into_a_database_and_back(folder: Path, tmp_path: Path) -> None:
    url, back = f"sqlite:///{tmp_path}/all.db", tmp_path / "two"
    before = contents(folder)
    there = copy_deployment(folder, url)
    assert [unit.was_there for unit in there] == [False] * (SESSIONS + 3)
    returned = copy_deployment(url, back)
    assert {(unit.kind, unit.session_id, unit.rows) for unit in returned} == {
        (unit.kind, unit.session_id, unit.rows) for unit in there
    }
    after = contents(back)
    assert after == before
    assert contents(folder) == before
    with Deployment.open(url) as deployment:  # and it goes on there
        assert len(deployment.sessions.list(limit=1_000)) == SESSIONS
        session = deployment.sessions.open("chat 7/ü")
        assert session is not None
        path = session.load_path()
        assert path is not None
        head = session.load_head()
        assert head is not None
        assert head.leaf_node_id == "n3"
        session.enqueue_work(NewWork(["more"]))
        assert [batch.enqueue_seq for batch in session.list_work()] == [1, 2, 3]
        fresh = deployment.triggers.register_subscription(draft(source_key="h9"))
        assert fresh.subscription_id == "subscription:4"  # no number is used again


def test_k_share_7_what_is_there_already_is_passed_over_or_refused(
    folder: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/all.db"
    copied = copy_deployment(folder, url)
    assert all(unit.was_there for unit in copy_deployment(folder, url))
    run_script(
        tmp_path / "all.db",
        "UPDATE lash_session_head SET head_revision = 7 WHERE store LIKE 'chat 3/%'",
    )
    before = all_rows(tmp_path / "all.db")
    with pytest.raises(CopyError, match=r"session 'chat 3/.*other rows already"):
        copy_deployment(folder, url)
    assert all_rows(tmp_path / "all.db") == before
    assert len(copied) == SESSIONS + 3
    two = tmp_path / "two"
    SessionStore.open(tmp_path / "x.db", session_id="s").close()
    with Deployment.open(two) as deployment, deployment.sessions.create("chat 3/ü", model="other"):
        pass
    theirs = two / "sessions" / file_name("chat 3/ü")
    before = all_rows(theirs)
    with pytest.raises(CopyError):
        copy_deployment(url, two)
    assert all_rows(theirs) == before


def test_k_share_7_one_kind_alone_goes_into_a_folder_that_is_not_there(tmp_path: Path) -> None:
    url, folder = f"sqlite:///{tmp_path}/all.db", tmp_path / "deep" / "folder"
    with ProcessRegistry.open(url) as registry:
        registry.register_process(ProcessRegistration("p", External({}), Provenance(Host())))
    assert [unit.kind for unit in copy_deployment(url, folder)] == ["process"]
    with ProcessRegistry.open(folder / "processes.db") as registry:
        assert registry.load_process("p") is not None
    (tmp_path / "file").touch()
    with pytest.raises(StoreOpenError, match="file"):
        copy_deployment(url, tmp_path / "file" / "below")


class Interrupts:
    """Interrupts at one statement or another."""

    def __init__(self, at: int) -> None:
        self.left = at

    def before(self, _: Event) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def after(self, _: Event) -> None:
        pass


@pytest.mark.parametrize("seed", range(4))
def test_k_share_7_interrupted_at_random_and_resumed(
    folder: Path, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    url, back = f"sqlite:///{tmp_path}/all.db", tmp_path / "two"
    for source, target in ((folder, url), (url, back)):
        seen: list[Copied] = []
        interrupted = 0
        while True:
            try:
                with observed_by(Interrupts(chance.randrange(200, 1_500))):
                    copy_deployment(source, target, progress=seen.append)
                break
            except KeyboardInterrupt:
                interrupted += 1
                assert interrupted < 500
            if interrupted > 5:
                copy_deployment(source, target)
                break
        assert interrupted
    assert contents(back) == contents(folder)


def test_k_share_7_by_command_and_without_a_source(folder: Path, tmp_path: Path) -> None:
    run, url = CliRunner(), f"sqlite:///{tmp_path}/all.db"
    result = run.invoke(app, ["copy", str(folder), url])
    assert result.exit_code == 0
    assert f"{SESSIONS + 3} copied" in result.output
    again = run.invoke(app, ["copy", str(folder), url])
    assert again.output.count("was there") == SESSIONS + 3
    for missing in (tmp_path / "none", f"sqlite:///{tmp_path}/none.db"):
        with pytest.raises(StoreOpenError, match="to copy"):
            copy_deployment(missing, url)
        assert run.invoke(app, ["copy", str(missing), url]).exit_code == 1
    assert not (tmp_path / "none").exists()
    assert not (tmp_path / "none.db").exists()


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Schema]]:
    """Another release: two kinds have one more column and a higher version, and know the ones before."""
    made = {}
    for kind in ("process", "session"):
        before = SCHEMAS[kind]
        metadata = MetaData()
        tables = [ordered_indexes(table.to_metadata(metadata)) for table in before.tables]
        tables[0].append_column(Column("added", Text, nullable=False, server_default="new"))
        for table, old in zip(tables, before.tables, strict=True):
            table.info.clear()
            for index in before.indexes_of(old):
                Index(index.name, *(table.c[each.name] for each in index.columns))
        schema = Schema(before.kind, before.version + 1, metadata, tuple(tables), before.is_scoped)
        made[kind] = replace(schema, before=before)
        monkeypatch.setitem(SCHEMAS, before.kind, made[kind])
    for opener, tx, kind in (
        (ProcessRegistry, ProcessTx, "process"),
        (SessionStore, SessionTx, "session"),
    ):
        monkeypatch.setattr(tx, "schema", made[kind])
        monkeypatch.setattr(sys.modules[opener.__module__], "SCHEMA", made[kind], raising=False)
    yield made
    declared[:] = [each for each in declared if each.version == 1 or each.kind not in made]
    declared[:0] = [made["session"].before, made["process"].before]  # type: ignore[list-item] # reason: they have one


@pytest.mark.parametrize("layout", ["folder", "database"])
def test_k_share_10_the_release_before_is_copied(
    folder: Path, tmp_path: Path, request: pytest.FixtureRequest, layout: str
) -> None:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    copy_deployment(folder, url)
    source = folder if layout == "folder" else url
    request.getfixturevalue("newer")
    with pytest.raises(SchemaVersionError):
        ProcessRegistry.open(url)
    run_script(tmp_path / "app.db", "CREATE TABLE theirs (x); INSERT INTO theirs VALUES (7)")
    before = all_rows(tmp_path / "app.db")
    there: Any = {"prefix": "two_", "source_prefix": "lash_", "adopt": layout == "folder"}
    units = copy_deployment(source, url, **there)
    assert len(units) == SESSIONS + 3
    rows = all_rows(tmp_path / "app.db")
    left_alone = set(before) - {"schema", "sqlite_sequence"}
    assert {name: rows[name] for name in left_alone} == {name: before[name] for name in left_alone}
    assert [row[-1] for row in rows["two_processes"]] == ["new", "new"]
    assert sorted(row[:-1] for row in rows["two_processes"]) == sorted(before["processes"])
    assert sorted(row[1:-1] for row in rows["two_blobs"]) == sorted(before["blobs"])
    versions: dict[Any, Any] = dict(rows["two_versions"])
    assert (versions["process"], versions["session"]) == (8, 5)
    again = copy_deployment(source, url, **there)
    assert all(unit.was_there for unit in again)
    with ProcessRegistry.open(url, prefix="two_") as registry:
        assert registry.load_process("p") is not None


def test_k_share_10_no_other_release_is_read(
    folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    copy_deployment(folder, url)
    run_script(tmp_path / "app.db", "UPDATE lash_versions SET version = 6 WHERE kind = 'process'")
    request.getfixturevalue("newer")
    with pytest.raises(SchemaVersionError):
        copy_deployment(url, tmp_path / "elsewhere")


def test_k_share_7_a_source_that_holds_nothing_of_ours_is_an_error(tmp_path: Path) -> None:
    """A folder that is no deployment, another program's database, a prefix that nobody has used."""
    empty, other, used = tmp_path / "empty", tmp_path / "other.db", tmp_path / "used.db"
    empty.mkdir()
    run_script(other, "CREATE TABLE theirs (a)")
    other_url = f"sqlite:///{other}"
    Deployment.open(f"sqlite:///{used}").close()
    target = tmp_path / "target"
    with pytest.raises(StoreOpenError, match="no store in it: nothing was copied"):
        copy_deployment(empty, target)
    with pytest.raises(StoreOpenError, match="another program's tables"):
        copy_deployment(other_url, target)
    with pytest.raises(StoreOpenError, match="'typo_'"):
        copy_deployment(f"sqlite:///{used}", target, source_prefix="typo_")
    assert not target.exists()
    with pytest.raises(StoreOpenError, match="no folder with stores in it"):
        copy_deployment(other, target)
    for _ in range(2):  # there is nothing that could have been there
        nothing = copy_deployment(f"sqlite:///{used}", target)
        assert [(each.rows, each.was_there) for each in nothing] == [(0, False)] * 3
    sessions = f"sqlite:///{tmp_path / 'sessions.db'}"
    SessionStore.open(sessions, session_id="nobody").close()
    assert copy_deployment(sessions, tmp_path / "further") == []  # it is ours, and holds nothing
    result = CliRunner().invoke(app, ["copy", str(empty), str(target)])
    assert result.exit_code == 1


class _Odd:
    """What says that it is a path."""

    def __init__(self, name: object) -> None:
        self.name = name

    def __fspath__(self) -> Any:
        return self.name


@pytest.mark.parametrize(
    "bad",
    ["", "a\0b", "\ud800", "n" * 300, "sqlite:///\ud800.db", _Odd(b"x"), _Odd(7)],
    ids=["empty", "NUL", "surrogate", "long", "URL", "bytes", "int"],
)
def test_k_open_4_what_can_lead_nowhere_is_refused(folder: Path, tmp_path: Path, bad: Any) -> None:
    before = sorted(tmp_path.iterdir())
    for call in (
        lambda: copy_deployment(bad, tmp_path / "target"),
        lambda: copy_deployment(folder, bad),
        lambda: Deployment.open(bad),
        lambda: SessionDirectory(bad).list(),
        lambda: SessionStore.open(bad, session_id="s"),
    ):
        with pytest.raises(StoreOpenError):
            call()
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.layouts("folders of its own")
def test_k_share_7_files_that_would_be_taken_for_others_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    sessions = folder / "sessions"
    name = file_name("chat 3/ü")
    backup = sessions / f"backup-of-{name}"
    backup.write_bytes((sessions / name).read_bytes())
    with pytest.raises(StoreOpenError, match=f"'chat 3/ü', as '{name}' does") as refusal:
        copy_deployment(folder, tmp_path / "target")
    assert refusal.value.path == str(backup)
    backup.unlink()
    (folder / "triggers.db").rename(tmp_path / "triggers.db")
    (folder / "triggers.db").symlink_to(tmp_path / "nowhere.db")
    with pytest.raises(StoreOpenError, match=r"nowhere\.db"):
        copy_deployment(folder, tmp_path / "target")
    (folder / "triggers.db").unlink()
    (tmp_path / "triggers.db").rename(folder / "triggers.db")
    assert len(copy_deployment(folder, tmp_path / "target")) == SESSIONS + 3


@pytest.mark.layouts("a database and folders of its own")
def test_k_share_7_a_session_that_only_waits_for_work_moves_on_from_its_folder(
    tmp_path: Path,
) -> None:
    first, folder, last = f"sqlite:///{tmp_path}/a.db", tmp_path / "folder", tmp_path / "last"
    with SessionStore.open(first, session_id="chat") as store:
        store.enqueue_work(NewWork(["hello?"]))
    copy_deployment(first, folder)
    with Deployment.open(folder) as deployment:
        # One that is open, and of which nothing was written yet, is no session.
        SessionStore.open(deployment.sessions.path_of("empty"), session_id="empty").close()
    copied = copy_deployment(folder, last)
    assert [(unit.session_id, unit.rows) for unit in copied if unit.kind == "session"] == [
        ("chat", 2)
    ]
    with (
        Deployment.open(last) as deployment,
        SessionStore.open(deployment.sessions.path_of("chat"), session_id="chat") as store,
    ):
        assert [batch.items[0].payload for batch in store.list_work()] == ["hello?"]


@pytest.mark.layouts("a database and folders of its own")
@pytest.mark.parametrize("by_url", [False, True])
def test_k_share_7_a_session_that_is_deleted_meanwhile_is_passed_over(
    tmp_path: Path, by_url: bool
) -> None:
    source = f"sqlite:///{tmp_path}/a.db" if by_url else str(tmp_path / "a")
    with Deployment.open(source) as deployment:
        for name in ("s0", "s1", "s2"):
            deployment.sessions.create(name, model="m").close()

    def delete_one(_: Copied) -> None:
        with Deployment.open(source) as deployment:
            deployment.sessions.delete("s2")
            deployment.sessions.delete("s1")

    units = copy_deployment(source, tmp_path / "b", progress=delete_one)
    copied = [unit.session_id for unit in units if unit.kind == "session"]
    assert len(copied) == 1
    assert {unit.kind for unit in units} == {"session", "process", "trigger", "effect"}
    with Deployment.open(tmp_path / "b") as deployment:
        listed = [each.meta for each in deployment.sessions.list()]
        assert [meta and meta.session_id for meta in listed] == copied


@pytest.mark.layouts("a database and folders of its own")
@pytest.mark.parametrize("by_url", [False, True])
def test_k_share_7_a_session_that_is_deleted_as_it_is_opened_is_passed_over(
    tmp_path: Path, by_url: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"sqlite:///{tmp_path}/a.db" if by_url else str(tmp_path / "a")
    with Deployment.open(source) as deployment:
        for name in ("s0", "s1", "s2"):
            deployment.sessions.create(name, model="m").close()
    readable = units._readable_session

    def deleted_first(where: Any, session_id: str, reading: OpenOptions) -> Any:
        if session_id == "s1":
            with Deployment.open(source) as deployment:
                deployment.sessions.delete("s1")
        return readable(where, session_id, reading)

    monkeypatch.setattr(units, "_readable_session", deleted_first)
    copied = copy_deployment(source, tmp_path / "b")
    assert [each.session_id for each in copied if each.kind == "session"] == ["s0", "s2"]
    with Deployment.open(tmp_path / "b") as deployment:
        listed = [each.meta for each in deployment.sessions.list()]
        assert [meta and meta.session_id for meta in listed] == ["s0", "s2"]


@pytest.mark.layouts("a database and a folder of its own")
def test_k_share_7_what_no_row_names_is_not_made_a_file(tmp_path: Path) -> None:
    """Nobody could tell whose it is: neither a later copy nor who looks into the folder."""
    source, folder = f"sqlite:///{tmp_path}/a.db", tmp_path / "folder"
    with SessionStore.open(source, session_id="budget") as store:
        store.record_usage(UsageDelta("agent", "m", 1))
        with pytest.raises(CopyError, match=r"'budget'.*save its meta"):
            copy_deployment(source, folder)
        assert not list(folder.rglob("*.db"))
        assert len(copy_deployment(source, f"sqlite:///{tmp_path}/b.db")) == 1
        store.save_meta(SessionMeta("budget", "", "", "", None, Relation()))
    copy_deployment(source, folder)
    assert len(copy_deployment(folder, tmp_path / "again")) == 1


@pytest.mark.layouts("a folder of its own")
@pytest.mark.parametrize("name", ["", "b\0c"])
def test_k_share_7_a_file_whose_session_is_no_name_is_named(tmp_path: Path, name: str) -> None:
    with Deployment.open(tmp_path / "a") as deployment:
        deployment.sessions.create("chat", model="m").close()
        file = deployment.sessions.path_of("chat")
    with closing(sqlite3.connect(file)) as raw, raw:
        raw.execute("UPDATE session_meta SET session_id = ?", [name])
    with pytest.raises(CorruptRecordError, match=file.name):
        copy_deployment(tmp_path / "a", tmp_path / "b")


@pytest.mark.layouts("two databases of its own")
def test_k_share_7_what_is_there_is_passed_over_without_its_lock(tmp_path: Path) -> None:
    """The target may be in use: what is only compared stops nobody's writes."""
    source, target = f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"
    with Deployment.open(source) as deployment:
        deployment.sessions.create("chat", model="m").close()
    copy_deployment(source, target)
    with closing(sqlite3.connect(tmp_path / "b.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert [unit.was_there for unit in copy_deployment(source, target)][:1] == [True]


@pytest.mark.layouts("a folder and a database of its own")
def test_k_share_7_two_copies_at_once_are_both_told_that_it_is_there(tmp_path: Path) -> None:
    with Deployment.open(tmp_path / "a") as deployment:
        for at in range(10):
            deployment.sessions.create(f"s{at}", model="m").close()
    copied: list[Any] = []

    def copy() -> None:
        copied.append(
            outcome(lambda: copy_deployment(tmp_path / "a", f"sqlite:///{tmp_path}/b.db"))
        )

    join(*started(copy, copy))
    assert [len(each) for each in copied] == [13, 13]


@pytest.mark.layouts("a database of its own")
@pytest.mark.parametrize("within", ["sessions", "sessions/deeper", "link"])
def test_k_share_7_nothing_is_copied_in_among_the_sessions(
    folder: Path, tmp_path: Path, within: str
) -> None:
    (folder / "link").symlink_to(folder / "sessions")
    before = sorted(folder.rglob("*"))
    with pytest.raises(StoreOpenError, match="where the sessions of"):
        copy_deployment(folder, folder / within)
    assert sorted(folder.rglob("*")) == before
    assert len(copy_deployment(folder, folder / "copy")) == SESSIONS + 3


@pytest.mark.layouts("a database of its own")
def test_k_share_7_no_database_is_made_among_the_sessions_nor_copied_out_of_there(
    folder: Path, tmp_path: Path
) -> None:
    """It would be taken for one: neither side could list its sessions any more."""
    inside = f"sqlite:///{folder}/sessions/backup.db"
    before = sorted(folder.rglob("*"))
    with pytest.raises(StoreOpenError, match="where the sessions of"):
        copy_deployment(folder, inside)
    assert sorted(folder.rglob("*")) == before
    there = tmp_path / "there"
    (there / "sessions").mkdir(parents=True)
    copy_deployment(folder, f"sqlite:///{there}/sessions/all.db")
    before = sorted(there.rglob("*"))
    with pytest.raises(StoreOpenError, match="where the sessions of"):
        copy_deployment(f"sqlite:///{there}/sessions/all.db", there)
    assert sorted(there.rglob("*")) == before
    assert len(copy_deployment(folder, f"sqlite:///{folder}/beside.db")) == SESSIONS + 3


@pytest.mark.layouts("a database of its own")
def test_k_open_14_a_ring_of_links_leads_nowhere(folder: Path, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(StoreOpenError, match="there is no folder to copy"):
        copy_deployment(loop, tmp_path / "new")
    with pytest.raises(StoreOpenError, match="Too many levels"):
        copy_deployment(folder, loop)
    assert not (tmp_path / "new").exists()


@pytest.mark.layouts("a database of its own")
@pytest.mark.parametrize("value", ["'text'", "''", "1.5", "7"])
@pytest.mark.parametrize("target", ["folder", "database"])
def test_k_codec_2_what_is_no_blob_is_told_by_copy(
    folder: Path, tmp_path: Path, value: str, target: str
) -> None:
    """A driver would say what a bytes-like object is, and SQLite's checks say nothing."""
    with Deployment.open(folder) as deployment:
        store = deployment.sessions.create("broken", model="m")
        (key,) = [store.put_blob(b"what it was")]
        path = Path(store.path)
    run_script(path, f"UPDATE blobs SET content = {value} WHERE hash = '{key}'")
    there = tmp_path / "there"
    where = there if target == "folder" else f"sqlite:///{tmp_path}/there.db"
    with pytest.raises(CorruptRecordError, match="no BLOB") as refusal:
        copy_deployment(folder, where)
    assert (refusal.value.table, refusal.value.key) == ("blobs", key)
    if target == "folder":
        assert all_rows(there / "sessions" / file_name("broken"))["blobs"] == []


def test_k_share_7_beside_itself_in_a_database_that_is_not_in_wal(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    with Deployment.open(url) as deployment:
        deployment.sessions.create("s", model="m").close()
    run_script(tmp_path / "a.db", "PRAGMA journal_mode = DELETE")
    assert len(copy_deployment(url, url, prefix="new_", source_prefix="lash_")) == 4


@pytest.mark.layouts("a folder of its own")
@pytest.mark.parametrize("target", ["sqlite://", "sqlite:///:memory:"])
def test_k_share_7_nothing_is_copied_into_memory(tmp_path: Path, target: str) -> None:
    with Deployment.open(tmp_path / "a") as deployment:
        deployment.sessions.create("s", model="m").close()
    with pytest.raises(StoreOpenError, match="in memory"):
        copy_deployment(tmp_path / "a", target)


@pytest.mark.parametrize("place", ["folder", "sqlite:///{}/app.db"])
@pytest.mark.parametrize("broken", ["emptied", "overwritten"])
def test_k_share_7_a_damaged_source_is_not_copied(tmp_path: Path, place: str, broken: str) -> None:
    """Through an index that has lost its entries both digests would agree that there is nothing."""
    source = place.format(tmp_path) if ":" in place else tmp_path / place
    with Deployment.open(source) as deployment:
        with deployment.sessions.create("chat", model="m") as store:
            store.enqueue_work(NewWork(["precious"]))
            path = Path(store.path)
    prefix = "lash_" if ":" in place else ""
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA journal_mode=DELETE")
        (size,) = raw.execute("PRAGMA page_size").fetchone()
        (page,) = raw.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = ?",
            [f"sqlite_autoindex_{prefix}queued_work_items_1"],
        ).fetchone()
    empty = b"\x0a\0\0\0\0" + size.to_bytes(2, "big") + bytes(size - 7)
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(empty if broken == "emptied" else b"\xff" * size)
    with pytest.raises(StorageError) as error:
        copy_deployment(source, tmp_path / "copy")
    assert error.value.path == str(path)
    assert not list((tmp_path / "copy").glob("sessions/*.db"))


def test_k_codec_2_rows_of_nobody_are_said_to_be_corrupt(tmp_path: Path) -> None:
    source = f"sqlite:///{tmp_path}/app.db"
    with Deployment.open(source) as deployment:
        deployment.sessions.create("chat", model="m").close()
        with closing(sqlite3.connect(tmp_path / "app.db")) as raw, raw:
            raw.execute("UPDATE lash_session_meta SET store = x'ff41'")
        for call in (deployment.sessions.list, lambda: copy_deployment(source, tmp_path / "copy")):
            with pytest.raises(CorruptRecordError):
                call()


@pytest.mark.parametrize("target", ["folder", "sqlite:///{}/copy.db"])
def test_k_share_7_text_of_the_source_that_is_no_utf_8_is_told_of_it(
    folder: Path, tmp_path: Path, target: str
) -> None:
    """The source's file is named and not the target's, and what the text is stays unsaid."""
    path = next(iter(sorted(folder.glob("sessions/*.db"))))
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("INSERT INTO blobs VALUES ('secret' || cast(x'ff' AS text), x'00')")
    there = target.format(tmp_path) if ":" in target else tmp_path / target
    with pytest.raises(StorageError, match="'hash' is no UTF-8") as error:
        copy_deployment(folder, there)
    assert error.value.path == str(path)
    assert "secret" not in str(error.value)
