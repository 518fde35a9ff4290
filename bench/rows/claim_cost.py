"""What a claim of 8 rows costs PostgreSQL with 1 000 and with 1 000 000 queued jobs, in one group and in 100.

The claims are the control-plane's own; the time is PostgreSQL's, from its log, without the commit, which is the disk's.
Before the 200 that count, 100 000 jobs were claimed, with autovacuum on.
"""

import re
from pathlib import Path

import psycopg
import trio

from bench.effort import Effort
from bench.table import Aim, Row, median
from bench.world import World, open_world
from orchestrator.app.clock import new_id
from orchestrator.app.dispatch import Dispatch, Open
from orchestrator.app.links import Hello, Links
from orchestrator.domain.ids import NodeId
from orchestrator.domain.selection import NodeAbility
from orchestrator.store.db import Database, open_database

IDS = ("claim_cost",)
FEW, MANY = 1_000, 1_000_000
CLAIMS, ROWS_A_CLAIM = 200, 8
BEFORE = 100_000
MOST = 1.3

USERS = b"INSERT INTO users (id, handle) SELECT uuidv7(), 'u' || n FROM generate_series(1, %s) n"
PROJECTS = b"""
    INSERT INTO projects (id, slug, display_name, default_of)
    SELECT uuidv7(), handle, 'x', id FROM users WHERE handle ~ '^u[0-9]'
"""
REQUIREMENT = b"INSERT INTO requirements (body) VALUES ('{}')"
GROUPS = b"""
    INSERT INTO queue_groups (requirement_id, owner, active)
    SELECT r.id, u.id, true FROM requirements r, users u WHERE u.handle ~ '^u[0-9]'
"""
TASKS = b"""
    INSERT INTO tasks (id, created_by, project_id, name, input_mode, prompt)
    SELECT uuidv7(), p.default_of, p.id, p.slug, 'script', 'true' FROM projects p WHERE p.slug ~ '^u[0-9]'
"""
JOBS = b"""
    WITH owners AS (
        SELECT t.id AS task, t.created_by AS owner, g.id AS queue_group, g.requirement_id,
               row_number() OVER (ORDER BY t.id) AS nth
          FROM tasks t JOIN queue_groups g ON g.owner = t.created_by
    ), added AS (
        INSERT INTO jobs (id, task_id, owner, requirement_id, spec, timeout_seconds, max_attempts)
        SELECT uuidv7(), o.task, o.owner, o.requirement_id,
               '{"script": "true", "network": "none", "task_name": "task-0123456789ab", "input_mode": "script"}',
               3600, 3
          FROM generate_series(1, %s) n JOIN owners o ON o.nth = 1 + n %% (SELECT count(*) FROM owners)
     RETURNING id, owner
    )
    INSERT INTO job_queue (group_id, priority, job_id)
    SELECT g.id, 0, a.id FROM added a JOIN queue_groups g USING (owner)
"""


def run(effort: Effort) -> list[Row]:
    many = effort.count(MANY, 50_000)
    ratios, note = [], []
    for groups in (1, 100):
        few_ms, many_ms = (_measure(groups, count, effort) for count in (FEW, many))
        ratios.append(many_ms / few_ms)
        note.append(f"{groups} group(s): {few_ms:.3f} ms at {FEW}, {many_ms:.3f} ms at {many}")
    return [Row("claim_cost", "ratio", Aim(most=MOST), value=max(ratios), samples=ratios, note="; ".join(note))]


def _measure(groups: int, queued: int, effort: Effort) -> float:
    with open_world() as world:
        before = effort.count(BEFORE, 4_000)
        _fill(world, groups, queued + before + CLAIMS * ROWS_A_CLAIM)
        trio.run(_claim, world, before // ROWS_A_CLAIM)
        _log_durations(world)
        trio.run(_claim, world, CLAIMS)
        assert abs(world.one("SELECT count(*) FROM job_queue") - queued) <= ROWS_A_CLAIM
        return median(_claims_of(world.folder / "state" / "postgres" / "log"))


def _fill(world: World, groups: int, queued: int) -> None:
    with psycopg.connect(world.dsn, autocommit=True) as conn:
        conn.execute(USERS, [groups])
        for statement in (PROJECTS, REQUIREMENT, GROUPS, TASKS):
            conn.execute(statement)
        for _ in range(queued // 100_000):
            conn.execute(JOBS, [100_000])
        conn.execute(JOBS, [queued % 100_000])


async def _claim(world: World, times: int) -> None:
    async with open_database(world.dsn, pool_size=1) as db:
        queue, opened = Dispatch(db), await _link(db, world)
        for _ in range(times):
            given = (await queue.claim([opened])).given[opened.node_id]
            assert len(given) == ROWS_A_CLAIM, given


async def _link(db: Database, world: World) -> Open:
    node = NodeId(new_id())
    slug = f"n-{node.hex}"
    with psycopg.connect(world.dsn, autocommit=True) as conn:
        conn.execute(b"INSERT INTO nodes (id, slug) VALUES (%s, %s)", [node, slug])
    taken = await Links(db, new_id()).take_over(Hello(node, slug, "spool", "start", "1", 8, ()))
    return Open(node, taken.link_id, "spool", slug, ROWS_A_CLAIM, NodeAbility())


def _log_durations(world: World) -> None:
    with psycopg.connect(world.dsn, autocommit=True) as conn:
        conn.execute(b"ALTER ROLE CURRENT_USER SET log_min_duration_statement = 0")
        conn.execute(b"ALTER ROLE CURRENT_USER SET log_parameter_max_length = 0")


def _claims_of(log: Path) -> list[float]:
    """Milliseconds that the server was busy with each claim; it is one statement, whose commit is not in them."""
    found, sum_ms = [], 0.0
    for took, step, text in re.findall(r"duration: ([\d.]+) ms  (\w+) ?[^:]*: ([^\n]*\n[^\n]*)", log.read_text()):
        if "WITH mine" in text:
            sum_ms += float(took)
            if step == "execute":
                found.append(sum_ms)
                sum_ms = 0.0
    return found[-CLAIMS:]
