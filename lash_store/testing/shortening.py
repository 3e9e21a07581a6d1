"""What was found, in as few steps as show it, and whether it is shown again."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

from hypothesis.errors import Flaky

from lash_store.testing.violations import Script, Violation

Replay = Callable[[Script], None]
"""Plays steps against a new implementation; raises what they show."""

BY_CHANCE: Final = "the same steps do not always give the same: by chance, or by a race"

_SHORTENING_S: Final = 10.0
"""How long it may take to leave out what is not needed."""


def shortened(replay: Replay, found: Violation) -> Violation:
    """Leave out each step without which the same is shown: Hypothesis leaves out whole rules alone."""
    until_s, at = monotonic() + _SHORTENING_S, len(found.script)
    while at and monotonic() < until_s:
        at -= 1
        without = [*found.script[:at], *found.script[at + 1 :]]
        try:
            replay(without)
        except Violation as again:
            # Nor does it take longer to be shown: at the end of a run, say, by all that is left.
            if again.name == found.name and len(again.timeline) <= len(found.timeline):
                found, at = again, len(again.script)
        except Exception:  # noqa: BLE001, S110 # reason: then it takes that step
            pass
    return found


def is_shown(replay: Replay, found: Violation) -> bool:
    """Whether its steps show it once more: an implementation may go by chance."""
    try:
        replay(found.script)
    except Violation as again:
        return again.name == found.name
    except Exception:  # noqa: BLE001 # reason: they show something else
        return False
    return False


def leaves(found: BaseException) -> list[BaseException]:
    """Return what Hypothesis has found: one, or several that differ.

    Of what it calls flaky, as it could not be shown again, what was shown.
    """
    if isinstance(found, BaseExceptionGroup):
        return [leaf for each in found.exceptions for leaf in leaves(each)]
    beneath = found.__cause__ or found.__context__
    if isinstance(found, Flaky) and beneath is not None:
        return [*leaves(beneath), found]
    return [found]
