"""The threads of the library: few, shared by everything that is open, and made when needed.

Four pools, so that nothing short waits for something long: one runs groups of writes, one
groups of reads and asks for those who wait, one a consumer's own work, which may take its time, and
one what else may wait for a lock (opening, closing). Where all threads of one stand still, as a file is
opened that another process keeps to itself, say, it gets further ones for as long. One more thread, the timer, does what is due at
a time and never waits for anything. All are daemons: none keeps a program from ending.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from heapq import heappop, heappush
from itertools import count
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final

from lash_store._kernel.posix import in_forked_child

Job = Callable[[], object]

_here = threading.local()


def is_library_thread() -> bool:
    """Whether this thread is one of the library's, which others wait for."""
    return getattr(_here, "is_ours", False)


def asked_since_s() -> float:
    """Return since when what this thread does now was asked for, on the monotonic clock: it may have stood in line."""
    since_s: float | None = getattr(_here, "since_s", None)
    return monotonic() if since_s is None else since_s


@contextmanager
def asked_for(since_s: float) -> Iterator[None]:
    """Say so of what the block does."""
    _here.since_s = since_s
    try:
        yield
    finally:
        _here.since_s = None


def start_thread(name: str, run: Callable[[], object]) -> bool:
    """Start one more thread of the library's; tell whether there is one."""

    def run_as_ours() -> None:
        _here.is_ours = True
        run()

    try:
        threading.Thread(target=run_as_ours, name=name, daemon=True).start()
    except RuntimeError:  # the interpreter is shutting down, or has no thread left
        return False
    return True


_MOST_IN_A_LANE: Final = 2

_STANDS_STILL_S: Final = 0.05
"""How long none of a pool's threads may end a job before those that wait get a further one."""


class Pool:
    """Threads that run one job after another: at most `most` of them, and `spare` while those stand still."""

    def __init__(self, name: str, most: int, spare: int = 0) -> None:
        self.name = name
        self.most = most
        self.spare = spare
        self.renew()

    def renew(self) -> None:
        """Begin without threads: those of a parent process don't exist in its child."""
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._lock = threading.RLock()  # reentrant: the collector may come to it in its own thread
        self._threads = 0
        self._unserved = 0
        """Jobs that were handed in and not yet ended; more than threads means that one is missing."""
        self._ended = 0
        self._spares = 0
        self._is_watched = False

    @property
    def is_full(self) -> bool:
        """Whether a job that is handed in now has to wait for another's end."""
        return self._unserved >= self.most

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do."""
        return not self._unserved

    def submit(self, job: Job) -> None:
        """Run `job` on one of the threads; in this one if a program that ends starts none."""
        with self._lock:
            self._unserved += 1
            is_short = self._threads < min(self._unserved, self.most)
            if is_short:
                self._threads += 1
        if is_short and not self._start():
            with self._lock:
                self._threads -= 1
                alone = not self._threads
                self._unserved -= alone
            if alone:
                job()
                return
        self._jobs.put(job)
        if self.spare and not (is_short or self._is_watched) and self._unserved > self.most:
            self._is_watched = True
            self._look_again(self._ended)

    def _look_again(self, ended: int) -> None:
        """Have a look, in a while, whether any of the threads has ended a job since."""
        TIMER.after(_STANDS_STILL_S, lambda: self._look(ended))

    def _look(self, ended: int) -> None:
        with self._lock:
            self._is_watched = self._unserved > self._threads
            is_short = self._is_watched and self._ended == ended and self._spares < self.spare
            self._spares += is_short
            self._threads += is_short
        jobs = self._jobs
        if is_short and not start_thread(f"{self.name}-spare", lambda: self._help(jobs)):
            with self._lock:
                self._spares -= 1
                self._threads -= 1
        if self._is_watched:
            self._look_again(self._ended)

    def _help(self, jobs: SimpleQueue[Job]) -> None:
        """Run what waits, and no more."""
        with suppress(Empty):
            while True:
                self._do(jobs.get_nowait())
        with self._lock:
            self._spares -= 1
            self._threads -= 1

    def _start(self) -> bool:
        jobs = self._jobs
        return start_thread(self.name, lambda: self._run(jobs))

    def _run(self, jobs: SimpleQueue[Job]) -> None:
        while True:
            self._do(jobs.get())

    def _do(self, job: Job) -> None:
        do(job)
        # What a job leaves behind must not live until the next one comes.
        del job
        with self._lock:
            self._unserved -= 1
            self._ended += 1


class Lanes:
    """Before a pool: of jobs that may wait for the same at most two have a thread, so that others have one too."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.renew()

    def renew(self) -> None:
        """Begin with nobody in line."""
        self._lock = threading.RLock()
        self._waiting: dict[str, deque[Job]] = {}
        self._running: Counter[str] = Counter()

    def submit(self, lane: str, job: Job) -> bool:
        """Run `job` on a thread of the pool; False if it has to wait for another of its lane."""
        with self._lock:
            is_first = self._running[lane] < _MOST_IN_A_LANE
            if is_first:
                self._running[lane] += 1
            else:
                self._waiting.setdefault(lane, deque()).append(job)
        if is_first:
            self._pool.submit(lambda: self._run(lane, job))
        return is_first

    def _run(self, lane: str, job: Job) -> None:
        do(job)
        with self._lock:
            waiting = self._waiting.get(lane)
            following = waiting.popleft() if waiting else None
            if not waiting:
                self._waiting.pop(lane, None)
            if following is None:
                self._running[lane] -= 1
                if not self._running[lane]:
                    del self._running[lane]
        if following is not None:  # behind what others have asked the pool for meanwhile
            self._pool.submit(lambda: self._run(lane, following))


