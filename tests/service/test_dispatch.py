"""Claims: nothing twice, everybody's turn, and a queue that nothing is stuck in."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import trio

from orchestrator.app.dispatch import Open
from orchestrator.domain.reports import NotListed
from orchestrator.domain.selection import NodeAbility
from orchestrator.store.claims import take_rows
from orchestrator.store.db import Connection, Database
from plane import Plane, finished, started


async def test_two_control_planes_claim_ten_at_a_time_and_nothing_twice(db: Database) -> None:
    one, other = Plane(db), Plane(db)
    owner = await one.user("ann")
    jobs = await one.jobs(owner, 120)
    taken: list[object] = []

    async def claim_all(plane: Plane, slug: str) -> None:
        node = await plane.node(slug)
        link = await plane.hello(node, slug)
        while held := await plane.claim(node, link, 10, slug):
            taken.extend(job.job_id for job in held)
        # a claim that found only locked rows found nothing: look once more
        taken.extend(job.job_id for job in await plane.claim(node, link, 10, slug))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(claim_all, one, "a")
        nursery.start_soon(claim_all, other, "b")
    assert sorted(map(str, taken)) == sorted(map(str, jobs))
    assert await one.one("SELECT count(*) FROM job_queue") == 0


async def test_owners_take_turns_and_priority_orders_only_ones_own(db: Database) -> None:
    plane = Plane(db)
    ann, bob = await plane.user("ann"), await plane.user("bob")
    low = await plane.jobs(ann, 20)
    [urgent] = await plane.jobs(ann, 1, priority=100)
    [single] = await plane.jobs(bob, 1)
    node = await plane.node("n")
    link = await plane.hello(node, "n")
    first = [job.job_id for job in await plane.claim(node, link, 2)]
    assert set(first) == {urgent, single}
    rest = [job.job_id for job in await plane.claim(node, link, 3)]
    assert rest == low[:3]


async def test_jobs_that_no_node_can_run_stay_and_hold_up_nobody(db: Database) -> None:
    plane = Plane(db)
    ann = await plane.user("ann")
    await plane.jobs(ann, 5, requirement={"gpu": True}, priority=50)
    plain = await plane.jobs(ann, 2)
    node = await plane.node("n")
    link = await plane.hello(node, "n")
    assert {job.job_id for job in await plane.claim(node, link, 4)} == set(plain)
    assert await plane.one("SELECT count(*) FROM job_queue") == 5


async def test_rows_that_could_not_be_dealt_are_not_lost(db: Database) -> None:
    """Two nodes with room, of which one alone can run most of what is queued."""
    plane = Plane(db)
    ann = await plane.user("ann")
    await plane.jobs(ann, 6, requirement={"gpu": True})
    nodes = []
    for slug, gpu in (("gpu", True), ("plain", False)):
        node = await plane.node(slug)
        link = await plane.hello(node, slug)
        nodes.append(Open(node, link.link_id, "spool", slug, 3, NodeAbility(gpu=gpu)))
    given = (await plane.queue.claim(nodes)).given
    assert {node: len(jobs) for node, jobs in given.items()} == {nodes[0].node_id: 3}
    assert await plane.one("SELECT count(*) FROM job_queue") == 3
    assert await plane.one("SELECT count(*) FROM jobs WHERE status = 'queued'") == 3


async def test_a_claim_for_a_node_that_is_anothers_takes_nothing(db: Database) -> None:
    plane = Plane(db)
    await plane.jobs(await plane.user("ann"), 1)
    node = await plane.node("n")
    old = await plane.hello(node, "n")
    new = await plane.hello(node, "n")
    opened = Open(node, old.link_id, "spool", "n", 4, NodeAbility())
    claim = await plane.queue.claim([opened])
    assert not claim.given
    assert claim.not_mine == {node: new.link_id}


async def test_a_group_that_was_empty_is_served_again(db: Database) -> None:
    plane = Plane(db)
    ann = await plane.user("ann")
    node = await plane.node("n")
    link = await plane.hello(node, "n")
    for _ in range(2):
        [job] = await plane.jobs(ann)
        assert [held.job_id for held in await plane.claim(node, link, 1)] == [job]
        await plane.queue.rest_empty_groups()
        assert await plane.one("SELECT count(*) FROM queue_groups WHERE active") == 0


SPREAD_OVER_GROUPS = """
    WITH wanted AS (
        INSERT INTO requirements (body) SELECT 'wanted ' || n FROM generate_series(1, $2::int) n RETURNING id
    ), groups AS (
        INSERT INTO queue_groups (requirement_id, owner, active) SELECT id, $1, true FROM wanted RETURNING id
    )
    UPDATE job_queue q SET group_id = g.id
      FROM (SELECT id, row_number() OVER () AS nth FROM groups) g,
           (SELECT job_id, row_number() OVER () AS nth FROM job_queue) n
     WHERE n.nth = g.nth AND q.job_id = n.job_id
