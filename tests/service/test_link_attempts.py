"""What becomes of an attempt by what its node says, or does not say, over a real link."""

from collections.abc import AsyncIterator

import pytest
import trio

from link_node import LinkWorld, finished, open_links, output, ref
from orchestrator.store.db import Database


@pytest.fixture
async def world(db: Database, database: str) -> AsyncIterator[LinkWorld]:
    async with open_links(db, database) as made:
        yield made


async def test_a_node_gets_no_more_than_it_has_room_for(world: LinkWorld) -> None:
    link = await world.link(slots=1, prefetch=1)
    for _ in range(3):
        await world.job()
    first, second = [await link.assigned(), await link.assigned()]
    assert [m["type"] for m in await link.pass_by()] == []
    await link.accept(first, second)
    await link.start(first)
    await link.acked(await link.report("jobs.finished", finished(first)))
    third = await link.assigned()
    assert len({job["job_id"] for job in (first, second, third)}) == 3


async def test_a_heartbeat_can_only_lower_the_room(world: LinkWorld) -> None:
    link = await world.link(slots=2)
    await link.beat(free_slots=0)
    await world.job()
    assert await link.pass_by() == []
    await link.beat(free_slots=100)
    await link.assigned()
    await world.job()
    await link.assigned()
    await world.job()
    assert [m for m in await link.pass_by() if m["type"] == "jobs.assign"] == []


@pytest.mark.parametrize("reason", ["busy", "draining", "canceled", "unsupported", "forbidden_here"])
async def test_a_rejected_job_is_queued_again_and_costs_no_try(world: LinkWorld, reason: str) -> None:
    link, job = await world.given(max_attempts=1)
    await link.reject(job, reason, detail="no\0 room")
    await world.until("SELECT count(*) FROM job_attempts WHERE outcome = 'rejected'", 1)
    again = link if reason == "canceled" else await world.link("n2", spool_id="another")
    given = await again.assigned()
    assert (given["job_id"], given["attempt"]) == (job["job_id"], 2)
    assert await world.job_row() == ("assigned", 0, None)


async def test_a_busy_node_is_full_until_its_next_heartbeat(world: LinkWorld) -> None:
    link, job = await world.given()
    await link.reject(job, "busy")
    await world.until("SELECT status FROM jobs", "queued")
    await world.job()
    await link.beat()
    given = [await link.assigned(), await link.assigned()]
    assert job["job_id"] in {one["job_id"] for one in given}


async def test_a_draining_node_gets_nothing_until_its_next_hello(world: LinkWorld) -> None:
    link, job = await world.given()
    await link.reject(job, "draining")
    await world.until("SELECT status FROM jobs", "queued")
    await link.beat()
    await link.beat()
    assert [m for m in await link.pass_by() if m["type"] == "jobs.assign"] == []
    again = await world.link()
    assert (await again.assigned())["attempt"] == 2


async def test_an_invalid_job_fails_with_the_nodes_words(world: LinkWorld) -> None:
    link, job = await world.given()
    await link.reject(job, "invalid", detail="no script")
    await world.until("SELECT status FROM jobs", "failed")
    assert await world.job_row() == ("failed", 0, "invalid: no script")
    assert await world.rows.one("SELECT status FROM tasks") == "failed"


async def test_a_refusal_holds_until_the_capability_changes(world: LinkWorld) -> None:
    link, job = await world.given()
    await link.reject(job, "unsupported", detail="no gpu")
    await world.until("SELECT count(*) FROM node_refusals", 1)
    assert await link.pass_by() == []
    await world.job()
    assert await link.pass_by() == []
    report = await world.rows.one("SELECT capability FROM nodes")
    changed = {**report, "compute": {"cpu_cores": 4, "ram_mb": 4096}}  # type: ignore[dict-item]
    await link.say("capability", capability=changed, capability_hash="new")
    both = [await link.assigned(), await link.assigned()]
    assert [one["attempt"] for one in both if one["job_id"] == job["job_id"]] == [2]
    assert await world.rows.sql("SELECT 1 FROM node_refusals") == []


async def test_neither_answered_nor_listed_in_two_heartbeats_it_is_sent_again_unchanged(world: LinkWorld) -> None:
    link, job = await world.given()
    await link.beat()
    assert await link.pass_by() == []
    assert await link.assigned() == job
    await link.accept(job)
    await link.beat(job)
    await link.beat(job)
    assert await link.pass_by() == []
    await world.until("SELECT count(accepted_at) FROM job_attempts", 1)
    assert await world.attempts() == [(None, True, False, False)]


