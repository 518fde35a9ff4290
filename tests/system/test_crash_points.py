"""kill -9 of the real server at each of its named points; then rows, spool and a ledger of the jobs are judged.

The node's points are in tests/node/test_agent_crash.py; here they are met once more by a real server.
"""

import re
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import trio

import orchestrator
from node_agent.crash_points import POINTS as NODE_POINTS
from node_agent.link import Closed, Socket, with_socket
from node_link.session import TABLE
from orchestrator.app.clock import now
from orchestrator.app.tokens import Tokens
from orchestrator.domain.ids import NodeId
from real_process import Process
from world import HEARTBEAT, LONG_LEASE, SERVER, World, until

pytestmark = pytest.mark.crash

IN_ANY_JOB = (
    "claim.before_commit",
    "claim.after_commit",
    "jobs.assign.before_send",
    "jobs.assign.after_send",
    "report.before_commit",
    "report.after_commit",
    "report.before_commit:3",
    "report.after_commit:3",
    "ack.before_send",
    "ack.after_send",
)
IN_ANY_LINK = (
    "hello.before_commit",
    "hello.after_commit",
    "welcome.before_send",
    "welcome.after_send",
    "heartbeat.before_commit",
    "heartbeat.after_commit",
    "heartbeat.before_send",
    "heartbeat.after_send",
)
IN_A_CANCEL = ("jobs.cancel.before_send", "jobs.cancel.after_send")
AT_CLOSE = ("close.before_commit", "close.after_commit")
WHEN_DISABLED = (
    "stop_all.before_send",
    "stop_all.after_send",
    "release.before_commit",
    "release.after_commit",
)
WHEN_DRAINED = ("drain.before_send", "drain.after_send")
WHEN_CONFIGURED = ("config.before_send", "config.after_send")
AT_AN_ERROR = ("error.before_send", "error.after_send")
AT_THE_END_OF_A_LEASE = ("expire.before_commit", "expire.after_commit")
WHEN_DUE = ("due.before_commit", "due.after_commit")
GATEWAY = ("submit.before_commit", "submit.after_commit", "cancel.before_commit", "cancel.after_commit")
ALL = {
    *(
        f"control_plane.{point.partition(':')[0]}"
        for group in (
            IN_ANY_JOB, IN_ANY_LINK, IN_A_CANCEL, AT_CLOSE, WHEN_DISABLED, WHEN_DRAINED, WHEN_CONFIGURED, AT_AN_ERROR,
            AT_THE_END_OF_A_LEASE, WHEN_DUE,
        )
        for point in group
    ),
    *(f"gateway.{point}" for point in GATEWAY),
}  # fmt: skip


def test_every_point_in_the_source_has_its_kill() -> None:
    source = "\n".join(path.read_text() for path in Path(str(orchestrator.__file__)).parent.rglob("*.py"))
    found = set(re.findall(r'\breach\(f?"([^"]+)"\)', source))
    sent = {kind for (end, _), kinds in TABLE.items() if end == "server" for kind in kinds} - {"welcome"}
    expanded = {point.replace("{message.type}", kind) for point in found for kind in sent}
    assert expanded == ALL


def fault(point: str) -> dict[str, str]:
    return {"CYNODE_DEVELOPMENT": "1", "CYNODE_FAULT": point, **LONG_LEASE}


