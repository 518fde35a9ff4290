"""The edge of a lease, on a clock that moves when the test says so: before the reaper's commit, and after it."""

import pytest
from trio.testing import MockClock

from orchestrator.domain.dispatch import Held
from orchestrator.domain.ids import NodeId
from orchestrator.loops.reap import Reaper
from orchestrator.store.db import Database
from plane import Plane, finished, output, ref, started

LEASE, HEARTBEAT = 30.0, 10.0
MOMENT = 0.001


async def a_silent_node(db: Database) -> tuple[Plane, NodeId, Held]:
    """Its job runs, and its link has closed."""
    plane = Plane(db)
    await plane.jobs(await plane.user("ann"))
    node = await plane.node("n1")
    link = await plane.hello(node, "n1")
    [held] = await plane.claim(node, link, 1)
    await plane.report(node, link, started(held), output(held, 0, b"begun\n"))
    await plane.links.close(node, link.link_id)
    return plane, node, held


async def watch(reaper: Reaper, clock: MockClock, seconds: float) -> None:
    """As its loop does: three times a heartbeat, and at the end."""
    while seconds > 0:
        step = min(seconds, HEARTBEAT / 3)
        clock.jump(step)
        await reaper.reap()
        seconds -= step


@pytest.fixture
async def reaper(db: Database) -> Reaper:
    return Reaper(Plane(db).links, lease_seconds=LEASE, heartbeat_seconds=HEARTBEAT)


async def test_a_node_back_just_before_its_lease_ends_keeps_its_jobs(
    mock_clock: MockClock, db: Database, reaper: Reaper
) -> None:
    plane, node, held = await a_silent_node(db)
    await reaper.reap()
    await watch(reaper, mock_clock, LEASE - MOMENT)
    back = await plane.hello(node, "n1", [ref(held)])
    assert (back.keep, back.kill) == ((ref(held),), ())
    await watch(reaper, mock_clock, LEASE - MOMENT)  # its hello began the lease anew
    judged = await plane.report(node, back, output(held, 6, b"done\n"), finished(held, length=11))
    assert (judged.settled, judged.gap) == (2, None)
    assert await plane.sql("SELECT status, tries, attempt FROM jobs") == [
        {"status": "completed", "tries": 0, "attempt": 1}
    ]
    assert await plane.sql("SELECT outcome FROM job_attempts") == [{"outcome": "completed"}]
    assert await plane.sql("SELECT * FROM dropped_reports") == []


async def test_a_node_back_just_after_its_lease_has_ended_loses_its_jobs_cleanly(
    mock_clock: MockClock, db: Database, reaper: Reaper
) -> None:
    plane, node, held = await a_silent_node(db)
    await reaper.reap()
    await watch(reaper, mock_clock, LEASE + MOMENT)
    assert await plane.sql("SELECT link_id, lease FROM node_links") == [{"link_id": None, "lease": "expired"}]
    back = await plane.hello(node, "n1", [ref(held)])
    assert (back.keep, back.kill) == ((), (ref(held),))
    await plane.report(node, back, output(held, 6, b"done\n"), finished(held, length=11))
    assert await plane.sql("SELECT status, tries, attempt FROM jobs") == [
        {"status": "queued", "tries": 1, "attempt": 1}
    ]
    await plane.sql("UPDATE jobs SET not_before = now()")
    await plane.queue.promote_due()
    [again] = await plane.claim(node, back, 1)
    await plane.report(node, back, started(again), output(again, 0, b"anew\n"), finished(again, length=5))
    outcomes = await plane.sql(
        "SELECT attempt, outcome, stopped_at IS NOT NULL AS stopped FROM job_attempts ORDER BY 1"
    )
    assert outcomes == [
        {"attempt": 1, "outcome": "lost", "stopped": True},
        {"attempt": 2, "outcome": "completed", "stopped": True},
    ]
    kept = await plane.sql("SELECT attempt, data FROM job_output ORDER BY attempt")
    assert kept == [{"attempt": 1, "data": b"begun\n"}, {"attempt": 2, "data": b"anew\n"}]
    late = await plane.sql("SELECT kind, count FROM dropped_reports ORDER BY kind")
    assert late == [{"kind": "finished", "count": 1}, {"kind": "output", "count": 1}]
