-- PostgreSQL 16 or newer: session 4, process 7, trigger 1, effect 1, under the prefix lash_
-- Rendered from lash_store's MetaData by `nox -s schema`; not edited by hand.

CREATE TABLE lash_versions (
    kind TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (kind)
);

CREATE TABLE lash_blobs (
    store TEXT COLLATE "C" NOT NULL CHECK (store <> ''),
    hash TEXT COLLATE "C" NOT NULL,
    content BYTEA NOT NULL,
    PRIMARY KEY (store, hash)
);

CREATE TABLE lash_session_head (
    store TEXT COLLATE "C" NOT NULL CHECK (store <> ''),
    singleton BIGINT NOT NULL CHECK (singleton = 1),
    session_id TEXT COLLATE "C" DEFAULT 'root' NOT NULL,
    head_json TEXT COLLATE "C" DEFAULT '{}' NOT NULL,
    head_revision BIGINT DEFAULT 0 NOT NULL,
    PRIMARY KEY (store, singleton)
);

CREATE TABLE lash_graph_nodes (
    store TEXT COLLATE "C" NOT NULL CHECK (store <> ''),
    seq BIGINT NOT NULL,
    node_id TEXT COLLATE "C" NOT NULL,
    node_json TEXT COLLATE "C" NOT NULL,
    tombstoned BIGINT DEFAULT 0 NOT NULL,
    PRIMARY KEY (store, seq),
    UNIQUE (store, node_id)
);

CREATE TABLE lash_usage_deltas (
    store TEXT COLLATE "C" NOT NULL CHECK (store <> ''),
    seq BIGINT NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    model TEXT COLLATE "C" NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cached_input_tokens BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    PRIMARY KEY (store, seq)
);

CREATE TABLE lash_session_meta (
    store TEXT COLLATE "C" NOT NULL CHECK (store <> ''),
    singleton BIGINT NOT NULL CHECK (singleton = 1),
    session_id TEXT COLLATE "C" NOT NULL,
    session_name TEXT COLLATE "C" NOT NULL,
    created_at TEXT COLLATE "C" NOT NULL,
    model TEXT COLLATE "C" NOT NULL,
    cwd TEXT COLLATE "C",
    relation_json TEXT COLLATE "C",
    PRIMARY KEY (store, singleton)
);

CREATE TABLE lash_runtime_turn_commits (
    store TEXT COLLATE "C" NOT NULL CHECK (store <> ''),
    session_id TEXT COLLATE "C" NOT NULL,
    turn_id TEXT COLLATE "C" NOT NULL,
    turn_commit_hash TEXT COLLATE "C" NOT NULL,
    result_json TEXT COLLATE "C" NOT NULL,
    committed_at_ms BIGINT NOT NULL,
    PRIMARY KEY (store, session_id, turn_id)
);

CREATE TABLE lash_session_execution_leases (
    store TEXT COLLATE "C" NOT NULL CHECK (store <> ''),
    session_id TEXT COLLATE "C" NOT NULL,
    lease_owner_id TEXT COLLATE "C",
    lease_token TEXT COLLATE "C",
    lease_fencing_token BIGINT DEFAULT 0 NOT NULL,
    lease_claimed_at_ms BIGINT DEFAULT 0 NOT NULL,
    lease_expires_at_ms BIGINT DEFAULT 0 NOT NULL,
    PRIMARY KEY (store, session_id)
);

