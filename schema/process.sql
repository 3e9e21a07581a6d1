-- process store, PRAGMA user_version = 7
-- Rendered from lash_store's MetaData by `nox -s schema`; not edited by hand.

CREATE TABLE processes (
    process_id TEXT PRIMARY KEY,
    registration_hash TEXT NOT NULL,
    owner_scope_id TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    status TEXT NOT NULL,
    record_json TEXT NOT NULL
);

CREATE INDEX idx_processes_status ON processes (status);

CREATE TABLE process_events (
    process_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    event_type TEXT NOT NULL,
    payload_hash TEXT NOT NULL,
    idempotency_key TEXT,
    occurred_at_ms INTEGER NOT NULL,
    event_json TEXT NOT NULL,
    PRIMARY KEY (process_id, sequence),
    FOREIGN KEY(process_id) REFERENCES processes (process_id) ON DELETE CASCADE
);

CREATE UNIQUE INDEX idx_process_events_key ON process_events (process_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE process_wake_acks (
    process_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (process_id, sequence),
    FOREIGN KEY(process_id) REFERENCES processes (process_id) ON DELETE CASCADE
);

CREATE TABLE process_handle_grants (
    session_id TEXT NOT NULL,
    scope_id TEXT NOT NULL,
    process_id TEXT NOT NULL,
    descriptor_json TEXT NOT NULL,
    PRIMARY KEY (scope_id, process_id),
    FOREIGN KEY(process_id) REFERENCES processes (process_id) ON DELETE CASCADE
);

CREATE INDEX idx_process_handle_grants_session ON process_handle_grants (session_id);

CREATE INDEX idx_process_handle_grants_process ON process_handle_grants (process_id);

CREATE TABLE process_leases (
    process_id TEXT PRIMARY KEY,
    lease_owner_id TEXT,
    lease_token TEXT,
    lease_fencing_token INTEGER NOT NULL DEFAULT 0,
    lease_claimed_at_ms INTEGER NOT NULL DEFAULT 0,
    lease_expires_at_ms INTEGER NOT NULL DEFAULT 0,
    FOREIGN KEY(process_id) REFERENCES processes (process_id) ON DELETE CASCADE
);
