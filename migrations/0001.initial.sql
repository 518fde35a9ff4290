-- min_code: 1
-- Everything that the first version keeps. Status words are text with CHECKs: a new word is then one small migration.

-- ---------------------------------------------------------------- who

CREATE TABLE users (
    id uuid PRIMARY KEY,
    handle text NOT NULL CONSTRAINT users_handle_key UNIQUE,
    email text CONSTRAINT users_email_key UNIQUE,
    is_active boolean NOT NULL DEFAULT true,
    external_source text,
    external_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_handle_form CHECK (handle ~ '^[a-z0-9._-]{1,64}$'),
    CONSTRAINT users_external_key UNIQUE (external_source, external_id)
);

CREATE TABLE password_credentials (
    user_id uuid PRIMARY KEY REFERENCES users (id),
    password_hash bytea NOT NULL,
    hash_alg text NOT NULL CONSTRAINT password_credentials_alg CHECK (hash_alg IN ('argon2id')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- One row a session (the `sid` of its tokens). Rotation replaces the hash; a token that names the session and is not the
-- current one was rotated before: `rotated_at` tells a client that retried within the grace from a thief.
CREATE TABLE refresh_sessions (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users (id),
    refresh_token_hash bytea NOT NULL CONSTRAINT refresh_sessions_hash_key UNIQUE,
    rotated_at timestamptz,
    is_active boolean NOT NULL DEFAULT true,
    expires_at timestamptz NOT NULL,
    last_used_at timestamptz,
    ended_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX refresh_sessions_user ON refresh_sessions (user_id) WHERE is_active;
CREATE INDEX refresh_sessions_expiry ON refresh_sessions (is_active, expires_at);

CREATE TABLE roles (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL CONSTRAINT roles_name_key UNIQUE,
    description text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE role_bindings (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    subject_type text NOT NULL CONSTRAINT role_bindings_subject CHECK (subject_type IN ('user', 'group')),
    subject_id uuid NOT NULL,
    role_id uuid NOT NULL REFERENCES roles (id),
    scope_type text NOT NULL CONSTRAINT role_bindings_scope CHECK (scope_type IN ('system', 'project')),
    scope_id uuid,
    is_active boolean NOT NULL DEFAULT true,
    managed_by text,
    updated_by uuid REFERENCES users (id),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT role_bindings_scope_id CHECK ((scope_type = 'system') = (scope_id IS NULL)),
    CONSTRAINT role_bindings_key UNIQUE NULLS NOT DISTINCT (subject_type, subject_id, role_id, scope_type, scope_id)
);

CREATE TABLE projects (
    id uuid PRIMARY KEY,
    slug text NOT NULL CONSTRAINT projects_slug_key UNIQUE,
    display_name text NOT NULL,
    description text,
    is_active boolean NOT NULL DEFAULT true,
    default_of uuid CONSTRAINT projects_default_of_key UNIQUE REFERENCES users (id),
    updated_by uuid REFERENCES users (id),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE auth_audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_type text NOT NULL,
    user_id uuid REFERENCES users (id),
    actor_id uuid REFERENCES users (id),
    subject_handle text,
    success boolean NOT NULL,
    ip inet,
    user_agent text,
    reason text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX auth_audit_log_created ON auth_audit_log (created_at);
CREATE INDEX auth_audit_log_user ON auth_audit_log (user_id, created_at);
CREATE INDEX auth_audit_log_type ON auth_audit_log (event_type, created_at);

-- ---------------------------------------------------------------- tasks and jobs

CREATE TABLE tasks (
    id uuid PRIMARY KEY,
    created_by uuid NOT NULL REFERENCES users (id),
    project_id uuid NOT NULL REFERENCES projects (id),
    name text NOT NULL,
    summary text,
    input_mode text NOT NULL CONSTRAINT tasks_input_mode CHECK (input_mode IN ('prompt', 'script', 'commands')),
    prompt text NOT NULL,
    attachments text[] NOT NULL DEFAULT '{}',
    labels jsonb NOT NULL DEFAULT '{}',
    priority integer NOT NULL DEFAULT 0 CONSTRAINT tasks_priority CHECK (priority BETWEEN -100 AND 100),
    status text NOT NULL DEFAULT 'pending'
        CONSTRAINT tasks_status CHECK (status IN ('pending', 'running', 'completed', 'failed', 'canceled', 'superseded')),
    closed boolean NOT NULL DEFAULT false,
    retry_of uuid REFERENCES tasks (id),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    ended_at timestamptz,
    CONSTRAINT tasks_name_key UNIQUE (created_by, name),
    CONSTRAINT tasks_closed CHECK (closed = (status IN ('completed', 'failed', 'canceled', 'superseded'))),
    CONSTRAINT tasks_ended CHECK (closed = (ended_at IS NOT NULL))
);
-- One key may cover the many tasks of one batch, so it is unique in a table of its own.
CREATE TABLE idempotency_keys (
    user_id uuid NOT NULL REFERENCES users (id),
    key text NOT NULL,
    body_hash bytea NOT NULL,
    task_ids uuid[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
);
CREATE INDEX tasks_newest ON tasks (created_by, id DESC);
CREATE INDEX tasks_by_status ON tasks (created_by, status, id DESC);
CREATE INDEX tasks_labels ON tasks USING gin (labels jsonb_path_ops) WHERE labels <> '{}';

-- The next suffix to try for a name that is taken; explicit names only.
CREATE TABLE task_name_suffixes (
    created_by uuid NOT NULL REFERENCES users (id),
    name text NOT NULL,
    next_suffix integer NOT NULL,
    PRIMARY KEY (created_by, name)
);

-- All that a node may refuse a job by, as canonical JSON. Few rows; never deleted.
CREATE TABLE requirements (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    body text NOT NULL CONSTRAINT requirements_body_key UNIQUE
);

CREATE TABLE nodes (
    id uuid PRIMARY KEY,
    slug text NOT NULL CONSTRAINT nodes_slug_key UNIQUE,
    display_name text,
    node_key_hash bytea,
    enabled boolean NOT NULL DEFAULT true,
    drain_requested_at timestamptz,
    placement_labels jsonb,
    tokens_valid_from timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz,
    last_capability_at timestamptz,
    config_version text,
    acked_config_version text,
    config_ack_at timestamptz,
    config_ack_status text CONSTRAINT nodes_config_ack CHECK (config_ack_status IN ('applied', 'failed', 'rolled_back')),
    config_ack_error text,
    capability jsonb NOT NULL DEFAULT '{}',
    capability_hash text NOT NULL DEFAULT '',
    agent_version text,
    slots integer,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT nodes_slug_form CHECK (slug ~ '^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$')
);
COMMENT ON COLUMN nodes.placement_labels IS 'Labels named by the join token; null: those of the node''s own report count';

CREATE TABLE node_configs (
    node_id uuid NOT NULL REFERENCES nodes (id),
    config_version text NOT NULL CONSTRAINT node_configs_ulid CHECK (length(config_version) = 26),
    payload jsonb NOT NULL,
    issued_at timestamptz NOT NULL DEFAULT now(),
    acked_at timestamptz,
    status text NOT NULL DEFAULT 'issued'
        CONSTRAINT node_configs_status CHECK (status IN ('issued', 'applied', 'failed', 'rolled_back')),
    error text,
    PRIMARY KEY (node_id, config_version)
);

CREATE TABLE join_tokens (
    id uuid PRIMARY KEY,
    token_hash bytea NOT NULL CONSTRAINT join_tokens_hash_key UNIQUE,
    slug text,
    labels jsonb,
    uses_left integer NOT NULL CONSTRAINT join_tokens_uses CHECK (uses_left >= 0),
    expires_at timestamptz NOT NULL,
    created_by uuid REFERENCES users (id),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Narrow on purpose: a heartbeat writes `renewals` here and nothing else. `link_id` has a plain unique index, so that
-- writing it conflicts with FOR KEY SHARE while writing `renewals` does not.
CREATE TABLE node_links (
    node_id uuid PRIMARY KEY REFERENCES nodes (id),
    link_id uuid CONSTRAINT node_links_link_key UNIQUE,
    lease text NOT NULL DEFAULT 'free' CONSTRAINT node_links_lease CHECK (lease IN ('free', 'held', 'expired')),
    spool_id text,
    agent_start_id text,
    dial bigint NOT NULL DEFAULT 0,
    renewals bigint NOT NULL DEFAULT 0,
    control_plane uuid,
    since timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT node_links_alive CHECK (link_id IS NULL OR lease = 'held')
);

CREATE TABLE jobs (
    id uuid PRIMARY KEY,
    task_id uuid NOT NULL REFERENCES tasks (id),
    owner uuid NOT NULL REFERENCES users (id),
    requirement_id integer NOT NULL REFERENCES requirements (id),
    status text NOT NULL DEFAULT 'queued'
        CONSTRAINT jobs_status CHECK (status IN ('queued', 'assigned', 'running', 'completed', 'failed', 'canceled')),
    spec jsonb NOT NULL,
    priority integer NOT NULL DEFAULT 0,
    timeout_seconds double precision NOT NULL CONSTRAINT jobs_timeout CHECK (timeout_seconds > 0),
    max_attempts integer NOT NULL CONSTRAINT jobs_max_attempts CHECK (max_attempts >= 1),
    retry_on text[] NOT NULL DEFAULT '{}' CONSTRAINT jobs_retry_on CHECK (retry_on <@ ARRAY['exit', 'timeout']),
    attempt integer NOT NULL DEFAULT 0,
    tries integer NOT NULL DEFAULT 0,
    assignment_id uuid,
    node_id uuid REFERENCES nodes (id),
    not_before timestamptz,
    queue_deadline timestamptz,
    error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    ended_at timestamptz,
    CONSTRAINT jobs_assigned CHECK ((status IN ('assigned', 'running')) = (assignment_id IS NOT NULL AND node_id IS NOT NULL)),
    CONSTRAINT jobs_ended CHECK ((status IN ('completed', 'failed', 'canceled')) = (ended_at IS NOT NULL)),
    CONSTRAINT jobs_delay CHECK (not_before IS NULL OR status = 'queued')
);
COMMENT ON COLUMN jobs.tries IS 'Attempts that cost a try; the job fails when they reach max_attempts';
COMMENT ON COLUMN jobs.not_before IS 'Set while a queued job waits out its back-off; it has no row in job_queue until then';
CREATE INDEX jobs_of_task ON jobs (task_id);
CREATE INDEX jobs_delayed ON jobs (not_before) WHERE not_before IS NOT NULL;
CREATE INDEX jobs_queue_deadline ON jobs (queue_deadline) WHERE queue_deadline IS NOT NULL;
CREATE INDEX jobs_open ON jobs (status, created_at) WHERE status IN ('queued', 'assigned', 'running');
CREATE INDEX jobs_ended_at ON jobs (ended_at) WHERE ended_at IS NOT NULL;

-- (requirement, owner). `served` is the turn in which the group was last served; only groups with rows are active.
CREATE SEQUENCE queue_turns;
CREATE TABLE queue_groups (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    requirement_id integer NOT NULL REFERENCES requirements (id),
    owner uuid NOT NULL REFERENCES users (id),
    served bigint NOT NULL DEFAULT 0,
    active boolean NOT NULL DEFAULT false,
    CONSTRAINT queue_groups_key UNIQUE (requirement_id, owner)
);
CREATE INDEX queue_groups_turn ON queue_groups (served) WHERE active;

-- Ready jobs only; the row goes when the job is claimed. UUIDv7 ids are the age.
CREATE TABLE job_queue (
    group_id bigint NOT NULL REFERENCES queue_groups (id),
    priority integer NOT NULL,
    job_id uuid NOT NULL REFERENCES jobs (id),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id)
);
CREATE INDEX job_queue_order ON job_queue (group_id, priority DESC, job_id);

CREATE TABLE job_attempts (
    job_id uuid NOT NULL REFERENCES jobs (id),
    attempt integer NOT NULL CONSTRAINT job_attempts_number CHECK (attempt >= 1),
    assignment_id uuid NOT NULL CONSTRAINT job_attempts_assignment_key UNIQUE,
    node_id uuid NOT NULL REFERENCES nodes (id),
    link_id uuid NOT NULL,
    spool_id text NOT NULL,
    timeout_seconds double precision NOT NULL,
    assigned_at timestamptz NOT NULL DEFAULT now(),
    accepted_at timestamptz,
    started_at timestamptz,
    ended_at timestamptz,
    outcome text CONSTRAINT job_attempts_outcome
        CHECK (outcome IN ('completed', 'failed', 'timeout', 'canceled', 'lost', 'handed_back', 'rejected')),
    exit_code integer,
    error text,
    runtime text,
    stdout_length bigint NOT NULL DEFAULT 0,
    stderr_length bigint NOT NULL DEFAULT 0,
    stdout_truncated boolean NOT NULL DEFAULT false,
    stderr_truncated boolean NOT NULL DEFAULT false,
    bad_report text,
    gap text,
    stop_reason text CONSTRAINT job_attempts_stop_reason CHECK (stop_reason IN ('canceled', 'timeout', 'fenced', 'recall')),
    stop_requested_at timestamptz,
    stopped_at timestamptz,
    PRIMARY KEY (job_id, attempt),
    CONSTRAINT job_attempts_ended CHECK ((outcome IS NULL) = (ended_at IS NULL)),
    CONSTRAINT job_attempts_stopped CHECK (stopped_at IS NULL OR ended_at IS NOT NULL)
);
COMMENT ON COLUMN job_attempts.stdout_length IS 'Bytes accepted, those beyond the cap (which are not stored) included';
COMMENT ON COLUMN job_attempts.stopped_at IS 'When nothing of it ran any more; until then it holds a slot';
CREATE UNIQUE INDEX job_attempts_one_open ON job_attempts (job_id) WHERE ended_at IS NULL;
CREATE INDEX job_attempts_on_node ON job_attempts (node_id) WHERE stopped_at IS NULL;

CREATE TABLE job_output (
    job_id uuid NOT NULL,
    attempt integer NOT NULL,
    stream text NOT NULL CONSTRAINT job_output_stream CHECK (stream IN ('stdout', 'stderr')),
    byte_offset bigint NOT NULL,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    data bytea NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (job_id, attempt, stream, byte_offset),
    FOREIGN KEY (job_id, attempt) REFERENCES job_attempts (job_id, attempt)
);

CREATE TABLE node_refusals (
    node_id uuid NOT NULL REFERENCES nodes (id),
    requirement_id integer NOT NULL REFERENCES requirements (id),
    reason text NOT NULL CONSTRAINT node_refusals_reason CHECK (reason IN ('unsupported', 'forbidden_here')),
    detail text,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (node_id, requirement_id)
);

-- Reports that were acknowledged and dropped: one row per attempt and kind, with a count.
CREATE TABLE dropped_reports (
    node_id uuid NOT NULL REFERENCES nodes (id),
    assignment_id uuid NOT NULL,
    kind text NOT NULL,
    reason text NOT NULL,
    count bigint NOT NULL DEFAULT 1,
    first_at timestamptz NOT NULL DEFAULT now(),
    last_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (node_id, assignment_id, kind)
);

-- ---------------------------------------------------------------- seeds

INSERT INTO roles (name, description) VALUES
    ('owner', 'May do everything'),
    ('admin', 'Manages users, nodes and settings'),
    ('operator', 'Manages nodes and jobs'),
    ('member', 'Runs tasks'),
    ('viewer', 'Reads');

INSERT INTO users (id, handle) VALUES ('00000000-0000-7000-8000-000000000001', 'system');
INSERT INTO projects (id, slug, display_name, default_of)
VALUES ('00000000-0000-7000-8000-000000000002', 'default-system', 'System', '00000000-0000-7000-8000-000000000001');
