"""What a machine has found, and how it is shown: calls, what they gave, the promise that was broken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

Script = Sequence[tuple[Any, ...]]
"""Steps, each a name and its plain arguments, as a message shows them and ``replay`` takes them."""


class Line(NamedTuple):
    """One call of the implementation: when, by whom, what, and what came of it."""

    at_ms: int
    who: str
    what: str


class Outcome(NamedTuple):
    """What a call gave: a value, or the refusal that it raised."""

    value: Any
    error: BaseException | None

    @property
    def granted(self) -> bool:
        """Whether it was neither refused by an exception nor by a false value."""
        return self.error is None and bool(self.value)

    @property
    def refused(self) -> bool:
        """Whether it was refused by an exception or by False; None says nothing of that."""
        return self.error is not None or self.value is False


class Violation(AssertionError):  # noqa: N818 # reason: it is a finding, of an implementation that may be another's
    """A promise that an implementation has broken.

    `name` says which, as in ``tolerate``; `timeline` what happened; `script` the steps, for
    ``replay``.
    """

    def __init__(
        self, subject: str, name: str, text: str, timeline: Sequence[Line], script: Script
    ) -> None:
        super().__init__(subject, name, text, timeline, script)
        self.subject = subject
        self.name = name
        self.text = text
        self.timeline = tuple(timeline)
        self.script = tuple(script)

    def __str__(self) -> str:
        width = max([3, *(len(line.who) for line in self.timeline)])
        start_ms = self.timeline[0].at_ms if self.timeline else 0
        lines = "".join(
            f"\n{line.at_ms - start_ms:6}  {line.who:{width}}  {line.what}"
            for line in self.timeline
        )
        steps = ", ".join(map(repr, self.script))
        return (
            f"[{self.subject}] {self.name}: {self.text}\n    ms  {'who':{width}}  call{lines}\n"
            f"again: .replay([{steps}])"
        )


_LONGEST: Final = 60


def told(error: BaseException) -> str:
    """Return what an error is called, and what it says."""
    name, text = type(error).__name__, short(error, str)
    return f"{name}: {text}" if text else name


def short(value: object, as_text: Callable[[object], str] = repr) -> str:
    """Return a value's text, cut off where it is long; whatever an object of others' has to say."""
    try:
        text = as_text(value)
    except Exception as error:  # noqa: BLE001 # reason: an object's own, which is none of the call's
        text = f"<{type(value).__name__}, whose text raises {type(error).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


WHY: Final = defaultdict(
    lambda: "its term has not ended",
    {
        "foreign-release": "somebody's release, who did not hold it, has freed it",
        "lost-hold": "it lost it when it was refused to take it again",
        "stale-renewal": "somebody's renewal, who did not hold it, has changed it",
        "forged": "who only pretended to hold it has freed it",
    },
)
"""What a message says of who is to blame."""
