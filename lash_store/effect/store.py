"""The effect store: one line for each operation, and ``run``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec, Self, TypeVar, Unpack

from lash_store._kernel.checks import check_name
from lash_store._kernel.connection import StoreConnection
from lash_store._kernel.engine import Database
from lash_store._kernel.opening import OpenOptions, Settings, resolve
from lash_store._kernel.store import (
    Store,
    in_snapshot,
    in_transaction,
)
from lash_store.clock import unique_owner_id
from lash_store.effect.records import (
    TTL_MS,
    Busy,
    EffectClaim,
    EffectError,
    Replayed,
    ReplayedFailure,
)
from lash_store.effect.running import (
    LONGEST_NAP_S,
    Renewal,
    Step,
    Terminal,
    call_envelope,
    check_not_inside,
    check_recorded,
    check_run,
    inside,
    lost_waiting,
    name_of,
    signature_of,
)
from lash_store.effect.tables import SCHEMA
from lash_store.effect.tx import EffectTx
from lash_store.effect.tx.attempts import EffectContext
from lash_store.errors import LashStoreError, StoreBusyError

P = ParamSpec("P")
R = TypeVar("R")


class EffectStore(Store[EffectTx]):
    """The recorded outcomes of a deployment's non-deterministic steps, in one database file.

    Every operation is one transaction; several go together in ``begin()``. The arguments,
    results and errors of each are documented on :class:`EffectTx`.
    """

    owner_id: str
    """Who begins steps through this store."""

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None,
        *,
        owner_id: str | None = None,
        **options: Unpack[OpenOptions],
    ) -> Self:
        """Open the database at `path`, or a private one in memory if it is None.

        `owner_id` says who begins steps through this store; by default it is unique. See
        ``OpenOptions`` for `options`, and ``ProcessRegistry.open`` for what is raised.
        """
        owner = unique_owner_id() if owner_id is None else check_name("owner_id", owner_id)
        settings = Settings(**options)
        context = EffectContext("", settings.clock, settings.ids, owner)

        def make(raw: StoreConnection) -> EffectTx:
            return EffectTx(context, raw, raw.hot)

        store = cls(Database(SCHEMA, resolve(path), settings), make)
        store.owner_id = owner
        return store

    begin_effect = in_transaction(EffectTx.begin_effect)
    look_up_effect = in_snapshot(EffectTx.look_up_effect)
    renew_effect = in_transaction(EffectTx.renew_effect)
    finish_effect = in_transaction(EffectTx.finish_effect)
    fail_effect = in_transaction(EffectTx.fail_effect)
    abandon_effect = in_transaction(EffectTx.abandon_effect)
    begin_sleep = in_transaction(EffectTx.begin_sleep)
    look_up_sleep = in_snapshot(EffectTx.look_up_sleep)

    list_effects = in_snapshot(EffectTx.list_effects)
    count_effects = in_snapshot(EffectTx.count_effects)
    oldest_in_progress_ms = in_snapshot(EffectTx.oldest_in_progress_ms)
    forget_scope = in_transaction(EffectTx.forget_scope)
    prune_effects = in_transaction(EffectTx.prune_effects)

    def run(
        self,
        scope_id: str,
        replay_key: str,
        envelope: Any,
        function: Callable[[], Any],
        *,
        envelope_hash: str | None = None,
        ttl_ms: int = TTL_MS,
        terminal: Terminal = (),
        strict: bool = False,
    ) -> Any:
        """Call `function` once, record what it gives, and replay that ever after (E-RUN-1).

        Of several callers, in threads or processes, one calls it; the others wait, and all get
        the outcome as it was recorded: JSON. While it runs, the claim is renewed every third of
        `ttl_ms`. A process that dies in the middle is taken over after at most `ttl_ms`, and the
        function is called again (E-RUN-2).

        An exception that is an EffectFailedError, or one of `terminal`, is recorded: it and every
        replay raise EffectFailedError. Any other gives the step back for the next attempt, and is
        raised as it is (E-FIN-2). Raises LeaseLostError, with nothing recorded, if the claim was
        lost while the function ran; InvalidRecordError if it gave what is no JSON; and what
        ``begin_effect`` raises.
        """
        step = check_run(
            scope_id,
            replay_key,
            envelope,
            function,
            envelope_hash=envelope_hash,
            ttl_ms=ttl_ms,
            terminal=terminal,
            strict=strict,
        )
        begun = self._begin(step)
        if not isinstance(begun, EffectClaim):
            return step.outcome_of(begun)
        claimed_by = os.getpid()
        try:
            with inside(self._database.key, step):
                return self._bring_about(step, begun, function)
        except BaseException:
            if os.getpid() == claimed_by:  # in a child that the function forked it is the parent's
                self._give_back(begun)  # which changes nothing if it was recorded, or is lost
            raise

    def recorded(
        self,
        scope_id: str | Callable[..., str],
        replay_key: str | Callable[..., str],
        *,
        ttl_ms: int = TTL_MS,
        terminal: Terminal = (),
        strict: bool = False,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Make calls of a function steps that are run once: the decorator form of ``run``.

        Scope and key are given, or made by functions of the call's own arguments. The envelope is
        the function's name and its arguments by name, defaults included, which have to be JSON; so
        a method, whose `self` is none, is not for it. What comes back is what was recorded: a
        tuple comes back as a list. Raises InvalidRecordError for bad arguments at once.
        """
        check_recorded(scope_id, replay_key, ttl_ms, terminal, strict)

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            signature = signature_of(function)

            @wraps(function)
            def call(*args: P.args, **kwargs: P.kwargs) -> R:
                outcome: R = self.run(
                    name_of(scope_id, args, kwargs),
                    name_of(replay_key, args, kwargs),
                    call_envelope(function, signature, args, kwargs),
                    lambda: function(*args, **kwargs),
                    ttl_ms=ttl_ms,
                    terminal=terminal,
                    strict=strict,
                )
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
    ) -> None:
        """Sleep until `duration_ms` after this sleep was first begun, by whomever (E-SLEEP-1).

        Replayed before that it sleeps for the rest, after that it returns at once. No claim is
        held meanwhile, and no write lock is taken but to begin and to end it. Raises what
        ``begin_sleep`` raises.
        """
        names = (scope_id, replay_key, duration_ms)
        while True:
            left_ms = self.look_up_sleep(*names, envelope_hash=envelope_hash)
            if left_ms is None:
                left_ms = self.begin_sleep(*names, envelope_hash=envelope_hash)
            if not left_ms:
                return
            time.sleep(min(left_ms / 1000, LONGEST_NAP_S))

    def _bring_about(self, step: Step, claim: EffectClaim, function: Callable[[], Any]) -> Any:
        ttl_ms = step.ttl_ms
        renewal = Renewal(step, claim, lambda held: self.renew_effect(held, ttl_ms=ttl_ms))
        failed: EffectError | None = None
        cause: Exception | None = None
        outcome: Any = None
        with renewal:
            # The function's own errors alone say how the step ended.
            try:
                outcome = function()
            except Exception as error:
                cause, failed = error, step.error_of(error)
                if failed is None:
                    raise
        if failed is None:
            return self._record(renewal, lambda: self.finish_effect(claim, outcome))
        error_of_step = failed
        self._record(renewal, lambda: self.fail_effect(claim, error_of_step))
        raise step.failure(failed) from cause

    def _begin(self, step: Step) -> EffectClaim | Replayed | ReplayedFailure:
        while True:
            with self.read() as tx:
                found: Any = step.look_up(tx)
            if found is None:
                with self.begin() as tx:  # only now is there something to claim (E-BEGIN-4)
                    found = step.begin(tx)
            if not isinstance(found, Busy):
                begun: EffectClaim | Replayed | ReplayedFailure = found
                return begun
            check_not_inside(self._database.key, step)
            left_ms = max(1, found.retry_at_ms - self._now_ms())
            self.wait_until(step.is_over, timeout_ms=left_ms)

    def _record(self, renewal: Renewal, record: Callable[[], R]) -> R:
        """Record an outcome; while the write lock can't be had, try for as long as the claim holds."""
        while True:
            try:
                return record()
            except StoreBusyError as error:
                if self._now_ms() >= renewal.claim.expires_at_ms:
                    raise lost_waiting(renewal.claim, error) from error

    def _give_back(self, claim: EffectClaim) -> None:
        with suppress(LashStoreError):  # it runs out by itself as well
            self.abandon_effect(claim)

    def _now_ms(self) -> int:
        return self._database.settings.clock.now_ms()