CREATE TABLE lash_queued_work_batches (
    store TEXT COLLATE "C" NOT NULL CHECK (store <> ''),
    enqueue_seq BIGINT NOT NULL,
    batch_id TEXT COLLATE "C" NOT NULL,
    session_id TEXT COLLATE "C" NOT NULL,
    source_key TEXT COLLATE "C",
    delivery_policy TEXT COLLATE "C" NOT NULL,
    slot_policy TEXT COLLATE "C" NOT NULL,
    merge_key_json TEXT COLLATE "C" NOT NULL,
    available_at_ms BIGINT NOT NULL,
    enqueued_at_ms BIGINT NOT NULL,
    claim_id TEXT COLLATE "C",
    claim_owner_id TEXT COLLATE "C",
    claim_token TEXT COLLATE "C",
    claim_fencing_token BIGINT DEFAULT 0 NOT NULL,
    claim_claimed_at_ms BIGINT DEFAULT 0 NOT NULL,
    claim_expires_at_ms BIGINT DEFAULT 0 NOT NULL,
    PRIMARY KEY (store, enqueue_seq),
    UNIQUE (store, batch_id),
    UNIQUE (store, session_id, source_key)
);

CREATE INDEX lash_idx_queued_work_unclaimed ON lash_queued_work_batches (store, session_id, enqueue_seq) WHERE claim_id IS NULL AND claim_token IS NULL;

CREATE INDEX lash_idx_queued_work_claimed ON lash_queued_work_batches (store, session_id, claim_id, claim_token, enqueue_seq) WHERE claim_id IS NOT NULL OR claim_token IS NOT NULL;

CREATE TABLE lash_queued_work_items (
    store TEXT COLLATE "C" NOT NULL CHECK (store <> ''),
    batch_id TEXT COLLATE "C" NOT NULL,
    item_index BIGINT NOT NULL,
    item_id TEXT COLLATE "C" NOT NULL,
    payload_json TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (store, batch_id, item_index),
    FOREIGN KEY(store, batch_id) REFERENCES lash_queued_work_batches (store, batch_id) ON DELETE CASCADE
);

CREATE TABLE lash_attachment_manifest (
    store TEXT COLLATE "C" NOT NULL CHECK (store <> ''),
    attachment_id TEXT COLLATE "C" NOT NULL,
    session_id TEXT COLLATE "C" NOT NULL,
    canonical_uri TEXT COLLATE "C" NOT NULL,
    intent_at_ms BIGINT NOT NULL,
    committed_at_ms BIGINT,
    PRIMARY KEY (store, attachment_id)
);

CREATE INDEX lash_idx_attachment_manifest_session ON lash_attachment_manifest (store, session_id, committed_at_ms);

CREATE INDEX lash_idx_attachment_manifest_uncommitted ON lash_attachment_manifest (store, committed_at_ms) WHERE committed_at_ms IS NULL;

CREATE TABLE lash_artifact_refs (
    store TEXT COLLATE "C" NOT NULL CHECK (store <> ''),
    artifact_ref TEXT COLLATE "C" NOT NULL,
    blob_ref TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (store, artifact_ref)
);

CREATE TABLE lash_processes (
    process_id TEXT COLLATE "C",
    registration_hash TEXT COLLATE "C" NOT NULL,
    owner_scope_id TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    record_json TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (process_id)
);

CREATE INDEX lash_idx_processes_claim_order ON lash_processes (status, created_at_ms, process_id);

CREATE TABLE lash_process_events (
    process_id TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    event_type TEXT COLLATE "C" NOT NULL,
    payload_hash TEXT COLLATE "C" NOT NULL,
    idempotency_key TEXT COLLATE "C",
    occurred_at_ms BIGINT NOT NULL,
    event_json TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (process_id, sequence),
    FOREIGN KEY(process_id) REFERENCES lash_processes (process_id) ON DELETE CASCADE
);

