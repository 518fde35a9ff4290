"""One user's backlog is that user's own: it does not stand before another's job."""

import trio

from link_node import FakeLink, finished, open_links
from orchestrator.store.db import Database

BACKLOG = 10_000
SLOTS = 4
TIMES = 20
SECONDS = 60.0
DONE = "SELECT count(*) FROM jobs j JOIN users u ON u.id = j.owner WHERE handle = 'bob' AND j.status = 'completed'"
# A claim that began before the job was committed could not see it, and is not counted.
BEFORE_BOB = """
    SELECT count(*)
      FROM job_attempts a JOIN jobs j ON j.id = a.job_id JOIN job_attempts b ON b.job_id = $1
     WHERE j.owner = $2 AND a.assigned_at > $3 AND a.assigned_at < b.assigned_at
"""


async def run_all(link: FakeLink) -> None:
    """Ends each job as soon as it comes, so that there is room for another."""
    while True:
        for job in (await link.hear("jobs.assign", SECONDS))["jobs"]:
            await link.report("jobs.finished", finished(job))


async def test_ten_thousand_jobs_of_one_user_do_not_delay_another_users_one(db: Database, database: str) -> None:
    """However urgent they are: two turns of all slots at most go by."""
    async with open_links(db, database, node_heartbeat_seconds=60, node_lease_seconds=180) as world:
        rows = world.rows
        ann, bob = await rows.user("ann"), await rows.user("bob")
        await rows.backlog(ann, BACKLOG, priority=100)
        link = await world.link("n1", slots=SLOTS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_all, link)
            for nth in range(TIMES):
                [job] = await rows.backlog(bob, 1)
                queued = await rows.one("SELECT clock_timestamp()")
                await world.until(DONE, nth + 1, SECONDS)
                assert await rows.one(BEFORE_BOB, job, ann, queued) <= 2 * SLOTS
            nursery.cancel_scope.cancel()
        ran = await rows.one("SELECT count(*) FROM jobs WHERE owner = $1 AND status = 'completed'", ann)
        assert 0 < ran < BACKLOG, "nobody waited beside bob"
