"""Running a step once: what the sync and the asyncio store have in common, and renewal.

The function runs under a claim that is renewed every third of its time. Whoever dies in the
middle is taken over once the claim has run out, and the function runs *again*: a step is
brought about at least once by each attempt and recorded once. So whatever it does at a far
side should carry the step's key there, as an idempotency key.
"""

import inspect
import os
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final, TypeAlias, TypedDict, TypeVar

import msgspec

from lash_store._kernel.checks import check_kind, shown
from lash_store._kernel.keeping import KEEPER, NotEnteredError
from lash_store._kernel.kept import Kept
from lash_store._kernel.leases import Fence
from lash_store._kernel.liveness import is_over
from lash_store._kernel.locks import locked_by
from lash_store._kernel.steady import asked_ms
from lash_store._stores.holding import Held
from lash_store._stores.leasing import leases_of
from lash_store.effect.operations.attempts import (
    begin,
    check_step,
    look_up,
    record_effect,
    renew_effect,
)
from lash_store.effect.records import (
    TTL_MS,
    Begun,
    Busy,
    EffectClaim,
    EffectError,
    Replayed,
    ReplayedFailure,
    check_ttl,
    hash_of,
    key_of,
)
from lash_store.effect.tx import EffectTx
from lash_store.errors import (
    ConnectionLostError,
    CoroutineError,
    DiskFullError,
    EffectFailedError,
    InvalidRecordError,
    LeaseLostError,
    NestedTransactionError,
    OutcomeUnknownError,
    StoreBusyError,
)

R = TypeVar("R")

Terminal: TypeAlias = type[Exception] | tuple[type[Exception], ...]
"""Exceptions that mean that a step failed for good."""


class RecordedOptions(TypedDict, total=False):
    """How a step is run; every key has a default.

    ``ttl_ms``    how long a claim on the step holds unless it is renewed; default 30 000
    ``terminal``  exceptions that mean that the step failed for good; default none
    ``strict``    whether a step that was never begun is NotFoundError; default False
    """

    ttl_ms: int
    terminal: Terminal
    strict: bool


class StepOptions(RecordedOptions, total=False):
    """How a step is run; see :class:`RecordedOptions` for the others.

    ``envelope_hash``  the consumer's own hash of what the step does, in place of an envelope
    ``under``          the fence of a lease that the caller holds, and nobody runs the step without:
                       then it needs no claim of its own, and ``ttl_ms`` is how long what it gave
                       waits for a server that is away
    """

    envelope_hash: str | None
    under: Fence | None


LONGEST_NAP_S: Final = 86_400.0
"""How long a sleeper sleeps before it looks again: a clock takes no more than so many seconds."""


