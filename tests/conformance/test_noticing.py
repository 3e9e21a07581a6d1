"""K-WAIT-3: commits of other processes, told by the system or seen by looking."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lash_store import ProcessRegistry
from lash_store._backends.sqlite import noticing
from lash_store._backends.sqlite.noticing import Notices
from lash_store._kernel import watching
from lash_store._kernel.threads import TIMER
from lash_store._kernel.watching import Waiter as Listener, Watch
from tests.support.processes import Says, workers
from tests.support.registries import register

pytestmark = pytest.mark.canonical("opens files of its own")

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
NEVER_S = 3_600.0
LONG_MS = 20_000


def counting() -> tuple[list[int], Callable[[], None]]:
    told: list[int] = []
    return told, lambda: told.append(1)


def until(true: Callable[[], object], timeout_s: float = 20.0) -> None:
    ends_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < ends_s
        time.sleep(0.001)


@pytest.fixture
def notices() -> Notices:
    return Notices()


@on_linux
def test_k_wait_3_the_system_tells_of_writes(notices: Notices, tmp_path: Path) -> None:
    one, two = tmp_path / "one é", tmp_path / "two"
    for each in (one, two):
        each.write_bytes(b"x")
    (told, tell), (also, tell_also), (other, tell_other) = counting(), counting(), counting()
    number = notices.watch(str(one), tell)
    assert number is not None
    assert notices.watch(str(one), tell_also) == notices.watch(str(one), tell) == number
    assert notices.watch(str(two), tell_other) not in (None, number)
    one.write_bytes(b"y")
    until(lambda: told and also)
    assert other == []
    notices.forget(number, tell_also)
    notices.forget(number, tell_also)
    before, so_far = len(also), len(told)
    one.write_bytes(b"z")
    until(lambda: len(told) > so_far)
    assert len(also) == before
    notices.forget(number, tell)
    notices.forget(number, tell)
    so_far = len(told)
    one.write_bytes(b"y")
    two.write_bytes(b"y")
    until(lambda: other)
    assert len(told) == so_far


@on_linux
def test_k_wait_3_a_file_that_is_not_there_is_not_watched(notices: Notices, tmp_path: Path) -> None:
    assert notices.watch(str(tmp_path / "none"), lambda: None) is None


@on_linux
def test_k_wait_3_who_fails_keeps_nobody_else_from_being_told(
    notices: Notices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_value))
    path = tmp_path / "a"
    path.write_bytes(b"x")
    told, tell = counting()

    def fail() -> None:
        raise RuntimeError("told")

    notices.watch(str(path), fail)
    number = notices.watch(str(path), tell)
    assert number is not None
    path.write_bytes(b"y")
    until(lambda: told and reported)
    notices.forget(number, fail)
    so_far = len(told)
    path.write_bytes(b"z")
    until(lambda: len(told) > so_far)


@on_linux
def test_k_wait_3_events_that_were_lost_tell_everybody(
    notices: Notices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noticing, "_watched", lambda events: {-1})
    paths = [tmp_path / "a", tmp_path / "b"]
    told = [counting() for _ in paths]
    for path, (_, tell) in zip(paths, told, strict=True):
        path.write_bytes(b"x")
        notices.watch(str(path), tell)
    paths[0].write_bytes(b"y")
    until(lambda: all(each for each, _ in told))


def append_on_demand(say: Says, path: Path) -> None:
    with ProcessRegistry.open(path) as registry:
        say("ready")
        while say.wait() == "append":
            registry.append_event("p", "tick")
            say("appended")


def woken_by_another_process(path: Path, times: int = 5) -> None:
    with ProcessRegistry.open(path) as registry:
        register(registry)
        with workers(1, append_on_demand, path) as (writer,):
            assert writer.receive() == "ready"
            for at in range(times):
                writer.pipe.send("append")
                event = registry.wait_event_after("p", "tick", at, timeout_ms=LONG_MS)
                assert event is not None, f"nobody has told of event {at + 1}"
                assert writer.receive() == "appended"


@on_linux
def test_k_wait_3_a_commit_elsewhere_is_told_without_looking(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("POLL_S", "_RARELY_S"):
        monkeypatch.setattr(watching, name, NEVER_S)
    woken_by_another_process(path)


@pytest.mark.parametrize("how", ["no library", "no descriptor", "no watch", "no thread"])
def test_k_wait_3_without_being_told_it_looks(
    path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    class Refusing:
        """A system that has none left."""

        def inotify_init1(self, _: int) -> int:
            return -1 if how == "no descriptor" else os.open(path.parent, os.O_RDONLY)

        def inotify_add_watch(self, *_: object) -> int:
            return -1

    monkeypatch.setattr(noticing, "NOTICES", Notices())
    monkeypatch.setattr(noticing, "_libc", None if how == "no library" else Refusing())
    if how in ("no thread", "no watch"):
        monkeypatch.setattr(noticing, "start_thread", lambda *_: how == "no watch")
    woken_by_another_process(path)


class Silent:
    """A system that says that it will tell, and never does."""

    watched = 0

    def watch(self, told: Callable[[], None]) -> int:
        self.watched += 1
        return 7

    def forget(self, number: int, told: Callable[[], None]) -> None:
        assert number == 7
        self.watched = -1_000


def test_k_wait_3_who_does_not_tell_is_relied_on_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_RARELY_S", 0.002)
    version, silent = 0, Silent()
    watch = Watch(lambda: ("reader", version), teller=silent)
    told, tell = counting()
    with watch.subscribed(Listener(tell)):
        for changes in range(1, 4):
            assert silent.watched > 0
            version = changes
            until(lambda changes=changes: len(told) == changes)  # type: ignore[misc] # reason: bound per turn
        until(lambda: silent.watched < 0)
        version = 4
        until(lambda: len(told) == 4)
        assert silent.watched == -1_000


def test_k_wait_3_while_others_commit_it_looks_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    intervals: list[float] = []
    monkeypatch.setattr(TIMER, "after", lambda seconds, _: intervals.append(seconds))
    now_s, version = 1_000.0, 0
    monkeypatch.setattr(watching, "monotonic", lambda: now_s)
    watch = Watch(lambda: ("reader", version))
    with watch.subscribed(Listener(lambda: None)):
        assert intervals == [watching.POLL_S]
        for version, after_s, expected in (  # noqa: B007 # reason: the watch reads it
            (1, 0.0, watching.SOON_S),
            (1, 0.999, watching.SOON_S),
            (1, 1.001, watching.POLL_S),
            (2, 1.001, watching.SOON_S),
        ):
            now_s = 1_000.0 + after_s
            watch._poll()
            assert intervals[-1] == expected


@on_linux
@pytest.mark.posix
def test_k_wait_3_a_forked_child_is_told_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    told, tell = counting()
    notices = noticing.NOTICES
    number = notices.watch(str(path), tell)
    assert number is not None
    child = os.fork()
    if child == 0:  # pragma: no cover # reason: in the child
        mine, tell_mine = counting()
        status = 1
        try:
            has_none = notices._descriptor is None
            notices.watch(str(path), tell_mine)
            path.write_bytes(b"y")
            until(lambda: mine)
            status = 0 if has_none and not told else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    until(lambda: told)
    notices.forget(number, tell)


@on_linux
@pytest.mark.parametrize("patched", [True, False])
def test_k_wait_3_greenlets_in_the_place_of_threads_look_by_interval(
    notices: Notices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patched: bool
) -> None:
    """As gevent has it: a greenlet that waits for the system keeps the whole program waiting."""
    gevent = SimpleNamespace(is_module_patched=lambda name: patched and name == "threading")
    monkeypatch.setitem(sys.modules, "gevent.monkey", gevent)
    (tmp_path / "one").write_bytes(b"x")
    assert (notices.watch(str(tmp_path / "one"), lambda: None) is None) == patched
