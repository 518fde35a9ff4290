"""Whose node it is, and what a result is worth then: takeover, lease, late reports."""

import pytest
import trio

from orchestrator.app.clock import now
from orchestrator.app.links import AlreadyLinked, Overtaken
from orchestrator.app.reports import Judged, LinkLost, Report
from orchestrator.domain.reports import Accepted, BadRecord, NotListed, Rejected
from orchestrator.domain.states import Outcome
from orchestrator.store.batch import Batcher
from orchestrator.store.db import Database
from plane import Plane, finished, output, ref, started


async def one_running(db: Database, **fields: object):
    plane = Plane(db)
    await plane.jobs(await plane.user("ann"), 1, **fields)
    node = await plane.node("n")
    link = await plane.hello(node, "n")
    [held] = await plane.claim(node, link, 1)
    await plane.report(node, link, started(held))
    return plane, node, link, held


async def test_output_and_result_are_stored_once_however_often_they_come(db: Database) -> None:
    plane, node, link, held = await one_running(db)
    for _ in range(3):
        judged = await plane.report(
            node, link, output(held, 0, b"ab\x00\xff"), output(held, 4, b"cd"), finished(held, length=6)
        )
        assert (judged.settled, judged.gap) == (3, None)
    rows = await plane.sql("SELECT data FROM job_output ORDER BY seq")
    assert b"".join(row["data"] for row in rows) == b"ab\x00\xffcd"
    assert await plane.one("SELECT status FROM tasks") == "completed"
    assert await plane.one("SELECT count(*) FROM dropped_reports WHERE kind = 'finished'") == 0


async def test_a_report_over_a_link_that_was_taken_over_changes_nothing(db: Database) -> None:
    plane, node, link, held = await one_running(db)
    new = await plane.hello(node, "n", [ref(held)])
    with pytest.raises(LinkLost) as caught:
        await plane.report(node, link, finished(held))
    assert caught.value.other == new.link_id
    assert await plane.one("SELECT status FROM jobs") == "running"
    await plane.report(node, new, finished(held))
    assert await plane.one("SELECT status FROM jobs") == "completed"


async def test_another_spool_is_refused_while_the_link_is_alive_and_ends_the_attempts_after(db: Database) -> None:
    plane, node, link, held = await one_running(db)
    with pytest.raises(AlreadyLinked):
        await plane.hello(node, "n", spool="another")
    await plane.links.close(node, link.link_id)
    takeover = await plane.hello(node, "n", [ref(held)], spool="another")
    assert takeover.kill == (ref(held),)
    assert await plane.one("SELECT outcome FROM job_attempts") == "lost"


async def test_hello_keeps_resends_and_kills(db: Database) -> None:
    plane = Plane(db)
    await plane.jobs(await plane.user("ann"), 4)
    node = await plane.node("n")
    link = await plane.hello(node, "n")
    held = await plane.claim(node, link, 4)
    await plane.report(node, link, started(held[0]), started(held[1]), *(Accepted(ref(h), now()) for h in held[:2]))
    takeover = await plane.hello(node, "n", [ref(held[0]), ref(held[2])])
    assert {r.assignment_id for r in takeover.keep} == {held[0].assignment_id, held[2].assignment_id}
    assert [h.assignment_id for h in takeover.resend] == [held[3].assignment_id]
    outcomes = await plane.sql("SELECT outcome FROM job_attempts WHERE assignment_id = $1", held[1].assignment_id)
    assert outcomes == [{"outcome": "lost"}]
    later = await plane.hello(node, "n", [ref(held[1])])
    assert ref(held[1]) in later.kill


async def test_a_lease_ends_only_on_the_counter_that_was_watched(db: Database) -> None:
    plane, node, link, _ = await one_running(db)
    counter = (await plane.links.counters())[node]
    assert await plane.links.renew([(node, link.link_id)]) == {}
    assert await plane.links.expire(node, counter) is None
    assert await plane.one("SELECT status FROM jobs") == "running"
    assert await plane.links.expire(node, counter + 1) == 1
    assert await plane.one("SELECT outcome FROM job_attempts") == "lost"
    assert await plane.links.renew([(node, link.link_id)]) == {node: None}


async def test_hello_against_the_reaper_is_decided_once(db: Database) -> None:
    plane, node, _, held = await one_running(db)
    counter = (await plane.links.counters())[node]
    kept: list[bool] = []
    ended: list[int | None] = []

    async def hello() -> None:
        kept.append(ref(held) in (await plane.hello(node, "n", [ref(held)])).keep)

    async def reap() -> None:
        ended.append(await plane.links.expire(node, counter))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hello)
        nursery.start_soon(reap)
    assert kept == [ended == [None]]


async def test_one_bad_fact_among_fifty_fails_alone(db: Database) -> None:
    plane, node, link, held = await one_running(db)
    facts = [output(held, n, b"x") for n in range(50)]
    facts[25] = output(held, 0, b"x", stream="nonsense")  # the database's CHECK refuses it
    judged = await plane.report(node, link, *facts)
    assert judged.settled == 50
    assert await plane.one("SELECT stdout_length FROM job_attempts") == 25
    assert await plane.one("SELECT bad_report IS NOT NULL FROM job_attempts")


TOO_MUCH_AT_ONCE = """
    CREATE FUNCTION too_much() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (SELECT count(*) FROM new_rows) > 3 THEN
            RAISE EXCEPTION USING ERRCODE = 'query_canceled', MESSAGE = 'canceling statement due to statement timeout';
        END IF;
        RETURN NULL;
    END $$
"""


