"""One list of operations for a store's Tx, its sync facade and its asyncio facade.

An operation is written once, in two steps: a function of the store's context and the call's
arguments, which checks and encodes them and returns its *work*, a function of the transaction.
The first step is taken by the caller, before anything waits for a lock; the second may run on
another thread, together with other calls, and more than once, so it uses nothing but values::

    def forget_attachment(context: Context, attachment_id: str) -> Work[bool]:
        name = check_name("attachment_id", attachment_id)
        return lambda tx: statements.forget_attachment.run(tx.cursor, attachment_id=name) == 1

A store lists its operations in one class, from which its Tx and both facades inherit::

    class TriggerOperations(Operations):
        redeliver = writes(deliveries.redeliver)
        list_deliveries = reads(deliveries.list_deliveries)

    class TriggerTx(TriggerOperations, DeploymentTx): ...
    class TriggerStore(TriggerOperations, DeploymentStore[TriggerTx]): ...
    class AsyncTriggerStore(TriggerOperations, AsyncDeploymentStore[TriggerTx]): ...

On the Tx the name is both steps at once, as a method. On a store it is one transaction, or one
snapshot, for each call, and on an asyncio store the same as a coroutine. Names, arguments,
results and documentation are those of the function, for type checkers and at run time alike.
"""

import inspect
from collections.abc import Callable, Coroutine
from functools import cached_property, wraps
from typing import (
    Any,
    ClassVar,
    Concatenate,
    Generic,
    ParamSpec,
    TypeVar,
    get_args,
    get_type_hints,
    overload,
)

from lash_store._kernel.checks import shown
from lash_store._stores.async_store import AsyncStore
from lash_store._stores.store import Store
from lash_store._stores.tx import Context, Tx
from lash_store.errors import InvalidRecordError

C = TypeVar("C", bound=Context)
T = TypeVar("T", bound=Tx[Any])
P = ParamSpec("P")
R = TypeVar("R")


class Operation(Generic[T, P, R]):
    """One operation in a store's list; each class that inherits it gets a function in its place."""

    def __init__(
        self, function: Callable[Concatenate[C, P], Callable[[T], R]], *, writes: bool
    ) -> None:
        self.function: Callable[..., Callable[[T], R]] = function
        self.writes = writes

    @overload
    def __get__(self, instance: T, owner: Any) -> Callable[P, R]: ...
    @overload
    def __get__(self, instance: Store[T], owner: Any) -> Callable[P, R]: ...
    @overload
    def __get__(
        self, instance: AsyncStore[T], owner: Any
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(
        self, instance: None, owner: type[AsyncStore[Any]]
    ) -> Callable[Concatenate[AsyncStore[T], P], Coroutine[Any, Any, R]]: ...
    @overload
    def __get__(
        self, instance: None, owner: type[Store[Any]]
    ) -> Callable[Concatenate[Store[T], P], R]: ...
    @overload
    def __get__(self, instance: None, owner: type[Tx[Any]]) -> Callable[Concatenate[T, P], R]: ...
    def __get__(self, instance: Any, owner: Any) -> Any:
        """Tell type checkers what stands here; at run time only the list itself gets this far."""
        return self

    @cached_property
    def signature(self) -> inspect.Signature:
        """What a call of it looks like: the arguments of the first step, the result of the second."""
        signature = inspect.signature(self.function)
        _, *parameters = signature.parameters.values()
        this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        work = get_type_hints(self.function)["return"]
        *_, result = get_args(work)  # a work is a Callable[[Tx], result]
        return signature.replace(parameters=[this, *parameters], return_annotation=result)

    def as_method(self) -> Callable[..., R]:
        """Return both steps at once, as something that a class binds."""
        function = self.function

        @wraps(function)
        def method(tx: T, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return function(tx.context, *args, **kwargs)(tx)

        return method

    def on_store(self, name: str) -> Callable[..., R]:
        """Return the one-call method of a store: a transaction, or a snapshot, for each call."""
        function, writes = self.function, self.writes

        @wraps(function)
        def call(store: Store[T], /, *args: P.args, **kwargs: P.kwargs) -> R:
            work = function(store._context, *args, **kwargs)
            handle = store._handle
            result: R = handle.write(name, work) if writes else handle.read(name, work)
            return result

        return call

    def on_async_store(self, name: str) -> Callable[..., Coroutine[Any, Any, R]]:
        """Return the one-call method of an asyncio store: in line with what else waits."""
        function, writes = self.function, self.writes

        @wraps(function)
        async def call(store: AsyncStore[T], /, *args: P.args, **kwargs: P.kwargs) -> R:
            sync = store._store or await store._opened()
            work = function(sync._context, *args, **kwargs)
            handle = sync._handle
            submit = handle.submit_write if writes else handle.submit_read
            result: R = await submit(name, work)
            return result

        return call


def writes(function: Callable[Concatenate[C, P], Callable[[T], R]]) -> Operation[T, P, R]:
    """List an operation that writes: on a store, each call is a write transaction of its own."""
    return Operation(function, writes=True)


def reads(function: Callable[Concatenate[C, P], Callable[[T], R]]) -> Operation[T, P, R]:
    """List an operation that only reads: on a store, each call is a snapshot of its own."""
    return Operation(function, writes=False)


class Operations:
    """A store's list of operations; see the head of this module."""

    __slots__ = ()

    _operations: ClassVar[dict[str, Operation[Any, ..., Any]]]
    """By name; of a class that lists some more, those alone."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        listed = _listed(cls)
        cls._operations = listed
        for name, operation in listed.items():
            if issubclass(cls, Tx):
                method = operation.as_method()
            elif issubclass(cls, Store):
                method = operation.on_store(name)
            elif issubclass(cls, AsyncStore):
                method = operation.on_async_store(name)
            else:
                continue
            # The function may be called otherwise, as one that serves every lease is.
            method.__name__, method.__qualname__ = name, f"{cls.__qualname__}.{name}"
            method.__signature__ = operation.signature  # type: ignore[attr-defined] # reason: what inspect looks for
            setattr(cls, name, method)


def work_of(store: Store[Any], name: str, *args: Any, **keywords: Any) -> Callable[[Any], Any]:
    """Return what a one-call operation that writes does in its transaction, its arguments checked."""
    listed = operations_of(type(store))
    operation = listed.get(name, listed.get(f"_{name}"))  # a store may do more than the operation
    if operation is None or not operation.writes:
        raise InvalidRecordError("calls", shown(name), "must be operations that write")
    return operation.function(store._context, *args, **keywords)


def operations_of(kind: type[Store[Any]]) -> dict[str, Operation[Any, ..., Any]]:
    """Return a store's one-call operations by name."""
    found: dict[str, Operation[Any, ..., Any]] = {}
    for base in reversed(kind.__mro__):
        found.update(vars(base).get("_operations", {}))
    return found


def _listed(cls: type) -> dict[str, Operation[Any, ..., Any]]:
    """Return the operations that `cls` inherits and has not defined by itself."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        found.update(vars(base))
    return {name: each for name, each in found.items() if isinstance(each, Operation)}
