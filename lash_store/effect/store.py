"""The effect store's facades: sync and asyncio, one line for each operation, and ``run``."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec, Self, TypeVar, Unpack

from lash_store._kernel.checks import check_name
from lash_store._kernel.connection import StoreConnection
from lash_store._kernel.engine import Database
from lash_store._kernel.opening import OpenOptions, Settings, resolve
from lash_store._kernel.store import (
    AsyncStore,
    Store,
    in_async_snapshot,
    in_async_transaction,
    in_snapshot,
    in_transaction,
)
from lash_store.clock import unique_owner_id
from lash_store.effect.records import TTL_MS, Busy, EffectClaim, Replayed, ReplayedFailure
from lash_store.effect.running import (
    Renewal,
    Step,
    Terminal,
    call_envelope,
    check_run,
    lost_waiting,
    name_of,
)
from lash_store.effect.tables import SCHEMA
from lash_store.effect.tx import EffectTx
from lash_store.effect.tx.attempts import EffectContext
from lash_store.errors import InvalidRecordError, LashStoreError, StoreBusyError

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
            envelope_hash=envelope_hash,
            ttl_ms=ttl_ms,
            terminal=terminal,
            strict=strict,
        )
        begun = self._begin(step)
        if not isinstance(begun, EffectClaim):
            return step.outcome_of(begun)
        renewal = Renewal(step, begun, lambda claim: self.renew_effect(claim, ttl_ms=ttl_ms))
        try:
            with renewal:
                outcome = function()
        except Exception as error:
            failed = step.error_of(error)
            if failed is None:
                self._give_back(begun)
                raise
            self._record(renewal, lambda: self.fail_effect(begun, failed))
            raise step.failure(failed) from error
        except BaseException:
            self._give_back(begun)
            raise
        try:
            return self._record(renewal, lambda: self.finish_effect(begun, outcome))
        except InvalidRecordError:
            self._give_back(begun)
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
        the function's name and the arguments, which have to be JSON, as is what it returns.
        """

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            @wraps(function)
            def call(*args: P.args, **kwargs: P.kwargs) -> R:
                outcome: R = self.run(
                    name_of(scope_id, args, kwargs),
                    name_of(replay_key, args, kwargs),
                    call_envelope(function, args, kwargs),
                    lambda: function(*args, **kwargs),
                    ttl_ms=ttl_ms,
                    terminal=terminal,
                    strict=strict,
                )
                return outcome

            return call

        return decorate

    def sleep(self, scope_id: str, replay_key: str, duration_ms: int) -> None:
        """Sleep until `duration_ms` after this sleep was first begun, by whomever (E-SLEEP-1).

        Replayed before that it sleeps for the rest, after that it returns at once. No claim is
        held meanwhile. Raises what ``begin_sleep`` raises.
        """
        while left_ms := self.begin_sleep(scope_id, replay_key, duration_ms):
            time.sleep(left_ms / 1000)

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


