"""A state machine that tries to break a work queue, yours or this library's.

::

    class SqliteQueue:
        def __init__(self, clock): ...
        def put(self, item): ...
        def claim(self, worker): ...            # (item, handle), or None
        def complete(self, worker, handle): ...
        def lapse(self): ...                    # live claims run out

    TestSqliteQueue = queue_machine(SqliteQueue).TestCase

Several workers put, claim, complete, give back and die. At the end everything that was not done has
to be had again, once, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, get_args

from hypothesis import settings as hypothesis_settings, strategies as st
from hypothesis.stateful import precondition, rule

from lash_store._kernel.checks import check_choice, check_pair
from lash_store.testing.clock import ManualClock
from lash_store.testing.machine import Machine, check_texts
from lash_store.testing.violations import Outcome

Lapsed = Literal["refused", "accepted", "either"]
"""What becomes of a completion by a worker whose claim has run out, if nobody has taken it over."""


class Queue(Protocol):
    """A queue; made with a ManualClock as its only argument.

    It may have more, and is then tested for that: ``abandon(worker, handle)`` gives an item back,
    ``renew(worker, handle)`` keeps a claim from lapsing, ``reopen()`` forgets what is not durable,
    ``close()``.
    """

    def put(self, item: str) -> object:
        """Add an item; each is put once."""
        ...

    def claim(self, worker: str) -> tuple[str, Any] | None:
        """Take an item that nobody has, and a handle of the claim; None if there is none."""
        ...

    def complete(self, worker: str, handle: Any) -> object:
        """Remove what was claimed, for good."""
        ...

    def lapse(self) -> object:
        """Let every live claim run out, as if its worker had died."""
        ...


@dataclass
class Claim:
    """One claim that was handed out, and the model of what became of it."""

    number: int
    item: str
    worker: str
    handle: Any
    is_live: bool = True
    is_over: bool = False
    """It was completed, given back or taken over: what comes by its handle is stale."""

    is_taken_over: bool = False


def queue_machine(
    make: Callable[[ManualClock], Any],
    *,
    order: Literal["fifo", "any"] = "any",
    lapsed: Lapsed = "either",
    workers: Iterable[str] = ("ann", "Ann", "bob"),
    refusals: tuple[type[BaseException], ...] = (Exception,),
    tolerate: Iterable[str] = (),
    settings: hypothesis_settings | None = None,
) -> type[QueueMachine]:
    """Make a machine that tries to break the queues that `make` makes.

    `order` says whether what was put first is claimed first, `lapsed` what a completion does that
    comes after the claim has run out, and before anybody took the item over. For `refusals`,
    `tolerate`, `settings` and what to do with the machine see ``lock_machine``.
    """
    check_choice("order", order, ("fifo", "any"))
    check_choice("lapsed", lapsed, get_args(Lapsed))
    return QueueMachine.of(
        make,
        tolerate=tolerate,
        refusals=refusals,
        settings=settings,
        order=order,
        lapsed=lapsed,
        workers=check_texts("workers", workers),
    )


class QueueMachine(Machine):
    """What was put is worked on by one worker at a time, until one has done it, and then never again."""

    violations: ClassVar[Mapping[str, str]] = {
        "claimed-twice": "an item was had by two",
        "resurrected": "an item was had again that is done",
        "lost": "an item that waits is had by nobody",
        "stale-completion": "who had lost an item has ended it all the same",
        "stale-return": "who had lost an item has given it back all the same",
        "stale-renewal": "who had lost an item has renewed it all the same",
        "invented": "an item was had that nobody has put",
        "order": "an item was had before one that was put earlier",
        "completion-refused": "who has an item could not complete it",
        "renewal-refused": "who has an item could not renew it",
        "put-refused": "an item could not be put",
    }

    needs = ("put", "claim", "complete", "lapse")
    order: ClassVar[Literal["fifo", "any"]] = "any"
    lapsed: ClassVar[Lapsed] = "either"
    workers: ClassVar[tuple[str, ...]] = ("ann", "Ann", "bob")

    def __init__(self) -> None:
        super().__init__()
        self.items: list[str] = []
        self.open: set[str] = set()
        """What is known not to be done."""

        self.maybe: set[str] = set()
        """What may be done or not, as the implementation pleases."""

        self.claims: list[Claim] = []
        self.suspects: dict[str, str] = {}
        """What may have spoiled an item, by its name as a violation."""

    # What Hypothesis chooses.

    @rule()
    def put(self) -> None:
        """One more item."""
        self.do("put", f"item-{len(self.items) + 1}")

    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        """Somebody asks for work."""
        self.do("claim", data.draw(st.sampled_from(self.workers)))

    @rule(data=st.data())
    def work(self, data: st.DataObject) -> None:
        """Put, claim and complete, with nothing in between."""
        self.do("put", f"item-{len(self.items) + 1}")
        self.do("claim", data.draw(st.sampled_from(self.workers)))
        if self.claims:
            self.do("complete", len(self.claims) - 1)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        """Somebody has done what it claimed, a while ago perhaps."""
        self.do("complete", self._any(data))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        """Somebody gives back what it claimed, a while ago perhaps."""
        self.do("abandon", self._any(data))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        """Somebody goes on with what it claimed."""
        self.do("renew", self._any(data))

    @rule()
    def lapse(self) -> None:
        """All workers die."""
        self.do("lapse")

    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        """A worker's claim runs out, another takes the item over, and the first one comes back."""
        if not any(claim.is_live for claim in self.claims):
            self.do("put", f"item-{len(self.items) + 1}")
            self.do("claim", data.draw(st.sampled_from(self.workers)))
        live = [claim for claim in self.claims if claim.is_live]
        if not live:
            return
        late = data.draw(st.sampled_from(live))
        self.do("lapse")
        for _ in range(len(self.open | self.maybe)):
            self.do("claim", data.draw(st.sampled_from(self.workers)))
        self.do(data.draw(st.sampled_from(("complete", "abandon", "renew"))), late.number)

    # What the steps are.

    def do_put(self, item: str) -> None:
        """Put: the item is there."""
        put = self.call("", "put", self.it.put, item)
        if put.error is not None:
            self.violates("put-refused", f"{item!r} could not be put")
            return
        self.items.append(item)
        self.open.add(item)

    def do_claim(self, worker: str) -> None:
        """Claim: gives an item that nobody has; nothing only if there is none."""
        before = {claim.item for claim in self.claims if claim.is_live}
        free = [item for item in self.items if item in self.open and item not in before]
        got = self.call(worker, "claim", self.it.claim, worker)
        if not got.granted:
            if free:
                name = self._suspect(free, "lost")
                self.violates(name, f"{worker!r} was given nothing, and {free[0]!r} waits")
                self.open -= set(free)  # it is tolerated
                self.maybe -= set(free)
            self.maybe &= before  # what could be had would have been
            return
        item, handle = check_pair("claim()", got.value)
        self._check_claimed(worker, item, before, free)
        for claim in self.claims:
            if claim.item == item:
                claim.is_taken_over = claim.is_taken_over or not claim.is_over
                claim.is_live, claim.is_over = False, True
        self.maybe.discard(item)
        self.open.add(item)
        self.claims.append(Claim(len(self.claims), item, worker, handle))

    def _check_claimed(self, worker: str, item: str, before: set[str], free: list[str]) -> None:
        if item not in self.items:
            self.violates("invented", f"{worker!r} was given {item!r}, which nobody has put")
            self.items.append(item)
        elif item in before:
            name = self._suspect([item], "claimed-twice")
            self.violates(name, f"{worker!r} was given {item!r}, which somebody is at")
        elif item not in self.open | self.maybe:
            name = self._suspect([item], "resurrected")
            self.violates(name, f"{worker!r} was given {item!r}, which is done")
        elif self.order == "fifo" and free and item in free and item != free[0]:
            name = self._suspect([free[0]], "order")
            self.violates(name, f"{worker!r} was given {item!r} before {free[0]!r}")

    def do_complete(self, number: int) -> None:
        """Complete: ends what its worker still has, and nothing of anybody else's."""
        claim = self._claim(number)
        if claim is None:
            return
        done = self.call(claim.worker, "complete", self.it.complete, claim.worker, claim.handle)
        if claim.is_over:
            if claim.is_taken_over and self.lapsed == "refused" and done.granted:
                text = f"{claim.worker!r} was told that {claim.item!r} is done, which another took over"
                self.violates("stale-completion", text)
            self._suspect_later(claim, "stale-completion", done)
            return
        if done.refused and (claim.is_live or self.lapsed == "accepted"):
            name = self._suspect([claim.item], "completion-refused")
            self.violates(name, f"{claim.item!r} is {claim.worker!r}'s to complete")
            return
        if done.refused and not claim.is_live:
            return  # what has run out is nobody's: whether it may go on is not said
        if claim.is_live or self.lapsed == "accepted":
            self.open.discard(claim.item)
            self.note("a completion")
        elif self.lapsed == "refused":
            if done.granted:
                text = f"{claim.worker!r} was told that {claim.item!r} is done, behind the end of its claim"
                self.violates("stale-completion", text)
            self.suspects[claim.item] = "stale-completion"
        else:
            self.open.discard(claim.item)
            self.maybe.add(claim.item)
        claim.is_live, claim.is_over = False, True

    def do_abandon(self, number: int) -> None:
        """Give back: another may have it at once, if it was still the worker's."""
        claim = self._claim(number)
        if claim is None or not self.has(self.it, "abandon"):
            return
        gave = self.call(claim.worker, "abandon", self.it.abandon, claim.worker, claim.handle)
        if claim.is_over:
            self._suspect_later(claim, "stale-return", gave)
        elif not claim.is_live and gave.refused:
            return  # what has run out is nobody's: it may still be completed
        claim.is_live, claim.is_over = False, True

    def do_renew(self, number: int) -> None:
        """Renew: a claim that stands goes on; nothing of anybody else's changes."""
        claim = self._claim(number)
        if claim is None or not self.has(self.it, "renew"):
            return
        got = self.call(claim.worker, "renew", self.it.renew, claim.worker, claim.handle)
        if claim.is_over:
            if got.granted and any(
                each.is_live and each.item == claim.item and each.worker != claim.worker
                for each in self.claims
            ):
                # It would go on, and two are at it.
                self.violates(
                    "stale-renewal", f"{claim.worker!r} renewed {claim.item!r}, which another has"
                )
            self._suspect_later(claim, "stale-renewal", got)
        elif claim.is_live and got.refused:
            name = self._suspect([claim.item], "renewal-refused")
            self.violates(name, f"{claim.item!r} is {claim.worker!r}'s to renew")
        elif not claim.is_live:
            # Whether what has run out may go on, as long as nobody has it, is not said.
            self.control("lapse", self.it.lapse)
            for each in self.claims:
                each.is_live = False

    def do_lapse(self) -> None:
        """Let every claim run out: what was claimed may be claimed again."""
        self.control("lapse", self.it.lapse)
        for claim in self.claims:
            claim.is_live = False

    def settle(self) -> None:
        """Take what is left: everything that is not done, each once."""
        self.do("lapse")
        for _ in range(len(self.open | self.maybe) + 1):
            self.do("claim", self.workers[0])

    def _suspect_later(self, claim: Claim, name: str, outcome: Outcome) -> None:
        """Remember what was not refused to who had lost an item: what goes wrong next is its doing."""
        if not outcome.refused:
            self.suspects[claim.item] = name

    def _suspect(self, items: list[str], default: str) -> str:
        return next((self.suspects[item] for item in items if item in self.suspects), default)

    def _claim(self, number: int) -> Claim | None:
        return self.claims[number] if 0 <= number < len(self.claims) else None

    def _any(self, data: st.DataObject) -> int:
        return data.draw(st.integers(0, len(self.claims) - 1))
