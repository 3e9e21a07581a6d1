-- trigger store, PRAGMA user_version = 1
-- Rendered from lash_store's MetaData by `nox -s schema`; not edited by hand.

CREATE TABLE trigger_subscription_seq (
    id INTEGER PRIMARY KEY AUTOINCREMENT
);

CREATE TABLE trigger_subscriptions (
    subscription_id TEXT PRIMARY KEY,
    registrant_scope_id TEXT NOT NULL,
    handle TEXT NOT NULL,
    source_type TEXT NOT NULL,
    source_key TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    record_json TEXT NOT NULL,
    UNIQUE (registrant_scope_id, handle)
);

CREATE INDEX idx_trigger_subscriptions_registrant ON trigger_subscriptions (registrant_scope_id, handle);

CREATE INDEX idx_trigger_subscriptions_source ON trigger_subscriptions (source_type, source_key, enabled);

CREATE TABLE trigger_occurrences (
    occurrence_id TEXT PRIMARY KEY,
    idempotency_key TEXT NOT NULL UNIQUE,
    request_hash TEXT NOT NULL,
    source_type TEXT NOT NULL,
    source_key TEXT NOT NULL,
    occurred_at_ms INTEGER NOT NULL,
    record_json TEXT NOT NULL
);

CREATE INDEX idx_trigger_occurrences_source ON trigger_occurrences (source_type, source_key, occurred_at_ms);

CREATE TABLE trigger_deliveries (
    occurrence_id TEXT NOT NULL,
    subscription_id TEXT NOT NULL,
    process_id TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (occurrence_id, subscription_id),
    FOREIGN KEY(occurrence_id) REFERENCES trigger_occurrences (occurrence_id) ON DELETE CASCADE,
    FOREIGN KEY(subscription_id) REFERENCES trigger_subscriptions (subscription_id) ON DELETE CASCADE
);

CREATE INDEX idx_trigger_deliveries_process ON trigger_deliveries (process_id);