async def test_naming_it_in_a_heartbeat_counts_as_accepting(world: LinkWorld) -> None:
    link, job = await world.given()
    await link.beat(job)
    await world.until("SELECT count(accepted_at) FROM job_attempts", 1)


async def test_accepted_and_not_listed_in_two_heartbeats_it_is_lost(world: LinkWorld) -> None:
    link, job = await world.running()
    await link.beat(job)
    await link.beat()
    assert await world.attempts() == [(None, True, True, False)]
    await link.beat()
    await world.until("SELECT outcome FROM job_attempts", "lost")
    assert await world.job_row() == ("queued", 1, None)
    await link.acked(await link.report("jobs.finished", finished(job)))
    assert await world.job_row() == ("queued", 1, None)
    assert await world.rows.sql("SELECT kind, count FROM dropped_reports") == [{"kind": "finished", "count": 1}]


async def test_the_two_heartbeat_rules_look_at_what_another_link_assigned(world: LinkWorld) -> None:
    first, job = await world.running()
    again = await world.link(held=[{**ref(job), "state": "running"}])
    assert (await first.hear_close())[0] == 4409
    await again.beat()
    await again.beat()
    await world.until("SELECT outcome FROM job_attempts", "lost")


async def test_hello_keeps_resends_and_kills(world: LinkWorld) -> None:
    first = await world.link(slots=3)
    for _ in range(3):
        await world.job()
    kept, unheard, ended = [await first.assigned() for _ in range(3)]
    await first.accept(kept, ended)
    await first.acked(await first.report("jobs.finished", finished(ended, outcome="failed", exit_code=1)))
    again = await world.dial()
    await again.hello(slots=3, held=[{**ref(job), "state": "running"} for job in (kept, ended)])
    welcome = await again.hear("welcome")
    assert (welcome["keep"], welcome["kill"]) == ([ref(kept)], [ref(ended)])
    assert await again.assigned() == unheard
    assert await first.hear_close() == (4409, "this node has linked again")


async def test_another_spool_is_refused_while_the_first_is_linked(world: LinkWorld) -> None:
    link, job = await world.running()
    stranger = await world.dial()
    await stranger.hello(spool_id="copy")
    assert await stranger.hear_close() == (4409, "another agent is linked as n1")
    await link.pass_by()
    await link.socket.aclose(1001)
    await world.until("SELECT link_id IS NULL FROM node_links", True)
    assert await world.attempts() == [(None, True, True, False)]
    new = await world.dial()
    await new.hello(spool_id="copy", held=[{**ref(job), "state": "running"}])
    assert (await new.hear("welcome"))["kill"] == [ref(job)]
    assert await world.attempts() == [("lost", True, True, True)]


CANCELED = ("canceled", True, True, True)


async def test_a_cancel_is_answered_by_the_end_of_what_runs(world: LinkWorld) -> None:
    link, job = await world.running()
    await world.cancel(job)
    [asked] = (await link.hear("jobs.cancel"))["jobs"]
    assert asked == {**ref(job), "reason": "canceled", "grace_seconds": 10}
    assert await world.attempts() == [("canceled", True, True, False)]
    await link.acked(await link.report("jobs.output", output(job, 0, b"bye")))
    await link.acked(await link.report("jobs.finished", finished(job, outcome="canceled", stdout=3)))
    assert await world.attempts() == [CANCELED]
    await link.acked(await link.report("jobs.output", output(job, 3, b"late")))
    rows = await world.rows.sql("SELECT data FROM job_output")
    assert rows == [{"data": b"bye"}]
    assert await world.job_row() == ("canceled", 0, None)


async def test_a_cancel_is_answered_by_an_end_that_was_spooled_before(world: LinkWorld) -> None:
    link, job = await world.running()
    await world.cancel(job)
    await link.hear("jobs.cancel")
    await link.acked(await link.report("jobs.finished", finished(job, outcome="completed")))
    assert await world.attempts() == [CANCELED]
    assert await world.job_row() == ("canceled", 0, None)


async def test_a_cancel_of_what_is_not_held_is_answered_at_once(world: LinkWorld) -> None:
    link, job = await world.given()
    await world.cancel(job)
    await link.hear("jobs.cancel")
    await link.reject(job, "canceled")
    await world.until("SELECT count(stopped_at) FROM job_attempts", 1)
    await world.job()
    await link.assigned()


