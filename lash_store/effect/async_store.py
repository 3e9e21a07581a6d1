"""The effect store for asyncio: one line for each operation, and ``run``."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec, Self, TypeVar, Unpack

from lash_store._kernel.checks import check_name, shown
from lash_store._kernel.opening import OpenOptions
from lash_store._kernel.store import (
    AsyncStore,
    in_async_snapshot,
    in_async_transaction,
)
from lash_store._kernel.worker import finish_first
from lash_store.clock import unique_owner_id
from lash_store.effect.records import TTL_MS, Busy, EffectClaim, Replayed, ReplayedFailure
from lash_store.effect.running import (
    AGAIN_S,
    FOR_GOOD,
    LONGEST_NAP_S,
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
from lash_store.effect.store import EffectStore
from lash_store.effect.tx import EffectTx
from lash_store.errors import InvalidRecordError, LashStoreError, StoreBusyError

P = ParamSpec("P")
R = TypeVar("R")


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
    look_up_sleep = in_async_snapshot(EffectTx.look_up_sleep)

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
            function,
            envelope_hash=envelope_hash,
            ttl_ms=ttl_ms,
            terminal=terminal,
            strict=strict,
        )
        held: list[EffectClaim] = []
        try:
            begun = await self._begin(step, held)
            if not isinstance(begun, EffectClaim):
                return step.outcome_of(begun)
            with inside(self._sync()._database.key, step):  # noqa: SLF001 # reason: its own store
                return await self._bring_about(step, begun, function)
        except BaseException:
            if held:  # which changes nothing if it was recorded, or is lost
                await finish_first(self._give_back(held[-1]))
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
        check_recorded(scope_id, replay_key, ttl_ms, terminal, strict)

        def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
            signature = signature_of(function)

            @wraps(function)
            async def call(*args: P.args, **kwargs: P.kwargs) -> R:
                outcome: R = await self.run(
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

    async def sleep(
        self,
        scope_id: str,
        replay_key: str,
        duration_ms: int,
        *,
        envelope_hash: str | None = None,
    ) -> None:
        """Sleep until `duration_ms` after this sleep was first begun; see :meth:`EffectStore.sleep`."""
        names = (scope_id, replay_key, duration_ms)
        while True:
            left_ms = await self.look_up_sleep(*names, envelope_hash=envelope_hash)
            if left_ms is None:
                left_ms = await self.begin_sleep(*names, envelope_hash=envelope_hash)
            if not left_ms:
                return
            await asyncio.sleep(min(left_ms / 1000, LONGEST_NAP_S))

    async def _bring_about(
        self, step: Step, claim: EffectClaim, function: Callable[[], Awaitable[Any]]
    ) -> Any:
        expires = [claim.expires_at_ms]
        renewal = asyncio.create_task(self._renew(step, claim, expires))

        async def settle(record: Callable[[EffectTx], R]) -> R:
            # Stopping the renewal may wait for the write lock: that is part of recording.
            renewal.cancel()
            await asyncio.wait([renewal])
            return await self._record(claim, expires, record)

        outcome: Any = None
        try:
            awaitable = function()
            is_awaitable = inspect.isawaitable(awaitable)
            if is_awaitable:
                outcome = await awaitable
        except Exception as error:
            failed = step.error_of(error)
            if failed is None:
                raise
            await finish_first(settle(lambda tx: tx.fail_effect(claim, failed)))
            raise step.failure(failed) from error
        else:
            if not is_awaitable:
                raise InvalidRecordError("function", shown(function), "must give an awaitable")
            # The outcome is there: cancelling must not lose it.
            return await finish_first(settle(lambda tx: tx.finish_effect(claim, outcome)))
        finally:
            if not renewal.done():
                renewal.cancel()
                await asyncio.wait([renewal])

    async def _begin(
        self, step: Step, held: list[EffectClaim]
    ) -> EffectClaim | Replayed | ReplayedFailure:
        def begin(tx: EffectTx) -> Any:
            begun = step.begin(tx)
            if isinstance(begun, EffectClaim):
                held.append(begun)  # cancelled now, the caller gets nothing, and must know it
            return begun

        while True:
            found: Any = await self.read(step.look_up)
            if found is None:
                found = await self.transact(begin)  # only now is there something to claim
            if not isinstance(found, Busy):
                begun: EffectClaim | Replayed | ReplayedFailure = found
                return begun
            check_not_inside(self._sync()._database.key, step)  # noqa: SLF001 # reason: its own store
            left_ms = max(1, found.retry_at_ms - await self.read(lambda tx: tx.now_ms))
            await self.wait_until(step.is_over, timeout_ms=left_ms)

    async def _renew(self, step: Step, claim: EffectClaim, expires: list[int]) -> None:
        wait_s = step.renew_every_s
        while True:
            await asyncio.sleep(wait_s)
            wait_s = step.renew_every_s
            try:
                renewed = await self.renew_effect(claim, ttl_ms=step.ttl_ms)
            except FOR_GOOD:
                return  # recording the outcome will be refused
            except LashStoreError:
                wait_s = AGAIN_S  # what is in the way may pass before the claim runs out
            else:
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
