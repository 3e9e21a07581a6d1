"""Running a step once: what the sync and the asyncio store have in common, and renewal.

The function runs under a claim that is renewed every third of its time. Whoever dies in the
middle is taken over once the claim has run out, and the function runs *again*: a step is
brought about at least once by each attempt and recorded once. So whatever it does at a far
side should carry the step's key there, as an idempotency key.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any, Final, Self, TypeAlias

import msgspec

from lash_store._kernel.checks import check_kind, shown
from lash_store.effect.records import (
    Busy,
    EffectClaim,
    EffectError,
    Replayed,
    ReplayedFailure,
    check_ttl,
    hash_of,
)
from lash_store.effect.tx import EffectTx
from lash_store.effect.tx.attempts import check_step
from lash_store.errors import (
    EffectFailedError,
    InvalidRecordError,
    LashStoreError,
    LeaseLostError,
    StoreBusyError,
)

Terminal: TypeAlias = type[Exception] | tuple[type[Exception], ...]
"""Exceptions that mean that a step failed for good."""

RENEWALS_PER_TTL: Final = 3


class Step(msgspec.Struct, frozen=True):
    """One step that is to be run, checked: what it is called, and how it is claimed."""

    scope_id: str
    replay_key: str
    envelope_hash: str
    ttl_ms: int
    strict: bool
    terminal: Any

    @property
    def renew_every_s(self) -> float:
        """How often its claim is renewed: every third of its time, at least 1 ms (E-RUN-1)."""
        return max(self.ttl_ms / RENEWALS_PER_TTL, 1.0) / 1000

    def look_up(self, tx: EffectTx) -> Replayed | ReplayedFailure | Busy | None:
        """See how the step stands, in a snapshot."""
        return tx.look_up_effect(
            self.scope_id, self.replay_key, envelope_hash=self.envelope_hash, strict=self.strict
        )

    def begin(self, tx: EffectTx) -> EffectClaim | Replayed | ReplayedFailure | Busy:
        """Claim the step, or learn why not."""
        return tx.begin_effect(
            self.scope_id,
            self.replay_key,
            envelope_hash=self.envelope_hash,
            ttl_ms=self.ttl_ms,
            strict=self.strict,
        )

    def is_over(self, tx: EffectTx) -> bool | None:
        """Tell a waiter to go on: nobody is at the step any more."""
        return None if isinstance(self.look_up(tx), Busy) else True

    def error_of(self, error: Exception) -> EffectError | None:
        """Return what to record if `error` means that the step failed for good."""
        if isinstance(error, EffectFailedError):
            return EffectError(str(error.code), str(error.message))
        if isinstance(error, self.terminal):
            return EffectError(type(error).__name__, str(error))
        return None

    def outcome_of(self, ended: Replayed | ReplayedFailure) -> Any:
        """Return the outcome of a step that ended before, or raise how it failed."""
        if isinstance(ended, Replayed):
            return ended.outcome
        raise self.failure(ended.error)

    def failure(self, error: EffectError) -> EffectFailedError:
        """Return the error that a failed step raises, now and in every replay."""
        return EffectFailedError(error.code, error.message, f"{self.scope_id}:{self.replay_key}")


def check_run(
    scope_id: str,
    replay_key: str,
    envelope: Any,
    *,
    envelope_hash: str | None,
    ttl_ms: int,
    terminal: Terminal,
    strict: bool,
) -> Step:
    """Check what is to be run; InvalidRecordError before anything is read."""
    check_step(scope_id, replay_key)
    kinds = terminal if isinstance(terminal, tuple) else (terminal,)
    for kind in kinds:
        if not inspect.isclass(kind) or not issubclass(kind, Exception):
            raise InvalidRecordError("terminal", shown(kind), "must be a class of exceptions")
    check_kind("strict", strict, bool)
    digest = hash_of(envelope, envelope_hash)
    return Step(scope_id, replay_key, digest, check_ttl(ttl_ms), strict, kinds)


def call_envelope(function: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
    """Describe a call as an envelope: the function's name and its arguments, which are JSON."""
    name = f"{function.__module__}.{function.__qualname__}"
    return {"function": name, "args": list(args), "kwargs": dict(kwargs)}


def name_of(given: str | Callable[..., str], args: Any, kwargs: Any) -> str:
    """Return a name that is given, or made from a call's arguments."""
    return given if isinstance(given, str) else given(*args, **kwargs)


class Renewal:
    """A thread that renews a claim until it is told to stop, or finds the claim lost."""

    def __init__(
        self, step: Step, claim: EffectClaim, renew: Callable[[EffectClaim], EffectClaim]
    ) -> None:
        self._step = step
        self._renew = renew
        self._stop = threading.Event()
        self.claim = claim
        """The claim as it was last renewed."""
        self._thread = threading.Thread(target=self._run, name="lash-store-renewal", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._step.renew_every_s):
            try:
                self.claim = self._renew(self.claim)
            except StoreBusyError:
                continue  # the next try may come in time
            except LashStoreError:
                return  # lost, or the store is closed: recording the outcome will be refused


def lost_waiting(claim: EffectClaim, error: StoreBusyError) -> LeaseLostError:
    """Return the error of a claim that ran out while its outcome waited for the write lock."""
    lost = LeaseLostError(claim, None, "expired")
    lost.__cause__ = error
    return lost