async def test_a_report_that_is_too_much_for_one_commit_is_committed_in_pieces(db: Database) -> None:
    plane, node, link, held = await one_running(db)
    await plane.sql(TOO_MUCH_AT_ONCE)
    await plane.sql(
        "CREATE TRIGGER too_much AFTER INSERT ON job_output REFERENCING NEW TABLE AS new_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION too_much()"
    )
    facts = [*(output(held, n, b"x") for n in range(50)), finished(held, length=50)]
    reports = Batcher[Report, Judged](plane.reports.write, when_away="keep")
    async with trio.open_nursery() as nursery:
        await nursery.start(reports.run)
        with trio.fail_after(60):
            judged = await reports.submit(Report(node, link.link_id, tuple(facts)))
        nursery.cancel_scope.cancel()
    assert (judged.settled, judged.gap) == (51, None)
    assert judged.states[held.assignment_id].ended
    assert await plane.one("SELECT string_agg(data, '' ORDER BY byte_offset) FROM job_output") == b"x" * 50
    assert await plane.one("SELECT status FROM jobs") == "completed"


async def test_a_gap_is_told_and_the_second_time_it_is_final(db: Database) -> None:
    plane, node, link, held = await one_running(db)
    assert (await plane.report(node, link, output(held, 5, b"late"), finished(held, length=9))).settled == 0
    again = await plane.hello(node, "n", [ref(held)])
    judged = await plane.report(node, again, output(held, 5, b"late"), finished(held, length=9))
    assert judged.settled == 2
    assert await plane.sql("SELECT status, error FROM jobs") == [{"status": "failed", "error": "bad_report"}]
    assert await plane.one("SELECT kind FROM dropped_reports") == "output"


async def test_refusals_keep_the_group_away_from_that_node(db: Database) -> None:
    plane = Plane(db)
    await plane.jobs(await plane.user("ann"))
    node = await plane.node("n")
    link = await plane.hello(node, "n")
    [held] = await plane.claim(node, link, 1)
    await plane.report(node, link, Rejected(ref(held), now(), "unsupported", "no gpu here"))
    assert (await plane.links.settings([node]))[node].ability.refused == {1}
    assert await plane.sql("SELECT status, tries FROM jobs") == [{"status": "queued", "tries": 0}]


async def test_late_reports_of_an_ended_attempt_are_counted_once_per_kind(db: Database) -> None:
    plane, node, link, held = await one_running(db)
    await plane.report(node, link, NotListed(ref(held), now()))
    for _ in range(3):
        await plane.report(node, link, output(held, 0, b"late"), finished(held, length=4))
    rows = await plane.sql("SELECT kind, count FROM dropped_reports ORDER BY kind")
    assert rows == [{"kind": "finished", "count": 3}, {"kind": "output", "count": 3}]
    assert await plane.one("SELECT count(*) FROM job_output") == 0


async def test_a_report_for_a_foreign_assignment_is_acknowledged_and_audited(db: Database) -> None:
    plane, node, link, held = await one_running(db)
    stranger = await plane.node("m")
    other = await plane.hello(stranger, "m", spool="other")
    judged = await plane.report(stranger, other, finished(held), BadRecord(ref(held), now(), "output", "bad"))
    assert judged.settled == 2
    assert await plane.one("SELECT status FROM jobs") == "running"
    assert (await plane.report(node, link, finished(held))).settled == 1


async def test_many_links_share_a_commit_and_one_that_lost_its_node_gets_its_own_answer(db: Database) -> None:
    plane, node, link, held = await one_running(db)
    other = await plane.node("m")
    old = await plane.hello(other, "m")
    await plane.hello(other, "m")
    answers = await plane.reports.write(
        [
            Report(other, old.link_id, (Accepted(ref(held), now()),)),
            Report(node, link.link_id, (finished(held, Outcome.FAILED, 3),)),
        ]
    )
    assert isinstance(answers[0], LinkLost)
    assert not isinstance(answers[1], Exception)
    assert await plane.one("SELECT status FROM tasks") == "failed"


async def test_a_task_of_two_jobs_ends_with_its_last(db: Database) -> None:
    plane = Plane(db)
    ann = await plane.user("ann")
    [first] = await plane.jobs(ann)
    task = await plane.one("SELECT task_id FROM jobs WHERE id = $1", first)
    await plane.jobs(ann, 1, task=task)
    node = await plane.node("n")
    link = await plane.hello(node, "n")
    one, two = await plane.claim(node, link, 2)
    await plane.report(node, link, started(one), finished(one, Outcome.FAILED, 2))
    assert await plane.one("SELECT status FROM tasks") == "running"
    await plane.report(node, link, started(two), finished(two))
    assert await plane.one("SELECT status FROM tasks") == "failed"


async def test_a_hello_that_a_later_one_has_overtaken_takes_nothing(db: Database) -> None:
    """The socket dropped before the welcome, the node dialled again, and the first transaction came second."""
    plane = Plane(db)
    await plane.jobs(await plane.user("ann"))
    node = await plane.node("n")
    link = await plane.hello(node, "n", dial=2)
    [held] = await plane.claim(node, link, 1)
    await plane.report(node, link, started(held))
    with pytest.raises(Overtaken):
        await plane.hello(node, "n", dial=1)
    await plane.report(node, link, finished(held))
    assert await plane.one("SELECT status FROM tasks") == "completed"


async def test_a_release_ends_nothing_of_a_later_link(db: Database) -> None:
    plane, node, link, held = await one_running(db)
    later = await plane.hello(node, "n", [ref(held)])
    assert await plane.links.release(node, link.link_id) == 0
    assert await plane.one("SELECT status FROM jobs") == "running"
    assert await plane.links.release(node, later.link_id) == 1
    assert await plane.one("SELECT lease FROM node_links") == "free"
