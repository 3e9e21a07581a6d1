"""A small LangGraph saver: tables of its own under the session's lease, on public names alone.

Checkpoints stand in tables of the saver's own, in the database of a session store. Who holds a
thread writes under its fence, in the transaction of each write: a worker that was overtaken is refused,
and the thread has no second branch. Who holds nothing is refused while somebody does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from sqlalchemy import (
    Column,
    Delete,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Select,
    Table,
    Text,
    delete,
    select,
)
from sqlalchemy.dialects.sqlite import Insert, insert

from lash_store import LeaseHeld, SessionFence, SessionStore, SessionTx, prepare
from lash_store.schemas import OwnTables
from lash_store.statements import is_one_of

metadata = MetaData()
checkpoints = Table(
    "langgraph_checkpoints",
    metadata,
    Column("thread_id", Text, nullable=False),
    Column("checkpoint_ns", Text, nullable=False),
    Column("checkpoint_id", Text, nullable=False),
    Column("parent_id", Text),
    Column("type", Text, nullable=False),
    Column("checkpoint", LargeBinary, nullable=False),
    Column("metadata_type", Text, nullable=False),
    Column("metadata", LargeBinary, nullable=False),
    Column("fencing_token", Integer),
    PrimaryKeyConstraint("thread_id", "checkpoint_ns", "checkpoint_id"),
)
writes = Table(
    "langgraph_writes",
    metadata,
    Column("thread_id", Text, nullable=False),
    Column("checkpoint_ns", Text, nullable=False),
    Column("checkpoint_id", Text, nullable=False),
    Column("task_id", Text, nullable=False),
    Column("idx", Integer, nullable=False),
    Column("channel", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
    PrimaryKeyConstraint("thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "idx"),
)
TABLES: Final = OwnTables("langgraph", 1, metadata)
_c, _w = checkpoints.c, writes.c


@prepare
def put_checkpoint(
    *,
    thread_id: str,
    checkpoint_ns: str,
    checkpoint_id: str,
    parent_id: str | None,
    type_: str,
    checkpoint: bytes,
    metadata_type: str,
    metadata_: bytes,
    fencing_token: int | None,
) -> Insert:
    """Store a checkpoint; one that is there is replaced."""
    return (
        insert(checkpoints)
        .prefix_with("OR REPLACE")
        .values(
            thread_id=thread_id,
            checkpoint_ns=checkpoint_ns,
            checkpoint_id=checkpoint_id,
            parent_id=parent_id,
            type=type_,
            checkpoint=checkpoint,
            metadata_type=metadata_type,
            metadata=metadata_,
            fencing_token=fencing_token,
        )
    )


@prepare
def put_write(
    *,
    thread_id: str,
    checkpoint_ns: str,
    checkpoint_id: str,
    task_id: str,
    idx: int,
    channel: str,
    type_: str,
    value: bytes,
) -> Insert:
    """Store what a task wrote, once."""
    return (
        insert(writes)
        .values(
            thread_id=thread_id,
            checkpoint_ns=checkpoint_ns,
            checkpoint_id=checkpoint_id,
            task_id=task_id,
            idx=idx,
            channel=channel,
            type=type_,
            value=value,
        )
        .on_conflict_do_nothing()
    )


@prepare
def load_checkpoints(
    *, thread_id: str, checkpoint_ns: str
) -> Select[str, str | None, str, bytes, str, bytes]:
    """Read a thread's checkpoints, the newest first."""
    return (
        select(
            _c.checkpoint_id, _c.parent_id, _c.type, _c.checkpoint, _c.metadata_type, _c.metadata
        )
        .where(_c.thread_id == thread_id, _c.checkpoint_ns == checkpoint_ns)
        .order_by(_c.checkpoint_id.desc())
    )


@prepare
def load_writes(
    *, thread_id: str, checkpoint_ns: str, checkpoint_ids: list[str]
) -> Select[str, str, str, str, bytes]:
    """Read what was written on several checkpoints, in order."""
    return (
        select(_w.checkpoint_id, _w.task_id, _w.channel, _w.type, _w.value)
        .where(
            _w.thread_id == thread_id,
            _w.checkpoint_ns == checkpoint_ns,
            is_one_of(_w.checkpoint_id, checkpoint_ids),
        )
        .order_by(_w.checkpoint_id, _w.task_id, _w.idx)
    )


@prepare
def delete_checkpoints(*, thread_id: str) -> Delete:
    """Remove a thread's checkpoints."""
    return delete(checkpoints).where(_c.thread_id == thread_id)


@prepare
def delete_writes(*, thread_id: str) -> Delete:
    """Remove what was written on them."""
    return delete(writes).where(_w.thread_id == thread_id)


class ThreadHeldError(Exception):
    """Somebody else holds the thread."""


