"""The table of an effect database, column for column as in ``schema/effect.sql``."""

from sqlalchemy import Column, Index, MetaData, Named, Table, Text, TypedColumns, text

from lash_store._kernel.schema import Int, Schema, ordered_indexes

metadata = MetaData()


class RuntimeEffectReplayColumns(TypedColumns):
    """Recorded outcomes of non-deterministic work, and who is working on one now."""

    scope_id = Column(Text, primary_key=True)
    replay_key = Column(Text, primary_key=True)
    envelope_hash: Named[str] = Column(Text, nullable=False)
    status: Named[str] = Column(Text, nullable=False)
    outcome_json: Named[str | None] = Column(Text)
    error_json: Named[str | None] = Column(Text)
    lease_owner_id: Named[str | None] = Column(Text)
    lease_token: Named[str | None] = Column(Text)
    lease_expires_at_ms: Named[int] = Column(Int, nullable=False, server_default=text("0"))
    due_at_ms: Named[int | None] = Column(Int)
    created_at_ms: Named[int] = Column(Int, nullable=False)
    updated_at_ms: Named[int] = Column(Int, nullable=False)


runtime_effect_replay = ordered_indexes(
    Table("runtime_effect_replay", metadata, RuntimeEffectReplayColumns)
)

Index(
    "idx_runtime_effect_replay_lease",
    runtime_effect_replay.c.status,
    runtime_effect_replay.c.lease_expires_at_ms,
)

SCHEMA = Schema(kind="effect", version=1, metadata=metadata, tables=(runtime_effect_replay,))
