"""A state machine that tries to break a lease implementation: this library's, or yours.

::

    class RedisLeases:                       # five methods, see LeaseImplementation
        def __init__(self, clock): ...

    TestRedisLeases = lease_machine(RedisLeases)

pytest runs the result as a test case. Hypothesis interleaves claims, renewals, releases,
crashes and fenced writes of several owners, fresh and stale, and moves the clock to just
before, at and just after the end of a term. After each step the machine compares what the
implementation shows with a model that is a few lines of plain Python.
"""

import unittest
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from lash_store.testing.clock import ManualClock

OWNERS = ("ann", "bob", "eve")


class Term(NamedTuple):
    """Proof of one term of ownership, as an implementation hands it to the holder."""

    owner_id: str
    token: str
    fencing_token: int


class Observed(NamedTuple):
    """Everything that an implementation stores about its lease and its fenced register."""

    owner_id: str | None
    """Who holds the lease now; None while it is free or has expired."""

    fencing_token: int
    """The number of the last term, live or not; 0 before the first."""

    expires_at_ms: int | None
    """The end of the live term; None without one."""

    value: str | None
    """What the last write that landed has written."""


class LeaseImplementation(Protocol):
    """One lease and one register that only its holder may write.

    Made with a :class:`ManualClock` as its only argument; times are milliseconds. A method
    that refuses must change nothing. ``claim`` by the live owner may re-enter the term or
    begin a new one. An implementation may also have ``reopen()``, which forgets everything
    that is not durable, and ``close()``; both are called if they are there.
    """

    def claim(self, owner_id: str, ttl_ms: int) -> Term | None:
        """Take the lease; None while another owner is live."""
        ...

    def renew(self, term: Term, ttl_ms: int) -> bool:
        """Move the end of the live term to `ttl_ms` from now; False for any other term."""
        ...

    def release(self, term: Term) -> bool:
        """End this very term, live or expired; False if it is not the current one."""
        ...

    def write(self, term: Term, value: str) -> bool:
        """Write the register if the term is live; False otherwise."""
        ...

    def observe(self) -> Observed:
        """Show what is stored, at the clock's time."""
        ...