class Bell:
    """What one thread waits for and others ring: once rung, it wakes once, now or later.

    A lock does that in C, with a timeout. ``SimpleQueue.get(timeout=…)`` does not: woken for
    nothing it may wait on without any (CPython 3.11 to 3.13).
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake who waits, or whoever waits next."""
        # Asked first: an error that an interrupt strikes as it is passed over keeps what it has unwound.
        if self._lock.locked():
            with suppress(RuntimeError):  # another one was faster
                self._lock.release()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until it is rung, for so many seconds at most; for longer than a lock can wait it does not."""
        bounded_s = -1 if timeout_s is None else min(max(0.0, timeout_s), threading.TIMEOUT_MAX)
        self._lock.acquire(timeout=bounded_s)


class Timer:
    """One thread that runs short jobs when they are due, in order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.renew()

    def renew(self) -> None:
        """Begin without a thread, and with nothing due."""
        self._added: deque[tuple[float, int, Job]] = deque()
        self._bell = Bell()
        self._lock = threading.RLock()  # reentrant: the collector may come to it in its own thread
        self._runs = False
        self._numbers = count()

    def after(self, seconds: float, job: Job) -> None:
        """Run `job` in so many seconds; it must not wait for anything."""
        self._added.append((monotonic() + seconds, next(self._numbers), job))
        self._bell.ring()
        if self._runs:
            return
        with self._lock:
            if not self._runs:
                added, bell = self._added, self._bell
                # None where the interpreter is shutting down: nothing comes due any more.
                self._runs = start_thread(self.name, lambda: self._run(added, bell))

    def _run(self, added: deque[tuple[float, int, Job]], bell: Bell) -> None:
        due: list[tuple[float, int, Job]] = []
        while True:
            while added:
                heappush(due, added.popleft())
            wait_s = due[0][0] - monotonic() if due else None
            if wait_s is None or wait_s > 0:
                bell.wait(wait_s)
                continue
            job = heappop(due)[2]
            do(job)
            del job


def do(job: Job) -> None:
    """Do a job, and report an error that it has not seen to: the thread has others to do."""
    try:
        job()
    except BaseException as error:  # noqa: BLE001 # reason: a thread less would keep everybody waiting
        report(error)


def report(error: BaseException) -> None:
    """Report an error that nobody can be told of otherwise, as one that ends a thread is."""
    threading.excepthook(
        threading.ExceptHookArgs(
            (type(error), error, error.__traceback__, threading.current_thread())
        )
    )


WRITES: Final = Pool("lash-store-write", 3, spare=13)
READS: Final = Pool("lash-store-read", 3, spare=13)
WORKS: Final = Pool("lash-store-work", 6)
CHORES: Final = Pool("lash-store-chore", 6, spare=26)
TIMER: Final = Timer("lash-store-timer")
OPENINGS: Final = Lanes(CHORES)
"""What opens a database, by its path."""


@in_forked_child
def _renew_all() -> None:
    for each in (WRITES, READS, WORKS, CHORES, TIMER, OPENINGS):
        each.renew()