class Step(msgspec.Struct, frozen=True):
    """One step that is to be run, checked: what it is called, and how it is claimed."""

    scope_id: str
    replay_key: str
    envelope_hash: str
    ttl_ms: int
    strict: bool
    terminal: Any
    under: Any

    @property
    def names(self) -> tuple[str, str]:
        """What the step is called."""
        return self.scope_id, self.replay_key

    def look_up(self, tx: EffectTx) -> Replayed | ReplayedFailure | Busy | None:
        """See how the step stands, in a snapshot; of one that is to be run, whether its lease is live."""
        found = look_up(tx, *self.names, self.envelope_hash, strict=self.strict)
        if found is None and self.under is not None:
            self.require_lease(tx)  # or the function would be called for nothing
        return found

    def require_lease(self, tx: EffectTx) -> None:
        """Raise what recording it would raise, unless the lease is live that it is run under."""
        fence: Fence = self.under
        leases_of(type(fence)).require_beside(tx, fence)

    def begin(self, tx: EffectTx) -> Begun:
        """Claim the step, or learn why not."""
        return begin(
            tx,
            *self.names,
            self.envelope_hash,
            owner_id=tx.context.owner_id,
            ttl_ms=self.ttl_ms,
            strict=self.strict,
        )

    def beginning(self, attempt: "Attempt") -> Callable[[EffectTx], Begun]:
        """What claims it for an attempt, as the work of a transaction."""
        return locked_by(lambda tx: attempt.begun(tx, self.begin(tx)), *self.names)

    def recording(
        self, context: Any, outcome: Any, error: EffectError | None
    ) -> Callable[[EffectTx], Replayed | ReplayedFailure | Busy]:
        """What records how it ended under the lease that it is run under, as the work of a transaction."""
        return record_effect(
            context,
            self.under,
            *self.names,
            outcome=outcome,
            envelope_hash=self.envelope_hash,
            error=error,
        )

    @property
    def key(self) -> str:
        """What the step is called by those who wait for its end."""
        return key_of(self.scope_id, self.replay_key)

    def may_have(self, tx: EffectTx) -> bool:
        """Tell whether nobody is at the step any more."""
        return not isinstance(self.look_up(tx), Busy)

    def __call__(self, tx: EffectTx) -> bool | None:
        """Tell a waiter to go on once nobody is at the step any more."""
        return True if self.may_have(tx) else None

    def error_of(self, error: Exception) -> EffectError | None:
        """Return what to record if `error` means that the step failed for good."""
        if isinstance(error, EffectFailedError):
            return EffectError(safe_text(error.code), safe_text(error.message))
        # That it is no function for this store says nothing of the step: a mended program runs it.
        if isinstance(error, self.terminal) and not isinstance(error, CoroutineError):
            return EffectError(type(error).__name__, safe_text(error))
        return None

    def outcome_of(self, ended: Replayed | ReplayedFailure) -> Any:
        """Return the outcome of a step that ended before, or raise how it failed."""
        if isinstance(ended, Replayed):
            return ended.outcome
        raise self.failure(ended.error)

    def failure(self, error: EffectError) -> EffectFailedError:
        """Return the error that a failed step raises, now and in every replay."""
        return EffectFailedError(error.code, error.message, f"{self.scope_id}:{self.replay_key}")


def safe_text(value: object) -> str:
    """Return a text that can be recorded, whatever an exception has to say: it *has* failed."""
    try:
        return str(value).encode("utf-8", "backslashreplace").decode().replace("\0", r"\x00")
    except Exception:  # noqa: BLE001 # reason: the exception's own text raised one
        return type(value).__name__


class Attempt:
    """What a call of ``run`` has claimed: interrupted or cancelled it gets nothing, and has to give it back."""

    def __init__(self) -> None:
        self._claimed_by = os.getpid()
        self._claim: EffectClaim | None = None
        self._is_over = False
        self.sent_ms = 0.0
        """Since when what it has claimed holds, by the steady time."""

    def begun(self, tx: EffectTx, begun: Begun) -> Begun:
        """Note a claim, in its transaction; undo that if the call is over, and another thread at it."""
        if isinstance(begun, EffectClaim):
            self._claim, self.sent_ms = begun, asked_ms(tx)
            if self._is_over:  # looked at behind the note: one of the two threads sees the other's
                raise NotEnteredError
        return begun

    def leave(self) -> EffectClaim | None:
        """End it; return what is to be given back, which may be recorded, or lost, by now."""
        self._is_over = True
        # In a child that the function forked it is the parent's.
        return self._claim if os.getpid() == self._claimed_by else None


class Inside:
    """A block in which the caller is inside of a step, for :func:`check_not_inside` and :func:`current_step`."""

    def __init__(self, database: str, step: Step, kept: Kept | None) -> None:
        self.name = (database, step.scope_id, step.replay_key)
        self.kept = kept
        self.is_over = False

    def __enter__(self) -> None:
        self._before = running.set((*running.get(), self))

    def __exit__(self, *_: object) -> None:
        self.is_over = True  # for a task that outlives the step, too
        if self.kept is not None:
            self.kept.leave()
        with suppress(ValueError):  # a coroutine that is thrown away ends in another context
            running.reset(self._before)


running: Final[ContextVar[tuple[Inside, ...]]] = ContextVar("running", default=())
"""The steps that the caller is inside of; tasks that a step begins inherit them."""


def check_not_inside(database: str, step: Step) -> None:
    """Raise NestedTransactionError if the caller would wait for itself."""
    inside = running.get()
    if not inside:
        return
    name = (database, step.scope_id, step.replay_key)
    if any(each.name == name and not each.is_over for each in inside):
        raise NestedTransactionError(
            f"the effect {step.scope_id}:{step.replay_key!r} is being run by its own function"
        )


