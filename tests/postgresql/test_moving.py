"""A deployment, copied from a folder to a server and back; and the command line by URL."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url
from typer.testing import CliRunner

from lash_store import Deployment, NewWork, ProcessRegistry, SessionStore
from lash_store._kernel.observing import observed_by
from lash_store.cli.app import app
from lash_store.errors import ConnectionLostError, CopyError, StorageError, StoreOpenError
from lash_store.moving import Copied, copy_deployment, copying
from lash_store.schemas import KINDS, check_file, mend_file
from tests.shared.test_moving import Interrupts, contents, fill
from tests.support.databases import all_rows
from tests.support.postgresql import placed
from tests.support.registries import register
from tests.support.triggers import draft

SESSIONS = 6
Admin = psycopg.Connection[Any]


@pytest.fixture
def there(url: str, place: str) -> str:
    """The URL of a schema of its own, as a command line takes it."""
    return placed(url, place)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Deployment.open(tmp_path / "one") as deployment:
        fill(deployment, SESSIONS)
    return tmp_path / "one"


def test_k_share_7_from_a_folder_to_a_server_and_back(
    folder: Path, tmp_path: Path, there: str
) -> None:
    before = contents(folder)
    units = copy_deployment(folder, there)
    assert [unit.was_there for unit in units] == [False] * (SESSIONS + 3)
    assert all(unit.was_there for unit in copy_deployment(folder, there))
    assert copy_deployment(there, tmp_path / "two")
    assert contents(tmp_path / "two") == before
    database = f"sqlite:///{tmp_path}/all.db"
    copy_deployment(there, database)
    copy_deployment(database, tmp_path / "three")
    assert contents(tmp_path / "three") == before
    with Deployment.open(there) as deployment:  # and it goes on there
        assert len(deployment.sessions.list(limit=1_000)) == SESSIONS
        session = deployment.sessions.open("chat 3/ü")
        assert session is not None
        session.enqueue_work(NewWork(["more"]))
        assert [batch.enqueue_seq for batch in session.list_work()] == [1, 2, 3]
        fresh = deployment.triggers.register_subscription(draft(source_key="h9"))
        assert fresh.subscription_id == "subscription:4"  # no number is used again


def test_k_share_7_under_another_prefix_of_the_same_schema(folder: Path, there: str) -> None:
    copy_deployment(folder, there)
    units = copy_deployment(there, there, prefix="two_", source_prefix="lash_")
    assert [unit.was_there for unit in units] == [False] * (SESSIONS + 3)
    assert check_file(there).prefixes == ("lash_", "two_")


def test_k_share_7_other_rows_on_the_server_are_refused(
    folder: Path, there: str, admin: Admin, place: str
) -> None:
    copy_deployment(folder, there)
    admin.execute(f"UPDATE {place}.lash_session_head SET head_revision = 7 WHERE store LIKE '%3%'")
    before = rows_of(admin, place)
    with pytest.raises(CopyError, match=r"session 'chat 3/.*other rows already"):
        copy_deployment(folder, there)
    assert rows_of(admin, place) == before


@pytest.mark.parametrize("seed", range(2))
def test_k_share_7_to_a_server_interrupted_at_random_and_resumed(
    folder: Path, tmp_path: Path, there: str, seed: int
) -> None:
    chance = random.Random(seed)
    for source, target in ((folder, there), (there, tmp_path / "two")):
        interrupted = 0
        while interrupted < 4:
            seen: list[Copied] = []
            try:
                with observed_by(Interrupts(chance.randrange(100, 700))):
                    copy_deployment(source, target, progress=seen.append)
            except KeyboardInterrupt:
                interrupted += 1
            else:
                break
        assert interrupted
        copy_deployment(source, target)
    assert contents(tmp_path / "two") == contents(folder)


def test_k_pg_2_a_connection_that_is_lost_in_the_midst_of_a_copy_is_told_as_that(
    folder: Path, tmp_path: Path, there: str, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the database that it was lost to, and not as a value that the other one can't hold."""
    copy_deployment(folder, there)
    digest, calls = copying._digest, iter(range(1_000))

    def lost_at_the_fourth(*given: Any) -> Any:
        if next(calls) == 3:
            admin.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        return digest(*given)

    monkeypatch.setattr(copying, "_digest", lost_at_the_fourth)
    with pytest.raises(ConnectionLostError) as lost:
        copy_deployment(there, tmp_path / "two")
    assert "postgresql" in lost.value.path
    monkeypatch.undo()
    copy_deployment(there, tmp_path / "two")
    assert contents(tmp_path / "two") == contents(folder)


