"""The effect store for asyncio: opening, and running a step once."""

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec, Self, TypeVar, Unpack

from lash_store._kernel.checks import check_name, shown
from lash_store._kernel.liveness import is_over
from lash_store._kernel.options import OpenOptions
from lash_store._stores.async_store import AsyncStore
from lash_store._stores.worker import finish_first
from lash_store.clock import unique_owner_id
from lash_store.effect.operations import EffectOperations
from lash_store.effect.records import Busy, EffectClaim, Replayed, ReplayedFailure
from lash_store.effect.running import (
    AGAIN_S,
    FOR_GOOD,
    LONGEST_NAP_S,
    RecordedOptions,
    Recording,
    Step,
    StepOptions,
    check_not_inside,
    check_run,
    inside,
    lost_waiting,
    signature_of,
)
from lash_store.effect.store import EffectStore
from lash_store.effect.tx import EffectTx
from lash_store.errors import InvalidRecordError, LashStoreError, StoreBusyError

P = ParamSpec("P")
R = TypeVar("R")


class AsyncEffectStore(EffectOperations, AsyncStore[EffectTx]):
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

    async def run(
        self,
        scope_id: str,
        replay_key: str,
        envelope: Any,
        function: Callable[[], Awaitable[Any]],
        **options: Unpack[StepOptions],
    ) -> Any:
        """Await `function` once, record what it gives, and replay that ever after.

        As :meth:`EffectStore.run`; the claim is renewed by a task. Cancelled while the function
        runs, it cancels the function and gives the step back for the next attempt.
        """
        step = check_run(scope_id, replay_key, envelope, function, **options)
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
        **options: Unpack[RecordedOptions],
    ) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
        """Make calls of a coroutine function steps; see :meth:`EffectStore.recorded`."""
        recording = Recording(scope_id, replay_key, options)

        def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
            signature = signature_of(function)

            @wraps(function)
            async def call(*args: P.args, **kwargs: P.kwargs) -> R:
                step = recording.step_of(function, signature, args, kwargs)
                outcome: R = await self.run(*step, **options)
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
            check_not_inside(self._sync()._key, step)  # noqa: SLF001 # reason: its own store
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
                if is_over(expires[0], now_ms=await self.read(lambda tx: tx.now_ms)):
                    raise lost_waiting(claim, error) from error

    async def _give_back(self, claim: EffectClaim) -> None:
        with suppress(LashStoreError):  # it runs out by itself as well
            await self.abandon_effect(claim)
