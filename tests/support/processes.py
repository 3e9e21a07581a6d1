"""Real processes for tests: forked, with a pipe for what they have to say."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from tests.support.layouts import use_layout

_SPAWN = multiprocessing.get_context("spawn")


class Worker:
    """One process and the test's end of its pipe."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self.process = process
        self.pipe = pipe

    def receive(self, timeout_s: float = 60.0) -> Any:
        """Return the next thing that the process says; its exceptions fail the test."""
        assert self.pipe.poll(timeout_s), "the process said nothing"
        kind, value = self.pipe.recv()
        assert kind == "said", value
        return value

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        kill(self.process)
        self.process.join()
        assert self.process.exitcode == -signal.SIGKILL


class Says:
    """The process's end: ``say(value)`` sends it to the test, ``wait()`` hears from it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def __call__(self, value: Any) -> None:
        self._pipe.send(("said", value))

    def wait(self) -> Any:
        """Wait until the test sends something."""
        return self._pipe.recv()


def _run(target: Callable[..., None], pipe: Connection, arguments: tuple[Any, ...]) -> None:
    use_layout()
    try:
        target(Says(pipe), *arguments)
    except BaseException:  # noqa: BLE001 # reason: the test shows it
        pipe.send(("failed", traceback.format_exc()))


def kill(process: Any) -> None:
    """Kill a process; where there is no SIGKILL, as Windows does."""
    (process.kill if hasattr(signal, "SIGKILL") else process.terminate)()


@contextmanager
def workers(count: int, target: Callable[..., None], *arguments: Any) -> Iterator[list[Worker]]:
    """Run `target(say, *arguments)` in `count` new processes; they are killed at the end."""
    started = []
    for _ in range(count):
        mine, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_run, args=(target, theirs, arguments), daemon=True)
        process.start()
        theirs.close()
        started.append(Worker(process, mine))
    try:
        yield started
    finally:
        for worker in started:
            kill(worker.process)
            worker.process.join()
            worker.pipe.close()
