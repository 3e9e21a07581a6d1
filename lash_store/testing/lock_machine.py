"""What a lock machine plays; ``locks`` says what it is given."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from lash_store._kernel.checks import check_choice
from lash_store.testing.lock_model import LockModel
from lash_store.testing.violations import WHY

USES = ("acquire", "renew", "release", "write", "wait")
"""What a holder does."""

LATE = ("write", "renew", "release")
"""What one does that comes back."""

FORGERIES = ("token", "owner", "lower number", "higher number")


class LockMachine(LockModel):
    """Nobody holds a lock while somebody else does."""

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

    @rule(
        data=st.data(),
        step=st.sampled_from((0, 1)),
        ttl=st.integers(0, 9),
        late=st.sampled_from(LATE),
    )
    def come_back(self, data: st.DataObject, step: int, ttl: int, late: str) -> None:
        """A worker is taken for dead, and its name has a new term; then it comes back, as it was."""
        if self.holder is None or not self._is_live():
            self.do("acquire", self._any(data), self._ttl(ttl))
        actor = self.holder
        if actor is None or not self.has(self.clients[actor], "fence"):
            return
        self.do("crash", actor)
        self.do("end", step)
        self.do("acquire", actor, self._ttl(ttl))
        self.do("haunt", actor, late)
        if self.holder is not None and late == "release":
            self.do("write", self.holder)
            self.do("acquire", data.draw(st.sampled_from(self.actors)), self._ttl(ttl))

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
            if self.is_kept:
                self.is_kept = False
                self.violates("release-refused", f"{before!r} could not give back what it holds")

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
        if not gave.refused:
            self.holder, self.is_unsure = None, False
        elif gave.error is None:
            self.is_kept = self.is_unsure = True  # what comes of it says whether it was
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
                before, now = self.number, self.resolve(self.clients[actor].fence())
                self._has_number(now)
                self.numbers[actor] = now
                if now < before:
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
        state, is_own = self._state(), self._owns(actor)
        value, found = self._write(actor, client)
        landed = found == value
        if landed and (actor != self.holder or state == "free"):
            self.violates("stale-write", f"{actor!r} wrote without holding the lock")
        if not landed and is_own and state == "held":
            name = self._blamed("write-lost")
            self.violates(name, f"{actor!r} holds it, and its write is not there: {WHY[name]}")
        if landed or (is_own and state == "held"):
            self.value = found
        if landed:
            self.note("a write that succeeded")

    def _write(self, who: str, client: Any) -> tuple[str, Any]:
        """Write something new; return it, and what is there behind that."""
        self.writes += 1
        value = f"write-{self.writes}"
        self.call(who, "write", client.write, value)
        return value, self.resolve(self.it.value())

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
            self.value = "forged"
        if not self.has(client, "renew"):
            self.suspect = "forged"  # what it has done is seen later
            return
        kept = self.call(actor, "renew", client.renew, self.ends_ms - self.clock.now_ms())
        if kept.refused:
            self.violates("forged", f"a wrong {change} has ended {actor!r}'s term")

    def do_crash(self, actor: str) -> None:
        """Lose an actor's memory."""
        self.call(actor, "crash", lambda: None)
        lost, self.clients[actor] = self.clients[actor], self._client(actor)
        if lost is not self.clients[actor] and actor in self.numbers:
            self.crashed[actor] = lost, self.numbers.pop(actor)
        self.remembers = self.remembers and actor != self.holder

    def do_haunt(self, actor: str, what: str) -> None:
        """Come back as one that was lost, under a name that has had a later term since: nothing may come of it."""
        check_choice("what of haunt", what, LATE)
        client, number = self.crashed.get(actor, (None, 0))
        if client is None or self.number is None or number >= self.number:
            return
        if not self.has(client, what):
            return
        if what == "release":
            gave = self.call(f"{actor}!", what, client.release)
            if self._is_live() and not gave.refused:
                self.suspect = "foreign-release"
        elif what == "renew":
            got = self.call(f"{actor}!", what, client.renew, 99 * self.tick_ms)
            if got.granted:
                text = f"{actor!r}, as it was before term {self.number}, renewed that"
                self.violates("stale-renewal", text)
            elif self._is_live() and not got.refused:
                self.suspect = "stale-renewal"
        else:
            value, found = self._write(f"{actor}!", client)
            if found == value:
                self.value = value
                text = f"{actor!r}, as it was before term {self.number}, wrote under that"
                self.violates("stale-write", text)

    def do_end(self, step: int) -> None:
        """Move to just before, at or just after the end of the term."""
        if self.holder is not None and self._state() != "free":
            self.do_wait(max(0, self.ends_ms + step * self.tick_ms - self.clock.now_ms()))

    def do_wait(self, by_ms: int) -> None:
        """Let time pass."""
        self.clock.advance(by_ms)

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