def check_run(
    scope_id: str,
    replay_key: str,
    envelope: Any,
    function: object,
    *,
    envelope_hash: str | None = None,
    ttl_ms: int = TTL_MS,
    terminal: Terminal = (),
    strict: bool = False,
    under: Fence | None = None,
) -> Step:
    """Check what is to be run; InvalidRecordError before anything is read."""
    scope_id, replay_key = check_step(scope_id, replay_key)
    if not callable(function):
        raise InvalidRecordError("function", shown(function), "must be callable")
    kinds = check_terminal(terminal)
    check_kind("strict", strict, bool)
    digest = hash_of(envelope, envelope_hash)
    if under is not None:
        check_kind("under", under, Fence)
    return Step(scope_id, replay_key, digest, check_ttl(ttl_ms), strict, kinds, under)


def check_terminal(terminal: Terminal) -> tuple[type[Exception], ...]:
    """Return the classes of the exceptions that mean that a step failed for good."""
    kinds = terminal if isinstance(terminal, tuple) else (terminal,)
    for kind in kinds:
        if not inspect.isclass(kind) or not issubclass(kind, Exception):
            raise InvalidRecordError("terminal", shown(kind), "must be a class of exceptions")
    return kinds


def keep_step(store: Any, step: Step, claim: EffectClaim, sent_ms: float) -> Kept:
    """Let the keeper renew the claim on a step that runs, until it is dropped."""
    context = store._context  # noqa: SLF001 # reason: of the same package
    kept = Kept(
        store._handle,  # noqa: SLF001 # reason: likewise
        context.clock,
        claim,
        ttl_ms=step.ttl_ms,
        sent_ms=sent_ms,
        operation="renew_effect",
        renewing=lambda held: renew_effect(context, held, ttl_ms=step.ttl_ms),
        lost_error=lambda held, why: LeaseLostError(held, None, why),
    )
    KEEPER.keep(kept)
    return kept


def current_step() -> Held[EffectClaim] | None:
    """Return the innermost step that the caller is inside of, to ask whether its claim still holds.

    ``current_step().check()`` raises LeaseLostError once somebody else may have begun the step: what a
    sync function that takes long asks between two parts of its work (E-RUN-4). None outside of steps, in a
    task that has outlived its step, and in a step that is run under a lease: that one's holder knows.
    """
    steps = running.get()
    here = steps[-1] if steps else None
    return None if here is None or here.is_over or here.kept is None else Held(here.kept)


AWAY: Final = (ConnectionLostError, OutcomeUnknownError)
"""What is raised while a server is away."""

PASSING: Final = (StoreBusyError, DiskFullError, *AWAY)
"""What keeps an outcome from being recorded now, and may be over soon."""

_NAP_S: Final = 0.1


def left_of_nap_s(error: Exception) -> float:
    """Return in how many seconds to try again: what a busy database was waited for counts."""
    waited_s = error.waited_ms / 1000 if isinstance(error, StoreBusyError) else 0.0
    return max(0.0, _NAP_S - waited_s)


class Persistence:
    """How what a step gave is recorded although the database can't be written to just now (E-RUN-6)."""

    def __init__(
        self, step: Step, read_clock: Callable[[], int], claim: EffectClaim | None
    ) -> None:
        self._step = step
        self._read_clock = read_clock
        self._claim = claim
        self._ends_ms = None if claim is None else claim.expires_at_ms
        self._doubt: OutcomeUnknownError | None = None

    def nap_s(self, error: Exception) -> float:
        """Return in how many seconds to try again; raise once it is too late."""
        if isinstance(error, OutcomeUnknownError):
            self._doubt = error
        now_ms = self._read_clock()
        if self._ends_ms is None:  # under a lease, whose end is not known here
            self._ends_ms = now_ms + self._step.ttl_ms
        if is_over(self._ends_ms, now_ms=now_ms):
            if self._doubt is not None or self._claim is None:
                raise self._doubt or error
            raise LeaseLostError(self._claim, None, "expired") from error
        return left_of_nap_s(error)

    @property
    def in_doubt(self) -> bool:
        """Whether it may have been recorded: then nobody has the claim any more."""
        return self._doubt is not None

    @staticmethod
    def recorded(found: Any, lost: LeaseLostError) -> Replayed | ReplayedFailure:
        """Return how the step ended, if that is what became of the claim; else raise `lost`."""
        if isinstance(found, Replayed | ReplayedFailure):
            return found
        raise lost
