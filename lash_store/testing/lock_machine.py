"""What a lock machine plays, and the model that it judges by; ``locks`` says what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, ClassVar, Literal

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from lash_store._kernel.checks import check_has, check_kind
from lash_store.testing.machine import Machine
from lash_store.testing.violations import WHY, Outcome

Edge = Literal["free", "held", "either"]
"""What holds at the very millisecond at which a term ends."""

Reentry = Literal["refuse", "same", "new"]
"""What the holder gets that acquires again: a refusal, its term prolonged, or a new term."""

USES = ("acquire", "renew", "release", "write", "wait")
"""What a holder does."""

FORGERIES = ("token", "owner", "lower number", "higher number")


class LockMachine(Machine):
    """Nobody holds a lock while somebody else does."""

    violations: ClassVar[Mapping[str, str]] = {
        "two-holders": "it was given to somebody while somebody else holds it",
        "foreign-release": "somebody's release has freed another's",
        "lost-hold": "who was refused to take it again has lost what they hold",
        "stale-renewal": "who does not hold it has renewed it",
        "forged": "a wrong token or number was taken for the right one",
        "refused-free": "it was refused while nobody holds it",
        "release-refused": "its holder could not give it back",
        "renewal-refused": "its holder could not renew it",
        "reentry": "its holder, acquiring again, got something else than is promised",
        "number": "a term's number is not higher than all before",
        "stale-write": "who does not hold it has written under it",
        "write-lost": "what its holder has written is not there",
        "holder": "`holder()` says what is not so",
    }

    needs = ("client",)
    edge: ClassVar[Edge] = "free"
    reentry: ClassVar[Reentry] = "refuse"
    ttls: ClassVar[tuple[int, ...]] = (1, 2, 5, 10)
    tick_ms: ClassVar[int] = 1
    actors: ClassVar[tuple[str, ...]] = ("ann", "Ann", "bob")

    def __init__(self) -> None:
        super().__init__()
        self.was_held = False  # before that, nothing can come of what only a holder may do
        self.holder: str | None = None
        """Who holds the lock, or held it last and has not given it back."""

        self.ends_ms = 0
        self.remembers = False
        """Whether the holder knows that it is: it has not crashed since."""

        self.is_unsure = False
        """Whether a holder that has crashed may have given it back under its name."""

        self.highest = 0
        self.number: int | None = None
        self.suspect: str | None = None
        """What may have freed the lock that somebody holds, if somebody else gets it."""

        self.writes = 0

    def start(self) -> None:
        """Let each actor have its client."""
        self.clients: dict[str, Any] = {actor: self._client(actor) for actor in self.actors}

    # What Hypothesis chooses.

    @rule(data=st.data(), ttl=st.integers(0, 9))
    def acquire(self, data: st.DataObject, ttl: int) -> None:
        """Somebody tries to take it, and to use it."""
        actor = self._any(data)
        self.do("acquire", actor, self._ttl(ttl))
        if data.draw(st.booleans()):
            self.do("write", actor)

    @precondition(attrgetter("was_held"))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Somebody gives it back, who may not have it any more."""
        self.do("release", self._any(data))

    @precondition(attrgetter("was_held"))
    @rule(data=st.data(), ttl=st.integers(0, 9))
    def renew(self, data: st.DataObject, ttl: int) -> None:
        """Somebody prolongs it, who may not have it any more."""
        self.do("renew", self._any(data), self._ttl(ttl))

    @rule(data=st.data(), ttl=st.integers(0, 9))
    def work(self, data: st.DataObject, ttl: int) -> None:
        """Whoever can get it takes it, and writes."""
        if not self._is_live():
            self.do("acquire", self._any(data), self._ttl(ttl))
        if self.holder is not None:
            self.do("write", self.holder)

    @initialize(data=st.data(), among_ten=st.integers(0, 9), step=st.sampled_from((0, 1)))
    def begin(self, data: st.DataObject, among_ten: int, step: int) -> None:
        """Six runs of ten begin with a takeover: Hypothesis gives many a run no time to come to one.

        Not more: of a lock that has no terms nothing else would be seen.
        """
        if among_ten >= 10 - 6:
            self.do("acquire", self.actors[0], self._ttl(among_ten))
            self.do("write", self.actors[0])
            if self.holder is not None:
                self._pass_on(data, self.holder, step, among_ten)

    @precondition(attrgetter("was_held"))
    @rule(data=st.data(), what=st.sampled_from(("write", "crash")))
    def act(self, data: st.DataObject, what: str) -> None:
        """Somebody writes, who may not have it any more; or loses its memory, and comes back."""
        self.do(what, self._any(data))

    @rule(data=st.data(), step=st.sampled_from((0, 1)), ttl=st.integers(0, 9))
    def take_over(self, data: st.DataObject, step: int, ttl: int) -> None:
        """A term ends, and somebody else takes it; the one before comes back."""
        if not self._is_live():
            self.do("acquire", self._any(data), self._ttl(ttl))
        before = self.holder
        if before is None:
            return
        self._pass_on(data, before, step, ttl)
        late = data.draw(st.sampled_from(("write", "release", "renew", "nothing")))
        if late == "renew":
            self.do("renew", before, self._ttl(ttl))
        elif late != "nothing":
            self.do(late, before)

    @rule(data=st.data(), step=st.sampled_from((0, 1)), ttl=st.integers(0, 9))
    def hold(self, data: st.DataObject, step: int, ttl: int) -> None:
        """Whoever has it goes on with it, until another comes."""
        if self.holder is None or not self._is_live():
            self.do("acquire", self._any(data), self._ttl(ttl))
        holder = self.holder
        if holder is None:
            return
        for what in data.draw(st.lists(st.sampled_from(USES), min_size=1, max_size=3)):
            more = {"acquire": (self._ttl(ttl),), "renew": (self._ttl(ttl),)}.get(what, ())
            self.do(*(("wait", self.tick_ms) if what == "wait" else (what, holder, *more)))
        if self.holder is None:  # it has given it back: there is to be a next
            self.do("acquire", holder, self._ttl(ttl))
        self._pass_on(data, holder, step, ttl)

    @rule(data=st.data(), step=st.sampled_from((-1, 0, 1)))
    def end(self, data: st.DataObject, step: int) -> None:
        """Move to just before, at or just after the end of a term."""
        before, then = self.holder, data.draw(st.sampled_from(("nothing", "renew", "pass on")))
        if before is None or then == "nothing":
            self.do("end", step)
        else:
            self._pass_on(data, before, step, 0, renews=then == "renew")

    @rule(data=st.data(), ticks=st.integers(1, 12))
    def wait(self, data: st.DataObject, ticks: int) -> None:
        """Let time pass."""
        if not self._is_live() and data.draw(st.booleans()):
            self.do("acquire", self._any(data), self._ttl(ticks))
        self.do("wait", ticks * self.tick_ms)

    @precondition(attrgetter("was_held"))
    @rule()
    def reopen(self) -> None:
        """Everything that is not durable is lost."""
        self.do("reopen")

    @precondition(attrgetter("was_held"))
    @rule(change=st.sampled_from(FORGERIES))
    def forge(self, change: str) -> None:
        """Somebody pretends to hold the term that is live."""
        self.do("forge", change)

    # What the steps are.

    def do_acquire(self, actor: str, ttl_ms: int) -> None:
        """Acquire: refused while another holds it, granted when it is free."""
        state, before = self._state(), self.holder
        got = self.call(actor, "acquire", self.clients[actor].acquire, ttl_ms)
        if state != "free" and before == actor:
            self._reentered(actor, got, ttl_ms, state)
        elif state == "held" and got.granted:
            name = self._blamed("two-holders")
            self.violates(name, f"{actor!r} was given a lock that {before!r} holds: {WHY[name]}")
            self._begins(actor, ttl_ms)
        elif got.granted:
            if before is not None and before != actor:
                self.note("takeover")
            self._begins(actor, ttl_ms)
        elif state == "free":
            self.violates("refused-free", f"{actor!r} was refused a lock that nobody holds")
        elif before != actor:
            self.is_unsure = False  # it is still held

    def do_release(self, actor: str) -> None:
        """Release: ends the actor's own term, and nobody else's."""
        state, is_own = self._state(), self._owns(actor)
        gave = self.call(actor, "release", self.clients[actor].release)
        if not is_own or state == "free":
            if self._is_live() and actor == self.holder:
                self.is_unsure = True  # its name may be proof enough
            elif self._is_live() and not gave.refused:
                self.suspect = "foreign-release"
            return
        if gave.error is None:
            self.holder, self.is_unsure = None, False
        elif state == "held":
            name = self._blamed("release-refused")
            self.violates(name, f"{actor!r} could not give back what it holds: {WHY[name]}")
            self.is_unsure = True  # it may have ended, or may not have

    def do_renew(self, actor: str, ttl_ms: int) -> None:
        """Renew: moves the end of the actor's own live term."""
        if not self.has(self.clients[actor], "renew"):
            return
        state, is_own = self._state(), self._owns(actor)
        got = self.call(actor, "renew", self.clients[actor].renew, ttl_ms)
        if is_own and state == "held":
            if got.refused:
                name = self._blamed("renewal-refused")
                self.violates(name, f"{actor!r} could not renew what it holds: {WHY[name]}")
                return
            self.ends_ms = self.clock.now_ms() + ttl_ms
            if self.number is not None:
                before, self.number = self.number, self.resolve(self.clients[actor].fence())
                self.highest = max(self.highest, self.number)
                if self.number < before:
                    self.violates("number", f"{actor!r} has a lower number behind its renewal")
        elif (
            not got.refused and actor == self.holder and state != "free"
        ):  # its name is proof, or it is the end
            self.is_unsure = not got.granted  # None says neither
            self.ends_ms = max(self.clock.now_ms() + ttl_ms, self.ends_ms * self.is_unsure)
        elif got.granted:
            self.violates("stale-renewal", f"{actor!r} renewed what it does not hold")
            if actor == self.holder:  # if that is to be so: it has it again
                self.ends_ms = self.clock.now_ms() + ttl_ms
        elif self._is_live() and not got.refused:
            self.suspect = "stale-renewal"

    def do_write(self, actor: str) -> None:
        """Write: lands under the live term alone."""
        client = self.clients[actor]
        if not self.has(client, "write"):
            return
        self.writes += 1
        value = f"write-{self.writes}"
        state, is_own = self._state(), self._owns(actor)
        self.call(actor, "write", client.write, value)
        landed = self.resolve(self.it.value()) == value
        if landed and (actor != self.holder or state == "free"):
            self.violates("stale-write", f"{actor!r} wrote without holding the lock")
        if not landed and is_own and state == "held":
            name = self._blamed("write-lost")
            self.violates(name, f"{actor!r} holds it, and its write is not there: {WHY[name]}")
        if landed:
            self.note("a write that succeeded")

    def do_forge(self, change: str) -> None:
        """Act with what differs from the live term in one value: nothing may come of it."""
        actor = self.holder
        if actor is None or not self._owns(actor) or self._state() != "held":
            return
        client = self.clients[actor]
        if not self.has(client, "forged"):
            return
        forged = self.resolve(client.forged(change))
        if forged is None:
            return
        for what, arguments in (("write", ("forged",)), ("renew", (99,)), ("release", ())):
            if self.has(forged, what):
                got = self.call(f"{actor}?", what, getattr(forged, what), *arguments)
                if got.granted:
                    self.violates("forged", f"a wrong {change} was taken for {actor!r}'s")
        if self.has(self.it, "value") and self.resolve(self.it.value()) == "forged":
            self.violates("forged", f"a wrong {change} was taken for {actor!r}'s")
        if not self.has(client, "renew"):
            self.suspect = "forged"  # what it has done is seen later
            return
        kept = self.call(actor, "renew", client.renew, self.ends_ms - self.clock.now_ms())
        if kept.refused:
            self.violates("forged", f"a wrong {change} has ended {actor!r}'s term")

    def do_crash(self, actor: str) -> None:
        """Lose an actor's memory."""
        self.call(actor, "crash", lambda: None)
        self.clients[actor] = self._client(actor)
        self.remembers = self.remembers and actor != self.holder

    def do_end(self, step: int) -> None:
        """Move to just before, at or just after the end of the term."""
        if self.holder is not None and self._state() != "free":
            self.do_wait(max(0, self.ends_ms + step * self.tick_ms - self.clock.now_ms()))

    def do_wait(self, by_ms: int) -> None:
        """Let time pass."""
        self.clock.advance(by_ms)

    def look(self) -> None:
        """Compare who is said to hold it."""
        if self.has(self.it, "holder"):
            said, state = self.resolve(self.it.holder()), self._state()
            expected = self.holder if state == "held" else None
            if said != expected and state != "edge":
                name = self._blamed("holder")
                self.saw("holder", said)
                self.violates(name, f"{said!r} is said to hold it, and {expected!r} does")

    # The model.

    def _begins(self, actor: str, ttl_ms: int) -> None:
        client = self.clients[actor]
        if self.has(client, "fence"):
            number = self.resolve(client.fence())
            check_kind("fence()", number, int)
            if number <= self.highest:
                self.violates("number", f"term {number} comes after term {self.highest}")
            self.number, self.highest = number, max(self.highest, number)
        self.was_held = True
        self.holder, self.remembers, self.suspect, self.is_unsure = actor, True, None, False
        self.ends_ms = self.clock.now_ms() + ttl_ms

    def _reentered(self, actor: str, got: Outcome, ttl_ms: int, state: str) -> None:
        if self.reentry == "refuse":
            if got.granted and state == "held":
                name = self._blamed("reentry")
                self.violates(name, f"{actor!r} was given a second time what it holds")
            if got.granted:
                self._begins(actor, ttl_ms)
            else:
                self.suspect = "lost-hold"
            return
        if not got.granted:
            if state == "held" and self.remembers:  # else it has nothing to show for it
                self.violates("reentry", f"{actor!r} was refused what it may enter again")
            return
        client = self.clients[actor]
        is_new = self.has(client, "fence") and self.resolve(client.fence()) != self.number
        if self.reentry == "new" or (is_new and state != "held"):
            self._begins(actor, ttl_ms)
            return
        if is_new:
            self.violates("number", f"{actor!r} entered its term again, under another number")
        self.remembers, self.ends_ms = True, self.clock.now_ms() + ttl_ms
        self.is_unsure = False

    def _blamed(self, name: str) -> str:
        """Return what is to blame: what may have led to it, which is a guess, unless that is tolerated anyway."""
        return name if name in self.tolerate else self.suspect or name

    def _state(self) -> Literal["held", "free", "edge"]:
        """Say whether somebody holds it now; at the very end of a term that may be open."""
        left_ms = self.ends_ms - self.clock.now_ms()
        if self.holder is None or left_ms < 0:
            return "free"
        if left_ms == 0 and self.edge == "free":
            return "free"
        is_open = self.is_unsure or (left_ms == 0 and self.edge == "either")
        return "edge" if is_open else "held"

    def _is_live(self) -> bool:
        return self._state() == "held"

    def _owns(self, actor: str) -> bool:
        return actor == self.holder and self.remembers

    def _client(self, actor: str) -> Any:
        client = self.resolve(self.it.client(actor))
        for method in ("acquire", "release"):
            check_has(f"client({actor!r})", client, method)
        if self.has(client, "write"):
            check_has("make(clock)", self.it, "value")
        return client

    def _pass_on(
        self, data: st.DataObject, before: str, step: int, ttl: int, *, renews: bool = False
    ) -> None:
        """Move to the end of a term, and let another try to take it, and to use it."""
        actor = data.draw(st.sampled_from([each for each in self.actors if each != before]))
        self.do("end", step)
        if renews:
            self.do("renew", before, self._ttl(ttl))
        self.do("acquire", actor, self._ttl(ttl))
        self.do("write", actor)

    def _any(self, data: st.DataObject) -> str:
        return str(data.draw(st.sampled_from(self.actors)))

    def _ttl(self, at: int) -> int:
        return self.ttls[at % len(self.ttls)] * self.tick_ms
