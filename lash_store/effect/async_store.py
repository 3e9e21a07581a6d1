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
from lash_store._stores.cancelling import finish_first
from lash_store._stores.store import Store
from lash_store.clock import unique_owner_id
from lash_store.effect.operations import EffectOperations
from lash_store.effect.operations.attempts import fail_effect, finish_effect
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

    _described_by = ("owner_id",)

    owner_id: str

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | Store[Any] | None,
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
            with inside(self._key, step):
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

    @property
    def _key(self) -> str:
        assert self._store is not None  # a step has been begun
        return self._store._key  # noqa: SLF001 # reason: its own store

    async def _bring_about(
        self, step: Step, claim: EffectClaim, function: Callable[[], Awaitable[Any]]
    ) -> Any:
        renewal = _Renewal(self, step, claim)
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
            await self._record(renewal, "fail_effect", fail_effect, failed)
            raise step.failure(failed) from error
        else:
            if not is_awaitable:
                raise InvalidRecordError("function", shown(function), "must give an awaitable")
            return await self._record(renewal, "finish_effect", finish_effect, outcome)
        finally:
            await renewal.stop()

    async def _begin(
        self, step: Step, held: list[EffectClaim]
    ) -> EffectClaim | Replayed | ReplayedFailure:
        def begin(tx: EffectTx) -> Any:
            begun = step.begin(tx)
            if isinstance(begun, EffectClaim):
                held.append(begun)  # cancelled now, the caller gets nothing, and must know it
            return begun

        handle = (self._store or await self._opened())._handle  # noqa: SLF001 # reason: its own store
        while True:
            found: Any = await handle.submit_read(
                "look_up_effect", step.look_up, write_instead=("begin_effect", begin)
            )
            if not isinstance(found, Busy):
                begun: EffectClaim | Replayed | ReplayedFailure = found
                return begun
            check_not_inside(self._key, step)
            left_ms = max(1, found.retry_at_ms - self._now_ms())
            await self._wait_for("look_up_effect", step, left_ms)

    def _now_ms(self) -> int:
        assert self._store is not None
        return self._store._context.clock.now_ms()  # noqa: SLF001 # reason: its own store

    async def _record(
        self, renewal: "_Renewal", operation: str, function: Callable[..., Any], outcome: Any
    ) -> Any:
        """Record what a step gave, even if the caller is cancelled: it is there, and may not be lost."""
        assert self._store is not None  # a step has been begun
        store = self._store
        work = function(store._context, renewal.claim, outcome)  # noqa: SLF001 # reason: its own store

        def submit() -> Awaitable[Any]:
            return store._handle.submit_write(operation, work, is_kept=True)  # noqa: SLF001 # reason: its own store

        async def go_on() -> Any:
            # Stopping the renewal may wait for the write lock: that is part of recording.
            await renewal.stop()
            while True:
                try:
                    return await submit()
                except StoreBusyError as error:
                    if is_over(renewal.claim.expires_at_ms, now_ms=self._now_ms()):
                        raise lost_waiting(renewal.claim, error) from error

        if not renewal.stop_at_once():
            return await finish_first(go_on())
        try:
            return await submit()
        except StoreBusyError:
            return await finish_first(go_on())
        except asyncio.CancelledError as cancelled:
            if isinstance(cancelled.__cause__, StoreBusyError):
                await finish_first(go_on())
            raise

    async def _give_back(self, claim: EffectClaim) -> None:
        with suppress(LashStoreError):  # it runs out by itself as well
            await self.abandon_effect(claim)


class _Renewal:
    """Renews a claim until it is told to stop, or finds the claim lost.

    It is a task only once there is something to renew: most steps are over before.
    """

    def __init__(self, store: AsyncEffectStore, step: Step, claim: EffectClaim) -> None:
        self._store = store
        self._step = step
        self.claim = claim
        """The claim as it was last renewed."""
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.call_later(step.renew_every_s, self._start)
        self._task: asyncio.Task[None] | None = None

    def stop_at_once(self) -> bool:
        """Renew no more; False if a renewal has begun, and has to end first."""
        self._due.cancel()
        return self._task is None or self._task.done()

    async def stop(self) -> None:
        """Renew no more; what has begun ends first."""
        self._due.cancel()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    def _start(self) -> None:
        self._task = self._loop.create_task(self._renew())

    async def _renew(self) -> None:
        step = self._step
        while True:
            wait_s = step.renew_every_s
            try:
                self.claim = await self._store.renew_effect(self.claim, ttl_ms=step.ttl_ms)
            except FOR_GOOD:
                return  # recording the outcome will be refused
            except LashStoreError:
                wait_s = AGAIN_S  # what is in the way may pass before the claim runs out
            await asyncio.sleep(wait_s)
