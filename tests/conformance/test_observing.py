"""The observer: it is told of every driver statement, before and after, and of whose it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from lash_store import NewWork, SessionStore, SessionTx, configure
from lash_store._backends.sqlite.driver import ObservedCursor, StoreCursor
from lash_store._kernel.observing import Event, kind_of, observed_by, observers
from lash_store.errors import LeaseLostError, StorageError
from lash_store.schemas import check_file
from lash_store.session.records import SessionFence
from tests.support.databases import all_rows, database_of
from tests.support.layouts import on_server


class Recorder:
    """Notes what it is told, and fails where it is asked to."""

    def __init__(self) -> None:
        self.before_: list[Event] = []
        self.after_: list[Event] = []

    def before(self, event: Event) -> None:
        self.before_.append(event)

    def after(self, event: Event) -> None:
        self.after_.append(event)

    def seen(self) -> list[tuple[str, str]]:
        """Kind and operation of each statement that was executed."""
        return [(event.kind, event.operation) for event in self.after_]


class FailingAt(Recorder):
    """Keeps the first statement of one kind from being executed."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def before(self, event: Event) -> None:
        super().before(event)
        if event.kind == self.kind:
            raise OSError(f"at {self.kind}")


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    with observed_by(recorder):
        yield recorder
    assert observers == []


@pytest.mark.canonical("counts the statements that open a file")
def test_an_operation_is_begin_statements_and_commit(
    store: SessionStore, recorder: Recorder
) -> None:
    store.claim_lease(owner_id="ann", ttl_ms=1_000)
    assert recorder.seen() == [
        ("begin", "claim_lease"),
        ("statement", "claim_lease"),
        ("commit", "claim_lease"),
    ]
    assert recorder.before_ == recorder.after_
    assert {event.path for event in recorder.after_} == {store.path}
    assert recorder.after_[1].sql.startswith("INSERT INTO session_execution_leases")


def test_a_snapshot_a_refusal_and_savepoints_are_told_apart(
    store: SessionStore, recorder: Recorder
) -> None:
    store.load_head()
    assert [each for each in recorder.seen() if each[1] == "load_head"] == [
        ("begin", "load_head"),
        ("statement", "load_head"),
        ("rollback", "load_head"),
    ]
    recorder.after_.clear()
    with suppress(LeaseLostError):
        store.renew_lease(SessionFence("s", "ann", "none", 1), ttl_ms=1)
    # A server is told to commit with a renewal, which is all there is to it unless it is refused.
    again = ["commit", "begin"] if on_server() else []
    kinds = [kind for kind, _ in recorder.seen()]
    assert kinds == ["begin", "statement", *again, "statement", "rollback"]
    recorder.after_.clear()
    with store.begin() as tx:
        tx.enqueue_work(NewWork(["a"]))
        with tx.all_or_nothing():
            tx.connection.execute(text("SELECT 1"))
    assert {operation for _, operation in recorder.seen()} == {"begin"}
    assert [kind for kind, _ in recorder.seen()] == [
        "begin",
        "savepoint",  # an error that the consumer catches leaves nothing of the two
        "statement",  # the batch
        "statement",  # its items
        "savepoint",
        "savepoint",
        "statement",  # the consumer's own, on tx.connection
        "savepoint",
        "commit",
    ]


@pytest.mark.canonical("counts the statements that open a file")
def test_opening_looking_into_and_joining_are_observed(path: Path, recorder: Recorder) -> None:
    SessionStore.open(path, session_id="s").close()
    assert recorder.seen().count(("begin", "open")) == 1
    assert recorder.seen().count(("commit", "open")) == 1
    recorder.after_.clear()
    assert check_file(path).is_sound
    assert ("statement", "check") in recorder.seen()
    recorder.after_.clear()
    engine = configure(create_engine(f"sqlite:///{path}"))
    with engine.begin() as connection:
        SessionTx.on(connection, session_id="s").claim_lease(owner_id="ann", ttl_ms=1)
    engine.dispose()
    assert {operation for _, operation in recorder.seen()} == {"on"}
    assert ("begin", "on") in recorder.seen()


def test_what_an_observer_raises_before_a_statement_was_not_done_and_after_it_was(
    store: SessionStore, path: Path
) -> None:
    class Failing(Recorder):
        def before(self, event: Event) -> None:
            super().before(event)
            if fail_before and event.kind == "statement":
                raise OSError("before")

        def after(self, event: Event) -> None:
            super().after(event)
            if not fail_before and event.kind == "commit":
                raise OSError("after")

    before = all_rows(path)
    fail_before = True
    with observed_by(Failing()), pytest.raises(OSError, match="before"):
        store.claim_lease(owner_id="ann", ttl_ms=1)
    assert all_rows(path) == before
    with (
        observed_by(FailingAt("commit")),
        pytest.raises(OSError, match="at commit"),
    ):
        store.claim_lease(owner_id="ann", ttl_ms=1)
    assert all_rows(path) == before
    fail_before = False
    with observed_by(Failing()), pytest.raises(OSError, match="after"):
        store.claim_lease(owner_id="ann", ttl_ms=1)
    assert all_rows(path) != before
    store.claim_lease(owner_id="ann", ttl_ms=1)  # and no lock was left behind


def test_several_observers_are_told_in_turn(store: SessionStore) -> None:
    told: list[str] = []

    class Named(Recorder):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def before(self, event: Event) -> None:
            told.append(self.name)

    with observed_by(Named("one")), observed_by(Named("two")):
        store.release_lease(SessionFence("s", "ann", "none", 1))
    assert len(told) >= 6
    assert told == ["one", "two"] * (len(told) // 2)


@pytest.mark.canonical("counts the statements that open a file")
def test_nothing_is_paid_while_nobody_listens(store: SessionStore) -> None:
    """The cursors are the driver's own class but for a name, and become so again."""

    def kind() -> type[Any]:
        writer = database_of(store).connections.writer
        assert writer is not None
        return type(writer.own_cursor)

    assert kind() is StoreCursor
    assert "execute" not in vars(StoreCursor)
    with observed_by(Recorder()):
        store.claim_lease(owner_id="ann", ttl_ms=1)
        assert kind() is ObservedCursor
    store.claim_lease(owner_id="ann", ttl_ms=1)
    assert kind() is StoreCursor


def test_a_driver_error_is_not_told_as_done(store: SessionStore) -> None:
    recorder = Recorder()
    with observed_by(recorder), pytest.raises(StorageError), store.begin() as tx:
        tx.connection.execute(text("PRAGMA defer_foreign_keys = ON"))
        tx.connection.execute(text("INSERT INTO queued_work_items VALUES ('none', 0, 'i', '{}')"))
    assert [event.kind for event in recorder.before_][-2:] == ["commit", "rollback"]
    assert "commit" not in [event.kind for event in recorder.after_]


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("BEGIN IMMEDIATE /* x */", "begin"),
        ("begin", "begin"),
        ("COMMIT", "commit"),
        ("ROLLBACK", "rollback"),
        ("ROLLBACK TO SAVEPOINT a", "savepoint"),
        ("SAVEPOINT a", "savepoint"),
        ("RELEASE a", "savepoint"),
        ("SELECT 1", "statement"),
        ("", "statement"),
    ],
)
def test_the_kind_of_a_statement(sql: str, kind: str) -> None:
    assert kind_of(sql) == kind
