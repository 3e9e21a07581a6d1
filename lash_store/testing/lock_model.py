"""The model that a lock machine judges by, and what it can see from outside after each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from lash_store._kernel.checks import check_has, check_kind
from lash_store.testing.machine import Machine
from lash_store.testing.violations import Outcome

Edge = Literal["free", "held", "either"]
"""What holds at the very millisecond at which a term ends."""

Reentry = Literal["refuse", "same", "new"]
"""What the holder gets that acquires again: a refusal, its term prolonged, or a new term."""


class LockModel(Machine):
    """Who holds a lock, as far as it can be known from what the implementation has answered."""

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

        self.highest: int | None = None
        """The highest number of all terms so far."""

        self.number: int | None = None
        self.numbers: dict[str, int] = {}
        """By actor, the number of the last term that its client was given."""

        self.crashed: dict[str, tuple[Any, int]] = {}
        """By actor, the client that was lost last, with the number of its last term."""

        self.is_kept = False
        """Whether a holder's release said False: it may have given it back all the same."""

        self.suspect: str | None = None
        """What may have freed the lock that somebody holds, if somebody else gets it."""

        self.writes = 0
        self.value: Any = None
        """What was written last, as it was seen: it stays until another write lands."""

    def start(self) -> None:
        """Let each actor have its client."""
        self.clients: dict[str, Any] = {actor: self._client(actor) for actor in self.actors}

    def look(self) -> None:
        """Compare who is said to hold it, and what was written last."""
        self._look_at_value()
        if self.has(self.it, "holder"):
            said, state = self.resolve(self.it.holder()), self._state()
            expected = self.holder if state == "held" else None
            if said != expected and state != "edge":
                name = self._blamed("holder")
                self.saw("holder", said)
                self.violates(name, f"{said!r} is said to hold it, and {expected!r} does")

    def _look_at_value(self) -> None:
        if self.value is None or not self.has(self.it, "value"):
            return
        expected, found = self.value, self.resolve(self.it.value())
        if found == expected:
            return
        self.saw("value", found)
        self.value = found  # if that is tolerated
        step, *who = self.script[-1]
        if step == "write":
            text = f"{who[0]!r}, who was not to write, has made {found!r} of {expected!r}"
            self.violates("stale-write", text)
        else:
            self.violates("write-lost", f"{expected!r} was written last, and is {found!r} by now")

    # The model.

    def _begins(self, actor: str, ttl_ms: int) -> None:
        client = self.clients[actor]
        if self.has(client, "fence"):
            number = self.resolve(client.fence())
            check_kind("fence()", number, int)
            if self.highest is not None and number <= self.highest:
                self.violates("number", f"term {number} comes after term {self.highest}")
            self._has_number(number)
            self.numbers[actor] = number
        self.was_held, self.is_kept = True, False
        self.holder, self.remembers, self.suspect, self.is_unsure = actor, True, None, False
        self.ends_ms = self.clock.now_ms() + ttl_ms

    def _has_number(self, number: int) -> None:
        self.number = number
        self.highest = number if self.highest is None else max(self.highest, number)

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