async def test_until_it_has_stopped_a_canceled_attempt_holds_its_slot(world: LinkWorld) -> None:
    link = await world.link(slots=1)
    await world.job()
    job = await link.assigned()
    await link.accept(job)
    await link.start(job)
    await world.cancel(job)
    await link.hear("jobs.cancel")
    await world.job()
    await link.beat(job)
    assert [m for m in await link.pass_by() if m["type"] == "jobs.assign"] == []
    await link.beat()
    await link.beat()
    assert (await link.assigned())["job_id"] != job["job_id"]
    assert (await world.attempts())[0] == CANCELED


async def test_drain_recalls_what_has_not_started(world: LinkWorld) -> None:
    link = await world.link(slots=1, prefetch=1)
    await world.job(max_attempts=1)
    await world.job(max_attempts=1)
    runs, waits = [await link.assigned(), await link.assigned()]
    await link.accept(runs, waits)
    await link.start(runs)
    await world.nodes.drain("n1")
    assert await link.hear("drain") == {"type": "drain", "drain_state": "draining"}
    [recall] = (await link.hear("jobs.cancel"))["jobs"]
    assert (ref(recall), recall["reason"]) == (ref(waits), "recall")
    back = finished(waits, outcome="handed_back", started=False, exit_code=None)
    await link.acked(await link.report("jobs.finished", back))
    other = await world.link("n2", spool_id="another")
    again = await other.assigned()
    assert (again["job_id"], again["attempt"]) == (waits["job_id"], 2)
    await link.acked(await link.report("jobs.finished", finished(runs)))
    assert await world.rows.one("SELECT sum(tries)::int FROM jobs") == 0
    await world.nodes.enable("n1")
    assert (await link.hear("drain"))["drain_state"] == "none"


async def test_a_recall_of_what_has_just_started_changes_nothing(world: LinkWorld) -> None:
    link, job = await world.given()
    await link.accept(job)
    await world.nodes.drain("n1")
    await link.hear("jobs.cancel")
    await link.start(job)
    await link.acked(await link.report("jobs.finished", finished(job)))
    assert await world.attempts() == [("completed", True, True, True)]
    fresh = await world.dial()
    await fresh.hello()
    assert (await fresh.hear("welcome"))["drain_state"] == "draining"


async def test_a_disabled_node_stops_all_and_loses_its_link(world: LinkWorld) -> None:
    link, job = await world.running()
    await world.nodes.disable("n1")
    await link.hear("stop_all")
    await link.acked(await link.report("jobs.finished", finished(job, outcome="handed_back", exit_code=None)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.keep_beating)  # silence would end it, too
        assert (await link.hear_close(20))[0] == 1008, link.messages
    assert await world.job_row() == ("queued", 0, None)
    assert await world.rows.sql("SELECT link_id, lease FROM node_links") == [{"link_id": None, "lease": "free"}]


async def test_a_changed_configuration_is_pushed_and_no_work_given_until_it_is_applied(world: LinkWorld) -> None:
    config = await world.register()
    link = await world.link()
    new = config["config_version"][:-1] + ("0" if config["config_version"][-1] != "0" else "1")
    await world.rows.sql(
        "INSERT INTO node_configs (node_id, config_version, payload) SELECT node_id, $1, payload FROM node_configs", new
    )
    await world.rows.sql("UPDATE nodes SET config_version = $1", new)
    await world.rows.sql("SELECT pg_notify('cynode_nodes', '')")
    pushed = await link.hear("config")
    assert pushed["config_version"] == new
    assert pushed["config"]["node_slug"] == "n1"
    await link.say("config.ack", config_version=new, status="failed", error="no\0 disk")
    await world.until("SELECT config_ack_status FROM nodes", "failed")
    await world.job()
    assert [m for m in await link.pass_by() if m["type"] == "jobs.assign"] == []
    await link.say("config.ack", config_version=new, status="applied")
    await link.assigned()


async def test_stopping_with_keep_says_goodbye_and_ends_nothing(world: LinkWorld) -> None:
    link, _ = await world.running()
    world.stopping.set()
    assert (await link.hear_close())[0] == 1001
    assert await world.attempts() == [(None, True, True, False)]
    assert await world.rows.one("SELECT lease FROM node_links") == "held"


async def test_stopping_with_stop_waits_for_what_is_handed_back(db: Database, database: str) -> None:
    async with open_links(db, database, shutdown_jobs="stop") as world:
        link, job = await world.running()
        world.stopping.set()
        await link.hear("stop_all")
        with trio.move_on_after(0.2):
            await link.hear_close()
        assert link.closed is None
        await link.report("jobs.finished", finished(job, outcome="handed_back", exit_code=None))
        assert (await link.hear_close())[0] == 1001
        assert await world.job_row() == ("queued", 0, None)
