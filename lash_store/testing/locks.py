"""A state machine that tries to break a lease or a lock, yours or this library's.

::

    class RedisLocks:                                    # ten lines
        def __init__(self, clock): ...
        def client(self, actor): return RedisLockClient(...)

    TestRedisLocks = lock_machine(RedisLocks).TestCase   # for pytest
    lock_machine(RedisLocks).run()                       # or at once

Hypothesis lets several actors acquire, renew, release, write and crash, and moves the clock to just
before, at and just after the end of a term. Judged is what an implementation does: a release that
says nothing is fine, and one that frees somebody else's lock is not, whatever it says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, get_args

from hypothesis import settings as hypothesis_settings

from lash_store._kernel.checks import check_choice, check_count, check_kind, shown
from lash_store.errors import InvalidRecordError
from lash_store.testing.clock import ManualClock
from lash_store.testing.lock_machine import LockMachine
from lash_store.testing.lock_model import Edge, Reentry
from lash_store.testing.machine import check_texts


class LockClient(Protocol):
    """One actor's access to the lock, with a connection and a memory of its own.

    It may have more, and is then tested for that: ``renew(ttl_ms)`` moves the end to so long from
    now. ``fence()`` gives the number of its term. ``write(value)`` writes what only a holder may
    write, and ``Locks.value()`` reads it. ``forged(change)`` gives a client that pretends to have
    this one's term, but for one of ``FORGERIES``; or None where it has no such thing.
    """

    def acquire(self, ttl_ms: int) -> object:
        """Take the lock for so long; a false value, or a refusal raised, says no."""
        ...

    def release(self) -> object:
        """Give back what this client has acquired."""
        ...


class Locks(Protocol):
    """One lock; made with a ManualClock as its only argument.

    It may have more: ``holder()`` names who holds it now, or None; ``value()`` as above;
    ``reopen()`` forgets what is not durable; ``close()``.
    """

    def client(self, actor: str) -> LockClient:
        """Connect an actor; again after it has crashed, with nothing remembered."""
        ...


def lock_machine(
    make: Callable[[ManualClock], Any],
    *,
    edge: Edge = "free",
    reentry: Reentry = "refuse",
    ttls: Sequence[int] = (1, 2, 5, 10),
    tick_ms: int = 1,
    actors: Sequence[str] = ("ann", "Ann", "bob"),
    refusals: tuple[type[BaseException], ...] = (Exception,),
    tolerate: Iterable[str] = (),
    settings: hypothesis_settings | None = None,
) -> type[LockMachine]:
    """Make a machine that tries to break the locks that `make` makes.

    Say what the implementation promises: what holds at the very end of a term (`edge`), what its
    holder gets that acquires again (`reentry`), what it raises to refuse (`refusals`). Times are
    multiples of `tick_ms` milliseconds, terms one of `ttls` of them. `tolerate` names violations
    that are known; `settings` are Hypothesis's. ``machine.TestCase`` is for pytest, ``machine.run()``
    looks at once, ``machine.replay(script)`` plays a finding again.
    """
    check_choice("edge", edge, get_args(Edge))
    check_choice("reentry", reentry, get_args(Reentry))
    actors = check_texts("actors", actors)
    if len(set(actors)) < 2:  # noqa: PLR2004 # reason: one alone can't take it from another
        raise InvalidRecordError("actors", shown(actors), "must be at least two")
    check_kind("ttls", ttls, Sequence)
    for option, values in (("tick_ms", (tick_ms,)), ("ttls", ttls)):
        for value in values:
            if not check_count(option, value):
                raise InvalidRecordError(option, "0", "must be at least 1: no time would pass")
    return LockMachine.of(
        make,
        tolerate=tolerate,
        refusals=refusals,
        settings=settings,
        edge=edge,
        reentry=reentry,
        ttls=tuple(ttls),
        tick_ms=tick_ms,
        actors=actors,
    )
