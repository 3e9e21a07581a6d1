"""What led to an error: it may be a circle, and what a signal's handler has raised is told from all else."""

from __future__ import annotations

import enum
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from sqlalchemy import Select, exists, select, text
from sqlalchemy.exc import DBAPIError

from lash_store import ProcessRegistry, SessionStore, prepare
from lash_store._kernel.signals import is_from_handler
from lash_store.errors import LashStoreError, UnpreparableStatementError
from lash_store.process.tables import processes
from lash_store.session.tables import queued_work_batches
from lash_store.session.tx import SessionTx
from tests.support.databases import all_rows
from tests.support.registries import register

NOTHING: dict[str, int] = {}


class OutOfStockError(Exception):
    """An application's."""


def its_own_cause(_: SessionTx) -> None:
    error = OutOfStockError()
    error.__cause__ = error
    raise error


def a_circle_of_two(_: SessionTx) -> None:
    try:
        try:
            NOTHING["a"]
        except KeyError as first:
            raise OutOfStockError from first
    except OutOfStockError as second:
        again: Any = second.__cause__
        again.__context__ = second
        raise again from second


def unwrapped(tx: SessionTx) -> None:
    try:
        tx.connection.execute(text("SELECT * FROM nobodys"))
    except DBAPIError as error:
        orig: Any = error.orig
        raise orig from error


@pytest.mark.parametrize("work", [its_own_cause, a_circle_of_two, unwrapped])
@pytest.mark.parametrize("how", ["transact", "repeatable", "begin", "wait_until"])
def test_k_group_3_an_error_whose_causes_are_a_circle_is_its_calls_own(
    store: SessionStore, work: Callable[[SessionTx], None], how: str
) -> None:
    """Who looks whether a signal has come in between goes along them."""
    store.put_blob(b"kept")

    def begin(given: Callable[[SessionTx], None]) -> None:
        with store.begin() as tx:
            given(tx)

    calls: dict[str, Callable[[Any], object]] = {
        "transact": store.transact,
        "repeatable": lambda given: store.transact(given, repeatable=True),
        "begin": begin,
        "wait_until": lambda given: store.wait_until(given, timeout_ms=1_000),
    }
    with pytest.raises(Exception) as raised:  # noqa: PT011 # reason: any of the three, and the driver's
        calls[how](work)
    if work is not unwrapped:
        assert isinstance(raised.value, (OutOfStockError, KeyError))
    with pytest.raises(type(raised.value)):  # as the next one of the same
        calls[how](work)
    store.put_blob(b"kept as well")


def test_k_share_2_a_refusal_in_a_condition_is_not_its_own_cause(
    registry: ProcessRegistry, path: Path
) -> None:
    """Whoever goes along an error's causes comes to an end."""
    register(registry)
    rows = all_rows(path)
    of_sessions = exists().where(queued_work_batches.c.session_id == processes.c.process_id)
    with pytest.raises(LashStoreError) as refused:
        registry.claim_next(owner_id="ann", ttl_ms=1_000, where=of_sessions)
    seen: list[BaseException] = []
    error: BaseException | None = refused.value
    while error is not None:
        assert not any(each is error for each in seen)
        seen.append(error)
        error = error.__cause__
    assert all_rows(path) == rows


@contextmanager
def handler(handle: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def out_of_time(_: int, __: FrameType | None) -> None:
    raise OutOfStockError("in the handler")


class Handler:
    def __call__(self, signum: int, frame: FrameType | None) -> None:
        out_of_time(signum, frame)


class Colour(enum.Enum):
    RED = "red"


def error_of(function: Callable[[], object]) -> Exception:
    try:
        function()
    except Exception as error:  # noqa: BLE001 # reason: whichever it is
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("handle", [out_of_time, Handler()])
def test_k_tx_10_what_a_handler_raises_is_told_from_all_else(handle: Any) -> None:
    plain = error_of(lambda: Colour("blue"))
    with handler(handle):
        assert not is_from_handler(plain)
        struck = error_of(lambda: signal.raise_signal(signal.SIGTERM))
        assert is_from_handler(struck)

        def made_of_it() -> None:
            try:
                signal.raise_signal(signal.SIGTERM)
            except OutOfStockError as error:
                raise ValueError("made of it") from error

        assert is_from_handler(error_of(made_of_it))
        told: list[bool] = []
        thread = threading.Thread(target=lambda: told.append(is_from_handler(struck)))
        thread.start()
        thread.join()
        assert told == [False]  # signals are the main thread's
    assert not is_from_handler(plain)


def test_k_tx_10_what_was_handled_before_a_call_has_not_struck_in_it() -> None:
    """It stands in the context of each error that is raised as it is handled."""
    with handler(out_of_time):
        try:
            signal.raise_signal(signal.SIGTERM)
        except OutOfStockError:
            later = error_of(lambda: Colour("blue"))
            assert later.__context__ is not None
            assert not is_from_handler(later)


def test_k_compose_2_a_builder_that_makes_a_member_of_an_enum_is_refused_in_any_thread(
    registry: ProcessRegistry,
) -> None:
    """Python's own handlers are members of enums too."""

    @prepare
    def by_colour(*, colour: str) -> Select[str]:
        return select(processes.c.process_id).where(processes.c.status == Colour(colour).value)

    with (
        pytest.raises(UnpreparableStatementError, match="is not a valid Colour"),
        registry.read() as tx,
    ):
        by_colour.all(tx.cursor, colour="red")
