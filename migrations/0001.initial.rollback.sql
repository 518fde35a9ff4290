DROP TABLE dropped_reports, node_refusals, job_output, job_attempts, job_queue, queue_groups, jobs, node_links, join_tokens,
    node_configs, nodes, requirements, task_name_suffixes, idempotency_keys, tasks, auth_audit_log, projects, role_bindings, roles,
    refresh_sessions, password_credentials, users;
DROP SEQUENCE queue_turns;
