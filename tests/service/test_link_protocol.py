"""The link's frames against a real control-plane: what is said in which state, and what anything else costs."""

import json
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from link_node import HEARTBEAT, FakeLink, LinkWorld, finished, open_links, output, ref
from node_link import codec
from node_link.messages import MAX_FRAME_BYTES, MESSAGES
from node_link.session import TABLE, LinkState
from orchestrator.store.db import Database
from pure.link_samples import SAMPLES

TYPES = [message.model_fields["type"].default for message in MESSAGES]
FRAMES = {sample.type: codec.encode(sample) for sample in SAMPLES}


def illegal(state: LinkState) -> list[str]:
    return [kind for kind in TYPES if kind not in TABLE["node", state]]


@pytest.fixture
async def world(db: Database, database: str) -> AsyncIterator[LinkWorld]:
    async with open_links(db, database) as made:
        yield made


async def opened(world: LinkWorld, state: LinkState) -> FakeLink:
    if state is LinkState.LINKED:
        return await world.link()
    if "n1" not in world.tokens:
        await world.register()
    return await world.dial()


async def test_the_whole_way_with_every_field(world: LinkWorld) -> None:
    config = await world.register()
    link = await world.dial()
    await link.hello(slots=3, agent_version="9.8.7", spool_id="s1")
    welcome = await link.hear("welcome")
    assert set(welcome) == {
        "type", "link_id", "heartbeat_interval", "keep", "kill", "drain_state", "config_version", "oldest_agent_version"
    }  # fmt: skip
    assert (welcome["heartbeat_interval"], welcome["keep"], welcome["kill"]) == (HEARTBEAT, [], [])
    assert (welcome["drain_state"], welcome["config_version"]) == ("none", config["config_version"])
    await world.job()
    job = await link.assigned()
    assert set(job) == {"job_id", "attempt", "assignment_id", "task_id", "job_spec", "timeout_seconds"}
    assert (job["attempt"], job["timeout_seconds"], job["job_spec"]) == (1, 60, {})
    await link.accept(job)
    await link.start(job)
    assert await world.attempts() == [(None, True, True, False)]
    assert await world.rows.one("SELECT status FROM tasks") == "running"
    await link.acked(await link.report("jobs.output", output(job, 0, b"ab\0"), output(job, 0, b"\xff", "stderr")))
    await link.acked(await link.report("jobs.finished", finished(job, stdout=3, exit_code=0)))
    assert await world.job_row() == ("completed", 0, None)
    assert await world.attempts() == [("completed", True, True, True)]
    rows = await world.rows.sql("SELECT stream, data FROM job_output ORDER BY stream")
    assert [(row["stream"], row["data"]) for row in rows] == [("stderr", b"\xff"), ("stdout", b"ab\0")]
    row = await world.rows.sql("SELECT agent_version, slots FROM nodes")
    assert row == [{"agent_version": "9.8.7", "slots": 3}]


async def test_times_are_the_servers_own_minus_the_records_age(world: LinkWorld) -> None:
    link, job = await world.given()
    await link.accept(job)
    await link.acked(await link.report("jobs.started", {**ref(job), "age": 3600}))
    assert await world.rows.one("SELECT round(extract(epoch FROM now() - started_at) / 60) FROM job_attempts") == 60


@pytest.mark.parametrize("kind", illegal(LinkState.OPENED))
async def test_nothing_is_legal_before_hello(world: LinkWorld, kind: str) -> None:
    link = await opened(world, LinkState.OPENED)
    await link.socket.send_message(FRAMES[kind])
    code, reason = await link.hear_close()
    assert code == 4400
    assert kind in reason


@pytest.mark.parametrize("kind", illegal(LinkState.LINKED))
async def test_a_node_may_not_say_what_only_a_server_says_and_no_second_hello(world: LinkWorld, kind: str) -> None:
    link = await opened(world, LinkState.LINKED)
    await link.socket.send_message(FRAMES[kind])
    code, reason = await link.hear_close()
    assert code == 4400
    assert kind in reason
    await world.until("SELECT link_id IS NULL FROM node_links", True)


