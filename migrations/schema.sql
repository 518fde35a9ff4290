-- What the migrations make, for reading. Written by `python tests/schema_dump.py`; a test compares it.

COMMENT ON SCHEMA public IS 'standard public schema';

CREATE TABLE public.auth_audit_log (
    id bigint NOT NULL,
    event_type text NOT NULL,
    user_id uuid,
    actor_id uuid,
    subject_handle text,
    success boolean NOT NULL,
    ip inet,
    user_agent text,
    reason text,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE public.auth_audit_log ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.auth_audit_log_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.dropped_reports (
    node_id uuid NOT NULL,
    assignment_id uuid NOT NULL,
    kind text NOT NULL,
    reason text NOT NULL,
    count bigint DEFAULT 1 NOT NULL,
    first_at timestamp with time zone DEFAULT now() NOT NULL,
    last_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.idempotency_keys (
    user_id uuid NOT NULL,
    key text NOT NULL,
    body_hash bytea NOT NULL,
    task_ids uuid[] NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.job_attempts (
    job_id uuid NOT NULL,
    attempt integer NOT NULL,
    assignment_id uuid NOT NULL,
    node_id uuid NOT NULL,
    link_id uuid NOT NULL,
    spool_id text NOT NULL,
    timeout_seconds double precision NOT NULL,
    assigned_at timestamp with time zone DEFAULT now() NOT NULL,
    accepted_at timestamp with time zone,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    outcome text,
    exit_code integer,
    error text,
    runtime text,
    stdout_length bigint DEFAULT 0 NOT NULL,
    stderr_length bigint DEFAULT 0 NOT NULL,
    stdout_truncated boolean DEFAULT false NOT NULL,
    stderr_truncated boolean DEFAULT false NOT NULL,
    bad_report text,
    gap text,
    stop_reason text,
    stop_requested_at timestamp with time zone,
    stopped_at timestamp with time zone,
    CONSTRAINT job_attempts_ended CHECK (((outcome IS NULL) = (ended_at IS NULL))),
    CONSTRAINT job_attempts_number CHECK ((attempt >= 1)),
    CONSTRAINT job_attempts_outcome CHECK ((outcome = ANY (ARRAY['completed'::text, 'failed'::text, 'timeout'::text, 'canceled'::text, 'lost'::text, 'handed_back'::text, 'rejected'::text]))),
    CONSTRAINT job_attempts_stop_reason CHECK ((stop_reason = ANY (ARRAY['canceled'::text, 'timeout'::text, 'fenced'::text, 'recall'::text]))),
    CONSTRAINT job_attempts_stopped CHECK (((stopped_at IS NULL) OR (ended_at IS NOT NULL)))
);

COMMENT ON COLUMN public.job_attempts.stdout_length IS 'Bytes accepted, those beyond the cap (which are not stored) included';

COMMENT ON COLUMN public.job_attempts.stopped_at IS 'When nothing of it ran any more; until then it holds a slot';

CREATE TABLE public.job_output (
    job_id uuid NOT NULL,
    attempt integer NOT NULL,
    stream text NOT NULL,
    byte_offset bigint NOT NULL,
    seq bigint NOT NULL,
    data bytea NOT NULL,
    at timestamp with time zone NOT NULL,
    CONSTRAINT job_output_stream CHECK ((stream = ANY (ARRAY['stdout'::text, 'stderr'::text])))
);

ALTER TABLE public.job_output ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.job_output_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.job_queue (
    group_id bigint NOT NULL,
    priority integer NOT NULL,
    job_id uuid NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.jobs (
    id uuid NOT NULL,
    task_id uuid NOT NULL,
    owner uuid NOT NULL,
    requirement_id integer NOT NULL,
    status text DEFAULT 'queued'::text NOT NULL,
    spec jsonb NOT NULL,
    priority integer DEFAULT 0 NOT NULL,
    timeout_seconds double precision NOT NULL,
    max_attempts integer NOT NULL,
    retry_on text[] DEFAULT '{}'::text[] NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    tries integer DEFAULT 0 NOT NULL,
    assignment_id uuid,
    node_id uuid,
    not_before timestamp with time zone,
    queue_deadline timestamp with time zone,
    error text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    CONSTRAINT jobs_assigned CHECK (((status = ANY (ARRAY['assigned'::text, 'running'::text])) = ((assignment_id IS NOT NULL) AND (node_id IS NOT NULL)))),
    CONSTRAINT jobs_delay CHECK (((not_before IS NULL) OR (status = 'queued'::text))),
    CONSTRAINT jobs_ended CHECK (((status = ANY (ARRAY['completed'::text, 'failed'::text, 'canceled'::text])) = (ended_at IS NOT NULL))),
    CONSTRAINT jobs_max_attempts CHECK ((max_attempts >= 1)),
    CONSTRAINT jobs_retry_on CHECK ((retry_on <@ ARRAY['exit'::text, 'timeout'::text])),
    CONSTRAINT jobs_status CHECK ((status = ANY (ARRAY['queued'::text, 'assigned'::text, 'running'::text, 'completed'::text, 'failed'::text, 'canceled'::text]))),
    CONSTRAINT jobs_timeout CHECK ((timeout_seconds > (0)::double precision))
);

COMMENT ON COLUMN public.jobs.tries IS 'Attempts that cost a try; the job fails when they reach max_attempts';

COMMENT ON COLUMN public.jobs.not_before IS 'Set while a queued job waits out its back-off; it has no row in job_queue until then';

CREATE TABLE public.join_tokens (
    id uuid NOT NULL,
    token_hash bytea NOT NULL,
    slug text,
    labels jsonb,
    uses_left integer NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    created_by uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT join_tokens_uses CHECK ((uses_left >= 0))
);

CREATE TABLE public.node_configs (
    node_id uuid NOT NULL,
    config_version text NOT NULL,
    payload jsonb NOT NULL,
    issued_at timestamp with time zone DEFAULT now() NOT NULL,
    acked_at timestamp with time zone,
    status text DEFAULT 'issued'::text NOT NULL,
    error text,
    CONSTRAINT node_configs_status CHECK ((status = ANY (ARRAY['issued'::text, 'applied'::text, 'failed'::text, 'rolled_back'::text]))),
    CONSTRAINT node_configs_ulid CHECK ((length(config_version) = 26))
);

CREATE TABLE public.node_links (
    node_id uuid NOT NULL,
    link_id uuid,
    lease text DEFAULT 'free'::text NOT NULL,
    spool_id text,
    agent_start_id text,
    dial bigint DEFAULT 0 NOT NULL,
    renewals bigint DEFAULT 0 NOT NULL,
    control_plane uuid,
    since timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT node_links_alive CHECK (((link_id IS NULL) OR (lease = 'held'::text))),
    CONSTRAINT node_links_lease CHECK ((lease = ANY (ARRAY['free'::text, 'held'::text, 'expired'::text])))
);

CREATE TABLE public.node_refusals (
    node_id uuid NOT NULL,
    requirement_id integer NOT NULL,
    reason text NOT NULL,
    detail text,
    since timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT node_refusals_reason CHECK ((reason = ANY (ARRAY['unsupported'::text, 'forbidden_here'::text])))
);

CREATE TABLE public.nodes (
    id uuid NOT NULL,
    slug text NOT NULL,
    display_name text,
    node_key_hash bytea,
    enabled boolean DEFAULT true NOT NULL,
    drain_requested_at timestamp with time zone,
    placement_labels jsonb,
    tokens_valid_from timestamp with time zone DEFAULT now() NOT NULL,
    last_seen_at timestamp with time zone,
    last_capability_at timestamp with time zone,
    config_version text,
    acked_config_version text,
    config_ack_at timestamp with time zone,
    config_ack_status text,
    config_ack_error text,
    capability jsonb DEFAULT '{}'::jsonb NOT NULL,
    capability_hash text DEFAULT ''::text NOT NULL,
    agent_version text,
    slots integer,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT nodes_config_ack CHECK ((config_ack_status = ANY (ARRAY['applied'::text, 'failed'::text, 'rolled_back'::text]))),
    CONSTRAINT nodes_slug_form CHECK ((slug ~ '^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$'::text))
);

COMMENT ON COLUMN public.nodes.placement_labels IS 'Labels named by the join token; null: those of the node''s own report count';

CREATE TABLE public.password_credentials (
    user_id uuid NOT NULL,
    password_hash bytea NOT NULL,
    hash_alg text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT password_credentials_alg CHECK ((hash_alg = 'argon2id'::text))
);

CREATE TABLE public.projects (
    id uuid NOT NULL,
    slug text NOT NULL,
    display_name text NOT NULL,
    description text,
    is_active boolean DEFAULT true NOT NULL,
    default_of uuid,
    updated_by uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.queue_groups (
    id bigint NOT NULL,
    requirement_id integer NOT NULL,
    owner uuid NOT NULL,
    served bigint DEFAULT 0 NOT NULL,
    active boolean DEFAULT false NOT NULL
);

ALTER TABLE public.queue_groups ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.queue_groups_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE SEQUENCE public.queue_turns
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE public.refresh_sessions (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    refresh_token_hash bytea NOT NULL,
    rotated_at timestamp with time zone,
    is_active boolean DEFAULT true NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    last_used_at timestamp with time zone,
    ended_reason text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.requirements (
    id integer NOT NULL,
    body text NOT NULL
);

ALTER TABLE public.requirements ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.requirements_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.role_bindings (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    subject_type text NOT NULL,
    subject_id uuid NOT NULL,
    role_id uuid NOT NULL,
    scope_type text NOT NULL,
    scope_id uuid,
    is_active boolean DEFAULT true NOT NULL,
    managed_by text,
    updated_by uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT role_bindings_scope CHECK ((scope_type = ANY (ARRAY['system'::text, 'project'::text]))),
    CONSTRAINT role_bindings_scope_id CHECK (((scope_type = 'system'::text) = (scope_id IS NULL))),
    CONSTRAINT role_bindings_subject CHECK ((subject_type = ANY (ARRAY['user'::text, 'group'::text])))
);

CREATE TABLE public.roles (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    name text NOT NULL,
    description text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.schema_version (
    migration_id text NOT NULL,
    min_code integer NOT NULL
);

CREATE TABLE public.task_name_suffixes (
    created_by uuid NOT NULL,
    name text NOT NULL,
    next_suffix integer NOT NULL
);

CREATE TABLE public.tasks (
    id uuid NOT NULL,
    created_by uuid NOT NULL,
    project_id uuid NOT NULL,
    name text NOT NULL,
    summary text,
    input_mode text NOT NULL,
    prompt text NOT NULL,
    attachments text[] DEFAULT '{}'::text[] NOT NULL,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    priority integer DEFAULT 0 NOT NULL,
    status text DEFAULT 'pending'::text NOT NULL,
    closed boolean DEFAULT false NOT NULL,
    retry_of uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    CONSTRAINT tasks_closed CHECK ((closed = (status = ANY (ARRAY['completed'::text, 'failed'::text, 'canceled'::text, 'superseded'::text])))),
    CONSTRAINT tasks_ended CHECK ((closed = (ended_at IS NOT NULL))),
    CONSTRAINT tasks_input_mode CHECK ((input_mode = ANY (ARRAY['prompt'::text, 'script'::text, 'commands'::text]))),
    CONSTRAINT tasks_priority CHECK (((priority >= '-100'::integer) AND (priority <= 100))),
    CONSTRAINT tasks_status CHECK ((status = ANY (ARRAY['pending'::text, 'running'::text, 'completed'::text, 'failed'::text, 'canceled'::text, 'superseded'::text])))
);

CREATE TABLE public.users (
    id uuid NOT NULL,
    handle text NOT NULL,
    email text,
    is_active boolean DEFAULT true NOT NULL,
    external_source text,
    external_id text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT users_handle_form CHECK ((handle ~ '^[a-z0-9._-]{1,64}$'::text))
);

ALTER TABLE ONLY public.auth_audit_log
    ADD CONSTRAINT auth_audit_log_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.dropped_reports
    ADD CONSTRAINT dropped_reports_pkey PRIMARY KEY (node_id, assignment_id, kind);

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (user_id, key);

ALTER TABLE ONLY public.job_attempts
    ADD CONSTRAINT job_attempts_assignment_key UNIQUE (assignment_id);

ALTER TABLE ONLY public.job_attempts
    ADD CONSTRAINT job_attempts_pkey PRIMARY KEY (job_id, attempt);

ALTER TABLE ONLY public.job_output
    ADD CONSTRAINT job_output_pkey PRIMARY KEY (job_id, attempt, stream, byte_offset);

ALTER TABLE ONLY public.job_queue
    ADD CONSTRAINT job_queue_pkey PRIMARY KEY (job_id);

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.join_tokens
    ADD CONSTRAINT join_tokens_hash_key UNIQUE (token_hash);

ALTER TABLE ONLY public.join_tokens
    ADD CONSTRAINT join_tokens_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.node_configs
    ADD CONSTRAINT node_configs_pkey PRIMARY KEY (node_id, config_version);

ALTER TABLE ONLY public.node_links
    ADD CONSTRAINT node_links_link_key UNIQUE (link_id);

ALTER TABLE ONLY public.node_links
    ADD CONSTRAINT node_links_pkey PRIMARY KEY (node_id);

ALTER TABLE ONLY public.node_refusals
    ADD CONSTRAINT node_refusals_pkey PRIMARY KEY (node_id, requirement_id);

ALTER TABLE ONLY public.nodes
    ADD CONSTRAINT nodes_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.nodes
    ADD CONSTRAINT nodes_slug_key UNIQUE (slug);

ALTER TABLE ONLY public.password_credentials
    ADD CONSTRAINT password_credentials_pkey PRIMARY KEY (user_id);

ALTER TABLE ONLY public.projects
    ADD CONSTRAINT projects_default_of_key UNIQUE (default_of);

ALTER TABLE ONLY public.projects
    ADD CONSTRAINT projects_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.projects
    ADD CONSTRAINT projects_slug_key UNIQUE (slug);

ALTER TABLE ONLY public.queue_groups
    ADD CONSTRAINT queue_groups_key UNIQUE (requirement_id, owner);

ALTER TABLE ONLY public.queue_groups
    ADD CONSTRAINT queue_groups_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.refresh_sessions
    ADD CONSTRAINT refresh_sessions_hash_key UNIQUE (refresh_token_hash);

ALTER TABLE ONLY public.refresh_sessions
    ADD CONSTRAINT refresh_sessions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.requirements
    ADD CONSTRAINT requirements_body_key UNIQUE (body);

ALTER TABLE ONLY public.requirements
    ADD CONSTRAINT requirements_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.role_bindings
    ADD CONSTRAINT role_bindings_key UNIQUE NULLS NOT DISTINCT (subject_type, subject_id, role_id, scope_type, scope_id);

ALTER TABLE ONLY public.role_bindings
    ADD CONSTRAINT role_bindings_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.roles
    ADD CONSTRAINT roles_name_key UNIQUE (name);

ALTER TABLE ONLY public.roles
    ADD CONSTRAINT roles_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.schema_version
    ADD CONSTRAINT schema_version_pkey PRIMARY KEY (migration_id);

ALTER TABLE ONLY public.task_name_suffixes
    ADD CONSTRAINT task_name_suffixes_pkey PRIMARY KEY (created_by, name);

ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT tasks_name_key UNIQUE (created_by, name);

ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT tasks_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_email_key UNIQUE (email);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_external_key UNIQUE (external_source, external_id);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_handle_key UNIQUE (handle);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);

CREATE INDEX auth_audit_log_created ON public.auth_audit_log USING btree (created_at);

CREATE INDEX auth_audit_log_type ON public.auth_audit_log USING btree (event_type, created_at);

CREATE INDEX auth_audit_log_user ON public.auth_audit_log USING btree (user_id, created_at);

CREATE INDEX job_attempts_on_node ON public.job_attempts USING btree (node_id) WHERE (stopped_at IS NULL);

CREATE UNIQUE INDEX job_attempts_one_open ON public.job_attempts USING btree (job_id) WHERE (ended_at IS NULL);

CREATE INDEX job_queue_order ON public.job_queue USING btree (group_id, priority DESC, job_id);

CREATE INDEX jobs_delayed ON public.jobs USING btree (not_before) WHERE (not_before IS NOT NULL);

CREATE INDEX jobs_ended_at ON public.jobs USING btree (ended_at) WHERE (ended_at IS NOT NULL);

CREATE INDEX jobs_of_task ON public.jobs USING btree (task_id);

CREATE INDEX jobs_open ON public.jobs USING btree (status, created_at) WHERE (status = ANY (ARRAY['queued'::text, 'assigned'::text, 'running'::text]));

CREATE INDEX jobs_queue_deadline ON public.jobs USING btree (queue_deadline) WHERE (queue_deadline IS NOT NULL);

CREATE INDEX queue_groups_turn ON public.queue_groups USING btree (served) WHERE active;

CREATE INDEX refresh_sessions_expiry ON public.refresh_sessions USING btree (is_active, expires_at);

CREATE INDEX refresh_sessions_user ON public.refresh_sessions USING btree (user_id) WHERE is_active;

CREATE INDEX tasks_by_status ON public.tasks USING btree (created_by, status, id DESC);

CREATE INDEX tasks_labels ON public.tasks USING gin (labels jsonb_path_ops) WHERE (labels <> '{}'::jsonb);

CREATE INDEX tasks_newest ON public.tasks USING btree (created_by, id DESC);

ALTER TABLE ONLY public.auth_audit_log
    ADD CONSTRAINT auth_audit_log_actor_id_fkey FOREIGN KEY (actor_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.auth_audit_log
    ADD CONSTRAINT auth_audit_log_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.dropped_reports
    ADD CONSTRAINT dropped_reports_node_id_fkey FOREIGN KEY (node_id) REFERENCES public.nodes(id);

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.job_attempts
    ADD CONSTRAINT job_attempts_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs(id);

ALTER TABLE ONLY public.job_attempts
    ADD CONSTRAINT job_attempts_node_id_fkey FOREIGN KEY (node_id) REFERENCES public.nodes(id);

ALTER TABLE ONLY public.job_output
    ADD CONSTRAINT job_output_job_id_attempt_fkey FOREIGN KEY (job_id, attempt) REFERENCES public.job_attempts(job_id, attempt);

ALTER TABLE ONLY public.job_queue
    ADD CONSTRAINT job_queue_group_id_fkey FOREIGN KEY (group_id) REFERENCES public.queue_groups(id);

ALTER TABLE ONLY public.job_queue
    ADD CONSTRAINT job_queue_job_id_fkey FOREIGN KEY (job_id) REFERENCES public.jobs(id);

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_node_id_fkey FOREIGN KEY (node_id) REFERENCES public.nodes(id);

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_owner_fkey FOREIGN KEY (owner) REFERENCES public.users(id);

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_requirement_id_fkey FOREIGN KEY (requirement_id) REFERENCES public.requirements(id);

ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_task_id_fkey FOREIGN KEY (task_id) REFERENCES public.tasks(id);

ALTER TABLE ONLY public.join_tokens
    ADD CONSTRAINT join_tokens_created_by_fkey FOREIGN KEY (created_by) REFERENCES public.users(id);

ALTER TABLE ONLY public.node_configs
    ADD CONSTRAINT node_configs_node_id_fkey FOREIGN KEY (node_id) REFERENCES public.nodes(id);

ALTER TABLE ONLY public.node_links
    ADD CONSTRAINT node_links_node_id_fkey FOREIGN KEY (node_id) REFERENCES public.nodes(id);

ALTER TABLE ONLY public.node_refusals
    ADD CONSTRAINT node_refusals_node_id_fkey FOREIGN KEY (node_id) REFERENCES public.nodes(id);

ALTER TABLE ONLY public.node_refusals
    ADD CONSTRAINT node_refusals_requirement_id_fkey FOREIGN KEY (requirement_id) REFERENCES public.requirements(id);

ALTER TABLE ONLY public.password_credentials
    ADD CONSTRAINT password_credentials_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.projects
    ADD CONSTRAINT projects_default_of_fkey FOREIGN KEY (default_of) REFERENCES public.users(id);

ALTER TABLE ONLY public.projects
    ADD CONSTRAINT projects_updated_by_fkey FOREIGN KEY (updated_by) REFERENCES public.users(id);

ALTER TABLE ONLY public.queue_groups
    ADD CONSTRAINT queue_groups_owner_fkey FOREIGN KEY (owner) REFERENCES public.users(id);

ALTER TABLE ONLY public.queue_groups
    ADD CONSTRAINT queue_groups_requirement_id_fkey FOREIGN KEY (requirement_id) REFERENCES public.requirements(id);

ALTER TABLE ONLY public.refresh_sessions
    ADD CONSTRAINT refresh_sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.role_bindings
    ADD CONSTRAINT role_bindings_role_id_fkey FOREIGN KEY (role_id) REFERENCES public.roles(id);

ALTER TABLE ONLY public.role_bindings
    ADD CONSTRAINT role_bindings_updated_by_fkey FOREIGN KEY (updated_by) REFERENCES public.users(id);

ALTER TABLE ONLY public.task_name_suffixes
    ADD CONSTRAINT task_name_suffixes_created_by_fkey FOREIGN KEY (created_by) REFERENCES public.users(id);

ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT tasks_created_by_fkey FOREIGN KEY (created_by) REFERENCES public.users(id);

ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT tasks_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.projects(id);

ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT tasks_retry_of_fkey FOREIGN KEY (retry_of) REFERENCES public.tasks(id);