def lease_machine(
    implementation: Callable[[ManualClock], LeaseImplementation],
    *,
    profile: settings | None = None,
) -> type[unittest.TestCase]:
    """Make a test case that tries to break the leases that `implementation` makes.

    `implementation` is called with a :class:`ManualClock` for each run. `profile` overrides
    Hypothesis's settings, such as ``max_examples``.
    """
    machine = _machine(implementation)
    case: type[unittest.TestCase] = machine.TestCase
    case.settings = profile or settings(  # type: ignore[attr-defined] # reason: Hypothesis reads it there
        deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    case.__doc__ = f"{implementation!r} keeps the lease protocol."
    return case


def check_leases(
    implementation: Callable[[ManualClock], LeaseImplementation],
    *,
    profile: settings | None = None,
) -> None:
    """Run the machine at once; raises the first broken promise as an AssertionError."""
    case = lease_machine(implementation, profile=profile)
    case("runTest").debug()


def _machine(implementation: Callable[[ManualClock], LeaseImplementation]) -> Any:
    class Machine(LeaseMachine):
        make = staticmethod(implementation)

    Machine.__name__ = Machine.__qualname__ = getattr(implementation, "__name__", "Leases")
    return Machine


@dataclass
class LeaseModel:
    """What a lease is, in as little as can be: the oracle of the machine."""

    term: Term | None = None
    expires_at_ms: int = 0
    highest: int = 0
    value: str | None = None

    def is_live(self, now_ms: int) -> bool:
        """Somebody holds it; at the very end of the term nobody does."""
        return self.term is not None and now_ms < self.expires_at_ms

    def holds(self, term: Term, now_ms: int) -> bool:
        """This very term is live."""
        return term == self.term and self.is_live(now_ms)

    def seen(self, now_ms: int) -> Observed:
        """What an observer must see."""
        live = self.term if self.is_live(now_ms) else None
        return Observed(
            live.owner_id if live else None,
            self.highest,
            self.expires_at_ms if live else None,
            self.value,
        )


class LeaseMachine(RuleBasedStateMachine):
    """The rules; :func:`lease_machine` sets ``make``."""

    make: Callable[[ManualClock], LeaseImplementation]

    terms: Bundle[Term] = Bundle("terms")
    """Every term that was ever handed out, and forgeries of them: most are stale."""

    @initialize()
    def start(self) -> None:
        """Begin with a lease that nobody ever claimed."""
        self.clock = ManualClock()
        self.leases = type(self).make(self.clock)
        self.model = LeaseModel()
        self.tokens: set[str] = set()
        self.writes = 0

    @rule(target=terms, owner_id=st.sampled_from(OWNERS), ttl_ms=st.integers(0, 20))
    def claim(self, owner_id: str, ttl_ms: int) -> Any:
        """Claim: refused only while another owner is live; a new term has a higher number."""
        before, now_ms = self.leases.observe(), self.clock.now_ms()
        live = self.model.term if self.model.is_live(now_ms) else None
        term = self.leases.claim(owner_id, ttl_ms)
        if live is not None and live.owner_id != owner_id:
            assert term is None, f"{term} was claimed while {live} is live"
            self._nothing_changed(before)
            return multiple()
        assert term is not None, f"{owner_id} was refused a free lease; the last term was {live}"
        assert term.owner_id == owner_id, f"{owner_id} got the term of {term.owner_id}"
        if term != live:
            assert term.fencing_token > self.model.highest, f"{term} does not outrank {self.model}"
            assert term.token not in self.tokens, f"the token of {term} was used before"
        self.tokens.add(term.token)
        self.model.term, self.model.highest = term, term.fencing_token
        self.model.expires_at_ms = now_ms + ttl_ms
        return term

    @rule(term=terms, ttl_ms=st.integers(0, 20))
    def renew(self, term: Term, ttl_ms: int) -> None:
        """Renew: granted to the exact live term alone."""
        before, now_ms = self.leases.observe(), self.clock.now_ms()
        allowed = self.model.holds(term, now_ms)
        renewed = self.leases.renew(term, ttl_ms)
        assert renewed == allowed, f"renewing {term} gave {renewed} against {self.model}"
        if not allowed:
            self._nothing_changed(before)
            return
        self.model.expires_at_ms = now_ms + ttl_ms

    @rule(term=terms)
    def release(self, term: Term) -> None:
        """Release: ends the exact term alone, and keeps its number."""
        before, now_ms = self.leases.observe(), self.clock.now_ms()
        released = self.leases.release(term)
        if self.model.holds(term, now_ms):
            assert released, f"the live {term} could not be released"
            self.model.term = None
            return
        # An expired term that nobody took over may be released, once, or be gone already.
        if released:
            assert term == self.model.term, f"releasing the stale {term} ended {self.model}"
            self.model.term = None
        self._nothing_changed(before)

    @rule(term=terms)
    def write(self, term: Term) -> None:
        """Write: lands under the live term alone."""
        before = self.leases.observe()
        allowed = self.model.holds(term, self.clock.now_ms())
        self.writes += 1
        value = f"write-{self.writes}"
        written = self.leases.write(term, value)
        assert written == allowed, f"a write under {term} gave {written} against {self.model}"
        if not allowed:
            self._nothing_changed(before)
            return
        self.model.value = value

    @rule(
        target=terms,
        term=terms,
        change=st.sampled_from(["token", "fencing_token", "owner_id", "higher fencing_token"]),
    )
    def forge(self, term: Term, change: str) -> Term:
        """A stale caller's fence differs from the live one in as little as one of its values."""
        if change == "token":
            return term._replace(token=f"{term.token}-forged")
        if change == "owner_id":
            return term._replace(owner_id=OWNERS[OWNERS.index(term.owner_id) - 1])
        by = 1 if change.startswith("higher") else -1
        return term._replace(fencing_token=max(0, term.fencing_token + by))

    @precondition(lambda self: self.model.is_live(self.clock.now_ms()))
    @rule()
    def try_forgeries(self) -> None:
        """Nothing that differs from the live term in one of its values is taken for it."""
        term, before = self.model.term, self.leases.observe()
        assert term is not None
        forgeries = [
            term._replace(token=f"{term.token}-forged"),
            term._replace(owner_id=OWNERS[OWNERS.index(term.owner_id) - 1]),
            term._replace(fencing_token=term.fencing_token + 1),
            term._replace(fencing_token=max(0, term.fencing_token - 1)),
        ]
        for forged in forgeries:
            assert not self.leases.renew(forged, 99), f"{forged} renewed {term}"
            assert not self.leases.write(forged, "forged"), f"{forged} wrote under {term}"
            assert not self.leases.release(forged), f"{forged} released {term}"
            self._nothing_changed(before)

    @precondition(lambda self: self.model.is_live(self.clock.now_ms()))
    @rule(late_ms=st.sampled_from([0, 1]))
    def act_on_the_term_at_its_end(self, late_ms: int) -> None:
        """At the millisecond of its end a term is over, for its own holder too."""
        term = self.model.term
        assert term is not None
        self.clock.advance_to(self.model.expires_at_ms + late_ms)
        before = self.leases.observe()
        assert not self.leases.write(term, "late"), f"a write landed at the end of {term}"
        assert not self.leases.renew(term, 99), f"{term} was renewed at its end"
        self._nothing_changed(before)

    @precondition(lambda self: self.model.is_live(self.clock.now_ms()))
    @rule(step=st.sampled_from([-1, 0, 1]))
    def let_the_term_end(self, step: int) -> None:
        """Move to the millisecond before, at or after the end of the live term."""
        self.clock.advance_to(max(self.clock.now_ms(), self.model.expires_at_ms + step))

    @rule(by_ms=st.integers(1, 25))
    def wait(self, by_ms: int) -> None:
        """Let time pass."""
        self.clock.advance(by_ms)

    @rule()
    def crash(self) -> None:
        """Lose everything that is not durable."""
        reopen = getattr(self.leases, "reopen", None)
        if reopen is not None:
            reopen()

    @invariant()
    def what_is_seen_is_what_happened(self) -> None:
        """One holder at most, a number that only grows, and no value but a live holder's."""
        if hasattr(self, "leases"):
            seen, expected = self.leases.observe(), self.model.seen(self.clock.now_ms())
            assert seen == expected, f"{seen} is shown where {expected} happened"

    def teardown(self) -> None:
        """Close the implementation."""
        close = getattr(getattr(self, "leases", None), "close", None)
        if close is not None:
            close()

    def _nothing_changed(self, before: Observed) -> None:
        after = self.leases.observe()
        assert after == before, f"a refusal changed {before} to {after}"