class LashSaver(BaseCheckpointSaver[str]):
    """A saver over a session store that was opened with ``tables=[TABLES]``."""

    def __init__(self, store: SessionStore) -> None:
        super().__init__()
        self.store = store
        self._held: dict[str, SessionFence] = {}

    @contextmanager
    def hold(self, thread_id: str, *, owner_id: str, ttl_ms: int) -> Iterator[SessionFence]:
        """Hold a thread: what this saver writes of it meanwhile is fenced."""
        lease = self.store.claim_lease(owner_id=owner_id, ttl_ms=ttl_ms, session_id=thread_id)
        if isinstance(lease, LeaseHeld):
            raise ThreadHeldError(f"{thread_id} is held by {lease.owner_id}")
        self._held[thread_id] = lease.fence
        try:
            yield lease.fence
        finally:
            del self._held[thread_id]
            self.store.release_lease(lease.fence)

    def put_in(self, tx: SessionTx, config: Any, checkpoint: Any, metadata_: Any) -> None:
        """Store a checkpoint in the caller's own transaction."""
        at = config["configurable"]
        fence = self._fence(tx, at["thread_id"])
        type_, blob = self.serde.dumps_typed(checkpoint)
        metadata_type, described = self.serde.dumps_typed(
            get_checkpoint_metadata(config, metadata_)
        )
        put_checkpoint.run(
            tx.cursor,
            thread_id=at["thread_id"],
            checkpoint_ns=at["checkpoint_ns"],
            checkpoint_id=checkpoint["id"],
            parent_id=at.get("checkpoint_id"),
            type_=type_,
            checkpoint=blob,
            metadata_type=metadata_type,
            metadata_=described,
            fencing_token=None if fence is None else fence.fencing_token,
        )

    def put(
        self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any
    ) -> Any:  # reason: LangGraph's signature
        """Store a checkpoint."""
        self.store.transact(lambda tx: self.put_in(tx, config, checkpoint, metadata))
        at = config["configurable"]
        return _config(at["thread_id"], at["checkpoint_ns"], checkpoint["id"])

    def put_writes(
        self,
        config: Any,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",  # reason: likewise
    ) -> None:
        """Store what a task wrote, before its step is over."""
        at = config["configurable"]
        rows = [
            (WRITES_IDX_MAP.get(channel, place), channel, *self.serde.dumps_typed(value))
            for place, (channel, value) in enumerate(writes)
        ]

        def store(tx: SessionTx) -> None:
            self._fence(tx, at["thread_id"])
            for idx, channel, type_, value in rows:
                put_write.run(
                    tx.cursor,
                    thread_id=at["thread_id"],
                    checkpoint_ns=at["checkpoint_ns"],
                    checkpoint_id=at["checkpoint_id"],
                    task_id=task_id,
                    idx=idx,
                    channel=channel,
                    type_=type_,
                    value=value,
                )

        self.store.transact(store)

    def get_tuple(self, config: Any) -> CheckpointTuple | None:
        """Read one checkpoint, the newest unless it is named."""
        wanted = get_checkpoint_id(config)
        found = self._read(config, lambda checkpoint_id: wanted in (None, checkpoint_id))
        return found[0] if found else None

    def list(
        self,
        config: Any,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 # reason: likewise
        before: Any = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Read a thread's checkpoints, the newest first."""
        end = get_checkpoint_id(before) if before else None
        found = self._read(config, lambda checkpoint_id: end is None or checkpoint_id < end)
        chosen = [each for each in found if (filter or {}).items() <= each.metadata.items()]
        yield from chosen[:limit]

    def delete_thread(self, thread_id: str) -> None:
        """Forget a thread."""

        def forget(tx: SessionTx) -> None:
            self._fence(tx, thread_id)
            delete_writes.run(tx.cursor, thread_id=thread_id)
            delete_checkpoints.run(tx.cursor, thread_id=thread_id)

        self.store.transact(forget)

    def _fence(self, tx: SessionTx, thread_id: str) -> SessionFence | None:
        """Require what this saver holds; refuse who holds nothing while somebody does."""
        fence = self._held.get(thread_id)
        if fence is not None:
            tx.require(fence)
        elif tx.current_lease(session_id=thread_id) is not None:
            raise ThreadHeldError(f"{thread_id} is held, and not by this saver")
        return fence

    def _read(self, config: Any, choose: Callable[[str], bool]) -> Sequence[CheckpointTuple]:
        at = config["configurable"]
        names = {"thread_id": at["thread_id"], "checkpoint_ns": at.get("checkpoint_ns", "")}
        with self.store.read() as tx:
            rows = [row for row in load_checkpoints.all(tx.cursor, **names) if choose(row[0])]
            pending = load_writes.all(
                tx.cursor, **names, checkpoint_ids=[checkpoint_id for checkpoint_id, *_ in rows]
            )
        return [
            CheckpointTuple(
                _config(names["thread_id"], names["checkpoint_ns"], checkpoint_id),
                self.serde.loads_typed((type_, blob)),
                self.serde.loads_typed((metadata_type, described)),
                None
                if parent is None
                else _config(names["thread_id"], names["checkpoint_ns"], parent),
                [
                    (task_id, channel, self.serde.loads_typed((kind, value)))
                    for owner, task_id, channel, kind, value in pending
                    if owner == checkpoint_id
                ],
            )
            for checkpoint_id, parent, type_, blob, metadata_type, described in rows
        ]

    def get_next_version(self, current: str | None, channel: None) -> str:  # reason: likewise
        """Number the versions of a channel."""
        return f"{int(current or 0) + 1:032}"


def _config(thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> Any:
    return {
        "configurable": {
            "thread_id": thread_id,
            "checkpoint_ns": checkpoint_ns,
            "checkpoint_id": checkpoint_id,
        }
    }
