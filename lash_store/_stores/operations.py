"""One list of operations for a store's Tx, its sync facade and its asyncio facade.

An operation is written once, in two steps: a function of the store's context and the call's
arguments, which checks and encodes them and returns its *work*, a function of the transaction.
The first step is taken by the caller, before anything waits for a lock; the second may run on
another thread, together with other calls, and more than once, so it uses nothing but values::

    def forget_attachment(context: Context, attachment_id: str) -> Work[bool]:
        name = check_name("attachment_id", attachment_id)
        return lambda tx: statements.forget_attachment.run(tx.own_cursor, attachment_id=name) == 1

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
from typing import (
    Any,
    ClassVar,
    Concatenate,
    Final,
    Generic,
    ParamSpec,
    TypeVar,
    cast,
    get_args,
    get_type_hints,
    overload,
)

from lash_store._kernel.checks import shown
from lash_store._kernel.findings import (
    FindingsDueError,
    finding_inside,
    submit_write_finding,
    write_finding,
)
from lash_store._kernel.generated import define
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
        self,
        function: Callable[Concatenate[C, P], Callable[[T], R]],
        *,
        writes: bool,
        finds: bool = False,
    ) -> None:
        self.function: Callable[..., Callable[[T], R]] = function
        self.writes = writes
        self.finds = finds

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

    def as_method(self, kind: str, name: str) -> Callable[..., Any]:
        """Return the method of a Tx, a store or an asyncio store: what a call of it looks like.

        Generated, so that it passes on each argument by itself: packing them up would cost as
        much as a statement.
        """
        hints = get_type_hints(self.function)
        *_, result = get_args(hints.pop("return"))  # a work is a Callable[[Tx], result]
        _, *parameters = inspect.signature(self.function).parameters.values()
        scope: dict[str, Any] = {
            "function_": self.function,
            "FindingsDueError_": FindingsDueError,
            "write_finding_": write_finding,
            "submit_write_finding_": submit_write_finding,
        }
        source = (_FINDING_TEXTS if self.finds else _TEXTS)[kind].format(
            name=name,
            parameters=_written(parameters, scope),
            arguments="".join(f", {_passed_on(each)}" for each in parameters),
            how="write" if self.writes else "read",
        )
        method: Any = define(
            name, source, scope, filename=f"<{kind} {name}>", doc=self.function.__doc__
        )
        method.__annotations__ = {each.name: hints[each.name] for each in parameters}
        method.__annotations__["return"] = result
        return cast("Callable[..., Any]", method)


_TEXTS: Final = {
    "Tx": """\
def {name}(self, /{parameters}):
    return function_(self.context{arguments})(self)
""",
    "Store": """\
def {name}(self, /{parameters}):
    return self._handle.{how}({name!r}, function_(self._context{arguments}))
""",
    "AsyncStore": """\
async def {name}(self, /{parameters}):
    store_ = self._store or await self._opened()
    work_ = function_(store_._context{arguments})
    return await store_._handle.submit_{how}({name!r}, work_)
""",
}
"""The methods that an operation becomes."""

_FINDING_TEXTS: Final = {
    **_TEXTS,
    "Store": """\
def {name}(self, /{parameters}):
    work_ = function_(self._context{arguments})
    try:
        return self._handle.write({name!r}, work_)
    except FindingsDueError_ as due_:
        due_.find()
    return write_finding_(self._handle, {name!r}, work_)
""",
    "AsyncStore": """\
async def {name}(self, /{parameters}):
    store_ = self._store or await self._opened()
    work_ = function_(store_._context{arguments})
    return await submit_write_finding_(store_._handle.submit_write, {name!r}, work_)
""",
}
"""The same of one that may have something to find out without a lock; see ``findings``.

The first try stands here by itself: it is nearly always the only one, on a hot path.
"""


def _written(parameters: list[inspect.Parameter], scope: dict[str, Any]) -> str:
    """Write parameters as in a definition, their defaults by names in `scope`."""
    words, keyword_only = "", False
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            words += ", *"
        words += f", {each.name}"
        if each.default is not each.empty:
            scope[f"default_{each.name}_"] = each.default
            words += f"=default_{each.name}_"
    return words


def _passed_on(parameter: inspect.Parameter) -> str:
    is_keyword = parameter.kind is parameter.KEYWORD_ONLY
    return f"{parameter.name}={parameter.name}" if is_keyword else parameter.name


def writes(
    function: Callable[Concatenate[C, P], Callable[[T], R]], *, finds: bool = False
) -> Operation[T, P, R]:
    """List an operation that writes: on a store, each call is a write transaction of its own.

    One that `finds` may end it and begin another, to find something out in between.
    """
    return Operation(function, writes=True, finds=finds)


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
        kinds = {"Tx": Tx, "Store": Store, "AsyncStore": AsyncStore}
        for kind in [kind for kind, base in kinds.items() if issubclass(cls, base)]:
            for name, operation in listed.items():
                setattr(cls, name, _Unmade(operation, kind, name, cls))


class _Unmade:
    """A method of a store that nobody has asked for yet; then it stands here itself.

    To make all of all stores takes a third of the time that importing them does.
    """

    __slots__ = ("kind", "name", "operation", "owner")

    def __init__(
        self, operation: Operation[Any, ..., Any], kind: str, name: str, owner: type
    ) -> None:
        self.operation, self.kind, self.name, self.owner = operation, kind, name, owner

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Make it, and put it in this place."""
        method: Any = self.operation.as_method(self.kind, self.name)
        method.__qualname__ = f"{self.owner.__qualname__}.{self.name}"
        method.__module__ = self.owner.__module__
        setattr(self.owner, self.name, method)
        return method.__get__(instance, owner)


def work_of(store: Store[Any], name: str, *args: Any, **keywords: Any) -> Callable[[Any], Any]:
    """Return what a one-call operation that writes does in its transaction, its arguments checked."""
    listed = operations_of(type(store))
    operation = listed.get(name, listed.get(f"_{name}"))  # a store may do more than the operation
    if operation is None or not operation.writes:
        raise InvalidRecordError("calls", shown(name), "must be operations that write")
    work = operation.function(store._context, *args, **keywords)
    return finding_inside(work) if operation.finds else work


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
