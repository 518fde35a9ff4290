"""Tasks stored by one statement are stored as by many, and a claim misses none of them."""

import trio

from orchestrator.app.dispatch import Dispatch
from orchestrator.store.db import Database
from task_world import open_world


async def test_the_same_rows_by_either_way(database: str, db: Database) -> None:
    async with open_world(database, db) as world:
        ann = await world.log_in("ann")
        body = {
            "job": {"env": {"A": "ü"}, "retry_on": ["exit"], "queue_timeout_seconds": 60, "max_attempts": 2},
            "labels": {"a": 'x"y'},
            "attachments": ["a,b", 'c"d'],
            "priority": 7,
        }
        long, quick = [await world.create(ann, **body) for _ in "12"]
        columns = "input_mode, prompt, attachments, labels, t.priority, t.status, spec - 'task_name', timeout_seconds"
        rows = await world.sql(
            f"SELECT {columns}, max_attempts, retry_on, queue_deadline - j.created_at < '61 s', g.active, q.priority "  # noqa: S608 - constants
            "FROM tasks t JOIN jobs j ON j.task_id = t.id JOIN job_queue q ON q.job_id = j.id "
            "JOIN queue_groups g ON g.id = q.group_id ORDER BY t.id"
        )
        assert rows[0] == rows[1]
        assert long.keys() == quick.keys()
        names = await world.sql("SELECT name, spec ->> 'task_name' FROM tasks t JOIN jobs j ON j.task_id = t.id")
        assert all(name == in_spec for name, in_spec in names)


async def test_a_group_that_came_to_rest_is_woken(database: str, db: Database) -> None:
    async with open_world(database, db) as world:
        ann = await world.log_in("ann")
        await world.create(ann)
        await world.sql("DELETE FROM job_queue RETURNING 1")
        await Dispatch(db).rest_empty_groups()
        assert await world.sql("SELECT active FROM queue_groups") == [(False,)]
        await world.create(ann)
        assert await world.sql("SELECT active FROM queue_groups") == [(True,)]


async def test_resting_and_submitting_at_once_leaves_no_row_in_a_resting_group(database: str, db: Database) -> None:
    async with open_world(database, db) as world:
        ann = await world.log_in("ann")
        await world.create(ann)

        async def rest() -> None:
            for _ in range(40):
                await world.sql("DELETE FROM job_queue RETURNING 1")
                await Dispatch(db).rest_empty_groups()

        async def submit() -> None:
            for _ in range(40):
                await world.create(ann)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(rest)
            nursery.start_soon(submit)
        stuck = "SELECT count(*) FROM job_queue q JOIN queue_groups g ON g.id = q.group_id WHERE NOT g.active"
        assert await world.sql(stuck) == [(0,)]


async def test_a_key_that_was_used_before_tells_the_first_task(database: str, db: Database) -> None:
    async with open_world(database, db) as world:
        ann = await world.log_in("ann")
        await world.create(ann)
        body = {"prompt": "x", "input_mode": "script"}
        headers = ann | {"Idempotency-Key": "k"}
        first, again = [await world.client.post("/v1/tasks", json=body, headers=headers) for _ in "12"]
        other = await world.client.post("/v1/tasks", json=body | {"prompt": "y"}, headers=headers)
        assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
        assert first.json() == again.json()
        assert await world.sql("SELECT count(*) FROM tasks") == [(2,)]
