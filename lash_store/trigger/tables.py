"""The tables of a trigger database, column for column as in ``schema/trigger.sql``."""

from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    MetaData,
    Named,
    Table,
    Text,
    TypedColumns,
    UniqueConstraint,
)

from lash_store._kernel.schema import Int, Schema, ordered_indexes

metadata = MetaData()


class TriggerSubscriptionSeqColumns(TypedColumns):
    """Numbers for subscriptions: AUTOINCREMENT never gives one twice."""

    id = Column(Int, primary_key=True, nullable=True)


class TriggerSubscriptionColumns(TypedColumns):
    """What starts when something occurs at a source."""

    subscription_id = Column(Text, primary_key=True, nullable=True)
    registrant_scope_id: Named[str] = Column(Text, nullable=False)
    handle: Named[str] = Column(Text, nullable=False)
    source_type: Named[str] = Column(Text, nullable=False)
    source_key: Named[str] = Column(Text, nullable=False)
    enabled: Named[int] = Column(Int, nullable=False)
    created_at_ms: Named[int] = Column(Int, nullable=False)
    updated_at_ms: Named[int] = Column(Int, nullable=False)
    record_json: Named[str] = Column(Text, nullable=False)


class TriggerOccurrenceColumns(TypedColumns):
    """What occurred, once per idempotency key."""

    occurrence_id = Column(Text, primary_key=True, nullable=True)
    idempotency_key: Named[str] = Column(Text, nullable=False)
    request_hash: Named[str] = Column(Text, nullable=False)
    source_type: Named[str] = Column(Text, nullable=False)
    source_key: Named[str] = Column(Text, nullable=False)
    occurred_at_ms: Named[int] = Column(Int, nullable=False)
    record_json: Named[str] = Column(Text, nullable=False)


class TriggerDeliveryColumns(TypedColumns):
    """Which process an occurrence reserved for a subscription."""

    occurrence_id = Column(
        Text, ForeignKey("trigger_occurrences.occurrence_id", ondelete="CASCADE"), primary_key=True
    )
    subscription_id = Column(
        Text,
        ForeignKey("trigger_subscriptions.subscription_id", ondelete="CASCADE"),
        primary_key=True,
    )
    process_id: Named[str] = Column(Text, nullable=False)
    created_at_ms: Named[int] = Column(Int, nullable=False)


trigger_subscription_seq = Table(
    "trigger_subscription_seq",
    metadata,
    TriggerSubscriptionSeqColumns,
    sqlite_autoincrement=True,
)
trigger_subscriptions = ordered_indexes(
    Table(
        "trigger_subscriptions",
        metadata,
        TriggerSubscriptionColumns,
        UniqueConstraint("registrant_scope_id", "handle"),
    )
)
trigger_occurrences = ordered_indexes(
    Table(
        "trigger_occurrences",
        metadata,
        TriggerOccurrenceColumns,
        UniqueConstraint("idempotency_key"),
    )
)
trigger_deliveries = ordered_indexes(Table("trigger_deliveries", metadata, TriggerDeliveryColumns))

Index(
    "idx_trigger_subscriptions_registrant",
    trigger_subscriptions.c.registrant_scope_id,
    trigger_subscriptions.c.handle,
)
Index(
    "idx_trigger_subscriptions_source",
    trigger_subscriptions.c.source_type,
    trigger_subscriptions.c.source_key,
    trigger_subscriptions.c.enabled,
)
Index(
    "idx_trigger_occurrences_source",
    trigger_occurrences.c.source_type,
    trigger_occurrences.c.source_key,
    trigger_occurrences.c.occurred_at_ms,
)
Index("idx_trigger_deliveries_process", trigger_deliveries.c.process_id)

DELIVERIES_OF_SUBSCRIPTION = Index(
    "idx_trigger_deliveries_subscription", trigger_deliveries.c.subscription_id
)
"""For ``extras`` of a file: by it a subscription is deleted however many deliveries others have.

Without it a deletion looks at each delivery: the canonical schema has no index for that foreign key.
Each delivery costs one entry more. A shared database has it by itself; a file that has it may be
opened without naming it.
"""

SCHEMA = Schema(
    kind="trigger",
    version=1,
    metadata=metadata,
    tables=(
        trigger_subscription_seq,
        trigger_subscriptions,
        trigger_occurrences,
        trigger_deliveries,
    ),
    optional=(DELIVERIES_OF_SUBSCRIPTION,),
)