"""


async def test_an_empty_group_behind_a_thousand_full_ones_comes_to_rest(db: Database) -> None:
    plane = Plane(db)
    ann = await plane.user("ann")
    await plane.backlog(ann, 1000)
    await plane.sql("UPDATE queue_groups SET active = false")
    await plane.sql(SPREAD_OVER_GROUPS, ann, 1001)
    for _ in range(2):
        await plane.queue.rest_empty_groups()
    empty = "SELECT count(*) FROM queue_groups g WHERE active AND id NOT IN (SELECT group_id FROM job_queue)"
    assert await plane.one(empty) == 0
    assert await plane.one("SELECT count(*) FROM queue_groups WHERE active") == 1000


async def test_resting_groups_and_inserting_at_once_leaves_nothing_behind(db: Database) -> None:
    plane = Plane(db)
    ann = await plane.user("ann")
    node = await plane.node("n")
    link = await plane.hello(node, "n")
    done = trio.Event()
    got: list[object] = []

    async def rest() -> None:
        while not done.is_set():
            await plane.queue.rest_empty_groups()

    async def claim() -> None:
        while len(got) < 60:
            got.extend(held.job_id for held in await plane.claim(node, link, 3))
        done.set()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rest)
            nursery.start_soon(claim)
            jobs = await plane.jobs(ann, 60)
    assert sorted(map(str, got)) == sorted(map(str, jobs))


async def test_a_retried_job_waits_out_its_back_off_and_then_runs(db: Database) -> None:
    plane = Plane(db)
    [job] = await plane.jobs(await plane.user("ann"))
    node = await plane.node("n")
    link = await plane.hello(node, "n")
    [held] = await plane.claim(node, link, 1)
    await plane.report(node, link, started(held))
    await plane.hello(node, "n", spool="spool")  # it does not name the attempt: lost
    assert await plane.one("SELECT status FROM jobs WHERE id = $1", job) == "queued"
    assert await plane.queue.promote_due() is not None
    assert await plane.one("SELECT count(*) FROM job_queue") == 0
    await plane.sql("UPDATE jobs SET not_before = now() - interval '1 s'")
    assert await plane.queue.promote_due() is None
    again = await plane.hello(node, "n")
    [held] = await plane.claim(node, again, 1)
    assert held.attempt == 2
    await plane.report(node, again, started(held), finished(held))
    assert await plane.one("SELECT status FROM tasks") == "completed"


async def test_a_back_off_is_counted_by_the_database_whatever_the_clock_of_the_control_plane(db: Database) -> None:
    """Met by chaos, seed 1: a control-plane whose clock was ten minutes ahead put retries off for ten minutes."""
    plane = Plane(db)
    await plane.jobs(await plane.user("ann"))
    node = await plane.node("n")
    link = await plane.hello(node, "n")
    [held] = await plane.claim(node, link, 1)
    ahead = datetime.now(UTC) + timedelta(minutes=10)
    await plane.report(node, link, replace(started(held), at=ahead), NotListed(started(held).ref, ahead))
    assert 0 < await plane.one("SELECT extract(epoch FROM not_before - now())::float8 FROM jobs") < 2


async def test_a_job_that_waited_too_long_fails_queued_or_assigned(db: Database) -> None:
    plane = Plane(db)
    ann = await plane.user("ann")
    node = await plane.node("n")
    link = await plane.hello(node, "n")
    await plane.jobs(ann, 2, queue_timeout=-1)
    [held] = await plane.claim(node, link, 1)
    await plane.queue.promote_due()
    rows = await plane.sql("SELECT status, error FROM jobs")
    assert rows == [{"status": "failed", "error": "queue_timeout"}] * 2
    assert await plane.one("SELECT count(*) FROM tasks WHERE status = 'failed'") == 2
    [(_, occupied)] = await plane.links.occupied([node])
    assert (occupied.ref.assignment_id, occupied.stop_reason) == (held.assignment_id, "timeout")


async def test_equal_nodes_are_served_in_one_statement_as_they_would_be_one_by_one(db: Database) -> None:
    plane = Plane(db)
    jobs = await plane.jobs(await plane.user("ann"), 5)
    nodes = []
    for slug, free in (("a", 1), ("b", 3), ("c", 2)):
        node = await plane.node(slug)
        link = await plane.hello(node, slug)
        nodes.append(Open(node, link.link_id, "spool", slug, free, NodeAbility(), 7.0 if slug == "c" else None))
    await plane.queue.claim([nodes[0]])  # it knows the requirement now
    given = (await plane.queue.claim(nodes[1:])).given
    dealt = [[job.job_id for job in given[node.node_id]] for node in nodes[1:]]
    assert dealt == [[jobs[1], jobs[2], jobs[4]], [jobs[3]]]
    assert {job.timeout_seconds for job in given[nodes[2].node_id]} == {7.0}
    rows = await plane.sql("SELECT job_id, attempt, assignment_id, node_id, link_id FROM job_attempts")
    assert len(rows) == 5
    sent = {job.job_id: (job.attempt, job.assignment_id) for held in given.values() for job in held}
    stored = {row["job_id"]: (row["attempt"], row["assignment_id"]) for row in rows if row["job_id"] in sent}
    assert stored == sent


async def test_a_backlog_of_what_is_known_does_not_hide_what_is_new(db: Database) -> None:
    plane = Plane(db)
    await plane.jobs(await plane.user("ann"), 12)
    node = await plane.node("n")
    link = await plane.hello(node, "n")
    assert len(await plane.claim(node, link, 2)) == 2
    [new] = await plane.jobs(await plane.user("bob"), 1, requirement={"network": "restricted"})
    taken = [job.job_id for _ in range(3) for job in await plane.claim(node, link, 2)]
    assert new in taken


async def test_a_claim_that_found_only_locked_rows_says_that_others_wait(db: Database) -> None:
    """Two control-planes look at the same groups first, and each group here has one row."""
    plane = Plane(db)
    for nth in range(4):
        await plane.jobs(await plane.user(f"user-{nth}"))
    node = await plane.node("n")
    link = await plane.hello(node, "n")
    opened = Open(node, link.link_id, "spool", "n", 2, NodeAbility())
    locked, go_on = asyncio.Event(), asyncio.Event()

    async def hold(conn: Connection) -> None:
        await take_rows(conn, [1], 2)
        locked.set()
        await go_on.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(db.transact, hold)
        while not locked.is_set():  # noqa: ASYNC110 - it is set on the asyncio side
            await trio.sleep(0.01)
        for _ in range(2):  # the first claim learns the requirements
            claim = await plane.queue.claim([opened])
            assert (claim.given, claim.passed_over) == ({}, True)
        go_on.set()
    claim = await plane.queue.claim([opened])
    assert (len(claim.given[node]), claim.passed_over) == (2, False)
    assert len((await plane.queue.claim([opened])).given[node]) == 2
    claim = await plane.queue.claim([opened])
    assert (claim.given, claim.passed_over) == ({}, False)
