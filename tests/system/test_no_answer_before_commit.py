"""Seen from outside: nothing is answered, acknowledged or sent before its own COMMIT, or sync, has answered."""

import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from commit_gate import CommitGate, open_gate
from node.agent_process import PROCESS, agent, open_home
from node.fake_server import assignment, open_fake_server
from world import World, until

QUIET = {"NODE_HEARTBEAT_SECONDS": "60", "NODE_LEASE_SECONDS": "600"}
"""So that no heartbeat's commit stands at the gate too."""
A_WHILE = 0.7
"""For what must not happen; no bell rings for that."""
SYNC_SECONDS = 1.0


@pytest.fixture
async def gate(database: str) -> AsyncIterator[CommitGate]:
    async with open_gate(database) as gate:
        yield gate
        gate.open()


async def test_no_201_before_its_commit(world: World, gate: CommitGate) -> None:
    await world.gateway(DATABASE_URL=gate.dsn)
    await world.log_in()
    gate.close()
    answered: list[str] = []

    async def submit() -> None:
        answered.append(await world.submit("true"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(submit)
        rows = await until(lambda: world.sql("SELECT id::text FROM tasks"))
        await trio.sleep(A_WHILE)
        assert answered == []
        gate.open()
    assert answered == [rows[0]["id"]]


async def test_no_answer_to_a_cancel_before_its_commit(world: World, gate: CommitGate) -> None:
    await world.gateway(DATABASE_URL=gate.dsn)
    await world.log_in()
    task = await world.submit("true")
    gate.close()
    answered: list[object] = []

    async def cancel() -> None:
        answered.append((await world.post(f"/v1/tasks/{task}/cancel"))["canceled"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel)
        await until(lambda: world.sql("SELECT 1 FROM tasks WHERE status = 'canceled'"))
        await trio.sleep(A_WHILE)
        assert answered == []
        gate.open()
    assert answered == [True]


async def test_no_assignment_and_no_ack_before_its_commit(world: World, gate: CommitGate) -> None:
    stop = world.gate()
    await world.start("n1", control={**QUIET, "DATABASE_URL": gate.dsn})
    gate.close()
    task = await world.submit(f"{stop.wait}; echo out; {stop.wait}")
    await until(lambda: world.sql("SELECT 1 FROM job_attempts"))
    await trio.sleep(A_WHILE)
    assert (await world.agent_status("n1"))["held"] == [], "assigned before the claim was known to be committed"
    gate.open()

    async def unacknowledged() -> int:
        return int((await world.agent_status("n1"))["spool"]["unacknowledged"])

    async def told() -> bool:
        started = await world.sql("SELECT 1 FROM job_attempts WHERE started_at IS NOT NULL")
        return bool(started) and await unacknowledged() == 0

    await until(told)
    gate.close()
    stop.open()
    await until(lambda: world.sql("SELECT 1 FROM job_output"))
    await trio.sleep(A_WHILE)
    assert await unacknowledged() == 1, "acknowledged before it was known to be committed"
    gate.open()
    await until(told)
    stop.open()
    assert (await world.result(task))["stdout"] == "out\n"


@pytest.fixture
def home() -> Iterator[Path]:
    yield from open_home()


@contextmanager
def slow_syncs(pid: int) -> Iterator[None]:
    """Each fdatasync of that process takes a second from now on."""
    slow = f"inject=fdatasync:delay_enter={int(SYNC_SECONDS * 1e6)}"
    command = ["strace", "-f", "-p", str(pid), "-e", "trace=fdatasync", "-e", slow, "-o", "/dev/null"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as strace:
        assert strace.stderr is not None
        assert b"attached" in strace.stderr.readline()
        try:
            yield
        finally:
            strace.terminate()


async def test_a_node_says_nothing_before_its_sync_has_answered(home: Path) -> None:
    """What is said after two syncs of a second each comes after two seconds."""
    async with open_fake_server() as server, agent(server.url, home / "state", **PROCESS) as process:
        link = await server.linked()
        job = assignment("process", "echo out")
        with slow_syncs(process.pid):
            began = trio.current_time()
            await link.send("jobs.assign", jobs=[job])
            await link.expect("jobs.accepted")
            accepted = trio.current_time() - began
            await link.expect_record("jobs.finished", job["assignment_id"])
            finished = trio.current_time() - began
    assert accepted >= SYNC_SECONDS
    assert finished >= accepted + SYNC_SECONDS
