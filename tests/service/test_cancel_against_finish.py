"""A cancel and a finish at the same moment: one of them decides, once, and everybody is told the same."""

import random
from uuid import UUID

import trio

from link_node import FakeLink, Json, LinkWorld, finished, open_links, ref
from orchestrator.store.db import Database
from task_world import Headers, World, open_world

TASKS = 1000
AT_ONCE = 10
STEP = 0.001
NODES = 4
SECONDS = 100.0
ENDS = """
    CREATE TABLE ends (task uuid, status text);
    CREATE FUNCTION note_end() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO ends VALUES (NEW.id, NEW.status); RETURN NULL; END $$;
    CREATE TRIGGER ended AFTER UPDATE ON tasks FOR EACH ROW
        WHEN (OLD.status IS DISTINCT FROM NEW.status AND NEW.closed) EXECUTE FUNCTION note_end();
"""
STATES = """
    SELECT t.id, t.status, j.status, a.outcome, array(SELECT e.status FROM ends e WHERE e.task = t.id)
      FROM tasks t JOIN jobs j ON j.task_id = t.id JOIN job_attempts a ON a.job_id = j.id
"""


async def test_a_thousand_cancels_against_a_thousand_finishes_are_each_decided_once(
    db: Database, database: str
) -> None:
    async with (
        open_world(database, db) as users,
        open_links(db, database, node_heartbeat_seconds=60, node_lease_seconds=180) as world,
    ):
        await db.transact(lambda conn: conn.execute(ENDS))
        ann = await users.log_in("ann")
        running = await all_running(users, world, ann)
        canceled = await race(users, ann, running)

        rows = await users.sql(STATES)
        assert len(rows) == TASKS
        for task, *states, ends in rows:
            wanted = "canceled" if canceled[task] else "completed"
            assert states == [wanted] * 3
            assert ends == [wanted]
        won = sum(canceled.values())
        assert TASKS / 20 < won < TASKS - TASKS / 20, f"{won} cancels won: that was no race"
        await all_acknowledged(running)
        stopped = "SELECT count(*) FROM job_attempts WHERE stopped_at IS NULL"
        assert await world.rows.one(stopped) == 0, "a finish that came too late still says that nothing runs"


async def all_running(users: World, world: LinkWorld, ann: Headers) -> list[tuple[FakeLink, Json]]:
    links = [await world.link(f"n{nth}", slots=TASKS // NODES) for nth in range(NODES)]
    body = {"tasks": [{"prompt": "true", "input_mode": "script"}] * TASKS}
    assert (await users.client.post("/v1/tasks/batch", json=body, headers=ann)).status_code == 201
    running = []
    for link in links:
        jobs = [await link.assigned() for _ in range(TASKS // NODES)]
        await link.report("jobs.started", *({**ref(job), "runtime": "process"} for job in jobs))
        running += [(link, job) for job in jobs]
    await world.until("SELECT count(*) FROM tasks WHERE status = 'running'", TASKS, SECONDS)
    return running


async def all_acknowledged(running: list[tuple[FakeLink, Json]]) -> None:
    """Each link had a position for each start and each finish."""
    for link in {id(link): link for link, _ in running}.values():
        await link.acked(2 * TASKS // NODES)


async def race(users: World, ann: Headers, running: list[tuple[FakeLink, Json]]) -> dict[UUID, bool]:
    """What each cancel was answered. Whoever has lost starts a little earlier the next time, so that it stays close."""
    dice = random.Random(5)
    left = list(running)
    dice.shuffle(left)
    answers: dict[UUID, bool] = {}
    head_start = 0.0

    async def cancel(task: str, after: float) -> None:
        nonlocal head_start
        await trio.sleep(after)  # the race itself
        answer = await users.client.post(f"/v1/tasks/{task}/cancel", headers=ann)
        assert answer.status_code == 200, answer.text
        answers[UUID(task)] = answer.json()["canceled"]
        head_start += STEP if answers[UUID(task)] else -STEP

    async def finish(link: FakeLink, job: Json, after: float) -> None:
        await trio.sleep(after)
        await link.report("jobs.finished", finished(job))

    async def run_races() -> None:
        while left:
            link, job = left.pop()
            async with trio.open_nursery() as pair:
                pair.start_soon(finish, link, job, max(0, -head_start))
                pair.start_soon(cancel, job["task_id"], max(0, head_start))

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(run_races)
    return answers
