"""A consumer's blocks: transactions that a thread of its own begins, and ends when it likes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import get_ident
from typing import Any

from lash_store._backends.postgresql.beginnings import begin_read
from lash_store._backends.postgresql.connection import StoreConnection
from lash_store._backends.postgresql.ending import Group, blocked
from lash_store._backends.postgresql.groups import Groups
from lash_store._backends.postgresql.locks import together
from lash_store._kernel.calls import ThreadCall
from lash_store.errors import StoreBusyError


class Blocks(Groups):
    """Who runs calls on one database, and who has a transaction of it."""

    def held(self, by: object, call: ThreadCall) -> None:
        """Note what a block of this thread lives with, before it stands in line."""
        self._holders[get_ident()] = weakref.ref(by), call

    def _let_go_of(self, call: ThreadCall) -> None:
        for thread, (_, held) in list(self._holders.items()):
            if held is call:
                self._holders.pop(thread, None)

    def is_open(self, call: ThreadCall) -> bool:
        """Whether a block has begun, and not ended."""
        return call in self._open

    def abandon(self, call: ThreadCall) -> None:
        """Undo whatever there is of a block: an interrupt may have struck anywhere in it."""
        connection = self._open.get(call)
        if connection is None:
            self._let_go_of(call)
            call.take(call)
            self._database.turns.withdraw(call)
            return
        if connection.standing is not None:
            connection.standing.abandon()
        self.end_block(call, connection, commit=False)

    def enter(self, call: ThreadCall) -> None:
        """Wait for the turn of a consumer's block, which this thread leads by itself."""
        self.check_not_inside()
        self._wait_for_turn(call, self._database.turns.enter)

    def _wait_for_turn(self, call: ThreadCall, stand: Callable[[ThreadCall], object]) -> None:
        try:
            stand(call)
            self._until_its_turn(call)
        except BaseException:
            call.take(call)
            self._database.turns.withdraw(call)
            raise
        call.take(call)

    def _until_its_turn(self, call: ThreadCall) -> None:
        while not self._database.turns.has(call):
            self._wait(call)
            if call.settled:  # refused: its store is being closed
                call.outcome()

    def run_together(self, calls: list[ThreadCall]) -> list[Any]:
        """Run calls as one group, in this order, on this thread; an error in its place: for tests."""
        self.check_not_inside()
        first = calls[0]
        own, first.locks = first.locks, together(lock for call in calls for lock in call.locks)
        self.enter(first)
        try:
            for call in calls[1:]:
                call.take(first)
            left = self._do(Group(calls), calls, on_library=False)
        finally:
            self._database.turns.leave([first])
            first.locks = own
        for call in calls if left else []:
            call.taken.clear()
            call.alone = True
            call.result = call.error = None
            with suppress(Exception):  # it stands in the call's place
                self.run(call)
        return [call.result if call.error is None else call.error for call in calls]

    def begin_block(self, call: ThreadCall) -> StoreConnection:
        """Begin the transaction of a block on this thread, whose turn it is."""
        turns = self._database.turns
        while True:
            try:
                connection = self._begin([call], partial(self._open.__setitem__, call))
                break
            except StoreBusyError as error:
                if call.caller.closed:
                    turns.leave([call])
                    raise call.caller.closed_error() from None
                if type(error) is not StoreBusyError or not blocked([call], error):
                    turns.leave([call])
                    raise (call.error or error) from error.__cause__
            except BaseException:
                turns.leave([call])
                raise
            self._wait_for_turn(call, self._again_in_line)
        self._inside[get_ident()] = connection
        self._running[call] = Group([call])
        return connection

    def _again_in_line(self, call: ThreadCall) -> None:
        def stand() -> None:
            call.give_back(call)
            turns.put_last([call])

        turns = self._database.turns
        turns.leave([call], stand)

    def begin_snapshot(self, call: ThreadCall) -> StoreConnection:
        """Begin the snapshot of a block on this thread, whose turn it is."""
        try:
            had = partial(self._open.__setitem__, call)
            return self._database.begin(begin_read(call), had)
        except BaseException:
            self._database.turns.leave([call])
            raise

    def end_block(self, call: ThreadCall, connection: StoreConnection, *, commit: bool) -> None:
        """End it, if it is open; whatever happens, nothing is half done, and others begin."""
        if call not in self._open:
            return
        for thread, each in list(self._inside.items()):
            if each is connection:
                del self._inside[thread]
        self._let_go_of(call)
        touched, notes = set(connection.touched), list(connection.notes)
        try:
            connection.end(commit=commit)
        finally:
            connection.notes.clear()
            self._database.give_back(connection)
            self._running.pop(call, None)
            self._open.pop(call, None)
            self._database.turns.leave([call])
        if commit:
            self._announce(touched, notes)
