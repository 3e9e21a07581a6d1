"""The effect store: opening, and running a step once."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from time import monotonic
from typing import Any, ParamSpec, Self, TypeVar, Unpack

from lash_store._kernel.keeping import KEEPER
from lash_store._kernel.kept import Kept
from lash_store._kernel.options import OpenOptions, Settings
from lash_store._kernel.threads import Bell
from lash_store._stores.store import Store, open_at, plain_function
from lash_store.effect.context import effect_context
from lash_store.effect.operations import EffectOperations
from lash_store.effect.recording import Recording, signature_of
from lash_store.effect.records import Busy, EffectClaim, EffectError, Replayed, ReplayedFailure
from lash_store.effect.running import (
    LONGEST_NAP_S,
    PASSING,
    Attempt,
    Inside,
    Persistence,
    RecordedOptions,
    Step,
    StepOptions,
    check_not_inside,
    check_run,
    keep_step,
    left_of_nap_s,
)
from lash_store.effect.tables import SCHEMA
from lash_store.effect.tx import EffectTx
from lash_store.errors import LashStoreError, LeaseLostError, StoreBusyError

P = ParamSpec("P")
R = TypeVar("R")


class EffectStore(EffectOperations, Store[EffectTx]):
    """The recorded outcomes of a deployment's non-deterministic steps, in one database file.

    Every operation is one transaction; several go together in ``begin()``. The arguments,
    results and errors of each are documented on :class:`EffectTx`.
    """

    owner_id: str
    """Who begins steps through this store."""

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | Store[Any] | None,
        *,
        owner_id: str | None = None,
        **options: Unpack[OpenOptions],
    ) -> Self:
        """Open the database at `path`, or a private one in memory if it is None.

        `owner_id` says who begins steps through this store; by default it is unique. See
        ``OpenOptions`` for `options`, and ``ProcessRegistry.open`` for what is raised.
        """
        settings = Settings(**options)
        context = effect_context(owner_id, settings.clock, settings.ids)
        handle, _ = open_at(path, SCHEMA, options)
        store = cls(handle, EffectTx, context)
        store.owner_id = context.owner_id
        return store

    def run(
        self,
        scope_id: str,
        replay_key: str,
        envelope: Any,
        function: Callable[[], Any],
        **options: Unpack[StepOptions],
    ) -> Any:
        """Call `function` once, record what it gives, and replay that ever after (E-RUN-1).

        Of several callers, in threads or processes, one calls it; the others wait, and all get
        the outcome as it was recorded: JSON. While it runs, the claim is renewed every third of
        `ttl_ms`, and ``current_step()`` tells the function whether it still holds (E-RUN-4). A process that dies in the middle is taken over after at most `ttl_ms`, and the
        function is called again (E-RUN-2).

        An exception that is an EffectFailedError, or one of `terminal`, is recorded: it and every
        replay raise EffectFailedError. Any other gives the step back for the next attempt, and is
        raised as it is (E-FIN-2). Raises LeaseLostError, with nothing recorded, if the claim was
        lost while the function ran; InvalidRecordError if it gave what is no JSON; and what
        ``begin_effect`` raises.

        `under` a lease that the caller holds, a step takes one write (E-RUN-5): the lease is what keeps
        others from it, and has to be live as the outcome is recorded, or that is LeaseLostError.
        """
        step = check_run(scope_id, replay_key, envelope, function, **options)
        function = plain_function("function", function)
        if step.under is not None:
            return self._run_under(step, function)
        check_not_inside(self._key, step)
        attempt = Attempt()
        try:
            begun = self._begin(step, attempt)
            if not isinstance(begun, EffectClaim):
                return step.outcome_of(begun)
            kept = keep_step(self, step, begun, attempt.sent_ms)
            with Inside(self._key, step, kept):
                return self._bring_about(step, kept, function)
        except BaseException:
            claim = attempt.leave()
            if claim is not None:
                KEEPER.drop_token(self._handle.key, claim.token)
                self._give_back(claim)
            raise

    def recorded(
        self,
        scope_id: str | Callable[..., str],
        replay_key: str | Callable[..., str],
        **options: Unpack[RecordedOptions],
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Make calls of a function steps that are run once: the decorator form of ``run``.

        Scope and key are given, or made by functions of the call's own arguments, by name, defaults included. The
        envelope is the function's name and the same arguments by name, which have to be JSON; so
        a method, whose `self` is none, is not for it. What comes back is what was recorded: a
        tuple comes back as a list. Raises InvalidRecordError for bad arguments at once.
        """
        recording = Recording(scope_id, replay_key, options)

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            signature = signature_of(function)
            plain_function("function", function)

            @wraps(function)
            def call(*args: P.args, **kwargs: P.kwargs) -> R:
                step = recording.step_of(function, signature, args, kwargs)
                outcome: R = self.run(*step, **options)
                return outcome

            return call

        return decorate

    def sleep(
        self,
        scope_id: str,
        replay_key: str,
        duration_ms: int,
        *,
        envelope_hash: str | None = None,
        strict: bool = False,
    ) -> None:
        """Sleep until `duration_ms` after this sleep was first begun, by whomever (E-SLEEP-1).

        Replayed before that it sleeps for the rest, after that it returns at once. No claim is
        held meanwhile, and no write lock is taken but to begin and to end it. Raises what
        ``begin_sleep`` raises.
        """
        names = (scope_id, replay_key, duration_ms)
        while True:
            left_ms = self.look_up_sleep(*names, envelope_hash=envelope_hash, strict=strict)
            if left_ms is None:
                left_ms = self.begin_sleep(*names, envelope_hash=envelope_hash, strict=strict)
            if not left_ms:
                return
            self._nap(min(left_ms / 1000, LONGEST_NAP_S))

    def _nap(self, seconds: float) -> None:
        """Sleep, unless the store is closed: whoever looks next is told of that."""
        rung = Bell()
        with self.watch.sleeping(rung.ring):
            self._wait_until_s(rung, monotonic() + seconds)

    def _wait_until_s(self, rung: Bell, until_s: float) -> None:
        while not self.closed and (left_s := until_s - monotonic()) > 0:
            rung.wait(left_s)

    def _run_under(self, step: Step, function: Callable[[], Any]) -> Any:
        found = self._handle.read("look_up_effect", step.look_up)
        while isinstance(found, Busy):
            self._wait_out(step, found)
            found = self._handle.read("look_up_effect", step.look_up)
        if found is not None:
            return step.outcome_of(found)
        check_not_inside(self._key, step)
        outcome, failed, cause = None, None, None
        with Inside(self._key, step, None):
            try:
                outcome = function()
            except Exception as error:
                cause, failed = error, step.error_of(error)
                if failed is None:
                    raise
        record = step.recording(self._context, outcome, failed)
        recorded = self._record_under(step, record)
        if isinstance(recorded, ReplayedFailure):
            raise step.failure(recorded.error) from cause
        return recorded.outcome

    def _record_under(
        self, step: Step, record: Callable[[EffectTx], Any]
    ) -> Replayed | ReplayedFailure:
        persistence = Persistence(step, self.read_clock, None)
        while True:
            try:
                recorded: Replayed | ReplayedFailure | Busy = self._handle.write(
                    "record_effect", record
                )
            except PASSING as error:  # what it gave must not be lost to that
                self._outlast(step, persistence, error)
            except LeaseLostError as lost:
                if not persistence.in_doubt:
                    raise
                return self._look_for(step, persistence, lost)
            else:
                if not isinstance(recorded, Busy):
                    return recorded
                self._wait_out(step, recorded)  # somebody has begun it, without the lease

    def _outlast(self, step: Step, persistence: Persistence, error: Exception) -> None:
        """Wait for what keeps an outcome from being recorded under a lease; raise once it is too late."""
        if isinstance(error, StoreBusyError):
            try:
                # For as long as the lease is live, which may be read.
                self._handle.read("require_lease", step.require_lease)
            except PASSING as unread:  # or not even that
                error = unread
            else:
                time.sleep(left_of_nap_s(error))
                return
        time.sleep(persistence.nap_s(error))

    def _wait_out(self, step: Step, busy: Busy) -> None:
        check_not_inside(self._key, step)
        self._wait_for(step, max(1, busy.retry_at_ms - self.read_clock()))

    def _bring_about(self, step: Step, kept: Kept, function: Callable[[], Any]) -> Any:
        claim = kept.term
        failed: EffectError | None = None
        cause: Exception | None = None
        outcome: Any = None
        try:
            # The function's own errors alone say how the step ended.
            outcome = function()
        except Exception as error:
            cause, failed = error, step.error_of(error)
            if failed is None:
                raise
        finally:
            KEEPER.drop(kept)
        if failed is None:
            return self._record(step, kept, lambda: self.finish_effect(claim, outcome))
        error_of_step = failed
        self._record(step, kept, lambda: self.fail_effect(claim, error_of_step))
        raise step.failure(failed) from cause

    def _begin(self, step: Step, attempt: Attempt) -> EffectClaim | Replayed | ReplayedFailure:
        while True:
            found = self._handle.read("look_up_effect", step.look_up)
            if found is None:  # only now is there something to claim (E-BEGIN-4)
                found = self._handle.write("begin_effect", step.beginning(attempt))
            if not isinstance(found, Busy):
                begun: EffectClaim | Replayed | ReplayedFailure = found
                return begun
            self._wait_out(step, found)

    def _record(self, step: Step, kept: Kept, record: Callable[[], Any]) -> Any:
        """Record an outcome; while it can't be written, try for as long as the claim holds."""
        persistence = Persistence(step, self.read_clock, kept.term)
        while True:
            try:
                return record()
            except PASSING as error:
                time.sleep(persistence.nap_s(error))
            except LeaseLostError as lost:
                if not persistence.in_doubt:
                    raise
                return step.outcome_of(self._look_for(step, persistence, lost))

    def _look_for(
        self, step: Step, persistence: Persistence, lost: LeaseLostError
    ) -> Replayed | ReplayedFailure:
        """Look what is recorded of a step that may have been; `lost` if nothing is."""
        while True:
            try:
                found = self._handle.read("look_up_effect", step.look_up)
            except PASSING as error:
                time.sleep(persistence.nap_s(error))
            else:
                return persistence.recorded(found, lost)

    def _give_back(self, claim: EffectClaim) -> None:
        with suppress(LashStoreError):  # it runs out by itself as well
            self.abandon_effect(claim)
