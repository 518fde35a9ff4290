"""Many tasks and their jobs inserted at once, in few statements; names are made unique on the way."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.domain.ids import ProjectId, TaskId, UserId
from orchestrator.domain.names import with_suffix
from orchestrator.domain.tasks import NewTask, Task
from orchestrator.store.db import Connection
from orchestrator.store.queue_rows import QueueRow, enqueue, ensure_requirements

ADD_TASKS = """
    INSERT INTO tasks (id, created_by, project_id, name, input_mode, prompt, attachments, labels, priority, retry_of,
                       created_at, updated_at)
    SELECT x.id, x.owner, coalesce(x.project, (SELECT p.id FROM projects p WHERE p.default_of = x.owner)), x.name,
           x.input_mode, x.prompt, x.attachments::text[], x.labels::jsonb, x.priority, x.retry_of, x.at, x.at
      FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                  $9::int[], $10::uuid[], $11::timestamptz[])
        AS x (id, owner, project, name, input_mode, prompt, attachments, labels, priority, retry_of, at)
        ON CONFLICT (created_by, name) DO NOTHING
 RETURNING id, project_id
"""
ADD_JOBS = """
    INSERT INTO jobs (id, task_id, owner, requirement_id, spec, priority, timeout_seconds, max_attempts, retry_on,
                      queue_deadline, created_at, updated_at)
    SELECT x.id, x.task_id, x.owner, x.requirement, x.spec::jsonb || jsonb_build_object('task_name', x.name),
           x.priority, x.timeout, x.attempts, x.retry_on::text[],
           now() + make_interval(secs => x.queue_timeout), x.at, x.at
      FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::text[], $6::text[], $7::int[], $8::float8[],
                  $9::int[], $10::text[], $11::float8[], $12::timestamptz[])
        AS x (id, task_id, owner, requirement, spec, name, priority, timeout, attempts, retry_on, queue_timeout, at)
"""
# Holds the row of each name until the end, so that whoever wants a suffix of the same name waits for its turn.
TAKE_SUFFIXES = """
    INSERT INTO task_name_suffixes AS s (created_by, name, next_suffix)
    SELECT x.owner, x.name, 2 FROM unnest($1::uuid[], $2::text[]) AS x (owner, name)
        ON CONFLICT (created_by, name) DO UPDATE SET next_suffix = s.next_suffix
 RETURNING created_by, name, next_suffix
"""
NAMES_TAKEN = """
    SELECT t.created_by, t.name FROM unnest($1::uuid[], $2::text[]) AS x (owner, name)
      JOIN tasks t ON t.created_by = x.owner AND t.name = x.name
"""
KEEP_SUFFIXES = """
    UPDATE task_name_suffixes s SET next_suffix = x.next_suffix
      FROM unnest($1::uuid[], $2::text[], $3::int[]) AS x (owner, name, next_suffix)
     WHERE s.created_by = x.owner AND s.name = x.name
"""
LOOK_AHEAD = 64
"""Suffixes looked at beyond those needed, for names that users gave themselves."""

_Name = tuple[UserId, str]


async def insert_tasks(conn: Connection, tasks: Sequence[NewTask]) -> dict[TaskId, Task]:
    """Stores each task with its job in the queue; answers as they are stored, under their final names."""
    stored: dict[TaskId, Task] = {}
    names = {task.id: task.name for task in tasks}
    left = list(tasks)
    while left:
        # In the order of the names, so that two who insert the same ones do not wait for each other.
        left.sort(key=lambda task: (task.owner.bytes, names[task.id], task.id.bytes))
        projects = await _add_tasks(conn, left, names)
        stored |= {task.id: task.stored(names[task.id], projects[task.id]) for task in left if task.id in projects}
        left = [task for task in left if task.id not in projects]
        if left:
            names |= await _allot_suffixes(conn, left)
    await _add_jobs(conn, tasks, names)
    return stored


async def _add_tasks(
    conn: Connection, tasks: Sequence[NewTask], names: Mapping[TaskId, str]
) -> dict[TaskId, ProjectId]:
    """Those whose name was free, with their projects."""
    rows = await conn.fetch(
        ADD_TASKS,
        [task.id for task in tasks],
        [task.owner for task in tasks],
        [task.project_id for task in tasks],
        [names[task.id] for task in tasks],
        [task.input_mode for task in tasks],
        [task.prompt for task in tasks],
        [text_array(task.attachments) for task in tasks],
        [json_of(task.labels) for task in tasks],
        [task.priority for task in tasks],
        [task.retry_of for task in tasks],
        [task.created_at for task in tasks],
    )
    return {row["id"]: row["project_id"] for row in rows}


async def _allot_suffixes(conn: Connection, tasks: Sequence[NewTask]) -> dict[TaskId, str]:
    """A name for each that was free a moment ago; whoever took it meanwhile sends us here again, to a higher one."""
    needed = Counter((task.owner, task.name) for task in tasks)
    bases = sorted(needed, key=lambda base: (base[0].bytes, base[1]))
    rows = await conn.fetch(TAKE_SUFFIXES, *_columns(bases))
    first: dict[_Name, int] = {(row["created_by"], row["name"]): row["next_suffix"] for row in rows}
    tries = {base: range(first[base], first[base] + needed[base] + LOOK_AHEAD) for base in bases}
    taken = await _taken(conn, [(owner, with_suffix(name, n)) for (owner, name) in bases for n in tries[owner, name]])
    names: dict[TaskId, str] = {}
    upto: dict[_Name, int] = {}
    for base in bases:
        owner, name = base
        free = (n for n in tries[base] if (owner, with_suffix(name, n)) not in taken)
        # Those for whom the range held no free one come here again; until then they keep a name that is taken.
        pairs = list(zip((task for task in tasks if (task.owner, task.name) == base), free, strict=False))
        names |= {task.id: with_suffix(name, number) for task, number in pairs}
        upto[base] = pairs[-1][1] + 1 if len(pairs) == needed[base] else tries[base].stop
    await conn.execute(KEEP_SUFFIXES, *_columns(bases), [upto[base] for base in bases])
    return names


async def _taken(conn: Connection, names: Sequence[_Name]) -> set[_Name]:
    return {(row["created_by"], row["name"]) for row in await conn.fetch(NAMES_TAKEN, *_columns(names))}


async def _add_jobs(conn: Connection, tasks: Sequence[NewTask], names: Mapping[TaskId, str]) -> None:
    requirements = await ensure_requirements(conn, (task.requirement for task in tasks))
    await conn.execute(
        ADD_JOBS,
        [task.job_id for task in tasks],
        [task.id for task in tasks],
        [task.owner for task in tasks],
        [requirements[task.requirement] for task in tasks],
        [task.spec for task in tasks],
        [names[task.id] for task in tasks],
        [task.priority for task in tasks],
        [float(task.timeout_seconds) for task in tasks],
        [task.max_attempts for task in tasks],
        [text_array(task.retry_on) for task in tasks],
        [task.queue_timeout_seconds for task in tasks],
        [task.created_at for task in tasks],
    )
    await enqueue(
        conn, [QueueRow(task.job_id, task.owner, requirements[task.requirement], task.priority) for task in tasks]
    )


def _columns(names: Sequence[_Name]) -> tuple[list[UserId], list[str]]:
    return [owner for owner, _ in names], [name for _, name in names]


def json_of(value: Mapping[str, str]) -> str:
    return json.dumps(dict(value), ensure_ascii=False) if value else "{}"


def text_array(texts: Iterable[str]) -> str:
    """As PostgreSQL writes an array of text, so that many arrays of different lengths go in one parameter."""
    return "{" + ",".join('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts) + "}"
