"""A state machine that tries to break idempotent commits: each once, each on what it was made from.

::

    class Documents:
        def __init__(self, clock): ...
        def load(self): ...                                # (revision, state)
        def commit(self, key, revision, state): ...        # the new revision; or refused

    TestDocuments = commit_machine(Documents).TestCase
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol

from hypothesis import settings as hypothesis_settings, strategies as st
from hypothesis.stateful import rule

from lash_store._kernel.checks import check_count, check_kind, check_no_bool, check_pair
from lash_store.testing.clock import ManualClock
from lash_store.testing.machine import Machine


class Commits(Protocol):
    """One thing with a revision; made with a ManualClock as its only argument.

    Revisions are whatever grows with each commit. It may have ``reopen()`` and ``close()``.
    """

    def load(self) -> tuple[int, Any]:
        """Return the revision and the state that the last commit has left."""
        ...

    def commit(self, key: str, revision: int, state: str) -> int:
        """Replace the state that is at `revision`, once for each `key`; return the new revision.

        The same key with the same arguments gives the same revision again and changes nothing; with
        others it is refused, and so is a revision that is not the present one.
        """
        ...


def commit_machine(
    make: Callable[[ManualClock], Any],
    *,
    refusals: tuple[type[BaseException], ...] = (Exception,),
    tolerate: Iterable[str] = (),
    settings: hypothesis_settings | None = None,
) -> type[CommitMachine]:
    """Make a machine that tries to break the commits that `make` makes; see ``lock_machine``."""
    return CommitMachine.of(make, tolerate=tolerate, refusals=refusals, settings=settings)


class CommitMachine(Machine):
    """What is committed is there, once, and nothing that somebody else has committed is lost."""

    violations: ClassVar[Mapping[str, str]] = {
        "lost-update": "a commit from an old revision has replaced another's",
        "committed-twice": "what was sent again was committed again",
        "key-reused": "other content was committed under a key that was used",
        "refused": "a commit from the present revision, or one sent again, was refused",
        "wrong-receipt": "what was sent again got another commit's revision",
        "revision": "it has not grown",
        "not-there": "what was committed is not there, or more than that",
    }

    needs = ("load", "commit")

    def __init__(self) -> None:
        super().__init__()
        self.receipts: dict[str, tuple[int, str, int]] = {}
        """By key: the revision that it was made from, the state, the revision that it made."""

    def start(self) -> None:
        """Load what there is."""
        self.revision, self.state = self._load()
        self.revisions = [self.revision]

    # What Hypothesis chooses. Revisions are chosen by their age, the newest first.

    @rule(data=st.data(), state=st.sampled_from(("x", "y")))
    def commit(self, data: st.DataObject, state: str) -> None:
        """Commit something new, on the newest revision or an older one."""
        age = data.draw(st.integers(0, len(self.revisions) - 1))
        self.do("commit", f"key-{len(self.receipts) + 1}", age, state)

    @rule(state=st.sampled_from(("x", "y")))
    def commit_next(self, state: str) -> None:
        """Commit something new on the newest revision."""
        self.do("commit", f"key-{len(self.receipts) + 1}", 0, f"{state}-{len(self.receipts)}")

    @rule(data=st.data(), change=st.sampled_from(("nothing", "state", "revision")))
    def commit_again(self, data: st.DataObject, change: str) -> None:
        """Send a commit again, as it was or not quite."""
        if self.receipts:
            key = data.draw(st.sampled_from(sorted(self.receipts)))
            self.do("again", key, change)

    # What the steps are.

    def do_commit(self, key: str, age: int, state: str) -> None:
        """Commit under a key that was never used."""
        base = self.revisions[-1 - min(check_count("age", age), len(self.revisions) - 1)]
        self._commit(key, base, state)

    def do_again(self, key: str, change: str) -> None:
        """Commit under a key that was used before."""
        base, state, _ = self.receipts.get(key, (self.revision, "x", 0))
        if change == "revision" and base == self.revision:
            return
        self._commit(
            key,
            self.revision if change == "revision" else base,
            f"{state} changed" if change == "state" else state,
        )

    def _commit(self, key: str, base: int, state: str) -> None:
        known = self.receipts.get(key)
        got = self.call("", "commit", self.it.commit, key, base, state)
        if known is not None and known[:2] == (base, state):
            if got.refused:
                self.violates("refused", f"{key!r} was committed, and is refused when sent again")
            elif got.value != known[2]:
                name = "wrong-receipt" if got.value in self.revisions else "committed-twice"
                self.violates(name, f"{key!r} made revision {known[2]}, and now {got.value}")
                self._adopt(key, base, state, got.value)
            self.note("a commit sent again")
        elif known is not None:
            if not got.refused:
                self.violates("key-reused", f"{key!r} was committed with other content")
                self._adopt(key, base, state, got.value)
        elif base != self.revision:
            if not got.refused:
                self.violates(
                    "lost-update", f"{key!r} was made from {base}, and replaced {self.revision}"
                )
                self._adopt(key, base, state, got.value)
        elif got.refused:
            self.violates("refused", f"{key!r} was made from the present revision")
        else:
            check_kind("commit()", got.value, type(self.revision))
            check_no_bool("commit()", got.value, "must be the new revision")
            if got.value <= self.revision:
                self.violates("revision", f"{key!r} made {got.value} from {self.revision}")
            self.receipts[key] = (base, state, got.value)
            self.revision, self.state = got.value, state
            self.revisions.append(got.value)
            self.note("a commit")

    def _adopt(self, key: str, base: Any, state: str, made: Any) -> None:
        """Go on from what a commit did that is tolerated."""
        self.receipts[key] = (base, state, made)
        self.revision, self.state = self._load()
        if self.revision not in self.revisions:
            self.revisions.append(self.revision)

    def _load(self) -> tuple[Any, Any]:
        found = self.resolve(self.it.load())
        return check_pair("load()", tuple(found) if isinstance(found, list) else found)

    def look(self) -> None:
        """Compare what is there."""
        found = self._load()
        if found != (self.revision, self.state):
            self.violates(
                "not-there",
                f"{found} is there, and {(self.revision, self.state)} was committed",
            )