def test_k_share_7_rows_that_a_policy_hides_are_an_error(
    url: str, place: str, there: str, tmp_path: Path, admin: Admin
) -> None:
    """Both digests would go through the same policy, and agree on what it shows."""
    with Deployment.open(there) as deployment:
        with deployment.sessions.create("chat", model="m") as session:
            session.enqueue_work(NewWork(["precious"]))
    role = f"reader_{place}"
    admin.execute(f"CREATE ROLE {role} LOGIN")
    try:
        admin.execute(
            f"GRANT USAGE ON SCHEMA {place} TO {role}; "
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {place} TO {role}"
        )
        theirs = make_url(there).set(username=role).render_as_string(hide_password=False)
        assert copy_deployment(theirs, f"sqlite:///{tmp_path}/whole.db")
        admin.execute(f"ALTER TABLE {place}.lash_queued_work_items ENABLE ROW LEVEL SECURITY")
        with pytest.raises(StorageError, match="row-level security"):
            copy_deployment(theirs, f"sqlite:///{tmp_path}/part.db")
    finally:
        admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_what_a_server_can_not_hold_is_refused_and_nothing_of_the_unit_is_copied(
    tmp_path: Path, there: str, admin: Admin, place: str
) -> None:
    with Deployment.open(tmp_path / "one") as deployment:
        with deployment.sessions.create("good", model="m"):
            pass
        with deployment.sessions.create("later", model="m") as session:
            session.enqueue_work(NewWork(["x"]))
            with session.begin() as tx:  # what another program has written, long ago
                tx.connection.exec_driver_sql(
                    "UPDATE queued_work_batches SET source_key = 'a' || char(0)"
                )
    with pytest.raises(CopyError, match=r"session 'later'.*NUL"):
        copy_deployment(tmp_path / "one", there)
    stores = admin.execute(f"SELECT store FROM {place}.lash_session_head").fetchall()
    assert ("later",) not in stores
    assert admin.execute(f"SELECT count(*) FROM {place}.lash_queued_work_batches").fetchone() == (
        0,
    )


def test_a_session_whose_name_a_server_can_not_hold_is_named(tmp_path: Path, there: str) -> None:
    source = f"sqlite:///{tmp_path}/app.db"
    with Deployment.open(source) as deployment:
        deployment.sessions.create("b", model="m").close()
    with closing(sqlite3.connect(tmp_path / "app.db")) as raw, raw:
        raw.execute("UPDATE lash_session_meta SET store = 'x' || char(0)")
        raw.execute("UPDATE lash_session_head SET store = 'x' || char(0)")
    before = all_rows(tmp_path / "app.db")
    with pytest.raises(CopyError, match=r"session 'x\\x00'.*NUL"):
        copy_deployment(source, there)
    assert all_rows(tmp_path / "app.db") == before
    with Deployment.open(there) as deployment:
        assert deployment.sessions.list() == []


def test_k_share_7_a_server_without_tables_is_no_source(tmp_path: Path, there: str) -> None:
    with pytest.raises(StoreOpenError, match="no tables of ours"):
        copy_deployment(there, tmp_path / "one")
    assert not (tmp_path / "one").exists()


def rows_of(admin: Admin, place: str) -> dict[str, list[Any]]:
    names = admin.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", (place,)
    ).fetchall()
    return {
        name: sorted(admin.execute(f"SELECT * FROM {place}.{name}").fetchall(), key=repr)
        for (name,) in names
    }


# The command line.


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result.exit_code, result.output


