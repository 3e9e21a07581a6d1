"""The effect store for asyncio: opening, and running a step once."""

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial, wraps
from time import monotonic
from typing import Any, Final, ParamSpec, Self, TypeVar, Unpack

from lash_store._backends import absolute
from lash_store._kernel.checks import check_name
from lash_store._kernel.jobs import on_library_thread
from lash_store._kernel.keeping import KEEPER
from lash_store._kernel.kept import Kept
from lash_store._kernel.later import do_later
from lash_store._kernel.options import OpenOptions
from lash_store._kernel.steady import steady_ms
from lash_store._stores.async_store import AsyncStore
from lash_store._stores.cancelling import finish_first, lane_of
from lash_store._stores.store import Store
from lash_store.clock import unique_owner_id
from lash_store.effect.cancelling import Ending, nap_through
from lash_store.effect.operations import EffectOperations
from lash_store.effect.operations.attempts import abandon_effect, fail_effect, finish_effect
from lash_store.effect.recording import Recording, signature_of
from lash_store.effect.records import Busy, EffectClaim, Replayed, ReplayedFailure
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
from lash_store.effect.store import EffectStore
from lash_store.effect.tx import EffectTx
from lash_store.errors import (
    LashStoreError,
    LeaseLostError,
    NestedTransactionError,
    StoreBusyError,
    StoreClosedError,
)

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
        there = absolute(path)
        store = cls(lambda **more: EffectStore.open(there, owner_id=owner, **{**options, **more}))
        store._lane = lane_of(there, options)
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

        As :meth:`EffectStore.run`. Cancelled while the function runs, it cancels the function and gives
        the step back for the next attempt. A claim that is found lost at a renewal cancels the
        function as well, and LeaseLostError is raised (E-RUN-4).

        What `function` gives is recorded as it is if there is nothing to await: it has been called by then.
        """
        step = check_run(scope_id, replay_key, envelope, function, **options)
        if step.under is not None:
            return await self._run_under(step, function)
        attempt = Attempt()
        try:
            begun = await self._begin(step, attempt)
            if not isinstance(begun, EffectClaim):
                return step.outcome_of(begun)
            kept = keep_step(self._store, step, begun, attempt.sent_ms)
            kept.loop = asyncio.get_running_loop()
            with Inside(self._key, step, kept):
                return await self._bring_about(step, kept, function)
        except GeneratorExit:  # its coroutine is thrown away, and can't await anything
            claim = attempt.leave()
            if claim is not None and self._store is not None:
                self._give_back_soon(claim)
            raise
        except BaseException:
            claim = attempt.leave()
            if claim is not None:
                await finish_first(self._give_back(claim))
            raise

    def recorded(
        self,
        scope_id: str | Callable[..., str],
        replay_key: str | Callable[..., str],
        **options: Unpack[RecordedOptions],
    ) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]]:
        """Make calls of a coroutine function steps; see :meth:`EffectStore.recorded`."""
        recording = Recording(scope_id, replay_key, options)

        def decorate(
            function: Callable[P, Awaitable[R]],
        ) -> Callable[P, Coroutine[Any, Any, R]]:
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
        strict: bool = False,
    ) -> None:
        """Sleep until `duration_ms` after this sleep was first begun; see :meth:`EffectStore.sleep`."""
        names = (scope_id, replay_key, duration_ms)
        while True:
            left_ms = await self.look_up_sleep(*names, envelope_hash=envelope_hash, strict=strict)
            if left_ms is None:
                left_ms = await self.begin_sleep(*names, envelope_hash=envelope_hash, strict=strict)
            if not left_ms:
                return
            await self._nap(min(left_ms / 1000, LONGEST_NAP_S))

    async def _nap(self, seconds: float) -> None:
        store = self._store or await self._opened()
        loop, rung = asyncio.get_running_loop(), asyncio.Event()

        def ring() -> None:
            with suppress(RuntimeError):  # the loop has been closed in the meantime
                loop.call_soon_threadsafe(rung.set)

        with store.watch.sleeping(ring):
            await _until(store, rung, monotonic() + seconds)

    async def _run_under(self, step: Step, function: Callable[[], Awaitable[Any]]) -> Any:
        store = self._store or await self._opened()
        handle = store._handle  # noqa: SLF001 # reason: its own store
        found: Any = await handle.submit_read("look_up_effect", step.look_up)
        while isinstance(found, Busy):
            await self._wait_out(step, found)
            found = await handle.submit_read("look_up_effect", step.look_up)
        if found is not None:
            return step.outcome_of(found)
        check_not_inside(self._key, step)
        outcome, failed, cause = None, None, None
        with Inside(self._key, step, None):
            try:
                given = function()
                outcome = await given if inspect.isawaitable(given) else given
            except Exception as error:
                cause, failed = error, step.error_of(error)
                if failed is None:
                    raise
        record = step.recording(store._context, outcome, failed)  # noqa: SLF001 # reason: its own store

        def submit() -> Awaitable[Any]:
            return handle.submit_write("record_effect", record, is_kept=True)

        # Who goes on with the step has an outcome of its own: waiting for that can be cancelled.
        while isinstance(recorded := await finish_first(self._record_under(step, submit)), Busy):
            await self._wait_out(step, recorded)
        if isinstance(recorded, ReplayedFailure):
            raise step.failure(recorded.error) from cause
        return recorded.outcome

    async def _record_under(self, step: Step, submit: Callable[[], Awaitable[Any]]) -> Any:
        """Record what a step gave; not even the end of the event loop, which cancels all that is left, loses it.

        Busy if somebody is at the step who has begun it meanwhile, without the lease, and goes on renewing that.
        """
        has_waited = False
        assert self._store is not None  # which has looked
        persistence = Persistence(step, self._store.read_clock, None)
        while True:
            # Cancelled, it tries again: what was on its way by then is recorded, and is what comes back.
            with suppress(asyncio.CancelledError):
                recorded = await self._recorded(step, persistence, submit)
                if has_waited or not isinstance(recorded, Busy):
                    return recorded
                await self._wait_out(step, recorded)
                has_waited = True

    async def _outlast(self, step: Step, persistence: Persistence, error: Exception) -> None:
        """Wait for what keeps an outcome from being recorded; raise once it is too late."""
        if step.under is not None and isinstance(error, StoreBusyError):
            store: Any = self._store
            try:
                # For as long as the lease is live, which may be read.
                await store._handle.submit_read("require_lease", step.require_lease)  # noqa: SLF001 # reason: its own store
            except (*_PASSING, asyncio.CancelledError) as unread:  # or not even that
                error = error if isinstance(unread, asyncio.CancelledError) else unread
            else:
                await nap_through(left_of_nap_s(error))
                return
        await nap_through(persistence.nap_s(error))

    async def _wait_out(self, step: Step, busy: Busy) -> None:
        check_not_inside(self._key, step)
        assert self._store is not None  # which has found that
        left_ms = max(1, busy.retry_at_ms - self._store.read_clock())
        await self._wait_for("look_up_effect", step, left_ms)

    @property
    def _key(self) -> str:
        assert self._store is not None  # a step has been begun
        return self._store._key  # noqa: SLF001 # reason: its own store

    async def _bring_about(
        self, step: Step, kept: Kept, function: Callable[[], Awaitable[Any]]
    ) -> Any:
        outcome: Any = None
        ending = Ending(kept)
        try:
            given = function()
            outcome = await given if inspect.isawaitable(given) else given
        except asyncio.CancelledError:
            if ending.is_ours():
                error = kept.error()
                raise error from error.__cause__  # not from the cancelling
            raise
        except Exception as error:
            failed = step.error_of(error)
            ending.is_ours()  # the function has made another error of it: the claim is lost
            if failed is None:
                raise
            await self._record(step, kept, "fail_effect", fail_effect, failed)
            raise step.failure(failed) from error
        else:
            ending.is_ours()  # or it has passed over it; recording will be refused
            return await self._record(step, kept, "finish_effect", finish_effect, outcome)
        finally:
            ending.is_ours()  # whatever ends it: nobody is cancelled for it from now on
            KEEPER.drop(kept)

    async def _begin(
        self, step: Step, attempt: Attempt
    ) -> EffectClaim | Replayed | ReplayedFailure:
        store = self._store or await self._opened()
        check_not_inside(self._key, step)
        handle, clock = store._handle, store._context.clock  # noqa: SLF001 # reason: its own store
        is_late = False
        while True:
            found: Any = await handle.submit_read(
                "look_up_effect",
                step.look_up,
                write_instead=("begin_effect", step.beginning(attempt)),
            )
            if not isinstance(found, Busy):
                until_ms = attempt.sent_ms + step.ttl_ms
                if is_late or not isinstance(found, EffectClaim) or steady_ms(clock) < until_ms:
                    begun: EffectClaim | Replayed | ReplayedFailure = found
                    return begun
                is_late = True  # the loop was kept from going on: once more it claims
                continue
            await self._wait_out(step, found)

    async def _record(
        self, step: Step, kept: Kept, operation: str, function: Callable[..., Any], outcome: Any
    ) -> Any:
        assert self._store is not None  # a step has been begun
        KEEPER.drop(kept)
        store = self._store
        work = function(store._context, kept.term, outcome)  # noqa: SLF001 # reason: its own store

        async def submit() -> Any:
            try:
                return await store._handle.submit_write(operation, work, is_kept=True)  # noqa: SLF001 # reason: its own store
            except StoreClosedError:
                # As the step ran: what it gave is there, and its claim as well.
                anew = self._anew(operation, lambda at: function(at, kept.term, outcome))
                if anew is None:
                    raise
                return await finish_first(on_library_thread(anew))

        persistence = Persistence(step, store.read_clock, kept.term)
        recorded = await self._recorded(step, persistence, submit)
        if isinstance(recorded, Replayed | ReplayedFailure):  # it was in doubt, and looked for
            return step.outcome_of(recorded)
        return recorded

    async def _recorded(
        self, step: Step, persistence: Persistence, submit: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Record what a step gave, even if the caller is cancelled: it is there, and may not be lost."""
        try:
            return await submit()
        except _PASSING as error:
            return await finish_first(self._persist(step, persistence, submit, error))
        except asyncio.CancelledError as cancelled:
            if isinstance(cancelled.__cause__, _PASSING):
                await finish_first(self._persist(step, persistence, submit, cancelled.__cause__))
            raise

    async def _persist(
        self,
        step: Step,
        persistence: Persistence,
        submit: Callable[[], Awaitable[Any]],
        error: Exception,
    ) -> Any:
        """Try again to record an outcome; if that is refused after one that is in doubt, look what is recorded.

        Even the end of the event loop, which cancels all that is left, waits for it.
        """
        store: Any = self._store
        lost: LeaseLostError | None = None
        while True:
            await self._outlast(step, persistence, error)
            try:
                if lost is None:
                    return await submit()
                found = await store._handle.submit_read("look_up_effect", step.look_up)  # noqa: SLF001 # reason: its own store
                return persistence.recorded(found, lost)
            except _PASSING as again:
                error = again
            except asyncio.CancelledError as cancelled:
                if not isinstance(cancelled.__cause__, _PASSING):
                    raise
                error = cancelled.__cause__
            except LeaseLostError as refused:
                if lost is not None or not persistence.in_doubt:
                    raise
                lost = refused

    async def _give_back(self, claim: EffectClaim) -> None:
        with suppress(LashStoreError):  # it runs out by itself as well
            try:
                await self.abandon_effect(claim)
            except NestedTransactionError:  # another task's, on the same thread
                self._give_back_soon(claim)
            except StoreClosedError:
                # Before its tasks were cancelled, as leaving `async with` does.
                await self._write_anew("abandon_effect", partial(abandon_effect, claim=claim))

    def _give_back_soon(self, claim: EffectClaim) -> None:
        store: Any = self._store
        do_later(
            store._handle,  # noqa: SLF001 # reason: its own store
            "abandon_effect",
            abandon_effect(store._context, claim),  # noqa: SLF001 # reason: likewise
            anew=self._anew("abandon_effect", partial(abandon_effect, claim=claim)),
            failed=lambda _: None,  # it runs out by itself as well
        )


_PASSING: Final = (*PASSING, NestedTransactionError)
"""What passes here as well: a transaction that another task has begun on the loop's own thread."""


async def _until(store: Store[EffectTx], rung: asyncio.Event, until_s: float) -> None:
    """Wait until then, or until it is rung as the store is closed."""
    while not store.closed and (left_s := until_s - monotonic()) > 0:
        rung.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                await rung.wait()