CREATE UNIQUE INDEX lash_idx_process_events_key ON lash_process_events (process_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE lash_process_wake_acks (
    process_id TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    PRIMARY KEY (process_id, sequence),
    FOREIGN KEY(process_id) REFERENCES lash_processes (process_id) ON DELETE CASCADE
);

CREATE TABLE lash_process_handle_grants (
    session_id TEXT COLLATE "C" NOT NULL,
    scope_id TEXT COLLATE "C" NOT NULL,
    process_id TEXT COLLATE "C" NOT NULL,
    descriptor_json TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (scope_id, process_id),
    FOREIGN KEY(process_id) REFERENCES lash_processes (process_id) ON DELETE CASCADE
);

CREATE INDEX lash_idx_process_handle_grants_session ON lash_process_handle_grants (session_id);

CREATE INDEX lash_idx_process_handle_grants_process ON lash_process_handle_grants (process_id);

CREATE TABLE lash_process_leases (
    process_id TEXT COLLATE "C",
    lease_owner_id TEXT COLLATE "C",
    lease_token TEXT COLLATE "C",
    lease_fencing_token BIGINT DEFAULT 0 NOT NULL,
    lease_claimed_at_ms BIGINT DEFAULT 0 NOT NULL,
    lease_expires_at_ms BIGINT DEFAULT 0 NOT NULL,
    PRIMARY KEY (process_id),
    FOREIGN KEY(process_id) REFERENCES lash_processes (process_id) ON DELETE CASCADE
);

CREATE TABLE lash_trigger_subscription_seq (
    id BIGSERIAL,
    PRIMARY KEY (id)
);

CREATE TABLE lash_trigger_subscriptions (
    subscription_id TEXT COLLATE "C",
    registrant_scope_id TEXT COLLATE "C" NOT NULL,
    handle TEXT COLLATE "C" NOT NULL,
    source_type TEXT COLLATE "C" NOT NULL,
    source_key TEXT COLLATE "C" NOT NULL,
    enabled BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    record_json TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (subscription_id),
    UNIQUE (registrant_scope_id, handle)
);

CREATE INDEX lash_idx_trigger_subscriptions_registrant ON lash_trigger_subscriptions (registrant_scope_id, handle);

CREATE INDEX lash_idx_trigger_subscriptions_source ON lash_trigger_subscriptions (source_type, source_key, enabled);

CREATE TABLE lash_trigger_occurrences (
    occurrence_id TEXT COLLATE "C",
    idempotency_key TEXT COLLATE "C" NOT NULL,
    request_hash TEXT COLLATE "C" NOT NULL,
    source_type TEXT COLLATE "C" NOT NULL,
    source_key TEXT COLLATE "C" NOT NULL,
    occurred_at_ms BIGINT NOT NULL,
    record_json TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (occurrence_id),
    UNIQUE (idempotency_key)
);

CREATE INDEX lash_idx_trigger_occurrences_source ON lash_trigger_occurrences (source_type, source_key, occurred_at_ms);

CREATE TABLE lash_trigger_deliveries (
    occurrence_id TEXT COLLATE "C" NOT NULL,
    subscription_id TEXT COLLATE "C" NOT NULL,
    process_id TEXT COLLATE "C" NOT NULL,
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (occurrence_id, subscription_id),
    FOREIGN KEY(occurrence_id) REFERENCES lash_trigger_occurrences (occurrence_id) ON DELETE CASCADE,
    FOREIGN KEY(subscription_id) REFERENCES lash_trigger_subscriptions (subscription_id) ON DELETE CASCADE
);

CREATE INDEX lash_idx_trigger_deliveries_process ON lash_trigger_deliveries (process_id);

CREATE INDEX lash_idx_trigger_deliveries_subscription ON lash_trigger_deliveries (subscription_id);

CREATE TABLE lash_runtime_effect_replay (
    scope_id TEXT COLLATE "C" NOT NULL,
    replay_key TEXT COLLATE "C" NOT NULL,
    envelope_hash TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    outcome_json TEXT COLLATE "C",
    error_json TEXT COLLATE "C",
    lease_owner_id TEXT COLLATE "C",
    lease_token TEXT COLLATE "C",
    lease_expires_at_ms BIGINT DEFAULT 0 NOT NULL,
    due_at_ms BIGINT,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    PRIMARY KEY (scope_id, replay_key)
);

CREATE INDEX lash_idx_runtime_effect_replay_lease ON lash_runtime_effect_replay (status, lease_expires_at_ms);

INSERT INTO lash_versions (kind, version) VALUES
    ('session', 4),
    ('process', 7),
    ('trigger', 1),
    ('effect', 1);