def test_every_command_takes_a_url(folder: Path, tmp_path: Path, there: str) -> None:
    code, text = run("check", there)
    assert (code, "no tables of any store" in text) == (1, True)
    code, text = run("init", "trigger", there)
    assert (code, "trigger, version" in text) == (0, True)
    assert run("check", there)[0] == 0
    code, text = run("adopt", there)
    assert (code, ", ".join(KINDS) in text) == (0, True)
    code, text = run("copy", str(folder), there)
    assert (code, f"{SESSIONS + 3} copied" in text) == (0, True)
    code, text = run("check", there, "--mend")
    assert (code, "shared  ok" in text) == (0, True)
    assert run("copy", there, str(tmp_path / "two"))[0] == 0


def test_check_finds_what_is_wrong_and_names_what_is_beside(
    folder: Path, there: str, admin: Admin, place: str
) -> None:
    copy_deployment(folder, there)
    admin.execute(f"CREATE INDEX theirs ON {place}.lash_processes (created_at_ms)")
    admin.execute(
        f"CREATE FUNCTION {place}.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
    )
    admin.execute(
        f"CREATE TRIGGER theirs BEFORE INSERT ON {place}.lash_processes FOR EACH ROW"
        f" EXECUTE FUNCTION {place}.f()"
    )
    report = check_file(there)
    assert report.is_sound
    assert [each.partition("theirs")[0] for each in report.extras] == [
        "table lash_processes: index ",
        "table lash_processes: trigger ",
    ]
    admin.execute(
        f"UPDATE {place}.lash_session_head SET head_json = jsonb_set(head_json::jsonb,"
        " '{graph_node_count}', '9')::text WHERE store LIKE '%2%'"
    )
    code, text = run("check", there)
    assert (code, "graph_node_count is 9" in text) == (1, True)
    mend_file(there)
    assert check_file(there).is_sound
    admin.execute(f"ALTER TABLE {place}.lash_processes DROP COLUMN created_at_ms CASCADE")
    code, text = run("check", there)
    assert (code, "lacks column created_at_ms" in text) == (1, True)


def test_a_server_that_is_not_there_is_named_without_its_password(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = "postgresql+psycopg://me:secret@127.0.0.1:1/none"
    for arguments in (
        ("init", "session", nowhere),
        ("adopt", nowhere),
        ("copy", str(folder), nowhere),
        ("copy", nowhere, str(folder)),
        ("check", nowhere),
    ):
        code, text = run(*arguments)
        assert code == 1
        assert "secret" not in text, arguments
    with pytest.raises(StoreOpenError):
        check_file(nowhere)


def test_a_copy_holds_the_units_of_one_session_alone(there: str, tmp_path: Path) -> None:
    """A deployment that nobody has used has no session to copy, though its tables are there."""
    Deployment.open(there).close()
    assert [unit.session_id for unit in copy_deployment(there, tmp_path / "x")] == [None] * 3
    with SessionStore.open(there, session_id="s") as store:
        store.enqueue_work(NewWork(["x"]))
    units = copy_deployment(there, tmp_path / "y")
    assert [unit.session_id for unit in units] == ["s", None, None, None]


def test_k_share_7_a_database_that_spells_texts_otherwise_is_copied(
    there: str, tmp_path: Path
) -> None:
    """SQLite sorts those in UTF-16 by their bytes: the rows are the same, and their order is none of them."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("PRAGMA encoding = 'UTF-16le'")
        made.execute("CREATE TABLE own (x)")
    names = ["a", "\u0101", "z", "\U0001f600", "\uffee"]
    url = f"sqlite:///{path}"
    with ProcessRegistry.open(url, adopt=True) as registry:
        for name in names:
            register(registry, name)
    copy_deployment(url, there)
    with ProcessRegistry.open(there) as registry:
        assert registry.known_processes(names) == set(names)


def test_k_share_7_a_table_on_a_server_is_read_page_by_page(
    folder: Path, there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_PAGE", 1)
    copy_deployment(folder, there)
    sizes: list[int] = []
    fetchmany = psycopg.ServerCursor.fetchmany

    def fetches(cursor: Any, size: int = 0) -> Any:
        rows = fetchmany(cursor, size)
        sizes.append(len(rows))
        return rows

    monkeypatch.setattr(psycopg.ServerCursor, "fetchmany", fetches)
    copy_deployment(there, tmp_path / "back")
    assert set(sizes) == {0, 1}
    assert contents(tmp_path / "back") == contents(folder)
