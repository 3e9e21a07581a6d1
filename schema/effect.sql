-- effect store, PRAGMA user_version = 1
-- Rendered from lash_store's MetaData by `nox -s schema`; not edited by hand.

CREATE TABLE runtime_effect_replay (
    scope_id TEXT NOT NULL,
    replay_key TEXT NOT NULL,
    envelope_hash TEXT NOT NULL,
    status TEXT NOT NULL,
    outcome_json TEXT,
    error_json TEXT,
    lease_owner_id TEXT,
    lease_token TEXT,
    lease_expires_at_ms INTEGER NOT NULL DEFAULT 0,
    due_at_ms INTEGER,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    PRIMARY KEY (scope_id, replay_key)
);

CREATE INDEX idx_runtime_effect_replay_lease ON runtime_effect_replay (status, lease_expires_at_ms);
