"""Two control-planes, each with its own claims, over one queue: nobody chooses between them, and nothing goes twice."""

from collections import Counter

import trio

from orchestrator.app.dispatch import Open
from orchestrator.domain.dispatch import Held
from orchestrator.domain.selection import NodeAbility
from orchestrator.store.db import Database, open_database
from plane import Plane

JOBS = 10_000
OWNERS = 8
NODES = 4
"""Of each replica."""
ROOM = 200
SECONDS = 60.0


async def nodes_of(replica: Plane, name: str) -> list[Open]:
    opened = []
    for nth in range(NODES):
        node = await replica.node(slug := f"{name}-{nth}")
        link = await replica.hello(node, slug)
        opened.append(Open(node, link.link_id, "spool", slug, ROOM, NodeAbility()))
    return opened


async def claim_all(replica: Plane, name: str, taken: list[Held]) -> None:
    """As the dispatch loop does, with nodes that have room again at once."""
    nodes = await nodes_of(replica, name)
    while True:
        claim = await replica.queue.claim(nodes)
        assert not claim.not_mine
        for jobs in claim.given.values():
            taken.extend(jobs)
        if not claim.given and not claim.passed_over:
            return


async def test_two_replicas_claim_ten_thousand_jobs_and_none_twice(db: Database, database: str) -> None:
    async with open_database(database, pool_size=5) as others:
        one, other = Plane(db), Plane(others)
        jobs = [job for nth in range(OWNERS) for job in await one.backlog(await one.user(f"u{nth}"), JOBS // OWNERS)]
        taken: tuple[list[Held], list[Held]] = ([], [])
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(claim_all, one, "one", taken[0])
                nursery.start_soon(claim_all, other, "other", taken[1])
        given = Counter(held.job_id for held in (*taken[0], *taken[1]))
        assert set(given.values()) == {1}, "given out twice"
        assert given.keys() == set(jobs), "left lying, or never queued"
        assert min(map(len, taken)) > 0, "one of the two did nothing, so nobody was in anybody's way"
        assert len({held.assignment_id for held in (*taken[0], *taken[1])}) == JOBS
    rows = await one.sql("SELECT job_id, attempt, assignment_id FROM job_attempts")
    assert {(r["job_id"], r["attempt"], r["assignment_id"]) for r in rows} == {
        (held.job_id, 1, held.assignment_id) for held in (*taken[0], *taken[1])
    }
    assert await one.sql("SELECT status, count(*) AS n FROM jobs GROUP BY status") == [
        {"status": "assigned", "n": JOBS}
    ]
    assert await one.one("SELECT count(*) FROM job_queue") == 0