@pytest.mark.parametrize("kind", sorted(TABLE["node", LinkState.LINKED]))
async def test_what_a_node_may_say_ends_no_link_whatever_it_speaks_of(world: LinkWorld, kind: str) -> None:
    """The samples name a job that does not exist."""
    link = await opened(world, LinkState.LINKED)
    await link.socket.send_message(FRAMES[kind])
    await link.pass_by()
    assert link.closed is None


BAD = {
    "empty": "",
    "no JSON": "{",
    "NaN": '{"type": "heartbeat", "load": NaN}',
    "a list": "[]",
    "no type": "{}",
    "a type that is no text": '{"type": 1}',
    "a missing field": '{"type": "jobs.accepted"}',
    "a wrong field": '{"type": "jobs.accepted", "jobs": [{"job_id": 1, "attempt": 0, "assignment_id": ""}]}',
    "an unknown reason": json.dumps(
        {"type": "jobs.rejected", "jobs": [{**ref(json.loads(FRAMES["jobs.accepted"])["jobs"][0]), "reason": "tired"}]}
    ),
    "deep": "[" * 100_000,
    "deep fields": '{"type": ' + '{"a":' * 5_000 + "1" + "}" * 5_000 + "}",
}


@pytest.mark.parametrize("state", [LinkState.OPENED, LinkState.LINKED])
async def test_garbage_ends_only_its_own_link(world: LinkWorld, state: LinkState) -> None:
    other = await world.link("n2")
    for name, text in BAD.items():
        link = await opened(world, state)
        await link.socket.send_message(text)
        assert (await link.hear_close())[0] == 4400, name
        await world.until("SELECT count(link_id) FROM node_links", 1)
    await other.pass_by()


@pytest.mark.parametrize("state", [LinkState.OPENED, LinkState.LINKED])
async def test_binary_and_huge_frames(world: LinkWorld, state: LinkState) -> None:
    for frame, code in (
        (FRAMES["heartbeat"].encode(), 4400),
        ("x" * (MAX_FRAME_BYTES + 1), 1009),
        ("é" * (MAX_FRAME_BYTES // 2 + 1), 1009),
        (json.dumps({"type": "error", "code": "x", "message": "y" * MAX_FRAME_BYTES}), 1009),
        ("x" * (8 * MAX_FRAME_BYTES), 1009),
    ):
        link = await opened(world, state)
        await link.socket.send_message(frame)
        assert (await link.hear_close())[0] == code, (code, len(frame))
        await world.until("SELECT count(link_id) FROM node_links", 0)


async def test_the_largest_frame_passes_whole(world: LinkWorld) -> None:
    link = await world.link()
    frame = json.dumps({"type": "error", "code": "x", "message": ""})
    padded = frame.replace('""', f'"{"y" * (MAX_FRAME_BYTES - len(frame))}"')
    assert len(padded) == MAX_FRAME_BYTES
    await link.socket.send_message(padded)
    await link.pass_by()


async def test_an_unknown_type_is_answered_and_unknown_fields_are_passed_over(world: LinkWorld) -> None:
    await world.register()
    link = await world.dial()
    await link.say("weather", rain=True)
    error = await link.hear("error")
    assert (error["code"], error["message_type"]) == ("unknown_type", "weather")
    await link.hello(colour="red")
    await link.hear("welcome")
    await link.say("x" * 500_000)
    assert len((await link.hear("error"))["message_type"]) <= 64
    await link.say("heartbeat", held=[], mood="good")
    await link.hear("heartbeat")


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"protocol_version": 2}, "protocol version 2"), ({"node_slug": "n2"}, "node_slug"), ({"slots": -1}, "slots")],
)
async def test_a_hello_that_will_not_do(world: LinkWorld, fields: dict[str, object], said: str) -> None:
    await world.register()
    link = await world.dial()
    await link.hello(**fields)
    code, reason = await link.hear_close()
    assert code == 4400
    assert said in reason
    assert await world.rows.sql("SELECT 1 FROM node_links") == []


