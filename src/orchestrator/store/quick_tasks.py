"""Tasks whose rows can all be told beforehand, in one statement that commits itself.

That is so when the names were made from the ids, and when the queue's groups are known. Whatever is in the way (a key
that was used before, a group that is gone) fails the statement with BadData, and nothing is stored.

As in queue_rows.py, no claim can miss a row: the group is held FOR KEY SHARE before it is looked at, so that whoever
takes it out of the turn has either committed that, and it is made active here, or waits and then sees the rows.
"""

from collections.abc import Mapping, Sequence

from orchestrator.domain.ids import TaskId, UserId
from orchestrator.domain.tasks import NewTask, Task
from orchestrator.store.db import Connection
from orchestrator.store.idempotency import KeyUse, id_array
from orchestrator.store.new_tasks import json_of, text_array

SUBMIT = """
    WITH added AS (
        INSERT INTO tasks (id, created_by, project_id, name, input_mode, prompt, attachments, labels, priority,
                           retry_of, created_at, updated_at)
        SELECT x.id, x.owner, coalesce(x.project, (SELECT p.id FROM projects p WHERE p.default_of = x.owner)), x.name,
               x.input_mode, x.prompt, x.attachments::text[], x.labels::jsonb, x.priority, x.retry_of, x.at, x.at
          FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                      $9::int[], $10::uuid[], $11::timestamptz[])
            AS x (id, owner, project, name, input_mode, prompt, attachments, labels, priority, retry_of, at)
     RETURNING id, project_id
    ), used AS (
        INSERT INTO idempotency_keys (user_id, key, body_hash, task_ids)
        SELECT x.user_id, x.key, x.body_hash, x.task_ids::uuid[]
          FROM unnest($19::uuid[], $20::text[], $21::bytea[], $22::text[]) AS x (user_id, key, body_hash, task_ids)
    ), jobs_added AS (
        INSERT INTO jobs (id, task_id, owner, requirement_id, spec, priority, timeout_seconds, max_attempts, retry_on,
                          queue_deadline, created_at, updated_at)
        SELECT x.id, x.task_id, x.owner, g.requirement_id,
               x.spec::jsonb || jsonb_build_object('task_name', x.name), x.priority, x.timeout, x.attempts,
               x.retry_on::text[], now() + make_interval(secs => x.queue_timeout), x.at, x.at
          FROM unnest($12::uuid[], $1::uuid[], $2::uuid[], $13::bigint[], $14::text[], $4::text[], $9::int[],
                      $15::float8[], $16::int[], $17::text[], $18::float8[], $11::timestamptz[])
            AS x (id, task_id, owner, queue_group, spec, name, priority, timeout, attempts, retry_on, queue_timeout, at)
          JOIN queue_groups g ON g.id = x.queue_group
    ), held AS MATERIALIZED (
        SELECT id, active FROM queue_groups WHERE id = ANY($13::bigint[]) ORDER BY id FOR KEY SHARE
    ), queued AS (
        INSERT INTO job_queue (job_id, group_id, priority)
        SELECT * FROM unnest($12::uuid[], $13::bigint[], $9::int[])
    ), woken AS (
        UPDATE queue_groups SET active = true WHERE id = ANY(ARRAY(SELECT id FROM held WHERE NOT active))
    )
    SELECT id, project_id, (SELECT pg_notify('cynode_queue', '') IS NULL) FROM added
"""
GROUPS = """
    SELECT x.owner, x.body, g.id
      FROM unnest($1::uuid[], $2::text[]) AS x (owner, body)
      JOIN requirements r ON r.body = x.body
      JOIN queue_groups g ON g.requirement_id = r.id AND g.owner = x.owner
"""
Group = tuple[UserId, str]
"""An owner and a requirement."""


async def find_groups(conn: Connection, wanted: Sequence[Group]) -> dict[Group, int]:
    rows = await conn.fetch(GROUPS, [owner for owner, _ in wanted], [body for _, body in wanted])
    return {(row["owner"], row["body"]): row["id"] for row in rows}


async def submit_tasks(
    conn: Connection, tasks: Sequence[NewTask], groups: Mapping[Group, int], keys: Sequence[KeyUse]
) -> dict[TaskId, Task]:
    rows = await conn.fetch(
        SUBMIT,
        [task.id for task in tasks],
        [task.owner for task in tasks],
        [task.project_id for task in tasks],
        [task.name for task in tasks],
        [task.input_mode for task in tasks],
        [task.prompt for task in tasks],
        [text_array(task.attachments) for task in tasks],
        [json_of(task.labels) for task in tasks],
        [task.priority for task in tasks],
        [task.retry_of for task in tasks],
        [task.created_at for task in tasks],
        [task.job_id for task in tasks],
        [groups[task.owner, task.requirement] for task in tasks],
        [task.spec for task in tasks],
        [float(task.timeout_seconds) for task in tasks],
        [task.max_attempts for task in tasks],
        [text_array(task.retry_on) for task in tasks],
        [task.queue_timeout_seconds for task in tasks],
        [use.user for use in keys],
        [use.key for use in keys],
        [use.body_hash for use in keys],
        [id_array(use.task_ids) for use in keys],
    )
    projects = {row["id"]: row["project_id"] for row in rows}
    return {task.id: task.stored(task.name, projects[task.id]) for task in tasks}