class Ledger:
    """Each run of a job leaves a line that nobody in the system knows of."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._path = world.folder / "ledger"
        self._path.touch()
        self._path.chmod(0o666)
        self.sign = f"echo $CYNODE_JOB_ID $CYNODE_ASSIGNMENT_ID >> {self._path}"

    async def judge(self, tasks: Sequence[str], status: str = "completed") -> None:
        """Exactly one attempt of each counts, none ran twice, and nothing is left anywhere."""
        for task in tasks:
            assert (await self._world.result(task))["status"] == status
        rows = await self._world.sql("SELECT job_id::text, assignment_id::text, outcome FROM job_attempts")
        runs = Counter(tuple(line.split()) for line in self._path.read_text().splitlines())
        assert set(runs) <= {(row["job_id"], row["assignment_id"]) for row in rows}
        assert set(runs.values()) <= {1}, "an assignment ran twice"
        ended = Counter(row["job_id"] for row in rows if row["outcome"] == "completed")
        assert set(ended.values()) <= {1}
        assert len(ended) == (len(tasks) if status == "completed" else 0)
        for row in rows:
            ran = (row["job_id"], row["assignment_id"]) in runs
            assert ran or row["outcome"] in ("rejected", "lost", "canceled"), row
        await self.nothing_is_left()

    async def nothing_is_left(self) -> None:
        async def idle() -> bool:
            said = await self._world.agent_status("n1")
            return bool(said["linked"]) and said["held"] == [] and said["spool"]["unacknowledged"] == 0

        await until(idle, what="a node with nothing to tell")
        assert await self._world.sql("SELECT 1 FROM job_queue") == []
        assert await self._world.sql("SELECT 1 FROM job_attempts WHERE stopped_at IS NULL") == []


async def died(process: Process) -> None:
    assert await process.wait(20) == -signal.SIGKILL, process.said[-2000:]


async def gateway_and_node(world: World) -> Ledger:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world._gateway_and_session)
        nursery.start_soon(lambda: world.node("n1", linked=False))
    return Ledger(world)


@pytest.mark.parametrize("points", [IN_ANY_JOB[:5], IN_ANY_JOB[5:], IN_ANY_LINK], ids=["claim", "report", "link"])
async def test_killed_with_a_job_in_flight_again_and_again(world: World, points: tuple[str, ...]) -> None:
    """What one control-plane leaves at its point, the next one finds, until it dies at its own."""
    ledger = await gateway_and_node(world)
    tasks = []
    for point in points:
        tasks.append(await world.submit(f"{ledger.sign}; echo out; sleep 0.2; echo more"))
        await died(await world.control_plane(**fault(f"control_plane.{point}")))
    await world.control_plane(**LONG_LEASE)
    for task in tasks:
        assert (await world.result(task))["stdout"] == "out\nmore\n"
    await ledger.judge(tasks)


@pytest.mark.parametrize("point", IN_A_CANCEL)
async def test_killed_when_it_tells_of_a_cancel_the_next_one_tells_again(world: World, point: str) -> None:
    ledger = await gateway_and_node(world)
    control = await world.control_plane(**fault(f"control_plane.{point}"))
    task = await world.submit(f"{ledger.sign}; echo begun; sleep 600")
    await world.wait_output(task, "begun")
    await world.post(f"/v1/tasks/{task}/cancel")
    await died(control)
    await world.control_plane(**LONG_LEASE)

    async def stopped() -> bool:
        return await world.sql("SELECT 1 FROM job_attempts WHERE stopped_at IS NULL") == []

    await until(stopped)
    await ledger.judge([task], "canceled")


async def test_killed_when_it_notes_that_a_link_closed(world: World) -> None:
    ledger = await gateway_and_node(world)
    gate = world.gate()
    control = await world.control_plane(**LONG_LEASE)
    task = await world.submit(f"{ledger.sign}; echo begun; {gate.wait}")
    await world.wait_output(task, "begun")
    await control.kill()
    for point in AT_CLOSE:
        control = await world.control_plane(**fault(f"control_plane.{point}"))
        await control.wait_said('"linked"')
        world.wire.cut()
        await died(control)
    await world.control_plane(**LONG_LEASE)
    gate.open()
    await ledger.judge([task])
    assert await world.attempts(task) == [("completed", "n1")]


@pytest.mark.parametrize("point", WHEN_DISABLED)
async def test_killed_while_a_node_is_disabled_its_jobs_end_all_the_same(world: World, point: str) -> None:
    ledger = await gateway_and_node(world)
    control = await world.control_plane(**fault(f"control_plane.{point}") | {"NODE_LEASE_SECONDS": "2"})
    task = await world.submit(f"{ledger.sign}; [ $CYNODE_ATTEMPT -gt 1 ] && exit; echo begun; sleep 600")
    await world.wait_output(task, "begun")
    await world.post("/v1/nodes/n1/disable")
    await died(control)
    await world.control_plane()

    async def ended() -> bool:
        return await world.sql("SELECT 1 FROM job_attempts WHERE ended_at IS NULL") == []

    await until(ended)
    await world.post("/v1/nodes/n1/enable")
    await ledger.judge([task])


@pytest.mark.parametrize("point", WHEN_DRAINED)
async def test_killed_when_it_drains_a_node_the_drain_holds(world: World, point: str) -> None:
    ledger = await gateway_and_node(world)
    control = await world.control_plane(**fault(f"control_plane.{point}"))
    await control.wait_said('"linked"')
    await world.post("/v1/nodes/n1/drain")
    await died(control)
    control = await world.control_plane(**LONG_LEASE)
    await control.wait_said('"linked"')
    task = await world.submit(ledger.sign)
    await trio.sleep(3 * HEARTBEAT)  # nothing must happen: no bell rings for that
    assert await world.sql("SELECT 1 FROM job_attempts") == []
    await world.post("/v1/nodes/n1/enable")
    await ledger.judge([task])


async def test_killed_when_it_sends_a_configuration(world: World) -> None:
    ledger = await gateway_and_node(world)
    control = await world.control_plane(**LONG_LEASE)
    await control.wait_said('"linked"')
    await control.kill()
    for point in WHEN_CONFIGURED:
        await world.sql("UPDATE nodes SET config_ack_status = NULL RETURNING 1")  # as if the ack had never come
        await died(await world.control_plane(**fault(f"control_plane.{point}")))
    await world.sql("UPDATE nodes SET config_ack_status = NULL RETURNING 1")
    await world.control_plane(**LONG_LEASE)
    await ledger.judge([await world.submit(ledger.sign)])


@pytest.mark.parametrize("point", AT_AN_ERROR)
async def test_killed_when_it_answers_an_error(world: World, point: str) -> None:
    ledger = await gateway_and_node(world)
    control = await world.control_plane(**LONG_LEASE)
    await control.wait_said('"linked"')
    await control.kill()
    upstream = await world.control_plane(wired=False, **fault(f"control_plane.{point}"))
    port = (await upstream.wait_said(r"serves at http://127.0.0.1:(\d+)"))[1]
    [node] = await world.sql("SELECT n.id::text, l.spool_id FROM nodes n JOIN node_links l ON l.node_id = n.id")
    await say_what_cannot_be_taken(port, node)
    await died(upstream)
    await world.control_plane(**LONG_LEASE)
    await ledger.judge([await world.submit(ledger.sign)])


async def say_what_cannot_be_taken(port: str, node: dict[str, Any]) -> None:
    """As the node itself would: an ack of a configuration that nobody issued."""
    token = Tokens(SERVER["JWT_SECRET"]).node(NodeId(UUID(node["id"])), "n1", now()).text
    hello = (
        '{"type":"hello","protocol_version":1,"node_slug":"n1","agent_version":"0.1.0","agent_start_id":"a",'
        f'"spool_id":"{node["spool_id"]}","slots":1,"held":[],"capability_hash":"x"}}'
    )

    async def talk(socket: Socket) -> None:
        await socket.send(hello)
        await socket.send('{"type":"config.ack","config_version":"never","status":"applied"}')
        while True:
            await socket.receive()

    with pytest.raises(Closed):
        await with_socket(f"http://127.0.0.1:{port}", token, None, talk)


async def test_killed_when_it_ends_a_lease_the_next_one_ends_it(world: World) -> None:
    ledger = await gateway_and_node(world)
    control = await world.control_plane(**LONG_LEASE)
    task = await world.submit(f"{ledger.sign}; [ $CYNODE_ATTEMPT -gt 1 ] && exit; echo begun; sleep 600")
    await world.wait_output(task, "begun")
    await control.kill()
    upstream, world.wire.upstream = world.wire.upstream, None
    for point in AT_THE_END_OF_A_LEASE:
        short = {**fault(f"control_plane.{point}"), "NODE_LEASE_SECONDS": "2"}
        await died(await world.control_plane(wired=False, **short))
        open_attempts = await world.sql("SELECT 1 FROM job_attempts WHERE ended_at IS NULL")
        assert len(open_attempts) == (1 if "before" in point else 0)
    assert upstream is not None
    await world.control_plane(**LONG_LEASE)
    await ledger.judge([task])
    assert await world.attempts(task) == [("lost", "n1"), ("completed", "n1")]


async def test_killed_when_a_retry_is_due(world: World) -> None:
    ledger = await gateway_and_node(world)
    control = await world.control_plane(**LONG_LEASE)
    task = await world.submit(f"{ledger.sign}; [ $CYNODE_ATTEMPT = 2 ]", retry_on=["exit"])

    async def waits() -> bool:
        return bool(await world.sql("SELECT 1 FROM jobs WHERE not_before IS NOT NULL"))

    await until(waits)
    await control.kill()
    for point in WHEN_DUE:
        await died(await world.control_plane(**fault(f"control_plane.{point}")))
    await world.control_plane(**LONG_LEASE)
    await ledger.judge([task])
    assert await world.attempts(task) == [("failed", "n1"), ("completed", "n1")]


async def test_gateway_killed_in_mid_submission_the_same_key_finds_the_same_task(world: World) -> None:
    ledger = await gateway_and_node(world)
    await world.control_plane(**LONG_LEASE)
    tasks = []
    for nth, point in enumerate(GATEWAY[:2]):
        faulty = await world.gateway(CYNODE_DEVELOPMENT="1", CYNODE_FAULT=f"gateway.{point}")
        request = {"prompt": ledger.sign, "input_mode": "script", "task_name": f"once-{nth}"}
        key = {"Idempotency-Key": f"key-{nth}"}
        with pytest.raises(httpx.TransportError):
            await world.client.post("/v1/tasks", json=request, headers=key)
        await died(faulty)
        await world.gateway()
        answer = await world.client.post("/v1/tasks", json=request, headers=key)
        assert answer.status_code == (201 if "before" in point else 200), answer.text
        tasks.append(answer.json()["id"])
    assert len(await world.sql("SELECT 1 FROM tasks")) == len(tasks)
    await ledger.judge(tasks)


async def test_gateway_killed_in_mid_cancel_the_cancel_holds_or_can_be_repeated(world: World) -> None:
    ledger = await gateway_and_node(world)
    await world.control_plane(**LONG_LEASE)
    tasks = []
    for point in GATEWAY[2:]:
        faulty = await world.gateway(CYNODE_DEVELOPMENT="1", CYNODE_FAULT=f"gateway.{point}")
        task = await world.submit(f"{ledger.sign}; echo begun; sleep 600")
        tasks.append(task)
        await world.wait_output(task, "begun")
        with pytest.raises(httpx.TransportError):
            await world.client.post(f"/v1/tasks/{task}/cancel")
        await died(faulty)
        await world.gateway()
        assert (await world.status(task) == "canceled") is ("after" in point)
        assert (await world.post(f"/v1/tasks/{task}/cancel"))["canceled"] is True

    async def stopped() -> bool:
        return await world.sql("SELECT 1 FROM job_attempts WHERE stopped_at IS NULL") == []

    await until(stopped)
    await ledger.judge(tasks, "canceled")


@pytest.mark.parametrize("end", ["taken", "finished"])
async def test_node_killed_at_each_of_its_points_against_a_real_server(world: World, end: str) -> None:
    points = [point for point in NODE_POINTS if point.startswith(f"node.{end}.")]
    assert points
    await world._gateway_and_session()
    await world.control_plane(**LONG_LEASE)
    ledger, tasks = Ledger(world), []
    for point in points:
        tasks.append(await world.submit(f"{ledger.sign}; echo out; sleep 0.2; echo more", max_attempts=9))
        await died(await world.node("n1", linked=False, CYNODE_DEVELOPMENT="1", CYNODE_FAULT=point))
    await world.node("n1")
    for task in tasks:
        assert (await world.result(task))["stdout"] == "out\nmore\n"
    await ledger.judge(tasks)