class AsyncEffectStore(AsyncStore[EffectTx]):
    """:class:`EffectStore` for asyncio: the same operations, as coroutines."""

    owner_id: str

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None,
        *,
        owner_id: str | None = None,
        **options: Unpack[OpenOptions],
    ) -> Self:
        """Make a store that ``async with`` or ``await`` opens, as :meth:`EffectStore.open` does."""
        owner = unique_owner_id() if owner_id is None else check_name("owner_id", owner_id)
        store = cls(lambda: EffectStore.open(path, owner_id=owner, **options))
        store.owner_id = owner
        return store

    begin_effect = in_async_transaction(EffectTx.begin_effect)
    look_up_effect = in_async_snapshot(EffectTx.look_up_effect)
    renew_effect = in_async_transaction(EffectTx.renew_effect)
    finish_effect = in_async_transaction(EffectTx.finish_effect)
    fail_effect = in_async_transaction(EffectTx.fail_effect)
    abandon_effect = in_async_transaction(EffectTx.abandon_effect)
    begin_sleep = in_async_transaction(EffectTx.begin_sleep)

    list_effects = in_async_snapshot(EffectTx.list_effects)
    count_effects = in_async_snapshot(EffectTx.count_effects)
    oldest_in_progress_ms = in_async_snapshot(EffectTx.oldest_in_progress_ms)
    forget_scope = in_async_transaction(EffectTx.forget_scope)
    prune_effects = in_async_transaction(EffectTx.prune_effects)

    async def run(
        self,
        scope_id: str,
        replay_key: str,
        envelope: Any,
        function: Callable[[], Awaitable[Any]],
        *,
        envelope_hash: str | None = None,
        ttl_ms: int = TTL_MS,
        terminal: Terminal = (),
        strict: bool = False,
    ) -> Any:
        """Await `function` once, record what it gives, and replay that ever after.

        As :meth:`EffectStore.run`; the claim is renewed by a task. Cancelled while the function
        runs, it cancels the function and gives the step back for the next attempt.
        """
        step = check_run(
            scope_id,
            replay_key,
            envelope,
            envelope_hash=envelope_hash,
            ttl_ms=ttl_ms,
            terminal=terminal,
            strict=strict,
        )
        begun = await self._begin(step)
        if not isinstance(begun, EffectClaim):
            return step.outcome_of(begun)
        expires = [begun.expires_at_ms]
        renewal = asyncio.create_task(self._renew(step, begun, expires))
        try:
            try:
                outcome = await function()
            finally:
                renewal.cancel()
                await asyncio.wait([renewal])
        except Exception as error:
            failed = step.error_of(error)
            if failed is None:
                await self._give_back(begun)
                raise
            await self._record(begun, expires, lambda tx: tx.fail_effect(begun, failed))
            raise step.failure(failed) from error
        except BaseException:
            await asyncio.shield(self._give_back(begun))
            raise
        try:
            return await self._record(begun, expires, lambda tx: tx.finish_effect(begun, outcome))
        except InvalidRecordError:
            await self._give_back(begun)
            raise

    def recorded(
        self,
        scope_id: str | Callable[..., str],
        replay_key: str | Callable[..., str],
        *,
        ttl_ms: int = TTL_MS,
        terminal: Terminal = (),
        strict: bool = False,
    ) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
        """Make calls of a coroutine function steps; see :meth:`EffectStore.recorded`."""

        def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
            @wraps(function)
            async def call(*args: P.args, **kwargs: P.kwargs) -> R:
                outcome: R = await self.run(
                    name_of(scope_id, args, kwargs),
                    name_of(replay_key, args, kwargs),
                    call_envelope(function, args, kwargs),
                    lambda: function(*args, **kwargs),
                    ttl_ms=ttl_ms,
                    terminal=terminal,
                    strict=strict,
                )
                return outcome

            return call

        return decorate

    async def sleep(self, scope_id: str, replay_key: str, duration_ms: int) -> None:
        """Sleep until `duration_ms` after this sleep was first begun; see :meth:`EffectStore.sleep`."""
        while left_ms := await self.begin_sleep(scope_id, replay_key, duration_ms):  # noqa: ASYNC110 # reason: nothing but time ends it
            await asyncio.sleep(left_ms / 1000)

    async def _begin(self, step: Step) -> EffectClaim | Replayed | ReplayedFailure:
        while True:
            found: Any = await self.read(step.look_up)
            if found is None:
                found = await self.transact(step.begin)  # only now is there something to claim
            if not isinstance(found, Busy):
                begun: EffectClaim | Replayed | ReplayedFailure = found
                return begun
            left_ms = max(1, found.retry_at_ms - await self.read(lambda tx: tx.now_ms))
            await self.wait_until(step.is_over, timeout_ms=left_ms)

    async def _renew(self, step: Step, claim: EffectClaim, expires: list[int]) -> None:
        while True:
            await asyncio.sleep(step.renew_every_s)
            try:
                renewed = await self.renew_effect(claim, ttl_ms=step.ttl_ms)
            except StoreBusyError:
                continue  # the next try may come in time
            except LashStoreError:
                return  # lost, or closed: recording the outcome will be refused
            expires[0] = renewed.expires_at_ms

    async def _record(
        self, claim: EffectClaim, expires: list[int], record: Callable[[EffectTx], R]
    ) -> R:
        while True:
            try:
                return await self.transact(record)
            except StoreBusyError as error:
                if await self.read(lambda tx: tx.now_ms) >= expires[0]:
                    raise lost_waiting(claim, error) from error

    async def _give_back(self, claim: EffectClaim) -> None:
        with suppress(LashStoreError):  # it runs out by itself as well
            await self.abandon_effect(claim)
