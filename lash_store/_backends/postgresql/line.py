"""The line of the calls that wait for a lock or a connection, and what they ask for."""

from collections.abc import Iterable, Iterator

from lash_store._backends.postgresql.locks import Lock, together
from lash_store._kernel.calls import Call


class Line:
    """Calls in order, found by themselves and by the locks that they ask for, however many there are.

    An interrupt may leave a call among those who ask though it has left the line: it doesn't count.
    """

    def __init__(self) -> None:
        self._calls: dict[Call, None] = {}
        self._asking: dict[Lock, dict[Call, None]] = {}
        self._operations: dict[Call, None] = {}

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._calls))  # as it is now: others come and go meanwhile

    def __contains__(self, call: Call) -> bool:
        return call in self._calls

    def __len__(self) -> int:
        return len(self._calls)

    def append(self, call: Call) -> None:
        """Let a call stand behind all others."""
        self._ask(call)
        self._calls[call] = None

    def put_first(self, calls: Iterable[Call]) -> None:
        """Let calls stand before all others."""
        first = dict.fromkeys(calls)
        for call in first:
            self._ask(call)
        self._calls = {**first, **self._calls}

    def put_last(self, calls: Iterable[Call]) -> None:
        """Let calls stand behind all others, but before those that wait for them."""
        last = list(calls)
        asked = dict(together(lock for call in last for lock in call.locks))
        behind = [
            call
            for call in self._calls
            if any(n in asked and not (asked[n] and is_shared) for n, is_shared in call.locks)
        ]
        for call in last:
            self._ask(call)
        for call in behind:
            del self._calls[call]
        self._calls.update(dict.fromkeys((*last, *behind)))

    def remove(self, call: Call) -> None:
        """Take a call out of the line."""
        del self._calls[call]
        self._operations.pop(call, None)
        for lock in call.locks:
            asking = self._asking.get(lock, {})
            asking.pop(call, None)
            if not asking:
                self._asking.pop(lock, None)

    @property
    def has_operations(self) -> bool:
        """Whether anything else waits than consumers' own work."""
        return any(call in self._calls for call in self._operations)

    def wanted(self, locks: Iterable[Lock]) -> dict[int, bool]:
        """Return which of these somebody asks for, and whether all who do would share it."""
        found = {}
        for number, _ in locks:
            if self._is_asked_for((number, False)):
                found[number] = False
            elif self._is_asked_for((number, True)):
                found[number] = True
        return found

    def _ask(self, call: Call) -> None:
        if call.operation is not None:
            self._operations[call] = None
        for lock in call.locks:
            self._asking.setdefault(lock, {})[call] = None

    def _is_asked_for(self, lock: Lock) -> bool:
        return any(call in self._calls for call in self._asking.get(lock, ()))