async def test_bad_records_cost_themselves_and_the_attempt_whose_output_they_were(world: LinkWorld) -> None:
    link, job = await world.running(max_attempts=1)
    bad = {**output(job, 0, b"x"), "data": "not base64!"}
    stranger = {"position": 7, "job_id": "no uuid"}
    await link.say("jobs.output", jobs=[{**bad, "position": 5}, {"position": 6}, stranger])
    link._position = 8
    await link.acked(8)
    await link.acked(await link.report("jobs.finished", finished(job, stdout=1)))
    assert await world.job_row() == ("failed", 0, "bad_report")


async def test_stale_and_foreign_assignments_are_acknowledged_and_change_nothing(world: LinkWorld) -> None:
    link, job = await world.running()
    other = await world.link("n2", spool_id="spool of n2")
    stale = {**job, "attempt": 2}
    made_up = {**job, "assignment_id": str(uuid4())}
    for speaker, named in ((other, job), (link, stale), (link, made_up)):
        await speaker.accept(named)
        await speaker.reject(named, "invalid")
        await speaker.acked(await speaker.report("jobs.started", ref(named)))
        await speaker.acked(await speaker.report("jobs.output", output(named, 0, b"evil")))
        await speaker.acked(await speaker.report("jobs.finished", finished(named, stdout=4)))
    assert await world.attempts() == [(None, True, True, False)]
    assert await world.rows.sql("SELECT 1 FROM job_output") == []
    await link.acked(await link.report("jobs.finished", finished(job)))
    assert await world.job_row() == ("completed", 0, None)


async def test_a_gap_is_told_once_and_the_second_time_it_is_final(world: LinkWorld) -> None:
    link, job = await world.running(max_attempts=1)
    await link.report("jobs.output", output(job, 0, b"0123"))
    await link.report("jobs.output", output(job, 9, b"late"))
    code, reason = await link.hear_close()
    assert code == 1013
    assert "9" in reason
    again = await world.link(held=[{**ref(job), "state": "running"}])
    again._position = 1
    await again.report("jobs.output", output(job, 0, b"0123"))
    await again.report("jobs.output", output(job, 9, b"late"))
    await again.acked(await again.report("jobs.finished", finished(job, stdout=13)))
    assert await world.job_row() == ("failed", 0, "bad_report")


async def test_an_overlap_is_trimmed_and_a_repeat_acknowledged(world: LinkWorld) -> None:
    link, job = await world.running()
    end = finished(job, stdout=8)
    await link.report("jobs.output", output(job, 0, b"0123"), output(job, 0, b"0123"), output(job, 2, b"234567"))
    await link.acked(await link.report("jobs.finished", end))
    await link.acked(await link.report("jobs.finished", end))
    rows = await world.rows.sql("SELECT data FROM job_output ORDER BY seq")
    assert b"".join(row["data"] for row in rows) == b"01234567"  # type: ignore[misc]
    assert await world.rows.sql("SELECT 1 FROM dropped_reports") == []


async def test_beyond_the_cap_nothing_is_stored_and_the_flag_is_set(world: LinkWorld) -> None:
    link, job = await world.running()
    piece = b"x" * 500_000
    for nth in range(3):
        await link.acked(await link.report("jobs.output", output(job, nth * len(piece), piece)))
    await link.acked(await link.report("jobs.finished", finished(job, stdout=1_500_000)))
    assert await world.rows.one("SELECT sum(length(data))::int FROM job_output") == 1 << 20
    assert await world.rows.one("SELECT stdout_truncated FROM job_attempts") is True
    assert await world.job_row() == ("completed", 0, None)
